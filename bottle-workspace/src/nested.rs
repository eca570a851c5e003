//! Repositories and files of editors below the root of a workspace.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ignore::{DirEntry, WalkBuilder};

use crate::read::refusal;
use crate::repository::is_repository;

/// Files and directories that editors and shells of the host take commands from.
const EDITORS: &[&str] = &[".envrc", ".idea", ".vscode"];
/// Largest number of files and directories that are looked at, and the time after which the search ends. It takes a second
/// for 200,000 files.
const MAX_ENTRIES: usize = 2_000_000;
const LONGEST_SEARCH: Duration = Duration::from_secs(30);

/// Repositories and files of editors below a workspace, relative to it.
#[derive(Debug, Default)]
pub(crate) struct Nested {
    /// The `.git` of each nested repository, linked worktree or submodule, and each bare repository.
    pub(crate) repositories: Vec<PathBuf>,
    /// Files and directories of editors.
    pub(crate) editors: Vec<PathBuf>,
}

impl Nested {
    /// Searches a workspace. Its own `.git` is left out. Links are not followed.
    pub(crate) fn search(root: &Path) -> Result<Self, String> {
        let started = Instant::now();
        let mut found = Self::default();
        let own = root.join(".git");
        // Nothing has to be found in what is protected as a whole.
        let wanted = move |entry: &DirEntry| {
            let above = entry.path().parent().and_then(Path::file_name).unwrap_or_default();
            entry.path() != own && (entry.depth() < 2 || !is_editor(above) && !is_git(above))
        };
        let walk = WalkBuilder::new(root).standard_filters(false).filter_entry(wanted).build();
        for (number, entry) in walk.enumerate() {
            if number >= MAX_ENTRIES || started.elapsed() > LONGEST_SEARCH {
                return Err(refusal(&format!(
                    "has more files than are searched for nested repositories ({MAX_ENTRIES}, or {} seconds)",
                    LONGEST_SEARCH.as_secs()
                )));
            }
            // A directory that cannot be read is not written by the agent either, which has the same user.
            let Ok(entry) = entry else { continue };
            let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
            let name = relative.file_name().unwrap_or_default();
            let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
            let is_repository = is_dir && is_repository(entry.path());
            if relative.as_os_str().is_empty() {
                if is_repository {
                    return Err(refusal("is itself a bare repository"));
                }
            } else if is_git(name) || is_repository {
                found.repositories.push(relative.to_owned());
            } else if is_editor(name) && relative.iter().all(|part| part != "node_modules") {
                // An editor opens no package.
                found.editors.push(relative.to_owned());
            }
        }
        Ok(found)
    }
}

fn is_editor(name: &OsStr) -> bool {
    EDITORS.iter().any(|known| name == *known)
}

fn is_git(name: &OsStr) -> bool {
    name.eq_ignore_ascii_case(".git")
}
