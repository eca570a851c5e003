//! Audit lines in the log of a bottle.

use bottle_plan::{Names, Service};
use serde_json::{Map, Value};

use crate::audit::line::{AuditLine, AuditSource};
use crate::audit::pipelock::translated;

/// Most bytes of a line that are kept. Longer lines are no audit lines.
const MAX_LINE: usize = 64 << 10;

/// Finds the audit lines in the combined log of a bottle's services, as Compose prints it.
///
/// Each line of that log begins with the name of its container, so what the agent prints is never taken for an audit
/// line.
///
/// ```
/// use bottle_plan::Names;
/// use bottle_sidecars::audit::{AuditOutcome, AuditReader};
/// let names = Names::new("claude-bottle".parse()?, "demo".parse()?);
/// let mut reader = AuditReader::new(&names);
/// let log = concat!(
///     r#"claude-bottle-pipelock-demo  | {"event":"blocked","method":"CONNECT","target":"no.example.com:443","#,
///     r#""scanner":"allowlist","time":"2026-01-02T03:04:05Z"}"#,
///     "\n",
///     r#"claude-bottle-agent-demo     | {"event":"blocked","time":"2026-01-02T03:04:05Z"}"#,
///     "\n",
/// );
/// let lines = reader.push(log.as_bytes());
/// assert_eq!(lines.len(), 1);
/// assert_eq!((lines[0].outcome, lines[0].text("host")), (Some(AuditOutcome::Refused), Some("no.example.com")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AuditReader {
    /// Names of the containers whose lines are read.
    containers: Vec<(String, AuditSource)>,
    /// The beginning of a line whose end was not read yet.
    begun: Vec<u8>,
}

impl AuditReader {
    /// Returns a reader of the log of the bottle with these names.
    pub fn new(names: &Names) -> Self {
        let sources = [
            (Service::Egress, AuditSource::Egress),
            (Service::GitGate, AuditSource::GitGate),
            (Service::Supervise, AuditSource::Supervise),
            (Service::Pipelock, AuditSource::Pipelock),
        ];
        let containers = sources.map(|(service, source)| (names.container(service), source)).into();
        Self { containers, begun: Vec::new() }
    }

    /// Takes the next bytes of the log and returns the audit lines that they complete.
    pub fn push(&mut self, mut bytes: &[u8]) -> Vec<AuditLine> {
        let mut found = Vec::new();
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.keep(&bytes[..end]);
            found.extend(self.line(&String::from_utf8_lossy(&self.begun)));
            self.begun.clear();
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
        found
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.begun.len());
        self.begun.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn line(&self, line: &str) -> Option<AuditLine> {
        let (container, printed) = line.split_once('|')?;
        let (_, source) = self.containers.iter().find(|(name, _)| name == container.trim_end())?;
        // Where the engine adds a timestamp, it comes first.
        let json = &printed[printed.find('{')?..];
        let fields: Map<String, Value> = serde_json::from_str(json).ok()?;
        if *source == AuditSource::Pipelock {
            return translated(fields);
        }
        let line: AuditLine = serde_json::from_value(Value::Object(fields)).ok()?;
        (line.sidecar == *source).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader() -> AuditReader {
        AuditReader::new(&Names::new("b".parse().unwrap(), "s".parse().unwrap()))
    }

    const EGRESS: &str =
        r#"b-egress-s | 2026-01-02T03:04:05.1Z {"ts":"2026-01-02T03:04:05.678Z","sidecar":"egress","event":"request"}"#;

    #[test]
    fn lines_in_pieces_are_read_once() {
        let mut reader = reader();
        let text = format!("{EGRESS}\n{EGRESS}\n");
        let found: Vec<AuditLine> = text.as_bytes().chunks(7).flat_map(|piece| reader.push(piece)).collect();
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn nobody_speaks_for_another_service() {
        for line in [
            EGRESS.replace("b-egress-s", "b-agent-s"),
            EGRESS.replace("b-egress-s", "b-git-gate-s"),
            EGRESS.replace("b-egress-s", "b-agent-s | b-egress-s"),
            EGRESS.replace("b-egress-s", "other-egress-s"),
            EGRESS.replace("b-egress-s | ", ""),
            format!("b-egress-s | {}{EGRESS}", "x".repeat(MAX_LINE)),
        ] {
            assert_eq!(reader().push(format!("{line}\n").as_bytes()), [], "{line}");
        }
        assert_eq!(reader().push(EGRESS.as_bytes()), [], "the line has no end yet");
    }

    #[test]
    fn an_endless_line_takes_bounded_memory() {
        let mut reader = reader();
        for _ in 0..100 {
            reader.push(&[b'x'; 10_000]);
        }
        assert!(reader.begun.len() <= MAX_LINE);
        assert_eq!(reader.push(format!("\n{EGRESS}\n").as_bytes()).len(), 1);
    }
}
