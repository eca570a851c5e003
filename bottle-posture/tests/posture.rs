//! Postures of bottles and the differences of two, as a person reads them.

#![expect(clippy::unwrap_used, reason = "a test that cannot make its own plan has failed")]

use std::fmt::Write as _;
use std::path::Path;

use bottle_plan::{HostFacts, Manifest, PlanRequest, Prefix, UserIds};
use bottle_posture::{Effect, Posture};

fn posture(manifest: &Manifest, agent: Option<&str>) -> Posture {
    let host = HostFacts { home: "/home/me".into(), cwd: "/src/app".into(), user: UserIds { uid: 1000, gid: 1000 } };
    let agent = agent.map(|name| name.parse().unwrap());
    let request = PlanRequest {
        agent: agent.as_ref(),
        slug: Some("demo-1".parse().unwrap()),
        prefix: Prefix::default(),
        manifest_dir: Some(Path::new("/src/app/bottle")),
        host: &host,
        random: [0; 5],
    };
    Posture::of(&manifest.plan(request).unwrap())
}

/// The posture of a bottle that is described by these lines.
fn of(bottle: &str) -> Posture {
    let text = format!("agents: {{demo: {{bottle: dev, command: [id]}}}}\nbottles: {{dev: {{{bottle}}}}}\n");
    posture(&Manifest::parse(&text).unwrap(), None)
}

#[test]
fn the_smallest_and_the_fullest_read_well() {
    insta::assert_snapshot!("smallest", of(""));
    let fullest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bottle-plan/tests/good/fullest.yaml");
    let fullest = posture(&Manifest::read(&fullest).unwrap(), Some("coder"));
    insta::assert_snapshot!("fullest", fullest);
    insta::assert_snapshot!("fullest_as_json", serde_json::to_string_pretty(&fullest).unwrap());
    let read: Posture = serde_json::from_str(&serde_json::to_string(&fullest).unwrap()).unwrap();
    assert_eq!(read, fullest);
}

const SSH: &str = "name: app, url: 'git@git.example.com:team/app.git', known_hosts: [git.example.com ssh-ed25519 AAAA]";

/// Pairs of bottles, with what the step from the first to the second is called.
fn steps() -> Vec<(&'static str, String, String)> {
    let git = |rest: &str| format!("git: {{upstreams: [{{{SSH}, {rest}}}]}}");
    let routes = |routes: &str| format!("egress: {{routes: [{routes}]}}");
    let step = |what, old: &str, new: &str| (what, old.to_owned(), new.to_owned());
    vec![
        step("nothing", "egress: {allow: [a.example.com]}", "egress: {allow: [a.example.com]}"),
        step("a host more", "egress: {allow: [a.example.com]}", "egress: {allow: [a.example.com, b.example.com]}"),
        step("every host", "egress: {allow: [a.example.com]}", "egress: {allow: [a.example.com], mode: learn}"),
        step(
            "a host below a wildcard",
            "egress: {allow: ['*.example.com']}",
            "egress: {allow: ['*.example.com', a.example.com]}",
        ),
        step(
            "a port more",
            "egress: {allow: [a.example.com]}",
            "egress: {allow: [a.example.com, 'a.example.com:8443']}",
        ),
        step("one port", "egress: {allow: [a.example.com]}", "egress: {allow: ['a.example.com:443']}"),
        step(
            "a port below a wildcard",
            "egress: {allow: ['*.example.com']}",
            "egress: {allow: ['*.example.com', 'a.example.com:8443']}",
        ),
        step("a wildcard for a host", "egress: {allow: [a.example.com]}", "egress: {allow: ['*.example.com']}"),
        step(
            "a method more",
            &routes("{host: api.example.com, methods: [GET]}"),
            &routes("{host: api.example.com, methods: [GET, POST]}"),
        ),
        step("every method", &routes("{host: api.example.com, methods: [GET]}"), &routes("{host: api.example.com}")),
        step(
            "a path within a path",
            &routes("{host: api.example.com, paths: [/v1]}"),
            &routes("{host: api.example.com, paths: [/v1/models]}"),
        ),
        step(
            "a path beside a path",
            &routes("{host: api.example.com, paths: [/v1]}"),
            &routes("{host: api.example.com, paths: [/v10]}"),
        ),
        step("another port", &routes("{host: api.example.com}"), &routes("{host: api.example.com, port: 8443}")),
        step(
            "an open host limited",
            "egress: {allow: [api.example.com]}",
            &routes("{host: api.example.com, methods: [GET]}"),
        ),
        step(
            "a host below an open wildcard limited",
            "egress: {allow: ['*.example.com']}",
            "egress: {allow: ['*.example.com'], routes: [{host: api.example.com, methods: [GET]}]}",
        ),
        step(
            "a route renamed",
            &routes("{name: a, host: api.example.com}"),
            &routes("{name: b, host: api.example.com}"),
        ),
        step(
            "content no longer inspected",
            "egress: {allow: [{host: api.example.com, inspect: content}], scan_requests: block}",
            "egress: {allow: [api.example.com]}",
        ),
        step(
            "requests to a host searched for credentials",
            "egress: {dlp: warn, allow: ['*.example.com', b.example.com], routes: [{host: a.test, paths: [/v1]}]}",
            "egress: {dlp: warn, allow: [{host: '*.example.com', dlp: block}, {host: b.example.com, dlp: off}], \
             routes: [{host: a.test, paths: [/v1], dlp: off}]}",
        ),
        step(
            "egress for its search",
            "egress: {allow: [a.example.com]}",
            "egress: {dlp: block, allow: [a.example.com]}",
        ),
        step(
            "content inspected below a wildcard, but for one host",
            "egress: {allow: ['*.example.com', dl.example.com]}",
            "egress: {allow: [{host: '*.example.com', inspect: content}, dl.example.com]}",
        ),
        step(
            "a host more whose content is inspected",
            "egress: {allow: [a.example.com]}",
            "egress: {allow: [a.example.com, {host: b.example.com, inspect: content}]}",
        ),
        step(
            "a credential",
            &routes("{host: api.example.com}"),
            &routes("{host: api.example.com, inject: {token: KEY}}"),
        ),
        step(
            "another header",
            &routes("{host: api.example.com, inject: {token: KEY}}"),
            &routes("{host: api.example.com, inject: {token: KEY, scheme: header}}"),
        ),
        step(
            "a further header",
            &routes("{host: api.example.com, inject: {token: KEY}}"),
            &routes("{host: api.example.com, inject: {token: KEY}, headers: [x-tenant, cookie]}"),
        ),
        step("a repository", "", &git("identity_file: ~/.ssh/id, push: {branches: ['agent/**']}")),
        step("another key", &git("identity_file: ~/.ssh/id"), &git("identity_file: ~/.ssh/other")),
        step("a key of its own", &git("identity_file: ~/.ssh/id"), &git("deploy_key: {forge: github, token: FORGE}")),
        step(
            "pushes, as wide as they go",
            &git("identity_file: k, push: {enabled: false}"),
            &git(
                "identity_file: k, push: {force: true, delete: true, tags: true, scan: false, max_size: 1GiB, protected_paths: []}",
            ),
        ),
        step(
            "a branch for another",
            &git("identity_file: k, push: {branches: [a]}"),
            &git("identity_file: k, push: {branches: [b], protected_paths: [x]}"),
        ),
        step("another remote", &git("identity_file: k"), &git("identity_file: k").replace("team/app", "other/app")),
        step(
            "the host's environment",
            "env: {A: x, B: {placeholder: true}}",
            "env: {A: {forward: TOKEN}}, env_file: e",
        ),
        step("a workspace that may be changed", "workspace: {mode: bind}", "workspace: {mode: bind-rw}"),
        step("another workspace", "workspace: {mode: bind, path: a}", "workspace: {mode: copy, path: b}"),
        step("files that hold credentials", "", "workspace: {include_credential_files: true}"),
        step("a shared kernel", "runtime: runsc", "runtime: runc"),
        step("questions", "", "supervise: {wait: 10s}"),
        step("another pipelock", "", "images: {pipelock: 'localhost/pipelock:mine'}"),
        step("another agent", "", "images: {agent: 'localhost/agent:mine'}"),
        step("a company's certificates", "", "tls: {upstream_ca: /etc/ca.pem, lifetime: 1h}"),
        step("limits", "limits: {agent: {memory: 1GiB, pids: 100}}", "limits: {agent: {memory: 2GiB, cpus: 2}}"),
        step(
            "limits of the whole bottle",
            "egress: {dlp: block}, limits: {time: 8h, requests: 100}",
            "limits: {time: 1h, idle: 30m, bytes: 1GiB}",
        ),
        step("networks", "", "networks: external"),
    ]
}

#[test]
fn the_limits_of_the_whole_bottle_are_named() {
    let posture = of("limits: {time: 8h, idle: 30m, requests: 100, bytes: 1GiB}").to_string();
    for line in [
        "ends 8h after its start",
        "is paused after 30m without a request, as long as the launching process runs",
        "may pass 100 requests through egress in all",
        "may pass 1GiB of requests and answers through egress in all",
    ] {
        assert!(posture.contains(line), "{posture}");
    }
}

#[test]
fn every_change_is_told_in_words_with_its_direction() {
    let mut shown = String::new();
    for (what, old, new) in steps() {
        let (old, new) = (of(&old), of(&new));
        write!(shown, "{what}\n{}and back\n{}\n", old.diff(&new), new.diff(&old)).unwrap();
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn a_bottle_that_learns_is_open_to_every_host() {
    let text = of("egress: {allow: [a.example.com], mode: learn}").to_string();
    assert!(text.contains("EVERY HOST WITH A PUBLIC ADDRESS on ports 80, 443"), "{text}");
    assert!(!of("egress: {allow: [a.example.com]}").to_string().contains("EVERY HOST"));
    let alone = of("egress: {mode: learn}").to_string();
    assert!(!alone.contains("  nothing\n") && alone.contains("credentials"), "{alone}");
}

/// A change that lets the bottle do more must not look harmless from the other side.
#[test]
fn what_widens_one_way_narrows_or_widens_the_other() {
    for (what, old, new) in steps() {
        let (old, new) = (of(&old), of(&new));
        assert!(old.diff(&old).changes.is_empty(), "{what}");
        let (there, back) = (old.diff(&new), new.diff(&old));
        if there.effect() == Effect::Widening {
            assert_ne!(back.effect(), Effect::Neutral, "{what}: {back}");
        }
        assert_eq!(there.changes.is_empty(), back.changes.is_empty(), "{what}");
    }
}

#[test]
fn the_limit_of_connections_is_named_where_the_agent_reaches_pipelock_itself() {
    let limit = "It may have 128 connections at once. A further one waits until one of them ends.";
    for (bottle, expected) in [
        ("egress: {allow: [a.example.com]}", Some(limit)),
        ("egress: {allow: [a.example.com]}, limits: {sidecar: {memory: 256MiB}}", Some("It may have 32 connections")),
        ("egress: {routes: [{host: a.example.com}]}", None),
        ("", None),
    ] {
        let text = of(bottle).to_string();
        assert_eq!(text.contains("connections at once"), expected.is_some(), "{text}");
        assert!(expected.is_none_or(|expected| text.contains(expected)), "{text}");
    }
}

#[test]
fn a_wildcard_whose_names_nobody_reads_is_named() {
    for (bottle, expected) in [
        ("egress: {allow: ['*.example.com']}", true),
        ("egress: {allow: ['*.example.com'], dlp: block}", false),
        ("egress: {allow: [a.example.com]}", false),
    ] {
        let text = of(bottle).to_string();
        assert_eq!(text.contains("So does data in a name below a `*.`"), expected, "{text}");
    }
}

/// Comparing every host with every other takes minutes for this many.
#[test]
fn thousands_of_hosts_are_compared_in_a_moment() {
    let hosts = |from: usize| -> String {
        let hosts: Vec<_> = (from..from + 9_000).map(|number| format!("h{number}.example.com")).collect();
        hosts.join(",")
    };
    let manifest = |from| format!("egress: {{allow: [{}]}}", hosts(from));
    let (old, new) = (of(&manifest(0)), of(&manifest(1)));
    let began = std::time::Instant::now();
    let diff = old.diff(&new);
    let text = new.to_string();
    let took = began.elapsed();
    let words: Vec<_> = diff.changes.iter().map(|change| change.words.as_str()).collect();
    let all = "on ports 80, 443, for everything";
    assert_eq!(words, [format!("opens h9000.example.com {all}"), format!("closes h0.example.com {all}")]);
    assert_eq!(text.matches("inspected by connection").count(), 9_000);
    assert!(took < std::time::Duration::from_secs(3), "{took:?}");
}
