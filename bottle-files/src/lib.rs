//! Writing files so that nobody reads half of one.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Writes a file whole or not at all, with its mode from the first moment.
///
/// # Errors
///
/// The error of the first step that fails; then the file is as it was.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().unwrap_or(path);
    let mut file =
        tempfile::Builder::new().prefix(".new-").permissions(Permissions::from_mode(mode)).tempfile_in(dir)?;
    file.write_all(content)?;
    // The process's umask may have taken away what containers need to read.
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.persist(path)?;
    Ok(())
}

/// Gives a file that is there another content. It stays the same file: a container that mounts it alone, and not its
/// directory, would go on reading the old one if it were replaced.
///
/// # Errors
///
/// The error of the first step that fails, if the file is not there or is a link, too.
pub fn rewrite(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()).open(path)?;
    file.set_len(0)?;
    file.write_all(content)?;
    file.sync_all()
}
