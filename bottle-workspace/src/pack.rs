//! Packing the workspace into a tar for the derived image.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bottle_files::tar::{Packer, Skipped, Source};
use bottle_plan::UserIds;
use bottle_plan::plan::WorkspacePlan;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::{DirEntry, WalkBuilder};

use crate::credentials::{self, Names};
use crate::git_config;
use crate::repository::{Kind, Repositories};

/// Name of the packed workspace in the agent's directory of the state. It is kept while the bottle runs, to find changes.
pub const PACKED: &str = "workspace.tar";

/// Summary of a packed workspace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Packed {
    /// Number of files and symbolic links.
    pub files: u64,
    /// Total size of the files in bytes.
    pub bytes: u64,
    /// Files that were left out because they usually hold credentials, relative to the workspace.
    pub credential_files: BTreeSet<PathBuf>,
    /// Keys of git configurations that were left out, such as `http.extraheader`.
    pub git_keys: BTreeSet<String>,
    /// Files of repositories and git configurations in which URLs lost their credentials, relative to the workspace.
    pub urls: BTreeSet<PathBuf>,
    /// Pipes, sockets and devices, which were left out, relative to the workspace.
    pub skipped: Skipped,
}

impl Packed {
    /// Returns a sentence that names what was left out because it may hold credentials, at most 20 of each kind.
    pub fn left_out(&self) -> Option<String> {
        let shown = |paths: &BTreeSet<PathBuf>| -> Vec<_> { paths.iter().map(|it| it.display().to_string()).collect() };
        let kinds = [
            named("files", shown(&self.credential_files).into_iter()),
            named("keys of the git configuration", self.git_keys.iter().cloned()),
            named("credentials of URLs in", shown(&self.urls).into_iter()),
        ];
        let kinds: Vec<String> = kinds.into_iter().flatten().collect();
        let hint =
            if self.credential_files.is_empty() { "" } else { "; `include_credential_files: true` copies files" };
        (!kinds.is_empty()).then(|| format!("not copied, since it may hold credentials: {}{hint}", kinds.join("; ")))
    }
}

/// Returns the first 20 names, in backticks, after `what`. `None` if there are none.
pub(crate) fn named(what: &str, names: impl ExactSizeIterator<Item = String>) -> Option<String> {
    let more = names.len().saturating_sub(20);
    let shown: Vec<String> = names.take(20).map(|name| format!("`{}`", name.escape_debug())).collect();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    (!shown.is_empty()).then(|| format!("{what} {}{more}", shown.join(", ")))
}

/// Error of packing a workspace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkspaceError {
    /// The path is not a directory.
    #[error("pack the workspace `{}`: it is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("read `{}`", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The tar cannot be written.
    #[error("write the packed workspace")]
    Write(#[source] io::Error),
}

/// Writes the workspace as a tar whose paths begin at the container's root and whose entries belong to `owner`.
///
/// Files that a `.gitignore`, `.git/info/exclude` or the workspace's `.dockerignore` excludes are left out. So are files that
/// usually hold credentials, such as `.env` and `.npmrc`, files with a private key in their first 8 MiB, and files in a repository
/// that are not git's own, unless the plan includes them. The repository itself (`.git`) is always included. Of the configuration
/// of a repository, whatever its directory is called, only keys are copied that hold no credential and name no program. URLs in
/// it, in reflogs and in messages lose their passwords. The summary names what was left out. Symbolic links are kept as links. Pipes, sockets and
/// devices are left out. Entries are sorted by name, so the same files give the same tar.
///
/// # Errors
///
/// Returns an error if the workspace is not a directory, a file cannot be read, or the tar cannot be written.
pub fn pack(plan: &WorkspacePlan, owner: UserIds, out: impl Write) -> Result<Packed, WorkspaceError> {
    let root = plan.source.as_path();
    if !root.is_dir() {
        return Err(WorkspaceError::NotADirectory { path: root.to_owned() });
    }
    let mut packing = Packing::of(plan, plan.target.as_str(), owner, out)?;
    let docker = dockerignore(root)?;
    let source = root.to_owned();
    let wanted = move |entry: &DirEntry| {
        let path = entry.path();
        let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
        let relative = path.strip_prefix(&source).unwrap_or(path);
        relative != Path::new(".git") && !docker.matched(relative, is_dir).is_ignore()
    };
    let files = WalkBuilder::new(root)
        .hidden(false)
        .ignore(false)
        .git_global(false)
        .require_git(false)
        .sort_by_file_name(Ord::cmp)
        .filter_entry(wanted)
        .build();
    packing.add_all(files)?;
    packing.repository()
}

/// Returns the rules of `.dockerignore`. Unlike those of `.gitignore`, they are anchored at the root. An exception
/// inside an excluded directory has no effect.
fn dockerignore(root: &Path) -> Result<Gitignore, WorkspaceError> {
    let path = root.join(".dockerignore");
    let mut rules = GitignoreBuilder::new("");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(WorkspaceError::Read { path, source }),
    };
    for line in String::from_utf8_lossy(&text).lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let (not, pattern) = line.strip_prefix('!').map_or(("", line), |rest| ("!", rest.trim()));
        let pattern = pattern.trim_start_matches("./").trim_matches('/');
        if !pattern.is_empty() && pattern != "." {
            // An invalid pattern excludes nothing. Docker itself would refuse to build with it.
            let added = rules.add_line(None, &format!("{not}/{pattern}"));
            added.map_err(|error| WorkspaceError::Read {
                path: path.clone(),
                source: io::Error::other(error.to_string()),
            })?;
        }
    }
    rules.build().map_err(|error| WorkspaceError::Read { path, source: io::Error::other(error.to_string()) })
}

pub(crate) struct Packing<'a, W: Write> {
    root: &'a Path,
    target: &'a str,
    /// True if files that usually hold credentials are packed.
    include: bool,
    names: Names,
    repositories: Repositories,
    tar: Packer<W>,
    packed: Packed,
}

impl<'a, W: Write> Packing<'a, W> {
    pub(crate) fn of(plan: &'a WorkspacePlan, target: &'a str, owner: UserIds, out: W) -> Result<Self, WorkspaceError> {
        let names = Names::new().map_err(|error| WorkspaceError::Read {
            path: plan.source.clone(),
            source: io::Error::other(error.to_string()),
        })?;
        // Set-user-id and its kin have no business in a workspace.
        let tar = Packer::new(out).with_owner((owner.uid, owner.gid)).without_special_bits().with_padding();
        Ok(Self {
            root: &plan.source,
            target,
            include: plan.include_credential_files,
            names,
            repositories: Repositories::default(),
            tar,
            packed: Packed::default(),
        })
    }

    /// Adds the repository, and finishes the tar.
    pub(crate) fn repository(mut self) -> Result<Packed, WorkspaceError> {
        let git = self.root.join(".git");
        if fs::symlink_metadata(&git).is_ok() {
            self.add_all(WalkBuilder::new(&git).standard_filters(false).sort_by_file_name(Ord::cmp).build())?;
        }
        self.tar.finish().map_err(WorkspaceError::Write)?;
        Ok(self.packed)
    }

    fn add_all(&mut self, walk: ignore::Walk) -> Result<(), WorkspaceError> {
        for entry in walk {
            let entry = entry.map_err(|error| {
                let path = self.root.to_owned();
                WorkspaceError::Read { path, source: io::Error::other(error.to_string()) }
            })?;
            self.add(entry.path())?;
        }
        Ok(())
    }

    fn add(&mut self, path: &Path) -> Result<(), WorkspaceError> {
        let unreadable = |source| WorkspaceError::Read { path: path.to_owned(), source };
        let relative = path.strip_prefix(self.root).unwrap_or(path);
        let name = Path::new(self.target.trim_start_matches('/')).join(relative);
        let source = match Source::open(path) {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.packed.skipped.add(relative);
                return Ok(());
            }
            Err(error) => return Err(unreadable(error)),
        };
        if source.is_directory() {
            self.repositories.add(path, relative);
            return self.tar.add(&name, &source).map_err(WorkspaceError::Write);
        }
        let kind = self.repositories.kind(relative);
        if !self.include && !matches!(kind, Kind::Data | Kind::Log) {
            let has_key = || {
                let start = source.start(credentials::SEARCHED)?;
                io::Result::Ok(credentials::has_private_key(&start))
            };
            // Most files are source, of which nothing is read here.
            let is_searched = source.is_file() && !credentials::is_source(relative);
            let is_known = kind == Kind::Foreign || self.names.has(relative);
            if is_known || is_searched && has_key().map_err(unreadable)? {
                self.packed.credential_files.insert(relative.to_owned());
                return Ok(());
            }
        }
        self.packed.files += 1;
        let rewritten = match kind {
            _ if !source.is_file() => None,
            Kind::Configuration => {
                // A configuration that git cannot parse either has nothing to keep.
                Some(git_config::reduce(&source.read().map_err(unreadable)?).unwrap_or_default())
            }
            Kind::Log => git_config::without_urls(&source.read().map_err(unreadable)?),
            Kind::Shared => git_config::reduce_if_secret(&source.read().map_err(unreadable)?),
            Kind::Data | Kind::Foreign | Kind::Other => None,
        };
        let Some(reduced) = rewritten else {
            self.packed.bytes += source.size();
            return self.tar.add(&name, &source).map_err(WorkspaceError::Write);
        };
        self.packed.git_keys.extend(reduced.left_out);
        if reduced.has_secret_url {
            self.packed.urls.insert(relative.to_owned());
        }
        self.packed.bytes += reduced.text.len() as u64;
        self.tar.add_content(&name, &source, &reduced.text).map_err(WorkspaceError::Write)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    use bottle_plan::manifest::WorkspaceMode;

    use super::*;

    fn plan_of(root: &Path, include_credential_files: bool) -> WorkspacePlan {
        WorkspacePlan {
            mode: WorkspaceMode::Copy,
            source: root.to_owned(),
            target: "/workspace".parse().unwrap(),
            include_credential_files,
        }
    }

    fn packed(root: &Path, include_credential_files: bool) -> BTreeMap<String, (u32, Vec<u8>)> {
        let plan = plan_of(root, include_credential_files);
        let mut bytes = Vec::new();
        pack(&plan, UserIds { uid: 1234, gid: 5678 }, &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let files = |entry: &tar::Entry<'_, &[u8]>| !entry.header().entry_type().is_dir();
        let entries = archive.entries().unwrap().map(Result::unwrap).filter(files).map(|mut entry| {
            assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (1234, 5678));
            let (name, mode) = (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap());
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (name, (mode, content))
        });
        entries.collect()
    }

    #[test]
    fn files_that_are_only_looked_through_arrive_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            (".gitmodules", "[submodule \"a\"]\n\tpath = a\n\turl = https://h.example/a\n"),
            (".git/HEAD", "ref: refs/heads/main\n"),
            (".git/logs/HEAD", "0 1 Me <m@h.example> 1 +0000\tcommit: Begin\n"),
            (".git/COMMIT_EDITMSG", "Begin\n"),
            (".git/FETCH_HEAD", "0\t\tbranch 'main' of https://h.example/a\n"),
        ];
        fs::create_dir_all(dir.path().join(".git/objects")).unwrap();
        fs::create_dir_all(dir.path().join(".git/refs")).unwrap();
        lay(dir.path(), &files);
        let packed = packed(dir.path(), false);
        for (name, content) in files {
            let found = &packed[&format!("workspace/{name}")].1;
            assert_eq!(String::from_utf8_lossy(found), content, "{name}");
        }
    }

    fn lay(root: &Path, files: &[(&str, &str)]) {
        for (name, content) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    #[test]
    fn ignored_files_and_credential_files_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        lay(
            dir.path(),
            &[
                (".gitignore", "target\n*.log\n!keep.log\n"),
                (".dockerignore", "# comment\nsecrets\n**/*.pem\n/build\n"),
                ("src/main.rs", "fn main() {}"),
                ("src/build/x", "kept: `/build` is anchored"),
                ("build/x", ""),
                ("target/x", ""),
                ("a.log", ""),
                ("keep.log", ""),
                ("secrets/key", ""),
                ("deep/secrets/key", "kept: .dockerignore is anchored"),
                ("deep/x.pem", ""),
                (".env", "TOKEN=1"),
                ("deep/.env.local", "TOKEN=1"),
                (".envrc", "export TOKEN=1"),
                (".npmrc", "//npm.example.com/:_authToken=1"),
                (".git/refs/heads/credentials", "kept: a branch"),
                (".git/HEAD", "ref: refs/heads/main\n"),
                (".git/info/target", "kept: inside the repository no rule counts"),
                (".git/svn/.metadata", "not git's own"),
                (".git/index.lock", "left over"),
            ],
        );
        let names: Vec<_> = packed(dir.path(), false).into_keys().collect();
        assert_eq!(
            names,
            [
                "workspace/.dockerignore",
                "workspace/.git/HEAD",
                "workspace/.git/info/target",
                "workspace/.git/refs/heads/credentials",
                "workspace/.gitignore",
                "workspace/deep/secrets/key",
                "workspace/keep.log",
                "workspace/src/build/x",
                "workspace/src/main.rs",
            ]
        );
        let with_env = packed(dir.path(), true);
        for name in
            [".env", "deep/.env.local", ".envrc", ".npmrc", ".git/svn/.metadata"].map(|it| format!("workspace/{it}"))
        {
            assert!(with_env.contains_key(&name), "{name}");
        }
    }

    #[test]
    fn modes_and_links_are_kept_and_odd_files_left_out() {
        let dir = tempfile::tempdir().unwrap();
        lay(dir.path(), &[("run.sh", "#!/bin/sh\n")]);
        fs::set_permissions(dir.path().join("run.sh"), fs::Permissions::from_mode(0o4755)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("dangling")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let long = "x".repeat(120);
        lay(dir.path(), &[(&format!("{long}/{long}"), "long")]);
        let entries = packed(dir.path(), false);
        assert_eq!(entries["workspace/run.sh"].0, 0o755);
        assert!(entries["workspace/link"].1.is_empty() && entries.contains_key("workspace/dangling"));
        assert!(!entries.contains_key("workspace/socket"));
        let plan = plan_of(dir.path(), false);
        let summary = pack(&plan, UserIds { uid: 1, gid: 1 }, io::sink()).unwrap();
        assert_eq!(
            summary.skipped.warning().unwrap(),
            "not copied, since only files, directories and links are: `socket`"
        );
        assert_eq!(entries[&format!("workspace/{long}/{long}")].1, b"long");
    }

    #[test]
    fn credentials_in_the_git_configuration_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        lay(
            dir.path(),
            &[(
                ".git/config",
                "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = https://me:hunter2@git.example/a/b.git\n\tfetch = \
                 +refs/heads/*:refs/remotes/origin/*\n[http \"https://git.example/\"]\n\textraheader = AUTHORIZATION: basic \
                 aHVudGVyMg==\n[credential]\n\thelper = store --file hunter2\n[remote \"up\"]\n\turl = \
                 git@git.example:a/b.git\n[url \"https://x:hunter2@h.example/\"]\n\tinsteadOf = h:\n",
            )],
        );
        let entries = packed(dir.path(), false);
        let config = String::from_utf8(entries["workspace/.git/config"].1.clone()).unwrap();
        assert!(!config.contains("hunter2") && !config.contains("aHVudGVyMg"), "{config}");
        assert!(config.contains("url = \"https://git.example/a/b.git\"\n"), "{config}");
        assert!(
            config.contains("url = \"git@git.example:a/b.git\"\n") && config.contains("insteadof = \"h:\""),
            "{config}"
        );
    }

    #[test]
    fn no_planted_credential_is_packed() {
        let dir = tempfile::tempdir().unwrap();
        let header = "[core]\n\tbare = false\n[http]\n\textraheader = hunter2\n[remote \"a\"]\n\turl = ssh://me:hunter2@h.example/a\n";
        let places = [
            ".git/config",
            ".git/config.worktree",
            ".git/modules/lib/config",
            ".git/modules/lib/modules/deep/config",
            ".git/worktrees/other/config.worktree",
            "vendor/thing/.git/config",
        ];
        lay(dir.path(), &places.map(|place| (place, header)));
        let files = [
            ".git/credentials",
            "vendor/thing/.git/credentials",
            ".netrc",
            "a/.npmrc",
            ".envrc",
            "prod.env",
            "a/id_rsa",
        ];
        lay(dir.path(), &files.map(|place| (place, "hunter2")));
        let entries = packed(dir.path(), false);
        assert_eq!(entries.len(), places.len(), "{:?}", entries.keys());
        for (name, (_, content)) in entries {
            let text = String::from_utf8(content).unwrap();
            assert!(!text.contains("hunter2") && text.contains("ssh://me@h.example/a"), "{name}: {text}");
        }
    }

    #[test]
    fn what_git_keeps_of_a_rebase_loses_the_passwords_of_urls() {
        let dir = tempfile::tempdir().unwrap();
        let text = "pick 1 take me:hunter2@h.example:a and https://x:hunter2@h.example/b\n";
        let places =
            [".git/rebase-merge/message", ".git/rebase-merge/git-rebase-todo", ".git/BISECT_LOG", ".git/MERGE_MSG"];
        lay(dir.path(), &places.map(|place| (place, text)));
        let entries = packed(dir.path(), false);
        for place in places {
            let (_, content) = &entries[&format!("workspace/{place}")];
            assert_eq!(
                String::from_utf8_lossy(content),
                "pick 1 take me@h.example:a and https://h.example/b\n",
                "{place}"
            );
        }
    }

    #[test]
    fn what_is_left_out_is_named_up_to_a_number() {
        let mut packed = Packed::default();
        assert_eq!(packed.left_out(), None);
        packed.git_keys.insert("http.extraheader".into());
        let keys = "not copied, since it may hold credentials: keys of the git configuration `http.extraheader`";
        assert_eq!(packed.left_out().as_deref(), Some(keys));
        packed.credential_files = (10..32).map(|number| format!("{number}/\n.env").into()).collect();
        let text = packed.left_out().unwrap();
        assert!(
            text.contains(": files `10/\\n.env`, `11/") && text.contains("`29/\\n.env` and 2 more; keys of"),
            "{text}"
        );
    }

    #[test]
    fn the_same_files_give_the_same_tar() {
        let dir = tempfile::tempdir().unwrap();
        lay(dir.path(), &[("b", "2"), ("a/c", "3"), ("a/b", "1")]);
        assert_eq!(packed(dir.path(), false), packed(dir.path(), false));
    }

    #[test]
    fn the_error_for_a_missing_workspace_names_it() {
        let plan = WorkspacePlan {
            mode: WorkspaceMode::Copy,
            source: "/nonexistent/place".into(),
            target: "/workspace".parse().unwrap(),
            include_credential_files: false,
        };
        let error = pack(&plan, UserIds { uid: 1, gid: 1 }, io::sink()).unwrap_err();
        assert_eq!(error.to_string(), "pack the workspace `/nonexistent/place`: it is not a directory");
    }
}
