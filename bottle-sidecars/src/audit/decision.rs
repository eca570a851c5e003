//! Parts of a decision on a proposal that its file and its audit line share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The decider and its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecidedBy {
    /// Kind of decider.
    pub decider: Decider,
    /// Number of its process on the host. It is the launcher's, or that of another program of the user.
    pub process: u32,
}

/// Kind of decider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Decider {
    /// A person who answered at the standard input of the process.
    Terminal,
    /// A closure or another approver of the program.
    Callback,
    /// An approver that approves by itself within bounds.
    Automatic,
    /// The program itself, without an approver.
    #[default]
    Program,
}

/// End of an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalEnd {
    /// Time of the end, in seconds since 1970.
    pub until: u64,
    /// True if it is for one request before that.
    pub once: bool,
}

/// Stage that applying an approved change reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ApplyStatus {
    /// It is in effect in the running bottle.
    Live,
    /// It takes effect later: when a proxy that does not run is started again, at the next launch, or after a person's work.
    Recorded,
    /// It could not be applied, and nothing is changed.
    Failed,
}
