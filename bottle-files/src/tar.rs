//! Packing files of this host as tar streams, and unpacking tar streams.
//!
//! An agent can write a bound workspace while it is packed. Each file is therefore opened once, relative to its open
//! directory and without following links. Its metadata is read from the open file.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek as _, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tar::{Archive, Builder, EntryType, Header};

/// Deepest nesting of directories that is packed. Each level holds a file descriptor.
const MAX_DEPTH: usize = 256;

/// A file, directory or symbolic link of this host that is open for packing.
#[derive(Debug)]
pub struct Source {
    opened: Opened,
    stat: Stat,
}

/// An open file or directory, or the target of a symbolic link.
#[derive(Debug)]
enum Opened {
    File(File),
    Link(OsString),
}

impl Source {
    /// Opens what is at a path. The last component is not followed if it is a link.
    ///
    /// # Errors
    ///
    /// Returns an error when it cannot be read. The kind is [`Unsupported`](io::ErrorKind::Unsupported) if it is a socket, a
    /// pipe or a device.
    pub fn open(path: &Path) -> io::Result<Self> {
        open(CWD, path.as_os_str())
    }

    /// Returns true if it is a directory.
    pub fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }

    /// Returns true if it is a regular file.
    pub fn is_file(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::RegularFile
    }

    /// Returns the size of a file in bytes; 0 for a directory or a link.
    pub fn size(&self) -> u64 {
        if self.is_file() { u64::try_from(self.stat.st_size).unwrap_or_default() } else { 0 }
    }

    /// Reads at most `most` bytes of the beginning of a file, which [`Packer::add`] still adds as a whole. Nothing of a
    /// directory or a link.
    ///
    /// # Errors
    ///
    /// Returns an error when it cannot be read.
    pub fn start(&self, most: usize) -> io::Result<Vec<u8>> {
        let Opened::File(file) = &self.opened else { return Ok(Vec::new()) };
        if !self.is_file() {
            return Ok(Vec::new());
        }
        let mut start = vec![0; most.min(usize::try_from(self.size()).unwrap_or(most))];
        let mut read = 0;
        while read < start.len() {
            match file.read_at(&mut start[read..], read as u64)? {
                0 => break,
                count => read += count,
            }
        }
        start.truncate(read);
        Ok(start)
    }

    /// Reads a file to its end, for [`Packer::add_content`]. [`Packer::add`] still adds it as a whole.
    ///
    /// # Errors
    ///
    /// Returns an error when it cannot be read, or is a link.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let Opened::File(file) = &self.opened else { return Err(unsupported()) };
        let mut content = Vec::new();
        let mut file = file;
        file.read_to_end(&mut content)?;
        file.rewind()?;
        Ok(content)
    }
}

/// Pipes, sockets and devices that were met while a tree was copied, and left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    first: Vec<PathBuf>,
    count: usize,
}

impl Skipped {
    /// Number of names that are kept.
    const KEPT: usize = 20;

    /// Adds a path.
    pub fn add(&mut self, path: &Path) {
        if self.count < Self::KEPT {
            self.first.push(path.to_owned());
        }
        self.count += 1;
    }

    /// Returns the number of paths.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Returns a sentence that names at most 20 of the paths. `None` if everything was copied.
    pub fn warning(&self) -> Option<String> {
        let names: Vec<String> =
            self.first.iter().map(|path| format!("`{}`", path.to_string_lossy().escape_debug())).collect();
        let more = self.count - names.len();
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        (self.count > 0)
            .then(|| format!("not copied, since only files, directories and links are: {}{more}", names.join(", ")))
    }
}

/// A tar stream that is being written. Entries keep modes, times and owners of the files unless it is told otherwise.
pub struct Packer<W: Write> {
    builder: Builder<W>,
    owner: Option<(u32, u32)>,
    mode_mask: u32,
    pads: bool,
}

impl<W: Write> fmt::Debug for Packer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl<W: Write> Packer<W> {
    /// Returns a stream without entries.
    pub fn new(into: W) -> Self {
        Self { builder: Builder::new(into), owner: None, mode_mask: 0o7777, pads: false }
    }

    /// Sets the user and group of every entry.
    #[must_use]
    pub const fn with_owner(mut self, owner: (u32, u32)) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Leaves out the set-user-id, set-group-id and sticky bits.
    #[must_use]
    pub const fn without_special_bits(mut self) -> Self {
        self.mode_mask = 0o777;
        self
    }

    /// Fills a file that becomes shorter while it is read with zeros. Default: that is an error.
    #[must_use]
    pub const fn with_padding(mut self) -> Self {
        self.pads = true;
        self
    }

    /// Adds a file or a directory with everything in it under `name`. Symbolic links stay links. Returns the pipes,
    /// sockets and devices in the directory, which are left out.
    ///
    /// # Errors
    ///
    /// Returns an error, with the path, when something cannot be read, `from` itself is not a file, a directory or a link,
    /// or a file becomes shorter while it is read.
    pub fn add_tree(&mut self, from: &Path, name: &Path) -> io::Result<Skipped> {
        let (parent, base) = match (from.parent(), from.file_name()) {
            (Some(parent), Some(base)) if parent.as_os_str().is_empty() => (Path::new("."), base),
            (Some(parent), Some(base)) => (parent, base),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path ends without a file name")),
        };
        let parent = rustix::fs::open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut skipped = Skipped::default();
        self.add_below(parent.as_fd(), base, from, name, 0, &mut skipped)?;
        Ok(skipped)
    }

    /// Adds one entry under `name`: of a directory nothing of its content.
    ///
    /// # Errors
    ///
    /// Returns an error when the file cannot be read or became shorter, or the stream cannot be written.
    pub fn add(&mut self, name: &Path, source: &Source) -> io::Result<()> {
        let mut header = self.header(&source.stat);
        let size = source.size();
        match &source.opened {
            Opened::Link(target) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                self.builder.append_link(&mut header, name, target)
            }
            Opened::File(_) if source.is_directory() => {
                header.set_entry_type(EntryType::Directory);
                header.set_size(0);
                self.builder.append_data(&mut header, name, io::empty())
            }
            Opened::File(file) => {
                header.set_entry_type(EntryType::Regular);
                header.set_size(size);
                // More than was announced would be read as the next entry.
                let mut content = Counted { inner: file.take(size), count: 0 };
                // The header is written before the content, so that the size is fixed.
                self.builder.append_data(&mut header, name, (&mut content).chain(io::repeat(0)).take(size))?;
                if self.pads || content.count == size {
                    return Ok(());
                }
                Err(io::Error::other("it became shorter while it was read"))
            }
        }
    }

    /// Adds a file under `name` with another content than it has.
    ///
    /// # Errors
    ///
    /// Returns an error when the stream cannot be written.
    pub fn add_content(&mut self, name: &Path, source: &Source, content: &[u8]) -> io::Result<()> {
        let mut header = self.header(&source.stat);
        header.set_entry_type(EntryType::Regular);
        header.set_size(content.len() as u64);
        self.builder.append_data(&mut header, name, content)
    }

    /// Adds a file that this host does not have.
    ///
    /// # Errors
    ///
    /// Returns an error when the stream cannot be written.
    pub fn add_bytes(&mut self, name: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(mode & self.mode_mask);
        let (uid, gid) = self.owner.unwrap_or_default();
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        self.builder.append_data(&mut header, name, bytes)
    }

    /// Returns where the stream is written, without its end so far.
    pub fn get_ref(&self) -> &W {
        self.builder.get_ref()
    }

    /// Ends the stream and flushes it.
    ///
    /// # Errors
    ///
    /// Returns an error when it cannot be written.
    pub fn finish(self) -> io::Result<W> {
        let mut into = self.builder.into_inner()?;
        into.flush()?;
        Ok(into)
    }

    /// Adds the entry `base` of an open directory. `from` is its path for errors.
    fn add_below(
        &mut self,
        directory: BorrowedFd<'_>,
        base: &OsStr,
        from: &Path,
        name: &Path,
        depth: usize,
        skipped: &mut Skipped,
    ) -> io::Result<()> {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("`{}`: {error}", from.display()));
        let source = match open(directory, base) {
            Err(error) if depth > 0 && error.kind() == io::ErrorKind::Unsupported => {
                skipped.add(from);
                return Ok(());
            }
            source => source.map_err(failed)?,
        };
        self.add(name, &source).map_err(failed)?;
        let Opened::File(inside) = &source.opened else { return Ok(()) };
        if !source.is_directory() {
            return Ok(());
        }
        if depth == MAX_DEPTH {
            return Err(failed(io::Error::other(format!("more than {MAX_DEPTH} directories inside each other"))));
        }
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(inside)? {
            let entry = entry?.file_name().to_bytes().to_vec();
            if entry != b"." && entry != b".." {
                names.push(OsString::from_vec(entry));
            }
        }
        names.sort();
        names.iter().try_for_each(|base| {
            self.add_below(inside.as_fd(), base, &from.join(base), &name.join(base), depth + 1, skipped)
        })
    }

    #[allow(clippy::useless_conversion, reason = "the mode has 16 bits on macOS")]
    fn header(&self, stat: &Stat) -> Header {
        let mut header = Header::new_gnu();
        header.set_mode(u32::from(stat.st_mode) & self.mode_mask);
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or_default());
        let (uid, gid) = self.owner.unwrap_or((stat.st_uid, stat.st_gid));
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header
    }
}

/// Unpacks files, directories and links below a directory that is there; nothing is written outside it, and neither
/// devices nor set-user-id bits are made. The owner is whoever unpacks. Returns the pipes and devices of the stream, which
/// are left out.
///
/// # Errors
///
/// Returns an error when an entry cannot be written or leads out of the directory.
pub fn unpack(tar: &File, into: &Path) -> io::Result<Skipped> {
    let mut skipped = Skipped::default();
    let mut archive = Archive::new(tar);
    archive.set_preserve_permissions(true);
    archive.set_mask(0o7000);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if kind.is_fifo() || kind.is_character_special() || kind.is_block_special() {
            skipped.add(&entry.path()?);
            continue;
        }
        if (kind.is_file() || kind.is_dir() || kind.is_symlink() || kind.is_hard_link()) && !entry.unpack_in(into)? {
            let path = entry.path()?.display().to_string();
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("`{path}` is outside the directory")));
        }
    }
    Ok(skipped)
}

/// Opens an entry of a directory without following a link, or reads the link.
fn open(directory: BorrowedFd<'_>, base: &OsStr) -> io::Result<Source> {
    // Somebody may put a link in the place of a file, and a file in the place of a link, as often as they like.
    const TRIES: usize = 100;
    // Non-blocking: opening a named pipe would otherwise wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    for _ in 0..TRIES {
        match rustix::fs::openat(directory, base, flags, Mode::empty()) {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd)?;
                return match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile | FileType::Directory => Ok(Source { opened: Opened::File(fd.into()), stat }),
                    _ => Err(unsupported()),
                };
            }
            Err(Errno::LOOP) => {}
            // A socket.
            Err(Errno::NXIO) => return Err(unsupported()),
            Err(error) => return Err(error.into()),
        }
        let stat = rustix::fs::statat(directory, base, AtFlags::SYMLINK_NOFOLLOW)?;
        match rustix::fs::readlinkat(directory, base, Vec::new()) {
            Ok(target) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                let target = OsStr::from_bytes(target.as_bytes()).to_owned();
                return Ok(Source { opened: Opened::Link(target), stat });
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

impl<R: Read> Read for Counted<R> {
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
        let mut packer = Packer::new(&tar).with_owner((7, 8));
        packer.add_tree(&tree, Path::new("renamed")).unwrap();
        packer.finish().unwrap();
        tar.seek(SeekFrom::Start(0)).unwrap();
        let mut archive = Archive::new(&tar);
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (7, 8));
        }
        tar.seek(SeekFrom::Start(0)).unwrap();
        assert_eq!(unpack(&tar, target.path()).unwrap(), Skipped::default());
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
        let mut packer = Packer::new(Vec::new());
        packer.add_tree(from, Path::new("tree"))?;
        packer.finish()
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
    fn a_file_that_was_cut_after_it_was_opened_is_an_error_or_padded() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        for pads in [false, true] {
            fs::write(&path, "0123456789").unwrap();
            let source = Source::open(&path).unwrap();
            assert_eq!((source.is_file(), source.size()), (true, 10));
            fs::write(&path, "012").unwrap();
            let mut packer = Packer::new(Vec::new());
            packer = if pads { packer.with_padding() } else { packer };
            let added = packer.add(Path::new("file"), &source);
            packer.add_bytes(Path::new("after"), b"after", 0o600).unwrap();
            let tar = packer.finish().unwrap();
            let mut archive = Archive::new(tar.as_slice());
            let texts = archive.entries().unwrap().map(|entry| io::read_to_string(entry.unwrap()).unwrap());
            assert_eq!(texts.collect::<Vec<_>>(), ["012\0\0\0\0\0\0\0", "after"]);
            assert_eq!(added.is_ok(), pads);
        }
    }

    #[test]
    fn one_entry_holds_nothing_of_a_directory_and_no_special_bits() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "x").unwrap();
        fs::set_permissions(root.path().join("file"), fs::Permissions::from_mode(0o4755)).unwrap();
        let mut packer = Packer::new(Vec::new()).with_owner((7, 8)).without_special_bits();
        packer.add(Path::new("dir"), &Source::open(root.path()).unwrap()).unwrap();
        let file = Source::open(&root.path().join("file")).unwrap();
        packer.add_content(Path::new("dir/file"), &file, &[file.read().unwrap(), b"y".to_vec()].concat()).unwrap();
        let tar = packer.finish().unwrap();
        let mut archive = Archive::new(tar.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let (uid, mode) = (entry.header().uid().unwrap(), entry.header().mode().unwrap());
            let path = entry.path().unwrap().into_owned();
            (path, uid, mode, io::read_to_string(&mut entry).unwrap())
        });
        let entries: Vec<_> = entries.collect();
        assert_eq!(entries[0].0, Path::new("dir"));
        assert_eq!(entries[1], (Path::new("dir/file").to_owned(), 7, 0o755, "xy".to_owned()));
        assert_eq!(entries.len(), 2);
    }

    #[test]
    fn pipes_sockets_and_devices_in_a_tree_are_left_out_and_named() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), "x").unwrap();
        for number in 0..24 {
            let pipe = tree.join(format!("pipe{number:02}"));
            assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
        }
        let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
        let mut packer = Packer::new(Vec::new());
        let skipped = packer.add_tree(&tree, Path::new("tree")).unwrap();
        let warning = skipped.warning().unwrap();
        assert_eq!(skipped.count(), 25);
        assert!(warning.contains("/tree/pipe00`, ") && warning.contains("pipe19` and 5 more"), "{warning}");
        let tar = packer.finish().unwrap();
        let mut archive = Archive::new(tar.as_slice());
        let names = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned());
        assert_eq!(names.collect::<Vec<_>>(), [Path::new("tree"), Path::new("tree/file")]);

        // From a container, whose names may hold what controls a terminal.
        let mut builder = Builder::new(tempfile::tempfile().unwrap());
        for (name, kind) in [("a\u{1b}[2J", EntryType::Fifo), ("null", EntryType::Char), ("file", EntryType::Regular)] {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, io::empty()).unwrap();
        }
        let mut tar = builder.into_inner().unwrap();
        tar.seek(SeekFrom::Start(0)).unwrap();
        let target = tempfile::tempdir().unwrap();
        let warning = unpack(&tar, target.path()).unwrap().warning().unwrap();
        assert_eq!(warning, "not copied, since only files, directories and links are: `a\\u{1b}[2J`, `null`");
        assert_eq!(fs::read_dir(target.path()).unwrap().count(), 1);
        assert_eq!(Skipped::default().warning(), None);
    }

    #[test]
    fn what_is_no_file_or_too_deep_is_refused_at_once() {
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
