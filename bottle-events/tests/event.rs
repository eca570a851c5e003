//! The types of events and their committed schema.

#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]

use bottle_events::{
    ApplyStatus, ApprovalEnd, BottleEvent, Decider, DecisionEvent, EventData, EventKind, EventRecord, EventSource,
    SettledState, json_schema,
};
use bottle_sidecars::audit::AuditLine;
use serde_json::{Value, json};

const SCHEMA: &str = include_str!("../schema/event.schema.json");

const TIME: &str = "2026-01-02T03:04:05.678Z";

fn schema() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

fn sidecar(sidecar: &str, event: &str, more: &str) -> BottleEvent {
    let line = format!(r#"{{"ts":"{TIME}","sidecar":"{sidecar}","event":"{event}"{more}}}"#);
    serde_json::from_str::<AuditLine>(&line).unwrap().into()
}

fn record(event: &str) -> EventRecord {
    serde_json::from_str(&format!(r#"{{"time":"{TIME}","slug":"demo","step":"up",{event}}}"#)).unwrap()
}

const REQUEST: &str = r#","outcome":"refused","reason":"dlp","method":"GET","host":"a.test","port":443,"path":"/x","route":null,
    "injected":false,"status":403,"bytes_up":0,"bytes_down":12,"finding":{"pattern":"p","place":"url"},"ms":1.5"#;
const BLOCKED: &str =
    r#","outcome":"refused","reason":"allowlist","host":"a.test","port":443,"path":null,"detail":"why""#;
const PUSH: &str = r#","outcome":"refused","reason":"r","upstream":"u","client":"192.0.2.1","seconds":0.5,"tips":["a"],"bytes":9,
    "objects":2,"refs":[{"old":"0","new":"a","ref":"refs/heads/x"}],"findings":[{"rule":"k","commit":"a","place":"f","line":3}]"#;
const SETTLED: &str = r#","outcome":"done","slug":"demo","id":"i","state":"approved","decision_sha256":"d","kind":"allow_host",
    "change":{"host":"a.test"},"by":{"decider":"automatic","process":42},"ends":{"until":1700000060,"once":true},
    "applied":{"status":"live","detail":"for 60 s"}"#;

#[test]
fn every_kind_comes_from_its_line_and_fits_the_schema() {
    let schema = schema();
    let launcher = |event: &str| BottleEvent::from(record(event));
    for (event, kind, source) in [
        (sidecar("egress", "request", REQUEST), EventKind::Request, EventSource::Egress),
        (sidecar("pipelock", "request", BLOCKED), EventKind::Request, EventSource::Pipelock),
        (
            sidecar("pipelock", "tunnel", r#","outcome":"done","host":"a.test","port":443"#),
            EventKind::Tunnel,
            EventSource::Pipelock,
        ),
        (
            sidecar("egress", "limit-near", r#","limit":"bytes","used":9,"allowed":10"#),
            EventKind::Limit,
            EventSource::Egress,
        ),
        (sidecar("egress", "started", r#","port":8080"#), EventKind::Sidecar, EventSource::Egress),
        (sidecar("git-gate", "push", PUSH), EventKind::Git, EventSource::GitGate),
        (
            sidecar("supervise", "proposed", r#","id":"i","kind":"route","sha256":"s","agent_reason":"r""#),
            EventKind::Proposal,
            EventSource::Supervise,
        ),
        (
            sidecar("supervise", "refused", r#","outcome":"refused","tool":"t","code":"full","unlogged_before":2"#),
            EventKind::Proposal,
            EventSource::Supervise,
        ),
        (sidecar("supervise", "settled", SETTLED), EventKind::Decision, EventSource::Supervise),
        (
            sidecar("egress", "approval-ended", r#","host":"a.test","id":"i","until":1,"once":false"#),
            EventKind::Decision,
            EventSource::Egress,
        ),
        (launcher(r#""event":"step_started","name":"up""#), EventKind::Step, EventSource::Launcher),
        (
            launcher(r#""event":"step_finished","name":"up","seconds":1.5,"outcome":{"is":"failed","error":"e"}"#),
            EventKind::Step,
            EventSource::Launcher,
        ),
        (
            launcher(
                r#""event":"command_finished","label":"l","command":"c","status":{"code":1},"seconds":0.1,"error":null"#,
            ),
            EventKind::Step,
            EventSource::Launcher,
        ),
        (launcher(r#""event":"warning","message":"w""#), EventKind::Message, EventSource::Launcher),
        (launcher(r#""event":"output","stream":"stderr","line":"l""#), EventKind::Message, EventSource::Launcher),
        (
            launcher(r#""event":"service_changed","service":"egress","is_up":false,"state":"s""#),
            EventKind::Health,
            EventSource::Launcher,
        ),
        (
            launcher(r#""event":"limit","limit":"time","is_reached":true,"used":9,"allowed":9,"state":"s""#),
            EventKind::Limit,
            EventSource::Launcher,
        ),
    ] {
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!((event.kind(), event.source, &json["time"]), (kind, source, &TIME.into()), "{json}");
        assert!(json["data"].get("ts").is_none() && json["data"].get("time").is_none(), "{json}");
        assert!(schema.is_valid(&json), "{json}");
        assert_eq!(serde_json::from_value::<BottleEvent>(json).unwrap(), event);
    }
}

#[test]
fn a_decision_says_who_made_it_and_when_it_ends() {
    let EventData::Decision(DecisionEvent::Settled(settled)) = sidecar("supervise", "settled", SETTLED).data else {
        panic!("no decision")
    };
    let by = settled.by.unwrap();
    assert_eq!((settled.state, by.decider, by.process), (SettledState::Approved, Decider::Automatic, 42));
    assert_eq!(settled.ends, Some(ApprovalEnd { until: 1_700_000_060, once: true }));
    assert_eq!(settled.applied.unwrap().status, ApplyStatus::Live);
}

#[test]
fn a_line_that_is_not_of_its_kind_is_kept_as_it_is() {
    let event = sidecar("egress", "request", r#","outcome":"done","port":"443""#);
    let EventData::Sidecar(kept) = event.data else { panic!("{event:?}") };
    assert_eq!((&*kept.event, &kept.details["port"]), ("request", &"443".into()));
}

#[test]
fn the_schema_accepts_a_record_and_refuses_what_is_neither() {
    let schema = schema();
    let line = serde_json::to_value(record(r#""event":"step_started","name":"up""#)).unwrap();
    assert!(schema.is_valid(&line), "{line}");
    let request = serde_json::to_value(sidecar("egress", "request", REQUEST)).unwrap();
    for (pointer, bad) in [
        ("/kind", json!("other")),
        ("/kind", json!("git")),
        ("/source", json!("agent")),
        ("/time", json!("now")),
        ("/data/port", json!("443")),
        ("/data/outcome", json!("perhaps")),
        ("/data", json!({})),
    ] {
        let mut line = request.clone();
        *line.pointer_mut(pointer).unwrap() = bad;
        assert!(!schema.is_valid(&line), "{line}");
    }
    for (pointer, bad) in [("/event", json!("other")), ("/name", json!(1)), ("/time", json!(1))] {
        let mut record = line.clone();
        *record.pointer_mut(pointer).unwrap() = bad;
        assert!(!schema.is_valid(&record), "{record}");
    }
}

#[test]
fn the_committed_schema_is_that_of_the_types() {
    assert!(SCHEMA == json_schema(), "the types have changed; run `cargo xtask schema`");
}
