//! Launches an agent in a bottle: `cargo run --example launch -- [OPTIONS] [-- COMMAND...]`.
//!
//! Progress goes to standard error; standard output and the exit status are the command's own.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use bottle::exec::engine::Exec;
use bottle::exec::{CancelToken, Control, Event, Observer, Outcome, RecordingBackend, Stdin, Stream, Subprocess};
use bottle::plan::{AgentName, PlanRequest, Slug, StateRoot};
use bottle::{Bottle, Bottles, Engine, EngineChoice, Host, Manifest};
use clap::{Parser, ValueEnum};

/// Launch an agent in a bottle.
#[derive(Parser)]
struct Args {
    /// The manifest.
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/bottle.yaml"))]
    manifest: PathBuf,
    /// The agent; may be left out when the manifest has only one.
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// The bottle's name. Default: the agent's name and five random characters.
    #[arg(long, value_name = "SLUG")]
    slug: Option<Slug>,
    /// Where bottles keep their state.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The container engine. `rehearse` does everything but run processes.
    #[arg(long, value_enum, default_value = "auto")]
    engine: EngineArg,
    /// Leave the bottle up.
    #[arg(long)]
    keep: bool,
    /// How progress is written.
    #[arg(long, value_enum, default_value = "text")]
    events: Format,
    /// What to run in place of the agent's own command.
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

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// What went wrong, and the exit status that says so: 2 for what the user wrote, 1 for everything else.
struct Failure(u8, String);

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(status) => ExitCode::from(status),
        Err(Failure(status, message)) => {
            eprintln!("error: {message}");
            ExitCode::from(status)
        }
    }
}

fn run(args: Args) -> Result<u8, Failure> {
    let color = std::io::stderr().is_terminal();
    let reported = |error: &(dyn std::error::Error + 'static)| bottle::report(error).with_color(color).to_string();
    let wrong = |error: &(dyn std::error::Error + 'static)| Failure(2, reported(error));
    let broken = |error: &dyn std::fmt::Display| Failure(1, format!("failed to {error}"));

    let host = Host::current().map_err(|error| broken(&format!("look at the host: {error}")))?;
    let manifest = Manifest::read(&args.manifest).map_err(|error| wrong(&error))?;
    let request = PlanRequest { agent: args.agent.as_ref(), slug: args.slug.clone(), ..host.plan_request() };
    let plan = manifest.plan(request).map_err(|error| wrong(&error))?;
    bottle::check_files(&manifest, &plan).map_err(|error| wrong(&error))?;

    let cancel = on_signals().map_err(|error| broken(&format!("watch for signals: {error}")))?;
    let observer = progress(args.events);
    let (engine, rehearsal) = choose_engine(args.engine, &host, &cancel)?;
    let root = args.state_dir.map(|dir| StateRoot::at(host.facts.cwd.join(dir)));
    let root = root.unwrap_or_else(|| host.state_root());
    let state = root.bottle(plan.names.slug());
    let agent = bottle::agent_command(&plan);

    let mut bottles =
        Bottles::new(engine, host).with_state_root(root).with_observer(observer).with_cancel(cancel.clone());
    if rehearsal.is_some() {
        bottles = bottles.with_forges(Arc::new(bottle::deploy_keys::RehearsedForges));
    }
    let bottle = bottles.launch(plan).map_err(|error| {
        let log = state.compose_log();
        let hint = if log.exists() { format!("\nthe services' logs are in {}", log.display()) } else { String::new() };
        Failure(if error.is_cancelled() { 130 } else { 1 }, format!("{}{hint}", reported(&error)))
    })?;
    let asked = !args.command.is_empty();
    let exec = if args.command.is_empty() { agent } else { Exec::new(args.command) };
    let result = run_command(&bottle, exec, &cancel);
    if args.keep {
        eprintln!("bottle {} stays up; its state is in {}", bottle.slug(), state.dir().display());
        bottle.keep().map_err(|error| broken(&error))?;
    } else {
        bottle.close().map_err(|error| broken(&error))?;
    }
    if let Some(backend) = rehearsal {
        eprintln!("\nrehearsed: what an engine would have been asked, secrets redacted");
        for line in backend.lines() {
            println!("{line}");
        }
        // A caller who gave a command must not take this for its success (EX_UNAVAILABLE of sysexits.h).
        return Ok(if asked && args.engine == EngineArg::Auto { 69 } else { 0 });
    }
    result
}

/// Runs the command on our own streams: with a terminal when we have one, and else with its two outputs kept apart.
fn run_command(bottle: &Bottle, exec: Exec, cancel: &CancelToken) -> Result<u8, Failure> {
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let output = if terminal {
        bottle.exec_agent(exec, true)
    } else {
        let sink = |stream: Stream, bytes: &[u8]| {
            // A reader that went away is no reason to stop.
            let _ = match stream {
                Stream::Stdout => std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()),
                Stream::Stderr => std::io::stderr().write_all(bytes),
            };
        };
        let control = Control::cancelled_by(cancel.clone()).with_sink(Arc::new(sink));
        bottle.exec_streaming(exec.with_stdin(Stdin::Inherit), control)
    };
    match output {
        Ok(output) => Ok(u8::try_from(output.status.as_shell_code()).unwrap_or(1)),
        Err(error) => Err(Failure(if cancel.is_cancelled() { 130 } else { 1 }, format!("failed to {error}"))),
    }
}

/// A token that SIGINT, SIGTERM and SIGHUP cancel.
fn on_signals() -> std::io::Result<CancelToken> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(CancelToken::over(flag))
}

/// The engine that was asked for, or the first that answers, or a rehearsal that says so.
fn choose_engine(
    wanted: EngineArg,
    host: &Host,
    cancel: &CancelToken,
) -> Result<(Engine, Option<Arc<RecordingBackend>>), Failure> {
    let choice = match wanted {
        EngineArg::Auto | EngineArg::Rehearse => EngineChoice::Auto,
        EngineArg::Docker => EngineChoice::Program("docker".into()),
        EngineArg::Podman => EngineChoice::Program("podman".into()),
    };
    let control = Control::cancelled_by(cancel.clone());
    if wanted != EngineArg::Rehearse {
        match Engine::detect(Arc::new(Subprocess::new(host.environment())), &choice, control.clone()) {
            Ok(engine) => {
                eprintln!("engine: {}", engine.info());
                return Ok((engine, None));
            }
            Err(error) if wanted == EngineArg::Auto && !cancel.is_cancelled() => no_engine(&error.to_string()),
            Err(error) => return Err(Failure(1, format!("failed to {error}"))),
        }
    }
    let backend = Arc::new(RecordingBackend::rehearsal());
    let engine = Engine::detect(backend.clone(), &choice, control);
    Ok((engine.map_err(|error| Failure(1, format!("failed to {error}")))?, Some(backend)))
}

fn no_engine(why: &str) {
    let rule = "=".repeat(78);
    eprintln!(
        "{rule}\nNO CONTAINER ENGINE ANSWERS: NOTHING IS SEALED AND NO COMMAND IS RUN.\n\n{why}\n\n\
         Install Docker Engine 25 or later with Compose 2.20 or later\n\
         (https://docs.docker.com/engine/install/), start it, and run this again.\n\
         What follows is a rehearsal: real certificates and files, no process.\n{rule}"
    );
}

/// Writes each event to standard error.
fn progress(format: Format) -> Arc<dyn Observer> {
    let out = Mutex::new(std::io::stderr());
    Arc::new(move |event: &Event| {
        let line = match format {
            Format::Json => serde_json::to_string(event).ok(),
            Format::Text => match event {
                Event::StepFinished { step, duration, outcome } => Some(match outcome {
                    Outcome::Failed { .. } => format!("[{:>7.3} s] {step}: failed", duration.as_secs_f64()),
                    _ => format!("[{:>7.3} s] {step}", duration.as_secs_f64()),
                }),
                Event::Note { message } => Some(format!("            {message}")),
                Event::Warning { message } => Some(format!("warning: {message}")),
                _ => None,
            },
        };
        if let (Some(line), Ok(mut out)) = (line, out.lock()) {
            let _ = writeln!(out, "{line}");
        }
    })
}
