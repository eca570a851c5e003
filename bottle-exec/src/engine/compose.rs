//! One Compose project.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::error::EngineError;
use super::{Capability, Engine, check_env_name, parse};
use crate::command::{Command, EnvValue, OutputPolicy};
use bottle_plan::SecretValue;

/// The label that Compose gives everything of a project; its value is the project's name.
pub const PROJECT_LABEL: &str = "com.docker.compose.project";

/// Where a project's document is, and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComposeProject {
    /// The project's name, equal to the document's own.
    pub name: String,
    /// The project directory. Never the workspace: Compose would read the `.env` there.
    pub directory: PathBuf,
    /// The document; empty where it is lost, and everything goes by the labels on the engine.
    pub file: PathBuf,
    /// The environment file; an empty one, so that no other is looked for.
    pub env_file: PathBuf,
}

impl ComposeProject {
    /// A project with `/dev/null` for its environment file.
    pub fn new(name: impl Into<String>, directory: impl Into<PathBuf>, file: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), directory: directory.into(), file: file.into(), env_file: "/dev/null".into() }
    }

    /// A project whose document is lost: what is there can still be looked at and taken down.
    pub fn by_labels(name: impl Into<String>) -> Self {
        // Compose would look for a document in the directory: in this one there is none.
        Self::new(name, "/proc/self", "")
    }
}

/// What Compose says of one service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct ServiceState {
    /// The service.
    pub service: String,
    /// Its container.
    pub name: String,
    /// `running`, `exited`, `created`, …
    pub state: String,
    /// `healthy`, `unhealthy`, `starting`, or empty without a health check.
    #[serde(default)]
    pub health: String,
    /// The status of a container that ended.
    #[serde(default)]
    pub exit_code: i64,
}

/// The commands of one project.
#[derive(Debug, Clone, Copy)]
pub struct Compose<'a> {
    engine: &'a Engine,
    project: &'a ComposeProject,
}

impl Engine {
    /// The commands of one project.
    ///
    /// # Errors
    ///
    /// [`EngineError::Unsupported`] when the engine does not compose as Docker Compose 2 does.
    pub fn compose<'a>(&'a self, project: &'a ComposeProject) -> Result<Compose<'a>, EngineError> {
        self.require(&Capability::ComposeWait)?;
        Ok(Compose { engine: self, project })
    }
}

impl Compose<'_> {
    /// Starts every service and waits until all are healthy, or running where there is no health check. The secrets are
    /// in the command's environment only, from which Compose takes the variables that the document names without a
    /// value.
    ///
    /// # Errors
    ///
    /// When a service does not become healthy within `wait`; when a secret's name is one that the client reads itself.
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

    /// Stops and removes every container and network of the project, and the volumes that its document declares. A
    /// project that is not there is no error.
    ///
    /// # Errors
    ///
    /// When something could not be removed.
    pub fn down(&self, grace: Duration) -> Result<(), EngineError> {
        let command = self
            .command("down")
            .with_args(["--volumes", "--remove-orphans", "--timeout", &seconds(grace)])
            .with_timeout(grace + self.engine.limits.change)
            .with_label("stop and remove the services");
        self.engine.run(&command).map(drop)
    }

    /// Writes what every service printed to a file of mode 0644.
    ///
    /// # Errors
    ///
    /// When the file cannot be written or the services not asked.
    pub fn logs_to(&self, file: &Path) -> Result<(), EngineError> {
        let command = self
            .command("logs")
            .with_args(["--no-color", "--timestamps"])
            .with_timeout(self.engine.limits.change)
            .with_output(OutputPolicy::File { path: file.to_owned(), mode: 0o644 })
            .with_label("save the services' logs");
        self.engine.run(&command).map(drop)
    }

    /// Hands what every service printed to the control's sink, and with `follow` goes on until it is cancelled.
    ///
    /// # Errors
    ///
    /// When the services cannot be asked; when cancelled.
    pub fn stream_logs(&self, follow: bool) -> Result<(), EngineError> {
        let mut command = self.command("logs").with_args(["--no-color", "--timestamps"]);
        if follow {
            command = command.with_arg("--follow");
        }
        self.engine.run(&command.with_output(OutputPolicy::Stream).with_label("read the services' logs")).map(drop)
    }

    /// Every service that has a container, ended ones too.
    ///
    /// # Errors
    ///
    /// When Compose cannot be asked or its answer not be understood.
    pub fn ps(&self) -> Result<Vec<ServiceState>, EngineError> {
        let command =
            self.command("ps").with_args(["--all", "--format", "json"]).with_timeout(self.engine.limits.query);
        let output = self.engine.run(&command)?;
        let text = output.stdout.text();
        // One array before Compose 2.21, one object a line since.
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

    /// The document as Compose understands it.
    ///
    /// # Errors
    ///
    /// When Compose refuses the document, with what it says of it.
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

fn with_secrets(
    command: Command,
    secrets: impl IntoIterator<Item = (String, SecretValue)>,
) -> Result<Command, EngineError> {
    secrets.into_iter().try_fold(command, |command, (name, value)| {
        check_env_name(&name)?;
        Ok(command.with_env(name, EnvValue::Secret(value)))
    })
}

/// Whole seconds, rounded up: 0 would mean no time at all to Compose.
fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    whole.to_string()
}
