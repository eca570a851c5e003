//! A full-screen program in a pseudo-terminal, with its screen as a person sees it.

use std::num::NonZeroU16;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::lifecycle::terminal::Terminal;

const ROWS: NonZeroU16 = NonZeroU16::new(40).unwrap();
const COLUMNS: NonZeroU16 = NonZeroU16::new(120).unwrap();

/// A program and its screen.
pub(super) struct Session {
    terminal: Terminal,
    screen: vt100::Parser,
}

impl Session {
    pub(super) fn start(command: &Command) -> Self {
        Self {
            terminal: Terminal::start(command, ROWS.get(), COLUMNS.get()),
            screen: vt100::Parser::new(ROWS, COLUMNS, 0),
        }
    }

    /// Waits until the screen shows the text.
    #[track_caller]
    pub(super) fn wait_for(&mut self, text: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.contents().contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.terminal.bytes.recv_timeout(left) {
                Ok(bytes) => self.show(&bytes),
                Err(error) => panic!("{error:?} while waiting for {text:?}; the screen shows:\n{}", self.contents()),
            }
        }
    }

    /// Types a line, as fast as a person could, and presses Enter.
    pub(super) fn enter(&mut self, line: &str) {
        for key in line.chars() {
            self.terminal.press(key.encode_utf8(&mut [0; 4]));
            self.idle(Duration::from_millis(5));
        }
        // A program treats text that arrives at once as a paste, in which Enter is a line break.
        self.idle(Duration::from_millis(500));
        self.terminal.press("\r");
    }

    pub(super) fn contents(&self) -> String {
        let lines = self.screen.screen().rows(0, COLUMNS.get()).map(|line| line.trim_end().to_owned());
        lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    }

    /// Returns the exit status of the program and its output after the session.
    #[track_caller]
    pub(super) fn status(self) -> (Option<i32>, String) {
        self.terminal.status()
    }

    fn idle(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Ok(bytes) = self.terminal.bytes.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.show(&bytes);
        }
    }

    /// Shows output, and answers a program's two queries: terminal type and cursor position.
    fn show(&mut self, bytes: &[u8]) {
        self.screen.process(bytes);
        let asks = |question: &[u8]| bytes.windows(question.len()).any(|window| window == question);
        if asks(b"\x1b[6n") {
            let (row, column) = self.screen.screen().cursor_position();
            self.terminal.press(&format!("\x1b[{};{}R", row + 1, column + 1));
        }
        if asks(b"\x1b[c") {
            self.terminal.press("\x1b[?62c");
        }
    }
}
