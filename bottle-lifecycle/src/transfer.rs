//! Packing files of this host as tar streams, and unpacking tar streams.
//!
//! An agent can write a bound workspace while it is packed. Each file is therefore opened once, relative to its open
//! directory and without following links. Its metadata is read from the open file.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tar::{Archive, Builder, EntryType, Header};

/// Deepest nesting of directories that is packed. Each level holds a file descriptor.
const MAX_DEPTH: usize = 256;

/// Writes a file or a directory under `name`. Symbolic links and modes are kept. With `owner`, every entry gets that
/// owner.
pub(crate) fn pack(from: &Path, name: &Path, owner: Option<(u32, u32)>, into: impl Write) -> io::Result<()> {
    let (parent, base) = match (from.parent(), from.file_name()) {
        (Some(parent), Some(base)) if parent.as_os_str().is_empty() => (Path::new("."), base),
        (Some(parent), Some(base)) => (parent, base),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path ends without a file name")),
    };
    let parent = rustix::fs::open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut packer = Packer { builder: Builder::new(into), owner };
    packer.append(parent.as_fd(), base, from, name, 0)?;
    packer.builder.into_inner()?.flush()
}

/// Returns a stream of one file.
pub(crate) fn pack_bytes(name: &str, bytes: &[u8], mode: u32, (uid, gid): (u32, u32)) -> io::Result<Vec<u8>> {
    let mut header = Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    let mut builder = Builder::new(Vec::new());
    builder.append_data(&mut header, name, bytes)?;
    builder.into_inner()
}

/// Unpacks files, directories and links below an existing directory. Nothing is written outside it. Devices and
/// set-user-id bits are dropped. The calling user owns every entry.
pub(crate) fn unpack(tar: &File, into: &Path) -> io::Result<()> {
    let mut archive = Archive::new(tar);
    archive.set_preserve_permissions(true);
    archive.set_mask(0o7000);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if (kind.is_file() || kind.is_dir() || kind.is_symlink() || kind.is_hard_link()) && !entry.unpack_in(into)? {
            let path = entry.path()?.display().to_string();
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("`{path}` leads out of the directory")));
        }
    }
    Ok(())
}

struct Packer<W: Write> {
    builder: Builder<W>,
    owner: Option<(u32, u32)>,
}

/// A file that was opened, or the target of a symbolic link.
enum Opened {
    File(OwnedFd, Stat),
    Link(OsString, Stat),
}

impl<W: Write> Packer<W> {
    /// Writes the entry `base` of an open directory. `from` is its path for errors.
    fn append(
        &mut self,
        directory: BorrowedFd<'_>,
        base: &OsStr,
        from: &Path,
        name: &Path,
        depth: usize,
    ) -> io::Result<()> {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("`{}`: {error}", from.display()));
        let (fd, stat) = match open(directory, base).map_err(failed)? {
            Opened::File(fd, stat) => (fd, stat),
            Opened::Link(target, stat) => {
                let mut header = self.header(&stat);
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                return self.builder.append_link(&mut header, name, target);
            }
        };
        let mut header = self.header(&stat);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if depth == MAX_DEPTH => {
                Err(failed(io::Error::other(format!("more than {MAX_DEPTH} directories inside each other"))))
            }
            FileType::Directory => {
                header.set_entry_type(EntryType::Directory);
                header.set_size(0);
                self.builder.append_data(&mut header, name, io::empty())?;
                let mut names = Vec::new();
                for entry in rustix::fs::Dir::read_from(&fd)? {
                    let entry = entry?.file_name().to_bytes().to_vec();
                    if entry != b"." && entry != b".." {
                        names.push(OsString::from_vec(entry));
                    }
                }
                names.sort();
                names
                    .iter()
                    .try_for_each(|base| self.append(fd.as_fd(), base, &from.join(base), &name.join(base), depth + 1))
            }
            FileType::RegularFile => {
                let size = u64::try_from(stat.st_size).unwrap_or_default();
                header.set_entry_type(EntryType::Regular);
                header.set_size(size);
                // Bytes beyond the announced size would be read as the next entry.
                let mut content = Counted { inner: File::from(fd).take(size), count: 0 };
                self.builder.append_data(&mut header, name, &mut content)?;
                if content.count == size {
                    return Ok(());
                }
                Err(failed(io::Error::other("it became shorter while it was read")))
            }
            _ => Err(failed(unsupported())),
        }
    }

    #[allow(clippy::useless_conversion, reason = "the mode has 16 bits on macOS")]
    fn header(&self, stat: &Stat) -> Header {
        let mut header = Header::new_gnu();
        header.set_mode(u32::from(stat.st_mode) & 0o7777);
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or_default());
        let (uid, gid) = self.owner.unwrap_or((stat.st_uid, stat.st_gid));
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header
    }
}

/// Opens an entry of a directory without following a link, or reads the link.
fn open(directory: BorrowedFd<'_>, base: &OsStr) -> io::Result<Opened> {
    // An agent can keep replacing a file by a link and a link by a file.
    const TRIES: usize = 100;
    // Non-blocking: opening a named pipe would otherwise wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    for _ in 0..TRIES {
        match rustix::fs::openat(directory, base, flags, Mode::empty()) {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd)?;
                return Ok(Opened::File(fd, stat));
            }
            Err(Errno::LOOP) => {}
            // A socket.
            Err(Errno::NXIO) => return Err(unsupported()),
            Err(error) => return Err(error.into()),
        }
        let stat = rustix::fs::statat(directory, base, AtFlags::SYMLINK_NOFOLLOW)?;
        match rustix::fs::readlinkat(directory, base, Vec::new()) {
            Ok(target) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                return Ok(Opened::Link(OsStr::from_bytes(target.as_bytes()).to_owned(), stat));
            }
            Ok(_) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other("it changed between a file and a link all the time"))
}

fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "not a file, a directory or a symbolic link")
}

/// A reader that counts what it read.
struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: io::Read> io::Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Seek as _, SeekFrom};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_packed_tree_is_unpacked_unchanged() {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let tree = source.path().join("tree");
        fs::create_dir_all(tree.join("sub")).unwrap();
        fs::write(tree.join("sub/run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(tree.join("sub/run"), fs::Permissions::from_mode(0o4750)).unwrap();
        symlink("sub/run", tree.join("link")).unwrap();
        let mut tar = tempfile::tempfile().unwrap();
        pack(&tree, Path::new("renamed"), Some((7, 8)), &tar).unwrap();
        tar.seek(SeekFrom::Start(0)).unwrap();
        let mut archive = Archive::new(&tar);
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (7, 8));
        }
        tar.seek(SeekFrom::Start(0)).unwrap();
        unpack(&tar, target.path()).unwrap();
        let back = target.path().join("renamed");
        assert_eq!(fs::read_to_string(back.join("link")).unwrap(), "#!/bin/sh\n");
        assert_eq!(fs::read_link(back.join("link")).unwrap(), Path::new("sub/run"));
        let mode = fs::metadata(back.join("sub/run")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o750, "everything but the set-user-id bit");
    }

    #[test]
    fn a_hostile_stream_writes_nothing_outside() {
        let target = tempfile::tempdir().unwrap();
        let inside = target.path().join("inside");
        fs::create_dir(&inside).unwrap();
        let mut builder = Builder::new(tempfile::tempfile().unwrap());
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "up", "..").unwrap();
        let mut header = Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o644);
        builder.append_data(&mut header, "up/evil", b"evil".as_slice()).unwrap();
        let mut tar = builder.into_inner().unwrap();
        tar.seek(SeekFrom::Start(0)).unwrap();
        assert!(unpack(&tar, &inside).is_err());
        assert!(!target.path().join("evil").exists());
    }

    fn packed(from: &Path) -> io::Result<Vec<u8>> {
        let mut tar = Vec::new();
        pack(from, Path::new("tree"), None, &mut tar).map(|()| tar)
    }

    /// The agent keeps replacing one of its own files by a link to a file of the host.
    #[test]
    fn a_file_replaced_by_a_link_while_it_is_packed_leaks_no_file_of_the_host() {
        let outside = tempfile::tempdir().unwrap();
        let secret = outside.path().join("secret");
        fs::write(&secret, "secret of the host").unwrap();
        let outside_dir = outside.path().join("dir");
        fs::create_dir(&outside_dir).unwrap();
        fs::write(outside_dir.join("inner"), "secret of the host").unwrap();
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        fs::create_dir_all(&tree).unwrap();
        let own = root.path().join("own");
        let until = Instant::now() + Duration::from_secs(3);
        let (mut files, mut links) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while Instant::now() < until {
                    // A rename replaces one by the other atomically.
                    fs::write(&own, "own").unwrap();
                    fs::rename(&own, tree.join("file")).unwrap();
                    symlink(&secret, &own).unwrap();
                    fs::rename(&own, tree.join("file")).unwrap();
                    _ = fs::remove_file(tree.join("dir"));
                    _ = fs::create_dir(tree.join("dir")).and_then(|()| fs::write(tree.join("dir/inner"), "own"));
                    fs::remove_dir_all(tree.join("dir")).unwrap();
                    _ = symlink(&outside_dir, tree.join("dir"));
                }
            });
            while Instant::now() < until {
                // A file that vanishes while it is packed is an error.
                let Ok(tar) = packed(&tree) else { continue };
                assert!(!contains(&tar, "secret of the host"));
                let mut archive = Archive::new(tar.as_slice());
                for entry in archive.entries().unwrap() {
                    match entry.unwrap().header().entry_type() {
                        EntryType::Regular => files += 1,
                        EntryType::Symlink => links += 1,
                        _ => {}
                    }
                }
            }
        });
        assert!(files > 10 && links > 10, "both were met: {files} files, {links} links");
    }

    fn contains(bytes: &[u8], text: &str) -> bool {
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }

    #[test]
    fn a_file_that_grows_or_shrinks_while_it_is_packed_corrupts_no_other_entry() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("after"), "after").unwrap();
        let until = Instant::now() + Duration::from_secs(1);
        let mut whole = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let file = File::create(tree.join("a-log")).unwrap();
                let mut size = 1;
                while Instant::now() < until {
                    size = size * 7 % 1_000_003;
                    file.set_len(size).unwrap();
                }
            });
            while Instant::now() < until {
                match packed(&tree) {
                    Ok(tar) => {
                        let mut archive = Archive::new(tar.as_slice());
                        let names = archive.entries().unwrap().map(|it| it.unwrap().path().unwrap().into_owned());
                        let names: Vec<_> = names.collect();
                        assert_eq!(names.last().unwrap(), Path::new("tree/after"), "{names:?}");
                        whole += 1;
                    }
                    Err(error) => assert!(error.to_string().contains("shorter"), "{error}"),
                }
            }
        });
        assert!(whole > 0);
    }

    #[test]
    fn special_files_and_deep_trees_are_refused_at_once() {
        let root = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("mkfifo").arg(root.path().join("pipe")).status().unwrap();
        assert!(made.success());
        let error = packed(&root.path().join("pipe")).unwrap_err().to_string();
        assert!(error.contains("pipe`: not a file, a directory or a symbolic link"), "{error}");
        let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
        let error = packed(&root.path().join("socket")).unwrap_err().to_string();
        assert!(error.contains("socket`: not a file"), "{error}");
        let deep = (0..=MAX_DEPTH).fold(root.path().join("deep"), |path, _| path.join("d"));
        fs::create_dir_all(deep).unwrap();
        let error = packed(&root.path().join("deep")).unwrap_err().to_string();
        assert!(error.contains("more than 256 directories"), "{error}");
    }
}
