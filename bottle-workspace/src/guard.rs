//! Protection of the host's git and editors while an agent may write the workspace.
//!
//! `git status` runs commands that the repository's configuration names, and git finds that configuration in many ways: `.git`
//! itself, a `commondir` file in it, a nested repository that the index names. So nothing of the host's `.git` is given to the
//! agent: a private copy is mounted in its place, and a mount point can be neither removed nor renamed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read};
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Component, Path, PathBuf};

use bottle_plan::UserIds;
use bottle_plan::plan::WorkspacePlan;
use bottle_plan::resolved::WorkspaceMount;
use gix_config::file::Metadata;
use ignore::WalkBuilder;

use crate::index::submodules;
use crate::pack::{Packing, WorkspaceError};
use crate::places;
use crate::review::Before;

/// Files and directories of the workspace's root that editors and shells of the host take commands from.
const READ_ONLY: &[&str] = &[".envrc", ".idea", ".vscode"];
/// Configuration keys that name a file or directory from which git takes commands.
const COMMAND_PATHS: &[(&str, &str)] =
    &[("core", "hookspath"), ("core", "fsmonitor"), ("include", "path"), ("includeif", "path")];
/// Largest index and configuration in bytes that are read. An index of a million files has 100 MB.
const LARGEST_FILE: u64 = 256 << 20;

/// Checks that the host's git can be protected from an agent that writes the workspace.
///
/// # Errors
///
/// Returns what cannot be protected and what is accepted, as text that fits behind the workspace's path.
pub fn check(plan: &WorkspacePlan) -> Result<(), String> {
    Found::inspect(&plan.source).map(drop)
}

/// Prepares the protection and returns the mounts that hide or protect files of the workspace.
///
/// In the place of `.git`, the agent gets a copy with a reduced configuration, which is created below `dir`. A workspace without
/// a repository gets an empty `.git` directory, which is the mount point; [`leave`](crate::leave) removes it again. `dir` also
/// receives a record of what the workspace has now.
///
/// # Errors
///
/// Returns an error if something cannot be protected, read or written.
pub fn protect(plan: &WorkspacePlan, owner: UserIds, dir: &Path) -> Result<Vec<WorkspaceMount>, WorkspaceError> {
    let root = plan.source.as_path();
    let failed = |problem: String| WorkspaceError::Read { path: root.to_owned(), source: io::Error::other(problem) };
    let found = Found::inspect(root).map_err(failed)?;
    let repository = places::repository(dir);
    let mut mounts = found.mounts;
    if found.git != Git::File {
        let written = |path: &Path| {
            let path = path.to_owned();
            move |source| WorkspaceError::Read { path, source }
        };
        if found.git == Git::Directory {
            copy(plan, owner, dir).map_err(written(&repository))??;
        } else {
            fs::create_dir(&repository).map_err(written(&repository))?;
            let mark = places::mark(root, dir);
            fs::create_dir_all(root.join(".git")).map_err(written(&root.join(".git")))?;
            fs::write(&mark, "").map_err(written(&mark))?;
        }
        give(&repository, owner).map_err(written(&repository))?;
        mounts.push(WorkspaceMount { source: repository.clone(), below: ".git".into(), writable: true });
    }
    Before::of(root, &repository).write(dir).map_err(WorkspaceError::Write)?;
    Ok(mounts)
}

/// Copies the repository, without credentials and commands.
fn copy(plan: &WorkspacePlan, owner: UserIds, dir: &Path) -> io::Result<Result<(), WorkspaceError>> {
    let path = dir.join("repository.tar");
    let mut tar = File::options().read(true).write(true).create_new(true).open(&path)?;
    let packed = Packing::of(plan, "/", owner, BufWriter::new(&mut tar)).repository();
    if let Err(error) = packed {
        return Ok(Err(error));
    }
    let unpacked = dir.join("unpacked");
    fs::create_dir(&unpacked)?;
    bottle_files::tar::unpack(&File::open(&path)?, &unpacked)?;
    fs::rename(unpacked.join(".git"), places::repository(dir))?;
    fs::remove_dir(unpacked)?;
    fs::remove_file(path)?;
    Ok(Ok(()))
}

/// Gives files to the agent's user. Only a launcher that runs as root is somebody else.
fn give(path: &Path, owner: UserIds) -> io::Result<()> {
    for entry in WalkBuilder::new(path).standard_filters(false).build() {
        let entry = entry.map_err(io::Error::other)?;
        let metadata = fs::symlink_metadata(entry.path())?;
        if (metadata.uid(), metadata.gid()) != (owner.uid, owner.gid) {
            lchown(entry.path(), Some(owner.uid), Some(owner.gid))?;
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Git {
    /// The workspace has a repository.
    Directory,
    /// `.git` is a file that names the repository.
    File,
    /// The workspace has none.
    Missing,
}

/// Files of a workspace that must be protected.
struct Found {
    git: Git,
    mounts: Vec<WorkspaceMount>,
}

impl Found {
    fn inspect(source: &Path) -> Result<Self, String> {
        let root = fs::canonicalize(source).map_err(|error| format!("cannot be resolved: {error}"))?;
        let mut found = Self { git: kind(&root)?, mounts: Vec::new() };
        if found.git == Git::File {
            found.protect(&root, Path::new(".git"))?;
        }
        // Without a repository of its own, the workspace can be a directory of one.
        if let Some(top) = root.ancestors().find(|top| matches!(kind(top), Ok(Git::Directory | Git::File))) {
            let git_dir = git_dir(top)?;
            let common = common_dir(&git_dir);
            for dir in [&git_dir, &common] {
                if found.git != Git::Directory && dir.starts_with(&root) {
                    return Err(refusal(&format!(
                        "has its repository at `{}`, where the agent could write",
                        dir.display()
                    )));
                }
            }
            let index = read(&git_dir.join("index"))?.unwrap_or_default();
            for path in submodules(&index)? {
                if top.join(&path).starts_with(&root) {
                    let problem =
                        format!("has the submodule `{}`, whose `.git` the agent could replace", path.display());
                    return Err(refusal(&problem));
                }
            }
            let mut named = links(&common);
            for file in [common.join("config"), git_dir.join("config.worktree")] {
                named.extend(command_paths(&file, top)?);
            }
            for below in named.iter().filter_map(|path| path.strip_prefix(&root).ok()) {
                if !below.starts_with(".git") {
                    found.protect(&root, below)?;
                }
            }
        }
        for name in READ_ONLY {
            if fs::symlink_metadata(root.join(name)).is_ok() {
                found.protect(&root, Path::new(name))?;
            }
        }
        Ok(found)
    }

    /// Adds a read-only mount. A parent directory could be renamed, so each is mounted over itself.
    fn protect(&mut self, root: &Path, below: &Path) -> Result<(), String> {
        // What is hidden by convention holds nothing that an agent has to write, and hooks call each other.
        let first = below.components().next().map_or(below, |first| Path::new(first.as_os_str()));
        let below = if first.to_string_lossy().starts_with('.') { first } else { below };
        let mut steps: Vec<&Path> = below.ancestors().filter(|step| !step.as_os_str().is_empty()).collect();
        steps.reverse();
        for step in steps {
            let path = root.join(step);
            let metadata = fs::symlink_metadata(&path);
            if !metadata.is_ok_and(|metadata| metadata.is_dir() || metadata.is_file()) {
                let problem = "takes commands from `{}`, which must be a file or a directory";
                return Err(refusal(&problem.replace("{}", &below.display().to_string())));
            }
            let writable = step != below;
            match self.mounts.iter_mut().find(|mount| mount.below == step) {
                Some(mount) => mount.writable &= writable,
                None => self.mounts.push(WorkspaceMount { source: path, below: step.to_owned(), writable }),
            }
        }
        Ok(())
    }
}

fn refusal(problem: &str) -> String {
    format!("{problem}; accepted with `mode: bind-rw`: a workspace without it; `mode: copy` works with any")
}

/// Returns the kind of `.git` in a directory. A directory that is no repository counts as none.
fn kind(dir: &Path) -> Result<Git, String> {
    let git = dir.join(".git");
    match fs::symlink_metadata(&git) {
        Ok(metadata) if metadata.is_file() => Ok(Git::File),
        Ok(metadata) if metadata.is_dir() && fs::symlink_metadata(git.join("HEAD")).is_ok() => Ok(Git::Directory),
        Ok(metadata) if metadata.is_dir() => Ok(Git::Missing),
        Ok(_) => Err(refusal("has a `.git` that is neither a directory nor a file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Git::Missing),
        Err(error) => Err(format!("has a `.git` that cannot be read: {error}")),
    }
}

/// Returns the repository of a working tree.
fn git_dir(top: &Path) -> Result<PathBuf, String> {
    let git = top.join(".git");
    if git.is_dir() {
        return Ok(git);
    }
    let text = read(&git)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let named = text.strip_prefix("gitdir:").map(str::trim).unwrap_or_default();
    fs::canonicalize(top.join(named))
        .map_err(|error| format!("has a `.git` file whose repository cannot be resolved: {error}"))
}

/// Returns the directory that a linked worktree shares with its repository.
fn common_dir(git_dir: &Path) -> PathBuf {
    let named = fs::read_to_string(git_dir.join("commondir")).unwrap_or_default();
    fs::canonicalize(git_dir.join(named.trim())).unwrap_or_else(|_| git_dir.to_owned())
}

/// Returns the targets of links in a repository that lead to hooks or to a configuration.
fn links(git_dir: &Path) -> Vec<PathBuf> {
    let hooks = git_dir.join("hooks");
    let each = fs::read_dir(&hooks).into_iter().flatten().flatten().map(|entry| entry.path());
    let places = ["config", "config.worktree", "hooks", "info"].map(|name| git_dir.join(name)).into_iter().chain(each);
    let target = |path: PathBuf| {
        let target = fs::read_link(&path).ok()?;
        Some(fs::canonicalize(&path).unwrap_or_else(|_| plain(&git_dir.join(target))))
    };
    places.filter_map(target).collect()
}

/// Returns the files and directories that a configuration takes commands from, as far as it names them without `~`.
fn command_paths(file: &Path, top: &Path) -> Result<Vec<PathBuf>, String> {
    let text = read(file)?.unwrap_or_default();
    let options = gix_config::file::init::Options::default();
    let Ok(config) = gix_config::File::from_bytes_no_includes(&text, Metadata::api(), options) else {
        return Ok(Vec::new());
    };
    let mut paths = Vec::new();
    for section in config.sections() {
        let name = section.header().name().to_string().to_ascii_lowercase();
        for (_, key) in COMMAND_PATHS.iter().filter(|(known, _)| *known == name) {
            for value in section.values(key) {
                let value = value.to_string();
                // Paths of an include are relative to its file. Git runs the others in the working tree.
                let base = if name == "core" { top } else { file.parent().unwrap_or(top) };
                let is_switch = name == "core" && !value.contains('/') && *key == "fsmonitor";
                if !value.is_empty() && !value.starts_with('~') && !is_switch {
                    paths.push(plain(&base.join(value)));
                }
            }
        }
    }
    Ok(paths)
}

/// Returns a path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

/// Reads a file, `None` if it does not exist.
fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let mut content = Vec::new();
    match File::open(path).and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut content)) {
        Ok(length) if length as u64 > LARGEST_FILE => Err(format!("has a `{}` of more than 256 MiB", path.display())),
        Ok(_) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("has a `{}` that cannot be read: {error}", path.display())),
    }
}
