//! An event of a bottle.

use bottle_exec::Event;
use bottle_sidecars::audit::{ApplyStatus, ApprovalEnd, AuditFinding, AuditLine, AuditOutcome, AuditSource, DecidedBy};
use schemars::{JsonSchema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::event_log::EventRecord;

/// One event of a bottle.
///
/// ```
/// use bottle_events::{BottleEvent, EventData, EventKind, EventSource};
/// let line = r#"{"time":"2026-01-02T03:04:05.678Z","source":"egress","kind":"request",
///     "data":{"outcome":"refused","reason":"path","method":"GET","host":"api.example.com","port":443,"path":"/v2"}}"#;
/// let event: BottleEvent = serde_json::from_str(line)?;
/// assert_eq!((event.kind(), event.source), (EventKind::Request, EventSource::Egress));
/// let EventData::Request(request) = event.data else { unreachable!() };
/// assert_eq!((request.host.as_deref(), request.reason.as_deref()), (Some("api.example.com"), Some("path")));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "One event of a bottle.")]
#[non_exhaustive]
pub struct BottleEvent {
    /// Time in UTC with milliseconds, such as `2026-01-02T03:04:05.678Z`.
    #[schemars(regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$"))]
    pub time: String,
    /// Program that reports it.
    pub source: EventSource,
    /// The event itself. As JSON it is in `data`, and `kind` says which it is.
    #[serde(flatten)]
    pub data: EventData,
}

/// The event itself, by kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "data", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventData {
    /// A request of the agent through egress or pipelock: passed, refused or failed.
    Request(RequestEvent),
    /// A connection to a host that pipelock opened. With egress in front, egress reports the requests in it.
    Tunnel(TunnelEvent),
    /// A push or a fetch of the agent through git-gate.
    Git(GitEvent),
    /// A proposal of the agent, or one that was refused.
    Proposal(ProposalEvent),
    /// A decision on a proposal, or the end of an approval that has one.
    Decision(DecisionEvent),
    /// A limit of the bottle that is near or reached.
    Limit(LimitEvent),
    /// A service that went down or is up again.
    Health(HealthEvent),
    /// A step of the launch or the teardown, or a command in it.
    Step(LauncherEvent),
    /// A note, a warning, an error or a line of output of the launcher.
    Message(LauncherEvent),
    /// Anything else that a sidecar reports, such as its start.
    Sidecar(SidecarEvent),
}

/// Kind of a [`BottleEvent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// [`EventData::Request`].
    Request,
    /// [`EventData::Tunnel`].
    Tunnel,
    /// [`EventData::Git`].
    Git,
    /// [`EventData::Proposal`].
    Proposal,
    /// [`EventData::Decision`].
    Decision,
    /// [`EventData::Limit`].
    Limit,
    /// [`EventData::Health`].
    Health,
    /// [`EventData::Step`].
    Step,
    /// [`EventData::Message`].
    Message,
    /// [`EventData::Sidecar`].
    Sidecar,
}

/// Program that reports a [`BottleEvent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EventSource {
    /// The process that launched the bottle.
    Launcher,
    /// The proxy that injects credentials.
    Egress,
    /// The git server in front of the upstreams.
    GitGate,
    /// The server that takes proposals.
    Supervise,
    /// The firewall.
    Pipelock,
}

/// A request of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct RequestEvent {
    /// Result. A request that was passed on is `done`, whatever the host answered.
    pub outcome: AuditOutcome,
    /// Rule or scanner that refused it, or the reason of a failure. `None` if it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Pipelock's words for the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Credential that egress found in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<AuditFinding>,
    /// Method. Empty if the request was not read so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Host. The beginning of what the agent sent in its place, if a CONNECT was refused because it names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Path without the query, at most 1024 characters of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Name of the route that it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// True if egress injected a credential. `None` from pipelock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injected: Option<bool>,
    /// Status of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Bytes of the body that were sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_up: Option<u64>,
    /// Bytes of the body that were received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_down: Option<u64>,
    /// Time that it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<f64>,
}

/// A connection to a host that pipelock opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct TunnelEvent {
    /// Result.
    pub outcome: AuditOutcome,
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// A push or a fetch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct GitEvent {
    /// The action.
    #[serde(rename = "event")]
    pub action: GitAction,
    /// Result.
    pub outcome: AuditOutcome,
    /// Reason of any outcome but `done`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Name of the upstream, or of a repository that none has.
    pub upstream: String,
    /// Address of the client in the bottle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Time that it took, in seconds.
    pub seconds: f64,
    /// Updates of refs. Empty before they were scanned. Shortened if `shortened` is true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refs: Vec<RefUpdate>,
    /// Object ids of the pushed tips.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tips: Vec<String>,
    /// Secrets that the scan found, without their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<GitFinding>,
    /// Bytes of the pushed objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Number of pushed objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<u64>,
    /// True if lists or the reason were cut so that the line is short.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shortened: bool,
}

/// Action of a [`GitEvent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GitAction {
    /// The agent wants to push: it asked for the refs.
    PushBegin,
    /// A push was received and checked.
    Push,
    /// The agent fetches.
    Fetch,
    /// The agent asked for a repository that no upstream has.
    Lookup,
}

/// An update of a ref by a push. An object id of zeros stands for no object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct RefUpdate {
    /// Name of the ref.
    #[serde(rename = "ref")]
    pub name: String,
    /// Object id before the push.
    pub old: String,
    /// Object id after the push.
    pub new: String,
}

/// A secret that was found in a push, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct GitFinding {
    /// Name of the rule.
    pub rule: String,
    /// Commit that has it.
    pub commit: Option<String>,
    /// File or part of the commit.
    pub place: String,
    /// Line in it.
    pub line: Option<u64>,
}

/// The wish of the agent and its state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProposalEvent {
    /// The proposal waits for a decision.
    Proposed(Proposed),
    /// The call was refused, and there is no proposal.
    Refused(ProposalRefused),
}

/// A proposal that waits for a decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Proposed {
    /// Id of the proposal.
    pub id: String,
    /// Kind of change: `allow_host`, `route`, `git_upstream` or `image_change`.
    pub kind: String,
    /// SHA-256 of the proposal's file.
    pub sha256: String,
    /// The change, by kind, as in the proposal's file. `None` if it is longer than 4 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Map<String, Value>>,
    /// The first 300 characters of the agent's reason.
    #[serde(default)]
    pub agent_reason: String,
}

/// A call of the agent that did not become a proposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct ProposalRefused {
    /// Tool that was called, such as `propose_route`.
    pub tool: String,
    /// Reason, such as `full` or `invalid`.
    pub code: String,
    /// Number of refusals since the last event that have none.
    #[serde(default)]
    pub unlogged_before: u64,
}

/// A decision, or the end of an approval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DecisionEvent {
    /// A proposal was decided.
    Settled(Settled),
    /// The time of an approval is over, or its one request was made.
    ApprovalEnded(ApprovalEnded),
}

/// A decision on a proposal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Settled {
    /// Id of the proposal.
    pub id: String,
    /// The answer.
    pub state: SettledState,
    /// Kind of change: `allow_host`, `route`, `git_upstream` or `image_change`.
    pub kind: String,
    /// The change, by kind, as in the proposal's file. `None` if it is longer than 4 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Map<String, Value>>,
    /// The decider. `None` if the decision does not count, or an older launcher made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<DecidedBy>,
    /// The first 300 characters of the reason. `None` if it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision_reason: Option<String>,
    /// Result of the change. `None` for a denial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<AppliedChange>,
    /// End of the approval. `None` for one without an end, which also holds for the next launches, and for a denial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<ApprovalEnd>,
    /// SHA-256 of the decision's file.
    pub decision_sha256: String,
}

/// Answer to a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SettledState {
    /// It was approved.
    Approved,
    /// It was denied.
    Denied,
    /// The decision does not count, because the proposal or the decision was changed.
    Changed,
}

/// Result of an approved change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct AppliedChange {
    /// Stage that was reached.
    pub status: ApplyStatus,
    /// One sentence.
    pub detail: String,
}

/// The time of an approval is over, or its one request was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct ApprovalEnded {
    /// Host that is refused again.
    pub host: String,
    /// Id of the proposal.
    pub id: String,
    /// End as it was approved.
    #[serde(flatten)]
    pub ends: ApprovalEnd,
}

/// A limit that is near or reached. The launcher reports the time, egress the requests and the bytes. One that is reached was
/// near in an event before, if it is more than 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct LimitEvent {
    /// Key below `limits` in the manifest: `time`, `idle`, `requests` or `bytes`.
    pub limit: String,
    /// True if it was reached. False at 90 % of it, or at the last one before.
    pub is_reached: bool,
    /// Amount that was used, in seconds, requests or bytes.
    pub used: u64,
    /// Value of the limit, in the same unit.
    pub allowed: u64,
    /// State in words, with what to do. From the launcher only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// A service that went down or is up again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct HealthEvent {
    /// Name of the service.
    pub service: String,
    /// True if the service runs and, if it has a health check, is healthy.
    pub is_up: bool,
    /// State in words, such as `exited with status 137 (killed: out of memory)`.
    pub state: String,
}

/// An event of the launcher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct LauncherEvent {
    /// Innermost running step. `None` outside of steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// An event of a sidecar that has no kind of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct SidecarEvent {
    /// Name of the event, such as `started`.
    pub event: String,
    /// Result. `None` for an event that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<AuditOutcome>,
    /// Explains any outcome but `done`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Further fields, by sidecar and event.
    #[serde(flatten)]
    pub details: Map<String, Value>,
}

impl BottleEvent {
    /// Returns the kind of the event.
    pub const fn kind(&self) -> EventKind {
        match &self.data {
            EventData::Request(_) => EventKind::Request,
            EventData::Tunnel(_) => EventKind::Tunnel,
            EventData::Git(_) => EventKind::Git,
            EventData::Proposal(_) => EventKind::Proposal,
            EventData::Decision(_) => EventKind::Decision,
            EventData::Limit(_) => EventKind::Limit,
            EventData::Health(_) => EventKind::Health,
            EventData::Step(_) => EventKind::Step,
            EventData::Message(_) => EventKind::Message,
            EventData::Sidecar(_) => EventKind::Sidecar,
        }
    }
}

impl From<AuditLine> for BottleEvent {
    /// Converts a line of a sidecar. A line that lacks a field of its kind, or has it with another type, is a
    /// [`EventData::Sidecar`].
    fn from(line: AuditLine) -> Self {
        let source = match line.sidecar {
            AuditSource::GitGate => EventSource::GitGate,
            AuditSource::Supervise => EventSource::Supervise,
            AuditSource::Pipelock => EventSource::Pipelock,
            // Egress, and the sidecars that are not known yet.
            _ => EventSource::Egress,
        };
        let data = typed(source, &line);
        let AuditLine { ts: time, event, outcome, reason, details, .. } = line;
        let other = || EventData::Sidecar(SidecarEvent { event, outcome, reason, details });
        Self { time, source, data: data.unwrap_or_else(other) }
    }
}

/// Returns the event of a line whose kind has a type of its own.
fn typed(source: EventSource, line: &AuditLine) -> Option<EventData> {
    // An audit line always serializes to an object.
    let Ok(Value::Object(mut fields)) = serde_json::to_value(line) else { return None };
    match (source, line.event.as_str()) {
        (_, "limit-near" | "limit-reached") => {
            fields.insert("is_reached".to_owned(), (line.event == "limit-reached").into());
            parsed(fields).map(EventData::Limit)
        }
        (_, "request") => parsed(fields).map(EventData::Request),
        (EventSource::Pipelock, "tunnel") => parsed(fields).map(EventData::Tunnel),
        (EventSource::GitGate, "push" | "push-begin" | "fetch" | "lookup") => parsed(fields).map(EventData::Git),
        (EventSource::Supervise, "proposed" | "refused") => parsed(fields).map(EventData::Proposal),
        (EventSource::Supervise, "settled") | (EventSource::Egress, "approval-ended") => {
            parsed(fields).map(EventData::Decision)
        }
        _ => None,
    }
}

fn parsed<T: DeserializeOwned>(fields: Map<String, Value>) -> Option<T> {
    serde_json::from_value(Value::Object(fields)).ok()
}

impl From<EventRecord> for BottleEvent {
    fn from(record: EventRecord) -> Self {
        let EventRecord { time, step, event, .. } = record;
        let data = match event {
            Event::Limit { limit, is_reached, used, allowed, state } => {
                EventData::Limit(LimitEvent { limit, is_reached, used, allowed, state: Some(state) })
            }
            Event::ServiceChanged { service, is_up, state } => EventData::Health(HealthEvent { service, is_up, state }),
            Event::Note { .. } | Event::Warning { .. } | Event::Error { .. } | Event::Output { .. } => {
                EventData::Message(LauncherEvent { step, event })
            }
            _ => EventData::Step(LauncherEvent { step, event }),
        };
        Self { time, source: EventSource::Launcher, data }
    }
}

/// Returns the JSON Schema of a line of events: a [`BottleEvent`], or an [`EventRecord`], which an [`EventLog`] writes.
/// `cargo xtask schema` writes it to `bottle-events/schema/event.schema.json`.
///
/// [`EventLog`]: crate::EventLog
pub fn json_schema() -> String {
    let mut generator = SchemaGenerator::default();
    let lines = [generator.subschema_for::<BottleEvent>(), generator.subschema_for::<EventRecord>()];
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Event",
        "description": "A line of events: a `BottleEvent` as JSON, or a line that `launch` writes, such as with `--events-file`.",
        "oneOf": lines,
        "$defs": generator.take_definitions(true),
    });
    // A program may build serde_json so that it keeps the order of insertion.
    schema.sort_all_objects();
    format!("{schema:#}\n")
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}
