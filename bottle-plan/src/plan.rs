//! The plan: an agent and its bottle from a manifest, joined with a slug and facts about the host.
//!
//! A plan holds everything except what only a launch can know. It can be serialized. It holds names of environment
//! variables, but not the values of forwarded variables or credentials.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use bottle_yaml::{ManifestError, ManifestMistake, Origin};
use serde::{Deserialize, Serialize};

pub use crate::manifest::PromptMode;
use crate::manifest::{
    DeployKeySpec, EgressMode, Forge, GitIdentity, LimitsSpec, NetworksSpec, OnDenied, Provider, PushSpec, RequestScan,
    Runtime, SecretsMode, WorkspaceMode,
};
use crate::name::{AgentName, BottleName, Names};
use crate::value::{
    AllowedHost, ByteSize, ContainerPath, CredentialName, DEFAULT_PORTS, DebianPackage, EntryName, EnvName, GitUrl,
    HeaderName, HostName, ImageRef, Method, NpmVersion, PathPrefix, RouteHost, Span,
};

/// The plan of one bottle, without the facts that only a launch can know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BottlePlan {
    /// The names of the bottle's objects on the engine, from prefix and slug.
    pub names: Names,
    /// The agent's name in the manifest.
    pub agent_name: AgentName,
    /// The user that the sidecars run as, which is the owner of the key files.
    pub user: UserIds,
    /// The egress firewall.
    pub proxy: ProxyPlan,
    /// The proxy that injects credentials. `None` if the plan has no routes, writes no port, and pipelock decrypts nothing.
    pub egress: Option<EgressPlan>,
    /// The sidecar that holds git keys. `None` if the plan has no git upstreams.
    pub git_gate: Option<GitGatePlan>,
    /// The settings of supervise. `None` if the agent cannot ask a person for changes.
    pub supervise: Option<SupervisePlan>,
    /// The agent's command, prompt, environment and runtime.
    pub agent: AgentPlan,
    /// The agent's files.
    pub workspace: WorkspacePlan,
    /// The images, and what the built ones contain.
    pub images: ImagesPlan,
    /// The owner and the subnets of the networks.
    pub networks: NetworksSpec,
    /// The bottle's certificate authorities, and the additional ones that it trusts.
    pub tls: TlsPlan,
    /// The resource limits of the containers.
    pub limits: LimitsSpec,
    /// The way in which sidecars get the values of their credentials.
    #[serde(default)]
    pub secrets: SecretsMode,
    #[serde(skip)]
    pub(crate) source: PlanSource,
}

/// The manifest of a plan, for errors. It is ignored when plans are compared, and not stored.
#[derive(Debug, Clone, Default)]
pub(crate) struct PlanSource {
    pub(crate) origin: Origin,
    /// The bottle's name in the manifest. `None` for a plan that was read from its stored form.
    pub(crate) bottle: Option<BottleName>,
}

impl PartialEq for PlanSource {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Numeric ids of a user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserIds {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
}

impl std::fmt::Display for UserIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// The hosts that pipelock allows, and its inspection of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyPlan {
    /// The hosts that pipelock lets pass: those in the manifest's list and those of its routes, sorted, without
    /// duplicates. Empty: none.
    pub allow: Vec<AllowedHost>,
    /// The ports of the hosts of `allow` for which the manifest writes some. Other hosts have [`DEFAULT_PORTS`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<AllowedHost, BTreeSet<u16>>,
    /// The hosts of `allow` whose content pipelock inspects, sorted. Empty: pipelock decrypts nothing.
    #[serde(default)]
    pub content: Vec<AllowedHost>,
    /// The scan of headers and bodies of the requests that pipelock can read.
    #[serde(default)]
    pub scan_requests: RequestScan,
}

impl ProxyPlan {
    /// Returns the hosts of `allow` that pipelock passes without decrypting them. A wildcard is left out if it covers a
    /// host whose content is inspected, because pipelock would pass that host too.
    pub fn passed(&self) -> impl Iterator<Item = &AllowedHost> {
        let mut decrypted: BTreeSet<String> = self.content.iter().map(ToString::to_string).collect();
        for host in &self.content {
            let mut domain = Some(host.domain().unwrap_or(host.as_str()));
            while let Some(name) = domain {
                decrypted.insert(format!("*.{name}"));
                domain = name.split_once('.').map(|(_, parent)| parent);
            }
        }
        self.allow.iter().filter(move |host| !decrypted.contains(host.as_str()))
    }

    /// Returns the ports of an entry of `allow` that is not a route's.
    pub fn ports_of(&self, host: &AllowedHost) -> BTreeSet<u16> {
        self.ports.get(host).cloned().unwrap_or_else(|| DEFAULT_PORTS.into())
    }

    /// Returns whether pipelock decrypts the connections to any host. If not, it decrypts none, whichever hosts are
    /// allowed later in the running bottle.
    pub fn decrypts(&self) -> bool {
        !self.content.is_empty()
    }
}

/// The routes that egress applies to requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressPlan {
    /// The routes, in the manifest's order. Empty: egress is only there for its search for credentials, to bound what
    /// pipelock decrypts at once, or to limit the ports of each host.
    pub routes: Vec<Route>,
    /// The search for credentials in what the agent sends, where neither the route nor the host has another.
    #[serde(default)]
    pub dlp: RequestScan,
    /// The search for credentials of single hosts and domains.
    #[serde(default)]
    pub dlp_of_hosts: BTreeMap<AllowedHost, RequestScan>,
    /// The consequence of a request to a host that is not allowed.
    #[serde(default)]
    pub on_denied: OnDenied,
    /// The hosts that the agent may reach.
    #[serde(default)]
    pub mode: EgressMode,
    /// The hosts of pipelock's `allow` that a person allowed for a limited time. A launch has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub temporary: BTreeMap<AllowedHost, TemporaryHost>,
}

/// The end of a host's approval. Egress refuses the host from then on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemporaryHost {
    /// The id of the proposal that was approved.
    pub proposal: String,
    /// The end, in seconds since 1970.
    pub until: u64,
    /// `true` if only one request may pass.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
}

impl EgressPlan {
    /// Returns every token slot with the host's variable that fills it, sorted by slot, without duplicates.
    pub fn token_slots(&self) -> BTreeMap<EnvName, CredentialName> {
        let injections = self.routes.iter().filter_map(|route| route.inject.as_ref());
        injections.map(|inject| (inject.slot.clone(), inject.token.clone())).collect()
    }
}

/// A host for which egress limits the requests, injects a credential, or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The route's name in error responses and in the audit log.
    pub name: String,
    /// The manifest key of the entry, for error messages.
    pub key: String,
    /// The host, or a wildcard for exactly one label.
    pub host: RouteHost,
    /// The port.
    pub port: u16,
    /// The allowed path prefixes. Empty: all.
    pub paths: Vec<PathPrefix>,
    /// The allowed methods. Empty: all.
    pub methods: Vec<Method>,
    /// Further request headers that pass, where egress injects a credential for the host. Empty: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderName>,
    /// The credential to inject. `None` if the route only limits requests.
    pub inject: Option<Injection>,
    /// The search for credentials in its requests. `None`: that of the host.
    #[serde(default)]
    pub dlp: Option<RequestScan>,
}

/// A credential that egress injects into a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injection {
    /// The host's environment variable that holds the token.
    pub token: CredentialName,
    /// The environment variable of the egress container that holds the token.
    pub slot: EnvName,
    /// The header that carries the credential.
    pub header: HeaderName,
    /// The header's value.
    pub value: InjectionValue,
}

/// The value of a header that carries a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InjectionValue {
    /// A text in which `{token}` stands for the token.
    Template(String),
    /// `Basic`, followed by the base64 encoding of the user name, a colon and the token.
    Basic {
        /// The user name.
        username: String,
    },
}

/// The repositories that git-gate serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitGatePlan {
    /// The repositories, in the manifest's order. There is at least one.
    pub upstreams: Vec<Upstream>,
}

impl GitGatePlan {
    /// Returns the `extra_hosts` of all upstreams together. The check of the manifest rejects two upstreams that give
    /// one host different addresses.
    pub fn extra_hosts(&self) -> BTreeMap<HostName, IpAddr> {
        self.upstreams.iter().flat_map(|upstream| upstream.extra_hosts.clone()).collect()
    }

    /// Returns the lines of `known_hosts` of all upstreams, in the manifest's order, without duplicates.
    pub fn known_hosts(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        let lines = self.upstreams.iter().flat_map(|upstream| &upstream.known_hosts);
        lines.map(|line| line.trim()).filter(|line| seen.insert(*line)).collect()
    }

    /// Returns every token slot with the host's variable that fills it, sorted by slot, without duplicates.
    pub fn token_slots(&self) -> BTreeMap<EnvName, CredentialName> {
        let slot = |upstream: &Upstream| match &upstream.auth {
            GitAuth::Token { token, slot, .. } => Some((slot.clone(), token.clone())),
            GitAuth::IdentityFile(_) | GitAuth::DeployKey(_) | GitAuth::Anonymous => None,
        };
        self.upstreams.iter().filter_map(slot).collect()
    }
}

/// A repository that git-gate mirrors and forwards pushes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// The repository's name on git-gate.
    pub name: EntryName,
    /// The manifest key of the entry, for error messages.
    pub key: String,
    /// The URL of the upstream.
    pub url: GitUrl,
    /// The credential with which git-gate authenticates to the upstream.
    pub auth: GitAuth,
    /// The lines of `known_hosts` for the upstream's host.
    pub known_hosts: Vec<String>,
    /// The addresses of hosts that DNS does not resolve.
    pub extra_hosts: BTreeMap<HostName, IpAddr>,
    /// The rules for pushes.
    pub push: PushSpec,
}

/// The credential with which git-gate authenticates to an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GitAuth {
    /// A private key on the host, by its path.
    IdentityFile(PathBuf),
    /// A deploy key that is created for this bottle only.
    DeployKey(DeployKey),
    /// A token over https.
    Token {
        /// The host's environment variable that holds the token.
        token: CredentialName,
        /// The environment variable of the git-gate container that holds the token.
        slot: EnvName,
        /// The user name that is sent with the token.
        username: String,
    },
    /// No credential: a public repository over https.
    Anonymous,
}

/// A key that is registered at a forge for the lifetime of the bottle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployKey {
    /// The kind of forge, which selects the API.
    pub forge: Forge,
    /// The base URL of the API, without a trailing `/`.
    pub api_url: String,
    /// The host's environment variable that holds a token which may administer keys.
    pub token: CredentialName,
    /// The repository's name at the forge.
    pub repository: String,
    /// `true` if the key has read-only access. This is so when pushes are disabled.
    pub read_only: bool,
}

impl DeployKey {
    /// Returns the base URL of the public service of a kind of forge. Empty if there is none.
    pub const fn public_api(forge: Forge) -> &'static str {
        match forge {
            Forge::Github => "https://api.github.com",
            Forge::Gitlab => "https://gitlab.com/api/v4",
            Forge::Gitea => "",
        }
    }

    pub(crate) fn new(spec: &DeployKeySpec, url: &GitUrl, push: &PushSpec) -> Self {
        let path = url.path();
        Self {
            forge: spec.forge,
            api_url: spec.api_url.as_deref().unwrap_or(Self::public_api(spec.forge)).trim_end_matches('/').to_owned(),
            token: spec.token.clone(),
            repository: spec.repository.clone().unwrap_or_else(|| path.strip_suffix(".git").unwrap_or(path).to_owned()),
            read_only: !push.enabled,
        }
    }
}

/// The settings of supervise, through which the agent asks a person for changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisePlan {
    /// The time that a tool call waits for a decision.
    pub wait: Span,
}

/// The agent's command, prompt, environment and runtime.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentPlan {
    /// The kind of agent.
    pub provider: Provider,
    /// The command line, starting with the program.
    pub command: Vec<String>,
    /// The way in which the prompt is passed to the command.
    pub prompt_mode: PromptMode,
    /// The prompt at the start. `None` if there is none.
    pub prompt: Option<PromptSource>,
    /// The skill directories on the host.
    pub skills: Vec<PathBuf>,
    /// Variables with a literal value, which is written to the Compose file.
    pub literals: BTreeMap<EnvName, String>,
    /// Variables that are forwarded from the host's environment, as the agent's name mapped to the host's name.
    pub forwarded: BTreeMap<EnvName, EnvName>,
    /// Credential variables, each with a dummy value.
    pub placeholders: BTreeMap<EnvName, String>,
    /// A file of additional variables. `None` if there is none.
    pub env_file: Option<PathBuf>,
    /// The author and committer of the agent's commits.
    pub git_identity: GitIdentity,
    /// The OCI runtime of the agent's container.
    pub runtime: Runtime,
}

/// The source of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptSource {
    /// The text itself.
    Text(String),
    /// A file on the host.
    File(PathBuf),
}

/// The agent's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspacePlan {
    /// The way in which the agent gets the files.
    pub mode: WorkspaceMode,
    /// The directory on the host. Not used with mode `none`.
    pub source: PathBuf,
    /// The path in the agent's container.
    pub target: ContainerPath,
    /// `true` if a copy includes files that usually hold credentials.
    pub include_credential_files: bool,
}

/// The images, and what the built ones contain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagesPlan {
    /// The base of the built images.
    pub base: ImageRef,
    /// Pipelock's image.
    pub pipelock: ImageRef,
    /// Ready images that replace built ones, by service.
    pub ready: BTreeMap<crate::name::Service, ImageRef>,
    /// The contents of the agent's image, if it is built.
    pub agent: AgentImagePlan,
}

/// The contents of the agent's built image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentImagePlan {
    /// Additional Debian packages, sorted. Empty: none.
    pub packages: Vec<DebianPackage>,
    /// The version of Claude Code to install. `None`: it is not installed.
    pub claude_code: Option<NpmVersion>,
    /// The version of Codex to install. `None`: it is not installed.
    pub codex: Option<NpmVersion>,
    /// Additional build arguments.
    pub build_args: BTreeMap<EnvName, String>,
    /// The user and group that the agent runs as. `None` means 1000, and is used if root launches the bottle, because
    /// an agent does not run as root.
    pub user: Option<UserIds>,
}

/// The bottle's certificate authorities, and the additional ones that it trusts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsPlan {
    /// The validity period of the bottle's authorities.
    pub lifetime: Span,
    /// A PEM file of additional authorities that upstream connections trust. `None` if there is none.
    pub upstream_ca: Option<PathBuf>,
}

impl BottlePlan {
    /// Returns the manifest's path of a key of the bottle, such as `bottles.dev.env_file` for `env_file`. A plan that was
    /// read from its stored form has no bottle's name, and returns the key itself.
    pub fn bottle_key(&self, key: &str) -> String {
        self.source.bottle.as_ref().map_or_else(|| key.to_owned(), |bottle| format!("bottles.{bottle}.{key}"))
    }

    /// Creates the error for mistakes of the plan's manifest that only the caller can find, such as a path that does not
    /// exist. Each item is a key of the manifest and the text of the mistake. The error has the lines of the keys if the
    /// manifest was read or parsed, and the file if it was read from one.
    ///
    /// ```
    /// # use bottle_plan::{HostFacts, Manifest, PlanRequest, UserIds};
    /// # let host = HostFacts { home: "/home/me".into(), cwd: "/src".into(), user: UserIds { uid: 1000, gid: 1000 } };
    /// let text = "bottles: {dev: {workspace: {path: nowhere}}}\nagents: {demo: {bottle: dev, command: [id]}}";
    /// let plan = Manifest::parse(text)?.plan(PlanRequest::new(&host, [0; 5]))?;
    /// let error = plan.error_at([(plan.bottle_key("workspace.path"), "it does not exist".into())]);
    /// assert_eq!((error.mistakes[0].line, error.mistakes[0].column), (Some(1), Some(35)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn error_at(&self, mistakes: impl IntoIterator<Item = (String, String)>) -> ManifestError {
        let mistakes = mistakes.into_iter().map(|(key, text)| ManifestMistake::new(key, &text)).collect();
        self.source.origin.error(mistakes)
    }

    /// Returns true if the agent may reach every host whose name has a public address.
    pub fn learns(&self) -> bool {
        self.egress.as_ref().is_some_and(|egress| egress.mode == EgressMode::Learn)
    }

    /// Returns the user that the agent runs as in a built image: the launcher's own user, so that files written to a bound
    /// workspace belong to the launcher. If the launcher is root, it is 1000.
    pub fn agent_user(&self) -> UserIds {
        self.images.agent.user.unwrap_or(UserIds { uid: 1000, gid: 1000 })
    }

    /// Returns the maximum number of the agent's processes and threads. Default: 4096.
    pub fn agent_pids(&self) -> u32 {
        self.limits.agent.pids.unwrap_or(4096)
    }

    /// Returns the maximum size of the files that the agent writes. Default: 20 GiB.
    pub fn agent_disk(&self) -> ByteSize {
        self.limits.agent.disk.unwrap_or(ByteSize::mib(20 << 10))
    }

    /// Returns the maximum number of each sidecar's processes and threads. Default: 256.
    pub fn sidecar_pids(&self) -> u32 {
        self.limits.sidecar.pids.unwrap_or(256)
    }

    /// Returns the memory limit of each sidecar. Default: 1 GiB.
    pub fn sidecar_memory(&self) -> ByteSize {
        self.limits.sidecar.memory.unwrap_or(ByteSize::mib(1024))
    }

    /// Returns the maximum number of simultaneous connections to pipelock: one for each 8 MiB of its memory limit, or for
    /// each 32 MiB if it scans request bodies, and at least 8. That is 128 or 32 by default. Where pipelock is the agent's
    /// proxy, the seal makes a further connection wait.
    ///
    /// So much memory takes an answer of 1 MiB, or a body of 1 MiB, while it is scanned, including garbage that is not yet
    /// collected. 128 answers at once peaked at 805 MiB, 256 exceeded 1 GiB. 120 bodies at once peaked at 1,013 MiB. On
    /// a slow machine, 60 lost their connections, and 30 peaked at 745 MiB.
    pub fn max_connections(&self) -> u32 {
        self.sidecar_memory_shares(if self.proxy.scan_requests == RequestScan::Off { 8 } else { 32 }).max(8)
    }

    /// Returns every port that the agent may reach of some host, each once.
    pub fn outlet_ports(&self) -> BTreeSet<u16> {
        let routed = self.egress.iter().flat_map(|egress| &egress.routes).map(|route| route.port);
        let written = self.proxy.ports.values().flatten().copied();
        DEFAULT_PORTS.into_iter().chain(written).chain(routed).collect()
    }

    /// Returns how many shares of this size in MiB a sidecar's memory limit has.
    pub fn sidecar_memory_shares(&self, mib: u64) -> u32 {
        u32::try_from(self.sidecar_memory().bytes() / (mib << 20)).unwrap_or(u32::MAX)
    }

    /// Returns every variable that Compose must find in its environment, with the host's variable that fills it and the
    /// manifest key that needs it. Placeholders are not included, because their values are in the plan.
    pub fn wanted_variables(&self) -> Vec<WantedVariable> {
        let mut wanted = Vec::new();
        for (name, source) in &self.agent.forwarded {
            let key = self.bottle_key(&format!("env.{name}"));
            let purpose = format!("the agent's variable `{name}` forwards it");
            wanted.push(WantedVariable {
                name: name.clone(),
                source: source.clone(),
                key,
                purpose,
                is_credential: false,
            });
        }
        let mut slot = |name: &EnvName, source: &CredentialName, key: String, purpose: String| {
            if !wanted.iter().any(|earlier| earlier.name == *name) {
                let (name, source) = (name.clone(), source.variable().clone());
                wanted.push(WantedVariable { name, source, key, purpose, is_credential: true });
            }
        };
        for route in self.egress.iter().flat_map(|egress| &egress.routes) {
            if let Some(inject) = &route.inject {
                let purpose = format!("route `{}` injects it", route.name);
                slot(&inject.slot, &inject.token, format!("{}.inject.token", route.key), purpose);
            }
        }
        for upstream in self.git_gate.iter().flat_map(|gate| &gate.upstreams) {
            if let GitAuth::Token { token, slot: name, .. } = &upstream.auth {
                let purpose = format!("git upstream `{}` needs it", upstream.name);
                slot(name, token, format!("{}.token", upstream.key), purpose);
            }
        }
        wanted
    }
}

/// A variable of a container, whose value comes from the host's environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedVariable {
    /// The variable's name in the container: for a credential, its slot.
    pub name: EnvName,
    /// The host's environment variable that provides the value.
    pub source: EnvName,
    /// The manifest's path of the key that needs the variable.
    pub key: String,
    /// The use of the variable, for error messages.
    pub purpose: String,
    /// `true` for a credential of a sidecar, which must not be empty. `false` for a variable of the agent.
    pub is_credential: bool,
}
