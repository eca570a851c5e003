//! Copying of a workspace into a directory of this host.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use bottle_files::tar::Skipped;

use crate::stream::{Entry, EntryKind, walk};
use crate::work_error::{WorkError, WorkLimits};

/// Summary of an export.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exported {
    /// Number of files that were written.
    pub files: u64,
    /// Sum of their sizes in bytes.
    pub bytes: u64,
    /// Symbolic links, pipes, sockets, devices, and names that are `.git` on another file system, such as `.GIT`, which were
    /// refused, relative to the workspace.
    pub refused: Skipped,
}

/// Writes the files and directories of a workspace into an empty directory. Files are owned by the caller, with mode 0644, or
/// 0755 if the agent's file is executable, reduced by the umask. A hard link becomes a file of its own. The repository (`.git`)
/// is left out. Links and special files are never created. After an error the directory is empty again.
///
/// # Errors
///
/// Returns an error if the directory is not empty, cannot be written, or the workspace exceeds the limits.
pub fn export(tar: impl Read, into: &Path, limits: &WorkLimits) -> Result<Exported, WorkError> {
    let failed = |source| WorkError::Write { path: into.to_owned(), source };
    if fs::read_dir(into).map_err(failed)?.next().is_some() {
        return Err(failed(io::Error::new(io::ErrorKind::DirectoryNotEmpty, "the directory is not empty")));
    }
    let mut exported = Exported::default();
    let result = walk(tar, limits, |entry, content| exported.add(entry, content, into, limits));
    if result.is_err() {
        empty(into).map_err(failed)?;
    }
    result.map(|()| exported)
}

impl Exported {
    fn add(
        &mut self,
        entry: &Entry,
        content: &mut dyn Read,
        into: &Path,
        limits: &WorkLimits,
    ) -> Result<(), WorkError> {
        let path = into.join(&entry.path);
        let failed = |source| WorkError::Write { path: path.clone(), source };
        match &entry.kind {
            EntryKind::Directory => fs::create_dir_all(&path).map_err(failed),
            EntryKind::File => self.write(&path, entry.mode, content, entry.size, limits),
            EntryKind::HardLink(target) => match fs::symlink_metadata(into.join(target)) {
                Ok(metadata) if metadata.is_file() => {
                    let mut first = File::open(into.join(target)).map_err(failed)?;
                    self.write(&path, entry.mode, &mut first, metadata.len(), limits)
                }
                _ => {
                    self.refused.add(&entry.path);
                    Ok(())
                }
            },
            EntryKind::Link(_) | EntryKind::Special => {
                self.refused.add(&entry.path);
                Ok(())
            }
        }
    }

    fn write(
        &mut self,
        path: &Path,
        mode: u32,
        content: &mut dyn Read,
        size: u64,
        limits: &WorkLimits,
    ) -> Result<(), WorkError> {
        let failed = |source| WorkError::Write { path: path.to_owned(), source };
        self.files += 1;
        self.bytes += size;
        if self.bytes > limits.taken {
            return Err(WorkError::TooMuch { what: "files", limit: format!("{} bytes", limits.taken) });
        }
        let mode = if mode & 0o111 == 0 { 0o644 } else { 0o755 };
        // Nothing in the directory is a link, so no name leads out of it.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
        let copied = io::copy(&mut content.take(size), &mut file).map_err(failed)?;
        if copied == size { Ok(()) } else { Err(WorkError::Read(io::ErrorKind::UnexpectedEof.into())) }
    }
}

/// Removes everything in a directory.
fn empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}
