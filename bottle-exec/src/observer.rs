//! Events and their observers.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::child::Child;
use crate::command::Command;
use crate::control::Control;
use crate::error::{ExecError, chain};
use crate::output::Output;
use crate::sink::Stream;
use crate::status::ExitStatus;

/// An event. As JSON: `{"event":"step_finished","name":"up","seconds":1.5,"outcome":{"is":"done"}}`. The crate `bottle`
/// writes it as a line of JSON with its time, bottle and step (`EventLog`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A step started.
    StepStarted {
        /// Name of the step.
        #[serde(rename = "name")]
        step: String,
    },
    /// A step ended.
    StepFinished {
        /// Name of the step.
        #[serde(rename = "name")]
        step: String,
        /// Time that the step took.
        #[serde(rename = "seconds", with = "seconds")]
        #[schemars(with = "f64")]
        duration: Duration,
        /// Outcome of the step.
        outcome: Outcome,
    },
    /// The undo of the next thing to be created is on disk.
    Recorded {
        /// The undo.
        undo: String,
    },
    /// A command is about to run.
    CommandStarted {
        /// Description for people.
        label: String,
        /// Command line, redacted.
        command: String,
    },
    /// A command ended, or could not be run to its end.
    CommandFinished {
        /// Description for people.
        label: String,
        /// Command line, redacted.
        command: String,
        /// Exit status, if the command ended.
        status: Option<ExitStatus>,
        /// Time that the command took.
        #[serde(rename = "seconds", with = "seconds")]
        #[schemars(with = "f64")]
        duration: Duration,
        /// Error, if the command could not be run to its end.
        error: Option<String>,
    },
    /// The state of a service changed: its container died, was restarted, or became healthy or unhealthy.
    ServiceChanged {
        /// Name of the service.
        service: String,
        /// True if the service runs and, if it has a health check, is healthy.
        is_up: bool,
        /// State in words, such as `exited with status 137 (killed: out of memory)`.
        state: String,
    },
    /// A step that takes long has come further, or still waits.
    Progress {
        /// Name of the step.
        #[serde(rename = "name")]
        step: String,
        /// Parts that are done, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        done: Option<u32>,
        /// All parts, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<u32>,
        /// The latest line of its output, or what it waits for.
        line: String,
    },
    /// A port of the agent is open on this host's loopback.
    ForwardOpened {
        /// The agent's port.
        port: u16,
        /// Address on this host, such as `127.0.0.1:8080`.
        address: String,
    },
    /// A forwarded port was closed.
    ForwardClosed {
        /// The agent's port.
        port: u16,
        /// Address on this host.
        address: String,
        /// Number of connections that were made.
        connections: u64,
    },
    /// A limit of the bottle is near, or was reached.
    Limit {
        /// Key below `limits` in the manifest: `time`, `idle`, `requests` or `bytes`.
        limit: String,
        /// True if it was reached. False at 90 % of it.
        is_reached: bool,
        /// Amount that was used, in seconds, requests or bytes.
        used: u64,
        /// Value of the limit, in the same unit.
        allowed: u64,
        /// State in words, with what to do.
        state: String,
    },
    /// A message for information.
    Note {
        /// Text of the message.
        message: String,
    },
    /// A warning. The program continues.
    Warning {
        /// Text of the warning.
        message: String,
    },
    /// The program ends because of an error.
    Error {
        /// Text of the error.
        message: String,
        /// Exit status of the program.
        status: u8,
    },
    /// A line that the command in the bottle printed.
    Output {
        /// Stream of the line.
        stream: Stream,
        /// The line, without its line end.
        line: String,
    },
}

/// The outcome of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Outcome {
    /// The step succeeded.
    Done,
    /// The step failed.
    Failed {
        /// Error of the step.
        error: String,
    },
}

/// Receives every event. It is called during the work, so it should return quickly. Closures of type `Fn(&Event)`
/// implement it.
pub trait Observer: Send + Sync {
    /// Receives an event.
    fn event(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync> Observer for F {
    fn event(&self, event: &Event) {
        self(event);
    }
}

/// Runs a step and reports its start and its end.
///
/// # Errors
///
/// Returns the error of the step.
pub fn step<T, E: std::error::Error>(
    observer: &dyn Observer,
    name: &str,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    observer.event(&Event::StepStarted { step: name.to_owned() });
    let started = Instant::now();
    let result = work();
    let outcome = match &result {
        Ok(_) => Outcome::Done,
        Err(error) => Outcome::Failed { error: chain(error) },
    };
    observer.event(&Event::StepFinished { step: name.to_owned(), duration: started.elapsed(), outcome });
    result
}

/// A backend that reports every command to an observer.
pub struct Observed<B> {
    inner: B,
    observer: Arc<dyn Observer>,
}

impl<B: Backend> Observed<B> {
    /// Wraps `inner` and reports its commands to `observer`.
    pub fn new(inner: B, observer: Arc<dyn Observer>) -> Self {
        Self { inner, observer }
    }
}

impl<B: Backend> Backend for Observed<B> {
    fn run(&self, command: &Command, control: &Control) -> Result<Output, ExecError> {
        let (label, line) = (command.label(), command.to_string());
        self.observer.event(&Event::CommandStarted { label: label.clone(), command: line.clone() });
        let started = Instant::now();
        let result = self.inner.run(command, control);
        self.observer.event(&Event::CommandFinished {
            label,
            command: line,
            status: result.as_ref().ok().map(|output| output.status),
            duration: started.elapsed(),
            error: result.as_ref().err().map(|error| chain(error)),
        });
        result
    }

    /// Reports the start of the command, and its end if it could not be started.
    fn spawn(&self, command: &Command, control: &Control) -> Result<Child, ExecError> {
        let (label, line) = (command.label(), command.to_string());
        self.observer.event(&Event::CommandStarted { label: label.clone(), command: line.clone() });
        let result = self.inner.spawn(command, control);
        if let Err(error) = &result {
            let (duration, error) = (Duration::ZERO, Some(chain(error)));
            self.observer.event(&Event::CommandFinished { label, command: line, status: None, duration, error });
        }
        result
    }

    fn process(&self, command: &Command) -> Result<std::process::Command, ExecError> {
        self.inner.process(command)
    }
}

impl<B: fmt::Debug> fmt::Debug for Observed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// Seconds with three decimals.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::cast_precision_loss, reason = "a step does not take 200 000 years")]
    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_millis() as f64 / 1000.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        let duration = Duration::try_from_secs_f64(seconds).map_err(D::Error::custom)?;
        // The nearest float of a decimal can be off by a nanosecond.
        Ok(Duration::from_millis(
            u64::try_from((duration + Duration::from_micros(500)).as_millis()).unwrap_or(u64::MAX),
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::recording::{Fault, RecordingBackend};

    #[test]
    fn events_are_lines_of_json() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = {
            let seen = Arc::clone(&seen);
            Arc::new(move |event: &Event| {
                let mut json = serde_json::to_value(event).unwrap();
                if let Some(time) = json.get_mut("seconds") {
                    assert!(time.take().as_f64().is_some_and(|time| time < 5.0));
                }
                json.sort_all_objects();
                seen.lock().unwrap().push(json.to_string());
            })
        };
        let backend = Observed::new(RecordingBackend::new().with_fault(2, Fault::NotFound), log.clone());
        let command = Command::new("docker").with_arg("ps").with_label("look");
        let result = step(&*log, "up", || {
            backend.run(&command, &Control::default())?;
            backend.run(&command, &Control::default())
        });
        assert!(result.is_err());
        log.event(&Event::Warning { message: "old engine".into() });
        insta::assert_snapshot!(seen.lock().unwrap().join("\n"));
    }
}
