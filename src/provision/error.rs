//! Why provisioning failed.

use std::path::PathBuf;

use bottle_exec::EngineError;

/// Why the agent's container could not be provisioned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// A command could not be run.
    #[error("{what}: {source}")]
    Engine {
        /// What was being done.
        what: &'static str,
        /// Why.
        source: EngineError,
    },
    /// A command failed in the container.
    #[error("{what}: it ended with {status}: {stderr}")]
    Failed {
        /// What was being done.
        what: &'static str,
        /// How the command ended.
        status: String,
        /// The last lines that it printed.
        stderr: String,
    },
    /// A file of the host could not be read.
    #[error("{what}: `{}` could not be read: {source}", path.display())]
    Read {
        /// What was being done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A [`Provisioner`] of the caller failed.
    #[error("provision the agent")]
    Custom(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ProvisionError {
    /// Whether it was stopped and not broken.
    pub const fn is_cancelled(&self) -> bool {
        match self {
            Self::Engine { source, .. } => source.is_cancelled(),
            Self::Failed { .. } | Self::Read { .. } | Self::Custom(_) => false,
        }
    }
}
