//! Facts that a launch adds to the plan for each sidecar.

use bottle_plan::Service;
use bottle_plan::plan::{GitAuth, Upstream};
use bottle_plan::resolved::{EgressFacts, GitGateFacts, SuperviseFacts};

use super::certificates::Authorities;
use super::context::Launch;
use super::deploy_keys;
use super::images::Images;

pub(super) fn egress(launch: &Launch<'_>, images: &Images, authorities: &Authorities) -> Option<EgressFacts> {
    let authority = authorities.egress.as_ref()?;
    Some(EgressFacts {
        image: images.sidecars.get(&Service::Egress)?.clone(),
        routes: launch.state.egress_routes(),
        ca_combined: authority.combined.clone(),
        ca_cert: authority.certificate.clone(),
    })
}

pub(super) fn git_gate(launch: &Launch<'_>, images: &Images) -> Option<GitGateFacts> {
    let gate = launch.plan.git_gate.as_ref()?;
    let dir = launch.state.service_dir(Service::GitGate);
    let identity = |upstream: &Upstream| match &upstream.auth {
        GitAuth::IdentityFile(path) => Some(path.clone()),
        GitAuth::DeployKey(_) => Some(deploy_keys::private_key(&launch.state, upstream)),
        GitAuth::Token { .. } | GitAuth::Anonymous => None,
    };
    Some(GitGateFacts {
        image: images.sidecars.get(&Service::GitGate)?.clone(),
        upstreams: dir.join("upstreams.json"),
        known_hosts: dir.join("known_hosts"),
        scripts: dir,
        identities: gate.upstreams.iter().filter_map(|up| Some((up.name.clone(), identity(up)?))).collect(),
    })
}

pub(super) fn supervise(launch: &Launch<'_>, images: &Images) -> Option<SuperviseFacts> {
    launch.plan.supervise.as_ref()?;
    Some(SuperviseFacts {
        image: images.sidecars.get(&Service::Supervise)?.clone(),
        queue: launch.state.supervise_queue(),
        decisions: launch.state.supervise_decisions(),
        current_config: launch.state.current_config(),
    })
}
