//! The files of a bottle on an engine that does not see this host's files.
//!
//! One container, the store, has volumes in memory. Each service mounts its files from there. The files get into the store over
//! the standard input of one command in it, so that none of them is on the engine's disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bottle_engine::{CopyMethod, Engine, EngineError, Exec, Start};
use bottle_exec::Stdin;
use bottle_files::tar::{Packer, unpack};
use bottle_files::{FileLock, real_path};
use serde::{Deserialize, Serialize};

/// Directory of the store's volumes in its container.
pub const ROOT: &str = "/store";
/// The program of the store's image that writes a tar stream below a directory.
const UNPACK: &str = "/unpack";
/// Time limit for the transfer of the files, which are some 100 KiB.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A file or a directory of this host, and its path in the store.
pub type Stored = (PathBuf, String);

/// Everything that a bottle has in its store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Name of the store's container.
    pub container: String,
    /// The files and directories.
    pub files: Vec<Stored>,
}

/// Error of a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file of this host cannot be read or written.
    #[error("{action} `{}`", path.display())]
    Io {
        /// Operation that failed.
        action: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The engine reported an error.
    #[error("use the store `{container}` of the bottle's files")]
    Engine {
        /// Name of the store's container.
        container: String,
        /// Cause.
        source: EngineError,
    },
    /// The store did not take the files.
    #[error("write the bottle's files to its store `{container}`: {problem}")]
    NotWritten {
        /// Name of the store's container.
        container: String,
        /// Problem, as the store reports it.
        problem: String,
    },
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        Self::other(error)
    }
}

impl StoreError {
    /// Returns true if the operation was cancelled.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Engine { source, .. } if source.is_cancelled())
    }
}

impl Content {
    /// Starts the store of a created project and writes its files. Every other container is started after this.
    ///
    /// # Errors
    ///
    /// Returns an error if the container does not start, or the files cannot be read or written.
    pub fn start(&self, engine: &Engine, project: &str, within: Duration) -> Result<(), StoreError> {
        let start = Start {
            container: self.container.clone(),
            after_started: Vec::new(),
            after_healthy: Vec::new(),
            has_check: false,
        };
        let failed = |source| StoreError::Engine { container: self.container.clone(), source };
        engine.start_all(project, &[start], within, |_| Ok(())).map_err(failed)?;
        Store::new(engine.clone(), &self.container).put(&self.files)
    }
}

/// The store of one bottle.
#[derive(Debug, Clone)]
pub struct Store {
    engine: Engine,
    container: String,
}

impl Store {
    /// Returns the store in a container, which need not run.
    pub fn new(engine: Engine, container: impl Into<String>) -> Self {
        Self { engine, container: container.into() }
    }

    /// Writes files and directories of this host to the store. A file that is there is rewritten in place.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be read, or the store does not run or has no space left.
    pub fn put(&self, files: &[Stored]) -> Result<(), StoreError> {
        let tar = pack(files)?;
        let exec = Exec::new([UNPACK, ROOT]).with_stdin(Stdin::Bytes(tar)).with_timeout(TIMEOUT);
        let output = self.engine.exec_bare(&self.container, &exec).map_err(|source| self.failed(source))?;
        if output.status.is_success() {
            return Ok(());
        }
        let message = output.stderr.text();
        let problem = message.trim().lines().last().unwrap_or("its program failed without a message").to_owned();
        Err(StoreError::NotWritten { container: self.container.clone(), problem })
    }

    /// Like [`put`](Self::put), but leaves a store that does not run as it is: at its next start it gets all files again.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub fn put_if_running(&self, files: &[Stored]) -> Result<(), StoreError> {
        let put = self.put(files);
        if matches!(put, Err(StoreError::NotWritten { .. })) {
            let state = self.engine.container(&self.container).map_err(|source| self.failed(source))?;
            if state.is_none_or(|state| state.status != "running") {
                return Ok(());
            }
        }
        put
    }

    /// Replaces a directory of this host by one of the store, at once for whoever reads it. A store without `witness`, a
    /// file of that directory which this host has, has lost its files; then the directory stays as it is.
    ///
    /// # Errors
    ///
    /// Returns an error if the store's directory cannot be read, or that of this host cannot be replaced.
    pub fn fetch(&self, path: &str, into: &Path, witness: &str) -> Result<(), StoreError> {
        let tar = into.with_extension("tar");
        let lock = into.with_extension("lock");
        let _lock = FileLock::wait(&lock).map_err(io("lock", &lock))?;
        let copied = self.engine.cp_out(&self.container, &format!("{ROOT}/{path}"), &tar, CopyMethod::Engine, None);
        match copied {
            Err(_) if matches!(self.engine.container(&self.container), Ok(None)) => return Ok(()),
            copied => copied.map_err(|source| self.failed(source))?,
        }
        replace(into, &tar, path, witness)
    }

    fn failed(&self, source: EngineError) -> StoreError {
        StoreError::Engine { container: self.container.clone(), source }
    }
}

/// Replaces a directory by that of a tar stream, unless the stream has lost the file `witness`. Removes the stream's file.
fn replace(into: &Path, tar: &Path, path: &str, witness: &str) -> Result<(), StoreError> {
    let fresh = into.with_extension("new");
    remove(&fresh).map_err(io("remove", &fresh))?;
    fs::create_dir(&fresh).map_err(io("create", &fresh))?;
    let file = fs::File::open(tar).map_err(io("open", tar))?;
    unpack(&file, &fresh).map_err(io("unpack", tar))?;
    fs::remove_file(tar).map_err(io("remove", tar))?;
    // The stream has the directory under its own last name.
    let inside = fresh.join(path.rsplit('/').next().unwrap_or(path));
    if inside.join(witness).symlink_metadata().is_ok() || into.join(witness).symlink_metadata().is_err() {
        let exchange = rustix::fs::RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(rustix::fs::CWD, &inside, rustix::fs::CWD, into, exchange)
            .map_err(|error| io("replace", into)(error.into()))?;
    }
    remove(&fresh).map_err(io("remove", &fresh))
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Packs the files under their paths in the store.
fn pack(files: &[Stored]) -> Result<Vec<u8>, StoreError> {
    let mut packer = Packer::new(Vec::new()).without_special_bits();
    for (source, path) in files {
        let failed = |error| StoreError::Io { action: "read", path: source.clone(), source: error };
        // As a mount does, a link is followed.
        packer.add_tree(&real_path(source), Path::new(path)).map_err(failed)?;
    }
    packer.finish().map_err(|source| StoreError::Io { action: "pack", path: PathBuf::new(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::sync::Arc;

    use bottle_engine::{EngineChoice, rehearsal};
    use bottle_exec::{Answer, Control, Matcher, RecordingBackend};

    use super::*;

    fn store(backend: RecordingBackend) -> (Store, Arc<RecordingBackend>) {
        let backend = Arc::new(backend);
        let engine = Engine::detect(Arc::new(rehearsal()), &EngineChoice::Auto, Control::default()).unwrap();
        (Store::new(engine.with_backend(backend.clone()), "store-demo"), backend)
    }

    #[test]
    fn files_are_on_standard_input_alone() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key");
        fs::write(&key, "hunter2").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&key, directory.path().join("link")).unwrap();
        fs::create_dir(directory.path().join("queue")).unwrap();
        let (store, backend) = store(RecordingBackend::new());
        let files = [("link", "files/other/0"), ("queue", "queue")];
        store.put(&files.map(|(name, path)| (directory.path().join(name), path.to_owned()))).unwrap();
        let commands = backend.commands();
        assert_eq!(commands[0].to_string(), "docker exec --interactive store-demo /unpack /store # reads 2560 bytes");
        let Stdin::Bytes(tar) = commands[0].stdin() else { panic!("{commands:?}") };
        let out = tempfile::tempdir().unwrap();
        let file = out.path().join("tar");
        fs::write(&file, tar).unwrap();
        unpack(&fs::File::open(&file).unwrap(), out.path()).unwrap();
        let written = out.path().join("files/other/0");
        assert_eq!(fs::read_to_string(&written).unwrap(), "hunter2");
        assert_eq!(fs::symlink_metadata(&written).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(out.path().join("queue").is_dir());
        assert!(!format!("{commands:?}").contains("hunter2"));
    }

    #[test]
    fn a_store_that_does_not_run_is_left_alone_and_one_without_space_is_an_error() {
        let refused = |text: &str, status: &str| {
            let state = format!(
                r#"[{{"Id":"0","Name":"/store-demo","State":{{"Status":"{status}"}},"Config":{{}},"HostConfig":{{}}}}]"#
            );
            let backend = RecordingBackend::new()
                .with_answer(Matcher::words(["exec"]), Answer::exit(1).with_stderr(text))
                .with_answer(Matcher::prefix(["container", "inspect"]), Answer::stdout(state));
            store(backend).0.put_if_running(&[])
        };
        let error = refused("unpack: `files/a`: No space left on device\n", "running").unwrap_err();
        insta::assert_snapshot!(error, @"write the bottle's files to its store `store-demo`: unpack: `files/a`: No space left on device");
        refused("container is not running", "exited").unwrap();
        let missing = [(PathBuf::from("/nowhere/at/all"), "files/x".to_owned())];
        insta::assert_snapshot!(store(RecordingBackend::new()).0.put(&missing).unwrap_err(), @"read `/nowhere/at/all`");
    }

    #[test]
    fn a_fetched_directory_replaces_the_one_of_this_host_unless_the_store_lost_it() {
        let directory = tempfile::tempdir().unwrap();
        let (here, there) = (directory.path().join("queue"), directory.path().join("there/queue"));
        fs::create_dir_all(&there).unwrap();
        fs::create_dir(&here).unwrap();
        fs::write(here.join("old"), "").unwrap();
        let fetch = |name: &str| {
            fs::write(there.join(name), "new").unwrap();
            let mut packer = Packer::new(Vec::new());
            packer.add_tree(&there, Path::new("queue")).unwrap();
            let tar = directory.path().join("queue.tar");
            fs::write(&tar, packer.finish().unwrap()).unwrap();
            replace(&here, &tar, "queue", "log").unwrap();
            let mut names: Vec<_> = fs::read_dir(&here).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(fetch("first"), ["first"]);
        assert_eq!(fetch("log"), ["first", "log"]);
        fs::remove_file(there.join("log")).unwrap();
        assert_eq!(fetch("second"), ["first", "log"], "the store has no log any more");
        let mut names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["queue", "there"]);
    }
}
