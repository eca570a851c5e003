//! Makes a plan from a manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use bottle_values::mask::elided;
use bottle_yaml::words::listed;

use crate::manifest::{
    AgentSpec, BottleSpec, EnvSpec, GitIdentity, InjectScheme, InjectSpec, Manifest, ManifestError, ManifestMistake,
    Provider, RequestScan, RouteSpec, UpstreamSpec,
};
use crate::name::{AgentName, Names, Prefix, Service, Slug};
use crate::plan::{
    AgentImagePlan, AgentPlan, BottlePlan, DeployKey, EgressPlan, GitAuth, GitGatePlan, ImagesPlan, Injection,
    InjectionValue, PlanSource, PromptSource, ProxyPlan, Route, SupervisePlan, TlsPlan, Upstream, UserIds,
    WorkspacePlan,
};
use crate::value::{AllowedHost, ContainerPath, CredentialName, EnvName, GitTransport, ImageRef, NpmVersion};

/// The default Debian image that built images are based on.
const BASE_IMAGE: &str = "debian:trixie-slim";
/// The default pipelock image. This is the only place that names it. A release adds the digest.
pub const PIPELOCK_IMAGE: &str = "ghcr.io/luckypipewrench/pipelock:2.3.0";
/// The default version of Claude Code for an agent with provider `claude`.
pub const CLAUDE_CODE_VERSION: &str = "2.1.331";
/// The default version of Codex for an agent with provider `codex`.
pub const CODEX_VERSION: &str = "0.169.0";

/// The default path of the workspace in the agent's container.
const WORKSPACE: &str = "/workspace";

/// Facts about the host, passed in as values. The library does not look them up itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// The home directory, which replaces `~`. It must be absolute.
    pub home: PathBuf,
    /// The working directory. It must be absolute.
    pub cwd: PathBuf,
    /// The user who launches the bottle.
    pub user: UserIds,
}

/// A request for a plan: it selects an agent of the manifest, and holds the facts that the plan needs from outside.
#[derive(Debug, Clone)]
pub struct PlanRequest<'a> {
    /// The agent's name. `None` selects the manifest's only agent.
    pub agent: Option<&'a AgentName>,
    /// The bottle's slug. `None` generates `<agent>-<5 random characters>`.
    pub slug: Option<Slug>,
    /// The prefix of every name on the engine.
    pub prefix: Prefix,
    /// The directory against which the manifest's paths are resolved. `None` selects the directory that the manifest
    /// was read from, or the working directory for a manifest that was parsed or built in code.
    pub manifest_dir: Option<&'a Path>,
    /// The facts about the host.
    pub host: &'a HostFacts,
    /// Five random bytes, from which a slug is generated if none is given.
    pub random: [u8; 5],
}

impl<'a> PlanRequest<'a> {
    /// Requests the plan of the manifest's only agent, with a slug made from `random`.
    pub fn new(host: &'a HostFacts, random: [u8; 5]) -> Self {
        Self { agent: None, slug: None, prefix: Prefix::default(), manifest_dir: None, host, random }
    }

    /// Selects an agent by name.
    #[must_use]
    pub const fn with_agent(mut self, agent: &'a AgentName) -> Self {
        self.agent = Some(agent);
        self
    }

    /// Sets the bottle's slug.
    #[must_use]
    pub fn with_slug(mut self, slug: Slug) -> Self {
        self.slug = Some(slug);
        self
    }

    /// Sets the prefix of every name on the engine. Default: `claude-bottle`.
    #[must_use]
    pub fn with_prefix(mut self, prefix: Prefix) -> Self {
        self.prefix = prefix;
        self
    }

    /// Sets the directory against which the manifest's paths are resolved. Default: see
    /// [`manifest_dir`](Self::manifest_dir).
    #[must_use]
    pub const fn with_manifest_dir(mut self, dir: &'a Path) -> Self {
        self.manifest_dir = Some(dir);
        self
    }
}

/// Error of making a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The manifest has no such agent.
    #[error("plan agent `{wanted}`: the manifest has no such agent; accepted: {known}")]
    UnknownAgent {
        /// The agent that was requested.
        wanted: String,
        /// The manifest's agents.
        known: String,
    },
    /// No agent was chosen, and the manifest does not have exactly one.
    #[error("choose an agent: the manifest does not have exactly one; accepted: {known}")]
    AgentNotChosen {
        /// The manifest's agents.
        known: String,
    },
    /// The manifest breaks a rule.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A path of the host is not absolute.
    #[error("plan the bottle: {what} `{}` is not an absolute path", path.display())]
    RelativePath {
        /// Description of the path.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
}

impl BottlePlan {
    /// Reads the manifest at `path` and makes the plan of one bottle. `more` finds the mistakes that need the host, such as
    /// a file that does not exist: each is a key of the manifest and the text of the mistake.
    ///
    /// All mistakes are in one error: those of the manifest itself and those of `more`. If the manifest has mistakes,
    /// `more` receives a plan in which stand-ins take the place of values that could not be read.
    ///
    /// # Errors
    ///
    /// If the manifest cannot be read or has mistakes, and as for [`Manifest::plan`].
    pub fn read<'a>(
        path: impl AsRef<Path>,
        request: impl Into<PlanRequest<'a>>,
        more: impl FnOnce(&Self) -> Vec<(String, String)>,
    ) -> Result<Self, PlanError> {
        let path = path.as_ref();
        let text = bottle_yaml::read_file(path)?;
        let reading = bottle_yaml::read::<Manifest>(&text).in_file(path);
        let request = request.into();
        let mut mistakes = Vec::new();
        if let Some(manifest) = reading.value() {
            mistakes = manifest.broken_rules();
            let plan = manifest.plan_unchecked(request.clone(), path.parent());
            let found = plan.as_ref().map(more).unwrap_or_default();
            mistakes.extend(found.into_iter().map(|(key, text)| ManifestMistake::new(key, &text)));
        }
        Manifest::finish(reading, mistakes)?.plan_unchecked(request, path.parent())
    }
}

impl Manifest {
    /// Makes the plan of one bottle.
    ///
    /// # Errors
    ///
    /// If the manifest breaks a rule, if the agent is not in it, if no agent was chosen and there is not exactly one,
    /// or if the home directory or the manifest's directory is not absolute.
    pub fn plan<'a>(&self, request: impl Into<PlanRequest<'a>>) -> Result<BottlePlan, PlanError> {
        self.check()?;
        self.plan_unchecked(request.into(), self.dir())
    }

    /// Makes a plan of a manifest that may break rules. `dir` is the directory of its file.
    fn plan_unchecked(&self, request: PlanRequest<'_>, dir: Option<&Path>) -> Result<BottlePlan, PlanError> {
        let (agent_name, agent) = self.choose(request.agent)?;
        let no_bottle = || self.origin.error(vec![self.no_such_bottle(agent_name, &agent.bottle)]);
        let bottle = self.bottles.get(&agent.bottle).ok_or_else(no_bottle)?;
        let base = &match request.manifest_dir.or(dir) {
            // A relative directory is resolved against the working directory, as it was when the manifest was read.
            Some(dir) if request.manifest_dir.is_none() => request.host.cwd.join(dir),
            Some(dir) => dir.to_owned(),
            None => request.host.cwd.clone(),
        };
        for (what, path) in [("the home directory", &*request.host.home), ("the manifest's directory", base)] {
            if !path.is_absolute() {
                return Err(PlanError::RelativePath { what, path: path.to_owned() });
            }
        }
        let paths = Paths { home: &request.host.home, base };
        let key = format!("bottles.{}", agent.bottle);
        let slug = request.slug.unwrap_or_else(|| Slug::generate(agent_name, request.random));
        Ok(BottlePlan {
            names: Names::new(request.prefix, slug),
            agent_name: agent_name.clone(),
            user: request.host.user,
            proxy: proxy(bottle),
            egress: egress(bottle, &key),
            git_gate: git_gate(bottle, &key, &paths),
            supervise: bottle.supervise.as_option().map(|spec| SupervisePlan { wait: spec.wait }),
            agent: agent_plan(agent_name, agent, bottle, &paths),
            workspace: workspace(bottle, &paths, &request.host.cwd),
            images: images(agent, bottle, request.host.user),
            networks: bottle.networks,
            tls: TlsPlan {
                lifetime: bottle.tls.lifetime,
                upstream_ca: bottle.tls.upstream_ca.as_deref().map(|path| paths.absolute(path)),
            },
            limits: bottle.limits.clone(),
            secrets: bottle.secrets,
            source: PlanSource { origin: self.origin.clone(), bottle: Some(agent.bottle.clone()) },
        })
    }

    fn choose(&self, wanted: Option<&AgentName>) -> Result<(&AgentName, &AgentSpec), PlanError> {
        let known = || elided(&listed(self.agents.keys()));
        match wanted {
            Some(name) => self
                .agents
                .get_key_value(name)
                .ok_or_else(|| PlanError::UnknownAgent { wanted: elided(name.as_str()), known: known() }),
            None => match self.agents.iter().next() {
                Some(only) if self.agents.len() == 1 => Ok(only),
                _ => Err(PlanError::AgentNotChosen { known: known() }),
            },
        }
    }
}

/// The directories against which the manifest's paths are resolved.
struct Paths<'a> {
    home: &'a Path,
    base: &'a Path,
}

impl Paths<'_> {
    /// Expands `~` and makes the path absolute. `.` and `..` are resolved by name, without access to the file system.
    fn absolute(&self, path: &Path) -> PathBuf {
        let expanded = match path.strip_prefix("~") {
            Ok(rest) => self.home.join(rest),
            Err(_) => self.base.join(path),
        };
        let mut clean = PathBuf::new();
        for component in expanded.components() {
            match component {
                Component::CurDir => {}
                Component::ParentDir => {
                    clean.pop();
                }
                other => clean.push(other),
            }
        }
        clean
    }
}

pub(crate) fn proxy(bottle: &BottleSpec) -> ProxyPlan {
    let egress = &bottle.egress;
    let routed = egress.routes.iter().map(|route| route.host.to_allowed());
    let allow: BTreeSet<AllowedHost> = egress.allow.iter().map(|entry| entry.host.clone()).chain(routed).collect();
    ProxyPlan {
        allow: allow.into_iter().collect(),
        ports: egress.ports(),
        content: egress.content(),
        scan_requests: egress.scan_requests,
    }
}

pub(crate) fn egress(bottle: &BottleSpec, key: &str) -> Option<EgressPlan> {
    if !bottle.egress.has_proxy() && !bottle.limits.need_egress() {
        return None;
    }
    let mut taken: BTreeSet<String> =
        bottle.egress.routes.iter().filter_map(|route| route.name.as_ref().map(ToString::to_string)).collect();
    let routes = bottle.egress.routes.iter().enumerate().map(|(index, spec)| Route {
        name: route_name(spec, &mut taken),
        key: format!("{key}.egress.routes[{index}]"),
        host: spec.host.clone(),
        port: spec.port,
        paths: spec.paths.clone(),
        methods: spec.methods.clone(),
        headers: spec.headers.clone(),
        inject: spec.inject.as_ref().map(injection),
        dlp: spec.dlp,
    });
    let mut dlp_of_hosts = BTreeMap::new();
    for (host, dlp) in bottle.egress.allow.iter().filter_map(|entry| Some((&entry.host, entry.dlp?))) {
        // The variants are ordered by strictness.
        let strictest = dlp_of_hosts.entry(host.clone()).or_insert(dlp);
        *strictest = dlp.max(*strictest);
    }
    Some(EgressPlan {
        routes: routes.collect(),
        dlp: bottle.egress.dlp.unwrap_or(RequestScan::Block),
        dlp_of_hosts,
        on_denied: bottle.egress.on_denied,
        mode: bottle.egress.mode,
        temporary: BTreeMap::new(),
    })
}

/// Returns the name from the manifest, or a name made from the host that no other route has.
fn route_name(spec: &RouteSpec, taken: &mut BTreeSet<String>) -> String {
    if let Some(name) = &spec.name {
        return name.to_string();
    }
    let host = spec.host.as_str().replace('*', "any");
    let numbered = (2..).map(|number| format!("{host}-{number}"));
    let mut candidates = std::iter::once(host.clone()).chain(numbered);
    // There is no last candidate, so a free one is always found.
    candidates.find(|name| taken.insert(name.clone())).unwrap_or(host)
}

fn injection(spec: &InjectSpec) -> Injection {
    let value = match spec.scheme {
        InjectScheme::Bearer => InjectionValue::Template("Bearer {token}".into()),
        InjectScheme::Basic => InjectionValue::Basic { username: username(spec.username.as_deref()) },
        InjectScheme::Header => InjectionValue::Template(spec.template.clone().unwrap_or_else(|| "{token}".into())),
    };
    Injection { token: spec.token.clone(), slot: slot("EGRESS_TOKEN_", &spec.token), header: spec.header_name(), value }
}

fn username(given: Option<&str>) -> String {
    given.unwrap_or("x-access-token").to_owned()
}

/// Returns the sidecar's variable for a token. It differs from the token's own variable because all services share one
/// Compose environment, in which the agent's placeholder often has that name.
fn slot(prefix: &'static str, token: &CredentialName) -> EnvName {
    token.prefixed(prefix)
}

fn git_gate(bottle: &BottleSpec, key: &str, paths: &Paths<'_>) -> Option<GitGatePlan> {
    if bottle.git.upstreams.is_empty() {
        return None;
    }
    let upstreams = bottle.git.upstreams.iter().enumerate().map(|(index, spec)| Upstream {
        name: spec.name.clone(),
        key: format!("{key}.git.upstreams[{index}]"),
        url: spec.url.clone(),
        auth: git_auth(spec, paths),
        known_hosts: spec.known_hosts.clone(),
        extra_hosts: spec.extra_hosts.clone(),
        push: spec.push.clone(),
    });
    Some(GitGatePlan { upstreams: upstreams.collect() })
}

fn git_auth(spec: &UpstreamSpec, paths: &Paths<'_>) -> GitAuth {
    if let Some(deploy_key) = &spec.deploy_key {
        return GitAuth::DeployKey(DeployKey::new(deploy_key, &spec.url, &spec.push));
    }
    match (spec.url.transport(), &spec.identity_file, &spec.token) {
        (GitTransport::Ssh, Some(path), _) => GitAuth::IdentityFile(paths.absolute(path)),
        (_, _, Some(token)) => GitAuth::Token {
            token: token.clone(),
            slot: slot("GIT_GATE_TOKEN_", token),
            username: username(spec.username.as_deref()),
        },
        _ => GitAuth::Anonymous,
    }
}

fn agent_plan(name: &AgentName, agent: &AgentSpec, bottle: &BottleSpec, paths: &Paths<'_>) -> AgentPlan {
    let program = match agent.provider {
        Provider::Claude => Some("claude"),
        Provider::Codex => Some("codex"),
        Provider::Custom => None,
    };
    let command = match program {
        Some(program) if agent.command.is_empty() => vec![program.to_owned()],
        _ => agent.command.clone(),
    };
    let prompt = agent.prompt.clone().map(PromptSource::Text);
    let prompt_file = agent.prompt_file.as_deref().map(|path| PromptSource::File(paths.absolute(path)));
    let (mut literals, mut forwarded, mut placeholders) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (name, spec) in &bottle.env {
        match spec {
            EnvSpec::Literal(text) => drop(literals.insert(name.clone(), text.clone())),
            EnvSpec::Forward(source) => {
                drop(forwarded.insert(name.clone(), source.clone().unwrap_or_else(|| name.clone())));
            }
            EnvSpec::Placeholder(dummy) => {
                let dummy = dummy.clone().unwrap_or_else(|| "placeholder-egress-injects-the-real-one".into());
                placeholders.insert(name.clone(), dummy);
            }
        }
    }
    AgentPlan {
        provider: agent.provider,
        command,
        prompt_mode: agent.prompt_mode.unwrap_or_else(|| agent.provider.prompt_mode()),
        prompt: prompt.or(prompt_file),
        skills: agent.skills.iter().map(|path| paths.absolute(path)).collect(),
        literals,
        forwarded,
        placeholders,
        env_file: bottle.env_file.as_deref().map(|path| paths.absolute(path)),
        git_identity: bottle
            .git
            .user
            .clone()
            .unwrap_or_else(|| GitIdentity { name: name.to_string(), email: format!("{name}@bottle.invalid") }),
        runtime: bottle.runtime,
    }
}

fn workspace(bottle: &BottleSpec, paths: &Paths<'_>, cwd: &Path) -> WorkspacePlan {
    let spec = &bottle.workspace;
    WorkspacePlan {
        mode: spec.mode,
        source: spec.path.as_deref().map_or_else(|| cwd.to_owned(), |path| paths.absolute(path)),
        target: spec.target.clone().unwrap_or_else(|| ContainerPath::constant(WORKSPACE)),
        include_credential_files: spec.include_credential_files,
    }
}

fn images(agent: &AgentSpec, bottle: &BottleSpec, user: UserIds) -> ImagesPlan {
    let spec = &bottle.images;
    let default_for =
        |provider: Provider, version: &'static str| (agent.provider == provider).then(|| NpmVersion::constant(version));
    let ready = [
        (Service::Agent, &spec.agent),
        (Service::Egress, &spec.egress),
        (Service::GitGate, &spec.git_gate),
        (Service::Supervise, &spec.supervise),
        (Service::Seal, &spec.seal),
    ];
    let mut packages = spec.packages.clone();
    packages.sort();
    packages.dedup();
    ImagesPlan {
        base: spec.base.clone().unwrap_or_else(|| ImageRef::constant(BASE_IMAGE)),
        pipelock: spec.pipelock.clone().unwrap_or_else(|| ImageRef::constant(PIPELOCK_IMAGE)),
        ready: ready.into_iter().filter_map(|(service, image)| Some((service, image.clone()?))).collect(),
        agent: AgentImagePlan {
            packages,
            claude_code: spec.claude_code.clone().or_else(|| default_for(Provider::Claude, CLAUDE_CODE_VERSION)),
            codex: spec.codex.clone().or_else(|| default_for(Provider::Codex, CODEX_VERSION)),
            build_args: spec.build_args.clone(),
            user: (user.uid != 0).then_some(user),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_constant_follows_its_type() {
        for scheme in [InjectScheme::Bearer, InjectScheme::Basic, InjectScheme::Header] {
            let header = InjectSpec { scheme, ..InjectSpec::bearer("TOKEN").unwrap() }.header_name();
            assert_eq!(header.as_str().parse(), Ok(header));
        }
        for image in [BASE_IMAGE, PIPELOCK_IMAGE] {
            assert_eq!(image.parse(), Ok(ImageRef::constant(image)));
        }
        for version in [CLAUDE_CODE_VERSION, CODEX_VERSION] {
            assert_eq!(version.parse(), Ok(NpmVersion::constant(version)));
        }
        assert_eq!(WORKSPACE.parse(), Ok(ContainerPath::constant(WORKSPACE)));
    }
}
