//! Ports of the agent on the host's loopback.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bottle::events::LauncherEvent;
use bottle::exec::Event;
use bottle::plan::Service;
use bottle::{Bottle, BottleError, BottleEvent, EventData, ForwardSpec, Verify};

use bottle_testing::lab::{Lab, docker, example, figure, host, not_run, run, scratch, sh};

/// Number of connections that a forward carries at once.
const CONNECTIONS: usize = 100;

const BOTTLE: &str = "egress: {allow: [outside.test]}";

/// Echoes on port 7000. On port 7001 it sends without end and reads nothing. On port 7004 it resets after four bytes.
const SERVERS: &str = "\
const net = require('net')
net.createServer({allowHalfOpen: true}, it => it.on('error', () => {}).pipe(it)).listen(7000, '127.0.0.1')
net.createServer(it => it.write('half', () => it.resetAndDestroy())).listen(7004, '127.0.0.1')
net.createServer(it => {
  const more = () => { while (it.writable && it.write(Buffer.alloc(65536, 255))); }
  it.pause().on('error', () => {}).on('drain', more)
  more()
}).listen(7001, '127.0.0.1', () => console.log('ready'))";

/// Tries to reach a port of this host from the agent, as its arguments name it. Prints what answered.
const REACH: &str = "\
import socket, sys
port, *addresses = sys.argv[1:]
for address in addresses:
    for device in (None, b'eth0'):
        try:
            with socket.socket() as attempt:
                attempt.settimeout(2)
                if device:
                    attempt.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
                attempt.connect((address, int(port)))
                print(address, device)
        except OSError:
            pass
print('done')";

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    socket
}

/// Sends bytes that depend on `seed` and asserts that they come back.
fn echo(address: SocketAddr, count: u32, seed: u32) {
    let socket = connect(address);
    let bytes: Vec<u8> = (0..count / 4).flat_map(|at| (at ^ seed).wrapping_mul(0x9E37_79B9).to_le_bytes()).collect();
    let back = thread::scope(|scope| {
        scope.spawn(|| {
            (&socket).write_all(&bytes).unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
        });
        let mut back = Vec::with_capacity(bytes.len());
        (&socket).read_to_end(&mut back).unwrap();
        back
    });
    assert!(back == bytes, "{} of {} bytes came back, or others", back.len(), bytes.len());
}

/// Returns the time from a new connection to its first byte back, in microseconds.
fn first_byte(address: SocketAddr) -> u128 {
    let started = Instant::now();
    let mut socket = connect(address);
    socket.write_all(b"x").unwrap();
    socket.read_exact(&mut [0]).unwrap();
    started.elapsed().as_micros()
}

fn median(mut times: Vec<u128>) -> u128 {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Returns the forwarding programs in the seal's container.
fn forwarders(seal: &str) -> usize {
    let processes = docker(["top", seal, "-eo", "pid,args"]).stdout;
    processes.lines().filter(|line| line.contains("/forward ")).count()
}

/// Returns the engine's clients of those programs.
fn clients(seal: &str) -> Vec<String> {
    let found = run(Command::new("pgrep").args(["--full", &format!("exec .*{seal} /forward")]));
    found.stdout.lines().map(ToOwned::to_owned).collect()
}

#[track_caller]
fn ends_soon(what: &str, is_over: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_over() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what}");
        thread::sleep(Duration::from_millis(20));
    }
    figure(format_args!("{what}: {:?}", started.elapsed()));
}

#[test]
#[ignore = "needs a container engine"]
fn many_connections_reach_a_port_of_the_agent_and_leave_no_process() {
    let lab = Lab::new("forward");
    let bottle = lab.launch(BOTTLE, "");
    let seal = bottle.names().container(Service::Seal);
    let mut servers = bottle.spawn(["node", "-e", SERVERS], None).unwrap();
    servers.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    let started = Instant::now();
    let forward = bottle.forward(7000).unwrap();
    figure(format_args!("a forward is open after {:?}", started.elapsed()));
    let address = forward.local_addr();
    assert!(address.ip().is_loopback());
    assert_eq!(forwarders(&seal), 1);
    let site = lab.options();
    let recorded = || {
        let forwards = site.list().unwrap()[bottle.slug()].forwards.clone();
        forwards.into_iter().map(|it| it.address).collect::<Vec<_>>()
    };
    let attached = site.attach(bottle.slug()).unwrap();
    let second = attached.forward(7000).unwrap();
    let other = second.local_addr();
    assert_eq!(recorded(), [address.to_string(), other.to_string()]);
    drop(second);
    assert_eq!(recorded(), [address.to_string()]);
    // Whichever handle it was: both are in the bottle's events.
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let add = Arc::clone(&seen);
    let note = move |event: BottleEvent| match event.data {
        EventData::Step(LauncherEvent { event: Event::ForwardOpened { address, .. }, .. }) => {
            add.lock().unwrap().push(format!("open {address}"));
        }
        EventData::Step(LauncherEvent { event: Event::ForwardClosed { address, .. }, .. }) => {
            add.lock().unwrap().push(format!("closed {address}"));
        }
        _ => {}
    };
    site.events(bottle.slug(), false, note).unwrap();
    assert_eq!(*seen.lock().unwrap(), [format!("open {address}"), format!("open {other}"), format!("closed {other}")]);

    let through = median((0..40).map(|_| first_byte(address)).collect());
    let alone = (0..10).map(|_| {
        let started = Instant::now();
        let mut child = bottle.spawn(["cat"], None).unwrap();
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        started.elapsed().as_micros()
    });
    let alone = median(alone.collect());
    figure(format_args!(
        "first byte of a new connection: {through} us; with a command of its own {alone} us (medians)"
    ));
    assert!(through * 5 < alone, "{through} us, {alone} us");

    let started = Instant::now();
    echo(address, 100 << 20, 0);
    figure(format_args!("100 MiB there and back: {:.0} MB/s", 104.86 / started.elapsed().as_secs_f64()));
    let started = Instant::now();
    thread::scope(|scope| {
        for seed in 0..50 {
            scope.spawn(move || echo(address, 1 << 20, seed));
        }
    });
    figure(format_args!("50 connections at once, 1 MiB each there and back: {:?}", started.elapsed()));
    assert_eq!(forwarders(&seal), 1);

    // A port where nobody listens, a server that breaks off, and one that sends without end and that nobody reads.
    let closed = bottle.forward(7002).unwrap();
    let reset = |socket: &mut TcpStream| socket.read(&mut [0]).unwrap_err().kind() == ErrorKind::ConnectionReset;
    assert!(reset(&mut connect(closed.local_addr())));
    let breaking = bottle.forward(7004).unwrap();
    let (mut broken, mut half) = (connect(breaking.local_addr()), [0; 4]);
    broken.read_exact(&mut half).unwrap();
    assert!(half == *b"half" && reset(&mut broken));
    let flood = bottle.forward(7001).unwrap();
    let mut stuck: Vec<TcpStream> = (0..60).map(|_| connect(flood.local_addr())).collect();
    for socket in &mut stuck {
        socket.read_exact(&mut [0]).unwrap();
        socket.write_all(&[0; 4096]).unwrap();
    }
    echo(address, 1 << 20, 7);
    connect(flood.local_addr()).read_exact(&mut vec![0; 200_000]).unwrap();
    let taken = bottle.forward(ForwardSpec::from(7000).with_local(address.port())).unwrap_err();
    assert!(matches!(taken, BottleError::Forward(_)), "{taken}");
    drop((closed, breaking, flood, stuck));
    ends_soon("three closed forwards end", || forwarders(&seal) == 1);

    // The engine's client is killed: the program ends, and the next connection starts it again.
    let open = connect(address);
    let client = clients(&seal);
    assert_eq!(client.len(), 1, "{client:?}");
    assert!(Command::new("kill").args(["-KILL", &client[0]]).status().unwrap().success());
    ends_soon("the program of a killed client ends", || forwarders(&seal) == 0);
    assert_eq!((&open).read(&mut [0]).unwrap_or(0), 0);
    echo(address, 1 << 20, 8);
    drop(forward);
    assert!(TcpStream::connect(address).is_err());
    assert_eq!(recorded(), [""; 0]);
    ends_soon("a closed forward ends", || forwarders(&seal) == 0 && clients(&seal).is_empty());
    drop(servers);
    lab.close(&bottle);
}

/// Ends its side of each connection on port 7003, and reads nothing.
const DEAF: &str = "\
import socket
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
server.bind(('127.0.0.1', 7003))
server.listen(200)
print('ready', flush=True)
kept = []
while True:
    kept.append(server.accept()[0])
    kept[-1].shutdown(socket.SHUT_WR)";

/// Frames of the host for the program `forward`, and what it answers, by kind: 1 is data, 2 is credit, 3 is the end.
const FRAMES: &str = "\
import os, select, struct, subprocess, sys
program = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def send(number, kind, payload=b''):
    program.stdin.write(struct.pack('<II', number, kind << 24 | len(payload)) + payload)
    program.stdin.flush()
ended, credit, rest = set(), {}, b''
def receive(seconds):
    global rest
    if not select.select([program.stdout], [], [], seconds)[0]:
        return False
    piece = os.read(program.stdout.fileno(), 65536)
    rest += piece
    while len(rest) >= 8:
        number, word = struct.unpack('<II', rest[:8])
        rest = rest[8:]
        if word >> 24 == 2:
            credit[number] = credit.get(number, 0) + (word & 0xffffff)
        elif word >> 24 == 3:
            ended.add(number)
    return bool(piece)
for number in range(1, 101):
    send(number, 0)
    credit[number] = 65536
# Each connection gets as much as the program takes.
for _ in range(200):
    for number in credit:
        while credit[number] > 0:
            size = min(credit[number], 16384)
            credit[number] -= size
            send(number, 1, bytes(size))
    if not receive(1):
        break
for number in range(1, 101):
    send(number, 3)
for number in range(101, 111):
    send(number, 0)
for _ in range(50):
    if 110 in ended or not receive(2):
        break
print(program.poll(), sorted(ended) == list(range(1, 111)))
program.stdin.close()
program.wait(10)";

#[test]
#[ignore = "needs a container engine"]
fn connections_that_the_agent_does_not_read_end_no_other() {
    let lab = Lab::new("forward-deaf");
    let bottle = lab.launch(BOTTLE, "");
    let seal = bottle.names().container(Service::Seal);
    let mut server = bottle.spawn(["python3", "-c", DEAF], None).unwrap();
    server.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    let told = run(Command::new("python3").args([
        "-c",
        FRAMES,
        "docker",
        "exec",
        "--interactive",
        "--user",
        "65534:65534",
        &seal,
        "/forward",
        "7003",
    ]));
    assert_eq!(told.ok().trim(), "None True", "{told:?}");
    drop(server);

    // On the host's side, those that nobody reads make room for further ones.
    let mut servers = bottle.spawn(["node", "-e", SERVERS], None).unwrap();
    servers.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    let flood = bottle.forward(7001).unwrap();
    let stuck: Vec<TcpStream> = (0..CONNECTIONS + 20)
        .map(|_| {
            let socket = connect(flood.local_addr());
            socket.shutdown(Shutdown::Write).unwrap();
            socket
        })
        .collect();
    connect(flood.local_addr()).read_exact(&mut vec![0; 200_000]).unwrap();
    drop((stuck, flood, servers));
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn a_killed_launcher_leaves_no_forwarder() {
    let lab = Lab::new("forward-kill");
    let file = lab.root.path().join("killed.yaml");
    std::fs::write(&file, lab.manifest(BOTTLE, "")).unwrap();
    host();
    let mut command = example("launch");
    command.current_dir(scratch().join("workspace")).arg("--manifest").arg(file).arg("--state-dir");
    command.arg(lab.root.path().join("state")).args([
        "--slug",
        &lab.slug,
        "--forward",
        "7000",
        "--",
        "node",
        "-e",
        SERVERS,
    ]);
    let mut launcher = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(launcher.stderr.take().unwrap()).lines();
    let told = lines.by_ref().map_while(Result::ok).find_map(|line| {
        line.trim().strip_prefix("port 7000 of the agent is at ").map(|address| address.parse::<SocketAddr>().unwrap())
    });
    let address = told.expect("no line says where the port is");
    BufReader::new(launcher.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    echo(address, 1 << 20, 0);
    let seal = format!("claude-bottle-seal-{}", lab.slug);
    assert_eq!((forwarders(&seal), clients(&seal).len()), (1, 1));
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    ends_soon("the forwarder of a killed launcher ends", || forwarders(&seal) == 0 && clients(&seal).is_empty());
    assert!(TcpStream::connect(address).is_err());
    assert!(lab.options().recover().unwrap().is_clean());
    lab.assert_nothing_left();
}

#[test]
#[ignore = "needs a container engine"]
fn a_vite_server_is_seen_from_the_host_and_the_host_not_from_the_agent() {
    let lab = Lab::new("vite");
    let app = vite(lab.root.path());
    let bottle = lab.launch(BOTTLE, "");
    bottle.cp_in(&app, "/home/agent", None).unwrap();
    let command = "cd ~/app && exec node node_modules/vite/bin/vite.js --port 5173 --strictPort";
    let mut server = bottle.spawn(["sh", "-c", command], None).unwrap();
    let mut shown = BufReader::new(server.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(shown.any(|line| line.contains("ready in")), "Vite has not started");
    let forward = bottle.forward(5173).unwrap();
    let address = forward.local_addr();

    let page = get(address, "/");
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("/@vite/client"), "{page}");
    assert!(get(address, "/main.js").contains("append('first')"));
    let mut socket = WebSocket::open(address);
    assert_eq!(socket.message(), r#"{"type":"connected"}"#);
    sh(&bottle, "sed -i s/first/second/ ~/app/main.js").ok();
    let told = (0..10).map(|_| socket.message()).find(|message| message.contains("main.js")).unwrap();
    assert!(told.contains(r#""type":"update""#), "{told}");
    assert!(get(address, "/main.js").contains("append('second')"));

    // The port is open, and the agent still reaches nothing.
    let verification = bottle.verify(Verify::Full).unwrap();
    assert!(verification.holds(), "{verification}");
    reaches_nothing(&bottle, address);
    drop((socket, forward, shown, server));
    lab.close(&bottle);
}

/// Asserts that the agent does not reach the port, at any address that the host has.
fn reaches_nothing(bottle: &Bottle, address: SocketAddr) {
    let own = run(Command::new("sh").args(["-c", "ip -4 -o addr | awk '{sub(\"/.*\", \"\", $4); print $4}'"]))
        .ok()
        .to_owned();
    assert!(own.lines().any(|line| line == "127.0.0.1"), "{own}");
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let seal = docker(["inspect", "--format", format, &bottle.names().container(Service::Seal)]).stdout;
    let gateway = seal.trim().rsplit_once('.').map(|(net, _)| format!("{net}.1")).unwrap();
    let addresses: Vec<&str> = own.lines().chain([gateway.as_str()]).collect();
    let port = address.port().to_string();
    let words = ["python3", "-c", REACH, &port].into_iter().chain(addresses).map(String::from).collect::<Vec<_>>();
    assert_eq!(bottle.exec(words).unwrap().stdout_text(), "done\n");
    // The same program finds the port on the host itself.
    let found = run(Command::new("python3").args(["-c", REACH, &port, "127.0.0.1"]));
    assert!(found.ok().contains("127.0.0.1 None"), "{found:?}");
}

/// Returns the application, which is fetched with npm.
fn vite(into: &Path) -> PathBuf {
    let context = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images/vite");
    let built = run(Command::new("docker").args(["build", "--quiet", "--tag", "bottle-e2e/vite:test"]).arg(context));
    if built.code != 0 {
        not_run(&format!("needs Vite, which could not be fetched: {}", built.stderr));
    }
    let container = docker(["create", "bottle-e2e/vite:test", "none"]).stdout.trim().to_owned();
    docker(["cp", &format!("{container}:/app"), &into.display().to_string()]);
    docker(["rm", &container]);
    into.join("app")
}

/// Returns a whole answer, without a proxy.
fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = connect(address);
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Vite's WebSocket.
struct WebSocket(BufReader<TcpStream>);

impl WebSocket {
    fn open(address: SocketAddr) -> Self {
        let mut socket = connect(address);
        write!(
            socket,
            "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: vite-hmr\r\n\r\n"
        )
        .unwrap();
        let mut reader = BufReader::new(socket);
        let head: Vec<String> =
            reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
        assert!(head[0].starts_with("HTTP/1.1 101 "), "{head:?}");
        Self(reader)
    }

    /// Returns the next text message.
    fn message(&mut self) -> String {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        assert_eq!(head[0], 0x81, "not a whole text message");
        let length = match head[1] {
            126 => {
                let mut long = [0; 2];
                self.0.read_exact(&mut long).unwrap();
                usize::from(u16::from_be_bytes(long))
            }
            length => usize::from(length),
        };
        let mut text = vec![0; length];
        self.0.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }
}
