//! The sidecars of a bottle, one module each: its image's build context, its configuration files and its service; and the
//! agent's own image. Everything here is text made from a plan; laying it down and building it is the launcher's part.

pub mod agent;
pub mod context;
pub mod egress;
pub mod git_gate;
pub mod pipelock;
pub mod seal;
pub mod supervise;

pub use context::{BuildContext, ContextFile};

use std::sync::Arc;

use bottle_compose::Sidecar;

/// The four sidecars, in the order of the Compose document.
pub fn all() -> [Arc<dyn Sidecar>; 4] {
    [
        Arc::new(pipelock::Pipelock),
        Arc::new(git_gate::GitGate),
        Arc::new(egress::Egress),
        Arc::new(supervise::Supervise),
    ]
}
