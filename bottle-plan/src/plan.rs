//! The plan: a manifest's agent and bottle, joined with a slug and what is known of the host.
//!
//! A plan is complete but for what only a launch can know. It can be serialized, and holds names of environment
//! variables, never their values.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::manifest::{
    DeployKeySpec, Forge, GitIdentity, LimitsSpec, NetworksSpec, Provider, PushSpec, RequestScan, Runtime,
    WorkspaceMode,
};
use crate::name::{AgentName, Names};
use crate::value::{
    ByteSize, ContainerPath, DebianPackage, EntryName, EnvName, GitUrl, HeaderName, HostName, HostPattern, ImageRef,
    Method, NpmVersion, PathPrefix, Span,
};

/// What one bottle is, before a launch has added what only it can know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BottlePlan {
    /// Every name on the engine, from prefix and slug.
    pub names: Names,
    /// The agent's name in the manifest.
    pub agent_name: AgentName,
    /// The user that the sidecars run as: whoever owns the key files.
    pub user: UserIds,
    /// The egress firewall.
    pub proxy: ProxyPlan,
    /// The proxy that injects credentials; `None` when the plan has no routes.
    pub egress: Option<EgressPlan>,
    /// The keeper of git keys; `None` when the plan has no git upstreams.
    pub git_gate: Option<GitGatePlan>,
    /// The way to ask a person; `None` when the plan does not ask for it.
    pub supervise: Option<SupervisePlan>,
    /// The agent.
    pub agent: AgentPlan,
    /// The agent's files.
    pub workspace: WorkspacePlan,
    /// What the images are made of.
    pub images: ImagesPlan,
    /// Who owns the networks.
    pub networks: NetworksSpec,
    /// The certificate authorities.
    pub tls: TlsPlan,
    /// How much the containers may take.
    pub limits: LimitsSpec,
}

/// A user and group by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserIds {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl std::fmt::Display for UserIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// What pipelock lets through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyPlan {
    /// Every host that may be reached: the manifest's list and the hosts of its routes, sorted, each once. Empty: none.
    pub allow: Vec<HostPattern>,
    /// The hosts of `allow` that pipelock inspects by their content, sorted. Empty: it decrypts nothing.
    #[serde(default)]
    pub content: Vec<HostPattern>,
    /// Whether pipelock scans the headers and bodies of the requests that it can read.
    #[serde(default)]
    pub scan_requests: RequestScan,
}

impl ProxyPlan {
    /// The hosts of `allow` that pipelock passes without decrypting. A wildcard is left out when it covers a host whose
    /// content is inspected: pipelock would pass that one, too.
    pub fn passed(&self) -> impl Iterator<Item = &HostPattern> {
        let mut decrypted: BTreeSet<String> = self.content.iter().map(ToString::to_string).collect();
        for host in &self.content {
            let mut domain = Some(host.wildcard_base().unwrap_or(host.as_str()));
            while let Some(name) = domain {
                decrypted.insert(format!("*.{name}"));
                domain = name.split_once('.').map(|(_, parent)| parent);
            }
        }
        self.allow.iter().filter(move |host| !decrypted.contains(host.as_str()))
    }
}

/// What egress does with the requests of routed hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressPlan {
    /// The routes, at least one, in the manifest's order.
    pub routes: Vec<Route>,
}

impl EgressPlan {
    /// Every token slot with the host's variable that fills it, in order of slots, each once.
    pub fn token_slots(&self) -> BTreeMap<EnvName, EnvName> {
        let injections = self.routes.iter().filter_map(|route| route.inject.as_ref());
        injections.map(|inject| (inject.slot.clone(), inject.token.clone())).collect()
    }
}

/// A host whose requests egress limits, gives a credential, or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The name in refusals and in the audit log.
    pub name: String,
    /// The key of the manifest that it comes from, for errors.
    pub key: String,
    /// The host, or a wildcard for one label.
    pub host: HostPattern,
    /// The port.
    pub port: u16,
    /// Path prefixes; empty for all.
    pub paths: Vec<PathPrefix>,
    /// Methods; empty for all.
    pub methods: Vec<Method>,
    /// The credential; `None` when the route only limits.
    pub inject: Option<Injection>,
}

/// A credential that egress puts into a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injection {
    /// The host's variable that holds the token.
    pub token: EnvName,
    /// The variable of the egress container that holds it.
    pub slot: EnvName,
    /// The header.
    pub header: HeaderName,
    /// The header's value.
    pub value: InjectionValue,
}

/// The value of a header with a credential in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InjectionValue {
    /// Text in which `{token}` stands for the token.
    Template(String),
    /// `Basic` and the base64 of this user name, a colon and the token.
    Basic {
        /// The user name.
        username: String,
    },
}

/// The repositories that git-gate serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitGatePlan {
    /// The repositories, at least one, in the manifest's order.
    pub upstreams: Vec<Upstream>,
}

impl GitGatePlan {
    /// The addresses of every upstream's hosts together; a manifest in which two disagree is refused.
    pub fn extra_hosts(&self) -> BTreeMap<HostName, IpAddr> {
        self.upstreams.iter().flat_map(|upstream| upstream.extra_hosts.clone()).collect()
    }

    /// Every line of `known_hosts`, in the manifest's order, each once.
    pub fn known_hosts(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        let lines = self.upstreams.iter().flat_map(|upstream| &upstream.known_hosts);
        lines.map(|line| line.trim()).filter(|line| seen.insert(*line)).collect()
    }

    /// Every token slot with the host's variable that fills it, in order of slots, each once.
    pub fn token_slots(&self) -> BTreeMap<EnvName, EnvName> {
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
    /// Its name on git-gate.
    pub name: EntryName,
    /// The key of the manifest that it comes from, for errors.
    pub key: String,
    /// Where it really is.
    pub url: GitUrl,
    /// How git-gate proves who it is.
    pub auth: GitAuth,
    /// Lines of `known_hosts`.
    pub known_hosts: Vec<String>,
    /// Addresses of hosts that DNS does not know.
    pub extra_hosts: BTreeMap<HostName, IpAddr>,
    /// What may be pushed.
    pub push: PushSpec,
}

/// How git-gate proves to an upstream who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GitAuth {
    /// With a private key of the host.
    IdentityFile(PathBuf),
    /// With a key made for this bottle alone.
    DeployKey(DeployKey),
    /// With a token over https.
    Token {
        /// The host's variable that holds the token.
        token: EnvName,
        /// The variable of the git-gate container that holds it.
        slot: EnvName,
        /// The user name that goes with it.
        username: String,
    },
    /// Not at all: a public repository over https.
    Anonymous,
}

/// A key that is registered at a forge for the life of the bottle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployKey {
    /// Whose interface the forge speaks.
    pub forge: Forge,
    /// The interface's base, without a trailing `/`.
    pub api_url: String,
    /// The host's variable that holds a token which may administer keys.
    pub token: EnvName,
    /// The repository as the forge names it.
    pub repository: String,
    /// Whether the key may only read: so when nothing may be pushed.
    pub read_only: bool,
}

impl DeployKey {
    pub(crate) fn new(spec: &DeployKeySpec, url: &GitUrl, push: &PushSpec) -> Self {
        let public = match spec.forge {
            Forge::Github => "https://api.github.com",
            Forge::Gitlab => "https://gitlab.com/api/v4",
            Forge::Gitea => "",
        };
        let path = url.path();
        Self {
            forge: spec.forge,
            api_url: spec.api_url.as_deref().unwrap_or(public).trim_end_matches('/').to_owned(),
            token: spec.token.clone(),
            repository: spec.repository.clone().unwrap_or_else(|| path.strip_suffix(".git").unwrap_or(path).to_owned()),
            read_only: !push.enabled,
        }
    }
}

/// How the agent may ask a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisePlan {
    /// How long a tool call waits for a decision.
    pub wait: Span,
}

/// The agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentPlan {
    /// Its kind.
    pub provider: Provider,
    /// What is run, program first.
    pub command: Vec<String>,
    /// How the prompt reaches the command.
    pub prompt_mode: PromptMode,
    /// What the agent is told at the start.
    pub prompt: Option<PromptSource>,
    /// Directories of skills on the host.
    pub skills: Vec<PathBuf>,
    /// Literal variables, which the Compose file holds.
    pub literals: BTreeMap<EnvName, String>,
    /// Variables taken from the host's environment: the agent's name for each, and the host's.
    pub forwarded: BTreeMap<EnvName, EnvName>,
    /// Credential variables with a dummy each.
    pub placeholders: BTreeMap<EnvName, String>,
    /// A file of further variables.
    pub env_file: Option<PathBuf>,
    /// Author and committer of the agent's commits.
    pub git_identity: GitIdentity,
    /// The OCI runtime.
    pub runtime: Runtime,
}

/// How a prompt reaches the agent's command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptMode {
    /// Appended to the system prompt by an option that takes a file (Claude Code).
    AppendSystemPromptFile,
    /// As the last argument (Codex).
    LastArgument,
    /// As a file whose path is in `$BOTTLE_PROMPT_FILE`.
    EnvironmentFile,
}

/// Where a prompt comes from.
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
    /// How the agent gets them.
    pub mode: WorkspaceMode,
    /// The directory on the host; unused with mode `none`.
    pub source: PathBuf,
    /// Where the agent sees them.
    pub target: ContainerPath,
    /// Whether `.env` files are copied too.
    pub include_env_files: bool,
}

/// What the images are made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagesPlan {
    /// What built images are built on.
    pub base: ImageRef,
    /// Pipelock's image.
    pub pipelock: ImageRef,
    /// Ready images in place of built ones, by service.
    pub ready: BTreeMap<crate::name::Service, ImageRef>,
    /// The agent's image, when it is built.
    pub agent: AgentImagePlan,
}

/// What goes into the agent's built image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentImagePlan {
    /// Further Debian packages, sorted.
    pub packages: Vec<DebianPackage>,
    /// The version of Claude Code; `None` for none.
    pub claude_code: Option<NpmVersion>,
    /// The version of Codex; `None` for none.
    pub codex: Option<NpmVersion>,
    /// Further build arguments.
    pub build_args: BTreeMap<EnvName, String>,
    /// The user and group that the agent runs as; `None` stands for 1000, since root is not an agent's user.
    pub user: Option<UserIds>,
}

/// The certificate authorities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsPlan {
    /// How long they are valid.
    pub lifetime: Span,
    /// A PEM file of further authorities that upstream connections trust.
    pub upstream_ca: Option<PathBuf>,
}

impl BottlePlan {
    /// Processes and threads that the agent may have.
    pub fn agent_pids(&self) -> u32 {
        self.limits.agent.pids.unwrap_or(4096)
    }

    /// Processes and threads that each sidecar may have.
    pub fn sidecar_pids(&self) -> u32 {
        self.limits.sidecar.pids.unwrap_or(256)
    }

    /// Memory that each sidecar may have.
    pub fn sidecar_memory(&self) -> ByteSize {
        self.limits.sidecar.memory.unwrap_or(ByteSize::mib(1024))
    }

    /// Every variable that Compose must find in its environment, with the host's variable that fills it and the
    /// manifest's key that wants it. Placeholders are not here: their values are in the plan.
    pub fn wanted_variables(&self) -> Vec<WantedVariable> {
        let mut wanted = Vec::new();
        for (name, source) in &self.agent.forwarded {
            let purpose = format!("the agent's variable `{name}` forwards it");
            wanted.push(WantedVariable { name: name.clone(), source: source.clone(), purpose, may_be_empty: true });
        }
        let mut slot = |name: &EnvName, source: &EnvName, purpose: String| {
            if !wanted.iter().any(|earlier| earlier.name == *name) {
                let (name, source) = (name.clone(), source.clone());
                wanted.push(WantedVariable { name, source, purpose, may_be_empty: false });
            }
        };
        for route in self.egress.iter().flat_map(|egress| &egress.routes) {
            if let Some(inject) = &route.inject {
                let purpose = format!("route `{}` injects it ({}.inject.token)", route.name, route.key);
                slot(&inject.slot, &inject.token, purpose);
            }
        }
        for upstream in self.git_gate.iter().flat_map(|gate| &gate.upstreams) {
            if let GitAuth::Token { token, slot: name, .. } = &upstream.auth {
                slot(name, token, format!("git upstream `{}` needs it ({}.token)", upstream.name, upstream.key));
            }
        }
        wanted
    }
}

/// A variable that Compose must find in its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedVariable {
    /// The name under which Compose looks for it.
    pub name: EnvName,
    /// The host's variable that fills it.
    pub source: EnvName,
    /// Who wants it, and the manifest's key, for errors.
    pub purpose: String,
    /// Whether an empty value will do.
    pub may_be_empty: bool,
}
