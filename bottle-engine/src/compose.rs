//! A Compose project.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bottle_exec::{Command, EnvValue, ExecError, OutputPolicy, OutputSink, SecretValue, Stream};
use serde::Deserialize;

use crate::client::{Engine, check_env_name, parse, seconds};
use crate::error::EngineError;
use crate::info::Capability;

/// The label that Compose sets on every object of a project. Its value is the project's name.
pub const PROJECT_LABEL: &str = "com.docker.compose.project";

/// Label that has the key of a network in the Compose file. Compose uses a network that has it, and the project's label, as one
/// of its own.
pub const NETWORK_LABEL: &str = "com.docker.compose.network";

/// The name and the files of a Compose project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComposeProject {
    /// Name of the project, equal to the name in the Compose file.
    pub name: String,
    /// The project directory. Never the workspace: Compose would read the `.env` there.
    pub directory: PathBuf,
    /// Compose file. Empty if it is lost; then the labels on the engine are used.
    pub file: PathBuf,
    /// Environment file. Default: `/dev/null`, so that Compose looks for no other.
    pub env_file: PathBuf,
}

impl ComposeProject {
    /// Returns a project with `/dev/null` as its environment file.
    pub fn new(name: impl Into<String>, directory: impl Into<PathBuf>, file: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), directory: directory.into(), file: file.into(), env_file: "/dev/null".into() }
    }

    /// Returns a project whose Compose file is lost. It can still be listed and taken down.
    pub fn by_labels(name: impl Into<String>) -> Self {
        // Compose would look for a Compose file in the directory. This directory has none.
        Self::new(name, "/proc/self", "")
    }
}

/// The state of one service, as Compose reports it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct ServiceState {
    /// Name of the service.
    pub service: String,
    /// Name of its container.
    pub name: String,
    /// `running`, `exited`, `created`, …
    pub state: String,
    /// `healthy`, `unhealthy` or `starting`. Empty if there is no health check.
    #[serde(default)]
    pub health: String,
    /// Exit status of a container that ended.
    #[serde(default)]
    pub exit_code: i64,
}

/// The commands of a Compose project. With Podman, only those that read its logs: see [`Engine::create_each`].
#[derive(Debug, Clone, Copy)]
pub struct Compose<'a> {
    engine: &'a Engine,
    project: &'a ComposeProject,
}

impl Engine {
    /// Returns the commands of a project.
    ///
    /// # Errors
    ///
    /// [`EngineError::Unsupported`] if the engine provides neither Docker Compose 2 nor what replaces it.
    pub fn compose<'a>(&'a self, project: &'a ComposeProject) -> Result<Compose<'a>, EngineError> {
        self.require(&Capability::ComposeWait)?;
        Ok(Compose { engine: self, project })
    }
}

impl Compose<'_> {
    /// Starts every service and waits until all are healthy, or running if they have no health check. The secrets are
    /// only in the command's environment. Compose reads from there the variables that the Compose file lists without a
    /// value.
    ///
    /// # Errors
    ///
    /// Returns an error when a service does not become healthy within `wait`, or when the client itself reads a
    /// variable of a secret's name.
    pub fn up(
        &self,
        wait: Duration,
        secrets: impl IntoIterator<Item = (String, SecretValue)>,
    ) -> Result<(), EngineError> {
        let command = self
            .command("up")
            .with_args(["--detach", "--wait", "--wait-timeout", &seconds(wait), "--no-build", "--quiet-pull"])
            .with_timeout(wait + self.engine.limits.up)
            .with_output(OutputPolicy::Stream)
            .with_label("start the services");
        self.engine.run(&with_secrets(command, secrets)?).map(drop)
    }

    /// Creates the networks, the volumes and the containers of the project, and starts nothing: see
    /// [`start_all`](Engine::start_all). The secrets are only in the command's environment, as with [`up`](Self::up).
    ///
    /// # Errors
    ///
    /// Returns an error when something cannot be created, or when the client itself reads a variable of a secret's name.
    pub fn create(&self, secrets: impl IntoIterator<Item = (String, SecretValue)>) -> Result<(), EngineError> {
        let command = self
            .command("create")
            .with_args(["--no-build", "--quiet-pull"])
            .with_timeout(self.engine.limits.up)
            .with_output(OutputPolicy::Stream)
            .with_label("create the services");
        self.engine.run(&with_secrets(command, secrets)?).map(drop)
    }

    /// Stops and removes every container and network of the project, and the volumes that its Compose file declares. A
    /// project that does not exist is not an error.
    ///
    /// # Errors
    ///
    /// Returns an error when something could not be removed.
    pub fn down(&self, grace: Duration) -> Result<(), EngineError> {
        let command = self
            .command("down")
            .with_args(["--volumes", "--remove-orphans", "--timeout", &seconds(grace)])
            .with_timeout(grace + self.engine.limits.change)
            .with_label("stop and remove the services");
        self.engine.run(&command).map(drop)
    }

    /// Writes the output of every service to a file of mode 0644, as plain text: see [`PlainText`](bottle_exec::PlainText).
    ///
    /// # Errors
    ///
    /// Returns an error when the file cannot be written, or Compose fails.
    pub fn logs_to(&self, file: &Path) -> Result<(), EngineError> {
        let command = self
            .command("logs")
            .with_args(["--no-color", "--timestamps"])
            .with_timeout(self.engine.limits.change)
            .with_output(OutputPolicy::Stream)
            .with_label("save the services' logs");
        let failed = |source| ExecError::Io { command: command.brief(), doing: "save the output", source };
        let log = Arc::new(LogFile::create(file).map_err(failed)?);
        let control = self.engine.control.clone().with_sink(log.clone());
        if self.engine.is_podman() {
            self.engine.clone().with_control(control).podman_logs(&self.project.name, false)?;
        } else {
            self.engine.clone().with_control(control.with_plain_text()).run(&command)?;
        }
        Ok(log.finish().map_err(failed)?)
    }

    /// Streams the output of every service to the control's sink, as plain text. With `follow` it continues until it is
    /// cancelled or the services are gone.
    ///
    /// # Errors
    ///
    /// Returns an error when Compose fails, or the control cancels it.
    pub fn stream_logs(&self, follow: bool) -> Result<(), EngineError> {
        if self.engine.is_podman() {
            return self.engine.podman_logs(&self.project.name, follow);
        }
        let mut command = self.command("logs").with_args(["--no-color", "--timestamps"]);
        if follow {
            command = command.with_arg("--follow");
        }
        let command = command.with_output(OutputPolicy::Stream).with_label("read the services' logs");
        let control = self.engine.control.clone().with_plain_text();
        self.engine.clone().with_control(control).run(&command).map(drop)
    }

    /// Returns every service that has a container, including ended ones.
    ///
    /// # Errors
    ///
    /// Returns an error when Compose cannot be run or its output cannot be parsed.
    pub fn ps(&self) -> Result<Vec<ServiceState>, EngineError> {
        let command =
            self.command("ps").with_args(["--all", "--format", "json"]).with_timeout(self.engine.limits.query);
        let output = self.engine.run(&command)?;
        let text = output.stdout.text();
        // Compose before 2.21 prints one array, later versions print one object per line.
        if text.trim_start().starts_with('[') {
            return parse(&command, &output);
        }
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        lines
            .map(|line| {
                serde_json::from_str(line).map_err(|error| EngineError::answer(&command, &error.to_string(), line))
            })
            .collect()
    }

    /// Returns the Compose file as Compose resolves it.
    ///
    /// # Errors
    ///
    /// Returns an error with Compose's message if Compose rejects the file.
    pub fn config(&self) -> Result<serde_json::Value, EngineError> {
        let command = self.command("config").with_args(["--format", "json"]).with_timeout(self.engine.limits.query);
        let output = self.engine.run(&command)?;
        parse(&command, &output)
    }

    fn command(&self, subcommand: &str) -> Command {
        let project = self.project;
        let mut command = Command::new(&self.engine.info.program)
            .with_args(["compose", "--ansi", "never", "--progress", "plain", "--project-name", &project.name])
            .with_arg("--project-directory")
            .with_arg(&project.directory);
        if !project.file.as_os_str().is_empty() {
            command = command.with_arg("--file").with_arg(&project.file);
        }
        command.with_arg("--env-file").with_arg(&project.env_file).with_arg(subcommand)
    }
}

/// A log file that is written while its command runs. It keeps the first error.
struct LogFile(Mutex<io::Result<File>>);

impl LogFile {
    const MODE: u32 = 0o644;

    fn create(path: &Path) -> io::Result<Self> {
        // A new file, because a link in its place would lead elsewhere.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = File::options().write(true).create_new(true).mode(Self::MODE).open(path)?;
        // The creation mode is subject to the umask, and an existing file keeps its mode.
        file.set_permissions(Permissions::from_mode(Self::MODE))?;
        Ok(Self(Mutex::new(Ok(file))))
    }

    fn finish(&self) -> io::Result<()> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *file, Err(io::ErrorKind::Other.into())).map(drop)
    }
}

impl OutputSink for LogFile {
    fn write(&self, _: Stream, bytes: &[u8]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(file) = &mut *state
            && let Err(error) = file.write_all(bytes)
        {
            *state = Err(error);
        }
    }
}

fn with_secrets(
    command: Command,
    secrets: impl IntoIterator<Item = (String, SecretValue)>,
) -> Result<Command, EngineError> {
    secrets.into_iter().try_fold(command, |command, (name, value)| {
        check_env_name(&name)?;
        Ok(command.with_env(name, EnvValue::Secret(value)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_replaces_a_link_and_not_what_it_leads_to() {
        let directory = tempfile::tempdir().unwrap();
        let (log, other) = (directory.path().join("compose.log"), directory.path().join("other"));
        fs::write(&other, "kept").unwrap();
        std::os::unix::fs::symlink(&other, &log).unwrap();
        for text in ["one", "two"] {
            let file = LogFile::create(&log).unwrap();
            file.write(Stream::Stdout, text.as_bytes());
            file.finish().unwrap();
            assert_eq!((fs::read_to_string(&log).unwrap().as_str(), log.is_symlink()), (text, false));
        }
        assert_eq!(fs::read_to_string(other).unwrap(), "kept");
    }
}
