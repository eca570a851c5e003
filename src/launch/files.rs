//! Files of a bottle's state: the configuration of each sidecar.

use std::path::Path;

use bottle_files::PrivateDir;
use bottle_plan::Service;
use bottle_plan::value::Subnet;

use super::context::Launch;
use crate::launch_error::LaunchCause;

/// Writes the configuration of every sidecar that the plan has.
pub(super) fn write_configuration(launch: &Launch<'_>, internal_cidr: Option<Subnet>) -> Result<(), LaunchCause> {
    let (plan, state) = (&launch.plan, &launch.state);
    let certificates = launch.ready.inputs.upstream_ca.as_deref();
    for file in bottle_sidecars::configuration(plan, state, internal_cidr, certificates) {
        make_dir(file.path.parent().unwrap_or(state.dir()), 0o700)?;
        write(&file.path, file.content.as_bytes(), file.mode)?;
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

/// Creates a directory and its parents. An existing directory keeps its mode, and must belong to this user alone.
pub(super) fn make_dir(path: &Path, mode: u32) -> Result<(), LaunchCause> {
    PrivateDir::create_with_mode(path, mode)
        .map(drop)
        .map_err(|source| LaunchCause::Write { path: path.to_owned(), source })
}

/// Writes a file completely or not at all, with its mode from the start.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), LaunchCause> {
    bottle_files::write(path, content, mode).map_err(|source| LaunchCause::Write { path: path.to_owned(), source })
}
