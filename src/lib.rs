//! Launch an AI coding agent inside a sealed Docker Compose project.

mod agent;
mod bottles;
pub mod env_file;
mod host;
pub mod launch;
mod provision;
pub mod workspace;

pub use agent::agent_command;
pub use bottle_compose as compose;
pub use bottle_exec as exec;
pub use bottle_exec::{Bottle, BottleError, Engine, EngineChoice, EngineError};
pub use bottle_plan as plan;
pub use bottle_plan::{BottlePlan, Manifest};
pub use bottle_sidecars as sidecars;
pub use bottle_tls as tls;
pub use bottles::{Site, attach, down, list, logs, recover};
pub use host::{Host, random_bytes};
pub use launch::{LaunchError, LaunchOptions, launch};
pub use provision::ProvisionError;
