//! Context that every step of a launch uses.

use std::thread;

use bottle_engine::Engine;
use bottle_exec::step;
use bottle_plan::resolved::EngineFacts;
use bottle_plan::{BottlePlan, StateLayout};

use crate::Bottles;
use crate::inputs::Inputs;
use crate::launch_error::{LaunchCause, LaunchError, Step};
use crate::lifecycle::{Owner, TeardownGuard, Undo};

/// Runs one step and reports its start and end, unless the launch was cancelled.
pub(super) fn in_step<T>(
    bottles: &Bottles,
    name: Step,
    work: impl FnOnce() -> Result<T, LaunchCause>,
) -> Result<T, LaunchError> {
    let work = || if bottles.cancel.is_cancelled() { Err(LaunchCause::Cancelled) } else { work() };
    step(&*bottles.observer, name.as_str(), work).map_err(|cause| LaunchError::new(name, cause))
}

/// Runs two pieces of work at the same time. If both fail, the error of the first is returned.
pub(super) fn both<A: Send, B, E: Send>(
    first: impl FnOnce() -> Result<A, E> + Send,
    second: impl FnOnce() -> Result<B, E>,
) -> Result<(A, B), E> {
    thread::scope(|scope| {
        let first = scope.spawn(first);
        let second = second();
        let first = first.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((first?, second?))
    })
}

/// A launch in progress.
pub(super) struct Launch<'a> {
    pub(super) plan: BottlePlan,
    pub(super) bottles: &'a Bottles,
    pub(super) state: StateLayout,
    pub(super) ready: Ready,
    pub(super) owner: Owner,
    /// Value of the label that identifies the bottle's state root.
    pub(super) root_id: String,
    pub(super) guard: &'a TeardownGuard,
}

/// Results of the checks.
pub(super) struct Ready {
    /// Capabilities of the engine.
    pub(super) engine: EngineFacts,
    /// Inputs of the plan from the host.
    pub(super) inputs: Inputs,
}

impl Launch<'_> {
    pub(super) fn step<T>(&self, name: Step, work: impl FnOnce() -> Result<T, LaunchCause>) -> Result<T, LaunchError> {
        in_step(self.bottles, name, work)
    }

    /// Returns the undo of everything that belongs to the Compose project.
    pub(super) fn compose_down(&self) -> Undo {
        Undo::ComposeDown {
            project: self.plan.names.project(),
            compose_file: self.state.compose_file(),
            project_dir: self.state.dir().to_owned(),
        }
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.bottles.engine
    }
}
