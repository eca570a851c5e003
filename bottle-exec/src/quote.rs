//! Words as a shell reads them.

use std::ffi::OsStr;
use std::fmt::Write as _;

/// Whether a shell takes `NAME=value` in front of a command as an assignment.
pub(crate) fn is_assignable(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// One word: bare where that is safe, in single quotes otherwise, in `$'…'` where a control character or a byte that is
/// no text would break the line.
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
