//! The types of the manifest: the grammar of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inspect::{AllowSpec, Inspect, RequestScan};
use super::networks::{self, NetworksSpec};
use super::origin::Origin;
use super::shorthand::{self, EnvSpec, Toggle};
use crate::name::{AgentName, BottleName};
use crate::value::{
    ByteSize, ContainerPath, CpuCount, DebianPackage, EntryName, EnvName, GitUrl, Glob, HeaderName, HostName,
    HostPattern, ImageRef, Method, NpmVersion, PathPrefix, Span,
};

/// A manifest: bottles, and the agents that run in them.
///
/// Relative paths are relative to the manifest's directory, `~` stands for the home directory, and the workspace is the
/// working directory unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Bottle manifest")]
pub struct Manifest {
    /// What a sealed place looks like, by name. At least one is needed.
    #[serde(deserialize_with = "shorthand::unique_map")]
    #[schemars(extend("minProperties" = 1))]
    pub bottles: BTreeMap<BottleName, BottleSpec>,
    /// Who runs in which bottle, by name. At least one is needed.
    #[serde(deserialize_with = "shorthand::unique_map")]
    #[schemars(extend("minProperties" = 1, "propertyNames" = {"not": {"pattern": "^(?:pipelock|git-gate|egress|supervise)(?:-|$)"}}))]
    pub agents: BTreeMap<AgentName, AgentSpec>,
    #[serde(skip)]
    #[schemars(skip)]
    pub(super) origin: Origin,
}

/// One sealed place. Everything has a default: an empty mapping is a bottle that reaches nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BottleSpec {
    /// The agent's environment: literals, in which `$$` stands for `$`; `$NAME`, `${NAME}` or `{forward: NAME}` for a value of the host's environment, and
    /// `{placeholder: true}` for a credential variable that must be set while egress injects the real one.
    #[serde(deserialize_with = "shorthand::unique_map", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(example = serde_json::json!({"EDITOR": "vi", "LANG": {"forward": true}}))]
    pub env: BTreeMap<EnvName, EnvSpec>,
    /// A file of `NAME=value` lines for the agent's environment; ignored when it is absent or empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub env_file: Option<PathBuf>,
    /// What the agent may reach over HTTP. Empty: nothing.
    pub egress: EgressSpec,
    /// The git repositories that the agent may fetch from and push to. Empty: none.
    pub git: GitSpec,
    /// Whether the agent may ask a person for changes: `true`, or a mapping. Off unless given.
    pub supervise: Toggle<SuperviseSpec>,
    /// The OCI runtime of the agent's container.
    pub runtime: Runtime,
    /// Which images are used, and what goes into the agent's.
    pub images: ImagesSpec,
    /// The files that the agent works on.
    pub workspace: WorkspaceSpec,
    /// How much of the machine a container may take.
    pub limits: LimitsSpec,
    /// Who owns the bottle's networks: `compose`, `external`, or a mapping.
    #[serde(deserialize_with = "networks::networks")]
    #[schemars(with = "networks::NetworksForm")]
    pub networks: NetworksSpec,
    /// The bottle's certificate authorities, and whom its upstream connections trust.
    pub tls: TlsSpec,
}

/// What the agent may reach over HTTP.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EgressSpec {
    /// Hosts that may be reached as they are: `api.example.com`, or `*.example.com` for it and all below.
    #[schemars(example = serde_json::json!(["packages.example.com", {"host": "*.example.com", "inspect": "content"}]))]
    pub allow: Vec<AllowSpec>,
    /// Hosts whose requests are limited or given a credential. A host of a route need not be in `allow`.
    pub routes: Vec<RouteSpec>,
    /// Whether pipelock scans the headers and bodies of the requests that it can read.
    pub scan_requests: RequestScan,
}

impl EgressSpec {
    /// Every entry that names a host, the list first: its key below `egress`, the host, and what it says of the inspection.
    pub(super) fn inspections(&self) -> impl Iterator<Item = (String, &HostPattern, Option<Inspect>)> {
        let allow = self.allow.iter().enumerate();
        let allow = allow.map(|(index, entry)| (format!("allow[{index}]"), &entry.host, entry.inspect));
        let routes = self.routes.iter().enumerate();
        let routes = routes.map(|(index, route)| (format!("routes[{index}]"), &route.host, route.inspect));
        allow.chain(routes)
    }

    /// The hosts that pipelock inspects by their content, sorted, each once.
    pub(crate) fn content(&self) -> Vec<HostPattern> {
        let said = self.allow.iter().map(|entry| (&entry.host, entry.inspect));
        let said = said.chain(self.routes.iter().map(|route| (&route.host, route.inspect)));
        let content: BTreeSet<_> =
            said.filter(|(_, said)| *said == Some(Inspect::Content)).map(|(host, _)| host).collect();
        content.into_iter().cloned().collect()
    }
}

/// A host whose requests egress limits, gives a credential, or both.
///
/// A host that is named exactly hides every wildcard that would cover it, whatever their ports and paths. Of a host's routes
/// that fit a request the one with the longest path prefix wins, then one that names methods over one that does not. Two
/// routes of equal rank are an error of the manifest. What no route of a routed host allows is refused, as is plain HTTP; so
/// is, in the domain of a wildcard, every host that no route is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// The route's name in refusals and in the audit log. Default: the host, with `any` for `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<EntryName>,
    /// The host; here `*.example.com` stands for exactly one label below `example.com`.
    pub host: HostPattern,
    /// The port. Default: 443.
    #[serde(default = "https_port")]
    #[schemars(range(min = 1))]
    pub port: u16,
    /// The paths that may be asked for, as prefixes of whole segments. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathPrefix>,
    /// The methods that may be used. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Method>,
    /// The credential that every such request is given. Absent: none, the route only limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inject: Option<InjectSpec>,
    /// How pipelock inspects the host. Default: as another entry for the same host says, else `connection`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inspect: Option<Inspect>,
}

pub(super) const fn https_port() -> u16 {
    443
}

/// A credential that egress puts in a header, in place of whatever the agent sent there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InjectSpec {
    /// The variable of the host's environment that holds the token. The manifest never holds the token itself.
    #[schemars(example = &"ANTHROPIC_API_KEY")]
    pub token: EnvName,
    /// How the token is written: `bearer` and `basic` in `authorization`, `header` in a header of your choice.
    #[serde(default)]
    pub scheme: InjectScheme,
    /// With `header`: the header. Default: `x-api-key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderName>,
    /// With `header`: its value, in which `{token}` stands for the token. Default: `{token}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^(?:[!-~][ -~]*)?\{token\}(?:[ -~]*[!-~])?$"))]
    pub template: Option<String>,
    /// With `basic`: the user name. Default: `x-access-token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[^\u0000-\u001f\u007f-\u009f:]+$"))]
    pub username: Option<String>,
}

/// How a token is written into a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InjectScheme {
    /// `authorization: Bearer <token>` (RFC 6750).
    #[default]
    Bearer,
    /// `authorization: Basic <base64 of username:token>` (RFC 7617).
    Basic,
    /// A header of your choice.
    Header,
}

/// The git repositories that the agent may use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GitSpec {
    /// Whose name the agent's commits bear. Default: the agent's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<GitIdentity>,
    /// The repositories.
    pub upstreams: Vec<UpstreamSpec>,
}

/// Author and committer of the agent's commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GitIdentity {
    /// `user.name`.
    #[schemars(regex(pattern = r"^[^\u0000-\u001f\u007f-\u009f<>]+$"))]
    pub name: String,
    /// `user.email`.
    #[schemars(regex(pattern = r"^[^\u0000-\u001f\u007f-\u009f<>]+$"))]
    pub email: String,
}

/// A repository that git-gate mirrors and forwards pushes to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSpec {
    /// Its name on git-gate: the agent reaches it as `git://git-gate/<name>.git`.
    pub name: EntryName,
    /// Where it really is.
    #[schemars(example = &"git@git.example.com:team/app.git")]
    pub url: GitUrl,
    /// For ssh: the private key, mode 0600. Not with `deploy_key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub identity_file: Option<PathBuf>,
    /// For ssh: the host's public keys, as lines of a `known_hosts` file (sshd(8)). A host whose key is not here is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(regex(
        pattern = r"^\s*(?:@cert-authority\s+)?[^#@\s]\S*\s+(?:ssh-|ecdsa-|sk-ssh-|sk-ecdsa-)\S*\s+AAAA[A-Za-z0-9+/=]*(?:\s|$)"
    )))]
    pub known_hosts: Vec<String>,
    /// Addresses of hosts that DNS does not know, for git-gate alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "shorthand::addresses")]
    #[schemars(with = "BTreeMap<HostName, String>")]
    pub extra_hosts: BTreeMap<HostName, IpAddr>,
    /// For https: the variable of the host's environment that holds the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<EnvName>,
    /// For https: the user name that goes with the token. Default: `x-access-token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[^\u0000-\u001f\u007f-\u009f:]+$"))]
    pub username: Option<String>,
    /// A fresh key for this bottle alone, registered at the forge and revoked at teardown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy_key: Option<DeployKeySpec>,
    /// What the agent may push.
    #[serde(default)]
    pub push: PushSpec,
}

/// A key that is registered at a forge for the life of one bottle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployKeySpec {
    /// Whose programming interface the forge speaks.
    pub forge: Forge,
    /// The interface's base, such as `https://git.example.com/api/v1`. Default for GitHub and GitLab: their public one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^(?:https://|http://(?:127\.0\.0\.1|localhost|\[::1\])(?:[:/]|$))[^@?# ]*$"))]
    pub api_url: Option<String>,
    /// The variable of the host's environment that holds a token which may administer the repository's keys.
    pub token: EnvName,
    /// The repository as the forge names it. Default: the URL's path without `.git`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[A-Za-z0-9._/-]*/[A-Za-z0-9._/-]*$"))]
    pub repository: Option<String>,
}

/// A forge whose interface is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Forge {
    /// github.com and GitHub Enterprise Server.
    Github,
    /// Gitea and Forgejo.
    Gitea,
    /// gitlab.com and self-managed GitLab.
    Gitlab,
}

/// What may be pushed. The defaults let new commits onto branches and refuse everything that rewrites or widens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own in the manifest")]
pub struct PushSpec {
    /// Whether anything may be pushed at all.
    pub enabled: bool,
    /// The branches that may be pushed to. Empty: none.
    #[schemars(example = serde_json::json!(["agent/**"]))]
    pub branches: Vec<Glob>,
    /// Whether a push may rewrite a branch (a non-fast-forward update).
    pub force: bool,
    /// Whether a push may delete a branch or tag.
    pub delete: bool,
    /// Whether tags may be pushed.
    pub tags: bool,
    /// Paths that no pushed commit may change. Default: the places from which common forges run code.
    pub protected_paths: Vec<Glob>,
    /// The most that one push may bring, unpacked.
    pub max_size: ByteSize,
    /// Whether gitleaks scans what is new in the push.
    pub scan: bool,
}

impl Default for PushSpec {
    fn default() -> Self {
        let globs = |list: &[&str]| list.iter().filter_map(|glob| glob.parse().ok()).collect();
        Self {
            enabled: true,
            branches: globs(&["**"]),
            force: false,
            delete: false,
            tags: false,
            protected_paths: globs(&[
                ".github/workflows/**",
                ".github/actions/**",
                ".gitea/workflows/**",
                ".forgejo/workflows/**",
                ".gitlab-ci.yml",
                ".gitlab/ci/**",
            ]),
            max_size: ByteSize::mib(100),
            scan: true,
        }
    }
}

/// How the agent may ask a person for changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SuperviseSpec {
    /// How long a tool call waits for a decision before it answers "pending". Kept below the usual client's limit of 60 s.
    pub wait: Span,
}

impl Default for SuperviseSpec {
    fn default() -> Self {
        Self { wait: Span::seconds(50) }
    }
}

/// The OCI runtime of the agent's container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// The engine's own: the agent shares the host's kernel.
    #[default]
    Runc,
    /// gVisor: the agent's system calls go to a kernel of its own.
    Runsc,
}

/// Which images are used, and what goes into the agent's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImagesSpec {
    /// What the built images are built on; a Debian. Default: `debian:trixie-slim`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<ImageRef>,
    /// A ready image for the agent, with a user `agent`, a shell and git. Then nothing is built for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<ImageRef>,
    /// Pipelock's image. Default: the release that this library was tried with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipelock: Option<ImageRef>,
    /// A ready image for egress. Then nothing is built for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<ImageRef>,
    /// A ready image for git-gate. Then nothing is built for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git_gate: Option<ImageRef>,
    /// A ready image for supervise. Then nothing is built for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supervise: Option<ImageRef>,
    /// Debian packages to add to the agent's image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = serde_json::json!(["python3", "build-essential"]))]
    pub packages: Vec<DebianPackage>,
    /// The version of Claude Code in the agent's image. Default: a pinned one for the provider `claude`, else none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claude_code: Option<NpmVersion>,
    /// The version of Codex in the agent's image. Default: a pinned one for the provider `codex`, else none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codex: Option<NpmVersion>,
    /// Further build arguments for the agent's image, for a base of your own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "shorthand::unique_map")]
    pub build_args: BTreeMap<EnvName, String>,
}

/// The files that the agent works on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorkspaceSpec {
    /// How the agent gets them.
    pub mode: WorkspaceMode,
    /// The directory on the host. Default: the working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub path: Option<PathBuf>,
    /// Where the agent sees them. Default: `/workspace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<ContainerPath>,
    /// With `copy`: whether `.env` and `.env.*` files are copied too. They usually hold credentials.
    pub include_env_files: bool,
}

/// How the agent gets its files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WorkspaceMode {
    /// A copy in an image of the bottle's own, without what `.gitignore` and `.dockerignore` leave out.
    #[default]
    Copy,
    /// The directory itself, read-only.
    Bind,
    /// The directory itself, which the agent may change.
    BindRw,
    /// An empty directory.
    None,
}

/// How much of the machine the containers may take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSpec {
    /// The agent's container. Default: no memory or processor limit, 4096 processes.
    pub agent: ContainerLimits,
    /// Each sidecar's container. Default: 1 GiB, 256 processes. Pipelock takes one connection of the agent for each 8 MiB, so
    /// 128 by default; more wait.
    pub sidecar: ContainerLimits,
}

/// How much of the machine one container may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerLimits {
    /// Memory; the container gets no swap beyond it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<CpuCount>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16))]
    pub pids: Option<u32>,
}

/// The bottle's certificate authorities, and whom its upstream connections trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSpec {
    /// How long the bottle's authorities are valid.
    pub lifetime: Span,
    /// A PEM file of certificates that upstream connections trust besides the public ones, such as a company proxy's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub upstream_ca: Option<PathBuf>,
}

impl Default for TlsSpec {
    fn default() -> Self {
        Self { lifetime: Span::seconds(7 * 24 * 60 * 60), upstream_ca: None }
    }
}

/// Who runs in a bottle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentSpec {
    /// The bottle that it runs in.
    pub bottle: BottleName,
    /// What kind of agent it is, and so how it takes a prompt and where its MCP servers are configured.
    #[serde(default)]
    pub provider: Provider,
    /// What is run. Default: the provider's own program. Needed for the provider `custom`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = serde_json::json!(["claude", "--dangerously-skip-permissions"]))]
    pub command: Vec<String>,
    /// What the agent is told at the start. Not with `prompt_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// A file with what the agent is told at the start. Not with `prompt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub prompt_file: Option<PathBuf>,
    /// Directories of skills, copied to where the provider looks for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1)))]
    pub skills: Vec<PathBuf>,
}

/// The kind of an agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
    /// Any command; its prompt is at `$BOTTLE_PROMPT_FILE`.
    #[default]
    Custom,
}
