//! Files of a bottle's state: the configuration of each sidecar.

use std::path::PathBuf;

use bottle_plan::value::Subnet;
use bottle_plan::{Service, StateLayout};
use bottle_sidecars::{egress, git_gate, pipelock};

use super::context::Launch;
use super::write::{make_dir, write};
use crate::launch_error::LaunchCause;

pub(super) fn upstream_ca(state: &StateLayout) -> PathBuf {
    state.service_dir(Service::Pipelock).join("upstream-ca.pem")
}

/// Writes the configuration of every sidecar that the plan has.
pub(super) fn write_configuration(launch: &Launch<'_>, internal_cidr: Option<Subnet>) -> Result<(), LaunchCause> {
    let (plan, state) = (&launch.plan, &launch.state);
    if let Some(certificates) = &launch.ready.inputs.upstream_ca {
        write(&upstream_ca(state), certificates.as_bytes(), 0o644)?;
    }
    write(&state.pipelock_config(), pipelock::config(plan, internal_cidr).as_bytes(), 0o644)?;
    if plan.egress.is_some() {
        write(&state.egress_routes(), egress::routes(plan).as_bytes(), 0o644)?;
    }
    if let Some(gate) = &plan.git_gate {
        let dir = state.service_dir(Service::GitGate);
        make_dir(&dir, 0o700)?;
        for script in git_gate::SCRIPTS {
            let path = dir.join(script.path);
            make_dir(path.parent().unwrap_or(&dir), 0o700)?;
            write(&path, script.content.as_bytes(), if script.executable { 0o755 } else { 0o644 })?;
        }
        write(&dir.join("upstreams.json"), git_gate::upstreams(gate).as_bytes(), 0o644)?;
        write(&dir.join("known_hosts"), git_gate::known_hosts(gate).as_bytes(), 0o644)?;
    }
    if plan.supervise.is_some() {
        make_dir(&state.supervise_queue(), 0o700)?;
        make_dir(&state.supervise_decisions(), 0o700)?;
        // The agent, as another user, may read it. The parent directory's mode keeps other users out.
        make_dir(&state.service_dir(Service::Agent), 0o700)?;
        make_dir(&state.current_config(), 0o755)?;
    }
    // Last, so that a plan on disk means that the files above match it.
    Ok(bottle_supervise::write_launched_plan(plan, state)?)
}
