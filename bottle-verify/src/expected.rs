//! The protections that a Compose document promises.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bottle_compose::document::{Mount, Variable, Volume};
use bottle_compose::{ComposeFile, STORE};
use bottle_plan::Service;
use bottle_plan::digest::sha256;
use serde::{Deserialize, Serialize};

use crate::planned::Planned;

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
    /// Names, on the engine, of the volumes with credentials, each with the only container that may write it.
    #[serde(default)]
    pub credentials: Vec<(String, String)>,
    /// Names, on the engine, of the volumes of the store, each with the containers that may write it. Empty if the containers
    /// bind the host's files.
    #[serde(default)]
    pub stored: Vec<(String, Vec<String>)>,
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
    /// SHA-256 of each file of this host that the engine's client or the sidecars read, by its path.
    #[serde(default)]
    pub(crate) files: BTreeMap<PathBuf, String>,
    /// Every container, network and volume.
    #[serde(default)]
    pub(crate) planned: Planned,
    /// Name of the Compose project. Empty if it is not known.
    #[serde(default)]
    pub(crate) project: String,
}

/// The owner of the proxy's network namespace, as its Compose document promises it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outlet {
    /// Name of its container.
    pub container: String,
    /// User id of the proxy.
    pub user: u32,
    /// Port that the proxy listens on.
    pub own: u16,
    /// Ports that TCP connections may leave to.
    pub ports: Vec<u16>,
}

impl Outlet {
    /// Reads the service of a document. Returns `None` for a command that its sidecar never makes.
    fn of(service: &bottle_compose::document::Service) -> Option<Self> {
        let [_, proxy, ports @ ..] = &service.command[..] else { return None };
        let (user, own) = proxy.split_once(':')?;
        Some(Self {
            container: service.container_name.clone(),
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
        let store = document.service(STORE).filter(|_| !document.stored.is_empty());
        let is_stored = |name: &str| store.is_some_and(|store| store.volumes.iter().any(|mount| is_of(mount, name)));
        let (stored, others): (Vec<_>, Vec<_>) = document.volumes.iter().partition(|(name, _)| is_stored(name));
        Some(Self {
            agent: agent.container_name.clone(),
            user: user.to_owned(),
            seal: seal.container_name.clone(),
            network: network.name.clone(),
            open,
            closed,
            proxy,
            credentials: others
                .iter()
                .filter(|(_, volume)| volume.driver_opts.get("type").is_some_and(|kind| kind == "tmpfs"))
                .filter_map(|(name, volume)| owner(document, name, volume))
                .collect(),
            stored: stored.iter().map(|(name, volume)| (volume.name.clone(), writers(document, name))).collect(),
            slots: document.credentials.iter().flat_map(|(_, slots)| slots).map(ToString::to_string).collect(),
            outlet: match document.service(Service::Outlet.as_str()) {
                Some(service) => Some(Outlet::of(service)?),
                None => None,
            },
            watched_disk: agent.labels.iter().find_map(|(key, value)| {
                key.ends_with(&format!(".{}", bottle_compose::DISK_LABEL)).then(|| value.parse().ok())?
            }),
            is_gvisor: agent.runtime.as_deref() == Some("runsc"),
            files: BTreeMap::new(),
            planned: Planned::of(document),
            project: document.name.clone(),
        })
    }

    /// Adds the files below a directory that sidecars bind and only read, as they are now. A file that cannot be read is one
    /// that the verification finds changed.
    #[must_use]
    pub fn with_files(mut self, directory: &Path) -> Self {
        let sidecars = self.planned.containers.iter().filter(|it| it.service != Service::Agent.as_str());
        let mounts = sidecars.flat_map(|it| &it.mounts).filter(|mount| mount.kind == "bind" && mount.read_only);
        let paths = mounts.map(|mount| PathBuf::from(&mount.source));
        let files = paths.filter(|path| path.starts_with(directory) && !path.is_dir()).collect::<Vec<_>>();
        self.files
            .extend(files.into_iter().map(|path| (path.clone(), std::fs::read(path).map(sha256).unwrap_or_default())));
        self
    }

    /// Adds the arguments that Podman creates the document's containers with, which it tells of each container.
    #[must_use]
    pub fn with_podman(mut self, document: &ComposeFile) -> Self {
        for creation in document.podman_containers() {
            if let Some(container) = self.planned.containers.iter_mut().find(|it| it.name == creation.container) {
                container.creation = creation.arguments;
            }
        }
        self
    }

    /// Sets the ids of the images, by the service that runs each. From then on, a reference that is given to another image
    /// changes nothing.
    #[must_use]
    pub fn with_image_ids<'a>(mut self, ids: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        for (service, id) in ids {
            for container in self.planned.containers.iter_mut().filter(|container| container.service == service) {
                container.image_id = Some(id.to_owned());
            }
        }
        self
    }

    /// Adds the Compose file, as it is now.
    #[must_use]
    pub fn with_compose_file(mut self, path: &Path) -> Self {
        self.files.insert(path.to_owned(), std::fs::read(path).map(sha256).unwrap_or_default());
        self
    }

    /// Returns a protected path of a bound workspace that is a link on this host now. A launch refuses links. While the bottle
    /// runs, a protected path cannot be replaced from inside, but a program of the host can replace it, after which the agent
    /// can as well. The engine would follow the link.
    pub fn link_in_workspace(&self) -> Option<PathBuf> {
        let agent = self.planned.containers.iter().find(|container| container.name == self.agent)?;
        let binds = agent.mounts.iter().filter(|mount| mount.kind == "bind");
        let mut steps = binds.flat_map(|outer| {
            agent.mounts.iter().filter_map(|inner| Path::new(&inner.target).strip_prefix(&outer.target).ok()).flat_map(
                |below| {
                    let steps = below.ancestors().filter(|step| !step.as_os_str().is_empty());
                    steps.map(|step| Path::new(&outer.source).join(step))
                },
            )
        });
        steps.find(|path| path.is_symlink())
    }

    /// Returns the agent's limits of memory in bytes, of processes, and of processors in thousandths. 0: there is none.
    pub(crate) fn limits(&self) -> [u64; 3] {
        let agent = self.planned.containers.iter().find(|container| container.name == self.agent);
        let limit = |key| agent.and_then(|agent| agent.host.get(key)?.as_u64()).unwrap_or_default();
        ["Memory", "PidsLimit", "NanoCpus"].map(limit)
    }

    /// Returns the number of networks of a container.
    pub(crate) fn networks(&self, container: &str) -> usize {
        let own = self.planned.containers.iter().find(|it| it.name == container);
        own.map_or(0, |own| own.networks.len())
    }

    /// Returns the ports that are open, each once.
    pub(crate) fn ports(&self) -> BTreeSet<u16> {
        self.open.iter().map(|(_, port)| *port).collect()
    }

    /// Returns the open ports of a host.
    pub(crate) fn ports_of(&self, host: &str) -> BTreeSet<u16> {
        self.open.iter().filter(|(known, _)| known == host).map(|(_, port)| *port).collect()
    }

    /// Returns the host names of all sidecars, each once.
    pub(crate) fn hosts(&self) -> BTreeSet<&str> {
        self.open.iter().map(|(host, _)| host.as_str()).chain(self.closed.iter().map(String::as_str)).collect()
    }
}

/// Returns a volume's name on the engine, and the container that may write it.
fn owner(document: &ComposeFile, name: &str, volume: &Volume) -> Option<(String, String)> {
    Some((volume.name.clone(), writers(document, name).into_iter().next()?))
}

/// Returns the containers that may write a volume.
fn writers(document: &ComposeFile, name: &str) -> Vec<String> {
    let writes = |mount: &Mount| is_of(mount, name) && !mount.is_read_only();
    let services = document.services.iter().filter(|(_, service)| service.volumes.iter().any(writes));
    services.map(|(_, service)| service.container_name.clone()).collect()
}

fn is_of(mount: &Mount, volume: &str) -> bool {
    matches!(mount, Mount::Volume(mount) if mount.source == volume)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::planned::{Container, Mode, Volume};

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
            credentials: vec![("v".into(), "e".into())],
            stored: vec![("f".into(), vec!["t".into()])],
            slots: vec!["EGRESS_TOKEN_A".into()],
            outlet: Some(Outlet { container: "o".into(), user: 1000, own: 8888, ports: vec![80, 443] }),
            watched_disk: None,
            is_gvisor: false,
            files: BTreeMap::new(),
            planned: Planned {
                containers: [("a", Some(Mode::Joins("s".into()))), ("s", None), ("e", None), ("t", None)]
                    .map(|(name, mode)| Container { name: name.into(), mode, ..Container::default() })
                    .to_vec(),
                networks: Vec::new(),
                volumes: ["v", "f"].map(|name| Volume { name: name.into(), ..Volume::default() }).to_vec(),
            },
            project: "bottle-demo".into(),
        }
    }

    #[test]
    fn a_protected_path_that_is_a_link_now_is_found() {
        let workspace = tempfile::tempdir().unwrap();
        let mount = |target: &str, source: &Path| crate::planned::PlannedMount {
            target: target.into(),
            kind: "bind".into(),
            source: source.to_string_lossy().into_owned(),
            subpath: String::new(),
            read_only: true,
        };
        let file = workspace.path().join("a/.envrc");
        std::fs::create_dir(workspace.path().join("a")).unwrap();
        std::fs::write(&file, "").unwrap();
        let mut expected = expected();
        let mounts = vec![
            mount("/w", workspace.path()),
            mount("/w/a", &workspace.path().join("a")),
            mount("/w/a/.envrc", &file),
        ];
        expected.planned.containers[0].mounts = mounts;
        assert_eq!(expected.link_in_workspace(), None);
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &file).unwrap();
        assert_eq!(expected.link_in_workspace(), Some(file));
    }
}
