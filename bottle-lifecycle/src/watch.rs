//! Reports of sidecars that die while a handle is open.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bottle_engine::{ContainerChange, ContainerEvent, ContainerState, Engine, PROJECT_LABEL};
use bottle_exec::{Event, Observer, chain};
use bottle_plan::Names;

use crate::background::{Background, wait};
use crate::health::{SERVICE, ServiceHealth, health};

/// Pause before the next attempt after the engine broke off its event stream.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts a thread that follows the engine's events of a bottle.
pub(crate) fn watch(engine: &Engine, names: &Names, observer: Arc<dyn Observer>) -> Background {
    let names = names.clone();
    Background::start(engine, move |engine| follow(engine, &names, &observer))
}

fn follow(engine: &Engine, names: &Names, observer: &Arc<dyn Observer>) {
    let reports = Arc::new(Mutex::new(Reports::default()));
    let mut was_broken = false;
    loop {
        let since = SystemTime::now();
        let look = {
            let (engine, names, observer, reports) =
                (engine.clone(), names.clone(), Arc::clone(observer), Arc::clone(&reports));
            move |events: Vec<ContainerEvent>| {
                let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
                // Without an answer of the engine, only the events themselves are reported.
                let services = health(&engine, &names).unwrap_or_default();
                for event in reports.news(events, services) {
                    observer.event(&event);
                }
            }
        };
        // What was already down, and what happened while there was no stream.
        look(Vec::new());
        let result = engine.watch_containers(PROJECT_LABEL, &names.project(), since, look);
        // Only a rehearsal ends its stream without an error.
        let Err(error) = result else { return };
        if engine.control().cancel().is_cancelled() {
            return;
        }
        if !std::mem::replace(&mut was_broken, true) {
            let message = format!("failed to watch bottle `{}`, trying again: {}", names.slug(), chain(&error));
            observer.event(&Event::Warning { message });
        }
        if !wait(engine, PAUSE) {
            return;
        }
    }
}

/// The last report of each service, so that each incident is reported once: when the service goes down, and when it is up
/// again.
#[derive(Debug, Default)]
struct Reports {
    services: BTreeMap<String, Report>,
}

#[derive(Debug, Default)]
struct Report {
    is_down: bool,
    restarts: u64,
    ran_out_of_memory: bool,
}

impl Reports {
    /// Returns what is to be reported: first the deaths, since a service may be running again by the time that its state
    /// is queried, and then the changes of state.
    fn news(&mut self, events: Vec<ContainerEvent>, services: Vec<ServiceHealth>) -> Vec<Event> {
        let mut news = Vec::new();
        for event in events {
            let Some(name) = event.labels.get(SERVICE) else { continue };
            let report = self.services.entry(name.clone()).or_default();
            match event.change {
                ContainerChange::OutOfMemory => report.ran_out_of_memory = true,
                ContainerChange::Died { exit_code } => {
                    let ran_out = std::mem::take(&mut report.ran_out_of_memory)
                        || services.iter().any(|service| service.service == *name && service.oom_killed);
                    if !std::mem::replace(&mut report.is_down, true) {
                        let mut state = ContainerState::default();
                        (state.status, state.exit_code, state.oom_killed) = ("exited".to_owned(), exit_code, ran_out);
                        news.push(changed(name, false, state.to_string()));
                    }
                }
                _ => {}
            }
        }
        news.extend(services.into_iter().filter_map(|service| self.change_of(service)));
        news
    }

    fn change_of(&mut self, service: ServiceHealth) -> Option<Event> {
        let is_up = service.is_up();
        let is_known = self.services.contains_key(&service.service);
        let report = self.services.entry(service.service.clone()).or_default();
        let was_restarted = is_known && service.restarts > report.restarts;
        report.restarts = service.restarts;
        let was_down = std::mem::replace(&mut report.is_down, !is_up);
        (was_down == is_up || (is_up && was_restarted)).then(|| changed(&service.service, is_up, service.summary))
    }
}

fn changed(service: &str, is_up: bool, state: String) -> Event {
    Event::ServiceChanged { service: service.to_owned(), is_up, state }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(service: &str, change: ContainerChange) -> ContainerEvent {
        ContainerEvent { labels: [(SERVICE.to_owned(), service.to_owned())].into(), change }
    }

    fn service(status: &str, health: &str, restarts: u64) -> ServiceHealth {
        let mut state = ContainerState::default();
        (state.status, state.restarts) = (status.to_owned(), restarts);
        state.health = Some(health.to_owned());
        ServiceHealth::new("egress".to_owned(), &state)
    }

    #[test]
    fn each_incident_is_reported_once_when_it_begins_and_once_when_it_is_over() {
        let mut reports = Reports::default();
        let mut news = |events: &[ContainerChange], state: ServiceHealth| -> Vec<String> {
            let events = events.iter().map(|change| event("egress", *change)).collect();
            let told = reports.news(events, vec![state]).into_iter().map(|event| match event {
                Event::ServiceChanged { service, is_up, state } => format!("{service} {is_up} {state}"),
                other => panic!("{other:?}"),
            });
            told.collect()
        };
        let died = ContainerChange::Died { exit_code: 137 };
        assert_eq!(news(&[], service("running", "healthy", 1)), [""; 0]);
        // Its restart was faster than the query.
        assert_eq!(
            news(&[ContainerChange::OutOfMemory, died], service("running", "starting", 2)),
            ["egress false exited with status 137 (killed: out of memory)"]
        );
        assert_eq!(news(&[ContainerChange::Other], service("running", "starting", 2)), [""; 0]);
        assert_eq!(news(&[died], service("exited", "", 2)), [""; 0]);
        let up = ["egress true is running, healthy, restarted 3 times"];
        assert_eq!(news(&[ContainerChange::Other], service("running", "healthy", 3)), up);
        assert_eq!(news(&[], service("running", "healthy", 3)), [""; 0]);
        assert_eq!(
            news(&[], service("running", "unhealthy", 3)),
            ["egress false is running, unhealthy, restarted 3 times"]
        );
        assert_eq!(news(&[], service("running", "healthy", 3)), up);
        // It died while there was no event stream.
        assert_eq!(news(&[], service("running", "healthy", 4)), ["egress true is running, healthy, restarted 4 times"]);
    }

    #[test]
    fn a_service_that_is_down_from_the_start_is_reported() {
        let news = Reports::default().news(Vec::new(), vec![service("exited", "", 0)]);
        assert_eq!(news, [changed("egress", false, "exited with status 0".to_owned())]);
    }
}
