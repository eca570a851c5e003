//! Files of a workspace from which a git configuration of the host takes commands.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use gix_config::file::Metadata;

use crate::git_config::names_no_program;
use crate::read::{read, refusal};

/// Most configurations that are read, and the longest chain of includes. Git ends at 10.
const MAX_FILES: usize = 200;
const MAX_DEPTH: usize = 10;
/// Most words of a command, and ends of a word, that are taken for paths.
const MAX_WORDS: usize = 32;
const MAX_SUFFIXES: usize = 256;
/// Largest configuration in bytes that is read.
const LARGEST_CONFIG: u64 = 4 << 20;

/// Keys whose value is a command, by section. A `*` stands for any key.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("alias", &["*"]),
    ("core", &["alternaterefscommand", "askpass", "editor", "fsmonitor", "gitproxy", "pager", "sshcommand"]),
    ("credential", &["helper"]),
    ("diff", &["command", "external", "textconv"]),
    ("difftool", &["cmd", "path"]),
    ("filter", &["clean", "process", "smudge"]),
    ("gpg", &["defaultkeycommand", "program"]),
    ("hook", &["command"]),
    ("interactive", &["difffilter"]),
    ("merge", &["driver"]),
    ("mergetool", &["cmd", "path"]),
    ("pager", &["*"]),
    ("sequence", &["editor"]),
    ("trailer", &["cmd", "command"]),
    ("uploadpack", &["packobjectshook"]),
];

/// The configurations of git that count for every repository of a user.
#[derive(Debug, Clone, Default)]
pub struct UserGit {
    home: PathBuf,
    files: Vec<PathBuf>,
}

impl UserGit {
    /// Returns the configurations of a user with this home directory. `variable` returns the value of an environment variable.
    pub fn new(home: &Path, variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let named = |name: &str| variable(name).filter(|path| !path.as_os_str().is_empty());
        let system = named("GIT_CONFIG_SYSTEM").map_or_else(
            || ["/etc", "/usr/local/etc", "/opt/homebrew/etc"].map(|dir| Path::new(dir).join("gitconfig")).to_vec(),
            |path| vec![path],
        );
        let global = named("GIT_CONFIG_GLOBAL").map_or_else(
            || {
                let own = named("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
                vec![own.join("git/config"), home.join(".gitconfig")]
            },
            |path| vec![path],
        );
        Self { home: home.to_owned(), files: [system, global].concat() }
    }
}

/// Search for what configurations name in a workspace.
pub(crate) struct Commands<'a> {
    user: &'a UserGit,
    /// The workspace as the user writes it, and without links.
    roots: [&'a Path; 2],
    count: usize,
    /// Paths below the workspace that must be files or directories, because git would run or read what an agent puts there.
    pub(crate) found: BTreeSet<PathBuf>,
}

impl<'a> Commands<'a> {
    /// Returns a search in a workspace, as the user writes it and without links.
    pub(crate) const fn new(user: &'a UserGit, roots: [&'a Path; 2]) -> Self {
        Self { user, roots, count: 0, found: BTreeSet::new() }
    }

    /// Reads the configurations of a repository and those of the user, for the working tree `top`. Those that they include
    /// are read, whatever the condition.
    pub(crate) fn read(&mut self, own: &[PathBuf], top: &Path) -> Result<(), String> {
        own.iter().chain(&self.user.files).try_for_each(|file| self.file(file, top, 0))
    }

    /// Reads what a repository takes commands from.
    pub(crate) fn repository(&mut self, git_dir: &Path, common: &Path, top: &Path) -> Result<(), String> {
        self.links(common);
        self.read(&[common.join("config"), git_dir.join("config.worktree")], top)
    }

    fn file(&mut self, file: &Path, top: &Path, depth: usize) -> Result<(), String> {
        let Some(text) = read(file, LARGEST_CONFIG)? else { return Ok(()) };
        self.count += 1;
        if self.count > MAX_FILES || depth > MAX_DEPTH {
            let problem =
                format!("has more than {MAX_FILES} git configurations, or {MAX_DEPTH} that include each other");
            return Err(refusal(&problem));
        }
        let options = gix_config::file::init::Options::default();
        // A configuration that is not in git's format ends every git.
        let Ok(config) = gix_config::File::from_bytes_no_includes(&text, Metadata::api(), options) else {
            return Ok(());
        };
        for section in config.sections() {
            let name = section.header().name().to_string().to_ascii_lowercase();
            let keys: BTreeSet<String> = section.value_names().map(|key| key.to_ascii_lowercase()).collect();
            for key in keys {
                for value in section.values(&key) {
                    let value = value.to_string();
                    match (name.as_str(), key.as_str()) {
                        ("include" | "includeif", "path") => {
                            // Paths of an include are relative to its file.
                            let path = self.resolved(&value, file.parent().unwrap_or(top));
                            self.must(&path);
                            self.file(&path, top, depth + 1)?;
                        }
                        ("core", "hookspath") => self.must(&self.resolved(&value, top)),
                        _ if names_no_program(&name, &key) && !value.starts_with('!') && !value.contains("::") => {}
                        _ => self.command(&name, &key, &value, top),
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds the files of the workspace that a command names. The program itself may be missing: the agent could create it.
    fn command(&mut self, section: &str, key: &str, value: &str, top: &Path) {
        let is_program =
            PROGRAMS.iter().any(|(known, keys)| *known == section && keys.iter().any(|it| *it == "*" || *it == key));
        let words = value.split(|c: char| c.is_whitespace() || "\"'`;|&<>()!=".contains(c));
        for (number, word) in words.filter(|word| !word.is_empty()).enumerate() {
            let path = self.resolved(word, top);
            let found = fs::symlink_metadata(&path);
            let may_be_created = is_program && number == 0 && word.contains('/') && !word.contains("://");
            if found.is_ok_and(|found| found.is_file() || found.is_symlink()) || may_be_created {
                self.must(&path);
            }
        }
        self.mentioned(value, top);
    }

    /// Adds the files of the workspace that a command may name in a way that only its shell understands: behind an option or an
    /// expansion, below a directory that it changes to or searches, or as a module of Python.
    fn mentioned(&mut self, value: &str, top: &Path) {
        let bare: String = value.chars().filter(|c| !"\"'\\".contains(*c)).collect();
        let words = bare.split(|c: char| c.is_whitespace() || "`;|&<>()!=:,{}".contains(c));
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).take(MAX_WORDS).collect();
        let named = words.iter().map(|word| self.resolved(word, top)).filter(|path| path.is_dir());
        let dirs: Vec<PathBuf> = named.chain([top.to_owned()]).filter(|dir| self.is_inside(dir, top)).collect();
        for dir in &dirs {
            for word in &words {
                let paths = word.char_indices().map(|(start, _)| &word[start..]).take(MAX_SUFFIXES);
                let paths = paths.filter(|path| path.len() == word.len() || path.contains('/'));
                let module = word.replace('.', "/");
                let modules = [format!("{module}.py"), format!("{module}/__main__.py")];
                let all = paths.map(str::to_owned).chain(modules);
                for path in all.map(|path| plain(&dir.join(path.trim_start_matches('/')))) {
                    if fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() || found.is_symlink()) {
                        self.must(&path);
                    }
                }
            }
        }
    }

    /// Returns true if a path is the working tree or in the workspace.
    fn is_inside(&self, path: &Path, top: &Path) -> bool {
        path == top || self.roots.iter().any(|root| path.starts_with(root))
    }

    /// Returns a path as git resolves it. `~` is the home directory.
    fn resolved(&self, path: &str, base: &Path) -> PathBuf {
        match path.strip_prefix("~/") {
            Some(rest) => plain(&self.user.home.join(rest)),
            None => plain(&base.join(path)),
        }
    }

    /// Adds a path and what it leads to, as far as it is in the workspace.
    fn must(&mut self, path: &Path) {
        let parent = path.parent().and_then(|parent| fs::canonicalize(parent).ok());
        let direct = parent.zip(path.file_name()).map(|(parent, name)| parent.join(name));
        for path in [Some(path.to_owned()), direct, fs::canonicalize(path).ok()].into_iter().flatten() {
            let below = self.roots.iter().find_map(|root| path.strip_prefix(root).ok());
            // The host's `.git` is not in the container.
            if let Some(below) = below.filter(|below| !below.as_os_str().is_empty() && !below.starts_with(".git")) {
                self.found.insert(below.to_owned());
            }
        }
    }

    /// Adds the targets of links in a repository that lead to hooks or to a configuration.
    fn links(&mut self, git_dir: &Path) {
        let hooks = git_dir.join("hooks");
        let each = fs::read_dir(&hooks).into_iter().flatten().flatten().map(|entry| entry.path());
        let places = ["config", "config.worktree", "hooks", "info"].map(|name| git_dir.join(name));
        for path in places.into_iter().chain(each) {
            if let (Ok(target), Some(parent)) = (fs::read_link(&path), path.parent()) {
                self.must(&plain(&parent.join(target)));
            }
        }
    }
}

/// Returns a path without `.` and `..`.
pub(crate) fn plain(path: &Path) -> PathBuf {
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
