//! The deploy key of a bottle: what is recorded before its forge is asked, and how it is revoked.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bottle_lifecycle::DeployKeys;
use bottle_plan::SecretValue;
use bottle_plan::digest::sha256;
use bottle_plan::manifest::Forge as Kind;
use bottle_plan::plan::{DeployKey, Upstream};
use bottle_plan::value::CredentialName;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Forge, ForgeError, Forges, KeyPair, NewKey};

/// A deploy key of a bottle: everything that is needed to find it at its forge, and no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BottleKey {
    forge: Kind,
    /// The forge's interface.
    pub api_url: String,
    /// The repository as the forge names it.
    pub repository: String,
    /// Title of the key in the forge's list.
    pub title: String,
    /// Algorithm and key, as the forge lists them too.
    public_key: String,
    /// The host's variable that holds the token.
    pub token: CredentialName,
    /// Time of the request to the forge, in seconds since 1970.
    asked: u64,
    /// Id of the key at the forge. `None` until its response was read.
    id: Option<u64>,
    /// [`BottleKey::bound_to`] the token of the launch. `None` if there was none.
    #[serde(default)]
    bound: Option<String>,
}

impl BottleKey {
    /// Returns the key of a project for an upstream, which is to be registered now. `token` is that of the launch.
    pub fn new(
        project: &str,
        upstream: &Upstream,
        key: &DeployKey,
        pair: &KeyPair,
        token: Option<&SecretValue>,
    ) -> Self {
        let mut new = Self {
            forge: key.forge,
            api_url: key.api_url.clone(),
            repository: key.repository.clone(),
            title: format!("{project}-{}", upstream.name),
            public_key: pair.public().to_owned(),
            token: key.token.clone(),
            asked: now(),
            id: None,
            bound: None,
        };
        new.bound = token.map(|token| new.bound_to(token));
        new
    }

    /// Registers the key at its forge.
    ///
    /// # Errors
    ///
    /// [`ForgeError`]. The key may be registered anyway unless [`ForgeError::nothing_was_done`] returns true.
    pub fn register(
        &mut self,
        forges: &dyn Forges,
        token: Option<SecretValue>,
        read_only: bool,
    ) -> Result<(), ForgeError> {
        let new = NewKey { title: &self.title, public_key: &self.public_key, read_only };
        let token = token.ok_or(ForgeError::NoToken)?;
        self.id = Some(forges.connect(self.forge, &self.api_url, token)?.create(&self.repository, &new)?);
        Ok(())
    }

    /// Revokes the key, unless its title is not one of the project.
    ///
    /// # Errors
    ///
    /// Returns the reason for which the key may still exist.
    pub fn revoke(&self, project: &str, forges: &dyn Forges, token: Option<SecretValue>) -> Result<(), String> {
        let own = format!("{project}-");
        if !self.title.starts_with(&own) {
            return Err(format!("the key `{}` is not this bottle's, whose titles begin with `{own}`", self.title));
        }
        let Self { title, repository, api_url, token: variable, .. } = self;
        let Some(token) = token else {
            return Err(format!(
                "the variable `{variable}` is not set, so the key `{title}` of `{repository}` at {api_url} was not revoked; \
                 set it and recover, or delete the key there"
            ));
        };
        if !self.may_send(&token) {
            return Err(format!(
                "the key `{title}` of `{repository}` was not registered at {api_url} with the token in `{variable}`, which is therefore \
                 not sent there; set the token of the launch and recover, or delete the key there"
            ));
        }
        let revoked = forges.connect(self.forge, api_url, token).and_then(|forge| self.delete(&*forge, forges));
        revoked.map_err(|error| {
            format!("the key `{title}` of `{repository}` at {api_url} was not revoked with the token in `{variable}`: {error}")
        })
    }

    fn delete(&self, forge: &dyn Forge, forges: &dyn Forges) -> Result<(), ForgeError> {
        // A forge that did not answer may still create the key.
        let settle = forges.settle();
        let until = (self.asked + (forges.timeout() + settle).as_secs()).min(now() + settle.as_secs());
        let mut pause = Duration::from_millis(200);
        loop {
            let mut found = false;
            for key in forge.list(&self.repository)? {
                if key.title == self.title && key.is(&self.public_key) {
                    found = true;
                    match forge.delete(&self.repository, key.id) {
                        // Somebody else has revoked it.
                        Ok(()) | Err(ForgeError::Refused { status: 404, .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            if found || self.id.is_some() || now() >= until {
                return Ok(());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    /// Returns a code over the forge, the key and the variable that only somebody who knows the token can compute.
    fn bound_to(&self, token: &SecretValue) -> String {
        let Self { forge, api_url, repository, title, public_key, token: variable, .. } = self;
        let text = json!([forge, api_url, repository, title, public_key, variable]).to_string();
        // Two hashes: of one alone, a longer text's hash can be computed without the token.
        let keyed = |text: &str| sha256(format!("bottle deploy key\n{}\n{text}", token.expose()));
        keyed(&keyed(&text))
    }

    /// Returns true if the token may be sent to the key's forge. The entry comes from outside, which could name a host of
    /// somebody else, or another variable.
    fn may_send(&self, token: &SecretValue) -> bool {
        self.bound.as_ref() == Some(&self.bound_to(token)) || self.api_url == DeployKey::public_api(self.forge)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Returns the value of a variable of the host.
type Variable = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Deploy keys at forges, with the tokens in variables of the host.
#[derive(Clone)]
pub struct ForgeKeys {
    forges: Arc<dyn Forges>,
    variable: Arc<Variable>,
}

impl fmt::Debug for ForgeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForgeKeys").finish_non_exhaustive()
    }
}

impl ForgeKeys {
    /// Returns deploy keys at these forges. `variable` returns the value of a variable of the host.
    pub fn new(forges: Arc<dyn Forges>, variable: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self { forges, variable: Arc::new(variable) }
    }

    fn token(&self, name: &CredentialName) -> Option<SecretValue> {
        let value = (self.variable)(name.as_str())?;
        let value = value.trim();
        (!value.is_empty()).then(|| SecretValue::new(value))
    }
}

impl DeployKeys for ForgeKeys {
    fn make(&self, project: &str, upstream: &Upstream, key: &DeployKey) -> Result<(SecretValue, Value), String> {
        let random = SystemRandom::new();
        let fill = |seed: &mut [u8]| random.fill(seed).map_err(|_| io::Error::other("there is no randomness"));
        let pair = KeyPair::generate(fill).map_err(|error| error.to_string())?;
        let entry = BottleKey::new(project, upstream, key, &pair, self.token(&key.token).as_ref());
        Ok((SecretValue::new(pair.private()), serde_json::to_value(entry).map_err(|error| error.to_string())?))
    }

    fn register(&self, key: &DeployKey, entry: &Value) -> Result<Value, String> {
        let mut entry = parsed(entry)?;
        let registered = entry.register(&*self.forges, self.token(&key.token), key.read_only);
        registered.map_err(|error| {
            let BottleKey { repository, api_url, token, .. } = &entry;
            format!(
                "no deploy key for `{repository}` could be registered at {api_url} with the token in `{token}`: {error}"
            )
        })?;
        serde_json::to_value(entry).map_err(|error| error.to_string())
    }

    fn revoke(&self, project: &str, entry: &Value) -> Result<(), String> {
        let entry = parsed(entry)?;
        entry.revoke(project, &*self.forges, self.token(&entry.token))
    }
}

fn parsed(entry: &Value) -> Result<BottleKey, String> {
    BottleKey::deserialize(entry).map_err(|error| format!("the journal's entry is not understood: {error}"))
}
