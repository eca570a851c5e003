//! Directories of git in a workspace, known by their name or by what is in them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Files of a repository, and the configurations of git elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Objects and references: neither their names nor their content are a user's.
    Data,
    /// The configuration of a repository.
    Configuration,
    /// A text in which git writes the URL of a remote.
    Log,
    /// A file of a repository that is not git's: of another program, or left over.
    Foreign,
    /// A configuration outside a repository, such as `.gitmodules`.
    Shared,
    /// Any other file.
    Other,
}

/// The repositories of a workspace as far as it was walked, relative to it.
#[derive(Debug, Default)]
pub(crate) struct Repositories(BTreeSet<PathBuf>);

impl Repositories {
    /// Looks at a directory, which must come before what is in it.
    pub(crate) fn add(&mut self, path: &Path, relative: &Path) {
        if is_repository(path) || relative.file_name().is_some_and(|name| name.eq_ignore_ascii_case(".git")) {
            self.0.insert(relative.to_owned());
        }
    }

    pub(crate) fn kind(&self, file: &Path) -> Kind {
        let name = file.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let Some(repository) = file.ancestors().skip(1).find(|above| self.0.contains(*above)) else {
            let is_shared = matches!(name.as_str(), ".gitmodules" | ".lfsconfig" | "gitconfig")
                || name.starts_with(".gitconfig")
                || [".gitconfig", ".gitmodules"].iter().any(|end| name.ends_with(end))
                || file.ends_with("git/config");
            return if is_shared { Kind::Shared } else { Kind::Other };
        };
        let inside = file.strip_prefix(repository).unwrap_or(file);
        let first = inside.iter().next().unwrap_or_default().to_string_lossy();
        let is_at_top = inside.iter().nth(1).is_none();
        if ["objects", "refs", "reftable", "rr-cache"].contains(&&*first) || inside.starts_with("lfs/objects") {
            return Kind::Data;
        }
        let is_gits = if is_at_top { is_gits_file(&name) } else { DIRECTORIES.contains(&&*first) };
        if !is_gits || Path::new(&name).extension() == Some(OsStr::new("lock")) {
            return Kind::Foreign;
        }
        let is_log = inside.parent().is_some_and(|above| above.iter().any(|part| part == OsStr::new("logs")));
        match &*first {
            "hooks" | "info" => Kind::Other,
            // Also where `modules` and `worktrees` have what git would not take for a repository.
            _ if !is_log && name.starts_with("config") => Kind::Configuration,
            _ if is_log || !BINARY.iter().any(|known| name.starts_with(known)) => Kind::Log,
            _ => Kind::Other,
        }
    }
}

/// Directories of a repository in which git itself keeps files. `lfs` has objects alone.
const DIRECTORIES: [&str; 10] = [
    "branches",
    "hooks",
    "info",
    "logs",
    "modules",
    "rebase-apply",
    "rebase-merge",
    "remotes",
    "sequencer",
    "worktrees",
];

/// Files at the top of a repository whose text is not a user's.
const BINARY: [&str; 4] = ["index", "sharedindex.", "packed-refs", "shallow"];

/// Returns true for a name, in lower case, that git gives to a file at the top of a repository.
fn is_gits_file(name: &str) -> bool {
    let known = [
        "addp-hunk-edit.diff",
        "auto_merge",
        "commondir",
        "description",
        "git-daemon-export-ok",
        "gitdir",
        "head",
        "locked",
        "merge_autostash",
        "merge_mode",
        "merge_rr",
        "notes_merge_partial",
        "notes_merge_ref",
        "squash_msg",
    ];
    known.contains(&name)
        || BINARY.iter().any(|start| name.starts_with(start))
        || matches!(name, "config" | "config.worktree")
        || name.starts_with("bisect_")
        || ["_head", "_msg", "editmsg"].iter().any(|end| name.ends_with(end))
}

/// Returns true if git would take the directory for a repository, or for that of a linked worktree.
pub(crate) fn is_repository(path: &Path) -> bool {
    let is_file = |name: &str| fs::symlink_metadata(path.join(name)).is_ok_and(|it| it.is_file() || it.is_symlink());
    is_file("HEAD") && (path.join("objects").is_dir() || is_file("commondir"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_repository_are_known_wherever_it_is() {
        let mut repositories = Repositories::default();
        for directory in [".git", "store", "lib/.git", ".git/modules/objects"] {
            repositories.0.insert(directory.into());
        }
        for (file, kind) in [
            (".git/config", Kind::Configuration),
            (".git/config.worktree", Kind::Configuration),
            (".git/config.lock", Kind::Foreign),
            (".git/config.old", Kind::Foreign),
            (".git/packed-refs", Kind::Other),
            (".git/packed-refs.lock", Kind::Foreign),
            (".git/refs/heads/x.lock", Kind::Data),
            (".git/index", Kind::Other),
            (".git/rebase-merge/message", Kind::Log),
            (".git/rebase-merge/git-rebase-todo", Kind::Log),
            (".git/sequencer/opts", Kind::Log),
            (".git/BISECT_LOG", Kind::Log),
            (".git/ADD_EDIT.patch", Kind::Foreign),
            (".git/lfs/objects/ab/cd/ef", Kind::Data),
            (".git/lfs/cache/locks/x", Kind::Foreign),
            (".git/svn/.metadata", Kind::Foreign),
            (".git/hub/x", Kind::Foreign),
            (".git/annex/creds/x", Kind::Foreign),
            (".git/sourcetreeconfig.json", Kind::Foreign),
            (".git/info/exclude", Kind::Other),
            (".git/modules/lib/config", Kind::Configuration),
            (".git/modules/objects/config", Kind::Configuration),
            ("store/config", Kind::Configuration),
            (".git/refs/heads/config", Kind::Data),
            (".git/objects/info/alternates", Kind::Data),
            (".git/logs/refs/heads/config", Kind::Log),
            (".git/worktrees/x/logs/HEAD", Kind::Log),
            ("lib/.git/FETCH_HEAD", Kind::Log),
            ("store/COMMIT_EDITMSG", Kind::Log),
            (".git/credentials", Kind::Foreign),
            (".git/hooks/config", Kind::Other),
            (".git/HEAD", Kind::Log),
            ("src/config", Kind::Other),
            ("src/logs/HEAD", Kind::Other),
            (".gitmodules", Kind::Shared),
            (".config/git/config", Kind::Shared),
        ] {
            assert_eq!(repositories.kind(Path::new(file)), kind, "{file}");
        }
    }
}
