//! One grammar for each value: manifest, proposal and the patterns that the sidecars load give the same verdict. The tests of
//! each sidecar read the same table and compare what the sidecar's own code accepts.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its own files has failed")]

use bottle_plan::Manifest;
use bottle_supervise::Proposal;
use bottle_values::value::AllowedHost;
use proptest::prelude::*;
use serde_json::{Value, json};

fn table() -> Vec<(String, String, bool)> {
    let text = include_str!("../../bottle-sidecars/images/shared/tests/grammar_cases.json");
    let rows: Vec<Value> = serde_json::from_str(text).unwrap();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    rows.iter().map(|row| (text(row, "value"), text(row, "text"), row["accepted"].as_bool().unwrap())).collect()
}

/// Returns true if a manifest with the text in its place parses. JSON is YAML.
fn manifest(value: &str, text: &str) -> bool {
    let route = |key: &str, value: Value| json!({"egress": {"routes": [{"host": "api.example.com", key: value}]}});
    let upstream = |name: &str, url: &str| {
        let hosts =
            ["[git.example.com]:22 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJvdHRsZS1ib3R0bGUtYm90dGxlLWJvdHRsZS1i"];
        let ssh = !url.starts_with("https://");
        let key = if ssh { json!({"identity_file": "~/key", "known_hosts": hosts}) } else { json!({}) };
        let mut upstream = json!({"name": name, "url": url});
        upstream.as_object_mut().unwrap().extend(key.as_object().unwrap().clone());
        json!({"git": {"upstreams": [upstream]}})
    };
    let bottle = match value {
        // Only a manifest may write a port.
        "allowed_host" if text.contains(':') => return text.parse::<AllowedHost>().is_ok(),
        "allowed_host" => json!({"egress": {"allow": [text]}}),
        "route_host" => json!({"egress": {"routes": [{"host": text}]}}),
        "path" => route("paths", json!([text])),
        "method" => route("methods", json!([text])),
        "credential" => route("inject", json!({"token": text})),
        "header" => route("inject", json!({"token": "A", "scheme": "header", "header": text})),
        "upstream" => upstream(text, "https://git.example.com/a"),
        "git_url" => upstream("app", text),
        "package" => json!({"images": {"packages": [text]}}),
        // A plan's slug comes from the launch.
        "slug" => return text.parse::<bottle_values::name::Slug>().is_ok(),
        other => panic!("no such value: {other}"),
    };
    let manifest = json!({"bottles": {"dev": bottle}, "agents": {"demo": {"bottle": "dev", "command": ["id"]}}});
    match Manifest::parse(&manifest.to_string()) {
        Ok(_) => true,
        // A URL whose host is not the one of this test's key.
        Err(error) => {
            value == "git_url" && error.to_string().contains("known_hosts") && !error.to_string().contains("git URL")
        }
    }
}

/// Returns true if a proposal with the text in its place parses. `None` for a value that no proposal has.
fn proposal(value: &str, text: &str) -> Option<bool> {
    let slug = if value == "slug" { text } else { "demo-1" };
    let (kind, change) = match value {
        "header" => return None,
        "slug" => ("allow_host", json!({"host": "api.example.com"})),
        "allowed_host" => ("allow_host", json!({"host": text})),
        "route_host" => ("route", json!({"host": text})),
        "path" => ("route", json!({"host": "api.example.com", "paths": [text]})),
        "method" => ("route", json!({"host": "api.example.com", "methods": [text]})),
        "credential" => ("route", json!({"credential": text, "host": "api.example.com"})),
        "upstream" => ("git_upstream", json!({"name": text, "url": "https://git.example.com/a"})),
        "git_url" => ("git_upstream", json!({"name": "app", "url": text})),
        "package" => ("image_change", json!({"packages": [text]})),
        other => panic!("no such value: {other}"),
    };
    // The keys are sorted, as canonical JSON requires.
    let id = "1700000000000-aaaaaaaaaaaaaaaa";
    let file = format!(
        r#"{{"agent_reason":"x","change":{change},"created":"2026-01-02T03:04:05.678Z","id":"{id}","kind":"{kind}","slug":{},"version":1}}"#,
        json!(slug)
    );
    Some(Proposal::parse(file.as_bytes()).is_ok())
}

/// Returns true if the text is accepted as a value.
type Verdict = Box<dyn Fn(&str, &str) -> bool>;

/// Returns a function that applies the patterns as the sidecar does.
fn patterns() -> impl Fn(&str, &str) -> bool {
    let grammars: Value = serde_json::from_str(&bottle_values::export::json()).unwrap();
    let compiled: std::collections::BTreeMap<String, jsonschema::Validator> = grammars
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, grammar)| {
            let mut schema = json!({"maxLength": grammar["max_length"], "pattern": grammar["pattern"]});
            if grammar["never"].is_string() {
                schema["not"] = json!({"pattern": grammar["never"]});
            }
            (name.clone(), jsonschema::validator_for(&schema).unwrap())
        })
        .collect();
    move |value, text| compiled[value].is_valid(&json!(text))
}

#[test]
fn manifest_proposal_and_patterns_agree() {
    let (table, patterns) = (table(), patterns());
    assert!(table.len() >= 100, "{}", table.len());
    let wrong: Vec<String> = table
        .iter()
        .filter_map(|(value, text, accepted)| {
            let verdicts = [Some(manifest(value, text)), proposal(value, text), Some(patterns(value, text))];
            verdicts
                .iter()
                .flatten()
                .any(|verdict| verdict != accepted)
                .then(|| format!("{value} {text:?}: {accepted}, but {verdicts:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "manifest, proposal, patterns:\n{}", wrong.join("\n"));
}

#[test]
fn the_table_has_the_longest_text_of_each_grammar_and_one_that_is_a_character_longer() {
    let grammars: Value = serde_json::from_str(&bottle_values::export::json()).unwrap();
    let table = table();
    for (name, grammar) in grammars.as_object().unwrap() {
        let longest = usize::try_from(grammar["max_length"].as_u64().unwrap()).unwrap();
        for (length, is_accepted) in [(longest, true), (longest + 1, false)] {
            let fits = |row: &&(String, String, bool)| row.0 == *name && row.1.chars().count() == length;
            let verdicts: Vec<bool> = table.iter().filter(fits).map(|row| row.2).collect();
            assert!(verdicts.contains(&is_accepted), "no row for {name} of {length} characters: {verdicts:?}");
        }
    }
}

/// Git-gate checks the canonical form.
#[test]
fn the_canonical_form_of_each_git_url_is_accepted_too() {
    let patterns = patterns();
    let accepted = table().into_iter().filter(|(value, _, accepted)| value == "git_url" && *accepted);
    let canonical: Vec<String> =
        accepted.map(|(_, text, _)| text.parse::<bottle_values::value::GitUrl>().unwrap().canonical()).collect();
    assert!(canonical.len() > 10, "{canonical:?}");
    for url in canonical {
        assert!(patterns("git_url", &url), "{url}");
    }
}

#[test]
fn the_committed_grammars_are_those_of_the_types() {
    let committed = include_str!("../../bottle-sidecars/images/shared/sidecar/grammar.json");
    assert!(committed == bottle_values::export::json(), "the types have changed; run `cargo xtask schema`");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Random texts that are similar to accepted ones.
    #[test]
    fn proposals_and_patterns_agree_on_random_texts(
        value in prop::sample::select(&["allowed_host", "route_host", "path", "method", "credential", "upstream", "git_url", "package", "slug"][..]),
        text in prop::collection::vec(
            prop::sample::select(&[
                "a", "B", "0", "1", "9", ".", "..", "-", "_", "*", "*.", "/", "//", ":", "@", "+", "g++", "~", ";", "%", "#", "é",
                "\n", " ", "0x", "0xf", "com", "example.com", "https://", "ssh://", "git@", "://", ":22", ":65536", ".git", ".lock",
                "GET", "CONNECT", "1.2.3.4", "256", "sk-", "ghp_", "aB3dE5fG7hI9jK1lM3nO", "aaaaaaaaaaaa",
            ][..]),
            0..7,
        ),
    ) {
        thread_local!(static PATTERNS: Verdict = Box::new(patterns()));
        let text = text.concat();
        let by_pattern = PATTERNS.with(|patterns| patterns(value, &text));
        prop_assert_eq!(proposal(value, &text), Some(by_pattern), "{} {:?}", value, text);
    }
}
