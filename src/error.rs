//! The facade's error.

use std::io;

use bottle_engine::EngineError;
use bottle_plan::{ManifestError, NameError, PlanError};
use bottle_supervise::SuperviseError;

use crate::launch_error::LaunchError;
use crate::lifecycle::{BottleError, JournalError, TeardownError};

/// Any error of this crate, for programs that pass errors on with `?`.
///
/// Each function returns a more precise error, which converts into this one.
///
/// `Debug` prints what [`report`](crate::report()) prints, so that a `main` that returns this error shows a person the
/// error and its causes. `{:#?}` prints the variant and its fields.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This process has no home or working directory.
    #[error("find the home directory and the working directory")]
    Host(#[source] io::Error),
    /// A name or a value is malformed.
    #[error("parse a name or value")]
    Name(#[from] NameError),
    /// A manifest cannot be read or is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A manifest gives no plan for what was requested.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The engine failed, or none answers.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A launch failed.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// An operation on a running bottle failed.
    #[error(transparent)]
    Bottle(#[from] BottleError),
    /// A journal cannot be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// An operation of supervise failed.
    #[error(transparent)]
    Supervise(#[from] SuperviseError),
    /// A bottle could not be removed completely.
    #[error(transparent)]
    Teardown(#[from] TeardownError),
}

/// A result with the facade's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
