//! A Compose document as YAML that a person likes to read and that every YAML reader understands alike.
//!
//! The general emitters know the words and numbers of one version of YAML. Compose's reader takes some of the other's as
//! well: `no` and `1:30` are a truth value and a number of base 60 to YAML 1.1. So a string is written plain only when it
//! looks like nothing else in any version, and in double quotes otherwise.

use std::fmt::Write as _;

use serde_yaml::{Mapping, Value};

use crate::document::ComposeFile;

impl ComposeFile {
    /// The document as YAML, with every `$` doubled so that Compose takes it literally.
    pub fn to_yaml(&self) -> String {
        let mut out = String::with_capacity(8192);
        for line in &self.header {
            // A comment ends with its line, so what is put there must not hold another.
            let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let _ = writeln!(out, "# {line}");
        }
        // The document's types hold strings, numbers, truth values, lists and mappings with string keys, all of which have
        // a value.
        if let Ok(Value::Mapping(document)) = serde_yaml::to_value(self) {
            write_mapping(&mut out, &document, 0);
        }
        out
    }
}

fn write_mapping(out: &mut String, mapping: &Mapping, depth: usize) {
    for (key, value) in mapping {
        indent(out, depth);
        write_entry(out, key, value, depth);
    }
}

/// A key and its value, the cursor standing where the key belongs.
fn write_entry(out: &mut String, key: &Value, value: &Value, depth: usize) {
    // Compose interpolates values, not keys.
    write_string(out, key.as_str().unwrap_or_default(), false);
    out.push(':');
    write_value(out, value, depth + 1);
}

/// A value after `key:`, on the same line when it fits there.
fn write_value(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Mapping(mapping) if !mapping.is_empty() => {
            out.push('\n');
            write_mapping(out, mapping, depth);
        }
        Value::Sequence(items) if !items.is_empty() => {
            out.push('\n');
            for item in items {
                indent(out, depth);
                out.push('-');
                write_item(out, item, depth);
            }
        }
        // An empty value is null in every version of YAML.
        Value::Null => out.push('\n'),
        scalar => {
            out.push(' ');
            write_scalar(out, scalar);
            out.push('\n');
        }
    }
}

/// A list's item after its `-`; a mapping begins on the same line.
fn write_item(out: &mut String, item: &Value, depth: usize) {
    match item {
        Value::Mapping(mapping) if !mapping.is_empty() => {
            out.push(' ');
            for (index, (key, value)) in mapping.iter().enumerate() {
                if index > 0 {
                    indent(out, depth + 1);
                }
                write_entry(out, key, value, depth + 1);
            }
        }
        other => write_value(out, other, depth + 1),
    }
}

fn write_scalar(out: &mut String, value: &Value) {
    match value {
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => {
            let _ = write!(out, "{number}");
        }
        Value::String(text) => write_string(out, text, true),
        Value::Sequence(_) => out.push_str("[]"),
        Value::Mapping(_) => out.push_str("{}"),
        Value::Null | Value::Tagged(_) => out.push_str("null"),
    }
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

/// A string, plain where no reader can take it for something else.
fn write_string(out: &mut String, text: &str, interpolated: bool) {
    if is_plain(text) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '$' if interpolated => out.push_str("$$"),
            // Line and paragraph separators and the byte order mark are printable to Rust and special to YAML.
            c if c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = match u32::from(c) {
                    code @ 0..=0xff => write!(out, "\\x{code:02x}"),
                    code => write!(out, "\\u{code:04x}"),
                };
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Words that are a truth value or null in some version of YAML, in lower case.
const WORDS: &[&str] = &["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

/// Whether the text is a string to every reader when it stands without quotes.
///
/// It begins with a letter, `/`, `_` or a hyphen that a letter or another hyphen follows, holds only characters without a
/// meaning in YAML, and is none of its words. What begins with a digit, a sign or a point may be a number of some base,
/// a time or a date, and is not plain.
fn is_plain(text: &str) -> bool {
    let mut bytes = text.bytes();
    let begins = match bytes.next() {
        Some(b'-') => bytes.next().is_some_and(|next| next.is_ascii_alphabetic() || next == b'-') && text != "---",
        Some(first) => first.is_ascii_alphabetic() || matches!(first, b'/' | b'_'),
        None => false,
    };
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./,=@+:".contains(&byte) || byte == b' ';
    begins
        && text.bytes().all(harmless)
        && !text.contains(": ")
        && !text.ends_with([':', ' '])
        && !text.contains("--- ")
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let mut out = String::new();
        write_string(&mut out, text, true);
        out
    }

    #[test]
    fn what_looks_like_something_else_is_quoted() {
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
            "0o17",
            "0x1f",
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
            "ä",
            "{a}",
            "[a]",
            "a\"b",
            "'a'",
            "|",
            ">",
            "y",
            "N",
            "$HOME",
            "a$b",
        ] {
            assert!(written(text).starts_with('"'), "{text:?} is written as {}", written(text));
        }
    }

    #[test]
    fn what_is_plainly_a_string_is_not() {
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
        ] {
            assert_eq!(written(text), text);
        }
    }

    #[test]
    fn every_string_reads_back_as_itself() {
        for text in
            ["a\u{85}b", "a\u{2028}b", "\u{feff}a", "\u{0}", "\u{7f}", "tab\there", "quote\"s\\", "多い", "a$b$$c"]
        {
            let read: String = serde_yaml::from_str(&written(text)).unwrap();
            assert_eq!(read.replace("$$", "$"), text, "{text:?}");
        }
    }
}
