//! Podman's own commands for what Compose does for a project of Docker.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bottle_exec::{Control, EnvValue, OutputPolicy, OutputSink, SecretValue, Stream};

use crate::client::{Engine, check_env_name};
use crate::compose::PROJECT_LABEL;
use crate::error::EngineError;
use crate::info::Flavour;
use crate::object::{Filter, ObjectKind};

/// Longest line of a log, in bytes, before it is passed on in parts.
const LONGEST: usize = 1 << 16;

impl Engine {
    /// Returns true for Podman.
    pub fn is_podman(&self) -> bool {
        self.info.flavour == Flavour::Podman
    }

    /// Creates objects one after the other, each with these arguments. A command gets in its environment those of the secrets
    /// whose variables it names without a value.
    ///
    /// # Errors
    ///
    /// Returns an error when something cannot be created, or when the client itself reads a variable of a secret's name.
    pub fn create_each<'a>(
        &self,
        commands: impl IntoIterator<Item = &'a [String]>,
        secrets: &[(String, SecretValue)],
    ) -> Result<(), EngineError> {
        for words in commands {
            let mut command = self
                .change(words.iter().map(String::as_str))
                .with_timeout(self.limits.up)
                .with_output(OutputPolicy::Stream)
                .with_label("create the services");
            for (name, value) in secrets.iter().filter(|(name, _)| words.contains(&format!("--env={name}"))) {
                check_env_name(name)?;
                command = command.with_env(name, EnvValue::Secret(value.clone()));
            }
            self.run(&command)?;
        }
        Ok(())
    }

    /// Passes the output of every container of a project to the sink, each line after the container's name, as Compose does.
    pub(crate) fn podman_logs(&self, project: &str, follow: bool) -> Result<(), EngineError> {
        let filter = Filter::LabelValue(PROJECT_LABEL.to_owned(), project.to_owned());
        let containers = self.list(ObjectKind::Container, &filter)?;
        let width = containers.iter().map(|container| container.name.len()).max().unwrap_or_default();
        let read = |name: &str| {
            let sink = Arc::new(Lines::new(format!("{name:width$} | "), self.control.clone()));
            let control = self.control.clone().with_sink(sink.clone()).with_plain_text();
            let mut command = self.change(["logs", "--timestamps"]).with_label(format!("read the log of {name}"));
            if follow {
                command = self.unbounded(["logs", "--timestamps", "--follow"]);
            }
            let command = command.with_arg(name).with_output(OutputPolicy::Stream);
            let read = self.clone().with_control(control).run(&command).map(drop);
            sink.flush();
            read
        };
        if !follow {
            return containers.iter().try_for_each(|container| read(&container.name));
        }
        thread::scope(|scope| {
            let readers: Vec<_> = containers.iter().map(|container| scope.spawn(|| read(&container.name))).collect();
            let ended = readers
                .into_iter()
                .map(|reader| reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            ended.collect::<Vec<_>>().into_iter().collect()
        })
    }

    /// Runs the health check of a container once. Podman needs systemd to run it by itself.
    pub(crate) fn podman_check(&self, container: &str) -> Result<bool, EngineError> {
        let command = self.query(["healthcheck", "run", container]);
        Ok(self.run_any(&command)?.status.is_success())
    }
}

/// A sink that passes on whole lines, each after a prefix, so that no container speaks for another one.
struct Lines {
    prefix: String,
    rest: [Mutex<Vec<u8>>; 2],
    to: Control,
}

impl Lines {
    fn new(prefix: String, to: Control) -> Self {
        Self { prefix, rest: Default::default(), to }
    }

    fn pass(&self, stream: Stream, line: &[u8]) {
        if let Some(sink) = self.to.sink() {
            sink.write(stream, &[self.prefix.as_bytes(), line, b"\n"].concat());
        }
    }

    fn rest(&self, stream: Stream) -> &Mutex<Vec<u8>> {
        &self.rest[usize::from(stream == Stream::Stderr)]
    }

    /// Passes on what has no line end.
    fn flush(&self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut *self.rest(stream).lock().unwrap_or_else(PoisonError::into_inner));
            if !rest.is_empty() {
                self.pass(stream, &rest);
            }
        }
    }
}

impl OutputSink for Lines {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut rest = self.rest(stream).lock().unwrap_or_else(PoisonError::into_inner);
        for &byte in bytes {
            if byte != b'\n' {
                rest.push(byte);
            }
            if byte == b'\n' || rest.len() >= LONGEST {
                self.pass(stream, &rest);
                rest.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_a_log_has_the_name_of_its_container() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&seen);
        let sink =
            move |_: Stream, bytes: &[u8]| into.lock().unwrap().push(String::from_utf8_lossy(bytes).into_owned());
        let lines = Lines::new("a | ".into(), Control::default().with_sink(Arc::new(sink)));
        lines.write(Stream::Stdout, b"one\ntw");
        lines.write(Stream::Stderr, b"error\n");
        lines.write(Stream::Stdout, b"o\nb | x");
        lines.flush();
        assert_eq!(*seen.lock().unwrap(), ["a | one\n", "a | error\n", "a | two\n", "a | b | x\n"]);
        lines.write(Stream::Stdout, &vec![b'x'; LONGEST + 1]);
        assert!(seen.lock().unwrap().iter().all(|line| line.starts_with("a | ")));
    }
}
