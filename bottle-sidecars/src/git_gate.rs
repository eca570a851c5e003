//! Git-gate, the agent's only way to git remotes: mirrors, a scan of every push, and the keys.

mod rewrite;

use bottle_compose::document::{Bind, Mount, Service, Variable};
use bottle_compose::sidecar::{Image, Reach, health_check, sidecar_service, tmpfs};
use bottle_compose::{AgentAccess, Sidecar};
use bottle_plan::manifest::PushSpec;
use bottle_plan::plan::{GitAuth, GitGatePlan, Upstream};
use bottle_plan::value::{ByteSize, EntryName, EnvName};
use bottle_plan::{BottlePlan, ResolvedPlan, Service as Name};
use serde::Serialize;

use crate::context::embedded;
use crate::{BuildContext, ContextFile};

pub use rewrite::{agent_git_config, served_url};

/// The port of `git daemon`: git's default.
pub const PORT: u16 = 9418;

/// The build context of its image, which holds programs only.
pub const CONTEXT: BuildContext =
    BuildContext { name: "git-gate", files: embedded!("git-gate": ["Dockerfile"], programs: []) };

/// The scripts that run in the container, each mounted by itself.
pub const SCRIPTS: &[ContextFile] = embedded!(
    "git-gate/scripts": ["gitgate.py", "gitgate_policy.py", "gitgate_scan.py", "gitgate_trees.py"],
    programs: ["access-hook", "entrypoint", "pre-receive"],
    shared: ["sidecar/__init__.py", "sidecar/audit_line.py", "sidecar/credentials.py", "sidecar/grammar.json", "sidecar/grammar.py"]
);

const DIR: &str = "/etc/git-gate";
/// Timeout in seconds of a fetch from a real remote. After it, the agent gets the error that the remote does not
/// answer.
const FETCH_TIMEOUT_SECONDS: u32 = 120;
/// Size in MiB of the tmpfs for the mirrors, with room for twice the largest push.
const MIRRORS_MIB: u32 = 2048;
/// Size in MiB of the tmpfs for the files that the scan unpacks.
const SCRATCH_MIB: u32 = 512;
/// Script of the health check. It looks for port 9418 in state "listening" in the kernel's table of sockets, without
/// connecting, and waits up to 3 s for a daemon that is still starting.
const LISTENS: &str = "tries=60; until grep -q ':24CA 00000000:0000 0A' /proc/net/tcp
do [ $((tries -= 1)) -gt 0 ] || exit 1; sleep 0.05; done";

/// The sidecar that holds git keys and mirrors.
#[derive(Debug, Clone, Copy, Default)]
pub struct GitGate;

impl Sidecar for GitGate {
    fn name(&self) -> &str {
        Name::GitGate.as_str()
    }

    fn applies(&self, plan: &BottlePlan) -> bool {
        plan.git_gate.is_some()
    }

    fn service(&self, plan: &ResolvedPlan) -> Service {
        let (Some(gate), Some(facts)) = (&plan.plan().git_gate, &plan.launch().git_gate) else {
            return Service::default();
        };
        let alias = plan.plan().names.container(Name::GitGate);
        let image = Image::Local(&facts.image);
        let mut service = sidecar_service(plan, Name::GitGate, image, Reach::Both, Some(alias));
        let script =
            |file: &ContextFile| Bind::read_only(&facts.scripts.join(file.path), format!("{DIR}/{}", file.path));
        let mut volumes: Vec<Bind> = SCRIPTS.iter().map(script).collect();
        volumes.push(Bind::read_only(&facts.upstreams, format!("{DIR}/upstreams.json")));
        volumes.push(Bind::read_only(&facts.known_hosts, format!("{DIR}/known_hosts")));
        let identity =
            |(name, path): (&EntryName, &std::path::PathBuf)| Bind::read_only(path, format!("{DIR}/creds/{name}-key"));
        volumes.extend(facts.identities.iter().map(identity));
        if let Some(bundle) = &plan.launch().upstream_ca {
            let target = format!("{DIR}/extra-ca.pem");
            service.environment.push(Variable::set("GIT_GATE_EXTRA_CA", &target));
            volumes.push(Bind::read_only(bundle, target));
        }
        service.volumes = volumes.into_iter().map(Mount::Bind).collect();
        service.extra_hosts = gate.extra_hosts().iter().map(|(host, address)| format!("{host}:{address}")).collect();
        service.tmpfs = vec![tmpfs("/tmp", SCRATCH_MIB), tmpfs("/mirrors", MIRRORS_MIB)];
        // Files in a tmpfs count towards the container's memory.
        let in_memory = ByteSize::mib(u64::from(MIRRORS_MIB + SCRATCH_MIB)).bytes();
        let memory = Some(plan.plan().sidecar_memory().bytes() + in_memory);
        (service.mem_limit, service.memswap_limit) = (memory, memory);
        service.healthcheck = Some(health_check(plan, &["sh", "-c", LISTENS]));
        service
    }

    fn credentials(&self, plan: &BottlePlan) -> Vec<EnvName> {
        plan.git_gate.iter().flat_map(|gate| gate.token_slots().into_keys()).collect()
    }

    fn agent_access(&self, plan: &ResolvedPlan) -> AgentAccess {
        let no_proxy = vec![Name::GitGate.as_str().to_owned(), plan.plan().names.container(Name::GitGate)];
        AgentAccess { no_proxy, ports: vec![PORT], ..AgentAccess::default() }
    }
}

/// Returns the upstreams and rules of git-gate in the form that its scripts read.
pub fn upstreams(plan: &GitGatePlan) -> String {
    let file = File {
        version: 1,
        fetch_timeout_seconds: FETCH_TIMEOUT_SECONDS,
        upstreams: plan.upstreams.iter().map(Entry::of).collect(),
    };
    // Strings, numbers and booleans always serialize to JSON.
    serde_json::to_string_pretty(&file).unwrap_or_default() + "\n"
}

/// Returns the public keys of the upstreams' hosts, in the format of ssh's `known_hosts`.
pub fn known_hosts(plan: &GitGatePlan) -> String {
    plan.known_hosts().iter().flat_map(|line| [line, "\n"]).collect()
}

#[derive(Serialize)]
struct File<'a> {
    version: u8,
    fetch_timeout_seconds: u32,
    upstreams: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    url: String,
    auth: Auth<'a>,
    push: Push<'a>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Auth<'a> {
    Ssh,
    Https { username: &'a str, slot: &'a str },
    None,
}

#[derive(Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own in the manifest")]
struct Push<'a> {
    enabled: bool,
    branches: Vec<&'a str>,
    tags: bool,
    force: bool,
    delete: bool,
    protected_paths: Vec<&'a str>,
    max_bytes: u64,
    scan: bool,
}

/// Returns the upstream's URL with a user. Without one, ssh would log in under the name of the container's user.
fn with_user(upstream: &Upstream) -> String {
    let url = upstream.url.canonical();
    match (upstream.url.user(), url.strip_prefix("ssh://")) {
        (None, Some(rest)) => format!("ssh://git@{rest}"),
        _ => url,
    }
}

impl<'a> Entry<'a> {
    fn of(upstream: &'a Upstream) -> Self {
        let PushSpec { enabled, branches, tags, force, delete, protected_paths, max_size, scan } = &upstream.push;
        Self {
            name: upstream.name.as_str(),
            url: with_user(upstream),
            auth: match &upstream.auth {
                GitAuth::IdentityFile(_) | GitAuth::DeployKey(_) => Auth::Ssh,
                GitAuth::Token { slot, username, .. } => Auth::Https { username, slot: slot.as_str() },
                GitAuth::Anonymous => Auth::None,
            },
            push: Push {
                enabled: *enabled,
                branches: branches.iter().map(AsRef::as_ref).collect(),
                tags: *tags,
                force: *force,
                delete: *delete,
                protected_paths: protected_paths.iter().map(AsRef::as_ref).collect(),
                max_bytes: max_size.bytes(),
                scan: *scan,
            },
        }
    }
}
