//! Limits of a bottle: time, idle time, requests and bytes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bottle_engine::{Engine, EngineError, Exec};
use bottle_exec::{Event, Observer, chain};
use bottle_plan::manifest::LimitsSpec;
use bottle_plan::resolved::END_WAIT;
use bottle_plan::value::{ByteSize, Span};
use bottle_plan::{Names, Service, Slug};
use serde::Deserialize;

use crate::background::{Background, wait};
use crate::handle::Handle;

/// Prints the file in which egress keeps what the bottle has used. The builtins of the shell suffice.
const SCRIPT: &str = "IFS= read -r line < /var/lib/sidecar/usage && printf %s \"$line\"";

/// Bounds of the time between two looks at that file. In between it is a twentieth of the idle time.
const OFTEN: Duration = Duration::from_secs(1);
const SELDOM: Duration = Duration::from_secs(5);

/// Starts a thread that reports when a limit is near or reached, and pauses an agent that is idle. `None`: the bottle has none of
/// these limits. The time of the bottle begins now.
///
/// The limits themselves hold without it, except that on idle time: the agent's container ends by itself, and egress counts. A
/// container that is paused ends by itself only when it is resumed, so the thread ends it.
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
    let (limits, began) = (limits.clone(), SystemTime::now());
    Some(Background::start(engine, move |engine| {
        let engine = engine.clone();
        Watched { engine, slug, agent, egress, limits, began, resumed: began, told: BTreeSet::new() }
            .follow(&*observer);
    }))
}

/// Begins the time of an agent's container that waits.
pub(crate) fn end_wait(engine: &Engine, handle: &Handle) -> Result<(), EngineError> {
    if handle.limits.time.is_none() {
        return Ok(());
    }
    let exec =
        Exec::new(["sh", "-c", END_WAIT]).with_user("0:0").with_workdir("/").with_timeout(Duration::from_secs(10));
    let output = engine.exec(&handle.container, &exec)?;
    if output.status.is_success() {
        return Ok(());
    }
    let state = format!("its time (`limits.time`) cannot begin: {}", output.stderr.last_lines(1));
    Err(EngineError::NotReady { container: handle.container.clone(), state })
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
    /// Time from which `limits.time` counts.
    began: SystemTime,
    /// Time from which the agent counts as idle if it sends nothing: the launch, or the end of a pause.
    resumed: SystemTime,
    /// Events that were reported: the limit, and true if it was reached.
    told: BTreeSet<(&'static str, bool)>,
}

impl Watched {
    fn follow(&mut self, observer: &dyn Observer) {
        // Often enough to tell that a time is near before it is over.
        let times = self.limits.idle.into_iter().chain(self.limits.time);
        let often = times.map(|time| time.duration() / 20).min().unwrap_or(SELDOM).clamp(OFTEN, SELDOM);
        let mut was_broken = false;
        while wait(&self.engine, often) {
            let mut events = Vec::new();
            let result = self.look(&mut events);
            for event in &events {
                observer.event(event);
            }
            if self.engine.control().cancel().is_cancelled() {
                return;
            }
            match result {
                Ok(()) => was_broken = false,
                Err(_) if std::mem::replace(&mut was_broken, true) => {}
                Err(problem) => {
                    let message = format!("failed to read what {} has let pass, trying again: {problem}", self.egress);
                    observer.event(&Event::Warning { message });
                }
            }
        }
    }

    /// Adds what is to be reported, and pauses the agent if it is idle.
    fn look(&mut self, events: &mut Vec<Event>) -> Result<(), String> {
        if let Some(time) = self.limits.time {
            events.extend(self.look_at_time(time).map_err(|error| chain(&error))?);
        }
        if self.limits.need_egress() {
            let usage = self.usage()?;
            let bytes = self.limits.bytes.map(ByteSize::bytes);
            for (limit, used, allowed) in
                [("requests", usage.requests, self.limits.requests), ("bytes", usage.bytes, bytes)]
            {
                let Some(allowed) = allowed else { continue };
                events.extend(self.news(limit, used, allowed, |used| {
                    let then = if used < allowed { "" } else { "; egress refuses all others" };
                    format!("the agent has used {used} of {allowed} {limit} (`limits.{limit}`){then}")
                }));
            }
            if let Some(idle) = self.limits.idle {
                events.extend(self.look_at_idle(idle, usage.active).map_err(|error| chain(&error))?);
            }
        }
        Ok(())
    }

    /// Ends an agent that is paused when its time is over.
    fn look_at_time(&mut self, time: Span) -> Result<Vec<Event>, EngineError> {
        let allowed = time.duration().as_secs();
        if !is_near(seconds_since(self.began), allowed) {
            return Ok(Vec::new());
        }
        let Some(agent) = self.engine.container(&self.agent)? else { return Ok(Vec::new()) };
        // The container of a bottle that was stopped and started again has its whole time again.
        if let Some(again) = agent.started.filter(|started| *started > self.began) {
            self.began = again;
            self.told.retain(|(limit, _)| *limit != "time");
        }
        let mut used = seconds_since(self.began);
        let how = match agent.status.as_str() {
            // Its first process has slept for all of the time.
            "exited" if agent.exit_code == 0 => {
                used = used.max(allowed);
                "has ended"
            }
            "paused" if used >= allowed => {
                // Docker thaws it then.
                self.engine.kill(&self.agent, "KILL")?;
                "was paused, and was ended"
            }
            // Somebody has ended it.
            "exited" | "dead" => return Ok(Vec::new()),
            _ => {
                used = used.min(allowed.saturating_sub(1));
                "ends"
            }
        };
        Ok(self.news("time", used, allowed, |used| {
            if used < allowed {
                format!("the agent's container ends {time} after its start (`limits.time`)")
            } else {
                format!("the agent's container {how} after {time} (`limits.time`); its files can still be taken out")
            }
        }))
    }

    fn look_at_idle(&mut self, idle: Span, active: f64) -> Result<Vec<Event>, EngineError> {
        let active = Duration::try_from_secs_f64(active).unwrap_or_default();
        let since = (UNIX_EPOCH + active).max(self.resumed);
        let (mut used, allowed) = (since.elapsed().unwrap_or_default().as_secs(), idle.duration().as_secs());
        if !is_near(used, allowed) {
            self.told.retain(|(limit, _)| *limit != "idle");
            return Ok(Vec::new());
        }
        // No agent is paused without the event that announces it, however late this look is.
        if !self.told.contains(&("idle", false)) {
            used = used.min(allowed.saturating_sub(1));
        }
        let (agent, slug) = (self.agent.clone(), self.slug.clone());
        if used >= allowed {
            if self.engine.container(&agent)?.is_none_or(|state| state.status != "running") {
                return Ok(Vec::new());
            }
            if self.told.contains(&("idle", true)) {
                // Somebody has let it go on.
                self.resumed = SystemTime::now();
                return Ok(Vec::new());
            }
            self.engine.pause(&agent)?;
        }
        Ok(self.news("idle", used, allowed, |used| {
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

    /// Returns the events of a limit that is near or reached, once for each. One that is reached was near before, however late
    /// this look is. `state` gets the amount that was used.
    fn news(&mut self, limit: &'static str, used: u64, allowed: u64, state: impl Fn(u64) -> String) -> Vec<Event> {
        let is_reached = used >= allowed;
        let before = if is_reached { near(allowed) } else { used };
        let near = (is_near(before, allowed) && before < allowed).then_some((before, false));
        let reached = is_reached.then_some((used, true));
        let mut events = Vec::new();
        for (used, is_reached) in near.into_iter().chain(reached) {
            if self.told.insert((limit, is_reached)) {
                let (limit, state) = (limit.to_owned(), state(used));
                events.push(Event::Limit { limit, is_reached, used, allowed, state });
            }
        }
        events
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

/// Returns true from 90 % of a limit, and from the last one before it.
fn is_near(used: u64, allowed: u64) -> bool {
    used >= near(allowed)
}

/// Returns the amount at which a limit is near.
fn near(allowed: u64) -> u64 {
    (allowed - (allowed / 10).max(1)).max(1)
}

fn seconds_since(time: SystemTime) -> u64 {
    time.elapsed().unwrap_or_default().as_secs()
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
        let (began, resumed) = (SystemTime::now(), SystemTime::now());
        let (agent, egress, told) = ("bottle-x".into(), "bottle-x-egress".into(), BTreeSet::new());
        let slug = "x".parse().unwrap();
        (Watched { engine, slug, agent, egress, limits, began, resumed, told }, backend)
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
        let mut events = Vec::new();
        watched.look(&mut events).unwrap();
        events.into_iter().map(event).collect()
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
        bottle.began = ago(95);
        assert_eq!(told(&mut bottle), [("time".to_owned(), false)]);
        // It still runs, so nothing has happened yet.
        bottle.began = ago(101);
        assert_eq!(told(&mut bottle), []);
        // More than the last tenth was used between two looks.
        let (mut bottle, _) = watched(used(12, 5000, SystemTime::now()), limits);
        let (near, reached) = (|limit: &str| (limit.to_owned(), false), |limit: &str| (limit.to_owned(), true));
        assert_eq!(told(&mut bottle), [near("requests"), reached("requests"), near("bytes"), reached("bytes")]);
        assert_eq!(told(&mut bottle), []);
    }

    #[test]
    fn each_limit_is_near_before_it_is_reached() {
        assert_eq!([1, 2, 9, 10, 20, 1000].map(near), [1, 1, 8, 9, 18, 900]);
        let (mut bottle, _) = watched(rehearsal(), LimitsSpec::default());
        let mut amounts = |used, allowed| {
            let events = bottle.news("bytes", used, allowed, |used| used.to_string());
            let amount = |event| match event {
                Event::Limit { is_reached, used, state, .. } if state == used.to_string() => (used, is_reached),
                other => panic!("{other:?}"),
            };
            events.into_iter().map(amount).collect::<Vec<_>>()
        };
        assert_eq!(amounts(0, 2), []);
        assert_eq!(amounts(2, 2), [(1, false), (2, true)]);
    }

    #[test]
    fn the_event_of_the_time_says_what_happened_and_a_paused_agent_is_ended() {
        let look = |status: &str, code: i64, started: SystemTime| {
            let started = time::OffsetDateTime::from(started).format(&time::format_description::well_known::Rfc3339);
            let state = format!(
                r#"[{{"Name":"/x","State":{{"Status":"{status}","ExitCode":{code},"StartedAt":"{}"}},"Config":{{}}}}]"#,
                started.unwrap()
            );
            let limits = LimitsSpec { time: Some(Span::seconds(100)), ..LimitsSpec::default() };
            let (mut bottle, _) = watched(rehearsal(), limits);
            let inspected = Matcher::prefix(["container", "inspect"]);
            let backend = Arc::new(RecordingBackend::new().with_answer(inspected, Answer::stdout(state)));
            bottle.engine = bottle.engine.with_backend(backend.clone());
            bottle.began = ago(101);
            let mut events = Vec::new();
            bottle.look(&mut events).unwrap();
            let killed = backend.lines().iter().filter(|line| line.contains("kill --signal KILL bottle-x")).count();
            let states = events.into_iter().map(|event| match event {
                Event::Limit { state, is_reached: true, .. } => state,
                Event::Limit { .. } => "near".to_owned(),
                other => panic!("{other:?}"),
            });
            (states.collect::<Vec<_>>(), killed)
        };
        let told = |how: &str| {
            format!("the agent's container {how} after 100s (`limits.time`); its files can still be taken out")
        };
        assert_eq!(look("running", 0, ago(110)), (vec!["near".to_owned()], 0));
        assert_eq!(look("exited", 0, ago(110)), (vec!["near".to_owned(), told("has ended")], 0));
        assert_eq!(look("paused", 0, ago(110)), (vec!["near".to_owned(), told("was paused, and was ended")], 1));
        // Somebody has stopped it, or started it again.
        assert_eq!(look("exited", 143, ago(110)), (vec![], 0));
        assert_eq!(look("paused", 0, ago(20)), (vec![], 0));
    }

    fn ago(seconds: u64) -> SystemTime {
        SystemTime::now() - Duration::from_secs(seconds)
    }

    #[test]
    fn an_idle_agent_is_paused_and_may_be_let_go_on() {
        let limits = LimitsSpec { idle: Some(Span::seconds(100)), ..LimitsSpec::default() };
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
        assert_eq!(bottle.look(&mut Vec::new()).unwrap_err(), "no such file");
    }
}
