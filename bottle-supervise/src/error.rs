//! Errors of supervision.

use std::io;
use std::path::PathBuf;

use bottle_plan::Slug;

use super::proposal::ProposalId;
use super::queue::QueueError;

/// Error of supervising a bottle or making a decision.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuperviseError {
    /// A file of the bottle's state cannot be read or written.
    #[error("{action} `{}`", path.display())]
    Io {
        /// Operation that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The plan on disk cannot be parsed.
    #[error("read `{}`: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Problem with the content.
        reason: String,
    },
    /// The bottle's plan has no `supervise`.
    #[error("supervise bottle `{0}`: its manifest does not ask for it")]
    NotSupervised(Slug),
    /// The queue cannot be read, or it refused the decision.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The plan has changed since the proposal was shown, so that an approval would have another consequence.
    #[error("approve proposal `{0}`: what that would do has changed since it was shown; look at it again")]
    ConsequenceChanged(ProposalId),
    /// The hosts whose approval has ended cannot be removed from the proxies. Egress refuses them.
    #[error("remove the hosts whose approval has ended: {0}")]
    NotEnded(String),
    /// The approver panicked instead of answering. The proposal stays open.
    #[error("ask about proposal `{0}`: the approver panicked; the proposal stays open")]
    ApproverPanicked(ProposalId),
    /// The change cannot be made; the proposal can only be denied.
    #[error("approve proposal `{id}`: {why}")]
    NotPossible {
        /// The proposal.
        id: ProposalId,
        /// Reason.
        why: String,
    },
}
