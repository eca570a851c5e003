//! Reading a file of text.

use std::io::Read;
use std::path::Path;

use crate::error::{ManifestError, ManifestMistake};

/// The maximum size of a file in bytes. A larger one is rejected.
pub const MAX_BYTES: u64 = 256 << 10;

/// Reads the text of a file.
///
/// # Errors
///
/// If the file cannot be read, is not a regular file, is larger than [`MAX_BYTES`], or is not UTF-8.
pub fn read_file(path: &Path) -> Result<String, ManifestError> {
    let bytes = read_bytes(path).map_err(|problem| ManifestError::unreadable(path, &problem))?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        // The text before the first invalid byte is the same in the lossy text.
        let text = String::from_utf8_lossy(error.as_bytes());
        let place = valid..valid + char::REPLACEMENT_CHARACTER.len_utf8();
        let mistake = ManifestMistake::new("", &format!("invalid UTF-8 at byte {} of the file", valid + 1));
        ManifestError::new(&text, vec![mistake.with_span(Some(place))]).in_file(path)
    })
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, String> {
    let describe = |error: std::io::Error| error.to_string();
    // The file type is checked first, because opening a named pipe would block until another process writes to it.
    if !std::fs::metadata(path).map_err(describe)?.is_file() {
        return Err("it is not a regular file".into());
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(describe)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(describe)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it is larger than {} KiB, which no manifest is", MAX_BYTES >> 10));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_utf8_is_drawn_below_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bottle.yaml");
        std::fs::write(&path, b"bottles:\n  dev: {env: {NAME: J\xfcrgen}}\n").unwrap();
        let error = read_file(&path).unwrap_err();
        assert_eq!((error.mistakes[0].line, error.mistakes[0].column), (Some(2), Some(22)));
        let drawn = error.drawn(false);
        assert!(drawn.contains("invalid UTF-8 at byte 31 of the file"), "{drawn}");
        assert!(drawn.contains("bottle.yaml:2:22") && drawn.contains("J\u{fffd}rgen"), "{drawn}");
    }
}
