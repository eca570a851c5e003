//! The sidecars of a bottle, one module each: its image's build context, its configuration files and its service; and the
//! agent's own image. Everything here is text made from a plan; laying it down and building it is the launcher's part.

pub mod context;
pub mod egress;
pub mod git_gate;
pub mod pipelock;
pub mod supervise;

pub use context::{BuildContext, ContextFile};

use bottle_compose::Sidecar;

/// The four sidecars, in the order of the Compose document.
pub fn all() -> [&'static dyn Sidecar; 4] {
    [&pipelock::Pipelock, &git_gate::GitGate, &egress::Egress, &supervise::Supervise]
}
