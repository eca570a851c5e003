//! Errors of running a command.

use std::io;
use std::time::Duration;

use crate::status::ExitStatus;

/// An error of running a command. All its texts are redacted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The program does not exist.
    #[error("run `{command}`: no program `{program}` in any directory of PATH")]
    NotFound {
        /// Program as it was given.
        program: String,
        /// Command line, redacted.
        command: String,
    },
    /// The process could not be started.
    #[error("start `{command}`")]
    Spawn {
        /// Command line, redacted.
        command: String,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The command ended with a failure status.
    #[error("run `{command}`: it ended with {status}{}", indented(.stderr))]
    Failed {
        /// Command line, redacted.
        command: String,
        /// Status of the process.
        status: ExitStatus,
        /// Last lines of its output.
        stderr: String,
    },
    /// The command timed out and was stopped, with everything that it had started.
    #[error("run `{command}`: stopped, since it did not end within {limit:?}{}", indented(.stderr))]
    TimedOut {
        /// Command line, redacted.
        command: String,
        /// Timeout of the command.
        limit: Duration,
        /// Last lines of its output.
        stderr: String,
    },
    /// The caller cancelled the command before it ended.
    #[error("run `{command}`: cancelled")]
    Cancelled {
        /// Command line, redacted.
        command: String,
    },
    /// Reading from, writing to or waiting for the process failed.
    #[error("{doing} of `{command}`")]
    Io {
        /// Command line, redacted.
        command: String,
        /// Operation that failed, such as "open standard input".
        doing: &'static str,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The command was refused because an argument contains a secret, and arguments are visible to every user.
    #[error("run `{command}`: refused, an argument holds a secret")]
    SecretInArguments {
        /// Command line, redacted.
        command: String,
    },
    /// Any other reason why a backend could not run a command.
    #[error("run `{command}`: {message}")]
    Backend {
        /// Command line, redacted.
        command: String,
        /// Message of the backend.
        message: String,
    },
}

impl ExecError {
    /// Returns the command line, redacted.
    pub fn command(&self) -> &str {
        match self {
            Self::NotFound { command, .. }
            | Self::Spawn { command, .. }
            | Self::Failed { command, .. }
            | Self::TimedOut { command, .. }
            | Self::Cancelled { command }
            | Self::Io { command, .. }
            | Self::SecretInArguments { command }
            | Self::Backend { command, .. } => command,
        }
    }

    /// Returns true if the caller's own token cancelled the command.
    pub const fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled { .. })
    }
}

/// Joins an error and its sources: "read `a`: permission denied".
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |all, line| all + "\n    " + line)
}
