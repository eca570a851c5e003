//! The order in which the launcher starts the services.

use bottle_plan::Service as Name;

use crate::document::{ComposeFile, Condition, Dependency, Service};

/// A container, and the containers that must be up before it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartOrder<'a> {
    /// Name of the container.
    pub container: &'a str,
    /// Names of the containers, each with the condition that it must have reached.
    pub after: Vec<(&'a str, Condition)>,
    /// True if the service has a health check.
    pub has_check: bool,
}

impl ComposeFile {
    /// Returns the containers of all services, each with those that must be up before it.
    ///
    /// The file's own `depends_on` is for a person who starts it by hand: Compose then reports each service as ready in
    /// turn. The bottle's own services need no order, because each of them waits for what it needs. Only a service that
    /// joins the network namespace of another one comes after it: the agent after its seal is healthy, so that the entry
    /// point of its image never runs without the seal's rules. A sidecar that somebody else wrote is started as it says.
    pub fn start_order(&self) -> Vec<StartOrder<'_>> {
        self.services.iter().map(|(name, service)| self.start_of(name, service)).collect()
    }

    fn start_of<'a>(&'a self, name: &str, service: &'a Service) -> StartOrder<'a> {
        let is_own = name == Name::Agent.as_str() || Name::SIDECARS.iter().any(|own| own.as_str() == name);
        let owner = service.network_mode.as_deref().and_then(|mode| mode.strip_prefix("service:"));
        let wanted = service.depends_on.iter().filter(|(other, _)| !is_own || owner == Some(other.as_str()));
        let container = |(other, dependency): &'a (String, Dependency)| {
            Some((self.service(other)?.container_name.as_str(), dependency.condition))
        };
        StartOrder {
            container: &service.container_name,
            after: wanted.filter_map(container).collect(),
            has_check: service.healthcheck.as_ref().is_some_and(|check| !check.disable),
        }
    }
}
