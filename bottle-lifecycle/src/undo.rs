//! Undoing one thing that was made.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bottle_exec::engine::{ComposeProject, Engine, EngineError, Filter, ObjectKind, PROJECT_LABEL};
use bottle_plan::{Service, StateLayout};
use serde::{Deserialize, Serialize};

/// How one thing that was made is undone. Data, so that another process can do it. Each can be done again harmlessly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Undo {
    /// Stop and remove every container, network and declared volume of a project; by label where the document is lost or
    /// Compose fails.
    ComposeDown {
        /// The project.
        project: String,
        /// Its document.
        compose_file: PathBuf,
        /// Its directory.
        project_dir: PathBuf,
    },
    /// Save what the services printed. Recorded after the project, so that it is done before.
    DumpLogs {
        /// The project.
        project: String,
        /// Its document.
        compose_file: PathBuf,
        /// Its directory.
        project_dir: PathBuf,
        /// Where it is saved.
        log: PathBuf,
    },
    /// Remove a container, running or not.
    RemoveContainer {
        /// Its name.
        name: String,
    },
    /// Remove a network.
    RemoveNetwork {
        /// Its name.
        name: String,
    },
    /// Remove an image.
    RemoveImage {
        /// Its tag.
        tag: String,
    },
    /// Remove a volume.
    RemoveVolume {
        /// Its name.
        name: String,
    },
    /// Remove files, and directories with everything in them.
    RemoveFiles {
        /// Paths inside the bottle's state directory, relative to it or absolute; others are refused.
        paths: Vec<PathBuf>,
    },
    /// What somebody else made.
    Extension {
        /// The name under which the handler is registered.
        handler: String,
        /// What the handler needs to know. It is written to disk: no secret.
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
            Self::Extension { handler, .. } => write!(f, "undo {handler}"),
        }
    }
}

impl Undo {
    /// How a thing found on the engine is undone.
    pub(crate) fn of_object(kind: ObjectKind, name: String) -> Self {
        match kind {
            ObjectKind::Container => Self::RemoveContainer { name },
            ObjectKind::Network => Self::RemoveNetwork { name },
            ObjectKind::Volume => Self::RemoveVolume { name },
            ObjectKind::Image => Self::RemoveImage { tag: name },
        }
    }

    /// The directories of a bottle's state that hold keys or a copy of the workspace.
    pub fn key_dirs(layout: &StateLayout) -> Vec<PathBuf> {
        [Service::Pipelock, Service::Egress, Service::GitGate, Service::Agent].map(|it| layout.service_dir(it)).to_vec()
    }

    /// Whether it is worth another try when it failed. The logs are not: what would have printed them is gone next.
    pub(crate) const fn is_retried(&self) -> bool {
        !matches!(self, Self::DumpLogs { .. })
    }
}

/// Undoes what the library knows nothing of, such as a deploy key that was registered somewhere.
pub trait UndoHandler: Send + Sync {
    /// Undoes what `data` describes. What is gone already counts as done.
    ///
    /// # Errors
    ///
    /// Why it could not be undone, in words and without a secret; it is tried again at the next teardown.
    fn undo(&self, data: &serde_json::Value, engine: &Engine) -> Result<(), String>;
}

/// The handlers of [`Undo::Extension`], by name.
#[derive(Clone, Default)]
pub struct UndoHandlers(BTreeMap<String, Arc<dyn UndoHandler>>);

impl UndoHandlers {
    /// Adds a handler; the last one of a name counts.
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

/// Why something could not be undone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UndoError {
    /// The engine did not do it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A file could not be removed.
    #[error("remove `{}`", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not the bottle's to remove.
    #[error("remove `{}`: it is outside the bottle's state directory", .path.display())]
    Outside {
        /// The file.
        path: PathBuf,
    },
    /// Nobody is registered for it.
    #[error("undo `{handler}`: no handler of that name is registered")]
    NoHandler {
        /// The name that was looked for.
        handler: String,
    },
    /// The handler could not do it.
    #[error("undo `{handler}`: {message}")]
    Handler {
        /// The handler.
        handler: String,
        /// What it says.
        message: String,
    },
}

/// What undoing needs beside the entry itself.
#[derive(Debug)]
pub(crate) struct Undoer<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) state_dir: Option<&'a Path>,
    pub(crate) handlers: &'a UndoHandlers,
    /// How long a container is given between SIGTERM and SIGKILL.
    pub(crate) grace: Duration,
}

impl Undoer<'_> {
    pub(crate) fn undo(&self, undo: &Undo) -> Result<(), UndoError> {
        match undo {
            Undo::ComposeDown { project, compose_file, project_dir } => {
                self.compose_down(&ComposeProject::new(project, project_dir, compose_file))
            }
            Undo::DumpLogs { project, compose_file, project_dir, log } => {
                let project = ComposeProject::new(project, project_dir, compose_file);
                Ok(self.engine.compose(&project)?.logs_to(log)?)
            }
            Undo::RemoveContainer { name } => self.remove(ObjectKind::Container, name),
            Undo::RemoveNetwork { name } => self.remove(ObjectKind::Network, name),
            Undo::RemoveImage { tag } => self.remove(ObjectKind::Image, tag),
            Undo::RemoveVolume { name } => self.remove(ObjectKind::Volume, name),
            Undo::RemoveFiles { paths } => paths.iter().try_for_each(|path| self.remove_file(path)),
            Undo::Extension { handler, data } => {
                let Some(registered) = self.handlers.0.get(handler) else {
                    return Err(UndoError::NoHandler { handler: handler.clone() });
                };
                registered
                    .undo(data, self.engine)
                    .map_err(|message| UndoError::Handler { handler: handler.clone(), message })
            }
        }
    }

    /// Takes a project down, then removes what is left of it: a document can be lost or spoilt, Compose can fail half-way,
    /// and an `up` that was killed can have asked for one more container.
    fn compose_down(&self, project: &ComposeProject) -> Result<(), UndoError> {
        let down = if fs::exists(&project.file).unwrap_or(false) {
            self.engine.compose(project).and_then(|compose| compose.down(self.grace))
        } else {
            Ok(())
        };
        let label = Filter::LabelValue(PROJECT_LABEL.to_owned(), project.name.clone());
        for kind in [ObjectKind::Container, ObjectKind::Network, ObjectKind::Volume] {
            for object in self.engine.list(kind, &label)? {
                self.engine.remove(kind, &object.name)?;
            }
        }
        // Nothing is left, so that Compose failed is not worth telling.
        drop(down);
        Ok(())
    }

    fn remove(&self, kind: ObjectKind, name: &str) -> Result<(), UndoError> {
        Ok(self.engine.remove(kind, name).map(drop)?)
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
        // A link among the directories would lead out again.
        for parent in inner.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            if fs::symlink_metadata(state_dir.join(parent)).is_ok_and(|metadata| metadata.is_symlink()) {
                return Err(outside());
            }
        }
        let removed = match fs::symlink_metadata(&full) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&full),
            Ok(_) => fs::remove_file(&full),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|source| UndoError::File { path: full, source }),
        }
    }
}
