//! A command that runs while its caller reads and writes its streams.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::error::ExecError;
use crate::status::ExitStatus;

/// A command that was started by [`Backend::spawn`](crate::Backend::spawn) and may still run.
///
/// A stream that nobody reads fills up, and the command then waits. Dropping the child stops the command, with everything
/// that it started.
///
/// ```
/// use std::io::{Read as _, Write as _};
/// use bottle_exec::{Backend, Command, Control, Subprocess};
/// let backend = Subprocess::new(std::env::vars_os());
/// let mut child = backend.spawn(&Command::new("cat"), &Control::default())?;
/// let mut input = child.stdin.take().unwrap();
/// input.write_all(b"hello")?;
/// drop(input);
/// let mut text = String::new();
/// child.stdout.take().unwrap().read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// assert!(child.wait()?.is_success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Child {
    /// Standard input. Dropping it is the end of file. `None` if it was taken.
    pub stdin: Option<ChildInput>,
    /// Standard output, or the output of the terminal. `None` if it was taken.
    pub stdout: Option<ChildOutput>,
    /// Standard error. `None` if it was taken, or the command has a terminal.
    pub stderr: Option<ChildOutput>,
    process: Box<dyn ChildProcess>,
}

/// The process of a [`Child`], for implementations of [`Backend`](crate::Backend).
pub trait ChildProcess: Send + fmt::Debug {
    /// Waits for the end. Repeated calls return the same status.
    ///
    /// # Errors
    ///
    /// [`ExecError::Cancelled`] when the token of the control is cancelled; the command was then stopped.
    fn wait(&mut self) -> Result<ExitStatus, ExecError>;

    /// Returns the status, or `None` while the command runs.
    ///
    /// # Errors
    ///
    /// Returns an error when the process cannot be asked.
    fn try_wait(&mut self) -> Result<Option<ExitStatus>, ExecError>;

    /// Stops the command with everything that it started, first politely, and returns when it has ended. After the end it
    /// does nothing.
    ///
    /// # Errors
    ///
    /// Returns an error when something cannot be stopped.
    fn kill(&mut self) -> Result<(), ExecError>;

    /// Sets the size of the command's terminal.
    ///
    /// # Errors
    ///
    /// Returns an error when the command has no terminal.
    fn resize(&mut self, size: TerminalSize) -> Result<(), ExecError>;
}

impl Child {
    /// Returns a child with these streams. The process must be stopped when it is dropped.
    pub fn new(
        stdin: Option<ChildInput>,
        stdout: Option<ChildOutput>,
        stderr: Option<ChildOutput>,
        process: Box<dyn ChildProcess>,
    ) -> Self {
        Self { stdin, stdout, stderr, process }
    }

    /// Closes standard input, unless it was taken, and waits for the end. Output that nobody reads is not read here either:
    /// a command that fills its pipe does not end.
    ///
    /// # Errors
    ///
    /// [`ExecError::Cancelled`] when the token of the control is cancelled; the command was then stopped.
    pub fn wait(&mut self) -> Result<ExitStatus, ExecError> {
        self.stdin = None;
        self.process.wait()
    }

    /// Returns the status, or `None` while the command runs.
    ///
    /// # Errors
    ///
    /// Returns an error when the process cannot be asked.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, ExecError> {
        self.process.try_wait()
    }

    /// Stops the command with everything that it started: SIGTERM, at most 0.4 s, SIGKILL. Returns when it has ended. What
    /// it printed before can still be read, and [`wait`](Child::wait) returns its status.
    ///
    /// # Errors
    ///
    /// Returns an error when something cannot be stopped.
    pub fn kill(&mut self) -> Result<(), ExecError> {
        self.process.kill()
    }

    /// Sets the size of the command's terminal.
    ///
    /// # Errors
    ///
    /// Returns an error when the command has no terminal.
    pub fn resize(&mut self, size: TerminalSize) -> Result<(), ExecError> {
        self.process.resize(size)
    }
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Number of rows.
    pub rows: u16,
    /// Number of columns.
    pub columns: u16,
}

/// 24 rows of 80 columns.
impl Default for TerminalSize {
    fn default() -> Self {
        Self { rows: 24, columns: 80 }
    }
}

/// The write end of a [`Child`]'s standard input.
#[derive(Debug)]
pub struct ChildInput(OwnedFd);

/// The read end of one of a [`Child`]'s outputs.
#[derive(Debug)]
pub struct ChildOutput(OwnedFd);

impl Write for ChildInput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.0, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for ChildOutput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match rustix::io::read(&self.0, buffer) {
            // Linux reports the end of a terminal's other side this way.
            Err(rustix::io::Errno::IO) => Ok(0),
            other => Ok(other?),
        }
    }
}

impl From<OwnedFd> for ChildInput {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<OwnedFd> for ChildOutput {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

/// For an event loop.
impl From<ChildInput> for OwnedFd {
    fn from(input: ChildInput) -> Self {
        input.0
    }
}

/// For an event loop.
impl From<ChildOutput> for OwnedFd {
    fn from(output: ChildOutput) -> Self {
        output.0
    }
}

/// For an event loop.
impl AsRawFd for ChildInput {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// For an event loop.
impl AsRawFd for ChildOutput {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for ChildInput {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for ChildOutput {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
