//! Launch an AI coding agent inside a sealed Docker Compose project.

pub mod env_file;
mod host;
pub mod workspace;

pub use host::Host;
