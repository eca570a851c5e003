//! Texts of a proposal that are not values of a plan.

/// Returns true if a terminal can display the text safely: no cursor movement, hidden text or change of direction.
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

/// Returns true if the text has the form `YYYY-MM-DDTHH:MM:SS.mmmZ`.
pub(super) fn is_timestamp(text: &str) -> bool {
    text.len() == 24
        && text.bytes().zip(*b"0000-00-00T00:00:00.000Z").all(|(byte, pattern)| match pattern {
            b'0' => byte.is_ascii_digit(),
            _ => byte == pattern,
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
