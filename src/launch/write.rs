//! Writes of files and directories whose failure ends the launch.

use std::path::Path;

use bottle_files::PrivateDir;

use crate::launch_error::LaunchCause;

/// Creates a directory and its parents. An existing directory keeps its mode, and must belong to this user alone.
pub(super) fn make_dir(path: &Path, mode: u32) -> Result<(), LaunchCause> {
    PrivateDir::create_with_mode(path, mode)
        .map(drop)
        .map_err(|source| LaunchCause::Write { path: path.to_owned(), source })
}

/// Writes a file completely or not at all, with its mode from the start.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), LaunchCause> {
    bottle_files::write(path, content, mode).map_err(|source| LaunchCause::Write { path: path.to_owned(), source })
}
