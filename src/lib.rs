//! Launch an AI coding agent inside a sealed Docker Compose project.
