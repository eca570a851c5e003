//! Ports: of an allowed host, the agent reaches 80 and 443 and those that are written, whichever way it asks.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use bottle::Bottle;
use bottle::exec::engine::Exec;
use bottle::plan::Service;

use bottle_testing::lab::{FORBIDDEN, Lab, OUTSIDE, docker, nft, run, sh};

/// Records the port of every TCP connection that is asked of the outside host, whether or not a program listens there.
const RECORD: &str = "\
import socket, time
until = time.monotonic() + 600
with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as packets, open('/data/ports', 'w') as file:
    packets.settimeout(1)
    print('ready', file=file, flush=True)
    while time.monotonic() < until:
        try:
            packet, (_, _, kind, _, _) = packets.recvfrom(65536)
        except TimeoutError:
            continue
        segment = packet[(packet[0] & 15) * 4:]
        if kind == 0 and packet[9] == 6 and segment[13] & 0x12 == 0x02:
            print(int.from_bytes(segment[2:4]), file=file, flush=True)
";

/// Asks the agent's proxy for ports of a host, in every way that it might accept.
///
/// Arguments: the host, its address, and the ports.
const KNOCK: &str = "\
import os, socket, ssl, sys, urllib.parse
host, address, ports = sys.argv[1], sys.argv[2], sys.argv[3:]
proxy = urllib.parse.urlsplit(os.environ['HTTPS_PROXY'])
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
attempts = 0
def ask(head, through=None):
    global attempts
    attempts += 1
    try:
        with socket.create_connection((proxy.hostname, proxy.port), 5) as plain:
            plain.settimeout(5)
            plain.sendall(head.encode())
            answer = plain.recv(4096)
            if through and b' 200 ' in answer:
                with context.wrap_socket(plain, server_hostname=host) as tunnel:
                    tunnel.sendall(through.encode())
                    tunnel.recv(4096)
    except OSError:
        pass
for port in ports:
    for place in (f'{host}:{port}', f'{host}:0{port}', f'{host}:+{port}', f'{host.upper()}:{port}', f'{host}.:{port}',
                  f'own:own@{host}:{port}', f'{host}:443@{host}:{port}', f'{host}%3A{port}', f'{host}:%3{port[0]}{port[1:]}',
                  f'{address}:{port}', f'[::ffff:{address}]:{port}', f'{host}:{port}:443', f'{host}:443:{port}'):
        inner = f'GET /echo HTTP/1.1\\r\\nHost: {host}:{port}\\r\\nConnection: close\\r\\n\\r\\n'
        for named in (place, host, f'{host}:443'):
            ask(f'CONNECT {place} HTTP/1.1\\r\\nHost: {named}\\r\\n\\r\\n', inner)
            ask(f'GET http://{place}/echo HTTP/1.1\\r\\nHost: {named}\\r\\nConnection: close\\r\\n\\r\\n')
    for url in (f'http://{host}:{port}/echo', f'https://{host}:{port}/echo'):
        asked = urllib.parse.quote(url, safe='')
        ask(f'GET /fetch?url={asked} HTTP/1.1\\r\\nHost: {proxy.netloc}\\r\\nConnection: close\\r\\n\\r\\n')
    asked = urllib.parse.quote(f'ws://{host}:{port}/echo', safe='')
    ask(f'GET /ws?url={asked} HTTP/1.1\\r\\nHost: {proxy.netloc}\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n'
        'Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: eA==\\r\\n\\r\\n')
print(attempts)
";

/// Ports that the agent asks for.
const ASKED: [&str; 6] = ["22", "53", "80", "443", "8443", "9000"];

/// The outside host with a record of the connections that are asked of it.
struct Recorded {
    lab: Lab,
}

impl Recorded {
    fn new(test: &str) -> Self {
        let lab = Lab::with_outside(test, &["--cap-add", "NET_RAW"]);
        docker(["exec", "--detach", lab.outside.container(), "python3", "-c", RECORD]);
        let ready =
            || run(Command::new("docker").args(["exec", lab.outside.container(), "cat", "/data/ports"])).code == 0;
        assert!(
            (0..100).any(|_| ready() || {
                std::thread::sleep(Duration::from_millis(50));
                false
            }),
            "no recorder"
        );
        Self { lab }
    }

    /// Returns the ports that the agent's attempts arrived at.
    fn reached_by(&self, bottle: &Bottle, host: &str) -> BTreeSet<u16> {
        let before = self.lab.outside.read("/data/ports").lines().count();
        let address = self.lab.outside.address(&bottle.names().egress_network());
        let argv = ["python3", "-c", KNOCK, host, &address].into_iter().chain(ASKED);
        let output = bottle.exec(Exec::new(argv).with_timeout(Duration::from_secs(300))).unwrap();
        assert!(output.status.is_success(), "{}", output.stderr.text());
        assert!(output.stdout.text().trim().parse::<u32>().unwrap() > 400, "{}", output.stdout.text());
        self.lab.outside.read("/data/ports").lines().skip(before).filter_map(|port| port.parse().ok()).collect()
    }
}

#[test]
#[ignore = "needs a container engine"]
fn of_an_allowed_host_only_80_and_443_are_reached_through_pipelock_alone() {
    let place = Recorded::new("ports-alone");
    let lab = &place.lab;
    let bottle = lab.launch("egress: {allow: [outside.test]}", "");
    assert_eq!(place.reached_by(&bottle, OUTSIDE), [80, 443].into());
    sh(&bottle, "curl -fsS -m 20 https://outside.test/echo && curl -fsS -m 20 http://outside.test/echo").ok();

    // Neither a restart of pipelock nor one of its outlet opens anything.
    let [pipelock, outlet] = [Service::Pipelock, Service::Outlet].map(|service| bottle.names().container(service));
    docker(["restart", "--time", "2", &pipelock]);
    wait_until_ready(&bottle);
    assert_eq!(place.reached_by(&bottle, OUTSIDE), [80, 443].into());

    // Without the outlet's rules the same attempts get through: the test can fail.
    nft(&outlet, &["delete", "table", "inet", "bottle"]);
    let reached = place.reached_by(&bottle, OUTSIDE);
    assert_eq!(reached, [22, 53, 80, 443, 8443, 9000].into());

    docker(["restart", "--time", "2", &outlet]);
    assert_eq!(place.reached_by(&bottle, OUTSIDE), [].into());
    let services = bottle.health().unwrap();
    let pipelock = services.iter().find(|it| it.service == "pipelock").unwrap();
    assert!(pipelock.lost_network, "{pipelock:?}");
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn of_an_allowed_host_only_80_and_443_are_reached_through_egress() {
    let place = Recorded::new("ports-front");
    let lab = &place.lab;
    // The port of another host's route is open for that host alone.
    let bottle = lab.launch("egress: {allow: [outside.test], routes: [{host: api.example.com, port: 8443}]}", "");
    assert_eq!(place.reached_by(&bottle, OUTSIDE), [80, 443].into());
    let answer = sh(&bottle, "curl -sS -m 20 https://outside.test:8443/echo");
    assert!(answer.stdout.contains("\"rule\": \"port\""), "{answer:?}");
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn a_port_that_is_written_is_reached_of_that_host_alone() {
    let place = Recorded::new("ports-written");
    let lab = &place.lab;
    let bottle = lab.launch("egress: {allow: ['outside.test:8443', forbidden.test]}", "");
    assert_eq!(place.reached_by(&bottle, OUTSIDE), [8443].into());
    assert_eq!(place.reached_by(&bottle, FORBIDDEN), [80, 443].into());
    sh(&bottle, "curl -fsS -m 20 https://outside.test:8443/echo").ok();
    let posture = lab.options().posture(bottle.slug()).unwrap().to_string();
    assert!(posture.contains("outside.test on port 8443,"), "{posture}");

    // Egress judges each host, and the outlet all of them together: without its rules the other ports stay closed.
    let outlet = bottle.names().container(Service::Outlet);
    nft(&outlet, &["delete", "table", "inet", "bottle"]);
    assert_eq!(place.reached_by(&bottle, OUTSIDE), [8443].into());
    lab.close(&bottle);
}

fn wait_until_ready(bottle: &Bottle) {
    let until = Instant::now() + Duration::from_secs(20);
    while sh(bottle, "curl -fsS -m 5 https://outside.test/echo").code != 0 {
        assert!(Instant::now() < until, "pipelock is not reached again");
        std::thread::sleep(Duration::from_millis(100));
    }
}
