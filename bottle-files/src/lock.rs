//! Locks on files.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::{Errno, retry_on_intr};

/// A lock on a file, for one holder alone unless it is shared. It is released when this value is dropped or the
/// process ends. A child that another thread of a killed process was just starting keeps it until its program runs.
///
/// The file is created with mode 0600 if it is missing, and never through a link. A lock on a file that was removed or
/// replaced in the meantime is not one: the file of that name is then locked instead.
#[derive(Debug)]
pub struct FileLock(File);

impl FileLock {
    /// Time between two attempts of [`wait_unless`](FileLock::wait_unless).
    const INTERVAL: Duration = Duration::from_millis(50);

    /// Waits for the lock.
    ///
    /// # Errors
    ///
    /// Returns an error when the file cannot be opened or locked.
    pub fn wait(path: &Path) -> io::Result<Self> {
        Self::wait_for(path, FlockOperation::LockExclusive)
    }

    /// Waits until nobody has the lock alone, and then shares it with others that share it.
    ///
    /// # Errors
    ///
    /// Returns an error when the file cannot be opened or locked.
    pub fn share(path: &Path) -> io::Result<Self> {
        Self::wait_for(path, FlockOperation::LockShared)
    }

    /// Waits for the lock on a directory. No file is created for it.
    ///
    /// # Errors
    ///
    /// Returns an error when it is no directory, or cannot be opened or locked.
    pub fn of_directory(path: &Path) -> io::Result<Self> {
        let flags = (OFlags::NOFOLLOW | OFlags::DIRECTORY).bits().cast_signed();
        let directory = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        retry_on_intr(|| flock(&directory, FlockOperation::LockExclusive))?;
        Ok(Self(directory))
    }

    fn wait_for(path: &Path, operation: FlockOperation) -> io::Result<Self> {
        loop {
            let file = open(path)?;
            retry_on_intr(|| flock(&file, operation))?;
            if is_at(&file, path)? {
                return Ok(Self(file));
            }
        }
    }

    /// Takes the lock, or returns `None` at once when somebody has it.
    ///
    /// # Errors
    ///
    /// Returns an error when the file cannot be opened or locked.
    pub fn try_take(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = open(path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&file, path)? => return Ok(Some(Self(file))),
                Ok(()) | Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for the lock until `cancelled` returns true. Then it returns `None`.
    ///
    /// # Errors
    ///
    /// Returns an error when the file cannot be opened or locked.
    pub fn wait_unless(path: &Path, mut cancelled: impl FnMut() -> bool) -> io::Result<Option<Self>> {
        loop {
            if let Some(lock) = Self::try_take(path)? {
                return Ok(Some(lock));
            }
            if cancelled() {
                return Ok(None);
            }
            std::thread::sleep(Self::INTERVAL);
        }
    }

    /// Returns the locked file, open for reading and writing.
    pub const fn file(&self) -> &File {
        &self.0
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // To close the file is not enough: a child that another thread is starting has it open until its program runs.
        _ = flock(&self.0, FlockOperation::Unlock);
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Without blocking: the opening of a named pipe would wait for its other end.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)
}

/// Returns true if the open file is the one of that name.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let opened = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(there) => Ok(there.ino() == opened.ino() && there.dev() == opened.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn one_holder_at_a_time_and_the_next_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = FileLock::try_take(&path).unwrap().expect("nobody has it");
        assert_eq!(lock.file().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(FileLock::try_take(&path).unwrap().is_none());
        let asked = AtomicU32::new(0);
        let cancelled = || asked.fetch_add(1, Ordering::Relaxed) == 1;
        assert!(FileLock::wait_unless(&path, cancelled).unwrap().is_none());
        assert_eq!(asked.load(Ordering::Relaxed), 2, "it is asked at each attempt");
        drop(lock);
        assert!(FileLock::wait_unless(&path, || true).unwrap().is_some(), "a free lock is taken all the same");
        assert!(FileLock::wait(&path).is_ok());
    }

    #[test]
    fn a_released_lock_is_free_although_a_starting_child_has_its_file_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = FileLock::wait(&path).unwrap();
        let copy = lock.file().try_clone().unwrap();
        drop(lock);
        assert!(FileLock::try_take(&path).unwrap().is_some());
        drop(copy);
    }

    #[test]
    fn many_share_what_nobody_has_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let shared = [FileLock::share(&path).unwrap(), FileLock::share(&path).unwrap()];
        assert!(FileLock::try_take(&path).unwrap().is_none());
        drop(shared);
        assert!(FileLock::try_take(&path).unwrap().is_some());
    }

    #[test]
    fn only_one_of_many_that_wait_is_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let (inside, seen) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..50 {
                        let _lock = FileLock::wait(&path).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        seen.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        // The last act of a holder: who comes now locks a new file. Who waits has the removed one open.
                        if round % 5 == 0 {
                            fs::remove_file(&path).unwrap();
                        }
                    }
                });
            }
        });
        assert_eq!(seen.into_inner(), 200);
    }

    #[test]
    fn a_directory_has_one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let lock = FileLock::of_directory(dir.path()).unwrap();
        let other = File::open(dir.path()).unwrap();
        assert_eq!(flock(&other, FlockOperation::NonBlockingLockExclusive), Err(Errno::WOULDBLOCK));
        drop(lock);
        FileLock::of_directory(dir.path()).unwrap();
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
        assert!(FileLock::of_directory(&dir.path().join("file")).is_err());
    }

    #[test]
    fn a_link_is_not_locked_and_its_target_not_created() {
        let dir = tempfile::tempdir().unwrap();
        let (link, target) = (dir.path().join("lock"), dir.path().join("target"));
        symlink(&target, &link).unwrap();
        assert!(FileLock::wait(&link).is_err() && FileLock::try_take(&link).is_err());
        assert!(!target.exists());
    }
}
