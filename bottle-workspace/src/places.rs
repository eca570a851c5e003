//! Paths that the protection of a workspace uses.

use std::path::{Path, PathBuf};

/// Returns the path of the private copy of a repository below the agent's state directory. It is not called `.git`, so that
/// no git of the host uses it.
pub(crate) fn repository(dir: &Path) -> PathBuf {
    dir.join("repository")
}

/// Returns the path of the empty file that says which bottle uses an empty `.git` as its mount point. Several bottles can
/// have one workspace, and the last one removes the directory.
pub(crate) fn mark(root: &Path, dir: &Path) -> PathBuf {
    let bottle = dir.parent().and_then(Path::file_name).unwrap_or_default();
    root.join(".git").join(format!("bottle-{}", bottle.to_string_lossy()))
}
