//! The configuration files of all sidecars, as data.

use std::path::PathBuf;

use bottle_plan::plan::{GitAuth, Upstream};
use bottle_plan::resolved::{BuiltImage, GitGateFacts, SuperviseFacts};
use bottle_plan::value::Subnet;
use bottle_plan::{BottlePlan, Service, StateLayout};

use crate::{egress, git_gate, pipelock};

/// A file of a bottle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Material {
    /// The path in the bottle's state directory.
    pub path: PathBuf,
    /// The content. It holds no secret.
    pub content: String,
    /// The mode.
    pub mode: u32,
}

impl Material {
    fn text(path: PathBuf, content: impl Into<String>) -> Self {
        Self { path, content: content.into(), mode: 0o644 }
    }
}

/// Returns the path of the additional authorities for upstream connections.
pub fn upstream_ca(layout: &StateLayout) -> PathBuf {
    layout.service_dir(Service::Pipelock).join("upstream-ca.pem")
}

/// Returns the configuration of every sidecar that the plan has. `internal_cidr` is the internal network's subnet, if it is
/// known, and `certificates` are the additional authorities.
pub fn configuration(
    plan: &BottlePlan,
    layout: &StateLayout,
    internal_cidr: Option<Subnet>,
    certificates: Option<&str>,
) -> Vec<Material> {
    let mut files = Vec::new();
    files.extend(certificates.map(|certificates| Material::text(upstream_ca(layout), certificates)));
    files.push(Material::text(layout.pipelock_config(), pipelock::config(plan, internal_cidr)));
    if plan.egress.is_some() {
        files.push(Material::text(layout.egress_routes(), egress::routes(plan)));
    }
    if let Some(gate) = &plan.git_gate {
        let dir = layout.service_dir(Service::GitGate);
        files.extend(git_gate::SCRIPTS.iter().map(|script| Material {
            mode: if script.executable { 0o755 } else { 0o644 },
            ..Material::text(dir.join(script.path), script.content)
        }));
        files.push(Material::text(dir.join("upstreams.json"), git_gate::upstreams(gate)));
        files.push(Material::text(dir.join("known_hosts"), git_gate::known_hosts(gate)));
    }
    files
}

/// Returns the path of an upstream's deploy key, which the launch generates.
pub fn deploy_key(layout: &StateLayout, upstream: &Upstream) -> PathBuf {
    layout.service_dir(Service::GitGate).join(format!("{}-key", upstream.name))
}

/// Returns the facts of git-gate's files. `None` if the plan has no git-gate.
pub fn git_gate_facts(plan: &BottlePlan, layout: &StateLayout, image: &BuiltImage) -> Option<GitGateFacts> {
    let gate = plan.git_gate.as_ref()?;
    let dir = layout.service_dir(Service::GitGate);
    let identity = |upstream: &Upstream| match &upstream.auth {
        GitAuth::IdentityFile(path) => Some(path.clone()),
        GitAuth::DeployKey(_) => Some(deploy_key(layout, upstream)),
        GitAuth::Token { .. } | GitAuth::Anonymous => None,
    };
    Some(GitGateFacts {
        image: image.clone(),
        upstreams: dir.join("upstreams.json"),
        known_hosts: dir.join("known_hosts"),
        scripts: dir,
        identities: gate.upstreams.iter().filter_map(|up| Some((up.name.clone(), identity(up)?))).collect(),
    })
}

/// Returns the facts of supervise's files. `None` if the plan has no supervise.
pub fn supervise_facts(plan: &BottlePlan, layout: &StateLayout, image: &BuiltImage) -> Option<SuperviseFacts> {
    plan.supervise.as_ref()?;
    Some(SuperviseFacts {
        image: image.clone(),
        queue: layout.supervise_queue(),
        decisions: layout.supervise_decisions(),
        current_config: layout.current_config(),
    })
}
