//! Errors of provisioning.

use std::path::PathBuf;

use bottle_engine::EngineError;

/// Errors of provisioning the agent's container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// A command could not be run.
    #[error("{what}")]
    Engine {
        /// Operation that failed, in words that follow "failed to".
        what: &'static str,
        /// The engine's error.
        source: EngineError,
    },
    /// A command failed in the container.
    #[error("{what}: it ended with {status}: {stderr}")]
    Failed {
        /// Operation that failed, in words that follow "failed to".
        what: &'static str,
        /// The command's exit status.
        status: String,
        /// The last lines of the command's standard error.
        stderr: String,
    },
    /// A file of the host could not be read.
    #[error("{what}: read `{}`", path.display())]
    Read {
        /// Operation that failed, in words that follow "failed to".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A configuration file in the agent's image cannot be extended.
    #[error("extend `{path}` of the agent's image: {reason}")]
    Configuration {
        /// The file in the container.
        path: &'static str,
        /// Problem with the content.
        reason: String,
    },
    /// A [`Provisioner`](crate::Provisioner) of the caller failed.
    #[error("run the caller's provisioner")]
    Custom(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ProvisionError {
    /// Returns true if provisioning was cancelled.
    pub const fn is_cancelled(&self) -> bool {
        match self {
            Self::Engine { source, .. } => source.is_cancelled(),
            Self::Failed { .. } | Self::Read { .. } | Self::Configuration { .. } | Self::Custom(_) => false,
        }
    }
}
