//! The line that each sidecar writes for an event.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One audit line: a JSON object that egress, git-gate or supervise writes to its standard output.
///
/// Pipelock writes lines of its own format, which an `AuditReader` translates. The hash-chained log of supervise is a
/// file; see `bottle-sidecars/images/supervise/FORMAT.md`.
///
/// ```
/// use bottle_sidecars::audit::{AuditLine, AuditOutcome};
/// let line = r#"{"ts":"2026-01-02T03:04:05.678Z","sidecar":"egress","event":"request","outcome":"refused","reason":"path","host":"api.example.com"}"#;
/// let line: AuditLine = serde_json::from_str(line)?;
/// assert_eq!((line.outcome, line.reason.as_deref()), (Some(AuditOutcome::Refused), Some("path")));
/// assert_eq!(line.details["host"], "api.example.com");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct AuditLine {
    /// Time of the event in UTC with milliseconds, such as `2026-01-02T03:04:05.678Z`.
    #[schemars(regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$"))]
    pub ts: String,
    /// Sidecar that wrote the line.
    pub sidecar: AuditSource,
    /// Kind of event, such as `request`, `push` or `proposed`.
    #[schemars(regex(pattern = "^[a-z]+(?:-[a-z]+)*$"))]
    pub event: String,
    /// Slug of the bottle, where the sidecar knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    /// Result; absent for an event that has none, such as a start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<AuditOutcome>,
    /// Rule or text that explains any outcome but `done`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Credential that egress found in a request. A refused request has the reason `dlp`; any other was let through, with
    /// `dlp: warn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<AuditFinding>,
    /// Further fields, by sidecar and event.
    #[serde(flatten)]
    pub details: Map<String, Value>,
}

impl AuditLine {
    /// Returns a text of the details, such as the `host` of a request.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.details.get(key)?.as_str()
    }

    /// Returns the port of a request.
    pub fn port(&self) -> Option<u16> {
        self.details.get("port")?.as_u64()?.try_into().ok()
    }
}

/// Credential that was found in what the agent sent. It has no part of the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct AuditFinding {
    /// Name of the pattern, such as `github-token`, or `bottle-secret` for a credential that egress injects.
    pub pattern: String,
    /// Place: `host`, `url`, `header`, `header NAME`, `body at byte N`, or `message at byte N` of a WebSocket.
    pub place: String,
}

/// Sidecar that wrote an [`AuditLine`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AuditSource {
    /// The proxy that injects credentials.
    Egress,
    /// The git server in front of the upstreams.
    GitGate,
    /// The server that takes proposals.
    Supervise,
    /// The firewall. Only an `AuditReader` makes such lines.
    Pipelock,
}

impl fmt::Display for AuditSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Egress => "egress",
            Self::GitGate => "git-gate",
            Self::Supervise => "supervise",
            Self::Pipelock => "pipelock",
        })
    }
}

/// Result of what an [`AuditLine`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AuditOutcome {
    /// It was done: a request was answered, a push was accepted, a proposal was approved.
    Done,
    /// A rule or a person refused it.
    Refused,
    /// It was allowed and failed.
    Failed,
    /// Its result is unknown, because the other side did not answer.
    Unknown,
}

/// Returns the JSON Schema of an [`AuditLine`]. `cargo xtask schema` writes it to
/// `bottle-sidecars/images/shared/audit-line.schema.json`.
pub fn json_schema() -> String {
    let mut schema = schemars::schema_for!(AuditLine).to_value();
    // A program may build serde_json so that it keeps the order of insertion.
    schema.sort_all_objects();
    format!("{schema:#}\n")
}
