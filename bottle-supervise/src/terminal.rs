//! A person at the process's own terminal, or a program at its pipes.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bottle_plan::value::Span;
use bottle_sidecars::audit::Decider;
use rustix::termios::{QueueSelector, tcflush};

use super::{Answer, Approver, ProposalId, Review, Scope};

/// Time after a proposal is shown during which nobody can have read it.
const BLINK: Duration = Duration::from_millis(500);
/// Time in which the one request of `once` may be made.
const ONCE_WITHIN: Duration = Duration::from_secs(10 * 60);

/// Shows proposals on standard output and reads a person's answers from standard input.
///
/// `y` approves, `30m` approves for that time, `once` approves one request within ten minutes, `n` denies, anything else
/// leaves the proposal for later. Then one line with the reason is read, which may be empty and which the agent can read. The end of
/// the input is [`Answer::Stop`].
///
/// A person may decide only on what they have seen. At a terminal, what was typed before the question is discarded. From a
/// pipe, an answer names its proposal, as in `y ID`, and a line that does not is ignored.
#[derive(Debug, Default)]
pub struct Terminal {
    /// The proposal whose last answer had no effect. What is next in a pipe can have been written before that.
    failed: Mutex<Option<ProposalId>>,
}

/// The beginning of an answer.
enum Word {
    Approve(Scope),
    Deny,
    Later,
}

impl Word {
    fn of(word: &str) -> Self {
        match word {
            "y" | "yes" => Self::Approve(Scope::Always),
            "n" | "no" => Self::Deny,
            "once" => Self::Approve(Scope::Once(ONCE_WITHIN)),
            _ => word.parse().map_or(Self::Later, |span: Span| Self::Approve(Scope::For(span.duration()))),
        }
    }
}

impl Approver for Terminal {
    fn decide(&self, review: &Review) -> Answer {
        let has_failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if has_failed.as_ref() == Some(&review.proposal().id) && !io::stdin().is_terminal() {
            return Answer::Later;
        }
        // Without an output nobody sees what there is to decide.
        decide(review).ok().flatten().unwrap_or(Answer::Stop)
    }

    fn decide_as(&self, review: &Review) -> (Decider, Answer) {
        (Decider::Terminal, self.decide(review))
    }

    fn told(&self, review: &Review, result: Result<&str, &str>) {
        let text = result.unwrap_or_else(|error| {
            *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(review.proposal().id.clone());
            error
        });
        _ = writeln!(io::stdout(), "{text}\n");
    }
}

/// Returns the answer, or `None` at the end of the input.
fn decide(review: &Review) -> io::Result<Option<Answer>> {
    writeln!(io::stdout(), "{review}")?;
    let Some(word) = answer(review)? else { return Ok(None) };
    if matches!(word, Word::Later) {
        return Ok(Some(Answer::Later));
    }
    let Some(reason) = ask("reason: ")? else { return Ok(None) };
    Ok(Some(match word {
        Word::Approve(scope) => Answer::Approve { scope, reason },
        _ => Answer::Deny { reason },
    }))
}

/// Reads the answer to a proposal that was just shown. `None` at the end of the input.
fn answer(review: &Review) -> io::Result<Option<Word>> {
    if io::stdin().is_terminal() {
        // Also discards what somebody is typing at this moment, without having read the proposal.
        thread::sleep(BLINK);
        tcflush(io::stdin(), QueueSelector::IFlush)?;
        return Ok(ask("approve? [y/30m/once/n/later] ")?.map(|answer| Word::of(&answer)));
    }
    let id = review.proposal().id.to_string();
    let mut question = format!("approve? [y {id}/30m {id}/once {id}/n {id}/later {id}] ");
    loop {
        let Some(answer) = ask(&question)? else { return Ok(None) };
        match answer.split_once(' ') {
            Some((word, named)) if named.trim() == id => return Ok(Some(Word::of(word))),
            _ => question = format!("ignored: it does not name proposal {id}\n"),
        }
    }
}

fn ask(question: &str) -> io::Result<Option<String>> {
    write!(io::stdout(), "{question}")?;
    io::stdout().flush()?;
    let mut line = String::new();
    Ok((io::stdin().lock().read_line(&mut line)? > 0).then(|| line.trim().to_owned()))
}
