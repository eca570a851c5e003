//! Files of this host as tar streams, and back.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use tar::{Archive, Builder, EntryType, Header};

/// Writes a file or a directory under `name`, links as links, with its modes, and its owners unless another is given.
pub(crate) fn pack(from: &Path, name: &Path, owner: Option<(u32, u32)>, into: impl Write) -> io::Result<()> {
    let mut builder = Builder::new(into);
    append(&mut builder, from, name, owner)?;
    builder.into_inner()?.flush()
}

/// A stream of one file.
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

/// Unpacks files, directories and links below a directory that is there; nothing is written outside it, and neither
/// devices nor set-user-id bits are made. The owner is whoever unpacks.
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

fn append<W: Write>(builder: &mut Builder<W>, from: &Path, name: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    let mut header = Header::new_gnu();
    header.set_metadata(&metadata);
    if let Some((uid, gid)) = owner {
        header.set_uid(uid.into());
        header.set_gid(gid.into());
    }
    if metadata.is_dir() {
        builder.append_data(&mut header, name, io::empty())?;
        let mut entries = fs::read_dir(from)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        entries.iter().try_for_each(|entry| append(builder, &entry.path(), &name.join(entry.file_name()), owner))
    } else if metadata.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, name, fs::read_link(from)?)
    } else if metadata.is_file() {
        builder.append_data(&mut header, name, File::open(from)?)
    } else {
        let message = format!("`{}` is neither a file nor a directory nor a link", from.display());
        Err(io::Error::new(io::ErrorKind::Unsupported, message))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, SeekFrom};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_tree_comes_back_as_it_was() {
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
}
