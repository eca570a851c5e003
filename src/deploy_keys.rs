//! Deploy keys: an ssh key for one bottle and one repository, registered at a forge at launch and revoked at teardown.
//!
//! The journal names a key by its public key before the forge is asked to register it. If the launcher is killed, the
//! next teardown or recovery therefore finds the key, if the forge has it. The forge's token is read from the host's
//! environment each time and is never written to disk.

use std::sync::Arc;

use bottle_engine::Engine;
use bottle_exec::{Observer, step};
use bottle_plan::plan::{DeployKey, Upstream};
use bottle_plan::value::CredentialName;
use bottle_plan::{BottlePlan, Names, SecretValue};
use serde::Deserialize as _;

use crate::lifecycle::{JournalFile, Undo, UndoHandler, UndoHandlers};

pub use bottle_forge::{
    BottleKey, Forge, ForgeError, ForgeKeys, Forges, HttpForges, KeyPair, NewKey, RegisteredKey, RehearsedForges,
};

use crate::Host;

/// Name of the undo handler for this module's entries in the journal.
const HANDLER: &str = "deploy-key";

/// Error of registering a deploy key.
#[derive(Debug, thiserror::Error)]
#[error(
    "git upstream `{upstream}` ({key}.deploy_key): no deploy key for `{repository}` could be registered at {api_url} with the token in `{variable}`"
)]
pub struct DeployKeyError {
    /// Name of the upstream.
    pub upstream: String,
    /// The manifest's key of the upstream.
    pub key: String,
    /// The repository as the forge names it.
    pub repository: String,
    /// The forge's interface.
    pub api_url: String,
    /// The variable that holds the token.
    pub variable: CredentialName,
    /// Error of the forge, or of the connection to it.
    pub source: ForgeError,
}

/// Returns the journal's entry of a key.
fn undo(key: &BottleKey) -> Undo {
    // Text and numbers always serialize to JSON.
    Undo::Extension { handler: HANDLER.into(), data: serde_json::to_value(key).unwrap_or_default() }
}

/// Context of a registration.
pub(crate) struct Registrar<'a> {
    pub(crate) plan: &'a BottlePlan,
    pub(crate) host: &'a Host,
    pub(crate) forges: &'a dyn Forges,
    pub(crate) journal: &'a JournalFile,
    pub(crate) observer: &'a dyn Observer,
}

/// Reason why a registration failed.
#[derive(Debug)]
pub(crate) enum Stopped {
    Journal(crate::lifecycle::JournalError),
    Forge(Box<DeployKeyError>),
}

impl Registrar<'_> {
    /// Registers the public half of an upstream's key. The journal entry is written first, and updated with the key's
    /// id once the forge has answered.
    pub(crate) fn register(&self, upstream: &Upstream, key: &DeployKey, pair: &KeyPair) -> Result<(), Stopped> {
        let token = token(self.host, &key.token);
        let mut entry = BottleKey::new(&self.plan.names.project(), upstream, key, pair, token.as_ref());
        let before = undo(&entry);
        self.journal.record(before.clone()).map_err(Stopped::Journal)?;
        let doing = format!("register deploy key {} for {} at {}", entry.title, entry.repository, entry.api_url);
        let asked = step(self.observer, &doing, || entry.register(self.forges, token, key.read_only));
        match asked {
            Ok(()) => {
                let after = undo(&entry);
                let replace = |undo: &mut Undo| {
                    if *undo == before {
                        *undo = after.clone();
                    }
                };
                self.journal.change(|journal| journal.undo.iter_mut().for_each(replace)).map_err(Stopped::Journal)
            }
            Err(source) => {
                if source.nothing_was_done() {
                    self.journal.mark_done(&before).map_err(Stopped::Journal)?;
                }
                Err(Stopped::Forge(Box::new(DeployKeyError {
                    upstream: upstream.name.to_string(),
                    key: upstream.key.clone(),
                    repository: entry.repository,
                    api_url: entry.api_url,
                    variable: entry.token,
                    source,
                })))
            }
        }
    }
}

/// Returns the token in the host's environment. `None` if it is missing or empty.
fn token(host: &Host, variable: &CredentialName) -> Option<SecretValue> {
    let text = host.variable(variable.as_str())?.to_str()?.trim();
    (!text.is_empty()).then(|| SecretValue::new(text))
}

/// Adds the handler that revokes the keys in a journal.
pub(crate) fn revoking(handlers: UndoHandlers, host: &Host, forges: &Arc<dyn Forges>) -> UndoHandlers {
    handlers.with(HANDLER, Arc::new(Revoker { host: host.clone(), forges: Arc::clone(forges) }))
}

struct Revoker {
    host: Host,
    forges: Arc<dyn Forges>,
}

impl UndoHandler for Revoker {
    fn undo(&self, data: &serde_json::Value, _: &Engine, bottle: &Names) -> Result<(), String> {
        let key =
            BottleKey::deserialize(data).map_err(|error| format!("the journal's entry is not understood: {error}"))?;
        key.revoke(&bottle.project(), &*self.forges, token(&self.host, &key.token))
    }
}
