//! Latency and throughput of the two proxies, and their memory under load.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::sidecar_state::assert_alive;

use super::*;

/// Number of rounds. The ways alternate, so that a busy machine affects all of them.
const ROUNDS: usize = 5;

/// Milliseconds that a request on a new connection took without proxies on the machine for which the bounds were set.
const REFERENCE: f64 = 2.2;

/// Most memory of a flooded pipelock in MiB. Its garbage collector aims at 768, and the container's limit is 1,024.
const FLOODED: u64 = 960;

#[test]
#[ignore = "needs a container engine"]
fn the_two_proxies_add_a_bounded_time() {
    let lab = Lab::new("cost");
    let tokens = Tokens::of(&lab);
    let bottle = launch_of(&lab, &tokens, &BOTTLE.replace("/slow]", "/slow, /status/]"));
    let script = include_str!("bench.py");
    // Direct access: the agent's own image in the outside host's network.
    let image = docker(["inspect", "--format", "{{.Image}}", &bottle.names().project()]).stdout;
    let network = bottle.names().egress_network();
    let bundle = format!("{}:/ca.pem:ro", lab.root.path().join("outside-ca.pem").display());
    let container = ["run", "--rm", "--network", &network, "--volume", &bundle, "--env", "REQUESTS_CA_BUNDLE=/ca.pem"];
    let beside = |base: &str, sizes: &str| {
        docker(container.into_iter().chain([image.trim(), "python3", "-c", script, base, "100", sizes]))
    };
    let (injected, open) = (format!("https://{API}"), format!("https://{OUTSIDE}"));
    let mut measured: BTreeMap<String, [Vec<f64>; 3]> = BTreeMap::new();
    for round in 0..ROUNDS {
        let sizes = if round == 0 { "1,20,100,1000" } else { "1,20,100" };
        let ways = [
            beside(&open, sizes),
            python(&bottle, script, &[&open, "100", sizes]),
            python(&bottle, script, &[&injected, "100", sizes]),
        ];
        for (way, finished) in ways.iter().enumerate() {
            let figures: BTreeMap<String, f64> = serde_json::from_str(finished.ok()).unwrap();
            for (what, value) in figures {
                measured.entry(what).or_default()[way].push(value);
            }
        }
    }
    for (what, [direct, open, injected]) in &measured {
        let unit = if what.contains("MiB") { "MB/s" } else { "ms" };
        figure(format_args!(
            "{what}: direct {:.1} {unit}, through both proxies {:.1}, with a credential {:.1} (median of {})",
            median(direct),
            median(open),
            median(injected),
            direct.len()
        ));
    }
    let slowness = (median(&measured["small, new connection"][0]) / REFERENCE).max(1.0);
    figure(format_args!("the machine is {slowness:.1} times as slow as that of the bounds"));
    let slow: Vec<String> = measured.iter().flat_map(|(what, ways)| too_slow(what, ways, slowness)).collect();
    assert!(slow.is_empty(), "{slow:#?}\n{measured:#?}");
    assert_all_alive(&bottle);
    lab.close(&bottle);
}

/// Returns what is worse than the bound, for both ways through the proxies. A time is compared with the direct one of the
/// same round, and the median counts. The bounds are wider on a machine that is slower.
fn too_slow(what: &str, [direct, open, injected]: &[Vec<f64>; 3], slowness: f64) -> Vec<String> {
    let is_rate = what.contains("MiB");
    let bound = match what {
        // Shorter transfers are mostly the connection's setup.
        "1 MiB down" | "20 MiB down" => return Vec::new(),
        rate if rate.contains("MiB") => 100.0,
        "1 MB of JSON" => 50.0,
        "small, new connection" => 12.0,
        _ => 3.0,
    };
    let judged = |way: &[f64]| {
        let added = way.iter().zip(direct).map(|(through, direct)| if is_rate { -through } else { through - direct });
        let added: Vec<f64> = added.collect();
        median(&added)
    };
    let ways = [("without a credential", judged(open)), ("with a credential", judged(injected))];
    let bound = if is_rate { bound / slowness } else { bound * slowness };
    let limit = if is_rate { -bound } else { bound };
    let slow = ways.into_iter().filter(|(_, value)| *value > limit);
    let unit = if is_rate { "MB/s at least" } else { "ms added at most" };
    slow.map(|(way, value)| format!("{what} {way}: {:.1}, not {bound:.1} {unit}", value.abs())).collect()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[test]
#[ignore = "needs a container engine"]
fn twenty_large_transfers_at_once_leave_every_sidecar_alive() {
    let lab = Lab::new("twenty");
    let tokens = Tokens::of(&lab);
    let bottle = tokens.launch(&lab);
    for host in [API, OUTSIDE] {
        let finished = many(&bottle, "large", &format!("https://{host}/big?mb=100"), 20);
        let rate = 20.0 * 104.8576 / finished.1.as_secs_f64();
        assert_eq!(finished.0, json!({"200": 20}));
        figure(format_args!("20 downloads of 100 MiB at once from {host}: {rate:.0} MB/s together"));
    }
    // Clients that stop reading: their answers are not buffered.
    let stalled = "import os, socket, ssl, sys, time, urllib.parse
proxy, host, open_ones = urllib.parse.urlsplit(os.environ['https_proxy']), sys.argv[1], []
for _ in range(100):
    plain = socket.create_connection((proxy.hostname, proxy.port))
    plain.sendall(f'CONNECT {host}:443 HTTP/1.1\\r\\nHost: {host}:443\\r\\n\\r\\n'.encode())
    plain.recv(4096)
    open_ones.append(ssl.create_default_context().wrap_socket(plain, server_hostname=host))
    open_ones[-1].sendall(f'GET /big?mb=1024 HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n'.encode())
time.sleep(5)";
    python(&bottle, stalled, &[API]).ok();
    assert_all_alive(&bottle);
    sh(&bottle, &format!("curl -fsS https://{API}/echo")).ok();
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn hundreds_of_inspected_requests_at_once_leave_pipelock_alive() {
    let lab = Lab::new("inspected");
    let tokens = Tokens::of(&lab);
    let bottle = tokens.launch(&lab);
    // The second wave starts when the clients have given up the first, while pipelock still processes it.
    for wave in 1..=2 {
        let url = format!("http://{OUTSIDE}/big?mb=1");
        let finished = python(&bottle, include_str!("flood.py"), &[&url, "600", "15"]);
        figure(format_args!("wave {wave} of 600 answers of 1 MiB over plain HTTP: {}", finished.ok()));
        // Requests to hosts that are not decrypted do not wait for the others.
        let other = sh(&bottle, &format!("curl -fsS -m 20 https://{API}/echo"));
        other.ok();
        figure(format_args!("a request to another host takes {:?}", other.duration));
    }
    let memory = ["inspect", "--format", "{{.HostConfig.Memory}}", &bottle.names().container(Service::Pipelock)];
    assert_eq!(docker(memory).stdout.trim(), (1 << 30).to_string());
    // Without egress's bound, the same flood takes 980 MiB.
    assert!(assert_alive(&bottle, Service::Pipelock, FLOODED) > 100, "the flood is none");
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn hundreds_of_large_bodies_at_once_leave_pipelock_alive() {
    // Behind egress, over plain HTTP and to a host that pipelock decrypts, and alone, where the seal lets 32 connections
    // through, or 128 without the scan. Without it, bodies are passed on as they arrive.
    let route = "allow: [outside.test], routes: [{host: forbidden.test}]";
    let content = "allow: [forbidden.test, {host: outside.test, inspect: content}]";
    let plain = "allow: [outside.test, forbidden.test]";
    for (test, manifest, scheme, count, is_scanned) in [
        ("bodies-two", route, "http", 150, true),
        ("bodies-read", content, "https", 150, true),
        ("bodies-one", plain, "http", 30, true),
        ("bodies-off", plain, "http", 120, false),
    ] {
        let lab = Lab::new(test);
        let scan = if is_scanned { "warn" } else { "\"off\"" };
        let bottle = lab.launch(&format!("egress: {{scan_requests: {scan}, {manifest}}}"), "");
        let url = format!("{scheme}://{OUTSIDE}/upload");
        // Bodies of 5 MiB, which pipelock would scan by default, and the largest that it scans here. Of these, some are still
        // being scanned when the flood has ended.
        for (kib, within) in [(5 << 10, 5), (1 << 10, 10)] {
            let flood = [url.as_str(), &count.to_string(), "20", &kib.to_string()];
            let told = python(&bottle, include_str!("flood.py"), &flood);
            figure(format_args!("{test}: {count} bodies of {kib} KiB: {}", told.ok()));
            let other = sh(&bottle, &format!("curl -fsS -m 20 https://{FORBIDDEN}/echo"));
            other.ok();
            figure(format_args!("a request to another host takes {:?}", other.duration));
            assert!(other.duration < Duration::from_secs(within), "{other:?}");
        }
        let peak = assert_alive(&bottle, Service::Pipelock, if is_scanned { FLOODED } else { 300 });
        assert!(peak > 100 || !is_scanned, "the flood is none");
        lab.close(&bottle);
    }
}

#[test]
#[ignore = "needs a container engine"]
fn no_agent_floods_a_pipelock_that_decrypts_over_http2() {
    let lab = Lab::new("http2");
    let began = Instant::now();
    let bottle = lab.launch("egress: {allow: [forbidden.test, {host: outside.test, inspect: content}]}", "");
    figure(format_args!("a bottle with one host inspected by content and no route is up after {:?}", began.elapsed()));
    assert_alive(&bottle, Service::Egress, 300);
    let url = format!("https://{OUTSIDE}/big?mb=1");
    for wave in 1..=2 {
        let flood = ["egress:9099", &url, "64", "250", "20"];
        let protocols = python(&bottle, include_str!("../pipelock/http2.py"), &flood);
        figure(format_args!("wave {wave}: {}", protocols.ok()));
        assert_eq!(protocols.stdout.trim(), "{\"http/1.1\": 64}");
        let other = sh(&bottle, &format!("curl -fsS -m 20 https://{FORBIDDEN}/echo"));
        other.ok();
        figure(format_args!("a request to another host takes {:?}", other.duration));
        assert!(other.duration < Duration::from_secs(5), "{other:?}");
    }
    assert!(assert_alive(&bottle, Service::Pipelock, FLOODED) > 100, "the flood is none");
    assert_alive(&bottle, Service::Egress, 300);
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn slow_and_oversized_requests_leave_the_proxies_alive_and_other_requests_fast() {
    // Egress with 1,200 connections; pipelock alone with fewer than the 128 that the seal lets through.
    for (test, manifest, proxy, connections) in [
        ("slow-two", "egress: {allow: [outside.test], routes: [{host: forbidden.test}]}", Service::Egress, 1200),
        ("slow-one", "egress: {allow: [outside.test]}", Service::Pipelock, 100),
    ] {
        let lab = Lab::new(test);
        let bottle = lab.launch(manifest, "");
        let place = match proxy {
            Service::Egress => "egress:9099".to_owned(),
            other => format!("{}:8888", bottle.names().container(other)),
        };
        let url = format!("https://{OUTSIDE}/echo");
        let arguments = [&place, &connections.to_string(), "20", &url];
        let told = python(&bottle, include_str!("slow.py"), &arguments);
        figure(format_args!("{connections} slow connections to {proxy}: {}", told.ok()));
        let told: Value = serde_json::from_str(&told.stdout).unwrap();
        assert!(told["open"].as_u64().unwrap() >= connections * 9 / 10, "the slow connections are none: {told}");
        assert_eq!(told["failed"], 0, "{told}");
        assert!(told["slowest"].as_f64().unwrap() < 5.0, "{told}");
        for kind in ["header", "target"] {
            let answer = told["answers"][kind].as_str().unwrap();
            assert!(!answer.contains(" 200 ") && answer != "TimeoutError", "{told}");
        }
        sh(&bottle, &format!("curl -fsS {url}")).ok();
        assert_alive(&bottle, Service::Pipelock, 300);
        if proxy == Service::Egress {
            assert_alive(&bottle, Service::Egress, 300);
        }
        lab.close(&bottle);
    }
}

#[test]
#[ignore = "needs a container engine"]
fn no_request_is_lost_to_a_kept_connection() {
    let lab = Lab::new("kept");
    let tokens = Tokens::of(&lab);
    let manifest =
        BOTTLE.replace("[outside.test]", "[{host: outside.test, inspect: content}]").replace("/slow]", "/status/]");
    let bottle = launch_of(&lab, &tokens, &manifest);
    for (host, mode, count) in [
        (API, "sequential", 10_000),
        (OUTSIDE, "sequential", 1_000),
        (API, "at-once", 1_000),
        (OUTSIDE, "at-once", 250),
    ] {
        // In parts, each with its own connection, because a command may take at most two minutes.
        let parts = if count > 1_000 { 10 } else { 1 };
        for _ in 0..parts {
            let (answers, duration) = many(&bottle, mode, &format!("https://{host}/status/200"), count / parts);
            assert_eq!(answers, json!({"200": count / parts}), "{host} {mode}");
            figure(format_args!(
                "{} requests {mode} to {host}: {:.1} s, each 200",
                count / parts,
                duration.as_secs_f64()
            ));
        }
    }
    assert_all_alive(&bottle);
    lab.close(&bottle);
}

/// Sends many requests from the agent. Returns the number of answers by status, and the time taken.
fn many(bottle: &Bottle, mode: &str, url: &str, count: usize) -> (Value, Duration) {
    let finished = python(bottle, include_str!("many.py"), &[mode, url, &count.to_string()]);
    (serde_json::from_str(finished.ok()).unwrap(), finished.duration)
}

/// Fails unless both proxies have run without a break and with little memory.
#[track_caller]
fn assert_all_alive(bottle: &Bottle) {
    for service in [Service::Egress, Service::Pipelock] {
        assert_alive(bottle, service, 300);
    }
}
