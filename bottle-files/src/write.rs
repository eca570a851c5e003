//! Atomic writes of files.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A file that is written under a temporary name in its directory and then put in its place by a rename. A reader sees
/// the old file or the new one, and a link in its place is replaced, not followed. Dropped before that, it is removed.
#[derive(Debug)]
pub struct NewFile {
    file: NamedTempFile,
    path: PathBuf,
}

impl NewFile {
    /// Creates the file for `path`, with its mode from the start, whatever the umask.
    ///
    /// # Errors
    ///
    /// Returns an error when the directory is missing or cannot be written.
    pub fn create(path: &Path, mode: u32) -> io::Result<Self> {
        let directory = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => path,
        };
        let permissions = Permissions::from_mode(mode);
        let file = tempfile::Builder::new().prefix(".new-").permissions(permissions.clone()).tempfile_in(directory)?;
        // The umask may have removed permissions that containers need.
        file.as_file().set_permissions(permissions)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Syncs the content to disk. The rename that follows is synced by [`sync_directory`].
    ///
    /// # Errors
    ///
    /// Returns the error of the operating system.
    pub fn sync(&self) -> io::Result<()> {
        self.file.as_file().sync_all()
    }

    /// Puts the file in its place, in which there may be another.
    ///
    /// # Errors
    ///
    /// Returns an error when the rename fails. What is in its place is then unchanged.
    pub fn replace(self) -> io::Result<()> {
        Ok(self.file.persist(&self.path).map(drop)?)
    }

    /// Puts the file in its place, in which there must be none.
    ///
    /// # Errors
    ///
    /// Returns [`AlreadyExists`](io::ErrorKind::AlreadyExists) when there is one. It is then unchanged.
    pub fn place(self) -> io::Result<()> {
        Ok(self.file.persist_noclobber(&self.path).map(drop)?)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a file completely or not at all, with its mode from the start. It is not synced.
///
/// # Errors
///
/// Returns the error of the first step that fails. The file is then unchanged.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = NewFile::create(path, mode)?;
    file.write_all(content)?;
    file.replace()
}

/// Creates a directory with these files, completely or not at all. Each file has a relative path, its content and its mode;
/// directories have mode 0700. A directory that exists is left as it is.
///
/// # Errors
///
/// Returns the error of the operating system.
pub fn place_directory<'a>(path: &Path, files: impl IntoIterator<Item = (&'a str, &'a [u8], u32)>) -> io::Result<()> {
    let parent = path.parent().unwrap_or(path);
    let fresh = tempfile::Builder::new().prefix(".new-").tempdir_in(parent)?;
    for (name, content, mode) in files {
        let file = fresh.path().join(name);
        DirBuilder::new().recursive(true).mode(0o700).create(file.parent().unwrap_or(parent))?;
        write(&file, content, mode)?;
    }
    match fs::rename(fresh.path(), path) {
        // It was renamed, so there is nothing to clean up.
        Ok(()) => drop(fresh.keep()),
        // Somebody else has created it.
        Err(_) if path.is_dir() => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Syncs a directory, so that the renames in it survive a power loss.
///
/// # Errors
///
/// Returns the error of the operating system.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Rewrites an existing file in place. It stays the same file: a container that mounts it alone, and not its directory,
/// would keep reading the old content if the file were replaced.
///
/// A reader in between always sees a complete text. The new content is written over the old one in one call, padded
/// with newlines to the old length. Only then is the file truncated to the new length. A copy is written beside it, for
/// [`last_rewrite`].
///
/// # Errors
///
/// Returns the error of the first step that fails, also if the file does not exist or is a link.
pub fn rewrite(path: &Path, content: &[u8]) -> io::Result<()> {
    let file =
        OpenOptions::new().write(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()).open(path)?;
    let excess = usize::try_from(file.metadata()?.len()).unwrap_or_default().saturating_sub(content.len());
    file.write_all_at(&[content, &vec![b'\n'; excess]].concat(), 0)?;
    file.set_len(content.len() as u64)?;
    // Before the sync, which can take long: until then the copy is another.
    write(&copy_of(path), content, 0o600)?;
    file.sync_all()
}

/// Returns the content that [`rewrite`] gave a file last, whatever has become of the file. `None` if it never did.
///
/// # Errors
///
/// Returns an error when the copy cannot be read.
pub fn last_rewrite(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(copy_of(path)) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the path of the copy of a file that is rewritten.
fn copy_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".rewritten");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_file_is_in_its_place_only_when_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "old").unwrap();
        let mut file = NewFile::create(&path, 0o600).unwrap();
        file.write_all(b"half").unwrap();
        file.sync().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        // What is left of a write that fails in the middle.
        drop(file);
        assert_eq!(
            (names(dir.path()), fs::read_to_string(&path).unwrap()),
            (vec!["file".to_owned()], "old".to_owned())
        );
        for mode in [0o600, 0o644, 0o666, 0o755] {
            write(&path, b"new", mode).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
        sync_directory(dir.path()).unwrap();
        assert_eq!(
            (names(dir.path()), fs::read_to_string(&path).unwrap()),
            (vec!["file".to_owned()], "new".to_owned())
        );
    }

    #[test]
    fn a_rename_that_fails_leaves_what_is_there_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "old").unwrap();
        let error = NewFile::create(&path, 0o600).and_then(NewFile::place).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        let occupied = dir.path().join("dir");
        fs::create_dir_all(occupied.join("inner")).unwrap();
        assert!(write(&occupied, b"x", 0o600).is_err());
        assert_eq!(names(dir.path()), ["dir", "file"]);
        NewFile::create(&dir.path().join("second"), 0o600).and_then(NewFile::place).unwrap();
        assert_eq!(names(dir.path()), ["dir", "file", "second"]);
    }

    #[test]
    fn a_link_in_its_place_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (link, target) = (dir.path().join("link"), dir.path().join("target"));
        fs::write(&target, "untouched").unwrap();
        symlink(&target, &link).unwrap();
        assert!(NewFile::create(&link, 0o600).and_then(NewFile::place).is_err());
        write(&link, b"new", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
    }

    #[test]
    fn a_rewritten_file_is_never_read_truncated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let (short, long) = ("a: 1\n".repeat(100), "b: 2\n".repeat(700));
        fs::write(&path, &short).unwrap();
        let done = AtomicBool::new(false);
        let lengths = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut lengths = std::collections::BTreeSet::new();
                let mut buffer = vec![0; 2 * long.len()];
                while !done.load(Ordering::Relaxed) {
                    lengths.insert(File::open(&path).unwrap().read_at(&mut buffer, 0).unwrap());
                }
                lengths
            });
            for content in [&long, &short].into_iter().cycle().take(400) {
                rewrite(&path, content.as_bytes()).unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), *content);
            }
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap()
        });
        assert!(lengths.iter().all(|length| [short.len(), long.len()].contains(length)), "{lengths:?}");
    }

    #[test]
    fn only_a_file_that_exists_is_rewritten() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        assert!(rewrite(&file, b"x").is_err() && !file.exists());
        fs::write(&file, "old").unwrap();
        symlink(&file, &link).unwrap();
        assert!(rewrite(&link, b"x").is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
        assert_eq!(last_rewrite(&file).unwrap(), None);
    }

    #[test]
    fn what_a_file_was_rewritten_with_is_known_after_another_change() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("routes.yaml");
        fs::write(&file, "launched").unwrap();
        rewrite(&file, b"approved").unwrap();
        fs::write(&file, "weakened").unwrap();
        assert_eq!(last_rewrite(&file).unwrap().as_deref(), Some(&b"approved"[..]));
    }
}
