//! Containers, networks, volumes and images: list, inspect and remove.

use std::collections::BTreeMap;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use bottle_exec::Command;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::{Engine, parse};
use crate::error::{EngineError, says_not_there, says_overlap, says_under_way};
use crate::state::ContainerState;

/// Longest time for which a removal that another client began is waited for, and time between two looks.
const UNDER_WAY: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// A kind of object on an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    /// A container, running or not.
    Container,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// An image.
    Image,
}

impl ObjectKind {
    /// Every kind, in the order in which objects can be removed: users before what they use.
    pub const IN_ORDER_OF_REMOVAL: [Self; 4] = [Self::Container, Self::Network, Self::Volume, Self::Image];

    /// Returns the engine's name of the kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Image => "image",
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An object on an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Object {
    /// Kind of the object.
    pub kind: ObjectKind,
    /// Name of the object. For an image, its first tag, or its id if it has none.
    pub name: String,
    /// Labels of the object.
    pub labels: BTreeMap<String, String>,
}

/// A filter for listing objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Objects that have a label, with any value.
    Label(String),
    /// Objects that have a label with this value.
    LabelValue(String, String),
    /// Objects whose name starts with this prefix.
    NamePrefix(String),
}

/// A network to create.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewNetwork {
    /// Name of the network.
    pub name: String,
    /// True if the network is internal: its containers reach no host outside.
    pub internal: bool,
    /// Labels of the network.
    pub labels: BTreeMap<String, String>,
    /// Options of the bridge driver.
    pub driver_options: BTreeMap<String, String>,
    /// Subnet in CIDR notation. `None`: the engine chooses one.
    pub subnet: Option<String>,
}

/// The state of a network, as the engine reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NetworkInfo {
    /// Name of the network.
    pub name: String,
    /// True if the network is internal: its containers reach no host outside.
    pub internal: bool,
    /// Subnets in CIDR notation.
    pub subnets: Vec<String>,
    /// Labels of the network.
    pub labels: BTreeMap<String, String>,
    /// Options of its driver.
    pub driver_options: BTreeMap<String, String>,
}

/// An image, as the engine reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ImageInfo {
    /// Id of the image, such as `sha256:…`.
    pub id: String,
    /// Id of the image that it was committed from. Empty if it was not, or the engine does not know.
    pub parent: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its size in bytes, with the layers that it shares with other images.
    pub bytes: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A container of any origin, as the engine's list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedContainer {
    /// Id of the container.
    pub id: String,
    /// Name of the container.
    pub name: String,
    /// False for a container that was only created, or has ended.
    pub is_up: bool,
    /// True if it is attached to a network. False also for one in the network namespace of another container.
    pub has_network: bool,
    /// Compose project that it belongs to. Empty if to none.
    pub project: String,
}

impl ListedContainer {
    const FORMAT: &str = "{{.ID}}|{{.Names}}|{{.State}}|{{.Networks}}|{{.Label \"com.docker.compose.project\"}}";

    /// Reads a line of the list in that format.
    fn read(line: &str) -> Option<Self> {
        let mut parts = line.trim_end().splitn(5, '|');
        let [id, name, state, networks, project] = std::array::from_fn(|_| parts.next());
        Some(Self {
            id: id?.to_owned(),
            name: name?.to_owned(),
            is_up: !["created", "exited", "dead"].contains(&state?.to_ascii_lowercase().as_str()),
            has_network: !networks?.is_empty(),
            project: project?.to_owned(),
        })
    }
}

impl ImageInfo {
    fn read(object: Object, value: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let tags = value["RepoTags"].as_array().into_iter().flatten();
        Self {
            id: text(&value["Id"]),
            parent: text(&value["Parent"]),
            tags: tags.filter_map(|tag| tag.as_str().map(str::to_owned)).collect(),
            bytes: value["Size"].as_u64().unwrap_or_default(),
            labels: object.labels,
        }
    }
}

impl Engine {
    /// Lists the objects of a kind that match a filter, sorted by name.
    ///
    /// # Errors
    ///
    /// Returns an error when the engine cannot be queried or its output cannot be parsed.
    pub fn list(&self, kind: ObjectKind, filter: &Filter) -> Result<Vec<Object>, EngineError> {
        Ok(self.find(kind, filter)?.into_iter().map(|(object, _)| object).collect())
    }

    /// Lists containers, running or not, with their names and states, sorted by name.
    ///
    /// # Errors
    ///
    /// Returns an error when the engine cannot be queried or its answer cannot be parsed.
    pub fn containers(&self, filter: &Filter) -> Result<Vec<(String, ContainerState)>, EngineError> {
        let found = self.find(ObjectKind::Container, filter)?;
        Ok(found.into_iter().map(|(object, value)| (object.name, ContainerState::read(&value))).collect())
    }

    /// Lists every container of the engine, running or not.
    ///
    /// # Errors
    ///
    /// Returns an error when the engine cannot be queried.
    pub fn list_containers(&self) -> Result<Vec<ListedContainer>, EngineError> {
        let command = self.query(["container", "ls", "--all", "--no-trunc", "--format", ListedContainer::FORMAT]);
        Ok(self.run(&command)?.stdout.text().lines().filter_map(ListedContainer::read).collect())
    }

    /// Returns the states of these containers, by name. Names without a container are skipped.
    ///
    /// # Errors
    ///
    /// Returns an error when the engine cannot be queried or its answer cannot be parsed.
    pub fn containers_named(&self, names: &[&str]) -> Result<BTreeMap<String, ContainerState>, EngineError> {
        let found = self.look_at(ObjectKind::Container, names)?;
        Ok(found.into_iter().map(|(object, value)| (object.name, ContainerState::read(&value))).collect())
    }

    /// Returns the images of these tags or ids. Names without an image are skipped.
    ///
    /// # Errors
    ///
    /// Returns an error when the engine cannot be queried or its answer cannot be parsed.
    pub fn images_named(&self, names: &[&str]) -> Result<Vec<ImageInfo>, EngineError> {
        let found = self.look_at(ObjectKind::Image, names)?;
        Ok(found.into_iter().map(|(object, value)| ImageInfo::read(object, &value)).collect())
    }

    /// Lists images that match a filter.
    ///
    /// # Errors
    ///
    /// Returns an error when the engine cannot be queried or its answer cannot be parsed.
    pub fn images(&self, filter: &Filter) -> Result<Vec<ImageInfo>, EngineError> {
        let found = self.find(ObjectKind::Image, filter)?;
        Ok(found.into_iter().map(|(object, value)| ImageInfo::read(object, &value)).collect())
    }

    fn find(&self, kind: ObjectKind, filter: &Filter) -> Result<Vec<(Object, Value)>, EngineError> {
        let mut command = self.query([kind.as_str(), "ls", "--quiet"]);
        command = match kind {
            ObjectKind::Container => command.with_args(["--all", "--no-trunc"]),
            ObjectKind::Network | ObjectKind::Image => command.with_arg("--no-trunc"),
            ObjectKind::Volume => command,
        };
        command = match filter {
            Filter::Label(key) => command.with_arg("--filter").with_arg(format!("label={key}")),
            Filter::LabelValue(key, value) => command.with_arg("--filter").with_arg(format!("label={key}={value}")),
            // The engines' name filters differ, so the result is filtered again below.
            Filter::NamePrefix(prefix) if kind == ObjectKind::Image => {
                command.with_arg("--filter").with_arg(format!("reference={prefix}*"))
            }
            Filter::NamePrefix(prefix) => command.with_arg("--filter").with_arg(format!("name={prefix}")),
        };
        let ids = self.run(&command)?.stdout.text();
        let mut ids: Vec<&str> = ids.split_whitespace().collect();
        ids.sort_unstable();
        ids.dedup();
        let mut objects = self.look_at(kind, &ids)?;
        if let Filter::NamePrefix(prefix) = filter {
            objects.retain(|(object, _)| object.name.starts_with(prefix.as_str()));
        }
        objects.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        Ok(objects)
    }

    /// Returns the engine's description of an object as JSON, or `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// Returns an error when the engine cannot be queried or its output cannot be parsed.
    pub fn inspect(&self, kind: ObjectKind, name: &str) -> Result<Option<Value>, EngineError> {
        Ok(self.inspect_all(kind, [name])?.pop())
    }

    /// Returns the engine's descriptions of several objects as JSON, in one query. One that does not exist is left out.
    ///
    /// # Errors
    ///
    /// Same as [`inspect`](Engine::inspect).
    pub fn inspect_all<'a>(
        &self,
        kind: ObjectKind,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<Value>, EngineError> {
        self.describe(&self.query([kind.as_str(), "inspect"].into_iter().chain(names)))
    }

    /// Returns the engine's descriptions of objects of any kind as JSON, in one query. One that does not exist is left out.
    /// Of several objects with one name, it is the container's description, else the image's, the network's or the volume's.
    ///
    /// # Errors
    ///
    /// Same as [`inspect`](Engine::inspect).
    pub fn inspect_any<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Vec<Value>, EngineError> {
        self.describe(&self.query(["inspect"].into_iter().chain(names)))
    }

    fn describe(&self, command: &Command) -> Result<Vec<Value>, EngineError> {
        let output = self.run_any(command)?;
        let output = if says_not_there(&output) { output } else { output.success(command)? };
        Ok(parse::<Option<Vec<Value>>>(command, &output)?.unwrap_or_default())
    }

    /// Returns an object, or `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// Returns an error when the engine cannot be queried or its output cannot be parsed.
    pub fn object(&self, kind: ObjectKind, name: &str) -> Result<Option<Object>, EngineError> {
        Ok(self.look_at(kind, &[name])?.pop().map(|(object, _)| object))
    }

    /// Returns true if the object exists.
    ///
    /// # Errors
    ///
    /// Returns an error when the engine cannot be queried.
    pub fn exists(&self, kind: ObjectKind, name: &str) -> Result<bool, EngineError> {
        Ok(self.inspect(kind, name)?.is_some())
    }

    /// Removes an object. A container is killed first and its anonymous volumes are removed with it. Returns true if
    /// the object existed.
    ///
    /// # Errors
    ///
    /// Returns an error when the object exists and cannot be removed.
    pub fn remove(&self, kind: ObjectKind, name: &str) -> Result<bool, EngineError> {
        let command = self.removal(kind).with_arg(name).with_label(format!("remove {kind} {name}"));
        self.removed(&command)
    }

    /// Removes objects of one kind with one command. Containers are killed first and their anonymous volumes are removed
    /// with them. What does not exist is no error.
    ///
    /// # Errors
    ///
    /// Returns an error when one of the objects exists and cannot be removed.
    pub fn remove_all(&self, kind: ObjectKind, names: &[String]) -> Result<(), EngineError> {
        if names.is_empty() {
            return Ok(());
        }
        let command = self.removal(kind).with_args(names).with_label(format!("remove {kind} {}", names.join(" ")));
        self.removed(&command).map(drop)
    }

    /// Runs a removal. Waits for one that another client began, such as one whose launcher was killed meanwhile. Returns true
    /// if there was something to remove.
    fn removed(&self, command: &Command) -> Result<bool, EngineError> {
        let until = Instant::now() + UNDER_WAY;
        loop {
            let output = self.run_any(command)?;
            let is_over = output.status.is_success() || Instant::now() >= until;
            if !is_over && says_under_way(&output) && !self.control.cancel().is_cancelled() {
                thread::sleep(PAUSE);
            } else if !output.status.is_success() && says_not_there(&output) {
                return Ok(false);
            } else {
                return Ok(output.success(command).map(|_| true)?);
            }
        }
    }

    fn removal(&self, kind: ObjectKind) -> Command {
        let command = self.change([kind.as_str(), "rm"]);
        match kind {
            // Podman refuses to remove a container whose network namespace another one has joined.
            ObjectKind::Container if self.is_podman() => command.with_args(["--force", "--volumes", "--depend"]),
            ObjectKind::Container => command.with_args(["--force", "--volumes"]),
            ObjectKind::Image | ObjectKind::Network | ObjectKind::Volume => command,
        }
    }

    /// Creates a bridge network.
    ///
    /// # Errors
    ///
    /// [`EngineError::SubnetTaken`] when another network has addresses of the subnet. Another error when the engine refuses
    /// for another reason: the name is taken, or there are no addresses left.
    pub fn create_network(&self, network: &NewNetwork) -> Result<(), EngineError> {
        let mut command = self.change(["network", "create", "--driver", "bridge"]);
        if network.internal {
            // Some engines enable IPv6 on every network by default, with an address of the host.
            command = command.with_args(["--internal", "--ipv6=false"]);
            if self.is_podman() {
                // The host has an address on the network only for the name server.
                command = command.with_arg("--disable-dns");
            }
        }
        if let Some(subnet) = &network.subnet {
            command = command.with_args(["--subnet", subnet]);
        }
        for (option, pairs) in [("--opt", &network.driver_options), ("--label", &network.labels)] {
            for (key, value) in pairs {
                command = command.with_arg(option).with_arg(format!("{key}={value}"));
            }
        }
        let command =
            command.with_arg(&network.name).with_label(format!("create network {}", network.name)).with_uninterrupted();
        let output = self.run_any(&command)?;
        match &network.subnet {
            Some(subnet) if !output.status.is_success() && says_overlap(&output) => {
                Err(EngineError::SubnetTaken { network: network.name.clone(), subnet: subnet.clone() })
            }
            _ => Ok(output.success(&command).map(drop)?),
        }
    }

    /// Returns the subnets of all networks of the engine, in CIDR notation.
    ///
    /// # Errors
    ///
    /// Returns an error when the engine cannot be queried or its output cannot be parsed.
    pub fn subnets(&self) -> Result<Vec<String>, EngineError> {
        let ids = self.run(&self.query(["network", "ls", "--quiet", "--no-trunc"]))?.stdout.text();
        let found = self.look_at(ObjectKind::Network, &ids.split_whitespace().collect::<Vec<_>>())?;
        Ok(found.iter().flat_map(|(_, value)| subnets(value)).collect())
    }

    /// Returns the state of a network, or `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// Returns an error when the engine cannot be queried or its output cannot be parsed.
    pub fn network(&self, name: &str) -> Result<Option<NetworkInfo>, EngineError> {
        let Some(value) = self.inspect(ObjectKind::Network, name)? else { return Ok(None) };
        let field =
            |docker: &str, podman: &str| value.get(docker).or_else(|| value.get(podman)).unwrap_or(&Value::Null);
        Ok(Some(NetworkInfo {
            name: field("Name", "name").as_str().unwrap_or(name).to_owned(),
            internal: field("Internal", "internal").as_bool().unwrap_or(false),
            subnets: subnets(&value),
            labels: pairs(field("Labels", "labels")),
            driver_options: pairs(field("Options", "options")),
        }))
    }

    /// Returns the first subnet of a network in CIDR notation. `None` if it has none or does not exist.
    ///
    /// # Errors
    ///
    /// Returns an error when the engine cannot be queried or its output cannot be parsed.
    pub fn subnet_of(&self, network: &str) -> Result<Option<String>, EngineError> {
        Ok(self.network(network)?.and_then(|info| info.subnets.into_iter().next()))
    }

    /// Inspects objects by id or name and skips those that were removed in the meantime.
    fn look_at(&self, kind: ObjectKind, ids: &[&str]) -> Result<Vec<(Object, Value)>, EngineError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let command: Command = self.query([kind.as_str(), "inspect"]).with_args(ids);
        let mut output = self.run_any(&command)?;
        if output.status.is_success() || !says_not_there(&output) {
            output = output.success(&command)?;
        }
        let found: Option<Vec<Value>> = parse(&command, &output)?;
        found
            .unwrap_or_default()
            .into_iter()
            .map(|mut value| {
                for tag in value["RepoTags"].as_array_mut().into_iter().flatten().filter(|_| self.is_podman()) {
                    *tag = familiar(tag.as_str().unwrap_or_default()).into();
                }
                let object = Object::read(kind, &value)
                    .ok_or_else(|| EngineError::answer(&command, "it does not name the object", &value.to_string()))?;
                Ok((object, value))
            })
            .collect()
    }
}

impl Object {
    fn read(kind: ObjectKind, value: &Value) -> Option<Self> {
        let (name, labels) = match kind {
            ObjectKind::Container => (&value["Name"], &value["Config"]["Labels"]),
            ObjectKind::Image => {
                let tag = &value["RepoTags"][0];
                (if tag.is_string() { tag } else { &value["Id"] }, &value["Config"]["Labels"])
            }
            ObjectKind::Network | ObjectKind::Volume => {
                let of = |docker: &str, podman: &str| value.get(docker).or_else(|| value.get(podman));
                (of("Name", "name")?, of("Labels", "labels").unwrap_or(&Value::Null))
            }
        };
        let name = name.as_str()?.trim_start_matches('/').to_owned();
        Some(Self { kind, name, labels: pairs(labels) })
    }
}

/// Returns an image's name as a person writes it. Podman names the place of each image, also of one that was built.
pub fn familiar(reference: &str) -> &str {
    let places = ["localhost/", "docker.io/library/", "docker.io/"];
    places.iter().find_map(|place| reference.strip_prefix(place)).unwrap_or(reference)
}

fn pairs(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// Returns the subnets of a network that the engine describes.
fn subnets(network: &Value) -> Vec<String> {
    match network.get("subnets") {
        Some(podman) => texts(podman, "subnet"),
        None => texts(&network["IPAM"]["Config"], "Subnet"),
    }
}

fn texts(list: &Value, key: &str) -> Vec<String> {
    let entries = list.as_array().into_iter().flatten();
    entries.filter_map(|entry| Some(entry[key].as_str()?.to_owned())).collect()
}
