//! Launch an AI coding agent inside a sealed Docker Compose project: a plan goes in, a running bottle comes out, and
//! nothing is left when it is closed. This crate is the facade over the others, and the launch flow; what a bottle is
//! decides `bottle-plan`, how it looks to Compose `bottle-compose`, how commands are run `bottle-exec`.
//!
//! The README's example compiles as part of this crate's tests.

mod agent;
mod bottles;
#[cfg(feature = "deploy-keys")]
pub mod deploy_keys;
pub mod env_file;
mod error;
mod host;
pub mod launch;
mod manifest_files;
mod provision;
mod report;
pub mod workspace;

pub use agent::agent_command;
pub use bottle_compose as compose;
pub use bottle_exec as exec;
pub use bottle_exec::{Engine, EngineChoice, EngineError};
pub use bottle_lifecycle as lifecycle;
pub use bottle_plan as plan;
pub use bottle_plan::{BottlePlan, Manifest};
pub use bottle_posture as posture;
pub use bottle_sidecars as sidecars;
pub use bottle_supervise as supervise;
pub use bottle_tls as tls;
pub use bottles::Bottles;
pub use error::{Error, Result};
pub use host::Host;
pub use launch::LaunchError;
pub use lifecycle::{Bottle, BottleError, ServiceHealth};
pub use manifest_files::check_files;
pub use provision::{AgentContainer, Builtin, ProvisionError, Provisioner, Then};
pub use report::{Report, report};

/// The names that most programs need: `use bottle::prelude::*;`.
pub mod prelude {
    pub use bottle_exec::engine::Exec;
    pub use bottle_plan::manifest::{AgentSpec, BottleSpec, InjectSpec, RouteSpec, UpstreamSpec};
    pub use bottle_plan::{BottlePlan, Manifest, PlanRequest, Slug};

    pub use crate::{Bottle, Bottles, Error, Host};
}

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;
