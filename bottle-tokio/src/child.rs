//! A command that runs while its caller reads and writes its streams.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bottle_engine::{EngineError, LiveExec};
use bottle_exec::{ExitStatus, TerminalSize};

use crate::blocking::{blocking, drop_later};
use crate::stream::{ChildStdin, ChildStdout};

/// Shortest and longest pause between two looks at a command that runs.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// A running command in a bottle. Dropping it stops the command in the background, unless it has ended. If the agent is paused,
/// the command is stopped when the agent is resumed ([`bottle::Bottle::resume`]).
#[derive(Debug)]
#[non_exhaustive]
pub struct Child {
    /// Standard input. Dropping it, or shutting it down, is the end of file. `None` if it was taken.
    pub stdin: Option<ChildStdin>,
    /// Standard output, or the output of the terminal. `None` if it was taken.
    pub stdout: Option<ChildStdout>,
    /// Standard error. `None` if it was taken, or the command has a terminal.
    pub stderr: Option<ChildStdout>,
    /// `None` only while it is dropped.
    live: Option<Arc<Mutex<LiveExec>>>,
}

impl Child {
    pub(crate) fn new(mut live: LiveExec) -> io::Result<Self> {
        let stdin = live.stdin.take().map(ChildStdin::new).transpose()?;
        let stdout = live.stdout.take().map(ChildStdout::new).transpose()?;
        let stderr = live.stderr.take().map(ChildStdout::new).transpose()?;
        Ok(Self { stdin, stdout, stderr, live: Some(Arc::new(Mutex::new(live))) })
    }

    /// Closes standard input, unless it was taken, and waits for the end. Output is not read: a command that fills its pipe
    /// does not end. Dropping the future changes nothing.
    ///
    /// # Errors
    ///
    /// As [`LiveExec::wait`].
    pub async fn wait(&mut self) -> Result<ExitStatus, EngineError> {
        self.stdin = None;
        let mut pause = PAUSE.0;
        loop {
            if let Some(status) = self.with(LiveExec::try_wait).await? {
                return Ok(status);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Returns the status, or `None` while the command runs.
    ///
    /// # Errors
    ///
    /// As [`LiveExec::try_wait`].
    pub async fn try_wait(&mut self) -> Result<Option<ExitStatus>, EngineError> {
        self.with(LiveExec::try_wait).await
    }

    /// Stops the command with everything that it started, in the container. After the end it does nothing.
    ///
    /// # Errors
    ///
    /// As [`LiveExec::kill`].
    pub async fn kill(&mut self) -> Result<(), EngineError> {
        self.with(LiveExec::kill).await
    }

    /// Sets the size of the command's terminal.
    ///
    /// # Errors
    ///
    /// As [`LiveExec::resize`].
    pub async fn resize(&mut self, size: TerminalSize) -> Result<(), EngineError> {
        self.with(move |live| live.resize(size)).await
    }

    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut LiveExec) -> T + Send + 'static) -> T {
        let live = Arc::clone(self.live.as_ref().expect("it is only taken when it is dropped"));
        blocking(move || work(&mut live.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop_later(self.live.take());
    }
}
