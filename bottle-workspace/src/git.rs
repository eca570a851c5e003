//! Git on this host, for what came out of a bottle.

use std::path::{Path, PathBuf};

use bottle_exec::{Backend, Command, Control, OutputPolicy, Stdin};

use crate::work_error::{WorkError, WorkLimits};

/// Memory of a git process in KiB, so that a small pack cannot become a large one. Not on macOS, which has no such limit.
const MEMORY: u64 = 4 << 20;

/// Settings of every call. Nothing that git reads from a repository, or finds in objects, starts a program.
const SETTINGS: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    // Larger files are not compared line by line.
    "core.bigFileThreshold=8m",
    "fetch.fsckObjects=true",
    "fetch.recurseSubmodules=false",
    "fetch.writeCommitGraph=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.allow=never",
    "protocol.file.allow=always",
    "submodule.recurse=false",
];

/// Runs git without the configuration of anybody.
#[derive(Debug)]
pub struct Git<'a> {
    backend: &'a dyn Backend,
    control: &'a Control,
    limits: &'a WorkLimits,
    /// Private directory, also the home directory of git.
    dir: tempfile::TempDir,
}

impl<'a> Git<'a> {
    /// Returns a git whose files are in a new private directory below `scratch`. The backend must run commands on this host.
    ///
    /// # Errors
    ///
    /// Returns an error if the directory cannot be created.
    pub fn new(
        backend: &'a dyn Backend,
        control: &'a Control,
        limits: &'a WorkLimits,
        scratch: &Path,
    ) -> Result<Self, WorkError> {
        let failed = |source| WorkError::Write { path: scratch.to_owned(), source };
        let dir = tempfile::Builder::new().prefix(".work-").tempdir_in(scratch).map_err(failed)?;
        Ok(Self { backend, control, limits, dir })
    }

    /// Returns the path of a file in the private directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) const fn limits(&self) -> &WorkLimits {
        self.limits
    }

    /// Creates an empty repository in the private directory and returns its path.
    pub(crate) fn init(&self) -> Result<PathBuf, WorkError> {
        let path = self.path("repository");
        self.run(
            "create a repository",
            &self.command(None).with_args(["init", "--quiet", "--bare", "--template="]).with_arg(&path),
        )?;
        Ok(path)
    }

    /// Returns a git command that reads no configuration but that of the repository, if there is one.
    pub(crate) fn command(&self, repository: Option<&Path>) -> Command {
        self.user_command(repository.unwrap_or(self.dir.path()))
            .with_env("GIT_CONFIG_NOSYSTEM", "1")
            .with_env("GIT_CONFIG_GLOBAL", "/dev/null")
            .with_env("HOME", self.dir.path().as_os_str().to_owned())
            .with_env("XDG_CONFIG_HOME", self.dir.path().as_os_str().to_owned())
    }

    /// Returns a git command for a user's own repository, with the configuration of that user.
    pub(crate) fn user_command(&self, repository: &Path) -> Command {
        let bytes = self.limits.taken.saturating_mul(2).div_ceil(512);
        // The shell only sets the limits. `-f` counts blocks of 512 bytes, and of 1024 in some shells.
        let script = format!("ulimit -v {MEMORY} 2>/dev/null; ulimit -f {bytes}; exec \"$@\"");
        let mut command = Command::new("sh").with_args(["-c", &script, "sh", "git"]);
        for setting in SETTINGS {
            command = command.with_args(["-c", setting]);
        }
        command
            .with_arg("-C")
            .with_arg(repository)
            .with_cwd(self.dir.path())
            .with_env("GIT_ATTR_NOSYSTEM", "1")
            .with_env("GIT_NO_REPLACE_OBJECTS", "1")
            .with_env("GIT_TERMINAL_PROMPT", "0")
            .with_env("LC_ALL", "C")
            .with_stdin(Stdin::Null)
            .with_timeout(self.limits.time)
    }

    /// Runs a command that must succeed, and returns the beginning and the end of what it printed.
    pub(crate) fn run(&self, doing: &'static str, command: &Command) -> Result<String, WorkError> {
        let output = self.backend.run(&command.clone().with_label("run git for the work"), self.control);
        let output = output.map_err(WorkError::Run)?;
        if output.status.is_success() {
            return Ok(output.stdout.text());
        }
        let said = gist(&output.stderr.last_lines(usize::MAX));
        let said = if said.is_empty() { format!("it ended with {}", output.status) } else { said };
        Err(WorkError::Git { doing, said })
    }

    /// Runs a command that writes a file, and returns its path.
    pub(crate) fn write(&self, doing: &'static str, command: Command, name: &str) -> Result<PathBuf, WorkError> {
        let path = self.path(name);
        self.run(doing, &command.with_stdout(OutputPolicy::File { path: path.clone(), mode: 0o600 }))?;
        Ok(path)
    }
}

/// Returns the lines from git's first error on, at most eight: the advice comes after it. Without an error, the last three.
fn gist(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.iter().position(|line| line.starts_with("error") || line.starts_with("fatal:"));
    let from = first.unwrap_or(lines.len().saturating_sub(3));
    lines[from..].iter().take(8).copied().collect::<Vec<_>>().join("\n")
}
