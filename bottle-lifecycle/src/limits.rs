//! Limits of a bottle: time, idle time, requests and bytes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bottle_engine::{Engine, EngineError, Exec};
use bottle_exec::{Event, Observer, chain};
use bottle_plan::manifest::LimitsSpec;
use bottle_plan::value::{ByteSize, Span};
use bottle_plan::{Names, Service, Slug};
use serde::Deserialize;

use crate::background::{Background, wait};

/// Prints the file in which egress keeps what the bottle has used. The builtins of the shell suffice.
const SCRIPT: &str = "IFS= read -r line < /var/lib/sidecar/usage && printf %s \"$line\"";

/// Bounds of the time between two looks at that file. In between it is a twentieth of the idle time.
const OFTEN: Duration = Duration::from_secs(1);
const SELDOM: Duration = Duration::from_secs(5);

/// Starts a thread that reports when a limit is near or reached, and pauses an agent that is idle. `None`: the bottle has none of
/// these limits.
///
/// The limits themselves hold without it, except that on idle time: the agent's container ends by itself, and egress counts.
pub(crate) fn watch(
    engine: &Engine,
    names: &Names,
    limits: &LimitsSpec,
    observer: Arc<dyn Observer>,
) -> Option<Background> {
    if limits.time.is_none() && !limits.need_egress() {
        return None;
    }
    let (agent, egress) = (names.container(Service::Agent), names.container(Service::Egress));
    let slug = names.slug().clone();
    let (limits, started, resumed) = (limits.clone(), Instant::now(), SystemTime::now());
    Some(Background::start(engine, move |engine| {
        let engine = engine.clone();
        Watched { engine, slug, agent, egress, limits, started, resumed, told: BTreeSet::new() }.follow(&*observer);
    }))
}

/// Use of a bottle's limits, as egress keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
struct Usage {
    requests: u64,
    bytes: u64,
    /// Time of the last byte, in seconds since 1970.
    active: f64,
}

struct Watched {
    engine: Engine,
    slug: Slug,
    agent: String,
    egress: String,
    limits: LimitsSpec,
    started: Instant,
    /// Time from which the agent counts as idle if it sends nothing: the launch, or the end of a pause.
    resumed: SystemTime,
    /// Events that were reported: the limit, and true if it was reached.
    told: BTreeSet<(&'static str, bool)>,
}

impl Watched {
    fn follow(&mut self, observer: &dyn Observer) {
        let often = self.limits.idle.map_or(SELDOM, |idle| (idle.duration() / 20).clamp(OFTEN, SELDOM));
        let mut was_broken = false;
        while wait(&self.engine, often) {
            let result = self.look();
            if self.engine.control().cancel().is_cancelled() {
                return;
            }
            match result {
                Ok(events) => {
                    for event in &events {
                        observer.event(event);
                    }
                    was_broken = false;
                }
                Err(_) if std::mem::replace(&mut was_broken, true) => {}
                Err(problem) => {
                    let message = format!("failed to read what {} has let pass, trying again: {problem}", self.egress);
                    observer.event(&Event::Warning { message });
                }
            }
        }
    }

    /// Returns what is to be reported, and pauses the agent if it is idle.
    fn look(&mut self) -> Result<Vec<Event>, String> {
        let mut events = Vec::new();
        if let Some(time) = self.limits.time {
            let (used, allowed) = (self.started.elapsed().as_secs(), time.duration().as_secs());
            events.extend(self.news("time", used, allowed, || {
                if used < allowed {
                    format!("the agent's container ends {time} after its start (`limits.time`)")
                } else {
                    format!(
                        "the agent's container has ended after {time} (`limits.time`); its files can still be taken out"
                    )
                }
            }));
        }
        if self.limits.need_egress() {
            let usage = self.usage()?;
            let bytes = self.limits.bytes.map(ByteSize::bytes);
            for (limit, used, allowed) in
                [("requests", usage.requests, self.limits.requests), ("bytes", usage.bytes, bytes)]
            {
                let Some(allowed) = allowed else { continue };
                events.extend(self.news(limit, used, allowed, || {
                    let then = if used < allowed { "" } else { "; egress refuses all others" };
                    format!("the agent has used {used} of {allowed} {limit} (`limits.{limit}`){then}")
                }));
            }
            if let Some(idle) = self.limits.idle {
                events.extend(self.look_at_idle(idle, usage.active).map_err(|error| chain(&error))?);
            }
        }
        Ok(events)
    }

    fn look_at_idle(&mut self, idle: Span, active: f64) -> Result<Option<Event>, EngineError> {
        let active = Duration::try_from_secs_f64(active).unwrap_or_default();
        let since = (UNIX_EPOCH + active).max(self.resumed);
        let (mut used, allowed) = (since.elapsed().unwrap_or_default().as_secs(), idle.duration().as_secs());
        if !is_near(used, allowed) {
            self.told.retain(|(limit, _)| *limit != "idle");
            return Ok(None);
        }
        // No agent is paused without the event that announces it, however late this look is.
        if !self.told.contains(&("idle", false)) {
            used = used.min(allowed.saturating_sub(1));
        }
        let (agent, slug) = (self.agent.clone(), self.slug.clone());
        if used >= allowed && self.engine.container(&agent)?.is_some_and(|state| state.status == "running") {
            if self.told.contains(&("idle", true)) {
                // Somebody has let it go on.
                self.resumed = SystemTime::now();
                return Ok(None);
            }
            self.engine.pause(&agent)?;
        }
        Ok(self.news("idle", used, allowed, || {
            if used < allowed {
                format!("the agent has sent no request for {used}s; after {idle} it is paused (`limits.idle`)")
            } else {
                format!(
                    "the agent was paused: it has sent no request for {idle} (`limits.idle`); take the bottle down, or resume \
                     it (`Bottles::resume`, `bottles resume {slug}`)"
                )
            }
        }))
    }

    /// Returns the event of a limit that is near or reached, once for each.
    fn news(&mut self, limit: &'static str, used: u64, allowed: u64, state: impl Fn() -> String) -> Option<Event> {
        let is_reached = used >= allowed;
        let is_new = is_near(used, allowed) && self.told.insert((limit, is_reached));
        is_new.then(|| Event::Limit { limit: limit.to_owned(), is_reached, used, allowed, state: state() })
    }

    fn usage(&self) -> Result<Usage, String> {
        let exec = Exec::new(["sh", "-c", SCRIPT]).with_timeout(Duration::from_secs(10));
        let output = self.engine.exec_bare(&self.egress, &exec).map_err(|error| chain(&error))?;
        if !output.status.is_success() {
            return Err(output.stderr.last_lines(1));
        }
        serde_json::from_slice(&output.stdout.bytes()).map_err(|error| error.to_string())
    }
}

/// Returns true from 90 % of a limit.
const fn is_near(used: u64, allowed: u64) -> bool {
    used >= allowed - allowed / 10
}

#[cfg(test)]
mod tests {
    use bottle_engine::{EngineChoice, rehearsal};
    use bottle_exec::{Answer, Control, Matcher, RecordingBackend};

    use super::*;

    fn watched(backend: RecordingBackend, limits: LimitsSpec) -> (Watched, Arc<RecordingBackend>) {
        let backend = Arc::new(backend);
        let engine = Engine::detect(backend.clone(), &EngineChoice::Auto, Control::default()).unwrap();
        backend.clear();
        let (started, resumed) = (Instant::now(), SystemTime::now());
        let (agent, egress, told) = ("bottle-x".into(), "bottle-x-egress".into(), BTreeSet::new());
        let slug = "x".parse().unwrap();
        (Watched { engine, slug, agent, egress, limits, started, resumed, told }, backend)
    }

    fn used(requests: u64, bytes: u64, active: SystemTime) -> RecordingBackend {
        let active = active.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let line = format!("{{\"requests\": {requests}, \"bytes\": {bytes}, \"active\": {active}}}");
        rehearsal().with_answer(Matcher::words(["bottle-x-egress", "sh"]), Answer::stdout(line))
    }

    fn told(watched: &mut Watched) -> Vec<(String, bool)> {
        let event = |event: Event| match event {
            Event::Limit { limit, is_reached, .. } => (limit, is_reached),
            other => panic!("{other:?}"),
        };
        watched.look().unwrap().into_iter().map(event).collect()
    }

    #[test]
    fn each_limit_is_reported_once_when_it_is_near_and_once_when_it_is_reached() {
        let limits = LimitsSpec {
            requests: Some(10),
            bytes: Some(ByteSize::kib(1)),
            time: Some(Span::seconds(100)),
            ..LimitsSpec::default()
        };
        let (mut bottle, _) = watched(used(9, 100, SystemTime::now()), limits.clone());
        assert_eq!(told(&mut bottle), [("requests".to_owned(), false)]);
        assert_eq!(told(&mut bottle), []);
        bottle.started = Instant::now().checked_sub(Duration::from_secs(95)).unwrap();
        assert_eq!(told(&mut bottle), [("time".to_owned(), false)]);
        bottle.started = Instant::now().checked_sub(Duration::from_secs(100)).unwrap();
        assert_eq!(told(&mut bottle), [("time".to_owned(), true)]);
        let (mut bottle, _) = watched(used(12, 5000, SystemTime::now()), limits);
        assert_eq!(told(&mut bottle), [("requests".to_owned(), true), ("bytes".to_owned(), true)]);
        assert_eq!(told(&mut bottle), []);
    }

    #[test]
    fn an_idle_agent_is_paused_and_may_be_let_go_on() {
        let limits = LimitsSpec { idle: Some(Span::seconds(100)), ..LimitsSpec::default() };
        let ago = |seconds| SystemTime::now() - Duration::from_secs(seconds);
        let paused = |backend: &RecordingBackend| {
            backend.commands().iter().filter(|command| command.to_string().contains("pause bottle-x")).count()
        };
        let (mut bottle, backend) = watched(used(1, 1, ago(95)), limits.clone());
        assert_eq!((told(&mut bottle), paused(&backend)), (vec![], 0), "it counts from the launch");
        bottle.resumed = ago(500);
        assert_eq!((told(&mut bottle), paused(&backend)), (vec![("idle".to_owned(), false)], 0));
        let (mut bottle, backend) = watched(used(1, 1, ago(101)), limits);
        bottle.resumed = ago(500);
        assert_eq!(
            (told(&mut bottle), paused(&backend)),
            (vec![("idle".to_owned(), false)], 0),
            "it is announced first"
        );
        assert_eq!((told(&mut bottle), paused(&backend)), (vec![("idle".to_owned(), true)], 1));
        // It runs again, though nobody but a person can have let it.
        assert_eq!((told(&mut bottle), paused(&backend)), (vec![], 1));
        assert!(bottle.resumed > ago(5));
        assert_eq!((told(&mut bottle), paused(&backend)), (vec![], 1));
        bottle.resumed = ago(500);
        assert_eq!((told(&mut bottle), paused(&backend)), (vec![("idle".to_owned(), false)], 1));
        assert_eq!((told(&mut bottle), paused(&backend)), (vec![("idle".to_owned(), true)], 2));
    }

    #[test]
    fn a_broken_egress_is_a_problem_and_no_event() {
        let limits = LimitsSpec { requests: Some(1), ..LimitsSpec::default() };
        let refused = Answer::exit(1).with_stderr("no such file\n");
        let (mut bottle, _) = watched(rehearsal().with_answer(Matcher::words(["sh"]), refused), limits);
        assert_eq!(bottle.look().unwrap_err(), "no such file");
    }
}
