//! Runs a bottle's commands somewhere else. `cargo run --example swap_backend -- ssh HOST` runs them by ssh on another
//! host. `… -- container IMAGE` runs each in a new container that has the engine's client.
//!
//! Without `--run` it rehearses: it prints the command lines and needs no engine. `--check` runs the conformance suite
//! on the backend instead of launching.
//!
//! The engine mounts a bottle's files from its own host, wherever the commands run. With ssh that is `HOST`. The state
//! directory must exist there under the same path, as in a shared home directory. The library cannot check this,
//! because it sees the engine's socket as `HOST` does.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bottle::exec::{
    Backend, Child, ChildProcess, Command, Control, ExecError, ExitStatus, Output, OutputPolicy, RecordingBackend,
    Stdin, Subprocess, TerminalSize,
};
use bottle::plan::StateRoot;
use bottle::{Bottles, Engine, EngineChoice, Host, Verify};
use clap::{Parser, Subcommand};

/// Run a bottle's commands somewhere else.
#[derive(Parser)]
struct Args {
    /// Run the commands instead of printing them.
    #[arg(long, global = true)]
    run: bool,
    /// Run the conformance suite on the backend.
    #[arg(long, global = true)]
    check: bool,
    #[command(subcommand)]
    place: Place,
}

/// Place in which commands run.
#[derive(Clone, Debug, Subcommand)]
enum Place {
    /// On another host. Its sshd must accept the variables that the manifest names (`AcceptEnv`).
    Ssh {
        /// Host name, as for ssh.
        host: String,
        /// Additional arguments of ssh.
        #[arg(last = true)]
        options: Vec<String>,
    },
    /// Each in a new container of an image that has the engine's client.
    Container {
        /// The image.
        image: String,
    },
}

/// A backend that wraps every command and passes it to another backend.
#[derive(Debug)]
struct Elsewhere {
    place: Place,
    /// State directory, mounted into the container under the same path so that the client sees the Compose file.
    state: PathBuf,
    here: Arc<Subprocess>,
    /// Backend for a rehearsal. `None`: the commands run.
    rehearsal: Option<RecordingBackend>,
}

impl Backend for Elsewhere {
    fn run(&self, command: &Command, control: &Control) -> Result<Output, ExecError> {
        // A random number that identifies the call, so that a lost connection's command can be found and stopped.
        let call = RandomState::new().build_hasher().finish();
        let wrapped = self.place.wrap(command, call, &self.state);
        if let Some(rehearsal) = &self.rehearsal {
            say(&format!("{wrapped}\n"));
            return rehearsal.run(command, control);
        }
        if command.has_secret_argument() {
            return Err(ExecError::SecretInArguments { command: command.to_string() });
        }
        let result = self.here.run(&wrapped, control);
        if matches!(result, Err(ExecError::TimedOut { .. } | ExecError::Cancelled { .. })) && !command.interactive() {
            // The wrapped command may still run after the wrapper has ended.
            let stop = self.place.stop(call).with_timeout(Duration::from_secs(10));
            _ = self.here.run(&stop.with_output(OutputPolicy::Discard), &Control::default());
        }
        result
    }

    fn spawn(&self, command: &Command, control: &Control) -> Result<Child, ExecError> {
        let call = RandomState::new().build_hasher().finish();
        // Not empty, so that the wrapper passes on what is written.
        let command = command.clone().with_stdin(Stdin::Bytes(Vec::new()));
        let wrapped = self.place.wrap(&command, call, &self.state);
        if let Some(rehearsal) = &self.rehearsal {
            say(&format!("{wrapped}\n"));
            return rehearsal.spawn(&command, control);
        }
        if command.has_secret_argument() {
            return Err(ExecError::SecretInArguments { command: command.to_string() });
        }
        let mut inner = self.here.spawn(&wrapped, control)?;
        let (stdin, stdout, stderr) = (inner.stdin.take(), inner.stdout.take(), inner.stderr.take());
        let there = There { inner, stop: self.place.stop(call), here: Arc::clone(&self.here), is_over: false };
        Ok(Child::new(stdin, stdout, stderr, Box::new(there)))
    }
}

/// A live command at the other place.
#[derive(Debug)]
struct There {
    /// The wrapper.
    inner: Child,
    /// Stops the wrapped command, which may still run after the wrapper has ended.
    stop: Command,
    here: Arc<Subprocess>,
    is_over: bool,
}

impl There {
    fn stop(&mut self) {
        if !std::mem::replace(&mut self.is_over, true) {
            let stop = self.stop.clone().with_timeout(Duration::from_secs(10)).with_output(OutputPolicy::Discard);
            _ = self.here.run(&stop, &Control::default());
        }
    }
}

impl ChildProcess for There {
    fn wait(&mut self) -> Result<ExitStatus, ExecError> {
        let result = self.inner.wait();
        if result.is_err() {
            self.stop();
        }
        self.is_over = true;
        result
    }

    fn try_wait(&mut self) -> Result<Option<ExitStatus>, ExecError> {
        let status = self.inner.try_wait()?;
        self.is_over |= status.is_some();
        Ok(status)
    }

    fn kill(&mut self) -> Result<(), ExecError> {
        self.stop();
        self.inner.kill()
    }

    fn resize(&mut self, size: TerminalSize) -> Result<(), ExecError> {
        self.inner.resize(size)
    }
}

impl Drop for There {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Place {
    /// Returns the wrapped command. It passes variables by name; their values are only in the wrapper's environment.
    fn wrap(&self, command: &Command, call: u64, state: &std::path::Path) -> Command {
        let program = command.program().to_string_lossy();
        let args = command.args().iter().map(|arg| arg.to_string_lossy());
        let mut words = std::iter::once(program).chain(args).map(String::from);
        let names = command.env().keys();
        let mut outer: Vec<String> = Vec::new();
        match self {
            Self::Ssh { host, options } => {
                outer.extend(["ssh", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"].map(ToOwned::to_owned));
                outer.extend(names.flat_map(|name| ["-o".to_owned(), format!("SendEnv={name}")]));
                outer.extend(options.iter().cloned());
                if has_terminal(command) {
                    outer.push("-tt".to_owned());
                }
                outer.extend([host.clone(), "--".to_owned()]);
                let cwd =
                    command.cwd().map_or_else(String::new, |cwd| format!("cd {} && ", quoted(&cwd.to_string_lossy())));
                let line = words.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ");
                // A process that the command left running would keep the connection open.
                outer.push(format!(
                    "echo $$ >/tmp/bottle-{call}; ({cwd}{line}); s=$?; rm -f /tmp/bottle-{call}; trap '' TERM; kill 0; exit $s"
                ));
            }
            Self::Container { image } => {
                outer.extend(["docker", "run", "--rm", "--init", "--network", "none"].map(ToOwned::to_owned));
                outer.extend(["--name".to_owned(), format!("bottle-call-{call}")]);
                let state = state.display();
                for bind in ["/var/run/docker.sock:/var/run/docker.sock".to_owned(), format!("{state}:{state}")] {
                    outer.extend(["--volume".to_owned(), bind]);
                }
                outer.extend(names.flat_map(|name| ["--env".to_owned(), name.clone()]));
                if let Some(cwd) = command.cwd() {
                    outer.extend(["--workdir".to_owned(), cwd.to_string_lossy().into_owned()]);
                }
                if *command.stdin() != Stdin::Null {
                    outer.push("--interactive".to_owned());
                }
                if has_terminal(command) {
                    outer.push("--tty".to_owned());
                }
                let program = words.next().unwrap_or_default();
                outer.extend(["--entrypoint".to_owned(), program, image.clone()]);
                outer.extend(words);
            }
        }
        let mut outer = outer.into_iter();
        let wrapper = Command::new(outer.next().unwrap_or_default()).with_args(outer).with_label(command.label());
        same_surroundings(wrapper, command)
    }

    /// Returns the command that stops a call that is still running there.
    fn stop(&self, call: u64) -> Command {
        match self {
            Self::Ssh { host, options } => {
                let script = format!("kill -9 -- -$(cat /tmp/bottle-{call}); rm -f /tmp/bottle-{call}");
                let options = options.iter().map(String::as_str);
                let args = ["-o", "BatchMode=yes"].into_iter().chain(options).chain([host.as_str(), "--", &script]);
                Command::new("ssh").with_args(args)
            }
            Self::Container { .. } => {
                Command::new("docker").with_args(["rm", "--force", &format!("bottle-call-{call}")])
            }
        }
    }
}

/// Returns the wrapper with the input, outputs, variables and timeout of the wrapped command.
fn same_surroundings(wrapper: Command, command: &Command) -> Command {
    let mut wrapper = wrapper
        .with_envs(command.env().iter().map(|(name, value)| (name.clone(), value.clone())))
        .with_stdin(command.stdin().clone())
        .with_stdout(command.stdout().clone())
        .with_stderr(command.stderr().clone());
    if let Some(limit) = command.timeout() {
        wrapper = wrapper.with_timeout(limit);
    }
    if let Some(size) = command.terminal() {
        wrapper = wrapper.with_terminal(size);
    }
    if command.interactive() { wrapper.with_interactive() } else { wrapper }
}

/// Returns true if the command has a terminal here, so that it needs one there.
fn has_terminal(command: &Command) -> bool {
    command.terminal().is_some() || command.interactive() && command.args().iter().any(|arg| arg == "--tty")
}

/// Quotes a text as one word of a shell.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Prints a text. A reader that went away is no reason to stop.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(status, message)) => {
            let _ = writeln!(std::io::stderr(), "error: {message}");
            ExitCode::from(status)
        }
    }
}

/// Exit status (2 for a mistake in the manifest) and report.
struct Failure(u8, String);

fn run(args: &Args) -> Result<(), Failure> {
    fn text(error: &(dyn std::error::Error + 'static)) -> Failure {
        Failure(1, bottle::report(error).to_string())
    }
    fn wrong(error: &(dyn std::error::Error + 'static)) -> Failure {
        Failure(2, bottle::report(error).to_string())
    }
    let host = Host::current().map_err(|error| text(&bottle::Error::Host(error)))?;
    // A rehearsal writes real certificates, so it gets its own directory.
    let scratch = tempfile::tempdir().map_err(|error| text(&error))?;
    let root = if args.run { host.state_root() } else { StateRoot::at(scratch.path()) };
    let backend = Arc::new(Elsewhere {
        place: args.place.clone(),
        state: root.path().to_owned(),
        here: Arc::new(Subprocess::new(host.environment())),
        rehearsal: (!args.run && !args.check).then(bottle::exec::rehearsal),
    });
    if args.check {
        let violations = bottle::conformance::check(&*backend).err().unwrap_or_default();
        for violation in &violations {
            let _ = writeln!(std::io::stderr(), "{violation}");
        }
        let kept = if violations.is_empty() { "every rule is kept" } else { "not every rule is kept" };
        say(&format!("{kept}\n"));
        return if violations.is_empty() { Ok(()) } else { Err(Failure(1, "failed to conform".to_owned())) };
    }
    let engine = Engine::detect(backend, &EngineChoice::Program("docker".into()), Control::default());
    let engine = engine.map_err(|error| text(&error))?;
    // A rehearsal runs no probe that could report.
    let level = if args.run { Verify::default() } else { Verify::Off };
    let bottles = Bottles::new(engine, host).with_state_root(root).with_verification(level);
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/bottle.yaml");
    let plan = bottles.host().read_plan(manifest, &bottles).map_err(|error| wrong(&error))?;
    let bottle = bottles.launch(plan).map_err(|error| text(&error))?;
    let output = bottle.exec(["id"]).map_err(|error| text(&error))?;
    say(&output.stdout_text());
    bottle.close().map(drop).map_err(|error| text(&error))
}
