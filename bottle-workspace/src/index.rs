//! Submodules that a git index names.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Bytes of an entry before its flags: times, device, inode, mode, owner, size and object id.
const FIXED: usize = 60;
/// Offset of the mode in an entry.
const MODE: usize = 24;
/// Mode of a submodule, without permissions.
const GITLINK: u32 = 0o160_000;

/// Returns the paths of all submodules in an index of version 2, 3 or 4 with SHA-1. An empty index has none.
///
/// # Errors
///
/// Returns the reason that the index cannot be read completely, as text that fits behind the workspace's path.
pub(crate) fn submodules(index: &[u8]) -> Result<Vec<PathBuf>, String> {
    if index.is_empty() {
        return Ok(Vec::new());
    }
    parse(index).ok_or_else(|| {
        "has a git index that cannot be searched for submodules; accepted with `mode: bind-rw`: one of version 2 to 4, not split, \
         with SHA-1; `mode: copy` works with any"
            .to_owned()
    })
}

fn parse(index: &[u8]) -> Option<Vec<PathBuf>> {
    let number = |at: usize| Some(u32::from_be_bytes(index.get(at..at + 4)?.try_into().ok()?));
    let version = number(4)?;
    if index.get(..4)? != b"DIRC" || !(2..=4).contains(&version) {
        return None;
    }
    let (mut at, mut found, mut name) = (12, Vec::new(), Vec::new());
    for _ in 0..number(8)? {
        let start = at;
        let flags = index.get(start + FIXED..start + FIXED + 2)?;
        // An extended entry has two further bytes of flags.
        at = start + FIXED + if flags[0] & 0x40 == 0 { 2 } else { 4 };
        if version == 4 {
            let removed = varint(index, &mut at)?;
            name.truncate(name.len().checked_sub(removed)?);
        } else {
            name.clear();
        }
        let length = index.get(at..)?.iter().position(|byte| *byte == 0)?;
        name.extend_from_slice(&index[at..at + length]);
        at += length + 1;
        if version != 4 {
            // One to eight zeros make the length of an entry a multiple of eight.
            at = start + (at - 1 - start + 8) / 8 * 8;
        }
        if number(start + MODE)? & 0o170_000 == GITLINK {
            found.push(PathBuf::from(OsStr::from_bytes(&name)));
        }
    }
    // Extensions follow, and a checksum. A split index has its entries in another file.
    while at + 8 + 20 <= index.len() {
        if &index[at..at + 4] == b"link" {
            return None;
        }
        at += 8 + number(at + 4)? as usize;
    }
    Some(found)
}

/// Reads a number of version 4: seven bits a byte, the highest first, and each further byte adds one.
fn varint(index: &[u8], at: &mut usize) -> Option<usize> {
    let mut value = 0_usize;
    loop {
        let byte = *index.get(*at)?;
        *at += 1;
        value = value.checked_add(usize::from(byte & 0x7f))?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        value = value.checked_add(1)?.checked_mul(128)?;
    }
}
