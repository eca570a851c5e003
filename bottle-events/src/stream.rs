//! Audit lines and the launcher's events, merged.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bottle_exec::Event;
use bottle_sidecars::audit::AuditLine;

use crate::event::BottleEvent;
use crate::event_log::EventRecord;
use crate::file::EventTail;

/// Time between two looks at the launcher's file.
const TICK: Duration = Duration::from_millis(200);

/// Time without an event after which a teardown counts as broken off.
const SILENT: Duration = Duration::from_secs(60);

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
        all.extend(EventTail::new(&self.path).next_records().map_err(io)?.into_iter().filter_map(told));
        all.sort_by(|a, b| a.time.cmp(&b.time));
        all.into_iter().for_each(each);
        Ok(())
    }

    /// Gives every event to `each`, first what was before, by source. It ends when `audit` has returned and the bottle is not
    /// being taken down any more (`is_closing`), or nothing was reported of that for a minute.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn follow<E>(
        &self,
        audit: impl FnOnce(AuditSink) -> Result<(), E>,
        is_closing: impl Fn() -> bool + Sync,
        io: impl FnOnce(io::Error) -> E,
        each: impl FnMut(BottleEvent) + Send + 'static,
    ) -> Result<(), E> {
        let each = Arc::new(Mutex::new(each));
        let (tell, mut tail, is_over) = (Arc::clone(&each), EventTail::new(&self.path), AtomicBool::new(false));
        thread::scope(|scope| {
            let reading = scope.spawn(|| -> io::Result<()> {
                let mut last = Instant::now();
                loop {
                    // Asked first: what was written before the end is read below.
                    let is_last = is_over.load(Ordering::Acquire) && (!is_closing() || last.elapsed() > SILENT);
                    let records = tail.next_records()?;
                    if !records.is_empty() {
                        last = Instant::now();
                    }
                    for event in records.into_iter().filter_map(told) {
                        each.lock().unwrap_or_else(PoisonError::into_inner)(event);
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

/// Returns the event of the launcher's record. Egress itself reports the limits that it counts.
fn told(record: EventRecord) -> Option<BottleEvent> {
    let is_of_egress =
        matches!(&record.event, Event::Limit { limit, .. } if matches!(limit.as_str(), "requests" | "bytes"));
    (!is_of_egress).then(|| record.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventData, EventSource};

    #[test]
    fn a_limit_that_egress_counts_is_in_the_stream_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let limit = |limit: &str| {
            format!(
                "{{\"time\":\"2026-01-02T03:04:05.000Z\",\"slug\":null,\"step\":null,\"event\":\"limit\",\"limit\":\"{limit}\",\"is_reached\":true,\"used\":2,\"allowed\":2,\"state\":\"\"}}\n"
            )
        };
        std::fs::write(&path, ["requests", "bytes", "time", "idle"].map(limit).concat()).unwrap();
        let egress = r#"{"ts":"2026-01-02T03:04:05.678Z","sidecar":"egress","event":"limit-reached","limit":"requests","used":2,"allowed":2}"#;
        let mut all = Vec::new();
        let read = EventStream::new(&path).read(
            |mut sink| {
                sink(serde_json::from_str(egress).unwrap());
                Ok(())
            },
            std::convert::identity::<io::Error>,
            |event| all.push(event),
        );
        read.unwrap();
        let limits = all.iter().map(|event| match &event.data {
            EventData::Limit(limit) => (event.source, limit.limit.as_str()),
            other => panic!("{other:?}"),
        });
        let (launcher, egress) = (EventSource::Launcher, EventSource::Egress);
        assert_eq!(limits.collect::<Vec<_>>(), [(launcher, "time"), (launcher, "idle"), (egress, "requests")]);
    }

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
        // The log has ended, and the teardown has not.
        let (late, closed) = (path.clone(), AtomicBool::new(false));
        let is_closing = || {
            if !closed.swap(true, Ordering::AcqRel) {
                std::fs::write(&late, note(1) + &note(3) + &note(4) + &note(5)).unwrap();
                return true;
            }
            false
        };
        let followed = stream.follow(
            |mut sink| {
                audit(&mut sink, 2);
                // Written at the very end.
                std::fs::write(&path, note(1) + &note(3) + &note(4))?;
                Err(io::Error::other("the log broke off"))
            },
            is_closing,
            std::convert::identity,
            move |event| add.lock().unwrap().push(event),
        );
        assert_eq!(followed.unwrap_err().to_string(), "the log broke off");
        let mut live = std::mem::take(&mut *live.lock().unwrap());
        live.sort_by(|a, b| a.time.cmp(&b.time));
        assert_eq!(seconds(&live), "12345");
    }
}
