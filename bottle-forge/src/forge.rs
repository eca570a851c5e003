//! What is asked of a forge, whichever it is.

use std::time::Duration;

use bottle_plan::SecretValue;
use bottle_plan::manifest::Forge as Kind;

/// A key to be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewKey<'a> {
    /// What a person sees in the forge's list.
    pub title: &'a str,
    /// Algorithm and key, separated by a blank.
    pub public_key: &'a str,
    /// Whether it may only read.
    pub read_only: bool,
}

/// A key that a forge has.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct RegisteredKey {
    /// What the forge calls it.
    pub id: u64,
    /// Algorithm and key, and perhaps a comment.
    pub key: String,
}

impl RegisteredKey {
    /// Whether it is this key, whatever its comment.
    pub fn is(&self, public_key: &str) -> bool {
        self.key.split_whitespace().take(2).eq(public_key.split_whitespace().take(2))
    }
}

/// The deploy keys of a forge's repositories, as one token may administer them.
pub trait Forge: Send + Sync {
    /// Registers a key and returns what the forge calls it.
    ///
    /// # Errors
    ///
    /// [`ForgeError`]; whether the key may be there all the same is told by [`ForgeError::nothing_was_done`].
    fn create(&self, repository: &str, key: &NewKey<'_>) -> Result<u64, ForgeError>;

    /// Every key of the repository.
    ///
    /// # Errors
    ///
    /// [`ForgeError`].
    fn list(&self, repository: &str) -> Result<Vec<RegisteredKey>, ForgeError>;

    /// Deletes a key.
    ///
    /// # Errors
    ///
    /// [`ForgeError`]; a status of 404 when the key is not there, or the token sees nothing of the repository.
    fn delete(&self, repository: &str, id: u64) -> Result<(), ForgeError>;
}

/// Gives access to forges. [`HttpForges`](super::HttpForges) is the one to use; a test or an embedding program may bring
/// its own.
pub trait Forges: Send + Sync {
    /// The forge at this address.
    ///
    /// # Errors
    ///
    /// When it cannot even be tried.
    fn connect(&self, kind: Kind, api_url: &str, token: SecretValue) -> Result<Box<dyn Forge>, ForgeError>;

    /// How long a request may take.
    fn timeout(&self) -> Duration;

    /// How long after a request that was not answered a key may still turn up.
    fn settle(&self) -> Duration;
}

/// Asks nobody: for a launch that is rehearsed.
#[derive(Debug, Clone, Copy, Default)]
pub struct RehearsedForges;

impl Forges for RehearsedForges {
    fn connect(&self, _: Kind, _: &str, _: SecretValue) -> Result<Box<dyn Forge>, ForgeError> {
        Ok(Box::new(Self))
    }

    fn timeout(&self) -> Duration {
        Duration::ZERO
    }

    fn settle(&self) -> Duration {
        Duration::ZERO
    }
}

impl Forge for RehearsedForges {
    fn create(&self, _: &str, _: &NewKey<'_>) -> Result<u64, ForgeError> {
        Ok(0)
    }

    fn list(&self, _: &str) -> Result<Vec<RegisteredKey>, ForgeError> {
        Ok(Vec::new())
    }

    fn delete(&self, _: &str, _: u64) -> Result<(), ForgeError> {
        Ok(())
    }
}

/// Why a forge did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForgeError {
    /// There is no token to ask with.
    #[error("the variable is not set")]
    NoToken,
    /// It cannot be asked: the address or the token is not usable.
    #[error("it cannot be asked: {reason}")]
    Unusable {
        /// Why.
        reason: String,
    },
    /// It was not reached, so it did nothing.
    #[error("it was not reached: {reason}")]
    Unreachable {
        /// Why.
        reason: String,
    },
    /// It declined.
    #[error("it answered {status}{}{}", meaning(*status), said(message))]
    Refused {
        /// The status of HTTP.
        status: u16,
        /// What it said; may be empty.
        message: String,
    },
    /// It failed; what it did is not known.
    #[error("it answered {status}, a failure of its own{}", said(message))]
    Failed {
        /// The status of HTTP.
        status: u16,
        /// What it said; may be empty.
        message: String,
    },
    /// It was asked and not heard; what it did is not known.
    #[error("it did not answer: {reason}")]
    Unanswered {
        /// Why.
        reason: String,
    },
    /// It answered something else than its interface promises.
    #[error("its answer is not understood: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
}

impl ForgeError {
    /// Whether it is certain that the forge did nothing.
    pub const fn nothing_was_done(&self) -> bool {
        match self {
            Self::NoToken | Self::Unusable { .. } | Self::Unreachable { .. } | Self::Refused { .. } => true,
            Self::Failed { .. } | Self::Unanswered { .. } | Self::Malformed { .. } => false,
        }
    }
}

const fn meaning(status: u16) -> &'static str {
    match status {
        300..400 => ", a redirect, which is not followed since it would carry the token elsewhere",
        401 => ": it does not accept the token",
        403 => ": the token may not administer the repository's keys",
        404 => ": there is no such repository, or the token may not see it",
        422 | 400 => ": it does not take the key",
        429 => ": too many requests",
        _ => "",
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" (it says: {message})") }
}
