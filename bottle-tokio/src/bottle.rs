//! A running bottle.

use std::sync::Arc;

use bottle::BottleError;
use bottle::lifecycle::{TeardownError, TeardownReport};
use bottle_engine::Exec;
use bottle_exec::{CancelToken, Output, TerminalSize};

use crate::blocking::{CancelOnDrop, blocking, drop_later};
use crate::child::Child;

/// A running bottle. A launched bottle is taken down in the background when it is dropped.
#[derive(Debug)]
pub struct Bottle(
    /// `None` only while it is dropped.
    Option<Arc<bottle::Bottle>>,
);

impl Bottle {
    /// Returns a bottle for futures. It is also for one that [`bottle::Bottles::attach`] returned.
    pub fn new(bottle: bottle::Bottle) -> Self {
        Self(Some(Arc::new(bottle)))
    }

    /// Returns the blocking handle, for what neither waits nor runs a command, such as its slug.
    pub fn handle(&self) -> Arc<bottle::Bottle> {
        Arc::clone(self.0.as_ref().expect("it is only taken when it is dropped"))
    }

    /// Runs a command and captures its output. Dropping the future stops the command, with everything that it started.
    ///
    /// # Errors
    ///
    /// As [`bottle::Bottle::exec`].
    pub async fn exec(&self, exec: impl Into<Exec>) -> Result<Output, BottleError> {
        let (bottle, exec, cancel) = (self.handle(), exec.into(), CancelToken::new());
        let control = bottle.engine().control().clone().with_cancel(cancel.clone());
        let guard = CancelOnDrop::new(cancel);
        let output = blocking(move || bottle.exec_with(exec, control)).await;
        guard.disarm();
        output
    }

    /// Starts a command and returns it while it runs, with a stream for each of its pipes, or one terminal if `terminal` is
    /// given.
    ///
    /// # Errors
    ///
    /// As [`bottle::Bottle::spawn`].
    pub async fn spawn(&self, exec: impl Into<Exec>, terminal: Option<TerminalSize>) -> Result<Child, BottleError> {
        let (bottle, exec) = (self.handle(), exec.into());
        let child = blocking(move || bottle.spawn(exec, terminal)).await?;
        let failed = |source| BottleError::Copy { path: "the streams of a command".into(), source };
        Child::new(child).map_err(failed)
    }

    /// Runs another method of the blocking handle, such as `|bottle| bottle.patch()`. Dropping the future does not stop it.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce(&bottle::Bottle) -> T + Send + 'static) -> T {
        let bottle = self.handle();
        blocking(move || work(&bottle)).await
    }

    /// Removes the bottle. Dropping the future does not stop the removal.
    ///
    /// # Errors
    ///
    /// As [`bottle::Bottle::close`].
    pub async fn close(&self) -> Result<TeardownReport, TeardownError> {
        self.run(bottle::Bottle::close).await
    }
}

impl Drop for Bottle {
    fn drop(&mut self) {
        drop_later(self.0.take());
    }
}
