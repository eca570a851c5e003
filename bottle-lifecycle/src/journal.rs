//! The journal: what was created and must be undone. It is written to disk before anything is created.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bottle_engine::Engine;
use bottle_files::{FileLock, NewFile, PrivateDir, sync_directory};
use bottle_plan::{AgentName, Names, Prefix, Slug, StateLayout, StateRoot};
use serde::{Deserialize, Serialize};

use crate::handle::Handle;
use crate::health::ServiceImage;
use crate::home::Home;
use crate::owner::{Liveness, Owner};
use crate::undo::{Origin, Undo};

/// The content of a bottle's `metadata.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    /// Slug of the bottle.
    pub slug: Slug,
    /// Prefix of all its names on the engine.
    pub prefix: Prefix,
    /// Name of the agent in the manifest.
    pub agent: AgentName,
    /// Version of the library that created the bottle.
    pub version: String,
    /// Creation time, RFC 3339.
    pub created: String,
    /// Process that created the bottle.
    pub owner: Owner,
    /// Status of the bottle.
    pub status: Status,
    /// Name of the Compose project.
    pub project: String,
    /// Program of the engine, so that another process uses the same engine.
    pub engine: String,
    /// Data of the handle. `None` until the bottle is up.
    #[serde(default)]
    pub handle: Option<Handle>,
    /// Image of every service, by the service's name. Empty until the bottle is up.
    #[serde(default)]
    pub images: BTreeMap<String, ServiceImage>,
    /// Undos of everything that was created, in order of creation.
    #[serde(default)]
    pub undo: Vec<Undo>,
    /// Ports of the agent that are open on the host. They need no undo: each closes with its process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<OpenForward>,
}

/// A port of the agent that is open on the host's loopback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OpenForward {
    /// The agent's port.
    pub port: u16,
    /// Address on the host, such as `127.0.0.1:40001`.
    pub address: String,
    /// Process that has opened it.
    pub owner: Owner,
}

/// The status of a bottle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The bottle is being launched.
    Launching,
    /// The bottle is up.
    Ready,
    /// The bottle is up and stays after its owner ends.
    Kept,
    /// The bottle is being taken down, or could not be removed completely.
    Closing,
    /// Nothing of the bottle is left on the engine.
    Closed,
}

impl Status {
    /// Returns true while the bottle is handed out.
    pub(crate) const fn is_up(self) -> bool {
        matches!(self, Self::Ready | Self::Kept)
    }
}

impl Journal {
    /// Returns the journal of a bottle that is about to be launched, without undos.
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
            forwards: Vec::new(),
        }
    }

    /// Sets the creation time, RFC 3339.
    #[must_use]
    pub fn with_created(mut self, created: impl Into<String>) -> Self {
        self.created = created.into();
        self
    }

    /// Returns the names of the bottle on the engine.
    pub fn names(&self) -> Names {
        Names::new(self.prefix.clone(), self.slug.clone())
    }
}

/// An error of a journal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// A file cannot be read or written.
    #[error("{doing} `{}`", .path.display())]
    Io {
        /// Operation that failed, such as "write".
        doing: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The file is not a valid journal.
    #[error("read `{}`: {reason}", .path.display())]
    Malformed {
        /// Path of the file.
        path: PathBuf,
        /// Reason why it is not valid.
        reason: String,
    },
    /// Another process owns the bottle.
    #[error("lock bottle `{slug}`: it is already running (owner: {})", owned_by(.owner.as_ref()))]
    AlreadyRunning {
        /// Slug of the bottle.
        slug: Slug,
        /// Owner, if it could be read.
        owner: Option<Owner>,
    },
    /// An earlier bottle of that name was not completely removed.
    #[error("lock bottle `{slug}`: an earlier bottle of this name was not removed completely; run `recover` first")]
    NotUndone {
        /// Slug of the bottle.
        slug: Slug,
    },
}

impl JournalError {
    /// Returns true if there is no journal.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Returns true if another user could have changed the journal, or only another user may read it.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

fn owned_by(owner: Option<&Owner>) -> String {
    owner.map_or_else(|| "another process".to_owned(), |owner| format!("process {}", owner.pid))
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    move |source| JournalError::Io { doing, path: path.to_owned(), source }
}

/// Name of the journal in the bottle's directory.
const METADATA: &str = "metadata.json";

/// A journal on disk. Every method that changes it returns after the change is in the file. All changes except
/// [`mark_done`] are also synced to disk.
///
/// [`mark_done`]: JournalFile::mark_done
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    state_dir: PathBuf,
    /// True if the journal was read, so that it may have been changed by somebody else.
    is_read: bool,
    journal: Mutex<Journal>,
}

impl JournalFile {
    /// Creates a journal, in a directory of mode 0700 that is created if missing. The journal of an earlier bottle of
    /// that name is replaced if nothing of that bottle is left to undo.
    ///
    /// # Errors
    ///
    /// Returns an error when it cannot be written, or the earlier bottle was not completely undone.
    pub fn create(layout: &StateLayout, journal: Journal) -> Result<Self, JournalError> {
        let dir = create_dir(layout)?;
        match Self::open(layout) {
            Ok(earlier) if earlier.lock().undo.is_empty() => {}
            Ok(_) => return Err(JournalError::NotUndone { slug: journal.slug }),
            Err(error) if error.is_not_found() => {}
            // Its content may be the only record of what is left.
            Err(error) => return Err(error),
        }
        let this = Self::at(&dir, journal, false);
        this.write(&this.lock(), Durability::Disk)?;
        Ok(this)
    }

    /// Opens an existing journal.
    ///
    /// # Errors
    ///
    /// Returns an error when the file does not exist, is not a journal, or another user could have changed it.
    pub fn open(layout: &StateLayout) -> Result<Self, JournalError> {
        let (dir, journal) = read(layout.dir())?;
        if layout.dir().file_name() != Some(journal.slug.as_str().as_ref()) {
            let reason = format!("it is the journal of another bottle, `{}`", journal.slug);
            return Err(JournalError::Malformed { path: layout.metadata(), reason });
        }
        Ok(Self::at(&dir, journal, true))
    }

    fn at(dir: &PrivateDir, journal: Journal, is_read: bool) -> Self {
        let state_dir = dir.path().to_owned();
        Self { path: state_dir.join(METADATA), state_dir, is_read, journal: Mutex::new(journal) }
    }

    /// Returns the origin of the journal's undos.
    pub(crate) fn origin(&self, engine: &Engine) -> Origin {
        match self.state_dir.parent() {
            Some(root) if self.is_read => Origin::Disk(Home::new(engine, &StateRoot::at(root), &self.lock().prefix)),
            _ => Origin::Launch,
        }
    }

    /// Returns the current content.
    pub fn journal(&self) -> Journal {
        self.lock().clone()
    }

    /// Returns the bottle's state directory.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Records an undo, before the thing that it undoes is created. An undo that is already recorded is not added
    /// again.
    ///
    /// # Errors
    ///
    /// Returns an error when it cannot be written. The thing must then not be created.
    pub fn record(&self, undo: Undo) -> Result<(), JournalError> {
        self.change(|journal| {
            if !journal.undo.contains(&undo) {
                journal.undo.push(undo);
            }
        })
    }

    /// Removes a finished undo. The change is not synced: a power loss can only bring the undo back, which is harmless,
    /// and the last change of a teardown syncs all of them.
    ///
    /// # Errors
    ///
    /// Returns an error when it cannot be written. The next teardown then repeats the undo, which is harmless.
    pub fn mark_done(&self, undo: &Undo) -> Result<(), JournalError> {
        self.change_with(Durability::File, |journal| journal.undo.retain(|other| other != undo))
    }

    /// Sets the status of the bottle.
    ///
    /// # Errors
    ///
    /// Returns an error when it cannot be written.
    pub fn set_status(&self, status: Status) -> Result<(), JournalError> {
        self.change(|journal| journal.status = status)
    }

    /// Applies any change in one write.
    ///
    /// # Errors
    ///
    /// Returns an error when it cannot be written. The journal on disk is then unchanged; the one in this process has
    /// the change.
    pub fn change(&self, change: impl FnOnce(&mut Journal)) -> Result<(), JournalError> {
        self.change_with(Durability::Disk, change)
    }

    fn change_with(&self, durability: Durability, change: impl FnOnce(&mut Journal)) -> Result<(), JournalError> {
        let mut journal = self.lock();
        // While the bottle is up, other processes open ports as well. A directory that cannot be locked cannot be written either,
        // and the write says so.
        let alone = journal.status.is_up().then(|| FileLock::of_directory(&self.state_dir));
        if alone.is_some()
            && let Ok((_, there)) = read(&self.state_dir)
        {
            journal.forwards = there.forwards;
        }
        let before = journal.clone();
        change(&mut journal);
        if *journal == before { Ok(()) } else { self.write(&journal, durability) }
    }

    /// Changes the list of open ports while the bottle is up, which every process with a handle may do. The rest of the file
    /// stays as its owner has written it. The change is not synced: the ports close with the machine.
    pub(crate) fn change_forwards(&self, change: impl FnOnce(&mut Vec<OpenForward>)) -> Result<(), JournalError> {
        let mut journal = self.lock();
        let alone = FileLock::of_directory(&self.state_dir).map_err(io_error("lock", &self.state_dir));
        let (_alone, mut there) = match alone.and_then(|alone| Ok((alone, read(&self.state_dir)?.1))) {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other?,
        };
        // A later bottle of that name has another creation time.
        if there.created != journal.created || !there.status.is_up() {
            return Ok(());
        }
        change(&mut there.forwards);
        journal.forwards.clone_from(&there.forwards);
        self.write(&there, Durability::File)
    }

    fn lock(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the file. After a crash, either the old or the new one is there.
    fn write(&self, journal: &Journal, durability: Durability) -> Result<(), JournalError> {
        let write = || {
            let mut file = NewFile::create(&self.path, 0o600)?;
            file.write_all(serde_json::to_string_pretty(journal)?.as_bytes())?;
            if durability == Durability::File {
                return file.replace();
            }
            file.sync()?;
            file.replace()?;
            sync_directory(&self.state_dir)
        };
        write().map_err(io_error("write", &self.path))
    }
}

/// Reads the journal in a directory.
fn read(state_dir: &Path) -> Result<(PrivateDir, Journal), JournalError> {
    let path = state_dir.join(METADATA);
    let dir = PrivateDir::open_with_parent(state_dir).map_err(io_error("open", state_dir))?;
    let text = dir.read(METADATA).map_err(io_error("read", &path))?;
    let malformed = |error: serde_json::Error| JournalError::Malformed { path, reason: error.to_string() };
    Ok((dir, serde_json::from_str(&text).map_err(malformed)?))
}

/// The durability of a change when the method that makes it returns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// Survives the end of the process.
    File,
    /// Survives a power loss as well.
    Disk,
}

/// Checks that a state root, if there is one, belongs to this user alone.
pub(crate) fn open_root(root: &StateRoot) -> Result<(), JournalError> {
    match PrivateDir::open_root(root.path()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map(drop).map_err(io_error("open", root.path())),
    }
}

fn create_dir(layout: &StateLayout) -> Result<PrivateDir, JournalError> {
    PrivateDir::create_with_parent(layout.dir()).map_err(io_error("create", layout.dir()))
}

/// Time for which a lock is waited for whose holder has ended. A child that it was just starting when it was killed keeps the
/// lock until its program runs, which takes moments, and longer on a busy machine.
const AFTERLIFE: Duration = Duration::from_secs(2);

/// The lock for launching a bottle or taking it down, held by one process at a time. It is released when this value is
/// dropped or the process ends.
#[derive(Debug)]
pub struct BottleLock {
    _lock: FileLock,
}

impl BottleLock {
    /// Takes the lock and writes the owner into its file.
    ///
    /// # Errors
    ///
    /// [`JournalError::AlreadyRunning`] when another process has it: at once if that process lives.
    pub fn acquire(layout: &StateLayout, slug: &Slug, owner: &Owner) -> Result<Self, JournalError> {
        create_dir(layout)?;
        let path = layout.lock();
        let holder = || fs::read_to_string(&path).ok()?.trim().parse::<Owner>().ok();
        let until = Instant::now() + AFTERLIFE;
        let is_held =
            || Instant::now() >= until || holder().is_none_or(|holder| holder.liveness(true) != Liveness::Gone);
        let Some(lock) = FileLock::wait_unless(&path, is_held).map_err(io_error("lock", &path))? else {
            return Err(JournalError::AlreadyRunning { slug: slug.clone(), owner: holder() });
        };
        let mut file = lock.file();
        file.set_len(0).and_then(|()| writeln!(file, "{owner}")).map_err(io_error("write", &path))?;
        Ok(Self { _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

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
    fn a_recorded_undo_is_on_disk_in_private_files() {
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
    fn processes_that_open_ports_lose_no_undo_of_the_owner() {
        let root = tempfile::tempdir().unwrap();
        let layout = layout(root.path());
        let file = JournalFile::create(&layout, journal()).unwrap();
        file.set_status(Status::Ready).unwrap();
        let open = |port| OpenForward { port, address: format!("127.0.0.1:{port}"), owner: journal().owner };
        // Each opens the journal before the owner changes it.
        let attached: Vec<_> = (0..4).map(|_| JournalFile::open(&layout).unwrap()).collect();
        std::thread::scope(|scope| {
            for (number, other) in (0_u16..).zip(&attached) {
                scope.spawn(move || {
                    for port in 0..20 {
                        other.change_forwards(|ports| ports.push(open(number * 100 + port))).unwrap();
                    }
                });
            }
            for number in 0..20 {
                file.record(Undo::RemoveNetwork { name: format!("n{number}") }).unwrap();
            }
        });
        let there = JournalFile::open(&layout).unwrap().journal();
        assert_eq!((there.undo.len(), there.forwards.len()), (20, 80));
    }

    #[test]
    fn a_journal_with_open_undos_is_not_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let layout = layout(root.path());
        let file = JournalFile::create(&layout, journal()).unwrap();
        let undo = Undo::RemoveNetwork { name: "n".into() };
        file.record(undo.clone()).unwrap();
        let error = JournalFile::create(&layout, journal()).unwrap_err().to_string();
        assert!(error.ends_with("run `recover` first"), "{error}");
        file.mark_done(&undo).unwrap();
        JournalFile::create(&layout, journal()).unwrap();
    }

    #[test]
    fn the_error_for_an_invalid_journal_names_its_file() {
        let root = tempfile::tempdir().unwrap();
        let layout = layout(root.path());
        assert!(matches!(JournalFile::open(&layout), Err(JournalError::Io { .. })));
        create_dir(&layout).unwrap();
        fs::write(layout.metadata(), "{\"slug\": \"No\"}").unwrap();
        let error = JournalFile::open(&layout).unwrap_err().to_string();
        assert!(error.contains("metadata.json") && error.contains("not a slug"), "{error}");
    }

    #[test]
    fn the_lock_of_a_killed_owner_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let (layout, slug) = (layout(root.path()), "demo".parse().unwrap());
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        let killed = Owner::of_process(ended.id());
        ended.wait().unwrap();
        drop(BottleLock::acquire(&layout, &slug, &killed).unwrap());
        // A child has it that was about to start its program.
        let lock = FileLock::wait(&layout.lock()).unwrap();
        let starting = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(lock);
        });
        BottleLock::acquire(&layout, &slug, &Owner::of_process(std::process::id())).unwrap();
        starting.join().unwrap();
    }

    #[test]
    fn a_second_owner_is_refused_at_once_with_the_pid_of_the_first() {
        let root = tempfile::tempdir().unwrap();
        let (layout, slug) = (layout(root.path()), "demo".parse().unwrap());
        let pid = std::process::id();
        let owner = Owner { pid, start_time: None, scope: None };
        let lock = BottleLock::acquire(&layout, &slug, &owner).unwrap();
        let started = Instant::now();
        let error = BottleLock::acquire(&layout, &slug, &owner).unwrap_err();
        assert_eq!(error.to_string(), format!("lock bottle `demo`: it is already running (owner: process {pid})"));
        assert!(started.elapsed() < AFTERLIFE);
        drop(lock);
        BottleLock::acquire(&layout, &slug, &owner).unwrap();
    }
}
