//! The end of a process.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl ExitStatus {
    /// The end of a command that did what it should.
    pub const SUCCESS: Self = Self::Code(0);

    /// Whether it ended by itself with status 0.
    pub fn is_success(self) -> bool {
        self == Self::SUCCESS
    }

    /// The status as a shell would give it on: a signal is 128 and its number.
    pub const fn as_shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}
