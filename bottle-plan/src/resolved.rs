//! The resolved plan: a plan joined with everything that only a launch knows. Nothing else can be rendered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::name::Service;
use crate::plan::{BottlePlan, GitAuth};
use crate::value::{EntryName, ImageRef};

/// A plan with its launch-time facts, checked to fit each other.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedPlan {
    plan: BottlePlan,
    launch: LaunchFacts,
}

/// What only a launch knows. Every field is needed; those of a sidecar exactly when the plan has that sidecar.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaunchFacts {
    /// The version of the library that launches, for a label.
    pub version: String,
    /// Process id and start time of the launcher, for a label.
    pub owner: String,
    /// The hash of the state root, for a label.
    pub state: String,
    /// What the engine can do.
    pub engine: EngineFacts,
    /// The networks.
    pub networks: NetworkFacts,
    /// The agent's image and files.
    pub agent: AgentFacts,
    /// Pipelock's files.
    pub pipelock: PipelockFacts,
    /// Egress's image and files.
    pub egress: Option<EgressFacts>,
    /// Git-gate's image and files.
    pub git_gate: Option<GitGateFacts>,
    /// Supervise's image and files.
    pub supervise: Option<SuperviseFacts>,
    /// A PEM file of further authorities for upstream connections, written for the containers to read.
    pub upstream_ca: Option<PathBuf>,
}

/// What the engine can do, as far as the document depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineFacts {
    /// How the internal network is kept free of an address of the host.
    pub host_gateway: HostGateway,
    /// Whether health checks may probe faster while a container starts (`start_interval`, Engine 25 and later).
    pub start_interval: bool,
}

/// How an internal network is kept free of an address of the host.
///
/// A plain `internal: true` network gives the host an address on the bridge, through which every service on the host's
/// 0.0.0.0 answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostGateway {
    /// `com.docker.network.bridge.inhibit_ipv4`, for engines before 28.
    InhibitIpv4,
    /// `com.docker.network.bridge.gateway_mode_ipv4` and `…_ipv6`: `isolated`, from Engine 28.
    Isolated,
}

impl HostGateway {
    /// The bridge driver's options.
    pub fn driver_opts(self) -> BTreeMap<String, String> {
        let options: &[(&str, &str)] = match self {
            Self::InhibitIpv4 => &[("com.docker.network.bridge.inhibit_ipv4", "true")],
            Self::Isolated => &[
                ("com.docker.network.bridge.gateway_mode_ipv4", "isolated"),
                ("com.docker.network.bridge.gateway_mode_ipv6", "isolated"),
            ],
        };
        options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }
}

/// The networks as they will be, or as the launcher made them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkFacts {
    /// The internal network's name.
    pub internal: String,
    /// The egress network's name.
    pub egress: String,
    /// The internal network's subnet as read back from the engine; known in mode `external` only.
    pub internal_cidr: Option<Ipv4Net>,
}

/// An image of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltImage {
    /// Its reference.
    pub reference: ImageRef,
    /// What it is built from; `None` for a ready image.
    pub build: Option<BuildFacts>,
}

/// What an image is built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildFacts {
    /// The build context on the host.
    pub context: PathBuf,
    /// The build arguments.
    pub args: BTreeMap<String, String>,
}

/// The agent's image and files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFacts {
    /// The image it runs: the derived one where the workspace is copied, else the base.
    pub image: ImageRef,
    /// Its environment file, when it exists and is not empty.
    pub env_file: Option<PathBuf>,
}

/// Pipelock's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelockFacts {
    /// Its configuration.
    pub config: PathBuf,
    /// Its authority's certificate.
    pub ca_cert: PathBuf,
    /// Its authority's key, SEC1, mode 0600.
    pub ca_key: PathBuf,
}

/// Egress's image and files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressFacts {
    /// Its image.
    pub image: BuiltImage,
    /// Its routes.
    pub routes: PathBuf,
    /// Its authority's key and certificate in one PEM file, mode 0600.
    pub ca_combined: PathBuf,
    /// Its authority's certificate alone, for the agent to trust.
    pub ca_cert: PathBuf,
}

/// Git-gate's image and files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitGateFacts {
    /// Its image.
    pub image: BuiltImage,
    /// The directory of its scripts, each of which is bound by name.
    pub scripts: PathBuf,
    /// What it serves and under which rules.
    pub upstreams: PathBuf,
    /// The hosts' public keys.
    pub known_hosts: PathBuf,
    /// The private key of each upstream that has one.
    pub identities: BTreeMap<EntryName, PathBuf>,
}

/// Supervise's image and files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuperviseFacts {
    /// Its image.
    pub image: BuiltImage,
    /// Where proposals arrive.
    pub queue: PathBuf,
    /// Where a person's decisions are put.
    pub decisions: PathBuf,
    /// What the bottle may do, for supervise and the agent to read.
    pub current_config: PathBuf,
}

/// Error of joining a plan with the facts of a launch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The plan has a sidecar whose facts are missing, or the other way round.
    #[error("use the launch facts: the plan {} {service}, but its facts are {}", if *planned { "has" } else { "has no" }, if *planned { "missing" } else { "given" })]
    Sidecar {
        /// The sidecar.
        service: Service,
        /// Whether the plan has it.
        planned: bool,
    },
    /// A path that becomes a bind mount's source is not absolute.
    #[error("use the path of {what}: `{}` is not absolute", path.display())]
    RelativePath {
        /// Which path.
        what: String,
        /// The path.
        path: PathBuf,
    },
    /// A path that becomes part of the document is not UTF-8.
    #[error("use the path of {what}: `{}` is not UTF-8, which a Compose document must be", path.display())]
    NotUnicode {
        /// Which path.
        what: String,
        /// The path.
        path: PathBuf,
    },
    /// An upstream with a key of its own has no key file.
    #[error("use the launch facts: git upstream `{name}` has no identity file")]
    NoIdentity {
        /// The upstream.
        name: EntryName,
    },
    /// Only one of the plan and the facts has a bundle of upstream certificates.
    #[error("use the launch facts: the plan and the facts must both have `tls.upstream_ca`, or neither")]
    UpstreamCa,
}

impl BottlePlan {
    /// Joins the plan with the facts of a launch.
    ///
    /// # Errors
    ///
    /// When facts about a sidecar are missing or superfluous, or a path cannot be part of a Compose document.
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
    /// The plan.
    pub const fn plan(&self) -> &BottlePlan {
        &self.plan
    }

    /// What the launch added.
    pub const fn launch(&self) -> &LaunchFacts {
        &self.launch
    }
}
