//! The smallest bottle: agent and pipelock.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bottle::exec::{CancelToken, Event};

use bottle_testing::lab::{FORBIDDEN, Lab, OUTSIDE, docker, example, run, scratch, sh};

const EGRESS: &str = "egress: {allow: [outside.test]}";

#[test]
#[ignore = "needs a container engine"]
fn every_client_reaches_an_allowed_host_and_no_other() {
    let lab = Lab::new("clients");
    let bottle = lab.launch(EGRESS, "");
    let url = format!("https://{OUTSIDE}/echo");
    sh(&bottle, &format!("curl -fsS {url}")).ok();
    // The first request of a git client. The host has a repository of this name.
    sh(&bottle, &format!("git -c http.version=HTTP/1.1 ls-remote https://{OUTSIDE}/demo.git")).ok();
    // Node's own `fetch` ignores the proxy variables before Node 24, so the script opens the tunnel itself.
    let node = format!(
        "const [host, port] = new URL(process.env.https_proxy).host.split(':');
         require('http').request({{host, port, method: 'CONNECT', path: '{OUTSIDE}:443'}}).on('connect', (_, socket) => {{
           require('https').get({{host: '{OUTSIDE}', path: '/echo', socket, agent: false}}, response => {{
             console.log(response.statusCode, response.socket.authorized);
             response.resume().on('end', () => process.exit());
           }}).on('error', error => {{ console.error(error); process.exit(1); }});
         }}).end();"
    );
    assert_eq!(sh(&bottle, &format!("node -e \"{node}\"")).ok(), "200 true");
    sh(&bottle, &format!("python3 -c \"import requests; requests.get('{url}').raise_for_status()\"")).ok();
    let strict = format!(
        "import ssl, urllib.request
context = ssl.create_default_context()
context.verify_flags |= ssl.VERIFY_X509_STRICT
print(urllib.request.urlopen('{url}', context=context).status)"
    );
    assert_eq!(sh(&bottle, &format!("python3 -c \"{strict}\"")).ok(), "200");

    let refused = sh(&bottle, &format!("curl -sS -o /dev/null -w '%{{http_connect}}' https://{FORBIDDEN}/"));
    assert_eq!(refused.stdout.trim(), "403", "{refused:?}");
    let events = lab.outside.events();
    let asked = |name: &str| events.iter().filter(|event| event["sni"] == name || event["host"] == name).count();
    assert!(asked(OUTSIDE) >= 5 && asked(FORBIDDEN) == 0, "{events:?}");
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn a_direct_connection_fails_at_once_and_does_not_leave_the_bottle() {
    let lab = Lab::new("direct");
    let bottle = lab.launch(EGRESS, "");
    let address = lab.outside.address(&bottle.names().egress_network());
    for attempt in [
        format!("curl --noproxy '*' -sS -m 20 https://{address}/direct"),
        format!("curl --noproxy '*' -sS -m 20 http://{OUTSIDE}/direct"),
        format!("python3 -c \"import socket; socket.create_connection(('{address}', 9000), 20)\""),
        format!(
            "python3 -c \"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('{address}', 9001))\""
        ),
        "python3 -c \"import socket; socket.getaddrinfo('label-that-must-not-leak.outside.test', 80)\"".to_owned(),
        "python3 -c \"import socket; socket.create_connection(('2001:db8::1', 443), 20)\"".to_owned(),
    ] {
        let failed = sh(&bottle, &attempt);
        assert!(failed.code != 0 && failed.duration < Duration::from_secs(3), "{attempt}: {failed:?}");
    }
    let leaked: Vec<_> = lab.outside.events().into_iter().filter(|event| event["kind"] != "start").collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn the_image_of_every_service_is_recorded_and_listed() {
    let lab = Lab::new("images");
    let bottle = lab.launch(EGRESS, "");
    let metadata = std::fs::read_to_string(lab.state().join("metadata.json")).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let health = bottle.health().unwrap();
    assert!(health.len() >= 2, "{health:?}");
    let container = |service: &str| match service {
        "agent" => bottle.names().project(),
        service => format!("claude-bottle-{service}-{}", lab.slug),
    };
    let posture = lab.options().posture(bottle.slug()).unwrap();
    for service in &health {
        assert_eq!(posture.image_ids.get(&service.service), service.image.as_ref().map(|image| &image.id), "{posture}");
        let id = docker(["inspect", "--format", "{{.Image}}", &container(&service.service)]).stdout;
        let shown = service.image.as_ref().unwrap();
        assert!(id.starts_with("sha256:") && shown.id == id.trim(), "{service:?}");
        assert_eq!(metadata["images"][&service.service], serde_json::to_value(shown).unwrap(), "{metadata}");
    }
    let pipelock = &metadata["images"]["pipelock"]["reference"];
    assert_eq!(*pipelock, bottle_testing::lab::pipelock_image(), "{metadata}");
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn a_pipelock_with_another_digest_than_the_manifest_s_is_refused_at_once() {
    let lab = Lab::new("digest");
    let image = bottle_testing::lab::pipelock_image();
    let tag = image.split('@').next().unwrap();
    let wanted = format!("{tag}@sha256:{}", "0".repeat(64));
    let manifest = lab.manifest(EGRESS, "").replace(&format!("pipelock: {image}"), &format!("pipelock: {wanted}"));
    let started = Instant::now();
    let error = lab.options().launch(lab.plan_of(&manifest)).map(drop).unwrap_err();
    let took = started.elapsed();
    let text = bottle::report(&error).to_string();
    let problem = format!("error: bottles.lab.images.pipelock: the engine has another image than `{wanted}`: ");
    assert!(text.starts_with("failed to prepare the launch: read manifest: 1 mistake\n") && text.contains(&problem));
    assert!(text.contains(&format!("`docker pull {wanted}`")), "{text}");
    // The error also names what the engine has: a digest, or only an id.
    assert!(text.matches("sha256:").count() >= 3, "{text}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(!lab.state().exists());
    lab.assert_nothing_left();
}

#[test]
#[ignore = "needs a container engine"]
fn the_agent_reaches_no_address_of_the_host() {
    let lab = Lab::new("host");
    let bottle = lab.launch(EGRESS, "");
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let addresses = run(Command::new("ip").args(["-o", "addr"])).stdout;
    let addresses: Vec<&str> = addresses
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3)?.split('/').next())
        .filter(|address| !address.starts_with("127.") && *address != "::1")
        .collect();
    assert!(!addresses.is_empty());
    let script = format!(
        "import socket, sys
for address in sys.argv[1:]:
    try:
        socket.create_connection((address if not address.startswith('fe80') else address + '%eth0', {port}), 2)
        print('reached', address)
    except OSError:
        pass"
    );
    let reached = sh(&bottle, &format!("python3 -c \"{script}\" {}", addresses.join(" ")));
    assert_eq!(reached.ok(), "", "a service of the host answers the agent");
    assert!(listener.accept().is_err(), "a connection arrived at the host");
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn a_socket_bound_to_the_interface_reaches_nothing() {
    let lab = Lab::new("bound");
    let bottle = lab.launch(EGRESS, "");
    let host = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    host.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let port = host.local_addr().unwrap().port();
    let address = run(Command::new("sh").args(["-c", "ip -4 -o addr show scope global | awk '{print $4; exit}'"]));
    let address = address.ok().split('/').next().unwrap().to_owned();
    let script = format!(
        "import socket
s = socket.socket(type=socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.setsockopt(socket.SOL_SOCKET, 25, b'eth0')
for address in ('{address}', '172.17.0.1', '255.255.255.255'):
    try:
        print(s.sendto(b'leak', (address, {port})))
    except OSError as error:
        print(error.strerror)"
    );
    let sent = sh(&bottle, &format!("python3 -c \"{script}\""));
    assert!(sent.ok().lines().all(|line| line.contains("not permitted")), "{sent:?}");
    let arrived = host.recv_from(&mut [0; 16]);
    assert!(arrived.is_err(), "a datagram of the agent arrived at the host: {arrived:?}");
    // The sidecar's other ports are closed too.
    let pipelock = bottle.names().container(bottle::plan::Service::Pipelock);
    let other =
        sh(&bottle, &format!("python3 -c \"import socket; socket.create_connection(('{pipelock}', 9090), 5)\""));
    assert!(other.stderr.contains("ConnectionRefused"), "{other:?}");
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn the_agent_is_an_ordinary_user_without_capabilities() {
    let lab = Lab::new("user");
    let bottle = lab.launch(EGRESS, "");
    let status = sh(&bottle, "id -un; pwd; cat README.md; grep -E '^(Cap|NoNewPrivs)' /proc/self/status");
    let text = status.ok();
    assert!(text.starts_with("agent\n/workspace\na workspace\n"), "{text}");
    for line in text.lines().filter(|line| line.starts_with("Cap")) {
        assert!(line.ends_with("\t0000000000000000"), "{line}");
    }
    assert!(text.contains("NoNewPrivs:\t1"), "{text}");
    sh(&bottle, "touch /workspace/new && echo changed > README.md").ok();
    let container = bottle.names().project();
    let inspected =
        docker(["inspect", "--format", "{{json .HostConfig.CapAdd}} {{json .HostConfig.CapDrop}}", &container]);
    assert_eq!(inspected.stdout.trim(), "null [\"ALL\"]");
    lab.close(&bottle);
}

/// The container's own command belongs to root, whom the agent cannot signal.
fn kills_everything(runtime: &str) {
    let lab = Lab::new(&format!("kills-{runtime}"));
    let bottle = lab.launch(&format!("runtime: {runtime}\n{EGRESS}"), "");
    let container = bottle.names().project();
    let state = || docker(["inspect", "--format", "{{.State.StartedAt}} {{.State.Running}}", &container]).stdout;
    let before = state();
    assert!(before.trim().ends_with("true"), "{before}");
    sh(&bottle, "sleep 3401 & kill -9 -1; kill -9 1; for pid in /proc/[0-9]*; do kill -9 ${pid#/proc/}; done; exit 0");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(state(), before);
    let script = "set --; for pid in /proc/[0-9]*; do [ \"$(cat $pid/comm)\" != sleep ] || set -- \"$@\" $pid; done
        echo $#; for key in Uid CapEff CapBnd; do grep ^$key: $1/status; done";
    let shown = sh(&bottle, script).ok().to_owned();
    let none = "0000000000000000";
    assert_eq!(shown, format!("1\nUid:\t0\t0\t0\t0\nCapEff:\t{none}\nCapBnd:\t{none}"));
    assert_eq!(sh(&bottle, "id -un").ok(), "agent");
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn an_agent_that_kills_every_process_does_not_end_its_container() {
    kills_everything("runc");
}

#[test]
#[ignore = "needs a container engine with the runtime runsc"]
fn an_agent_that_kills_every_process_does_not_end_its_container_under_gvisor() {
    kills_everything("runsc");
}

#[test]
#[ignore = "needs a container engine"]
fn a_served_leaf_passes_strict_verification_and_keys_are_private() {
    let lab = Lab::new("leaf");
    let bottle = lab.launch("egress: {allow: [{host: outside.test, inspect: content}]}", "");
    sh(&bottle, &format!("curl -fsS https://{OUTSIDE}/echo")).ok();
    // Pipelock's leaf, as egress gets it: the agent does not reach pipelock.
    let proxy = bottle.names().container(bottle::plan::Service::Pipelock);
    let script = format!(
        "import os, socket, ssl
raw = socket.create_connection(('{proxy}', 8888), 10)
raw.sendall(b'CONNECT {OUTSIDE}:443 HTTP/1.1\\r\\nHost: {OUTSIDE}:443\\r\\n\\r\\n')
assert b' 200 ' in raw.recv(4096)
tls = ssl._create_unverified_context().wrap_socket(raw, server_hostname='{OUTSIDE}')
print(ssl.DER_cert_to_PEM_cert(tls.getpeercert(True)))"
    );
    let image = docker(["inspect", "--format", "{{.Image}}", &bottle.names().project()]).stdout;
    let network = bottle.names().internal_network();
    let leaf = docker(["run", "--rm", "--network", &network, image.trim(), "python3", "-c", &script]);
    let leaf_file = lab.root.path().join("leaf.pem");
    std::fs::write(&leaf_file, leaf.ok()).unwrap();
    let ca = lab.state().join("pipelock/ca.pem");
    let verified = run(Command::new("openssl").args(["verify", "-x509_strict", "-CAfile"]).arg(&ca).arg(&leaf_file));
    assert_eq!(verified.code, 0, "{verified:?}");

    let mut keys = 0;
    for path in files_below(&lab.state()) {
        if std::fs::read(&path).is_ok_and(|bytes| bytes.windows(11).any(|window| window == b"PRIVATE KEY")) {
            keys += 1;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        }
    }
    assert!(keys > 0);
    lab.close(&bottle);
    assert!(!ca.exists() && files_below(&lab.state()).iter().all(|path| !path.ends_with("ca-key.pem")));
}

fn files_below(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files
}

/// Returns the command of the example `launch`, with the lab's state directory, manifest and slug.
fn example_launch(lab: &Lab) -> Command {
    let manifest = lab.root.path().join("bottle.yaml");
    std::fs::write(&manifest, lab.manifest(EGRESS, "")).unwrap();
    let mut command = example("launch");
    command.current_dir(scratch().join("workspace"));
    command.arg("--manifest").arg(manifest).arg("--state-dir").arg(lab.root.path().join("state"));
    command.args(["--slug", &lab.slug]);
    command
}

#[test]
#[ignore = "needs a container engine"]
fn the_example_passes_on_output_and_status_and_keeps_the_log() {
    let lab = Lab::new("example");
    bottle_testing::lab::host();
    let printed = run(example_launch(&lab).args(["--", "sh", "-c", "echo bottle-ok; echo aside >&2"]));
    assert_eq!((printed.code, printed.stdout.as_str()), (0, "bottle-ok\n"), "{printed:?}");
    assert!(printed.stderr.contains("aside") && printed.stderr.contains("start the services"), "{printed:?}");
    lab.assert_nothing_left();
    let log = std::fs::read_to_string(lab.state().join("compose.log")).unwrap();
    assert!(log.contains("pipelock") && log.contains("\"event\":\"startup\""), "{log}");

    let status = run(example_launch(&lab).args(["--events", "json", "--", "sh", "-c", "exit 7"]));
    assert_eq!((status.code, status.stdout.as_str()), (7, ""), "{status:?}");
    let events = status.stderr.lines().filter(|line| line.starts_with('{'));
    assert!(events.clone().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    assert!(events.filter(|line| line.contains("\"step_finished\"")).count() >= 9, "{status:?}");
    lab.assert_nothing_left();
}

#[test]
#[ignore = "needs a container engine"]
fn a_command_whose_output_nobody_reads_ends_with_status_141_and_leaves_nothing_behind() {
    let lab = Lab::new("reader");
    bottle_testing::lab::host();
    let stderr = std::fs::File::create(lab.root.path().join("stderr")).unwrap();
    let mut child = example_launch(&lab)
        .args(["--", "yes"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(line, "y\n");
    let left = Instant::now();
    wait_until("the launch to end", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(141));
    assert!(left.elapsed() < Duration::from_secs(30), "{:?}", left.elapsed());
    lab.assert_nothing_left();
}

#[test]
#[ignore = "needs a container engine"]
fn a_signal_during_up_or_a_command_leaves_nothing_behind() {
    let lab = Lab::new("signal");
    bottle_testing::lab::host();
    for (moment, command) in [("mint the certificates", "true"), ("hand out the bottle", "sleep 60")] {
        let stderr = lab.root.path().join("stderr");
        let mut child = example_launch(&lab)
            .args(["--", "sh", "-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        wait_until("the launch to get there", || std::fs::read_to_string(&stderr).unwrap().contains(moment));
        // Wait until the next step, `up` or the command, is in progress.
        std::thread::sleep(Duration::from_millis(700));
        run(Command::new("kill").args(["-INT", &child.id().to_string()]));
        wait_until("the launch to end", || child.try_wait().unwrap().is_some());
        let (status, text) = (child.wait().unwrap(), std::fs::read_to_string(&stderr).unwrap());
        assert_eq!(status.code(), Some(130), "{text}");
        assert!(text.contains("error: failed to") && text.contains("take down project"), "{text}");
        lab.assert_nothing_left();
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "needs a container engine"]
fn a_failed_up_gives_the_reason_and_leaves_nothing_behind() {
    let lab = Lab::new("failing");
    bottle_testing::lab::host();
    let mut command = example_launch(&lab);
    let manifest = lab.root.path().join("bottle.yaml");
    let broken = lab.manifest(EGRESS, "").replace(&bottle_testing::lab::pipelock_image(), "bottle-e2e/no-such-image:1");
    std::fs::write(manifest, broken).unwrap();
    let failed = run(command.args(["--", "true"]));
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(
        failed.stderr.contains("failed to start the services") && failed.stderr.contains("pipelock Error"),
        "{failed:?}"
    );
    assert!(failed.stderr.contains("`docker compose") && failed.stderr.contains("it ended with status"), "{failed:?}");
    lab.assert_nothing_left();
}

#[test]
#[ignore = "needs a container engine"]
fn a_panic_of_the_caller_leaves_nothing_behind() {
    let lab = Lab::new("panic");
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _bottle = lab.options().launch(lab.plan(EGRESS, "")).unwrap();
        panic!("the caller's own fault");
    }));
    assert!(result.is_err());
    lab.assert_nothing_left();
}

#[test]
#[ignore = "needs a container engine"]
fn a_cancelled_launch_is_reported_as_such_and_leaves_nothing_behind() {
    let lab = Lab::new("cancel");
    let cancel = CancelToken::default();
    let stop = cancel.clone();
    let options = lab
        .options()
        .with_observer(std::sync::Arc::new(move |event: &Event| {
            if matches!(event, Event::StepStarted { step } if step == "start the services") {
                stop.cancel();
            }
        }))
        .with_cancel(cancel);
    let error = options.launch(lab.plan(EGRESS, "")).unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    lab.assert_nothing_left();
}

#[test]
#[ignore = "needs a container engine"]
fn a_second_launch_of_a_slug_is_refused_at_once() {
    let lab = Lab::new("twice");
    let bottle = lab.launch(EGRESS, "");
    let started = Instant::now();
    let error = bottle::report(&lab.options().launch(lab.plan(EGRESS, "")).unwrap_err()).to_string();
    assert!(
        error.contains("already running (owner: process ") && started.elapsed() < Duration::from_secs(1),
        "{error}"
    );
    sh(&bottle, "true").ok();
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn an_agent_cannot_take_more_memory_than_its_limit() {
    let total: u64 = docker(["info", "--format", "{{.MemTotal}}"]).stdout.trim().parse().unwrap();
    let processors: u64 = docker(["info", "--format", "{{.NCPU}}"]).stdout.trim().parse().unwrap();
    let billionths = (processors * 1_000_000_000 - 500_000_000).max(1_000_000_000);
    let inspected = |bottle: &bottle::Bottle| {
        let format =
            "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.PidsLimit}} {{.HostConfig.NanoCpus}}";
        docker(["inspect", "--format", format, &bottle.names().project()]).stdout.trim().to_owned()
    };
    let take = "python3 -c \"print(len(b'x' * (400 << 20)))\"";
    for (limits, bytes) in
        [("", (total / 2).max(2 << 30).min(total)), ("\nlimits: {agent: {memory: 256MiB}}", 256 << 20)]
    {
        let lab = Lab::new("memory");
        let bottle = lab.launch(&format!("{EGRESS}{limits}"), "");
        assert_eq!(inspected(&bottle), format!("{bytes} {bytes} 4096 {billionths}"));
        let taken = sh(&bottle, take);
        // The same command works within the default limit, so only the limit ends it.
        assert_eq!((taken.code, taken.stdout.trim()), if limits.is_empty() { (0, "419430400") } else { (137, "") });
        sh(&bottle, "true").ok();
        lab.close(&bottle);
    }
}
