//! The typed Compose document and the pure renderer.
