//! Images: those built from embedded contexts, and the derived image with the workspace.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bottle_engine::{Build, BuildContext as EngineContext, BuildProgress, Exec, ObjectKind};
use bottle_exec::{Event, Stdin, step};
use bottle_files::{FileLock, NewFile, PrivateDir, place_directory};
use bottle_plan::manifest::WorkspaceMode;
use bottle_plan::resolved::{BuildFacts, BuiltImage, WorkspaceMount};
use bottle_plan::value::ImageRef;
use bottle_plan::{LabelKey, Service, UserIds};
use bottle_sidecars::{BuildContext, ContextFile, agent, egress, git_gate, seal, supervise};
use bottle_workspace as workspace;

use super::context::{Launch, both};
use super::files::make_dir;
use crate::launch_error::LaunchCause;
use crate::lifecycle::Undo;

/// The images of a bottle.
pub(super) struct Images {
    /// Image of the agent: the derived image, or its base if no workspace is copied.
    pub(super) agent: ImageRef,
    /// Paths that it declares with `VOLUME`.
    pub(super) agent_volumes: Vec<String>,
    /// Mounts inside a workspace that the agent may write.
    pub(super) workspace_mounts: Vec<WorkspaceMount>,
    /// Image of the seal.
    pub(super) seal: BuiltImage,
    /// The built or ready image of each sidecar that the plan has.
    pub(super) sidecars: BTreeMap<Service, BuiltImage>,
}

pub(super) fn build(launch: &Launch<'_>) -> Result<Images, LaunchCause> {
    let plan = &launch.plan;
    let args = BTreeMap::from([("BASE".to_owned(), plan.images.base.to_string())]);
    let base = Own::new(launch, Service::Agent, &agent::CONTEXT, agent::build_args(plan));
    let seal = Own::new(launch, Service::Seal, &seal::CONTEXT, args.clone());
    let others = [
        (Service::Egress, plan.egress.is_some(), &egress::CONTEXT),
        (Service::GitGate, plan.git_gate.is_some(), &git_gate::CONTEXT),
        (Service::Supervise, plan.supervise.is_some(), &supervise::CONTEXT),
    ];
    let others = others.into_iter().filter(|(_, is_wanted, _)| *is_wanted);
    let others: Vec<_> = others.map(|(service, _, context)| Own::new(launch, service, context, args.clone())).collect();
    build_missing(launch, [&base, &seal].into_iter().chain(&others))?;
    let base = base.facts(launch)?;
    let sidecars = others.into_iter().map(|own| Ok((own.service, own.facts(launch)?)));
    let sidecars = sidecars.collect::<Result<_, LaunchCause>>()?;
    let agent = match plan.workspace.mode {
        WorkspaceMode::Copy => derive(launch, &base.reference)?,
        WorkspaceMode::Bind | WorkspaceMode::BindRw | WorkspaceMode::None => base.reference,
    };
    let described = launch.engine().inspect(ObjectKind::Image, agent.as_str())?.unwrap_or_default();
    let (what, path) = ("the agent's image".into(), agent.as_str().into());
    let agent_volumes = agent::volumes(&described, plan.workspace.target.as_str())
        .map_err(|problem| LaunchCause::Unusable { what, path, problem })?;
    Ok(Images { agent, agent_volumes, workspace_mounts: protect(launch)?, seal: seal.facts(launch)?, sidecars })
}

/// Keeps the host's git and editors from the commands of an agent that may write the workspace.
fn protect(launch: &Launch<'_>) -> Result<Vec<WorkspaceMount>, LaunchCause> {
    let workspace = &launch.plan.workspace;
    if workspace.mode != WorkspaceMode::BindRw {
        return Ok(Vec::new());
    }
    let dir = launch.state.service_dir(Service::Agent);
    make_dir(&dir, 0o700)?;
    launch.guard.record(Undo::LeaveWorkspace { source: workspace.source.clone() })?;
    let user = launch.bottles.host.user_git();
    Ok(workspace::protect(workspace, launch.plan.agent_user(), &dir, &user)?)
}

/// Keeps a prune of this state root away from the images for as long as the lock is held.
pub(super) fn share(launch: &Launch<'_>) -> Result<FileLock, LaunchCause> {
    let path = launch.bottles.state_root.images_lock();
    make_dir(path.parent().unwrap_or(&path), 0o700)?;
    FileLock::share(&path).map_err(|source| LaunchCause::Write { path, source })
}

/// An image that is built from a context, unless the plan names a ready one. Its tag is the hash of the context, so all
/// bottles share it.
struct Own {
    service: Service,
    context: &'static BuildContext,
    args: BTreeMap<String, String>,
    tag: String,
    dir: PathBuf,
}

impl Own {
    fn new(
        launch: &Launch<'_>,
        service: Service,
        context: &'static BuildContext,
        args: BTreeMap<String, String>,
    ) -> Self {
        let hash = context.content_hash(&args);
        let tag = launch.plan.names.built_image(context.name, &hash);
        Self { service, context, args, tag, dir: launch.bottles.state_root.image_context(context.name, &hash) }
    }

    fn facts(self, launch: &Launch<'_>) -> Result<BuiltImage, LaunchCause> {
        if let Some(ready) = launch.plan.images.ready.get(&self.service) {
            return Ok(BuiltImage { reference: ready.clone(), build: None });
        }
        let build = Some(BuildFacts { context: self.dir, args: self.args });
        Ok(BuiltImage { reference: parse_reference(&self.tag)?, build })
    }

    fn build(&self, launch: &Launch<'_>) -> Result<(), LaunchCause> {
        let name = format!("build image {}", self.tag);
        // Without the lock, simultaneous launches would each build the same image.
        let _lock = lock(launch, &self.dir.with_extension("lock"), &name)?;
        if launch.engine().exists(ObjectKind::Image, &self.tag)? {
            return Ok(());
        }
        step(&*launch.bottles.observer, &name, || {
            let mut build = Build::new(&self.tag, EngineContext::Directory(self.dir.clone()));
            let label = LabelKey::Context.under(launch.plan.names.prefix());
            build.labels = BTreeMap::from([(label, self.context.content_hash(&BTreeMap::new()))]);
            build.args = self.args.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            let (observer, step) = (Arc::clone(&launch.bottles.observer), name.clone());
            Ok(launch.engine().build_reporting(&build, move |BuildProgress { done, total, line }| {
                observer.event(&Event::Progress { step: step.clone(), done, total, line });
            })?)
        })
    }
}

/// Builds the images that the engine does not have, two at a time.
fn build_missing<'a>(launch: &Launch<'_>, images: impl Iterator<Item = &'a Own>) -> Result<(), LaunchCause> {
    let own: Vec<&Own> = images.filter(|own| !launch.plan.images.ready.contains_key(&own.service)).collect();
    own.iter().try_for_each(|own| write_context(own.context, &own.dir))?;
    let tags: Vec<&str> = own.iter().map(|own| own.tag.as_str()).collect();
    let found = launch.engine().images_named(&tags)?;
    let missing = Mutex::new(own.into_iter().filter(|own| found.iter().all(|image| !image.tags.contains(&own.tag))));
    let next = || missing.lock().unwrap_or_else(PoisonError::into_inner).next();
    let build = || std::iter::from_fn(next).try_for_each(|own| own.build(launch));
    both(build, build).map(drop)
}

/// Parses a derived image name. It is invalid only if the caller's prefix is.
fn parse_reference(tag: &str) -> Result<ImageRef, LaunchCause> {
    tag.parse().map_err(|error: bottle_plan::NameError| LaunchCause::Unusable {
        what: "the image's name".into(),
        path: tag.into(),
        problem: error.to_string(),
    })
}

/// Writes a build context to its directory, completely or not at all.
fn write_context(context: &BuildContext, dir: &Path) -> Result<(), LaunchCause> {
    let failed = |source| LaunchCause::Write { path: dir.to_owned(), source };
    make_dir(dir.parent().unwrap_or(dir), 0o700)?;
    match PrivateDir::open(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other.map(drop).map_err(failed),
    }
    let mode = |file: &ContextFile| if file.executable { 0o755 } else { 0o644 };
    let files = context.files.iter().map(|file| (file.path, file.content.as_bytes(), mode(file)));
    place_directory(dir, files).map_err(failed)
}

/// Waits for a lock file until the launch is cancelled. It says every second that it waits.
fn lock(launch: &Launch<'_>, path: &Path, step: &str) -> Result<FileLock, LaunchCause> {
    let (began, mut told) = (Instant::now(), None::<Instant>);
    let lock = FileLock::wait_unless(path, || {
        if told.is_none_or(|told| told.elapsed() >= Duration::from_secs(1)) {
            told = Some(Instant::now());
            let line = format!("waits for another launch that builds it, since {} s", began.elapsed().as_secs());
            launch.bottles.observer.event(&Event::Progress { step: step.to_owned(), done: None, total: None, line });
        }
        launch.bottles.cancel.is_cancelled()
    });
    lock.map_err(|source| LaunchCause::Write { path: path.to_owned(), source })?.ok_or(LaunchCause::Cancelled)
}

/// Creates the derived image: the base with a copy of the workspace.
///
/// It is committed from a container that is never started. A build would leave a copy of the workspace in the builder's
/// cache without a label of the bottle, and would take five times as long.
fn derive(launch: &Launch<'_>, base: &ImageRef) -> Result<ImageRef, LaunchCause> {
    let names = &launch.plan.names;
    let tag = names.derived_image();
    let owner = owner(launch, base)?;
    let tar = pack(launch, owner)?;
    // A slug contains no dot, so no other container has this name.
    let container = format!("{}.workspace", names.project());
    let labels = [
        (LabelKey::Slug, names.slug().to_string()),
        (LabelKey::Owner, launch.owner.to_string()),
        (LabelKey::State, launch.root_id.clone()),
    ];
    let labels = labels.into_iter().map(|(key, value)| (names.label(key), value)).collect();
    launch.guard.record(Undo::RemoveImage { tag: tag.clone() })?;
    let making = Undo::RemoveContainer { name: container.clone() };
    launch.guard.record(making.clone())?;
    step(&*launch.bottles.observer, &format!("build image {tag}"), || -> Result<(), LaunchCause> {
        let engine = launch.engine();
        engine.create_container(&container, base.as_str(), &labels)?;
        engine.cp_into_created(&container, "/", Stdin::File(tar))?;
        engine.commit_container(&container, &tag)?;
        engine.remove(ObjectKind::Container, &container)?;
        Ok(())
    })?;
    launch.guard.file().mark_done(&making)?;
    parse_reference(&tag)
}

/// Returns the owner of the workspace's files: the known user of a built image, or the result of `id` in a ready one.
fn owner(launch: &Launch<'_>, image: &ImageRef) -> Result<UserIds, LaunchCause> {
    if !launch.plan.images.ready.contains_key(&Service::Agent) {
        return Ok(launch.plan.agent_user());
    }
    let script = format!("id -u {0} && id -g {0}", agent::USER);
    let output = launch.engine().run_once(image.as_str(), &Exec::new(["sh", "-c", &script]))?;
    let text = output.stdout.text();
    let mut numbers = text.lines().map(|line| line.trim().parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(uid), Some(gid)) if output.status.is_success() => Ok(UserIds { uid, gid }),
        _ => Err(LaunchCause::Unusable {
            what: "the agent's image".into(),
            path: image.as_str().into(),
            problem: format!("has no user `{}`: {}", agent::USER, output.stderr.last_lines(3)),
        }),
    }
}

fn pack(launch: &Launch<'_>, owner: UserIds) -> Result<PathBuf, LaunchCause> {
    let dir = launch.state.service_dir(Service::Agent);
    make_dir(&dir, 0o700)?;
    let path = dir.join(workspace::PACKED);
    step(&*launch.bottles.observer, "pack the workspace", || -> Result<(), LaunchCause> {
        let failed = |source| LaunchCause::Write { path: path.clone(), source };
        let mut file = NewFile::create(&path, 0o600).map_err(failed)?;
        let packed = workspace::pack(&launch.plan.workspace, owner, io::BufWriter::new(&mut file))?;
        file.replace().map_err(failed)?;
        let message = format!("the workspace has {} files, {} KiB", packed.files, packed.bytes.div_ceil(1024));
        launch.bottles.observer.event(&Event::Note { message });
        if let Some(message) = packed.skipped.warning() {
            launch.bottles.observer.event(&Event::Warning { message });
        }
        if let Some(message) = packed.left_out() {
            launch.bottles.observer.event(&Event::Note { message });
        }
        Ok(())
    })?;
    Ok(path)
}
