//! Ends processes in a container.

use std::time::{Duration, Instant};

use bottle_exec::{Command, Control, ExecError, ExitStatus, Output, Stdin, chain};
use serde::{Deserialize, Serialize};

use crate::client::Engine;
use crate::error::{EngineError, may_be_of_client};
use crate::exec::Exec;

/// The script that finds and ends processes, for the standard input of a shell. It needs `sh`, `grep`, `sleep` and `/proc`.
const KILL: &str = include_str!("kill.sh");

/// The environment variable that identifies the processes of one exec.
const MARK: &str = "BOTTLE_EXEC";

/// The script, for `sh -c`, that becomes the command in its arguments. Before, it sets the limit of file locks to the
/// number of the exec. Linux has ignored that limit since 2.6, every child inherits it, and without a capability no
/// process can raise it again. The option is `-x` in Bash and `-w` in dash and `BusyBox`. gVisor refuses to set it.
const MARKED: &str = r#"ulimit -x "$BOTTLE_EXEC" 2>/dev/null || ulimit -w "$BOTTLE_EXEC" 2>/dev/null; exec "$@""#;

/// The same in the directory in its first argument. The engine would put the message about an unknown one on standard output.
const MARKED_IN: &str = r#"ulimit -x "$BOTTLE_EXEC" 2>/dev/null || ulimit -w "$BOTTLE_EXEC" 2>/dev/null; cd -- "$1" || exit 126; unset OLDPWD; shift; exec "$@""#;

/// Timeout for ending processes. The script takes 1.5 s if they ignore SIGTERM, and longer under gVisor.
const PATIENCE: Duration = Duration::from_secs(10);

/// Age up to which the engine may not yet have started the process of an exec.
const YOUNG: Duration = Duration::from_secs(5);

/// Number of times that the script looks, at intervals of 0.1 s, for the process of an exec of that age.
pub(crate) const LOOKS: &str = "10";

/// The random number of one exec, which its processes carry in their environment and in a resource limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark(String);

impl Mark {
    pub(crate) fn new() -> Self {
        // Falls back to process id and time if the system provides no randomness.
        let number = getrandom::u64().unwrap_or_else(|_| {
            let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
            u64::from(std::process::id()) << 32 ^ u64::from(since.unwrap_or_default().subsec_nanos())
        });
        // 18 digits fit in a resource limit.
        Self(format!("{MARK}={}", 10_u64.pow(17) + number % (9 * 10_u64.pow(17))))
    }

    /// Returns the entry of the environment.
    pub(crate) fn as_entry(&self) -> &str {
        &self.0
    }

    /// Returns the arguments in front of a command that give it the limit and a working directory.
    pub(crate) fn prologue(workdir: Option<&str>) -> Vec<&str> {
        match workdir {
            None => vec!["sh", "-c", MARKED, "sh"],
            Some(workdir) => vec!["sh", "-c", MARKED_IN, "sh", workdir],
        }
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
        let was_cancelled = self.control.cancel().is_cancelled();
        let started = Instant::now();
        let result = match self.run_any(command) {
            Ok(_) if command.interactive() && self.was_interrupted() => {
                Err(ExecError::Cancelled { command: command.brief() }.into())
            }
            result => result,
        };
        let interrupted = match &result {
            Ok(output) => matches!(output.status, ExitStatus::Signal(_)),
            Err(EngineError::Exec(error)) => {
                matches!(error, ExecError::TimedOut { .. } | ExecError::Cancelled { .. } | ExecError::Io { .. })
            }
            Err(_) => false,
        };
        if was_cancelled || !interrupted {
            return match result {
                Ok(output) if may_be_of_client(&output, command.interactive()) => {
                    self.require_running(container).map(|()| output)
                }
                result => result,
            };
        }
        self.end_interrupted(container, user, mark, started, result, |output| output.status)
    }

    /// Stops in the container what an interrupted client started. Returns the client's result if nothing survives.
    pub(crate) fn end_interrupted<T>(
        &self,
        container: &str,
        user: Option<&str>,
        mark: &Mark,
        started: Instant,
        result: Result<T, EngineError>,
        status: impl FnOnce(&T) -> ExitStatus,
    ) -> Result<T, EngineError> {
        let Err(reason) = self.end_exec(container, user, mark, started) else { return result };
        let was_cancelled = matches!(&result, Err(error) if error.is_cancelled());
        let cause = match result {
            Ok(ended) => format!("the client ended with {}", status(&ended)),
            Err(error) => chain(&error),
        };
        let (container, reason) = (container.to_owned(), chain(&reason));
        Err(EngineError::StillRunning { container, cause, reason, was_cancelled })
    }

    /// Ends every process of one exec that was started at this time.
    pub(crate) fn end_exec(
        &self,
        container: &str,
        user: Option<&str>,
        mark: &Mark,
        started: Instant,
    ) -> Result<(), EngineError> {
        let looks = if started.elapsed() < YOUNG { LOOKS } else { "0" };
        self.end(container, user, &[mark.as_entry(), looks])
    }

    fn require_running(&self, container: &str) -> Result<(), EngineError> {
        let state = match self.container(container)? {
            Some(state) if state.status == "running" => return Ok(()),
            Some(state) => state.to_string(),
            None => "does not exist".to_owned(),
        };
        Err(EngineError::NotRunning { container: container.to_owned(), state })
    }

    /// Returns true if the token is cancelled. A signal to a terminal's process group also reaches the client, which ends
    /// with status 0 at SIGTERM and SIGINT, perhaps before the caller has cancelled the token.
    fn was_interrupted(&self) -> bool {
        let token = self.control.cancel();
        if !token.is_cancelled() {
            std::thread::sleep(Duration::from_millis(20));
        }
        token.is_cancelled()
    }

    /// Ends every process of a user in a container except the container's own command: first with SIGTERM, then with
    /// SIGKILL. Without a user, it is the container's own user. Processes of other users, including root, keep running.
    ///
    /// # Errors
    ///
    /// Returns an error when a process survives, or the container has no `sh`.
    pub fn kill_all(&self, container: &str, user: Option<&str>) -> Result<(), EngineError> {
        self.end(container, user, &[])
    }

    /// Runs the script. It is not stopped by a token that is cancelled already, since that one interrupted the exec.
    pub(crate) fn end(&self, container: &str, user: Option<&str>, args: &[&str]) -> Result<(), EngineError> {
        let mut exec = Exec::new(["sh", "-s"].iter().chain(args).copied()).with_timeout(PATIENCE);
        exec.user = user.map(str::to_owned);
        exec.stdin = Stdin::Bytes(KILL.into());
        let command = self.exec_command(container, &exec, None, false)?;
        let command = command.with_label(format!("end processes in {container}"));
        let control = self.control.for_cleanup();
        let control = if control.cancel().is_cancelled() { Control::default() } else { control };
        let engine = self.clone().with_control(control);
        engine.run(&command).map(drop)
    }
}
