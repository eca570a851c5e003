//! A Compose document as YAML that a person likes to read and that every YAML reader understands alike.
//!
//! The general emitters know the words and numbers of one version of YAML. Compose's reader takes some of the other's as
//! well: `no` and `1:30` are a truth value and a number of base 60 to YAML 1.1. So a string is written plain only when it
//! looks like nothing else in any version, and in double quotes otherwise.

use std::fmt::Write as _;

use serde::Serialize;
use serde_yaml::{Mapping, Value};

use crate::document::ComposeFile;

impl ComposeFile {
    /// The document as YAML, with every `$` doubled so that Compose takes it literally.
    pub fn to_yaml(&self) -> String {
        write(self, &self.header, Dollars::Doubled)
    }
}

/// A configuration file as YAML in the same manner, for what is not read by Compose.
pub fn to_plain_yaml(document: &impl Serialize, header: &[String]) -> String {
    write(document, header, Dollars::Kept)
}

/// What becomes of a `$` in a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dollars {
    /// It is doubled, since Compose would interpolate it.
    Doubled,
    /// It stays.
    Kept,
}

fn write(document: &impl Serialize, header: &[String], dollars: Dollars) -> String {
    let mut out = String::with_capacity(8192);
    for line in header {
        // A comment ends with its line, so what is put there must not hold another.
        let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let _ = writeln!(out, "{}", format!("# {line}").trim_end());
    }
    // The documents' types hold strings, numbers, truth values, lists and mappings with string keys, all of which have a
    // value.
    if let Ok(Value::Mapping(document)) = serde_yaml::to_value(document) {
        Writer { out: &mut out, dollars }.mapping(&document, 0);
    }
    out
}

struct Writer<'a> {
    out: &'a mut String,
    dollars: Dollars,
}

impl Writer<'_> {
    fn mapping(&mut self, mapping: &Mapping, depth: usize) {
        for (key, value) in mapping {
            self.indent(depth);
            self.entry(key, value, depth);
        }
    }

    /// A key and its value, the cursor standing where the key belongs.
    fn entry(&mut self, key: &Value, value: &Value, depth: usize) {
        // Compose interpolates values, not keys.
        write_string(self.out, key.as_str().unwrap_or_default(), Dollars::Kept);
        self.out.push(':');
        self.value(value, depth + 1);
    }

    /// A value after `key:`, on the same line when it fits there.
    fn value(&mut self, value: &Value, depth: usize) {
        match value {
            Value::Mapping(mapping) if !mapping.is_empty() => {
                self.out.push('\n');
                self.mapping(mapping, depth);
            }
            Value::Sequence(items) if !items.is_empty() => {
                self.out.push('\n');
                for item in items {
                    self.indent(depth);
                    self.out.push('-');
                    self.item(item, depth);
                }
            }
            // An empty value is null in every version of YAML.
            Value::Null => self.out.push('\n'),
            scalar => {
                self.out.push(' ');
                self.scalar(scalar);
                self.out.push('\n');
            }
        }
    }

    /// A list's item after its `-`; a mapping begins on the same line.
    fn item(&mut self, item: &Value, depth: usize) {
        match item {
            Value::Mapping(mapping) if !mapping.is_empty() => {
                self.out.push(' ');
                for (index, (key, value)) in mapping.iter().enumerate() {
                    if index > 0 {
                        self.indent(depth + 1);
                    }
                    self.entry(key, value, depth + 1);
                }
            }
            other => self.value(other, depth + 1),
        }
    }

    fn scalar(&mut self, value: &Value) {
        match value {
            Value::Bool(truth) => self.out.push_str(if *truth { "true" } else { "false" }),
            Value::Number(number) => {
                let _ = write!(self.out, "{number}");
            }
            Value::String(text) => write_string(self.out, text, self.dollars),
            Value::Sequence(_) => self.out.push_str("[]"),
            Value::Mapping(_) => self.out.push_str("{}"),
            Value::Null | Value::Tagged(_) => self.out.push_str("null"),
        }
    }

    fn indent(&mut self, depth: usize) {
        self.out.extend(std::iter::repeat_n("  ", depth));
    }
}

/// A string, plain where no reader can take it for something else.
fn write_string(out: &mut String, text: &str, dollars: Dollars) {
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
            '$' if dollars == Dollars::Doubled => out.push_str("$$"),
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
        write_string(&mut out, text, Dollars::Doubled);
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
