//! The sidecars of a bottle and the agent's own image. Each sidecar's module has its image's build context, its
//! configuration files and its service. This crate only produces text from a plan. The launcher writes the files and
//! builds the images.

pub mod agent;
pub mod audit;
pub mod context;
pub mod egress;
pub mod git_gate;
mod material;
pub mod outlet;
pub mod pipelock;
pub mod seal;
pub mod supervise;

pub use context::{BuildContext, ContextFile};
pub use material::{Material, configuration, deploy_key, git_gate_facts, supervise_facts, upstream_ca};

use std::sync::Arc;

use bottle_compose::Sidecar;

/// Returns the built-in sidecars, in the order of the Compose document.
pub fn all() -> [Arc<dyn Sidecar>; 5] {
    [
        Arc::new(outlet::Outlet),
        Arc::new(pipelock::Pipelock),
        Arc::new(git_gate::GitGate),
        Arc::new(egress::Egress),
        Arc::new(supervise::Supervise),
    ]
}
