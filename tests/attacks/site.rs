//! The bottle under attack, with everything that records what leaves it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bottle::Bottle;
use bottle::plan::Service;
use bottle_testing::lab::{FORBIDDEN, Lab, OUTSIDE, docker, run, variable};
use serde_json::{Value, json};

use crate::evidence::{Report, changed, copied, forged, misleading, misplaced, reports, settings, spoken};
use crate::secrets::Secrets;
use crate::table::{Attack, Effect, Judge, Topology};

/// The routed host.
pub(crate) const API: &str = "api.anthropic.com";
/// Another routed host, with another token.
pub(crate) const OTHER: &str = "api.openai.com";
/// Limits of the agent's container.
pub(crate) const PIDS: u64 = 512;
pub(crate) const MEMORY: u64 = 768 << 20;

/// One bottle under attack.
pub(crate) struct Site {
    pub(crate) lab: Arc<Lab>,
    pub(crate) bottle: Bottle,
    pub(crate) secrets: Secrets,
    /// Beginning of every nonce.
    prefix: String,
    topology: Topology,
    facts: Value,
    neighbor: Removed,
    listeners: Listeners,
    /// Packets that the outside host, the neighbor and the host saw.
    sniffers: Vec<(&'static str, Sniffer)>,
    /// Interfaces of the host on which a nonce may be seen.
    bridges: BTreeSet<String>,
    settings: BTreeMap<&'static str, String>,
}

/// Result of one attack.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fate {
    /// Everything that makes it count as successful.
    pub(crate) through: Vec<String>,
    /// The claim that was granted by gVisor's own kernel.
    pub(crate) is_contained: bool,
    /// Reason why it means nothing on this platform.
    pub(crate) not_applicable: Option<&'static str>,
    /// True if the attack itself failed, so that its result means nothing.
    pub(crate) is_broken: bool,
    /// The program's output.
    pub(crate) printed: String,
}

impl Site {
    /// Prepares everything around a bottle that runs. `others` are addresses of another bottle's sidecars.
    pub(crate) fn around(
        lab: &Arc<Lab>,
        bottle: Bottle,
        secrets: Secrets,
        topology: Topology,
        others: &[String],
    ) -> Self {
        let (names, prefix) = (bottle.names(), prefix());
        let (internal, egress) = (names.internal_network(), names.egress_network());
        lab.outside.connect(&egress);
        let neighbor = Removed(format!("bottle-e2e-near-{}", names.slug()));
        let image = variable("BOTTLE_E2E_OUTSIDE");
        let variables = ["--env", "OUTSIDE_NAMES=near.test,localhost"];
        // For the sniffers. Docker gives it by itself.
        let raw = "--cap-add=NET_RAW";
        let start =
            ["run", "--detach", raw, "--name", &neighbor.0, "--network", &internal].into_iter().chain(variables);
        docker(start.chain([image.as_str()]));
        let host = Removed(format!("bottle-e2e-host-{}", names.slug()));
        let entry = ["--network", "host", "--entrypoint", "sleep", image.as_str(), "3600"];
        docker(["run", "--detach", raw, "--name", &host.0].into_iter().chain(entry));
        ready(&neighbor.0);
        let sniffers = vec![
            ("outside", Sniffer::start(lab.outside.container(), &prefix, None)),
            ("neighbor", Sniffer::start(&neighbor.0, &prefix, None)),
            ("host", Sniffer::start(&host.0.clone(), &prefix, Some(host))),
        ];
        let listeners = Listeners::start();
        let near = address(&neighbor.0, &internal);
        let services: &[Service] = match topology {
            Topology::Full => &[Service::Egress, Service::Outlet, Service::GitGate, Service::Supervise],
            Topology::Plain => &[Service::Outlet],
        };
        let on = |network: &str| -> Vec<String> {
            let all = services.iter().map(|service| address(&names.container(*service), network));
            all.filter(|address| !address.is_empty()).collect()
        };
        let (sides, sides_out) = (on(&internal), on(&egress));
        let own = address(&names.container(Service::Seal), &internal);
        let is_podman = lab.options().engine().is_podman();
        let subnet = |network: &str, field: &str| {
            let list = if is_podman { ".Subnets" } else { ".IPAM.Config" };
            docker(["network", "inspect", "--format", &format!("{{{{(index {list} 0).{field}}}}}"), network])
                .stdout
                .trim()
                .to_owned()
        };
        let net: ipnet::Ipv4Net = subnet(&internal, "Subnet").parse().unwrap();
        let gateway = net.hosts().next().unwrap().to_string();
        let host_address =
            run(Command::new("sh").args(["-c", "ip -4 -o addr show scope global | awk '{print $4; exit}'"]));
        let host_address = host_address.ok().split('/').next().unwrap().to_owned();
        let hosts = [
            host_address,
            subnet(if is_podman { "podman" } else { "bridge" }, "Gateway"),
            subnet(&egress, "Gateway"),
            subnet(lab.outside.network(), "Gateway"),
        ];
        let six = docker(["exec", lab.outside.container(), "sh", "-c", "cat /proc/net/if_inet6"]).stdout;
        let six: Vec<String> = six
            .lines()
            .filter_map(|line| line.split(' ').next())
            .map(colons)
            .filter(|six| six != "0000:0000:0000:0000:0000:0000:0000:0001")
            .collect();
        let out = lab.outside.address(&egress);
        let facts = json!({
            "OUT": out, "FAR": lab.outside.address(lab.outside.network()), "NEAR": near, "OWN": [own], "DEVICES": ["eth0"],
            "HOSTS": hosts, "GATEWAY": gateway, "EVERYONE": net.broadcast().to_string(), "SIX": six, "HTCP": listeners.tcp,
            "HUDP": listeners.udp, "SIDES": sides, "SIDE": sides[0], "SIDES_OUT": sides_out, "OTHERS": others,
            "OUTSIDE": OUTSIDE, "FORBIDDEN": FORBIDDEN, "API": API, "OTHER": OTHER, "PIDS": PIDS, "MEMORY": MEMORY,
            "SECRET": github_token(),
        });
        let mut bridges: BTreeSet<String> = BTreeSet::new();
        for network in [&internal, &egress, &lab.outside.network().to_owned()] {
            let format = if is_podman { "{{.NetworkInterface}}" } else { "br-{{slice .Id 0 12}}" };
            bridges.insert(docker(["network", "inspect", "--format", format, network]).stdout.trim().to_owned());
        }
        let settings = settings();
        Self {
            lab: Arc::clone(lab),
            bottle,
            secrets,
            prefix,
            topology,
            facts,
            neighbor,
            listeners,
            sniffers,
            bridges,
            settings,
        }
    }

    /// Addresses of the sidecars, for an attack from another bottle.
    pub(crate) fn sidecars(&self) -> Vec<String> {
        let both = [&self.facts["SIDES"], &self.facts["SIDES_OUT"]];
        both.iter()
            .flat_map(|list| list.as_array().into_iter().flatten())
            .map(|address| address.as_str().unwrap().to_owned())
            .collect()
    }

    /// Runs those attacks that belong to this topology, and returns the result of each.
    pub(crate) fn attack(&self, attacks: &[Attack]) -> BTreeMap<&'static str, Fate> {
        let is_gvisor =
            docker(["inspect", "--format", "{{.HostConfig.Runtime}}", &self.agent()]).stdout.contains("runsc");
        let attacks: Vec<&Attack> = attacks.iter().filter(|attack| attack.topology == self.topology).collect();
        let nonce = |number: usize| {
            format!("{}{:08x}", self.prefix, 0x9e37_79b9_u32.wrapping_mul(u32::try_from(number).unwrap() + 1))
        };
        let mut results = BTreeMap::new();
        // Those that may end the container come first: what the others leave in it is looked at below.
        for (is_alone, is_root) in [(true, false), (false, false), (false, true)] {
            let cases = attacks
                .iter()
                .enumerate()
                .filter(|(_, attack)| (attack.is_alone, attack.is_root) == (is_alone, is_root));
            let cases: Vec<Value> =
                cases.map(|(number, attack)| json!([number.to_string(), nonce(number), attack.program])).collect();
            let user = if is_root { "root" } else { "agent" };
            // One that ends its own sandbox must not take the others with it.
            for cases in cases.chunks(if is_alone { 1 } else { cases.len().max(1) }) {
                let input = json!({"facts": self.facts, "cases": cases, "at_once": 12});
                results.extend(self.run(user, &input));
                let number = cases[0][0].as_str().unwrap().parse().unwrap();
                // gVisor's kernel may end when it gets no thread or no memory of the host.
                if is_alone && is_gvisor && !results.contains_key(&number) {
                    results.insert(number, (false, true, "it ended its own sandbox".to_owned()));
                    docker(["restart", "--time", "0", &self.agent()]);
                }
            }
        }
        // A packet that is on its way arrives.
        std::thread::sleep(Duration::from_secs(1));
        let records = self.records();
        let mut fates = BTreeMap::new();
        for (number, attack) in attacks.iter().enumerate() {
            let nonce = nonce(number);
            let (has_claimed, has_finished, printed) =
                results.remove(&number).unwrap_or_else(|| panic!("`{}` did not report", attack.name));
            let mut fate = Fate { printed, is_broken: !has_finished, ..Fate::default() };
            fate.through.extend(records.get(&nonce).into_iter().flatten().cloned());
            fate.through.extend(self.secrets.found_in(&fate.printed).map(|what| format!("its output has {what}")));
            if let Judge::Effect(effect) = attack.judge {
                fate.through.extend(self.effect(effect, &nonce));
            }
            if has_claimed && !matches!(attack.judge, Judge::Recorded) {
                if is_gvisor && attack.is_own_kernel {
                    fate.is_contained = true;
                } else {
                    let claim = fate.printed.lines().find(|line| line.contains("GOT-")).unwrap_or_default();
                    fate.through.push(format!("it says: {}", claim.replace(&nonce, "")));
                }
            }
            fates.insert(attack.name, fate);
        }
        fates
    }

    fn effect(&self, effect: Effect, nonce: &str) -> Option<String> {
        match effect {
            Effect::Proposal => self.misleading_proposals(),
            Effect::Harm => self.harm(nonce),
            Effect::Copy => self.copy_out(nonce),
            Effect::Log => self.forged_logs(nonce),
            Effect::Event => self.forged_events(nonce),
        }
    }

    fn run(&self, user: &str, input: &Value) -> Vec<(usize, Report)> {
        let mut child = Command::new("docker")
            .args([
                "exec",
                "--interactive",
                "--user",
                user,
                "--workdir",
                "/tmp",
                &self.agent(),
                "python3",
                "-c",
                include_str!("agent.py"),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
        let mut printed = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut printed).unwrap();
        child.wait().unwrap();
        reports(&String::from_utf8_lossy(&printed))
    }

    /// Returns a text of the facts.
    pub(crate) fn fact(&self, name: &str) -> String {
        self.facts[name].as_str().unwrap().to_owned()
    }

    pub(crate) fn agent(&self) -> String {
        self.bottle.names().container(Service::Agent)
    }

    /// Returns who recorded which nonce.
    fn records(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut records: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut record = |text: &str, by: &dyn Fn() -> String| {
            for nonce in self.nonces(text) {
                records.entry(nonce).or_default().insert(by());
            }
        };
        let neighbor = docker(["exec", &self.neighbor.0, "cat", "/data/events.jsonl"]).stdout;
        let neighbor = neighbor.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let events = self.lab.outside.events().into_iter().map(|event| ("outside", event));
        for (who, event) in events.chain(neighbor.map(|event| ("neighbor", event))) {
            // The first half of an attack with a redirect goes to a host that is allowed.
            let is_redirect = event["target"].as_str().is_some_and(|target| target.starts_with("/redirect?"));
            if !is_redirect || event["tls"] != true {
                record(&event.to_string(), &|| format!("{who}: {}", event["kind"].as_str().unwrap_or("event")));
            }
        }
        for (who, sniffer) in &self.sniffers {
            for line in sniffer.lines() {
                let fields: Vec<&str> = line.split('\t').collect();
                let &[interface, kind, protocol, nonce] = fields.as_slice() else { continue };
                let is_inside = *who == "host"
                    && (interface.starts_with("veth") || self.bridges.contains(interface) && kind != "to us");
                if !is_inside {
                    record(nonce, &|| format!("{who}: packet of protocol {protocol}"));
                }
            }
        }
        for (what, text) in self.listeners.received() {
            record(&text, &|| format!("host: {what}"));
        }
        record(&self.repositories(), &|| "outside: git".to_owned());
        records
    }

    /// Returns every nonce in a text, in lower case.
    fn nonces(&self, text: &str) -> BTreeSet<String> {
        let text = text.to_ascii_lowercase();
        let length = self.prefix.len() + 8;
        let found = text.match_indices(&self.prefix).filter_map(|(at, _)| text.get(at..at + length));
        found.map(ToOwned::to_owned).collect()
    }

    /// Returns all refs and objects of the outside host's repositories.
    fn repositories(&self) -> String {
        let script = "for r in *.git; do git -C $r for-each-ref; git -C $r cat-file --batch-all-objects --batch; done";
        let output = Command::new("docker")
            .args(["exec", "--user", "git", "--workdir", "/srv/git", self.lab.outside.container(), "sh", "-c", script])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Returns requests that reached the outside host with a secret at a place where it does not belong, and decisions that no
    /// person made.
    pub(crate) fn unattributed(&self) -> Vec<String> {
        let mut problems = misplaced(&self.lab, &self.secrets);
        if self.topology == Topology::Full {
            let layout = self.lab.state_root().bottle(self.bottle.slug());
            for entry in fs::read_dir(layout.supervise_decisions()).into_iter().flatten().flatten() {
                if !["audit.jsonl", ".lock"].contains(&&*entry.file_name().to_string_lossy()) {
                    problems.push(format!("there is a decision: {}", entry.path().display()));
                }
            }
            if fs::read_to_string(layout.pipelock_config()).unwrap().contains(FORBIDDEN) {
                problems.push("pipelock's configuration has the forbidden host".to_owned());
            }
        }
        problems
    }

    /// Returns why a proposal in the queue would mislead a person.
    pub(crate) fn misleading_proposals(&self) -> Option<String> {
        let queue = self.lab.state_root().bottle(self.bottle.slug()).supervise_queue().join("proposals");
        let files = fs::read_dir(queue).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'));
        misleading(&files.filter_map(|path| fs::read_to_string(path).ok()).collect::<Vec<_>>())
    }

    /// Returns a change of the host's settings, or a limit of the container that is not as planned.
    pub(crate) fn harm(&self, nonce: &str) -> Option<String> {
        if let Some(changed) = changed(&self.settings, nonce) {
            return Some(changed);
        }
        let limits = docker([
            "inspect",
            "--format",
            "{{.HostConfig.PidsLimit}} {{.HostConfig.Memory}} {{.State.Running}}",
            &self.agent(),
        ])
        .stdout;
        let planned = format!("{PIDS} {MEMORY} true");
        (limits.trim() != planned).then(|| format!("the container has {limits}, not {planned}"))
    }

    /// Copies what an attack prepared out of the container. Returns an effect outside the copy's directory, or a file in it that
    /// does more than lie there.
    pub(crate) fn copy_out(&self, nonce: &str) -> Option<String> {
        copied(&self.lab, nonce, |into| format!("{:?}", self.bottle.cp_out(&format!("/tmp/out/{nonce}"), into)))
    }

    /// Returns a line of a log that has a control character, or that its sidecar did not write.
    pub(crate) fn forged_logs(&self, nonce: &str) -> Option<String> {
        let services = ["pipelock", "egress", "git-gate", "supervise"];
        for (service, name) in
            [Service::Pipelock, Service::Egress, Service::GitGate, Service::Supervise].iter().zip(services)
        {
            let logs = docker(["logs", &self.bottle.names().container(*service)]);
            if let Some(forged) = forged(name, &[logs.stdout, logs.stderr].join("\n"), nonce) {
                return Some(forged);
            }
        }
        let own = Command::new("docker").args(["logs", &self.agent()]).output().unwrap();
        (own.stdout.len() + own.stderr.len() > 70 << 20)
            .then(|| "the log of the agent's container is not bounded".to_owned())
    }

    /// Lets the host show what the agent says as events. Returns a line that is not such an event.
    pub(crate) fn forged_events(&self, nonce: &str) -> Option<String> {
        let output = self.bottle.exec([format!("/tmp/speak{nonce}")]).unwrap();
        spoken(&output.stderr.text(), &self.lab.root.path().join(format!("events-{nonce}")))
    }

    /// Takes the bottle down. The lab stays.
    pub(crate) fn close(self) {
        let Self { lab, bottle, neighbor, sniffers, .. } = self;
        drop((neighbor, sniffers));
        lab.outside.disconnect(&bottle.names().egress_network());
        let report = bottle.close().unwrap_or_else(|error| error.report);
        assert!(report.is_clean(), "{report}");
    }
}

/// Returns a text that gitleaks reports as a token. It is assembled here, so that no file of this repository contains it.
pub(crate) fn github_token() -> String {
    format!("gh{}_{}", 'p', "R7mZ2kQx9LwT4vB8nYc3HsJ6dFgA1uEoPiX5")
}

pub(crate) fn prefix() -> String {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
    format!("nq{:05x}", nanos & 0xf_ffff)
}

/// Returns a container's address in a network, or nothing.
fn address(container: &str, network: &str) -> String {
    let format = format!("{{{{with index .NetworkSettings.Networks \"{network}\"}}}}{{{{.IPAddress}}}}{{{{end}}}}");
    docker(["inspect", "--format", &format, container]).stdout.trim().to_owned()
}

/// Writes an IPv6 address of the kernel's table with its colons.
fn colons(digits: &str) -> String {
    let groups = digits.as_bytes().chunks(4).map(|group| String::from_utf8_lossy(group).into_owned());
    groups.collect::<Vec<_>>().join(":")
}

fn ready(container: &str) {
    // Its health check. Podman may not run it by itself.
    let is_ready = || run(Command::new("docker").args(["exec", container, "test", "-e", "/data/ready"])).code == 0;
    assert!(
        (0..200).any(|_| is_ready() || {
            std::thread::sleep(Duration::from_millis(100));
            false
        }),
        "{container} did not start"
    );
}

/// The name of a container, which is removed with this value.
pub(crate) struct Removed(pub(crate) String);

impl Drop for Removed {
    fn drop(&mut self) {
        run(Command::new("docker").args(["rm", "--force", "--volumes", &self.0]));
    }
}

/// A program that records packets with nonces in a container's network namespace.
pub(crate) struct Sniffer {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    container: Option<Removed>,
}

impl Sniffer {
    pub(crate) fn start(container: &str, prefix: &str, removed: Option<Removed>) -> Self {
        let mut command = Command::new("docker");
        command.args(["exec", "--user", "root", container]);
        let mut sniffer = Self::of(command, prefix);
        sniffer.container = removed;
        sniffer
    }

    /// Starts the program with a command that runs its arguments elsewhere.
    pub(crate) fn of(mut command: Command, prefix: &str) -> Self {
        command.args(["python3", "-c", include_str!("sniff.py"), prefix]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (lines, output) = (Arc::new(Mutex::new(Vec::new())), child.stdout.take().unwrap());
        let (first, is_ready) = std::sync::mpsc::channel();
        let sink = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in std::io::BufRead::lines(std::io::BufReader::new(output)).map_while(Result::ok) {
                if line == "ready" {
                    let _ = first.send(());
                } else {
                    sink.lock().unwrap().push(line);
                }
            }
        });
        is_ready.recv_timeout(Duration::from_secs(20)).expect("the sniffer starts");
        Self { child, lines, container: None }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        drop(self.container.take());
    }
}

/// Listeners of the host.
pub(crate) struct Listeners {
    pub(crate) tcp: u16,
    pub(crate) udp: u16,
    received: Arc<Mutex<Vec<(&'static str, String)>>>,
}

impl Listeners {
    pub(crate) fn start() -> Self {
        let (tcp, udp) = (TcpListener::bind("0.0.0.0:0").unwrap(), UdpSocket::bind("0.0.0.0:0").unwrap());
        let ports = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
        let received = Arc::new(Mutex::new(Vec::new()));
        // The engine's own ports, where nobody else listens.
        let engine = [2375, 2376, 2377, 4243].into_iter().filter_map(|port| TcpListener::bind(("0.0.0.0", port)).ok());
        for listener in engine.chain([tcp]) {
            let sink = Arc::clone(&received);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let sink = Arc::clone(&sink);
                    std::thread::spawn(move || {
                        let mut stream = stream;
                        let mut data = [0; 4096];
                        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                        let count = stream.read(&mut data).unwrap_or(0);
                        sink.lock()
                            .unwrap()
                            .push(("TCP connection", String::from_utf8_lossy(&data[..count]).into_owned()));
                    });
                }
            });
        }
        let sink = Arc::clone(&received);
        std::thread::spawn(move || {
            let mut data = vec![0; 65536];
            while let Ok((count, _)) = udp.recv_from(&mut data) {
                sink.lock().unwrap().push(("datagram", String::from_utf8_lossy(&data[..count]).into_owned()));
            }
        });
        Self { tcp: ports.0, udp: ports.1, received }
    }

    pub(crate) fn received(&self) -> Vec<(&'static str, String)> {
        self.received.lock().unwrap().clone()
    }
}
