//! Plain text from the output of containers and tools.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::sink::{OutputSink, Stream};

/// A filter that removes terminal control sequences from a byte stream.
///
/// Text, tabs and line ends are kept. Escape sequences (CSI, OSC, DCS and the like), carriage returns and all other
/// control characters are removed. Invalid UTF-8 becomes U+FFFD. A chunk may end in the middle of a sequence or a
/// character. A sequence ends at the end of its line at the latest, so an unfinished one does not hide the next line.
///
/// ```
/// use bottle_exec::PlainText;
/// let mut filter = PlainText::default();
/// assert_eq!(filter.push(b"\x1b[2Kagent | \x1b[31mr\xc3"), "agent | r");
/// assert_eq!(filter.push(b"\xa9d\x1b]0;title\x07\r\n"), "éd\n");
/// ```
#[derive(Default)]
pub struct PlainText {
    parser: vte::Parser,
}

impl PlainText {
    /// Returns the text in the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        let mut text = Text(String::with_capacity(bytes.len()));
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            let content = line.strip_suffix(b"\n");
            self.parser.advance(&mut text, content.unwrap_or(line));
            if content.is_some() {
                self.parser = vte::Parser::new();
                text.0.push('\n');
            }
        }
        text.0
    }

    /// Returns the text of a whole stream.
    pub fn of(bytes: &[u8]) -> String {
        Self::default().push(bytes)
    }
}

impl fmt::Debug for PlainText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainText").finish_non_exhaustive()
    }
}

struct Text(String);

impl vte::Perform for Text {
    fn print(&mut self, c: char) {
        if !c.is_control() {
            self.0.push(c);
        }
    }

    fn execute(&mut self, byte: u8) {
        if byte == b'\t' {
            self.0.push('\t');
        }
    }
}

/// A sink that passes on plain text only.
pub(crate) struct PlainSink {
    inner: Arc<dyn OutputSink>,
    stdout: Mutex<PlainText>,
    stderr: Mutex<PlainText>,
}

impl PlainSink {
    pub(crate) fn new(inner: Arc<dyn OutputSink>) -> Self {
        Self { inner, stdout: Mutex::default(), stderr: Mutex::default() }
    }
}

impl OutputSink for PlainSink {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        let filter = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        let text = filter.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
        if !text.is_empty() {
            self.inner.write(stream, text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Output of Compose and of an agent, and its plain text.
    const CASES: &[(&[u8], &str)] = &[
        (b"\x1b[2Kagent-1  | 2026 started\n", "agent-1  | 2026 started\n"),
        (b"\x1b[31;1mred\x1b[0m\tcolumn\r\n", "red\tcolumn\n"),
        ("größe 漢字 🦀\n".as_bytes(), "größe 漢字 🦀\n"),
        // A window title, a link, the clipboard.
        (b"\x1b]0;evil\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\x1b]52;c;cm0=\x07\n", "alink\n"),
        // DCS, APC, PM, and a cursor that goes up to write over an earlier line.
        (b"\x1bPq#0\x1b\\\x1b_x\x1b\\\x1b^y\x1b\\z\x1b[1A\n", "z\n"),
        // A carriage return that would write over the beginning of the line.
        (b"agent | x\rpipelock | y\x08\x7f\n", "agent | xpipelock | y\n"),
        // C1 controls as two bytes of UTF-8 are controls for some terminals.
        ("a\u{9b}31mb\u{9d}0;t\u{9c}c\n".as_bytes(), "a31mb0;tc\n"),
        // An unfinished sequence ends with its line.
        (b"agent | \x1b]0;never ended\npipelock | blocked\n", "agent | \npipelock | blocked\n"),
        (b"agent | \x1b[\npipelock | blocked\n", "agent | \npipelock | blocked\n"),
        (b"bad \xff\xfe byte\n", "bad \u{fffd}\u{fffd} byte\n"),
        (b"no line end \x1b[1m!", "no line end !"),
    ];

    #[test]
    fn text_stays_and_every_control_sequence_goes() {
        for (bytes, text) in CASES {
            assert_eq!(PlainText::of(bytes), *text, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn chunks_may_end_anywhere() {
        let bytes: Vec<u8> = CASES.iter().flat_map(|(bytes, _)| bytes.iter().copied()).collect();
        let whole = PlainText::of(&bytes);
        for size in 1..=bytes.len() {
            let mut filter = PlainText::default();
            let text: String = bytes.chunks(size).map(|chunk| filter.push(chunk)).collect();
            assert_eq!(text, whole, "chunks of {size} bytes");
        }
    }

    proptest! {
        #[test]
        fn nothing_but_text_comes_out(bytes: Vec<u8>) {
            let text = PlainText::of(&bytes);
            prop_assert!(text.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
            let lines = bytes.split(|&byte| byte == b'\n').count() - 1;
            prop_assert_eq!(text.matches('\n').count(), lines);
        }

        #[test]
        fn plain_text_is_not_changed(text in r"[^\p{Cc}]*(\n[^\p{Cc}]*)*") {
            prop_assert_eq!(PlainText::of(text.as_bytes()), text);
        }
    }
}
