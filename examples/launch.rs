//! Launches an agent in a bottle: `cargo run --example launch -- [OPTIONS] [-- COMMAND...]`.
//!
//! Progress goes to standard error; standard output and the exit status are the command's own. If standard
//! output cannot be written, the command is stopped; the status is 141 if nobody reads it any more, as after `| head`.
//!
//! The first Ctrl-C stops the launch or the command and takes the bottle down. A second one stops the teardown too;
//! `cargo run --example bottles -- down SLUG` then removes what is left.

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bottle::exec::engine::Exec;
use bottle::exec::{CancelToken, Control, Event, Observer, Outcome, RecordingBackend, Stdin, Stream, Subprocess};
use bottle::launch::LaunchCause;
use bottle::plan::value::Subnets;
use bottle::plan::{AgentName, PlanRequest, Slug, StateRoot};
use bottle::{Bottle, Bottles, Engine, EngineChoice, EngineError, EventLog, Forward, ForwardSpec, Host, Verify};
use bottle_progress::StepDisplay;
use clap::{Parser, ValueEnum};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Launch an agent in a bottle.
#[derive(Parser)]
struct Args {
    /// The manifest.
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/bottle.yaml"))]
    manifest: PathBuf,
    /// The agent. May be omitted if the manifest has only one.
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// The bottle's name. Default: the agent's name and five random characters.
    #[arg(long, value_name = "SLUG")]
    slug: Option<Slug>,
    /// Directory of the bottles' state.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The container engine. `rehearse` does everything except running processes.
    #[arg(long, value_enum, default_value = "auto")]
    engine: EngineArg,
    /// Docker Engine, such as `ssh://user@host`, `tcp://host:2376` or `context://NAME`. Default: that of the environment.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "engine")]
    host: Option<String>,
    /// Private networks from which the bottle's networks take their subnets, with commas between them, or `engine`.
    #[arg(long, value_name = "CIDR,...|engine", default_value_t)]
    subnets: Subnets,
    /// Leave the bottle up.
    #[arg(long)]
    keep: bool,
    /// Write what changed in a copied workspace as a patch for `git apply`. If that fails, the bottle is left up.
    #[arg(long, value_name = "FILE")]
    patch: Option<PathBuf>,
    /// Show a port of the agent's loopback on 127.0.0.1 of this host, at a free port or at LOCAL. Can be repeated.
    #[arg(long, value_name = "[LOCAL:]PORT")]
    forward: Vec<ForwardSpec>,
    /// Format of progress and errors on standard error. With `json` it holds JSON lines only: the command's output
    /// there becomes events too.
    #[arg(long, value_enum, default_value = "text")]
    events: Format,
    /// Also write progress as JSON lines to a file, or to an open file descriptor if it is a number. If that fails, a
    /// warning is printed once, and a status of 0 becomes 1.
    #[arg(long, value_name = "FILE|FD")]
    events_file: Option<String>,
    /// Command to run in place of the agent's own.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EngineArg {
    Auto,
    Docker,
    Podman,
    Rehearse,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// An error and its exit status: 2 for a mistake in the manifest or the arguments, 130 after Ctrl-C, 1 for everything
/// else.
struct Failure(u8, String);

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if error.use_stderr() && wants_json() => {
            let message = error.to_string();
            EventLog::new(std::io::stderr()).event(&Event::Error { message, status: 2 });
            return ExitCode::from(2);
        }
        Err(error) => error.exit(),
    };
    let console = match Console::new(args.events, args.events_file.as_deref()) {
        Ok(console) => Arc::new(console),
        Err(error) => {
            let message = format!("failed to open the events file: {error}");
            Console::of(args.events).fail(2, &message);
            return ExitCode::from(2);
        }
    };
    if args.events == Format::Text {
        let shown = Arc::clone(&console);
        std::thread::spawn(move || shown.steps.follow(|line| shown.line(line)));
    }
    match run(args, &console) {
        Ok(0) if console.file_error().is_some() => ExitCode::FAILURE,
        Ok(status) => ExitCode::from(status),
        Err(Failure(status, message)) => {
            console.fail(status, &message);
            ExitCode::from(status)
        }
    }
}

/// Returns true if the arguments ask for JSON, even if other arguments are invalid.
fn wants_json() -> bool {
    let args: Vec<_> = std::env::args_os().take_while(|arg| arg != "--").collect();
    args.iter().any(|arg| arg == "--events=json")
        || args.windows(2).any(|pair| pair[0] == "--events" && pair[1] == "json")
}

fn run(args: Args, console: &Arc<Console>) -> Result<u8, Failure> {
    let color = args.events == Format::Text && std::io::stderr().is_terminal();
    let reported = |error: &(dyn std::error::Error + 'static)| bottle::report(error).with_color(color).to_string();
    let wrong = |error: &(dyn std::error::Error + 'static)| Failure(2, reported(error));
    let (cancel, abort) = on_signals().map_err(|error| Failure(1, format!("failed to watch for signals: {error}")))?;
    let broken = |error: &(dyn std::error::Error + 'static)| {
        Failure(if cancel.is_cancelled() { 130 } else { 1 }, reported(error))
    };

    let host = Host::current().map_err(|error| broken(&bottle::Error::Host(error)))?;
    let request = PlanRequest { agent: args.agent.as_ref(), slug: args.slug.clone(), ..host.plan_request() };
    let plan = host.read_plan(&args.manifest, request).map_err(|error| wrong(&error))?;

    let root = args.state_dir.map(|dir| StateRoot::at(host.facts.cwd.join(dir)));
    let root = root.unwrap_or_else(|| host.state_root());
    let state = root.bottle(plan.names.slug());
    console.set_bottle(plan.names.slug().as_str(), state.dir());
    let control = Control::cancelled_by(cancel.clone()).with_abort(abort);
    let (wanted, at) = match &args.host {
        Some(address) => (EngineArg::Docker, &host.with_docker(address)),
        None => (args.engine, &host),
    };
    let (engine, rehearsal) = choose_engine(wanted, at, &control, console)?;
    let agent = bottle::agent_command(&plan);

    let mut bottles = Bottles::new(engine, host)
        .with_state_root(root)
        .with_observer(console.clone())
        .with_cancel(cancel.clone())
        .with_subnets(args.subnets);
    if rehearsal.is_some() {
        let forges = Arc::new(bottle::deploy_keys::RehearsedForges);
        bottles = bottles.with_forges(forges).with_verification(Verify::Off);
    }
    let bottle = bottles.launch(plan).map_err(|error| {
        let log = state.compose_log();
        let hint = if log.exists() { format!("\nthe services' logs are in {}", log.display()) } else { String::new() };
        let status = match &*error.cause {
            _ if cancel.is_cancelled() => 130,
            // The engine lacks what the manifest asks for.
            LaunchCause::Manifest(_) => 2,
            _ => 1,
        };
        Failure(status, format!("{}{hint}", reported(&error)))
    })?;
    if rehearsal.is_none() {
        bottle.watch_health(console.clone());
    }
    let specs = args.forward.into_iter().filter(|_| rehearsal.is_none());
    let forwards: Vec<Forward> =
        specs.map(|spec| bottle.forward(spec)).collect::<Result<_, _>>().map_err(|error| broken(&error))?;
    let asked = !args.command.is_empty();
    let exec = if args.command.is_empty() { agent } else { Exec::new(args.command) };
    let result = run_command(&bottle, exec, &control, console);
    drop(forwards);
    let patch = args.patch.filter(|_| rehearsal.is_none());
    let taken = patch.map_or(Ok(()), |file| bottle.write_patch(&file));
    if args.keep || taken.is_err() {
        console.note(&format!("bottle {} stays up; its state is in {}", bottle.slug(), state.dir().display()));
        bottle.keep().map_err(|error| broken(&error))?;
        taken.map_err(|error| broken(&error))?;
    } else {
        if rehearsal.is_none() {
            match bottle.work_left() {
                Ok(Some(left)) => console.note(&left),
                Ok(None) => {}
                Err(error) => console.note(&format!("what changed in the workspace is not known: {error}")),
            }
        }
        bottle.close().map_err(|error| broken(&error))?;
    }
    if let Some(backend) = rehearsal {
        console.note("\nrehearsed: what an engine would have been asked, secrets redacted");
        let mut out = std::io::stdout().lock();
        for line in backend.lines() {
            // A closed output must not stop the program.
            let _ = writeln!(out, "{line}");
        }
        // A caller who gave a command must not mistake this for its success (EX_UNAVAILABLE of sysexits.h).
        return Ok(if asked && args.engine == EngineArg::Auto { 69 } else { 0 });
    }
    result
}

/// Runs the command on our own streams: with a terminal if we have one, otherwise with separate output streams.
fn run_command(bottle: &Bottle, exec: Exec, control: &Control, console: &Arc<Console>) -> Result<u8, Failure> {
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let lost: Arc<Mutex<Option<std::io::Error>>> = Arc::default();
    let output = if terminal {
        bottle.exec_agent(exec, true)
    } else {
        let (out, first, cancel) = (console.clone(), Arc::clone(&lost), control.cancel().clone());
        let sink = move |stream: Stream, bytes: &[u8]| match stream {
            Stream::Stdout => {
                if let Err(error) = std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()) {
                    first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    cancel.cancel();
                }
            }
            Stream::Stderr => out.command_error(bytes),
        };
        let control = control.clone().with_sink(Arc::new(sink));
        bottle.exec_streaming(exec.with_stdin(Stdin::Inherit), control)
    };
    console.end_of_command();
    match lost.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // As a shell reports a program that SIGPIPE has ended.
        Some(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(141),
        Some(error) => return Err(Failure(1, format!("failed to write standard output: {error}"))),
        None => {}
    }
    match output {
        Ok(_) if control.cancel().is_cancelled() => Ok(130),
        Ok(output) => Ok(u8::try_from(output.status.as_shell_code()).unwrap_or(1)),
        Err(error) => {
            let report = bottle::report(&error).to_string();
            Err(Failure(if control.cancel().is_cancelled() { 130 } else { 1 }, report))
        }
    }
}

/// Returns a token that the first SIGINT, SIGTERM or SIGHUP cancels, and one that a second SIGINT or SIGTERM cancels,
/// which stops the teardown too. A terminal that closes may send several SIGHUPs, which must not stop the teardown.
fn on_signals() -> std::io::Result<(CancelToken, CancelToken)> {
    let (cancel, abort) = (CancelToken::new(), CancelToken::new());
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let tokens = (cancel.clone(), abort.clone());
    std::thread::spawn(move || {
        let mut seen = Vec::new();
        for signal in signals.forever() {
            tokens.0.cancel();
            if signal != SIGHUP && seen.contains(&signal) {
                tokens.1.cancel();
            }
            seen.push(signal);
        }
    });
    Ok((cancel, abort))
}

/// Returns the requested engine, or the first that answers. Without an engine, prints a notice and returns a rehearsal.
fn choose_engine(
    wanted: EngineArg,
    host: &Host,
    control: &Control,
    console: &Console,
) -> Result<(Engine, Option<Arc<RecordingBackend>>), Failure> {
    let choice = match wanted {
        EngineArg::Auto | EngineArg::Rehearse => EngineChoice::Auto,
        EngineArg::Docker => EngineChoice::Program("docker".into()),
        EngineArg::Podman => EngineChoice::Program("podman".into()),
    };
    let cancel = control.cancel();
    let failed =
        |error: EngineError| Failure(if cancel.is_cancelled() { 130 } else { 1 }, bottle::report(&error).to_string());
    if wanted != EngineArg::Rehearse {
        match Engine::detect(Arc::new(Subprocess::new(host.environment())), &choice, control.clone()) {
            Ok(engine) => {
                console.note(&format!("engine: {}", engine.info()));
                return Ok((engine, None));
            }
            Err(error) if wanted == EngineArg::Auto && !cancel.is_cancelled() => {
                console.note(&no_engine(&bottle::exec::chain(&error)));
            }
            Err(error) => return Err(failed(error)),
        }
    }
    let backend = Arc::new(bottle::exec::rehearsal());
    let engine = Engine::detect(backend.clone(), &choice, control.clone());
    Ok((engine.map_err(failed)?, Some(backend)))
}

fn no_engine(why: &str) -> String {
    let rule = "=".repeat(78);
    format!(
        "{rule}\nNO CONTAINER ENGINE ANSWERS: NOTHING IS SEALED AND NO COMMAND IS RUN.\n\n{why}\n\n\
         Install Docker Engine 25 or later with Compose 2.20 or later\n\
         (https://docs.docker.com/engine/install/), start it, and run this again.\n\
         What follows is a rehearsal: real certificates and files, no process.\n{rule}"
    )
}

/// Output of progress and errors. Write errors are ignored: a closed terminal must not keep a bottle up.
struct Console {
    format: Format,
    /// JSON on standard error.
    stderr: Option<EventLog>,
    /// JSON in the events file.
    file: Option<EventLog>,
    /// True after the warning that the file cannot be written.
    has_warned: AtomicBool,
    /// Bytes of the command's standard error since the last newline.
    rest: Mutex<Vec<u8>>,
    steps: StepDisplay,
}

impl Console {
    fn of(format: Format) -> Self {
        let stderr = (format == Format::Json).then(|| EventLog::new(std::io::stderr()));
        let steps = StepDisplay::new(format == Format::Text && std::io::stderr().is_terminal());
        Self { format, stderr, file: None, has_warned: AtomicBool::default(), rest: Mutex::default(), steps }
    }

    fn new(format: Format, file: Option<&str>) -> std::io::Result<Self> {
        let mut this = Self::of(format);
        if let Some(file) = file {
            let is_number = file.bytes().all(|byte| byte.is_ascii_digit());
            let path = if is_number { format!("/dev/fd/{file}") } else { file.to_owned() };
            let mut options = std::fs::File::options();
            options.append(true).create(!is_number);
            let opened =
                options.open(&path).map_err(|error| std::io::Error::new(error.kind(), format!("`{file}`: {error}")));
            this.file = Some(EventLog::new(opened?));
        }
        Ok(this)
    }

    fn set_bottle(&self, slug: &str, state_dir: &Path) {
        self.logs().for_each(|log| log.set_bottle(slug, state_dir));
    }

    fn logs(&self) -> impl Iterator<Item = &EventLog> {
        self.stderr.iter().chain(&self.file)
    }

    /// Returns the error that ended the events file. `None` also if its reader has left and wants no more events.
    fn file_error(&self) -> Option<ErrorKind> {
        self.file.as_ref().and_then(EventLog::error).filter(|error| *error != ErrorKind::BrokenPipe)
    }

    fn note(&self, message: &str) {
        self.line(message);
        self.log(&Event::Note { message: message.trim().to_owned() });
    }

    fn fail(&self, status: u8, message: &str) {
        self.line(&format!("error: {message}"));
        self.log(&Event::Error { message: message.to_owned(), status });
    }

    /// Shows what the command printed to standard error: as it is, or as events.
    fn command_error(&self, bytes: &[u8]) {
        if self.format == Format::Text {
            let _ = std::io::stderr().write_all(bytes);
            return;
        }
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        rest.extend_from_slice(bytes);
        while let Some(at) = rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=at).collect();
            self.output(&line[..at]);
        }
    }

    fn end_of_command(&self) {
        let rest = std::mem::take(&mut *self.rest.lock().unwrap_or_else(PoisonError::into_inner));
        if !rest.is_empty() {
            self.output(&rest);
        }
    }

    fn output(&self, line: &[u8]) {
        self.log(&Event::Output { stream: Stream::Stderr, line: String::from_utf8_lossy(line).into_owned() });
    }

    fn line(&self, line: &str) {
        if self.format == Format::Text {
            self.steps.print(line);
        }
    }

    fn log(&self, event: &Event) {
        self.logs().for_each(|log| log.event(event));
        if let Some(error) = self.file_error().filter(|_| !self.has_warned.swap(true, Ordering::Relaxed)) {
            let message = format!("failed to write the events file: {error}; it has no later events");
            self.line(&format!("warning: {message}"));
            self.log(&Event::Warning { message });
        }
    }
}

impl Observer for Console {
    fn event(&self, event: &Event) {
        self.log(event);
        self.steps.event(event);
        match event {
            Event::StepFinished { step, duration, outcome } => {
                let failed = if matches!(outcome, Outcome::Failed { .. }) { ": failed" } else { "" };
                self.line(&format!("[{:>7.3} s] {step}{failed}", duration.as_secs_f64()));
            }
            Event::Note { message } => self.line(&format!("            {message}")),
            Event::Warning { message } => self.line(&format!("warning: {message}")),
            Event::ForwardOpened { port, address } => {
                self.line(&format!("            port {port} of the agent is at {address}"));
            }
            Event::Limit { state, .. } => self.line(&format!("warning: {state}")),
            Event::ServiceChanged { service, is_up, state } => {
                self.line(&format!("{}{service} {state}", if *is_up { "            " } else { "warning: " }));
            }
            _ => {}
        }
    }
}
