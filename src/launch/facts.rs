//! Facts that a launch adds to the plan for each sidecar.

use bottle_plan::Service;
use bottle_plan::resolved::{EgressFacts, GitGateFacts, SuperviseFacts};

use super::certificates::Authorities;
use super::context::Launch;
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
    bottle_sidecars::git_gate_facts(&launch.plan, &launch.state, images.sidecars.get(&Service::GitGate)?)
}

pub(super) fn supervise(launch: &Launch<'_>, images: &Images) -> Option<SuperviseFacts> {
    bottle_sidecars::supervise_facts(&launch.plan, &launch.state, images.sidecars.get(&Service::Supervise)?)
}
