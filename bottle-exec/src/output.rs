//! The result of a command.

use std::collections::VecDeque;
use std::time::Duration;

use crate::command::Command;
use crate::error::ExecError;
use crate::plain::PlainText;
use crate::status::ExitStatus;

/// The bytes of one stream: all of them, or the beginning and the end if there were too many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    head: Vec<u8>,
    omitted: u64,
    tail: Vec<u8>,
}

impl Captured {
    /// Returns the number of bytes omitted from the middle.
    pub const fn omitted(&self) -> u64 {
        self.omitted
    }

    /// Returns true if bytes were omitted.
    pub const fn is_truncated(&self) -> bool {
        self.omitted > 0
    }

    /// Returns the bytes that were kept, without a mark at the omitted part.
    pub fn bytes(&self) -> Vec<u8> {
        [self.head.as_slice(), &self.tail].concat()
    }

    /// Returns the kept bytes as text, with U+FFFD for invalid UTF-8 and a line that marks the omitted part.
    pub fn text(&self) -> String {
        if self.is_truncated() {
            let (head, tail) = (String::from_utf8_lossy(&self.head), String::from_utf8_lossy(&self.tail));
            format!("{head}\n… {} bytes left out …\n{tail}", self.omitted)
        } else {
            String::from_utf8_lossy(&self.bytes()).into_owned()
        }
    }

    /// Returns at most `count` last lines as plain text, without blank lines and terminal control sequences. A line
    /// whose beginning was omitted is skipped, because scrubbing would miss a partial secret.
    pub fn last_lines(&self, count: usize) -> String {
        let mut kept = if self.is_truncated() {
            let whole = self.tail.iter().position(|&byte| byte == b'\n').map_or(self.tail.len(), |at| at + 1);
            String::from_utf8_lossy(&self.tail[whole..]).into_owned()
        } else {
            self.text()
        };
        kept = kept.replace('\r', "\n");
        let kept = PlainText::of(kept.as_bytes());
        let lines: Vec<&str> = kept.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

impl From<Vec<u8>> for Captured {
    fn from(head: Vec<u8>) -> Self {
        Self { head, omitted: 0, tail: Vec::new() }
    }
}

/// The result of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// Status of the process.
    pub status: ExitStatus,
    /// Captured standard output.
    pub stdout: Captured,
    /// Captured standard error.
    pub stderr: Captured,
    /// Running time.
    pub duration: Duration,
}

impl Output {
    /// Number of lines of standard error that an error message quotes.
    const ERROR_LINES: usize = 20;

    /// Returns the result of a command that ended with this status and printed nothing.
    pub fn ended(status: ExitStatus) -> Self {
        Self { status, stdout: Captured::default(), stderr: Captured::default(), duration: Duration::ZERO }
    }

    /// Returns standard output as text; see [`Captured::text`].
    pub fn stdout_text(&self) -> String {
        self.stdout.text()
    }

    /// Returns standard error as text; see [`Captured::text`].
    pub fn stderr_text(&self) -> String {
        self.stderr.text()
    }

    /// Sets what was printed to standard output.
    #[must_use]
    pub fn with_stdout(mut self, stdout: impl Into<Captured>) -> Self {
        self.stdout = stdout.into();
        self
    }

    /// Sets what was printed to standard error.
    #[must_use]
    pub fn with_stderr(mut self, stderr: impl Into<Captured>) -> Self {
        self.stderr = stderr.into();
        self
    }

    /// Sets the running time.
    #[must_use]
    pub const fn with_duration(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    /// Returns itself if the command succeeded.
    ///
    /// # Errors
    ///
    /// Returns [`ExecError::Failed`] with the command line, the status and the last lines of standard error otherwise.
    pub fn success(self, command: &Command) -> Result<Self, ExecError> {
        if self.status.is_success() {
            return Ok(self);
        }
        Err(ExecError::Failed { command: command.brief(), status: self.status, stderr: self.error_text(command) })
    }

    /// Returns the last lines of standard error, or of standard output if standard error is empty, scrubbed.
    pub(crate) fn error_text(&self, command: &Command) -> String {
        let stderr = self.stderr.last_lines(Self::ERROR_LINES);
        let shown = if stderr.is_empty() { self.stdout.last_lines(Self::ERROR_LINES) } else { stderr };
        command.scrub(&shown)
    }
}

/// Collects a stream of any length in bounded memory.
#[derive(Debug)]
pub(crate) struct Collector {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    omitted: u64,
    half: usize,
}

impl Collector {
    pub(crate) fn new(limit: usize) -> Self {
        Self { head: Vec::new(), tail: VecDeque::new(), omitted: 0, half: limit / 2 }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(self.half - self.head.len()));
        self.head.extend_from_slice(head);
        let skipped = rest.len().saturating_sub(self.half);
        let rest = &rest[skipped..];
        let surplus = (self.tail.len() + rest.len()).saturating_sub(self.half);
        self.tail.drain(..surplus);
        self.tail.extend(rest);
        self.omitted += (skipped + surplus) as u64;
    }

    pub(crate) fn finish(self) -> Captured {
        Captured { head: self.head, omitted: self.omitted, tail: self.tail.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_keeps_both_ends_whatever_the_chunks() {
        let all: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for chunk in [1, 7, 10, 64, 1000] {
            let mut collector = Collector::new(20);
            all.chunks(chunk).for_each(|bytes| collector.push(bytes));
            let captured = collector.finish();
            assert_eq!(captured.bytes(), [&all[..10], &all[990..]].concat());
            assert_eq!(captured.omitted(), 980);
        }
        let mut exact = Collector::new(20);
        exact.push(&all[..20]);
        assert_eq!(exact.finish(), Captured { head: all[..10].into(), omitted: 0, tail: all[10..20].into() });
    }

    #[test]
    fn a_line_cut_in_two_is_not_shown_as_the_end() {
        let mut collector = Collector::new(20);
        collector.push(b"0123456789 a long secret word\nlast\n");
        assert_eq!(collector.finish().last_lines(5), "last");
    }
}
