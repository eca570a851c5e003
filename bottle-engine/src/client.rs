//! The engine client, and what all its commands have in common.

use std::sync::Arc;
use std::time::Duration;

use bottle_exec::{Backend, Command, Control, EnvValue, Output, steers_the_engine};
use serde::de::DeserializeOwned;

use crate::error::{EngineError, says_not_there};
use crate::info::{Capability, EngineInfo};

/// A client for a container engine that answered. Its commands run on a [`Backend`].
///
/// ```
/// use std::sync::Arc;
/// use bottle_engine::{Engine, EngineChoice};
/// use bottle_exec::Control;
/// let backend = Arc::new(bottle_engine::rehearsal());
/// let engine = Engine::detect(backend.clone(), &EngineChoice::Auto, Control::default())?;
/// engine.kill("claude-bottle-pipelock-demo", "HUP")?;
/// assert_eq!(backend.lines().last().unwrap(), "docker kill --signal HUP claude-bottle-pipelock-demo");
/// # Ok::<(), bottle_engine::EngineError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) info: Arc<EngineInfo>,
    pub(crate) control: Control,
    pub(crate) limits: Limits,
}

/// The timeouts of the engine's own commands. The caller limits what runs inside a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Queries. Default: 30 s.
    pub query: Duration,
    /// Changes: remove, create, signal. Default: 2 min.
    pub change: Duration,
    /// Building one image. Default: 30 min.
    pub build: Duration,
    /// Additional time for `up` beyond the time for the services to become healthy, since an image may have to be
    /// pulled. Default: 10 min.
    pub up: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        Self { query: Duration::from_secs(30), change: minutes(2), build: minutes(30), up: minutes(10) }
    }
}

impl Engine {
    /// Returns the description of the engine.
    pub fn info(&self) -> &EngineInfo {
        &self.info
    }

    /// Returns the same engine with another control for its commands. Teardown uses one that was never cancelled.
    #[must_use]
    pub fn with_control(mut self, control: Control) -> Self {
        self.control = control;
        self
    }

    /// Returns the control of this handle's commands.
    pub const fn control(&self) -> &Control {
        &self.control
    }

    /// Returns the same engine with other timeouts.
    #[must_use]
    pub const fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Returns the same engine on another backend.
    #[must_use]
    pub fn with_backend(mut self, backend: Arc<dyn Backend>) -> Self {
        self.backend = backend;
        self
    }

    /// Returns the backend that runs the commands.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Returns an error if the engine does not have the capability, so that a protection is never silently dropped.
    ///
    /// # Errors
    ///
    /// [`EngineError::Unsupported`], or [`EngineError::Remote`] for [`Capability::Files`].
    pub fn require(&self, capability: &Capability) -> Result<(), EngineError> {
        if self.info.capabilities().has(capability) {
            return Ok(());
        }
        if *capability == Capability::Files {
            return Err(EngineError::Remote { address: self.info.endpoint.address.clone() });
        }
        Err(EngineError::Unsupported { engine: self.info.to_string(), wanted: capability.to_string() })
    }

    /// Returns an engine command with the timeout of a query.
    pub(crate) fn query<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        Command::new(&self.info.program).with_args(args).with_timeout(self.limits.query)
    }

    /// Returns an engine command without a timeout.
    pub(crate) fn unbounded<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        Command::new(&self.info.program).with_args(args)
    }

    /// Returns an engine command with the timeout of a change.
    pub(crate) fn change<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        self.query(args).with_timeout(self.limits.change)
    }

    /// Runs a command and accepts any status.
    pub(crate) fn run_any(&self, command: &Command) -> Result<Output, EngineError> {
        Ok(self.backend.run(command, &self.control)?)
    }

    /// Runs a command that must succeed.
    pub(crate) fn run(&self, command: &Command) -> Result<Output, EngineError> {
        Ok(self.run_any(command)?.success(command)?)
    }

    /// Runs a command that must succeed. Returns `None` if its object does not exist.
    pub(crate) fn run_if_there(&self, command: &Command) -> Result<Option<Output>, EngineError> {
        let output = self.run_any(command)?;
        if !output.status.is_success() && says_not_there(&output) {
            return Ok(None);
        }
        Ok(Some(output.success(command)?))
    }
}

/// Parses the output of a command as JSON. Empty output is parsed as `null`.
pub(crate) fn parse<T: DeserializeOwned>(command: &Command, output: &Output) -> Result<T, EngineError> {
    let text = output.stdout.text();
    let json = if text.trim().is_empty() { "null" } else { text.trim() };
    serde_json::from_str(json).map_err(|error| EngineError::answer(command, &error.to_string(), &text))
}

/// Adds environment variables for a process inside a container: a plain value as `--env NAME=value`, a secret as `--env
/// NAME` with the value in the command's own environment.
pub(crate) fn pass_env(
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

/// Rejects the name of a secret that the engine's own client would read as well.
pub(crate) fn check_env_name(name: &str) -> Result<(), EngineError> {
    if steers_the_engine(name) {
        return Err(EngineError::ReservedName { name: name.to_owned() });
    }
    Ok(())
}

/// Returns whole seconds, rounded up. Compose would read 0 as no time at all.
pub(crate) fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    whole.to_string()
}
