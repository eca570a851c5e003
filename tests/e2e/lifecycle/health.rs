//! Sidecars that die while a bottle is up: their state in lists, and the events for an observer.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bottle::exec::Event;
use bottle::plan::Service;
use bottle::{Bottle, ServiceHealth};

use super::handle::{slug, tool};
use super::{FULL, Place, options, plan};
use bottle_testing::lab::{Lab, docker, engine, example, run, sh};

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
    assert!(health.len() == 6 && health.iter().all(ServiceHealth::is_up), "{health:#?}");
    assert!(run(tool(&place).arg("list")).ok().contains("6 of 6 up"));

    let until = Instant::now() + Duration::from_secs(150);
    let (over, events) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let observer = |event: &Event| events.lock().unwrap().push(event.clone());
            bottle
                .watch_health(&observer, Duration::from_millis(100), || {
                    over.load(Ordering::SeqCst) || Instant::now() > until
                })
                .unwrap();
        });
        docker(["kill", &container(Service::Egress)]);
        let egress = wait_for(&bottle, Service::Egress, "exited with status 137");
        assert_eq!((egress.exit_code, egress.oom_killed, egress.is_up()), (Some(137), false, false));
        // A service that the engine restarts when its main process dies.
        docker(["update", "--restart", "on-failure", &container(Service::GitGate)]);
        run(Command::new("docker").args(["exec", &container(Service::GitGate), "sh", "-c", "kill -KILL -1"]));
        wait_for(&bottle, Service::GitGate, "is running, healthy, restarted once");
        docker(["rm", "--force", &container(Service::Supervise)]);
        wait_for(&bottle, Service::Supervise, "was removed");
        std::thread::sleep(Duration::from_millis(600));
        over.store(true, Ordering::SeqCst);
        watch.join().unwrap();
    });
    let events = events.into_inner().unwrap();
    for (service, is_up, state) in [
        ("egress", false, "exited with status 137"),
        ("git-gate", true, "is running, healthy, restarted once"),
        ("supervise", false, "was removed"),
    ] {
        let told = Event::ServiceChanged { service: service.into(), is_up, state: state.into() };
        assert_eq!(events.iter().filter(|event| **event == told).count(), 1, "{service}: {events:#?}");
    }
    let listed = place.site().list().unwrap();
    let dead: Vec<&str> =
        listed[&slug("health")].services.iter().filter(|it| !it.is_up()).map(|it| it.service.as_str()).collect();
    assert_eq!(dead, ["egress", "supervise"]);
    let shown = run(tool(&place).arg("list"));
    for line in [
        "4 of 6 up",
        "egress exited with status 137",
        "git-gate is running, healthy, restarted once",
        "supervise was removed",
    ] {
        assert!(shown.ok().contains(line), "{line}\n{}", shown.stdout);
    }
    println!("{}", shown.stdout);
    assert!(run(tool(&place).args(["list", "--json"])).ok().contains("\"status\": \"missing\""));
    bottle.close().unwrap();
    place.nothing_is_left("health");
}

#[test]
#[ignore = "needs a container engine"]
fn a_sidecar_that_ran_out_of_memory_is_listed_with_that_reason() {
    let lab = Lab::new("oom");
    let bottle = lab.launch("egress: {allow: [{host: outside.test, inspect: content}]}", "");
    let pipelock = bottle.names().container(Service::Pipelock);
    assert!(sh(&bottle, "curl -fsS https://outside.test/echo").ok().contains("GET"));
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
    let listed = run(example("bottles").arg("--state-dir").arg(lab.state_root().path()).arg("list"));
    assert!(listed.ok().contains("pipelock exited with status 137 (killed: out of memory)"), "{listed:?}");
    println!("{}", listed.stdout);
    lab.close(&bottle);
}
