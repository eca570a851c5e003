//! A process that runs while its caller reads and writes its streams.

use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::process::{CANCEL_GRACE, Process, TICK};
use crate::child::{Child, ChildProcess, TerminalSize};
use crate::command::Command;
use crate::control::CancelToken;
use crate::control::Control;
use crate::error::ExecError;
use crate::status::ExitStatus;

/// Time in which a process may not listen yet for a change of its terminal's size.
const STARTING: Duration = Duration::from_secs(3);

/// Number of times that a process that starts is told again of a change.
const REMINDERS: u32 = 12;

/// The caller's side of a terminal.
#[derive(Debug)]
pub(super) struct Terminal(OwnedFd);

impl Terminal {
    /// Opens a terminal and makes it the input and the outputs of a process.
    pub(super) fn open(size: TerminalSize, process: &mut std::process::Command) -> io::Result<Self> {
        let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        rustix::pty::grantpt(&ours)?;
        rustix::pty::unlockpt(&ours)?;
        let name = rustix::pty::ptsname(&ours, Vec::new())?;
        let theirs = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        let terminal = Self(ours);
        terminal.resize(size)?;
        process.stdin(Stdio::from(theirs.try_clone()?)).stdout(Stdio::from(theirs.try_clone()?)).stderr(theirs);
        Ok(terminal)
    }

    fn resize(&self, TerminalSize { rows, columns }: TerminalSize) -> io::Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(&self.0, size)?)
    }
}

/// A process with its tokens.
#[derive(Debug)]
pub(super) struct Live {
    process: Process,
    /// Command line, redacted.
    command: String,
    cancel: CancelToken,
    terminal: Option<Terminal>,
    started: Instant,
    /// True once a thread repeats the signal that tells of a new size.
    is_reminded: bool,
    status: Option<ExitStatus>,
}

impl Live {
    pub(super) fn start(
        mut process: Process,
        command: &Command,
        control: &Control,
        terminal: Option<Terminal>,
    ) -> Result<Child, ExecError> {
        let failed = |source| ExecError::Io { command: command.brief(), doing: "open the streams", source };
        let (stdin, stdout, stderr) = match &terminal {
            None => process.take_streams(),
            Some(Terminal(ours)) => {
                (Some(ours.try_clone().map_err(failed)?), Some(ours.try_clone().map_err(failed)?), None)
            }
        };
        let cancel = if command.uninterrupted() { control.abort() } else { control.cancel() };
        let (command, cancel, started) = (command.brief(), cancel.clone(), Instant::now());
        let live = Self { process, command, cancel, terminal, started, is_reminded: false, status: None };
        Ok(Child::new(stdin.map(Into::into), stdout.map(Into::into), stderr.map(Into::into), Box::new(live)))
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(io::Error) -> ExecError {
        let command = self.command.clone();
        move |source| ExecError::Io { command, doing, source }
    }
}

impl ChildProcess for Live {
    fn wait(&mut self) -> Result<ExitStatus, ExecError> {
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if self.cancel.is_cancelled() {
                self.kill()?;
                return Err(ExecError::Cancelled { command: self.command.clone() });
            }
            self.process.wait_for_end(TICK).map_err(self.failed("wait for the end"))?;
        }
    }

    fn try_wait(&mut self) -> Result<Option<ExitStatus>, ExecError> {
        if self.status.is_none() {
            self.status = self.process.peek().map_err(self.failed("wait for the end"))?;
            if self.status.is_some() {
                self.process.reap().map_err(self.failed("wait for the end"))?;
            }
        }
        Ok(self.status)
    }

    fn kill(&mut self) -> Result<(), ExecError> {
        if self.status.is_some() {
            return Ok(());
        }
        self.process.signal(Signal::TERM);
        let until = Instant::now() + CANCEL_GRACE;
        while self.process.peek().map_err(self.failed("wait for the end"))?.is_none() && Instant::now() < until {
            self.process.wait_for_end(TICK).map_err(self.failed("wait for the end"))?;
        }
        // Also those of the group that outlived their parent. It is not reaped yet, so the group is still its own.
        self.process.signal(Signal::KILL);
        while self.try_wait()?.is_none() {
            thread::sleep(TICK / 10);
        }
        Ok(())
    }

    fn resize(&mut self, size: TerminalSize) -> Result<(), ExecError> {
        let Some(terminal) = &self.terminal else {
            let message = "it has no terminal to resize (`Command::with_terminal`)".to_owned();
            return Err(ExecError::Backend { command: self.command.clone(), message });
        };
        terminal.resize(size).map_err(self.failed("resize the terminal"))?;
        // It is not the process's controlling terminal, so the kernel does not tell the process.
        self.process.signal(Signal::WINCH);
        // A client that still starts may have read the old size and not listen for changes yet.
        if self.started.elapsed() < STARTING && !mem::replace(&mut self.is_reminded, true) {
            let target = self.process.target();
            thread::spawn(move || {
                for _ in 0..REMINDERS {
                    thread::sleep(STARTING / REMINDERS);
                    target.signal(Signal::WINCH);
                }
            });
        }
        Ok(())
    }
}
