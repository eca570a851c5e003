//! The typed Compose document and the pure renderer: a resolved plan goes in, a document comes out, and the document
//! becomes YAML. It runs nothing, reads nothing and writes nothing; running is `bottle-exec`'s part.
//!
//! A bottle's sidecars implement [`Sidecar`]; [`render`] puts those that apply around the agent.

mod agent;
pub mod document;
mod render;
pub mod sidecar;
mod yaml;

pub use agent::{AGENT_CA_BUNDLE, AGENT_CA_CERT, AGENT_PROMPT, AGENT_USER, agent_argv};
pub use document::ComposeFile;
pub use render::{RenderError, render};
pub use sidecar::{AgentAccess, Sidecar};
pub use yaml::to_plain_yaml;
