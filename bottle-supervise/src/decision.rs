//! A person's decision on a proposal.

use std::fmt;

use bottle_sidecars::audit::{ApplyStatus, ApprovalEnd, DecidedBy};
use serde::{Deserialize, Serialize};

use super::ProposalId;

/// A decision, as it is stored in its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Decision {
    pub(super) version: u64,
    /// Id of the proposal.
    pub id: ProposalId,
    /// SHA-256 of the proposal's file as it was shown.
    pub proposal_sha256: String,
    /// The answer.
    #[serde(rename = "decision")]
    pub verdict: Verdict,
    /// The person's reason, which the agent can read. May be empty.
    pub reason: String,
    /// UTC, `YYYY-MM-DDTHH:MM:SS.mmmZ`.
    pub decided_at: String,
    /// The decider. Absent in a decision of an older launcher.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub by: Option<DecidedBy>,
    /// Result of applying the change. Absent for a denial.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub applied: Option<Applied>,
}

/// Approval or denial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The change is approved.
    Approved,
    /// The change is denied.
    Denied,
}

/// Result of applying an approved change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Applied {
    /// Stage that was reached.
    pub status: ApplyStatus,
    /// One sentence for the agent; no secret.
    pub detail: String,
    /// End of the approval. Absent if it has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ends: Option<ApprovalEnd>,
}

impl fmt::Display for Decision {
    /// Writes `Denied`, or the stage that was reached and its detail.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.applied {
            Some(applied) => write!(f, "{:?}: {}", applied.status, applied.detail),
            None => f.write_str("Denied"),
        }
    }
}

impl Applied {
    /// Returns the result of a change that is in effect in the running bottle.
    pub fn live(detail: impl Into<String>) -> Self {
        Self { status: ApplyStatus::Live, detail: detail.into(), ends: None }
    }

    /// Returns the result of a change that takes effect later.
    pub fn recorded(detail: impl Into<String>) -> Self {
        Self { status: ApplyStatus::Recorded, detail: detail.into(), ends: None }
    }

    /// Returns the result of a change that was not applied.
    pub fn failed(detail: impl Into<String>) -> Self {
        Self { status: ApplyStatus::Failed, detail: detail.into(), ends: None }
    }
}
