//! The typed Compose document: the part of the Compose specification that a bottle uses, in output order.
//!
//! Every string is literal. A `$` that Compose would interpolate is escaped when the document is written as YAML.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use bottle_plan::value::EnvName;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// A Compose file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComposeFile {
    /// The project's name.
    pub name: String,
    /// The services, in order of writing.
    #[serde(serialize_with = "in_order")]
    pub services: Vec<(String, Service)>,
    /// The networks, in order of writing.
    #[serde(serialize_with = "in_order")]
    pub networks: Vec<(String, Network)>,
    /// The volumes, in order of writing.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "in_order")]
    pub volumes: Vec<(String, Volume)>,
    /// Containers that get credentials once they run, each with its slots. They are not in the file.
    #[serde(skip)]
    pub credentials: Vec<(String, Vec<EnvName>)>,
    /// Files and directories of this host that the store gets once it runs, each with its path there. Empty if the
    /// containers bind them. They are not in the file.
    #[serde(skip)]
    pub stored: Vec<(std::path::PathBuf, String)>,
    /// Lines of the file's header comment, one item each.
    #[serde(skip)]
    pub header: Vec<String>,
}

impl ComposeFile {
    /// Returns the service of this name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|(known, _)| known == name).map(|(_, service)| service)
    }
}

/// Serializes pairs as a mapping and keeps their order.
fn in_order<S: Serializer, T: Serialize>(pairs: &[(String, T)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(pairs.len()))?;
    for (key, value) in pairs {
        map.serialize_entry(key, value)?;
    }
    map.end()
}

/// A service.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Service {
    /// The image.
    pub image: String,
    /// Build context of the image, for a person who reads the file. The launcher builds the image before `up`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
    /// Pull policy of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,
    /// The container's name.
    pub container_name: String,
    /// The program, and its arguments, in the place of the image's entry point and command. Empty: those of the image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The arguments of the image's entry point.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// OCI runtime. `None`: the engine's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// User that the container's processes run as. `None`: the image's user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Runs a small init as process 1, which forwards signals and reaps children.
    #[serde(skip_serializing_if = "is_false")]
    pub init: bool,
    /// The service whose network namespace the container joins, `service:<name>`; `None` for a namespace of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_mode: Option<String>,
    /// The networks; empty if the container joins another service's namespace.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "in_order")]
    pub networks: Vec<(String, Attachment)>,
    /// Additional entries of the container's hosts file, as `host:address`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<String>,
    /// Servers to which the engine's resolver forwards names outside the project.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// Search domains of the resolver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<String>,
    /// Environment variables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<Variable>,
    /// Environment files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env_file: Vec<String>,
    /// Bind mounts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Mount>,
    /// tmpfs mounts, with their options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<String>,
    /// Mounts the root file system read-only.
    #[serde(skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// Capabilities that are added to those that were not dropped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    /// Capabilities that are dropped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    /// Security options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security_opt: Vec<String>,
    /// Kernel parameters of the container's namespaces.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Maximum number of processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u32>,
    /// Memory limit in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_limit: Option<u64>,
    /// Limit for memory and swap together, in bytes. Equal to `mem_limit`: no swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memswap_limit: Option<u64>,
    /// Maximum number of processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    /// Options of the storage driver, such as `size`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_opt: BTreeMap<String, String>,
    /// Time between SIGTERM and SIGKILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grace_period: Option<String>,
    /// Restart policy. `None`: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<String>,
    /// Health check of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthCheck>,
    /// Services that must be ready before this one starts.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "in_order")]
    pub depends_on: Vec<(String, Dependency)>,
    /// Limit on the logs that are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// Build context and arguments of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Build {
    /// The directory.
    pub context: String,
    /// The build arguments.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
}

/// Pull policy of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    /// Never: the launcher has built the image, and an image of this name in a registry would be untrusted.
    Never,
}

/// Attachment of a service to a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attachment {
    /// Additional names of the service in this network.
    pub aliases: Vec<String>,
    /// Address of the service in this network. Default: one that the engine chooses at each start.
    pub ipv4_address: Option<Ipv4Addr>,
}

impl Serialize for Attachment {
    /// Writes null if there is nothing to say, as Compose's documentation does.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if *self == Self::default() {
            return serializer.serialize_unit();
        }
        let mut map = serializer.serialize_map(None)?;
        if !self.aliases.is_empty() {
            map.serialize_entry("aliases", &self.aliases)?;
        }
        if let Some(address) = self.ipv4_address {
            map.serialize_entry("ipv4_address", &address)?;
        }
        map.end()
    }
}

/// A variable of a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variable {
    /// A name and its value.
    Set(String, String),
    /// A bare name. Compose takes the value from its own environment, so it is in no file.
    Bare(String),
}

impl Variable {
    /// Returns a variable with its value.
    pub fn set(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self::Set(name.into(), value.into())
    }

    /// Returns the variable's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Set(name, _) | Self::Bare(name) => name,
        }
    }
}

impl Serialize for Variable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Set(name, value) => serializer.collect_str(&format_args!("{name}={value}")),
            Self::Bare(name) => serializer.serialize_str(name),
        }
    }
}

/// A mount of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// A path of the host.
    Bind(Bind),
    /// A volume of the document.
    Volume(VolumeMount),
}

impl Mount {
    /// Returns the path in the container.
    pub fn target(&self) -> &str {
        match self {
            Self::Bind(bind) => &bind.target,
            Self::Volume(volume) => &volume.target,
        }
    }

    /// Returns true if the container may not write to the mount.
    pub const fn is_read_only(&self) -> bool {
        match self {
            Self::Bind(bind) => bind.read_only,
            Self::Volume(volume) => volume.read_only,
        }
    }

    /// Returns the bind mount, or `None` for a volume.
    pub const fn as_bind(&self) -> Option<&Bind> {
        match self {
            Self::Bind(bind) => Some(bind),
            Self::Volume(_) => None,
        }
    }
}

impl From<Bind> for Mount {
    fn from(bind: Bind) -> Self {
        Self::Bind(bind)
    }
}

impl Serialize for Mount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bind(bind) => bind.serialize(serializer),
            Self::Volume(volume) => volume.serialize(serializer),
        }
    }
}

/// A mount of a volume of the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMount {
    /// The volume's name in the document.
    pub source: String,
    /// The file or directory of the volume that is mounted. `None`: the whole volume.
    pub subpath: Option<String>,
    /// The path in the container.
    pub target: String,
    /// `true` if the container may not write to the mount.
    pub read_only: bool,
    /// `true` if the engine gives a new volume the mode and the files that the image has at the path.
    pub of_image: bool,
}

impl Serialize for VolumeMount {
    /// Writes the long form.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Options<'a> {
            nocopy: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            subpath: Option<&'a str>,
        }
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry("type", "volume")?;
        map.serialize_entry("source", &self.source)?;
        map.serialize_entry("target", &self.target)?;
        map.serialize_entry("read_only", &self.read_only)?;
        map.serialize_entry("volume", &Options { nocopy: !self.of_image, subpath: self.subpath.as_deref() })?;
        map.end()
    }
}

/// A bind mount in the long form, which accepts any path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// The path on the host.
    pub source: String,
    /// The path in the container.
    pub target: String,
    /// `true` if the container may not write to the mount.
    pub read_only: bool,
}

impl Bind {
    /// Returns a mount that the container may only read.
    pub fn read_only(source: &std::path::Path, target: impl Into<String>) -> Self {
        Self { source: source.to_string_lossy().into_owned(), target: target.into(), read_only: true }
    }

    /// Returns a mount that the container may write.
    pub fn writable(source: &std::path::Path, target: impl Into<String>) -> Self {
        Self { read_only: false, ..Self::read_only(source, target) }
    }
}

impl Serialize for Bind {
    /// Writes the long form. The engine must not create a missing source: it would be a directory owned by root, which
    /// hides the mistake.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Options {
            create_host_path: bool,
        }
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry("type", "bind")?;
        map.serialize_entry("source", &self.source)?;
        map.serialize_entry("target", &self.target)?;
        map.serialize_entry("read_only", &self.read_only)?;
        map.serialize_entry("bind", &Options { create_host_path: false })?;
        map.end()
    }
}

/// Health check of a service. Times are Compose durations, such as `5s`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HealthCheck {
    /// True if the service has none, not even that of its image. Everything else is then empty.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub disable: bool,
    /// `CMD` and the command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between probes of a service that has started.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interval: String,
    /// Time that one probe may take.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub timeout: String,
    /// Number of consecutive failures that make the service unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: u32,
    /// Time that the service has to start, during which failures do not count.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub start_period: String,
    /// Time between probes while it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<String>,
}

impl HealthCheck {
    /// Returns the setting that takes the health check of an image away.
    pub fn disabled() -> Self {
        Self { disable: true, ..Self::default() }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as Serde calls it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A service that must be ready first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// Condition that the dependency must have reached.
    pub condition: Condition,
}

/// Condition that a dependency must have reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Its health check passes.
    ServiceHealthy,
    /// It was started.
    ServiceStarted,
}

/// Limit on the logs that are kept of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Logging {
    /// The engine's logging driver.
    pub driver: String,
    /// Its options.
    pub options: BTreeMap<String, String>,
}

/// A network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Network {
    /// The name on the engine.
    pub name: String,
    /// `true` if something other than this Compose project creates and removes the network.
    #[serde(skip_serializing_if = "is_false")]
    pub external: bool,
    /// `true` if the network is internal: its containers reach no outside host.
    #[serde(skip_serializing_if = "is_false")]
    pub internal: bool,
    /// IPv6 setting. `None` for an external network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_ipv6: Option<bool>,
    /// Options of the network's driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
    /// Address ranges of the network. `None`: the engine chooses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipam: Option<Ipam>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// The name on the engine.
    pub name: String,
    /// The volume's driver.
    pub driver: String,
    /// Options of the driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// Address ranges of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ipam {
    /// One entry for each subnet.
    pub config: Vec<IpamConfig>,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IpamConfig {
    /// Range in CIDR notation.
    pub subnet: String,
}
