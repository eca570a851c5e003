//! Error of taking work out of a bottle, and the bounds of it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bottle_exec::ExecError;

/// Error of taking work out of a bottle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkError {
    /// Nothing was copied into the bottle, or the copy of it is lost.
    #[error("compare with what was copied into the bottle: `{}` cannot be read; only a workspace with `mode: copy`, of a bottle that is not closed, can be compared", path.display())]
    NoBase {
        /// Path of the packed workspace.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The files of the bottle cannot be read.
    #[error("read the workspace of the bottle")]
    Read(#[source] io::Error),
    /// There is more work than the bounds allow.
    #[error("take out the work: {what} of at most {limit} are taken out (`WorkLimits`)")]
    TooMuch {
        /// Description of what is too much.
        what: &'static str,
        /// The limit, with its unit.
        limit: String,
    },
    /// A file of this host cannot be written, or is not as it must be.
    #[error("write the work to `{}`", path.display())]
    Write {
        /// Path of the file or directory.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// Git cannot be run on this host.
    #[error("run git for the work")]
    Run(#[source] ExecError),
    /// Git refused what came out of the bottle, or the repository that should take it.
    #[error("{doing}: {said}")]
    Git {
        /// Step that git failed in.
        doing: &'static str,
        /// The lines that git printed from its first error on, at most eight, or its last lines.
        said: String,
    },
    /// The prefix of references is not below `refs/bottle/`.
    #[error("fetch into `{prefix}`: use a valid reference below `refs/bottle/`, such as `refs/bottle/demo`")]
    Prefix {
        /// The prefix.
        prefix: String,
    },
}

/// Bounds of what is taken out of a bottle. The agent decides how much there is, so nothing is taken out without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkLimits {
    /// Files, directories and links of the workspace that are looked at. Default: 500,000.
    pub entries: u64,
    /// Bytes of the workspace that are read, with its repository. Default: 8 GiB.
    pub read: u64,
    /// Bytes of the changed files in a patch, before and after, of an export, or of the commits that are fetched. Default: 256 MiB.
    pub taken: u64,
    /// Time for each step. Default: 2 minutes.
    pub time: Duration,
}

impl Default for WorkLimits {
    fn default() -> Self {
        Self { entries: 500_000, read: 8 << 30, taken: 256 << 20, time: Duration::from_secs(120) }
    }
}
