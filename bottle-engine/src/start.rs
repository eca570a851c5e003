//! Start of many containers at once.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bottle_exec::{CancelToken, Control, ExecError};
use serde::{Deserialize, Serialize};

use crate::client::Engine;
use crate::error::EngineError;
use crate::events::{ContainerChange, ContainerEvent};

/// A created container that is to be started, and the containers that must be up before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Name of the container.
    pub container: String,
    /// Containers that must have been started before it. They are among the containers to start.
    pub after_started: Vec<String>,
    /// Containers that must be healthy before it. They are among the containers to start.
    pub after_healthy: Vec<String>,
    /// True if the container was created with a health check of its own. Of another one, the image may have one.
    pub has_check: bool,
}

/// Longest time between two looks at the shared state, so that a cancellation is noticed.
const TICK: Duration = Duration::from_millis(20);

/// Time after which the engine is asked for the state of a container although its events say nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// The same once the engine has ended its event stream.
const WITHOUT_EVENTS: Duration = Duration::from_millis(100);

/// Number of lines of a container's output that become part of an error.
const LAST_LINES: usize = 5;

impl Engine {
    /// Starts the created containers of a Compose project, each as soon as those before it are up, and waits until all of
    /// them run and, if they have a health check, are healthy. Those that others wait for are started before the rest. `then` is called with the name of each container after
    /// it was started, while others are still starting. It may be called by several threads.
    ///
    /// Readiness comes from the engine's event stream, and so is known within milliseconds.
    ///
    /// # Errors
    ///
    /// Returns the first error: of a start, of `then`, or [`EngineError::NotReady`] with the last lines of output of a
    /// container that ended, is unhealthy, or is not healthy `within` the time.
    pub fn start_all<E: From<EngineError> + Send>(
        &self,
        project: &str,
        containers: &[Start],
        within: Duration,
        then: impl Fn(&str) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let board = Arc::new(Board::default());
        let stop = CancelToken::new();
        let watching = self.clone().with_control(Control::cancelled_by(stop.clone()));
        let first = containers.iter().flat_map(|one| one.after_started.iter().chain(&one.after_healthy)).collect();
        let starting = Starting { engine: self, board: &board, first, until: Instant::now() + within, within };
        thread::scope(|scope| {
            scope.spawn(|| {
                let told = Arc::clone(&board);
                let receive = move |events: Vec<ContainerEvent>| told.note(&events);
                // Without a stream, the engine is asked instead.
                drop(watching.watch_containers(crate::PROJECT_LABEL, project, SystemTime::now(), receive));
                board.change(|state| state.is_blind = true);
            });
            let running: Vec<_> = containers.iter().map(|one| scope.spawn(|| starting.run(one, &then))).collect();
            let results: Vec<_> = running.into_iter().map(thread::ScopedJoinHandle::join).collect();
            stop.cancel();
            let mut first = Ok(());
            for result in results {
                match result {
                    Ok(Ok(()) | Err(None)) => {}
                    Ok(Err(Some((at, error)))) => match first {
                        Err((earlier, _)) if earlier <= at => {}
                        _ => first = Err((at, error)),
                    },
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            first.map_err(|(_, error)| error)
        })
    }
}

/// The containers' states, as far as they are known.
#[derive(Debug, Default)]
struct Board {
    state: Mutex<Known>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Known {
    started: BTreeSet<String>,
    healthy: BTreeSet<String>,
    /// Containers that ended or became unhealthy, of which the engine has to be asked whether that is final.
    suspect: BTreeSet<String>,
    /// True if there are no events, or no more of them.
    is_blind: bool,
    /// True after the first error.
    has_failed: bool,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn note(&self, events: &[ContainerEvent]) {
        self.change(|state| {
            for event in events {
                let Some(name) = event.labels.get("name") else { continue };
                match event.change {
                    ContainerChange::Healthy => _ = state.healthy.insert(name.clone()),
                    ContainerChange::Died { .. } | ContainerChange::Unhealthy => {
                        state.healthy.remove(name);
                        state.suspect.insert(name.clone());
                    }
                    ContainerChange::OutOfMemory | ContainerChange::Other => {}
                }
            }
        });
    }
}

/// The start of all containers.
struct Starting<'a> {
    engine: &'a Engine,
    board: &'a Board,
    /// Containers that others wait for. A start takes a processor for a quarter of a second, so that they come first.
    first: BTreeSet<&'a String>,
    until: Instant,
    within: Duration,
}

/// An error and its time, or nothing for a container that was given up because of another one's error.
type Failure<E> = Option<(Instant, E)>;

impl Starting<'_> {
    fn run<E: From<EngineError>>(&self, one: &Start, then: impl Fn(&str) -> Result<(), E>) -> Result<(), Failure<E>> {
        let result = self.start(one, then);
        if result.is_err() {
            self.board.change(|state| state.has_failed = true);
        }
        result
    }

    fn start<E: From<EngineError>>(&self, one: &Start, then: impl Fn(&str) -> Result<(), E>) -> Result<(), Failure<E>> {
        let failed = |error: EngineError| Some((Instant::now(), E::from(error)));
        if !self.first.contains(&one.container) {
            self.wait(|state| self.first.iter().all(|other| state.started.contains(*other)))
                .map_err(|error| error.and_then(failed))?;
        }
        for other in &one.after_started {
            self.wait(|state| state.started.contains(other)).map_err(|error| error.and_then(failed))?;
        }
        for other in &one.after_healthy {
            self.wait(|state| state.healthy.contains(other)).map_err(|error| error.and_then(failed))?;
        }
        self.engine.start_container(&one.container).map_err(failed)?;
        self.board.change(|state| _ = state.started.insert(one.container.clone()));
        then(&one.container).map_err(|error| Some((Instant::now(), error)))?;
        self.wait_healthy(one).map_err(|error| error.and_then(failed))
    }

    /// Waits until a container is healthy by the engine's events. The engine is asked as well: at once when the container
    /// ended or has no health check of its own, otherwise when there was no event for some time.
    fn wait_healthy(&self, one: &Start) -> Result<(), Option<EngineError>> {
        let started = Instant::now();
        // The time of the next question, with events and without.
        // Podman's health checks run when they are asked for.
        let is_told = one.has_check && !self.engine.is_podman();
        let (mut seeing, mut blind) = if is_told { (started + PATIENCE, started) } else { (started, started) };
        loop {
            self.wait(|state| {
                let next = if state.is_blind { blind } else { seeing };
                state.healthy.contains(&one.container)
                    || state.suspect.contains(&one.container)
                    || Instant::now() >= next.min(self.until)
            })?;
            if self.board.lock().healthy.contains(&one.container) {
                return Ok(());
            }
            self.board.change(|state| _ = state.suspect.remove(&one.container));
            if self.is_ready(one)? {
                self.board.change(|state| _ = state.healthy.insert(one.container.clone()));
                return Ok(());
            }
            (seeing, blind) = (Instant::now() + PATIENCE, Instant::now() + WITHOUT_EVENTS);
            if self.engine.is_podman() {
                seeing = blind;
            }
        }
    }

    /// Waits until the state is as wanted. Gives up when another container has failed.
    fn wait(&self, is_reached: impl Fn(&Known) -> bool) -> Result<(), Option<EngineError>> {
        let mut state = self.board.lock();
        while !is_reached(&state) {
            if state.has_failed {
                return Err(None);
            }
            if self.engine.control.cancel().is_cancelled() {
                let command = "start the containers".to_owned();
                return Err(Some(ExecError::Cancelled { command }.into()));
            }
            state = self.board.changed.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Asks the engine for a container's state. One that ended, is unhealthy or is late is an error.
    fn is_ready(&self, one: &Start) -> Result<bool, Option<EngineError>> {
        let (container, is_late) = (one.container.as_str(), Instant::now() >= self.until);
        let is_checked = self.engine.is_podman() && one.has_check && self.engine.podman_check(container)?;
        let state = self.engine.container(container)?.unwrap_or_default();
        if state.is_ready() && (is_checked || !self.engine.is_podman() || !one.has_check) {
            return Ok(true);
        }
        let is_over = matches!(state.status.as_str(), "" | "exited" | "dead");
        let is_unhealthy = state.health.as_deref() == Some("unhealthy");
        if !is_over && !is_unhealthy && !is_late {
            return Ok(false);
        }
        let told = match (state.status.as_str(), is_over || is_unhealthy) {
            ("", _) => "there is no such container".to_owned(),
            (_, true) => format!("it {state}"),
            (_, false) => format!("after {:?} it {state}", self.within),
        };
        // Without a check it is the agent's, which may print what its own command knows.
        let lines = if one.has_check { self.engine.last_lines(container) } else { String::new() };
        let lines = if lines.is_empty() { lines } else { format!("; its last lines:\n{lines}") };
        Err(Some(EngineError::NotReady { container: container.to_owned(), state: told + &lines }))
    }
}

impl Engine {
    fn start_container(&self, container: &str) -> Result<(), EngineError> {
        self.run(&self.change(["start", container]).with_label(format!("start {container}"))).map(drop)
    }

    /// Returns the last lines that a container printed, for an error. Empty if they cannot be read.
    fn last_lines(&self, container: &str) -> String {
        let lines = LAST_LINES.to_string();
        let command = self.query(["logs", "--tail", &lines, container]);
        let Ok(output) = self.run(&command) else { return String::new() };
        let lines = [output.stdout.last_lines(LAST_LINES), output.stderr.last_lines(LAST_LINES)];
        lines.iter().flat_map(|text| text.lines()).map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bottle_exec::{Answer, Matcher, RecordingBackend};

    use super::*;
    use crate::detect::{EngineChoice, rehearsal};

    /// Returns an engine with these answers, on which every other container is healthy.
    fn engine(backend: RecordingBackend) -> (Engine, Arc<RecordingBackend>) {
        let engine = Engine::detect(Arc::new(rehearsal()), &EngineChoice::Auto, Control::default()).unwrap();
        let healthy = state("running", "healthy");
        let backend = Arc::new(backend.with_answer(Matcher::prefix(["container", "inspect"]), healthy));
        (engine.with_backend(backend.clone()), backend)
    }

    fn containers() -> [Start; 4] {
        let start = |container: &str, started: &[&str], healthy: &[&str]| Start {
            container: container.to_owned(),
            after_started: started.iter().map(|&name| name.to_owned()).collect(),
            after_healthy: healthy.iter().map(|&name| name.to_owned()).collect(),
            has_check: container != "agent",
        };
        // The order in which they are given does not matter.
        [
            start("agent", &[], &["seal"]),
            start("proxy", &["outlet"], &[]),
            start("outlet", &[], &[]),
            start("seal", &[], &[]),
        ]
    }

    fn start(
        engine: &Engine,
        within: Duration,
        then: impl Fn(&str) -> Result<(), EngineError> + Sync,
    ) -> Result<(), EngineError> {
        engine.start_all("demo", &containers(), within, then)
    }

    fn state(status: &str, health: &str) -> Answer {
        Answer::stdout(format!(
            r#"[{{"Name":"/x","State":{{"Status":"{status}","ExitCode":3,"Health":{{"Status":"{health}"}}}},"Config":{{}}}}]"#
        ))
    }

    fn event(container: &str, action: &str) -> String {
        format!(r#"{{"Type":"container","Action":"{action}","Actor":{{"Attributes":{{"name":"{container}"}}}}}}"#)
            + "\n"
    }

    #[test]
    fn each_container_is_started_as_soon_as_those_before_it_are_up() {
        let (engine, backend) = engine(RecordingBackend::new());
        let started = Mutex::new(BTreeSet::new());
        start(&engine, Duration::from_secs(5), |name| {
            started.lock().unwrap().insert(name.to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(started.into_inner().unwrap().len(), 4);
        let lines = backend.lines();
        let at = |line: &str| lines.iter().position(|called| called == line).unwrap();
        assert!(at("docker container inspect seal") < at("docker start agent"), "{lines:#?}");
        assert!(at("docker start outlet") < at("docker start proxy"), "{lines:#?}");
        assert!(lines.iter().any(|line| line.starts_with("docker events --filter type=container")), "{lines:#?}");
    }

    #[test]
    fn an_event_says_that_a_container_is_healthy_and_the_engine_is_not_asked() {
        let events = ["outlet", "proxy", "seal"].map(|name| event(name, "health_status: healthy")).concat();
        let (engine, backend) = engine(
            RecordingBackend::new()
                .with_answer(Matcher::prefix(["events"]), Answer::stdout(events))
                .with_answer(Matcher::words(["inspect", "agent"]), state("running", "none"))
                .with_answer(Matcher::prefix(["container", "inspect"]), state("running", "starting")),
        );
        start(&engine, Duration::from_secs(5), |_| Ok(())).unwrap();
        let asked: Vec<String> = backend.lines().into_iter().filter(|line| line.contains("inspect")).collect();
        assert_eq!(asked, ["docker container inspect agent"]);
    }

    #[test]
    fn a_container_that_ends_or_is_late_is_named_with_its_last_lines() {
        let failed = |status: &str, health: &str| {
            let (engine, backend) = engine(
                RecordingBackend::new()
                    .with_answer(Matcher::words(["inspect", "proxy"]), state(status, health))
                    .with_answer(Matcher::prefix(["logs"]), Answer::stdout("reading the file\nno such key\n")),
            );
            let error = start(&engine, Duration::from_millis(300), |_| Ok(())).unwrap_err().to_string();
            assert!(backend.lines().contains(&"docker logs --tail 5 proxy".to_owned()));
            error
        };
        let lines = "its last lines:\n  reading the file\n  no such key";
        assert_eq!(
            failed("exited", "starting"),
            format!("wait for container `proxy`: it exited with status 3; {lines}")
        );
        assert_eq!(
            failed("running", "unhealthy"),
            format!("wait for container `proxy`: it is running, unhealthy; {lines}")
        );
        assert_eq!(
            failed("running", "starting"),
            format!("wait for container `proxy`: after 300ms it is running, starting; {lines}")
        );
    }

    #[test]
    fn nothing_is_started_after_an_error_and_the_first_error_is_returned() {
        let (engine, backend) = engine(RecordingBackend::new());
        let error = start(&engine, Duration::from_secs(60), |name| match name {
            "seal" => Err(EngineError::ReservedName { name: "first".into() }),
            _ => Ok(()),
        });
        assert!(error.unwrap_err().to_string().contains("first"));
        assert!(!backend.lines().contains(&"docker start agent".to_owned()));
    }
}
