//! The part of a cluster's `OpenAPI` description that the objects of a bottle use, as a JSON Schema without unknown fields.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::process::{Result, output, root};

/// The file, relative to the repository.
const FILE: &str = "bottle-testing/kubernetes/openapi.json";

/// Each document of the API server, with the kinds in it that a bottle has.
const KINDS: [(&str, &str, &[&str]); 3] = [
    ("api/v1", "io.k8s.api.core.v1", &["Namespace", "Pod", "Service"]),
    ("apis/networking.k8s.io/v1", "io.k8s.api.networking.v1", &["NetworkPolicy"]),
    ("apis/coordination.k8s.io/v1", "io.k8s.api.coordination.v1", &["Lease"]),
];

/// The keywords that say which objects are valid. Descriptions, defaults and extensions are left out.
const KEYWORDS: [&str; 6] = ["type", "required", "enum", "oneOf", "minimum", "maximum"];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing, and fail if the committed file is not that of the cluster.
    #[arg(long)]
    check: bool,
}

/// Reads the description from the cluster of kubectl's current context.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let (mut definitions, mut kinds) = (BTreeMap::new(), BTreeMap::new());
    for (path, group, names) in KINDS {
        let text = output(Command::new("kubectl").args(["get", "--raw", &format!("/openapi/v3/{path}")]))?;
        let mut document: Value = serde_json::from_str(&text)?;
        let Value::Object(schemas) = document["components"]["schemas"].take() else {
            return Err(format!("`{path}` has no schemas").into());
        };
        definitions.extend(schemas);
        kinds.extend(names.iter().map(|kind| ((*kind).to_owned(), format!("{group}.{kind}"))));
    }
    let schema = trimmed(&definitions, &kinds)?;
    let text = serde_json::to_string_pretty(&schema)? + "\n";
    let path = root().join(FILE);
    let is_current = fs::read_to_string(&path).unwrap_or_default() == text;
    if arguments.check && !is_current {
        return Err(format!("`{FILE}` is not that of the cluster; run `cargo xtask kubernetes-schema`").into());
    }
    if !arguments.check {
        fs::create_dir_all(path.with_file_name(""))?;
        fs::write(&path, text)?;
    }
    println!("{FILE} {}", if is_current { "is that of the cluster" } else { "is written" });
    Ok(())
}

/// Returns the kinds and every definition that they refer to. What only the cluster writes (`status`) is left out.
fn trimmed(definitions: &BTreeMap<String, Value>, kinds: &BTreeMap<String, String>) -> Result<Value> {
    let mut kept = Map::new();
    let mut wanted: Vec<String> = kinds.values().cloned().collect();
    while let Some(name) = wanted.pop() {
        if kept.contains_key(&name) {
            continue;
        }
        let mut definition = definitions.get(&name).ok_or_else(|| format!("`{name}` is not described"))?.clone();
        if kinds.values().any(|kind| *kind == name)
            && let Some(properties) = definition["properties"].as_object_mut()
        {
            properties.remove("status");
        }
        kept.insert(name, schema(&definition, &mut wanted));
    }
    let kinds: BTreeMap<_, _> = kinds.iter().map(|(kind, name)| (kind, reference(name))).collect();
    Ok(json!({"kinds": kinds, "definitions": kept}))
}

/// Returns a schema with the keywords that matter, in which an object has no unknown field. `wanted` gets the names of the
/// definitions that it refers to.
fn schema(value: &Value, wanted: &mut Vec<String>) -> Value {
    let mut found = Map::new();
    // Beside a default, the API server writes a reference as the only entry of `allOf`.
    let target = value.get("$ref").or_else(|| value["allOf"][0].get("$ref")).and_then(Value::as_str);
    if let Some(name) = target.and_then(|target| target.strip_prefix("#/components/schemas/")) {
        wanted.push(name.to_owned());
        return reference(name);
    }
    for keyword in KEYWORDS {
        found.extend(value.get(keyword).map(|given| (keyword.to_owned(), given.clone())));
    }
    for keyword in ["items", "additionalProperties"] {
        found.extend(value.get(keyword).map(|given| (keyword.to_owned(), schema(given, wanted))));
    }
    if let Some(properties) = value["properties"].as_object() {
        let inner: Map<_, _> = properties.iter().map(|(name, given)| (name.clone(), schema(given, wanted))).collect();
        found.insert("properties".into(), inner.into());
        found.insert("additionalProperties".into(), false.into());
    }
    found.into()
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/definitions/{name}")})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_closed_and_has_no_text() {
        let definitions = BTreeMap::from([
            (
                "a.Pod".to_owned(),
                json!({"description": "x", "type": "object", "x-kubernetes-group-version-kind": [], "properties": {
                    "spec": {"allOf": [{"$ref": "#/components/schemas/a.Spec"}], "default": {}, "description": "x"},
                    "status": {"$ref": "#/components/schemas/a.Status"},
                }}),
            ),
            (
                "a.Spec".to_owned(),
                json!({"type": "object", "properties": {
                    "default": {"type": "string", "default": ""},
                    "labels": {"type": "object", "additionalProperties": {"type": "string", "default": ""}},
                }}),
            ),
            ("a.Status".to_owned(), json!({"type": "object"})),
        ]);
        let kinds = BTreeMap::from([("Pod".to_owned(), "a.Pod".to_owned())]);
        let expected = json!({
            "kinds": {"Pod": {"$ref": "#/definitions/a.Pod"}},
            "definitions": {
                "a.Pod": {"type": "object", "additionalProperties": false, "properties": {
                    "spec": {"$ref": "#/definitions/a.Spec"},
                }},
                "a.Spec": {"type": "object", "additionalProperties": false, "properties": {
                    "default": {"type": "string"},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                }},
            },
        });
        assert_eq!(trimmed(&definitions, &kinds).unwrap(), expected);
        let unknown = BTreeMap::from([("Job".to_owned(), "a.Job".to_owned())]);
        assert_eq!(trimmed(&definitions, &unknown).unwrap_err().to_string(), "`a.Job` is not described");
    }
}
