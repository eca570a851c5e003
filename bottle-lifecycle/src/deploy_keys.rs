//! The interface to deploy keys, for platforms that keep a bottle's journal elsewhere than in a file.

use std::fmt;

use bottle_plan::SecretValue;
use bottle_plan::plan::{DeployKey, Upstream};
use serde_json::Value;

/// Makes, registers and revokes the deploy keys of bottles. `project` is the name of the bottle's Compose project or namespace.
///
/// Every error is the reason as text, without a secret.
pub trait DeployKeys: fmt::Debug + Send + Sync {
    /// Makes a key for an upstream and returns its private half, and an entry without a secret. The entry is to be recorded
    /// before the key is registered, so that another process can revoke it.
    ///
    /// # Errors
    ///
    /// Returns an error when there is no randomness.
    fn make(&self, project: &str, upstream: &Upstream, key: &DeployKey) -> Result<(SecretValue, Value), String>;

    /// Registers a key at its forge, and returns the entry with the forge's number of it.
    ///
    /// # Errors
    ///
    /// Returns an error when the forge does not register it. The key may exist all the same, so it has to be revoked.
    fn register(&self, key: &DeployKey, entry: &Value) -> Result<Value, String>;

    /// Revokes a key. One that does not exist counts as revoked. The entry comes from outside: a key whose title is not one of
    /// the project is not revoked.
    ///
    /// # Errors
    ///
    /// Returns an error when the key may still exist.
    fn revoke(&self, project: &str, entry: &Value) -> Result<(), String>;
}
