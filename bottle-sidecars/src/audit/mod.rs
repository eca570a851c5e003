//! Audit lines of the sidecars.

mod decision;
mod line;
mod pipelock;
mod reader;
mod refusal;
mod usage;

pub use decision::{ApplyStatus, ApprovalEnd, DecidedBy, Decider};
pub use line::{AuditFinding, AuditLine, AuditOutcome, AuditSource, json_schema};
pub use reader::AuditReader;
pub use refusal::{Refusal, refusals};
pub use usage::Usage;
