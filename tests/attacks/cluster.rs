//! The same attacks on bottles of a Kubernetes cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bottle::exec::{Backend, Child, Command, Control, ExecError, Output, Stdin, Subprocess, chain};
use bottle_kube::{KubeBottle, KubeInputs};
use bottle_testing::lab::cluster::Cluster;
use bottle_testing::lab::{self, FORBIDDEN, Lab, OUTSIDE, figure, not_run, variable};
use serde_json::{Value, json};

use crate::evidence::{Report, changed, copied, forged, misleading, misplaced, reports, settings, spoken};
use crate::launch::Ground;
use crate::secrets::Secrets;
use crate::site::{API, Fate, Listeners, MEMORY, OTHER, PIDS, Removed, Sniffer, github_token, prefix};
use crate::table::{Attack, Effect, Judge, Topology, attacks};
use crate::{chosen, document, ending, is_whole};

/// Sidecars with a log.
const SERVICES: [&str; 4] = ["pipelock", "egress", "git-gate", "supervise"];

/// Returns why an attack has no meaning on a cluster, where it is not run.
fn not_applicable(attack: &Attack) -> Option<&'static str> {
    match attack {
        _ if attack.is_root => Some("no root"),
        _ if attack.program.contains("> PIDS") => Some("podPidsLimit"),
        _ => None,
    }
}

/// Returns why the claim of an attack means nothing on a cluster. It is run, and every other evidence counts.
fn excuse(attack: &Attack) -> Option<&'static str> {
    match attack.name {
        "ptrace of process 1" | "the memory of process 1" | "files of process 1" | KILLS => Some("own process 1"),
        "io_uring" => Some("the node's filter"),
        _ => None,
    }
}

/// An attack that needs the container for itself or may end it, or whose files are copied out alone.
fn is_single(attack: &Attack) -> bool {
    attack.is_alone || [KILLS, HANGS_UP].contains(&attack.name) || matches!(attack.judge, Judge::Effect(Effect::Copy))
}

/// The attack that ends the container of gVisor, whose process 1 is not safe from its own signals.
const KILLS: &str = "signals to every process, and to process 1";

/// The attack that ends it with a hang-up alone.
const HANGS_UP: &str = "the proxies' configuration, written by the agent";

/// A bottle on a cluster under attack, with everything that records what leaves it.
struct Site<'a> {
    cluster: &'a Cluster,
    ground: &'a Ground,
    topology: Topology,
    runtime: &'a str,
    bottle: KubeBottle,
    secrets: Secrets,
    prefix: String,
    facts: Value,
    neighbor: Neighbor<'a>,
    listeners: Listeners,
    sniffers: Vec<(&'static str, Sniffer)>,
    settings: BTreeMap<&'static str, String>,
}

/// The outside host's image as a Pod that no policy protects.
struct Neighbor<'a> {
    cluster: &'a Cluster,
    namespace: String,
    address: String,
}

impl<'a> Neighbor<'a> {
    fn start(cluster: &'a Cluster, slug: &str) -> Self {
        let (namespace, image) = (format!("bottle-e2e-near-{slug}"), variable("BOTTLE_E2E_OUTSIDE"));
        assert!(cluster.ask(&["load", &image]).is_some(), "{image} is not loaded");
        cluster.run(&["create", "namespace", &namespace]).ok();
        let mut neighbor = Self { cluster, namespace, address: String::new() };
        let spec =
            json!({"spec": {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false}}).to_string();
        let run =
            ["run", "near", "--namespace", &neighbor.namespace, "--image", &image, "--image-pull-policy", "Never"];
        let options = ["--restart", "Never", "--env", "OUTSIDE_NAMES=near.test,localhost", "--overrides", &spec];
        cluster.run(&[&run[..], &options[..]].concat()).ok();
        let until = Instant::now() + Duration::from_secs(90);
        while neighbor.run("cat /data/ready").is_none() {
            assert!(Instant::now() < until, "the neighbor does not start");
            std::thread::sleep(Duration::from_millis(500));
        }
        let get = ["get", "pod", "near", "--namespace", &neighbor.namespace, "--output", "jsonpath={.status.podIP}"];
        cluster.run(&get).ok().clone_into(&mut neighbor.address);
        neighbor
    }

    fn run(&self, script: &str) -> Option<String> {
        let output = self.cluster.run(&["exec", "--namespace", &self.namespace, "near", "--", "sh", "-c", script]);
        (output.code == 0).then_some(output.stdout)
    }
}

impl Drop for Neighbor<'_> {
    fn drop(&mut self) {
        if !self.namespace.is_empty() {
            self.cluster.run(&["delete", "namespace", &self.namespace, "--wait=false"]);
        }
    }
}

fn launch(cluster: &Cluster, ground: &Ground, topology: Topology, runtime: &str, number: usize) -> KubeBottle {
    let (text, suffix) = match topology {
        Topology::Full => (ground.manifest(runtime), format!("-{number}")),
        Topology::Plain => (ground.plain_manifest(runtime), format!("-p{number}")),
    };
    let plan = ground.plan(&text, &suffix);
    let inputs = KubeInputs::read(&plan, |name| ground.token(name)).unwrap_or_else(|error| panic!("{}", chain(&error)));
    // As with an engine, it is not verified: some bottles here are weakened.
    let bottles = cluster.bottles_with(&ground.lab, [OUTSIDE, FORBIDDEN, API, OTHER]).without_verification();
    bottles.launch(plan, &inputs).unwrap_or_else(|error| panic!("{}", chain(&error)))
}

impl<'a> Site<'a> {
    fn around(
        cluster: &'a Cluster,
        ground: &'a Ground,
        topology: Topology,
        runtime: &'a str,
        others: &[String],
    ) -> Self {
        let bottle = launch(cluster, ground, topology, runtime, 0);
        let lab = &ground.lab;
        let prefix = prefix();
        let neighbor = Neighbor::start(cluster, bottle.journal().slug.as_str());
        let host = Removed(format!("bottle-e2e-host-{}", bottle.journal().slug));
        let image = variable("BOTTLE_E2E_OUTSIDE");
        lab::docker([
            "run",
            "--detach",
            "--name",
            &host.0,
            "--network",
            "host",
            "--entrypoint",
            "sleep",
            &image,
            "3600",
        ]);
        let sniffers = vec![
            ("outside", Sniffer::start(lab.outside.container(), &prefix, None)),
            ("host", Sniffer::start(&host.0.clone(), &prefix, Some(host))),
            (
                "neighbor",
                Sniffer::of(cluster.command(&["exec", "--namespace", &neighbor.namespace, "near", "--"]), &prefix),
            ),
        ];
        let listeners = Listeners::start();
        let sides = addresses(cluster, &bottle);
        let get = |object: &str, path: &str| {
            let output = format!("jsonpath={path}");
            cluster.run(&["get", object, "--namespace", bottle.namespace(), "--output", &output]).ok().to_owned()
        };
        let own = get("pod/agent", "{.status.podIP}");
        let node = get("pod/agent", "{.status.hostIP}");
        let net = own.rsplit_once('.').unwrap().0;
        let (gateway, everyone) = (format!("{net}.1"), format!("{net}.255"));
        let host_address = lab::run(
            std::process::Command::new("sh").args(["-c", "ip -4 -o addr show scope global | awk '{print $4; exit}'"]),
        );
        let host_address = host_address.ok().split('/').next().unwrap().to_owned();
        let facts = json!({
            "OUT": lab.link(), "FAR": lab.outside.address(lab.outside.network()), "NEAR": neighbor.address, "OWN": [own],
            "DEVICES": ["eth0"], "HOSTS": [host_address, node, gateway], "GATEWAY": gateway, "EVERYONE": everyone,
            "SIX": ["fe80::1"], "HTCP": listeners.tcp, "HUDP": listeners.udp, "SIDES": sides, "SIDE": sides[0],
            "SIDES_OUT": sides, "OTHERS": others, "OUTSIDE": OUTSIDE, "FORBIDDEN": FORBIDDEN, "API": API, "OTHER": OTHER,
            "PIDS": PIDS, "MEMORY": MEMORY, "SECRET": github_token(),
        });
        let (secrets, settings) = (ground.secrets(), settings());
        Self {
            cluster,
            ground,
            topology,
            runtime,
            bottle,
            secrets,
            prefix,
            facts,
            neighbor,
            listeners,
            sniffers,
            settings,
        }
    }

    fn is_gvisor(&self) -> bool {
        self.runtime == "runsc"
    }

    fn nonce(&self, number: usize) -> String {
        format!("{}{:08x}", self.prefix, 0x9e37_79b9_u32.wrapping_mul(u32::try_from(number).unwrap() + 1))
    }

    /// Runs the attacks of this topology, and returns the result of each.
    fn attack(&mut self, attacks: &[Attack]) -> BTreeMap<&'static str, Fate> {
        let own: Vec<&Attack> = attacks.iter().filter(|attack| attack.topology == self.topology).collect();
        let wanted = |is_alone| {
            let own = own.iter().enumerate();
            let own = own.filter(move |(_, attack)| is_single(attack) == is_alone && not_applicable(attack).is_none());
            own.map(|(number, _)| number).collect::<Vec<_>>()
        };
        // The workspace is what comes out of a bottle on a cluster.
        let out = format!("{}/out", self.bottle.journal().workdir);
        let case = |this: &Self, number: usize| {
            json!([number.to_string(), this.nonce(number), own[number].program.replace("/tmp/out", &out)])
        };
        let together: Vec<Value> = wanted(false).into_iter().map(|number| case(self, number)).collect();
        let mut results: BTreeMap<usize, Report> = self.run(&together).into_iter().collect();
        let mut effects: BTreeMap<usize, String> = BTreeMap::new();
        let mut look = |this: &Self, numbers: &[usize]| {
            std::thread::sleep(Duration::from_secs(1));
            let logs: BTreeMap<&str, String> =
                SERVICES.iter().filter_map(|name| Some((*name, this.bottle.logs(name).ok()?))).collect();
            for number in numbers {
                if let Judge::Effect(effect) = own[*number].judge {
                    effects.extend(this.effect(effect, &this.nonce(*number), &logs).map(|what| (*number, what)));
                }
            }
        };
        look(self, &wanted(false));
        self.assert_own_process_1();
        for (round, number) in wanted(true).into_iter().enumerate() {
            let found = self.run(&[case(self, number)]);
            if found.is_empty() && self.is_gvisor() {
                let is_claim = excuse(own[number]).is_some();
                results.insert(number, (is_claim, true, "it ended its own sandbox".to_owned()));
                let again = launch(self.cluster, self.ground, self.topology, self.runtime, round + 1);
                std::mem::replace(&mut self.bottle, again).close().unwrap();
            } else {
                results.extend(found);
                look(self, &[number]);
            }
        }
        let records = self.records();
        let mut fates = BTreeMap::new();
        for (number, attack) in own.iter().enumerate() {
            if let Some(why) = not_applicable(attack) {
                fates.insert(attack.name, Fate { not_applicable: Some(why), ..Fate::default() });
                continue;
            }
            let nonce = self.nonce(number);
            let (has_claimed, has_finished, printed) =
                results.remove(&number).unwrap_or_else(|| panic!("`{}` did not report", attack.name));
            let mut fate = Fate { printed, is_broken: !has_finished, ..Fate::default() };
            fate.through.extend(records.get(&nonce).into_iter().flatten().cloned());
            fate.through.extend(self.secrets.found_in(&fate.printed).map(|what| format!("its output has {what}")));
            fate.through.extend(effects.remove(&number));
            if has_claimed && !matches!(attack.judge, Judge::Recorded) {
                if self.is_gvisor() && attack.is_own_kernel {
                    fate.is_contained = true;
                } else if let Some(why) = excuse(attack) {
                    fate.not_applicable = Some(why);
                } else {
                    let claim = fate.printed.lines().find(|line| line.contains("GOT-")).unwrap_or_default();
                    fate.through.push(format!("it says: {}", claim.replace(&nonce, "")));
                }
            }
            fates.insert(attack.name, fate);
        }
        fates
    }

    /// Process 1 of the agent's container, which the agent may trace, has no other user, privilege or namespace, and still runs.
    fn assert_own_process_1(&self) {
        // gVisor gives a user namespace another number each time.
        let user = if self.is_gvisor() { "" } else { "user cgroup" };
        let script = format!(
            "show() {{ grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp)' \"/proc/$1/status\"
for kind in ipc mnt net pid uts {user}; do readlink \"/proc/$1/ns/$kind\"; done; }}
[ \"$(show 1)\" = \"$(show self)\" ] || {{ show 1; show self; exit 1; }}"
        );
        let output = self.bottle.exec(["sh", "-c", &script]).unwrap();
        assert!(output.status.is_success(), "{}", output.stdout_text());
    }

    /// Runs programs in the agent's container, as its user.
    fn run(&self, cases: &[Value]) -> Vec<(usize, Report)> {
        let input = json!({"facts": self.facts, "cases": cases, "at_once": 12}).to_string();
        let place = ["exec", "--stdin", "--namespace", self.bottle.namespace(), "agent", "--container", "main", "--"];
        let program = ["sh", "-c", "cd /tmp && exec python3 -c \"$0\"", include_str!("agent.py")];
        let mut command = self.cluster.command(&[&place[..], &program[..]].concat());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        // What ended meanwhile reads nothing.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        reports(&String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout))
    }

    fn effect(&self, effect: Effect, nonce: &str, logs: &BTreeMap<&str, String>) -> Option<String> {
        match effect {
            Effect::Harm => changed(&self.settings, nonce).or_else(|| {
                let state = self.bottle.exec(["true"]).map(|output| output.status.is_success());
                (!matches!(state, Ok(true))).then(|| format!("the agent's container has ended: {state:?}"))
            }),
            Effect::Log => {
                let own = self.bottle.logs("agent").unwrap();
                let forged = logs.iter().find_map(|(sidecar, log)| forged(sidecar, log, nonce));
                forged.or_else(|| (!own.is_empty()).then(|| "the log of the agent's container is not empty".to_owned()))
            }
            Effect::Event => {
                let output = self.bottle.exec([format!("/tmp/speak{nonce}")]).unwrap();
                spoken(&output.stderr_text(), &self.ground.lab.root.path().join(format!("events-{nonce}")))
            }
            Effect::Proposal => misleading(&self.proposals()),
            Effect::Copy => {
                let found = copied(&self.ground.lab, nonce, |into| format!("{:?}", self.bottle.export(into)));
                let clean = ["sh", "-c", "chmod -R u+rwX out; rm -rf out"];
                assert!(self.bottle.exec(clean).unwrap().status.is_success());
                found
            }
        }
    }

    /// Returns the proposals that wait for a person.
    fn proposals(&self) -> Vec<String> {
        let script = "for file in /state/queue/proposals/*.json; do cat \"$file\"; printf '\\000'; done";
        let place = ["exec", "--namespace", self.bottle.namespace(), "supervise", "--container", "keeper", "--"];
        let output = self.cluster.run(&[&place[..], &["sh", "-c", script]].concat());
        output.stdout.split('\0').filter(|text| !text.is_empty()).map(ToOwned::to_owned).collect()
    }

    /// Returns who recorded which nonce.
    fn records(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut records: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut record = |text: &str, by: &str| {
            let text = text.to_ascii_lowercase();
            let length = self.prefix.len() + 8;
            for nonce in text.match_indices(&self.prefix).filter_map(|(at, _)| text.get(at..at + length)) {
                records.entry(nonce.to_owned()).or_default().insert(by.to_owned());
            }
        };
        let near = self.neighbor.run("cat /data/events.jsonl").unwrap_or_default();
        let near = near.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let events = self.ground.lab.outside.events().into_iter().map(|event| ("outside", event));
        for (who, event) in events.chain(near.map(|event| ("neighbor", event))) {
            // The first half of an attack with a redirect goes to a host that is allowed.
            let is_redirect = event["target"].as_str().is_some_and(|target| target.starts_with("/redirect?"));
            if !is_redirect || event["tls"] != true {
                record(&event.to_string(), &format!("{who}: {}", event["kind"].as_str().unwrap_or("event")));
            }
        }
        for (who, sniffer) in &self.sniffers {
            for line in sniffer.lines() {
                let fields: Vec<&str> = line.split('\t').collect();
                let &[interface, _, protocol, nonce] = fields.as_slice() else { continue };
                // On the way from a Pod to the policies, or to a sidecar. `kubectl exec`, through which the attacks are sent and
                // report, is on the loopback of a node that runs on this host.
                let is_inside =
                    *who == "host" && (interface.starts_with("veth") || ["cni0", "lo"].contains(&interface));
                if !is_inside {
                    record(nonce, &format!("{who}: packet of protocol {protocol}"));
                }
            }
        }
        for (what, text) in self.listeners.received() {
            record(&text, &format!("host: {what}"));
        }
        record(&repositories(&self.ground.lab), "outside: git");
        records
    }

    /// Returns secrets and decisions where they do not belong.
    fn unattributed(&self) -> Vec<String> {
        let mut problems = misplaced(&self.ground.lab, &self.secrets);
        if self.topology == Topology::Full {
            let decided = self.bottle.supervise().unwrap().verify().unwrap().decisions.head.seq;
            // The first entry is that of the launch.
            problems.extend((decided > 1).then(|| format!("there are {decided} entries of decisions")));
        }
        problems
    }

    fn close(self) {
        let Self { bottle, neighbor, sniffers, .. } = self;
        drop((neighbor, sniffers));
        bottle.close().unwrap();
    }
}

/// Returns the addresses of the sidecars' Pods and Services, that of the agent's proxy first.
fn addresses(cluster: &Cluster, bottle: &KubeBottle) -> Vec<String> {
    let get = |kind: &str| -> Value {
        let text = cluster.run(&["get", kind, "--namespace", bottle.namespace(), "--output", "json"]);
        serde_json::from_str(text.ok()).unwrap()
    };
    let of = |list: &Value, path: &[&str]| -> Vec<(String, String)> {
        let items = list["items"].as_array().unwrap().iter();
        let address = |item: &Value| path.iter().fold(item.clone(), |value, key| value[*key].clone());
        items
            .map(|item| (item["metadata"]["name"].as_str().unwrap().to_owned(), address(item)))
            .filter_map(|(name, address)| Some((name, address.as_str()?.to_owned())))
            .collect()
    };
    let mut all = of(&get("pods"), &["status", "podIP"]);
    all.extend(of(&get("services"), &["spec", "clusterIP"]));
    all.retain(|(name, _)| name != "agent");
    all.sort_by_key(|(name, _)| name != "egress");
    all.into_iter().map(|(_, address)| address).collect()
}

/// Returns all refs and objects of the outside host's repositories.
fn repositories(lab: &Lab) -> String {
    lab.outside.as_git(
        "for r in *.git; do git -C $r for-each-ref; git -C $r cat-file --batch-all-objects --batch; done | tr -d '\\000'",
    )
}

fn under(runtime: &str) {
    let cluster = Cluster::find();
    if runtime == "runsc" && cluster.run(&["get", "runtimeclass", "gvisor"]).code != 0 {
        not_run("needs the runtime class gvisor");
    }
    let start = Instant::now();
    let is_whole = is_whole();
    let attacks = chosen();
    let ground = Ground::new(&format!("kubeatt-{runtime}"));
    let mut plain = Site::around(&cluster, &ground, Topology::Plain, runtime, &[]);
    let mut full = Site::around(&cluster, &ground, Topology::Full, runtime, &addresses(&cluster, &plain.bottle));
    plain.facts["OTHERS"] = json!(addresses(&cluster, &full.bottle));
    let mut fates = full.attack(&attacks);
    fates.extend(plain.attack(&attacks));
    let unattributed = [full.unattributed(), plain.unattributed()].concat();
    plain.close();
    full.close();
    let listed = |is_wanted: &dyn Fn(&Fate) -> bool| -> Vec<String> {
        let wanted = attacks.iter().filter(|attack| is_wanted(&fates[attack.name]));
        let line = |attack: &Attack| {
            let fate = &fates[attack.name];
            format!("{}: {}: {:?}\n{}", attack.group, attack.name, fate.through, ending(&fate.printed))
        };
        wanted.map(line).collect()
    };
    let (broken, through) = (listed(&|fate| fate.is_broken), listed(&|fate| !fate.through.is_empty()));
    let left_out = fates.values().filter(|fate| fate.not_applicable.is_some()).count();
    figure(format_args!(
        "cluster, {runtime}: {} attacks, {left_out} not applicable, {} got through, {} s",
        attacks.len(),
        through.len(),
        start.elapsed().as_secs()
    ));
    assert!(broken.is_empty(), "{} are broken:\n{}\n\n{}", broken.len(), broken.join("\n\n"), through.join("\n\n"));
    let column = if runtime == "runc" { document::Column::Cluster } else { document::Column::ClusterGvisor };
    let has_changed = is_whole && document::record(column, &fates);
    assert!(through.is_empty(), "{} attacks got through:\n{}", through.len(), through.join("\n\n"));
    assert!(unattributed.is_empty(), "{}", unattributed.join("\n"));
    assert!(!has_changed, "`docs/attacks.md` had other results; it has been written anew");
}

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn kubernetes_no_attack_gets_through() {
    under("runc");
}

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn kubernetes_no_attack_gets_through_under_gvisor() {
    under("runsc");
}

/// Weaknesses of a bottle on a cluster in words, and the attacks that get through because of them.
pub(crate) const WEAK: [(&str, &[&str]); 6] = [
    (
        "on a cluster: no policies",
        &[
            "TCP to an outside address",
            "UDP to an outside address",
            "TCP to every address of the host",
            "TCP to a neighbor on the internal network",
        ],
    ),
    ("on a cluster: everybody may send ICMP echo", &["ICMP echo, as an ordinary user may send it"]),
    ("on a cluster: a capability is kept", &["capabilities taken"]),
    ("on a cluster: no system call filter", &["unshare: a user namespace", "keyrings of the kernel"]),
    ("on a cluster: new privileges", &["filters and privileges taken off again"]),
    (
        "on a cluster: the usual file for a last message",
        &["device nodes", "files of the host that are mounted, opened for writing"],
    ),
];

/// Weakens the objects on their way to the API server.
#[derive(Debug)]
struct Weakening(Subprocess);

impl Backend for Weakening {
    fn run(&self, command: &Command, control: &Control) -> Result<Output, ExecError> {
        let Stdin::Bytes(bytes) = command.stdin() else { return self.0.run(command, control) };
        let Ok(mut value) = serde_json::from_slice::<Value>(bytes) else { return self.0.run(command, control) };
        weaken(&mut value);
        for item in value.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            weaken(item);
        }
        let command = command.clone().with_stdin(Stdin::Bytes(value.to_string().into_bytes()));
        self.0.run(&command, control)
    }

    fn spawn(&self, command: &Command, control: &Control) -> Result<Child, ExecError> {
        self.0.spawn(command, control)
    }
}

fn weaken(object: &mut Value) {
    match object["kind"].as_str() {
        Some("Namespace") => {
            object["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = json!("privileged");
        }
        Some("Pod") if object["metadata"]["name"] == "agent" => {
            let spec = &mut object["spec"];
            spec["securityContext"]["sysctls"] = json!([]);
            spec["securityContext"]["seccompProfile"] = json!({"type": "Unconfined"});
            let main = &mut spec["containers"][0];
            main["securityContext"]["allowPrivilegeEscalation"] = json!(true);
            main["securityContext"]["capabilities"] = json!({"drop": ["ALL"], "add": ["CHOWN"]});
            main.as_object_mut().unwrap().remove("terminationMessagePath").unwrap();
        }
        _ => {}
    }
}

/// Attacks get through in a bottle without its protections, so that the others show something.
#[test]
#[ignore = "needs a Kubernetes cluster"]
fn kubernetes_attacks_get_through_in_a_weakened_bottle() {
    let cluster = Cluster::find();
    let weak = cluster.clone().with_backend(Arc::new(Weakening(Subprocess::new(lab::host().environment()))));
    let ground = Ground::new("kubeweak");
    let mut site = Site::around(&weak, &ground, Topology::Full, "runc", &[]);
    cluster.run(&["delete", "networkpolicies", "--all", "--namespace", site.bottle.namespace()]).ok();
    let until = Instant::now() + Duration::from_secs(60);
    while site.bottle.verify().unwrap().holds() {
        assert!(Instant::now() < until, "the deleted policies are still enforced");
    }
    let caught: Vec<&str> = WEAK.iter().flat_map(|(_, caught)| *caught).copied().collect();
    let attacks: Vec<Attack> = attacks().into_iter().filter(|attack| caught.contains(&attack.name)).collect();
    assert_eq!(attacks.len(), caught.len());
    let fates = site.attack(&attacks);
    site.close();
    let blocked: Vec<_> = caught.iter().filter(|name| fates[*name].through.is_empty()).collect();
    assert!(blocked.is_empty(), "blocked by something else: {blocked:?}");
}
