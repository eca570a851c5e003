//! Append-only logs in which every line carries the hash of the line before it.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bottle_files::FileLock;
use bottle_values::digest::{hex, sha256};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use super::canonical::canonical;
use super::files::Directory;

const MAX_LOG_BYTES: u64 = 32 * 1024 * 1024;
const MAX_LINE_BYTES: usize = 64 * 1024;
const MAX_TORN_BYTES: usize = 30 * 1024;
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// End of a log. Another log records it as the witness of this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number of the last line. 0 for an empty log.
    pub seq: u64,
    /// Hash of the last line. Zeros for an empty log.
    pub hash: String,
}

impl Default for Head {
    /// Returns the end of an empty log.
    fn default() -> Self {
        Self { seq: 0, hash: GENESIS.to_owned() }
    }
}

impl Head {
    pub(super) fn from_json(value: &Value) -> Option<Self> {
        Self::deserialize(value).ok()
    }
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AuditEntry {
    /// Number of the line, from 1.
    pub seq: u64,
    /// Time by the writer's clock: UTC, `YYYY-MM-DDTHH:MM:SS.mmmZ`.
    pub ts: String,
    /// Name of the event.
    pub event: String,
    /// Data of the event, as canonical JSON of one object. It is untrusted in the sidecar's log: escape it for display.
    pub data: String,
    /// Hash of this line.
    pub hash: String,
}

/// A log whose hash chain was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditSummary {
    /// End of the log.
    pub head: Head,
    /// Number of bytes of an unfinished last line, left by a killed writer. The next writer records them.
    pub torn: usize,
}

/// Error of reading or writing a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The file cannot be read or written, or is not a regular file of a log's size.
    #[error("read or write audit log `{}`", path.display())]
    Io {
        /// The log.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// A line does not continue the chain.
    #[error("verify audit log `{}`: it was tampered with: line {line} {why}", path.display())]
    Tampered {
        /// The log.
        path: PathBuf,
        /// The first line that does not fit.
        line: u64,
        /// Reason that the line does not fit.
        why: &'static str,
    },
    /// The log would exceed its maximum size of 32 MiB, or the event its maximum of 64 KiB.
    #[error("write audit log `{}`: it has no room for the event", path.display())]
    Full {
        /// The log.
        path: PathBuf,
    },
}

/// A log that is open for appending. The caller must ensure that only one is open at a time.
#[derive(Debug)]
pub struct AuditLog {
    /// The log itself, which is not open for appending: Linux would then ignore the offset that a torn line is written
    /// over at.
    lock: FileLock,
    path: PathBuf,
    head: Head,
    size: u64,
}

impl AuditLog {
    /// Checks every line of a log. A file that does not exist is an empty log.
    ///
    /// # Errors
    ///
    /// [`AuditError::Tampered`] for the first line that does not continue the chain.
    pub fn verify(path: &Path) -> Result<AuditSummary, AuditError> {
        Chain::read(path).map(|chain| chain.summary())
    }

    /// Returns every line of a log, oldest first, after checking all of them.
    ///
    /// # Errors
    ///
    /// Same as [`AuditLog::verify`].
    pub fn entries(path: &Path) -> Result<Vec<AuditEntry>, AuditError> {
        Chain::read(path).map(|chain| chain.entries.into_iter().map(Link::into_entry).collect())
    }

    /// Opens or creates a log. An unfinished last line is replaced by one that records it.
    ///
    /// # Errors
    ///
    /// [`AuditError::Tampered`] if the hash chain is broken. Nothing is appended to such a log.
    pub fn open(path: &Path, now: SystemTime) -> Result<Self, AuditError> {
        let io = |source| AuditError::Io { path: path.to_owned(), source };
        let lock = FileLock::wait(path).map_err(io)?;
        let chain = Chain::read(path)?;
        let mut log = Self { lock, path: path.to_owned(), head: chain.head(), size: chain.bytes };
        if !chain.torn.is_empty() {
            if chain.torn.len() > MAX_TORN_BYTES {
                let line = log.head.seq + 1;
                return Err(AuditError::Tampered { path: log.path, line, why: "is unfinished and too long" });
            }
            log.append(now, "repaired", &json!({ "torn": hex(&chain.torn) }))?;
        }
        Ok(log)
    }

    /// Appends one line and returns once it is on the disk. `data` must serialize to an object without fractions.
    ///
    /// # Errors
    ///
    /// [`AuditError::Full`] if there is no room, [`AuditError::Io`] if the line cannot be written.
    pub fn append<T: Serialize>(&mut self, now: SystemTime, event: &str, data: &T) -> Result<Head, AuditError> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let io = |source| AuditError::Io { path: self.path.clone(), source };
        let data = serde_json::to_value(data).map_err(|_| io(invalid()))?;
        let seq = self.head.seq + 1;
        let mut line = json!({"seq": seq, "ts": timestamp(now), "event": event, "data": data, "prev": self.head.hash});
        let hash = sha256(canonical(&line).filter(|_| data.is_object()).ok_or_else(|| io(invalid()))?);
        line["hash"] = Value::from(hash.as_str());
        let mut text = canonical(&line).ok_or_else(|| io(invalid()))?;
        text.push('\n');
        if text.len() > MAX_LINE_BYTES || self.size + text.len() as u64 > MAX_LOG_BYTES {
            return Err(AuditError::Full { path: self.path.clone() });
        }
        let written =
            self.lock.file().write_all_at(text.as_bytes(), self.size).and_then(|()| self.lock.file().sync_data());
        if let Err(error) = written {
            // A partly written line is discarded. If this fails as well, the next line overwrites it.
            let _ = self.lock.file().set_len(self.size);
            return Err(io(error));
        }
        self.size += text.len() as u64;
        self.head = Head { seq, hash };
        Ok(self.head.clone())
    }

    /// Returns the end of the log.
    pub fn head(&self) -> &Head {
        &self.head
    }
}

/// A whole log whose hash chain was verified.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) entries: Vec<Link>,
    torn: Vec<u8>,
    bytes: u64,
}

/// A parsed line, with its data as JSON fields.
#[derive(Debug)]
pub(super) struct Link {
    seq: u64,
    ts: String,
    pub(super) event: String,
    pub(super) data: Map<String, Value>,
    hash: String,
}

impl Chain {
    pub(super) fn read(path: &Path) -> Result<Self, AuditError> {
        let io = |source| AuditError::Io { path: path.to_owned(), source };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Err(io(io::ErrorKind::InvalidInput.into()));
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let content = Directory::open(parent).and_then(|dir| dir.read(name, MAX_LOG_BYTES)).map_err(io)?;
        Self::parse(&content.unwrap_or_default()).map_err(|(line, why)| AuditError::Tampered {
            path: path.to_owned(),
            line,
            why,
        })
    }

    pub(super) fn head(&self) -> Head {
        self.entries.last().map(|link| Head { seq: link.seq, hash: link.hash.clone() }).unwrap_or_default()
    }

    pub(super) fn summary(&self) -> AuditSummary {
        AuditSummary { head: self.head(), torn: self.torn.len() }
    }

    /// Returns true if the log ended at `head` at some time.
    pub(super) fn passed(&self, head: &Head) -> bool {
        match head.seq.checked_sub(1) {
            None => head.hash == GENESIS,
            Some(index) => usize::try_from(index)
                .ok()
                .and_then(|index| self.entries.get(index))
                .is_some_and(|link| link.hash == head.hash),
        }
    }

    fn parse(content: &[u8]) -> Result<Self, (u64, &'static str)> {
        let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |position| position + 1);
        let mut entries: Vec<Link> = Vec::new();
        let mut prev = GENESIS.to_owned();
        for (line, seq) in content[..whole].split_inclusive(|byte| *byte == b'\n').zip(1..) {
            let link = Link::parse(&line[..line.len() - 1], seq, &prev).map_err(|why| (seq, why))?;
            prev.clone_from(&link.hash);
            entries.push(link);
        }
        Ok(Self { entries, torn: content[whole..].to_vec(), bytes: whole as u64 })
    }
}

impl Link {
    fn parse(line: &[u8], seq: u64, prev: &str) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Line {
            seq: u64,
            ts: String,
            event: String,
            data: Map<String, Value>,
            prev: String,
            hash: String,
        }

        if line.len() >= MAX_LINE_BYTES {
            return Err("is too long");
        }
        let mut value: Value = serde_json::from_slice(line).map_err(|_| "is not JSON")?;
        if canonical(&value).is_none_or(|text| text.as_bytes() != line) {
            return Err("is not canonical JSON");
        }
        let fields: Line = serde_json::from_value(value.clone()).map_err(|_| "has not the fields of an entry")?;
        if let Some(object) = value.as_object_mut() {
            object.remove("hash");
        }
        if canonical(&value).is_none_or(|text| sha256(text) != fields.hash) {
            return Err("does not have the hash of its content");
        }
        if fields.seq != seq {
            return Err("is out of sequence");
        }
        if fields.prev != prev {
            return Err("does not follow the line before it");
        }
        Ok(Self { seq, ts: fields.ts, event: fields.event, data: fields.data, hash: fields.hash })
    }

    fn into_entry(self) -> AuditEntry {
        let data = canonical(&Value::Object(self.data)).unwrap_or_default();
        AuditEntry { seq: self.seq, ts: self.ts, event: self.event, data, hash: self.hash }
    }
}

/// Formats a time as UTC with milliseconds.
pub(super) fn timestamp(now: SystemTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    OffsetDateTime::from(now).format(&format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::time::Duration;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123 + seconds * 1000)
    }

    fn log_of(dir: &Path, lines: u64) -> PathBuf {
        let path = dir.join("audit.jsonl");
        let mut log = AuditLog::open(&path, at(0)).unwrap();
        for line in 1..=lines {
            log.append(at(line), "event", &json!({"n": line, "text": "ü\n"})).unwrap();
        }
        path
    }

    fn tampered(path: &Path) -> (u64, &'static str) {
        match AuditLog::verify(path) {
            Err(AuditError::Tampered { line, why, .. }) => (line, why),
            other => panic!("expected a tampered log, got {other:?}"),
        }
    }

    #[test]
    fn an_unmodified_log_verifies_and_can_be_continued() {
        let dir = tempfile::tempdir().unwrap();
        let path = log_of(dir.path(), 3);
        assert_eq!(AuditLog::verify(&path).unwrap().head.seq, 3);
        let mut log = AuditLog::open(&path, at(9)).unwrap();
        let head = log.append(at(9), "more", &json!({})).unwrap();
        let summary = AuditLog::verify(&path).unwrap();
        assert_eq!((summary.head, summary.torn), (head, 0));
        let entries = AuditLog::entries(&path).unwrap();
        assert_eq!(entries[0].ts, "2023-11-14T22:13:21.123Z");
        assert_eq!(entries[0].data, "{\"n\":1,\"text\":\"ü\\n\"}");
    }

    #[test]
    fn a_log_written_by_the_sidecar_verifies() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/supervise/audit.jsonl");
        let summary = AuditLog::verify(&path).unwrap();
        assert!(summary.head.seq >= 5);
        let events: Vec<_> = AuditLog::entries(&path).unwrap().into_iter().map(|entry| entry.event).collect();
        assert!(events.contains(&"repaired".to_owned()) && events.contains(&"proposed".to_owned()), "{events:?}");
    }

    #[test]
    fn a_missing_log_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let summary = AuditLog::verify(&dir.path().join("none")).unwrap();
        assert_eq!(summary.head, Head::default());
    }

    #[test]
    fn every_kind_of_tampering_names_its_line() {
        type Edit = fn(&mut Vec<String>);
        let cases: [(&str, Edit, u64); 8] = [
            ("edited", |lines| lines[1] = lines[1].replace("\"n\":2", "\"n\":9"), 2),
            ("removed", |lines| drop(lines.remove(1)), 2),
            ("removed first", |lines| drop(lines.remove(0)), 1),
            ("reordered", |lines| lines.swap(1, 2), 2),
            ("repeated", |lines| lines.insert(2, lines[1].clone()), 3),
            ("spaced", |lines| lines[2] = lines[2].replacen(':', ": ", 1), 3),
            ("emptied", |lines| lines[3].clear(), 4),
            ("extra key", |lines| lines[0] = lines[0].replacen('{', "{\"a\":1,", 1), 1),
        ];
        for (name, edit, line) in cases {
            let dir = tempfile::tempdir().unwrap();
            let path = log_of(dir.path(), 4);
            let mut lines: Vec<String> = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
            edit(&mut lines);
            fs::write(&path, lines.join("\n") + "\n").unwrap();
            assert_eq!(tampered(&path).0, line, "{name}");
            assert!(AuditLog::open(&path, at(9)).is_err(), "{name}: continued");
        }
    }

    #[test]
    fn a_rewritten_line_breaks_the_chain_at_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = log_of(dir.path(), 3);
        let lines: Vec<String> = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
        let mut value: Value = serde_json::from_str(&lines[1]).unwrap();
        value["data"] = json!({});
        value.as_object_mut().unwrap().remove("hash");
        value["hash"] = json!(sha256(canonical(&value).unwrap()));
        fs::write(&path, [&lines[0], &canonical(&value).unwrap(), &lines[2], ""].join("\n")).unwrap();
        assert_eq!(tampered(&path), (3, "does not follow the line before it"));
    }

    #[test]
    fn a_torn_line_is_recorded_wherever_it_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = log_of(dir.path(), 2);
        let whole = fs::read(&path).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for cut in [first + 1, first + 40, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(AuditLog::verify(&path).unwrap().torn, cut - first);
            drop(AuditLog::open(&path, at(5)).unwrap());
            assert_eq!(AuditLog::verify(&path).unwrap().torn, 0);
            let entries = AuditLog::entries(&path).unwrap();
            assert_eq!((entries.len(), entries[1].event.as_str()), (2, "repaired"));
            assert_eq!(entries[1].data, format!("{{\"torn\":\"{}\"}}", hex(&whole[first..cut])));
        }
    }

    #[test]
    fn a_link_or_a_pipe_is_not_a_log() {
        let dir = tempfile::tempdir().unwrap();
        let target = log_of(dir.path(), 1);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(matches!(AuditLog::verify(&link), Err(AuditError::Io { .. })));
        assert!(matches!(AuditLog::open(&link, at(0)), Err(AuditError::Io { .. })));
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(matches!(AuditLog::verify(&pipe), Err(AuditError::Io { .. })));
    }

    #[test]
    fn an_event_that_does_not_fit_one_line_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = log_of(dir.path(), 1);
        let mut log = AuditLog::open(&path, at(0)).unwrap();
        assert!(matches!(
            log.append(at(0), "big", &json!({"x": "y".repeat(MAX_LINE_BYTES)})),
            Err(AuditError::Full { .. })
        ));
        assert!(log.append(at(0), "float", &json!({"x": 0.5})).is_err());
        assert!(log.append(at(0), "not an object", &json!([])).is_err());
        assert_eq!(AuditLog::verify(&path).unwrap().head.seq, 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_data_survives(text in any::<String>(), number in any::<i64>(), key in any::<String>()) {
            let dir = tempfile::tempdir().unwrap();
            let path = log_of(dir.path(), 1);
            AuditLog::open(&path, at(1)).unwrap().append(at(1), &text, &json!({key: [text, number]})).unwrap();
            prop_assert_eq!(AuditLog::verify(&path).unwrap().head.seq, 2);
        }

        #[test]
        fn any_changed_byte_is_noticed(position in any::<prop::sample::Index>(), flip in 1u8..) {
            let dir = tempfile::tempdir().unwrap();
            let path = log_of(dir.path(), 3);
            let mut content = fs::read(&path).unwrap();
            let index = position.index(content.len());
            content[index] ^= flip;
            fs::write(&path, &content).unwrap();
            // A changed newline at the end is the one edit that looks like a torn line; it cannot hide an entry.
            match AuditLog::verify(&path) {
                Ok(summary) => prop_assert!(summary.torn > 0 && index == content.len() - 1),
                Err(error) => prop_assert!(matches!(error, AuditError::Tampered { .. }), "{error}"),
            }
        }
    }
}
