//! The interface of a forge.

use std::time::Duration;

use bottle_plan::SecretValue;
use bottle_plan::manifest::Forge as Kind;

/// A deploy key to be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewKey<'a> {
    /// Title of the key in the forge's list.
    pub title: &'a str,
    /// Algorithm and key, separated by a space.
    pub public_key: &'a str,
    /// True if the key may only read.
    pub read_only: bool,
}

/// A deploy key that is registered at a forge.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct RegisteredKey {
    /// Id of the key at the forge.
    pub id: u64,
    /// Title of the key in the forge's list.
    #[serde(default)]
    pub title: String,
    /// Algorithm and key, and optionally a comment.
    pub key: String,
}

impl RegisteredKey {
    /// Returns true if this is the given key, ignoring comments.
    pub fn is(&self, public_key: &str) -> bool {
        self.key.split_whitespace().take(2).eq(public_key.split_whitespace().take(2))
    }
}

/// The deploy keys of a forge's repositories, administered with one token.
pub trait Forge: Send + Sync {
    /// Registers a key and returns its id at the forge.
    ///
    /// # Errors
    ///
    /// [`ForgeError`]. The key may be registered anyway unless [`ForgeError::nothing_was_done`] returns true.
    fn create(&self, repository: &str, key: &NewKey<'_>) -> Result<u64, ForgeError>;

    /// Returns every key of the repository.
    ///
    /// # Errors
    ///
    /// [`ForgeError`].
    fn list(&self, repository: &str) -> Result<Vec<RegisteredKey>, ForgeError>;

    /// Deletes a key.
    ///
    /// # Errors
    ///
    /// [`ForgeError`]. The status is 404 if the key does not exist or the token has no access to the repository.
    fn delete(&self, repository: &str, id: u64) -> Result<(), ForgeError>;
}

/// Connects to forges. [`HttpForges`](super::HttpForges) is the standard implementation; a test or an embedding program
/// may provide its own.
pub trait Forges: Send + Sync {
    /// Returns the forge at this address.
    ///
    /// # Errors
    ///
    /// Returns an error when the address or the token cannot be used.
    fn connect(&self, kind: Kind, api_url: &str, token: SecretValue) -> Result<Box<dyn Forge>, ForgeError>;

    /// Returns the timeout of a request.
    fn timeout(&self) -> Duration;

    /// Returns the time after an unanswered request within which a key may still appear.
    fn settle(&self) -> Duration;
}

/// A forge that contacts nothing, for rehearsals.
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

/// An error of a forge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForgeError {
    /// The token is missing.
    #[error("the variable is not set")]
    NoToken,
    /// The address or the token is not usable.
    #[error("it cannot be asked: {reason}")]
    Unusable {
        /// Reason.
        reason: String,
    },
    /// The forge was not reached, so it did nothing.
    #[error("it was not reached: {reason}")]
    Unreachable {
        /// Reason.
        reason: String,
    },
    /// The forge refused the request.
    #[error("it answered {status}{}{}", meaning(*status), said(message))]
    Refused {
        /// HTTP status.
        status: u16,
        /// Message of the forge. May be empty.
        message: String,
    },
    /// The forge failed. It is unknown what it did.
    #[error("it answered {status}, a failure of its own{}", said(message))]
    Failed {
        /// HTTP status.
        status: u16,
        /// Message of the forge. May be empty.
        message: String,
    },
    /// The forge received the request but did not answer. It is unknown what it did.
    #[error("it did not answer: {reason}")]
    Unanswered {
        /// Reason.
        reason: String,
    },
    /// The answer of the forge cannot be parsed.
    #[error("its answer is not understood: {reason}")]
    Malformed {
        /// Reason.
        reason: String,
    },
}

impl ForgeError {
    /// Returns true if the forge certainly did nothing.
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
