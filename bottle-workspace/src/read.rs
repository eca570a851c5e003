//! Bounded reading of a repository's files, and the words of a refusal.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

pub(crate) fn refusal(problem: &str) -> String {
    format!("{problem}; accepted with `mode: bind-rw`: a workspace without it; `mode: copy` works with any")
}

/// Reads a file, `None` if it does not exist.
pub(crate) fn read(path: &Path, largest: u64) -> Result<Option<Vec<u8>>, String> {
    let mut content = Vec::new();
    // A pipe would be waited for, and a device has no end.
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Ok(None);
    }
    match File::open(path).and_then(|file| file.take(largest + 1).read_to_end(&mut content)) {
        Ok(length) if length as u64 > largest => {
            Err(format!("has a `{}` of more than {} MiB", path.display(), largest >> 20))
        }
        Ok(_) => Ok(Some(content)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(format!("has a `{}` that cannot be read: {error}", path.display())),
    }
}
