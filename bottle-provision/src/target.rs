//! Running scripts in the agent's container.

use std::time::Duration;

use bottle_engine::{Engine, Exec};
use bottle_exec::{ExecError, Output, Stdin};

use crate::error::ProvisionError;
use crate::script::Script;

/// The agent's container.
pub(crate) enum Target<'a> {
    /// A container of an engine, in which commands run as any user.
    Container { engine: &'a Engine, name: String },
    /// A place where every command runs as the agent's user.
    Shell(&'a Shell<'a>),
}

/// A function that runs a shell script as the agent's user, with this standard input.
pub type Shell<'a> = dyn Fn(&str, Vec<u8>) -> Result<Output, ExecError> + 'a;

impl Target<'_> {
    /// Runs a script as a user and returns nothing.
    pub(crate) fn run(&self, user: &str, script: &Script, input: Vec<u8>) -> Result<(), ProvisionError> {
        self.output(user, script, input).map(drop)
    }

    /// Runs a script as a user and returns its standard output.
    pub(crate) fn output(&self, user: &str, script: &Script, input: Vec<u8>) -> Result<Vec<u8>, ProvisionError> {
        let failed = |source| ProvisionError::Engine { what: script.first_task(), source };
        let output = match self {
            Self::Container { engine, name } => {
                let exec = Exec::new(["sh", "-c", &script.text()])
                    .with_user(user)
                    .with_workdir("/")
                    .with_stdin(Stdin::Bytes(input))
                    .with_timeout(Duration::from_secs(60));
                engine.exec(name, &exec).map_err(failed)?
            }
            Self::Shell(run) => run(&script.text(), input).map_err(|error| failed(error.into()))?,
        };
        if !output.status.is_success() {
            let (what, stderr) = script.failed_task(&output.stderr.last_lines(6));
            return Err(ProvisionError::Failed { what, status: output.status.to_string(), stderr });
        }
        Ok(output.stdout.bytes())
    }
}
