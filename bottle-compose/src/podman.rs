//! The commands that create a document's volumes and containers with Podman, which has no Compose of its own.
//!
//! They give what Compose would give: the labels by which a project is found, and the names of the services. The internal
//! network has no name server, because Podman gives the host an address on a network that has one. The names are in the
//! containers' hosts files.

use std::collections::BTreeMap;
use std::path::Path;

use bottle_plan::BottlePlan;
use bottle_plan::manifest::SecretsMode;
use serde_json::{Value, json};

use crate::document::{ComposeFile, Condition, HealthCheck, Mount, Service, Variable, Volume};
use crate::sidecar::INTERNAL;

/// Labels that Compose gives to what it creates.
const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
const DEPENDS_ON: &str = "com.docker.compose.depends_on";

/// Returns what of a plan cannot hold with Podman: each key of the manifest, and the problem.
pub fn unsupported(plan: &BottlePlan) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    if plan.secrets == SecretsMode::Environment {
        let problem =
            "it is for Compose, and Podman gives the sidecar's user no directory in memory; accepted: `memory`";
        problems.push((plan.bottle_key("secrets"), problem.to_owned()));
    }
    if plan.agent.env_file.is_some() {
        let problem = "Podman reads such a file in another way than Compose; accepted: `env`";
        problems.push((plan.bottle_key("env_file"), problem.to_owned()));
    }
    problems
}

/// System calls that Podman allows, for containers in containers, and Docker does not: they make namespaces and mounts, and use
/// the kernel's keyrings, which containers share.
const TOO_MUCH: [&str; 21] = [
    "add_key",
    "clone",
    "clone3",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "keyctl",
    "mount",
    "mount_setattr",
    "move_mount",
    "name_to_handle_at",
    "open_tree",
    "pivot_root",
    "reboot",
    "request_key",
    "setns",
    "syslog",
    "umount",
    "umount2",
    "unshare",
];

/// Flags of `clone` for a new namespace.
const NEW_NAMESPACES: u32 = 0x7E02_0000;

/// Returns Podman's filter of system calls without what a bottle must not do. Processes and threads can still be made.
///
/// # Errors
///
/// Returns the problem if the text is no such filter.
pub fn seccomp(profile: &str) -> Result<String, String> {
    let mut profile: Value = serde_json::from_str(profile).map_err(|error| error.to_string())?;
    let rules = profile["syscalls"].as_array_mut().ok_or("it has no list `syscalls`")?;
    for rule in rules.iter_mut().filter(|rule| rule["action"] == "SCMP_ACT_ALLOW") {
        let names = rule["names"].as_array_mut().ok_or("a rule has no list `names`")?;
        names.retain(|name| !name.as_str().is_some_and(|name| TOO_MUCH.contains(&name)));
    }
    rules.retain(|rule| rule["names"] != json!([]));
    // The flags are another argument there.
    let swapped = json!({"arches": ["s390", "s390x"]});
    for (index, key) in [(0, "excludes"), (1, "includes")] {
        let flags = json!({"index": index, "value": NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"});
        rules.push(json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [flags], key: swapped}));
    }
    Ok(profile.to_string())
}

/// A container, and the arguments of Podman that create it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Creation {
    /// Name of the container.
    pub container: String,
    /// `create` and what follows it. A variable whose value is in no file is a bare name, as for Compose.
    pub arguments: Vec<String>,
}

impl ComposeFile {
    /// Gives every service the filter of system calls in a file.
    #[must_use]
    pub fn with_seccomp(mut self, profile: &Path) -> Self {
        for (_, service) in &mut self.services {
            service.security_opt.push(format!("seccomp={}", profile.display()));
        }
        self
    }

    /// Returns the arguments of Podman that create each volume.
    pub fn podman_volumes(&self) -> Vec<Vec<String>> {
        self.volumes.iter().map(|(_, volume)| self.podman_volume(volume)).collect()
    }

    /// Returns the arguments of Podman that create each container. One that joins another one's network namespace comes
    /// after it.
    pub fn podman_containers(&self) -> Vec<Creation> {
        let (owners, guests): (Vec<_>, Vec<_>) =
            self.services.iter().partition(|(_, service)| service.network_mode.is_none());
        let all = owners.into_iter().chain(guests);
        all.map(|(name, service)| Creation {
            container: service.container_name.clone(),
            arguments: self.podman_container(name, service),
        })
        .collect()
    }

    fn podman_volume(&self, volume: &Volume) -> Vec<String> {
        let mut words = Words(vec!["volume".into(), "create".into()]);
        words.option("driver", &volume.driver);
        words.pairs("opt", &volume.driver_opts);
        words.pairs("label", &volume.labels);
        words.option("label", format!("{PROJECT}={}", self.name));
        words.0.push(volume.name.clone());
        words.0
    }

    fn podman_container(&self, name: &str, service: &Service) -> Vec<String> {
        let mut words = Words(vec!["create".into()]);
        words.option("name", &service.container_name);
        words.option("pull", if service.pull_policy.is_some() { "never" } else { "missing" });
        // What the client of Podman would add of its own: this host's names, its proxy, and the socket of its supervisor.
        words.option("hosts-file", "none");
        words.option("http-proxy", "false");
        words.option("sdnotify", "ignore");
        self.network(&mut words, service);
        for (option, values) in [
            ("add-host", &service.extra_hosts),
            ("dns", &service.dns),
            ("dns-search", &service.dns_search),
            ("cap-add", &service.cap_add),
            ("cap-drop", &service.cap_drop),
            ("security-opt", &service.security_opt),
            ("env-file", &service.env_file),
        ] {
            words.each(option, values);
        }
        for (option, is_set) in [("init", service.init), ("read-only", service.read_only)] {
            words.option(option, is_set.to_string());
        }
        // Otherwise Podman mounts writable directories over a read-only root.
        words.option("read-only-tmpfs", "false");
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        for (option, value) in [
            ("user", service.user.clone()),
            ("pids-limit", number(service.pids_limit.map(u64::from))),
            ("memory", number(service.mem_limit)),
            ("memory-swap", number(service.memswap_limit)),
            ("cpus", service.cpus.clone()),
            ("restart", service.restart.clone()),
            ("stop-timeout", service.stop_grace_period.as_ref().map(|time| time.trim_end_matches('s').to_owned())),
        ] {
            words.each(option, value);
        }
        words.pairs("sysctl", &service.sysctls);
        words.pairs("storage-opt", &service.storage_opt);
        words.each("mount", service.volumes.iter().map(|mount| self.podman_mount(mount)));
        words.each("tmpfs", service.tmpfs.iter().map(|mount| tmpfs(mount)));
        if let Some(logging) = &service.logging {
            words.option("log-driver", "k8s-file");
            let size = logging.options.get("max-size");
            words.each("log-opt", size.map(|size| format!("max-size={size}")));
        }
        match &service.healthcheck {
            Some(check) if check.disable => words.0.push("--no-healthcheck".into()),
            Some(check) => words.health(check),
            None => {}
        }
        if !service.entrypoint.is_empty() {
            words.option("entrypoint", Value::from(&service.entrypoint[..]).to_string());
        }
        for variable in &service.environment {
            words.option(
                "env",
                match variable {
                    Variable::Set(name, value) => format!("{name}={value}"),
                    Variable::Bare(name) => name.clone(),
                },
            );
        }
        words.pairs("label", &self.container_labels(name, service));
        words.0.push(service.image.clone());
        words.0.extend(service.command.iter().cloned());
        words.0
    }

    /// Adds the namespace that is joined, or the networks and the names of the other services.
    fn network(&self, words: &mut Words, service: &Service) {
        let joined = service.network_mode.as_deref().map(|mode| match mode.strip_prefix("service:") {
            Some(owner) => format!("container:{}", self.service(owner).map_or(owner, |owner| &owner.container_name)),
            None => mode.to_owned(),
        });
        words.each("network", joined);
        for (key, attachment) in &service.networks {
            let name = self.networks.iter().find(|(known, _)| known == key).map_or(key, |(_, network)| &network.name);
            let address = attachment.ipv4_address.map(|address| format!("ip={address}"));
            let options: Vec<String> =
                address.into_iter().chain(attachment.aliases.iter().map(|alias| format!("alias={alias}"))).collect();
            let options = if options.is_empty() { String::new() } else { format!(":{}", options.join(",")) };
            words.option("network", format!("{name}{options}"));
        }
        if !service.networks.iter().any(|(key, _)| key == INTERNAL) {
            return;
        }
        for (name, other) in &self.services {
            let Some((_, attachment)) = other.networks.iter().find(|(key, _)| key == INTERNAL) else { continue };
            let Some(address) = attachment.ipv4_address.filter(|_| other != service) else { continue };
            let mut names = vec![name, &other.container_name];
            names.extend(attachment.aliases.iter().filter(|alias| *alias != name && **alias != other.container_name));
            words.each("add-host", names.into_iter().map(|name| format!("{name}:{address}")));
        }
    }

    /// Returns a mount as Podman reads it: fields separated by commas, each in quotes, so that a path may have any of both.
    fn podman_mount(&self, mount: &Mount) -> String {
        let mut fields = match mount {
            Mount::Bind(bind) => {
                let source = format!("source={}", bind.source);
                vec!["type=bind".to_owned(), source, "bind-propagation=rprivate".into()]
            }
            Mount::Volume(mount) => {
                let volume = self.volumes.iter().find(|(key, _)| *key == mount.source).map(|(_, volume)| volume);
                let name = volume.map_or(&mount.source, |volume| &volume.name);
                let mut fields = vec!["type=volume".to_owned(), format!("source={name}")];
                fields.extend(mount.subpath.iter().map(|path| format!("subpath={path}")));
                // Podman mounts a volume again in the container, without the options of the volume itself.
                let options = volume.and_then(|volume| volume.driver_opts.get("o")).map(String::as_str);
                if options.is_some_and(|options| options.split(',').any(|option| option == "noexec")) {
                    fields.push("noexec".into());
                }
                fields
            }
        };
        fields.push(format!("destination={}", mount.target()));
        fields.push(format!("readonly={}", mount.is_read_only()));
        fields.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect::<Vec<_>>().join(",")
    }

    fn container_labels(&self, name: &str, service: &Service) -> BTreeMap<String, String> {
        let depends = service.depends_on.iter().map(|(other, dependency)| {
            let condition = match dependency.condition {
                Condition::ServiceHealthy => "service_healthy",
                Condition::ServiceStarted => "service_started",
            };
            format!("{other}:{condition}:false")
        });
        let depends = depends.collect::<Vec<_>>().join(",");
        let own = [(PROJECT, self.name.clone()), (SERVICE, name.to_owned()), (DEPENDS_ON, depends)];
        let own = own.map(|(key, value)| (key.to_owned(), value));
        service.labels.clone().into_iter().chain(own).collect()
    }
}

/// Arguments of a command.
struct Words(Vec<String>);

impl Words {
    /// Adds an option as one word. Podman would take a value of its own that starts with a dash for another option.
    fn option(&mut self, name: &str, value: impl AsRef<str>) {
        self.0.push(format!("--{name}={}", value.as_ref()));
    }

    fn each(&mut self, name: &str, values: impl IntoIterator<Item = impl AsRef<str>>) {
        for value in values {
            self.option(name, value);
        }
    }

    fn pairs(&mut self, option: &str, pairs: &BTreeMap<String, String>) {
        self.each(option, pairs.iter().map(|(key, value)| format!("{key}={value}")));
    }

    /// Adds a health check that runs only when the launcher asks. For others Podman needs systemd.
    fn health(&mut self, check: &HealthCheck) {
        // Podman adds the first word, `CMD`, to a list. A list of one word would be a command of a shell.
        self.option(
            "health-cmd",
            match &check.test[..] {
                [_, one] => format!("CMD {one}"),
                [_, words @ ..] => Value::from(words).to_string(),
                [] => String::new(),
            },
        );
        self.option("health-interval", "disable");
        self.option("health-timeout", &check.timeout);
        self.option("health-retries", check.retries.to_string());
    }
}

/// Returns a mount in memory as Podman reads it. It knows no owner; what a bottle mounts there is writable for everyone.
fn tmpfs(mount: &str) -> String {
    let (path, options) = mount.split_once(':').unwrap_or((mount, ""));
    let is_owner = |option: &&str| option.starts_with("uid=") || option.starts_with("gid=");
    let options = options.split(',').filter(|option| !option.is_empty() && !is_owner(option));
    let options: Vec<&str> = options.chain(["notmpcopyup"]).collect();
    format!("{path}:{}", options.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_loses_what_makes_namespaces_and_keeps_the_rest() {
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["read", "clone", "unshare", "keyctl"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["setns", "mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["setns", "swapon"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
        ]});
        let tightened: Value = serde_json::from_str(&seccomp(&profile.to_string()).unwrap()).unwrap();
        let allowed: Vec<_> = tightened["syscalls"].as_array().unwrap().iter().map(|rule| &rule["names"]).collect();
        assert_eq!(allowed, [&json!(["read"]), &json!(["setns", "swapon"]), &json!(["clone"]), &json!(["clone"])]);
        assert_eq!(tightened["syscalls"][2]["args"][0]["value"], 2_114_060_288_u32);
        for (text, problem) in
            [("{", "EOF"), ("{}", "syscalls"), (r#"{"syscalls":[{"action":"SCMP_ACT_ALLOW"}]}"#, "names")]
        {
            assert!(seccomp(text).unwrap_err().contains(problem), "{text}");
        }
    }
}
