//! State of the services of a bottle.

use std::collections::BTreeMap;
use std::fmt;
use std::thread;
use std::time::Duration;

use bottle_engine::{ContainerState, Engine, EngineError, Filter};
use bottle_exec::{Event, Observer};
use bottle_plan::{LabelKey, Names};
use serde::{Deserialize, Serialize};

/// State of one service: whether its container runs, is healthy or was restarted, or why it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ServiceHealth {
    /// Name of the service in the Compose file, such as `pipelock`.
    pub service: String,
    /// `created`, `running`, `paused`, `restarting`, `exited`, `dead`, or `missing` when the container was removed.
    pub status: String,
    /// Result of the health check: `starting`, `healthy`, `unhealthy`. Absent: there is none.
    pub health: Option<String>,
    /// Exit status. Absent while the container runs.
    pub exit_code: Option<i64>,
    /// True if the container's main process was killed because the container used up its memory.
    pub oom_killed: bool,
    /// Number of times that the engine has restarted the container.
    pub restarts: u64,
    /// Image of the container. Absent when the container was removed.
    pub image: Option<ServiceImage>,
    /// State in words, such as `exited with status 137 (killed: out of memory)`.
    pub summary: String,
}

impl ServiceHealth {
    /// Returns true if the service runs and, if it has a health check, is healthy.
    pub fn is_up(&self) -> bool {
        self.status == "running" && self.health.as_deref().is_none_or(|health| health == "healthy")
    }

    fn new(service: String, state: &ContainerState) -> Self {
        let is_over = matches!(state.status.as_str(), "exited" | "dead");
        Self {
            service,
            status: state.status.clone(),
            health: state.health.clone().filter(|_| !is_over),
            exit_code: is_over.then_some(state.exit_code),
            oom_killed: state.oom_killed,
            restarts: state.restarts,
            image: Some(ServiceImage::of(state)),
            summary: state.to_string(),
        }
    }

    fn missing(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            status: "missing".to_owned(),
            health: None,
            exit_code: None,
            oom_killed: false,
            restarts: 0,
            image: None,
            summary: "was removed".to_owned(),
        }
    }
}

impl fmt::Display for ServiceHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.service, self.summary)
    }
}

/// Image that a service runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceImage {
    /// Reference in the Compose file.
    pub reference: String,
    /// Id that the engine resolved the reference to, such as `sha256:…`.
    pub id: String,
}

impl ServiceImage {
    fn of(state: &ContainerState) -> Self {
        Self { reference: state.image.clone(), id: state.image_id.clone() }
    }
}

impl fmt::Display for ServiceImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reference, self.id)
    }
}

/// Labels that Compose gives to every container.
const SERVICE: &str = "com.docker.compose.service";
const DEPENDS_ON: &str = "com.docker.compose.depends_on";

/// Returns the state of every service of one bottle, given its containers, sorted by name. The agent depends on every
/// sidecar and its container says so, so a sidecar whose container was removed is known as well.
pub(super) fn services<'a>(
    containers: impl IntoIterator<Item = (&'a str, &'a ContainerState)> + Clone,
) -> Vec<ServiceHealth> {
    let mut services: BTreeMap<String, ServiceHealth> = BTreeMap::new();
    for (_, state) in containers.clone() {
        // `pipelock:service_healthy:true,seal:service_healthy:true`
        let wanted = state.labels.get(DEPENDS_ON).map(String::as_str).unwrap_or_default();
        let wanted = wanted.split(',').filter_map(|entry| entry.split(':').next());
        for service in wanted.filter(|service| !service.is_empty()) {
            services.insert(service.to_owned(), ServiceHealth::missing(service));
        }
    }
    for (name, state) in containers {
        let service = state.labels.get(SERVICE).map_or(name, String::as_str);
        services.insert(service.to_owned(), ServiceHealth::new(service.to_owned(), state));
    }
    services.into_values().collect()
}

/// Returns the image of every service of a bottle, by the service's name.
///
/// # Errors
///
/// Returns an error when the engine cannot be queried.
pub fn images(engine: &Engine, names: &Names) -> Result<BTreeMap<String, ServiceImage>, EngineError> {
    let services = health(engine, names)?.into_iter();
    Ok(services.filter_map(|service| Some((service.service, service.image?))).collect())
}

/// Returns the state of every service of a bottle.
pub(super) fn health(engine: &Engine, names: &Names) -> Result<Vec<ServiceHealth>, EngineError> {
    let label = LabelKey::Slug.under(names.prefix());
    let containers = engine.containers(&Filter::LabelValue(label, names.slug().to_string()))?;
    Ok(services(containers.iter().map(|(name, state)| (name.as_str(), state))))
}

/// Queries the engine every `interval` and reports changes, in the caller's thread.
pub(super) fn watch(
    engine: &Engine,
    names: &Names,
    observer: &dyn Observer,
    interval: Duration,
    mut cancelled: impl FnMut() -> bool,
) -> Result<(), EngineError> {
    let mut known: BTreeMap<String, ServiceHealth> = BTreeMap::new();
    let mut is_first = true;
    while !cancelled() {
        for health in health(engine, names)? {
            let before = known.insert(health.service.clone(), health.clone());
            let is_news = if is_first { !health.is_up() } else { before.as_ref() != Some(&health) };
            if is_news {
                let is_up = health.is_up();
                observer.event(&Event::ServiceChanged { service: health.service, is_up, state: health.summary });
            }
        }
        is_first = false;
        thread::sleep(interval);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(status: &str, labels: &[(&str, &str)]) -> ContainerState {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let mut state: ContainerState = ContainerState::default();
        (state.status, state.labels) = (status.to_owned(), labels.collect());
        state
    }

    #[test]
    fn a_service_whose_container_was_removed_is_missing() {
        let depends = (DEPENDS_ON, "pipelock:service_healthy:true,seal:service_healthy:false");
        let agent = state("running", &[(SERVICE, "agent"), depends]);
        let mut pipelock = state("exited", &[(SERVICE, "pipelock"), (DEPENDS_ON, "")]);
        (pipelock.exit_code, pipelock.oom_killed) = (137, true);
        let services = services([("a", &agent), ("b", &pipelock)]);
        let shown: Vec<String> = services.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["agent is running", "pipelock exited with status 137 (killed: out of memory)", "seal was removed"]
        );
        let up: Vec<bool> = services.iter().map(ServiceHealth::is_up).collect();
        assert_eq!(up, [true, false, false]);
    }
}
