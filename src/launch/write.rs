//! Writes of files and directories whose failure ends the launch.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::launch_error::LaunchCause;

/// Creates a directory and its parents. An existing directory keeps its mode.
pub(super) fn make_dir(path: &Path, mode: u32) -> Result<(), LaunchCause> {
    let result = DirBuilder::new().recursive(true).mode(mode).create(path);
    result.map_err(|source| LaunchCause::Write { path: path.to_owned(), source })
}

/// Writes a file completely or not at all, with its mode from the start.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), LaunchCause> {
    bottle_files::write(path, content, mode).map_err(|source| LaunchCause::Write { path: path.to_owned(), source })
}
