//! Reading of a workspace as a tar stream, which the agent may have made.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use tar::{Archive, EntryType};

use crate::work_error::{WorkError, WorkLimits};

/// Longest path, as on Linux. The engine does not send longer ones.
const MAX_PATH: usize = 4096;

/// Sum of all paths, which are held in memory.
const MAX_PATHS: usize = 128 << 20;

/// Largest header with additional attributes of an entry.
const MAX_EXTENSION: u64 = 1 << 20;

/// One file, directory or link of a workspace.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Path relative to the workspace. Empty for the workspace itself.
    pub(crate) path: PathBuf,
    pub(crate) kind: EntryKind,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Size in bytes; 0 for everything that is not a file.
    pub(crate) size: u64,
    /// Position of the content in the stream.
    pub(crate) offset: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Directory,
    File,
    /// A symbolic link with its target.
    Link(Vec<u8>),
    /// The same file as one before it, at this path in the workspace.
    HardLink(PathBuf),
    /// A pipe, a socket, a device, what this program does not know, or a name that is `.git` on another file system.
    Special,
}

/// Calls `each` for every entry of a stream with its content. Paths that are in or are a repository (`.git`) are left out. Of a
/// name that is `.git` on another file system, such as `.GIT`, only the name itself is passed on, as special.
///
/// The first entry must be the directory of the workspace, and all others must be below it.
pub(crate) fn walk(
    tar: impl Read,
    limits: &WorkLimits,
    mut each: impl FnMut(&Entry, &mut dyn Read) -> Result<(), WorkError>,
) -> Result<(), WorkError> {
    let invalid = |problem: &str| WorkError::Read(io::Error::new(io::ErrorKind::InvalidData, problem.to_owned()));
    let mut archive = Archive::new(tar);
    let mut root: Option<Vec<u8>> = None;
    let (mut count, mut paths) = (0, 0);
    let mut alias: Option<PathBuf> = None;
    let mut is_too_large = false;
    let (mut long_name, mut long_link): (Option<Vec<u8>>, Option<Vec<u8>>) = (None, None);
    // The reader's own treatment of long names has no bound, and takes a newline in a name as the end of an attribute.
    for entry in archive.entries().map_err(WorkError::Read)?.raw(true) {
        let mut entry = entry.map_err(WorkError::Read)?;
        count += 1;
        if count > limits.entries {
            return Err(WorkError::TooMuch { what: "a workspace", limit: format!("{} entries", limits.entries) });
        }
        let (kind, size) = (entry.header().entry_type(), entry.size());
        if matches!(
            kind,
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader
        ) {
            if size > MAX_EXTENSION {
                return Err(invalid("an entry has attributes of more than 1 MiB"));
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(WorkError::Read)?;
            let until_nul = || content.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
            match kind {
                EntryType::GNULongName => long_name = Some(until_nul()),
                EntryType::GNULongLink => long_link = Some(until_nul()),
                EntryType::XHeader => {
                    for (key, value) in
                        attributes(&content).ok_or_else(|| invalid("an entry has malformed attributes"))?
                    {
                        match key {
                            b"path" => long_name = Some(value.to_vec()),
                            b"linkpath" => long_link = Some(value.to_vec()),
                            b"size" => is_too_large = true,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
            continue;
        }
        let name = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        let link = long_link.take().or_else(|| entry.link_name_bytes().map(Cow::into_owned)).unwrap_or_default();
        if is_too_large {
            // The reader knows no such size, and would take the content for entries.
            let name = String::from_utf8_lossy(&name);
            return Err(invalid(&format!("`{}` has more than 8 GiB; remove it in the bottle", name.escape_debug())));
        }
        if name.len().max(link.len()) > MAX_PATH {
            return Err(invalid("a path has more than 4096 bytes"));
        }
        paths += name.len() + link.len();
        if paths > MAX_PATHS {
            return Err(WorkError::TooMuch { what: "a workspace", limit: "128 MiB of paths".into() });
        }
        let outside =
            || invalid(&format!("`{}` is not below the workspace", String::from_utf8_lossy(&name).escape_debug()));
        let root = match &root {
            Some(root) => root,
            None if kind == EntryType::Directory => root.insert(trimmed(&name).to_vec()),
            None => return Err(invalid("it is not a directory any more")),
        };
        let path = below(root, &name).ok_or_else(outside)?;
        let repository = path.iter().position(is_repository);
        let path: PathBuf = repository.map_or_else(|| path.clone(), |place| path.iter().take(place + 1).collect());
        // What is below an alias comes right after it.
        if repository.is_some() && (path.ends_with(".git") || alias.replace(path.clone()).as_ref() == Some(&path)) {
            continue;
        }
        let kind = match kind {
            _ if repository.is_some() => EntryKind::Special,
            EntryType::Directory => EntryKind::Directory,
            EntryType::Regular | EntryType::Continuous => EntryKind::File,
            EntryType::Symlink => EntryKind::Link(link),
            EntryType::Link => EntryKind::HardLink(below(root, &link).ok_or_else(outside)?),
            _ => EntryKind::Special,
        };
        let size = if kind == EntryKind::File { size } else { 0 };
        let mode = entry.header().mode().map_err(WorkError::Read)? & 0o7777;
        let offset = entry.raw_file_position();
        each(&Entry { path, kind, mode, size, offset }, &mut entry)?;
    }
    if root.is_some() { Ok(()) } else { Err(invalid("the stream is empty")) }
}

/// Returns a path of the stream relative to the workspace, unless it leads out of it.
fn below(root: &[u8], name: &[u8]) -> Option<PathBuf> {
    let rest = trimmed(name).strip_prefix(root)?;
    if !rest.is_empty() && rest[0] != b'/' || name.contains(&0) {
        return None;
    }
    let mut path = PathBuf::new();
    for part in rest.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        if part == b"." || part == b".." {
            return None;
        }
        path.push(OsStr::from_bytes(part));
    }
    Some(path)
}

/// Returns a name without `./` at its begin and slashes at its end.
fn trimmed(name: &[u8]) -> &[u8] {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    let end = name.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    &name[..end]
}

/// Returns true for a name that git, on any file system, takes for the directory of a repository.
fn is_repository(name: &OsStr) -> bool {
    /// Characters that HFS+ ignores in names.
    const IGNORED: [std::ops::RangeInclusive<char>; 4] =
        ['\u{200c}'..='\u{200f}', '\u{202a}'..='\u{202e}', '\u{206a}'..='\u{206f}', '\u{feff}'..='\u{feff}'];
    let name = name.to_string_lossy();
    let name: String = name.chars().filter(|char| !IGNORED.iter().any(|range| range.contains(char))).collect();
    // NTFS ignores what follows, and knows `git~1`.
    let name = name.split(':').next().unwrap_or_default().trim_end_matches([' ', '.']);
    name.eq_ignore_ascii_case(".git") || name.eq_ignore_ascii_case("git~1")
}

/// Returns the attributes of an extended header: each is its length, a space, key, `=`, value and a newline.
fn attributes(mut rest: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let space = rest.iter().take(20).position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
        let record = rest.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        found.push((&record[..equals], &record[equals + 1..]));
        rest = &rest[length..];
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tar::{Builder, Header};

    use super::*;

    /// An entry: type, raw name, raw link, content.
    type Raw<'a> = (EntryType, &'a [u8], &'a [u8], &'a [u8]);

    /// Returns a stream of entries.
    fn stream(entries: &[Raw<'_>]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (kind, name, link, content) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            // Unlike `set_path`, without a check.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
            header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link);
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    const ROOT: Raw<'static> = (EntryType::Directory, b"work/", b"", b"");

    fn read(entries: &[Raw<'_>]) -> Result<Vec<(PathBuf, EntryKind)>, String> {
        let (bytes, mut found) = (stream(entries), Vec::new());
        let result = walk(bytes.as_slice(), &WorkLimits::default(), |entry, _| {
            found.push((entry.path.clone(), entry.kind.clone()));
            Ok(())
        });
        result.map(|()| found).map_err(|error| bottle_exec::chain(&error))
    }

    #[test]
    fn names_that_lead_out_of_the_workspace_are_refused() {
        let names: [&[u8]; 7] =
            [b"work/../x", b"../x", b"/work/x", b"/etc/passwd", b"workshop/x", b"other", b"work/a/../../../x"];
        for name in names {
            let error = read(&[ROOT, (EntryType::Regular, name, b"", b"x")]).unwrap_err();
            assert!(error.contains("is not below the workspace"), "{error}");
        }
        let error = read(&[ROOT, (EntryType::Link, b"work/a", b"../etc/passwd", b"")]).unwrap_err();
        assert!(error.contains("is not below the workspace"), "{error}");
        assert!(read(&[(EntryType::Symlink, b"work", b"/etc", b"")]).unwrap_err().contains("not a directory any more"));
        assert!(read(&[]).unwrap_err().contains("empty"));
    }

    #[test]
    fn no_spelling_of_a_repository_is_passed_on() {
        let path = b"work/a/.git/hooks/post-checkout";
        assert_eq!(read(&[ROOT, (EntryType::Regular, path, b"", b"x")]).unwrap().len(), 1);
        for name in [".GIT", ".git.", ".git ", "git~1", ".g\u{200c}it", "\u{feff}.Git", ".git::$INDEX_ALLOCATION"] {
            let [config, hook] = ["config", "hooks/post-checkout"].map(|file| format!("work/a/{name}/{file}"));
            let [config, hook] =
                [&config, &hook].map(|path| (EntryType::Regular, path.as_bytes(), &b""[..], &b"x"[..]));
            let found = read(&[ROOT, config, hook]).unwrap();
            assert_eq!(found[1..], [(Path::new("a").join(name), EntryKind::Special)], "{name}");
        }
        for name in [".gitignore", ".github", "git", "a.git", ".gitmodules"] {
            let path = format!("work/{name}/x");
            let found = read(&[ROOT, (EntryType::Regular, path.as_bytes(), b"", b"x")]).unwrap();
            assert_eq!(found.len(), 2, "{name}");
        }
    }

    #[test]
    fn a_newline_in_an_attribute_is_no_end_of_it() {
        let record = |text: &str| {
            let length = text.len() + 2;
            let length = length + length.to_string().len();
            format!("{length} {text}\n")
        };
        let extended = record("path=work/a\n17 path=work/evil");
        let found = read(&[
            ROOT,
            (EntryType::XHeader, b"x", b"", extended.as_bytes()),
            (EntryType::Regular, b"work/short", b"", b"1"),
            (EntryType::Regular, b"work/next", b"", b"2"),
        ])
        .unwrap();
        let names: Vec<&Path> = found.iter().map(|(path, _)| path.as_path()).collect();
        assert_eq!(names, ["", "a\n17 path=work/evil", "next"].map(Path::new));
    }

    #[test]
    fn sizes_and_numbers_are_bounded() {
        let long = vec![b'a'; 5000];
        let error = read(&[ROOT, (EntryType::GNULongName, b"x", b"", &long), (EntryType::Regular, b"y", b"", b"")]);
        assert!(error.unwrap_err().contains("more than 4096 bytes"));
        let error =
            read(&[ROOT, (EntryType::XHeader, b"x", b"", b"15 size=999999\n"), (EntryType::Regular, b"y", b"", b"")]);
        assert!(error.unwrap_err().contains("`y` has more than 8 GiB"));
        let huge = vec![0; usize::try_from(MAX_EXTENSION).unwrap() + 1];
        assert!(read(&[ROOT, (EntryType::XHeader, b"x", b"", &huge)]).unwrap_err().contains("more than 1 MiB"));
        let limits = WorkLimits { entries: 2, ..WorkLimits::default() };
        let bytes =
            stream(&[ROOT, (EntryType::Regular, b"work/a", b"", b""), (EntryType::Regular, b"work/b", b"", b"")]);
        let error = walk(bytes.as_slice(), &limits, |_, _| Ok(())).unwrap_err();
        assert!(matches!(error, WorkError::TooMuch { .. }), "{error}");
    }
}
