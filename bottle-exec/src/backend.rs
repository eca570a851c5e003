//! The trait that runs commands.

use std::fmt::Debug;
use std::sync::Arc;

use crate::child::Child;
use crate::command::Command;
use crate::control::Control;
use crate::error::ExecError;
use crate::output::Output;

/// Runs commands: on this host, on another host, in a container, or not at all.
///
/// A backend returns the exit status of the process, even if it is a failure. The caller decides what counts as failure
/// ([`Output::success`]). A backend applies every setting of a [`Command`] and never shows its secrets. When it reports
/// a timeout or a cancellation, it has stopped everything that the command started. The crate `bottle-conformance`
/// tests these rules.
pub trait Backend: Send + Sync + Debug {
    /// Runs a command to its end.
    ///
    /// # Errors
    ///
    /// Returns an error if the command could not be started, timed out or was cancelled. A failure status is not an
    /// error.
    fn run(&self, command: &Command, control: &Control) -> Result<Output, ExecError>;

    /// Starts a command and returns it while it runs, with a pipe for each stream. The destinations of streams and the
    /// timeout of the command are not used. Default: an error, for a backend that cannot.
    ///
    /// # Errors
    ///
    /// Returns an error if the command could not be started, or the backend cannot start a live command.
    fn spawn(&self, command: &Command, _: &Control) -> Result<Child, ExecError> {
        let message = "this backend only runs commands to their end (`Backend::spawn`)".to_owned();
        Err(ExecError::Backend { command: command.brief(), message })
    }

    /// Returns a command as one of the standard library, which the caller starts with streams of its own. The streams and the
    /// timeout of the command are not used. Default: an error, for a backend that runs nothing on this host.
    ///
    /// # Errors
    ///
    /// Returns an error if the program does not exist, or the backend runs nothing on this host.
    fn process(&self, command: &Command) -> Result<std::process::Command, ExecError> {
        let message = "this backend runs no process of this host (`Backend::process`)".to_owned();
        Err(ExecError::Backend { command: command.brief(), message })
    }
}

impl<B: Backend + ?Sized> Backend for Arc<B> {
    fn run(&self, command: &Command, control: &Control) -> Result<Output, ExecError> {
        (**self).run(command, control)
    }

    fn spawn(&self, command: &Command, control: &Control) -> Result<Child, ExecError> {
        (**self).spawn(command, control)
    }

    fn process(&self, command: &Command) -> Result<std::process::Command, ExecError> {
        (**self).process(command)
    }
}
