//! The JSON Schema accepts what the parser accepts, and refuses what a schema can see.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its own files has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use bottle_plan::Manifest;
use proptest::prelude::*;
use serde_json::{Value, json};

fn fixtures(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(dir);
    let mut paths: Vec<_> = dir.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn validator() -> jsonschema::Validator {
    jsonschema::validator_for(&serde_json::from_str(&Manifest::json_schema()).unwrap()).unwrap()
}

#[test]
fn the_committed_schema_is_what_the_types_say() {
    let committed = include_str!("../schema/bottle.schema.json");
    assert!(committed == Manifest::json_schema(), "the types have changed; run `cargo xtask schema`");
}

#[test]
fn good_manifests_are_accepted_and_survive_being_written() {
    let validator = validator();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let examples = ["bottle.yaml", "claude.yaml", "codex.yaml"].map(|name| examples.join(name));
    for path in fixtures("good").into_iter().chain(examples) {
        let manifest = Manifest::read(&path).unwrap();
        let value: Value = serde_yaml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let mistakes: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(mistakes.is_empty(), "{}: {mistakes:?}", path.display());
        let written = serde_yaml::to_string(&manifest).unwrap();
        assert_eq!(Manifest::parse(&written).unwrap(), manifest, "{written}");
        assert!(validator.is_valid(&serde_json::to_value(&manifest).unwrap()), "{written}");
    }
}

/// The bad manifests that an editor cannot see to be bad: rules that span keys, and rules of YAML itself.
#[test]
fn bad_manifests_are_refused_but_for_what_no_schema_sees() {
    let validator = validator();
    let accepted: Vec<_> = fixtures("bad")
        .into_iter()
        .filter(|path| {
            let value = serde_yaml::from_str::<Value>(&fs::read_to_string(path).unwrap());
            value.is_ok_and(|value| validator.is_valid(&value))
        })
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    insta::assert_snapshot!(accepted.join("\n"));
}

#[test]
fn every_type_and_key_is_described_and_closed() {
    fn visit(place: &str, schema: &Value) {
        let Some(schema) = schema.as_object() else { return };
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            assert_eq!(schema.get("additionalProperties"), Some(&json!(false)), "{place} is open");
            for (key, property) in properties {
                let described = property.get("description").is_some() || property.get("anyOf").is_some();
                assert!(described, "{place}.{key} is not described");
            }
        }
        for (key, inner) in schema {
            visit(&format!("{place}/{key}"), inner);
        }
    }
    let schema: Value = serde_json::from_str(&Manifest::json_schema()).unwrap();
    visit("", &schema);
    for (name, definition) in schema["definitions"].as_object().unwrap() {
        assert!(definition.get("title").is_some(), "{name} has no title");
    }
}

/// A manifest with one text in one place, and whether it is accepted there.
fn both(key: &str, text: &str, validator: &jsonschema::Validator) -> (bool, bool) {
    let mut manifest = json!({"bottles": {"dev": {}}, "agents": {"demo": {"bottle": "dev", "command": ["id"]}}});
    let bottle = &mut manifest["bottles"]["dev"];
    match key {
        "allowed" => bottle["egress"]["allow"] = json!([text]),
        "routed" => bottle["egress"]["routes"] = json!([{"host": text}]),
        "path" => bottle["egress"]["routes"] = json!([{"host": "example.com", "paths": [text]}]),
        "method" => bottle["egress"]["routes"] = json!([{"host": "example.com", "methods": [text]}]),
        "token" => bottle["egress"]["routes"] = json!([{"host": "example.com", "inject": {"token": text}}]),
        "image" => bottle["images"]["base"] = json!(text),
        "package" => bottle["images"]["packages"] = json!([text]),
        "version" => bottle["images"]["codex"] = json!(text),
        "url" => bottle["git"]["upstreams"] = json!([{"name": "app", "url": text}]),
        "name" => bottle["git"]["upstreams"] = json!([{"name": text, "url": "https://example.com/x"}]),
        "size" => {
            bottle["git"]["upstreams"] =
                json!([{"name": "app", "url": "https://example.com/x", "push": {"max_size": text}}]);
        }
        "glob" => {
            bottle["git"]["upstreams"] =
                json!([{"name": "app", "url": "https://example.com/x", "push": {"branches": [text]}}]);
        }
        "target" => bottle["workspace"]["target"] = json!(text),
        "cpus" => bottle["limits"]["agent"]["cpus"] = json!(text),
        "agent" => manifest["agents"] = json!({text: {"bottle": "dev", "command": ["id"]}}),
        "span" => bottle["tls"]["lifetime"] = json!(text),
        _ => unreachable!("{key} is not in this list"),
    }
    let parsed = Manifest::parse(&manifest.to_string());
    // Rules that span keys or need arithmetic are not the schema's.
    let rules = [
        "an ssh upstream needs",
        "would hide",
        "too short",
        "no push",
        "too large",
        "out of range",
        "port is not",
        "is a number or an IP address",
    ];
    let beyond = parsed.as_ref().is_err_and(|error| {
        error.mistakes.iter().all(|mistake| rules.iter().any(|rule| mistake.problem.contains(rule)))
    });
    let schema = validator.is_valid(&manifest);
    (if beyond { schema } else { parsed.is_ok() }, schema)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parser_and_schema_agree_on_single_values(
        (key, text) in prop_oneof![
            (Just("allowed"), "(\\*\\.)?[a-z0-9.*-]{1,10}(:[0-9+]{0,6})?"),
            (Just("routed"), "(\\*\\.)?[a-z0-9.*-]{1,10}"),
            (Just("path"), "/?[a-z./%-]{0,8}"),
            (Just("method"), "[A-Zg]{1,5}|CONNECT|TRACE"),
            (Just("token"), "[A-Za-z0-9_$-]{1,12}"),
            (Just("image"), "[a-zA-Z0-9./:@_-]{1,12}"),
            (Just("package"), "[a-z0-9+.-]{1,8}"),
            (Just("version"), "[0-9]{1,2}\\.[0-9.]{1,5}[a-z.-]{0,4}"),
            (Just("url"), "(https://|ssh://|)([a-z]{1,3}@|)[a-zA-Z0-9.-]{1,5}(:|/|:22/|:/)[a-z0-9./:-]{0,6}"),
            (Just("name"), "[a-z0-9A._-]{1,6}(\\.git|\\.lock)?"),
            (Just("size"), "[0-9]{1,4}[KMGkmgiBb]{0,3}"),
            (Just("glob"), "[a-z/*? :~-]{1,6}"),
            (Just("target"), "/?[a-z/.: ]{0,8}"),
            (Just("cpus"), "[0-9]{0,4}[.]?[0-9]{0,4}"),
            (Just("agent"), "(egress|pipelock|a|)[a-z0-9-]{1,4}"),
            (Just("span"), "[0-9]{1,3}[smhdw]?"),
        ]
    ) {
        thread_local!(static VALIDATOR: jsonschema::Validator = validator());
        let (parser, schema) = VALIDATOR.with(|validator| both(key, &text, validator));
        prop_assert!(schema || !parser, "only the parser accepts {key} {text:?}");
        prop_assert!(parser || !schema, "only the schema accepts {key} {text:?}");
    }
}
