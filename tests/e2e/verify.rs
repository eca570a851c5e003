//! The verification: a launch that attacks its own bottle refuses every weakened one.

use std::io::{BufRead as _, BufReader};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bottle::exec::Event;
use bottle::exec::engine::{Capability, Exec};
use bottle::plan::Service;
use bottle::verify::{Outcome, VerifyError};
use bottle::{AgentContainer, Builtin, Host, ProvisionError, Provisioner, Verification, Verify};
use bottle_testing::lab::{self, Changing, Lab, Part, docker, figure, needs_runtime, run};

/// Every protection of a bottle with egress in front of pipelock.
const BOTTLE: &str = "\
supervise: true
limits: {agent: {memory: 1GiB, cpus: 1.5}}
egress:
  allow: [outside.test]
  routes:
    - host: api.example.com
      inject: {token: VERIFY_TOKEN}";

/// Value of the token, which no agent may hold.
const TOKEN: &str = "verify-token-0123456789abcdef";

/// Returns a host whose environment has the token.
fn host_with_token() -> Host {
    let host = lab::host();
    let token = ("VERIFY_TOKEN".into(), TOKEN.into());
    Host::new(host.facts.clone(), host.environment().chain([token]).collect::<Vec<_>>())
}

/// Returns the protections that a verification found.
fn protections(verification: &Verification, outcome: Outcome) -> Vec<&'static str> {
    let probes = verification.probes.iter().filter(|probe| probe.outcome == outcome);
    probes.map(|probe| probe.protection).collect()
}

/// Takes every name that an earlier version used for its program, and writes results into the output of every process of the
/// agent's user.
const FORGER: &str = "cd; for n in $(seq 1500); do : >.bottle-probe.$n; done
    for round in $(seq 200); do
        for out in /proc/[0-9]*/fd/1; do [ \"$out\" = /proc/$$/fd/1 ] || echo failed forged >$out; done 2>/dev/null
    done";

fn holds_under(runtime: &str) {
    needs_runtime(runtime);
    for (topology, manifest) in [("routes", BOTTLE), ("plain", "egress: {allow: [outside.test]}"), ("closed", "{}")] {
        let lab = Lab::new(&format!("verify-{topology}-{runtime}"));
        let options = lab.options().with_host(host_with_token()).with_verification(Verify::Quick);
        let manifest =
            if manifest == "{}" { format!("runtime: {runtime}") } else { format!("runtime: {runtime}\n{manifest}") };
        let bottle = options.launch(lab.plan(&manifest, "")).unwrap();
        docker(["exec", "--detach", "--user", "agent", &bottle.names().project(), "sh", "-c", FORGER]);
        for level in [Verify::Quick, Verify::Full] {
            let found = bottle.verify(level).unwrap();
            assert!(found.holds() && !found.to_string().contains("forged"), "{topology}: {found}");
            figure(format_args!(
                "{topology} under {runtime}: {level:?}: {} probes in {} ms",
                found.probes.len(),
                found.took.as_millis()
            ));
            // Only the launch knows the values to search for. The variables that hold none are known later too.
            let mut not_run = if topology == "routes" { vec![] } else { vec!["configuration", "credentials"] };
            if runtime == "runsc" {
                not_run.push("system call filter");
            }
            not_run.push("environment");
            assert_eq!(protections(&found, Outcome::NotRun), not_run);
            let shown = found.to_string();
            for protection in ["firewall rules", "outlet's rules", "outside host, UDP", "name resolution", "proxy"] {
                assert!(shown.lines().any(|line| line.starts_with(protection) && line.contains("  held")), "{shown}");
            }
        }
        // An image of the network's name does not hide it.
        let network = bottle.names().internal_network();
        docker(["tag", &lab::pipelock_image(), &network]);
        let found = bottle.verify(Verify::Quick);
        docker(["rmi", &network]);
        assert!(found.unwrap().holds());
        // Another process verifies it by its journal.
        let attached = options.attach(bottle.slug()).unwrap();
        assert!(attached.verify(Verify::Quick).unwrap().holds());
        assert!(bottle.close().unwrap().is_clean());
        lab.assert_nothing_left();
        assert!(!attached.verify(Verify::Quick).unwrap().holds(), "nothing is left that could hold");
    }
}

#[test]
#[ignore = "needs a container engine"]
fn every_protection_of_a_bottle_holds() {
    holds_under("runc");
}

#[test]
#[ignore = "needs a container engine with the runtime runsc"]
fn every_protection_of_a_bottle_holds_under_gvisor() {
    holds_under("runsc");
}

/// Asserts that a quick verification adds at most this number of milliseconds to most launches, and prints how long later ones
/// take.
fn takes_little_time_under(runtime: &str, bound: u128) {
    needs_runtime(runtime);
    let git = "git: {upstreams: [{name: app, url: 'https://outside.test/app.git', token: VERIFY_TOKEN}]}";
    let manifest = format!("runtime: {runtime}\n{BOTTLE}\n{git}");
    let (mut added, mut later) = (Vec::new(), Vec::new());
    for round in 0..5 {
        let lab = Lab::new(&format!("verify-time-{runtime}-{round}"));
        let steps = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&steps);
        let observer = move |event: &Event| {
            if let Event::StepFinished { step, duration, .. } = event
                && step == "verify the protections"
            {
                told.lock().unwrap().push(duration.as_millis());
            }
        };
        let options = lab.options().with_host(host_with_token()).with_verification(Verify::Quick);
        let bottle = options.with_observer(Arc::new(observer)).launch(lab.plan(&manifest, "")).unwrap();
        assert_eq!(bottle.health().unwrap().len(), 7, "every sidecar runs");
        let step = steps.lock().unwrap().clone();
        assert_eq!(step.len(), 1, "a launch verifies once: {step:?}");
        added.extend(step);
        for _ in 0..3 {
            let found = bottle.verify(Verify::Quick).unwrap();
            assert!(found.holds(), "{found}");
            later.push(found.took.as_millis());
        }
        assert!(bottle.close().unwrap().is_clean());
    }
    for times in [&mut added, &mut later] {
        times.sort_unstable();
    }
    figure(format_args!(
        "a quick verification of every sidecar under {runtime} adds {} ms to a launch (median of 5; {} to {}); later ones take {} ms (median of 15; {} to {})",
        added[2], added[0], added[4], later[7], later[0], later[14]
    ));
    assert!(added[2] <= bound, "the median of {added:?} ms is more than {bound}");
}

#[test]
#[ignore = "needs a container engine"]
fn a_quick_verification_is_measured() {
    takes_little_time_under("runc", 250);
}

/// The goal is 250 ms as well; the bound has reserve for a machine on which other things run.
#[test]
#[ignore = "needs a container engine with the runtime runsc"]
fn a_quick_verification_is_measured_under_gvisor() {
    takes_little_time_under("runsc", 500);
}

/// Launches a weakened bottle, and returns the protections that the launch found missing. Nothing is left of it.
fn found_missing(lab: &Lab, bottles: &bottle::Bottles, what: &str) -> Vec<&'static str> {
    let bottles = bottles.clone().with_verification(Verify::Quick);
    let error = match bottles.launch(lab.plan(BOTTLE, "")) {
        Ok(bottle) => {
            bottle.close().unwrap();
            panic!("{what}: the weakened bottle was handed out");
        }
        Err(error) => error,
    };
    let bottle::launch::LaunchCause::Verify(VerifyError::Unprotected { failed }) = &*error.cause else {
        panic!("{what}: {}", bottle::report(&error));
    };
    let text = bottle::report(&error).to_string();
    assert!(!text.contains(TOKEN), "{what}: the error shows the token");
    assert!(error.teardown.as_ref().is_some_and(bottle::lifecycle::TeardownReport::is_clean), "{what}: {text}");
    lab.assert_nothing_left();
    failed.iter().map(|probe| probe.protection).collect()
}

/// Weakens a bottle after its start, with the engine's own command line.
#[derive(Debug)]
struct Weakened(fn(&AgentContainer<'_>));

impl Provisioner for Weakened {
    fn provision(&self, agent: &AgentContainer<'_>) -> Result<(), ProvisionError> {
        self.0(agent);
        Ok(())
    }
}

/// A weakness in words, the protection that it takes away, and the function that causes it.
type Case = (&'static str, &'static [&'static str], fn(&AgentContainer<'_>));

/// Adds what the engine's descriptions of the planned containers do not show: a mount, a higher limit, an interface, a table of
/// rules and a container.
fn weaken_beside_the_engine(agent: &AgentContainer<'_>) {
    const CHANGE: &str = "set -e
        nsenter --target 1 --mount sh -c 'mkdir /extra; mount -t tmpfs none /extra'
        group=$(sed -n 's/^[0-9]*:pids://p; s/^0:://p' /proc/1/cgroup | head -n 1)
        mount -t cgroup -o pids none /mnt 2>/dev/null || mount -t cgroup2 none /mnt
        echo max >/mnt$group/pids.max
        mkdir -p /dev/net; [ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
        exec python3 -c \"$1\"";
    const INTERFACE: &str = "\
import fcntl, os, socket, struct
made = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(made, 0x400454ca, struct.pack('16sH14x', b'extra0', 0x1001))
fcntl.ioctl(made, 0x400454cb, 1)
fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sH14x', b'extra0', 1))
";
    let seal = agent.plan().plan().names.container(Service::Seal);
    let [network, pid] = [&seal, &agent.name()].map(|name| format!("container:{name}"));
    let joined = format!("bottle-e2e-joined-{}", agent.plan().plan().names.slug());
    let image = agent.plan().launch().seal.reference.to_string();
    docker(["run", "--detach", "--name", &joined, "--network", &network, "--entrypoint", "/probe", &image, "wait"]);
    let helper =
        ["run", "--rm", "--privileged", "--user", "0", "--cgroupns", "host", "--network", &network, "--pid", &pid];
    let image = agent.plan().launch().agent.image.to_string();
    docker(helper.into_iter().chain(["--entrypoint", "sh", &image, "-c", CHANGE, "sh", INTERFACE]));
    nft(agent, Service::Seal, &["add table ip x { chain y { type filter hook postrouting priority 300; }; }"]);
}

/// Runs nft in the container that owns a network namespace.
fn nft(agent: &AgentContainer<'_>, owner: Service, arguments: &[&str]) {
    lab::nft(&agent.plan().plan().names.container(owner), arguments);
}

#[test]
#[ignore = "needs a container engine"]
fn a_bottle_weakened_after_its_start_is_not_handed_out() {
    let cases: [Case; 20] = [
        ("another allowlist of pipelock", &["configuration files"], |agent| {
            let config = &agent.plan().launch().pipelock.config;
            let text = std::fs::read_to_string(config).unwrap();
            std::fs::write(config, text.replace("outside.test", "'*.test'")).unwrap();
        }),
        ("no rules", &["firewall rules"], |agent| nft(agent, Service::Seal, &["delete", "table", "inet", "bottle"])),
        ("a policy that accepts", &["firewall rules"], |agent| {
            nft(agent, Service::Seal, &["add chain inet bottle output { policy accept; }"]);
        }),
        ("a rule that accepts everything", &["firewall rules"], |agent| {
            nft(agent, Service::Seal, &["insert rule inet bottle output accept"]);
        }),
        ("a rule for one outside host", &["firewall rules"], |agent| {
            nft(agent, Service::Seal, &["insert rule inet bottle output ip daddr 198.51.100.1 tcp dport 443 accept"]);
        }),
        ("a rule for the closed proxy", &["firewall rules"], |agent| {
            nft(agent, Service::Seal, &["insert rule inet bottle output tcp dport 8888 accept"]);
        }),
        ("rules that are not consulted", &["firewall rules"], |agent| {
            nft(agent, Service::Seal, &["add table inet bottle { flags dormant; }"]);
        }),
        ("no rules of the outlet", &["outlet's rules"], |agent| {
            nft(agent, Service::Outlet, &["delete", "table", "inet", "bottle"]);
        }),
        (
            "what the engine does not describe",
            &["further containers", "mounts, from inside", "control groups", "network interfaces", "firewall rules"],
            weaken_beside_the_engine,
        ),
        ("an outlet with another port", &["outlet's rules"], |agent| {
            nft(agent, Service::Outlet, &["insert rule inet bottle output tcp dport 22 accept"]);
        }),
        ("an outlet for every user's names by TCP", &["outlet's rules"], |agent| {
            nft(agent, Service::Outlet, &["insert rule inet bottle output tcp dport 53 accept"]);
        }),
        ("rules of the outlet that are not consulted", &["outlet's rules"], |agent| {
            nft(agent, Service::Outlet, &["add table inet bottle { flags dormant; }"]);
        }),
        ("an outlet that was started again", &["network namespace"], |agent| {
            docker(["restart", "--time", "0", &agent.plan().plan().names.container(Service::Outlet)]);
        }),
        ("a network with a route", &["networks and ports"], |agent| {
            docker(["network", "connect", "bridge", &agent.plan().plan().names.container(Service::Seal)]);
        }),
        ("a seal that was started again", &["network namespace"], |agent| {
            docker(["restart", "--time", "0", &agent.plan().plan().names.container(Service::Seal)]);
        }),
        ("no limit of processes", &["limits"], |agent| {
            docker(["update", "--pids-limit", "-1", &agent.name()]);
        }),
        ("a higher limit of memory", &["limits"], |agent| {
            docker(["update", "--memory", "4g", "--memory-swap", "4g", &agent.name()]);
        }),
        ("a token in a process's environment", &["environment"], |agent| {
            let token = format!("LEAKED={TOKEN}");
            docker(["exec", "--detach", "--user", "agent", "--env", &token, &agent.name(), "sleep", "60"]);
        }),
        ("a token on a command line", &["environment"], |agent| {
            docker(["exec", "--detach", "--user", "0", &agent.name(), "sh", "-c", "sleep 60", TOKEN]);
        }),
        ("a resolver that asks others", &["name resolution"], |agent| {
            docker(["exec", "--detach", "--user", "0", &agent.name(), "python3", "-c", RESOLVER]);
            let answers = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.connect(('127.0.0.1', 53)); s.settimeout(1); \
                           s.send(b'xx' + bytes(10)); s.recv(99)";
            let asked = Exec::new([
                "sh",
                "-c",
                "for _ in $(seq 50); do python3 -c \"$0\" && exit; sleep 0.1; done; exit 1",
                answers,
            ]);
            agent.run("wait for the resolver", asked).unwrap();
        }),
    ];
    let lab = Lab::new("weakened-after");
    for (what, protections, weaken) in cases {
        let bottles =
            lab.options().with_host(host_with_token()).with_provisioner(Arc::new(Builtin.then(Weakened(weaken))));
        let missing = found_missing(&lab, &bottles, what);
        let joined = format!("bottle-e2e-joined-{}", lab.slug);
        run(Command::new("docker").args(["rm", "--force", &joined]));
        assert!(protections.iter().all(|protection| missing.contains(protection)), "{what}: {missing:?}");
    }
}

/// Answers every query with "no such name", as the server of a resolver that is open.
const RESOLVER: &str = "\
import socket
server = socket.socket(type=socket.SOCK_DGRAM)
server.bind(('127.0.0.1', 53))
for _ in range(1000):
    query, sender = server.recvfrom(1500)
    server.sendto(query[:2] + b'\\x81\\x83' + query[4:], sender)
";

/// A launch refuses this runtime by its arguments. Here it is behind another name, as one whose arguments the engine does
/// not tell.
#[test]
#[ignore = "needs a container engine with gVisor on its own network stack as the runtime runsc-netstack"]
fn a_gvisor_with_its_own_network_stack_is_not_handed_out() {
    const RUNTIME: &str = "runsc-netstack";
    needs_runtime(RUNTIME);
    let lab = Lab::new("netstack");
    let engine = lab::engine();
    let required = engine.require(&Capability::KernelNetwork(RUNTIME.into()));
    assert!(required.unwrap_err().to_string().contains("`--network=host`"));
    let backend = Arc::new(Changing {
        backend: Arc::clone(engine.backend()),
        part: Part::Service(Service::Agent),
        from: "    network_mode: service:seal\n",
        to: format!("    network_mode: service:seal\n    runtime: {RUNTIME}\n"),
    });
    let bottles = lab.options_of(engine.with_backend(backend)).with_host(host_with_token());
    let missing = found_missing(&lab, &bottles, RUNTIME);
    for protection in ["sidecars, closed ports", "sidecars, UDP"] {
        assert!(missing.contains(&protection), "{missing:?}");
    }
}

/// Settings that a person could add to the Compose file of a running bottle, by service, each with what the verification says.
const OVERRIDES: [(&str, &str, &[&str]); 5] = [
    (
        "egress",
        "
    privileged: true
    cap_add: [SYS_ADMIN]
    security_opt: !override ['seccomp:SECCOMP']
    devices: ['/dev/null:/dev/other']
    group_add: ['4242']
    user: '4242:4242'
    command: ['--help']
    entrypoint: ['/bin/sh', '-c', 'exec sleep infinity', 'sh']
    environment: ['LD_PRELOAD=/nowhere.so', 'EGRESS_UPSTREAM_PROXY=http://192.0.2.1:8888']
    ports: ['127.0.0.1::9099']
    pid: host
    ipc: host
    uts: host
    read_only: false
    pids_limit: -1
    mem_limit: 0
    memswap_limit: 0
    ulimits: {nofile: 4096}
    oom_kill_disable: true
    shm_size: 1m
    dns: [192.0.2.1]
    extra_hosts: ['api.example.com:192.0.2.1']
    sysctls: {net.ipv4.ip_unprivileged_port_start: '80'}
    tmpfs: !override ['/tmp:exec']
    init: false
    volumes:
      - {type: bind, source: /etc, target: /host, read_only: true}
      - {type: bind, source: OTHER, target: /etc/egress/routes.yaml, read_only: true, bind: {create_host_path: false}}",
        &[
            "Privileged is true",
            "CapAdd is [\"SYS_ADMIN\"]",
            "\"seccomp:{",
            "Devices is",
            "GroupAdd is",
            "User is \"4242:4242\"",
            "Cmd is not as planned",
            "Entrypoint is not as planned",
            "the variable `LD_PRELOAD` is not planned",
            "the variable `EGRESS_UPSTREAM_PROXY` has another value than planned",
            "PortBindings is",
            "PidMode is \"host\"",
            "IpcMode is \"host\"",
            "UTSMode is \"host\"",
            "ReadonlyRootfs is not set",
            "PidsLimit is",
            "Memory is not set",
            "Ulimits is",
            "ShmSize is",
            "Dns is",
            "ExtraHosts is",
            "Sysctls is",
            "Tmpfs is",
            "Init is not set",
            "`/host` is mounted",
            "`/etc/egress/routes.yaml`",
        ],
    ),
    (
        "pipelock",
        "
    command: !override [run, --listen, '0.0.0.0:8888']
    security_opt: ['systempaths=unconfined']
    cap_add: [NET_RAW]
    cgroup: CGROUP
    volumes:
      - {type: bind, source: OTHER, target: /etc/pipelock.yaml, read_only: true, bind: {create_host_path: false}}",
        &[
            "Cmd is not as planned",
            "MaskedPaths is not set",
            "ReadonlyPaths is not set",
            "CapAdd is [\"NET_RAW\"]",
            "CgroupnsMode is",
            "`/etc/pipelock.yaml` is",
        ],
    ),
    (
        "supervise",
        "
    image: IMAGE
    networks: {egress: null, internal: {aliases: [egress]}}
    restart: always
    labels: {PREFIX.slug: other}",
        &[
            "its image is `",
            "it is attached to",
            "it answers to the name `egress`",
            "RestartPolicy is \"always\"",
            "slug` is not as planned",
        ],
    ),
    (
        "outlet",
        "
    cap_add: [NET_RAW]",
        &["CapAdd is [\"NET_ADMIN\",\"NET_RAW\"]"],
    ),
    (
        "agent",
        "
    runtime: RUNTIME
    user: agent
    restart: always
    userns_mode: host
    environment: ['EXTRA=1']",
        &[
            "Runtime is",
            "User is \"agent\"",
            "RestartPolicy is \"always\"",
            "UsernsMode is \"host\"",
            "the variable `EXTRA` is not planned",
        ],
    ),
];

/// Each service of one bottle is replaced by one with weaker settings, and by the planned one again.
#[test]
#[ignore = "needs a container engine"]
fn every_changed_setting_of_a_running_bottle_is_named() {
    let lab = Lab::new("verify-settings");
    let bottle = lab.options().with_host(host_with_token()).launch(lab.plan(BOTTLE, "")).unwrap();
    let state = lab.state_root().bottle(bottle.slug());
    let file = state.compose_file().display().to_string();
    let [seccomp, other, changed] =
        ["seccomp.json", "other.yaml", "changed.yml"].map(|name| lab.root.path().join(name));
    std::fs::write(&seccomp, "{\"defaultAction\": \"SCMP_ACT_ALLOW\"}").unwrap();
    std::fs::write(&other, "mode: audit\n").unwrap();
    let cgroup =
        docker(["inspect", "--format", "{{.HostConfig.CgroupnsMode}}", &bottle.names().container(Service::Seal)])
            .stdout;
    let cgroup = if cgroup.trim() == "host" { "private" } else { "host" };
    // The shim by its type: the same program under another name.
    let filled_in = |text: &str| {
        let image = lab::pipelock_image();
        [
            ("SECCOMP", &*seccomp.display().to_string()),
            ("OTHER", &other.display().to_string()),
            ("CGROUP", cgroup),
            ("IMAGE", &image),
            ("PREFIX", bottle.names().prefix().as_str()),
            ("RUNTIME", "io.containerd.runc.v2"),
        ]
        .into_iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    };
    let project = bottle.names().project();
    let compose = |files: &[&str], service: &str| {
        let files = files.iter().flat_map(|file| ["--file", file]);
        let up = ["up", "--detach", "--no-deps", "--force-recreate", "--no-build", service];
        run(Command::new("docker").args(["compose", "--project-name", &project]).args(files).args(up))
    };
    for path in [state.egress_routes(), state.pipelock_config()] {
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}# changed\n")).unwrap();
        let found = bottle.verify(Verify::Quick).unwrap();
        std::fs::write(&path, text).unwrap();
        let told = format!("configuration files: `{}` is not as the launcher wrote it", path.display());
        assert_eq!(found.failed().map(ToString::to_string).collect::<Vec<_>>(), [told]);
    }
    let mut named = 0;
    for (service, settings, told) in OVERRIDES {
        std::fs::write(&changed, format!("services:\n  {service}:{}\n", filled_in(settings))).unwrap();
        // Some of the settings keep the container from starting. It is created all the same.
        let replaced = compose(&[&file, &changed.display().to_string()], service);
        let found = bottle.verify(Verify::Quick).unwrap();
        let problems: Vec<String> = found.failed().map(ToString::to_string).collect();
        let text = problems.join("\n");
        let container = bottle.names().sidecar_container(service);
        let container = if service == "agent" { bottle.names().container(Service::Agent) } else { container };
        for part in told {
            assert!(text.contains(part), "{service}: {part} is not in:\n{text}\n{replaced:?}");
            named += 1;
        }
        assert!(text.contains(&format!("`{container}`: ")), "{text}");
        compose(&[&file], service).ok();
        if service == "outlet" {
            // It joins the new one's namespace.
            compose(&[&file], "pipelock").ok();
        }
    }
    figure(format_args!("{named} changed settings are named"));
    // The agent joins the seal's namespace again, and every sidecar is as it was launched.
    let until = Instant::now() + Duration::from_secs(60);
    let mut found = bottle.verify(Verify::Quick).unwrap();
    while !found.holds() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(200));
        found = bottle.verify(Verify::Quick).unwrap();
    }
    assert!(found.holds(), "{found}");
    assert!(bottle.close().unwrap().is_clean());
    lab.assert_nothing_left();
}

#[test]
#[ignore = "needs a container engine with the runtime runsc"]
fn a_bottle_without_its_runtime_is_not_handed_out() {
    needs_runtime("runsc");
    let lab = Lab::new("verify-runtime");
    let engine = lab::engine();
    let (part, from) = (Part::Service(Service::Agent), "    runtime: runsc\n");
    let backend = Arc::new(Changing { backend: Arc::clone(engine.backend()), part, from, to: String::new() });
    let bottles = lab.options_of(engine.with_backend(backend)).with_host(host_with_token());
    let error = bottles.launch(lab.plan("runtime: runsc", "")).err().map(|error| bottle::report(&error).to_string());
    assert!(error.as_deref().is_some_and(|error| error.contains("planned: \"runsc\"")), "{error:?}");
    lab.assert_nothing_left();
}

#[test]
#[ignore = "needs a container engine"]
fn a_bottle_whose_volume_is_a_directory_of_the_host_is_not_handed_out() {
    let lab = Lab::new("verify-volume");
    let shared = lab.root.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let (from, to) = ("      device: tmpfs\n      o: ", format!("      device: {}\n      o: bind,", shared.display()));
    let engine = lab::engine();
    let backend = Arc::new(Changing { backend: Arc::clone(engine.backend()), part: Part::Volumes, from, to });
    let bottles = lab.options_of(engine.with_backend(backend)).with_host(host_with_token());
    let missing = found_missing(&lab, &bottles, "a directory of the host");
    assert!(missing.contains(&"volumes"), "{missing:?}");
}

#[test]
#[ignore = "needs a container engine"]
fn a_bottle_with_a_weakened_compose_file_is_not_handed_out() {
    const JOINS: &str = "    network_mode: service:seal\n";
    const VOLUMES: &str = "    volumes:\n";
    let added = |line: &str| format!("{JOINS}    {line}\n");
    let mounted = |line: &str| format!("{VOLUMES}      - {line}\n");
    let agent = [
        ("capabilities are kept", "capabilities", "    cap_drop:\n      - ALL\n", String::new()),
        ("a capability is added", "capabilities", JOINS, added("cap_add: [NET_RAW]")),
        ("it is privileged", "capabilities", JOINS, added("privileged: true")),
        (
            "it may gain privileges",
            "capabilities",
            "    security_opt:\n      - no-new-privileges:true\n",
            String::new(),
        ),
        (
            "no system call filter",
            "system call filter",
            "    security_opt:\n",
            "    security_opt:\n      - seccomp:unconfined\n".to_owned(),
        ),
        ("the host's processes", "host namespaces", JOINS, added("pid: host")),
        ("the host's IPC", "host namespaces", JOINS, added("ipc: host")),
        ("a device", "host namespaces", JOINS, added("devices: ['/dev/null:/dev/other']")),
        ("the network with a route", "network namespace", JOINS, "    networks: [egress]\n".to_owned()),
        ("the host's network", "network namespace", JOINS, "    network_mode: host\n".to_owned()),
        ("the engine's socket", "mounts", VOLUMES, mounted("/var/run/docker.sock:/var/run/docker.sock")),
        ("a directory of the host", "mounts", VOLUMES, mounted("/etc:/host")),
        ("the credentials of egress", "credentials", VOLUMES, mounted("egress-credentials:/stolen:ro")),
        ("a mount that can be written", "mounts", "        read_only: true\n", "        read_only: false\n".to_owned()),
        ("another program", "images and programs", "      - infinity\n", "      - \"3600\"\n".to_owned()),
        ("a token", "configuration", "    environment:\n", format!("    environment:\n      - LEAKED={TOKEN}\n")),
        ("no limit of processes", "limits", "    pids_limit: 4096\n", String::new()),
        ("no limit of memory", "limits", "    mem_limit: 1073741824\n    memswap_limit: 1073741824\n", String::new()),
        ("no limit of processors", "limits", "    cpus: \"1.5\"\n", String::new()),
    ];
    let agent = agent
        .into_iter()
        .map(|(what, protection, from, to)| (Part::Service(Service::Agent), what, protection, from, to));
    let others = [
        (
            Part::Service(Service::Seal),
            "a capability of the seal",
            "capabilities",
            "      - NET_ADMIN\n",
            "      - NET_ADMIN\n      - SYS_ADMIN\n".to_owned(),
        ),
        (
            Part::Service(Service::Seal),
            "a second network",
            "networks and ports",
            "      internal:\n",
            "      egress: null\n      internal:\n".to_owned(),
        ),
        (
            Part::Service(Service::Seal),
            "egress can be bypassed",
            "firewall rules",
            // The closed proxy's address is the last one.
            "\"\n    user: 0:0\n",
            ":8888\"\n    user: 0:0\n".to_owned(),
        ),
        (
            Part::Service(Service::Pipelock),
            "a proxy past its outlet",
            "network namespace",
            "    network_mode: service:outlet\n",
            "    networks: [egress]\n".to_owned(),
        ),
        (
            Part::Service(Service::Outlet),
            "an outlet with another port",
            "outlet's rules",
            "      - \"443\"\n",
            "      - \"443\"\n      - \"22\"\n".to_owned(),
        ),
        (Part::Network, "a network that is not internal", "networks and ports", "--internal", String::new()),
        (
            Part::Service(Service::Egress),
            "a token in egress",
            "configuration",
            "    environment:\n",
            format!("    environment:\n      - LEAKED={TOKEN}\n"),
        ),
        (
            Part::Service(Service::Egress),
            "a variable for a token in egress",
            "configuration",
            "    environment:\n",
            "    environment:\n      - EGRESS_TOKEN_VERIFY_TOKEN=some-value\n".to_owned(),
        ),
    ];
    let lab = Lab::new("weakened-file");
    for (part, what, protection, from, to) in agent.chain(others) {
        let engine = lab::engine();
        let backend = Arc::new(Changing { backend: Arc::clone(engine.backend()), part, from, to });
        let bottles = lab.options_of(engine.with_backend(backend)).with_host(host_with_token());
        let missing = found_missing(&lab, &bottles, what);
        assert!(missing.contains(&protection), "{what}: {missing:?}");
    }
}

/// Takes every port that the kernel would give out by itself. Each process takes some, and prints their number.
const PORTS: &str = r"
ulimit -n $(ulimit -H -n); set -- $(cat /proc/sys/net/ipv4/ip_local_port_range)
for kind in 1 2; do
    for from in $(seq $1 9000 $2); do
        perl -MSocket -e '
            my ($kind, $from, $last) = @ARGV;
            my @taken;
            for my $port ($from .. ($from + 8999 < $last ? $from + 8999 : $last)) {
                socket(my $one, PF_INET, $kind, 0) or next;
                push(@taken, $one) if bind($one, sockaddr_in($port, INADDR_ANY));
            }
            syswrite(STDOUT, scalar(@taken) . qq(\n));
            sleep(120);' $kind $from $2 &
        number=$((number + 1))
    done
done
echo processes $number
wait";

/// The agent has the user of the attacking program, and can take from it what it needs.
#[test]
#[ignore = "needs a container engine"]
fn an_attack_that_an_agent_keeps_from_being_tried_has_failed() {
    let lab = Lab::new("verify-ports");
    let bottle = lab.launch("egress: {allow: [outside.test]}", "");
    let mut agent = bottle.spawn(Exec::new(["sh", "-c", PORTS]), None).unwrap();
    let lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    let (mut taken, mut left) = (0, None);
    for (read, line) in lines.map(Result::unwrap).enumerate() {
        match line.strip_prefix("processes ") {
            Some(number) => left = Some(number.parse::<usize>().unwrap()),
            None => taken += line.parse::<u32>().unwrap(),
        }
        if Some(read) == left {
            break;
        }
    }
    assert!(taken > 50_000, "{taken} ports were taken");
    let found = bottle.verify(Verify::Quick).unwrap();
    let failed = protections(&found, Outcome::Failed);
    for protection in ["IPv6", "outside host, UDP", "sidecars, UDP", "name resolution"] {
        assert!(failed.contains(&protection), "{protection} was not tried, and held: {found}");
    }
    agent.kill().unwrap();
    let found = bottle.verify(Verify::Quick).unwrap();
    assert!(found.holds(), "{found}");
    lab.close(&bottle);
}
