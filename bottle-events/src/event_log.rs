//! Events as lines of JSON.

use std::fmt;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use bottle_exec::{Event, Observer};

/// One line of an [`EventLog`].
///
/// ```
/// use bottle_events::EventRecord;
/// let line = r#"{"time":"2026-01-02T03:04:05.678Z","slug":"demo","step":"start the services","event":"note","message":"hi"}"#;
/// let record: EventRecord = serde_json::from_str(line)?;
/// assert_eq!(record.step.as_deref(), Some("start the services"));
/// assert_eq!(serde_json::to_string(&record)?, line);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "One line of a file of events.")]
#[non_exhaustive]
pub struct EventRecord {
    /// Time of the event, RFC 3339 in UTC with three digits of milliseconds, so that times sort as text.
    #[schemars(regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$"))]
    pub time: String,
    /// Slug of the bottle. `None` before it is known.
    pub slug: Option<String>,
    /// Innermost running step. `None` outside of steps.
    pub step: Option<String>,
    /// The bottle's state directory, on its first line only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// An observer that writes each event as one line of JSON, an [`EventRecord`], and flushes it.
///
/// The first error ends the log, because a reader that has exited must not stop a teardown.
pub struct EventLog(Mutex<Lines>);

struct Lines {
    out: Box<dyn Write + Send>,
    error: Option<ErrorKind>,
    slug: Option<String>,
    state_dir: Option<PathBuf>,
    steps: Vec<String>,
}

impl EventLog {
    /// Returns a log that writes to `out`.
    pub fn new(out: impl Write + Send + 'static) -> Self {
        Self(Mutex::new(Lines { out: Box::new(out), error: None, slug: None, state_dir: None, steps: Vec::new() }))
    }

    /// Returns an observer that writes to this log, and passes each event on to another.
    pub fn beside(self, other: Arc<dyn Observer>) -> Beside {
        Beside { log: self, other }
    }

    /// Returns the error that has ended the log.
    pub fn error(&self) -> Option<ErrorKind> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).error
    }

    /// Sets the bottle that the following events are about.
    pub fn set_bottle(&self, slug: impl Into<String>, state_dir: &Path) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.slug = Some(slug.into());
        state.state_dir = Some(state_dir.to_owned());
    }
}

impl Observer for EventLog {
    fn event(&self, event: &Event) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Event::StepStarted { step } = event {
            state.steps.push(step.clone());
        }
        let record = EventRecord {
            time: timestamp(SystemTime::now().into()),
            slug: state.slug.clone(),
            step: match event {
                Event::StepFinished { step, .. } => Some(step.clone()),
                _ => state.steps.last().cloned(),
            },
            state_dir: state.state_dir.take(),
            event: event.clone(),
        };
        if let Event::StepFinished { step, .. } = event
            && let Some(at) = state.steps.iter().rposition(|under_way| under_way == step)
        {
            state.steps.remove(at);
        }
        if let (Ok(mut line), None) = (serde_json::to_vec(&record), state.error) {
            line.push(b'\n');
            // In one write, so that lines of two processes in one file do not mix.
            let written = state.out.write_all(&line).and_then(|()| state.out.flush());
            state.error = written.err().map(|error| error.kind());
        }
    }
}

/// A log and another observer. See [`EventLog::beside`].
pub struct Beside {
    log: EventLog,
    other: Arc<dyn Observer>,
}

impl Observer for Beside {
    fn event(&self, event: &Event) {
        self.log.event(event);
        self.other.event(event);
    }
}

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Beside").finish_non_exhaustive()
    }
}

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLog").finish_non_exhaustive()
    }
}

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Formats a time in UTC.
fn timestamp(time: OffsetDateTime) -> String {
    time.format(TIME).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bottle_exec::{ExitStatus, Outcome, Stream, step};
    use time::format_description::well_known::Rfc3339;
    use time::macros::datetime;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_time_has_three_digits_of_milliseconds() {
        assert_eq!(timestamp(datetime!(2026-01-02 03:04:05.678_9 UTC)), "2026-01-02T03:04:05.678Z");
        assert_eq!(timestamp(datetime!(2026-01-02 03:04:05.67 UTC)), "2026-01-02T03:04:05.670Z");
        assert_eq!(timestamp(datetime!(2026-01-02 03:04:05 UTC)), "2026-01-02T03:04:05.000Z");
    }

    #[test]
    fn every_event_is_one_line_that_parses_with_its_time_bottle_and_step() {
        let out = Shared::default();
        let log = EventLog::new(out.clone());
        log.event(&Event::Error { message: "two\nlines".into(), status: 2 });
        log.set_bottle("demo", Path::new("/state/demo"));
        let all = [
            Event::Recorded { undo: "remove network n".into() },
            Event::CommandStarted { label: "look".into(), command: "docker ps".into() },
            Event::CommandFinished {
                label: "look".into(),
                command: "docker ps".into(),
                status: Some(ExitStatus::Code(1)),
                duration: Duration::from_millis(1234),
                error: None,
            },
            Event::Note { message: "a note".into() },
            Event::Warning { message: "a warning".into() },
            Event::Output { stream: Stream::Stderr, line: "\x1b[31mred".into() },
            Event::StepFinished {
                step: "other".into(),
                duration: Duration::from_millis(7),
                outcome: Outcome::Failed { error: "why".into() },
            },
        ];
        step(&log, "outer", || {
            step(&log, "inner", || {
                for event in &all {
                    log.event(event);
                }
                Ok::<(), std::io::Error>(())
            })
        })
        .unwrap();
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let records: Vec<EventRecord> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records.len(), 1 + all.len() + 4);
        for (record, line) in records.iter().zip(text.lines()) {
            assert_eq!(serde_json::to_string(record).unwrap(), line);
            OffsetDateTime::parse(&record.time, &Rfc3339).unwrap();
            assert_eq!(record.time.len(), "2026-01-02T03:04:05.678Z".len());
        }
        assert_eq!((&records[0].slug, &records[0].step, &records[0].state_dir), (&None, &None, &None));
        assert_eq!(records[1].state_dir.as_deref(), Some(Path::new("/state/demo")));
        assert!(records[2..].iter().all(|record| record.state_dir.is_none()));
        assert!(records[1..].iter().all(|record| record.slug.as_deref() == Some("demo")));
        let steps: Vec<&str> = records[1..].iter().map(|record| record.step.as_deref().unwrap()).collect();
        let mut wanted = vec!["outer"];
        wanted.extend(["inner"; 7]);
        wanted.extend(["other", "inner", "outer"]);
        assert_eq!(steps, wanted);
        for (record, event) in records[3..].iter().zip(&all) {
            assert_eq!(&record.event, event);
        }
    }
}
