//! The data and options for starting a stopped bottle.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bottle_engine::Start;
use bottle_plan::Secrets;
use bottle_plan::value::EnvName;
use bottle_store::Content;
use bottle_verify::Verify;
use serde::{Deserialize, Serialize};

use crate::renewal::Renewal;

/// Data for starting a stopped bottle again, besides the values of its credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// Containers in the order of their start.
    pub order: Vec<Start>,
    /// Containers of the sidecars that have credentials in memory, each with its slots.
    pub credentials: Vec<(String, Vec<EnvName>)>,
    /// Directory of the credentials in those containers.
    pub directory: String,
    /// Files of the store, which is started before everything in `order`. `None` if the containers bind this host's files.
    #[serde(default)]
    pub store: Option<Content>,
    /// End of the certificate authorities. The bottle cannot be started from then on. `None` if the journal does not tell.
    #[serde(default)]
    pub valid_until: Option<SystemTime>,
}

/// The credentials of a bottle, read again.
#[derive(Debug, Default)]
pub struct Fresh {
    /// Values of the credentials, by slot.
    pub values: Secrets,
    /// Renewals of those that expire.
    pub renewals: Vec<Renewal>,
}

/// Source of all credentials of a bottle's sidecars. They are in memory and lost when the bottle is stopped.
pub trait CredentialSource: Send + Sync + fmt::Debug {
    /// Reads the values of these slots, each of which belongs to the sidecars in `restart`.
    ///
    /// # Errors
    ///
    /// Returns an error, without a value, if one of them cannot be read.
    fn read(&self, restart: &Restart) -> Result<Fresh, Box<dyn Error + Send + Sync>>;
}

/// Options of starting a stopped bottle.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StartOptions {
    /// Time within which the services must become healthy. Default: two minutes.
    pub wait: Duration,
    /// Part of the bottle that is attacked before it can be used. Default: [`Verify::Quick`].
    pub verify: Verify,
    /// Source of the credentials. Default: none.
    pub credentials: Option<Arc<dyn CredentialSource>>,
}

impl Default for StartOptions {
    fn default() -> Self {
        Self { wait: Duration::from_secs(120), verify: Verify::Quick, credentials: None }
    }
}

impl StartOptions {
    /// Sets the time within which the services must become healthy.
    #[must_use]
    pub const fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Sets the part of the bottle that is attacked before it can be used.
    #[must_use]
    pub const fn with_verification(mut self, level: Verify) -> Self {
        self.verify = level;
        self
    }

    /// Sets the source of the credentials.
    #[must_use]
    pub fn with_credentials(mut self, source: Arc<dyn CredentialSource>) -> Self {
        self.credentials = Some(source);
        self
    }
}
