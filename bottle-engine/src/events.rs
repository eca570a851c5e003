//! The engine's event stream.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bottle_exec::{Command, OutputPolicy, Stream};
use serde_json::Value;

use crate::client::Engine;
use crate::error::EngineError;

/// A change of a container, as the engine reports it at the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEvent {
    /// Labels of the container.
    pub labels: BTreeMap<String, String>,
    /// The change.
    pub change: ContainerChange,
}

/// A kind of change of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContainerChange {
    /// Its main process ended.
    Died {
        /// Exit status.
        exit_code: i64,
    },
    /// The kernel killed one of its processes, because the container used up its memory.
    OutOfMemory,
    /// Its health check passes.
    Healthy,
    /// Its health check has failed too often.
    Unhealthy,
    /// It was started, paused, resumed or removed, or its health changed in another way.
    Other,
}

impl Engine {
    /// Passes each change of the containers that have a label with this value to `receive`, from a time on. Changes that
    /// arrive together are passed together. Starting and ending a command in a container is no change of it.
    ///
    /// Returns when the engine ends the stream.
    ///
    /// # Errors
    ///
    /// Returns an error when the control cancels the stream, or the engine breaks it off.
    pub fn watch_containers(
        &self,
        label: &str,
        value: &str,
        since: SystemTime,
        receive: impl Fn(Vec<ContainerEvent>) + Send + Sync + 'static,
    ) -> Result<(), EngineError> {
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
        let command = Command::new(&self.info.program)
            .with_args(["events", "--filter", "type=container", "--filter", &format!("label={label}={value}")])
            .with_args(["--since", &format!("{}.{:09}", since.as_secs(), since.subsec_nanos())])
            .with_args(["--format", "{{json .}}"])
            .with_output(OutputPolicy::Stream)
            .with_label(format!("watch the containers of {value}"));
        let rest = Mutex::new(Vec::new());
        let sink = move |stream: Stream, bytes: &[u8]| {
            if stream == Stream::Stdout {
                let mut rest = rest.lock().unwrap_or_else(PoisonError::into_inner);
                let events = take_events(&mut rest, bytes);
                if !events.is_empty() {
                    receive(events);
                }
            }
        };
        let control = self.control.clone().with_sink(Arc::new(sink));
        self.clone().with_control(control).run(&command).map(drop)
    }
}

/// Returns the events of the complete lines, and leaves the incomplete last line in `rest`.
fn take_events(rest: &mut Vec<u8>, bytes: &[u8]) -> Vec<ContainerEvent> {
    rest.extend_from_slice(bytes);
    let end = rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let lines: Vec<u8> = rest.drain(..end).collect();
    let lines = lines.split(|&byte| byte == b'\n');
    lines.filter_map(|line| ContainerEvent::read(&serde_json::from_slice(line).ok()?)).collect()
}

impl ContainerEvent {
    /// Reads an event of Docker (`Action`, `Actor.Attributes`) or Podman (`Status`, `Attributes`). Returns `None` for
    /// what does not change a container.
    fn read(value: &Value) -> Option<Self> {
        let action = value["Action"].as_str().or_else(|| value["Status"].as_str())?;
        let attributes = value["Actor"].get("Attributes").unwrap_or(&value["Attributes"]);
        let change = match action.split(':').next()? {
            "die" | "died" => {
                let told = attributes["exitCode"].as_str().and_then(|code| code.parse().ok());
                ContainerChange::Died { exit_code: told.or_else(|| value["ContainerExitCode"].as_i64()).unwrap_or(-1) }
            }
            "oom" => ContainerChange::OutOfMemory,
            "health_status" => match action.split(": ").nth(1).or_else(|| value["health_status"].as_str()) {
                Some("healthy") => ContainerChange::Healthy,
                Some("unhealthy") => ContainerChange::Unhealthy,
                _ => ContainerChange::Other,
            },
            "start" | "restart" | "pause" | "unpause" | "destroy" | "remove" => ContainerChange::Other,
            _ => return None,
        };
        let labels = attributes.as_object().into_iter().flatten();
        // Docker puts the name among the labels.
        let name = value["Name"].as_str().map(|name| ("name".to_owned(), name.to_owned()));
        let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).chain(name);
        Some(Self { labels: labels.collect(), change })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_docker_and_podman_are_read_however_the_stream_is_cut() {
        let text = r#"{"status":"exec_die","Type":"container","Action":"exec_die","Actor":{"Attributes":{"exitCode":"0"}}}
{"status":"oom","Type":"container","Action":"oom","Actor":{"ID":"a","Attributes":{"service":"egress"}}}
{"Type":"container","Action":"die","Actor":{"Attributes":{"service":"egress","exitCode":"137"}},"time":1}
{"Type":"container","Action":"health_status: healthy","Actor":{"Attributes":{"service":"seal"}}}
{"Type":"container","Action":"health_status: unhealthy","Actor":{"Attributes":{"service":"git-gate"}}}
{"Name":"x","Status":"died","Type":"container","ContainerExitCode":3,"Attributes":{"service":"pipelock"}}
a line that is no event
"#;
        let event = |service: &str, change| ContainerEvent {
            labels: [("service".to_owned(), service.to_owned())].into(),
            change,
        };
        let read = |pieces: &[&str]| -> Vec<ContainerEvent> {
            let mut rest = Vec::new();
            let events = pieces.iter().flat_map(|piece| take_events(&mut rest, piece.as_bytes())).collect();
            assert!(rest.is_empty());
            events
        };
        let whole: Vec<_> = read(&[text])
            .into_iter()
            .map(|event| {
                let labels = event.labels.into_iter().filter(|(key, _)| key == "service").collect();
                ContainerEvent { labels, ..event }
            })
            .collect();
        assert_eq!(
            whole,
            [
                event("egress", ContainerChange::OutOfMemory),
                event("egress", ContainerChange::Died { exit_code: 137 }),
                event("seal", ContainerChange::Healthy),
                event("git-gate", ContainerChange::Unhealthy),
                event("pipelock", ContainerChange::Died { exit_code: 3 }),
            ]
        );
        for at in 0..text.len() {
            let (one, other) = text.split_at(at);
            assert_eq!(read(&[one, other]).len(), whole.len(), "cut at {at}");
        }
    }
}
