//! Writing files whose failure ends the launch.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::error::LaunchCause;

/// Creates a directory and its parents; an existing one keeps its mode.
pub(super) fn make_dir(path: &Path, mode: u32) -> Result<(), LaunchCause> {
    let result = DirBuilder::new().recursive(true).mode(mode).create(path);
    result.map_err(|source| LaunchCause::Write { path: path.to_owned(), source })
}

/// Writes a file whole or not at all, with its mode from the first moment.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), LaunchCause> {
    bottle_files::write(path, content, mode).map_err(|source| LaunchCause::Write { path: path.to_owned(), source })
}
