//! The resolved plan: a plan joined with everything that only a launch knows. Only a resolved plan can be rendered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bottle_values::StateLayout;
use serde::{Deserialize, Serialize};

use crate::name::Service;
use crate::plan::{BottlePlan, GitAuth};
use crate::value::{ByteSize, CpuCount, EntryName, ImageRef, Subnet};

/// A plan with the facts of a launch, checked against each other.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedPlan {
    plan: BottlePlan,
    launch: LaunchFacts,
}

/// The facts that only a launch knows. A sidecar's facts must be given exactly when the plan has that sidecar.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaunchFacts {
    /// The version of the library that launches the bottle, for a label.
    pub version: String,
    /// The process id and start time of the launcher, for a label.
    pub owner: String,
    /// The hash of the state root, for a label.
    pub state: String,
    /// The features of the engine.
    pub engine: EngineFacts,
    /// The names and the subnet of the networks.
    pub networks: NetworkFacts,
    /// The agent's image and files.
    pub agent: AgentFacts,
    /// The files of pipelock.
    pub pipelock: PipelockFacts,
    /// The image of the seal.
    pub seal: BuiltImage,
    /// The image and files of egress.
    pub egress: Option<EgressFacts>,
    /// The image and files of git-gate.
    pub git_gate: Option<GitGateFacts>,
    /// The image and files of supervise.
    pub supervise: Option<SuperviseFacts>,
    /// A PEM file of additional authorities for upstream connections, written so that the containers can read it.
    /// `None` if there is none.
    pub upstream_ca: Option<PathBuf>,
    /// The bottle's state directory, if the engine does not see this host's files: they are then in a store, a container that
    /// keeps them in memory. `None`: the containers bind them.
    #[serde(default)]
    pub stored: Option<StateLayout>,
    /// `true` if the bottle waits to be filled in, as in a pool. Its time begins with [`END_WAIT`].
    #[serde(default)]
    pub waits: bool,
}

/// The shell script of a waiting agent's container. Its argument is the time in seconds for which the container runs after the
/// wait. The files belong to root. Each of the two scripts writes its own file before it looks for the other's.
pub const WAIT: &str = "[ -e /.bottle-taken ] || { sleep infinity & echo $! >/.bottle-waiting; [ -e /.bottle-taken ] || wait; }; exec sleep \"$1\"";

/// The shell script that ends the wait, for root in that container, also after a later start: under gVisor no file outlives a stop.
/// In any other container, and a second time, it has no effect.
pub const END_WAIT: &str =
    ": >/.bottle-taken; [ ! -e /.bottle-waiting ] || { kill \"$(cat /.bottle-waiting)\"; rm /.bottle-waiting; }";

/// The features of the engine that the Compose document depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineFacts {
    /// The way that keeps the internal network free of an address of the host.
    pub host_gateway: HostGateway,
    /// `true` if health checks can probe faster while a container starts (`start_interval`, Engine 25 and later).
    pub start_interval: bool,
    /// The memory that the engine's containers share, in bytes. `None` if the engine does not report it.
    pub memory: Option<u64>,
    /// The number of the engine's processors. `None` if the engine does not report it, or cannot limit their use.
    #[serde(default)]
    pub processors: Option<u32>,
    /// `true` if the engine can limit the size of a container's files (`storage_opt`).
    #[serde(default)]
    pub disk_quota: bool,
}

/// The way that keeps an internal network free of an address of the host.
///
/// A plain `internal: true` network gives the host an address on the bridge. Through this address, containers could
/// reach every service that listens on the host's 0.0.0.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostGateway {
    /// `com.docker.network.bridge.inhibit_ipv4`, for engines before 28.
    InhibitIpv4,
    /// `com.docker.network.bridge.gateway_mode_ipv4` and `…_ipv6`: `isolated`, from Engine 28.
    Isolated,
    /// No name server on the network: Podman gives the host an address only for that.
    NoNameServer,
}

impl HostGateway {
    /// Returns the bridge driver's options for the internal network.
    pub fn driver_opts(self) -> BTreeMap<String, String> {
        let options: &[(&str, &str)] = match self {
            Self::InhibitIpv4 => &[("com.docker.network.bridge.inhibit_ipv4", "true")],
            Self::Isolated => &[
                ("com.docker.network.bridge.gateway_mode_ipv4", "isolated"),
                ("com.docker.network.bridge.gateway_mode_ipv6", "isolated"),
            ],
            Self::NoNameServer => &[],
        };
        options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// Returns the bridge driver's options for the egress network. Docker keeps its networks apart by itself; Podman routes
    /// between those that are not isolated.
    pub fn egress_opts(self) -> BTreeMap<String, String> {
        let is_podman = self == Self::NoNameServer;
        is_podman.then(|| ("isolate".to_owned(), "strict".to_owned())).into_iter().collect()
    }
}

/// The networks that the launcher has created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkFacts {
    /// The internal network's name.
    pub internal: String,
    /// The egress network's name.
    pub egress: String,
    /// The internal network's subnet that was asked for. `None` if the engine chose it.
    #[serde(default)]
    pub internal_subnet: Option<Subnet>,
    /// The egress network's subnet that was asked for. `None` if the engine chose it.
    #[serde(default)]
    pub egress_subnet: Option<Subnet>,
    /// The internal network's subnet as reported by the engine. `None` unless the network mode is `external`.
    pub internal_cidr: Option<Subnet>,
}

/// An image of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltImage {
    /// The image's reference.
    pub reference: ImageRef,
    /// The build context and arguments. `None` for a ready image.
    pub build: Option<BuildFacts>,
}

/// The build context and arguments of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildFacts {
    /// The build context on the host.
    pub context: PathBuf,
    /// The build arguments, by name.
    pub args: BTreeMap<String, String>,
}

/// The agent's image and files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFacts {
    /// The image that the agent runs: the derived image if the workspace is copied, else the base image.
    pub image: ImageRef,
    /// The agent's environment file. `None` if the file does not exist or is empty.
    pub env_file: Option<PathBuf>,
    /// The paths that the image declares with `VOLUME`. They are in memory: the engine does not count the files of a volume.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// The mounts inside a workspace that the agent may write. They keep the host's git and editors from its commands.
    pub workspace_mounts: Vec<WorkspaceMount>,
}

/// A mount inside the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceMount {
    /// The path on the host.
    pub source: PathBuf,
    /// The path below the workspace.
    pub below: PathBuf,
    /// `true` if the agent may write it.
    pub writable: bool,
}

/// The files of pipelock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelockFacts {
    /// The path of the configuration.
    pub config: PathBuf,
    /// The path of its certificate authority's certificate.
    pub ca_cert: PathBuf,
    /// The path of its certificate authority's key, SEC1, mode 0600.
    pub ca_key: PathBuf,
}

/// The image and files of egress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressFacts {
    /// The image that it runs.
    pub image: BuiltImage,
    /// The path of the routes.
    pub routes: PathBuf,
    /// The path of its certificate authority's key and certificate in one PEM file, mode 0600.
    pub ca_combined: PathBuf,
    /// The path of its certificate authority's certificate alone, which the agent trusts.
    pub ca_cert: PathBuf,
}

/// The image and files of git-gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitGateFacts {
    /// The image that it runs.
    pub image: BuiltImage,
    /// The directory of the scripts. Each script is mounted on its own, by name.
    pub scripts: PathBuf,
    /// The path of the file that describes the upstreams and their rules.
    pub upstreams: PathBuf,
    /// The path of the `known_hosts` file, with the upstream hosts' public keys.
    pub known_hosts: PathBuf,
    /// The path of each upstream's private key, for upstreams that have one.
    pub identities: BTreeMap<EntryName, PathBuf>,
}

/// The image and files of supervise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuperviseFacts {
    /// The image that it runs.
    pub image: BuiltImage,
    /// The directory for proposals.
    pub queue: PathBuf,
    /// The directory for a person's decisions.
    pub decisions: PathBuf,
    /// The directory that describes what the bottle may do. Supervise and the agent can read it.
    pub current_config: PathBuf,
}

/// Error of joining a plan with the facts of a launch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The plan has a sidecar whose facts are missing, or there are facts for a sidecar that the plan does not have.
    #[error("use the launch facts: the plan {} {service}, but its facts are {}", if *planned { "has" } else { "has no" }, if *planned { "missing" } else { "given" })]
    Sidecar {
        /// The sidecar.
        service: Service,
        /// `true` if the plan has the sidecar and its facts are missing.
        planned: bool,
    },
    /// A path that becomes a bind mount's source is not absolute.
    #[error("use the path of {what}: `{}` is not absolute", path.display())]
    RelativePath {
        /// Description of the path.
        what: String,
        /// The path.
        path: PathBuf,
    },
    /// A path that becomes part of the document is not UTF-8.
    #[error("use the path of {what}: `{}` is not UTF-8, which a Compose document must be", path.display())]
    NotUnicode {
        /// Description of the path.
        what: String,
        /// The path.
        path: PathBuf,
    },
    /// An upstream that needs a key has no key file.
    #[error("use the launch facts: git upstream `{name}` has no identity file")]
    NoIdentity {
        /// The upstream.
        name: EntryName,
    },
    /// Only one of the plan and the facts has a file of upstream certificates.
    #[error("use the launch facts: the plan and the facts must both have `tls.upstream_ca`, or neither")]
    UpstreamCa,
}

impl BottlePlan {
    /// Joins the plan with the facts of a launch.
    ///
    /// # Errors
    ///
    /// If a sidecar's facts are missing or superfluous, if the key file of an upstream is missing, if only one of the
    /// plan and the facts has upstream certificates, or if a path is not absolute or not UTF-8.
    pub fn resolve(self, launch: LaunchFacts) -> Result<ResolvedPlan, ResolveError> {
        let planned = [
            (Service::Egress, self.egress.is_some(), launch.egress.is_some()),
            (Service::GitGate, self.git_gate.is_some(), launch.git_gate.is_some()),
            (Service::Supervise, self.supervise.is_some(), launch.supervise.is_some()),
        ];
        if let Some(&(service, planned, _)) = planned.iter().find(|(_, planned, given)| planned != given) {
            return Err(ResolveError::Sidecar { service, planned });
        }
        if self.tls.upstream_ca.is_some() != launch.upstream_ca.is_some() {
            return Err(ResolveError::UpstreamCa);
        }
        if let (Some(plan), Some(facts)) = (&self.git_gate, &launch.git_gate) {
            let keyed = |auth: &GitAuth| matches!(auth, GitAuth::IdentityFile(_) | GitAuth::DeployKey(_));
            let missing = plan.upstreams.iter().find(|up| keyed(&up.auth) && !facts.identities.contains_key(&up.name));
            if let Some(upstream) = missing {
                return Err(ResolveError::NoIdentity { name: upstream.name.clone() });
            }
        }
        for (what, path) in launch.paths() {
            check_path(&what, path)?;
        }
        check_path("the workspace", &self.workspace.source)?;
        Ok(ResolvedPlan { plan: self, launch })
    }
}

fn check_path(what: &str, path: &Path) -> Result<(), ResolveError> {
    let (what, path) = (what.to_owned(), path.to_owned());
    if path.to_str().is_none() {
        return Err(ResolveError::NotUnicode { what, path });
    }
    if !path.is_absolute() {
        return Err(ResolveError::RelativePath { what, path });
    }
    Ok(())
}

impl LaunchFacts {
    fn paths(&self) -> Vec<(String, &Path)> {
        let mut paths: Vec<(String, &Path)> = vec![
            ("pipelock's configuration".into(), &self.pipelock.config),
            ("pipelock's certificate".into(), &self.pipelock.ca_cert),
            ("pipelock's key".into(), &self.pipelock.ca_key),
        ];
        paths.extend(self.seal.build.iter().map(|build| ("the seal's build context".into(), build.context.as_path())));
        if let Some(path) = &self.agent.env_file {
            paths.push(("the agent's environment file".into(), path));
        }
        if let Some(path) = &self.upstream_ca {
            paths.push(("the upstream certificates".into(), path));
        }
        if let Some(egress) = &self.egress {
            paths.push(("egress's routes".into(), &egress.routes));
            paths.push(("egress's key and certificate".into(), &egress.ca_combined));
            paths.push(("egress's certificate".into(), &egress.ca_cert));
            paths.extend(
                egress.image.build.iter().map(|build| ("egress's build context".into(), build.context.as_path())),
            );
        }
        if let Some(gate) = &self.git_gate {
            paths.push(("git-gate's scripts".into(), &gate.scripts));
            paths.push(("git-gate's upstreams".into(), &gate.upstreams));
            paths.push(("git-gate's known hosts".into(), &gate.known_hosts));
            paths.extend(
                gate.image.build.iter().map(|build| ("git-gate's build context".into(), build.context.as_path())),
            );
            paths.extend(
                gate.identities.iter().map(|(name, path)| (format!("the identity file of `{name}`"), path.as_path())),
            );
        }
        if let Some(supervise) = &self.supervise {
            paths.push(("supervise's queue".into(), &supervise.queue));
            paths.push(("supervise's decisions".into(), &supervise.decisions));
            paths.push(("the current configuration".into(), &supervise.current_config));
            paths.extend(
                supervise.image.build.iter().map(|build| ("supervise's build context".into(), build.context.as_path())),
            );
        }
        paths
    }
}

impl ResolvedPlan {
    /// Returns the plan.
    pub const fn plan(&self) -> &BottlePlan {
        &self.plan
    }

    /// Returns the memory limit of the agent in bytes: that of the manifest, or else half of the engine's memory, but at
    /// least 2 GiB, or all of it where the engine has less. `None` if the engine does not report its memory.
    pub fn agent_memory(&self) -> Option<u64> {
        let share = |all: u64| (all / 2).max(ByteSize::mib(2048).bytes()).min(all);
        self.plan.limits.agent.memory.map(ByteSize::bytes).or_else(|| self.launch.engine.memory.map(share))
    }

    /// Returns the number of processors that the agent may use: that of the manifest, or else all of the engine's but half of
    /// one, which stays for the sidecars, and at least one. `None` if the engine does not report them.
    pub fn agent_cpus(&self) -> Option<CpuCount> {
        let share = |all: u32| if all < 2 { "1".to_owned() } else { format!("{}.5", all - 1) };
        self.plan.limits.agent.cpus.or_else(|| self.launch.engine.processors.map(share)?.parse().ok())
    }

    /// Returns the facts of the launch.
    pub const fn launch(&self) -> &LaunchFacts {
        &self.launch
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_wait_is_ended_once_and_a_later_start_does_not_wait() {
        let dir = tempfile::tempdir().unwrap();
        let own = format!("{}/", dir.path().display());
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", &script.replace("/.bottle", &(own.clone() + ".bottle")), "sh", "0"]);
            command
        };
        let mut first = shell(WAIT).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while !fs::read(dir.path().join(".bottle-waiting")).is_ok_and(|pid| pid.ends_with(b"\n")) {
            assert!(Instant::now() < until);
            thread::sleep(Duration::from_millis(5));
        }
        assert!(first.try_wait().unwrap().is_none());
        assert!(shell(END_WAIT).status().unwrap().success());
        assert!(first.wait().unwrap().success());
        assert!(shell(END_WAIT).status().unwrap().success());
        assert!(shell(WAIT).status().unwrap().success());
        // The files are lost, and the wait ends before it has begun.
        fs::remove_file(dir.path().join(".bottle-taken")).unwrap();
        let script = WAIT.replacen("[ -e /.bottle-taken ] ||", "", 1);
        assert!(shell(END_WAIT).status().unwrap().success());
        assert!(shell(&script).status().unwrap().success());
        // In a container, what is left ends with its first process.
        assert!(shell(END_WAIT).status().unwrap().success());
    }
}
