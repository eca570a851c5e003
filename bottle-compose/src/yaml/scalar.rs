//! A string in YAML, quoted where any reader would take it for something else.

use std::fmt::Write as _;

/// What becomes of a `$` in a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dollars {
    /// It is doubled, since Compose would interpolate it.
    Doubled,
    /// It stays.
    Kept,
}

/// A string, plain where no reader can take it for something else.
pub(super) fn write_string(out: &mut String, text: &str, dollars: Dollars) {
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

/// The bytes that have no meaning in YAML, a few of them in some places only.
const HARMLESS: [bool; 256] = {
    let mut harmless = [false; 256];
    let mut byte: u8 = 0;
    while byte < 128 {
        let sign = matches!(byte, b'_' | b'-' | b'.' | b'/' | b',' | b'=' | b'@' | b'+' | b':' | b' ');
        harmless[byte as usize] = byte.is_ascii_alphanumeric() || sign;
        byte += 1;
    }
    harmless
};

/// Whether the text is a string to every reader when it stands without quotes.
///
/// It begins with a letter, `/`, `_` or a hyphen that a letter or another hyphen follows, holds only characters without a
/// meaning in YAML, and is none of its words. What begins with a digit, a sign or a point may be a number of some base,
/// a time or a date, and is not plain.
fn is_plain(text: &str) -> bool {
    let begins = match text.as_bytes() {
        [b'-', next, ..] => (next.is_ascii_alphabetic() || *next == b'-') && !text.starts_with("---"),
        [first, ..] => first.is_ascii_alphabetic() || matches!(first, b'/' | b'_'),
        [] => false,
    };
    let is_word = || text.len() <= 5 && WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    begins
        && text.bytes().all(|byte| HARMLESS[usize::from(byte)])
        && !text.contains(": ")
        && !text.ends_with([':', ' '])
        && !is_word()
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
