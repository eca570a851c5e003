//! Audit lines and the launcher's events, merged.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bottle_sidecars::audit::AuditLine;

use crate::event::BottleEvent;
use crate::file::EventTail;

/// Time between two looks at the launcher's file.
const TICK: Duration = Duration::from_millis(200);

/// Receiver of audit lines.
pub type AuditSink = Box<dyn FnMut(AuditLine) + Send>;

/// Reader of a bottle's events: of the audit lines that a function reads, and of the launcher's file.
#[derive(Debug)]
pub struct EventStream {
    path: PathBuf,
}

impl EventStream {
    /// Returns the stream with the launcher's events of this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Gives every event to `each`, sorted by time. `audit` gives every audit line to the sink. `io` converts an error of reading
    /// the file.
    ///
    /// # Errors
    ///
    /// The error of `audit`, or that of reading the file.
    pub fn read<E>(
        &self,
        audit: impl FnOnce(AuditSink) -> Result<(), E>,
        io: impl FnOnce(io::Error) -> E,
        each: impl FnMut(BottleEvent),
    ) -> Result<(), E> {
        let found: Arc<Mutex<Vec<BottleEvent>>> = Arc::default();
        let add = Arc::clone(&found);
        audit(Box::new(move |line| add.lock().unwrap_or_else(PoisonError::into_inner).push(line.into())))?;
        let mut all = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
        all.extend(EventTail::new(&self.path).next_records().map_err(io)?.into_iter().map(BottleEvent::from));
        all.sort_by(|a, b| a.time.cmp(&b.time));
        all.into_iter().for_each(each);
        Ok(())
    }

    /// Gives every event to `each` until `audit` returns, first what was before, by source.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn follow<E>(
        &self,
        audit: impl FnOnce(AuditSink) -> Result<(), E>,
        io: impl FnOnce(io::Error) -> E,
        each: impl FnMut(BottleEvent) + Send + 'static,
    ) -> Result<(), E> {
        let each = Arc::new(Mutex::new(each));
        let (tell, mut tail, is_over) = (Arc::clone(&each), EventTail::new(&self.path), AtomicBool::new(false));
        thread::scope(|scope| {
            let reading = scope.spawn(|| -> io::Result<()> {
                loop {
                    // Asked first: what was written before the end is read below.
                    let is_last = is_over.load(Ordering::Acquire);
                    for record in tail.next_records()? {
                        each.lock().unwrap_or_else(PoisonError::into_inner)(record.into());
                    }
                    if is_last {
                        return Ok(());
                    }
                    thread::sleep(TICK);
                }
            });
            let sink = move |line: AuditLine| tell.lock().unwrap_or_else(PoisonError::into_inner)(line.into());
            let heard = audit(Box::new(sink));
            is_over.store(true, Ordering::Release);
            let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            heard.and(read.map_err(io))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sources_are_read_by_time_and_followed_to_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let note = |second: u32| {
            format!(
                "{{\"time\":\"2026-01-02T03:04:0{second}.000Z\",\"slug\":null,\"step\":null,\"event\":\"note\",\"message\":\"\"}}\n"
            )
        };
        let audit = |sink: &mut AuditSink, second: u32| {
            let line =
                format!("{{\"ts\":\"2026-01-02T03:04:0{second}.000Z\",\"sidecar\":\"egress\",\"event\":\"request\"}}");
            sink(serde_json::from_str(&line).unwrap());
        };
        std::fs::write(&path, note(1) + &note(3)).unwrap();
        let seconds =
            |events: &[BottleEvent]| events.iter().map(|event| event.time[18..19].to_owned()).collect::<String>();
        let mut all = Vec::new();
        let stream = EventStream::new(&path);
        let read = stream.read(
            |mut sink| {
                audit(&mut sink, 2);
                Ok(())
            },
            std::convert::identity::<io::Error>,
            |event| all.push(event),
        );
        read.unwrap();
        assert_eq!(seconds(&all), "123");

        let live: Arc<Mutex<Vec<BottleEvent>>> = Arc::default();
        let add = Arc::clone(&live);
        let followed = stream.follow(
            |mut sink| {
                audit(&mut sink, 2);
                // Written at the very end.
                std::fs::write(&path, note(1) + &note(3) + &note(4))?;
                Err(io::Error::other("the log broke off"))
            },
            std::convert::identity,
            move |event| add.lock().unwrap().push(event),
        );
        assert_eq!(followed.unwrap_err().to_string(), "the log broke off");
        let mut live = std::mem::take(&mut *live.lock().unwrap());
        live.sort_by(|a, b| a.time.cmp(&b.time));
        assert_eq!(seconds(&live), "1234");
    }
}
