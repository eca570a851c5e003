//! The seam between a fleet and what launches its bottles.

use std::error::Error;

use bottle::{Bottle, BottlePlan, Bottles};
use bottle_platform::{Failure, Platform, PlatformBottle, PlatformError};

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

/// Bottles on a container engine. The launches of one fleet have different slugs.
impl Launcher<BottlePlan> for Bottles {
    type Bottle = Bottle;
    type Error = bottle::Error;

    fn launch(&self, job: &BottlePlan) -> Result<Bottle, bottle::Error> {
        Ok(Self::launch(self, job.clone())?)
    }

    fn failure(&self, error: &bottle::Error) -> Failure {
        error.into()
    }

    fn close(&self, bottle: Bottle) -> Result<(), bottle::Error> {
        bottle.close().map(drop).map_err(Into::into)
    }
}

/// Bottles on any platform. The launches of one fleet have different slugs.
impl Launcher<BottlePlan> for dyn Platform + '_ {
    type Bottle = Box<dyn PlatformBottle>;
    type Error = PlatformError;

    fn launch(&self, job: &BottlePlan) -> Result<Self::Bottle, PlatformError> {
        Platform::launch(self, job.clone())
    }

    fn failure(&self, error: &PlatformError) -> Failure {
        error.failure()
    }

    fn close(&self, bottle: Self::Bottle) -> Result<(), PlatformError> {
        bottle.close()
    }
}
