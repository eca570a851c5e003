//! Check of whether a line of `known_hosts` can apply to an upstream's host. The file format is described in sshd(8).

use crate::value::GitUrl;

/// Returns `true` if the line names the URL's host. A line with a hashed host name also counts, because it may name the
/// host.
pub(super) fn names_host(line: &str, url: &GitUrl) -> bool {
    let hosts = line.split_whitespace().find(|field| *field != "@cert-authority").unwrap_or_default();
    if hosts.starts_with("|1|") {
        return true;
    }
    // If the port is not 22, ssh looks up the name with the port first, then the name alone.
    let with_port = url.port().map(|port| format!("[{}]:{port}", url.host()));
    let fits = |pattern: &str| {
        matches(pattern.as_bytes(), url.host().as_bytes())
            || with_port.as_ref().is_some_and(|name| matches(pattern.as_bytes(), name.as_bytes()))
    };
    let (mut named, mut excluded) = (false, false);
    for pattern in hosts.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) => excluded |= fits(&pattern.to_ascii_lowercase()),
            None => named |= fits(&pattern.to_ascii_lowercase()),
        }
    }
    named && !excluded
}

/// Returns `true` if a pattern with `*` and `?` matches the whole text. Only the last `*` is retried, each time one
/// character later, so the time is at most proportional to the product of the two lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut next) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(&c) = text.get(at) {
        match pattern.get(next) {
            Some(b'*') => {
                star = Some((next, at));
                next += 1;
            }
            Some(&sign) if sign == b'?' || sign == c => {
                at += 1;
                next += 1;
            }
            _ => {
                let Some((place, tried)) = star else { return false };
                star = Some((place, tried + 1));
                (next, at) = (place + 1, tried + 1);
            }
        }
    }
    pattern.iter().skip(next).all(|sign| *sign == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_hosts_as_ssh_reads_them() {
        let plain: GitUrl = "git@git.example.com:a/b.git".parse().unwrap();
        let odd: GitUrl = "ssh://git@git.example.com:2222/a/b".parse().unwrap();
        for (hosts, names_plain, names_odd) in [
            ("git.example.com", true, true),
            ("GIT.example.com,198.51.100.7", true, true),
            ("[git.example.com]:2222", false, true),
            ("[git.example.com]:22", false, false),
            ("[git.example.com]:2223", false, false),
            ("*.example.com", true, true),
            ("git.example.co?", true, true),
            ("*.example.com,!git.example.com", false, false),
            ("other.example.com", false, false),
            ("git.example.com.evil.example", false, false),
            ("@cert-authority *.example.com", true, true),
            ("|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg=", true, true),
        ] {
            let line = format!("{hosts} ssh-ed25519 AAAA");
            assert_eq!((names_host(&line, &plain), names_host(&line, &odd)), (names_plain, names_odd), "{line}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_neither_long_nor_a_deep_stack() {
        let text = "a".repeat(253);
        assert!(!matches("*a".repeat(100_000).as_bytes(), text.as_bytes()));
        assert!(!matches(format!("{}b", "*a".repeat(40)).as_bytes(), text.as_bytes()));
        assert!(matches("*".repeat(200_000).as_bytes(), text.as_bytes()));
        assert!(matches(b"", b"") && !matches(b"", b"a") && !matches(b"?", b""));
    }
}
