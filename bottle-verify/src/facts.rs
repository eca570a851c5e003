//! The engine's own description of what a bottle consists of.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use bottle_engine::{Engine, EngineError, ListedContainer, ObjectKind};
use serde_json::Value;

use crate::expected::Expected;
use crate::planned::Container;
use crate::podman::in_docker_form;
use crate::report::Verify;
pub(crate) use crate::value::{keys, list, text};
use crate::waiting::join;

/// Descriptions by the engine. An object that does not exist is null.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) containers: BTreeMap<String, Value>,
    networks: BTreeMap<String, Value>,
    pub(crate) volumes: BTreeMap<String, Value>,
    /// The images, by what they were looked up by.
    images: BTreeMap<String, Value>,
    /// Further containers that may be inside.
    pub(crate) others: Vec<Value>,
    pub(crate) agent: String,
    pub(crate) seal: String,
    pub(crate) network: String,
}

/// Names of the objects that the engine is asked for.
struct Wanted {
    containers: BTreeSet<String>,
    networks: BTreeSet<String>,
    volumes: BTreeSet<String>,
    images: BTreeSet<String>,
}

impl Wanted {
    fn of(expected: &Expected) -> Self {
        let planned = &expected.planned;
        let named = |names: &mut dyn Iterator<Item = &str>| names.map(str::to_owned).collect();
        Self {
            containers: named(
                &mut planned.containers.iter().map(|it| &*it.name).chain([&*expected.agent, &*expected.seal]),
            ),
            networks: named(&mut planned.networks.iter().map(|it| &*it.name).chain([&*expected.network])),
            volumes: named(&mut planned.volumes.iter().map(|it| &*it.name)),
            images: named(&mut planned.containers.iter().map(Container::image)),
        }
    }

    /// Sorts the answer, and asks again for what is not in it.
    fn sort<E>(
        self,
        answer: Vec<Value>,
        expected: &Expected,
        ask: impl Fn(ObjectKind, &str) -> Result<Value, E>,
    ) -> Result<Facts, E> {
        let (of_images, mut others): (Vec<_>, Vec<_>) =
            answer.into_iter().partition(|object| is_of(ObjectKind::Image, object));
        let mut take = |kind: ObjectKind, names: BTreeSet<String>| {
            let one = |wanted: String| {
                let is_wanted = |object: &Value| name(object) == wanted && is_of(kind, object);
                let object = match others.iter().position(is_wanted) {
                    Some(place) => others.swap_remove(place),
                    // An object of another kind may have the name.
                    None => ask(kind, &wanted)?,
                };
                Ok((wanted, object))
            };
            names.into_iter().map(one).collect::<Result<BTreeMap<_, _>, E>>()
        };
        let containers = take(ObjectKind::Container, self.containers)?;
        let networks = take(ObjectKind::Network, self.networks)?;
        let volumes = take(ObjectKind::Volume, self.volumes)?;
        Ok(Facts {
            containers,
            networks,
            volumes,
            others: others.into_iter().filter(|object| is_of(ObjectKind::Container, object)).collect(),
            // An image may have several references: its place, and not its description, says by which it was found.
            images: if of_images.len() == self.images.len() {
                self.images.into_iter().zip(of_images).collect()
            } else {
                let one = |image: String| Ok((image.clone(), ask(ObjectKind::Image, &image)?));
                self.images.into_iter().map(one).collect::<Result<_, E>>()?
            },
            agent: expected.agent.clone(),
            seal: expected.seal.clone(),
            network: expected.network.clone(),
        })
    }
}

/// Returns true for a description of this kind.
fn is_of(kind: ObjectKind, object: &Value) -> bool {
    let key = match kind {
        ObjectKind::Container => "HostConfig",
        ObjectKind::Network => "Internal",
        ObjectKind::Volume => "Mountpoint",
        ObjectKind::Image => "RootFS",
    };
    !object[key].is_null()
}

/// Returns true for a container that may be in a namespace, in a network or at a volume of the bottle, or in its project. A
/// quick verification leaves out those of other projects, which may be many, unless they have no network of their own.
fn may_be_inside(container: &ListedContainer, expected: &Expected, level: Verify) -> bool {
    let is_in_project = !expected.project.is_empty() && container.project == expected.project;
    let is_looked_at = level == Verify::Full || container.project.is_empty() || !container.has_network;
    is_in_project || (container.is_up && is_looked_at)
}

impl Facts {
    /// Asks the engine in three queries at the same time: for the networks, one of which has the name of a container, for all else
    /// that is wanted, and for a list of all containers. What in it may be inside is asked for in a further query.
    pub(crate) fn of(engine: &Engine, expected: &Expected, level: Verify) -> Result<Self, EngineError> {
        let wanted = Wanted::of(expected);
        let names: BTreeSet<&String> = wanted.containers.iter().chain(&wanted.volumes).collect();
        let all = names.into_iter().chain(&wanted.images).map(String::as_str);
        let (listed, networks, found) = thread::scope(|scope| {
            let listed = scope.spawn(|| engine.list_containers());
            let networks =
                scope.spawn(|| engine.inspect_all(ObjectKind::Network, wanted.networks.iter().map(String::as_str)));
            let found = engine.inspect_any(all);
            (join(listed), join(networks), found)
        });
        let (listed, networks, mut found) = (listed?, networks?, found?);
        found.extend(networks);
        let others =
            listed.iter().filter(|it| !wanted.containers.contains(&it.name) && may_be_inside(it, expected, level));
        let others: Vec<&str> = others.map(|other| &*other.id).collect();
        if !others.is_empty() {
            found.extend(engine.inspect_any(others)?);
        }
        let described = |value: Value| if engine.is_podman() { in_docker_form(value) } else { value };
        let found = found.into_iter().map(described).collect();
        wanted.sort(found, expected, |kind, name| Ok(engine.inspect(kind, name)?.map(described).unwrap_or_default()))
    }

    /// Sorts descriptions. Those that are missing do not exist.
    #[cfg(test)]
    pub(crate) fn sorted(described: Vec<Value>, expected: &Expected) -> Self {
        let nothing = |_, _: &str| Ok::<_, std::convert::Infallible>(Value::Null);
        match Wanted::of(expected).sort(described, expected, nothing) {
            Ok(facts) => facts,
            Err(never) => match never {},
        }
    }

    pub(crate) fn container(&self, name: &str) -> &Value {
        self.containers.get(name).unwrap_or(&Value::Null)
    }

    pub(crate) fn network(&self, name: &str) -> &Value {
        self.networks.get(name).unwrap_or(&Value::Null)
    }

    pub(crate) fn volume(&self, name: &str) -> &Value {
        self.volumes.get(name).unwrap_or(&Value::Null)
    }

    pub(crate) fn image(&self, reference: &str) -> &Value {
        self.images.get(reference).unwrap_or(&Value::Null)
    }

    /// Returns the addresses of the containers on the agent's network, without the seal's.
    pub(crate) fn addresses(&self) -> BTreeSet<String> {
        let containers = self.network(&self.network)["Containers"].as_object().into_iter().flatten();
        let own = self.container(&self.seal)["Id"].as_str();
        let others = containers.filter(|(id, _)| Some(id.as_str()) != own);
        let address = |container: &Value| Some(container["IPv4Address"].as_str()?.split('/').next()?.to_owned());
        others.filter_map(|(_, container)| address(container)).collect()
    }
}

/// Returns an object's name. The engine writes that of a container after a slash.
pub(crate) fn name(object: &Value) -> &str {
    text(&object["Name"]).trim_start_matches('/')
}
