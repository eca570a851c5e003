//! Packing the workspace into a tar for the derived image.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bottle_files::tar::{Packer, Source};
use bottle_plan::UserIds;
use bottle_plan::plan::WorkspacePlan;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::{DirEntry, WalkBuilder};

/// Counts of a packed workspace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Packed {
    /// Number of files and symbolic links.
    pub files: u64,
    /// Total size of the files in bytes.
    pub bytes: u64,
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
/// Files that a `.gitignore`, `.git/info/exclude` or the workspace's `.dockerignore` excludes are left out. So is every
/// `.env` and `.env.*` file, unless the plan includes them. The repository itself (`.git`) is always included, without
/// the credentials in its configuration. Symbolic links are kept as links. Sockets and devices are left out. Entries
/// are sorted by name, so the same files give the same tar.
///
/// # Errors
///
/// Returns an error if the workspace is not a directory, a file cannot be read, or the tar cannot be written.
pub fn pack(plan: &WorkspacePlan, owner: UserIds, out: impl Write) -> Result<Packed, WorkspaceError> {
    let root = plan.source.as_path();
    if !root.is_dir() {
        return Err(WorkspaceError::NotADirectory { path: root.to_owned() });
    }
    // Set-user-id and its kin have no business in a workspace.
    let tar = Packer::new(out).with_owner((owner.uid, owner.gid)).without_special_bits().with_padding();
    let mut packing = Packing { root, target: plan.target.as_str(), tar, packed: Packed::default() };
    let docker = dockerignore(root)?;
    let (source, include_env) = (root.to_owned(), plan.include_env_files);
    let wanted = move |entry: &DirEntry| {
        let path = entry.path();
        let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
        let relative = path.strip_prefix(&source).unwrap_or(path);
        relative != Path::new(".git")
            && (include_env || is_dir || !is_env_file(entry))
            && !docker.matched(relative, is_dir).is_ignore()
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
    let git = root.join(".git");
    if fs::symlink_metadata(&git).is_ok() {
        packing.add_all(WalkBuilder::new(&git).standard_filters(false).sort_by_file_name(Ord::cmp).build())?;
    }
    packing.tar.finish().map_err(WorkspaceError::Write)?;
    Ok(packing.packed)
}

fn is_env_file(entry: &DirEntry) -> bool {
    let name = entry.file_name().as_bytes();
    name == b".env" || name.starts_with(b".env.")
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

struct Packing<'a, W: Write> {
    root: &'a Path,
    target: &'a str,
    tar: Packer<W>,
    packed: Packed,
}

impl<W: Write> Packing<'_, W> {
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
            // A socket or a device.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(()),
            Err(error) => return Err(unreadable(error)),
        };
        if source.is_directory() {
            return self.tar.add(&name, &source).map_err(WorkspaceError::Write);
        }
        self.packed.files += 1;
        if source.is_file() && relative.starts_with(".git") && relative.file_name().is_some_and(|name| name == "config")
        {
            let config = without_credentials(&source.read().map_err(unreadable)?);
            self.packed.bytes += config.len() as u64;
            return self.tar.add_content(&name, &source, &config).map_err(WorkspaceError::Write);
        }
        self.packed.bytes += source.size();
        self.tar.add(&name, &source).map_err(WorkspaceError::Write)
    }
}

/// Returns a git configuration without credentials: no passwords in URLs, extra headers or `credential` sections. The
/// agent reaches remotes only through git-gate, which needs none of them.
fn without_credentials(config: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(config.len());
    let mut in_credential = false;
    for line in config.split_inclusive(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        let trimmed = text.trim_start();
        let lower = trimmed.to_ascii_lowercase();
        if lower.starts_with('[') {
            in_credential = lower.starts_with("[credential");
        }
        let key = lower.split(['=', ' ', '\t']).next().unwrap_or_default();
        if in_credential || matches!(key, "extraheader" | "password" | "sslkey" | "cookiefile" | "proxy") {
            continue;
        }
        match without_password(&text) {
            Some(cleaned) => out.extend_from_slice(cleaned.as_bytes()),
            None => out.extend_from_slice(line),
        }
    }
    out
}

/// Returns the line without `user:password@` after `http://` or `https://`. `None` if it has no password.
fn without_password(line: &str) -> Option<String> {
    let start = line.find("://")? + 3;
    let scheme = &line[..start];
    if !scheme.ends_with("http://") && !scheme.ends_with("https://") {
        return None;
    }
    let rest = &line[start..];
    let authority = &rest[..rest.find(['/', '"', ' ', '\n', '\r']).unwrap_or(rest.len())];
    let at = authority.rfind('@')?;
    Some(format!("{scheme}{}", &rest[at + 1..]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    use bottle_plan::manifest::WorkspaceMode;

    use super::*;

    fn packed(root: &Path, include_env_files: bool) -> BTreeMap<String, (u32, Vec<u8>)> {
        let plan = WorkspacePlan {
            mode: WorkspaceMode::Copy,
            source: root.to_owned(),
            target: "/workspace".parse().unwrap(),
            include_env_files,
        };
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

    fn lay(root: &Path, files: &[(&str, &str)]) {
        for (name, content) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    #[test]
    fn ignored_files_and_env_files_are_left_out() {
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
                (".envrc", "use nix"),
                (".git/HEAD", "ref: refs/heads/main\n"),
                (".git/target", "kept: inside the repository no rule counts"),
            ],
        );
        let names: Vec<_> = packed(dir.path(), false).into_keys().collect();
        assert_eq!(
            names,
            [
                "workspace/.dockerignore",
                "workspace/.envrc",
                "workspace/.git/HEAD",
                "workspace/.git/target",
                "workspace/.gitignore",
                "workspace/deep/secrets/key",
                "workspace/keep.log",
                "workspace/src/build/x",
                "workspace/src/main.rs",
            ]
        );
        let with_env = packed(dir.path(), true);
        assert!(with_env.contains_key("workspace/.env") && with_env.contains_key("workspace/deep/.env.local"));
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
        assert!(config.contains("url = https://git.example/a/b.git\n"), "{config}");
        assert!(config.contains("url = git@git.example:a/b.git\n") && config.contains("insteadOf = h:"), "{config}");
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
            include_env_files: false,
        };
        let error = pack(&plan, UserIds { uid: 1, gid: 1 }, io::sink()).unwrap_err();
        assert_eq!(error.to_string(), "pack the workspace `/nonexistent/place`: it is not a directory");
    }
}
