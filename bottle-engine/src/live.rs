//! A command in a container that runs while its caller reads and writes its streams.

use std::thread;
use std::time::{Duration, Instant};

use bottle_exec::{Child, ChildInput, ChildOutput, ExecError, ExitStatus, Stdin, TerminalSize, chain};

use crate::client::Engine;
use crate::dropped::{DroppedExec, DroppedExecs};
use crate::error::EngineError;
use crate::exec::Exec;
use crate::kill::Mark;

/// Time that the client gets to end after its command was stopped.
const FAREWELL: Duration = Duration::from_secs(1);

/// Time after which the client is stopped while its command is being stopped. Dockerd reports the end of no command in a
/// container while a client of another one, which has ended, does not read what it printed.
const UNREAD: Duration = Duration::from_secs(3);

/// Status of a command that was stopped while its output was not read, so that its client could not report the status.
const KILLED: ExitStatus = ExitStatus::Signal(9);

/// A running command in a container. See [`Engine::spawn`].
///
/// Dropping it stops the command in the container, unless it has ended. In a container that is paused nothing can be stopped.
/// A command of a bottle is then stopped when the agent is resumed; any other one runs on. So does a command of a bottle that is
/// kept, if this process is killed.
#[derive(Debug)]
#[non_exhaustive]
pub struct LiveExec {
    /// Standard input. Dropping it is the end of file, except with a terminal, where the end is the character 4 (Ctrl-D). `None`
    /// if it was taken.
    pub stdin: Option<ChildInput>,
    /// Standard output, or the output of the terminal. `None` if it was taken.
    pub stdout: Option<ChildOutput>,
    /// Standard error. `None` if it was taken, or the command has a terminal.
    pub stderr: Option<ChildOutput>,
    client: Child,
    engine: Engine,
    container: String,
    user: Option<String>,
    mark: Mark,
    started: Instant,
    /// True once nothing of the command runs.
    is_over: bool,
    /// True if the client was stopped. Its status is then not that of the command.
    is_stopped: bool,
    dropped: Option<DroppedExecs>,
}

impl Engine {
    /// Starts a command in a container and returns it while it runs, with a pipe for each stream, or one terminal if
    /// `terminal` is given. The command's standard input and timeout in `exec` are not used.
    ///
    /// # Errors
    ///
    /// Returns an error when the engine's client cannot be started, or the backend cannot start a live command. A
    /// container that does not run, or a program that does not exist, is an exit status with a message on standard error.
    pub fn spawn(&self, container: &str, exec: &Exec, terminal: Option<TerminalSize>) -> Result<LiveExec, EngineError> {
        let mark = Mark::new();
        // Not `Null`, so that the client passes on what is written.
        let exec = Exec { stdin: Stdin::Bytes(Vec::new()), timeout: None, ..exec.clone() };
        let mut command = self.exec_command(container, &exec, Some(&mark), terminal.is_some())?;
        if let Some(size) = terminal {
            command = command.with_terminal(size);
        }
        let mut client = self.backend.spawn(&command, &self.control)?;
        let (stdin, stdout, stderr) = (client.stdin.take(), client.stdout.take(), client.stderr.take());
        let (engine, container, user, started) = (self.clone(), container.to_owned(), exec.user, Instant::now());
        Ok(LiveExec {
            stdin,
            stdout,
            stderr,
            client,
            engine,
            container,
            user,
            mark,
            started,
            is_over: false,
            is_stopped: false,
            dropped: None,
        })
    }

    /// Starts a command that ends with its standard input, in a container that may have no shell. Dropping the child stops
    /// the engine's client, which closes the command's standard input. The standard input and timeout in `exec` are not used.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Engine::spawn).
    pub fn spawn_bare(&self, container: &str, exec: &Exec) -> Result<Child, EngineError> {
        let exec = Exec { stdin: Stdin::Bytes(Vec::new()), timeout: None, ..exec.clone() };
        let command = self.exec_command(container, &exec, None, false)?;
        Ok(self.backend.spawn(&command, &self.control)?)
    }

    /// Returns the engine's client for a command in a container, as a command of the standard library. The client passes on
    /// its standard input, unless that of `exec` is [`Stdin::Null`]. With `tty` the caller's own terminal is that of the
    /// command. The timeout in `exec` is not used.
    ///
    /// # Errors
    ///
    /// Returns an error when the backend runs nothing on this host.
    pub fn process(&self, container: &str, exec: &Exec, tty: bool) -> Result<std::process::Command, EngineError> {
        let command = self.exec_command(container, exec, None, tty)?.with_interactive();
        Ok(self.backend.process(&command)?)
    }
}

impl LiveExec {
    /// Sets where the command is remembered if it is dropped while its container is paused. Default: nowhere.
    #[must_use]
    pub fn with_dropped(mut self, dropped: DroppedExecs) -> Self {
        self.dropped = Some(dropped);
        self
    }

    /// Closes standard input, unless it was taken, and waits for the end. Output is not read: a command that fills its pipe
    /// does not end.
    ///
    /// # Errors
    ///
    /// Returns an error when the token of the engine's control is cancelled, and [`EngineError::StillRunning`] when a
    /// process of the command then survives.
    pub fn wait(&mut self) -> Result<ExitStatus, EngineError> {
        self.stdin = None;
        let result = self.client.wait();
        self.settle(result)
    }

    /// Returns the status, or `None` while the command runs.
    ///
    /// # Errors
    ///
    /// As [`wait`](LiveExec::wait).
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, EngineError> {
        match self.client.try_wait()? {
            Some(status) => self.settle(Ok(status)).map(Some),
            None => Ok(None),
        }
    }

    /// Returns the client's result. If the client was interrupted, first stops what it started in the container.
    fn settle(&mut self, result: Result<ExitStatus, ExecError>) -> Result<ExitStatus, EngineError> {
        let is_interrupted = matches!(result, Err(ExecError::Cancelled { .. }) | Ok(ExitStatus::Signal(_)));
        let result = result.map_err(EngineError::from);
        if self.is_over || !is_interrupted {
            self.is_over |= result.is_ok();
            return if self.is_stopped { result.map(|_| KILLED) } else { result };
        }
        (self.is_over, self.is_stopped) = (true, result.is_err());
        let user = self.user.as_deref();
        self.engine.end_interrupted(&self.container, user, &self.mark, self.started, result, |status| *status)
    }

    /// Stops the command with everything that it started, in the container: SIGTERM, and SIGKILL half a second later. What
    /// it printed before can still be read, up to the size of a pipe if nobody read it meanwhile; then the status is that of
    /// SIGKILL. After the end it does nothing.
    ///
    /// A process that clears its environment and gives itself the mark of another command is not found. `kill_all` ends every
    /// process of the agent.
    ///
    /// # Errors
    ///
    /// Returns an error when a process survives, or the container has no `sh`.
    pub fn kill(&mut self) -> Result<(), EngineError> {
        if self.is_over || self.try_wait()?.is_some() {
            return Ok(());
        }
        let Self { client, engine, container, user, mark, started, is_stopped, .. } = self;
        thread::scope(|scope| {
            let ending = scope.spawn(|| engine.end_exec(container, user.as_deref(), mark, *started));
            let until = Instant::now() + UNREAD;
            while !ending.is_finished() && Instant::now() < until {
                thread::sleep(Duration::from_millis(5));
            }
            if !ending.is_finished() {
                *is_stopped = client.try_wait()?.is_none();
                client.kill()?;
            }
            ending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        self.is_over = true;
        // The client then ends by itself, with the status of the command and its last output.
        let until = Instant::now() + FAREWELL;
        while self.client.try_wait()?.is_none() {
            if Instant::now() >= until {
                self.is_stopped = true;
                return Ok(self.client.kill()?);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Sets the size of the command's terminal.
    ///
    /// # Errors
    ///
    /// Returns an error when the command has no terminal.
    pub fn resize(&mut self, size: TerminalSize) -> Result<(), EngineError> {
        Ok(self.client.resize(size)?)
    }
}

impl Drop for LiveExec {
    fn drop(&mut self) {
        let ended = self.kill().or_else(|error| match &self.dropped {
            Some(all) => all.add(&DroppedExec { user: self.user.clone(), mark: self.mark.clone() }),
            None => Err(error),
        });
        if let Err(error) = ended {
            tracing::warn!(container = self.container, error = chain(&error), "a command may still run");
        }
    }
}
