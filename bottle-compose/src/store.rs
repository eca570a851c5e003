//! The store of a bottle whose engine does not see this host's files.

use std::path::{Path, PathBuf};

use bottle_plan::manifest::{SecretsMode, WorkspaceMode};
use bottle_plan::{BottlePlan, ResolvedPlan, StateLayout};

use crate::document::{ComposeFile, Mount, Service, VolumeMount};
use crate::sidecar::{
    NO_NEW_PRIVILEGES, RESTART, STOP_GRACE, bounded_logging, labels, local_image, memory_options, memory_volume,
};

/// Name of the service that keeps the files.
pub const STORE: &str = "store";
/// Directory of its volumes in its container.
const ROOT: &str = "/store";
/// Size in MiB of the volume that the services only read. The files of the fullest plan take 0.3.
const FILES_MIB: u32 = 16;
/// Size in MiB of a volume that a service writes.
const WRITABLE_MIB: u32 = 64;
/// Memory limit in bytes: the files count towards it.
const MEMORY: u64 = 64 << 20;
const PIDS: u32 = 16;

/// Returns what of a plan cannot hold on an engine that does not see this host's files: each key of the manifest, and the problem.
pub fn unstorable(plan: &BottlePlan) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    if matches!(plan.workspace.mode, WorkspaceMode::Bind | WorkspaceMode::BindRw) {
        let problem = "the engine does not see this host's directories; accepted: `copy` or `none`";
        problems.push((plan.bottle_key("workspace.mode"), problem.to_owned()));
    }
    let kept = "the engine would keep it on its disk, in the configuration of the container";
    if plan.secrets == SecretsMode::Environment {
        problems.push((plan.bottle_key("secrets"), format!("{kept}; accepted: `memory`")));
    }
    for wanted in plan.wanted_variables().into_iter().filter(|wanted| !wanted.is_credential) {
        let accepted = "accepted: a literal that is no secret, or a token that a route of `egress` injects";
        problems.push((wanted.key, format!("{kept}; {accepted}")));
    }
    if plan.agent.env_file.is_some() {
        problems
            .push((plan.bottle_key("env_file"), format!("{kept}; accepted: `env` with literals that are no secrets")));
    }
    problems
}

/// Replaces every mount of a host's file by one of the store's. The files of the bottle's state directory have the same paths
/// in the store.
///
/// One volume has what the services only read, and each mounts its own files of it alone. A directory that a service writes is a
/// volume of its own, so that it cannot fill the other one. All are in memory: nothing of them is on the engine's disk.
///
/// Returns the service and the path, as an error, if a service writes a path outside the state directory.
pub(crate) fn add_store(
    plan: &ResolvedPlan,
    layout: &StateLayout,
    file: &mut ComposeFile,
) -> Result<(), (String, String)> {
    let mut stored = Stored { layout, files: Vec::new(), volumes: vec![(StateLayout::STORED.to_owned(), FILES_MIB)] };
    for (name, service) in &mut file.services {
        for mount in &mut service.volumes {
            if let Mount::Bind(bind) = mount {
                let source = PathBuf::from(&bind.source);
                let moved = if bind.read_only {
                    VolumeMount {
                        source: StateLayout::STORED.to_owned(),
                        subpath: Some(stored.add(&source)),
                        target: bind.target.clone(),
                        read_only: true,
                        of_image: false,
                    }
                } else {
                    if layout.stored(&source).is_none() {
                        return Err((name.clone(), bind.source.clone()));
                    }
                    let target = bind.target.clone();
                    VolumeMount {
                        source: stored.add_writable(name, &source),
                        subpath: None,
                        target,
                        read_only: false,
                        of_image: false,
                    }
                };
                *mount = Mount::Volume(moved);
            }
        }
    }
    let bottle = plan.plan();
    let mounts = stored.volumes.iter().map(|(volume, _)| {
        let target = format!("{ROOT}/{volume}");
        Mount::Volume(VolumeMount { source: volume.clone(), subpath: None, target, read_only: false, of_image: false })
    });
    let service = Service {
        container_name: bottle.names.store(),
        command: vec![STORE.into()],
        user: Some(bottle.user.to_string()),
        network_mode: Some("none".into()),
        volumes: mounts.collect(),
        read_only: true,
        cap_drop: vec!["ALL".into()],
        security_opt: vec![NO_NEW_PRIVILEGES.into()],
        pids_limit: Some(PIDS),
        mem_limit: Some(MEMORY),
        memswap_limit: Some(MEMORY),
        stop_grace_period: Some(STOP_GRACE.into()),
        restart: Some(RESTART.into()),
        logging: Some(bounded_logging()),
        labels: labels(plan),
        ..local_image(&plan.launch().seal)
    };
    file.services.insert(0, (STORE.to_owned(), service));
    for (volume, mebibytes) in stored.volumes {
        // Git-gate's scripts are programs.
        let exec = if volume == StateLayout::STORED { "" } else { "noexec," };
        let options = format!("{exec}{}", memory_options(bottle.user, mebibytes));
        let on_engine = memory_volume(plan, &volume, &options);
        file.volumes.push((volume, on_engine));
    }
    file.stored = stored.files;
    Ok(())
}

/// The files of the store so far.
struct Stored<'a> {
    layout: &'a StateLayout,
    files: Vec<(PathBuf, String)>,
    volumes: Vec<(String, u32)>,
}

impl Stored<'_> {
    /// Adds a file and returns its path in the volume of the files.
    fn add(&mut self, source: &Path) -> String {
        let known = self.files.iter().find(|(known, _)| known == source).map(|(_, path)| path.clone());
        let path = known.unwrap_or_else(|| {
            let other = || format!("{}/other/{}", StateLayout::STORED, self.files.len());
            let path = self.layout.stored(source).unwrap_or_else(other);
            self.files.push((source.to_owned(), path.clone()));
            path
        });
        path.split_once('/').map(|(_, below)| below.to_owned()).unwrap_or(path)
    }

    /// Adds a directory that a service writes, and returns its volume.
    fn add_writable(&mut self, service: &str, source: &Path) -> String {
        let name = source.file_name().unwrap_or_default().to_string_lossy();
        let volume = format!("{service}-{name}");
        self.files.push((source.to_owned(), volume.clone()));
        self.volumes.push((volume.clone(), WRITABLE_MIB));
        volume
    }
}
