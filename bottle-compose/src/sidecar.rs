//! Interface between a sidecar and the renderer.

use std::collections::BTreeMap;
use std::fmt::Debug;

use bottle_plan::resolved::BuiltImage;
use bottle_plan::value::{EnvName, ImageRef};
use bottle_plan::{BottlePlan, ResolvedPlan, UserIds};

use crate::document::{
    Attachment, Bind, Build, ComposeFile, HealthCheck, Logging, PullPolicy, Service, Variable, Volume,
};

/// The internal network's name in the document.
pub const INTERNAL: &str = "internal";
/// The egress network's name in the document.
pub const EGRESS: &str = "egress";

/// A service between the agent and the outside.
///
/// The built-in sidecars are in `bottle-sidecars`. To add one, implement this trait and pass the value to
/// [`render`](crate::render) with the others.
pub trait Sidecar: Debug + Send + Sync {
    /// Returns the service's name, which must be unique in the document.
    fn name(&self) -> &str;

    /// Returns true if the plan has this sidecar.
    fn applies(&self, plan: &BottlePlan) -> bool;

    /// Returns the service. Called only if the sidecar [applies](Self::applies).
    fn service(&self, plan: &ResolvedPlan) -> Service;

    /// Returns the slots of the credentials that the sidecar needs: the variables that hold them. Default: none.
    ///
    /// The renderer adds a directory in memory at [`CREDENTIALS`], which is the sidecar's own. The sidecar reads a slot's
    /// value from a file of its name there. The launcher writes these files through a shell once the container runs, so
    /// the image needs `sh` and `mv`. If the manifest says `secrets: environment`, the sidecar writes them itself, from
    /// variables of the same names, before it starts another process.
    fn credentials(&self, plan: &BottlePlan) -> Vec<EnvName> {
        let _ = plan;
        Vec::new()
    }

    /// Returns true if the sidecar keeps data of its own. Default: false.
    ///
    /// The renderer adds a volume at [`DATA`], which outlives a stop of the bottle. The image needs that directory, with a mode
    /// that lets every user write: the engine gives it to the new volume.
    fn keeps_data(&self, plan: &BottlePlan) -> bool {
        let _ = plan;
        false
    }

    /// Returns the settings that the agent needs to reach the sidecar. Default: none.
    fn agent_access(&self, plan: &ResolvedPlan) -> AgentAccess {
        let _ = plan;
        AgentAccess::default()
    }
}

/// Settings that the agent needs to reach a sidecar.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentAccess {
    /// URL of the agent's HTTP proxy. If several sidecars name one, the last is used.
    pub proxy: Option<String>,
    /// TCP ports of the sidecar that the agent may reach. The seal closes all others.
    pub ports: Vec<u16>,
    /// Maximum number of simultaneous connections of the agent to each of the ports. Further connections wait. `None`:
    /// no limit.
    pub max_connections: Option<u32>,
    /// Host names that the agent reaches without the proxy.
    pub no_proxy: Vec<String>,
    /// Additional environment variables of the agent.
    pub environment: Vec<Variable>,
    /// Additional mounts of the agent.
    pub volumes: Vec<Bind>,
}

/// Networks of a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The agent's network only.
    Internal,
    /// The agent's network and the egress network.
    Both,
}

/// A sidecar's image.
#[derive(Debug, Clone, Copy)]
pub enum Image<'a> {
    /// From a registry.
    Pulled(&'a ImageRef),
    /// Built by the launcher, or ready on the engine.
    Local(&'a BuiltImage),
}

/// Returns a sidecar's service with everything that sidecars share: names, networks, labels and hardening.
///
/// - A read-only root, no capability, `no-new-privileges`: an attacker who takes over a sidecar can neither change it
///   nor gain privileges.
/// - The launcher's own user and group: no other user can read a key of mode 0600, not even root without
///   `CAP_DAC_OVERRIDE`.
/// - Limits on memory and processes: the agent cannot exhaust the host through a sidecar.
/// - An init and a short grace period: five services whose process 1 ignored SIGTERM took 20.8 s to stop, and 0.75 s
///   with an init.
/// - A bounded number of restarts after a failure: a crash of a sidecar must not cut the agent off permanently.
/// - With [`Reach::Internal`]: a closed resolver and no IPv6, as for the agent.
/// - A limit on the stored logs, because the agent controls how much a proxy logs.
pub fn sidecar_service(
    plan: &ResolvedPlan,
    name: impl AsRef<str>,
    image: Image<'_>,
    reach: Reach,
    alias: Option<String>,
) -> Service {
    let bottle = plan.plan();
    let internal = Attachment { aliases: alias.into_iter().collect(), ..Attachment::default() };
    let mut networks = vec![(INTERNAL.to_owned(), internal)];
    if reach == Reach::Both {
        networks.push((EGRESS.to_owned(), Attachment::default()));
    }
    let image = match image {
        Image::Pulled(reference) => Service { image: reference.to_string(), ..Service::default() },
        Image::Local(local) => local_image(local),
    };
    let memory = bottle.sidecar_memory().bytes();
    Service {
        container_name: bottle.names.sidecar_container(name.as_ref()),
        user: Some(bottle.user.to_string()),
        init: true,
        networks,
        dns: if reach == Reach::Internal { closed_dns() } else { Vec::new() },
        dns_search: if reach == Reach::Internal { closed_dns_search() } else { Vec::new() },
        sysctls: if reach == Reach::Internal { no_ipv6() } else { BTreeMap::new() },
        read_only: true,
        cap_drop: vec!["ALL".into()],
        security_opt: vec![NO_NEW_PRIVILEGES.into()],
        pids_limit: Some(bottle.sidecar_pids()),
        mem_limit: Some(memory),
        memswap_limit: Some(memory),
        cpus: bottle.limits.sidecar.cpus.map(|cpus| cpus.to_string()),
        stop_grace_period: Some(STOP_GRACE.into()),
        restart: Some(RESTART.into()),
        logging: Some(bounded_logging()),
        labels: labels(plan),
        ..image
    }
}

/// Returns a service with an image that was built by the launcher, or is ready on the engine, and nothing else.
pub(crate) fn local_image(local: &BuiltImage) -> Service {
    let build = local
        .build
        .as_ref()
        .map(|facts| Build { context: facts.context.to_string_lossy().into_owned(), args: facts.args.clone() });
    Service {
        image: local.reference.to_string(),
        pull_policy: build.is_some().then_some(PullPolicy::Never),
        build,
        ..Service::default()
    }
}

/// Returns the upstream resolver of a container on the internal network only: an unreachable address. The engine's own
/// resolver answers for the bottle's names. Before releases 25.0.4 and 26.0 it forwarded outside names to the host's
/// resolver (CVE-2024-29018).
pub(crate) fn closed_dns() -> Vec<String> {
    vec!["127.0.0.1".into()]
}

/// Returns an empty search domain, so that the host's search domains are not disclosed.
pub(crate) fn closed_dns_search() -> Vec<String> {
    vec![".".into()]
}

/// Returns kernel parameters that disable IPv6, which the internal network does not have.
pub(crate) fn no_ipv6() -> BTreeMap<String, String> {
    BTreeMap::from([("net.ipv6.conf.all.disable_ipv6".to_owned(), "1".to_owned())])
}

pub(crate) const NO_NEW_PRIVILEGES: &str = "no-new-privileges:true";

/// Restart policy of sidecars while the bottle starts: one that cannot start makes the launch fail.
pub const RESTART: &str = "on-failure:5";

/// Restart policy of sidecars from then on. A sidecar that dies is running again within a second, however often. The
/// engine never resets the count of a bounded policy.
pub const RESTART_ONCE_UP: &str = "on-failure";

/// Size in MiB of a sidecar's credentials. A file takes a page, so that this is enough for 1,024 slots.
const CREDENTIALS_MIB: u32 = 4;

/// Time between SIGTERM and SIGKILL, enough for each sidecar to stop cleanly.
pub(crate) const STOP_GRACE: &str = "2s";

impl ComposeFile {
    /// Returns the names of the containers whose restart policy is that of sidecars, [`RESTART`].
    pub fn restarted(&self) -> Vec<&str> {
        let services = self.services.iter().map(|(_, service)| service);
        let sidecars = services.filter(|service| service.restart.as_deref() == Some(RESTART));
        sidecars.map(|service| service.container_name.as_str()).collect()
    }
}

/// Returns the labels that mark the containers, networks and volumes of a bottle.
pub fn labels(plan: &ResolvedPlan) -> BTreeMap<String, String> {
    let (bottle, launch) = (plan.plan(), plan.launch());
    bottle.names.labels(&bottle.agent_name, &launch.version, &launch.owner, &launch.state)
}

/// Returns a health check that probes ten times a second while the service starts, if the engine supports that, and
/// rarely afterwards.
///
/// Without `start_interval`, the ordinary interval applies from the start, and 30 s would make `up --wait` take 30 s.
/// The interval is then one second throughout.
///
/// Each probe is a process that the engine starts in the container. A command that waits for a service that is still starting, for less than the timeout of 5 s, needs only one.
pub fn health_check(plan: &ResolvedPlan, command: &[&str]) -> HealthCheck {
    let fast_start = plan.launch().engine.start_interval;
    HealthCheck {
        disable: false,
        test: std::iter::once("CMD").chain(command.iter().copied()).map(ToOwned::to_owned).collect(),
        interval: if fast_start { "30s" } else { "1s" }.into(),
        timeout: "5s".into(),
        retries: 3,
        start_period: "60s".into(),
        start_interval: fast_start.then(|| "100ms".into()),
    }
}

/// Host that a verification asks for, to see that it is refused. No plan can allow it: no name below `.invalid` exists
/// (RFC 6761).
pub const PROBED_HOST: &str = "verify.bottle.invalid";

/// Path of the directory with a sidecar's credentials, in its container.
pub const CREDENTIALS: &str = "/run/credentials";

/// Path of the directory with a sidecar's own data, in its container.
pub const DATA: &str = "/var/lib/sidecar";

/// Returns the mount options of a sidecar's credentials, which belong to the sidecar's user alone.
pub(crate) fn credentials_options(user: UserIds) -> String {
    format!("noexec,{}", memory_options(user, CREDENTIALS_MIB))
}

/// Returns the mount options of a tmpfs of this size that only one user can read.
pub(crate) fn memory_options(user: UserIds, mebibytes: u32) -> String {
    let UserIds { uid, gid } = user;
    format!("nosuid,nodev,mode=0700,uid={uid},gid={gid},size={mebibytes}m")
}

/// Returns a volume in memory. `key` is its name in the document.
pub(crate) fn memory_volume(plan: &ResolvedPlan, key: &str, options: &str) -> Volume {
    let options = [("type", "tmpfs"), ("device", "tmpfs"), ("o", options)];
    Volume {
        driver_opts: options.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..disk_volume(plan, key)
    }
}

/// Returns a volume on the engine's disk. `key` is its name in the document.
pub(crate) fn disk_volume(plan: &ResolvedPlan, key: &str) -> Volume {
    Volume {
        name: format!("{}_{key}", plan.plan().names.project()),
        driver: "local".into(),
        driver_opts: BTreeMap::new(),
        labels: labels(plan),
    }
}

/// Returns a tmpfs mount: writable, without executables or devices.
pub fn tmpfs(target: &str, mebibytes: u32) -> String {
    format!("{target}:rw,noexec,nosuid,nodev,mode=1777,size={mebibytes}m")
}

pub(crate) fn bounded_logging() -> Logging {
    let options = [("max-file", "3"), ("max-size", "20m")];
    Logging {
        driver: "json-file".into(),
        options: options.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
    }
}
