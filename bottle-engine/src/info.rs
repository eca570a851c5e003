//! The description and capabilities of an engine.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Serialize;

/// The product that an engine's command line belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// Docker.
    Docker,
    /// Podman, also under the name `docker`.
    Podman,
    /// nerdctl over containerd.
    Nerdctl,
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Nerdctl => "nerdctl",
        })
    }
}

/// A version, compared by its first three numbers. The rest is only displayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    text: String,
    numbers: [u32; 3],
}

impl Version {
    /// Parses the first three numbers of a text such as `v2.26.1-4` or `26.1.5+dfsg1`. Returns `None` if the text does
    /// not start with a number.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut parts = text.trim_start_matches('v').split('.');
        let mut number = || {
            let part = parts.next()?;
            part[..part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len())].parse().ok()
        };
        let numbers = [number()?, number().unwrap_or(0), number().unwrap_or(0)];
        Some(Self { text: text.to_owned(), numbers })
    }

    /// Returns true if it is this version or a later one.
    pub fn is_at_least(&self, major: u32, minor: u32, patch: u32) -> bool {
        self.numbers >= [major, minor, patch]
    }

    /// Returns the major version.
    pub const fn major(&self) -> u32 {
        self.numbers[0]
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// The address of an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Address as the client reports it. Empty if there is none, as with Podman without a service.
    pub address: String,
    /// True if the engine sees this host's files, so that bind mounts work. This is the case for a socket of this host.
    pub is_local: bool,
}

impl Endpoint {
    pub(crate) fn new(address: &str) -> Self {
        let is_local = address.is_empty() || address.starts_with("unix://") || address.starts_with("npipe://");
        Self { address: address.to_owned(), is_local }
    }

    /// Returns true if the address is one of TCP that is not on this host's loopback interface. Without TLS, everyone on the
    /// way could read and change what is sent.
    pub(crate) fn needs_tls(&self) -> bool {
        let host = ["tcp://", "http://"].iter().find_map(|scheme| self.address.strip_prefix(scheme));
        host.is_some_and(|host| {
            let host = host.split('/').next().unwrap_or(host);
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
            name != "localhost" && !name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        })
    }
}

/// The description of an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EngineInfo {
    /// Program of the engine's client.
    pub program: String,
    /// Product that the command line belongs to.
    pub flavour: Flavour,
    /// Version of the engine, not of the client.
    pub server_version: Version,
    /// Version of Docker Compose 2. `None` if the engine has another composer or none.
    pub compose_version: Option<Version>,
    /// Context of the client, which is also the name of its builder. Empty for engines without contexts.
    pub context: String,
    /// Address of the engine.
    pub endpoint: Endpoint,
    /// True if the engine runs without root privileges.
    pub rootless: bool,
    /// Operating system of the containers, such as `linux`.
    pub os: String,
    /// Processor architecture as the engine names it, such as `x86_64` or `aarch64`.
    pub arch: String,
    /// Names of the runtimes that a service can use.
    pub runtimes: BTreeSet<String>,
    /// Names of those runtimes whose containers have a network stack of their own, which no firewall rule of the kernel
    /// applies to: gVisor without `--network=host`.
    pub own_network: BTreeSet<String>,
    /// Memory that the containers share, in bytes. `None` if the engine does not report it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Number of processors. `None` if the engine does not report it, or cannot limit a container's use of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processors: Option<u32>,
    /// True if the engine's storage driver can limit the size of a container's files.
    pub disk_quota: bool,
    /// Directory of the engine's data. `None` if the engine does not report it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_root: Option<PathBuf>,
    /// File with the filter of system calls that the engine gives to containers. `None` if the engine does not report it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp_profile: Option<PathBuf>,
    /// Seconds by which the engine's clock is ahead of this host's; negative when it is behind. `None` when the engine
    /// does not tell its time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_ahead: Option<i64>,
}

impl EngineInfo {
    /// Returns a warning when the engine's clock and this host's differ by more than a minute: certificates that one
    /// accepts are not valid yet, or no longer, for the other.
    pub fn clock_warning(&self) -> Option<String> {
        let ahead = self.clock_ahead.filter(|seconds| seconds.unsigned_abs() > 60)?;
        let word = if ahead > 0 { "ahead of" } else { "behind" };
        Some(format!(
            "the engine's clock is {} s {word} this host's; certificates can be refused",
            ahead.unsigned_abs()
        ))
    }

    /// Returns the capabilities of the engine that bottles use.
    pub fn capabilities(&self) -> Capabilities {
        let docker = self.flavour == Flavour::Docker;
        let server = |major, minor, patch| docker && self.server_version.is_at_least(major, minor, patch);
        let compose = |major, minor, patch| {
            self.flavour != Flavour::Nerdctl
                && self.compose_version.as_ref().is_some_and(|version| version.is_at_least(major, minor, patch))
        };
        let major = self.server_version.major();
        // Without root, nobody but Podman's own user could read the files of a bottle. Another runtime than these may have a
        // network of its own, which the seal's rules do not apply to.
        let podman = self.flavour == Flavour::Podman
            && self.server_version.is_at_least(5, 4, 0)
            && !self.rootless
            && self.endpoint.is_local
            && self.seccomp_profile.is_some()
            && self.runtimes.iter().all(|runtime| matches!(runtime.as_str(), "crun" | "runc"));
        Capabilities {
            compose_wait: if self.flavour == Flavour::Podman { podman } else { compose(2, 20, 0) },
            inhibit_ipv4: docker,
            no_name_server: podman,
            gateway_mode_isolated: server(28, 0, 0),
            start_interval: server(25, 0, 0) && compose(2, 20, 2),
            sealed_resolver: podman
                || server(26, 0, 0)
                || (major == 25 && server(25, 0, 5))
                || (major == 23 && server(23, 0, 11)),
            local_files: self.endpoint.is_local,
            volume_subpath: server(26, 0, 0) && compose(2, 26, 0),
            disk_quota: self.disk_quota,
            runtimes: self.runtimes.clone(),
            own_network: self.own_network.clone(),
        }
    }
}

impl fmt::Display for EngineInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.flavour, self.server_version)?;
        match &self.compose_version {
            Some(version) => write!(f, " with Compose {version}"),
            None if self.flavour != Flavour::Podman => f.write_str(" without Docker Compose"),
            None if self.rootless => f.write_str(" without root"),
            None => Ok(()),
        }
    }
}

/// The capabilities of an engine that bottles use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact about the engine")]
#[non_exhaustive]
pub struct Capabilities {
    /// `compose up --wait --wait-timeout` and the global options that are given with it: Docker Compose 2.20. Or what replaces
    /// it: Podman 5.4 with root, on this host, and with the runtime crun or runc.
    pub compose_wait: bool,
    /// The bridge option `com.docker.network.bridge.inhibit_ipv4`: Docker.
    pub inhibit_ipv4: bool,
    /// Internal networks without a name server, on which the host has no address: Podman 5.4 with root.
    pub no_name_server: bool,
    /// The bridge options `gateway_mode_ipv4` and `gateway_mode_ipv6` with the value `isolated`: Docker 28.
    pub gateway_mode_isolated: bool,
    /// `start_interval` in a health check: Docker 25 and Compose 2.20.2.
    pub start_interval: bool,
    /// The engine's resolver does not forward queries from an internal network (CVE-2024-29018): Docker 23.0.11, 25.0.5
    /// and 26.0. Podman has none there.
    pub sealed_resolver: bool,
    /// The engine sees this host's files.
    pub local_files: bool,
    /// Mounts of one file or directory of a volume: Docker 26 and Compose 2.26.
    pub volume_subpath: bool,
    /// `storage_opt: {size: …}`: the storage drivers btrfs, zfs and windowsfilter, and overlay2 on XFS with project quotas.
    pub disk_quota: bool,
    /// Names of the runtimes that a service can use.
    pub runtimes: BTreeSet<String>,
    /// Names of those runtimes whose containers have a network stack of their own, which no firewall rule of the kernel
    /// applies to: gVisor without `--network=host`.
    pub own_network: BTreeSet<String>,
}

impl Capabilities {
    /// Returns true if the engine has this capability.
    pub fn has(&self, capability: &Capability) -> bool {
        match capability {
            Capability::ComposeWait => self.compose_wait,
            Capability::InhibitIpv4 => self.inhibit_ipv4,
            Capability::SealedResolver => self.sealed_resolver,
            Capability::Files => self.local_files || self.volume_subpath,
            Capability::Runtime(name) => self.runtimes.contains(name),
            Capability::KernelNetwork(name) => !self.own_network.contains(name),
        }
    }
}

/// A capability of an engine. See the fields of [`Capabilities`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Capability {
    /// Starting a project and waiting until it is healthy.
    ComposeWait,
    /// A bridge without an IPv4 address of the host.
    InhibitIpv4,
    /// A resolver that does not forward queries from an internal network.
    SealedResolver,
    /// Mounts of a bottle's files: bind mounts of this host's, or of single files of a volume.
    Files,
    /// A runtime, by its name: `runsc`.
    Runtime(String),
    /// The kernel's network stack in the containers of a runtime.
    KernelNetwork(String),
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ComposeWait => {
                "`compose up --wait` of Docker Compose 2.20 or later, or Podman 5.4 or later, with root, on this host, and with crun or runc"
            }
            Self::InhibitIpv4 => "the bridge option `inhibit_ipv4`",
            Self::SealedResolver => {
                "a resolver that is sealed against CVE-2024-29018, as of Docker 23.0.11, 25.0.5 and 26.0"
            }
            Self::Files => "bind mounts of this host's files, or mounts of single files of a volume",
            Self::Runtime(name) => return write!(f, "the runtime `{name}`"),
            Self::KernelNetwork(name) => {
                return write!(
                    f,
                    "the runtime `{name}` with `--network=host` among its `runtimeArgs`, without which no firewall rule applies to it"
                );
            }
        })
    }
}
