//! Tests that need a container engine. They are ignored unless asked for: `cargo xtask e2e`.

mod compose_config;
