//! Backends around a backend.

use std::time::Duration;

use crate::backend::Backend;
use crate::command::Command;
use crate::control::Control;
use crate::error::ExecError;
use crate::output::Output;

/// Tells `tracing` of every command, redacted: its start at debug level, its end at debug level or, when it could not
/// be run to its end, at warn level.
#[derive(Debug, Clone)]
pub struct Logging<B>(B);

impl<B: Backend> Logging<B> {
    /// Logs what `inner` runs.
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
}

/// Gives every command that brings no timeout of its own one, and shortens longer ones. Interactive commands are left
/// alone: a person decides when they end.
#[derive(Debug, Clone)]
pub struct Timeout<B> {
    inner: B,
    limit: Duration,
}

impl<B: Backend> Timeout<B> {
    /// Lets no command of `inner` run longer than `limit`.
    pub const fn new(inner: B, limit: Duration) -> Self {
        Self { inner, limit }
    }
}

impl<B: Backend> Backend for Timeout<B> {
    fn run(&self, command: &Command, control: &Control) -> Result<Output, ExecError> {
        if command.interactive() || command.timeout().is_some_and(|own| own <= self.limit) {
            return self.inner.run(command, control);
        }
        self.inner.run(&command.clone().with_timeout(self.limit), control)
    }
}
