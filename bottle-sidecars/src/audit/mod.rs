//! Audit lines of the sidecars.

mod line;
mod pipelock;
mod reader;
mod refusal;
mod usage;

pub use line::{AuditFinding, AuditLine, AuditOutcome, AuditSource, json_schema};
pub use reader::AuditReader;
pub use refusal::{Refusal, refusals};
pub use usage::Usage;
