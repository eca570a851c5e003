//! Bottles that are stopped and started again, also by another process.

use std::error::Error;
use std::sync::Arc;

use bottle_plan::{Slug, StateLayout};

use crate::inputs::Inputs;
use crate::lifecycle::{
    Bottle, BottleError, CredentialSource, Fresh, JournalFile, Liveness, Renewal, Restart, StartOptions, Status,
};
use crate::{Bottles, Host};

impl Bottles {
    /// Stops a bottle, whichever process owns it. As [`Bottle::stop`].
    ///
    /// # Errors
    ///
    /// As [`attach`](Self::attach) and [`Bottle::stop`].
    pub fn stop(&self, slug: &Slug) -> Result<(), BottleError> {
        self.attach(slug)?.stop()
    }

    /// Starts a stopped bottle and returns a handle on it: one that was stopped, or that ended with its engine or machine.
    /// Its credentials are read again from this [`Host`]. As [`Bottle::start`].
    ///
    /// A bottle whose owner is gone is kept from then on, so that [`recover`](Self::recover) leaves it alone.
    ///
    /// # Errors
    ///
    /// As [`attach`](Self::attach) and [`Bottle::start`].
    pub fn start(&self, slug: &Slug) -> Result<Bottle, BottleError> {
        let bottle = self.attach(slug)?;
        if let Ok(file) = JournalFile::open(&self.state_root.bottle(slug)) {
            let journal = file.journal();
            let is_local = self.engine.info().endpoint.is_local;
            if journal.status == Status::Ready && journal.owner.liveness(is_local) == Liveness::Gone {
                file.set_status(Status::Kept)?;
            }
        }
        bottle.start()?;
        Ok(bottle)
    }

    /// Suspends the agent of a bottle. As [`Bottle::pause`].
    ///
    /// # Errors
    ///
    /// As [`attach`](Self::attach) and [`Bottle::pause`].
    pub fn pause(&self, slug: &Slug) -> Result<(), BottleError> {
        self.attach(slug)?.pause()
    }

    /// Resumes the agent of a bottle. As [`Bottle::resume`].
    ///
    /// # Errors
    ///
    /// As [`attach`](Self::attach) and [`Bottle::resume`].
    pub fn resume(&self, slug: &Slug) -> Result<(), BottleError> {
        self.attach(slug)?.resume()
    }

    /// Returns the options with which a bottle of this state root is started again.
    pub(crate) fn start_options(&self, slug: &Slug) -> StartOptions {
        let credentials = HostCredentials { host: self.host.clone(), layout: self.state_root.bottle(slug) };
        StartOptions::default()
            .with_wait(self.wait)
            .with_verification(self.verify)
            .with_credentials(Arc::new(credentials))
    }
}

/// The credentials that the bottle's plan names, read from the host.
#[derive(Debug)]
struct HostCredentials {
    host: Host,
    layout: StateLayout,
}

impl CredentialSource for HostCredentials {
    fn read(&self, restart: &Restart) -> Result<Fresh, Box<dyn Error + Send + Sync>> {
        let plan = bottle_supervise::current_plan(&self.layout)?;
        let is_wanted = |slot: &_| restart.credentials.iter().any(|(_, slots)| slots.contains(slot));
        let inputs = Inputs::read_credentials(&plan, &self.host, is_wanted)?;
        Ok(Fresh { renewals: renewals(&inputs, &self.host, restart), values: inputs.credentials })
    }
}

/// Returns the credentials that expire, with the sidecars that have them.
pub(crate) fn renewals(inputs: &Inputs, host: &Host, restart: &Restart) -> Vec<Renewal> {
    let renewed = inputs.renewed.iter().filter_map(|(name, (expires, slots))| {
        let theirs = |own: &Vec<_>| own.iter().filter(|slot| slots.contains(slot)).cloned().collect();
        let sidecars = restart.credentials.iter().map(|(container, own)| (container.clone(), theirs(own)));
        Some(Renewal {
            name: name.clone(),
            source: Arc::clone(host.source(name)?),
            expires: *expires,
            directory: restart.directory.clone(),
            sidecars: sidecars.collect(),
        })
    });
    renewed.collect()
}
