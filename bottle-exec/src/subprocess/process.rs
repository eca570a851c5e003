//! The life of one process: start, input, output and stop.
//!
//! A single thread polls both outputs, the input and, on Linux, the process itself. There is no thread to join, so a
//! grandchild that keeps a pipe open after the process is gone can delay the end by a bounded time only.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::command::{Command, OutputPolicy, Stdin};
use crate::control::Control;
use crate::error::ExecError;
use crate::output::{Collector, Output};
use crate::sink::{OutputSink, Stream};
use crate::status::ExitStatus;

/// Interval of checks for a cancellation. Process ends and output are noticed at once.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// Time that remaining child processes may keep the pipes open before they are stopped.
const LINGER: Duration = Duration::from_secs(1);

/// Time that the pipes may stay open after SIGKILL, which only a process that left the group survives.
const AFTER_KILL: Duration = Duration::from_millis(300);

/// Maximum time between SIGTERM and SIGKILL after a cancellation, because a person is waiting.
pub(super) const CANCEL_GRACE: Duration = Duration::from_millis(400);

#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    grace: Duration,
    /// Readable once the process has ended.
    ended: Option<OwnedFd>,
    target: Arc<Target>,
}

/// The receiver of a process's signals. It may be gone already.
#[derive(Debug)]
pub(super) struct Target {
    pid: Pid,
    is_group: bool,
    /// True once the status was collected. The pid may then belong to another process, which must never be signalled.
    is_reaped: Mutex<bool>,
}

impl Target {
    /// Signals the whole group, or only the process if the group is the terminal's.
    pub(super) fn signal(&self, signal: Signal) {
        let is_reaped = self.lock();
        if !*is_reaped {
            _ = if self.is_group {
                rustix::process::kill_process_group(self.pid, signal)
            } else {
                rustix::process::kill_process(self.pid, signal)
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_reaped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reason why a process is stopped.
#[derive(Debug, Clone, Copy)]
enum Stop {
    Cancelled,
    TimedOut(Duration),
    /// The process ended by itself, but one of its children holds its pipes.
    Lingering,
}

/// The progress of a stop, with the time of the next step.
#[derive(Debug, Clone, Copy)]
enum Force {
    Asked(Instant),
    Killed(Instant),
}

impl Process {
    pub(super) fn new(child: Child, is_group: bool, grace: Duration) -> Self {
        let pid = Pid::from_child(&child);
        let target = Arc::new(Target { pid, is_group, is_reaped: Mutex::new(false) });
        Self { child, grace, ended: exit_notice(pid), target }
    }

    pub(super) fn run(
        mut self,
        command: &Command,
        control: &Control,
        mut streams: Streams<'_>,
    ) -> Result<Output, ExecError> {
        let started = Instant::now();
        let result = self.attend(command, control, &mut streams, started);
        // Leave no process and no zombie behind, whatever the result.
        if !matches!(result, Ok((None, _))) {
            self.signal(Signal::KILL);
        }
        let failed = |doing| move |source| ExecError::Io { command: command.brief(), doing, source };
        self.reap().map_err(failed("wait for the end"))?;
        let (stop, status) = result.map_err(failed("attend to the pipes"))?;
        let output = streams.finish(status, started.elapsed());
        // A Ctrl-C at the terminal can reach the command before it has a process group of its own.
        let interrupted = control.cancel().is_cancelled() && !status.is_success();
        match stop {
            None | Some(Stop::Lingering) if interrupted => Err(ExecError::Cancelled { command: command.brief() }),
            Some(Stop::Cancelled) => Err(ExecError::Cancelled { command: command.brief() }),
            Some(Stop::TimedOut(limit)) => {
                Err(ExecError::TimedOut { command: command.brief(), limit, stderr: output.error_text(command) })
            }
            None | Some(Stop::Lingering) => Ok(output),
        }
    }

    /// Polls until the process has ended and its pipes are closed, or have been given up.
    fn attend(
        &mut self,
        command: &Command,
        control: &Control,
        streams: &mut Streams<'_>,
        started: Instant,
    ) -> io::Result<(Option<Stop>, ExitStatus)> {
        streams.attach(&mut self.child)?;
        let cancel = if command.uninterrupted() { control.abort() } else { control.cancel() };
        let mut status = None;
        let mut linger_until = None;
        let mut stop: Option<(Stop, Force)> = None;
        loop {
            streams.poll(self.ended.as_ref().filter(|_| status.is_none()), TICK)?;
            if status.is_none() {
                status = self.peek()?;
                if status.is_some() {
                    streams.close_input();
                    linger_until = Some(Instant::now() + LINGER);
                }
            }
            if let Some(status) = status
                && streams.are_closed()
            {
                return Ok((stop.map(|(why, _)| why), status));
            }
            let now = Instant::now();
            stop = match stop {
                None => {
                    let why = if status.is_some() {
                        linger_until.filter(|&until| now >= until).map(|_| Stop::Lingering)
                    } else if cancel.is_cancelled() {
                        Some(Stop::Cancelled)
                    } else {
                        command.timeout().filter(|&limit| now - started >= limit).map(Stop::TimedOut)
                    };
                    why.map(|why| {
                        self.signal(Signal::TERM);
                        let grace = match why {
                            Stop::Cancelled => self.grace.min(CANCEL_GRACE),
                            Stop::TimedOut(_) | Stop::Lingering => self.grace,
                        };
                        (why, Force::Asked(now + grace))
                    })
                }
                Some((why, Force::Asked(until))) if now >= until => {
                    self.signal(Signal::KILL);
                    Some((why, Force::Killed(now + AFTER_KILL)))
                }
                // Do not wait for a process that left the group and keeps our pipe open.
                Some((why, Force::Killed(until))) if now >= until && status.is_some() => {
                    return Ok((Some(why), status.unwrap_or(ExitStatus::Signal(Signal::KILL.as_raw()))));
                }
                unchanged => unchanged,
            };
        }
    }

    /// Returns the status of the process if it ended. It stays a zombie, so that its pid and process group are not
    /// reused.
    pub(super) fn peek(&self) -> io::Result<Option<ExitStatus>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status = rustix::process::waitid(WaitId::Pid(self.target.pid), options)?;
        Ok(status.map(|status| match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ExitStatus::Code(code),
            (None, signal) => ExitStatus::Signal(signal.unwrap_or_default()),
        }))
    }

    /// Returns the pipes of the process.
    pub(super) fn take_streams(&mut self) -> (Option<OwnedFd>, Option<OwnedFd>, Option<OwnedFd>) {
        let child = &mut self.child;
        (child.stdin.take().map(Into::into), child.stdout.take().map(Into::into), child.stderr.take().map(Into::into))
    }

    /// Waits until the process has ended, but no longer than this time.
    pub(super) fn wait_for_end(&self, limit: Duration) -> io::Result<()> {
        let Some(ended) = &self.ended else {
            std::thread::sleep(limit);
            return Ok(());
        };
        let timeout = Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() };
        match rustix::event::poll(&mut [PollFd::new(ended, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Collects the status of a process that has ended, so that no zombie stays.
    pub(super) fn reap(&mut self) -> io::Result<()> {
        *self.target.lock() = true;
        self.child.wait().map(drop)
    }

    /// Signals the whole group, or only the process if the group is the terminal's.
    pub(super) fn signal(&self, signal: Signal) {
        self.target.signal(signal);
    }

    /// Returns the receiver of the signals, for another thread.
    pub(super) fn target(&self) -> Arc<Target> {
        Arc::clone(&self.target)
    }
}

/// Stops the process if a sink panics.
impl Drop for Process {
    fn drop(&mut self) {
        if !*self.target.lock() {
            self.signal(Signal::KILL);
            _ = self.reap();
        }
    }
}

#[cfg(target_os = "linux")]
fn exit_notice(pid: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

/// On other systems, the end is noticed at the next tick.
#[cfg(not(target_os = "linux"))]
fn exit_notice(_: Pid) -> Option<OwnedFd> {
    None
}

/// The streams of a process that are pipes.
pub(super) struct Streams<'a> {
    input: &'a [u8],
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    out: Collector,
    err: Collector,
    out_sink: Option<&'a dyn OutputSink>,
    err_sink: Option<&'a dyn OutputSink>,
    buffer: Vec<u8>,
}

impl<'a> Streams<'a> {
    pub(super) fn of(command: &'a Command, control: &'a Control) -> Self {
        let sink = |policy: &OutputPolicy| control.sink().filter(|_| *policy == OutputPolicy::Stream);
        let collector = |policy: &OutputPolicy| {
            Collector::new(match policy {
                OutputPolicy::Capture { limit } => *limit,
                OutputPolicy::Stream if control.sink().is_some() => Command::STREAM_KEEP,
                OutputPolicy::Stream => Command::CAPTURE_LIMIT,
                OutputPolicy::File { .. } | OutputPolicy::Inherit | OutputPolicy::Discard => 0,
            })
        };
        Self {
            input: if let Stdin::Bytes(bytes) = command.stdin() { bytes } else { &[] },
            stdin: None,
            stdout: None,
            stderr: None,
            out: collector(command.stdout()),
            err: collector(command.stderr()),
            out_sink: sink(command.stdout()),
            err_sink: sink(command.stderr()),
            buffer: vec![0; 64 << 10],
        }
    }

    fn attach(&mut self, child: &mut Child) -> io::Result<()> {
        self.stdin = child.stdin.take();
        self.stdout = child.stdout.take();
        self.stderr = child.stderr.take();
        if let Some(stdin) = &self.stdin {
            let flags = rustix::fs::fcntl_getfl(stdin)?;
            rustix::fs::fcntl_setfl(stdin, flags | rustix::fs::OFlags::NONBLOCK)?;
        }
        if self.input.is_empty() {
            self.stdin = None;
        }
        Ok(())
    }

    fn close_input(&mut self) {
        self.stdin = None;
    }

    const fn are_closed(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none()
    }

    /// Waits until a pipe is ready, `ended` is readable or the time is up. Then moves the available bytes.
    fn poll(&mut self, ended: Option<&OwnedFd>, tick: Duration) -> io::Result<()> {
        const INPUT: usize = 0;
        const OUTPUT: usize = 1;
        const ERROR: usize = 2;
        let wanted: [Option<(BorrowedFd<'_>, PollFlags)>; 4] = [
            self.stdin.as_ref().map(|fd| (fd.as_fd(), PollFlags::OUT)),
            self.stdout.as_ref().map(|fd| (fd.as_fd(), PollFlags::IN)),
            self.stderr.as_ref().map(|fd| (fd.as_fd(), PollFlags::IN)),
            ended.map(|fd| (fd.as_fd(), PollFlags::IN)),
        ];
        let mut ready = [false; 4];
        let mut places = Vec::with_capacity(wanted.len());
        let mut fds = Vec::with_capacity(wanted.len());
        for (place, (fd, flags)) in wanted.into_iter().enumerate().filter_map(|(place, fd)| Some((place, fd?))) {
            places.push(place);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: tick.subsec_nanos().into() };
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for (place, fd) in places.into_iter().zip(&fds) {
            ready[place] = !fd.revents().is_empty();
        }
        if ready[INPUT] {
            self.feed()?;
        }
        if ready[OUTPUT] {
            drain(&mut self.stdout, Stream::Stdout, &mut self.buffer, &mut self.out, self.out_sink)?;
        }
        if ready[ERROR] {
            drain(&mut self.stderr, Stream::Stderr, &mut self.buffer, &mut self.err, self.err_sink)?;
        }
        // The fourth descriptor only wakes the poll. The caller checks the process each time.
        Ok(())
    }

    fn feed(&mut self) -> io::Result<()> {
        let Some(stdin) = &mut self.stdin else { return Ok(()) };
        match stdin.write(self.input) {
            Ok(written) => self.input = &self.input[written..],
            Err(error) if is_transient(&error) => {}
            // The process does not want to read the rest, which is allowed.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.input = &[],
            Err(error) => return Err(error),
        }
        if self.input.is_empty() {
            self.stdin = None;
        }
        Ok(())
    }

    fn finish(self, status: ExitStatus, duration: Duration) -> Output {
        Output::ended(status).with_stdout(self.out.finish()).with_stderr(self.err.finish()).with_duration(duration)
    }
}

fn drain<P: io::Read>(
    pipe: &mut Option<P>,
    stream: Stream,
    buffer: &mut [u8],
    collector: &mut Collector,
    sink: Option<&dyn OutputSink>,
) -> io::Result<()> {
    let Some(open) = pipe else { return Ok(()) };
    match open.read(buffer) {
        Ok(0) => *pipe = None,
        Ok(count) => {
            collector.push(&buffer[..count]);
            if let Some(sink) = sink {
                sink.write(stream, &buffer[..count]);
            }
        }
        Err(error) if is_transient(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}
