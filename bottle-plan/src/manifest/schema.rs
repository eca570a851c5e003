//! The manifest's JSON Schema, with which an editor completes and checks a manifest.

use schemars::Schema;
use schemars::generate::SchemaSettings;

use super::Manifest;

impl Manifest {
    /// Returns the JSON Schema as the text of a file, in draft 7, which editors support best.
    ///
    /// It accepts everything that [`Manifest::parse`] accepts. It rejects the mistakes that can be found by looking at
    /// one key at a time.
    pub fn json_schema() -> String {
        let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Self>();
        if let Some(definitions) = schema.get_mut("definitions").and_then(serde_json::Value::as_object_mut) {
            for (name, definition) in definitions {
                if let Some(definition) = definition.as_object_mut() {
                    definition.entry("title").or_insert_with(|| title(name).into());
                }
            }
        }
        schema.insert("$id".to_owned(), "bottle.schema.json".into());
        text(schema)
    }
}

/// Returns the title of a type, such as "Deploy key" for `DeployKeySpec`.
fn title(name: &str) -> String {
    let name = name.trim_start_matches("Toggle_").trim_end_matches("Spec").trim_end_matches("Form");
    let mut title = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !title.is_empty() {
            title.push(' ');
            title.push(c.to_ascii_lowercase());
        } else {
            title.push(c);
        }
    }
    title
}

fn text(mut schema: Schema) -> String {
    // A program may build serde_json so that it keeps the order of insertion.
    if let Some(object) = schema.as_object_mut() {
        object.sort_keys();
        object.values_mut().for_each(serde_json::Value::sort_all_objects);
    }
    // A `serde_json` value can always be serialized.
    serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
}
