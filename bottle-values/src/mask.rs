//! Masks possible secrets in text that an error shows.

use std::ops::Range;

/// Prefixes of the tokens of well-known services.
const BEGINNINGS: &[&str] = &[
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "sk-",
    "sk_live_",
    "sk_test_",
    "xapp-",
    "xoxa-",
    "xoxb-",
    "xoxe-",
    "xoxp-",
    "xoxr-",
    "xoxs-",
    "npm_",
    "AKIA",
    "ASIA",
    "AIza",
    "ya29.",
    "eyJ",
    "hf_",
    "pypi-",
];

/// Returns `true` if a text starts with the token prefix of a well-known service and has at least `more` further bytes.
pub fn begins_like_a_token(text: &str, more: usize) -> bool {
    BEGINNINGS.iter().any(|start| text.starts_with(start) && text.len() >= start.len() + more)
}

/// Regular expression for names that look like a token: a known prefix with 12 more characters, or a part that
/// [`is_random`].
pub(crate) const TOKEN_PATTERN: &str = r"^(?:ghp_|gho_|ghu_|ghs_|ghr_|github_pat_|glpat-|sk-|sk_live_|sk_test_|xapp-|xoxa-|xoxb-|xoxe-|xoxp-|xoxr-|xoxs-|npm_|AKIA|ASIA|AIza|ya29\.|eyJ|hf_|pypi-).{12,}|(?:^|_)(?=[^_]*[a-z])(?=[^_]*[A-Z])(?=[^_]*[0-9])[^_]{20,}";

/// Returns `true` if a part of a name has at least 20 bytes and mixes lower case, upper case and digits. Names made of
/// words do not.
pub fn is_random(part: &str) -> bool {
    let has = |kind: fn(&char) -> bool| part.chars().any(|c| kind(&c));
    part.len() >= 20 && has(char::is_ascii_lowercase) && has(char::is_ascii_uppercase) && has(char::is_ascii_digit)
}

/// Returns the number of places in a word at which the kind of character changes between lower case, upper case and
/// digits. Other characters are skipped. Words of a language have few such places, random text has many.
fn changes(word: &str) -> usize {
    let kind = |b: u8| (b.is_ascii_lowercase(), b.is_ascii_digit());
    let kinds: Vec<_> = word.bytes().filter(u8::is_ascii_alphanumeric).map(kind).collect();
    kinds.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

/// Returns the byte ranges of a text that may be secrets: tokens with a known prefix, words that look random, passwords
/// in URLs, and the content of private keys.
fn secrets(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    words(text, |c| c.is_ascii_alphanumeric() || "_-.".contains(c), &mut |at, word| {
        let mut starts = (0..word.len()).filter(|start| !word[..*start].ends_with(|c: char| c.is_ascii_alphanumeric()));
        if let Some(start) = starts.find(|start| begins_like_a_token(&word[*start..], 4)) {
            found.push(at + start..at + word.len());
        }
    });
    words(text, |c| c.is_ascii_alphanumeric() || "_-".contains(c), &mut |at, word| {
        let long = word.len() >= 32 && changes(word) > word.len() / 6 && !word.contains(['_', '-']);
        if long || is_random(word) && changes(word) > word.len() / 3 {
            found.push(at..at + word.len());
        }
    });
    words(text, |c| c.is_ascii_alphanumeric() || "+/=".contains(c), &mut |at, word| {
        let has = |kind: fn(&u8) -> bool| word.bytes().any(|b| kind(&b));
        let mixed = has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic);
        let hexadecimal = word.len() >= 32 && mixed && word.bytes().all(|b| b.is_ascii_hexdigit());
        if hexadecimal || word.split('/').any(is_random) || (word.ends_with('=') && word.len() >= 16) {
            found.push(at..at + word.len());
        }
    });
    words(text, |c| c.is_ascii_hexdigit() || c == '-', &mut |at, word| {
        found.extend(
            (0..word.len())
                .filter(|start| begins_like_a_uuid(&word[*start..]))
                .map(|start| at + start..at + start + UUID),
        );
    });
    found.extend(logins(text));
    found.extend(passwords(text));
    for (begin, opening) in text.match_indices("-----BEGIN ") {
        let rest = &text[begin + opening.len()..];
        let Some(label) = rest.find("-----").filter(|end| rest[..*end].ends_with("PRIVATE KEY")) else { continue };
        let start = begin + opening.len() + label + 5;
        let end = text[start..].find("-----END").map_or(text.len(), |end| start + end);
        found.push(start..end);
    }
    found
}

/// The length of a UUID in its usual form.
const UUID: usize = 36;

/// Returns `true` if a text of digits and dashes begins with a UUID. Some services issue keys of this form.
fn begins_like_a_uuid(text: &str) -> bool {
    let is_dash = |at| matches!(at, 8 | 13 | 18 | 23);
    text.len() >= UUID && text.bytes().take(UUID).enumerate().all(|(at, byte)| is_dash(at) == (byte == b'-'))
}

/// Returns the places of the passwords in URLs, and of names without a password that are too long for a user's. A password
/// can hold characters that should be escaped there.
fn logins(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (scheme, _) in text.match_indices("://") {
        let start = scheme + 3;
        let rest = &text[start..];
        let word = &rest[..rest.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(rest.len())];
        let authority = &word[..word.find('/').unwrap_or(word.len())];
        // An `@` in a path is common. It ends a login only if the part before the path cannot be a host with a port.
        let is_host =
            |part: &str| part.split_once(':').is_none_or(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        let login = match authority.rsplit_once('@') {
            Some((login, _)) => login,
            None if is_host(authority) => continue,
            None => match word.rsplit_once('@') {
                Some((login, _)) => login,
                None => continue,
            },
        };
        match login.split_once(':') {
            Some((name, _)) => found.push(start + name.len() + 1..start + login.len()),
            None if login.len() >= 16 => found.push(start..start + login.len()),
            None => {}
        }
    }
    found
}

/// Returns the places of the values that a name such as `password` or `DB_PASSWORD` announces.
fn passwords(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let lower = text.to_ascii_lowercase();
    for name in ["password", "passwd", "passphrase", "pwd", "secret"] {
        for (begin, _) in lower.match_indices(name) {
            let name_end = begin + name.len();
            let after = lower[name_end..].trim_start_matches(['"', '\'']).trim_start_matches([' ', '\t']);
            let Some(after) = after.strip_prefix([':', '=']) else { continue };
            let value = after.trim_start_matches([' ', '\t', '"', '\'']);
            let length = value.find(|c: char| c.is_whitespace() || "\"',]}".contains(c)).unwrap_or(value.len());
            let start = text.len() - value.len();
            found.push(start..start + length);
        }
    }
    found
}

/// Calls `each` with the byte offset and text of every longest run of characters that `fits` accepts.
fn words(text: &str, fits: impl Fn(char) -> bool, each: &mut dyn FnMut(usize, &str)) {
    let mut start = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        match (fits(c) && at < text.len(), start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                each(from, &text[from..at]);
                start = None;
            }
            _ => {}
        }
    }
}

/// Returns the text with `*` for every byte that may belong to a secret, and `?` for every byte of a control or
/// invisible character, such as a terminal's control sequences. Newlines, tabs and byte offsets stay the same; a
/// carriage return becomes a space.
pub fn masked(text: &str) -> String {
    let mut secret = vec![false; text.len()];
    for range in secrets(text) {
        secret[range].fill(true);
    }
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let unseen =
            matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        match c {
            '\n' | '\t' => out.push(c),
            '\r' => out.push(' '),
            _ if secret[at] => out.extend(std::iter::repeat_n('*', c.len_utf8())),
            _ if c.is_control() || unseen => out.extend(std::iter::repeat_n('?', c.len_utf8())),
            _ => out.push(c),
        }
    }
    out
}

/// Returns the text with each possible secret replaced by `…`, for use within an error message.
pub fn elided(text: &str) -> String {
    let mut ranges = secrets(text);
    ranges.sort_by_key(|range| (range.start, range.end));
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    for range in ranges {
        if range.start >= at {
            out.push_str(&text[at..range.start]);
            out.push('…');
        }
        at = at.max(range.end);
    }
    out.push_str(&text[at..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_masked_and_keeps_its_length() {
        for (text, shown) in [
            ("token: sk-ant-api03-Zm9vYmFy", "token: *********************"),
            ("{token: ghp_Zm9vYmFyYmF6}", "{token: ****************}"),
            ("url: https://user:hunter2@git.example.com/a", "url: https://user:*******@git.example.com/a"),
            ("k: aB3dE5fG7hI9jK1lM3nO5pQ7", "k: ************************"),
            ("k: 0123456789abcdef0123456789abcdef", "k: ********************************"),
            ("bottles.xoxb-7281639450-kdhw.env", "bottles.************************"),
            ("k: aB3dE5-G7hI9jK_lM3nO5pQ7", "k: ************************"),
            ("k: kz7wqx2lrtd9vbnf4hs6jc1mg8py3ra5uewo", "k: ************************************"),
            ("\"-----BEGIN EC PRIVATE KEY-----\\nMHcC\"", "\"-----BEGIN EC PRIVATE KEY-----*******"),
            (
                "-----BEGIN PRIVATE KEY-----\nab\n-----END PRIVATE KEY-----\nx: y",
                "-----BEGIN PRIVATE KEY-----\n**\n-----END PRIVATE KEY-----\nx: y",
            ),
            ("key: 0e7a51b2-93c4-4d58-a6f0-1b2c3d4e5f60", "key: ************************************"),
            ("0E7A51B2-93C4-4D58-A6F0-1B2C3D4E5F60.env", "************************************.env"),
            ("x: postgres://app:hunter2@db.example.com/a", "x: postgres://app:*******@db.example.com/a"),
            ("x: postgres://app:hun/t#r2@db.example.com/a", "x: postgres://app:********@db.example.com/a"),
            ("{x: redis://:a,b]c@db, y: 1}", "{x: redis://:*****@db, y: 1}"),
            ("x: https://0Kz7wQx2LrTd9VbNf@git.example.com/a", "x: https://*****************@git.example.com/a"),
            ("password: hunter2", "password: *******"),
            ("{\"DB_PASSWORD\": \"hunter2\", \"a\": 1}", "{\"DB_PASSWORD\": \"*******\", \"a\": 1}"),
            ("PGPASSWORD=hunter2 psql", "PGPASSWORD=******* psql"),
            ("a\u{1b}[31m\r\nb\u{202e}c", "a?[31m \nb???c"),
        ] {
            assert_eq!(masked(text), shown, "{text:?}");
            assert_eq!(masked(text).len(), text.len());
        }
    }

    #[test]
    fn the_pattern_lists_every_beginning() {
        let beginnings: Vec<String> = BEGINNINGS.iter().map(|start| start.replace('.', "\\.")).collect();
        assert!(TOKEN_PATTERN.starts_with(&format!("^(?:{}).{{12,}}|", beginnings.join("|"))), "{TOKEN_PATTERN}");
    }

    #[test]
    fn ordinary_values_stay() {
        for text in [
            "bottle: dev-environment-2",
            "url: git@git.example.com:team/app.git",
            "token: MY_COMPANY_OPENAI_KEY_V2_PRODUCTION",
            "- api.example.com",
            "base: debian:trixie-slim",
            "path: /home/me/Projects/Application2/source",
            "name: Application2-my-Project-2024-source",
            "risk-task-desk-1234 disk-sk",
            "-----BEGIN CERTIFICATE-----",
            "url: https://registry.example.com:5000/@types/node",
            "url: ssh://git@git.example.com/team/app.git",
            "secrets: environment",
            "token: DB_PASSWORD",
            "pass: 0e7a51b2-93c4",
            "ünïcödé: 多い",
        ] {
            assert_eq!(masked(text), text);
            assert_eq!(elided(text), text);
        }
    }

    #[test]
    fn a_sentence_leaves_the_secret_out() {
        assert_eq!(elided("a sk-ant-api03-Zm9vYmFy b"), "a … b");
        assert_eq!(elided("https://u:hunter2@h/x"), "https://u:…@h/x");
    }
}
