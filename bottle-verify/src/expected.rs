//! The protections that a Compose document promises.

use std::collections::BTreeSet;

use bottle_compose::ComposeFile;
use bottle_compose::document::{Mount, Variable, Volume};
use bottle_plan::Service;
use serde::{Deserialize, Serialize};

/// The protections of one bottle, as its Compose document promises them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Name of the agent's container.
    pub agent: String,
    /// User that the agent runs as.
    pub user: String,
    /// Name of the seal's container.
    pub seal: String,
    /// Name of the agent's network on the engine.
    pub network: String,
    /// Ports that the agent may reach, each with its sidecar's host name.
    pub open: Vec<(String, u16)>,
    /// Host names of the proxies that the agent may not reach.
    pub closed: Vec<String>,
    /// Host name and port of the agent's proxy. `None` if it has none.
    pub proxy: Option<(String, u16)>,
    /// Bind mounts of the agent: target, and true if the agent may only read it.
    pub binds: Vec<(String, bool)>,
    /// Maximum number of processes of the agent.
    pub pids: Option<u32>,
    /// Memory limit of the agent in bytes.
    pub memory: Option<u64>,
    /// Number of processors of the agent, in billionths.
    pub nano_cpus: Option<u64>,
    /// Names of the containers of the bottle, the agent's and the seal's included.
    #[serde(default)]
    pub containers: Vec<String>,
    /// Names, on the engine, of the volumes with credentials, each with the only container that may write it.
    #[serde(default)]
    pub credentials: Vec<(String, String)>,
    /// Variables that no container has, because their values are in those volumes.
    #[serde(default)]
    pub slots: Vec<String>,
    /// The owner of the proxy's network namespace. `None` if the bottle has none.
    #[serde(default)]
    pub outlet: Option<Outlet>,
    /// Size in bytes that the agent's files may have, if the launcher and not the engine limits it.
    #[serde(default)]
    pub watched_disk: Option<u64>,
    /// True if the agent runs in gVisor, whose own kernel does not show a system call filter.
    pub is_gvisor: bool,
}

/// The owner of the proxy's network namespace, as its Compose document promises it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outlet {
    /// Name of its container.
    pub container: String,
    /// Names of the containers that join its network namespace.
    pub joined: Vec<String>,
    /// User id of the proxy.
    pub user: u32,
    /// Port that the proxy listens on.
    pub own: u16,
    /// Ports that TCP connections may leave to.
    pub ports: Vec<u16>,
}

impl Outlet {
    /// Reads the service of a document. Returns `None` for a command that its sidecar never makes.
    fn of(document: &ComposeFile, service: &bottle_compose::document::Service) -> Option<Self> {
        let [_, proxy, ports @ ..] = &service.command[..] else { return None };
        let (user, own) = proxy.split_once(':')?;
        let mode = format!("service:{}", Service::Outlet);
        let joined = document.services.iter().filter(|(_, joined)| joined.network_mode.as_ref() == Some(&mode));
        Some(Self {
            container: service.container_name.clone(),
            joined: joined.map(|(_, joined)| joined.container_name.clone()).collect(),
            user: user.parse().ok()?,
            own: own.parse().ok()?,
            ports: ports.iter().map(|port| port.parse()).collect::<Result<_, _>>().ok()?,
        })
    }
}

impl Expected {
    /// Reads a document whose agent runs as `user`. Returns `None` for a document without an agent or a seal, which
    /// [`render`](bottle_compose::render) never makes.
    pub fn of(document: &ComposeFile, user: &str) -> Option<Self> {
        let (agent, seal) = (document.service(Service::Agent.as_str())?, document.service(Service::Seal.as_str())?);
        let (mut open, mut closed) = (Vec::new(), Vec::new());
        for endpoint in &seal.command {
            let mut parts = endpoint.split(':');
            let host = parts.next()?.to_owned();
            match parts.next() {
                Some(port) => open.push((host, port.parse().ok()?)),
                None => closed.push(host),
            }
        }
        let (internal, _) = seal.networks.first()?;
        let (_, network) = document.networks.iter().find(|(name, _)| name == internal)?;
        let proxy = agent.environment.iter().find_map(|variable| match variable {
            Variable::Set(name, url) if name == "HTTP_PROXY" => {
                let (host, port) = url.strip_prefix("http://")?.trim_end_matches('/').rsplit_once(':')?;
                Some((host.to_owned(), port.parse().ok()?))
            }
            _ => None,
        });
        Some(Self {
            agent: agent.container_name.clone(),
            user: user.to_owned(),
            seal: seal.container_name.clone(),
            network: network.name.clone(),
            open,
            closed,
            proxy,
            binds: agent
                .volumes
                .iter()
                .filter_map(Mount::as_bind)
                .map(|bind| (bind.target.clone(), bind.read_only))
                .collect(),
            pids: agent.pids_limit,
            memory: agent.mem_limit,
            nano_cpus: agent.cpus.as_deref().and_then(billionths),
            containers: document.services.iter().map(|(_, service)| service.container_name.clone()).collect(),
            credentials: document.volumes.iter().filter_map(|(name, volume)| owner(document, name, volume)).collect(),
            slots: document.credentials.iter().flat_map(|(_, slots)| slots).map(ToString::to_string).collect(),
            outlet: match document.service(Service::Outlet.as_str()) {
                Some(service) => Some(Outlet::of(document, service)?),
                None => None,
            },
            watched_disk: agent.labels.iter().find_map(|(key, value)| {
                key.ends_with(&format!(".{}", bottle_compose::DISK_LABEL)).then(|| value.parse().ok())?
            }),
            is_gvisor: agent.runtime.as_deref() == Some("runsc"),
        })
    }

    /// Returns the ports that are open, each once.
    pub(crate) fn ports(&self) -> BTreeSet<u16> {
        self.open.iter().map(|(_, port)| *port).collect()
    }

    /// Returns the host names of all sidecars, each once.
    pub(crate) fn hosts(&self) -> BTreeSet<&str> {
        self.open.iter().map(|(host, _)| host.as_str()).chain(self.closed.iter().map(String::as_str)).collect()
    }
}

/// Returns a volume's name on the engine, and the container that may write it.
fn owner(document: &ComposeFile, name: &str, volume: &Volume) -> Option<(String, String)> {
    let writes = |mount: &Mount| matches!(mount, Mount::Volume(mount) if mount.source == name && !mount.read_only);
    let (_, owner) = document.services.iter().find(|(_, service)| service.volumes.iter().any(writes))?;
    Some((volume.name.clone(), owner.container_name.clone()))
}

/// Reads a number of processors, such as `1.5`.
fn billionths(cpus: &str) -> Option<u64> {
    let (whole, fraction) = cpus.split_once('.').unwrap_or((cpus, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(digits.parse().ok()?)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns the protections of a bottle with egress, whose credentials are in a volume.
    pub(crate) fn expected() -> Expected {
        Expected {
            agent: "a".into(),
            user: "agent".into(),
            seal: "s".into(),
            network: "bottle-int".into(),
            open: vec![("pipelock".into(), 8888)],
            closed: Vec::new(),
            proxy: Some(("pipelock".into(), 8888)),
            binds: vec![("/etc/bottle".into(), true)],
            pids: Some(4096),
            memory: Some(1 << 30),
            nano_cpus: Some(2_000_000_000),
            containers: ["a", "s", "e", "o", "p"].map(String::from).to_vec(),
            credentials: vec![("v".into(), "e".into())],
            slots: vec!["EGRESS_TOKEN_A".into()],
            outlet: Some(Outlet {
                container: "o".into(),
                joined: vec!["p".into()],
                user: 1000,
                own: 8888,
                ports: vec![80, 443],
            }),
            watched_disk: None,
            is_gvisor: false,
        }
    }

    #[test]
    fn processors_are_read_as_the_engine_counts_them() {
        assert_eq!(billionths("2"), Some(2_000_000_000));
        assert_eq!(billionths("0.5"), Some(500_000_000));
        assert_eq!(billionths("1.25"), Some(1_250_000_000));
        assert_eq!(billionths("many"), None);
    }
}
