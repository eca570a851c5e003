//! Deploy keys: an ssh key for one bottle and one repository, registered at a forge at launch and revoked at teardown.
//!
//! The journal names a key by its public key before the forge is asked to register it. If the launcher is killed, the
//! next teardown or recovery therefore finds the key, if the forge has it. The forge's token is read from the host's
//! environment each time and is never written to disk.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bottle_engine::Engine;
use bottle_exec::{Observer, step};
use bottle_plan::digest::sha256;
use bottle_plan::manifest::Forge as Kind;
use bottle_plan::plan::{DeployKey, Upstream};
use bottle_plan::value::CredentialName;
use bottle_plan::{BottlePlan, Names, SecretValue};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::lifecycle::{JournalFile, Undo, UndoHandler, UndoHandlers};

pub use bottle_forge::{Forge, ForgeError, Forges, HttpForges, KeyPair, NewKey, RegisteredKey, RehearsedForges};

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

/// Journal entry of a key: everything that is needed to find the key at the forge, and no secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    forge: Kind,
    api_url: String,
    repository: String,
    title: String,
    /// Algorithm and key, as the forge lists them too.
    public_key: String,
    /// The host's variable that holds the token.
    token: CredentialName,
    /// Time of the request to the forge, in seconds since 1970.
    asked: u64,
    /// Id of the key at the forge. `None` until its response was read.
    id: Option<u64>,
    /// [`Entry::bound_to`] the token of the launch. `None` if there was none.
    #[serde(default)]
    bound: Option<String>,
}

impl Entry {
    fn undo(&self) -> Undo {
        // Text and numbers always serialize to JSON.
        Undo::Extension { handler: HANDLER.into(), data: serde_json::to_value(self).unwrap_or_default() }
    }

    /// Returns a code over the forge, the key and the variable that only somebody who knows the token can compute.
    fn bound_to(&self, token: &SecretValue) -> String {
        let Self { forge, api_url, repository, title, public_key, token: variable, .. } = self;
        let text = json!([forge, api_url, repository, title, public_key, variable]).to_string();
        // Two hashes: of one alone, a longer text's hash can be computed without the token.
        let keyed = |text: &str| sha256(format!("bottle deploy key\n{}\n{text}", token.expose()));
        keyed(&keyed(&text))
    }

    /// Returns true if the token may be sent to the entry's forge. The entry comes from a file, which could name a host of
    /// somebody else, or another variable.
    fn may_send(&self, token: &SecretValue) -> bool {
        self.bound.as_ref() == Some(&self.bound_to(token)) || self.api_url == DeployKey::public_api(self.forge)
    }
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
        let mut entry = Entry {
            forge: key.forge,
            api_url: key.api_url.clone(),
            repository: key.repository.clone(),
            title: format!("{}-{}", self.plan.names.project(), upstream.name),
            public_key: pair.public().to_owned(),
            token: key.token.clone(),
            asked: now(),
            id: None,
            bound: None,
        };
        entry.bound = token(self.host, &key.token).map(|token| entry.bound_to(&token));
        let before = entry.undo();
        self.journal.record(before.clone()).map_err(Stopped::Journal)?;
        let doing = format!("register deploy key {} for {} at {}", entry.title, entry.repository, entry.api_url);
        let new = NewKey { title: &entry.title, public_key: &entry.public_key, read_only: key.read_only };
        let asked = step(self.observer, &doing, || {
            let token = token(self.host, &key.token).ok_or(ForgeError::NoToken)?;
            self.forges.connect(key.forge, &key.api_url, token)?.create(&key.repository, &new)
        });
        match asked {
            Ok(id) => {
                entry.id = Some(id);
                let after = entry.undo();
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

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
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
        let entry: Entry = serde_json::from_value(data.clone())
            .map_err(|error| format!("the journal's entry is not understood: {error}"))?;
        let own = format!("{}-", bottle.project());
        if !entry.title.starts_with(&own) {
            return Err(format!("the key `{}` is not this bottle's, whose titles begin with `{own}`", entry.title));
        }
        let Entry { title, repository, api_url, token: variable, .. } = &entry;
        let Some(token) = token(&self.host, variable) else {
            return Err(format!(
                "the variable `{variable}` is not set, so the key `{title}` of `{repository}` at {api_url} was not revoked; \
                 set it and recover, or delete the key there"
            ));
        };
        if !entry.may_send(&token) {
            return Err(format!(
                "the key `{title}` of `{repository}` was not registered at {api_url} with the token in `{variable}`, which is therefore \
                 not sent there; set the token of the launch and recover, or delete the key there"
            ));
        }
        let revoked = self.forges.connect(entry.forge, api_url, token).and_then(|forge| self.revoke(&*forge, &entry));
        revoked.map_err(|error| {
            format!("the key `{title}` of `{repository}` at {api_url} was not revoked with the token in `{variable}`: {error}")
        })
    }
}

impl Revoker {
    fn revoke(&self, forge: &dyn Forge, entry: &Entry) -> Result<(), ForgeError> {
        // A forge that did not answer may still create the key.
        let settle = self.forges.settle();
        let until = (entry.asked + (self.forges.timeout() + settle).as_secs()).min(now() + settle.as_secs());
        let mut pause = Duration::from_millis(200);
        loop {
            let mut found = false;
            for key in forge.list(&entry.repository)? {
                if key.title == entry.title && key.is(&entry.public_key) {
                    found = true;
                    match forge.delete(&entry.repository, key.id) {
                        // Somebody else has revoked it.
                        Ok(()) | Err(ForgeError::Refused { status: 404, .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            if found || entry.id.is_some() || now() >= until {
                return Ok(());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }
}
