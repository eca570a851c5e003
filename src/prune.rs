//! Removal of cached images and state that nothing uses anymore.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bottle_engine::{EngineError, Filter, ObjectKind};
use bottle_exec::chain;
use bottle_files::{FileLock, PrivateDir};
use bottle_plan::{LabelKey, Slug};
use bottle_sidecars::{BuildContext, agent, egress, git_gate, seal, supervise};
use serde::Serialize;

use crate::Bottles;
use crate::lifecycle::{BottleLock, JournalError, JournalFile, Owner, Status};

/// The contexts from which this version builds images.
const CONTEXTS: [&BuildContext; 5] =
    [&agent::CONTEXT, &egress::CONTEXT, &git_gate::CONTEXT, &supervise::CONTEXT, &seal::CONTEXT];

/// The result of [`Bottles::prune`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
#[must_use = "a prune that failed in part leaves something behind"]
pub struct PruneReport {
    /// Tags of images that were built by another version and that no container uses.
    pub images: Vec<Pruned>,
    /// State directories of bottles of which nothing else is left, with their logs.
    pub states: Vec<Pruned>,
    /// Objects that could not be removed, each with the reason.
    pub problems: Vec<String>,
}

/// One image or directory that was removed, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Pruned {
    /// Tag of the image, or path of the directory.
    pub name: String,
    /// Size in bytes. That of an image includes layers that other images share, so less may become free.
    pub bytes: u64,
}

impl Bottles {
    /// Removes cached images and state that nothing uses: images of sidecars, agent and seal that another version of this
    /// library built, and the state directories, with logs and plans, of bottles that are closed.
    ///
    /// Only images under this prefix that carry the label `<prefix>.context` are considered. An image stays if this version
    /// would use it, or if a container of any state root uses it or an image made from it. Launches under the same state
    /// root are waited for. What a dead launcher left behind is for [`recover`](Bottles::recover).
    ///
    /// # Errors
    ///
    /// Returns an error if the engine cannot be queried. What could not be removed is in the report.
    pub fn prune(&self) -> Result<PruneReport, EngineError> {
        self.prune_with(true)
    }

    /// Returns what [`prune`](Bottles::prune) would remove now, and removes nothing.
    ///
    /// # Errors
    ///
    /// As [`prune`](Bottles::prune).
    pub fn prunable(&self) -> Result<PruneReport, EngineError> {
        self.prune_with(false)
    }

    fn prune_with(&self, remove: bool) -> Result<PruneReport, EngineError> {
        let mut report = PruneReport::default();
        let path = self.state_root.images_lock();
        // Without this directory nothing was launched here, so there is nobody to wait for.
        let is_used = match PrivateDir::open_with_parent(path.parent().unwrap_or(&path)) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                report.problems.push(error.to_string());
                return Ok(report);
            }
        };
        self.prune_states(remove, &mut report);
        let mut lock = None;
        if remove && is_used {
            lock = match FileLock::wait_unless(&path, || self.cancel.is_cancelled()) {
                Ok(Some(lock)) => Some(lock),
                other => {
                    let why = other.err().map_or_else(|| "cancelled".to_owned(), |error| error.to_string());
                    report.problems.push(format!("lock `{}`: {why}", path.display()));
                    return Ok(report);
                }
            };
        }
        self.prune_images(remove, &mut report)?;
        drop(lock);
        Ok(report)
    }

    fn prune_images(&self, remove: bool, report: &mut PruneReport) -> Result<(), EngineError> {
        let label = LabelKey::Context.under(&self.prefix);
        let images = self.engine.images(&Filter::Label(label.clone()))?;
        // Containers after images, so that a container created in between is seen.
        let containers = self.engine.containers(&Filter::NamePrefix(String::new()))?;
        let mut used: BTreeSet<&str> = containers.iter().map(|(_, state)| state.image_id.as_str()).collect();
        // An image with a workspace has the labels of the image that it was committed from.
        used.extend(images.iter().map(|image| image.parent.as_str()));
        let current: BTreeMap<&str, String> =
            CONTEXTS.iter().map(|context| (context.name, context.content_hash(&BTreeMap::new()))).collect();
        for image in images.iter().filter(|image| !used.contains(image.id.as_str())) {
            for tag in &image.tags {
                let Some((name, hash)) = self.cached(tag) else { continue };
                if image.labels.get(&label) == current.get(name) {
                    continue;
                }
                if remove {
                    if let Err(error) = self.engine.remove(ObjectKind::Image, tag) {
                        report.problems.push(format!("image `{tag}`: {}", chain(&error)));
                        continue;
                    }
                    let context = self.state_root.image_context(name, hash);
                    note(&context, fs::remove_dir_all(&context), report);
                }
                report.images.push(Pruned { name: tag.clone(), bytes: image.bytes });
            }
        }
        Ok(())
    }

    /// Returns the name of the context and the hash in the tag of a cached image of this prefix.
    fn cached<'a>(&self, tag: &'a str) -> Option<(&'static str, &'a str)> {
        let (repository, hash) = tag.rsplit_once(':')?;
        let name = repository.strip_prefix(self.prefix.as_str())?.strip_prefix('-')?;
        let context = CONTEXTS.iter().find(|context| context.name == name)?;
        (hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some((context.name, hash))
    }

    fn prune_states(&self, remove: bool, report: &mut PruneReport) {
        let entries = fs::read_dir(self.state_root.path()).into_iter().flatten().flatten();
        let slugs = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<Slug>().ok());
        for slug in slugs.collect::<BTreeSet<_>>() {
            let layout = self.state_root.bottle(&slug);
            if !self.is_closed(&slug) {
                continue;
            }
            let size = size_of(layout.dir());
            if remove {
                let lock = match BottleLock::acquire(&layout, &slug, &Owner::of_process(std::process::id())) {
                    Ok(lock) => lock,
                    // It has just been launched again.
                    Err(JournalError::AlreadyRunning { .. }) => continue,
                    Err(error) => {
                        report.problems.push(chain(&error));
                        continue;
                    }
                };
                // Between the look and the lock there may have been a whole bottle.
                if !self.is_closed(&slug) {
                    continue;
                }
                let removed = fs::remove_dir_all(layout.dir());
                drop(lock);
                if !note(layout.dir(), removed, report) {
                    continue;
                }
            }
            report.states.push(Pruned { name: layout.dir().display().to_string(), bytes: size });
        }
    }

    /// Returns true if the journal says that nothing is left to undo.
    fn is_closed(&self, slug: &Slug) -> bool {
        let journal = JournalFile::open(&self.state_root.bottle(slug)).map(|file| file.journal());
        journal.is_ok_and(|journal| {
            journal.prefix == self.prefix && journal.status == Status::Closed && journal.undo.is_empty()
        })
    }
}

impl PruneReport {
    /// Returns the sum of all sizes in bytes.
    pub fn bytes(&self) -> u64 {
        self.images.iter().chain(&self.states).map(|pruned| pruned.bytes).sum()
    }
}

/// Adds a failure to the report. Something that is gone already is none.
fn note(path: &Path, result: io::Result<()>, report: &mut PruneReport) -> bool {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            report.problems.push(format!("`{}`: {error}", path.display()));
            false
        }
        _ => true,
    }
}

/// Returns the size of the files below a directory. Links are not followed.
fn size_of(dir: &Path) -> u64 {
    let mut size = 0;
    let mut dirs: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => dirs.push(entry.path()),
                Ok(metadata) => size += metadata.len(),
                Err(_) => {}
            }
        }
    }
    size
}
