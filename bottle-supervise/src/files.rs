//! Reading of files that an attacker may have written.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Dir, FileType, Mode, OFlags, fstat, open, openat};

/// A directory held open, in which names are looked up without ever following a link.
#[derive(Debug)]
pub(super) struct Directory(OwnedFd);

impl Directory {
    /// Opens the directory at a path. The caller trusts the path except its last component, which must not be a link.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(open(path, flags, Mode::empty())?))
    }

    /// Opens a directory inside this one. Returns `None` if the name does not exist.
    pub(super) fn sub(&self, name: &str) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        found(openat(&self.0, name, flags, Mode::empty())).map(|fd| fd.map(Self))
    }

    /// Reads a regular file of at most `limit` bytes. Returns `None` if the name does not exist. Links, pipes, devices,
    /// directories and larger files are errors.
    pub(super) fn read(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        // Non-blocking: opening a pipe would otherwise wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Some(fd) = found(openat(&self.0, name, flags, Mode::empty()))? else {
            return Ok(None);
        };
        let stat = fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
        }
        // The result of `fstat` may be out of date by the time of the read. The read itself is bounded.
        let mut content = Vec::new();
        File::from(fd).take(limit + 1).read_to_end(&mut content)?;
        if content.len() as u64 > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
        }
        Ok(Some(content))
    }

    /// Returns the names in this directory, sorted, without those that start with `.`. More than `limit` names are an
    /// error.
    pub(super) fn names(&self, limit: usize) -> io::Result<Vec<CString>> {
        let mut names = Vec::new();
        for (count, entry) in Dir::read_from(&self.0)?.enumerate() {
            let entry = entry?;
            if count > limit + 2 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {limit} files")));
            }
            if entry.file_name().to_bytes().first() != Some(&b'.') {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

fn found(result: rustix::io::Result<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    match result {
        Ok(fd) => Ok(Some(fd)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"))
        }
        Err(errno) => Err(errno.into()),
    }
}
