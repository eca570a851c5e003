//! Changes of an agent to what programs of the host may run, and to its private repository.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use ignore::WalkBuilder;
use serde::{Deserialize, Serialize};

use crate::pack::named;
use crate::places::{MOUNT_POINTS, mark, repository};

/// Names of files that git, shells, editors and build tools of the host read commands from.
const NAMES: &[&str] = &[
    ".envrc",
    ".gitattributes",
    ".gitmodules",
    ".lefthook.yml",
    ".mise.toml",
    ".npmrc",
    ".pre-commit-config.yaml",
    "CMakeLists.txt",
    "GNUmakefile",
    "Gemfile",
    "HEAD",
    "Justfile",
    "Makefile",
    "Rakefile",
    "Taskfile.yml",
    "build.gradle",
    "build.gradle.kts",
    "build.rs",
    "configure",
    "conftest.py",
    "gradlew",
    "justfile",
    "lefthook.yml",
    "makefile",
    "mise.toml",
    "mvnw",
    "package.json",
    "pom.xml",
    "pyproject.toml",
    "setup.py",
    "tox.ini",
];
/// Directories whose every file is read for commands.
const DIRECTORIES: &[&str] = &[".cargo", ".devcontainer", ".githooks", ".github", ".husky", ".idea", ".vscode"];
/// Largest number of files and directories that are looked at, and of directories above a file.
const MAX_ENTRIES: usize = 200_000;
const MAX_DEPTH: usize = 12;
/// Time after which the search ends. It takes a second for 200,000 files.
const LONGEST_SEARCH: Duration = Duration::from_secs(3);
/// Largest number of branches, and bytes of a file with them, that are read from the private repository.
const MAX_BRANCHES: usize = 10_000;
const LARGEST_REFS: u64 = 4 << 20;
/// Name of the record in the agent's state directory.
const RECORD: &str = "workspace.json";

/// Inode, size and time of the last change of a file. A process cannot set that time.
type State = (u64, u64, i64, i64);

/// State of a workspace and its private repository before the agent started.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Before {
    /// Files that programs of the host run or read commands from.
    files: BTreeMap<String, State>,
    /// `true` if not every file was looked at.
    partial: bool,
    /// Branches of the private repository.
    branches: BTreeMap<String, String>,
}

impl Before {
    pub(crate) fn of(root: &Path, repository: &Path) -> Self {
        let (files, partial) = files(root);
        Self { files, partial, branches: branches(repository) }
    }

    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        bottle_files::write(&dir.join(RECORD), &serde_json::to_vec(self)?, 0o600)
    }
}

/// Ends the use of a workspace that an agent could write: removes the mount points that [`protect`](crate::protect) has created,
/// and returns sentences that name what the agent changed and a person should read. `dir` is the agent's state directory.
///
/// # Errors
///
/// Returns an error if a mount point cannot be removed. One that has other content is left alone.
pub fn leave(root: &Path, dir: &Path) -> io::Result<Vec<String>> {
    let absent = |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    for point in MOUNT_POINTS.map(|name| root.join(name)) {
        match fs::remove_file(mark(&point, dir)) {
            Ok(()) => match fs::remove_dir(&point) {
                // Another bottle's mount point, or the user has created a repository there.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty || absent(&error) => {}
                other => other?,
            },
            Err(error) if absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let Some(before) = small(&dir.join(RECORD), u64::MAX).and_then(|text| serde_json::from_slice::<Before>(&text).ok())
    else {
        return Ok(Vec::new());
    };
    let after = Before::of(root, &repository(dir));
    let mut said = Vec::new();
    let changed = after.files.iter().filter(|(path, state)| before.files.get(*path) != Some(state));
    let changed: Vec<String> = changed.map(|(path, _)| path.clone()).collect();
    if let Some(files) = named("files", changed.into_iter()) {
        let partial = if before.partial || after.partial { "; not every file was compared" } else { "" };
        said.push(format!(
            "new or changed in `{}` since the launch, and programs of the host may run them: {files}{partial}",
            root.display()
        ));
    }
    let moved = after.branches.iter().filter(|(name, tip)| before.branches.get(*name) != Some(tip));
    let moved: Vec<String> = moved.map(|(name, tip)| format!("{name} at {tip}")).collect();
    if let Some(branches) = named("branches", moved.into_iter()) {
        said.push(format!(
            "the bottle's own repository had commits that `{}` gets only by a push or a bundle: {branches}",
            root.join(".git").display()
        ));
    }
    Ok(said)
}

fn files(root: &Path) -> (BTreeMap<String, State>, bool) {
    let started = Instant::now();
    let own = root.join(".git");
    let mut found = BTreeMap::new();
    let mut walk = WalkBuilder::new(root);
    // A nested repository is looked at up to its configuration and hooks.
    let wanted = move |entry: &ignore::DirEntry| {
        let parent = entry.path().parent().and_then(Path::file_name);
        entry.path() != own && (parent.is_none_or(|name| name != ".git") || is_git_file(entry.path()))
    };
    let walk = walk.standard_filters(false).max_depth(Some(MAX_DEPTH)).filter_entry(wanted).build();
    for (number, entry) in walk.enumerate() {
        if number >= MAX_ENTRIES || started.elapsed() > LONGEST_SEARCH {
            return (found, true);
        }
        let Ok(entry) = entry else { continue };
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
        let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
        let is_file = metadata.is_file() || metadata.is_symlink();
        if is_file && (runs(relative) || metadata.is_file() && metadata.mode() & 0o111 != 0) {
            let state = (metadata.ino(), metadata.size(), metadata.ctime(), metadata.ctime_nsec());
            found.insert(relative.to_string_lossy().into_owned(), state);
        }
    }
    (found, false)
}

fn runs(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    NAMES.contains(&&*name)
        || name == ".git"
        || is_git_file(path) && path.iter().any(|part| part == ".git")
        || path.iter().any(|part| DIRECTORIES.contains(&&*part.to_string_lossy()))
}

fn is_git_file(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| ["config", "config.worktree", "commondir", "hooks"].iter().any(|known| name == *known))
}

/// Returns the branches of a repository that an agent wrote, read as data. No git runs on it.
fn branches(repository: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let is_id = |text: &str| text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let packed = small(&repository.join("packed-refs"), LARGEST_REFS).unwrap_or_default();
    for line in String::from_utf8_lossy(&packed).lines().take(MAX_BRANCHES) {
        if let Some((id, name)) = line.split_once(" refs/heads/").filter(|(id, _)| is_id(id)) {
            found.insert(name.to_owned(), id.to_owned());
        }
    }
    let heads = repository.join("refs/heads");
    let loose = WalkBuilder::new(&heads).standard_filters(false).max_depth(Some(MAX_DEPTH)).build();
    for entry in loose.flatten().take(MAX_BRANCHES) {
        let id = small(entry.path(), 100).unwrap_or_default();
        let id = String::from_utf8_lossy(&id).trim().to_owned();
        if let (Ok(name), true) = (entry.path().strip_prefix(&heads), is_id(&id)) {
            found.insert(name.to_string_lossy().into_owned(), id);
        }
    }
    found
}

/// Reads a regular file of at most `limit` bytes. A link, pipe or device is not opened.
fn small(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let metadata = fs::symlink_metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > limit {
        return None;
    }
    let mut content = Vec::new();
    File::open(path).ok()?.take(limit).read_to_end(&mut content).ok()?;
    Some(content)
}
