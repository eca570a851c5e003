//! Differences between the workspace of a bottle and what was copied into it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bottle_files::tar::Skipped;
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use sha2::{Digest as _, Sha256};

use crate::stream::{Entry, EntryKind, walk};
use crate::work_error::{WorkError, WorkLimits};

/// Largest `.gitignore` that is obeyed, in bytes, and the sum of all.
const MAX_RULES: (u64, u64) = (64 << 10, 1 << 20);

/// The files that the agent added, modified or deleted.
///
/// The repository (`.git`) is left out; its commits are fetched by themselves. So are new files that a `.gitignore`
/// excludes, which are only counted. The rules are those that were copied in. Of the agent's own only `*` counts, in a
/// directory that it made, as tools write it into their caches: a pattern of an agent could take any time and memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// The changed files, sorted by path.
    pub files: Vec<Change>,
    /// Number of new files that a `.gitignore` excludes.
    pub ignored: u64,
    /// Pipes, sockets, devices, and names that are `.git` on another file system, such as `.GIT`, relative to the workspace.
    pub skipped: Skipped,
}

/// One file that the agent added, modified or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Path relative to the workspace. The agent chose it: it may contain newlines and bytes that are no UTF-8, but neither
    /// `..` nor a `.git`.
    pub path: PathBuf,
    /// Kind of the change.
    pub kind: ChangeKind,
    /// The file that was copied into the bottle. `None` for an added file.
    pub before: Option<FileState>,
    /// The file as it is now. `None` for a deleted file.
    pub after: Option<FileState>,
}

/// Kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The file is new.
    Added,
    /// Content, mode or type of the file is another.
    Modified,
    /// The file is gone.
    Deleted,
}

/// Type, mode, size and content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileState {
    /// True for a symbolic link, false for a regular file.
    pub is_link: bool,
    /// Permission bits, with set-user-id and its kin.
    pub mode: u32,
    /// Size in bytes; of a link, the length of its target.
    pub size: u64,
    /// SHA-256 of the content; of a link, of its target.
    pub sha256: [u8; 32],
}

/// The files of a workspace at one time.
#[derive(Debug, Default)]
pub struct Tree {
    pub(crate) files: BTreeMap<PathBuf, Found>,
    /// `.gitignore` files by their directory.
    rules: BTreeMap<PathBuf, Vec<u8>>,
    skipped: Skipped,
}

/// A file with its content, or the place of it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) state: FileState,
    pub(crate) content: Content,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// Target of a symbolic link.
    Target(Vec<u8>),
    /// Place in the stream, and the path that it has there: another one for a hard link.
    At { path: PathBuf, offset: u64 },
}

impl Content {
    /// Returns the path under which the stream has the content. `None` for a symbolic link.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Target(_) => None,
            Self::At { path, .. } => Some(path),
        }
    }
}

impl Tree {
    /// Reads a workspace from a tar stream, as the engine or `pack` makes it.
    ///
    /// # Errors
    ///
    /// Returns an error if the stream ends early, is malformed, has a path outside the workspace, or exceeds the limits.
    pub fn read(tar: impl Read, limits: &WorkLimits) -> Result<Self, WorkError> {
        let mut tree = Self::default();
        let mut rules = 0;
        walk(tar, limits, |entry, content| tree.add(entry, content, &mut rules))?;
        Ok(tree)
    }

    fn add(&mut self, entry: &Entry, content: &mut dyn Read, rules: &mut u64) -> Result<(), WorkError> {
        let Entry { path, kind, mode, size, offset } = entry;
        let (is_link, size, sha256) = match kind {
            EntryKind::Directory => return Ok(()),
            EntryKind::Special => {
                self.skipped.add(path);
                return Ok(());
            }
            EntryKind::HardLink(target) => {
                match self.files.get(target) {
                    Some(found) => drop(self.files.insert(path.clone(), found.clone())),
                    None => self.skipped.add(path),
                }
                return Ok(());
            }
            EntryKind::Link(target) => (true, target.len() as u64, Sha256::digest(target).into()),
            EntryKind::File if path.ends_with(".gitignore") && *size <= MAX_RULES.0 && *rules + size <= MAX_RULES.1 => {
                let mut text = Vec::new();
                content.read_to_end(&mut text).map_err(WorkError::Read)?;
                *rules += size;
                let sha256 = Sha256::digest(&text).into();
                self.rules.insert(path.parent().unwrap_or(path).to_owned(), text);
                (false, *size, sha256)
            }
            EntryKind::File => (false, *size, digest(content).map_err(WorkError::Read)?),
        };
        let state = FileState { is_link, mode: *mode, size, sha256 };
        let content = match kind {
            EntryKind::Link(target) => Content::Target(target.clone()),
            _ => Content::At { path: path.clone(), offset: *offset },
        };
        self.files.insert(path.clone(), Found { state, content });
        Ok(())
    }

    /// Returns the differences between what was copied into the bottle and this workspace.
    ///
    /// # Errors
    ///
    /// Returns an error if it takes longer than [`WorkLimits::time`].
    pub fn changes_since(&self, base: &Self, limits: &WorkLimits) -> Result<Changes, WorkError> {
        let until = Instant::now() + limits.time;
        let mut changes = Changes { skipped: self.skipped.clone(), ..Changes::default() };
        let mut ignore = Ignore::new(base, self);
        let paths: BTreeSet<&PathBuf> = base.files.keys().chain(self.files.keys()).collect();
        for path in paths {
            if Instant::now() >= until {
                return Err(WorkError::Read(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the comparison does not end in time (`WorkLimits::time`)",
                )));
            }
            let [before, after] = [base, self].map(|tree| tree.files.get(path).map(|found| found.state));
            let kind = match (before, after) {
                (None, _) if ignore.covers(path) => {
                    changes.ignored += 1;
                    continue;
                }
                (None, _) => ChangeKind::Added,
                (Some(_), None) => ChangeKind::Deleted,
                (Some(before), Some(after)) if before.is_same(&after) => continue,
                (Some(_), Some(_)) => ChangeKind::Modified,
            };
            changes.files.push(Change { path: path.clone(), kind, before, after });
        }
        Ok(changes)
    }

    /// Returns true if a file is below the directory.
    fn has_below(&self, directory: &Path) -> bool {
        self.files.range(directory.to_owned()..).next().is_some_and(|(path, _)| path.starts_with(directory))
    }
}

impl FileState {
    /// Returns true if nothing that counts is different. The mode of a link does not.
    fn is_same(&self, other: &Self) -> bool {
        let mode = |state: &Self| if state.is_link { 0 } else { state.mode };
        (self.is_link, mode(self), self.size, self.sha256) == (other.is_link, mode(other), other.size, other.sha256)
    }
}

/// Returns the SHA-256 of a content.
fn digest(content: &mut dyn Read) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut buffer = [0; 8 << 10];
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// Number of directories of a path that rules are applied to. What is deeper is judged by the last of them.
const MAX_DEPTH: usize = 64;

/// The rules that exclude new files.
struct Ignore {
    /// The rules that were copied into the bottle, by their directory.
    rules: BTreeMap<PathBuf, Gitignore>,
    /// Directories that the agent made and that exclude everything in them.
    caches: BTreeSet<PathBuf>,
    /// Depth of the deepest directory with rules.
    depth: usize,
    /// The directories above the last path that was asked for, and whether each is excluded.
    last: Vec<(OsString, bool)>,
}

impl Ignore {
    fn new(base: &Tree, now: &Tree) -> Self {
        let parsed = base.rules.iter().filter_map(|(directory, text)| {
            let mut builder = GitignoreBuilder::new("");
            for line in String::from_utf8_lossy(text).lines() {
                // A line that is no pattern excludes nothing, as in git.
                let _ = builder.add_line(None, line);
            }
            Some((directory.clone(), builder.build().ok()?))
        });
        let rules: BTreeMap<PathBuf, Gitignore> = parsed.collect();
        let excludes_all = |text: &[u8]| text.split(|byte| *byte == b'\n').any(|line| line.trim_ascii() == b"*");
        let own = now.rules.iter().filter(|(directory, text)| excludes_all(text) && !base.has_below(directory));
        let caches = own.map(|(directory, _)| directory.clone()).filter(|it| !it.as_os_str().is_empty()).collect();
        let depth = rules.keys().map(|directory| directory.components().count()).max().unwrap_or_default();
        Self { rules, caches, depth, last: Vec::new() }
    }

    /// Returns true if a rule excludes the file or a directory above it. Paths are asked for in their order, so that each
    /// directory is judged once.
    fn covers(&mut self, path: &Path) -> bool {
        if self.rules.is_empty() && self.caches.is_empty() {
            return false;
        }
        let above: Vec<&OsStr> = path.parent().into_iter().flatten().take(MAX_DEPTH).collect();
        let known = self.last.iter().zip(&above).take_while(|((last, _), part)| last == *part).count();
        self.last.truncate(known);
        let mut directory: PathBuf = above[..known].iter().collect();
        for part in &above[known..] {
            directory.push(part);
            let is_above = self.last.last().is_some_and(|(_, is_excluded)| *is_excluded);
            let is_excluded = is_above || self.caches.contains(&directory) || self.excludes(&directory, true);
            self.last.push(((*part).to_owned(), is_excluded));
        }
        let is_above = self.last.last().is_some_and(|(_, is_excluded)| *is_excluded);
        is_above || above.len() < MAX_DEPTH && self.excludes(path, false)
    }

    /// Returns true if the rule that decides about this path alone excludes it. Those of deeper directories come first.
    fn excludes(&self, path: &Path, is_dir: bool) -> bool {
        let above = path.components().count() - 1;
        for directory in path.ancestors().skip(1 + above.saturating_sub(self.depth)) {
            let Some(rules) = self.rules.get(directory) else { continue };
            let Ok(relative) = path.strip_prefix(directory) else { continue };
            match rules.matched(relative, is_dir) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        false
    }
}

/// Quotes a path for the stream that git imports.
pub(crate) fn quoted(path: &Path) -> String {
    let mut quoted = String::from("\"");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => quoted.push(char::from(*byte)),
            _ => {
                quoted.push('\\');
                quoted.extend([byte >> 6, byte >> 3 & 7, byte & 7].map(|digit| char::from(b'0' + digit)));
            }
        }
    }
    quoted + "\""
}
