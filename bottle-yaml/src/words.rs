//! Words for error messages, in place of the terms of serde and YAML.

use serde::de::Expected;

use bottle_values::mask;

/// The maximum number of characters of an unknown key that an error repeats when the text does not look like a key.
const KEY_EXCERPT: usize = 12;

/// Returns a key as an error shows it. Text that cannot be a key, such as `token sk-…` without a colon, is shortened,
/// because it may hold a secret.
pub(crate) fn shown(key: &str) -> String {
    let usual = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let safe = mask::elided(key);
    if key.len() <= 64 && key.chars().all(usual) {
        return safe;
    }
    let start: String = safe.chars().take(KEY_EXCERPT).flat_map(char::escape_debug).collect();
    if safe.chars().nth(KEY_EXCERPT).is_some() { start + "…" } else { start }
}

/// Returns the names in backticks, separated by commas.
pub fn listed(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    names.into_iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// Returns the closest of `names` to a misspelled one. It must be close enough for a typing mistake, or one name must
/// be a prefix of the other.
pub fn meant<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    if wrong.len() > 64 {
        return None;
    }
    let wrong = wrong.to_ascii_lowercase().replace('-', "_");
    let distance = |name: &str| {
        let name = name.to_ascii_lowercase().replace('-', "_");
        let nested = wrong.len() >= 3 && (name.starts_with(&wrong) || (wrong.starts_with(&name) && name.len() >= 3));
        let distance = strsim::damerau_levenshtein(&wrong, &name);
        (nested || distance <= wrong.chars().count().max(name.len()) / 3).then_some(distance)
    };
    let nearest = names.into_iter().filter_map(|name| distance(name).map(|distance| (distance, name)));
    nearest.min().map(|(_, name)| name.to_owned())
}

/// Returns what a type expects, in words for a person.
pub(crate) fn in_words(expected: &dyn Expected) -> String {
    let expected = expected.to_string();
    let words = match expected.as_str() {
        // The only number of this width is a port.
        "u16" => "a whole number from 1 to 65535",
        "u32" | "u64" => "a whole number",
        "a boolean" => "`true` or `false`",
        "a string" => "text",
        "a sequence" => "a list",
        "path string" => "a path as text",
        other if other.starts_with("struct ") || other.starts_with("a map") => "a mapping",
        other if other.starts_with("enum ") || other.contains("identifier") => "one of its words as text",
        other => other,
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_fingers_finds_its_word() {
        let keys = ["allow", "routes", "env", "env_file", "networks", "workspace"];
        for (wrong, right) in [
            ("alow", Some("allow")),
            ("allowlist", Some("allow")),
            ("route", Some("routes")),
            ("env-file", Some("env_file")),
            ("Networks", Some("networks")),
            ("wrokspace", Some("workspace")),
            ("xyz", None),
            ("", None),
        ] {
            assert_eq!(meant(wrong, keys).as_deref(), right, "{wrong}");
        }
    }
}
