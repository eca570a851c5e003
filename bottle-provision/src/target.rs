//! Running scripts in the agent's container.

use std::time::Duration;

use bottle_engine::{Engine, Exec};
use bottle_exec::Stdin;

use crate::error::ProvisionError;
use crate::script::Script;

/// The agent's container.
pub(crate) struct Target<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) container: String,
}

impl Target<'_> {
    /// Runs a script as a user and returns nothing.
    pub(crate) fn run(&self, user: &str, script: &Script, input: Vec<u8>) -> Result<(), ProvisionError> {
        self.output(user, script, input).map(drop)
    }

    /// Runs a script as a user and returns its standard output.
    pub(crate) fn output(&self, user: &str, script: &Script, input: Vec<u8>) -> Result<Vec<u8>, ProvisionError> {
        let exec = Exec::new(["sh", "-c", &script.text()])
            .with_user(user)
            .with_workdir("/")
            .with_stdin(Stdin::Bytes(input))
            .with_timeout(Duration::from_secs(60));
        let output = self
            .engine
            .exec(&self.container, &exec)
            .map_err(|source| ProvisionError::Engine { what: script.first_task(), source })?;
        if !output.status.is_success() {
            let (what, stderr) = script.failed_task(&output.stderr.last_lines(6));
            return Err(ProvisionError::Failed { what, status: output.status.to_string(), stderr });
        }
        Ok(output.stdout.bytes())
    }
}
