//! Running commands in the agent's container.

use bottle_exec::engine::Exec;
use bottle_exec::{Engine, Stdin};

use super::error::ProvisionError;

/// The agent's container.
pub(super) struct Target<'a> {
    pub(super) engine: &'a Engine,
    pub(super) container: String,
}

impl Target<'_> {
    /// Runs a shell script with something on its standard input.
    pub(super) fn run(
        &self,
        what: &'static str,
        user: &str,
        script: &str,
        input: Vec<u8>,
    ) -> Result<(), ProvisionError> {
        self.run_with(what, user, script, &[], input)
    }

    pub(super) fn run_with(
        &self,
        what: &'static str,
        user: &str,
        script: &str,
        arguments: &[&str],
        input: Vec<u8>,
    ) -> Result<(), ProvisionError> {
        let argv = ["sh", "-c", script].into_iter().chain(arguments.iter().copied());
        let exec = Exec::new(argv)
            .with_user(user)
            .with_workdir("/")
            .with_stdin(Stdin::Bytes(input))
            .with_timeout(std::time::Duration::from_secs(60));
        let output =
            self.engine.exec(&self.container, &exec).map_err(|source| ProvisionError::Engine { what, source })?;
        if output.status.is_success() {
            return Ok(());
        }
        Err(ProvisionError::Failed { what, status: output.status.to_string(), stderr: output.stderr.last_lines(5) })
    }
}
