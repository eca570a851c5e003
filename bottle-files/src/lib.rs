//! Atomic writes of files.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Writes a file completely or not at all, with its mode from the start.
///
/// # Errors
///
/// Returns the error of the first step that fails. The file is then unchanged.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().unwrap_or(path);
    let mut file =
        tempfile::Builder::new().prefix(".new-").permissions(Permissions::from_mode(mode)).tempfile_in(dir)?;
    file.write_all(content)?;
    // The umask may have removed permissions that containers need.
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.persist(path)?;
    Ok(())
}

/// Rewrites an existing file in place. It stays the same file: a container that mounts it alone, and not its directory,
/// would keep reading the old content if the file were replaced.
///
/// A reader in between always sees a complete text. The new content is written over the old one in one call, padded
/// with newlines to the old length. Only then is the file truncated to the new length.
///
/// # Errors
///
/// Returns the error of the first step that fails, also if the file does not exist or is a link.
pub fn rewrite(path: &Path, content: &[u8]) -> io::Result<()> {
    let file =
        OpenOptions::new().write(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()).open(path)?;
    let excess = usize::try_from(file.metadata()?.len()).unwrap_or_default().saturating_sub(content.len());
    file.write_all_at(&[content, &vec![b'\n'; excess]].concat(), 0)?;
    file.set_len(content.len() as u64)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_rewritten_file_is_never_read_truncated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let (short, long) = ("a: 1\n".repeat(100), "b: 2\n".repeat(700));
        fs::write(&path, &short).unwrap();
        let done = AtomicBool::new(false);
        let lengths = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut lengths = std::collections::BTreeSet::new();
                let mut buffer = vec![0; 2 * long.len()];
                while !done.load(Ordering::Relaxed) {
                    lengths.insert(File::open(&path).unwrap().read_at(&mut buffer, 0).unwrap());
                }
                lengths
            });
            for content in [&long, &short].into_iter().cycle().take(400) {
                rewrite(&path, content.as_bytes()).unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), *content);
            }
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap()
        });
        assert!(lengths.iter().all(|length| [short.len(), long.len()].contains(length)), "{lengths:?}");
    }

    #[test]
    fn only_a_file_that_exists_is_rewritten() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        assert!(rewrite(&file, b"x").is_err() && !file.exists());
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(rewrite(&link, b"x").is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    }
}
