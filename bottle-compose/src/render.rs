//! The pure renderer: a resolved plan becomes a Compose document.

use std::collections::BTreeMap;

use bottle_plan::manifest::{NetworkMode, SecretsMode};
use bottle_plan::value::Subnet;
use bottle_plan::{ResolvedPlan, Service as Name};

use crate::agent::agent_service;
use crate::document::{ComposeFile, Ipam, IpamConfig, Mount, Network, Variable, VolumeMount};
use crate::seal::{open_and_closed, seal_service};
use crate::sidecar::{
    AgentAccess, CREDENTIALS, DATA, EGRESS, INTERNAL, Sidecar, credentials_options, disk_volume, labels, memory_volume,
};
use crate::store::add_store;

/// Error of rendering a Compose document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// Two services have the same name.
    #[error("render the services: two are named `{name}`")]
    DuplicateService {
        /// The name.
        name: String,
    },
    /// A service attaches to a network or waits for a service that the document does not have.
    #[error("render service `{service}`: it refers to `{missing}`, which the document does not have")]
    Dangling {
        /// The service.
        service: String,
        /// Name that the document does not have.
        missing: String,
    },
    /// A sidecar is announced to the agent but opens no port to it.
    #[error(
        "render sidecar `{sidecar}`: it is given to the agent as {given}, but `AgentAccess::ports` is empty, so the agent cannot \
         reach it; accepted: at least one port"
    )]
    NoPorts {
        /// The sidecar.
        sidecar: String,
        /// Setting that the agent gets: its proxy, an entry of `no_proxy`, or the value of a variable.
        given: String,
    },
    /// A sidecar opens a port that is also the port of a proxy that is closed to the agent. The seal opens each port at
    /// the addresses of all sidecars, because they may swap addresses when they are restarted.
    #[error(
        "render sidecar `{sidecar}`: its port {port} is also that of proxy `{proxy}`, which is closed to the agent; accepted: \
         another port"
    )]
    ClosedPort {
        /// The sidecar.
        sidecar: String,
        /// The port.
        port: u16,
        /// The proxy, which the agent may not reach.
        proxy: String,
    },
    /// A sidecar writes a path of this host, which its engine does not see.
    #[error(
        "render service `{service}`: it writes `{source_path}`, which the engine does not see; accepted: a directory below the \
         bottle's state directory"
    )]
    NotStored {
        /// The service.
        service: String,
        /// The path on this host.
        source_path: String,
    },
}

/// Renders the document of a bottle: the sidecars that apply, in the order given, the seal, the agent, and the networks.
///
/// It uses no clock, environment, file system or randomness, so the same plan gives the same bytes.
///
/// # Errors
///
/// Returns an error if two sidecars share a name, if one refers to something that the document does not have, if one is
/// announced to the agent without a port, or if one opens the port of a proxy that is closed to the agent. The
/// sidecars of `bottle-sidecars` never cause these errors.
pub fn render(plan: &ResolvedPlan, sidecars: &[&dyn Sidecar]) -> Result<ComposeFile, RenderError> {
    let applying: Vec<_> = sidecars.iter().filter(|sidecar| sidecar.applies(plan.plan())).collect();
    let access: Vec<AgentAccess> = applying.iter().map(|sidecar| sidecar.agent_access(plan)).collect();
    for (sidecar, access) in applying.iter().zip(&access) {
        check_access(sidecar.name(), access)?;
    }
    let names: Vec<String> = applying.iter().map(|sidecar| sidecar.name().to_owned()).collect();
    let mut services: Vec<_> =
        applying.iter().map(|sidecar| (sidecar.name().to_owned(), sidecar.service(plan))).collect();
    let endpoints: Vec<_> = names.iter().map(String::as_str).zip(&access).collect();
    check_ports(&endpoints)?;
    services.push((Name::Seal.as_str().to_owned(), seal_service(plan, &endpoints)));
    services.push((Name::Agent.as_str().to_owned(), agent_service(plan, &access, &names)));
    let mut file = ComposeFile {
        name: plan.plan().names.project(),
        services,
        networks: vec![(INTERNAL.into(), internal(plan)), (EGRESS.into(), egress(plan))],
        volumes: Vec::new(),
        credentials: Vec::new(),
        stored: Vec::new(),
        header: header(plan),
    };
    if let Some(layout) = &plan.launch().stored {
        add_store(plan, layout, &mut file)
            .map_err(|(service, source_path)| RenderError::NotStored { service, source_path })?;
    }
    for sidecar in &applying {
        add_credentials(plan, **sidecar, &mut file);
        add_data(plan, **sidecar, &mut file);
    }
    check(&file)?;
    Ok(file)
}

impl ComposeFile {
    /// Gives each service an address on the internal network, and the seal the addresses of the sidecars, so that it need not
    /// wait for them. A sidecar that is restarted keeps its address. Nothing is given if the subnet has too few.
    #[must_use]
    pub fn with_addresses(mut self, subnet: Subnet) -> Self {
        let is_internal = |(network, _): &(String, _)| network == INTERNAL;
        // The first address is the gateway's.
        let mut free = subnet.hosts().skip(1);
        let mut addresses = BTreeMap::new();
        for (name, _) in self.services.iter().filter(|(_, service)| service.networks.iter().any(is_internal)) {
            let Some(address) = free.next() else { return self };
            addresses.insert(name.clone(), address);
        }
        // A service in the network namespace of another one has its address.
        for (name, service) in &self.services {
            let owner = service.network_mode.as_deref().and_then(|mode| mode.strip_prefix("service:"));
            if let Some(address) = owner.and_then(|owner| addresses.get(owner)) {
                addresses.insert(name.clone(), *address);
            }
        }
        for (name, service) in &mut self.services {
            if name == Name::Seal.as_str() {
                for endpoint in &mut service.command {
                    let host = endpoint.split(':').next().unwrap_or_default();
                    if let Some(address) = addresses.get(host) {
                        *endpoint = format!("{address}{}", &endpoint[host.len()..]);
                    }
                }
                service.depends_on.retain(|(other, _)| !addresses.contains_key(other));
            }
            if let Some((_, attachment)) = service.networks.iter_mut().find(|network| is_internal(network)) {
                attachment.ipv4_address = addresses.get(name).copied();
            }
        }
        self
    }
}

/// Adds the volume of its own data to a sidecar that keeps some.
fn add_data(plan: &ResolvedPlan, sidecar: &dyn Sidecar, file: &mut ComposeFile) {
    let (name, source) = (sidecar.name(), format!("{}-data", sidecar.name()));
    if !sidecar.keeps_data(plan.plan()) {
        return;
    }
    if let Some((_, own)) = file.services.iter_mut().find(|(service, _)| service == name) {
        let (source, target) = (source.clone(), DATA.to_owned());
        let mount = VolumeMount { source, subpath: None, target, read_only: false, of_image: true };
        own.volumes.push(Mount::Volume(mount));
    }
    file.volumes.push((source.clone(), disk_volume(plan, &source)));
}

/// Adds the directory of its credentials to a sidecar that has some.
///
/// A container's own tmpfs ends with it, and the engine restarts a sidecar that died when nobody is there to give the
/// values again. They are therefore in a volume that the seal keeps mounted. Nothing in the seal's container reads it.
fn add_credentials(plan: &ResolvedPlan, sidecar: &dyn Sidecar, file: &mut ComposeFile) {
    let (slots, name) = (sidecar.credentials(plan.plan()), sidecar.name());
    if slots.is_empty() {
        return;
    }
    let options = credentials_options(plan.plan().user);
    let volume = format!("{name}-credentials");
    let mount = |target: String, read_only| {
        Mount::Volume(VolumeMount { source: volume.clone(), subpath: None, target, read_only, of_image: false })
    };
    let mut services = file.services.iter_mut();
    match plan.plan().secrets {
        SecretsMode::Environment => {
            if let Some((_, own)) = services.find(|(service, _)| service == name) {
                own.environment.extend(slots.iter().map(|slot| Variable::Bare(slot.to_string())));
                own.tmpfs.push(format!("{CREDENTIALS}:rw,{options}"));
            }
        }
        SecretsMode::Memory => {
            for (service, own) in services {
                if service == name {
                    own.volumes.push(mount(CREDENTIALS.to_owned(), false));
                } else if service == Name::Seal.as_str() {
                    own.volumes.push(mount(format!("{CREDENTIALS}/{name}"), true));
                }
            }
            let on_engine = memory_volume(plan, &volume, &options);
            file.volumes.push((volume, on_engine));
            file.credentials.push((plan.plan().names.sidecar_container(name), slots));
        }
    }
}

/// Rejects a sidecar that is announced to the agent but has no ports, because the seal closes every port that is not
/// listed.
fn check_access(name: &str, access: &AgentAccess) -> Result<(), RenderError> {
    if !access.ports.is_empty() {
        return Ok(());
    }
    let url = format!("://{name}");
    let names_it = |value: &str| {
        value.match_indices(&url).any(|(at, found)| {
            let next = value[at + found.len()..].chars().next();
            next.is_none_or(|c| !c.is_ascii_alphanumeric() && !"-._".contains(c))
        })
    };
    let variable = access.environment.iter().find_map(|variable| match variable {
        Variable::Set(name, value) if names_it(value) => Some(format!("the variable `{name}`")),
        Variable::Set(..) | Variable::Bare(_) => None,
    });
    let proxy = access.proxy.as_ref().map(|_| "its proxy".to_owned());
    let direct = access.no_proxy.first().map(|host| format!("`{host}` in `no_proxy`"));
    match proxy.or(direct).or(variable) {
        Some(given) => Err(RenderError::NoPorts { sidecar: name.to_owned(), given }),
        None => Ok(()),
    }
}

/// Rejects an open port that is also the port of a closed proxy.
fn check_ports(access: &[(&str, &AgentAccess)]) -> Result<(), RenderError> {
    let (open, closed) = open_and_closed(access);
    for (sidecar, own) in open {
        for (proxy, other) in &closed {
            if let Some(port) = own.ports.iter().find(|port| other.ports.contains(port)) {
                let (sidecar, proxy) = (sidecar.to_owned(), (*proxy).to_owned());
                return Err(RenderError::ClosedPort { sidecar, port: *port, proxy });
            }
        }
    }
    Ok(())
}

fn check(file: &ComposeFile) -> Result<(), RenderError> {
    let has_network = |name: &str| file.networks.iter().any(|(known, _)| known == name);
    for (index, (name, service)) in file.services.iter().enumerate() {
        if file.services[..index].iter().any(|(earlier, _)| earlier == name) {
            return Err(RenderError::DuplicateService { name: name.clone() });
        }
        let networks = service.networks.iter().map(|(network, _)| network).find(|network| !has_network(network));
        let services = service.depends_on.iter().map(|(other, _)| other).find(|other| file.service(other).is_none());
        if let Some(missing) = networks.or(services) {
            return Err(RenderError::Dangling { service: name.clone(), missing: missing.clone() });
        }
    }
    Ok(())
}

/// Returns the internal network, on which the host has no address.
fn internal(plan: &ResolvedPlan) -> Network {
    let name = plan.launch().networks.internal.clone();
    match plan.plan().networks.mode {
        NetworkMode::External => Network { name, external: true, ..Network::default() },
        NetworkMode::Compose => Network {
            name,
            internal: true,
            // Some engines enable IPv6 on every network by default. `inhibit_ipv4` has no effect on IPv6.
            enable_ipv6: Some(false),
            driver_opts: plan.launch().engine.host_gateway.driver_opts(),
            ipam: plan.launch().networks.internal_subnet.map(ipam),
            labels: labels(plan),
            ..Network::default()
        },
    }
}

fn egress(plan: &ResolvedPlan) -> Network {
    let name = plan.launch().networks.egress.clone();
    match plan.plan().networks.mode {
        NetworkMode::External => Network { name, external: true, ..Network::default() },
        NetworkMode::Compose => Network {
            name,
            ipam: plan.launch().networks.egress_subnet.map(ipam),
            labels: labels(plan),
            driver_opts: plan.launch().engine.host_gateway.egress_opts(),
            ..Network::default()
        },
    }
}

fn ipam(subnet: Subnet) -> Ipam {
    Ipam { config: vec![IpamConfig { subnet: subnet.to_string() }] }
}

fn header(plan: &ResolvedPlan) -> Vec<String> {
    let names = &plan.plan().names;
    vec![
        format!(
            "Bottle {} (agent {}), written by bottle {}.",
            names.slug(),
            plan.plan().agent_name,
            plan.launch().version
        ),
        "Made anew at each launch: a change made here is lost. Secrets are not in it: a bare name under".into(),
        "`environment` takes its value from the environment in which Compose was started.".into(),
        String::new(),
        format!(
            "Look at it:  docker compose -p {0} ps   and   docker compose -p {0} logs -f pipelock",
            names.project()
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_that_is_announced_to_the_agent_needs_ports() {
        let given = |access: AgentAccess| {
            let refused = check_access("clock", &access).err().map(|error| error.to_string());
            let open = check_access("clock", &AgentAccess { ports: vec![80], ..access });
            assert_eq!(open, Ok(()));
            refused
        };
        let set = |value: &str| vec![Variable::set("CLOCK", value), Variable::Bare("TOKEN".into())];
        for (access, says) in [
            (AgentAccess { no_proxy: vec!["clock".into()], ..AgentAccess::default() }, "`clock` in `no_proxy`"),
            (AgentAccess { proxy: Some("http://clock:80".into()), ..AgentAccess::default() }, "its proxy"),
            (AgentAccess { environment: set("http://clock:80/now"), ..AgentAccess::default() }, "variable `CLOCK`"),
            (AgentAccess { environment: set("http://clock"), ..AgentAccess::default() }, "variable `CLOCK`"),
        ] {
            let error = given(access).unwrap_or_default();
            assert!(error.starts_with("render sidecar `clock`: it is given") && error.contains(says), "{error}");
        }
        assert_eq!(given(AgentAccess { environment: set("http://clock-tower/"), ..AgentAccess::default() }), None);
        assert_eq!(given(AgentAccess::default()), None);
    }
}
