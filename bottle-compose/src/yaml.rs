//! Writes a Compose document, and the sidecars' configuration files, as YAML that every parser reads the same way.
//!
//! Compose's parser reads some words of YAML 1.1, such as `no` and `1:30`, as booleans and numbers. The writer quotes
//! every string that YAML 1.1 or 1.2 would not read as a string.

use std::fmt::Write as _;

use serde::Serialize;

use crate::document::ComposeFile;

impl ComposeFile {
    /// Returns the document as YAML, with every `$` doubled so that Compose takes it literally.
    pub fn to_yaml(&self) -> String {
        write(self, &self.header, Dollars::Doubled)
    }
}

/// Returns a configuration file as YAML, with every `$` unchanged, for readers other than Compose.
pub fn to_plain_yaml(document: &impl Serialize, header: &[String]) -> String {
    write(document, header, Dollars::Kept)
}

fn write(document: &impl Serialize, header: &[String], dollars: Dollars) -> String {
    let mut out = String::with_capacity(16 << 10);
    for line in header {
        // A line break would end the comment, so control characters become spaces.
        let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let _ = writeln!(out, "{}", format!("# {line}").trim_end());
    }
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false, compact_list_indent: false };
    // The documents contain only strings, numbers, booleans, lists and mappings with string keys, all of which YAML can
    // represent. If one ever failed, an empty document is better than half of one.
    let body = serde_saphyr::to_string_with_options(document, options).unwrap_or_default();
    match dollars {
        // `$` has no meaning in YAML, so every `$` belongs to a value.
        Dollars::Doubled => out.push_str(&body.replace('$', "$$")),
        Dollars::Kept => out.push_str(&body),
    }
    out
}

/// Treatment of a `$` in a value.
#[derive(Clone, Copy)]
enum Dollars {
    /// Doubled, because Compose would interpolate it.
    Doubled,
    /// Unchanged.
    Kept,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn lists_and_mappings_are_nested() {
        let inner = BTreeMap::from([("empty", vec![]), ("list", vec![Some("a"), None, Some("b: c")])]);
        let document = BTreeMap::from([
            ("a mapping of lists", serde_yaml::to_value(&inner).unwrap()),
            ("list of lists", serde_yaml::to_value(vec![vec![1, 2], vec![]]).unwrap()),
            ("list of mappings", serde_yaml::to_value([&inner, &BTreeMap::new()]).unwrap()),
            ("nothing", serde_yaml::Value::Null),
            ("number", serde_yaml::to_value(6.0).unwrap()),
            ("truth", serde_yaml::Value::Bool(true)),
        ]);
        let written = to_plain_yaml(&document, &["one\nline".into(), String::new()]);
        insta::assert_snapshot!(written);
        let read: BTreeMap<String, serde_yaml::Value> = serde_yaml::from_str(&written).unwrap();
        assert_eq!(read.len(), document.len());
        assert!(document.iter().all(|(key, value)| read[*key] == *value), "{written}");
    }

    fn written(text: &str) -> String {
        let written = to_plain_yaml(&BTreeMap::from([("k", text)]), &[]);
        written.trim_end_matches('\n').trim_start_matches("k: ").to_owned()
    }

    #[test]
    fn strings_that_look_like_another_type_are_quoted() {
        for text in [
            "",
            "yes",
            "No",
            "ON",
            "off",
            "true",
            "null",
            "~",
            "1:30",
            "22:22",
            "1000:50",
            "0o17",
            "0x1f",
            "0b11",
            "017",
            "1e3",
            "1_000",
            ".inf",
            ".5",
            "-1",
            "+1",
            "2024-01-01",
            "=",
            "<<",
            "a: b",
            "a:",
            "a #b",
            "#a",
            "- a",
            "-",
            "---",
            "? a",
            "&a",
            "*a",
            "!a",
            "%a",
            "@a",
            "`a",
            "a\nb",
            " a",
            "a ",
            "{a}",
            "[a]",
            "'a'",
            "|",
            ">",
            "y",
            "N",
            "\u{85}",
            "\u{feff}a",
        ] {
            assert!(written(text).starts_with(['"', '\'']), "{text:?} is written as {}", written(text));
        }
    }

    #[test]
    fn plain_strings_are_not_quoted() {
        for text in [
            "run",
            "--config",
            "-c",
            "/etc/pipelock.yaml",
            "claude-bottle-demo",
            "debian:trixie-slim",
            "no-new-privileges:true",
            "HTTP_PROXY=http://pipelock:8888",
            "NO_PROXY=localhost,127.0.0.1",
            "a b",
            "ALL",
            "yesterday",
            "2s",
            "1000:1000",
        ] {
            assert_eq!(written(text), text);
        }
    }

    #[test]
    fn every_string_reads_back_as_itself() {
        for text in [
            "a\u{85}b",
            "a\u{2028}b",
            "\u{feff}a",
            "\u{0}",
            "\u{7f}",
            "tab\there",
            "quote\"s\\",
            "ä多い",
            "a$b$$c",
            "a\"b",
            "two\nlines\n",
            "\n",
            "cr\r\n",
        ] {
            let read: String = serde_yaml::from_str(&written(text)).unwrap();
            assert_eq!(read, text, "{}", written(text));
        }
        let long = "long ".repeat(100);
        assert_eq!(serde_yaml::from_str::<String>(&written(&long)).unwrap(), long);
    }
}
