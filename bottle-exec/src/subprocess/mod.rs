//! The backend that runs commands as processes of this host.

mod environment;
mod live;
mod process;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use self::environment::Environment;
use self::live::{Live, Terminal};
use self::process::{Process, Streams};
use crate::backend::Backend;
use crate::child::Child;
use crate::command::{Command, OutputPolicy, Stdin};
use crate::control::Control;
use crate::error::ExecError;
use crate::output::Output;

/// Runs commands as processes of this host.
///
/// The environment of a process contains only the host's variables on an allow list
/// ([`is_inherited`](bottle_values::environment::is_inherited)) and what the command adds. A program is searched once, in
/// the absolute directories of the host's `PATH`. Each command that is not interactive gets its own process group. A timeout or a
/// cancellation ends the whole group: SIGTERM, a grace period, SIGKILL.
///
/// ```
/// use bottle_exec::{Backend, Command, Control, Subprocess};
/// let backend = Subprocess::new([("PATH".into(), "/usr/bin:/bin".into())]);
/// let output = backend.run(&Command::new("sh").with_args(["-c", "echo hello"]), &Control::default())?;
/// assert_eq!(output.stdout.text(), "hello\n");
/// # Ok::<(), bottle_exec::ExecError>(())
/// ```
pub struct Subprocess {
    environment: Environment,
    resolved: Mutex<HashMap<OsString, PathBuf>>,
    grace: Duration,
}

impl Subprocess {
    /// Returns a backend for a host with this environment. Only variables on the allow list are kept.
    pub fn new(host: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self { environment: Environment::new(host), resolved: Mutex::default(), grace: Duration::from_secs(3) }
    }

    /// Sets the time between SIGTERM and SIGKILL for a command that must end. Default: 3 s. After a cancellation it is at
    /// most 0.4 s.
    #[must_use]
    pub const fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Returns the program's absolute path. Once found, it stays the same for the lifetime of this backend.
    fn resolve(&self, command: &Command) -> Result<PathBuf, ExecError> {
        let program = command.program();
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = resolved.get(program) {
            return Ok(path.clone());
        }
        let path = self.environment.find(program).ok_or_else(|| ExecError::NotFound {
            program: command.scrub(&program.to_string_lossy()),
            command: command.brief(),
        })?;
        resolved.insert(program.to_owned(), path.clone());
        Ok(path)
    }

    /// Returns the command for the operating system, without its streams.
    fn prepare(&self, command: &Command, control: &Control) -> Result<std::process::Command, ExecError> {
        if control.cancel().is_cancelled() {
            return Err(ExecError::Cancelled { command: command.brief() });
        }
        if command.has_secret_argument() {
            return Err(ExecError::SecretInArguments { command: command.brief() });
        }
        let mut process = std::process::Command::new(self.resolve(command)?);
        process.args(command.args()).env_clear().envs(self.environment.variables());
        process.envs(command.env().iter().map(|(name, value)| (OsStr::new(name), value.expose())));
        if let Some(cwd) = command.cwd() {
            process.current_dir(cwd);
        }
        if !command.interactive() {
            process.process_group(0);
        }
        Ok(process)
    }

    fn connect(command: &Command, process: &mut std::process::Command) -> Result<(), ExecError> {
        let failed = |doing| move |source| ExecError::Io { command: command.brief(), doing, source };
        process.stdin(match command.stdin() {
            Stdin::Null => Stdio::null(),
            Stdin::Bytes(_) => Stdio::piped(),
            Stdin::File(path) => File::open(path).map_err(failed("open standard input"))?.into(),
            Stdin::Inherit => Stdio::inherit(),
        });
        let stdout = open(command.stdout()).map_err(failed("open standard output"))?;
        let stderr = match (command.stdout(), command.stderr(), &stdout) {
            // One file for both streams: if it were opened twice, they would overwrite each other.
            (OutputPolicy::File { path, .. }, OutputPolicy::File { path: other, .. }, Target::File(file))
                if path == other =>
            {
                file.try_clone().map(Target::File)
            }
            (_, policy, _) => open(policy),
        };
        process.stdout(stdout).stderr(stderr.map_err(failed("open standard error"))?);
        Ok(())
    }

    fn start(command: &Command, mut prepared: std::process::Command) -> Result<std::process::Child, ExecError> {
        // Dropped afterwards, because it holds the files that it opened for the child.
        prepared.spawn().map_err(|source| ExecError::Spawn { command: command.brief(), source })
    }
}

impl Backend for Subprocess {
    fn run(&self, command: &Command, control: &Control) -> Result<Output, ExecError> {
        let mut prepared = self.prepare(command, control)?;
        Self::connect(command, &mut prepared)?;
        let child = Self::start(command, prepared)?;
        let streams = Streams::of(command, control);
        Process::new(child, !command.interactive(), self.grace).run(command, control, streams)
    }

    fn spawn(&self, command: &Command, control: &Control) -> Result<Child, ExecError> {
        let mut prepared = self.prepare(command, control)?;
        let terminal = match command.terminal() {
            None => {
                prepared.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
                None
            }
            Some(size) => Some(Terminal::open(size, &mut prepared).map_err(|source| ExecError::Io {
                command: command.brief(),
                doing: "open a terminal",
                source,
            })?),
        };
        let child = Self::start(command, prepared)?;
        Live::start(Process::new(child, true, self.grace), command, control, terminal)
    }

    fn process(&self, command: &Command) -> Result<std::process::Command, ExecError> {
        self.prepare(command, &Control::default())
    }
}

/// Hides values, because the address of a proxy may contain a password.
impl fmt::Debug for Subprocess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subprocess")
            .field("inherits", &self.environment.names().collect::<Vec<_>>())
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}

enum Target {
    File(File),
    Other(Stdio),
}

impl From<Target> for Stdio {
    fn from(target: Target) -> Self {
        match target {
            Target::File(file) => file.into(),
            Target::Other(stdio) => stdio,
        }
    }
}

fn open(policy: &OutputPolicy) -> io::Result<Target> {
    Ok(match policy {
        OutputPolicy::Capture { .. } | OutputPolicy::Stream => Target::Other(Stdio::piped()),
        OutputPolicy::Inherit => Target::Other(Stdio::inherit()),
        OutputPolicy::Discard => Target::Other(Stdio::null()),
        OutputPolicy::File { path, mode } => {
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(*mode).open(path)?;
            // The creation mode is subject to the umask, and an existing file keeps its mode.
            file.set_permissions(std::fs::Permissions::from_mode(*mode))?;
            Target::File(file)
        }
    })
}

#[cfg(test)]
mod tests;
