//! The objects of Kubernetes 1.35 that a bottle has, as its API server describes them. No field is unknown.

use std::collections::BTreeMap;

use jsonschema::Validator;
use serde_json::{Value, json};

/// Made by `cargo xtask kubernetes-schema` from the description of a cluster.
const OPENAPI: &str = include_str!("../kubernetes/openapi.json");

/// The schema of each kind of object.
#[derive(Debug)]
pub struct ApiSchema(BTreeMap<String, Validator>);

impl Default for ApiSchema {
    fn default() -> Self {
        let mut openapi: Value = serde_json::from_str(OPENAPI).unwrap();
        let (kinds, definitions) = (openapi["kinds"].take(), openapi["definitions"].take());
        let validator = |schema: &Value| {
            let whole = json!({"allOf": [schema], "definitions": definitions});
            jsonschema::validator_for(&whole).unwrap()
        };
        Self(kinds.as_object().unwrap().iter().map(|(kind, schema)| (kind.clone(), validator(schema))).collect())
    }
}

impl ApiSchema {
    /// Returns what is wrong with an object.
    pub fn problems(&self, object: &Value) -> Vec<String> {
        let kind = object["kind"].as_str().unwrap_or_default();
        match self.0.get(kind) {
            Some(validator) => {
                validator.iter_errors(object).map(|error| format!("{}: {error}", error.instance_path())).collect()
            }
            None => vec![format!("kind `{kind}` has no schema")],
        }
    }
}
