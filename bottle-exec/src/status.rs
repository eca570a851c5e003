//! The exit status of a process.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The exit status of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// The process exited with this status.
    Code(i32),
    /// The process was ended by this signal.
    Signal(i32),
}

impl ExitStatus {
    /// The status of a successful command.
    pub const SUCCESS: Self = Self::Code(0);

    /// Returns true if the process exited with status 0.
    pub fn is_success(self) -> bool {
        self == Self::SUCCESS
    }

    /// Returns the status as a shell reports it: 128 plus the number for a signal.
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
