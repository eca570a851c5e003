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
        let part = |name: &str| inside.parent().is_some_and(|above| above.iter().any(|part| part == OsStr::new(name)));
        let first = inside.iter().next().unwrap_or_default();
        if ["objects", "refs", "lfs", "rr-cache"].iter().any(|data| first == *data) {
            return Kind::Data;
        }
        let is_log = part("logs") || first == "remotes" || first == "branches";
        if is_log || name == "fetch_head" || name.ends_with("_msg") || name.ends_with("editmsg") {
            return Kind::Log;
        }
        if name.starts_with("config") && first != "hooks" { Kind::Configuration } else { Kind::Other }
    }
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
            (".git/config.lock", Kind::Configuration),
            (".git/modules/lib/config", Kind::Configuration),
            (".git/modules/objects/config", Kind::Configuration),
            ("store/config", Kind::Configuration),
            (".git/refs/heads/config", Kind::Data),
            (".git/objects/info/alternates", Kind::Data),
            (".git/logs/refs/heads/config", Kind::Log),
            (".git/worktrees/x/logs/HEAD", Kind::Log),
            ("lib/.git/FETCH_HEAD", Kind::Log),
            ("store/COMMIT_EDITMSG", Kind::Log),
            (".git/credentials", Kind::Other),
            (".git/hooks/config", Kind::Other),
            (".git/HEAD", Kind::Other),
            ("src/config", Kind::Other),
            ("src/logs/HEAD", Kind::Other),
            (".gitmodules", Kind::Shared),
            (".config/git/config", Kind::Shared),
        ] {
            assert_eq!(repositories.kind(Path::new(file)), kind, "{file}");
        }
    }
}
