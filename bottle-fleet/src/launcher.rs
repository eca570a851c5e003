//! The seam between a fleet and what launches its bottles.

use std::error::Error;

/// The meaning of a failed launch for the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The platform has too much to do. The same launch may succeed later.
    Overloaded,
    /// The platform has no room for another bottle until one ends.
    Full,
    /// Every further attempt would fail as well.
    Final,
}

/// Launches the bottles of a fleet, from any of its threads. A `J` is what one bottle is launched from.
pub trait Launcher<J>: Sync {
    /// A running bottle. Dropping it removes it.
    type Bottle;
    /// Error of a launch or a removal.
    type Error: Error + Send + 'static;

    /// Launches the bottle of a job. A failure leaves nothing behind.
    ///
    /// # Errors
    ///
    /// Returns an error if the bottle cannot be launched.
    fn launch(&self, job: &J) -> Result<Self::Bottle, Self::Error>;

    /// Returns the meaning of an error of [`launch`](Self::launch).
    fn failure(&self, error: &Self::Error) -> Failure;

    /// Removes a bottle.
    ///
    /// # Errors
    ///
    /// Returns an error if something of it is left.
    fn close(&self, bottle: Self::Bottle) -> Result<(), Self::Error>;
}
