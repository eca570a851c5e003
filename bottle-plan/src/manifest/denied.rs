//! The treatment of hosts that are not allowed.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The consequence of a request to a host that is not allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnDenied {
    /// The request is refused.
    #[default]
    Refuse,
    /// The request is refused, and egress proposes the host to a person, once for each host and for 50 hosts at most. The
    /// bottle has egress then. It needs `supervise`.
    Propose,
}

impl fmt::Display for OnDenied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "refuse",
            Self::Propose => "propose",
        })
    }
}
