//! The state root of a bottle, according to the labels of its objects.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use bottle_engine::{Engine, EngineError, Filter, Object, ObjectKind, PROJECT_LABEL};
use bottle_files::real_path;
use bottle_plan::digest::sha256;
use bottle_plan::{LabelKey, Names, Prefix, StateRoot};
use serde::Serialize;

/// The label in which Compose keeps a container's project directory, which is the bottle's state directory.
const DIRECTORY_LABEL: &str = "com.docker.compose.project.working_dir";

/// Returns the value of the label `<prefix>.state` on an engine of this host: the first 16 hexadecimal digits of the SHA-256 of
/// the root's real path. Every spelling of the path gives the same value. If the root does not exist, the existing part of its
/// path is resolved.
pub fn root_id(root: &StateRoot) -> String {
    identify(root, &[])
}

/// Returns the same for any engine. To one of another host, many hosts may launch: there this host's id and name are part of it, so
/// that the same path of two hosts is two roots.
pub fn root_id_on(engine: &Engine, root: &StateRoot) -> String {
    let files: &[&str] =
        if engine.info().endpoint.is_local { &[] } else { &["/etc/machine-id", "/proc/sys/kernel/hostname"] };
    identify(root, files)
}

fn identify(root: &StateRoot, files: &[&str]) -> String {
    let mut identity = real_path(root.path()).as_os_str().as_encoded_bytes().to_vec();
    for file in files {
        identity.push(0);
        identity.extend(fs::read(file).unwrap_or_default());
    }
    let mut digest = sha256(identity);
    digest.truncate(16);
    digest
}

/// The reason why an object on the engine does not belong to the state root in use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Foreign {
    /// It belongs to a bottle under another state root.
    OtherRoot {
        /// The bottle's state directory, if a container has it as a label.
        directory: Option<PathBuf>,
    },
    /// No label identifies its state root.
    NoRoot,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherRoot { directory: Some(directory) } => {
                write!(f, "it belongs to another state root; its state is in `{}`", directory.display())
            }
            Self::OtherRoot { directory: None } => f.write_str("it belongs to another state root"),
            Self::NoRoot => f.write_str("no label tells its state root"),
        }
    }
}

/// The state root in use and its prefix.
#[derive(Debug)]
pub(crate) struct Home {
    id: String,
    label: String,
    is_local: bool,
}

impl Home {
    pub(crate) fn new(engine: &Engine, root: &StateRoot, prefix: &Prefix) -> Self {
        let (id, label) = (root_id_on(engine, root), LabelKey::State.under(prefix));
        Self { id, label, is_local: engine.info().endpoint.is_local }
    }

    /// Returns the state label of an object. It distinguishes the objects of this state root from those of another one.
    pub(crate) fn id_of<'a>(&self, labels: &'a BTreeMap<String, String>) -> Option<&'a str> {
        labels.get(&self.label).map(String::as_str)
    }

    /// Returns the reason why the objects of one bottle, which have the same state label, do not belong to this root. A
    /// bottle whose state directory is gone can be used and removed from any root.
    pub(crate) fn foreign<'a>(
        &self,
        objects: impl IntoIterator<Item = &'a BTreeMap<String, String>>,
    ) -> Option<Foreign> {
        let mut directory = None;
        for labels in objects {
            match self.id_of(labels) {
                Some(id) if id == self.id => return None,
                Some(_) => directory = directory.or_else(|| labels.get(DIRECTORY_LABEL).map(PathBuf::from)),
                None => return Some(Foreign::NoRoot),
            }
        }
        let is_gone = |directory: &PathBuf| self.is_local && !fs::exists(directory).unwrap_or(true);
        if directory.as_ref().is_some_and(is_gone) { None } else { Some(Foreign::OtherRoot { directory }) }
    }

    /// Returns the bottle's objects on the engine, in the order of removal, and the reason why others were left out.
    pub(crate) fn objects_of(&self, engine: &Engine, names: &Names) -> Result<Found, EngineError> {
        let by_slug = Filter::LabelValue(LabelKey::Slug.under(names.prefix()), names.slug().to_string());
        // Volumes that Compose creates have only Compose's own labels.
        let by_project = Filter::LabelValue(PROJECT_LABEL.to_owned(), names.project());
        let mut objects: Vec<Object> = Vec::new();
        for kind in ObjectKind::IN_ORDER_OF_REMOVAL {
            let mut of_kind: BTreeMap<String, Object> = BTreeMap::new();
            for filter in [&by_slug, &by_project] {
                of_kind.extend(engine.list(kind, filter)?.into_iter().map(|object| (object.name.clone(), object)));
            }
            objects.extend(of_kind.into_values());
        }
        let slug_label = LabelKey::Slug.under(names.prefix());
        let mut roots: BTreeMap<Option<&str>, Vec<&BTreeMap<String, String>>> = BTreeMap::new();
        for object in objects.iter().filter(|object| object.labels.contains_key(&slug_label)) {
            roots.entry(self.id_of(&object.labels)).or_default().push(&object.labels);
        }
        let foreign: BTreeMap<Option<String>, Foreign> =
            roots.into_iter().filter_map(|(id, labels)| Some((id.map(str::to_owned), self.foreign(labels)?))).collect();
        objects.retain(|object| {
            if object.labels.contains_key(&slug_label) {
                !foreign.contains_key(&self.id_of(&object.labels).map(str::to_owned))
            } else {
                // If another state root has objects too, the owner of this one cannot be determined.
                foreign.is_empty()
            }
        });
        Ok(Found { own: objects, foreign: foreign.into_values().next() })
    }
}

/// The objects of one bottle on the engine.
#[derive(Debug)]
pub(crate) struct Found {
    /// Objects that this state root may use and remove.
    pub(crate) own: Vec<Object>,
    /// Reason why other objects were left out.
    pub(crate) foreign: Option<Foreign>,
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use bottle_engine::EngineChoice;
    use bottle_exec::{Answer, Control, Matcher, RecordingBackend};

    use super::*;

    #[test]
    fn every_spelling_of_a_root_has_one_id_before_and_after_it_exists() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        symlink(&base, base.join("link")).unwrap();
        std::fs::create_dir(base.join("dir")).unwrap();
        let spellings = ["state", "./state", "dir/../state", "link/state", "state/", "state/."];
        let ids = || spellings.map(|spelling| root_id(&StateRoot::at(base.join(spelling))));
        let before = ids();
        assert_eq!(before[0].len(), 16);
        std::fs::create_dir(base.join("state")).unwrap();
        for (spelling, id) in spellings.into_iter().zip(ids()) {
            assert_eq!(id, before[0], "{spelling}");
        }
        assert_eq!(before[3], before[0], "a link above a root that does not exist yet");
        assert_ne!(root_id(&StateRoot::at(base.join("state2"))), before[0]);
        // The label of a bottle on another host's engine also tells the hosts apart that launch there.
        let root = StateRoot::at(base.join("state"));
        let on = |address: &str| {
            let backend = RecordingBackend::new()
                .with_answer(
                    Matcher::prefix(["version"]),
                    Answer::stdout(r#"{"Client":{"ApiVersion":"1.51"},"Server":{}}"#),
                )
                .with_answer(Matcher::prefix(["info"]), Answer::stdout(r#"{"ServerVersion":"28.3.0"}"#))
                .with_default(Answer::stdout(address));
            root_id_on(&Engine::detect(Arc::new(backend), &EngineChoice::Auto, Control::default()).unwrap(), &root)
        };
        assert_eq!(on("unix:///run/docker.sock"), before[0]);
        assert_ne!(on("ssh://host.example.com"), before[0]);
        assert_eq!(on("ssh://host.example.com"), on("tcp://192.0.2.1:2376 verified"));
    }
}
