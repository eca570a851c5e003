//! Shows the proposals of a bottle's agent and reads a person's answers: `cargo run --example supervise -- [--slug
//! SLUG]`.
//!
//! It runs beside the program that launched the bottle, until it is interrupted. `y` approves, `30m` approves for that time,
//! `once` approves one request, `n` denies, anything else leaves the proposal for later. Then it reads one line with the
//! reason, which may be empty and which the agent can read. From a pipe, an answer names its proposal, as in `y ID`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use bottle::exec::{Control, Subprocess};
use bottle::plan::{Prefix, Slug, StateRoot};
use bottle::supervise::{Event, Outcome, Terminal};
use bottle::{Bottles, Engine, EngineChoice, Host};
use clap::Parser;

/// Approve or deny the proposals of a bottle's agent.
#[derive(Parser)]
struct Args {
    /// The bottle. May be omitted if only one is up.
    #[arg(long, value_name = "SLUG")]
    slug: Option<Slug>,
    /// Directory of the bottles' state.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {}", bottle::report(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let host = Host::current().map_err(bottle::Error::Host)?;
    let root = args.state_dir.map_or_else(|| host.state_root(), |dir| StateRoot::at(host.facts.cwd.join(dir)));
    let backend = Arc::new(Subprocess::new(host.environment()));
    let engine = Engine::detect(backend, &EngineChoice::Auto, Control::default())?;
    let slug = match args.slug {
        Some(slug) => slug,
        None => only_bottle(&engine, &root)?,
    };
    let bottles = Bottles::new(engine, host).with_state_root(root);
    let supervisor = bottles.supervise(&slug)?;
    say(&format!("watching bottle {slug}\n\n{}", bottles.posture(&slug)?))?;
    supervisor.run(
        &Terminal::default(),
        || false,
        |outcome| {
            let line = match outcome {
                Outcome::Ended(host) => format!("the approval of {host} has ended"),
                Outcome::Queue(event) => in_words(&event),
                other => format!("{other:?}"),
            };
            let _ = say(&format!("{line}\n"));
        },
    );
    Ok(())
}

fn in_words(event: &Event) -> String {
    match event {
        Event::Settled(id) => format!("{id} is no longer pending"),
        Event::Unusable(file) => format!("warning: failed to read `{}` of the queue: {}", file.name, file.why),
        Event::Failed(error) => format!("warning: {}", bottle::report(error)),
        other => format!("{other:?}"),
    }
}

fn only_bottle(engine: &Engine, root: &StateRoot) -> Result<Slug, Box<dyn std::error::Error>> {
    let bottles = bottle::lifecycle::list(engine, root, &Prefix::default())?;
    let mut slugs = bottles.into_keys();
    match (slugs.next(), slugs.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err("find a bottle: none is up".into()),
        (Some(one), Some(other)) => Err(format!("choose between {one}, {other} and others: give --slug").into()),
    }
}

/// Prints a line. An error ends the program: nobody sees any more what there is to decide.
fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}
