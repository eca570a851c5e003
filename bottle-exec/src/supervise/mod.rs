//! The host's side of the supervise queue: what the agent asks for, and the only place where it can be granted.
//!
//! The sidecar writes proposals into one directory; decisions go into another, which its container mounts read-only and
//! the agent's not at all. A decision is bound to the SHA-256 of what was shown, so a [`Shown`] is what it takes to
//! decide: whoever holds one has seen those bytes. Whatever the sidecar wrote is read as an attacker's: regular files
//! only, no links followed, sizes bounded, every string checked before a person's terminal sees it.
//!
//! The files are specified in `images/supervise/FORMAT.md` of `bottle-sidecars`.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use bottle_exec::supervise::{Applied, Queue};
//! use std::path::Path;
//! use std::time::SystemTime;
//!
//! let queue = Queue::open(Path::new("supervise/queue"), Path::new("supervise/decisions"))?;
//! for shown in queue.pending()?.proposals {
//!     let change = &shown.proposal().change;
//!     if change.kind() == "image_change" {
//!         queue.approve(&shown, "", SystemTime::now(), |_| Applied::recorded("at the next start"))?;
//!     } else {
//!         queue.deny(&shown, "not today", SystemTime::now())?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod audit;
mod canonical;
mod decision;
mod files;
mod proposal;
mod queue;
mod syntax;
mod watch;

pub use audit::{AuditEntry, AuditError, AuditLog, AuditSummary, Head};
pub use decision::{Applied, ApplyStatus, Decision, Verdict};
pub use proposal::{Change, Malformed, Proposal, ProposalId};
pub use queue::{Pending, Queue, QueueError, Shown, Unusable, Verified};
pub use watch::{Watch, WatchEvent};
