//! A backend that wraps another backend.

use crate::backend::Backend;
use crate::child::Child;
use crate::command::Command;
use crate::control::Control;
use crate::error::ExecError;
use crate::output::Output;

/// Logs every command with `tracing`, redacted: its start and its end at debug level, or at warn level if it could not
/// be run to its end.
#[derive(Debug, Clone)]
pub struct Logging<B>(B);

impl<B: Backend> Logging<B> {
    /// Wraps `inner` and logs the commands that it runs.
    pub const fn new(inner: B) -> Self {
        Self(inner)
    }
}

impl<B: Backend> Backend for Logging<B> {
    fn run(&self, command: &Command, control: &Control) -> Result<Output, ExecError> {
        tracing::debug!(label = command.label(), command = %command, "run");
        let result = self.0.run(command, control);
        match &result {
            Ok(output) => tracing::debug!(
                label = command.label(),
                status = %output.status,
                millis = u64::try_from(output.duration.as_millis()).unwrap_or(u64::MAX),
                "ended"
            ),
            Err(error) => tracing::warn!(label = command.label(), error = %error, "not run to its end"),
        }
        result
    }

    fn spawn(&self, command: &Command, control: &Control) -> Result<Child, ExecError> {
        tracing::debug!(label = command.label(), command = %command, "start");
        let result = self.0.spawn(command, control);
        if let Err(error) = &result {
            tracing::warn!(label = command.label(), error = %error, "not started");
        }
        result
    }

    fn process(&self, command: &Command) -> Result<std::process::Command, ExecError> {
        tracing::debug!(label = command.label(), command = %command, "hand out");
        self.0.process(command)
    }
}
