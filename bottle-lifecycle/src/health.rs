//! State of the services of a bottle.

use std::collections::BTreeMap;
use std::fmt;

use bottle_engine::{ContainerState, Engine, EngineError, Filter};
use bottle_plan::{LabelKey, Names, Service};
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
    /// True for an agent or pipelock that runs without a network, because the service that owns its network namespace
    /// (`seal` or `outlet`) ended or was started again after it.
    pub lost_network: bool,
    /// Image of the container. Absent when the container was removed.
    pub image: Option<ServiceImage>,
    /// State in words, such as `exited with status 137 (killed: out of memory)`.
    pub summary: String,
}

impl ServiceHealth {
    /// Returns true if the service runs, is healthy if it has a health check, and has not lost its network.
    pub fn is_up(&self) -> bool {
        self.status == "running"
            && self.health.as_deref().is_none_or(|health| health == "healthy")
            && !self.lost_network
    }

    pub(crate) fn new(service: String, state: &ContainerState) -> Self {
        let is_over = matches!(state.status.as_str(), "exited" | "dead");
        Self {
            service,
            status: state.status.clone(),
            health: state.health.clone().filter(|_| !is_over),
            exit_code: is_over.then_some(state.exit_code),
            oom_killed: state.oom_killed,
            restarts: state.restarts,
            lost_network: false,
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
            lost_network: false,
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

/// Activity of a bottle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Activity {
    /// The agent's container runs.
    Running,
    /// The agent's processes are suspended.
    Paused,
    /// The agent's container has ended. It can be started again.
    Stopped,
}

impl Activity {
    /// Returns the activity of a bottle with these services. `None` if its agent's container does not exist.
    pub fn of(services: &[ServiceHealth]) -> Option<Self> {
        let agent = services.iter().find(|service| service.service == Service::Agent.as_str())?;
        match agent.status.as_str() {
            "running" | "restarting" => Some(Self::Running),
            "paused" => Some(Self::Paused),
            "missing" => None,
            _ => Some(Self::Stopped),
        }
    }
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
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
pub(crate) const SERVICE: &str = "com.docker.compose.service";
const DEPENDS_ON: &str = "com.docker.compose.depends_on";

/// Returns the state of every service of one bottle, given its containers, sorted by name. Every bottle has an agent,
/// which depends on every sidecar, and its container says so. So a service whose container was removed is known as well.
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
    if containers.clone().into_iter().next().is_some() {
        let agent = Service::Agent.as_str();
        services.insert(agent.to_owned(), ServiceHealth::missing(agent));
    }
    let mut states = BTreeMap::new();
    for (name, state) in containers {
        let service = state.labels.get(SERVICE).map_or(name, String::as_str);
        services.insert(service.to_owned(), ServiceHealth::new(service.to_owned(), state));
        states.insert(service, state);
    }
    for (guest, owner) in [(Service::Agent, Service::Seal), (Service::Pipelock, Service::Outlet)] {
        let state = states.get(guest.as_str());
        if let Some(loss) = state.and_then(|state| network_loss(state, owner, states.get(owner.as_str()).copied()))
            && let Some(guest) = services.get_mut(guest.as_str())
        {
            guest.lost_network = true;
            guest.summary = format!("lost its network: {loss}");
        }
    }
    services.into_values().collect()
}

/// Returns the reason why a running service that joined the namespace of `owner` has no network, and the remedy. `None`
/// if it has one, does not run, or, in a bottle of an earlier version, joined none.
fn network_loss(guest: &ContainerState, owner: Service, state: Option<&ContainerState>) -> Option<String> {
    let depends = guest.labels.get(DEPENDS_ON).map(String::as_str).unwrap_or_default();
    if guest.status != "running" || depends.split(',').all(|entry| entry.split(':').next() != Some(owner.as_str())) {
        return None;
    }
    match state {
        None => Some(format!("`{owner}` was removed; launch the bottle again")),
        Some(state) if !matches!(state.status.as_str(), "running" | "paused") => {
            Some(format!("`{owner}` {state}; launch the bottle again"))
        }
        Some(state) if state.started.zip(guest.started).is_some_and(|(owner, guest)| owner > guest) => {
            Some(format!("`{owner}` was started again after it; restart its container or launch the bottle again"))
        }
        Some(_) => None,
    }
}

/// A reason why no command can or should run in the agent's container.
#[derive(Debug)]
pub(super) enum SealProblem {
    /// The agent does not run. A seal that has ended counts as unhealthy too.
    Stopped(String),
    /// The agent has no network, or its seal is unhealthy.
    Unsealed(String),
}

/// Returns the reason why no command should run in the agent's container. `None` if there is no such container.
pub(super) fn seal_problem(engine: &Engine, names: &Names) -> Result<Option<SealProblem>, EngineError> {
    let [agent, seal] = [Service::Agent, Service::Seal].map(|service| names.container(service));
    let states = engine.containers_named(&[&agent, &seal])?;
    let Some(agent) = states.get(&agent) else { return Ok(None) };
    if matches!(agent.status.as_str(), "created" | "exited" | "dead") {
        return Ok(Some(SealProblem::Stopped(format!(
            "its agent {agent}; accepted: a bottle that runs, as after a start"
        ))));
    }
    let seal = states.get(&seal);
    let loss = network_loss(agent, Service::Seal, seal).map(|loss| format!("its agent lost its network: {loss}"));
    let unhealthy = seal.filter(|seal| seal.health.as_deref() == Some("unhealthy"));
    let problem =
        loss.or_else(|| unhealthy.map(|seal| format!("`seal` {seal}, so the agent's firewall rules may be missing")));
    Ok(problem.map(SealProblem::Unsealed))
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
pub(crate) fn health(engine: &Engine, names: &Names) -> Result<Vec<ServiceHealth>, EngineError> {
    let label = LabelKey::Slug.under(names.prefix());
    let containers = engine.containers(&Filter::LabelValue(label, names.slug().to_string()))?;
    Ok(services(containers.iter().map(|(name, state)| (name.as_str(), state))))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

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
            [
                "agent lost its network: `seal` was removed; launch the bottle again",
                "pipelock exited with status 137 (killed: out of memory)",
                "seal was removed"
            ]
        );
        let up: Vec<bool> = services.iter().map(ServiceHealth::is_up).collect();
        assert_eq!(up, [false, false, false]);
    }

    #[test]
    fn an_agent_whose_container_was_removed_is_listed() {
        let pipelock = state("running", &[(SERVICE, "pipelock")]);
        let shown: Vec<String> = services([("x", &pipelock)]).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["agent was removed", "pipelock is running"]);
        assert_eq!(services([]), []);
    }

    #[test]
    fn an_agent_has_lost_its_network_when_its_seal_ended_or_started_after_it() {
        let at = |status: &str, service: &str, seconds: u64| {
            let mut state = state(status, &[(SERVICE, service), (DEPENDS_ON, "seal:service_healthy:true")]);
            state.started = Some(UNIX_EPOCH + Duration::from_secs(seconds));
            state
        };
        let told = |agent: ContainerState, seal: Option<ContainerState>| {
            let all: Vec<_> = [Some(agent), seal].into_iter().flatten().collect();
            let services = services(all.iter().map(|state| ("name", state)));
            let agent = services.iter().find(|service| service.service == "agent").unwrap();
            assert_eq!(agent.lost_network, !agent.is_up() && agent.status == "running");
            agent.summary.clone()
        };
        let agent = || at("running", "agent", 20);
        for seal in [at("running", "seal", 10), at("paused", "seal", 10), state("running", &[(SERVICE, "seal")])] {
            assert_eq!(told(agent(), Some(seal)), "is running");
        }
        let remedy = "launch the bottle again";
        assert_eq!(told(agent(), None), format!("lost its network: `seal` was removed; {remedy}"));
        let ended = at("exited", "seal", 10);
        assert_eq!(told(agent(), Some(ended)), format!("lost its network: `seal` exited with status 0; {remedy}"));
        assert_eq!(
            told(agent(), Some(at("running", "seal", 21))),
            format!("lost its network: `seal` was started again after it; restart its container or {remedy}")
        );
        assert_eq!(told(at("exited", "agent", 20), Some(at("running", "seal", 21))), "exited with status 0");
    }

    #[test]
    fn pipelock_has_lost_its_network_when_its_outlet_ended() {
        let pipelock = state("running", &[(SERVICE, "pipelock"), (DEPENDS_ON, "outlet:service_started:true")]);
        let told = |outlet: &str| {
            let outlet = state(outlet, &[(SERVICE, "outlet")]);
            services([("a", &pipelock), ("b", &outlet)]).into_iter().find(|it| it.service == "pipelock").unwrap()
        };
        assert!(!told("running").lost_network);
        assert_eq!(
            told("exited").to_string(),
            "pipelock lost its network: `outlet` exited with status 0; launch the bottle again"
        );
        // A bottle of a version without an outlet.
        let alone = state("running", &[(SERVICE, "pipelock"), (DEPENDS_ON, "")]);
        assert!(services([("a", &alone)]).iter().all(|it| !it.lost_network));
    }
}
