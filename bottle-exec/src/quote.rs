//! Quoting of words for a shell.

use std::ffi::OsStr;
use std::fmt::Write as _;

/// Returns true if a shell reads `NAME=value` before a command as an assignment.
pub(crate) fn is_assignable(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Quotes one word: bare if that is safe, `$'…'` if it contains control characters or invalid UTF-8, otherwise in
/// single quotes.
pub(crate) fn quote(word: &OsStr) -> String {
    match word.to_str() {
        Some(text) if !text.is_empty() && text.bytes().all(is_safe) => text.to_owned(),
        Some(text) if !text.chars().any(char::is_control) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => escaped(word.as_encoded_bytes()),
    }
}

fn is_safe(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_./:=,+@%".contains(&byte)
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::from("$'");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => text.push_str(r"\n"),
                '\t' => text.push_str(r"\t"),
                '\r' => text.push_str(r"\r"),
                '\'' | '\\' => text.extend(['\\', c]),
                c if c.is_ascii_control() => _ = write!(text, r"\x{:02x}", u32::from(c)),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            _ = write!(text, r"\x{byte:02x}");
        }
    }
    text.push('\'');
    text
}
