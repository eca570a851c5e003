//! Quoting of words for a shell.

use std::ffi::OsStr;
use std::fmt::Write as _;

/// Quotes bytes as one word for any POSIX shell, which has no `$'…'`.
///
/// ```
/// assert_eq!(bottle_exec::quote_bytes(b"it's"), br"'it'\''s'");
/// ```
pub fn quote_bytes(word: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for byte in word {
        match byte {
            b'\'' => quoted.extend_from_slice(br"'\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

/// Quotes a text as one word for any POSIX shell. See [`quote_bytes`].
pub fn quote_text(word: &str) -> String {
    String::from_utf8_lossy(&quote_bytes(word.as_bytes())).into_owned()
}

/// Returns true if a shell reads `NAME=value` before a command as an assignment.
pub(crate) fn is_assignable(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Quotes one word of a command line that a person reads: bare if that is safe, `$'…'` if it contains control characters or invalid UTF-8, otherwise in
/// single quotes.
pub(crate) fn quote(word: &OsStr) -> String {
    match word.to_str() {
        Some(text) if !text.is_empty() && text.bytes().all(is_safe) => text.to_owned(),
        Some(text) if !text.chars().any(char::is_control) => quote_text(text),
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_quoted_text_is_one_word() {
        for text in ["it's $HOME `x`\n\"y\" \\", "", "''", "-n", "a\tb\u{1b}é"] {
            let script = format!("printf '%s|' {} end", quote_text(text));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{text}|end|"));
        }
    }
}
