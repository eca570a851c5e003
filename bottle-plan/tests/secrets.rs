//! A secret that is written at a wrong place of a manifest, or as a name, is in no error.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its own files has failed")]

use std::fmt::{Debug, Display};
use std::path::Path;

use bottle_plan::name::AgentName;
use bottle_plan::{HostFacts, Manifest, ManifestError, PlanRequest, UserIds};
use serde_json::Value;

/// The public prefix of each shape, and the part that must not be shown.
const SHAPES: &[(&str, &str)] = &[
    ("sk-ant-api03-", "Zm9vYmFyYmF6cXV4Zm9vYmFy"),
    ("sk-ant-oat01-", "zm9vymfyymf6cxv4zm9vymfy"),
    ("sk-proj-", "h4Kq-81_xWe2NbTz"),
    ("ghp_", "wQx7Lr2Kd9TzVb4Nf6Hs1Jc8Mg3Py5Ra0Ue"),
    ("github_pat_", "11ABCDEFG0abcdefghijkl_wQx7Lr2K"),
    ("glpat-", "Kz7wQx2LrTd9VbNf4Hs6"),
    ("xoxb-", "7281639450-kdhwqxlrtzvb"),
    ("xapp-", "1-a02bqxlrtzv-7281639450"),
    ("AKIA", "J7QX2LRTD9VBNF4H"),
    ("AIza", "SyKz7wQx2LrTd9VbNf4Hs6Jc1Mg8Py3Ra5U"),
    ("eyJ", "hbGciOiJIUzI1NiJ9.eyJzdWIiOiI3MjgxIn0.Kz7wQx2LrTd9VbNf4Hs6Jc1Mg8Py3Ra5UeWoI"),
    ("npm_", "Kz7wQx2LrTd9VbNf4Hs6Jc1Mg8Py3Ra5UeWo"),
    ("", "f3b1c09d7e5a486293d0cafe41827bd655e0a9f1"),
    ("", "Kz7wQx-2LrTd9_VbNf4Hs6-Jc1Mg8Py3"),
    ("", "kz7wqx2lrtd9vbnf4hs6jc1mg8py3ra5uewo"),
    ("", "Kz7wQx2L/Td9V+Nf4Hs6Jc1Mg8Py3RaQ=="),
    ("https://user:", "hunter2-kzwqxlrtd@git.example.com/a"),
    ("", "0e7a51b2-93c4-4d58-a6f0-1b2c3d4e5f60"),
    ("", "93C44D58A6F01B2C3D4E5F600E7A51B2"),
    ("postgres://svc:", "kz/wqx#lr,td]vb@db.example.com/a"),
    ("https://", "0kz7wqx2lrtd9vbnf4hs6@git.example.com/a"),
    ("DB_PASSWORD=", "hunter-kzwqxlrtd"),
];

/// Fails if a text repeats nine characters of a secret.
fn assert_hidden(secret: &str, what: &str, shown: &str) {
    let secret = secret.split('@').next().unwrap();
    let leak = (0..=secret.len() - 6).step_by(4).map(|at| &secret[at..at + 6]).find(|part| shown.contains(part));
    assert_eq!(leak, None, "{what}:\n{shown}");
}

fn shown(error: &(impl Display + Debug)) -> String {
    format!("{error}\n{error:?}")
}

fn manifest_shown(error: &ManifestError) -> String {
    format!("{}\n{}\n{}", shown(error), error.drawn(false), error.summary())
}

/// Returns the number of texts and keys in a value.
fn places(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(places).sum(),
        Value::Object(entries) => entries.values().map(|value| 1 + places(value)).sum(),
        _ => 1,
    }
}

/// Returns the value with another text at one of its places.
fn replaced(value: &Value, place: usize, text: &str) -> Value {
    fn go(value: &Value, left: &mut usize, text: &str) -> Value {
        let mut here = || {
            let here = *left == 0;
            *left = left.wrapping_sub(1);
            here
        };
        match value {
            Value::Array(items) => items.iter().map(|item| go(item, left, text)).collect(),
            Value::Object(entries) => {
                let entry = |(key, value): (&String, &Value)| {
                    let hit = *left == 0;
                    *left = left.wrapping_sub(1);
                    (if hit { text.to_owned() } else { key.clone() }, go(value, left, text))
                };
                Value::Object(entries.iter().map(entry).collect())
            }
            _ if here() => text.into(),
            other => other.clone(),
        }
    }
    go(value, &mut { place }, text)
}

#[test]
fn a_secret_at_any_place_of_a_manifest_is_in_no_error() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/good/fullest.yaml");
    let fullest: Value = serde_yaml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let (mut parsed, mut mistakes) = (0, 0);
    for place in 0..places(&fullest) {
        // Each place gets a third of the shapes, so that the test takes seconds.
        for (index, (prefix, body)) in SHAPES.iter().enumerate().skip(place % 3).step_by(3) {
            let token = format!("{prefix}{body}");
            let written = match (place + index / 3) % 6 {
                0 => format!("Bearer {token}"),
                1 => format!("{token}.example.com"),
                2 => format!("x={token}"),
                3 => format!("/v1/{token}"),
                _ => token,
            };
            let mut mutated = replaced(&fullest, place, &written);
            // A second mistake, which draws the end of the document.
            mutated["agents"]["shell"]["bottle"] = "thrid".into();
            let text = serde_json::to_string_pretty(&mutated).unwrap();
            let error = Manifest::parse(&text).unwrap_err();
            assert_hidden(body, &format!("{written} at place {place}"), &manifest_shown(&error));
            mistakes += error.mistakes.len();
            parsed += 1;
        }
    }
    // Most of the secrets cause a mistake of their own.
    assert!(mistakes > parsed + parsed / 2, "{mistakes} mistakes in {parsed} manifests");
}

#[test]
fn a_secret_in_the_place_of_an_agents_name_is_in_no_error() {
    let token = "sk-ant-oat01-zm9vymfyymf6cxv4";
    let manifest = format!(
        "bottles: {{dev: {{}}}}\nagents: {{{token}: {{bottle: dev, command: [id]}}, other: {{bottle: dev, command: [id]}}}}"
    );
    let manifest = Manifest::parse(&manifest).unwrap();
    let host = HostFacts { home: "/home/me".into(), cwd: "/src".into(), user: UserIds { uid: 1000, gid: 1000 } };
    for wanted in [None, Some("sk-ant-oat01-kzwqxlrtdvbn")] {
        let agent: Option<AgentName> = wanted.map(|name| name.parse().unwrap());
        let request = PlanRequest { agent: agent.as_ref(), ..PlanRequest::new(&host, [0; 5]) };
        let error = manifest.plan(request).unwrap_err();
        assert_hidden(&token[13..], "known", &shown(&error));
        assert_hidden("kzwqxlrtdvbn", "wanted", &shown(&error));
    }
}
