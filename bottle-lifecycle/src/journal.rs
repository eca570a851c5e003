//! What was made and so must be undone, on disk before it is made.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bottle_plan::{AgentName, Names, Prefix, Slug, StateLayout};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::handle::Handle;
use crate::health::ServiceImage;
use crate::owner::Owner;
use crate::undo::Undo;

/// The content of a bottle's `metadata.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    /// The bottle.
    pub slug: Slug,
    /// What every name of it on the engine begins with.
    pub prefix: Prefix,
    /// The agent's name in the manifest.
    pub agent: AgentName,
    /// The version of the library that made it.
    pub version: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The process that made it.
    pub owner: Owner,
    /// How far its life has come.
    pub status: Status,
    /// The Compose project.
    pub project: String,
    /// The engine's program, so that another process asks the same one.
    pub engine: String,
    /// What a handle needs to know; nothing until the bottle is up.
    #[serde(default)]
    pub handle: Option<Handle>,
    /// Image of every service, by the service's name. Empty until the bottle is up.
    #[serde(default)]
    pub images: BTreeMap<String, ServiceImage>,
    /// How everything that was made is undone, in the order in which it was made.
    #[serde(default)]
    pub undo: Vec<Undo>,
}

/// How far a bottle's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being launched.
    Launching,
    /// It is up.
    Ready,
    /// It is up and stays so after its owner's end.
    Kept,
    /// It is being taken down, or could not be taken down wholly.
    Closing,
    /// Nothing of it is left on the engine.
    Closed,
}

impl Journal {
    /// The journal of a bottle that is about to be launched, with nothing to undo yet.
    pub fn new(names: &Names, agent: AgentName, owner: Owner, engine: impl Into<String>) -> Self {
        Self {
            slug: names.slug().clone(),
            prefix: names.prefix().clone(),
            agent,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            created: String::new(),
            owner,
            status: Status::Launching,
            project: names.project(),
            engine: engine.into(),
            handle: None,
            images: BTreeMap::new(),
            undo: Vec::new(),
        }
    }

    /// Sets when the bottle was made, RFC 3339.
    #[must_use]
    pub fn with_created(mut self, created: impl Into<String>) -> Self {
        self.created = created.into();
        self
    }

    /// Every name of the bottle on the engine.
    pub fn names(&self) -> Names {
        Names::new(self.prefix.clone(), self.slug.clone())
    }
}

/// Why a journal cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// A file cannot be read or written.
    #[error("{doing} `{}`", .path.display())]
    Io {
        /// What was attempted: "write".
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no journal.
    #[error("read `{}`: {reason}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process has the bottle.
    #[error("lock bottle `{slug}`: it is already running (owner: {})", owned_by(.owner.as_ref()))]
    AlreadyRunning {
        /// The bottle.
        slug: Slug,
        /// The process, if it could be read.
        owner: Option<Owner>,
    },
    /// An earlier bottle of that name has left something behind.
    #[error("lock bottle `{slug}`: it was not completely removed earlier; recover it first")]
    NotUndone {
        /// The bottle.
        slug: Slug,
    },
}

fn owned_by(owner: Option<&Owner>) -> String {
    owner.map_or_else(|| "another process".to_owned(), |owner| format!("process {}", owner.pid))
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    move |source| JournalError::Io { doing, path: path.to_owned(), source }
}

/// A journal on disk. Every change is in the file when the method that makes it returns, and all but [`mark_done`] have
/// reached the disk by then.
///
/// [`mark_done`]: JournalFile::mark_done
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    state_dir: PathBuf,
    journal: Mutex<Journal>,
}

impl JournalFile {
    /// Writes a new journal, in a directory of mode 0700 that is made if it is not there. The journal of an earlier bottle
    /// of that name is replaced, once nothing of it is left to undo.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or the earlier bottle was not wholly undone.
    pub fn create(layout: &StateLayout, journal: Journal) -> Result<Self, JournalError> {
        make_private_dir(layout.dir())?;
        match Self::open(layout) {
            Ok(earlier) if earlier.lock().undo.is_empty() => {}
            Ok(_) => return Err(JournalError::NotUndone { slug: journal.slug }),
            Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            // What it says may be all that is known of what is left.
            Err(error) => return Err(error),
        }
        let this = Self { path: layout.metadata(), state_dir: layout.dir().to_owned(), journal: Mutex::new(journal) };
        this.write(&this.lock(), Durability::Disk)?;
        Ok(this)
    }

    /// Reads a journal that is there.
    ///
    /// # Errors
    ///
    /// When it is not there or is no journal.
    pub fn open(layout: &StateLayout) -> Result<Self, JournalError> {
        let path = layout.metadata();
        let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
        let journal = serde_json::from_str(&text)
            .map_err(|error| JournalError::Malformed { path: path.clone(), reason: error.to_string() })?;
        Ok(Self { path, state_dir: layout.dir().to_owned(), journal: Mutex::new(journal) })
    }

    /// What it says now.
    pub fn journal(&self) -> Journal {
        self.lock().clone()
    }

    /// The bottle's state directory.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Adds an undo, before the thing that it undoes is made. One that is there already is not added again.
    ///
    /// # Errors
    ///
    /// When it cannot be written; then the thing must not be made.
    pub fn record(&self, undo: Undo) -> Result<(), JournalError> {
        self.change(|journal| {
            if !journal.undo.contains(&undo) {
                journal.undo.push(undo);
            }
        })
    }

    /// Takes an undo away once it is done. Not synced: a loss of power can only bring it back, which is harmless, and the
    /// last change of a teardown syncs them all.
    ///
    /// # Errors
    ///
    /// When it cannot be written; the undo is then done again by the next one who tries, which is harmless.
    pub fn mark_done(&self, undo: &Undo) -> Result<(), JournalError> {
        self.change_with(Durability::File, |journal| journal.undo.retain(|other| other != undo))
    }

    /// Changes how far the bottle's life has come.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn set_status(&self, status: Status) -> Result<(), JournalError> {
        self.change(|journal| journal.status = status)
    }

    /// Changes anything, in one write.
    ///
    /// # Errors
    ///
    /// When it cannot be written; then it is as it was on disk, and changed in this process.
    pub fn change(&self, change: impl FnOnce(&mut Journal)) -> Result<(), JournalError> {
        self.change_with(Durability::Disk, change)
    }

    fn change_with(&self, durability: Durability, change: impl FnOnce(&mut Journal)) -> Result<(), JournalError> {
        let mut journal = self.lock();
        let before = journal.clone();
        change(&mut journal);
        if *journal == before { Ok(()) } else { self.write(&journal, durability) }
    }

    fn lock(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The whole file anew beside the old one, which it replaces when it is on the disk: a crash leaves one or the other.
    fn write(&self, journal: &Journal, durability: Durability) -> Result<(), JournalError> {
        let failed = || io_error("write", &self.path);
        let text = serde_json::to_string_pretty(journal).map_err(|error| failed()(error.into()))?;
        let mut file = tempfile::Builder::new()
            .prefix(".metadata-")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(&self.state_dir)
            .map_err(failed())?;
        file.write_all(text.as_bytes()).map_err(failed())?;
        if durability == Durability::Disk {
            file.as_file().sync_all().map_err(failed())?;
        }
        file.persist(&self.path).map_err(|error| failed()(error.error))?;
        if durability == Durability::Disk {
            File::open(&self.state_dir).and_then(|directory| directory.sync_all()).map_err(failed())?;
        }
        Ok(())
    }
}

/// How safe a change is when the method that makes it returns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// From the end of the process.
    File,
    /// From a loss of power as well.
    Disk,
}

fn make_private_dir(path: &Path) -> Result<(), JournalError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("make", path))
}

/// The right to launch a bottle or to take it down: one process at a time has it. It ends with this value or with the
/// process, however that ends.
#[derive(Debug)]
pub struct BottleLock {
    /// Locked as long as it is open.
    _file: File,
}

impl BottleLock {
    /// Takes the lock and writes the owner into its file.
    ///
    /// # Errors
    ///
    /// [`JournalError::AlreadyRunning`] at once when another process has it.
    pub fn acquire(layout: &StateLayout, slug: &Slug, owner: &Owner) -> Result<Self, JournalError> {
        make_private_dir(layout.dir())?;
        let path = layout.lock();
        loop {
            let mut file = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(io_error("open", &path))?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let mut text = String::new();
                    _ = file.read_to_string(&mut text);
                    return Err(JournalError::AlreadyRunning { slug: slug.clone(), owner: text.trim().parse().ok() });
                }
                Err(error) => return Err(io_error("lock", &path)(error.into())),
            }
            // Whoever had it before may have removed the file between our opening and our locking it.
            let opened = file.metadata().map_err(io_error("look at", &path))?;
            if !fs::metadata(&path).is_ok_and(|there| there.ino() == opened.ino() && there.dev() == opened.dev()) {
                continue;
            }
            file.set_len(0).and_then(|()| writeln!(file, "{owner}")).map_err(io_error("write", &path))?;
            return Ok(Self { _file: file });
        }
    }
}

#[cfg(test)]
mod tests {
    use bottle_plan::StateRoot;

    use super::*;

    fn journal() -> Journal {
        let names = Names::new(Prefix::default(), "demo".parse().unwrap());
        let owner = Owner { pid: 42, start_time: Some(7), scope: None };
        Journal::new(&names, "dev".parse().unwrap(), owner, "docker").with_created("2026-01-01T00:00:00Z")
    }

    fn layout(root: &Path) -> StateLayout {
        StateRoot::at(root.join("state")).bottle(&"demo".parse().unwrap())
    }

    #[test]
    fn what_is_recorded_is_on_disk_in_private_files() {
        let root = tempfile::tempdir().unwrap();
        let layout = layout(root.path());
        let file = JournalFile::create(&layout, journal()).unwrap();
        let network = Undo::RemoveNetwork { name: "claude-bottle-net-demo".into() };
        file.record(network.clone()).unwrap();
        file.record(network.clone()).unwrap();
        file.record(Undo::RemoveImage { tag: "claude-bottle-workspace:demo".into() }).unwrap();
        insta::assert_snapshot!(fs::read_to_string(layout.metadata()).unwrap());
        for (path, mode) in [(layout.metadata(), 0o600), (layout.dir().to_owned(), 0o700)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode);
        }
        file.mark_done(&network).unwrap();
        let read = JournalFile::open(&layout).unwrap().journal();
        assert_eq!(read, file.journal());
        assert_eq!(read.undo.len(), 1);
        assert_eq!(fs::read_dir(layout.dir()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_bottle_with_something_left_to_undo_is_not_written_over() {
        let root = tempfile::tempdir().unwrap();
        let layout = layout(root.path());
        let file = JournalFile::create(&layout, journal()).unwrap();
        let undo = Undo::RemoveNetwork { name: "n".into() };
        file.record(undo.clone()).unwrap();
        let error = JournalFile::create(&layout, journal()).unwrap_err().to_string();
        assert!(error.ends_with("recover it first"), "{error}");
        file.mark_done(&undo).unwrap();
        JournalFile::create(&layout, journal()).unwrap();
    }

    #[test]
    fn a_file_that_is_no_journal_is_named() {
        let root = tempfile::tempdir().unwrap();
        let layout = layout(root.path());
        assert!(matches!(JournalFile::open(&layout), Err(JournalError::Io { .. })));
        make_private_dir(layout.dir()).unwrap();
        fs::write(layout.metadata(), "{\"slug\": \"No\"}").unwrap();
        let error = JournalFile::open(&layout).unwrap_err().to_string();
        assert!(error.contains("metadata.json") && error.contains("not a slug"), "{error}");
    }

    #[test]
    fn a_second_owner_is_told_at_once_who_the_first_is() {
        let root = tempfile::tempdir().unwrap();
        let (layout, slug) = (layout(root.path()), "demo".parse().unwrap());
        let owner = Owner { pid: 42, start_time: None, scope: None };
        let lock = BottleLock::acquire(&layout, &slug, &owner).unwrap();
        let error = BottleLock::acquire(&layout, &slug, &owner).unwrap_err();
        assert_eq!(error.to_string(), "lock bottle `demo`: it is already running (owner: process 42)");
        drop(lock);
        BottleLock::acquire(&layout, &slug, &owner).unwrap();
    }
}
