//! Bottles that are weakened on purpose. Each weakness is caught by attacks that get through: every group can fail.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use bottle::plan::Service;
use bottle_testing::lab::{self, Changing, Part, docker, figure};

use crate::evidence::examined;
use crate::launch::Ground;
use crate::site::Site;
use crate::table::{Attack, Topology, attacks};

/// A weakness in words, and attacks that get through because of it.
pub(crate) struct Weakness {
    pub(crate) what: &'static str,
    pub(crate) caught_by: &'static [&'static str],
    change: Change,
}

enum Change {
    /// After the start. The seal's rules are restored before the next.
    Running(fn(&Site)),
    /// In the manifest: a text, and what takes its place.
    Manifest(&'static str, &'static str),
    /// In the agent's part of the Compose file.
    Agent(&'static str, &'static str),
}

const RUNNING: &[Weakness] = &[
    running(
        "no firewall rules",
        &[
            "TCP to a neighbor on the internal network",
            "UDP to a neighbor on the internal network",
            "UDP to everyone on the subnet",
            "a resolver on the internal network",
            "pipelock, past egress",
        ],
        |site| {
            nft(site, &["delete", "table", "inet", "bottle"]);
        },
    ),
    running(
        "a first rule that accepts everything",
        &["TCP to a neighbor on the internal network", "UDP to a neighbor on the internal network"],
        |site| {
            nft(site, &["insert rule inet bottle output accept"]);
        },
    ),
    running(
        "a rule that accepts UDP",
        &[
            "UDP to a neighbor on the internal network",
            "UDP to everyone: 255.255.255.255",
            "a resolver on the internal network",
        ],
        |site| {
            nft(site, &["insert rule inet bottle output meta l4proto udp accept"]);
        },
    ),
    running("a rule that accepts ICMP", &["ICMP echo, as an ordinary user may send it"], |site| {
        nft(site, &["insert rule inet bottle output meta l4proto icmp accept"]);
    }),
    running("a rule for the closed proxy", &["pipelock, past egress", "as root: pipelock, past egress"], |site| {
        nft(site, &["insert rule inet bottle output tcp dport 8888 accept"]);
    }),
    running(
        "a resolver that asks others",
        &["the system's resolver, a name with data in it", "a resolver on the loopback addresses"],
        |site| {
            nft(site, &["insert rule inet bottle output udp dport 53 accept"]);
            let near = site.fact("NEAR");
            docker(["exec", "--detach", "--user", "0", &site.agent(), "python3", "-c", FORWARDER, &near]);
            std::thread::sleep(std::time::Duration::from_secs(1));
        },
    ),
    // The last one: its network stays.
    running(
        "a second network, with a route",
        &[
            "TCP to an outside address",
            "UDP to an outside address",
            "a resolver outside over UDP",
            "a resolver outside over TCP",
            "TCP to every address of the host",
        ],
        |site| {
            docker([
                "network",
                "connect",
                &site.bottle.names().egress_network(),
                &site.bottle.names().container(Service::Seal),
            ]);
            nft(site, &["insert rule inet bottle output accept"]);
        },
    ),
];

const MANIFEST: &[Weakness] = &[
    manifest(
        "a host that should not be allowed",
        "allow: [outside.test]",
        "allow: [outside.test, forbidden.test]",
        &[
            "CONNECT to a host that is not allowed",
            "a plain request to a host that is not allowed",
            "a redirect to a host that is not allowed",
            "DNS over HTTPS at a host that is not allowed",
            "a tool that decides",
            "a path that decides",
        ],
    ),
    manifest(
        "a route without paths",
        "paths: [/v1/, /echo, /reflect, /redirect], ",
        "",
        &["a path that no route allows"],
    ),
    manifest("a route with every method", "methods: [GET, POST], ", "", &["a method that no route allows"]),
    manifest(
        "pushes to every branch",
        "branches: [\"agent/**\"]",
        "branches: [\"**\", \"refs/notes/*\"], scan: false, tags: true, force: true, delete: true, protected_paths: []",
        &["a branch that is not allowed"],
    ),
    manifest("pushes of tags", "", "", &["a tag"]),
    manifest(
        "pushes without a scan",
        "",
        "",
        &["a secret in a file", "a secret in a commit that a later one removes", "a secret in UTF-16 and in a binary"],
    ),
    manifest("pushes to protected paths", "", "", &["a protected path", "a protected path in a merge"]),
    manifest("pushes that rewrite", "", "", &["a rewritten branch"]),
    manifest("pushes of any size", "max_size: 2MiB", "max_size: 900MiB", &["more than the largest push"]),
    manifest(
        "a push to a remote that is only read",
        "push: {enabled: false}",
        "push: {enabled: true}",
        &["a branch of a remote that may only be read"],
    ),
    manifest(
        "files with credentials in the copy",
        "workspace: {",
        "workspace: {include_credential_files: true, ",
        &["files with credentials", "everything that was copied"],
    ),
];

const AGENT: &[Weakness] = &[
    agent(
        "no limit of processes",
        "    pids_limit: 512\n",
        "",
        &["as many processes as possible", "as many threads as possible"],
    ),
    agent(
        "no limit of memory",
        "    mem_limit: 805306368\n    memswap_limit: 805306368\n",
        "",
        &["more memory than its limit"],
    ),
    agent(
        "capabilities are kept",
        "    cap_drop:\n      - ALL\n",
        "",
        &["capabilities taken", "as root: an Ethernet frame to everyone", "as root: an ARP request that carries data"],
    ),
    agent(
        "no system call filter, and new privileges",
        "no-new-privileges:true",
        "seccomp:unconfined",
        &["filters and privileges taken off again", "unshare: a user namespace", "keyrings of the kernel"],
    ),
    agent(
        "a token in its environment",
        "    environment:\n",
        "    environment:\n      - LEAKED=TOKEN\n",
        &["the environments of all processes", "as root: the environments of all processes"],
    ),
    agent(
        "the engine's socket",
        "    volumes:\n",
        "    volumes:\n      - /var/run/docker.sock:/var/run/docker.sock\n",
        &["as root: the engine's Unix socket"],
    ),
];

const fn running(what: &'static str, caught_by: &'static [&'static str], change: fn(&Site)) -> Weakness {
    Weakness { what, caught_by, change: Change::Running(change) }
}

const fn manifest(
    what: &'static str,
    from: &'static str,
    to: &'static str,
    caught_by: &'static [&'static str],
) -> Weakness {
    Weakness { what, caught_by, change: Change::Manifest(from, to) }
}

const fn agent(
    what: &'static str,
    from: &'static str,
    to: &'static str,
    caught_by: &'static [&'static str],
) -> Weakness {
    Weakness { what, caught_by, change: Change::Agent(from, to) }
}

/// Weaknesses of the host side, which the judges themselves must find.
pub(crate) const HOST: [(&str, &str); 4] = [
    ("a copy that keeps set-user-id bits", "a set-user-id program"),
    ("a copy that follows a link", "a link to a file of the host, copied out"),
    ("a queue with a text that misleads", "a text with escape sequences and invisible characters"),
    ("a sidecar that logs what it was sent", "escape sequences in the log of supervise"),
];

/// Returns every weakness, in the order of the table.
pub(crate) fn weaknesses() -> impl Iterator<Item = &'static Weakness> {
    [RUNNING, MANIFEST, AGENT].into_iter().flatten()
}

/// Answers nobody itself, and passes every query on.
const FORWARDER: &str = "\
import socket, sys
server = socket.socket(type=socket.SOCK_DGRAM)
server.bind(('', 53))
for _ in range(1000):
    query, sender = server.recvfrom(1500)
    socket.socket(type=socket.SOCK_DGRAM).sendto(query, (sys.argv[1], 53))
    server.sendto(query[:2] + b'\\x81\\x83' + query[4:], sender)
";

fn nft(site: &Site, arguments: &[&str]) {
    let seal = site.bottle.names().container(Service::Seal);
    lab::nft(&seal, arguments);
}

/// Lists the seal's rules, or replaces them.
fn rules(site: &Site, new: Option<&str>) -> String {
    let seal = site.bottle.names().container(Service::Seal);
    let Some(new) = new else {
        return docker(["exec", &seal, "/usr/sbin/nft", "list", "table", "inet", "bottle"]).stdout;
    };
    let mut child = Command::new("docker")
        .args(["exec", "--interactive", &seal, "/usr/sbin/nft", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(
        &mut child.stdin.take().unwrap(),
        format!("table inet bottle {{}}\ndelete table inet bottle\n{new}").as_bytes(),
    )
    .unwrap();
    assert!(child.wait().unwrap().success());
    String::new()
}

/// Runs the attacks that must get through.
fn assert_caught(site: &Site, weaknesses: &[&Weakness]) {
    let names: Vec<&str> = weaknesses.iter().flat_map(|weakness| weakness.caught_by.iter().copied()).collect();
    let chosen: Vec<Attack> = attacks().into_iter().filter(|attack| names.contains(&attack.name)).collect();
    for name in &names {
        assert!(
            chosen.iter().any(|attack| attack.name == *name && attack.topology == Topology::Full),
            "no attack `{name}`"
        );
    }
    let fates = site.attack(&chosen);
    let missed: Vec<String> = weaknesses
        .iter()
        .flat_map(|weakness| weakness.caught_by.iter().map(|name| (weakness.what, *name)))
        .filter(|(_, name)| fates[name].through.is_empty())
        .map(|(what, name)| format!("{what}: `{name}` did not get through:\n{}", crate::ending(&fates[name].printed)))
        .collect();
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
}

#[test]
#[ignore = "needs a container engine"]
fn a_weakness_of_a_running_bottle_lets_attacks_through() {
    let start = Instant::now();
    let ground = Ground::new("weak-run");
    let bottle = ground.launch(&ground.options(), &ground.manifest("runc"));
    let site = Site::around(&ground.lab, bottle, ground.secrets(), Topology::Full, &[]);
    let sound = rules(&site, None);
    lab::suspend(&site.bottle.names().container(Service::Seal));
    for weakness in RUNNING {
        let Change::Running(weaken) = weakness.change else { unreachable!("all are of a running bottle") };
        rules(&site, Some(&sound));
        weaken(&site);
        assert_caught(&site, &[weakness]);
    }
    site.close();
    figure(format_args!("{} weaknesses in {:.0} s", RUNNING.len(), start.elapsed().as_secs_f64()));
}

#[test]
#[ignore = "needs a container engine"]
fn a_weakness_of_the_manifest_lets_attacks_through() {
    let start = Instant::now();
    let ground = Ground::new("weak-manifest");
    let mut text = ground.manifest("runc");
    for weakness in MANIFEST {
        let Change::Manifest(from, to) = weakness.change else { unreachable!("all are of the manifest") };
        assert!(text.contains(from), "the manifest has no {from:?}");
        text = text.replacen(from, to, 1);
    }
    let bottle = ground.launch(&ground.options(), &text);
    let site = Site::around(&ground.lab, bottle, ground.secrets(), Topology::Full, &[]);
    assert_caught(&site, &MANIFEST.iter().collect::<Vec<_>>());
    host_side(&site);
    site.close();
    figure(format_args!("{} weaknesses in {:.0} s", MANIFEST.len() + HOST.len(), start.elapsed().as_secs_f64()));
}

#[test]
#[ignore = "needs a container engine"]
fn a_weakness_of_the_agent_s_container_lets_attacks_through() {
    let start = Instant::now();
    let ground = Ground::new("weak-agent");
    let mut backend = Arc::clone(lab::engine().backend());
    for weakness in AGENT {
        let Change::Agent(from, to) = weakness.change else { unreachable!("all are of the agent's container") };
        let to = to.replace("TOKEN", &ground.secrets().api);
        backend = Arc::new(Changing { backend, part: Part::Service(Service::Agent), from, to });
    }
    let bottles = ground.options_of(lab::engine().with_backend(backend));
    let bottle = ground.launch(&bottles, &ground.manifest("runc"));
    let site = Site::around(&ground.lab, bottle, ground.secrets(), Topology::Full, &[]);
    assert_caught(&site, &AGENT.iter().collect::<Vec<_>>());
    site.close();
    figure(format_args!("{} weaknesses in {:.0} s", AGENT.len(), start.elapsed().as_secs_f64()));
}

/// Does on the host what a weaker library would do. The judges must find each.
fn host_side(site: &Site) {
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(site.misleading_proposals(), None);
    let around = site.lab.root.path().join("weak-copy");
    let into = around.join("in");
    fs::create_dir_all(&into).unwrap();
    assert_eq!(examined(&around, &into, "none"), None);
    fs::write(into.join("suid"), "x").unwrap();
    fs::set_permissions(into.join("suid"), fs::Permissions::from_mode(0o4755)).unwrap();
    assert!(examined(&around, &into, "none").is_some(), "{}", HOST[0].0);
    fs::remove_file(into.join("suid")).unwrap();
    fs::copy("/etc/hostname", into.join("followed")).unwrap();
    assert!(examined(&around, &into, "none").is_some(), "{}", HOST[1].0);
    fs::remove_file(into.join("followed")).unwrap();
    fs::write(around.join("beside"), "x").unwrap();
    assert!(examined(&around, &into, "none").is_some(), "a file beside the copy");

    let queue = site.lab.state_root().bottle(site.bottle.slug()).supervise_queue().join("proposals");
    let proposal = queue.join("1700000000000-aaaaaaaaaaaaaaaa.json");
    fs::write(&proposal, r#"{"change":{"host":"a.test"},"agent_reason":"\u001b[2Jx"}"#).unwrap();
    assert!(site.misleading_proposals().is_some(), "{}", HOST[2].0);
    fs::remove_file(proposal).unwrap();
    assert_eq!(site.forged_logs("nq-weak"), None);
    let supervise = site.bottle.names().container(Service::Supervise);
    docker(["exec", &supervise, "sh", "-c", "printf '\\033[2Jnq-weak\\n' >/proc/1/fd/1"]);
    assert!(site.forged_logs("nq-weak").is_some(), "{}", HOST[3].0);
}
