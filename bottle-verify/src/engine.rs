//! The engine's own description of the containers and the network.

use std::collections::{BTreeMap, BTreeSet};

use bottle_engine::{Engine, EngineError, ObjectKind};
use serde_json::Value;

use crate::compare;
use crate::expected::Expected;
use crate::planned::{Container, Mode};
use crate::report::Probe;
use crate::secrets::holds_secret;

/// Descriptions by the engine. An object that does not exist is null.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    containers: BTreeMap<String, Value>,
    networks: BTreeMap<String, Value>,
    volumes: BTreeMap<String, Value>,
    /// The images, by what they were looked up by.
    images: BTreeMap<String, Value>,
    agent: String,
    seal: String,
    network: String,
}

/// Asks the engine, in one query: most of a query's time is its client's start.
pub(crate) fn facts(engine: &Engine, expected: &Expected) -> Result<Facts, EngineError> {
    let wanted = Wanted::of(expected);
    let names: BTreeSet<&String> = wanted.containers.iter().chain(&wanted.networks).chain(&wanted.volumes).collect();
    let all = names.into_iter().chain(&wanted.images).map(String::as_str);
    let found = engine.inspect_any(all)?;
    wanted.sort(found, expected, |kind, name| Ok(engine.inspect(kind, name)?.unwrap_or_default()))
}

/// What the engine is asked for, by name.
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
        Ok(Facts {
            containers: take(ObjectKind::Container, self.containers)?,
            networks: take(ObjectKind::Network, self.networks)?,
            volumes: take(ObjectKind::Volume, self.volumes)?,
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

impl Facts {
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

/// Compares the descriptions with what the document promises.
pub(crate) fn probes(facts: &Facts, expected: &Expected, secrets: &[&str]) -> Vec<Probe> {
    let mut probes = vec![network_namespace(facts, expected)];
    probes.extend(compare::probes(&expected.planned, facts, secrets));
    probes.push(configuration(facts, expected, secrets));
    probes.push(credentials(facts, expected));
    if !expected.stored.is_empty() {
        probes.push(store(facts, expected));
    }
    probes
}

fn network_namespace(facts: &Facts, expected: &Expected) -> Probe {
    let mut problems = Vec::new();
    for container in &expected.planned.containers {
        if let Some(Mode::Joins(owner)) = &container.mode {
            let (name, found) = (&container.name, facts.container(&container.name));
            problems.extend(joined(&format!("`{name}`"), found, &format!("`{owner}`"), facts.container(owner)));
        }
    }
    Probe::of("network namespace", &problems, "the agent is in the seal's, and the proxy in the outlet's")
}

/// Returns what keeps a container from being in the network namespace of its owner.
fn joined(name: &str, container: &Value, owner_name: &str, owner: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let mode = text(&container["HostConfig"]["NetworkMode"]);
    let id = text(&owner["Id"]);
    if id.is_empty() || mode != format!("container:{id}") {
        problems.push(format!("the network mode of {name} is `{mode}`, which is not the namespace of {owner_name}"));
    }
    for (name, container) in [(name, container), (owner_name, owner)] {
        if text(&container["State"]["Status"]) != "running" {
            problems.push(format!("{name} does not run"));
        }
    }
    // The engine's times have the same form, so that they compare as texts.
    let started = |container: &Value| text(&container["State"]["StartedAt"]).trim_end_matches('Z').to_owned();
    if started(owner) > started(container) {
        problems.push(format!("{owner_name} was started after {name}, which is in an earlier namespace"));
    }
    problems
}

fn configuration(facts: &Facts, expected: &Expected, secrets: &[&str]) -> Probe {
    const PROTECTION: &str = "configuration";
    if secrets.is_empty() && expected.slots.is_empty() {
        return Probe::not_run(PROTECTION, "no secret is known to search for");
    }
    // With `secrets: environment`, the sidecars have their values there.
    let mut objects: Vec<&Value> = if expected.slots.is_empty() {
        vec![facts.container(&facts.agent), facts.container(&facts.seal)]
    } else {
        facts.containers.values().chain(facts.volumes.values()).collect()
    };
    objects.push(facts.network(&facts.network));
    // A value with a quote or a backslash is escaped there.
    let escaped: Vec<String> = secrets.iter().map(|secret| Value::from(*secret).to_string()).collect();
    let escaped: Vec<&str> = escaped.iter().map(|secret| secret.trim_matches('"')).collect();
    let (mut problems, mut bytes) = (Vec::new(), 0);
    for object in objects {
        let shown = object.to_string();
        bytes += shown.len();
        if holds_secret(shown.as_bytes(), &escaped) {
            problems.push(format!("the engine shows a secret in the description of `{}`", name(object)));
        }
        let variables = list(&object["Config"]["Env"]).filter_map(|variable| text(variable).split('=').next());
        for variable in variables.filter(|variable| expected.slots.iter().any(|slot| slot == variable)) {
            problems.push(format!("`{}` has the variable `{variable}`", name(object)));
        }
    }
    Probe::of(PROTECTION, &problems, format!("no secret in {bytes} bytes of the engine's description"))
}

fn credentials(facts: &Facts, expected: &Expected) -> Probe {
    const PROTECTION: &str = "credentials";
    if expected.credentials.is_empty() {
        return Probe::not_run(PROTECTION, "no sidecar has them in memory");
    }
    let mut problems = Vec::new();
    for (volume, owner) in &expected.credentials {
        let described = facts.volume(volume);
        if described["Driver"] != "local" || described["Options"]["type"] != "tmpfs" {
            problems.push(format!("the volume `{volume}` is not in memory"));
        }
        let mut writers = Vec::new();
        for container in facts.containers.values() {
            let mounts = list(&container["Mounts"]).filter(|mount| text(&mount["Name"]) == volume);
            for mount in mounts {
                match name(container) {
                    own if own == owner && mount["RW"] == true => writers.push(own),
                    seal if seal == expected.seal && mount["RW"] == false => {}
                    other => problems.push(format!("`{other}` has the volume `{volume}`")),
                }
            }
        }
        if writers.is_empty() {
            problems.push(format!("`{owner}` does not have the volume `{volume}`"));
        }
    }
    Probe::of(PROTECTION, &problems, format!("{} volumes in memory, each of one sidecar", expected.credentials.len()))
}

/// Compares the mounts of the store's volumes. A container that only reads mounts its own files, never the whole volume.
fn store(facts: &Facts, expected: &Expected) -> Probe {
    const PROTECTION: &str = "store";
    let mut problems = Vec::new();
    for (volume, writers) in &expected.stored {
        let described = facts.volume(volume);
        if described["Driver"] != "local" || described["Options"]["type"] != "tmpfs" {
            problems.push(format!("the volume `{volume}` is not in memory"));
        }
        for container in facts.containers.values() {
            let own = name(container);
            let is_writer = writers.iter().any(|writer| writer == own);
            let mut mounts = list(&container["Mounts"]).filter(|mount| text(&mount["Name"]) == volume);
            if !is_writer && mounts.any(|mount| mount["RW"] != false) {
                problems.push(format!("`{own}` can write the volume `{volume}`"));
            }
            let mut asked = list(&container["HostConfig"]["Mounts"]).filter(|mount| text(&mount["Source"]) == volume);
            if !is_writer && asked.any(|mount| text(&mount["VolumeOptions"]["Subpath"]).is_empty()) {
                problems.push(format!("`{own}` has the whole volume `{volume}`"));
            }
        }
    }
    for container in facts.containers.values() {
        for mount in list(&container["Mounts"]).filter(|mount| mount["Type"] == "bind") {
            let target = text(&mount["Destination"]);
            problems.push(format!("`{}` mounts `{target}` from the engine's host", name(container)));
        }
    }
    Probe::of(PROTECTION, &problems, format!("{} volumes in memory, and no file of the host", expected.stored.len()))
}

/// Returns an object's name. The engine writes that of a container after a slash.
fn name(object: &Value) -> &str {
    text(&object["Name"]).trim_start_matches('/')
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(crate) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(crate) fn keys(value: &Value) -> impl Iterator<Item = &str> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::expected::tests::expected;
    use crate::report::Outcome;

    /// Returns descriptions with what the probes of this file read.
    fn described() -> Vec<Value> {
        let running = |at: &str| json!({"Status": "running", "StartedAt": at});
        let volume =
            |name: &str| json!({"Name": name, "Mountpoint": "/", "Driver": "local", "Options": {"type": "tmpfs"}});
        vec![
            json!({
                "Name": "/a", "State": running("2026-03-01T12:00:01.5Z"), "Config": {"Env": ["A=b"]},
                "Mounts": [{"Type": "volume", "Name": "f", "Destination": "/etc/bottle", "RW": false}],
                "HostConfig": {
                    "NetworkMode": "container:5ea1",
                    "Mounts": [{"Type": "volume", "Source": "f", "VolumeOptions": {"Subpath": "agent/current-config"}}],
                },
            }),
            json!({
                "Name": "/s", "Id": "5ea1", "State": running("2026-03-01T12:00:01.25Z"), "HostConfig": {},
                "Mounts": [{"Type": "volume", "Name": "v", "Destination": "/run/credentials/egress", "RW": false}],
            }),
            json!({
                "Name": "/e", "Config": {"Env": ["PATH=/bin"]}, "HostConfig": {},
                "Mounts": [{"Type": "volume", "Name": "v", "Destination": "/run/credentials", "RW": true}],
            }),
            json!({
                "Name": "/t", "Mounts": [{"Type": "volume", "Name": "f", "Destination": "/store/files", "RW": true}],
                "HostConfig": {"Mounts": [{"Type": "volume", "Source": "f", "VolumeOptions": {}}]},
            }),
            json!({
                "Name": "bottle-int", "Internal": true,
                "Containers": {"5ea1": {"IPv4Address": "172.20.0.3/16"}, "feed": {"IPv4Address": "172.20.0.2/16"}},
            }),
            volume("v"),
            volume("f"),
        ]
    }

    /// Returns the probes of this file that fail.
    fn failed(described: Vec<Value>) -> Vec<Probe> {
        let expected = expected();
        let facts = Facts::sorted(described, &expected);
        let secrets = &["hunter2\"hunter2"][..];
        let probes = [
            network_namespace(&facts, &expected),
            configuration(&facts, &expected, secrets),
            credentials(&facts, &expected),
            store(&facts, &expected),
        ];
        probes.into_iter().filter(|probe| probe.outcome == Outcome::Failed).collect()
    }

    #[test]
    fn a_bottle_as_planned_holds() {
        assert_eq!(failed(described()), []);
        let facts = Facts::sorted(described(), &expected());
        assert_eq!(facts.addresses(), BTreeSet::from(["172.20.0.2".to_owned()]));
    }

    #[test]
    fn every_weakening_is_found_by_one_probe() {
        const AGENT: usize = 0;
        const SEAL: usize = 1;
        const EGRESS: usize = 2;
        const VOLUME: usize = 5;
        const FILES: usize = 6;
        let weakened = [
            (AGENT, "/HostConfig/NetworkMode", json!("bridge"), "network namespace"),
            (AGENT, "/HostConfig/NetworkMode", json!("container:"), "network namespace"),
            (SEAL, "/State/StartedAt", json!("2026-03-01T12:00:02Z"), "network namespace"),
            (SEAL, "/State/Status", json!("exited"), "network namespace"),
            (AGENT, "/HostConfig/Mounts/0/VolumeOptions/Subpath", json!(""), "store"),
            (EGRESS, "/Mounts/1", json!({"Type": "volume", "Name": "f", "RW": true}), "store"),
            (EGRESS, "/Mounts/1", json!({"Type": "bind", "Destination": "/etc/ca.pem", "RW": false}), "store"),
            (FILES, "/Options", json!({}), "store"),
            (AGENT, "/Config/Env/0", json!("TOKEN=hunter2\"hunter2"), "configuration"),
            (EGRESS, "/Config/Env/0", json!("TOKEN=hunter2\"hunter2"), "configuration"),
            (EGRESS, "/Config/Env/0", json!("EGRESS_TOKEN_A="), "configuration"),
            (VOLUME, "/Options/o", json!("hunter2\"hunter2"), "configuration"),
            (VOLUME, "/Options", json!({}), "credentials"),
            (VOLUME, "/Name", json!("other"), "credentials"),
            (EGRESS, "/Mounts", json!([]), "credentials"),
            (EGRESS, "/Mounts/0/RW", json!(false), "credentials"),
            (SEAL, "/Mounts/0/RW", json!(true), "credentials"),
            (
                AGENT,
                "/Mounts/1",
                json!({"Type": "volume", "Name": "v", "Destination": "/x", "RW": false}),
                "credentials",
            ),
        ];
        for (object, path, value, protection) in weakened {
            let mut described = described();
            let (parent, key) = path.rsplit_once('/').unwrap();
            let parent = described[object].pointer_mut(parent).unwrap();
            match key.parse::<usize>() {
                Ok(index) if index == parent.as_array().unwrap().len() => parent.as_array_mut().unwrap().push(value),
                Ok(index) => parent[index] = value,
                Err(_) => parent[key] = value,
            }
            let failed = failed(described);
            assert_eq!(failed.len(), 1, "{object}{path}: {failed:?}");
            assert_eq!(failed[0].protection, protection, "{object}{path}");
            assert!(!failed[0].detail.contains("hunter2"), "{}", failed[0]);
        }
    }

    #[test]
    fn without_objects_every_protection_is_missing_that_needs_them() {
        let failed: Vec<_> = failed(Vec::new()).into_iter().map(|probe| probe.protection).collect();
        assert_eq!(failed, ["network namespace", "credentials", "store"]);
    }

    #[test]
    fn an_image_of_another_objects_name_hides_nothing() {
        let image = json!({"Id": "sha256:1", "RootFS": {}});
        let mut expected = expected();
        for container in &mut expected.planned.containers {
            container.image = "a".into();
        }
        let facts = Facts::sorted(described().into_iter().chain([image.clone()]).collect(), &expected);
        assert_eq!(facts.image("a"), &image);
        assert_eq!(facts.container("a")["State"]["Status"], "running");
    }
}
