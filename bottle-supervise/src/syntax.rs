//! What the strings of a proposal may look like. The sidecar checks the same; it is not taken at its word.

/// A DNS name of at least two lower-case labels, the last beginning with a letter; with `*.` before it if `wildcard`.
pub(super) fn is_host(text: &str, wildcard: bool) -> bool {
    let name = if wildcard { text.strip_prefix("*.").unwrap_or(text) } else { text };
    let labels: Vec<&str> = name.split('.').collect();
    text.len() <= 253
        && labels.len() >= 2
        && labels.iter().all(|label| is_label(label))
        && labels.last().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_lowercase()))
}

/// A path prefix: absolute, plain characters, no escapes, no empty and no dot segments.
pub(super) fn is_path(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('/') else {
        return false;
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    text.len() <= 200
        && (text == "/"
            || rest.split('/').all(|segment| {
                !matches!(segment, "" | "." | "..")
                    && segment.chars().all(|c| c.is_ascii_alphanumeric() || "._~!$&'()*+,;=:@-".contains(c))
            }))
}

/// The methods that a route can be limited to.
pub(super) fn is_method(text: &str) -> bool {
    matches!(text, "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS")
}

/// A credential's name: capitals, digits and underscores.
pub(super) fn is_credential_name(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// A short name for a repository.
pub(super) fn is_upstream_name(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= 64
        && text.starts_with(edge)
        && text.ends_with(edge)
        && !text.contains("..")
        && text.chars().all(|c| edge(c) || "._-".contains(c))
}

/// `https://host[:port]/path`, `ssh://[user@]host[:port]/path` or `user@host:path`; never with a password.
pub(super) fn is_git_url(text: &str) -> bool {
    if text.len() > 400 {
        return false;
    }
    if let Some(rest) = text.strip_prefix("https://") {
        return is_authority_and_path(rest);
    }
    if let Some(rest) = text.strip_prefix("ssh://") {
        return match rest.split_once('@') {
            Some((user, rest)) => is_user(user) && is_authority_and_path(rest),
            None => is_authority_and_path(rest),
        };
    }
    text.split_once('@').is_some_and(|(user, rest)| {
        rest.split_once(':').is_some_and(|(host, path)| {
            is_user(user) && is_host(host, false) && is_repository(path.strip_prefix('/').unwrap_or(path))
        })
    })
}

/// A Debian package's name.
pub(super) fn is_package(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (2..=64).contains(&text.len()) && text.starts_with(plain) && text.chars().all(|c| plain(c) || "+.-".contains(c))
}

/// A bottle's slug.
pub(super) fn is_slug(text: &str) -> bool {
    is_label(text) && text.len() <= 40
}

/// Text that moves no cursor, hides nothing and turns no direction when it is shown in a terminal.
pub(super) fn is_readable(text: &str) -> bool {
    text.chars().all(|c| match c {
        '\n' | '\t' => true,
        // Format characters, then private use.
        '\u{ad}'
        | '\u{600}'..='\u{605}'
        | '\u{61c}'
        | '\u{6dd}'
        | '\u{70f}'
        | '\u{890}'
        | '\u{891}'
        | '\u{8e2}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{110bd}'
        | '\u{110cd}'
        | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e007f}'
        | '\u{e000}'..='\u{f8ff}'
        | '\u{f0000}'.. => false,
        c => !c.is_control(),
    })
}

/// `YYYY-MM-DDTHH:MM:SS.mmmZ`.
pub(super) fn is_timestamp(text: &str) -> bool {
    text.len() == 24
        && text.bytes().zip(*b"0000-00-00T00:00:00.000Z").all(|(byte, pattern)| match pattern {
            b'0' => byte.is_ascii_digit(),
            _ => byte == pattern,
        })
}

fn is_label(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= 63 && text.starts_with(edge) && text.ends_with(edge) && text.chars().all(|c| edge(c) || c == '-')
}

fn is_user(text: &str) -> bool {
    text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c))
}

fn is_authority_and_path(text: &str) -> bool {
    text.split_once('/').is_some_and(|(authority, path)| {
        let (host, port) = authority.split_once(':').unwrap_or((authority, "1"));
        is_host(host, false)
            && (1..=5).contains(&port.len())
            && port.bytes().all(|b| b.is_ascii_digit())
            && is_repository(path)
    })
}

fn is_repository(text: &str) -> bool {
    text.strip_suffix('/').unwrap_or(text).split('/').all(|segment| {
        segment.starts_with(|c: char| c.is_ascii_alphanumeric() || "_~".contains(c))
            && segment.chars().all(|c| c.is_ascii_alphanumeric() || "._~-".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accepts: impl Fn(&str) -> bool, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(accepts(text), "`{text}` should be accepted");
        }
        for text in bad {
            assert!(!accepts(text), "`{}` should be refused", text.escape_debug());
        }
    }

    #[test]
    fn hosts() {
        let long = format!("{}.com", "a.".repeat(130));
        check(
            |t| is_host(t, true),
            &["a.example", "*.a.example", "xn--bcher-kva.example", "a.xn--p1ai", "1-2.example", "a--b.co"],
            &[
                "",
                "localhost",
                "*.com",
                "*",
                "**.a.b",
                "a.*.b",
                "1.2.3.4",
                "a.b.1",
                "A.b",
                "a.b.",
                ".a.b",
                "a..b",
                "-a.b",
                "a-.b",
                "a_b.c",
                "a.b\n",
                "a.b/",
                "a.b:1",
                "é.example",
                "[::1]",
                "0x7f.1",
                &long,
            ],
        );
        assert!(!is_host("*.a.example", false));
    }

    #[test]
    fn paths() {
        check(
            is_path,
            &["/", "/v1", "/v1/", "/a/b.c~d/@x:y", "/...", "/.well-known/"],
            &["", "v1", "//", "/a//b", "/../a", "/a/..", "/./a", "/a?b", "/a#b", "/%2e", "/a\\b", "/a b", "/é", "/a\n"],
        );
    }

    #[test]
    fn git_urls() {
        check(
            is_git_url,
            &[
                "https://git.example/a/b.git",
                "https://git.example:8443/a",
                "ssh://git@git.example:22/a/b",
                "ssh://git.example/~u/a",
                "git@git.example:a/b.git",
                "git@git.example:/srv/a.git",
            ],
            &[
                "",
                "http://git.example/a",
                "git://git.example/a",
                "file:///etc",
                "/etc",
                "ext::sh -c x",
                "https://u:p@git.example/a",
                "https://u@git.example/a",
                "ssh://u:p@git.example/a",
                "https://1.2.3.4/a",
                "https://git.example",
                "https://git.example/",
                "https://git.example/../a",
                "https://git.example/a?b",
                "git@git.example:-oProxyCommand=x",
                "git@git.example:",
                "-u@git.example:a",
                "ssh://-o/a",
                "https://git.example/a//b",
                "https://git.example:x/a",
                "git@git.example:a b",
                "git@git.example:.ssh",
            ],
        );
    }

    #[test]
    fn names() {
        check(is_upstream_name, &["a", "a.b-c_d", "0"], &["", ".a", "a.", "a..b", "A", "a/b", "-a"]);
        check(is_credential_name, &["A", "EXAMPLE_TOKEN_2"], &["", "a", "_A", "2A", "A-B", "ghp_abc", "sk-ant-x"]);
        check(is_package, &["g++", "python3.13", "0ad"], &["", "a", "-y", "a b", "A1", "a=1", "a/b", "a;b"]);
        check(is_slug, &["a", "dev-x1"], &["", "-a", "a-", "A", &"a".repeat(41)]);
        check(is_method, &["GET"], &["get", "CONNECT", ""]);
    }

    #[test]
    fn readable_text() {
        check(
            is_readable,
            &["plain\ttext\n", "Grüße 漢字 😀"],
            &[
                "\u{1b}[2J",
                "a\rb",
                "a\u{202e}b",
                "a\u{200b}b",
                "a\u{2028}b",
                "\u{7f}",
                "\u{9b}31m",
                "\u{e0041}",
                "\u{f0000}",
            ],
        );
    }

    #[test]
    fn timestamps() {
        check(is_timestamp, &["2026-01-02T03:04:05.678Z"], &["", "2026-01-02T03:04:05Z", "2026-01-02 03:04:05.678Z"]);
    }
}
