//! Probes of the engine's own description of the containers and the network.

use bottle_engine::PROJECT_LABEL;
use serde_json::Value;

use crate::compare;
use crate::expected::Expected;
use crate::facts::{Facts, list, name, text};
use crate::planned::Mode;
use crate::report::Probe;
use crate::secrets::holds_secret;

/// Compares the descriptions with what the document promises.
pub(crate) fn probes(facts: &Facts, expected: &Expected, secrets: &[&str]) -> Vec<Probe> {
    let mut probes = vec![network_namespace(facts, expected), further_containers(facts, expected)];
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

/// Looks for containers beside those of the document that are in a namespace or the project of the bottle, that mount one of
/// its volumes, or that answer to one of its names.
fn further_containers(facts: &Facts, expected: &Expected) -> Probe {
    const SHARED: [(&str, &str); 3] = [("NetworkMode", "network"), ("PidMode", "process"), ("IpcMode", "IPC")];
    let mut problems = Vec::new();
    for other in &facts.others {
        let told = name(other);
        for (key, namespace) in SHARED {
            let Some(joined) = text(&other["HostConfig"][key]).strip_prefix("container:") else { continue };
            let is_joined = |container: &&Value| {
                let id = text(&container["Id"]);
                [name(container), id].contains(&joined) || (joined.len() >= 12 && id.starts_with(joined))
            };
            if let Some(owner) = facts.containers.values().find(is_joined) {
                problems.push(format!("`{told}` is in the {namespace} namespace of `{}`", name(owner)));
            }
        }
        for volume in list(&other["Mounts"]).map(|mount| text(&mount["Name"])) {
            if expected.planned.volumes.iter().any(|planned| planned.name == volume) {
                problems.push(format!("`{told}` mounts the volume `{volume}`"));
            }
        }
        for (network, attachment) in other["NetworkSettings"]["Networks"].as_object().into_iter().flatten() {
            let names = list(&attachment["Aliases"]).chain(list(&attachment["DNSNames"])).map(text);
            let taken = names.into_iter().find(|name| expected.planned.is_name_in(network, name));
            problems.extend(
                taken.map(|taken| format!("`{told}` answers to the name `{taken}` in the network `{network}`")),
            );
        }
        let project = text(&other["Config"]["Labels"][PROJECT_LABEL]);
        if !project.is_empty() && project == expected.project {
            problems.push(format!("`{told}` is in the project and not in its document"));
        }
    }
    Probe::of(
        "further containers",
        &problems,
        "none is in a namespace, at a volume or in the project of the bottle, or has one of its names",
    )
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
        problems.extend(not_in_memory(facts, volume));
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

/// Returns the problem of a volume that is on the disk, or does not exist.
fn not_in_memory(facts: &Facts, volume: &str) -> Option<String> {
    let described = facts.volume(volume);
    let is_in_memory = described["Driver"] == "local" && described["Options"]["type"] == "tmpfs";
    (!is_in_memory).then(|| format!("the volume `{volume}` is not in memory"))
}

/// Compares the mounts of the store's volumes. A container that only reads mounts its own files, never the whole volume.
fn store(facts: &Facts, expected: &Expected) -> Probe {
    const PROTECTION: &str = "store";
    let mut problems = Vec::new();
    for (volume, writers) in &expected.stored {
        problems.extend(not_in_memory(facts, volume));
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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
            further_containers(&facts, &expected),
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
    fn a_container_that_answers_to_a_sidecar_s_name_is_found() {
        let mut expected = expected();
        let network = || "bottle-egress".to_owned();
        let aliases = vec!["pipelock".to_owned()];
        let attachment = crate::planned::Attachment { network: network(), aliases, address: None };
        expected.planned.containers[1].networks = vec![attachment];
        let probe = |network: &str, name: &str| {
            let networks = json!({network: {"Aliases": ["outside.test"], "DNSNames": ["0123", name]}});
            let other = json!({"Name": "/x", "HostConfig": {}, "NetworkSettings": {"Networks": networks}});
            further_containers(&Facts::sorted(vec![other], &expected), &expected)
        };
        let told = "`x` answers to the name `pipelock` in the network `bottle-egress`";
        assert_eq!(probe("bottle-egress", "pipelock"), Probe::failed("further containers", told));
        for (network, name) in [("bottle-egress", "proxy"), ("bridge", "pipelock")] {
            assert_eq!(probe(network, name).outcome, Outcome::Held);
        }
    }

    #[test]
    fn a_container_that_nobody_planned_is_found() {
        let other =
            |host: Value, labels: Value| json!({"Name": "/x", "HostConfig": host, "Config": {"Labels": labels}});
        let ours = json!({"com.docker.compose.project": "bottle-demo"});
        for (container, told) in [
            (other(json!({"NetworkMode": "container:5ea1"}), json!({})), "`x` is in the network namespace of `s`"),
            (other(json!({"NetworkMode": "container:a"}), json!({})), "`x` is in the network namespace of `a`"),
            (other(json!({"PidMode": "container:a"}), json!({})), "`x` is in the process namespace of `a`"),
            (other(json!({"NetworkMode": "none"}), ours), "`x` is in the project and not in its document"),
        ] {
            let failed = failed(described().into_iter().chain([container]).collect());
            assert_eq!(
                failed.iter().map(|probe| (probe.protection, &*probe.detail)).collect::<Vec<_>>(),
                [("further containers", told)]
            );
        }
        let mut foreign = other(json!({"NetworkMode": "container:feed", "PidMode": "host"}), json!({}));
        foreign["Mounts"] = json!([{"Type": "volume", "Name": "w"}, {"Type": "bind", "Source": "/v"}]);
        assert_eq!(failed(described().into_iter().chain([foreign.clone()]).collect()), []);
        foreign["Mounts"] = json!([{"Type": "volume", "Name": "v"}]);
        let failed = failed(described().into_iter().chain([foreign]).collect());
        assert_eq!(failed[0].detail, "`x` mounts the volume `v`");
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
