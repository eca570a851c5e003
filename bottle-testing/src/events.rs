//! The committed schema of events.

use std::sync::LazyLock;

use serde_json::Value;

static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let schema = include_str!("../../bottle-events/schema/event.schema.json");
    jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap()
});

/// Returns true if a line fits the schema.
pub fn is_valid(line: &Value) -> bool {
    SCHEMA.is_valid(line)
}
