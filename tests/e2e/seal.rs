//! The seal: nothing of the agent ever runs outside its rules.

use std::net::UdpSocket;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bottle::exec::Event;
use bottle::exec::engine::Exec;
use bottle::plan::Service;
use bottle::{Bottle, ServiceHealth};

use bottle_testing::lab::{Lab, OUTSIDE, docker, example, figure, nft, run, sh};

/// With a route, egress is in front of pipelock, whose port is then closed to the agent.
const BOTTLE: &str = "\
egress:
  allow: [outside.test]
  routes:
    - host: api.example.com";

/// Tries for two seconds, as often as it can, to reach what the rules forbid. Prints what got through, and the number of attempts.
///
/// Arguments: a container's name or address, an address of the host, and a UDP port there.
const KNOCK: &str = "\
import socket, sys, time
container, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
until, attempts, through = time.monotonic() + 2, 0, set()
while time.monotonic() < until:
    attempts += 1
    for device in (None, b'eth0'):
        try:
            with socket.socket(type=socket.SOCK_DGRAM) as attempt:
                if device:
                    attempt.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
                attempt.sendto(b'leak', (address, port))
                through.add(f'sent to the host {device}')
        except OSError:
            pass
        try:
            with socket.socket() as attempt:
                attempt.settimeout(1)
                if device:
                    attempt.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
                attempt.connect((container, 8888))
                through.add(f'connected to the container {device}')
        except OSError:
            pass
print(*sorted(through), 'attempts:', attempts, flush=True)
";

/// A UDP service of the host, which an unsealed agent can reach.
struct HostService {
    socket: UdpSocket,
    address: String,
    port: String,
}

impl HostService {
    fn start() -> Self {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let port = socket.local_addr().unwrap().port().to_string();
        let script = "ip -4 -o addr show scope global | awk '{print $4; exit}'";
        let address = run(Command::new("sh").args(["-c", script])).ok().split('/').next().unwrap().to_owned();
        Self { socket, address, port }
    }

    /// Number of datagrams that have arrived.
    fn arrived(&self) -> usize {
        (0..10_000).take_while(|_| self.socket.recv_from(&mut [0; 16]).is_ok()).count()
    }
}

/// Accepts connections on pipelock's port, and closes them.
const LISTEN: &str = "\
import socket
server = socket.create_server(('', 8888), backlog=128)
for _ in range(1000000):
    server.accept()[0].close()
";

/// A container that listens on pipelock's port and is no sidecar.
struct Neighbor {
    address: String,
    _container: Removed,
}

impl Neighbor {
    fn start(lab: &Lab, image: &str, network: &str) -> Self {
        let name = format!("bottle-e2e-neighbor-{}", lab.slug);
        let run_it = ["run", "--detach", "--name", &name, "--network", network, image];
        docker(run_it.into_iter().chain(["python3", "-c", LISTEN]));
        let container = Removed(name);
        let name = container.0.as_str();
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = docker(["inspect", "--format", format, name]).stdout.trim().to_owned();
        let connect = "import socket; socket.create_connection(('127.0.0.1', 8888), 1)";
        let listens = || run(Command::new("docker").args(["exec", name, "python3", "-c", connect])).code == 0;
        assert!((0..50).any(|_| listens()), "{:?}", docker(["logs", name]));
        Self { address, _container: container }
    }
}

/// The name of a container, which is removed with this value.
struct Removed(String);

impl Drop for Removed {
    fn drop(&mut self) {
        run(Command::new("docker").args(["rm", "--force", &self.0]));
    }
}

/// Returns the id of a service's image.
fn image_id(bottle: &Bottle, service: Service) -> String {
    docker(["inspect", "--format", "{{.Image}}", &bottle.names().container(service)]).stdout.trim().to_owned()
}

/// Returns what got through, from the output of at least `least` attempts.
fn got_through(output: &str, least: u32) -> String {
    let (through, attempts) = output.rsplit_once("attempts: ").unwrap();
    assert!(attempts.trim().parse::<u32>().unwrap() >= least, "{output}");
    through.to_owned()
}

/// Runs the attempts in a bottle, against a container and the host, and returns what got through.
fn knock_at(bottle: &Bottle, container: &str, host: &HostService) -> String {
    let output = bottle.exec(["python3", "-c", KNOCK, container, &host.address, &host.port]).unwrap();
    assert!(output.status.is_success(), "{}", output.stderr.text());
    got_through(&output.stdout.text(), 10)
}

/// Runs the attempts in a bottle, against pipelock and the host, and returns what got through.
fn knock(bottle: &Bottle, host: &HostService) -> String {
    knock_at(bottle, &bottle.names().container(Service::Pipelock), host)
}

/// Message of a seal that closes its namespace.
const CLOSED: &str = "somebody changed the rules; the namespace is closed";

#[test]
#[ignore = "needs a container engine"]
fn neither_the_entry_point_nor_the_health_check_of_an_image_runs() {
    let lab = Lab::new("entry");
    let host = HostService::start();
    let first = lab.launch(&format!("{BOTTLE}\nworkspace: {{mode: none}}"), "");
    let base = docker(["inspect", "--format", "{{.Config.Image}}", &first.names().project()]).stdout;
    let pipelock = first.names().container(Service::Pipelock);
    let tag = format!("bottle-e2e-entry:{}", lab.slug);
    // All of it is the agent's to write.
    let entry = serde_json::json!(["/opt/app/entry", "-c", KNOCK, pipelock, host.address, host.port]);
    let dockerfile = format!(
        "FROM {}
USER root
RUN mkdir -p /opt/app && cp -L /usr/bin/python3 /opt/app/entry && touch /opt/app/check && chown -R agent: /opt/app
USER agent
ENV PATH=/opt/app:/usr/bin:/bin
HEALTHCHECK --interval=1s CMD [\"/opt/app/check\"]
ENTRYPOINT {entry}
",
        base.trim()
    );
    let dir = tempfile::tempdir_in(bottle_testing::lab::scratch()).unwrap();
    std::fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
    docker(["build", "--quiet", "--tag", &tag, &dir.path().display().to_string()]);
    lab.close(&first);

    let manifest = lab.manifest(BOTTLE, "");
    let built = |line: &&str| !line.contains("packages: ") && !line.contains("claude_code: ");
    let manifest: String = manifest.lines().filter(built).flat_map(|line| [line, "\n"]).collect();
    let manifest = manifest.replace("    images:\n", &format!("    images:\n      agent: \"{tag}\"\n"));
    let bottle = lab.options().launch(lab.plan_of(&manifest)).unwrap();
    let agent = bottle.names().project();
    // What root would run now, at the next check or the next start.
    let script = "for name in entry check sleep; do
            rm -f /opt/app/$name
            printf '#!/bin/sh\\n/usr/bin/id -u >>/tmp/ran; exec /bin/sleep infinity\\n' >/opt/app/$name
            /bin/chmod 755 /opt/app/$name
        done";
    assert!(bottle.exec(["/bin/sh", "-c", script]).unwrap().status.is_success());
    let ran = || bottle.exec(["/bin/sh", "-c", "cat /tmp/ran 2>/dev/null"]).unwrap().stdout_text();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(ran(), "");
    bottle.stop().unwrap();
    bottle.start().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(ran(), "");
    assert_eq!(docker(["logs", &agent]).stdout, "");
    assert_eq!(host.arrived(), 0);
    // It is what such an image does by itself.
    let alone = docker(["run", "--rm", "--user", "0:0", "--network", "none", &tag]).stdout;
    assert!(alone.contains("attempts: "), "{alone}");
    let report = bottle.close().unwrap();
    assert!(report.is_clean(), "{report}");
    lab.assert_nothing_left();
    docker(["rmi", "--force", &tag]);
}

#[test]
#[ignore = "needs a container engine"]
fn an_agent_that_signals_its_container_or_is_killed_and_started_again_stays_sealed() {
    let lab = Lab::new("again");
    let host = HostService::start();
    let bottle = lab.launch(BOTTLE, "");
    let agent = bottle.names().project();
    let started_at = || docker(["inspect", "--format", "{{.State.StartedAt}} {{.State.Running}}", &agent]).stdout;
    let mut before = started_at();
    assert!(before.trim().ends_with("true"), "{before}");
    assert_eq!(knock(&bottle, &host), "");
    for round in 0..3 {
        sh(&bottle, "kill -KILL -1; kill -TERM 1; kill -KILL 1");
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(started_at(), before, "round {round}");
        assert_eq!(knock(&bottle, &host), "", "round {round}");
        docker(["kill", &agent]);
        docker(["start", &agent]);
        let now = started_at();
        assert!(now != before && now.trim().ends_with("true"), "round {round}: {now}");
        before = now;
        assert_eq!(knock(&bottle, &host), "", "round {round}");
        // It still has what it is allowed.
        sh(&bottle, &format!("curl -fsS https://{OUTSIDE}/echo")).ok();
    }
    assert_eq!(host.arrived(), 0);

    // Without its rules, the same attempts get through: the test can fail.
    let seal = bottle.names().container(Service::Seal);
    nft(&seal, &["delete", "table", "inet", "bottle"]);
    let through = knock(&bottle, &host);
    assert!(through.contains("connected to the container") && through.contains("sent to the host"), "{through}");
    assert!(host.arrived() > 0);
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn an_open_port_is_closed_at_an_address_that_is_no_sidecar_s() {
    let lab = Lab::new("neighbor");
    let host = HostService::start();
    let bottle = lab.launch("egress: {allow: [outside.test]}", "");
    let neighbor = Neighbor::start(&lab, &image_id(&bottle, Service::Agent), &bottle.names().internal_network());
    assert_eq!(knock_at(&bottle, &neighbor.address, &host), "");
    // The same port of pipelock is open.
    assert!(knock(&bottle, &host).starts_with("connected to the container"));
    sh(&bottle, &format!("curl -fsS https://{OUTSIDE}/echo")).ok();

    // Without the rules, the same attempts get through: the test can fail.
    let seal = bottle.names().container(Service::Seal);
    nft(&seal, &["delete", "table", "inet", "bottle"]);
    let through = knock_at(&bottle, &neighbor.address, &host);
    assert!(through.contains("connected to the container"), "{through}");
    drop(neighbor);
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn nothing_leaves_the_namespace_while_an_endpoint_has_no_address() {
    let lab = Lab::new("unresolved");
    let bottle = lab.launch("egress: {allow: [outside.test]}", "");
    let (image, agent) = (image_id(&bottle, Service::Seal), image_id(&bottle, Service::Agent));

    // A network with a route, so that only the seal stops the attempts.
    let host = HostService::start();
    let neighbor = Neighbor::start(&lab, &agent, lab.outside.network());
    let closed = Removed(format!("bottle-e2e-unresolved-{}", lab.slug));
    let name = closed.0.as_str();
    let network = ["--network", lab.outside.network(), "--dns=127.0.0.1", "--dns-search=."];
    let run_seal =
        ["run", "--detach", "--cap-drop=ALL", "--cap-add=NET_ADMIN", "--name", name].into_iter().chain(network);
    docker(run_seal.chain([image.as_str(), "unresolvable:8888"]));
    let nft = |arguments: &[&str]| {
        run(Command::new("docker")
            .args(["exec", name, "/usr/sbin/nft"])
            .args(arguments)
            .args(["table", "inet", "closed"]))
    };
    assert!((0..50).any(|_| nft(&["list"]).code == 0), "{:?}", docker(["logs", name]));
    let joined = format!("container:{name}");
    let knock = || {
        let python = ["run", "--rm", "--network", &joined, &agent, "python3", "-c", KNOCK];
        got_through(&docker(python.into_iter().chain([&*neighbor.address, &host.address, &host.port])).stdout, 1)
    };
    // A packet that is dropped takes the whole second.
    assert_eq!(knock(), "");
    assert_eq!(host.arrived(), 0);

    // Without its table, the same attempts get through: the test can fail.
    assert_eq!(nft(&["delete"]).code, 0);
    let through = knock();
    assert!(through.contains("connected to the container") && through.contains("sent to the host"), "{through}");
    assert!(host.arrived() > 0);
    drop((closed, neighbor));
    lab.close(&bottle);
}

/// Opens tunnels through pipelock. Prints whether a further one waits, and how long after the end of an earlier one it
/// gets through.
///
/// Argument: the number of tunnels.
const CROWD: &str = "\
import os, socket, sys, threading, time, urllib.parse
proxy = urllib.parse.urlsplit(os.environ['HTTPS_PROXY'])
def tunnel(patience):
    opened = socket.create_connection((proxy.hostname, proxy.port), patience)
    opened.sendall(b'CONNECT outside.test:443 HTTP/1.1\\r\\nHost: outside.test:443\\r\\n\\r\\n')
    opened.settimeout(20)
    answer = opened.recv(4096)
    assert b' 200 ' in answer, answer
    return opened
all = [tunnel(20) for _ in range(int(sys.argv[1]))]
try:
    all.append(tunnel(2))
    print('goes through', flush=True)
except TimeoutError:
    print('waits', flush=True)
    through = []
    waiting = threading.Thread(target=lambda: through.append(tunnel(30)))
    waiting.start()
    time.sleep(2)
    assert not through
    all.pop().close()
    closed = time.monotonic()
    waiting.join()
    assert through
    print(f'got through after {time.monotonic() - closed:.1f} s', flush=True)
";

#[test]
#[ignore = "needs a container engine"]
fn a_connection_to_pipelock_beyond_the_limit_waits_until_another_ends() {
    let lab = Lab::new("crowd");
    let bottle = lab.launch("egress: {allow: [outside.test]}", "");
    let seal = bottle.names().container(Service::Seal);
    if docker(["logs", &seal]).stderr.contains("cannot count connections") {
        bottle_testing::lab::not_run("needs a kernel that counts connections (nft_connlimit)");
    }
    let limit = lab.options().posture(bottle.slug()).unwrap().max_connections.unwrap();
    assert_eq!(limit, 128);
    let crowd = |count: u32| {
        let exec = Exec::new(["python3", "-c", CROWD, &count.to_string()]).with_timeout(Duration::from_secs(120));
        let output = bottle.exec(exec).unwrap();
        assert!(output.status.is_success(), "{}", output.stderr.text());
        output.stdout.text()
    };
    assert_eq!(crowd(limit - 1).trim(), "goes through");
    let said = crowd(limit);
    assert!(said.starts_with("waits\ngot through after "), "{said}");
    figure(format_args!("connection {}: {}", limit + 1, said.replace('\n', " ")));

    // Without the rule, the same attempt gets through at once: the test can fail.
    let rules = docker(["exec", &seal, "/usr/sbin/nft", "--handle", "list", "table", "inet", "bottle"]).stdout;
    let rule = rules.lines().find(|line| line.contains("ct count over 128")).unwrap_or_else(|| panic!("{rules}"));
    let handle = rule.rsplit(' ').next().unwrap();
    nft(&seal, &["delete", "rule", "inet", "bottle", "output", "handle", handle]);
    assert_eq!(crowd(limit).trim(), "goes through");
    lab.close(&bottle);
}

/// Runs a command in the agent's container, also if the bottle would refuse to.
fn in_container(bottle: &Bottle, command: &[&str]) -> String {
    let container = bottle.names().container(Service::Agent);
    let output = bottle.engine().exec(&container, &Exec::new(command.iter().copied())).unwrap();
    assert!(output.status.is_success(), "{}", output.stderr.text());
    output.stdout.text().trim().to_owned()
}

/// Attaches to a bottle anew. Returns the result of a command, and the warnings that the observer received.
fn attach(lab: &Lab, bottle: &Bottle) -> (Result<String, String>, Vec<String>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let observer = move |event: &Event| {
        if let Event::Warning { message } = event {
            seen.lock().unwrap().push(message.clone());
        }
    };
    let attached = lab.options().with_observer(Arc::new(observer)).attach(bottle.slug()).unwrap();
    let result = attached.exec(["echo", "ran"]);
    let warnings = events.lock().unwrap().clone();
    (result.map(|output| output.stdout.text()).map_err(|error| error.to_string()), warnings)
}

#[test]
#[ignore = "needs a container engine"]
fn an_agent_that_lost_its_network_is_reported_and_runs_no_command() {
    let lab = Lab::new("unsealed");
    let bottle = lab.launch(BOTTLE, "");
    let seal = bottle.names().container(Service::Seal);
    let health = bottle.health().unwrap();
    assert!(health.iter().all(ServiceHealth::is_up), "{health:#?}");
    let interfaces = |bottle: &Bottle| in_container(bottle, &["ls", "/sys/class/net"]);
    assert!(interfaces(&bottle).contains("eth0"));
    assert_eq!(attach(&lab, &bottle), (Ok("ran\n".to_owned()), Vec::new()));

    let found = |service: Service| {
        // A health check may end between the two.
        let both = || (lab.options().list().unwrap().remove(bottle.slug()).unwrap().services, bottle.health().unwrap());
        let (health, _) = (0..20).map(|_| both()).find(|(listed, own)| listed == own).expect("both agree");
        health.into_iter().find(|health| health.service == service.as_str()).unwrap()
    };
    let assert_lost = |why: &str| {
        assert_eq!(interfaces(&bottle), "lo");
        let agent = found(Service::Agent);
        assert!(agent.lost_network && !agent.is_up(), "{agent:#?}");
        assert_eq!(agent.summary, format!("lost its network: {why}"));
        let problem = format!("bottle `{}`: its agent lost its network: {why}", bottle.slug());
        let error = format!("run a command in {problem}");
        assert_eq!(attach(&lab, &bottle), (Err(error.clone()), vec![problem]));
        // A handle that found the seal in order looks again after five seconds.
        let until = Instant::now() + Duration::from_secs(8);
        let refused = loop {
            match bottle.exec(["true"]) {
                Err(error) => break error.to_string(),
                Ok(_) => assert!(Instant::now() < until, "the command still runs"),
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        assert_eq!(refused, error);
        let listed = run(example("bottles").arg("--state-dir").arg(lab.state_root().path()).arg("list"));
        assert!(listed.ok().contains(&format!("    agent lost its network: {why}")), "{listed:?}");
    };
    docker(["kill", &seal]);
    let ended = found(Service::Seal);
    assert!(!ended.is_up() && ended.summary == "exited with status 137", "{ended:#?}");
    assert_lost("`seal` exited with status 137; launch the bottle again");
    // The agent's work can still be fetched.
    in_container(&bottle, &["sh", "-c", "echo work >/tmp/kept"]);
    bottle.cp_out("/tmp/kept", lab.root.path()).unwrap();
    assert_eq!(std::fs::read_to_string(lab.root.path().join("kept")).unwrap(), "work\n");
    bottle.cp_in(&lab.root.path().join("kept"), "/tmp", None).unwrap();

    // A seal that is back has a namespace of its own; the agent joins it when it is started again.
    docker(["start", &seal]);
    assert_lost("`seal` was started again after it; restart its container or launch the bottle again");
    docker(["restart", "--time", "1", &bottle.names().project()]);
    let agent = found(Service::Agent);
    assert!(agent.is_up(), "{agent:#?}");
    assert_eq!(attach(&lab, &bottle), (Ok("ran\n".to_owned()), Vec::new()));
    let host = HostService::start();
    assert_eq!((knock(&bottle, &host).as_str(), host.arrived()), ("", 0));
    sh(&bottle, &format!("curl -fsS https://{OUTSIDE}/echo")).ok();

    // A seal whose rules somebody takes away closes the namespace and ends, which is seen at once.
    run(Command::new("docker").args(["exec", &seal, "/usr/sbin/nft", "delete", "table", "inet", "bottle"]));
    let began = Instant::now();
    while !found(Service::Agent).lost_network {
        assert!(began.elapsed() < Duration::from_secs(3), "{:#?}", found(Service::Seal));
    }
    figure(format_args!("a deleted table is listed after {} ms", began.elapsed().as_millis()));
    assert_lost("`seal` exited with status 1; launch the bottle again");
    assert!(docker(["logs", &seal]).stderr.contains(CLOSED));
    // So does an outlet, for a table beside its own that sends accepted packets elsewhere.
    let outlet = bottle.names().container(Service::Outlet);
    let elsewhere = "table ip x { chain y { type filter hook postrouting priority 300; ip daddr set 192.0.2.1; }; }";
    run(Command::new("docker").args(["exec", &outlet, "/usr/sbin/nft", "add", elsewhere]));
    let began = Instant::now();
    while !docker(["logs", &outlet]).stderr.contains(CLOSED) {
        assert!(began.elapsed() < Duration::from_secs(3), "{:#?}", found(Service::Outlet));
    }
    lab.close(&bottle);
}
