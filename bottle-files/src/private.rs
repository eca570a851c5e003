//! Directories that only this user can write.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};
use rustix::process::geteuid;

/// A directory of this user that nobody else can write, held open.
///
/// Nobody else can replace it either: each parent belongs to this user or to root, and either has the sticky bit or
/// cannot be written by others. A path below it that was checked therefore stays what it was.
#[derive(Debug)]
pub struct PrivateDir {
    directory: File,
    path: PathBuf,
}

impl PrivateDir {
    /// Opens a directory. Its last component must not be a link. Links above it are resolved once; each must belong to
    /// this user or to root.
    ///
    /// # Errors
    ///
    /// Returns [`NotFound`](io::ErrorKind::NotFound) when there is none, and
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied) with the reason when another user could change it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = resolve(path)?;
        path.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev().try_for_each(check_parent)?;
        let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&path);
        let directory = opened.map_err(|error| match fs::symlink_metadata(&path) {
            Ok(metadata) if !metadata.is_dir() => refused(&path, "is not a directory"),
            _ => error,
        })?;
        check(&path, &directory.metadata()?)?;
        Ok(Self { directory, path })
    }

    /// Opens a directory, and creates it and its missing parents first, with mode 0700. An existing directory keeps its
    /// mode.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and when a directory cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::create_with_mode(path, 0o700)
    }

    /// Like [`create`](Self::create), with the mode of the directory itself. Missing parents have mode 0700.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn create_with_mode(path: &Path, mode: u32) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let is_missing = |path: &&Path| !fs::exists(path).unwrap_or(true) && !path.is_symlink();
        let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
        if missing.iter().any(|path| path.file_name().is_none()) {
            return Err(refused(&path, "has `..` below a directory that does not exist"));
        }
        for directory in missing.into_iter().rev() {
            if let Some(parent) = directory.parent() {
                fs::canonicalize(parent)?
                    .ancestors()
                    .collect::<Vec<_>>()
                    .into_iter()
                    .rev()
                    .try_for_each(check_parent)?;
            }
            let mode = if directory == path { mode } else { 0o700 };
            match DirBuilder::new().mode(mode).create(directory) {
                // Whoever created it is checked below.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        Self::open(&path)
    }

    /// Opens a directory whose parent must be private as well. A parent that is a link is resolved.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with_parent(path: &Path) -> io::Result<Self> {
        Self::with_parent(path, Self::open)
    }

    /// Like [`open_with_parent`](Self::open_with_parent), but creates what is missing, as [`create`](Self::create) does.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn create_with_parent(path: &Path) -> io::Result<Self> {
        Self::with_parent(path, Self::create)
    }

    fn with_parent(path: &Path, open: impl Fn(&Path) -> io::Result<Self>) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(refused(path, "has no parent"));
        };
        let parent = open(&linked(parent)?)?;
        open(&parent.path.join(name))
    }

    /// Opens a directory that may be a link. The link is resolved once.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_root(path: &Path) -> io::Result<Self> {
        Self::open(&linked(path)?)
    }

    /// Returns the path of the directory, absolute and without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a file of the directory. It must be a regular file of this user that nobody else can write.
    ///
    /// # Errors
    ///
    /// Returns [`NotFound`](io::ErrorKind::NotFound) when there is none, and
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied) with the reason when it is refused.
    pub fn read(&self, name: &str) -> io::Result<String> {
        let path = self.path.join(name);
        // Without blocking: the opening of a named pipe would wait for its other end.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = match openat(&self.directory, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::LOOP) => return Err(refused(&path, "is a symbolic link")),
            Err(errno) => return Err(errno.into()),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(refused(&path, "is not a file"));
        }
        check(&path, &metadata)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(text)
    }
}

/// Returns the absolute path without links. If it does not exist, the existing part of it is resolved.
pub fn real_path(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let resolved = absolute.ancestors().find_map(|ancestor| {
        let real = fs::canonicalize(ancestor).ok()?;
        let rest = absolute.strip_prefix(ancestor).ok()?;
        // An empty rest would add a slash.
        Some(if rest.as_os_str().is_empty() { real } else { real.join(rest) })
    });
    resolved.unwrap_or(absolute)
}

/// Returns the real path, as [`real_path`] does. A path with a link of another user stays as it is, so that
/// [`PrivateDir`] refuses it.
pub fn resolved_path(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if check_links(&absolute).is_ok() { real_path(&absolute) } else { absolute }
}

/// Returns the target of a link of this user or of root, and other paths unchanged.
fn linked(path: &Path) -> io::Result<PathBuf> {
    check_links(path)?;
    Ok(if path.is_symlink() { real_path(path) } else { path.to_owned() })
}

/// Checks that no link in the path belongs to another user.
fn check_links(path: &Path) -> io::Result<()> {
    for ancestor in path.ancestors() {
        if let Ok(metadata) = fs::symlink_metadata(ancestor)
            && metadata.is_symlink()
            && ![0, geteuid().as_raw()].contains(&metadata.uid())
        {
            return Err(refused(ancestor, &format!("is a link of user {}", metadata.uid())));
        }
    }
    Ok(())
}

/// Returns the absolute path with every link above the last component resolved.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    check_links(&path)?;
    match (path.parent(), path.components().next_back()) {
        (Some(parent), Some(Component::Normal(name))) => Ok(fs::canonicalize(parent)?.join(name)),
        _ => fs::canonicalize(&path),
    }
}

/// Checks that no other user can replace an entry of this directory that belongs to this user or to root.
fn check_parent(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let (me, owner, mode) = (geteuid().as_raw(), metadata.uid(), metadata.mode());
    if ![0, me].contains(&owner) {
        return Err(refused(path, &format!("belongs to user {owner}")));
    }
    // The private group that many systems give each user has the user's number. With it their umask is 002.
    let writers = if metadata.gid() == owner { 0o002 } else { 0o022 };
    let is_sticky = mode & 0o1000 != 0;
    if mode & writers != 0 && !is_sticky {
        return Err(refused(path, &format!("can be written by other users (mode {:04o})", mode & 0o7777)));
    }
    Ok(())
}

fn check(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if owner != geteuid().as_raw() {
        return Err(refused(path, &format!("belongs to user {owner}")));
    }
    if mode & 0o022 != 0 {
        return Err(refused(path, &format!("can be written by other users (mode {mode:04o})")));
    }
    Ok(())
}

fn refused(path: &Path, problem: &str) -> io::Error {
    let accepted = format!("what belongs to user {} and only that user can write", geteuid().as_raw());
    let message = format!("`{}` {problem}; accepted: {accepted}", path.display());
    io::Error::new(io::ErrorKind::PermissionDenied, message)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn reason(result: io::Result<PrivateDir>) -> String {
        let error = result.map(|dir| dir.path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
        error.to_string()
    }

    #[test]
    fn a_directory_is_created_with_its_parents_for_this_user_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/c");
        let created = PrivateDir::create_with_mode(&path, 0o755).unwrap();
        assert_eq!(created.path(), fs::canonicalize(&path).unwrap());
        for (path, mode) in [("a", 0o700), ("a/b", 0o700), ("a/b/c", 0o755)] {
            assert_eq!(fs::metadata(root.path().join(path)).unwrap().mode() & 0o777, mode, "{path}");
        }
        PrivateDir::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o755, "an existing one keeps its mode");
        assert_eq!(PrivateDir::open(&root.path().join("no")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(reason(PrivateDir::create(&root.path().join("no/../d"))).contains("has `..` below"));
        assert!(!root.path().join("no").exists());
    }

    #[test]
    fn what_another_user_could_write_or_replace_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("dir");
        for mode in [0o777, 0o770, 0o702, 0o1777] {
            drop(PrivateDir::create(&path).unwrap());
            chmod(&path, mode);
            for result in [PrivateDir::open(&path), PrivateDir::create(&path)] {
                let reason = reason(result);
                assert!(
                    reason.contains(&format!("dir` can be written by other users (mode {mode:04o}); acc")),
                    "{reason}"
                );
            }
            chmod(&path, 0o700);
        }
        chmod(root.path(), 0o777);
        assert!(reason(PrivateDir::open(&path)).contains("can be written by other users"));
        assert!(reason(PrivateDir::create(&root.path().join("new"))).contains("can be written by other users"));
        assert!(!root.path().join("new").exists());
        chmod(root.path(), 0o1777);
        PrivateDir::open(&path).unwrap();
    }

    #[test]
    fn a_directory_of_another_user_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let mut foreign = PathBuf::from("/usr");
        if geteuid().is_root() {
            foreign = root.path().join("foreign");
            fs::create_dir(&foreign).unwrap();
            chown(&foreign, Some(4711), Some(4711)).unwrap();
            symlink(root.path(), root.path().join("link")).unwrap();
            std::os::unix::fs::lchown(root.path().join("link"), Some(4711), None).unwrap();
            PrivateDir::create(&root.path().join("dir")).unwrap();
            assert_eq!(resolved_path(&root.path().join("link/dir")), root.path().join("link/dir"));
            let reason = reason(PrivateDir::open(&root.path().join("link/dir")));
            assert!(reason.contains("link` is a link of user 4711; accepted: what belongs to user 0"), "{reason}");
            let below = self::reason(PrivateDir::create(&foreign.join("dir")));
            assert!(below.contains("foreign` belongs to user 4711") && !foreign.join("dir").exists(), "{below}");
        }
        let reason = reason(PrivateDir::open(&foreign));
        assert!(reason.contains("` belongs to user "), "{reason}");
    }

    #[test]
    fn a_link_is_no_directory_and_a_link_above_is_resolved() {
        let root = tempfile::tempdir().unwrap();
        drop(PrivateDir::create(&root.path().join("real/dir")).unwrap());
        symlink(root.path().join("real"), root.path().join("link")).unwrap();
        symlink(root.path().join("nowhere"), root.path().join("dangling")).unwrap();
        for name in ["link", "dangling"] {
            assert!(reason(PrivateDir::open(&root.path().join(name))).contains("is not a directory"), "{name}");
            assert!(reason(PrivateDir::create(&root.path().join(name))).contains("is not a directory"), "{name}");
        }
        let real = fs::canonicalize(root.path()).unwrap().join("real/dir");
        for spelling in ["link/dir", "link/../real/dir/", "link/dir/."] {
            assert_eq!(PrivateDir::open(&root.path().join(spelling)).unwrap().path(), real, "{spelling}");
            assert_eq!(resolved_path(&root.path().join(spelling)), real, "{spelling}");
        }
    }

    #[test]
    fn only_a_plain_file_of_this_user_is_read() {
        let root = tempfile::tempdir().unwrap();
        let dir = PrivateDir::create(&root.path().join("dir")).unwrap();
        let path = dir.path().join("file");
        assert_eq!(dir.read("file").unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&path, "text").unwrap();
        chmod(&path, 0o644);
        assert_eq!(dir.read("file").unwrap(), "text");
        chmod(&path, 0o646);
        symlink(&path, dir.path().join("link")).unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        let problems = ["can be written by other users (mode 0646)", "is a symbolic link", "is not a file"];
        for (name, problem) in ["file", "link", "sub"].into_iter().zip(problems) {
            let error = dir.read(name).unwrap_err().to_string();
            assert!(error.contains(&format!("{name}` {problem}; accepted: ")), "{error}");
        }
    }
}
