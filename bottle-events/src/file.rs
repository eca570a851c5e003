//! The file with the launcher's events.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::event_log::EventRecord;

/// A file that is created with mode 0600 once its directory is known to be the launcher's own. Until then, at most 1 MiB is kept
/// in memory.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    may_create: Arc<AtomicBool>,
    file: Option<File>,
    early: Vec<u8>,
}

/// Most bytes that are kept in memory.
const EARLY: usize = 1 << 20;

impl EventFile {
    /// Returns the file at this path. It is created by the first event after `may_create` is true.
    pub fn new(path: impl Into<PathBuf>, may_create: Arc<AtomicBool>) -> Self {
        Self { path: path.into(), may_create, file: None, early: Vec::new() }
    }
}

impl Write for EventFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.file.is_none() && self.may_create.load(Ordering::Acquire) {
            let mut options = OpenOptions::new();
            // A link in its place is not followed.
            let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
            let file = options.append(true).create(true).mode(0o600).custom_flags(nofollow).open(&self.path)?;
            (&file).write_all(&std::mem::take(&mut self.early))?;
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => file.write(bytes),
            None if self.early.len() + bytes.len() > EARLY => Err(io::ErrorKind::StorageFull.into()),
            None => {
                self.early.extend_from_slice(bytes);
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reader of a file of event records that another process may be appending to.
#[derive(Debug)]
pub(crate) struct EventTail {
    path: PathBuf,
    read: u64,
    begun: Vec<u8>,
}

impl EventTail {
    /// Returns a reader from the beginning of the file, which need not exist yet.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), read: 0, begun: Vec::new() }
    }

    /// Returns the records that were written since the last call. A line that is no record is left out.
    ///
    /// # Errors
    ///
    /// Returns an error when the file exists and cannot be read.
    pub(crate) fn next_records(&mut self) -> io::Result<Vec<EventRecord>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(self.read))?;
        self.read += file.read_to_end(&mut self.begun)? as u64;
        let Some(end) = self.begun.iter().rposition(|&byte| byte == b'\n') else { return Ok(Vec::new()) };
        let rest = self.begun.split_off(end + 1);
        let lines = std::mem::replace(&mut self.begun, rest);
        Ok(lines.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use bottle_exec::{Event, Observer as _};

    use super::*;
    use crate::event_log::EventLog;

    fn messages(records: Vec<EventRecord>) -> Vec<String> {
        let message = |record: EventRecord| match record.event {
            Event::Note { message } => message,
            other => panic!("{other:?}"),
        };
        records.into_iter().map(message).collect()
    }

    #[test]
    fn what_is_told_before_the_directory_is_known_is_written_later_and_read_as_it_grows() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("events.jsonl");
        let may_create = Arc::new(AtomicBool::new(false));
        let log = EventLog::new(EventFile::new(&path, Arc::clone(&may_create)));
        let note = |text: &str| log.event(&Event::Note { message: text.into() });
        let mut tail = EventTail::new(&path);
        note("first");
        assert_eq!(messages(tail.next_records().unwrap()), [""; 0]);
        assert!(!path.exists());
        may_create.store(true, Ordering::Release);
        note("second");
        assert_eq!(messages(tail.next_records().unwrap()), ["first", "second"]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        note("third");
        assert_eq!(messages(tail.next_records().unwrap()), ["third"]);
        let mut whole = fs::OpenOptions::new().append(true).open(&path).unwrap();
        whole.write_all(b"no record\n{\"half\":").unwrap();
        assert_eq!(messages(tail.next_records().unwrap()), [""; 0]);
        assert_eq!(log.error(), None);
    }
}
