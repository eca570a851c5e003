//! The manifest's JSON Schema, by which an editor completes and checks a manifest.

use schemars::Schema;
use schemars::generate::SchemaSettings;

use super::Manifest;

impl Manifest {
    /// The schema as the text of a file, in draft 7, the one that editors know best.
    ///
    /// It accepts what [`Manifest::parse`] accepts, and refuses what can be told without looking at two keys at once.
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
        text(&schema)
    }
}

/// `DeployKeySpec` as "Deploy key".
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

fn text(schema: &Schema) -> String {
    // What `serde_json` itself holds has a form in JSON.
    serde_json::to_string_pretty(schema).unwrap_or_default() + "\n"
}
