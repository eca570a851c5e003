//! Ends processes in a container.

use std::time::Duration;

use bottle_exec::{Command, ExecError, ExitStatus, Output, Stdin, chain};

use crate::client::Engine;
use crate::error::EngineError;
use crate::exec::Exec;

/// The script that finds and ends processes, for the standard input of a shell. It needs `sh`, `grep`, `sleep` and `/proc`.
const KILL: &str = include_str!("kill.sh");

/// The environment variable that identifies the processes of one exec.
const MARK: &str = "BOTTLE_EXEC";

/// Timeout for ending processes. The script takes 1.5 s if they ignore SIGTERM, and longer under gVisor.
const PATIENCE: Duration = Duration::from_secs(10);

/// A random entry in the environment of one exec, which its children inherit.
pub(crate) struct Mark(String);

impl Mark {
    pub(crate) fn new() -> Self {
        // Falls back to process id and time if the system provides no randomness.
        let number = getrandom::u64().unwrap_or_else(|_| {
            let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
            u64::from(std::process::id()) << 32 ^ u64::from(since.unwrap_or_default().subsec_nanos())
        });
        Self(format!("{MARK}={number:016x}"))
    }

    pub(crate) fn as_entry(&self) -> &str {
        &self.0
    }
}

impl Engine {
    /// Runs the client of an exec. If it is interrupted, stops the processes that it started in the container.
    pub(crate) fn attend(
        &self,
        container: &str,
        user: Option<&str>,
        mark: &Mark,
        command: &Command,
    ) -> Result<Output, EngineError> {
        let started = !self.control.cancel().is_cancelled();
        let result = self.run_any(command);
        let interrupted = match &result {
            Ok(output) => matches!(output.status, ExitStatus::Signal(_)),
            Err(EngineError::Exec(error)) => {
                matches!(error, ExecError::TimedOut { .. } | ExecError::Cancelled { .. } | ExecError::Io { .. })
            }
            Err(_) => false,
        };
        if !started || !interrupted {
            return result;
        }
        match self.end(container, user, Some(mark.as_entry())) {
            Ok(()) => result,
            Err(reason) => {
                let was_cancelled = matches!(&result, Err(error) if error.is_cancelled());
                let cause = match result {
                    Ok(output) => format!("the client ended with {}", output.status),
                    Err(error) => chain(&error),
                };
                let (container, reason) = (container.to_owned(), chain(&reason));
                Err(EngineError::StillRunning { container, cause, reason, was_cancelled })
            }
        }
    }

    /// Ends every process of a user in a container except the container's own command: first with SIGTERM, then with
    /// SIGKILL. Without a user, it is the container's own user. Processes of other users, including root, keep running.
    ///
    /// # Errors
    ///
    /// Returns an error when a process survives, or the container has no `sh`.
    pub fn kill_all(&self, container: &str, user: Option<&str>) -> Result<(), EngineError> {
        self.end(container, user, None)
    }

    fn end(&self, container: &str, user: Option<&str>, mark: Option<&str>) -> Result<(), EngineError> {
        let mut exec = Exec::new(["sh", "-s"].into_iter().chain(mark)).with_timeout(PATIENCE);
        exec.user = user.map(str::to_owned);
        exec.stdin = Stdin::Bytes(KILL.into());
        let command = self.exec_command(container, &exec, None, false)?;
        let command = command.with_label(format!("end processes in {container}"));
        let engine = self.clone().with_control(self.control.for_cleanup());
        engine.run(&command).map(drop)
    }
}
