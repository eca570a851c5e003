//! Sidecars that die while a bottle is up: their state in lists, and the events for an observer.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bottle::exec::Event;
use bottle::plan::Service;
use bottle::plan::value::Subnets;
use bottle::{Bottle, ServiceHealth};

use super::handle::{slug, tool};
use super::{FULL, Place, options, plan};
use bottle_testing::lab::{Lab, docker, engine, example, figure, run, sh};

/// Waits until a service has a state, given as its summary.
fn wait_for(bottle: &Bottle, service: Service, summary: &str) -> ServiceHealth {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let health = bottle.health().unwrap();
        let found =
            health.iter().find(|health| health.service == service.as_str()).unwrap_or_else(|| panic!("{health:?}"));
        if found.summary == summary {
            return found.clone();
        }
        assert!(Instant::now() < until, "{service} never {summary}: {health:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
#[ignore = "needs a container engine"]
fn a_dead_sidecar_is_listed_with_the_reason_and_reported_to_the_observer() {
    let place = Place::new();
    let bottle = options(engine(), &place.state()).launch(plan(FULL, "health")).unwrap();
    let container = |service| bottle.names().container(service);
    let health = bottle.health().unwrap();
    assert!(health.len() == 7 && health.iter().all(ServiceHealth::is_up), "{health:#?}");
    assert!(run(tool(&place).arg("list")).ok().contains("7 of 7 up"));

    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    bottle.watch_health(Arc::new(move |event: &Event| seen.lock().unwrap().push((Instant::now(), event.clone()))));
    let clients = || {
        let filter = format!("label=com.docker.compose.project={}", bottle.names().project());
        run(Command::new("pgrep").args(["--full", "--count", &format!("events.*{filter}")])).stdout.trim().to_owned()
    };
    // Waits for an event. Returns the time between `since` and its arrival.
    let told = |since: Instant, service: &str, is_up: bool, state: &str| {
        let wanted = Event::ServiceChanged { service: service.into(), is_up, state: state.into() };
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let events = events.lock().unwrap().clone();
            if let Some((at, _)) = events.iter().find(|(at, event)| *at >= since && *event == wanted) {
                return *at - since;
            }
            assert!(Instant::now() < until, "{wanted:?}: {events:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let mut figures = Vec::new();
    docker(["update", "--restart", "no", &container(Service::Egress)]);
    let since = Instant::now();
    docker(["kill", &container(Service::Egress)]);
    figures.push(("killed", told(since, "egress", false, "exited with status 137")));
    let egress = wait_for(&bottle, Service::Egress, "exited with status 137");
    assert_eq!((egress.exit_code, egress.oom_killed, egress.is_up()), (Some(137), false, false));
    assert_eq!(clients(), "1");
    // A service that the engine restarts when its main process dies.
    let since = Instant::now();
    run(Command::new("docker").args(["exec", &container(Service::GitGate), "sh", "-c", "kill -KILL -1"]));
    figures.push(("died", told(since, "git-gate", false, "exited with status 137")));
    figures.push(("restarted", told(since, "git-gate", true, "is running, healthy, restarted once")));
    wait_for(&bottle, Service::GitGate, "is running, healthy, restarted once");
    let since = Instant::now();
    docker(["stop", "--time", "2", &container(Service::Seal)]);
    figures.push(("stopped", told(since, "seal", false, "exited with status 0")));
    told(since, "agent", false, "lost its network: `seal` exited with status 0; launch the bottle again");
    let since = Instant::now();
    docker(["rm", "--force", &container(Service::Supervise)]);
    figures.push(("removed", told(since, "supervise", false, "exited with status 137")));
    wait_for(&bottle, Service::Supervise, "was removed");
    std::thread::sleep(Duration::from_millis(600));
    figure(format_args!("time until the event, with the command that caused it: {figures:?}"));
    let late = |(cause, time): &&(&str, Duration)| *cause != "restarted" && *time > Duration::from_secs(2);
    assert_eq!(figures.iter().find(late), None, "a second for the event, and one for the command");
    let reported: Vec<(String, bool)> = events
        .lock()
        .unwrap()
        .iter()
        .map(|(_, event)| match event {
            Event::ServiceChanged { service, is_up, .. } => (service.clone(), *is_up),
            other => panic!("{other:?}"),
        })
        .collect();
    let once = [
        ("egress", false),
        ("git-gate", false),
        ("git-gate", true),
        ("seal", false),
        ("agent", false),
        ("supervise", false),
    ];
    assert_eq!(reported, once.map(|(service, is_up)| (service.to_owned(), is_up)));
    let listed = place.site().list().unwrap();
    let dead: Vec<&str> =
        listed[&slug("health")].services.iter().filter(|it| !it.is_up()).map(|it| it.service.as_str()).collect();
    assert_eq!(dead, ["agent", "egress", "seal", "supervise"]);
    let shown = run(tool(&place).arg("list"));
    for line in [
        "3 of 7 up",
        "egress exited with status 137",
        "git-gate is running, healthy, restarted once",
        "supervise was removed",
    ] {
        assert!(shown.ok().contains(line), "{line}\n{}", shown.stdout);
    }
    println!("{}", shown.stdout);
    assert!(run(tool(&place).args(["list", "--json"])).ok().contains("\"status\": \"missing\""));
    bottle.close().unwrap();
    assert_eq!(clients(), "0");
    assert_eq!(events.lock().unwrap().len(), once.len(), "the teardown itself is no news");
    place.nothing_is_left("health");
}

#[test]
#[ignore = "needs a container engine"]
fn a_sidecar_that_ran_out_of_memory_is_listed_with_that_reason() {
    let lab = Lab::new("oom");
    let bottle = lab.launch("egress: {allow: [{host: outside.test, inspect: content}]}", "");
    let pipelock = bottle.names().container(Service::Pipelock);
    assert!(sh(&bottle, "curl -fsS https://outside.test/echo").ok().contains("GET"));
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    bottle.watch_health(Arc::new(move |event: &Event| seen.lock().unwrap().push(event.clone())));
    docker(["update", "--restart", "no", "--memory", "48m", "--memory-swap", "48m", &pipelock]);
    // Scanning an answer takes a multiple of its size.
    for _ in 0..5 {
        let at_once = "for n in $(seq 40); do curl -sS -m 60 -o /dev/null 'https://outside.test/big?mb=1' & done; wait";
        let _ = sh(&bottle, at_once);
        if !bottle.engine().container(&pipelock).unwrap().unwrap().is_ready() {
            break;
        }
    }
    let found = wait_for(&bottle, Service::Pipelock, "exited with status 137 (killed: out of memory)");
    assert!(found.oom_killed && !found.is_up() && found.exit_code == Some(137), "{found:?}");
    let told = Event::ServiceChanged { service: "pipelock".into(), is_up: false, state: found.summary };
    let until = Instant::now() + Duration::from_secs(5);
    while *events.lock().unwrap() != [told.clone()] {
        assert!(Instant::now() < until, "{:#?}", events.lock().unwrap());
        std::thread::sleep(Duration::from_millis(50));
    }
    let listed = run(example("bottles").arg("--state-dir").arg(lab.state_root().path()).arg("list"));
    assert!(listed.ok().contains("pipelock exited with status 137 (killed: out of memory)"), "{listed:?}");
    println!("{}", listed.stdout);
    lab.close(&bottle);
}

/// Every sidecar, in front of the lab's outside host.
const EVERY: &str = "\
supervise: true
egress: {routes: [{host: outside.test}]}
git:
  upstreams:
    - {name: app, url: \"https://outside.test/demo.git\"}";

/// Fails unless the agent reaches what each of the sidecars is for.
#[track_caller]
fn assert_reached(bottle: &Bottle, services: &[Service]) {
    let mcp = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for service in services {
        let asks = match service {
            Service::GitGate => "git ls-remote https://outside.test/demo.git HEAD".to_owned(),
            Service::Supervise => format!(
                "curl -fsS -m 20 -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' -d '{mcp}' http://supervise:9100/mcp"
            ),
            _ => "curl -fsS -m 20 https://outside.test/echo".to_owned(),
        };
        let finished = sh(bottle, &asks);
        assert!(finished.code == 0 && !finished.stdout.is_empty(), "{service}: {finished:?}");
    }
}

#[test]
#[ignore = "needs a container engine"]
fn a_restarted_sidecar_keeps_its_address_and_is_reached_again() {
    is_reached_again(&Lab::new("restarted"), Subnets::default());
}

/// Without a known subnet, the engine gives each start of a container the lowest free address.
#[test]
#[ignore = "needs a container engine"]
fn a_restarted_sidecar_is_reached_again_at_another_address_where_the_engine_chooses_it() {
    is_reached_again(&Lab::new("readdressed"), Subnets::Engine);
}

fn is_reached_again(lab: &Lab, subnets: Subnets) {
    let is_fixed = subnets != Subnets::Engine;
    let options = lab.options().with_subnets(subnets);
    let bottle = options.launch(lab.plan(EVERY, "")).unwrap_or_else(|error| panic!("{}", bottle::report(&error)));
    lab.outside.connect(&bottle.names().egress_network());
    let services = [Service::Pipelock, Service::Egress, Service::GitGate, Service::Supervise];
    assert_reached(&bottle, &services);
    for service in services {
        docker(["restart", "--time", "2", &bottle.names().container(service)]);
        let restarted = Instant::now();
        wait_for(&bottle, service, "is running, healthy");
        assert_reached(&bottle, &services);
        figure(format_args!("every sidecar is reached {:?} after the restart of {service}", restarted.elapsed()));
    }
    // Down together and up in another order, they get each other's addresses: the highest one gets the lowest. Pipelock's
    // is the outlet's.
    let network = bottle.names().internal_network();
    let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
    let address = |service: &Service| -> std::net::Ipv4Addr {
        let container = bottle.names().container(*service);
        docker(["inspect", "--format", &format, &container]).stdout.trim().parse().unwrap()
    };
    let mut others = services.iter().filter(|service| **service != Service::Pipelock).copied().collect::<Vec<_>>();
    others.sort_by_key(address);
    let before: Vec<_> = others.iter().map(address).collect();
    for service in services {
        docker(["stop", "--time", "2", &bottle.names().container(service)]);
    }
    for service in std::iter::once(&Service::Pipelock).chain(others.iter().rev()) {
        docker(["start", &bottle.names().container(*service)]);
    }
    for service in services {
        wait_for(&bottle, service, "is running, healthy");
    }
    assert_eq!(before == others.iter().map(address).collect::<Vec<_>>(), is_fixed, "{before:?}");
    assert_reached(&bottle, &services);
    lab.close(&bottle);
}
