//! The types of the manifest, which define the format of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use bottle_yaml::Origin;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::denied::{EgressMode, OnDenied};
use super::inspect::{AllowSpec, Inspect, RequestScan};
use super::networks::{self, NetworksSpec};
use super::shorthand::{self, EnvSpec, Toggle};
use crate::name::{AgentName, BottleName};
use crate::value::{
    AllowedHost, ByteSize, ContainerPath, CpuCount, CredentialName, DEFAULT_PORTS, DebianPackage, EntryName, EnvName,
    GitUrl, Glob, HeaderName, HostName, ImageRef, Method, NpmVersion, PathPrefix, RouteHost, Span,
};

/// A manifest: bottles, and the agents that run in them.
///
/// Relative paths are resolved against the manifest's directory. `~` stands for the home directory. The default
/// workspace is the working directory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Bottle manifest")]
pub struct Manifest {
    /// The bottles, by name. At least one is required.
    #[serde(deserialize_with = "shorthand::unique_map")]
    #[schemars(extend("minProperties" = 1))]
    pub bottles: BTreeMap<BottleName, BottleSpec>,
    /// The agents, by name. At least one is required.
    #[serde(deserialize_with = "shorthand::unique_map")]
    #[schemars(extend("minProperties" = 1, "propertyNames" = {"not": {"pattern": "^(?:outlet|pipelock|git-gate|egress|supervise|seal)(?:-|$)"}}))]
    pub agents: BTreeMap<AgentName, AgentSpec>,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) origin: Origin,
}

/// A bottle. Every key has a default: an empty mapping is a bottle that reaches nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BottleSpec {
    /// The agent's environment. A text is a literal, in which `$$` stands for `$`. A variable of the host's environment
    /// is forwarded with `$NAME`, `${NAME}` or `{forward: NAME}`. `{placeholder: true}` sets a dummy value, for a
    /// credential variable that must be set while egress injects the real credential.
    #[serde(deserialize_with = "shorthand::unique_map", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(example = serde_json::json!({"EDITOR": "vi", "LANG": {"forward": true}}))]
    pub env: BTreeMap<EnvName, EnvSpec>,
    /// A file of `NAME=value` lines for the agent's environment. No variable is read from an empty one, or from one that
    /// does not exist, which is a warning at the launch.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub env_file: Option<PathBuf>,
    /// The hosts that the agent may reach over HTTP. Empty: none.
    pub egress: EgressSpec,
    /// The git repositories that the agent may fetch from and push to. Empty: none.
    pub git: GitSpec,
    /// Permission for the agent to ask a person for changes: `true`, or a mapping. Default: `false`.
    pub supervise: Toggle<SuperviseSpec>,
    /// The OCI runtime of the agent's container. Default: `runc`.
    pub runtime: Runtime,
    /// The images to use, and the contents of the agent's image.
    pub images: ImagesSpec,
    /// The files that the agent works on.
    pub workspace: WorkspaceSpec,
    /// The resource limits of the containers.
    pub limits: LimitsSpec,
    /// The owner of the bottle's networks: `compose`, `external`, or a mapping. Default: `compose`.
    #[serde(deserialize_with = "networks::networks")]
    #[schemars(with = "networks::NetworksForm")]
    pub networks: NetworksSpec,
    /// The bottle's certificate authorities, and the additional ones that its upstream connections trust.
    pub tls: TlsSpec,
    /// The way in which egress and git-gate get the values of their credentials. Default: `memory`.
    pub secrets: SecretsMode,
}

/// The way in which sidecars get the values of their credentials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SecretsMode {
    /// The launcher writes them into memory that only the sidecar reads, after its container started.
    #[default]
    Memory,
    /// Compose sets them in the containers' environment, where the engine stores and shows them. Only this way works for a
    /// Compose file that is started by hand.
    Environment,
}

/// The hosts that the agent may reach over HTTP.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EgressSpec {
    /// Hosts that the agent may reach on ports 80 and 443 with every path and method: `api.example.com`, or the domain
    /// wildcard `*.example.com` for `example.com` and every name below it. `api.example.com:8443` allows another port.
    #[schemars(example = serde_json::json!(["packages.example.com", "registry.example.com:5000", {"host": "*.example.com", "inspect": "content"}]))]
    pub allow: Vec<AllowSpec>,
    /// Routes: hosts for which requests are limited or given a credential. A route's host need not be in `allow`.
    pub routes: Vec<RouteSpec>,
    /// The scan of headers and bodies by pipelock. It covers the requests that pipelock can read: those to hosts with
    /// `inspect: content`, and those over plain HTTP. It takes about 2.4 s per MB, and an agent sends its whole
    /// conversation with every turn. Compressed bodies and bodies above 1 MiB are then denied. A header that egress
    /// injects into such a request is not scanned. Default: `off`.
    pub scan_requests: RequestScan,
    /// The search by egress for credentials and private keys in what the agent sends: URLs, headers, bodies and
    /// WebSocket messages. It takes 10 ms per MB. `warn` and `block` bring egress into the bottle. Default: `block` if
    /// egress is in it anyway, for a route, a port or a host with `inspect: content`, else `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dlp: Option<RequestScan>,
    /// The consequence of a request to a host that is not allowed. Default: `refuse`.
    pub on_denied: OnDenied,
    /// The hosts that the agent may reach: those that are listed, or every host while their use is recorded. Default:
    /// `enforce`.
    pub mode: EgressMode,
}

impl EgressSpec {
    /// Returns every entry that names a host, first those of `allow`, then the routes: its key below `egress`, its entry
    /// of pipelock's allowlist, and its inspection.
    pub(super) fn inspections(&self) -> impl Iterator<Item = (String, AllowedHost, Option<Inspect>)> {
        let allow = self.allow.iter().enumerate();
        let allow = allow.map(|(index, entry)| (format!("allow[{index}]"), entry.host.clone(), entry.inspect));
        let routes = self.routes.iter().enumerate();
        let routes = routes.map(|(index, route)| (format!("routes[{index}]"), route.host.to_allowed(), route.inspect));
        allow.chain(routes)
    }

    /// Returns the hosts of `allow` that have other ports than the default ones.
    pub(crate) fn ports(&self) -> BTreeMap<AllowedHost, BTreeSet<u16>> {
        let mut ports: BTreeMap<AllowedHost, BTreeSet<u16>> = BTreeMap::new();
        for entry in &self.allow {
            let written = entry.port.map_or_else(|| DEFAULT_PORTS.to_vec(), |port| vec![port]);
            ports.entry(entry.host.clone()).or_default().extend(written);
        }
        ports.retain(|_, ports| *ports != DEFAULT_PORTS.into());
        ports
    }

    /// Returns whether the bottle has egress. It also bounds the number of requests that pipelock decrypts at once, and
    /// limits the ports of each host. Pipelock does neither, and its outlet knows no hosts.
    pub(crate) fn has_proxy(&self) -> bool {
        let mut dlp = self.allow.iter().map(|entry| entry.dlp).chain([self.dlp]);
        !self.routes.is_empty()
            || !self.content().is_empty()
            || !self.ports().is_empty()
            || self.on_denied == OnDenied::Propose
            || self.mode == EgressMode::Learn
            || dlp.any(|dlp| dlp.unwrap_or_default() != RequestScan::Off)
    }

    /// Returns the hosts whose content pipelock inspects, sorted, without duplicates.
    pub(crate) fn content(&self) -> Vec<AllowedHost> {
        let content = self.inspections().filter(|(_, _, inspect)| *inspect == Some(Inspect::Content));
        let content: BTreeSet<AllowedHost> = content.map(|(_, host, _)| host).collect();
        content.into_iter().collect()
    }
}

/// A host for which egress limits the requests, injects a credential, or both.
///
/// A route for an exact host hides every wildcard that covers the host, whatever their ports and paths. If several
/// routes of a host match a request, the one with the longest path prefix applies, and then one with methods before one
/// without. Two routes of equal rank are an error in the manifest. A request to a routed host that no route allows is
/// denied, and so is plain HTTP. In the domain of a wildcard, every host without a route is also denied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// The route's name in error responses and in the audit log. Default: the host, with `any` for `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<EntryName>,
    /// The host, or a label wildcard: in a route, `*.example.com` covers the names exactly one label below `example.com`,
    /// and neither `example.com` nor `a.b.example.com`.
    #[schemars(example = &"*.example.com")]
    pub host: RouteHost,
    /// The port. Default: 443.
    #[serde(default = "https_port")]
    #[schemars(range(min = 1))]
    pub port: u16,
    /// The allowed paths, as prefixes of whole segments. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathPrefix>,
    /// The allowed methods. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Method>,
    /// Further request headers that pass to a host for which egress injects a credential, such as `x-tenant` or `cookie`.
    /// So does a parameter of the query with one of these names: others that name a credential, such as `key`, are removed.
    /// Default: none, only the headers that egress knows pass. Without a credential for the host, every header passes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderName>,
    /// The credential that egress injects into every allowed request. Default: none, the route only limits requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inject: Option<InjectSpec>,
    /// The host's inspection by pipelock. Default: the value of another entry for the same host, else `connection`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inspect: Option<Inspect>,
    /// The search for credentials in the route's requests. Default: that of the host, else that of the bottle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dlp: Option<RequestScan>,
}

pub(super) const fn https_port() -> u16 {
    443
}

/// A credential that egress puts in a header, replacing any value that the agent sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InjectSpec {
    /// The variable of the host's environment that holds the token. The manifest never holds the token itself.
    #[schemars(example = &"ANTHROPIC_API_KEY")]
    pub token: CredentialName,
    /// The scheme: `bearer` and `basic` use the header `authorization`, `header` uses a header of your choice. Default:
    /// `bearer`.
    #[serde(default)]
    pub scheme: InjectScheme,
    /// The header, for scheme `header`. Default: `x-api-key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderName>,
    /// The header's value, for scheme `header`. `{token}` in it stands for the token. Default: `{token}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^(?:[!-~][ -~]*)?\{token\}(?:[ -~]*[!-~])?$"))]
    pub template: Option<String>,
    /// The user name, for scheme `basic`. Default: `x-access-token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[^\u0000-\u001f\u007f-\u009f:]+$"))]
    pub username: Option<String>,
}

/// The header of the schemes `bearer` and `basic`.
const AUTHORIZATION: &str = "authorization";
/// The default header of the scheme `header`.
const API_KEY_HEADER: &str = "x-api-key";

impl InjectSpec {
    /// Returns the header that carries the credential.
    pub(crate) fn header_name(&self) -> HeaderName {
        let default = match self.scheme {
            InjectScheme::Bearer | InjectScheme::Basic => AUTHORIZATION,
            InjectScheme::Header => API_KEY_HEADER,
        };
        self.header.clone().unwrap_or_else(|| HeaderName::constant(default))
    }
}

/// The form in which a token is written to a request.
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
    /// The author and committer of the agent's commits. Default: the agent's name, and `<agent>@bottle.invalid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<GitIdentity>,
    /// The repositories. Empty: none.
    pub upstreams: Vec<UpstreamSpec>,
}

/// The author and committer of the agent's commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GitIdentity {
    /// The name, as in git's `user.name`.
    #[schemars(regex(pattern = r"^[^\u0000-\u001f\u007f-\u009f<>]+$"))]
    pub name: String,
    /// The email address, as in git's `user.email`.
    #[schemars(regex(pattern = r"^[^\u0000-\u001f\u007f-\u009f<>]+$"))]
    pub email: String,
}

/// A repository that git-gate mirrors and forwards pushes to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSpec {
    /// The repository's name on git-gate. The agent reaches it as `git://git-gate/<name>.git`.
    pub name: EntryName,
    /// The URL of the upstream.
    #[schemars(example = &"git@git.example.com:team/app.git")]
    pub url: GitUrl,
    /// The private key for ssh, mode 0600. Not with `deploy_key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub identity_file: Option<PathBuf>,
    /// The host's public keys for ssh, as lines of a `known_hosts` file (sshd(8)). A host key that is not listed is
    /// rejected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(regex(
        pattern = r"^\s*(?:@cert-authority\s+)?[^#@\s]\S*\s+(?:ssh-|ecdsa-|sk-ssh-|sk-ecdsa-)\S*\s+AAAA[A-Za-z0-9+/=]*(?:\s|$)"
    )))]
    pub known_hosts: Vec<String>,
    /// Addresses of hosts that DNS does not resolve, for git-gate only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "shorthand::addresses")]
    #[schemars(with = "BTreeMap<HostName, String>")]
    pub extra_hosts: BTreeMap<HostName, IpAddr>,
    /// The variable of the host's environment that holds the token for https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<CredentialName>,
    /// The user name that is sent with the token for https. Default: `x-access-token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[^\u0000-\u001f\u007f-\u009f:]+$"))]
    pub username: Option<String>,
    /// A new key for this bottle only. It is registered at the forge and revoked at teardown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy_key: Option<DeployKeySpec>,
    /// The rules for pushes by the agent.
    #[serde(default)]
    pub push: PushSpec,
}

/// A key that is registered at a forge for the lifetime of one bottle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployKeySpec {
    /// The kind of forge, which selects the API.
    pub forge: Forge,
    /// The base URL of the API, such as `https://git.example.com/api/v1`. Default for GitHub and GitLab: their public
    /// API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^(?:https://|http://(?:127\.0\.0\.1|localhost|\[::1\])(?:[:/]|$))[^@?# ]*$"))]
    pub api_url: Option<String>,
    /// The variable of the host's environment that holds a token which may administer the repository's keys.
    pub token: CredentialName,
    /// The repository's name at the forge. Default: the URL's path without `.git`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[A-Za-z0-9._/-]*/[A-Za-z0-9._/-]*$"))]
    pub repository: Option<String>,
}

/// A kind of forge whose API is supported.
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

/// The rules for pushes. By default, new commits on branches are allowed, and everything else is denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own in the manifest")]
pub struct PushSpec {
    /// Allows pushes at all. Default: `true`.
    pub enabled: bool,
    /// The branches that may be pushed to. Empty: none. Default: all (`**`).
    #[schemars(example = serde_json::json!(["agent/**"]))]
    pub branches: Vec<Glob>,
    /// Allows a push to rewrite a branch (a non-fast-forward update). Default: `false`.
    pub force: bool,
    /// Allows a push to delete a branch or tag. Default: `false`.
    pub delete: bool,
    /// Allows tags to be pushed. Default: `false`.
    pub tags: bool,
    /// Paths that no pushed commit may change. Default: the paths from which common forges run code.
    pub protected_paths: Vec<Glob>,
    /// The maximum unpacked size of one push. Default: 100 MiB.
    pub max_size: ByteSize,
    /// Scans the new content of a push with gitleaks. Default: `true`.
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

/// The settings of supervise, through which the agent asks a person for changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SuperviseSpec {
    /// The time that a tool call waits for a decision before it answers "pending". At most `50s`, to stay below the
    /// usual client timeout of 60 s. Default: `50s`.
    pub wait: Span,
}

impl Default for SuperviseSpec {
    fn default() -> Self {
        Self { wait: Span::seconds(50) }
    }
}

/// The OCI runtime of the agent's container. Default: `runc`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// The engine's default runtime. The agent shares the host's kernel.
    #[default]
    Runc,
    /// gVisor. The agent's system calls are handled by a separate kernel.
    Runsc,
}

/// The images to use, and the contents of the agent's image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImagesSpec {
    /// The base of the built images, which must be a Debian. Default: `debian:trixie-slim`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<ImageRef>,
    /// A ready image for the agent, with a user `agent`, `/bin/sh`, `sleep` and git. Its entry point and health check are not
    /// used. If set, no image is built for the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<ImageRef>,
    /// Pipelock's image. Default: the release that this library was tested with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipelock: Option<ImageRef>,
    /// A ready image for egress. If set, no image is built for egress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<ImageRef>,
    /// A ready image for git-gate. If set, no image is built for git-gate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git_gate: Option<ImageRef>,
    /// A ready image for supervise. If set, no image is built for supervise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supervise: Option<ImageRef>,
    /// A ready image for the seal. If set, no image is built for the seal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seal: Option<ImageRef>,
    /// Debian packages to add to the agent's image. Empty: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = serde_json::json!(["python3", "build-essential"]))]
    pub packages: Vec<DebianPackage>,
    /// The version of Claude Code in the agent's image. Default: a pinned one for the provider `claude`, else none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claude_code: Option<NpmVersion>,
    /// The version of Codex in the agent's image. Default: a pinned one for the provider `codex`, else none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codex: Option<NpmVersion>,
    /// Additional build arguments for the agent's image, for a base image of your own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "shorthand::unique_map")]
    pub build_args: BTreeMap<EnvName, String>,
}

/// The files that the agent works on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorkspaceSpec {
    /// The way in which the agent gets the files. Default: `copy`.
    pub mode: WorkspaceMode,
    /// The directory on the host. Default: the working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub path: Option<PathBuf>,
    /// The path in the agent's container. Default: `/workspace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<ContainerPath>,
    /// Includes files that usually hold credentials in a copy, for mode `copy`: `.env`, `.npmrc`, `.netrc`, private keys
    /// and others, by their names, and files with a private key in them. The launch says which files it left out. Default:
    /// `false`.
    pub include_credential_files: bool,
}

/// The way in which the agent gets its files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WorkspaceMode {
    /// A copy in an image for this bottle, without the files that `.gitignore` and `.dockerignore` exclude.
    #[default]
    Copy,
    /// A read-only bind mount of the directory.
    Bind,
    /// A writable bind mount of the directory, with a private copy of its `.git`.
    BindRw,
    /// An empty directory.
    None,
}

/// The resource limits of the containers, and the limits of the bottle as a whole. The latter have no default. At 90 % of each,
/// and when it is reached, there is an event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSpec {
    /// The agent's container. Default: half of the engine's memory, but at least 2 GiB; all processors but half of one,
    /// which stays for the sidecars, and at least one; 4096 processes; 20 GiB of files.
    pub agent: ContainerLimits,
    /// Each sidecar's container. Default: 1 GiB of memory, 256 processes. Pipelock accepts one connection of the agent
    /// for each 8 MiB of its memory, or 32 MiB if it scans request bodies: 128 or 32 by default. More connections wait.
    pub sidecar: ContainerLimits,
    /// The time from the start of the agent's container until it ends by itself, also without the process that launched it.
    /// The files in it can then still be taken out. A container that is paused is ended by that process, or ends when it is
    /// resumed. The time of a bottle from a pool begins when it is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Span>,
    /// The time without a request through egress, after which the process that launched the bottle pauses the agent. Without
    /// that process there is no such limit. A bottle that waits in a pool has none either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Span>,
    /// The number of requests that egress lets pass. It refuses all others. Pushes and fetches through git-gate do not count. The
    /// verification of the launch takes one, and so does that of a bottle which is taken from a pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub requests: Option<u64>,
    /// The number of bytes that egress lets pass, in both directions together, with the heads of requests and without those of
    /// answers. It ends the exchange that goes beyond, and refuses all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<ByteSize>,
}

impl LimitsSpec {
    /// Returns `true` if a limit needs egress: for all but `time`, egress counts.
    pub const fn need_egress(&self) -> bool {
        self.idle.is_some() || self.requests.is_some() || self.bytes.is_some()
    }
}

/// The resource limits of one container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerLimits {
    /// The maximum memory. The container gets no additional swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// The maximum number of processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<CpuCount>,
    /// The maximum number of processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16))]
    pub pids: Option<u32>,
    /// The maximum size of the files that the agent writes into its container. For the agent only, because a sidecar's root
    /// is read-only. A directory of the host that is bound into the container, and files in memory, do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<ByteSize>,
}

/// The bottle's certificate authorities, and the additional ones that its upstream connections trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSpec {
    /// The validity period of the bottle's authorities. Default: `7d`.
    pub lifetime: Span,
    /// A PEM file of certificates that upstream connections trust in addition to the public ones, such as a company
    /// proxy's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub upstream_ca: Option<PathBuf>,
}

impl Default for TlsSpec {
    fn default() -> Self {
        Self { lifetime: Span::seconds(7 * 24 * 60 * 60), upstream_ca: None }
    }
}

/// An agent that runs in a bottle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentSpec {
    /// The bottle that it runs in.
    pub bottle: BottleName,
    /// The kind of agent, which determines how a prompt is passed and where MCP servers are configured. Default:
    /// `custom`.
    #[serde(default)]
    pub provider: Provider,
    /// The command line. Default: the provider's own program. Required for the provider `custom`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = serde_json::json!(["claude", "--dangerously-skip-permissions"]))]
    pub command: Vec<String>,
    /// The prompt at the start. Not with `prompt_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// A file that holds the prompt at the start. Not with `prompt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub prompt_file: Option<PathBuf>,
    /// The way in which the prompt is passed to the command. Default: `append-system-prompt-file` for the provider
    /// `claude`, `last-argument` for `codex`, `environment-file` for `custom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_mode: Option<PromptMode>,
    /// Skill directories, which are copied to where the provider looks for skills.
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
    /// Any command. With a prompt, `$BOTTLE_PROMPT_FILE` holds the path of its file.
    #[default]
    Custom,
}

/// The way in which a prompt is passed to the agent's command. In each of them, the prompt is also a file whose path is in
/// `$BOTTLE_PROMPT_FILE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PromptMode {
    /// `--append-system-prompt-file FILE` at the end of the command, which appends the prompt to the system prompt of
    /// Claude Code.
    AppendSystemPromptFile,
    /// The prompt's text as the last argument of the command, as Codex expects it.
    LastArgument,
    /// Nothing is added to the command, which reads the file itself.
    EnvironmentFile,
}

impl Provider {
    /// Returns the way in which the provider's program takes a prompt.
    pub const fn prompt_mode(self) -> PromptMode {
        match self {
            Self::Claude => PromptMode::AppendSystemPromptFile,
            Self::Codex => PromptMode::LastArgument,
            Self::Custom => PromptMode::EnvironmentFile,
        }
    }
}
