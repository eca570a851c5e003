//! The Pods: one for each service.

use std::collections::{BTreeMap, BTreeSet};

use bottle_compose::document::{HealthCheck, Mount, Service, Variable};
use bottle_compose::sidecar::CREDENTIALS;
use bottle_compose::{AGENT_CA_BUNDLE, AGENT_CA_CERT};
use bottle_plan::manifest::{Runtime, WorkspaceMode};
use bottle_plan::{Service as Name, UserIds};
use bottle_sidecars::agent;

use super::files::{AGENT_FILES, Content, File};
use super::parts::{Bottle, Delivery};
use crate::gate;
use crate::object::{
    Capabilities, Container, ContainerPort, ContainerSecurity, DnsConfig, EmptyDir, Env, ExecAction, HostAlias, KeyRef,
    NameValue, Object, PodSecurity, PodSpec, Probe, Resources, Seccomp, Spec, ValueFrom, Volume, VolumeMount,
};

/// Name of the container that waits for the policies, and receives the Pod's files.
pub const GATE: &str = "gate";
/// Name of the main container.
pub const MAIN: &str = "main";
/// Name of the agent Pod's container that attacks from the agent's network.
pub const VERIFY: &str = "verify";
/// Path of a Pod's files in the containers that write them.
pub const FILES: &str = "/bottle";
/// Path of the directories of supervise in the containers that write them.
pub const STATE: &str = "/state";
/// Name of the container that writes the files of a running Pod, in a supervised bottle.
pub const KEEPER: &str = "keeper";
/// Path of the agent's certificates in the container that makes them.
const TRUST: &str = "/trust";
/// Directory of the agent's container that nobody in it can enter: it has no permission bits, and is mounted read-only. The
/// kubelet mounts a file for a last message there. It is on the node's disk, everybody may write to it, and no limit counts it.
const CLOSED: &str = "/run/bottle-closed";

/// The agent container's command. It reaps the processes that the agent leaves behind. As process 1 without a handler it
/// ignores every signal of its own Pod, so that no `kill -9 -1` ends the container. Without its output, nobody in the container
/// can write the container's log, which the kubelet bounds only now and then.
const IDLE: &str = "exec </dev/null >/dev/null 2>&1; while :; do sleep 2147483647 & wait; done";

/// Seconds between SIGTERM and SIGKILL.
const GRACE: u32 = 2;

impl Bottle<'_> {
    /// Returns the Pods, the agent's last, and their files.
    pub(super) fn pods(&self) -> (Vec<Object>, Vec<File>) {
        let (mut pods, mut files) = (Vec::new(), Vec::new());
        for sidecar in &self.sidecars {
            let Some(service) = self.document.service(sidecar.name()) else { continue };
            let credentials = sidecar.credentials(self.plan.plan());
            let slot = |slot: &bottle_plan::value::EnvName| File {
                pod: sidecar.name().to_owned(),
                target: format!("{CREDENTIALS}/{slot}"),
                content: Content::Credential(slot.to_string()),
                mode: 0o600,
                is_secret: true,
            };
            let own = self.pod_files(sidecar.name(), service, credentials.iter().map(slot).collect());
            pods.push(self.sidecar_pod(sidecar.name(), service, &own, !credentials.is_empty()));
            files.extend(own);
        }
        if let Some(service) = self.document.service(Name::Agent.as_str()) {
            let own = self.pod_files(Name::Agent.as_str(), service, self.agent_files());
            pods.push(self.agent_pod(service, &own));
            files.extend(own);
        }
        (pods, files)
    }

    fn pod_files(&self, name: &str, service: &Service, others: Vec<File>) -> Vec<File> {
        let binds = service.volumes.iter().filter_map(Mount::as_bind);
        binds.filter_map(|bind| self.file(name, bind)).chain(others).collect()
    }

    fn sidecar_pod(&self, name: &str, service: &Service, files: &[File], has_credentials: bool) -> Object {
        let mut pod = Parts::of(self, name, service, files, self.plan.plan().user);
        match self.delivery {
            // A renewed value is a new file.
            Delivery::HandOver if has_credentials => {
                pod.main.volume_mounts.push(mount("files", CREDENTIALS, CREDENTIALS, false));
            }
            // The files of a Secret are read-only, and the sidecar keeps its counters beside them.
            Delivery::Objects if has_credentials => {
                pod.main.volume_mounts.push(mount("credentials", CREDENTIALS, "", false));
                pod.volumes.push(in_memory("credentials", 1));
                let slots = files.iter().filter(|file| matches!(file.content, Content::Credential(_)));
                pod.main.volume_mounts.extend(slots.map(|file| mount("files", &file.target, &file.target, true)));
            }
            Delivery::HandOver | Delivery::Objects => {}
        }
        if name == Name::GitGate.as_str() {
            // It would listen on interfaces without a default route. A Pod has one interface, and its policy admits the agent.
            pod.main.env.push(Env::Set(NameValue::new("GIT_GATE_LISTEN_HOST", "0.0.0.0")));
        }
        pod.main.ports = self.ports(name).into_iter().map(|container_port| ContainerPort { container_port }).collect();
        if let Some((_, port)) = self.canary.as_ref().filter(|(service, _)| service == name) {
            let canary = self.prober("canary", &format!("listen::{port}"));
            pod.others.push(canary);
        }
        let volume = if name == Name::Supervise.as_str() { ("state", STATE) } else { ("files", FILES) };
        if [Name::Pipelock, Name::Egress, Name::Supervise].iter().any(|service| service.as_str() == name) {
            pod.others.extend(self.keeper(volume));
        }
        // The image of pipelock has no program that sends a signal.
        pod.is_shared = name == Name::Pipelock.as_str() && self.keeper(volume).is_some();
        let is_outside = !self.outside_ports(name).is_empty();
        let aliases = if is_outside { self.outside_hosts(name) } else { Vec::new() };
        // The API accepts one entry for each address.
        let mut by_address: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (ip, host) in aliases {
            by_address.entry(ip).or_default().insert(host);
        }
        let aliases =
            by_address.into_iter().map(|(ip, names)| HostAlias { ip, hostnames: names.into_iter().collect() });
        pod.finish(self, name, "Always", is_outside, aliases.collect())
    }

    fn agent_pod(&self, service: &Service, files: &[File]) -> Object {
        let name = Name::Agent.as_str();
        let plan = self.plan.plan();
        let mut pod = Parts::of(self, name, service, files, plan.agent_user());
        let main = &mut pod.main;
        main.command = ["sh", "-c", IDLE].map(String::from).into();
        main.args = Vec::new();
        let disk = plan.agent_disk();
        // Without a request of its own, the scheduler would reserve the whole limit on the node.
        let reserved = disk.min(self.options.disk_request).bytes().to_string();
        let disk = disk.bytes().to_string();
        let memory = service.mem_limit.unwrap_or(self.options.agent_memory.bytes());
        main.resources = self.resources(Some(memory), service.cpus.as_ref());
        main.resources.limits.insert("ephemeral-storage", disk.clone());
        main.resources.requests.insert("ephemeral-storage", reserved);
        if plan.git_gate.is_some() {
            let rules = format!("{AGENT_FILES}/gitconfig");
            main.env.push(Env::Set(NameValue::new("GIT_CONFIG_SYSTEM", rules)));
        }
        let trusted = [AGENT_CA_CERT, AGENT_CA_BUNDLE];
        main.volume_mounts.extend(trusted.map(|path| mount("trust", path, path, true)));
        main.termination_message_path = Some(format!("{CLOSED}/message"));
        main.volume_mounts.retain(|mount| !mount.mount_path.starts_with(AGENT_FILES));
        main.volume_mounts.push(mount("files", AGENT_FILES, AGENT_FILES, true));
        main.volume_mounts.push(mount("trust", CLOSED, "closed", true));
        let mut trust = self.container("trust", &main.image);
        let script = format!(
            "cat {FILES}{AGENT_FILES}/*.pem | sh -c \"$0\" sh {TRUST}; cd {TRUST}; \
             mkdir -p closed; chmod 700 closed; touch closed/message; chmod 0 closed"
        );
        trust.command = ["sh", "-ceu", &script, agent::INSTALL_CA].map(literal).into();
        trust.volume_mounts = vec![mount("files", FILES, "", true), mount("trust", TRUST, "", false)];
        pod.inits.push(trust);
        pod.volumes.push(in_memory("trust", 8));
        if plan.workspace.mode == WorkspaceMode::Copy {
            let target = plan.workspace.target.as_str();
            pod.main.volume_mounts.push(mount("workspace", target, "", false));
            let size = EmptyDir { medium: None, size_limit: Some(disk) };
            pod.volumes.push(Volume { name: "workspace".into(), empty_dir: Some(size), projected: None });
        }
        pod.others.push(self.prober(VERIFY, "wait"));
        pod.others.extend(self.keeper(("state", STATE)));
        pod.finish(self, name, "Never", false, Vec::new())
    }

    /// Returns the init container that waits until a connection that no policy allows is refused, and until the Pod's files
    /// are there.
    fn gate(&self, name: &str, has_state: bool) -> Container {
        let mut gate = self.container(GATE, self.plan.plan().images.base.as_str());
        let mut targets = Vec::new();
        if name == Name::Agent.as_str() {
            // Without an open connection, what is refused may be a Pod without a network.
            targets.extend(self.expected.open.iter().map(|(host, port)| format!("open:{host}:{port}")));
            targets.extend(self.canary.iter().map(|(host, port)| format!("blocked:{host}:{port}")));
        }
        targets.push("blocked:$(KUBERNETES_SERVICE_HOST):$(KUBERNETES_SERVICE_PORT)".into());
        if self.delivery == Delivery::HandOver {
            targets.push(format!("file:{FILES}/{}", gate::COMPLETE));
            gate.volume_mounts.push(mount("files", FILES, "", false));
            if has_state {
                gate.volume_mounts.push(mount("state", STATE, "", false));
            }
        }
        gate.command = ["bash", "-c", gate::SCRIPT, "gate"].map(literal).into_iter().chain(targets).collect();
        gate
    }

    /// Returns the container that changes the files of a volume while the Pod runs. `None`: nobody decides on them, or the
    /// volume's content is an object of the cluster.
    fn keeper(&self, (volume, path): (&str, &str)) -> Option<Container> {
        if self.plan.plan().supervise.is_none() || self.delivery == Delivery::Objects {
            return None;
        }
        let mut keeper = self.container(KEEPER, self.plan.plan().images.base.as_str());
        keeper.command = ["sh", "-c", IDLE].map(String::from).into();
        keeper.volume_mounts = vec![mount(volume, path, "", false)];
        Some(keeper)
    }

    /// Returns a small container with the hardening that all containers share.
    fn container(&self, name: &str, image: &str) -> Container {
        Container {
            name: name.to_owned(),
            image: image.to_owned(),
            image_pull_policy: self.options.pull_policy,
            command: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            ports: Vec::new(),
            resources: self.resources(Some(64 << 20), None),
            volume_mounts: Vec::new(),
            startup_probe: None,
            readiness_probe: None,
            termination_message_path: None,
            security_context: ContainerSecurity {
                allow_privilege_escalation: false,
                read_only_root_filesystem: true,
                capabilities: Capabilities { drop: vec!["ALL"] },
            },
        }
    }

    /// Returns a container with the attacking program of the seal's image.
    fn prober(&self, name: &str, argument: &str) -> Container {
        let mut prober = self.container(name, self.plan.launch().seal.reference.as_str());
        prober.command = ["/probe", argument].map(String::from).into();
        prober.resources = self.resources(Some(16 << 20), None);
        prober
    }

    fn resources(&self, memory: Option<u64>, cpus: Option<&String>) -> Resources {
        let request = self.options.memory_request.bytes();
        let request = memory.map_or(request, |limit| limit.min(request));
        let memory = memory.map(|bytes| ("memory", bytes.to_string()));
        let cpus = cpus.map(|cpus| ("cpu", cpus.clone()));
        Resources {
            requests: BTreeMap::from([("cpu", self.options.cpu_request.clone()), ("memory", request.to_string())]),
            limits: memory.into_iter().chain(cpus).collect(),
        }
    }

    fn env(&self, name: &str, service: &Service) -> Vec<Env> {
        let variable = |variable: &Variable| match variable {
            Variable::Set(name, value) => Some(Env::Set(NameValue::new(name, literal(value)))),
            // What is forwarded to the agent is handed over as a file. The credentials of a sidecar always are files.
            Variable::Bare(_) if self.delivery == Delivery::HandOver || name != Name::Agent.as_str() => None,
            Variable::Bare(variable) => {
                let secret_key_ref = KeyRef { name: format!("{name}-env"), key: variable.clone() };
                Some(Env::FromSecret { name: variable.clone(), value_from: ValueFrom { secret_key_ref } })
            }
        };
        service.environment.iter().filter_map(variable).collect()
    }
}

/// A Pod while it is rendered.
struct Parts {
    user: UserIds,
    inits: Vec<Container>,
    main: Container,
    others: Vec<Container>,
    volumes: Vec<Volume>,
    has_runtime: bool,
    /// `true` if the containers see each other's processes.
    is_shared: bool,
}

impl Parts {
    fn of(bottle: &Bottle<'_>, name: &str, service: &Service, files: &[File], user: UserIds) -> Self {
        let mut main = bottle.container(MAIN, &service.image);
        main.args = service.command.iter().map(|arg| literal(arg)).collect();
        main.env = bottle.env(name, service);
        main.resources = bottle.resources(service.mem_limit, service.cpus.as_ref());
        main.security_context.read_only_root_filesystem = service.read_only;
        main.startup_probe = service.healthcheck.as_ref().and_then(|check| probe(check, 1, 60));
        main.readiness_probe = service.healthcheck.as_ref().and_then(|check| probe(check, 30, check.retries));
        main.volume_mounts = files
            .iter()
            .filter(|file| !matches!(file.content, Content::Credential(_)))
            .map(|file| mount("files", &file.target, &file.target, true))
            .collect();
        let directories =
            service.volumes.iter().filter_map(Mount::as_bind).filter(|bind| bottle.file(name, bind).is_none());
        let directories: Vec<_> =
            directories.map(|bind| mount("state", &bind.target, &bind.target, bind.read_only)).collect();
        let has_state = !directories.is_empty();
        main.volume_mounts.extend(directories);
        let projected = bottle.projected(files);
        let mut volumes = vec![match projected {
            Some(projected) => Volume { name: "files".into(), empty_dir: None, projected: Some(projected) },
            None => in_memory("files", 16),
        }];
        if has_state {
            volumes.push(in_memory("state", 64));
        }
        for (number, tmpfs) in service.tmpfs.iter().enumerate() {
            let (target, options) = tmpfs.split_once(':').unwrap_or((tmpfs, ""));
            let size =
                options.split(',').find_map(|option| option.strip_prefix("size=")?.strip_suffix('m')?.parse().ok());
            let name = format!("tmpfs-{number}");
            main.volume_mounts.push(mount(&name, target, "", false));
            volumes.push(in_memory(&name, size.unwrap_or(64)));
        }
        let has_runtime = name == Name::Agent.as_str() && bottle.plan.plan().agent.runtime == Runtime::Runsc;
        Self {
            user,
            inits: vec![bottle.gate(name, has_state)],
            main,
            others: Vec::new(),
            volumes,
            has_runtime,
            is_shared: false,
        }
    }

    fn finish(
        self,
        bottle: &Bottle<'_>,
        name: &str,
        restart_policy: &'static str,
        is_outside: bool,
        host_aliases: Vec<HostAlias>,
    ) -> Object {
        // A name of the bottle is in the hosts file. Any other name would be a way out.
        let closed = DnsConfig { nameservers: vec!["127.0.0.1".into()], options: Vec::new() };
        // With the default of 5, each outside name would be asked for below the cluster's domains first.
        let open = DnsConfig { nameservers: Vec::new(), options: vec![NameValue::new("ndots", "1")] };
        let options = bottle.options;
        let spec = PodSpec {
            automount_service_account_token: false,
            enable_service_links: false,
            restart_policy,
            active_deadline_seconds: bottle
                .plan
                .plan()
                .limits
                .time
                .filter(|_| name == Name::Agent.as_str())
                .map(|time| time.duration().as_secs()),
            // The agent's process 1 ignores SIGTERM.
            termination_grace_period_seconds: if name == Name::Agent.as_str() { 1 } else { GRACE },
            dns_policy: if is_outside { "ClusterFirst" } else { "None" },
            dns_config: Some(if is_outside { open } else { closed }),
            host_aliases,
            node_selector: options.node_selector.clone(),
            priority_class_name: options.priority_class.clone(),
            share_process_namespace: self.is_shared,
            runtime_class_name: self.has_runtime.then(|| options.runtime_class.clone()),
            security_context: PodSecurity {
                run_as_non_root: true,
                run_as_user: self.user.uid,
                run_as_group: self.user.gid,
                fs_group: self.user.gid,
                seccomp_profile: Seccomp { kind: "RuntimeDefault" },
                // Policies let ICMP echo pass, and runtimes let every user send it.
                sysctls: vec![NameValue::new("net.ipv4.ping_group_range", "1 0")],
            },
            init_containers: self.inits,
            containers: [self.main].into_iter().chain(self.others).collect(),
            volumes: self.volumes,
        };
        let mut object = bottle.object("v1", "Pod", name, Spec::Pod(Box::new(spec)));
        object.metadata.labels.extend(bottle.selector(name));
        object
    }
}

/// Returns a text in which the kubelet replaces no variable.
fn literal(text: &str) -> String {
    text.replace("$(", "$$(")
}

/// Returns a probe, or `None` for a check that is not a command.
fn probe(check: &HealthCheck, period_seconds: u32, failure_threshold: u32) -> Option<Probe> {
    let (kind, command) = check.test.split_first()?;
    let exec = ExecAction { command: command.to_vec() };
    (kind == "CMD").then_some(Probe { exec, period_seconds, timeout_seconds: 5, failure_threshold })
}

/// Returns a mount. The path in the volume of files is the path in the container.
fn mount(volume: &str, target: &str, path: &str, read_only: bool) -> VolumeMount {
    let sub_path = path.trim_start_matches('/').to_owned();
    VolumeMount { name: volume.to_owned(), mount_path: target.to_owned(), sub_path, read_only }
}

fn in_memory(name: &str, mebibytes: u32) -> Volume {
    let empty_dir = Some(EmptyDir { medium: Some("Memory"), size_limit: Some(format!("{mebibytes}Mi")) });
    Volume { name: name.to_owned(), empty_dir, projected: None }
}
