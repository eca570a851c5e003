//! Paths that the protection of a workspace uses.

use std::path::{Path, PathBuf};

/// Returns the path of the private copy of a repository below the agent's state directory. It is not called `.git`, so that
/// no git of the host uses it.
pub(crate) fn repository(dir: &Path) -> PathBuf {
    dir.join("repository")
}

/// The file by which git knows a bare repository.
pub(crate) const BARE: &str = "HEAD";

/// Empty directories that are mount points in a workspace without a repository: that of the agent's repository, and one that keeps
/// the agent from making the workspace itself a bare repository, which git would take after an empty `.git`.
pub(crate) const MOUNT_POINTS: [&str; 2] = [".git", BARE];

/// Beginning of the name of a [`mark`].
pub(crate) const MARK: &str = "bottle-";

/// Returns the path of the empty file that says which bottle uses an empty directory as a mount point. Several bottles can
/// have one workspace, and the last one removes the directory.
pub(crate) fn mark(point: &Path, dir: &Path) -> PathBuf {
    let bottle = dir.parent().and_then(Path::file_name).unwrap_or_default();
    point.join(format!("{MARK}{}", bottle.to_string_lossy()))
}
