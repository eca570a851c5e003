//! Undo of one thing that was created.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use bottle_engine::{ComposeProject, ContainerState, Engine, EngineError, Filter, Object, ObjectKind, PROJECT_LABEL};
use bottle_exec::{Event, Observer};
use bottle_files::{PrivateDir, real_path};
use bottle_plan::{LabelKey, Names, Service};
use serde::{Deserialize, Serialize};

use crate::home::{Foreign, Home};

/// An undo of one thing that was created. It is data, so that another process can run it. Every undo can be repeated
/// without harm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Undo {
    /// Stops and removes every container, network and declared volume of a project. They are found by their labels.
    ComposeDown {
        /// Name of the project.
        project: String,
        /// Compose file of the project.
        compose_file: PathBuf,
        /// Project directory.
        project_dir: PathBuf,
    },
    /// Saves the logs of the services. It is recorded after the project, so that it runs before the project is removed.
    DumpLogs {
        /// Name of the project.
        project: String,
        /// Compose file of the project.
        compose_file: PathBuf,
        /// Project directory.
        project_dir: PathBuf,
        /// Path of the log file.
        log: PathBuf,
    },
    /// Removes a container, running or not.
    RemoveContainer {
        /// Name of the container.
        name: String,
    },
    /// Removes a network.
    RemoveNetwork {
        /// Name of the network.
        name: String,
    },
    /// Removes an image.
    RemoveImage {
        /// Tag of the image.
        tag: String,
    },
    /// Removes a volume.
    RemoveVolume {
        /// Name of the volume.
        name: String,
    },
    /// Removes files, and directories with their content.
    RemoveFiles {
        /// Paths inside the bottle's state directory, relative to it or absolute; others are refused.
        paths: Vec<PathBuf>,
    },
    /// Ends the use of a workspace that the agent could write: removes its mount point, and reports what a person should read.
    LeaveWorkspace {
        /// Path of the workspace.
        source: PathBuf,
    },
    /// Calls a registered handler.
    Extension {
        /// Name under which the handler is registered.
        handler: String,
        /// Data for the handler. It is written to disk, so it must not contain a secret.
        data: serde_json::Value,
    },
}

impl fmt::Display for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ComposeDown { project, .. } => write!(f, "take down project {project}"),
            Self::DumpLogs { log, .. } => write!(f, "save logs to {}", log.display()),
            Self::RemoveContainer { name } => write!(f, "remove container {name}"),
            Self::RemoveNetwork { name } => write!(f, "remove network {name}"),
            Self::RemoveImage { tag } => write!(f, "remove image {tag}"),
            Self::RemoveVolume { name } => write!(f, "remove volume {name}"),
            Self::RemoveFiles { paths } => match paths.as_slice() {
                [path] => write!(f, "remove {}", path.display()),
                paths => write!(f, "remove {} files", paths.len()),
            },
            Self::LeaveWorkspace { source } => write!(f, "leave workspace {}", source.display()),
            Self::Extension { handler, .. } => write!(f, "undo {handler}"),
        }
    }
}

impl Undo {
    /// Returns the undo of an object on the engine.
    pub(crate) fn of_object(kind: ObjectKind, name: String) -> Self {
        match kind {
            ObjectKind::Container => Self::RemoveContainer { name },
            ObjectKind::Network => Self::RemoveNetwork { name },
            ObjectKind::Volume => Self::RemoveVolume { name },
            ObjectKind::Image => Self::RemoveImage { tag: name },
        }
    }

    /// Returns the directories that contain keys or a copy of the workspace, relative to the bottle's state directory.
    pub fn key_dirs() -> Vec<PathBuf> {
        [Service::Pipelock, Service::Egress, Service::GitGate, Service::Agent].map(|it| it.as_str().into()).to_vec()
    }

    /// Returns true if a failed undo should be retried. Saving logs is not: the next undo removes their containers.
    pub(crate) const fn is_retried(&self) -> bool {
        !matches!(self, Self::DumpLogs { .. })
    }
}

/// Undoes what the library does not know, such as a deploy key that was registered at a forge.
pub trait UndoHandler: Send + Sync {
    /// Undoes what `data` describes. If it is already gone, the undo has succeeded. The data comes from a file: a handler
    /// undoes nothing that is not of the bottle with these names.
    ///
    /// # Errors
    ///
    /// Returns the reason as text, without a secret. The next teardown retries the undo.
    fn undo(&self, data: &serde_json::Value, engine: &Engine, bottle: &Names) -> Result<(), String>;
}

/// The handlers of [`Undo::Extension`], by name.
#[derive(Clone, Default)]
pub struct UndoHandlers(BTreeMap<String, Arc<dyn UndoHandler>>);

impl UndoHandlers {
    /// Adds a handler. A later handler replaces an earlier one of the same name.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, handler: Arc<dyn UndoHandler>) -> Self {
        self.0.insert(name.into(), handler);
        self
    }
}

impl fmt::Debug for UndoHandlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// An error of an undo.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UndoError {
    /// The engine reported an error.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A file could not be removed.
    #[error("remove `{}`", .path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// A file is outside the bottle's state directory.
    #[error("remove `{}`: it is outside the bottle's state directory", .path.display())]
    Outside {
        /// Path of the file.
        path: PathBuf,
    },
    /// A journal entry names something that is not this bottle's.
    #[error("undo an entry for `{found}`: it is not this bottle's; accepted: {accepted}")]
    Foreign {
        /// Name or path in the journal.
        found: String,
        /// Names or path that this bottle has.
        accepted: String,
    },
    /// An object has the bottle's name and belongs to another state root.
    #[error("remove {found}: {foreign}")]
    OtherHome {
        /// Name of the object.
        found: String,
        /// Its state root.
        foreign: Foreign,
    },
    /// No handler is registered under the name.
    #[error("undo `{handler}`: no handler of that name is registered")]
    NoHandler {
        /// Name of the handler.
        handler: String,
    },
    /// The handler failed.
    #[error("undo `{handler}`: {message}")]
    Handler {
        /// Name of the handler.
        handler: String,
        /// Message of the handler.
        message: String,
    },
}

/// Removes a directory, in which an agent may have taken every permission away.
fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        other => return other,
    }
    let mut closed = vec![path.to_owned()];
    while let Some(directory) = closed.pop() {
        fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                closed.push(entry.path());
            }
        }
    }
    fs::remove_dir_all(path)
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The origin of undos.
#[derive(Debug)]
pub(crate) enum Origin {
    /// The journal of a launch by this process.
    Launch,
    /// A journal on disk, which may have been changed. An object is removed only if it has the labels of the bottle.
    Disk(Home),
    /// Objects that were found by their labels.
    Labels,
}

/// The context of an undo.
pub(crate) struct Undoer<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) state_dir: Option<&'a Path>,
    pub(crate) names: &'a Names,
    pub(crate) origin: Origin,
    pub(crate) handlers: &'a UndoHandlers,
    /// Time that a container gets between SIGTERM and SIGKILL.
    pub(crate) grace: Duration,
    pub(crate) observer: &'a dyn Observer,
    /// True if the launch was complete, so that nothing is being created.
    pub(crate) was_up: bool,
    /// Objects of the project, if they are known before its undo.
    pub(crate) ahead: Mutex<Option<Found>>,
}

/// Names of what a project has. Its containers are stopped.
#[derive(Debug)]
pub(crate) struct Found {
    containers: Vec<String>,
    networks: Vec<String>,
    volumes: Vec<String>,
}

impl Undoer<'_> {
    /// Checks that an entry of a journal names nothing but this bottle's objects and files.
    pub(crate) fn check(&self, undo: &Undo) -> Result<(), UndoError> {
        if matches!(self.origin, Origin::Labels) {
            return Ok(());
        }
        let names = self.names;
        let project = names.project();
        let own = |found: &str, exact: &[String]| {
            // A slug has neither of these characters, so no other bottle of this prefix has such a name.
            let below = found.strip_prefix(&project).is_some_and(|rest| rest.starts_with(['.', '_']));
            if below || exact.iter().any(|name| name == found) {
                return Ok(());
            }
            let accepted = [exact, &[format!("{project}.*"), format!("{project}_*")]].concat().join("`, `");
            Err(UndoError::Foreign { found: found.to_owned(), accepted: format!("`{accepted}`") })
        };
        let at = |found: &Path, name: &str| {
            let wanted = self.state_dir.unwrap_or(Path::new("")).join(name);
            if found == wanted || real_path(found) == wanted {
                return Ok(());
            }
            let accepted = format!("`{}`", wanted.display());
            Err(UndoError::Foreign { found: found.display().to_string(), accepted })
        };
        let compose = |found: &str, compose_file: &Path, project_dir: &Path| {
            if found != project {
                return Err(UndoError::Foreign { found: found.to_owned(), accepted: format!("`{project}`") });
            }
            at(compose_file, "docker-compose.yml")?;
            at(&project_dir.join("docker-compose.yml"), "docker-compose.yml")
        };
        match undo {
            Undo::ComposeDown { project, compose_file, project_dir } => compose(project, compose_file, project_dir),
            Undo::DumpLogs { project, compose_file, project_dir, log } => {
                compose(project, compose_file, project_dir)?;
                at(log, "compose.log")
            }
            Undo::RemoveContainer { name } | Undo::RemoveVolume { name } => own(name, &[]),
            Undo::RemoveNetwork { name } => own(name, &[names.internal_network(), names.egress_network()]),
            Undo::RemoveImage { tag } => own(tag, &[names.derived_image()]),
            // Checked when they are removed. In a workspace, only an empty mount point is removed.
            Undo::RemoveFiles { .. } | Undo::LeaveWorkspace { .. } | Undo::Extension { .. } => Ok(()),
        }
    }

    pub(crate) fn undo(&self, undo: &Undo) -> Result<(), UndoError> {
        match undo {
            Undo::ComposeDown { project, .. } => self.take_down(project),
            Undo::DumpLogs { project, compose_file, project_dir, log } => {
                let project = ComposeProject::new(project, project_dir, compose_file);
                Ok(self.engine.compose(&project)?.logs_to(log)?)
            }
            Undo::RemoveContainer { name } => self.remove(ObjectKind::Container, name),
            Undo::RemoveNetwork { name } => self.remove(ObjectKind::Network, name),
            Undo::RemoveImage { tag } => self.remove(ObjectKind::Image, tag),
            Undo::RemoveVolume { name } => self.remove(ObjectKind::Volume, name),
            Undo::RemoveFiles { paths } => paths.iter().try_for_each(|path| self.remove_file(path)),
            Undo::LeaveWorkspace { source } => self.leave_workspace(source),
            Undo::Extension { handler, data } => {
                let Some(registered) = self.handlers.0.get(handler) else {
                    return Err(UndoError::NoHandler { handler: handler.clone() });
                };
                registered
                    .undo(data, self.engine, self.names)
                    .map_err(|message| UndoError::Handler { handler: handler.clone(), message })
            }
        }
    }

    /// Stops the containers of a project and lists what it has, for [`take_down`](Self::take_down).
    pub(crate) fn look_ahead(&self, project: &str) {
        // If it fails, the undo itself looks again and reports the error.
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = self.stop_and_list(project).ok();
    }

    /// Stops and removes the containers of a project, and then its networks and volumes at the same time. All are found by
    /// Compose's labels. A second look repeats what failed, and finds what a killed `create` still made.
    fn take_down(&self, project: &str) -> Result<(), UndoError> {
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take();
        let found = ahead.map_or_else(|| self.stop_and_list(project), Ok);
        match found.and_then(|found| self.remove_found(found)) {
            Ok(had_some) if !had_some || self.was_up => Ok(()),
            _ => self.stop_and_list(project).and_then(|found| self.remove_found(found)).map(drop),
        }
    }

    fn stop_and_list(&self, project: &str) -> Result<Found, UndoError> {
        let label = Filter::LabelValue(PROJECT_LABEL.to_owned(), project.to_owned());
        let list = |kind| {
            let found = self.engine.list(kind, &label)?.into_iter();
            Ok::<_, UndoError>(found.map(|object| object.name).collect::<Vec<_>>())
        };
        let (containers, networks, volumes) = thread::scope(|scope| {
            let networks = scope.spawn(|| list(ObjectKind::Network));
            let volumes = scope.spawn(|| list(ObjectKind::Volume));
            (self.stop(project), joined(networks), joined(volumes))
        });
        Ok(Found { containers: containers?, networks: networks?, volumes: volumes? })
    }

    /// Removes what was found. Returns false if that is nothing.
    fn remove_found(&self, found: Found) -> Result<bool, UndoError> {
        let Found { containers, networks, volumes } = found;
        let is_empty = containers.is_empty() && networks.is_empty() && volumes.is_empty();
        self.engine.remove_all(ObjectKind::Container, &containers)?;
        thread::scope(|scope| {
            let removals = networks.into_iter().map(|name| (ObjectKind::Network, vec![name]));
            let removals = removals.chain([(ObjectKind::Volume, volumes)]);
            let running: Vec<_> =
                removals.map(|(kind, names)| scope.spawn(move || self.engine.remove_all(kind, &names))).collect();
            running.into_iter().map(joined).collect::<Vec<_>>().into_iter().collect::<Result<(), _>>()
        })?;
        Ok(!is_empty)
    }

    /// Stops the containers of a project that run, and returns the names of all.
    pub(crate) fn stop(&self, project: &str) -> Result<Vec<String>, UndoError> {
        let label = Filter::LabelValue(PROJECT_LABEL.to_owned(), project.to_owned());
        let containers = self.engine.containers(&label)?;
        for (name, state) in &containers {
            let container = Object { kind: ObjectKind::Container, name: name.clone(), labels: state.labels.clone() };
            if let Origin::Disk(home) = &self.origin
                && !self.owns(home, &container)?
            {
                let accepted = format!("containers of project `{project}` with the labels of the bottle");
                return Err(UndoError::Foreign { found: container.name, accepted });
            }
        }
        let is_over = |state: &ContainerState| matches!(state.status.as_str(), "created" | "exited" | "dead");
        let running = containers.iter().filter(|(_, state)| !is_over(state)).map(|(name, _)| name.as_str());
        // One that cannot be stopped is killed when it is removed.
        drop(self.engine.stop(running, self.grace));
        Ok(containers.into_iter().map(|(name, _)| name).collect())
    }

    /// Removes an object. One that has the name of the bottle's object, but not its labels, is somebody else's and stays.
    fn remove(&self, kind: ObjectKind, name: &str) -> Result<(), UndoError> {
        if let Origin::Disk(home) = &self.origin {
            match self.engine.object(kind, name)? {
                Some(object) if self.owns(home, &object)? => {}
                _ => return Ok(()),
            }
        }
        Ok(self.engine.remove(kind, name).map(drop)?)
    }

    /// Returns true if the object has the labels of this bottle, and false if it is not a bottle's of this name. One of a
    /// bottle of this name under another state root is an error, because the bottle's own may have been moved.
    fn owns(&self, home: &Home, object: &Object) -> Result<bool, UndoError> {
        let slug = self.names.label(LabelKey::Slug);
        if object.labels.get(&slug).map(String::as_str) != Some(self.names.slug().as_str()) {
            return Ok(false);
        }
        match home.foreign([&object.labels]) {
            None => Ok(true),
            Some(foreign) => Err(UndoError::OtherHome { found: object.name.clone(), foreign }),
        }
    }

    fn leave_workspace(&self, source: &Path) -> Result<(), UndoError> {
        let Some(state_dir) = self.state_dir else { return Ok(()) };
        let failed = |error| UndoError::File { path: source.join(".git"), source: error };
        for message in bottle_workspace::leave(source, &state_dir.join(Service::Agent.as_str())).map_err(failed)? {
            self.observer.event(&Event::Warning { message });
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> Result<(), UndoError> {
        let outside = || UndoError::Outside { path: path.to_owned() };
        let state_dir = self.state_dir.ok_or_else(outside)?;
        let full = state_dir.join(path);
        let inner = full.strip_prefix(state_dir).map_err(|_| outside())?;
        let is_plain = |component: Component<'_>| matches!(component, Component::Normal(_));
        if inner.as_os_str().is_empty() || !inner.components().all(is_plain) {
            return Err(outside());
        }
        let failed = |source| UndoError::File { path: full.clone(), source };
        let dir = match PrivateDir::open_with_parent(state_dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(failed)?,
        };
        // A symbolic link among the directories could lead outside.
        for parent in inner.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            if fs::symlink_metadata(dir.path().join(parent)).is_ok_and(|metadata| metadata.is_symlink()) {
                return Err(outside());
            }
        }
        let real = dir.path().join(inner);
        let removed = match fs::symlink_metadata(&real) {
            Ok(metadata) if metadata.is_dir() => remove_tree(&real),
            Ok(_) => fs::remove_file(&real),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(failed),
        }
    }
}
