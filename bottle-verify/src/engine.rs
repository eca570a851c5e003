//! The engine's own description of the containers and the network.

use std::collections::BTreeSet;

use bottle_engine::{Engine, EngineError, ObjectKind};
use serde_json::Value;

use crate::expected::Expected;
use crate::report::Probe;
use crate::secrets::holds_secret;

/// Descriptions by the engine. Null: there is no such object.
#[derive(Debug)]
pub(crate) struct Facts {
    agent: Value,
    seal: Value,
    network: Value,
    /// The containers besides agent and seal.
    sidecars: Vec<Value>,
    /// The volumes with credentials and of the store.
    volumes: Vec<Value>,
}

/// Asks the engine, in one query: most of a query's time is its client's start.
pub(crate) fn facts(engine: &Engine, expected: &Expected) -> Result<Facts, EngineError> {
    let names: BTreeSet<&str> = [&expected.agent, &expected.seal, &expected.network]
        .into_iter()
        .chain(&expected.containers)
        .chain(volumes_of(expected))
        .map(String::as_str)
        .collect();
    let mut found = engine.inspect_any(names)?;
    let mut take = |kind: ObjectKind, wanted: &str| {
        let is_wanted = |object: &Value| name(object) == wanted && is_of(kind, object);
        match found.iter().position(is_wanted) {
            Some(place) => Ok(found.swap_remove(place)),
            // An object of another kind may have the name.
            None => Ok(engine.inspect(kind, wanted)?.unwrap_or_default()),
        }
    };
    let (agent, seal) = (take(ObjectKind::Container, &expected.agent)?, take(ObjectKind::Container, &expected.seal)?);
    let network = take(ObjectKind::Network, &expected.network)?;
    let volumes = volumes_of(expected).map(|volume| take(ObjectKind::Volume, volume));
    let volumes = volumes.collect::<Result<_, EngineError>>()?;
    let sidecars = expected.containers.iter().filter(|name| ![&expected.agent, &expected.seal].contains(name));
    let sidecars = sidecars.map(|name| take(ObjectKind::Container, name)).collect::<Result<_, EngineError>>()?;
    Ok(Facts { agent, seal, network, sidecars, volumes })
}

/// Returns the names of the volumes.
fn volumes_of(expected: &Expected) -> impl Iterator<Item = &String> {
    let stored = expected.stored.iter().map(|(volume, _)| volume);
    expected.credentials.iter().map(|(volume, _)| volume).chain(stored)
}

/// Returns true for a description of this kind.
fn is_of(kind: ObjectKind, object: &Value) -> bool {
    let key = match kind {
        ObjectKind::Container => "HostConfig",
        ObjectKind::Network => "Internal",
        ObjectKind::Volume => "Mountpoint",
        ObjectKind::Image => "RepoTags",
    };
    !object[key].is_null()
}

impl Facts {
    /// Returns the containers.
    fn containers(&self) -> impl Iterator<Item = &Value> {
        [&self.agent, &self.seal].into_iter().chain(&self.sidecars)
    }

    /// Returns a container besides agent and seal, or null.
    fn sidecar(&self, name: &str) -> &Value {
        self.sidecars.iter().find(|container| self::name(container) == name).unwrap_or(&Value::Null)
    }

    /// Returns the addresses of the containers on the agent's network, without the seal's.
    pub(crate) fn addresses(&self) -> BTreeSet<String> {
        let containers = self.network["Containers"].as_object().into_iter().flatten();
        let own = self.seal["Id"].as_str();
        let others = containers.filter(|(id, _)| Some(id.as_str()) != own);
        let address = |container: &Value| Some(container["IPv4Address"].as_str()?.split('/').next()?.to_owned());
        others.filter_map(|(_, container)| address(container)).collect()
    }
}

/// Compares the descriptions with what the document promises.
pub(crate) fn probes(facts: &Facts, expected: &Expected, secrets: &[&str]) -> Vec<Probe> {
    let mut probes = vec![
        network_namespace(facts, expected),
        internal_network(facts, expected),
        capabilities(facts, expected),
        host_namespaces(facts),
        mounts(facts, expected),
        limits(facts, expected),
        configuration(facts, expected, secrets),
        credentials(facts, expected),
    ];
    if !expected.stored.is_empty() {
        probes.push(store(facts, expected));
    }
    probes
}

fn network_namespace(facts: &Facts, expected: &Expected) -> Probe {
    let mut problems = joined("the agent", &facts.agent, "the seal", &facts.seal);
    if let Some(outlet) = &expected.outlet {
        let owner = facts.sidecar(&outlet.container);
        for name in &outlet.joined {
            problems.extend(joined(&format!("`{name}`"), facts.sidecar(name), "the outlet", owner));
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
    if keys(&container["NetworkSettings"]["Networks"]).next().is_some() {
        problems.push(format!("{name} is attached to a network of its own"));
    }
    for (name, container) in [(name, container), (owner_name, owner)] {
        if text(&container["State"]["Status"]) != "running" {
            problems.push(format!("the container of {name} does not run"));
        }
    }
    // The engine's times have the same form, so that they compare as texts.
    let started = |container: &Value| text(&container["State"]["StartedAt"]).trim_end_matches('Z').to_owned();
    if started(owner) > started(container) {
        problems.push(format!("{owner_name} was started after {name}, which is in an earlier namespace"));
    }
    problems
}

fn internal_network(facts: &Facts, expected: &Expected) -> Probe {
    let mut problems = Vec::new();
    let attached: Vec<&str> = keys(&facts.seal["NetworkSettings"]["Networks"]).collect();
    if attached != [expected.network.as_str()] {
        problems.push(format!("the seal is attached to {attached:?}, not only to `{}`", expected.network));
    }
    if facts.network["Internal"] != true {
        problems.push(format!("the network `{}` is not internal", expected.network));
    }
    if facts.network["EnableIPv6"] == true {
        problems.push(format!("the network `{}` has IPv6", expected.network));
    }
    Probe::of("internal network", &problems, format!("`{}` has no route to the outside", expected.network))
}

fn capabilities(facts: &Facts, expected: &Expected) -> Probe {
    let mut problems = Vec::new();
    let owner = &["NET_ADMIN"][..];
    let outlet = expected.outlet.iter().map(|outlet| ("outlet", facts.sidecar(&outlet.container), owner));
    for (name, container, may_add) in
        [("agent", &facts.agent, &[][..]), ("seal", &facts.seal, owner)].into_iter().chain(outlet)
    {
        let host = &container["HostConfig"];
        if host["Privileged"] == true {
            problems.push(format!("the {name} is privileged"));
        }
        let bare = |value: &Value| text(value).trim_start_matches("CAP_").to_owned();
        if !list(&host["CapDrop"]).any(|dropped| bare(dropped).eq_ignore_ascii_case("ALL")) {
            problems.push(format!("the {name} does not drop all capabilities"));
        }
        let added: Vec<String> = list(&host["CapAdd"]).map(bare).filter(|added| !may_add.contains(&&**added)).collect();
        if !added.is_empty() {
            problems.push(format!("the {name} has the capabilities {}", added.join(", ")));
        }
        let options: Vec<String> = list(&host["SecurityOpt"]).map(|option| text(option).to_owned()).collect();
        if !options.iter().any(|option| matches!(option.as_str(), "no-new-privileges:true" | "no-new-privileges")) {
            problems.push(format!("the {name} may gain privileges"));
        }
        if let Some(option) = options.iter().find(|option| option.contains("unconfined") || option.contains("disable"))
        {
            problems.push(format!("the {name} has the security option `{option}`"));
        }
    }
    Probe::of("capabilities", &problems, "all dropped, no new privileges")
}

fn host_namespaces(facts: &Facts) -> Probe {
    let mut problems = Vec::new();
    let host = &facts.agent["HostConfig"];
    for key in ["PidMode", "IpcMode", "UTSMode", "UsernsMode"] {
        let mode = text(&host[key]);
        if !matches!(mode, "" | "private" | "shareable") {
            problems.push(format!("{key} is `{mode}`"));
        }
    }
    for key in ["Devices", "DeviceRequests", "DeviceCgroupRules"] {
        if list(&host[key]).next().is_some() {
            problems.push(format!("{key} is not empty"));
        }
    }
    Probe::of("host namespaces", &problems, "none, and no device")
}

fn mounts(facts: &Facts, expected: &Expected) -> Probe {
    let mut problems = Vec::new();
    for mount in list(&facts.agent["Mounts"]) {
        let target = text(&mount["Destination"]);
        match text(&mount["Type"]) {
            "bind" => match expected.binds.iter().find(|(known, _)| known == target) {
                None => problems.push(format!("`{target}` is mounted from the host")),
                Some((_, true)) if mount["RW"] != false => problems.push(format!("`{target}` can be written")),
                Some(_) => {}
            },
            // A `VOLUME` of the image, and what the document mounts in memory.
            "volume" | "tmpfs" => {
                let is_planned = |(known, read_only): &(String, bool)| known == target && *read_only;
                if expected.binds.iter().any(is_planned) && mount["RW"] != false {
                    problems.push(format!("`{target}` can be written"));
                }
            }
            kind => problems.push(format!("`{target}` is a mount of the kind `{kind}`")),
        }
    }
    let there: Vec<&str> = list(&facts.agent["Mounts"]).map(|mount| text(&mount["Destination"])).collect();
    for (target, _) in expected.binds.iter().filter(|(target, _)| !there.contains(&target.as_str())) {
        problems.push(format!("`{target}` is not mounted"));
    }
    Probe::of("mounts", &problems, format!("{} from the host, as planned", expected.binds.len()))
}

fn limits(facts: &Facts, expected: &Expected) -> Probe {
    let host = &facts.agent["HostConfig"];
    let mut problems = Vec::new();
    let wanted = [
        ("PidsLimit", expected.pids.map(u64::from)),
        ("Memory", expected.memory),
        ("MemorySwap", expected.memory),
        ("NanoCpus", expected.nano_cpus),
    ];
    for (key, wanted) in wanted {
        if let Some(wanted) = wanted
            && host[key].as_u64() != Some(wanted)
        {
            problems.push(format!("{key} is {}, not {wanted}", host[key]));
        }
    }
    let count = wanted.iter().filter(|(_, wanted)| wanted.is_some()).count();
    Probe::of("limits", &problems, format!("{count} limits, as planned"))
}

fn configuration(facts: &Facts, expected: &Expected, secrets: &[&str]) -> Probe {
    const PROTECTION: &str = "configuration";
    if secrets.is_empty() && expected.slots.is_empty() {
        return Probe::not_run(PROTECTION, "no secret is known to search for");
    }
    // With `secrets: environment`, the sidecars have their values there.
    let mut objects = vec![&facts.agent, &facts.seal, &facts.network];
    if !expected.slots.is_empty() {
        objects.extend(facts.sidecars.iter().chain(&facts.volumes));
    }
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
        let described = facts.volumes.iter().find(|described| name(described) == volume);
        if described.is_none_or(|it| it["Driver"] != "local" || it["Options"]["type"] != "tmpfs") {
            problems.push(format!("the volume `{volume}` is not in memory"));
        }
        let mut writers = Vec::new();
        for container in facts.containers() {
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
        let described = facts.volumes.iter().find(|described| name(described) == volume);
        if described.is_none_or(|it| it["Driver"] != "local" || it["Options"]["type"] != "tmpfs") {
            problems.push(format!("the volume `{volume}` is not in memory"));
        }
        for container in facts.containers() {
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
    for container in facts.containers() {
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

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn keys(value: &Value) -> impl Iterator<Item = &str> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::expected::tests::expected;
    use crate::report::Outcome;

    fn described() -> (Facts, Expected) {
        let security = json!({
            "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges:true"], "IpcMode": "private", "PidsLimit": 4096,
            "Memory": 1 << 30, "MemorySwap": 1 << 30, "NanoCpus": 2_000_000_000_u64, "NetworkMode": "container:5ea1",
            "Mounts": [{"Type": "volume", "Source": "f", "VolumeOptions": {"Subpath": "agent/current-config"}}],
        });
        let mut seal = security.clone();
        seal["CapAdd"] = json!(["CAP_NET_ADMIN"]);
        let outlet = seal.clone();
        let facts = Facts {
            agent: json!({
                "Name": "/a", "State": {"Status": "running", "StartedAt": "2026-03-01T12:00:01.5Z"}, "HostConfig": security,
                "Mounts": [{"Type": "volume", "Name": "f", "Destination": "/etc/bottle", "RW": false}],
                "NetworkSettings": {"Networks": {}}, "Config": {"Env": ["A=b"]},
            }),
            seal: json!({
                "Name": "/s", "Id": "5ea1", "State": {"Status": "running", "StartedAt": "2026-03-01T12:00:01.25Z"}, "HostConfig": seal,
                "NetworkSettings": {"Networks": {"bottle-int": {}}},
                "Mounts": [{"Type": "volume", "Name": "v", "Destination": "/run/credentials/egress", "RW": false}],
            }),
            network: json!({
                "Internal": true, "EnableIPv6": false,
                "Containers": {"5ea1": {"IPv4Address": "172.20.0.3/16"}, "feed": {"IPv4Address": "172.20.0.2/16"}},
            }),
            sidecars: vec![
                json!({
                    "Name": "/e", "Config": {"Env": ["PATH=/bin"]},
                    "Mounts": [{"Type": "volume", "Name": "v", "Destination": "/run/credentials", "RW": true}],
                }),
                json!({
                    "Name": "/o", "Id": "07", "State": {"Status": "running", "StartedAt": "2026-03-01T12:00:00Z"}, "HostConfig": outlet,
                }),
                json!({
                    "Name": "/p", "State": {"Status": "running", "StartedAt": "2026-03-01T12:00:00.5Z"},
                    "HostConfig": {"NetworkMode": "container:07"}, "NetworkSettings": {"Networks": {}},
                }),
                json!({
                    "Name": "/t", "Mounts": [{"Type": "volume", "Name": "f", "Destination": "/store/files", "RW": true}],
                    "HostConfig": {"Mounts": [{"Type": "volume", "Source": "f", "VolumeOptions": {}}]},
                }),
            ],
            volumes: ["v", "f"]
                .map(|name| json!({"Name": name, "Driver": "local", "Options": {"type": "tmpfs"}}))
                .to_vec(),
        };
        (facts, expected())
    }

    #[test]
    fn a_bottle_as_planned_holds() {
        let (facts, expected) = described();
        for probe in probes(&facts, &expected, &["hunter2hunter2"]) {
            assert_eq!(probe.outcome, Outcome::Held, "{probe}");
        }
        assert_eq!(facts.addresses(), BTreeSet::from(["172.20.0.2".to_owned()]));
    }

    #[test]
    fn every_weakening_is_found_by_one_probe() {
        let agent = |path: &'static str, value: Value| ("agent", path, value);
        let seal = |path: &'static str, value: Value| ("seal", path, value);
        let network = |path: &'static str, value: Value| ("network", path, value);
        let sidecar = |path: &'static str, value: Value| ("sidecar", path, value);
        let volume = |path: &'static str, value: Value| ("volume", path, value);
        let files = |path: &'static str, value: Value| ("files", path, value);
        let outlet = |path: &'static str, value: Value| ("outlet", path, value);
        let pipelock = |path: &'static str, value: Value| ("pipelock", path, value);
        let weakened = [
            (agent("/HostConfig/NetworkMode", json!("bridge")), "network namespace"),
            (agent("/HostConfig/NetworkMode", json!("container:")), "network namespace"),
            (agent("/NetworkSettings/Networks", json!({"bridge": {}})), "network namespace"),
            (seal("/State/StartedAt", json!("2026-03-01T12:00:02Z")), "network namespace"),
            (seal("/State/Status", json!("exited")), "network namespace"),
            (outlet("/State/StartedAt", json!("2026-03-01T12:00:02Z")), "network namespace"),
            (outlet("/State/Status", json!("exited")), "network namespace"),
            (pipelock("/HostConfig/NetworkMode", json!("bridge")), "network namespace"),
            (pipelock("/NetworkSettings/Networks", json!({"bridge": {}})), "network namespace"),
            (outlet("/HostConfig/CapAdd", json!(["NET_ADMIN", "SYS_ADMIN"])), "capabilities"),
            (seal("/NetworkSettings/Networks", json!({"bottle-int": {}, "bridge": {}})), "internal network"),
            (network("/Internal", json!(false)), "internal network"),
            (network("/EnableIPv6", json!(true)), "internal network"),
            (agent("/HostConfig/Privileged", json!(true)), "capabilities"),
            (agent("/HostConfig/CapDrop", json!([])), "capabilities"),
            (agent("/HostConfig/CapAdd", json!(["CAP_NET_ADMIN"])), "capabilities"),
            (seal("/HostConfig/CapAdd", json!(["NET_ADMIN", "SYS_ADMIN"])), "capabilities"),
            (agent("/HostConfig/SecurityOpt", json!([])), "capabilities"),
            (agent("/HostConfig/SecurityOpt", json!(["no-new-privileges:true", "seccomp=unconfined"])), "capabilities"),
            (agent("/HostConfig/PidMode", json!("host")), "host namespaces"),
            (agent("/HostConfig/IpcMode", json!("host")), "host namespaces"),
            (agent("/HostConfig/Devices", json!([{"PathOnHost": "/dev/kvm"}])), "host namespaces"),
            (agent("/Mounts/1", json!({"Type": "tmpfs", "Destination": "/etc/bottle", "RW": true})), "mounts"),
            (agent("/Mounts/0/Destination", json!("/var/run/docker.sock")), "mounts"),
            (agent("/Mounts", json!([])), "mounts"),
            (agent("/HostConfig/Mounts/0/VolumeOptions/Subpath", json!("")), "store"),
            (sidecar("/Mounts/1", json!({"Type": "volume", "Name": "f", "RW": true})), "store"),
            (sidecar("/Mounts/1", json!({"Type": "bind", "Destination": "/etc/ca.pem", "RW": false})), "store"),
            (files("/Options", json!({})), "store"),
            (agent("/HostConfig/PidsLimit", json!(0)), "limits"),
            (agent("/HostConfig/Memory", json!(0)), "limits"),
            (agent("/HostConfig/MemorySwap", json!(-1)), "limits"),
            (agent("/Config/Env/0", json!("TOKEN=hunter2\"hunter2")), "configuration"),
            (sidecar("/Config/Env/0", json!("TOKEN=hunter2\"hunter2")), "configuration"),
            (sidecar("/Config/Env/0", json!("EGRESS_TOKEN_A=")), "configuration"),
            (volume("/Options/o", json!("hunter2\"hunter2")), "configuration"),
            (volume("/Options", json!({})), "credentials"),
            (volume("/Name", json!("other")), "credentials"),
            (sidecar("/Mounts", json!([])), "credentials"),
            (sidecar("/Mounts/0/RW", json!(false)), "credentials"),
            (seal("/Mounts/0/RW", json!(true)), "credentials"),
            (
                agent("/Mounts/1", json!({"Type": "volume", "Name": "v", "Destination": "/x", "RW": false})),
                "credentials",
            ),
        ];
        for ((object, path, value), protection) in weakened {
            let (mut facts, expected) = described();
            let described = match object {
                "agent" => &mut facts.agent,
                "seal" => &mut facts.seal,
                "sidecar" => &mut facts.sidecars[0],
                "outlet" => &mut facts.sidecars[1],
                "pipelock" => &mut facts.sidecars[2],
                "volume" => &mut facts.volumes[0],
                "files" => &mut facts.volumes[1],
                _ => &mut facts.network,
            };
            let (parent, key) = path.rsplit_once('/').unwrap();
            let parent = described.pointer_mut(parent).unwrap();
            match key.parse::<usize>() {
                Ok(index) if index == parent.as_array().unwrap().len() => parent.as_array_mut().unwrap().push(value),
                Ok(index) => parent[index] = value,
                Err(_) => parent[key] = value,
            }
            let probes = probes(&facts, &expected, &["hunter2\"hunter2"]);
            let failed: Vec<_> = probes.iter().filter(|probe| probe.outcome == Outcome::Failed).collect();
            assert_eq!(failed.len(), 1, "{object}{path}: {failed:?}");
            assert_eq!(failed[0].protection, protection, "{object}{path}");
            assert!(!failed[0].detail.contains("hunter2"), "{}", failed[0]);
        }
    }

    #[test]
    fn without_objects_every_protection_is_missing_that_needs_them() {
        let (_, expected) = described();
        let (agent, seal, network) = (Value::Null, Value::Null, Value::Null);
        let none = Facts { agent, seal, network, sidecars: Vec::new(), volumes: Vec::new() };
        let probes = probes(&none, &expected, &[]);
        let failed: Vec<_> =
            probes.iter().filter(|probe| probe.outcome == Outcome::Failed).map(|probe| probe.protection).collect();
        assert_eq!(
            failed,
            ["network namespace", "internal network", "capabilities", "mounts", "limits", "credentials", "store"]
        );
    }
}
