//! The view of a proposal that a person decides on.

use std::fmt;

use bottle_plan::value::AllowedHost;
use bottle_posture::{Effect, PostureDiff};

use super::{Proposal, ProposalId, ProposalSnapshot, SuperviseError, Unusable, When};

/// A proposal as it was shown, with the consequence of an approval. A decision needs one.
#[derive(Debug, Clone, PartialEq)]
pub struct Review {
    pub(super) shown: ProposalSnapshot,
    pub(super) consequence: Consequence,
}

/// Consequence of an approval.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Consequence {
    /// Change of the bottle's posture.
    pub diff: PostureDiff,
    /// Time at which the change takes effect.
    pub when: When,
    /// Reason why the change does not take effect at once, or how it differs until the next launch. Empty: none.
    pub note: String,
}

/// Event of [`Supervisor::watch`](super::Supervisor::watch).
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A proposal waits for a decision.
    Proposed(Box<Review>),
    /// A proposal no longer waits: decided elsewhere, or its file is gone or changed. A changed one comes again.
    Settled(ProposalId),
    /// A file in the proposals directory is not a proposal: a sign of a faulty sidecar.
    Unusable(Unusable),
    /// The queue or the plan could not be read. The next poll may succeed.
    Failed(SuperviseError),
}

impl Consequence {
    /// Returns true if an approval opens this host on the default ports, and changes nothing else.
    pub(super) fn opens_only(&self, host: &AllowedHost) -> bool {
        let words = format!("opens {host} on ports 80, 443, for everything");
        matches!(&self.diff.changes[..], [only] if only.effect == Effect::Widening && only.words == words)
    }
}

impl Review {
    /// Returns the proposal.
    pub fn proposal(&self) -> &Proposal {
        self.shown.proposal()
    }

    /// Returns the SHA-256 of the proposal's file.
    pub fn sha256(&self) -> &str {
        self.shown.sha256()
    }

    /// Returns the consequence of an approval.
    pub const fn consequence(&self) -> &Consequence {
        &self.consequence
    }
}

impl fmt::Display for Review {
    /// Formats the review for a terminal. The agent's text is indented, so that it cannot imitate other output.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Proposal { id, created, reason, change, .. } = self.proposal();
        writeln!(f, "proposal {id}, {created}")?;
        writeln!(f, "the agent proposes to")?;
        indented(f, "  | ", &change.to_string())?;
        writeln!(f, "for this reason, in its own words")?;
        indented(f, "  | ", reason)?;
        writeln!(f, "an approval {}", self.consequence.when)?;
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
