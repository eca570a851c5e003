//! The containers, networks and volumes of a Compose document, in the engine's terms.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bottle_compose::ComposeFile;
use bottle_compose::document::{self, Mount, Service, Variable};
use bottle_compose::sidecar::INTERNAL;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Everything that a document asks the engine for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Planned {
    pub(crate) containers: Vec<Container>,
    pub(crate) networks: Vec<Network>,
    pub(crate) volumes: Vec<Volume>,
}

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Container {
    pub(crate) service: String,
    pub(crate) name: String,
    /// Reference of its image.
    pub(crate) image: String,
    /// Id that the reference had at the launch. `None` before its end.
    #[serde(default)]
    pub(crate) image_id: Option<String>,
    pub(crate) user: Option<String>,
    /// Program in the place of the image's entry point and command. Empty: those of the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) entrypoint: Vec<String>,
    /// Arguments of the image's entry point. Empty: those of the image.
    pub(crate) command: Vec<String>,
    /// Command of the health check, or `NONE`. Empty: that of the image.
    pub(crate) health: Vec<String>,
    /// Variables, without those of the image. `None`: the value is in no file.
    pub(crate) environment: Vec<(String, Option<String>)>,
    /// True if a file has variables that the document does not name.
    pub(crate) reads_file: bool,
    /// Settings of the host configuration, each in its [normal] form.
    pub(crate) host: BTreeMap<String, Value>,
    pub(crate) mounts: Vec<PlannedMount>,
    /// Network mode that is not a network: `none`, or the container whose namespace is joined.
    pub(crate) mode: Option<Mode>,
    pub(crate) networks: Vec<Attachment>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Arguments that Podman creates it with. Empty for another engine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) creation: Vec<String>,
}

/// A network mode other than a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// The network namespace of this container.
    Joins(String),
    /// Any other mode, as the engine names it.
    Named(String),
}

/// A mount of a file, a directory or a volume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct PlannedMount {
    pub(crate) target: String,
    /// `bind` or `volume`.
    pub(crate) kind: String,
    /// Path of the host, or the volume's name on the engine.
    pub(crate) source: String,
    /// Part of the volume. Empty: all of it.
    pub(crate) subpath: String,
    pub(crate) read_only: bool,
}

/// An attachment to a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attachment {
    /// The network's name on the engine.
    pub(crate) network: String,
    pub(crate) aliases: Vec<String>,
    /// `None`: the engine chooses it.
    pub(crate) address: Option<String>,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    pub(crate) name: String,
    /// `None` for a network that the document does not describe.
    pub(crate) is_internal: Option<bool>,
    pub(crate) has_ipv6: Option<bool>,
    pub(crate) options: BTreeMap<String, String>,
    /// Empty: the engine chooses it.
    pub(crate) subnets: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// A volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
}

impl Planned {
    pub(crate) fn of(document: &ComposeFile) -> Self {
        let volume = |volume: &document::Volume| Volume {
            name: volume.name.clone(),
            driver: volume.driver.clone(),
            options: volume.driver_opts.clone(),
            labels: volume.labels.clone(),
        };
        Self {
            containers: document.services.iter().map(|(name, it)| Container::of(document, name, it)).collect(),
            networks: document.networks.iter().map(|(key, network)| Network::of(key, network)).collect(),
            volumes: document.volumes.iter().map(|(_, it)| volume(it)).collect(),
        }
    }

    /// Returns true for a name of a container in a network that it is attached to.
    pub(crate) fn is_name_in(&self, network: &str, name: &str) -> bool {
        self.containers.iter().any(|container| {
            let attached = container.networks.iter().find(|attachment| attachment.network == network);
            attached.is_some_and(|attachment| {
                [&container.name, &container.service].into_iter().chain(&attachment.aliases).any(|known| known == name)
            })
        })
    }
}

impl Container {
    fn of(document: &ComposeFile, name: &str, service: &Service) -> Self {
        let variable = |variable: &Variable| match variable {
            Variable::Set(name, value) => (name.clone(), Some(value.clone())),
            Variable::Bare(name) => (name.clone(), None),
        };
        let joined = |mode: &String| match mode.strip_prefix("service:").and_then(|owner| document.service(owner)) {
            Some(owner) => Mode::Joins(owner.container_name.clone()),
            None => Mode::Named(mode.clone()),
        };
        Self {
            service: name.to_owned(),
            name: service.container_name.clone(),
            image: service.image.clone(),
            image_id: None,
            user: service.user.clone(),
            entrypoint: service.entrypoint.clone(),
            command: service.command.clone(),
            health: match &service.healthcheck {
                Some(check) if check.disable => vec!["NONE".to_owned()],
                Some(check) => check.test.clone(),
                None => Vec::new(),
            },
            environment: service.environment.iter().map(variable).collect(),
            reads_file: !service.env_file.is_empty(),
            host: host(service),
            mounts: service.volumes.iter().map(|mount| PlannedMount::of(document, mount)).collect(),
            mode: service.network_mode.as_ref().map(joined),
            networks: service.networks.iter().map(|(key, it)| Attachment::of(document, key, it)).collect(),
            labels: service.labels.clone(),
            creation: Vec::new(),
        }
    }

    /// Returns what its image is looked up by.
    pub(crate) fn image(&self) -> &str {
        self.image_id.as_deref().unwrap_or(&self.image)
    }
}

/// Returns the settings of the engine's host configuration that a service asks for. All others have to be empty.
fn host(service: &Service) -> BTreeMap<String, Value> {
    // The engine allows as much swap as memory if nothing is said about it.
    let swap = service.memswap_limit.or(service.mem_limit.map(|memory| memory.saturating_mul(2)));
    let tmpfs: BTreeMap<&str, &str> =
        service.tmpfs.iter().map(|mount| mount.split_once(':').unwrap_or((mount, ""))).collect();
    let settings = [
        ("CapAdd", json!(service.cap_add)),
        ("CapDrop", json!(service.cap_drop)),
        ("SecurityOpt", json!(service.security_opt)),
        ("ReadonlyRootfs", json!(service.read_only)),
        ("Tmpfs", json!(tmpfs)),
        ("StorageOpt", json!(service.storage_opt)),
        ("PidsLimit", json!(service.pids_limit)),
        ("Memory", json!(service.mem_limit)),
        ("MemorySwap", json!(swap)),
        ("NanoCpus", json!(service.cpus.as_deref().and_then(billionths))),
        ("Sysctls", json!(service.sysctls)),
        ("Dns", json!(service.dns)),
        ("DnsSearch", json!(service.dns_search)),
        ("ExtraHosts", json!(service.extra_hosts)),
        ("Init", json!(service.init)),
        ("Runtime", json!(service.runtime)),
        ("RestartPolicy", json!(service.restart.as_deref().and_then(|policy| policy.split(':').next()))),
        ("LogConfig", json!(service.logging.as_ref().map(|it| json!({"Type": it.driver, "Config": it.options})))),
    ];
    settings.into_iter().map(|(key, value)| (key.to_owned(), normal(key, &value))).collect()
}

/// Returns a setting of the host configuration in the one form in which it is compared. Null: nothing is set.
pub(crate) fn normal(key: &str, value: &Value) -> Value {
    let texts = |change: fn(&str) -> String| {
        let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str).map(change);
        Value::from(texts.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>())
    };
    let value = match key {
        // Newer engines write the prefix.
        "CapAdd" | "CapDrop" => texts(|name| name.to_ascii_uppercase().trim_start_matches("CAP_").to_owned()),
        "SecurityOpt" => texts(|option| match option.replacen('=', ":", 1) {
            option if option == "no-new-privileges" => "no-new-privileges:true".to_owned(),
            option => option,
        }),
        "ExtraHosts" => texts(|entry| entry.replacen('=', ":", 1)),
        // Compose reads the number as one of single precision.
        "NanoCpus" => json!(value.as_u64().map_or(0, |billionths| billionths.saturating_add(500_000) / 1_000_000)),
        "RestartPolicy" => match value.as_str().or(value["Name"].as_str()) {
            None | Some("" | "no") => Value::Null,
            Some(name) => name.into(),
        },
        "Isolation" if value == "default" => Value::Null,
        _ => value.clone(),
    };
    if is_nothing(&value) { Value::Null } else { value }
}

/// Returns true for what the engine shows where nothing is set.
pub(crate) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
    }
}

impl PlannedMount {
    fn of(document: &ComposeFile, mount: &Mount) -> Self {
        let (kind, source, subpath) = match mount {
            Mount::Bind(bind) => ("bind", bind.source.clone(), String::new()),
            Mount::Volume(mount) => {
                let volume = document.volumes.iter().find(|(key, _)| *key == mount.source);
                let name = volume.map_or_else(|| mount.source.clone(), |(_, volume)| volume.name.clone());
                ("volume", name, mount.subpath.clone().unwrap_or_default())
            }
        };
        let (target, read_only) = (mount.target().to_owned(), mount.is_read_only());
        Self { target, kind: kind.to_owned(), source, subpath, read_only }
    }
}

impl fmt::Display for PlannedMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, source, subpath, read_only, .. } = self;
        let mode = if *read_only { "read-only" } else { "writable" };
        let below = if subpath.is_empty() { String::new() } else { format!(" at `{subpath}`") };
        write!(f, "the {kind} `{source}`{below}, {mode}")
    }
}

impl Attachment {
    fn of(document: &ComposeFile, key: &str, attachment: &document::Attachment) -> Self {
        let network = document.networks.iter().find(|(name, _)| name == key);
        Self {
            network: network.map_or_else(|| key.to_owned(), |(_, network)| network.name.clone()),
            aliases: attachment.aliases.clone(),
            address: attachment.ipv4_address.map(|address| address.to_string()),
        }
    }
}

impl Network {
    fn of(key: &str, network: &document::Network) -> Self {
        // Also where the document does not describe it.
        let must_be_internal = key == INTERNAL;
        let subnets = network.ipam.iter().flat_map(|ipam| &ipam.config).map(|config| config.subnet.clone());
        Self {
            name: network.name.clone(),
            is_internal: (must_be_internal || !network.external).then_some(must_be_internal || network.internal),
            has_ipv6: if must_be_internal { Some(false) } else { network.enable_ipv6 },
            options: network.driver_opts.clone(),
            subnets: subnets.collect(),
            labels: network.labels.clone(),
        }
    }
}

/// Reads a number of processors, such as `1.5`.
fn billionths(cpus: &str) -> Option<u64> {
    let (whole, fraction) = cpus.split_once('.').unwrap_or((cpus, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(digits.parse().ok()?)
}
