//! An event of a bottle.

use bottle_sidecars::audit::{AuditLine, AuditSource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::event_log::EventRecord;

/// One event of a bottle.
///
/// ```
/// use bottle_events::{BottleEvent, EventKind, EventSource};
/// let line = r#"{"time":"2026-01-02T03:04:05.678Z","kind":"request","source":"egress","data":{"outcome":"refused"}}"#;
/// let event: BottleEvent = serde_json::from_str(line)?;
/// assert_eq!((event.kind, event.source), (EventKind::Request, EventSource::Egress));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct BottleEvent {
    /// Time in UTC with milliseconds, such as `2026-01-02T03:04:05.678Z`.
    #[schemars(regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$"))]
    pub time: String,
    /// Kind of the event.
    pub kind: EventKind,
    /// Program that reports it.
    pub source: EventSource,
    /// The event itself. From the launcher, an `EventRecord` without its time: the field `event` names it. From a sidecar, an
    /// `AuditLine` without time and sidecar, as in `audit-line.schema.json`.
    pub data: Map<String, Value>,
}

/// Kind of a [`BottleEvent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// A request of the agent through egress or pipelock: passed, refused or failed.
    Request,
    /// A push or a fetch of the agent through git-gate.
    Git,
    /// A proposal of the agent.
    Proposal,
    /// A person's decision on a proposal, or the end of an approval that has one.
    Decision,
    /// A limit of the bottle that is near or reached.
    Limit,
    /// A service that went down or is up again.
    Health,
    /// A step of the launch or the teardown, or a command in it.
    Step,
    /// A note, a warning or an error of the launcher.
    Message,
    /// Anything else that a sidecar reports, such as its start.
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

impl From<AuditLine> for BottleEvent {
    fn from(line: AuditLine) -> Self {
        let source = match line.sidecar {
            AuditSource::GitGate => EventSource::GitGate,
            AuditSource::Supervise => EventSource::Supervise,
            AuditSource::Pipelock => EventSource::Pipelock,
            // Egress, and the sidecars that are not known yet.
            _ => EventSource::Egress,
        };
        let kind = match (source, line.event.as_str()) {
            (_, "limit-near" | "limit-reached") => EventKind::Limit,
            (_, "request") => EventKind::Request,
            (EventSource::GitGate, "push" | "push-begin" | "fetch") => EventKind::Git,
            (EventSource::Supervise, "proposed" | "refused") => EventKind::Proposal,
            (EventSource::Supervise, "settled") | (EventSource::Egress, "approval-ended") => EventKind::Decision,
            _ => EventKind::Sidecar,
        };
        let time = line.ts.clone();
        Self { time, kind, source, data: without(&line, &["ts", "sidecar"]) }
    }
}

impl From<EventRecord> for BottleEvent {
    fn from(record: EventRecord) -> Self {
        use bottle_exec::Event;
        let kind = match &record.event {
            Event::Limit { .. } => EventKind::Limit,
            Event::ServiceChanged { .. } => EventKind::Health,
            Event::Note { .. } | Event::Warning { .. } | Event::Error { .. } | Event::Output { .. } => {
                EventKind::Message
            }
            _ => EventKind::Step,
        };
        let time = record.time.clone();
        Self { time, kind, source: EventSource::Launcher, data: without(&record, &["time"]) }
    }
}

/// Returns the fields of an event, but for some.
fn without(event: &impl Serialize, left_out: &[&str]) -> Map<String, Value> {
    // Both types always serialize to an object.
    let Ok(Value::Object(mut fields)) = serde_json::to_value(event) else { return Map::new() };
    fields.retain(|name, _| !left_out.contains(&name.as_str()));
    fields
}

/// Returns the JSON Schema of a [`BottleEvent`]. `cargo xtask schema` writes it to `bottle-events/schema/event.schema.json`.
pub fn json_schema() -> String {
    let mut schema = schemars::schema_for!(BottleEvent).to_value();
    // A program may build serde_json so that it keeps the order of insertion.
    schema.sort_all_objects();
    format!("{schema:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_from_its_line_and_fits_the_schema() {
        let schema: Value = serde_json::from_str(include_str!("../schema/event.schema.json")).unwrap();
        let schema = jsonschema::validator_for(&schema).unwrap();
        let time = "2026-01-02T03:04:05.678Z";
        let sidecar = |sidecar: &str, event: &str| {
            let line =
                format!(r#"{{"ts":"{time}","sidecar":"{sidecar}","event":"{event}","outcome":"refused","host":"a"}}"#);
            BottleEvent::from(serde_json::from_str::<AuditLine>(&line).unwrap())
        };
        let launcher = |event: &str| {
            let line = format!(r#"{{"time":"{time}","slug":"demo","step":null,{event}}}"#);
            BottleEvent::from(serde_json::from_str::<EventRecord>(&line).unwrap())
        };
        for (event, kind, source) in [
            (sidecar("egress", "request"), "request", "egress"),
            (sidecar("pipelock", "request"), "request", "pipelock"),
            (sidecar("egress", "limit-near"), "limit", "egress"),
            (sidecar("egress", "started"), "sidecar", "egress"),
            (sidecar("git-gate", "push"), "git", "git-gate"),
            (sidecar("supervise", "proposed"), "proposal", "supervise"),
            (sidecar("supervise", "settled"), "decision", "supervise"),
            (sidecar("egress", "approval-ended"), "decision", "egress"),
            (launcher(r#""event":"step_started","name":"up""#), "step", "launcher"),
            (launcher(r#""event":"warning","message":"w""#), "message", "launcher"),
            (
                launcher(r#""event":"service_changed","service":"egress","is_up":false,"state":"s""#),
                "health",
                "launcher",
            ),
            (
                launcher(r#""event":"limit","limit":"time","is_reached":true,"used":9,"allowed":9,"state":"s""#),
                "limit",
                "launcher",
            ),
        ] {
            let json = serde_json::to_value(&event).unwrap();
            assert_eq!((&json["kind"], &json["source"], &json["time"]), (&kind.into(), &source.into(), &time.into()));
            assert!(
                !event.data.is_empty() && !event.data.contains_key("ts") && !event.data.contains_key("time"),
                "{json}"
            );
            assert!(schema.is_valid(&json), "{json}");
            assert_eq!(serde_json::from_value::<BottleEvent>(json).unwrap(), event);
        }
        let mut json = serde_json::to_value(sidecar("egress", "request")).unwrap();
        json["kind"] = "other".into();
        assert!(!schema.is_valid(&json));
    }
}
