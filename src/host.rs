//! The host of a launch: its environment and directories. No other module of the libraries reads them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bottle_lifecycle::SecretSource;
use bottle_plan::value::CredentialName;
use bottle_plan::{HostFacts, PlanRequest, StateRoot, UserIds};
use bottle_workspace::UserGit;

/// The host as a launch sees it. It consists of values, so a test or an embedding program can build its own.
#[derive(Clone)]
pub struct Host {
    /// Home and working directory, user and group.
    pub facts: HostFacts,
    environment: BTreeMap<OsString, OsString>,
    sources: BTreeMap<String, Arc<dyn SecretSource>>,
}

impl std::fmt::Debug for Host {
    /// Shows only the names of variables, because values may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("facts", &self.facts)
            .field("variables", &self.environment.len())
            .field("sources", &self.sources)
            .finish()
    }
}

impl Host {
    /// Returns the host of this process.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no working directory, or no home directory is known.
    pub fn current() -> io::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "the one place that asks")]
        let environment: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        let home = environment.get(OsStr::new("HOME")).map(PathBuf::from).filter(|home| home.is_absolute());
        let home = home.ok_or_else(|| io::Error::other("the variable `HOME` holds no absolute path"))?;
        let user = UserIds { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        Ok(Self::new(HostFacts { home, cwd: std::env::current_dir()?, user }, environment))
    }

    /// Returns a host with these facts and this environment.
    pub fn new(facts: HostFacts, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self { facts, environment: environment.into_iter().collect(), sources: BTreeMap::new() }
    }

    /// Sets the source of a credential that a manifest names, in place of the variable of that name. It is asked at the
    /// launch, and then before each value expires. The new value is handed to the sidecars while they run.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::time::Duration;
    /// use bottle::Host;
    /// use bottle::lifecycle::FileSource;
    /// let source = FileSource::new("/run/secrets/api-token").with_lifetime(Duration::from_secs(600));
    /// let host = Host::current()?.with_secret(&"API_TOKEN".parse()?, Arc::new(source));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_secret(mut self, name: &CredentialName, source: Arc<dyn SecretSource>) -> Self {
        self.sources.insert(name.variable().to_string(), source);
        self
    }

    /// Returns the source of a credential.
    pub(crate) fn source(&self, name: &str) -> Option<&Arc<dyn SecretSource>> {
        self.sources.get(name)
    }

    /// Returns the value of a variable.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.environment.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// Returns every variable. The subprocess backend filters them.
    pub fn environment(&self) -> impl Iterator<Item = (OsString, OsString)> + '_ {
        self.environment.iter().map(|(name, value)| (name.clone(), value.clone()))
    }

    /// Returns the same host with another Docker Engine, by its address or as `context://NAME`, for the environment of its client.
    #[must_use]
    pub fn with_docker(&self, address: &str) -> Self {
        let (name, other, value) = match address.strip_prefix("context://") {
            Some(context) => ("DOCKER_CONTEXT", "DOCKER_HOST", context),
            None => ("DOCKER_HOST", "DOCKER_CONTEXT", address),
        };
        let mut host = self.clone();
        host.environment.remove(OsStr::new(other));
        host.environment.insert(name.into(), value.into());
        host
    }

    /// Returns the git configurations that count for every repository of this user.
    pub(crate) fn user_git(&self) -> UserGit {
        UserGit::new(&self.facts.home, |name| self.variable(name).map(PathBuf::from))
    }

    /// Returns the default directory of the bottles' state.
    pub fn state_root(&self) -> StateRoot {
        let path = |name: &str| self.variable(name).map(Path::new);
        StateRoot::from_host(path("CLAUDE_BOTTLE_STATE"), path("XDG_STATE_HOME"), &self.facts.home)
    }

    /// Requests the plan of a manifest's only agent, with a random slug.
    ///
    /// The slug only has to differ from those of other bottles, so its randomness is the standard library's hash seed,
    /// which cannot fail.
    pub fn plan_request(&self) -> PlanRequest<'_> {
        let seed = RandomState::new().build_hasher().finish();
        PlanRequest::new(&self.facts, std::array::from_fn(|byte| seed.to_le_bytes()[byte]))
    }
}
