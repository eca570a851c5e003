//! Canonical encoding of a JSON value.

use std::fmt::Write as _;

use serde_json::Value;

/// Returns the canonical text: sorted keys, no spaces, UTF-8. `None` if the value contains a number that is not an
/// integer.
pub(super) fn canonical(value: &Value) -> Option<String> {
    let mut text = String::new();
    write(value, &mut text).then_some(text)
}

fn write(value: &Value, text: &mut String) -> bool {
    match value {
        Value::Number(number) if !(number.is_i64() || number.is_u64()) => return false,
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                if !write(item, text) {
                    return false;
                }
            }
            text.push(']');
        }
        Value::Object(fields) => {
            // Sorted explicitly: the map's own order depends on features that other crates may enable.
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            text.push('{');
            for (index, (key, item)) in fields.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                let _ = write!(text, "{}:", Value::from(key.as_str()));
                if !write(item, text) {
                    return false;
                }
            }
            text.push('}');
        }
        scalar => {
            let _ = write!(text, "{scalar}");
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_sorted_at_every_level_and_only_required_escapes_are_used() {
        let value = json!({"b": [1, {"z": null, "a": true}], "a": "é\u{7f}\"\\\n\u{8}\u{c}\u{1f}/\u{1F600}"});
        let expected = "{\"a\":\"é\u{7f}\\\"\\\\\\n\\b\\f\\u001f/\u{1F600}\",\"b\":[1,{\"a\":true,\"z\":null}]}";
        assert_eq!(canonical(&value).unwrap(), expected);
    }

    #[test]
    fn the_extreme_integers_are_encoded_and_fractions_are_refused() {
        assert_eq!(canonical(&json!([i64::MIN, u64::MAX])).unwrap(), "[-9223372036854775808,18446744073709551615]");
        assert_eq!(canonical(&json!([1.0])), None);
    }
}
