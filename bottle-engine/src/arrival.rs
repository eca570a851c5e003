//! Checks that copied files arrived in a container, because an engine can report success and copy nothing.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use bottle_exec::{Command, ExecError, ExitStatus, OutputPolicy, Stdin, quote_bytes};
use tar::{Archive, EntryType};

use crate::client::Engine;
use crate::error::EngineError;
use crate::exec::Exec;
use crate::state::CopyMethod;

/// Enters the directory `$1`, runs its standard input as a script, and compares the number of names with `$2`, so that
/// a list that was cut fails the check.
const CHECK: &str = r#"cd "$1" 2>/dev/null || exit 3; eval "$(cat)"; [ "$seen" = "$2" ] || echo "the list of what to look for is cut: ${seen:-0} of $2 names"; exit 0"#;

/// Number of regular files whose sizes are queried at once.
const BATCH: usize = 200;

/// Maximum size of a file that is copied back as a check, in bytes.
const SMALL: u64 = 1 << 20;

/// Status of [`CHECK`] when it cannot enter the directory.
const NO_ENTRY: i32 = 3;

/// The entries of a tar stream, by path below the directory that it is unpacked in.
#[derive(Debug, Default)]
pub(crate) struct Listing(BTreeMap<PathBuf, Kind>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File { size: u64, place: usize },
    Symlink,
    HardLink,
}

impl Listing {
    /// Reads the headers of a stream. The listing is empty for a stream that cannot be read twice.
    pub(crate) fn read(tar: &Stdin) -> io::Result<Self> {
        match tar {
            Stdin::File(path) => Self::of(File::open(path)?),
            Stdin::Bytes(bytes) => Self::of(Cursor::new(bytes)),
            Stdin::Null | Stdin::Inherit => Ok(Self::default()),
        }
    }

    fn of(stream: impl Read + Seek) -> io::Result<Self> {
        let mut all = BTreeMap::new();
        let mut closed = Vec::new();
        for (place, entry) in Archive::new(stream).entries_with_seek()?.enumerate() {
            let entry = entry?;
            let header = entry.header();
            let kind = match header.entry_type() {
                EntryType::Directory => Kind::Directory,
                EntryType::Regular | EntryType::Continuous => Kind::File { size: entry.size(), place },
                EntryType::Symlink => Kind::Symlink,
                EntryType::Link => Kind::HardLink,
                _ => continue,
            };
            let path = entry.path()?;
            let path: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
            // Not even its owner can enter such a directory.
            if kind == Kind::Directory && header.mode().is_ok_and(|mode| mode & 0o100 == 0) {
                closed.push(path.clone());
            }
            if !path.as_os_str().is_empty() {
                all.insert(path, kind);
            }
        }
        all.retain(|path, _| !closed.iter().any(|closed| path != closed && path.starts_with(closed)));
        Ok(Self(all))
    }

    /// Returns the standard input of [`CHECK`].
    fn questions(&self) -> Vec<u8> {
        let mut text = include_bytes!("arrival.sh").to_vec();
        let of = |wanted: Kind| self.0.iter().filter(move |(_, kind)| **kind == wanted);
        for (letter, kind) in [("d", Kind::Directory), ("l", Kind::Symlink), ("h", Kind::HardLink)] {
            for (path, _) in of(kind) {
                text.extend_from_slice(letter.as_bytes());
                text.extend(word(path));
                text.push(b'\n');
            }
        }
        let files: Vec<_> = self
            .0
            .iter()
            .filter_map(|(path, kind)| match kind {
                Kind::File { size, .. } => Some((path, size.to_string())),
                _ => None,
            })
            .collect();
        for batch in files.chunks(BATCH) {
            let sizes: Vec<&str> = batch.iter().map(|(_, size)| size.as_str()).collect();
            text.extend(format!("f '{}'", sizes.join(" ")).into_bytes());
            text.extend(batch.iter().flat_map(|(path, _)| word(path)));
            text.push(b'\n');
        }
        text
    }

    /// Returns the entry to copy back as a check: the last small file of the stream. Without a small file it is any
    /// file, and without files the last directory.
    fn witness(&self) -> Option<(&Path, Kind)> {
        let rank = |kind: &Kind| match kind {
            Kind::File { size, place } => (2 + u8::from(*size <= SMALL), *place),
            Kind::Symlink | Kind::HardLink => (1, 0),
            Kind::Directory => (0, 0),
        };
        self.0.iter().max_by_key(|(_, kind)| rank(kind)).map(|(path, kind)| (path.as_path(), *kind))
    }
}

/// Returns a space and the path as one word of a shell.
fn word(path: &Path) -> Vec<u8> {
    [b" ", quote_bytes(&[b"./", path.as_os_str().as_bytes()].concat()).as_slice()].concat()
}

impl Engine {
    /// Checks with one exec that every entry of a listing is in a running container.
    pub(crate) fn check_arrival(
        &self,
        container: &str,
        directory: &str,
        listing: &Listing,
        method: CopyMethod,
        user: Option<&str>,
    ) -> Result<(), EngineError> {
        if listing.0.is_empty() {
            return Ok(());
        }
        let count = listing.0.len().to_string();
        let exec = Exec::new(["sh", "-c", CHECK, "sh", directory, &count])
            .with_user(user.unwrap_or("0"))
            .with_timeout(self.limits.change)
            .with_stdin(Stdin::Bytes(listing.questions()));
        let command = self
            .exec_command(container, &exec, None, false)?
            .with_label(format!("check what was copied into {container}:{directory}"));
        let output = self.run_any(&command)?;
        match output.status {
            ExitStatus::Code(0) => {}
            // The user may not enter, there is no shell, or the container does not run. The engine can check all the
            // same.
            ExitStatus::Code(NO_ENTRY | 1 | 125..=127 | 255) if method == CopyMethod::Engine => {
                return self.check_witness(container, directory, listing);
            }
            _ => drop(output.clone().success(&command)?),
        }
        let text = output.stdout.text();
        let mut lines = text.lines().filter(|line| !line.is_empty());
        let mut missing: Vec<&str> = lines.by_ref().take(5).collect();
        let more = format!("{} more", lines.count());
        if missing.is_empty() {
            return Ok(());
        }
        if more != "0 more" {
            missing.push(&more);
        }
        Err(not_copied(container, directory, missing.join(", ")))
    }

    /// Checks one entry of a listing by copying it back. This also works for a container that does not run.
    pub(crate) fn check_witness(&self, container: &str, directory: &str, listing: &Listing) -> Result<(), EngineError> {
        let Some((path, kind)) = listing.witness() else { return Ok(()) };
        let place = Path::new(directory).join(path);
        let mut from = OsStr::new(container).to_owned();
        from.push(":");
        from.push(&place);
        let command: Command = self
            .change(self.copy_words())
            .with_arg(from)
            .with_arg("-")
            .with_stdout(OutputPolicy::Capture { limit: 16 << 10 })
            .with_label(format!("check what was copied into {container}:{directory}"));
        let output = self.run_any(&command)?;
        let name = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
        if !output.status.is_success() {
            let said = command.scrub(&output.stderr.last_lines(1));
            return Err(not_copied(container, directory, format!("`{name}` is missing: {said}")));
        }
        // A rehearsal prints nothing.
        let head = output.stdout.bytes();
        let first = Archive::new(head.as_slice()).entries().ok().and_then(|mut all| Some(all.next()?.ok()?.size()));
        match (kind, first) {
            (Kind::File { size, .. }, Some(has)) if has != size => {
                Err(not_copied(container, directory, format!("`{name}` has {has} bytes instead of {size}")))
            }
            _ => Ok(()),
        }
    }
}

/// Returns the error for a stream that cannot be read.
pub(crate) fn unreadable(container: &str, directory: &str) -> impl FnOnce(io::Error) -> EngineError {
    let command = format!("copy files into {container}:{directory}");
    move |source| EngineError::Exec(ExecError::Io { command, doing: "read the tar stream", source })
}

fn not_copied(container: &str, directory: &str, missing: String) -> EngineError {
    EngineError::NotCopied { container: container.to_owned(), directory: directory.to_owned(), missing }
}
