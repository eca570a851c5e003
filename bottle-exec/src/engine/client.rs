//! The client itself, and what every command to the engine has in common.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::error::{EngineError, says_not_there};
use super::info::{Capability, EngineInfo};
use crate::backend::Backend;
use crate::command::{Command, EnvValue};
use crate::control::Control;
use crate::output::Output;

/// A container engine that answered, spoken to through a [`Backend`].
///
/// ```
/// use std::sync::Arc;
/// use bottle_exec::{Control, Engine, EngineChoice, RecordingBackend};
/// let backend = Arc::new(RecordingBackend::rehearsal());
/// let engine = Engine::detect(backend.clone(), &EngineChoice::Auto, Control::default())?;
/// engine.kill("claude-bottle-pipelock-demo", "HUP")?;
/// assert_eq!(backend.lines().last().unwrap(), "docker kill --signal HUP claude-bottle-pipelock-demo");
/// # Ok::<(), bottle_exec::EngineError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Engine {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) info: Arc<EngineInfo>,
    pub(super) control: Control,
    pub(super) limits: Limits,
}

/// How long the engine's own commands may take; what runs inside a container is limited by whoever runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Questions. 30 s unless set.
    pub query: Duration,
    /// Changes: removing, creating, signalling. 2 min unless set.
    pub change: Duration,
    /// Building one image. 30 min unless set.
    pub build: Duration,
    /// What `up` may take beyond the time given to the services to become healthy (an image may have to be pulled).
    /// 10 min unless set.
    pub up: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        Self { query: Duration::from_secs(30), change: minutes(2), build: minutes(30), up: minutes(10) }
    }
}

impl Engine {
    /// What the engine is.
    pub fn info(&self) -> &EngineInfo {
        &self.info
    }

    /// The same engine with commands that another control stops; teardown takes one that was never cancelled.
    #[must_use]
    pub fn with_control(mut self, control: Control) -> Self {
        self.control = control;
        self
    }

    /// What stops this handle's commands.
    pub const fn control(&self) -> &Control {
        &self.control
    }

    /// The same engine with other limits.
    #[must_use]
    pub const fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The same engine spoken to through another backend.
    #[must_use]
    pub fn with_backend(mut self, backend: Arc<dyn Backend>) -> Self {
        self.backend = backend;
        self
    }

    /// The backend that runs the commands.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Refuses when the engine cannot give what is asked for: a protection is never silently dropped.
    ///
    /// # Errors
    ///
    /// [`EngineError::Unsupported`], or [`EngineError::Remote`] for [`Capability::LocalFiles`].
    pub fn require(&self, capability: &Capability) -> Result<(), EngineError> {
        if self.info.capabilities().has(capability) {
            return Ok(());
        }
        if *capability == Capability::LocalFiles {
            return Err(EngineError::Remote { address: self.info.endpoint.address.clone() });
        }
        Err(EngineError::Unsupported { engine: self.info.to_string(), wanted: capability.to_string() })
    }

    /// The engine's command with arguments, limited as a question is.
    pub(super) fn query<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        Command::new(&self.info.program).with_args(args).with_timeout(self.limits.query)
    }

    /// The engine's command with arguments, limited as a change is.
    pub(super) fn change<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        self.query(args).with_timeout(self.limits.change)
    }

    /// Runs a command whatever its status.
    pub(super) fn run_any(&self, command: &Command) -> Result<Output, EngineError> {
        Ok(self.backend.run(command, &self.control)?)
    }

    /// Runs a command that must succeed.
    pub(super) fn run(&self, command: &Command) -> Result<Output, EngineError> {
        Ok(self.run_any(command)?.success(command)?)
    }

    /// Runs a command that must succeed, unless what it is about is not there.
    pub(super) fn run_if_there(&self, command: &Command) -> Result<Option<Output>, EngineError> {
        let output = self.run_any(command)?;
        if !output.status.is_success() && says_not_there(&output) {
            return Ok(None);
        }
        Ok(Some(output.success(command)?))
    }
}

/// Reads what a command answered as JSON; an empty answer is read as `null`.
pub(super) fn parse<T: DeserializeOwned>(command: &Command, output: &Output) -> Result<T, EngineError> {
    let text = output.stdout.text();
    let json = if text.trim().is_empty() { "null" } else { text.trim() };
    serde_json::from_str(json).map_err(|error| EngineError::answer(command, &error.to_string(), &text))
}

/// Adds variables of a process inside a container: a plain value as `--env NAME=value`, a secret as a bare name, with
/// the value in the command's own environment.
pub(super) fn pass_env(
    mut command: Command,
    option: &str,
    env: impl IntoIterator<Item = (String, EnvValue)>,
) -> Result<Command, EngineError> {
    for (name, value) in env {
        command = match value {
            EnvValue::Plain(value) => {
                let mut setting = std::ffi::OsString::from(format!("{name}="));
                setting.push(value);
                command.with_arg(option).with_arg(setting)
            }
            EnvValue::Secret(secret) => {
                check_env_name(&name)?;
                command.with_args([option, &name]).with_env(name, secret)
            }
        };
    }
    Ok(command)
}

/// Refuses a name that the engine's own program would read for itself when it is handed on by name.
pub(super) fn check_env_name(name: &str) -> Result<(), EngineError> {
    let steers_the_client = ["DOCKER_", "COMPOSE_", "BUILDKIT_", "BUILDX_", "CONTAINER_", "LD_"];
    if name == "PATH" || name == "HOME" || steers_the_client.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(EngineError::ReservedName { name: name.to_owned() });
    }
    Ok(())
}
