//! Provisioning: the files and settings that the agent's container gets after its start.

mod claude;
mod codex;
mod error;
mod home;
mod provisioner;
mod script;
mod steps;
mod target;

pub use error::ProvisionError;
pub use provisioner::{AgentContainer, Builtin, Provisioner, Then};
pub use steps::handle;
