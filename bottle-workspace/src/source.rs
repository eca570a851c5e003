//! The workspace of a running bottle as a bounded stream, wherever the bottle runs.

use std::fs::File;
use std::io::{self, BufReader, Read, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use bottle_exec::{CancelToken, Captured, Child, ChildOutput, ExecError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::changes::{Changes, Tree};
use crate::export::{Exported, export};
use crate::git::Git;
use crate::work_error::{WorkError, WorkLimits};

/// Interval at which a cancellation is noticed.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// The workspace of a running bottle, read within limits. `E` is the error of the platform.
pub struct WorkSource<'a, E> {
    open: Box<dyn Fn() -> Result<Child, E> + 'a>,
    limits: WorkLimits,
    cancel: CancelToken,
}

impl<E> std::fmt::Debug for WorkSource<'_, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkSource").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<'a, E: From<WorkError>> WorkSource<'a, E> {
    /// Returns a source. `open` starts a command that prints the directory of the workspace as a tar stream.
    pub fn new(open: impl Fn() -> Result<Child, E> + 'a, limits: &WorkLimits, cancel: &CancelToken) -> Self {
        Self { open: Box::new(open), limits: *limits, cancel: cancel.clone() }
    }

    /// Returns what has changed since `packed` was copied into the bottle.
    ///
    /// # Errors
    ///
    /// Returns an error when the workspace exceeds the limits, or cannot be read.
    pub fn changes(&self, packed: &File) -> Result<Changes, E> {
        let (base, now) = self.trees(packed)?;
        Ok(now.changes_since(&base, &self.limits)?)
    }

    /// Returns the changes as a binary patch for `git apply`, and the workspace that it was made from.
    ///
    /// # Errors
    ///
    /// As [`changes`](Self::changes), and when git fails.
    pub fn patch(&self, packed: &File, git: &Git<'_>) -> Result<(Vec<u8>, Tree), E> {
        let (base, now) = self.trees(packed)?;
        let changes = now.changes_since(&base, &self.limits)?;
        let patch = self.stream(|tar| git.patch(packed, &base, &now, &changes, tar))?;
        Ok((patch, now))
    }

    /// Copies the files of the workspace into an empty directory.
    ///
    /// # Errors
    ///
    /// As [`changes`](Self::changes), and when the directory is not empty or cannot be written.
    pub fn export(&self, into: &Path) -> Result<Exported, E> {
        self.stream(|tar| export(tar, into, &self.limits))
    }

    /// Returns the workspace as it is now.
    ///
    /// # Errors
    ///
    /// As [`changes`](Self::changes).
    pub fn tree(&self) -> Result<Tree, E> {
        self.stream(|tar| Tree::read(tar, &self.limits))
    }

    /// Returns what was copied into the bottle, and what is there now.
    ///
    /// # Errors
    ///
    /// As [`changes`](Self::changes).
    pub fn trees(&self, packed: &File) -> Result<(Tree, Tree), E> {
        // The stream is bounded; what was packed is what a person has.
        let unbounded = WorkLimits { entries: u64::MAX, ..self.limits };
        thread::scope(|scope| {
            let packed = BufReader::with_capacity(64 << 10, FromStart { file: packed, offset: 0 });
            let base = scope.spawn(|| Tree::read(packed, &unbounded));
            let now = self.tree()?;
            let lost = || WorkError::Read(io::Error::other("the thread that reads the copied workspace has ended"));
            Ok((base.join().map_err(|_| lost())??, now))
        })
    }

    /// Passes the workspace to `read` as a bounded tar stream.
    fn stream<T>(&self, read: impl FnOnce(&mut dyn Read) -> Result<T, WorkError>) -> Result<T, E> {
        let mut client = (self.open)()?;
        let stdout = Bounded::new(client.stdout.take(), self.limits.read, self.limits.time, &self.cancel);
        let mut stdout = BufReader::with_capacity(64 << 10, stdout);
        // What comes after the end of the archive is read too, so that the client can end.
        let result = read(&mut stdout)
            .and_then(|value| io::copy(&mut stdout, &mut io::sink()).map(|_| value).map_err(WorkError::Read));
        let stderr = Bounded::new(client.stderr.take(), 64 << 10, self.limits.time, &self.cancel);
        let lost = |error: ExecError| WorkError::Read(io::Error::other(error));
        match result {
            Ok(value) => match (said(stderr), client.wait().map_err(lost)?) {
                (_, status) if status.is_success() => Ok(value),
                (said, _) => Err(WorkError::Read(io::Error::other(said)).into()),
            },
            Err(error) => {
                let is_over = client.try_wait().ok().flatten().is_some_and(|status| !status.is_success());
                client.kill().map_err(lost)?;
                // The client says why the stream is empty.
                if is_over { Err(WorkError::Read(io::Error::other(said(stderr))).into()) } else { Err(error.into()) }
            }
        }
    }
}

/// Writes the output of a command that bundles the agent's branches to a new file. Returns the last lines of its error stream.
///
/// # Errors
///
/// Returns an error when the output exceeds the limits, or the file cannot be written.
pub fn write_bundle(
    (stdout, stderr): (Option<ChildOutput>, Option<ChildOutput>),
    path: &Path,
    limits: &WorkLimits,
    cancel: &CancelToken,
) -> Result<String, WorkError> {
    let failed = |source| WorkError::Write { path: path.to_owned(), source };
    let mut stdout = Bounded::new(stdout, limits.taken, limits.time, cancel);
    let mut file = File::create_new(path).map_err(failed)?;
    io::copy(&mut stdout, &mut file).map_err(WorkError::Read)?;
    file.flush().map_err(failed)?;
    Ok(said(Bounded::new(stderr, 64 << 10, limits.time, cancel)))
}

/// Returns the last lines of an error stream, without control characters.
fn said(stderr: Bounded) -> String {
    let mut bytes = Vec::new();
    // What could not be read is not said.
    let _ = BufReader::new(stderr).read_to_end(&mut bytes);
    let said = Captured::from(bytes).last_lines(3);
    if said.is_empty() { "the client failed without a word".into() } else { said }
}

/// Reads a file from its start, also while others read it.
struct FromStart<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Output of a command that may send too much, for too long, or nothing.
struct Bounded {
    output: Option<ChildOutput>,
    left: u64,
    limit: u64,
    until: Instant,
    cancel: CancelToken,
}

impl Bounded {
    fn new(output: Option<ChildOutput>, limit: u64, time: Duration, cancel: &CancelToken) -> Self {
        Self { output, left: limit, limit, until: Instant::now() + time, cancel: cancel.clone() }
    }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(output) = &mut self.output else { return Ok(0) };
        loop {
            if self.cancel.is_cancelled() {
                return Err(io::Error::other("cancelled"));
            }
            if Instant::now() >= self.until {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not end in time (`WorkLimits::time`)"));
            }
            let mut fds = [PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN)];
            match poll(&mut fds, Some(&TICK)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let count = output.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => return Err(io::Error::other(format!("it has more than {} bytes (`WorkLimits`)", self.limit))),
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use bottle_exec::{Backend as _, Command, Control, Subprocess};

    use super::*;

    fn source(script: &str, limits: &WorkLimits) -> WorkSource<'static, WorkError> {
        let backend = Subprocess::new([("PATH".into(), "/usr/bin:/bin".into())]);
        let command = Command::new("sh").with_args(["-c", script]);
        let open = move || backend.spawn(&command, &Control::default()).map_err(WorkError::Run);
        WorkSource::new(open, limits, &CancelToken::new())
    }

    fn failure(script: &str, limits: &WorkLimits) -> String {
        bottle_exec::chain(&source(script, limits).tree().unwrap_err())
    }

    const PACK: &str = "d=$(mktemp -d) && mkdir $d/w && echo one >$d/w/one && tar -C $d -c w; rm -r $d";

    #[test]
    fn only_a_command_that_succeeds_has_printed_the_workspace() {
        let limits = WorkLimits::default();
        assert_eq!(source(PACK, &limits).tree().unwrap().files.len(), 1);
        let error = failure(&format!("{PACK}; echo tar is unhappy >&2; exit 2"), &limits);
        assert!(error.ends_with("tar is unhappy"), "{error}");
    }

    #[test]
    fn a_workspace_is_bounded_in_size_and_time() {
        let limits = WorkLimits { read: 1 << 20, ..WorkLimits::default() };
        let error = failure(&format!("{PACK}; cat /dev/zero"), &limits);
        assert!(error.ends_with("it has more than 1048576 bytes (`WorkLimits`)"), "{error}");
        let limits = WorkLimits { time: Duration::from_millis(200), ..WorkLimits::default() };
        let error = failure("exec sleep 60", &limits);
        assert!(error.ends_with("it does not end in time (`WorkLimits::time`)"), "{error}");
    }

    #[test]
    fn a_copy_is_compared_from_its_start_each_time() {
        let mut packed = tempfile::tempfile().unwrap();
        packed.write_all(&std::process::Command::new("sh").args(["-c", PACK]).output().unwrap().stdout).unwrap();
        let source = source(&PACK.replace("one >", "two >"), &WorkLimits::default());
        for _ in 0..2 {
            assert_eq!(source.changes(&packed).unwrap().files.len(), 1);
        }
    }
}
