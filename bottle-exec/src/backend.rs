//! Where commands are run.

use std::fmt::Debug;
use std::sync::Arc;

use crate::command::Command;
use crate::control::Control;
use crate::error::ExecError;
use crate::output::Output;

/// Runs commands: on this host, on another one, in a container, or nowhere at all.
///
/// A backend gives back how the process ended, whatever the status; what counts as failure is for the caller to say
/// ([`Output::success`]). It honours everything that a [`Command`] asks for, lets none of its secrets show, and has
/// stopped everything that the command started when it reports a timeout or a cancellation.
/// The crate `bottle-conformance` puts that to the test.
pub trait Backend: Send + Sync + Debug {
    /// Runs a command to its end.
    ///
    /// # Errors
    ///
    /// When it could not be started, took too long or was cancelled; not when it ended with a failure of its own.
    fn run(&self, command: &Command, control: &Control) -> Result<Output, ExecError>;
}

impl<B: Backend + ?Sized> Backend for Arc<B> {
    fn run(&self, command: &Command, control: &Control) -> Result<Output, ExecError> {
        (**self).run(command, control)
    }
}
