//! Shows the proposals of a bottle's agent and reads a person's answers: `cargo run --example supervise -- [--slug
//! SLUG]`.
//!
//! It runs beside the program that launched the bottle, until it is interrupted. `y` approves, `n` denies, anything
//! else leaves the proposal for later. Then it reads one line with the reason, which may be empty and which the agent
//! can read.
//!
//! A person may decide only on what they have seen. At a terminal, what was typed before the question is discarded.
//! From a pipe, an answer names its proposal, as in `y ID`, and a line that does not is ignored.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bottle::exec::{Control, Subprocess};
use bottle::plan::{Prefix, Slug, StateRoot};
use bottle::supervise::{Event, Review, SuperviseError, Supervisor};
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
    for event in supervisor.watch(Duration::from_millis(200), u64::MAX, || false) {
        let goes_on = match event {
            Event::Proposed(review) => decide(&supervisor, *review)?,
            other => {
                say(&format!("{}\n", in_words(&other)))?;
                true
            }
        };
        if !goes_on {
            break;
        }
    }
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

/// A person's answer to a proposal.
enum Answer {
    Yes,
    No,
    Later,
}

/// Asks until the proposal is decided or left for later. Returns false at the end of the input.
fn decide(supervisor: &Supervisor, mut review: Review) -> Result<bool, Box<dyn std::error::Error>> {
    loop {
        say(&review.to_string())?;
        let is_yes = match answer(&review)? {
            Some(Answer::Yes) => true,
            Some(Answer::No) => false,
            Some(Answer::Later) => return Ok(true),
            None => return Ok(false),
        };
        let Some(reason) = ask("reason: ")? else { return Ok(false) };
        let decided = if is_yes { supervisor.approve(&review, &reason) } else { supervisor.deny(&review, &reason) };
        match decided {
            Ok(decision) => {
                match decision.applied {
                    Some(applied) => say(&format!("{:?}: {}\n", applied.status, applied.detail))?,
                    None => say("Denied\n")?,
                }
                return Ok(true);
            }
            Err(error) => {
                say(&format!("{}\n", bottle::report(&error)))?;
                // The proposal on the screen is out of date and has to be shown again. What is next in a pipe can have
                // been written before that.
                if !matches!(error, SuperviseError::ConsequenceChanged(_)) || !std::io::stdin().is_terminal() {
                    return Ok(true);
                }
            }
        }
        review = supervisor.show(&review.proposal().id)?;
    }
}

/// Reads the answer to a proposal that was just shown. `None` at the end of the input.
fn answer(review: &Review) -> std::io::Result<Option<Answer>> {
    let of = |word: &str| match word {
        "y" | "yes" => Answer::Yes,
        "n" | "no" => Answer::No,
        _ => Answer::Later,
    };
    if std::io::stdin().is_terminal() {
        // Also discards what somebody is typing at this moment, without having read the proposal.
        std::thread::sleep(BLINK);
        rustix::termios::tcflush(std::io::stdin(), rustix::termios::QueueSelector::IFlush)?;
        return Ok(ask("approve? [y/n/later] ")?.map(|answer| of(&answer)));
    }
    let id = &review.proposal().id;
    let mut question = format!("approve? [y {id}/n {id}/later {id}] ");
    loop {
        let Some(answer) = ask(&question)? else { return Ok(None) };
        match answer.split_once(' ') {
            Some((word, named)) if named.trim() == id.to_string() => return Ok(Some(of(word))),
            _ => question = format!("ignored: it does not name proposal {id}\n"),
        }
    }
}

/// Time after a proposal is shown during which nobody can have read it.
const BLINK: Duration = Duration::from_millis(500);

fn ask(question: &str) -> std::io::Result<Option<String>> {
    write!(std::io::stdout(), "{question}")?;
    std::io::stdout().flush()?;
    let mut line = String::new();
    Ok((std::io::stdin().lock().read_line(&mut line)? > 0).then(|| line.trim().to_owned()))
}

/// Prints a line. An error ends the program: nobody sees any more what there is to decide.
fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}
