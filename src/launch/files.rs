//! The files of a bottle's state: each sidecar's configuration, and where it is.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use bottle_plan::plan::{GitAuth, Upstream};
use bottle_plan::resolved::{EgressFacts, GitGateFacts, SuperviseFacts};
use bottle_plan::{Service, StateLayout};
use bottle_sidecars::{egress, git_gate, pipelock};
use ipnet::Ipv4Net;

use super::certificates::Authorities;
use super::images::Images;
use super::{Launch, LaunchCause};
use crate::deploy_keys;

/// Makes a directory and those above it; an existing one keeps its mode.
pub(super) fn make_dir(path: &Path, mode: u32) -> Result<(), LaunchCause> {
    let result = DirBuilder::new().recursive(true).mode(mode).create(path);
    result.map_err(|source| LaunchCause::Write { path: path.to_owned(), source })
}

/// Writes a file whole or not at all, with its mode from the first moment.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), LaunchCause> {
    bottle_files::write(path, content, mode).map_err(|source| LaunchCause::Write { path: path.to_owned(), source })
}

pub(super) fn upstream_ca(state: &StateLayout) -> PathBuf {
    state.service_dir(Service::Pipelock).join("upstream-ca.pem")
}

/// Writes the configuration of every sidecar that the plan has.
pub(super) fn write_configuration(launch: &Launch<'_>, internal_cidr: Option<Ipv4Net>) -> Result<(), LaunchCause> {
    let (plan, state) = (&launch.plan, &launch.state);
    if let Some(bundle) = &plan.tls.upstream_ca {
        let text = fs::read_to_string(bundle).map_err(|error| LaunchCause::Unusable {
            what: "the upstream certificates".into(),
            path: bundle.clone(),
            problem: format!("cannot be read: {error}"),
        })?;
        // Refuses a key or anything else that is no certificate, before a container sees it.
        write(&upstream_ca(state), bottle_tls::trust_bundle("", &text)?.as_bytes(), 0o644)?;
    }
    write(&state.pipelock_config(), pipelock::config(plan, internal_cidr).as_bytes(), 0o644)?;
    if let Some(egress_plan) = &plan.egress {
        write(&state.egress_routes(), egress::routes(egress_plan).as_bytes(), 0o644)?;
    }
    if let Some(gate) = &plan.git_gate {
        let dir = state.service_dir(Service::GitGate);
        make_dir(&dir, 0o700)?;
        for script in git_gate::SCRIPTS {
            write(&dir.join(script.path), script.content.as_bytes(), if script.executable { 0o755 } else { 0o644 })?;
        }
        write(&dir.join("upstreams.json"), git_gate::upstreams(gate).as_bytes(), 0o644)?;
        write(&dir.join("known_hosts"), git_gate::known_hosts(gate).as_bytes(), 0o644)?;
    }
    if plan.supervise.is_some() {
        make_dir(&state.supervise_queue(), 0o700)?;
        make_dir(&state.supervise_decisions(), 0o700)?;
        // The agent is another user and may read it; the directory above keeps everybody else out.
        make_dir(&state.service_dir(Service::Agent), 0o700)?;
        make_dir(&state.current_config(), 0o755)?;
    }
    // Last: what the plan on disk says is what the files above say.
    Ok(bottle_supervise::lay_down(plan, state)?)
}

pub(super) fn egress_facts(launch: &Launch<'_>, images: &Images, authorities: &Authorities) -> Option<EgressFacts> {
    let authority = authorities.egress.as_ref()?;
    Some(EgressFacts {
        image: images.sidecars.get(&Service::Egress)?.clone(),
        routes: launch.state.egress_routes(),
        ca_combined: authority.combined.clone(),
        ca_cert: authority.certificate.clone(),
    })
}

pub(super) fn git_gate_facts(launch: &Launch<'_>, images: &Images) -> Option<GitGateFacts> {
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

pub(super) fn supervise_facts(launch: &Launch<'_>, images: &Images) -> Option<SuperviseFacts> {
    launch.plan.supervise.as_ref()?;
    Some(SuperviseFacts {
        image: images.sidecars.get(&Service::Supervise)?.clone(),
        queue: launch.state.supervise_queue(),
        decisions: launch.state.supervise_decisions(),
        current_config: launch.state.current_config(),
    })
}
