//! End-to-end tests against a real container engine. `cargo xtask e2e` prepares what they need and runs them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![expect(clippy::print_stdout, reason = "what the tests measure is for a person to read")]

mod agents;
mod canaries;
mod compose_config;
mod egress;
mod extend;
mod git;
mod install;
mod kubernetes;
mod launch;
mod learn;
mod lifecycle;
mod outside;
mod pipelock;
mod platform;
mod podman;
mod pool;
mod ports;
mod remote;
mod scale;
mod seal;
mod secrets;
mod sidecar_state;
mod sidecars;
mod supervise;
mod verify;
mod why;
mod workspace;
