//! The comparison of what the engine runs with the Compose document.
//!
//! A setting that the document does not name has to be empty, also one that only a later engine knows. What is not
//! compared is listed here by name.

use std::collections::{BTreeMap, BTreeSet};

use bottle_engine::familiar;
use serde_json::Value;

use crate::facts::{Facts, keys, list, text};
use crate::planned::{Attachment, Container, Mode, Network, Planned, Volume, is_nothing, normal};
use crate::podman;
use crate::report::Probe;
use crate::secrets::holds_secret;

const CAPABILITIES: &str = "capabilities";
const NAMESPACES: &str = "host namespaces";
const MOUNTS: &str = "mounts";
const LIMITS: &str = "limits";
const PROGRAMS: &str = "images and programs";
const ATTACHMENTS: &str = "networks and ports";
const VOLUMES: &str = "volumes";
const SETTINGS: &str = "other settings";

/// Protections in the order of the table, each with the settings of the host configuration that belong to it. All others
/// belong to the last.
const PROTECTIONS: [(&str, &[&str]); 8] = [
    (CAPABILITIES, &["CapAdd", "CapDrop", "Privileged", "SecurityOpt", "GroupAdd", "MaskedPaths", "ReadonlyPaths"]),
    (NAMESPACES, &["PidMode", "IpcMode", "UTSMode", "UsernsMode", "Cgroup*", "Device*"]),
    (MOUNTS, &["Binds", "VolumesFrom", "VolumeDriver", "Tmpfs", "ReadonlyRootfs", "StorageOpt"]),
    (LIMITS, &["PidsLimit", "Memory*", "NanoCpus", "Cpu*", "Ulimits", "ShmSize", "Blkio*", "IO*", "Kernel*", "Oom*"]),
    (PROGRAMS, &["Runtime", "Init", "RestartPolicy"]),
    (
        ATTACHMENTS,
        &["PortBindings", "PublishAllPorts", "Links", "Dns", "DnsOptions", "DnsSearch", "ExtraHosts", "Sysctls"],
    ),
    (VOLUMES, &[]),
    (SETTINGS, &[]),
];

/// Settings of the host configuration that are not compared: they concern the client that created the container. Networks
/// and mounts are compared on their own.
const NOT_COMPARED: [&str; 4] = ["ContainerIDFile", "ConsoleSize", "NetworkMode", "Mounts"];

/// Settings whose default is the engine's own. Each container has the value that most containers of the bottle have, and
/// only one of these. Empty: any that is not nothing.
const OF_ENGINE: [(&str, &[&str]); 6] = [
    ("CgroupnsMode", &["private", "host"]),
    ("IpcMode", &["private", "shareable"]),
    ("MaskedPaths", &[]),
    ("ReadonlyPaths", &[]),
    ("ShmSize", &[]),
    ("Runtime", &[]),
];

/// Settings of the container that are not compared. The streams and the host name are no protection, nor is the time that a
/// container has to stop. `Volumes` and `ExposedPorts` do nothing by themselves: mounts and published ports are compared.
const CONFIG_NOT_COMPARED: [&str; 15] = [
    "ArgsEscaped",
    "AttachStderr",
    "AttachStdin",
    "AttachStdout",
    "Domainname",
    "Env",
    "ExposedPorts",
    "Hostname",
    "Image",
    "Labels",
    "MacAddress",
    "OnBuild",
    "StopSignal",
    "StopTimeout",
    "Volumes",
];

/// Variables that the engine's client adds to every container, if its configuration names a proxy for them.
const OF_CLIENT: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Longest value that a message shows, in characters.
const SHOWN: usize = 120;

/// Differences, each with the protection that it takes away.
struct Differences<'a> {
    found: Vec<(&'static str, String)>,
    /// Values that no message may show.
    secrets: &'a [&'a str],
}

/// Compares every container, network and volume of the bottle.
pub(crate) fn probes(planned: &Planned, facts: &Facts, secrets: &[&str]) -> Vec<Probe> {
    let mut differences = Differences { found: Vec::new(), secrets };
    if planned.containers.is_empty() {
        differences.add(SETTINGS, "nothing is known of its Compose document; launch the bottle again".to_owned());
    }
    let usual = usual(planned, facts);
    let own: BTreeSet<&str> = planned.containers.iter().map(|it| text(&facts.container(&it.name)["Id"])).collect();
    let of_client = of_client(planned, facts);
    for container in &planned.containers {
        differences.container(container, facts, &usual, &of_client);
    }
    for network in &planned.networks {
        differences.network(network, facts.network(&network.name), &own);
    }
    for volume in &planned.volumes {
        differences.volume(volume, facts.volume(&volume.name));
    }
    let probe = |(protection, _): (&'static str, _)| {
        let problems: Vec<String> =
            differences.found.iter().filter(|(of, _)| *of == protection).map(|(_, problem)| problem.clone()).collect();
        let detail = match protection {
            VOLUMES => format!("{} as planned", planned.volumes.len()),
            _ => format!("of {} containers, as planned", planned.containers.len()),
        };
        Probe::of(protection, &problems, detail)
    };
    PROTECTIONS.into_iter().map(probe).collect()
}

/// Returns the value of each setting of the engine's that most containers have.
fn usual(planned: &Planned, facts: &Facts) -> BTreeMap<&'static str, Value> {
    let most = |key: &str| {
        // The containers whose document does not name the setting.
        let asked = planned.containers.iter().filter(|it| it.host.get(key).is_none_or(Value::is_null));
        let values: Vec<Value> = asked.map(|it| normal(key, &facts.container(&it.name)["HostConfig"][key])).collect();
        let count = |value: &Value| values.iter().filter(|other| *other == value).count();
        values.iter().max_by_key(|value| count(value)).cloned().unwrap_or_default()
    };
    OF_ENGINE.into_iter().map(|(key, _)| (key, most(key))).collect()
}

/// Returns the proxy's variables that the seal has, whose document names none.
fn of_client(planned: &Planned, facts: &Facts) -> BTreeMap<String, String> {
    let seal = planned.containers.iter().find(|it| it.service == bottle_plan::Service::Seal.as_str());
    let variables = seal.map(|seal| environment(&facts.container(&seal.name)["Config"])).unwrap_or_default();
    let is_proxy = |name: &String| OF_CLIENT.contains(&name.to_ascii_uppercase().as_str());
    variables.into_iter().filter(|(name, _)| is_proxy(name)).collect()
}

/// Returns the variables of a container's or an image's configuration.
fn environment(config: &Value) -> BTreeMap<String, String> {
    let split = |variable: &Value| {
        let (name, value) = text(variable).split_once('=').unwrap_or((text(variable), ""));
        (name.to_owned(), value.to_owned())
    };
    list(&config["Env"]).map(split).collect()
}

impl Differences<'_> {
    fn add(&mut self, protection: &'static str, problem: String) {
        self.found.push((protection, problem));
    }

    /// Returns a value of the engine for a message.
    fn shown(&self, value: &Value) -> String {
        let text = match value {
            Value::Null => "not set".to_owned(),
            value => value.to_string(),
        };
        if holds_secret(text.as_bytes(), self.secrets) {
            return "a value with a secret".to_owned();
        }
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }

    fn container(
        &mut self,
        planned: &Container,
        facts: &Facts,
        usual: &BTreeMap<&'static str, Value>,
        of_client: &BTreeMap<String, String>,
    ) {
        let (found, of) = (facts.container(&planned.name), format!("`{}`", planned.name));
        if found.is_null() {
            return self.add(SETTINGS, format!("{of} does not exist"));
        }
        if podman::is_podman(found) {
            self.creation(planned, &found["CreateCommand"]);
        }
        self.host(planned, found, usual);
        self.mounts(planned, found, facts.image(planned.image()));
        self.attachments(planned, found, facts);
        self.image(planned, found, facts.image(planned.image()));
        self.config(planned, found, &facts.image(planned.image())["Config"], of_client);
        for (label, value) in &planned.labels {
            if text(&found["Config"]["Labels"][label]) != value {
                self.add(SETTINGS, format!("{of}: the label `{label}` is not as planned"));
            }
        }
    }

    /// Compares the arguments that Podman created the container with.
    fn creation(&mut self, planned: &Container, found: &Value) {
        // The first word is the program.
        let found: Vec<&str> = list(found).skip(1).map(text).collect();
        if found == planned.creation {
            return;
        }
        let differing = found.iter().zip(&planned.creation).find(|(is, asked)| *is != asked).map(|(is, _)| *is);
        let differing = differing.or_else(|| found.get(planned.creation.len()).copied());
        let told = self.shown(&differing.map_or(Value::Null, Value::from));
        self.add(SETTINGS, format!("`{}`: it was created in another way than planned: {told}", planned.name));
    }

    /// Compares the host configuration.
    fn host(&mut self, planned: &Container, found: &Value, usual: &BTreeMap<&'static str, Value>) {
        let (is_podman, found) = (podman::is_podman(found), &found["HostConfig"]);
        let names: BTreeSet<&str> = keys(found).chain(planned.host.keys().map(String::as_str)).collect();
        let skipped = |key: &&str| NOT_COMPARED.contains(key) || is_podman && podman::IN_COMMAND.contains(key);
        for key in names.into_iter().filter(|key| !skipped(key)) {
            let asked = planned.host.get(key).unwrap_or(&Value::Null);
            let is = normal(key, &found[key]);
            let of_engine = OF_ENGINE.iter().find(|(known, _)| *known == key).filter(|_| asked.is_null());
            let is_as_planned = match of_engine {
                Some((_, accepted)) => {
                    !is.is_null() && is == usual[key] && (accepted.is_empty() || accepted.contains(&text(&is)))
                }
                // The engine's default, as the document says nothing.
                None if key == "LogConfig" && asked.is_null() => true,
                // Podman has a limit of its own where none is planned.
                None if key == "PidsLimit" && is_podman && asked.is_null() => true,
                // Podman's options differ. They are in its command.
                None if key == "Tmpfs" && is_podman => keys(&is).eq(keys(asked)),
                None => is == *asked,
            };
            if !is_as_planned {
                let planned_value = if of_engine.is_some() { &usual[key] } else { asked };
                let (is, asked) = (self.shown(&is), self.shown(planned_value));
                self.add(protection(key), format!("`{}`: {key} is {is}; planned: {asked}", planned.name));
            }
        }
    }

    /// Compares what was asked for, and what is mounted.
    fn mounts(&mut self, planned: &Container, found: &Value, image: &Value) {
        let of = format!("`{}`", planned.name);
        let requested = || list(&found["HostConfig"]["Mounts"]);
        for mount in requested() {
            let target = text(&mount["Target"]);
            let Some(wanted) = planned.mounts.iter().find(|known| known.target == target) else {
                self.add(MOUNTS, format!("{of}: `{target}` is mounted; planned: nothing there"));
                continue;
            };
            let subpath = text(&mount["VolumeOptions"]["Subpath"]);
            let is = (text(&mount["Type"]), text(&mount["Source"]), subpath, mount["ReadOnly"] == true);
            if is != (&*wanted.kind, &*wanted.source, &*wanted.subpath, wanted.read_only) {
                let (is, asked) = (self.shown(mount), wanted.to_string());
                self.add(MOUNTS, format!("{of}: `{target}` is {is}; planned: {asked}"));
            } else if let Some(option) = odd_option(mount) {
                self.add(MOUNTS, format!("{of}: `{target}` is mounted with the option `{option}`"));
            }
        }
        // A `VOLUME` of the image is one that nobody asked for.
        let of_image: Vec<&str> = keys(&image["Config"]["Volumes"]).collect();
        for mount in list(&found["Mounts"]) {
            let target = text(&mount["Destination"]);
            match planned.mounts.iter().find(|known| known.target == target) {
                Some(wanted) if mount["RW"] == wanted.read_only => {
                    let is = if wanted.read_only { "can be written" } else { "cannot be written" };
                    self.add(MOUNTS, format!("{of}: `{target}` {is}"));
                }
                None if !of_image.contains(&target) || mount["Type"] != "volume" || mount["Driver"] != "local" => {
                    self.add(MOUNTS, format!("{of}: `{target}` is mounted; planned: nothing there"));
                }
                Some(_) | None => {}
            }
        }
        for wanted in &planned.mounts {
            let there = list(&found["Mounts"]).any(|mount| text(&mount["Destination"]) == wanted.target);
            if !there || !requested().any(|mount| text(&mount["Target"]) == wanted.target) {
                self.add(MOUNTS, format!("{of}: `{}` is not mounted; planned: {wanted}", wanted.target));
            }
        }
    }

    /// Compares the networks that a container is attached to.
    fn attachments(&mut self, planned: &Container, found: &Value, facts: &Facts) {
        let of = format!("`{}`", planned.name);
        let mode = text(&found["HostConfig"]["NetworkMode"]);
        let is_planned = match &planned.mode {
            // Compared with the times at which both were started.
            Some(Mode::Joins(_)) => true,
            Some(Mode::Named(named)) => mode == named,
            // Compose attaches to an external network by its id.
            None => planned.networks.iter().any(|it| it.network == mode || facts.network(&it.network)["Id"] == mode),
        };
        if !is_planned {
            let asked = match &planned.mode {
                Some(Mode::Named(named)) => format!("`{named}`"),
                _ => "a network of the bottle".to_owned(),
            };
            self.add(ATTACHMENTS, format!("{of}: NetworkMode is `{mode}`; planned: {asked}"));
        }
        let networks = &found["NetworkSettings"]["Networks"];
        let attached: BTreeSet<&str> =
            keys(networks).filter(|network| planned.mode.is_none() || *network != mode).collect();
        let wanted: BTreeSet<&str> = planned.networks.iter().map(|it| &*it.network).collect();
        if attached != wanted {
            self.add(ATTACHMENTS, format!("{of}: it is attached to {attached:?}; planned: {wanted:?}"));
        }
        for Attachment { network, aliases, address } in &planned.networks {
            let is = &networks[network];
            let is_at = [&is["IPAddress"], &is["IPAMConfig"]["IPv4Address"]].map(text);
            if let Some(address) = address
                && !is_at.contains(&&**address)
            {
                self.add(ATTACHMENTS, format!("{of}: its address is `{}`; planned: `{address}`", is_at[0]));
            }
            // The engine adds the first characters of the id, and Compose the names of service and container.
            let id = text(&found["Id"]);
            let of_course = |alias: &str| {
                aliases.iter().any(|it| it == alias)
                    || [&*planned.service, &*planned.name].contains(&alias)
                    || alias.len() >= 12 && id.starts_with(alias)
            };
            let there: Vec<&str> = list(&is["Aliases"]).map(text).collect();
            if let Some(alias) = there.iter().find(|alias| !of_course(alias)) {
                self.add(ATTACHMENTS, format!("{of}: it answers to the name `{alias}` on `{network}`"));
            }
            if let Some(missing) = aliases.iter().find(|alias| !there.contains(&&***alias)) {
                self.add(ATTACHMENTS, format!("{of}: it does not answer to the name `{missing}` on `{network}`"));
            }
        }
    }

    fn image(&mut self, planned: &Container, found: &Value, image: &Value) {
        let of = format!("`{}`", planned.name);
        let reference = text(&found["Config"]["Image"]);
        // Podman leaves the tag out where there is a digest.
        let untagged = planned.image.split_once('@').and_then(|(name, digest)| {
            Some(format!("{}@{digest}", name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'))?.0))
        });
        let is_same = reference == planned.image
            || podman::is_podman(found)
                && [Some(familiar(&planned.image)), untagged.as_deref().map(familiar)].contains(&Some(reference));
        if !is_same {
            self.add(PROGRAMS, format!("{of}: its image is `{reference}`; planned: `{}`", planned.image));
        } else if image.is_null() {
            self.add(PROGRAMS, format!("{of}: its image `{reference}` is not on the engine"));
        } else if ![&image["Id"], &image["Descriptor"]["digest"]].contains(&&found["Image"]) {
            let (is, asked) = (text(&found["Image"]), text(&image["Id"]));
            self.add(PROGRAMS, format!("{of}: the id of its image is `{is}`; planned: `{asked}`"));
        }
    }

    /// Compares the container's own configuration. What the document does not name is the image's.
    fn config(&mut self, planned: &Container, found: &Value, image: &Value, of_client: &BTreeMap<String, String>) {
        let (of, is_podman, found) = (format!("`{}`", planned.name), podman::is_podman(found), &found["Config"]);
        let names: BTreeSet<&str> = keys(found).chain(keys(image)).collect();
        for key in names.into_iter().filter(|key| !CONFIG_NOT_COMPARED.contains(key)) {
            let (is, asked) = match key {
                "User" if planned.user.is_some() => (found[key].clone(), planned.user.clone().into()),
                "Entrypoint" if !planned.entrypoint.is_empty() => {
                    (found[key].clone(), planned.entrypoint.clone().into())
                }
                "Cmd" if !planned.command.is_empty() || !planned.entrypoint.is_empty() => {
                    (found[key].clone(), planned.command.clone().into())
                }
                "Healthcheck" if !planned.health.is_empty() => {
                    (found[key]["Test"].clone(), planned.health.clone().into())
                }
                _ => (found[key].clone(), image[key].clone()),
            };
            if is != asked && !(is_nothing(&is) && is_nothing(&asked)) {
                // Both could hold what a person wrote into a command.
                let known = ["User", "WorkingDir"].contains(&key);
                let told = if known {
                    format!("{}; planned: {}", self.shown(&is), self.shown(&asked))
                } else {
                    "not as planned".to_owned()
                };
                self.add(PROGRAMS, format!("{of}: {key} is {told}"));
            }
        }
        let (variables, mut wanted) = (environment(found), environment(image));
        wanted.extend(of_client.iter().map(|(name, value)| (name.clone(), value.clone())));
        let mut hidden = BTreeSet::new();
        for (name, value) in &planned.environment {
            match value {
                Some(value) => drop(wanted.insert(name.clone(), value.clone())),
                None => drop(hidden.insert(name)),
            }
        }
        for (name, value) in &variables {
            let problem = match wanted.get(name) {
                _ if hidden.contains(name) => continue,
                Some(wanted) if wanted == value => continue,
                Some(_) => "has another value than planned",
                None if planned.reads_file || is_podman && podman::VARIABLES.contains(&name.as_str()) => continue,
                None => "is not planned",
            };
            self.add(PROGRAMS, format!("{of}: the variable `{name}` {problem}"));
        }
        let missing =
            |name: &&String| !variables.contains_key(*name) && !hidden.contains(name) && !of_client.contains_key(*name);
        if let Some(name) = wanted.keys().find(missing) {
            self.add(PROGRAMS, format!("{of}: the variable `{name}` is not set"));
        }
    }

    fn network(&mut self, planned: &Network, found: &Value, own: &BTreeSet<&str>) {
        let of = format!("the network `{}`", planned.name);
        if found.is_null() {
            return self.add(ATTACHMENTS, format!("{of} does not exist"));
        }
        let mut told = |problem: String| self.found.push((ATTACHMENTS, format!("{of} {problem}")));
        for (key, asked) in [("Internal", planned.is_internal), ("EnableIPv6", planned.has_ipv6)] {
            if let Some(asked) = asked
                && found[key] != asked
            {
                told(format!("has {key} {}; planned: {asked}", found[key]));
            }
        }
        if text(&found["Driver"]) != "bridge" {
            told(format!("has the driver `{}`; planned: `bridge`", text(&found["Driver"])));
        }
        for (kind, wanted) in [("Options", &planned.options), ("Labels", &planned.labels)] {
            for (key, value) in wanted.iter().filter(|(key, value)| text(&found[kind][*key]) != **value) {
                told(format!("has `{}` as `{key}`; planned: `{value}`", text(&found[kind][key])));
            }
        }
        if planned.is_internal == Some(true) && found["HostAddress"] == true {
            told("has a name server or a route, and so an address of the host".to_owned());
        }
        let subnets: Vec<&str> = list(&found["IPAM"]["Config"]).map(|config| text(&config["Subnet"])).collect();
        if !planned.subnets.is_empty() && subnets != planned.subnets {
            told(format!("has the subnets {subnets:?}; planned: {:?}", planned.subnets));
        }
        // What is at an address of the internal network is taken for a sidecar.
        let strangers =
            found["Containers"].as_object().into_iter().flatten().filter(|(id, _)| !own.contains(id.as_str()));
        if found["Internal"] == true {
            for (_, stranger) in strangers {
                told(format!("has the container `{}`, which is not the bottle's", text(&stranger["Name"])));
            }
        }
    }

    fn volume(&mut self, planned: &Volume, found: &Value) {
        let of = format!("the volume `{}`", planned.name);
        if found.is_null() {
            return self.add(VOLUMES, format!("{of} does not exist"));
        }
        if text(&found["Driver"]) != planned.driver {
            self.add(
                VOLUMES,
                format!("{of} has the driver `{}`; planned: `{}`", text(&found["Driver"]), planned.driver),
            );
        }
        let options: BTreeMap<&str, &str> =
            keys(&found["Options"]).map(|key| (key, text(&found["Options"][key]))).collect();
        let wanted: BTreeMap<&str, &str> = planned.options.iter().map(|(key, value)| (&**key, &**value)).collect();
        if options != wanted {
            let is = self.shown(&found["Options"]);
            self.add(VOLUMES, format!("{of} has the options {is}; planned: {wanted:?}"));
        }
        if let Some((label, _)) = planned.labels.iter().find(|(key, value)| text(&found["Labels"][*key]) != **value) {
            self.add(VOLUMES, format!("{of}: the label `{label}` is not as planned"));
        }
    }
}

/// Returns the protection that a setting of the host configuration belongs to.
fn protection(key: &str) -> &'static str {
    let names = |known: &&str| known.strip_suffix('*').map_or(*known == key, |prefix| key.starts_with(prefix));
    PROTECTIONS.iter().find(|(_, keys)| keys.iter().any(names)).map_or(SETTINGS, |(protection, _)| protection)
}

/// Returns an option of a mount that changes what is mounted or how. Propagation that stays in the container does not.
fn odd_option(mount: &Value) -> Option<String> {
    let known = |kind: &str, key: &str, value: &Value| match (kind, key) {
        ("VolumeOptions", "NoCopy" | "Subpath" | "Labels") | ("BindOptions", "CreateMountpoint") => true,
        ("BindOptions", "Propagation") => matches!(text(value), "" | "private" | "rprivate"),
        _ => is_hollow(value),
    };
    for (key, value) in mount.as_object().into_iter().flatten() {
        match &**key {
            "Type" | "Source" | "Target" | "ReadOnly" | "Consistency" => {}
            "VolumeOptions" | "BindOptions" => {
                let odd = value.as_object().into_iter().flatten().find(|(option, value)| !known(key, option, value));
                if let Some((option, _)) = odd {
                    return Some(format!("{key}.{option}"));
                }
            }
            _ if is_hollow(value) => {}
            _ => return Some(key.clone()),
        }
    }
    None
}

/// Returns true for a value without anything in it.
fn is_hollow(value: &Value) -> bool {
    match value {
        Value::Object(entries) => entries.values().all(is_hollow),
        value => is_nothing(value),
    }
}

#[cfg(test)]
mod tests;
