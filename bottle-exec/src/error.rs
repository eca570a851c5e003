//! Why a command could not be run to its end.

use std::io;
use std::time::Duration;

use crate::status::ExitStatus;

/// A command that was not run, did not end, or ended badly. Every text in it is free of the command's secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// There is no such program.
    #[error("run `{command}`: no program `{program}` in any directory of PATH")]
    NotFound {
        /// The program as it was given.
        program: String,
        /// The command line.
        command: String,
    },
    /// The process could not be started.
    #[error("start `{command}`")]
    Spawn {
        /// The command line.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// The command ended with a status that means failure.
    #[error("run `{command}`: it ended with {status}{}", indented(.stderr))]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it printed.
        stderr: String,
    },
    /// The command took too long and was stopped, with everything that it had started.
    #[error("run `{command}`: stopped, since it did not end within {limit:?}{}", indented(.stderr))]
    TimedOut {
        /// The command line.
        command: String,
        /// How long it was given.
        limit: Duration,
        /// The last lines that it printed.
        stderr: String,
    },
    /// The caller asked for an end before the command had come to its own.
    #[error("run `{command}`: cancelled")]
    Cancelled {
        /// The command line.
        command: String,
    },
    /// Reading from, writing to or waiting for the process failed.
    #[error("{doing} of `{command}`")]
    Io {
        /// The command line.
        command: String,
        /// What was attempted: "open standard input".
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The command was refused, since an argument holds a secret and arguments are visible to every user.
    #[error("run `{command}`: refused, an argument holds a secret")]
    SecretInArguments {
        /// The command line.
        command: String,
    },
    /// Whatever else keeps a backend from running a command.
    #[error("run `{command}`: {message}")]
    Backend {
        /// The command line.
        command: String,
        /// What the backend says.
        message: String,
    },
}

impl ExecError {
    /// The command line, redacted.
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

    /// Whether the caller's own token ended it.
    pub const fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled { .. })
    }
}

/// Joins an error and every cause behind it: "read `a`: permission denied".
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
