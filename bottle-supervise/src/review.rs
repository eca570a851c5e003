//! What a person is shown.

use std::fmt;

use bottle_posture::PostureDiff;

use super::{Proposal, ProposalId, Shown, SuperviseError, Unusable, When};

/// A proposal, and what approving it would do: what it takes to decide.
#[derive(Debug, Clone, PartialEq)]
pub struct Review {
    pub(super) shown: Shown,
    pub(super) consequence: Consequence,
}

/// What an approval would do.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Consequence {
    /// How it changes what the bottle may do.
    pub diff: PostureDiff,
    /// When.
    pub when: When,
    /// Why not at once, or what else there is to say; empty when there is nothing.
    pub note: String,
}

/// What [`Supervisor::watch`](super::Supervisor::watch) sees.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A proposal waits for a decision.
    Proposed(Box<Review>),
    /// It waits no longer: decided elsewhere, or its file is gone or changed. A changed one comes again.
    Settled(ProposalId),
    /// There is a file among the proposals that is none: a sign of a sidecar gone wrong.
    Unusable(Unusable),
    /// Something could not be read; the next look may.
    Failed(SuperviseError),
}

impl Review {
    /// What the agent asks for.
    pub fn proposal(&self) -> &Proposal {
        self.shown.proposal()
    }

    /// The SHA-256 of the bytes that were shown.
    pub fn sha256(&self) -> &str {
        self.shown.sha256()
    }

    /// What an approval would do.
    pub const fn consequence(&self) -> &Consequence {
        &self.consequence
    }
}

impl fmt::Display for Review {
    /// For a terminal. The agent's words are indented, so that none of them can pass for ours.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Proposal { id, created, reason, change, .. } = self.proposal();
        writeln!(f, "proposal {id}, {created}")?;
        writeln!(f, "asks to")?;
        indented(f, "  | ", &change.to_string())?;
        writeln!(f, "since, in the agent's words,")?;
        indented(f, "  | ", reason)?;
        writeln!(f, "approving it {}", self.consequence.when)?;
        indented(f, "  ", &self.consequence.diff.to_string())?;
        if !self.consequence.note.is_empty() {
            writeln!(f, "  {}", self.consequence.note)?;
        }
        Ok(())
    }
}

fn indented(f: &mut fmt::Formatter<'_>, margin: &str, text: &str) -> fmt::Result {
    text.lines().try_for_each(|line| writeln!(f, "{margin}{line}"))
}
