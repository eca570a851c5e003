//! What the agent's container is given after its start, each thing looked at afterwards.
//!
//! Its container has no capability at all, root included. So what is the system's is written by its root, what is the
//! agent's by the agent, each in one command that also checks what it did.

mod error;
mod mcp;
mod provisioner;
mod steps;
mod target;

pub use error::ProvisionError;
pub use provisioner::{AgentContainer, Builtin, Provisioner, Then};
pub(crate) use steps::handle;
