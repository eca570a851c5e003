//! Lists and manages running bottles: `cargo run --example bottles -- list`. `--help` shows the other commands.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bottle::exec::engine::Exec;
use bottle::exec::{CancelToken, Control, Event, Outcome, OutputSink, Stdin, Stream, Subprocess};
use bottle::lifecycle::{Activity, Status};
use bottle::plan::{Prefix, Slug, StateRoot};
use bottle::{Bottles, Engine, EngineChoice, Host, ServiceHealth, Verify};
use clap::{Parser, Subcommand};
use rustix::event::{PollFd, PollFlags};

/// List and manage bottles.
#[derive(Parser)]
struct Args {
    /// Directory of the bottles' state.
    #[arg(long, value_name = "DIR", global = true)]
    state_dir: Option<PathBuf>,
    /// Prefix of every bottle's name on the engine.
    #[arg(long, value_name = "PREFIX", default_value_t, global = true)]
    prefix: Prefix,
    /// The engine's program. Default: the first that answers.
    #[arg(long, value_name = "PROGRAM", default_value = "auto", global = true)]
    engine: EngineChoice,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Show every bottle that was not completely removed.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Also show the image of every service: its reference and its id.
        #[arg(long)]
        images: bool,
    },
    /// Show what a bottle may do, and the ids of its images.
    Posture {
        /// The bottle.
        slug: Slug,
    },
    /// Show the logs of a bottle's services, also of a bottle that was taken down.
    Logs {
        /// Follow the logs until the bottle is down.
        #[arg(short, long)]
        follow: bool,
        /// The bottle.
        slug: Slug,
    },
    /// Explain every refusal, with the manifest's line that would allow it.
    Why {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// The bottle.
        slug: Slug,
    },
    /// Print the smallest `egress` of a manifest that covers what the bottle used, and how it changes what it may do.
    Suggest {
        /// The bottle.
        slug: Slug,
    },
    /// Attack a bottle, and show whether each of its protections holds. The status is 1 if one does not.
    Verify {
        /// Leave out the attacks that take seconds.
        #[arg(long)]
        quick: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// The bottle.
        slug: Slug,
    },
    /// Run a command in the agent's container. Default: the agent's own command.
    Exec {
        /// The bottle.
        slug: Slug,
        /// The command.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Copy a file or a directory into a directory: `cp FILE SLUG:DIRECTORY` or `cp SLUG:FILE DIRECTORY`.
    Cp {
        /// Source: a path, or `SLUG:PATH`.
        from: String,
        /// Destination: a directory, or `SLUG:DIRECTORY`.
        to: String,
    },
    /// Stop every container of a bottle. Its files stay, and `start` brings it back.
    Stop {
        /// The bottle.
        slug: Slug,
    },
    /// Start a bottle that was stopped, or that ended with its engine or machine. Credentials come from this environment.
    Start {
        /// The bottle.
        slug: Slug,
    },
    /// Suspend a bottle's agent.
    Pause {
        /// The bottle.
        slug: Slug,
    },
    /// Resume a bottle's agent.
    Resume {
        /// The bottle.
        slug: Slug,
    },
    /// Remove bottles.
    Down {
        /// Slugs of the bottles.
        #[arg(required = true)]
        slugs: Vec<Slug>,
    },
    /// Take down every bottle whose launcher is gone.
    Recover,
    /// Remove cached images of other versions and the state of closed bottles.
    Prune {
        /// Only show what would be removed.
        #[arg(long)]
        dry_run: bool,
    },
}

fn main() -> ExitCode {
    let cancel = match on_signals() {
        Ok(cancel) => cancel,
        Err(error) => {
            complain(&format!("error: failed to watch for signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let output = Output { cancel: cancel.clone(), reader_left: Arc::default() };
    let result = run(Args::parse(), &cancel, &output);
    if output.reader_left.load(Ordering::Relaxed) {
        return ExitCode::from(BROKEN_PIPE);
    }
    match result {
        Ok(status) => ExitCode::from(status),
        Err(message) => {
            let status = if cancel.is_cancelled() { 130 } else { 1 };
            complain(&format!("error: failed to {message}"));
            ExitCode::from(status)
        }
    }
}

fn run(args: Args, cancel: &CancelToken, output: &Output) -> Result<u8, String> {
    let host = Host::current().map_err(|error| text(bottle::Error::Host(error)))?;
    let backend = Arc::new(Subprocess::new(host.environment()));
    // The first Ctrl-C also stops a teardown. The next `down` removes what is left.
    let control = Control::cancelled_by(cancel.clone()).with_abort(cancel.clone());
    let engine = Engine::detect(backend, &args.engine, control).map_err(text)?;
    let mut site = Bottles::new(engine, host.clone()).with_prefix(args.prefix).with_observer(Arc::new(progress));
    if let Some(dir) = args.state_dir {
        site = site.with_state_root(StateRoot::at(host.facts.cwd.join(dir)));
    }
    match args.action {
        Action::List { json, images } => list(&site, json, images),
        Action::Posture { slug } => {
            say(site.posture(&slug).map_err(text)?.to_string().trim_end());
            Ok(0)
        }
        Action::Logs { follow, slug } => {
            if follow {
                output.watch_reader();
            }
            site.logs(&slug, follow, Arc::new(output.clone())).map_err(text)?;
            Ok(0)
        }
        Action::Why { json, slug } => why(&site, &slug, json),
        Action::Suggest { slug } => {
            say(site.suggest(&slug).map_err(text)?.to_string().trim_end());
            Ok(0)
        }
        Action::Verify { quick, json, slug } => verify(&site, &slug, quick, json),
        // The first Ctrl-C stops the command, and then the processes that it started in the container.
        Action::Exec { slug, command } => exec(&site, &slug, command, output),
        Action::Cp { from, to } => copy(&site, &from, &to),
        Action::Stop { slug } => site.stop(&slug).map(|()| 0).map_err(text),
        Action::Start { slug } => site.start(&slug).map(|_| 0).map_err(text),
        Action::Pause { slug } => site.pause(&slug).map(|()| 0).map_err(text),
        Action::Resume { slug } => site.resume(&slug).map(|()| 0).map_err(text),
        Action::Down { slugs } => down(&site, &slugs, cancel),
        Action::Prune { dry_run } => {
            let report = if dry_run { site.prunable() } else { site.prune() }.map_err(text)?;
            for (what, all) in [("image", &report.images), ("state", &report.states)] {
                for pruned in all {
                    say(&format!("{what} {}: {} KiB", pruned.name, pruned.bytes.div_ceil(1024)));
                }
            }
            let verb = if dry_run { "would remove" } else { "removed" };
            say(&format!("{verb} {} MiB, shared layers included", report.bytes().div_ceil(1 << 20)));
            report.problems.iter().for_each(|problem| complain(&format!("warning: {problem}")));
            Ok(u8::from(!report.problems.is_empty()))
        }
        Action::Recover => {
            let report = site.recover().map_err(text)?;
            for (what, slugs) in [("live", &report.live), ("kept", &report.kept)] {
                for slug in slugs {
                    say(&format!("{slug}: left alone, {what}"));
                }
            }
            report.foreign.iter().for_each(|(slug, foreign)| say(&format!("{slug}: left alone, {foreign}")));
            report.recovered.iter().for_each(|(slug, report)| say(&format!("{slug}: {report}")));
            report.problems.iter().for_each(|problem| complain(&format!("warning: {problem}")));
            Ok(u8::from(!report.is_clean()))
        }
    }
}

fn list(site: &Bottles, json: bool, images: bool) -> Result<u8, String> {
    let bottles = site.list().map_err(text)?;
    if json {
        say(&serde_json::to_string_pretty(&bottles).map_err(text)?);
        return Ok(0);
    }
    say(&format!("{:<32} {:<16} {:<10} {:<9} SERVICES", "BOTTLE", "AGENT", "STATUS", "OWNER"));
    for (slug, bottle) in bottles {
        let is_stopped = bottle.activity == Some(Activity::Stopped);
        let status = match (bottle.status, bottle.activity) {
            (Some(Status::Ready | Status::Kept), Some(activity)) if activity != Activity::Running => {
                activity.to_string()
            }
            (Some(status), _) => format!("{status:?}").to_lowercase(),
            (None, _) => "no state".to_owned(),
        };
        let owner = if bottle.is_owned { "alive" } else { "gone" };
        let agent = bottle.agent.unwrap_or_default();
        let up = bottle.services.iter().filter(|service| service.is_up()).count();
        let services = format!("{up} of {} up", bottle.services.len());
        say(&format!("{:<32} {agent:<16} {status:<10} {owner:<9} {services}", slug.as_str()));
        let is_shown = |service: &&ServiceHealth| (!service.is_up() && !is_stopped) || service.restarts > 0;
        for service in bottle.services.iter().filter(is_shown) {
            say(&format!("    {service}"));
        }
        for forward in &bottle.forwards {
            say(&format!("    port {} of the agent is at {}", forward.port, forward.address));
        }
        for service in bottle.services.iter().filter(|_| images) {
            if let Some(image) = &service.image {
                say(&format!("    {}: {image}", service.service));
            }
        }
    }
    Ok(0)
}

fn why(site: &Bottles, slug: &Slug, json: bool) -> Result<u8, String> {
    let refusals = site.refusals(slug).map_err(text)?;
    if json {
        say(&serde_json::to_string_pretty(&refusals).map_err(text)?);
    } else if refusals.is_empty() {
        say("nothing was refused");
    }
    refusals.iter().filter(|_| !json).for_each(|refusal| say(&refusal.to_string()));
    Ok(0)
}

fn verify(site: &Bottles, slug: &Slug, quick: bool, json: bool) -> Result<u8, String> {
    let level = if quick { Verify::Quick } else { Verify::Full };
    let found = site.attach(slug).and_then(|bottle| bottle.verify(level)).map_err(text)?;
    say(&if json { serde_json::to_string_pretty(&found).map_err(text)? } else { found.to_string() });
    Ok(u8::from(!found.holds()))
}

/// Runs a command: at the terminal if there is one, otherwise with separate output streams.
fn exec(site: &Bottles, slug: &Slug, command: Vec<String>, output: &Output) -> Result<u8, String> {
    let bottle = site.attach(slug).map_err(text)?;
    let exec = if command.is_empty() { bottle.agent() } else { Some(Exec::new(command)) };
    let exec = exec.ok_or_else(|| format!("run the agent of bottle `{slug}`: nothing tells its command"))?;
    let control = Control::cancelled_by(output.cancel.clone()).with_sink(Arc::new(output.clone()));
    let output = if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        bottle.exec_agent(exec, true)
    } else {
        bottle.exec_streaming(exec.with_stdin(Stdin::Inherit), control)
    };
    Ok(u8::try_from(output.map_err(text)?.status.as_shell_code()).unwrap_or(1))
}

fn copy(site: &Bottles, from: &str, to: &str) -> Result<u8, String> {
    let remote = |place: &str| {
        let (slug, path) = place.split_once(':')?;
        Some((slug.parse::<Slug>().ok()?, path.to_owned()))
    };
    let skipped = match (remote(from), remote(to)) {
        (None, Some((slug, directory))) => {
            site.attach(&slug).and_then(|bottle| bottle.cp_in(Path::new(from), &directory, None))
        }
        (Some((slug, path)), None) => site.attach(&slug).and_then(|bottle| bottle.cp_out(&path, Path::new(to))),
        _ => return Err(format!("copy `{from}` to `{to}`: exactly one of them is SLUG:PATH")),
    };
    if let Some(warning) = skipped.map_err(text)?.warning() {
        complain(&format!("warning: {warning}"));
    }
    Ok(0)
}

/// Takes down every bottle, also after one that could not be taken down.
fn down(site: &Bottles, slugs: &[Slug], cancel: &CancelToken) -> Result<u8, String> {
    let mut failures = Vec::new();
    for slug in slugs {
        // One that does not run, or belongs to another process, is taken down all the same.
        if let Ok(Some(left)) = site.attach(slug).and_then(|bottle| bottle.work_left()) {
            complain(&format!("bottle `{slug}`: {left}"));
        }
        match site.down(slug) {
            Ok(report) if report.is_clean() => {}
            Ok(report) => failures.push(format!("undo everything of bottle `{slug}`: {report}")),
            Err(error) => failures.push(text(error)),
        }
        if cancel.is_cancelled() {
            break;
        }
    }
    match failures.split_last() {
        None => Ok(0),
        Some((last, others)) => {
            for failure in others {
                complain(&format!("error: failed to {failure}"));
            }
            Err(last.clone())
        }
    }
}

fn progress(event: &Event) {
    match event {
        Event::StepFinished { step, duration, outcome } => {
            let failed = if matches!(outcome, Outcome::Failed { .. }) { ": failed" } else { "" };
            complain(&format!("[{:>7.3} s] {step}{failed}", duration.as_secs_f64()));
        }
        Event::Warning { message } => complain(&format!("warning: {message}")),
        _ => {}
    }
}

/// Status of a program that a closed pipe has ended, as a shell reports it.
const BROKEN_PIPE: u8 = 141;

/// The output of a command in a bottle. If nobody reads it any more, as after `| head`, the command is cancelled.
#[derive(Clone)]
struct Output {
    cancel: CancelToken,
    reader_left: Arc<AtomicBool>,
}

impl Output {
    fn cancel(&self) {
        self.reader_left.store(true, Ordering::Relaxed);
        self.cancel.cancel();
    }

    /// Cancels as soon as the reader of standard output has left, even if nothing more is printed.
    fn watch_reader(&self) {
        let output = self.clone();
        std::thread::spawn(move || {
            let stdout = std::io::stdout();
            // Without events to wait for, it waits for an error, which a pipe without a reader is.
            let mut pipe = [PollFd::new(&stdout, PollFlags::empty())];
            while let Err(rustix::io::Errno::INTR) = rustix::event::poll(&mut pipe, None) {}
            if pipe[0].revents().contains(PollFlags::ERR) {
                output.cancel();
            }
        });
    }
}

impl OutputSink for Output {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        let written = match stream {
            Stream::Stdout => std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()),
            Stream::Stderr => std::io::stderr().write_all(bytes),
        };
        if written.is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
            self.cancel();
        }
    }
}

/// Prints a line. A closed output, as with `| head`, must not stop the program.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints a line to standard error, which may be a closed terminal.
fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Returns the report without "failed to", which `main` adds.
fn text(error: impl std::error::Error) -> String {
    bottle::exec::chain(&error)
}

/// Returns a token that SIGINT, SIGTERM and SIGHUP cancel.
fn on_signals() -> std::io::Result<CancelToken> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(CancelToken::over(flag))
}
