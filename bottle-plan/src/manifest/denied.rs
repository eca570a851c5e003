//! The treatment of hosts that are not listed.

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

/// The hosts that the agent may reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EgressMode {
    /// The hosts that are listed.
    #[default]
    Enforce,
    /// EVERY host whose name has a public address, on ports 80 and 443, and the hosts that are listed. The bottle has egress
    /// then, which records each request. Only routes inject credentials. Use it to learn which hosts the work needs:
    /// `bottles suggest` prints what to list from then on.
    Learn,
}
