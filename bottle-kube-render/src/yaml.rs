//! Writes objects as YAML.

use bottle_compose::to_plain_yaml;

use crate::object::Object;

/// Returns the objects as one YAML stream. The same objects give the same bytes.
pub fn to_yaml<'a>(objects: impl IntoIterator<Item = &'a Object>) -> String {
    let documents: Vec<String> = objects.into_iter().map(|object| to_plain_yaml(object, &[])).collect();
    documents.join("---\n")
}
