//! Files of a bottle's state: the configuration of each sidecar.

use std::path::{Path, PathBuf};

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

/// Writes the filter of system calls for Podman, which is made from Podman's own, and returns its path.
pub(super) fn write_seccomp(launch: &Launch<'_>, profile: &Path) -> Result<PathBuf, LaunchCause> {
    let read = std::fs::read_to_string(profile).map_err(|error| error.to_string());
    let tightened = read.and_then(|text| bottle_compose::podman::seccomp(&text)).map_err(|problem| {
        LaunchCause::Unusable { what: "Podman's filter of system calls".into(), path: profile.to_owned(), problem }
    })?;
    let directory = launch.state.service_dir(Service::Agent);
    make_dir(&directory, 0o700)?;
    let path = directory.join("seccomp.json");
    write(&path, tightened.as_bytes(), 0o600)?;
    Ok(path)
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
