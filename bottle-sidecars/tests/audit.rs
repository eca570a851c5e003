//! Audit lines: what the sidecars' own Python writes has the schema, and reads back as the type.

#![expect(clippy::unwrap_used, reason = "a test that cannot run the sidecars' code has failed")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use bottle_sidecars::audit::{AuditLine, AuditOutcome, AuditSource, json_schema};
use serde_json::{Value, json};

/// Runs the writer of each sidecar for every event that needs no network, and returns what they print.
fn written() -> String {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("images");
    let scratch = tempfile::tempdir().unwrap();
    let path = ["shared", "egress", "git-gate/scripts", "supervise"].map(|dir| images.join(dir));
    let output = Command::new("python3")
        .args(["-B", "-c", include_str!("audit_lines.py")])
        .arg(scratch.path())
        .env("PYTHONPATH", std::env::join_paths(path).unwrap())
        .env("REMOTE_ADDR", "192.0.2.7")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_lines_of_every_sidecar_have_the_schema_and_read_back() {
    let schema: Value = serde_json::from_str(&json_schema()).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let written = written();
    let mut seen = BTreeSet::new();
    for text in written.lines() {
        let value: Value = serde_json::from_str(text).unwrap();
        let problems: Vec<String> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{text}: {problems:?}");
        let line: AuditLine = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(&line).unwrap(), value);
        let explained = !matches!(line.outcome, None | Some(AuditOutcome::Done));
        assert_eq!(line.reason.is_some(), explained, "a reason explains every outcome but `done`: {text}");
        let source = match line.sidecar {
            AuditSource::Egress => "egress",
            AuditSource::GitGate => "git-gate",
            _ => "supervise",
        };
        let outcome = value["outcome"].as_str().unwrap_or("-");
        seen.insert(format!("{source} {} {outcome}", line.event));
    }
    insta::assert_snapshot!(seen.into_iter().collect::<Vec<_>>().join("\n"), @r"
    egress reload failed
    egress request done
    egress request failed
    egress request refused
    egress started -
    git-gate fetch done
    git-gate push unknown
    git-gate push-begin refused
    supervise lost failed
    supervise proposed -
    supervise refused refused
    supervise settled done
    supervise settled failed
    supervise settled refused
    supervise started -
    supervise stopped -
    ");
}

#[test]
fn the_schema_refuses_a_line_without_its_common_fields() {
    let schema: Value = serde_json::from_str(&json_schema()).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let line = json!({"ts": "2026-01-02T03:04:05.678Z", "sidecar": "egress", "event": "request", "outcome": "done"});
    assert!(schema.is_valid(&line));
    let wrong = [
        ("ts", json!("2026-01-02T03:04:05Z")),
        ("ts", Value::Null),
        ("sidecar", json!("seal")),
        ("event", json!("two words")),
        ("outcome", json!("served")),
        ("reason", json!(1)),
    ];
    for (key, value) in wrong {
        let mut line = line.clone();
        line[key] = value;
        assert!(!schema.is_valid(&line), "{line}");
    }
}

#[test]
fn the_committed_schema_is_that_of_the_type() {
    let committed = include_str!("../images/shared/audit-line.schema.json");
    assert!(committed == json_schema(), "the type has changed; run `cargo xtask schema`");
}
