//! Protection of the host's git and editors while an agent may write the workspace.
//!
//! `git status` runs commands that the repository's configuration names, and git finds that configuration in many ways: `.git`
//! itself, a `commondir` file in it, a nested repository that the index names. So nothing of the host's `.git` is given to the
//! agent: a private copy is mounted in its place, and a mount point can be neither removed nor renamed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};

use bottle_plan::UserIds;
use bottle_plan::plan::WorkspacePlan;
use bottle_plan::resolved::WorkspaceMount;
use ignore::WalkBuilder;

use crate::commands::{Commands, UserGit, plain};
use crate::index::submodules;
use crate::nested::Nested;
use crate::pack::{Packing, WorkspaceError};
use crate::places::{self, BARE};
use crate::read::{read, refusal};
use crate::review::Before;

/// Largest index in bytes that is read. One of a million files has 100 MB.
const LARGEST_INDEX: u64 = 256 << 20;
/// Largest `.git` file in bytes that is read.
const LARGEST_GIT_FILE: u64 = 1 << 20;
/// Most mounts in a workspace.
const MAX_MOUNTS: usize = 128;

/// Checks that the host's git can be protected from an agent that writes the workspace.
///
/// # Errors
///
/// Returns what cannot be protected and what is accepted, as text that fits behind the workspace's path.
pub fn check(plan: &WorkspacePlan, user: &UserGit) -> Result<(), String> {
    Found::inspect(&plan.source, user).map(drop)
}

/// Prepares the protection and returns the mounts that hide or protect files of the workspace.
///
/// In the place of `.git`, the agent gets a copy with a reduced configuration, which is created below `dir`. A workspace without
/// a repository gets an empty `.git` directory, which is the mount point, and an empty `HEAD`, which keeps the agent from making a
/// bare repository of it; [`leave`](crate::leave) removes them again. `dir` also
/// receives a record of what the workspace has now. Nested repositories and files of editors become read-only. So do the files
/// that a git configuration of a repository or of the user names, also one that is included.
///
/// # Errors
///
/// Returns an error if something cannot be protected, read or written.
pub fn protect(
    plan: &WorkspacePlan,
    owner: UserIds,
    dir: &Path,
    user: &UserGit,
) -> Result<Vec<WorkspaceMount>, WorkspaceError> {
    let root = plan.source.as_path();
    let failed = |problem: String| WorkspaceError::Read { path: root.to_owned(), source: io::Error::other(problem) };
    let found = Found::inspect(root, user).map_err(failed)?;
    let mut mounts =
        found.mounts(&fs::canonicalize(root).map_err(|error| failed(error.to_string()))?).map_err(failed)?;
    let repository = places::repository(dir);
    if found.git != Git::File {
        let written = |path: &Path| {
            let path = path.to_owned();
            move |source| WorkspaceError::Read { path, source }
        };
        if found.git == Git::Directory {
            copy(plan, owner, dir).map_err(written(&repository))??;
        } else {
            fs::create_dir(&repository).map_err(written(&repository))?;
            for point in places::MOUNT_POINTS.map(|name| root.join(name)).into_iter().filter(|it| is_mount_point(it)) {
                let mark = places::mark(&point, dir);
                fs::create_dir_all(&point).map_err(written(&point))?;
                fs::write(&mark, "").map_err(written(&mark))?;
            }
            if mounts.iter().all(|mount| mount.below != Path::new(BARE)) {
                mounts.push(WorkspaceMount { source: root.join(BARE), below: BARE.into(), writable: false });
            }
        }
        give(&repository, owner).map_err(written(&repository))?;
        mounts.push(WorkspaceMount { source: repository.clone(), below: ".git".into(), writable: true });
    }
    Before::of(root, &repository).write(dir).map_err(WorkspaceError::Write)?;
    Ok(mounts)
}

/// Returns true if a path is free for a mount point, or is one of another bottle.
fn is_mount_point(path: &Path) -> bool {
    match fs::read_dir(path) {
        Ok(mut entries) => {
            entries.all(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with(places::MARK)))
        }
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Copies the repository, without credentials and commands.
fn copy(plan: &WorkspacePlan, owner: UserIds, dir: &Path) -> io::Result<Result<(), WorkspaceError>> {
    let path = dir.join("repository.tar");
    let mut tar = File::options().read(true).write(true).create_new(true).open(&path)?;
    let packed = Packing::of(plan, "/", owner, BufWriter::new(&mut tar)).and_then(Packing::repository);
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
    /// Paths below the workspace that become read-only.
    paths: BTreeSet<PathBuf>,
}

impl Found {
    fn inspect(source: &Path, user: &UserGit) -> Result<Self, String> {
        let root = fs::canonicalize(source).map_err(|error| format!("cannot be resolved: {error}"))?;
        let nested = Nested::search(&root)?;
        let mut commands = Commands::new(user, [&root, source]);
        let git = kind(&root)?;
        let mut found = Self { git, paths: BTreeSet::new() };
        let mut repositories = BTreeSet::new();
        if git == Git::File {
            found.paths.insert(".git".into());
        }
        // Without a repository of its own, the workspace can be a directory of one.
        if let Some(top) = root.ancestors().find(|top| matches!(kind(top), Ok(Git::Directory | Git::File))) {
            let git_dir = git_dir(top)?;
            let common = common_dir(&git_dir);
            for dir in [&git_dir, &common] {
                if git != Git::Directory && dir.starts_with(&root) {
                    return Err(refusal(&format!(
                        "has its repository at `{}`, where the agent could write",
                        dir.display()
                    )));
                }
            }
            let index = read(&git_dir.join("index"), LARGEST_INDEX)?.unwrap_or_default();
            for path in submodules(&index)? {
                if top.join(&path).starts_with(&root) {
                    let problem =
                        format!("has the submodule `{}`, whose `.git` the agent could replace", path.display());
                    return Err(refusal(&problem));
                }
            }
            commands.repository(&git_dir, &common, top)?;
            repositories.extend([git_dir, common]);
        }
        if git == Git::Missing && fs::symlink_metadata(root.join(BARE)).is_ok() {
            found.paths.insert(BARE.into());
        }
        // Whoever has no repository yet may create one.
        commands.read(&[], &root)?;
        for below in nested.repositories {
            let path = root.join(&below);
            // A `.git` belongs to the directory that it is in, a bare repository has no working tree.
            let is_git = below.file_name().is_some_and(|name| name.eq_ignore_ascii_case(".git"));
            let top = if is_git { path.parent().unwrap_or(&path) } else { &path };
            found.paths.insert(below);
            let git_dir = if path.is_dir() { path.clone() } else { named_by(&path)? };
            let common = common_dir(&git_dir);
            for dir in [&git_dir, &common] {
                if let Some(inside) = dir.strip_prefix(&root).ok().filter(|inside| !inside.starts_with(".git")) {
                    found.paths.insert(inside.to_owned());
                }
            }
            commands.repository(&git_dir, &common, top)?;
            repositories.extend([git_dir, common]);
        }
        found.paths.extend(nested.editors);
        found.paths.extend(commands.found.iter().map(|below| hidden(below).to_owned()));
        found.check_hard_links(&root, &repositories)?;
        found.mounts(&root)?;
        Ok(found)
    }

    /// Checks that no file of the workspace is, under another name, one that the agent must not write.
    fn check_hard_links(&self, root: &Path, repositories: &BTreeSet<PathBuf>) -> Result<(), String> {
        let linked = |dir: &Path, is_wanted: fn(&str) -> bool| {
            let mut walk = WalkBuilder::new(dir);
            let is_wanted =
                move |entry: &ignore::DirEntry| entry.depth() == 0 || is_wanted(&entry.file_name().to_string_lossy());
            walk.standard_filters(false).filter_entry(is_wanted);
            walk.build().flatten().filter_map(|entry| {
                let metadata = fs::symlink_metadata(entry.path()).ok()?;
                let is_linked = metadata.is_file() && metadata.nlink() > 1;
                is_linked.then(|| ((metadata.dev(), metadata.ino()), entry.into_path()))
            })
        };
        // Git itself links the objects of clones on one disk.
        let of_git = repositories.iter().flat_map(|dir| linked(dir, |name| !["objects", "lfs"].contains(&name)));
        let of_others = self.paths.iter().flat_map(|below| linked(&root.join(below), |_| true));
        let protected: BTreeMap<(u64, u64), PathBuf> = of_git.chain(of_others).collect();
        if protected.is_empty() {
            return Ok(());
        }
        let is_protected = |path: &Path| {
            let below = path.strip_prefix(root).unwrap_or(path);
            below.starts_with(".git") || self.paths.iter().any(|protected| below.starts_with(protected))
        };
        let mut others = linked(root, |_| true).filter(|(_, path)| !is_protected(path));
        let other = others.find_map(|(file, path)| Some((path, protected.get(&file)?)));
        other.map_or(Ok(()), |(path, protected)| {
            let problem = format!("has `{}`, another name of `{}` (a hard link)", path.display(), protected.display());
            Err(refusal(&problem))
        })
    }

    /// Returns a read-only mount for each path. A parent directory could be renamed, so each is mounted over itself.
    fn mounts(&self, root: &Path) -> Result<Vec<WorkspaceMount>, String> {
        let mut mounts: Vec<WorkspaceMount> = Vec::new();
        let is_protected = |step: &Path| self.paths.contains(step);
        for below in &self.paths {
            if below.ancestors().skip(1).any(is_protected) {
                continue;
            }
            let mut steps: Vec<&Path> = below.ancestors().filter(|step| !step.as_os_str().is_empty()).collect();
            steps.reverse();
            for step in steps {
                let path = root.join(step);
                let metadata = fs::symlink_metadata(&path);
                if !metadata.is_ok_and(|metadata| metadata.is_dir() || metadata.is_file()) {
                    let problem = "takes commands from `{}`, which must be a file or a directory";
                    return Err(refusal(&problem.replace("{}", &below.display().to_string())));
                }
                if mounts.iter().all(|mount| mount.below != step) {
                    mounts.push(WorkspaceMount { source: path, below: step.to_owned(), writable: step != below });
                }
            }
            if mounts.len() > MAX_MOUNTS {
                let problem = format!(
                    "has {} nested repositories, files of editors and programs that git starts, which with the directories above \
                     them are more than {MAX_MOUNTS} mounts",
                    self.paths.len()
                );
                return Err(refusal(&problem));
            }
        }
        Ok(mounts)
    }
}

/// Returns the path that becomes read-only with a program. What is hidden by convention holds nothing that an agent has to
/// write, and hooks call each other.
fn hidden(below: &Path) -> &Path {
    let first = below.components().next().map_or(below, |first| Path::new(first.as_os_str()));
    if first.to_string_lossy().starts_with('.') { first } else { below }
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
    let named = named_by(&git)?;
    fs::canonicalize(named).map_err(|error| format!("has a `.git` file whose repository cannot be resolved: {error}"))
}

/// Returns the repository that a `.git` file names. It may be missing.
fn named_by(file: &Path) -> Result<PathBuf, String> {
    let text = read(file, LARGEST_GIT_FILE)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let named = text.strip_prefix("gitdir:").map(str::trim).unwrap_or_default();
    let path = file.parent().unwrap_or(file).join(named);
    Ok(fs::canonicalize(&path).unwrap_or_else(|_| plain(&path)))
}

/// Returns the directory that a linked worktree shares with its repository.
fn common_dir(git_dir: &Path) -> PathBuf {
    let named = fs::read_to_string(git_dir.join("commondir")).unwrap_or_default();
    fs::canonicalize(git_dir.join(named.trim())).unwrap_or_else(|_| git_dir.to_owned())
}
