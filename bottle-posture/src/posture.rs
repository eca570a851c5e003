//! The posture itself, and its text for a person.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::macros::format_description;

use bottle_plan::manifest::{
    Inspect, LimitsSpec, NetworkMode, OnDenied, PushSpec, RequestScan, Runtime, SecretsMode, WorkspaceMode,
};
use bottle_plan::name::{AgentName, Service, Slug};
use bottle_plan::plan::{BottlePlan, GitAuth, InjectionValue, Route, TemporaryHost};
use bottle_plan::value::{
    AllowedHost, CredentialName, DEFAULT_PORTS, EntryName, EnvName, HeaderName, ImageRef, Method, PathPrefix,
    RouteHost, Span,
};

/// The posture of a bottle: what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Posture {
    /// The bottle's slug.
    pub slug: Slug,
    /// The agent's name in the manifest.
    pub agent: AgentName,
    /// The OCI runtime of the agent's container.
    pub runtime: Runtime,
    /// The kernel capabilities of the agent. Empty, because the renderer drops all of them.
    pub capabilities: Vec<String>,
    /// Hosts that the agent may reach with every path and method.
    pub open_hosts: Vec<AllowedHost>,
    /// Ports of the hosts in `open_hosts` that are reached on others than 80 and 443.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<AllowedHost, BTreeSet<u16>>,
    /// Hosts that the agent may reach only as a route allows. Any other request to one of these hosts is denied.
    pub routes: Vec<RoutePosture>,
    /// Hosts of the two lists above whose content pipelock inspects. For the others, pipelock inspects only the
    /// connection.
    #[serde(default)]
    pub content: Vec<AllowedHost>,
    /// The scan of request headers and bodies by pipelock. It covers requests to the hosts in `content` and requests
    /// over plain HTTP.
    #[serde(default)]
    pub scan_requests: RequestScan,
    /// The search by egress for credentials in what the agent sends, where neither a route nor `dlp_of_hosts` has
    /// another. `None` if egress is not in the bottle: then nothing is searched.
    #[serde(default)]
    pub dlp: Option<RequestScan>,
    /// The search for credentials of single hosts and domains.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dlp_of_hosts: BTreeMap<AllowedHost, RequestScan>,
    /// `true` if the agent may reach every host with a public address, on ports 80 and 443.
    #[serde(default)]
    pub is_open: bool,
    /// The consequence of a request to a host that is not allowed.
    #[serde(default)]
    pub on_denied: OnDenied,
    /// The hosts of `open_hosts` that are allowed for a limited time.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub temporary: BTreeMap<AllowedHost, Temporary>,
    /// Maximum number of simultaneous connections to pipelock, where the agent reaches it directly. A further connection
    /// waits until one of them ends. `None` if egress is in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// The git repositories that the agent may use.
    pub git: Vec<GitPosture>,
    /// The part of the host's environment that the agent sees.
    pub environment: EnvironmentPosture,
    /// The part of the host's files that the agent sees.
    pub workspace: WorkspacePosture,
    /// Every directory or file of the host that the plan mounts into a container. The bottle's own state directory is
    /// not listed.
    pub mounts: Vec<MountPosture>,
    /// The owner of the networks. In either mode the agent is attached only to the internal network.
    pub networks: NetworkMode,
    /// The time that a tool call of the agent waits for a person's decision. `None` if the agent cannot ask for
    /// changes.
    pub supervise: Option<Span>,
    /// A file of additional certificates that upstream connections trust. `None` if there is none.
    pub upstream_ca: Option<String>,
    /// The validity period of the bottle's certificate authorities.
    pub certificate_lifetime: Span,
    /// Images that are used without a build, by service. Built images are not listed.
    pub images: BTreeMap<Service, ImageRef>,
    /// The resource limits of the containers.
    pub limits: LimitsSpec,
    /// The way in which sidecars get the values of their credentials.
    #[serde(default)]
    pub secrets: SecretsMode,
    /// True if the process that launched the bottle limits the size of the agent's files: it measures them, and pauses the
    /// agent. When it ends, there is no limit. False if the engine's storage driver limits them. Known after a launch only,
    /// and not compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_is_watched: Option<bool>,
    /// The id of every service's image on the engine, by the service's name. Known after a launch only, and not compared.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub image_ids: BTreeMap<String, String>,
}

/// The end of a host that is allowed for a limited time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Temporary {
    /// The end in UTC, such as `2026-01-02T03:04:05Z`.
    pub until: String,
    /// `true` if only one request may pass.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
}

impl fmt::Display for Temporary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}until {}", if self.once { "for one request " } else { "" }, self.until)
    }
}

/// A host that the agent may reach only as this route allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutePosture {
    /// The route's name.
    pub name: String,
    /// The host. A wildcard matches exactly one label.
    pub host: RouteHost,
    /// The port.
    pub port: u16,
    /// The allowed path prefixes. Empty: every path.
    pub paths: Vec<PathPrefix>,
    /// The allowed methods. Empty: every method.
    pub methods: Vec<Method>,
    /// Further request headers that pass to a host for which egress adds a credential.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderName>,
    /// The credential that egress adds to the requests. `None`: no credential.
    pub credential: Option<CredentialPosture>,
    /// The search for credentials in the route's requests. `None`: that of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dlp: Option<RequestScan>,
}

/// A credential that egress adds to requests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CredentialPosture {
    /// The host's environment variable that holds the credential.
    pub variable: CredentialName,
    /// The header that carries the credential.
    pub header: HeaderName,
    /// The user name, for basic authentication. `None` for other schemes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
}

/// A git repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitPosture {
    /// The repository's name on git-gate.
    pub name: EntryName,
    /// The URL of the upstream.
    pub url: String,
    /// The credential with which git-gate authenticates to the upstream.
    pub credential: GitCredential,
    /// The rules for pushes.
    pub push: PushSpec,
}

/// The credential with which git-gate authenticates to the upstream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GitCredential {
    /// A private key on the host, by its path.
    KeyFile(String),
    /// A deploy key that is created for this bottle and registered in the forge's repository.
    DeployKey {
        /// The URL of the forge's API.
        forge: String,
        /// The repository.
        repository: String,
        /// The host's environment variable that holds a token which may register keys.
        variable: CredentialName,
        /// `true` if the key has read-only access.
        read_only: bool,
    },
    /// A token, by the host's environment variable that holds it.
    Token(CredentialName),
    /// No credential.
    None,
}

/// The part of the host's environment that the agent sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentPosture {
    /// Variables that are forwarded from the host, as the agent's name mapped to the host's name.
    pub forwarded: BTreeMap<EnvName, EnvName>,
    /// A file of variables for the agent. `None` if there is none.
    pub file: Option<String>,
    /// Variables with a literal value in the manifest.
    pub literals: BTreeSet<EnvName>,
    /// Credential variables that hold a dummy value.
    pub placeholders: BTreeSet<EnvName>,
}

/// The part of the host's files that the agent sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspacePosture {
    /// The way in which the agent gets the files.
    pub mode: WorkspaceMode,
    /// The directory on the host. Not used with mode `none`.
    pub source: String,
    /// The path in the agent's container.
    pub target: String,
    /// `true` if a copy includes files that usually hold credentials.
    pub include_credential_files: bool,
}

/// A file or directory of the host that is mounted into a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPosture {
    /// The path on the host.
    pub source: String,
    /// The service whose container has the mount.
    pub service: Service,
    /// `true` if the container may write to it.
    pub writable: bool,
}

impl Posture {
    /// Creates the posture of a plan.
    pub fn of(plan: &BottlePlan) -> Self {
        let routes = plan.egress.iter().flat_map(|egress| &egress.routes);
        let hosts_of_routes: BTreeSet<_> = routes.clone().map(|route| route.host.to_allowed()).collect();
        let agent = &plan.agent;
        let mut images = plan.images.ready.clone();
        images.insert(Service::Pipelock, plan.images.pipelock.clone());
        Self {
            slug: plan.names.slug().clone(),
            agent: plan.agent_name.clone(),
            runtime: agent.runtime,
            capabilities: Vec::new(),
            open_hosts: plan.proxy.allow.iter().filter(|host| !hosts_of_routes.contains(host)).cloned().collect(),
            ports: plan.proxy.ports.clone().into_iter().filter(|(host, _)| !hosts_of_routes.contains(host)).collect(),
            routes: routes.map(route).collect(),
            content: content(plan),
            scan_requests: plan.proxy.scan_requests,
            dlp: plan.egress.as_ref().map(|egress| egress.dlp),
            dlp_of_hosts: plan.egress.as_ref().map(|egress| egress.dlp_of_hosts.clone()).unwrap_or_default(),
            is_open: plan.learns(),
            on_denied: plan.egress.as_ref().map(|egress| egress.on_denied).unwrap_or_default(),
            temporary: temporary(plan),
            max_connections: plan.egress.is_none().then(|| plan.max_connections()),
            git: git(plan),
            environment: EnvironmentPosture {
                forwarded: agent.forwarded.clone(),
                file: agent.env_file.as_deref().map(shown),
                literals: agent.literals.keys().cloned().collect(),
                placeholders: agent.placeholders.keys().cloned().collect(),
            },
            workspace: WorkspacePosture {
                mode: plan.workspace.mode,
                source: shown(&plan.workspace.source),
                target: plan.workspace.target.to_string(),
                include_credential_files: plan.workspace.include_credential_files,
            },
            mounts: mounts(plan),
            networks: plan.networks.mode,
            supervise: plan.supervise.as_ref().map(|supervise| supervise.wait),
            upstream_ca: plan.tls.upstream_ca.as_deref().map(shown),
            certificate_lifetime: plan.tls.lifetime,
            images,
            limits: plan.limits.clone(),
            secrets: plan.secrets,
            disk_is_watched: None,
            image_ids: BTreeMap::new(),
        }
    }

    /// Sets what limits the agent's files, which only a launch knows.
    #[must_use]
    pub const fn with_watched_disk(mut self, is_watched: Option<bool>) -> Self {
        self.disk_is_watched = is_watched;
        self
    }

    /// Returns the ports of one of the open hosts.
    pub fn ports_of(&self, host: &AllowedHost) -> BTreeSet<u16> {
        self.ports.get(host).cloned().unwrap_or_else(|| DEFAULT_PORTS.into())
    }

    /// Sets the id of every service's image, which only a launch knows.
    #[must_use]
    pub fn with_image_ids(mut self, ids: BTreeMap<String, String>) -> Self {
        self.image_ids = ids;
        self
    }
}

/// Returns a path as text on one line. Invalid Unicode and control characters are replaced by visible text, because a
/// person decides by what is shown.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.chars().map(|c| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() }).collect()
}

/// Returns the hosts that pipelock decrypts, as in its configuration.
fn content(plan: &BottlePlan) -> Vec<AllowedHost> {
    let passed: BTreeSet<_> = plan.proxy.passed().collect();
    plan.proxy.allow.iter().filter(|host| !passed.contains(host)).cloned().collect()
}

fn temporary(plan: &BottlePlan) -> BTreeMap<AllowedHost, Temporary> {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let text = |until: u64| -> Option<String> {
        OffsetDateTime::from_unix_timestamp(until.try_into().ok()?).ok()?.format(&format).ok()
    };
    let hosts = plan.egress.iter().flat_map(|egress| &egress.temporary);
    let end = |end: &TemporaryHost| Temporary { until: text(end.until).unwrap_or_default(), once: end.once };
    hosts.map(|(host, it)| (host.clone(), end(it))).collect()
}

fn route(route: &Route) -> RoutePosture {
    RoutePosture {
        name: route.name.clone(),
        host: route.host.clone(),
        port: route.port,
        paths: route.paths.clone(),
        methods: route.methods.clone(),
        headers: route.headers.clone(),
        dlp: route.dlp,
        credential: route.inject.as_ref().map(|inject| CredentialPosture {
            variable: inject.token.clone(),
            header: inject.header.clone(),
            username: match &inject.value {
                InjectionValue::Basic { username } => Some(username.clone()),
                InjectionValue::Template(_) => None,
            },
        }),
    }
}

fn git(plan: &BottlePlan) -> Vec<GitPosture> {
    let upstreams = plan.git_gate.iter().flat_map(|gate| &gate.upstreams);
    upstreams
        .map(|upstream| GitPosture {
            name: upstream.name.clone(),
            url: upstream.url.canonical(),
            credential: match &upstream.auth {
                GitAuth::IdentityFile(path) => GitCredential::KeyFile(shown(path)),
                GitAuth::DeployKey(key) => GitCredential::DeployKey {
                    forge: key.api_url.clone(),
                    repository: key.repository.clone(),
                    variable: key.token.clone(),
                    read_only: key.read_only,
                },
                GitAuth::Token { token, .. } => GitCredential::Token(token.clone()),
                GitAuth::Anonymous => GitCredential::None,
            },
            push: upstream.push.clone(),
        })
        .collect()
}

fn mounts(plan: &BottlePlan) -> Vec<MountPosture> {
    let workspace = match plan.workspace.mode {
        WorkspaceMode::Bind | WorkspaceMode::BindRw => Some(MountPosture {
            source: shown(&plan.workspace.source),
            service: Service::Agent,
            writable: plan.workspace.mode == WorkspaceMode::BindRw,
        }),
        WorkspaceMode::Copy | WorkspaceMode::None => None,
    };
    let keys = plan.git_gate.iter().flat_map(|gate| &gate.upstreams).filter_map(|upstream| match &upstream.auth {
        GitAuth::IdentityFile(path) => {
            Some(MountPosture { source: shown(path), service: Service::GitGate, writable: false })
        }
        GitAuth::DeployKey(_) | GitAuth::Token { .. } | GitAuth::Anonymous => None,
    });
    workspace.into_iter().chain(keys).collect()
}

impl Posture {
    /// Writes the limits of the bottle as a whole.
    fn fmt_limits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(time) = self.limits.time {
            writeln!(f, "  ends {time} after its start")?;
        }
        if let Some(idle) = self.limits.idle {
            writeln!(f, "  is paused after {idle} without a request, as long as the launching process runs")?;
        }
        for (limit, what) in [
            (self.limits.requests.map(|count| count.to_string()), "requests"),
            (self.limits.bytes.map(|size| size.to_string()), "of requests and answers"),
        ] {
            if let Some(limit) = limit {
                writeln!(f, "  may pass {limit} {what} through egress in all")?;
            }
        }
        Ok(())
    }
}

/// Lines about a workspace that the agent may change.
const WRITTEN_WORKSPACE: &str = concat!(
    "  Its `.git` is a private copy, which ends with the bottle: commits leave by a push or a bundle.\n",
    "  Nested repositories, files of editors, and files of the workspace that the host's git configuration names are read-only.\n",
    "  All else may run on the host later: build files, scripts, what a read-only program loads, a new `.envrc` or repository.\n",
);

impl fmt::Display for Posture {
    /// Writes the posture as text for a person, about a dozen lines long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernel = match self.runtime {
            Runtime::Runc => "runc: it shares the host's kernel",
            Runtime::Runsc => "runsc: it has a kernel of its own",
        };
        writeln!(f, "Bottle {}, agent {} ({kernel}).", self.slug, self.agent)?;
        writeln!(f, "\nIt may reach, over HTTP and through pipelock:")?;
        if self.is_open {
            writeln!(
                f,
                "  EVERY HOST WITH A PUBLIC ADDRESS on ports 80, 443: THE BOTTLE IS OPEN (`egress.mode: learn`)"
            )?;
        }
        if !self.is_open && self.open_hosts.is_empty() && self.routes.is_empty() {
            writeln!(f, "  nothing")?;
        }
        let content: BTreeSet<_> = self.content.iter().collect();
        let inspect = |host: &AllowedHost| if content.contains(host) { Inspect::Content } else { Inspect::Connection };
        for host in &self.open_hosts {
            let on = ports(&self.ports_of(host));
            write!(f, "  {host} on {on}, every path and method; inspected by {}", inspect(host))?;
            self.temporary.get(host).map_or(Ok(()), |end| write!(f, "; {end}"))?;
            writeln!(f)?;
        }
        for route in &self.routes {
            writeln!(f, "  {route}; inspected by {}", inspect(&route.host.to_allowed()))?;
        }
        self.inspection(f, &content)?;
        writeln!(f, "\nIt may use the git repositories:")?;
        if self.git.is_empty() {
            writeln!(f, "  none")?;
        }
        for upstream in &self.git {
            writeln!(f, "  {upstream}")?;
        }
        writeln!(f, "\nIt sees of the host:")?;
        writeln!(f, "  {}", self.workspace)?;
        if self.workspace.mode == WorkspaceMode::BindRw {
            f.write_str(WRITTEN_WORKSPACE)?;
        }
        write!(f, "{}", self.environment)?;
        for mount in self.mounts.iter().filter(|mount| mount.service != Service::Agent) {
            writeln!(f, "  {} is bound into {}, read-only", mount.source, mount.service)?;
        }
        writeln!(f, "\nIts container:")?;
        match self.capabilities.as_slice() {
            [] => writeln!(f, "  has no capability and can gain none")?,
            some => writeln!(f, "  has the capabilities {}", some.join(", "))?,
        }
        let networks = match self.networks {
            NetworkMode::Compose => "Compose",
            NetworkMode::External => "the launcher",
        };
        writeln!(f, "  is on the internal network alone, which {networks} makes and which leads nowhere")?;
        if self.on_denied == OnDenied::Propose {
            writeln!(f, "  has a refused host proposed to a person by itself")?;
        }
        match self.supervise {
            Some(wait) => writeln!(f, "  may ask a person for changes and waits {wait} for the answer")?,
            None => writeln!(f, "  cannot ask for changes")?,
        }
        let limits = self.limits.agent;
        let or = |value: Option<String>, none: &str| value.unwrap_or_else(|| none.to_owned());
        let memory = or(limits.memory.map(|memory| memory.to_string()), "half, but at least 2GiB,");
        let cpus = or(limits.cpus.map(|cpus| format!("{cpus} of the processors")), "all processors but half of one");
        let pids = or(limits.pids.map(|pids| pids.to_string()), "4096");
        writeln!(f, "  may take {memory} of the memory, {cpus}, {pids} processes")?;
        let disk = or(limits.disk.map(|disk| disk.to_string()), "20GiB");
        let beyond = match self.disk_is_watched {
            Some(false) => "the engine limits it",
            Some(true) => "beyond that the launching process pauses it, as long as that process runs",
            None => "the engine limits it, or else the launching process pauses it, as long as that process runs",
        };
        writeln!(f, "  may write files of {disk}: {beyond}")?;
        self.fmt_limits(f)?;
        if let Some(path) = &self.upstream_ca {
            writeln!(f, "\nUpstream connections also trust the certificates in {path}.")?;
        }
        if self.has_token() {
            match self.secrets {
                SecretsMode::Memory => writeln!(f, "\nThe engine does not know its credentials.")?,
                SecretsMode::Environment => writeln!(f, "\nThe engine stores its credentials and shows them.")?,
            }
        }
        for (service, image) in &self.images {
            writeln!(f, "{}{service} runs {image}.", if *service == Service::Pipelock { "\n" } else { "" })?;
        }
        if !self.image_ids.is_empty() {
            writeln!(f, "\nThe ids of the images that run:")?;
        }
        for (service, id) in &self.image_ids {
            writeln!(f, "  {service}: {id}")?;
        }
        Ok(())
    }
}

impl Posture {
    /// Returns true if a sidecar holds a token. The launcher alone holds that of a deploy key.
    fn has_token(&self) -> bool {
        self.routes.iter().any(|route| route.credential.is_some())
            || self.git.iter().any(|upstream| matches!(upstream.credential, GitCredential::Token(_)))
    }

    /// Describes each kind of inspection that is in use, with its cost.
    fn inspection(&self, f: &mut fmt::Formatter<'_>, content: &BTreeSet<&AllowedHost>) -> fmt::Result {
        if self.open_hosts.iter().any(|host| host.domain().is_some()) {
            writeln!(f, "  A `*.` without `:PORT` covers the domain after it, and every name below that domain.")?;
        }
        if self.routes.iter().any(|route| route.host.domain().is_some()) {
            writeln!(f, "  A `*.` with `:PORT` covers the names exactly one label below the domain after it.")?;
        }
        let hosts: Vec<AllowedHost> =
            self.open_hosts.iter().cloned().chain(self.routes.iter().map(|route| route.host.to_allowed())).collect();
        if hosts.iter().any(|host| !content.contains(host)) {
            writeln!(f, "  By connection: pipelock checks host, address and TLS server name, and decrypts nothing.")?;
        }
        if hosts.iter().any(|host| content.contains(host)) {
            writeln!(f, "  By content: pipelock decrypts, and scans URLs and answers (2 s per MiB, at most 1 MiB).")?;
            writeln!(f, "  Egress is in front of pipelock and bounds how many answers it scans at once.")?;
        }
        if let Some(limit) = self.max_connections.filter(|_| !hosts.is_empty()) {
            writeln!(f, "  It may have {limit} connections at once. A further one waits until one of them ends.")?;
        }
        let scanned =
            "  Headers and bodies of requests that pipelock can read are scanned (2.4 s per MB, at most 1 MiB);";
        match self.scan_requests {
            RequestScan::Off => {}
            RequestScan::Warn => writeln!(f, "{scanned} findings are logged.")?,
            RequestScan::Block => writeln!(f, "{scanned} findings are refused.")?,
        }
        if hosts.is_empty() && !self.is_open { Ok(()) } else { self.search(f) }
    }

    /// Describes the search for credentials in what the agent sends.
    fn search(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let does = |dlp| match dlp {
            RequestScan::Off => "lets credentials in requests pass",
            RequestScan::Warn => "logs credentials in requests",
            RequestScan::Block => "refuses credentials in requests",
        };
        let Some(dlp) = self.dlp else {
            writeln!(f, "  Credentials in requests pass: without egress nobody reads them (`egress.dlp: block`).")?;
            if self.open_hosts.iter().any(|host| host.domain().is_some()) {
                writeln!(f, "  So does data in a name below a `*.`: the look-up shows it to the owner of the domain.")?;
            }
            return Ok(());
        };
        writeln!(f, "  Egress {}: URL, headers, body (10 ms per MB).", does(dlp))?;
        for (host, dlp) in &self.dlp_of_hosts {
            writeln!(f, "  To {host} it {}.", does(*dlp))?;
        }
        Ok(())
    }
}

impl fmt::Display for RoutePosture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}, {}, {}", self.host, self.port, methods(&self.methods), paths(&self.paths))?;
        if let Some(credential) = &self.credential {
            write!(f, "; egress adds {credential}")?;
        }
        if !self.headers.is_empty() {
            write!(f, "; its headers {} pass too", listed(&self.headers))?;
        }
        if let Some(dlp) = self.dlp {
            write!(f, "; credentials: {dlp}")?;
        }
        Ok(())
    }
}

/// Returns ports in words, such as `port 8443` or `ports 80, 443`.
pub(crate) fn ports(ports: &BTreeSet<u16>) -> String {
    let many = if ports.len() == 1 { "" } else { "s" };
    format!("port{many} {}", listed(ports.iter().map(ToString::to_string)))
}

pub(crate) fn methods(methods: &[Method]) -> String {
    if methods.is_empty() { "every method".to_owned() } else { listed(methods) }
}

pub(crate) fn paths(paths: &[PathPrefix]) -> String {
    if paths.is_empty() { "every path".to_owned() } else { format!("below {}", listed(paths)) }
}

fn listed<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.as_ref().to_owned()).collect();
    items.join(", ")
}

impl fmt::Display for CredentialPosture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${} as `{}`", self.variable, self.header)?;
        match &self.username {
            Some(username) => write!(f, " of {username}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for GitPosture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, {}; ", self.name, self.url, self.credential)?;
        let push = &self.push;
        if !push.enabled {
            return f.write_str("read only");
        }
        write!(f, "pushes to {}", if push.branches.is_empty() { "no branch".into() } else { listed(&push.branches) })?;
        let granted = [(push.force, "rewriting them"), (push.delete, "deleting"), (push.tags, "tags")];
        for (_, what) in granted.iter().filter(|(granted, _)| *granted) {
            write!(f, ", {what}")?;
        }
        write!(f, ", up to {}, {}", push.max_size, if push.scan { "scanned" } else { "not scanned" })?;
        if !push.protected_paths.is_empty() {
            write!(f, ", but for {}", listed(&push.protected_paths))?;
        }
        Ok(())
    }
}

impl fmt::Display for GitCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyFile(path) => write!(f, "with the key {path}"),
            Self::DeployKey { forge, repository, variable, read_only } => {
                let access = if *read_only { "may only read" } else { "may write" };
                write!(f, "with a key of its own that {access} {repository}, registered at {forge} with ${variable}")
            }
            Self::Token(variable) => write!(f, "with the token ${variable}"),
            Self::None => f.write_str("without a credential"),
        }
    }
}

impl fmt::Display for WorkspacePosture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, target, .. } = self;
        match self.mode {
            WorkspaceMode::Copy => {
                let with = if self.include_credential_files { "with" } else { "without" };
                write!(f, "a copy of {source}, {with} its credential files, at {target}")
            }
            WorkspaceMode::Bind => write!(f, "{source} itself, which it cannot change, at {target}"),
            WorkspaceMode::BindRw => write!(f, "{source} itself, WHICH IT MAY CHANGE, at {target}"),
            WorkspaceMode::None => write!(f, "no files; {target} is empty"),
        }
    }
}

impl fmt::Display for EnvironmentPosture {
    /// Writes one whole line for each part that is not empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, source) in &self.forwarded {
            write!(f, "  the value of ${source}")?;
            if name == source { writeln!(f)? } else { writeln!(f, ", as ${name}")? }
        }
        if let Some(path) = &self.file {
            writeln!(f, "  the variables in {path}")?;
        }
        if !self.placeholders.is_empty() {
            writeln!(f, "  a dummy for {}", listed(&self.placeholders))?;
        }
        Ok(())
    }
}
