//! The check of an environment file that Compose reads.

use std::io;
use std::path::Path;

/// Content of an environment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// There is no such file.
    Absent,
    /// The file has nothing but spaces and line ends.
    Empty,
    /// The file has lines.
    Lines,
}

/// Returns the kind of content that the file has.
///
/// Compose interpolates `$NAME`, and takes the value of a bare `NAME` from its own environment. That environment holds
/// every token of the bottle, so `A=${EGRESS_TOKEN_X}` would pass a token to the agent. Such lines are refused.
///
/// # Errors
///
/// Returns the problem if the file cannot be read, is not UTF-8, or has such a line.
pub fn check(path: &Path) -> Result<Content, String> {
    // Reading a named pipe would wait for its writer.
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err("is not a regular file; accepted: a file of `NAME=value` lines".into());
    }
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::Absent),
        Err(error) => return Err(format!("cannot be read: {error}; accepted: a file of `NAME=value` lines")),
    };
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    match first_reach(&text) {
        None if text.trim().is_empty() => Ok(Content::Empty),
        None => Ok(Content::Lines),
        Some((line, what)) => Err(format!(
            "holds {what} in line {line}, which would take a value from the launcher's environment; accepted: \
             `NAME=value`, with `$` in single quotes or as `$$`"
        )),
    }
}

/// Returns the first line that takes a value from the environment, with a description of it. A quoted value may span
/// lines.
fn first_reach(text: &str) -> Option<(usize, &'static str)> {
    let mut line = 1;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find('\n').unwrap_or(rest.len());
        let trimmed = rest[..end].trim();
        let Some((_, value)) = trimmed.split_once(['=', ':']).filter(|_| !trimmed.starts_with('#')) else {
            if !trimmed.is_empty() && !trimmed.starts_with('#') {
                return Some((line, "a bare name"));
            }
            (line, rest) = (line + 1, &rest[(end + 1).min(rest.len())..]);
            continue;
        };
        // Offset of the value's first character in `rest`.
        let start = value.trim_start().as_ptr() as usize - rest.as_ptr() as usize;
        let after = &rest[start..];
        let length = match after.chars().next() {
            Some('\'') => after[1..].find('\'').map_or(after.len(), |close| close + 2),
            Some('"') => closing_quote(after).unwrap_or(after.len()),
            _ => end.saturating_sub(start),
        };
        let (body, tail) = after.split_at(length.min(after.len()));
        let literal = body.starts_with('\'');
        if !literal && has_interpolation(body) {
            return Some((line, "a `$`"));
        }
        let tail_end = tail.find('\n').unwrap_or(tail.len());
        if has_interpolation(&tail[..tail_end]) {
            return Some((line, "a `$`"));
        }
        line += body.matches('\n').count() + 1;
        rest = &tail[(tail_end + 1).min(tail.len())..];
    }
    None
}

/// Returns the length of a double-quoted value, quotes included.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().skip(1).find_map(|(place, c)| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes.then_some(place + 1)
    })
}

/// Returns true if a `$` is left after removing each `$$`.
fn has_interpolation(value: &str) -> bool {
    value.replace("$$", "").contains('$')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_from_the_launchers_environment_are_refused() {
        for (text, line) in [
            ("A=${X}", 1),
            ("A=1\nB=$X\n", 2),
            ("A=\"${X}\"", 1),
            ("A=\"one\ntwo $X\"\n", 1),
            ("A='one\ntwo'\nB=$X", 3),
            ("EGRESS_TOKEN_X\n", 1),
            ("A=1\n\n  NAME  \n", 3),
            ("export A=$X", 1),
            ("A: $X", 1),
            ("A='x'$X", 1),
            ("A=$$$X", 1),
            ("A=\\${X}", 1),
        ] {
            assert_eq!(first_reach(text).map(|(line, _)| line), Some(line), "{text:?}");
        }
    }

    #[test]
    fn plain_values_pass() {
        for text in [
            "",
            "# $X\n",
            "A=1\n",
            "A='${X}'\nB=2",
            "A=\"a\\\"b\"\n",
            "A=$$X",
            "A=\"two\nlines\"\nB=3",
            "A=\n",
            "A='$X\n$Y'\n",
        ] {
            assert_eq!(first_reach(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_missing_an_empty_and_a_full_file_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.env");
        assert_eq!(check(&path), Ok(Content::Absent));
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(check(&path), Ok(Content::Empty));
        std::fs::write(&path, "A=1\n").unwrap();
        assert_eq!(check(&path), Ok(Content::Lines));
        std::fs::write(&path, "A=1\nB=${HOME}\n").unwrap();
        let error = check(&path).unwrap_err();
        assert!(error.contains("holds a `$` in line 2, which would take"), "{error}");
    }
}
