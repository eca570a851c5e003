//! Detection of an engine by its output instead of the name of its program.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bottle_exec::{Answer, Backend, Command, Control, Matcher, RecordingBackend, chain};
use serde::Deserialize;
use serde::de::IgnoredAny;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::client::{Engine, Limits, parse};
use crate::error::EngineError;
use crate::info::{Endpoint, EngineInfo, Flavour, Version};

/// The choice of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EngineChoice {
    /// The first of `docker`, `podman` and `nerdctl` that answers.
    #[default]
    Auto,
    /// This program, by name or path.
    Program(String),
}

impl FromStr for EngineChoice {
    type Err = std::convert::Infallible;

    /// Parses `auto`, or the name or path of a program.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "auto" { Self::Auto } else { Self::Program(text.to_owned()) })
    }
}

/// Asks Docker's client for the engine's address, and for `verified` if it has certificates and checks the engine's with them.
const ENDPOINT: &str = "{{.Endpoints.docker.Host}} \
     {{if .Endpoints.docker.SkipTLSVerify}}{{else if .TLSMaterial}}verified{{end}}";

/// Time within which a daemon must answer.
const PATIENCE: Duration = Duration::from_secs(15);

impl Engine {
    /// Queries the chosen programs and returns the first whose engine answers.
    ///
    /// # Errors
    ///
    /// [`EngineError::NoEngine`] with the error of each program, or the error of a cancellation.
    pub fn detect(backend: Arc<dyn Backend>, choice: &EngineChoice, control: Control) -> Result<Self, EngineError> {
        let programs = match choice {
            EngineChoice::Auto => vec!["docker", "podman", "nerdctl"],
            EngineChoice::Program(program) => vec![program.as_str()],
        };
        let mut tried = Vec::new();
        for program in programs {
            match (Probe { backend: &*backend, program, control: &control }).info() {
                Ok(info) => return Ok(Self { backend, info: Arc::new(info), control, limits: Limits::default() }),
                Err(error) if error.is_cancelled() => return Err(error),
                Err(error) => tried.push((program.to_owned(), chain(&error))),
            }
        }
        Err(EngineError::NoEngine { tried })
    }
}

struct Probe<'a> {
    backend: &'a dyn Backend,
    program: &'a str,
    control: &'a Control,
}

impl Probe<'_> {
    fn ask<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<(Command, String), EngineError> {
        let command = Command::new(self.program).with_args(args).with_timeout(PATIENCE);
        let output = self.backend.run(&command, self.control)?.success(&command)?;
        Ok((command, output.stdout.text()))
    }

    fn ask_json<'a, T: serde::de::DeserializeOwned>(
        &self,
        args: impl IntoIterator<Item = &'a str>,
    ) -> Result<T, EngineError> {
        let command = Command::new(self.program).with_args(args).with_timeout(PATIENCE);
        let output = self.backend.run(&command, self.control)?.success(&command)?;
        parse(&command, &output)
    }

    fn info(&self) -> Result<EngineInfo, EngineError> {
        let version: Versions = self.ask_json(["version", "--format", "{{json .}}"])?;
        match version.flavour() {
            Flavour::Podman => self.podman(),
            flavour => self.docker_like(flavour, version.client.context.unwrap_or_default()),
        }
    }

    fn docker_like(&self, flavour: Flavour, context: String) -> Result<EngineInfo, EngineError> {
        let args = ["info", "--format", "{{json .}}"];
        let info: DockerInfo = self.ask_json(args)?;
        let server_version = self.version(&args, &info.server_version)?;
        let disk_quota = flavour == Flavour::Docker && {
            // A remote engine's directory is not on this host, and is then taken to have none.
            has_disk_quota(&info, &std::fs::read_to_string("/proc/self/mounts").unwrap_or_default())
        };
        let runtimes = info.runtimes.unwrap_or_default();
        let plugin = info.client_info.and_then(|client| {
            client.plugins.into_iter().flatten().find(|plugin| plugin.name == "compose").and_then(|it| it.version)
        });
        let endpoint = match flavour {
            Flavour::Docker => self.endpoint()?,
            _ => Endpoint::new(""),
        };
        Ok(EngineInfo {
            program: self.program.to_owned(),
            flavour,
            server_version,
            compose_version: plugin.as_deref().and_then(Version::parse).or_else(|| self.compose()),
            context,
            endpoint,
            rootless: info.security_options.iter().flatten().any(|option| option.contains("rootless")),
            os: info.os_type,
            arch: info.architecture,
            own_network: runtimes.iter().filter(|(_, it)| it.has_own_network()).map(|(name, _)| name.clone()).collect(),
            runtimes: runtimes.into_keys().collect(),
            memory: info.mem_total,
            processors: info.processors.filter(|_| info.can_limit_processors),
            disk_quota,
            data_root: Some(info.docker_root_dir).filter(|root| root.is_absolute()),
            seccomp_profile: None,
            clock_ahead: info.system_time.as_deref().and_then(clock_ahead),
        })
    }

    /// Returns the address of the engine.
    fn endpoint(&self) -> Result<Endpoint, EngineError> {
        let (_, text) = self.ask(["context", "inspect", "--format", ENDPOINT])?;
        let (address, tls) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let endpoint = Endpoint::new(address);
        if endpoint.needs_tls() && tls != "verified" {
            return Err(EngineError::NotEncrypted { address: endpoint.address });
        }
        Ok(endpoint)
    }

    fn podman(&self) -> Result<EngineInfo, EngineError> {
        let args = ["info", "--format", "json"];
        let info: PodmanInfo = self.ask_json(args)?;
        let remote = info.host.service_is_remote.then_some(info.host.remote_socket).flatten();
        Ok(EngineInfo {
            program: self.program.to_owned(),
            flavour: Flavour::Podman,
            server_version: self.version(&args, &info.version.version)?,
            compose_version: None,
            context: String::new(),
            endpoint: remote.map_or_else(
                || Endpoint::new(""),
                // A remote Podman's socket path is a path on the remote host.
                |socket| Endpoint { address: socket.path, is_local: false },
            ),
            rootless: info.host.security.rootless,
            os: info.host.os,
            arch: info.host.arch,
            runtimes: info.host.oci_runtime.map(|runtime| runtime.name).into_iter().collect(),
            own_network: BTreeSet::new(),
            memory: info.host.mem_total,
            processors: info.host.cpus.filter(|_| info.host.cgroup_controllers.iter().any(|it| it == "cpu")),
            disk_quota: false,
            data_root: None,
            seccomp_profile: info.host.security.seccomp_profile_path.filter(|path| path.is_absolute()),
            clock_ahead: None,
        })
    }

    /// Returns the version of Docker Compose 2, if the engine uses it.
    fn compose(&self) -> Option<Version> {
        let (_, text) = self.ask(["compose", "version"]).ok()?;
        Version::parse(text.trim().strip_prefix("Docker Compose version ")?)
    }

    fn version(&self, args: &[&str], text: &str) -> Result<Version, EngineError> {
        Version::parse(text).ok_or_else(|| {
            EngineError::answer(&Command::new(self.program).with_args(args), "it names no version of the engine", text)
        })
    }
}

/// Returns true if a container of Docker can have a limit for the size of its files. With overlay2, the directory of the
/// engine has to be on XFS that was mounted with project quotas. `mounts` is the kernel's list of mounts.
fn has_disk_quota(info: &DockerInfo, mounts: &str) -> bool {
    match info.driver.as_str() {
        "btrfs" | "zfs" | "windowsfilter" => true,
        "overlay2" => {
            let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            let mounts = fields.filter(|fields| fields.len() > 3 && info.docker_root_dir.starts_with(fields[1]));
            // The last one of the longest is in effect.
            let mount = mounts.max_by_key(|fields| fields[1].len());
            mount.is_some_and(|fields| {
                fields[2] == "xfs" && fields[3].split(',').any(|option| matches!(option, "prjquota" | "pquota"))
            })
        }
        _ => false,
    }
}

/// Returns the seconds by which a time that the engine has just reported is ahead of this host's clock.
fn clock_ahead(told: &str) -> Option<i64> {
    let engine = OffsetDateTime::parse(told, &Rfc3339).ok()?;
    Some((engine - OffsetDateTime::from(SystemTime::now())).whole_seconds())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Versions {
    client: ClientVersion,
    server: Option<ServerVersion>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ClientVersion {
    /// Only Podman uses this spelling; Docker has `ApiVersion`.
    #[serde(rename = "APIVersion")]
    podman_api: Option<IgnoredAny>,
    context: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServerVersion {
    components: Option<Vec<Component>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Component {
    name: String,
}

impl Versions {
    fn flavour(&self) -> Flavour {
        let server = |name: &str| {
            let components = self.server.as_ref().and_then(|server| server.components.as_ref());
            components.is_some_and(|components| components.iter().any(|component| component.name == name))
        };
        if self.client.podman_api.is_some() {
            Flavour::Podman
        } else if server("containerd") && !server("Engine") {
            Flavour::Nerdctl
        } else {
            Flavour::Docker
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerInfo {
    /// Empty if the client found no daemon.
    #[serde(default)]
    server_version: String,
    #[serde(rename = "OSType", default)]
    os_type: String,
    #[serde(default)]
    architecture: String,
    /// Storage driver, such as `overlay2`.
    #[serde(default)]
    driver: String,
    #[serde(default)]
    docker_root_dir: std::path::PathBuf,
    system_time: Option<String>,
    mem_total: Option<u64>,
    #[serde(rename = "NCPU")]
    processors: Option<u32>,
    #[serde(rename = "CpuCfsQuota", default)]
    can_limit_processors: bool,
    security_options: Option<Vec<String>>,
    runtimes: Option<BTreeMap<String, RuntimeInfo>>,
    client_info: Option<ClientInfo>,
}

/// A runtime. Of one that the engine finds by the type of its shim, neither program nor arguments are known.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeInfo {
    path: Option<String>,
    runtime_args: Option<Vec<String>>,
}

impl RuntimeInfo {
    /// Returns true for gVisor, unless its last argument for the network is `host`. The default is a stack of its own. A
    /// wrapper of another name may add the argument.
    fn has_own_network(&self) -> bool {
        let program = self.path.as_deref().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let mut arguments = self.runtime_args.iter().flatten().map(|argument| argument.trim_start_matches('-'));
        let mut network = None;
        while let Some(argument) = arguments.next() {
            match argument.split_once('=') {
                Some(("network", value)) => network = Some(value),
                None if argument == "network" => network = arguments.next(),
                _ => {}
            }
        }
        program == "runsc" && network != Some("host")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ClientInfo {
    plugins: Option<Vec<Plugin>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Plugin {
    name: String,
    version: Option<String>,
}

#[derive(Deserialize)]
struct PodmanInfo {
    host: PodmanHost,
    version: PodmanVersion,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodmanHost {
    os: String,
    arch: String,
    mem_total: Option<u64>,
    cpus: Option<u32>,
    #[serde(default)]
    cgroup_controllers: Vec<String>,
    /// `None` if Podman cannot start its runtime.
    oci_runtime: Option<PodmanRuntime>,
    remote_socket: Option<PodmanSocket>,
    #[serde(default)]
    service_is_remote: bool,
    security: PodmanSecurity,
}

#[derive(Deserialize)]
struct PodmanRuntime {
    name: String,
}

#[derive(Deserialize)]
struct PodmanSocket {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodmanSecurity {
    rootless: bool,
    seccomp_profile_path: Option<std::path::PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PodmanVersion {
    version: String,
}

/// Returns a backend that answers like a current Docker without any images or containers, for rehearsals and tests
/// of launching code.
pub fn rehearsal() -> RecordingBackend {
    const VERSION: &str = r#"{"Client":{"ApiVersion":"1.51","Context":"default"},
        "Server":{"Components":[{"Name":"Engine"}]}}"#;
    const INFO: &str = r#"{"ServerVersion":"28.3.0","OSType":"linux","Architecture":"x86_64",
        "SecurityOptions":["name=seccomp,profile=builtin"],"Runtimes":{"runc":{},"runsc":{}},
        "ClientInfo":{"Plugins":[{"Name":"compose","Version":"v2.38.1"}]}}"#;
    const NETWORK: &str = r#"[{"Id":"0","Name":"rehearsed","Internal":true,"Labels":{},"Options":{},
        "IPAM":{"Config":[{"Subnet":"192.0.2.0/24"}]},"Containers":{}}]"#;
    const CONTAINER: &str = r#"[{"Id":"0","Name":"/rehearsed","State":{"Status":"running","Running":true,
        "ExitCode":0,"Health":{"Status":"healthy"}},"Config":{"Labels":{},"Image":"","User":"","WorkingDir":"/"},
        "HostConfig":{"Runtime":"runc"}}]"#;
    let absent = |what: &str| Answer::exit(1).with_stderr(format!("Error: No such {what}: rehearsed\n"));
    RecordingBackend::new()
        .with_answer(Matcher::prefix(["version"]), Answer::stdout(VERSION))
        .with_answer(Matcher::prefix(["info"]), Answer::stdout(INFO))
        .with_answer(Matcher::prefix(["context", "inspect"]), Answer::stdout("unix:///var/run/docker.sock\n"))
        .with_answer(Matcher::prefix(["image", "inspect"]), absent("image"))
        .with_answer(Matcher::prefix(["network", "inspect"]), Answer::stdout(NETWORK))
        .with_answer(Matcher::prefix(["container", "inspect"]), Answer::stdout(CONTAINER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_needs_a_storage_driver_that_has_one() {
        let mounts =
            "/dev/vda / ext4 rw 0 0\n/dev/vdb /data xfs rw,prjquota 0 0\n/dev/vdc /data/plain xfs rw,noquota 0 0\n";
        for (driver, root, wanted) in [
            ("btrfs", "/var/lib/docker", true),
            ("zfs", "/var/lib/docker", true),
            ("overlay2", "/var/lib/docker", false),
            ("overlay2", "/data/docker", true),
            ("overlay2", "/data/plain/docker", false),
            ("overlay2", "/database", false),
            ("vfs", "/data/docker", false),
        ] {
            let info = serde_json::json!({"Driver": driver, "DockerRootDir": root});
            let info: DockerInfo = serde_json::from_value(info).unwrap();
            assert_eq!(has_disk_quota(&info, mounts), wanted, "{driver} {root}");
        }
    }
}
