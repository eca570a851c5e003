//! Bottles that are stopped, paused and started again.

use std::io::{BufRead as _, BufReader};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bottle::exec::Event;
use bottle::exec::engine::Exec;
use bottle::lifecycle::{Activity, Status};
use bottle::plan::Service;
use bottle::{Bottle, Bottles, Host, ServiceHealth, Verify};

use super::handle::tool;
use super::{FULL, Place, SMALL, plan};
use bottle_testing::lab::{Lab, docker, host, run, sh};

/// Tries to reach the outside host past the sidecars. Prints `blocked`, or `through`.
fn attack(address: &str) -> String {
    format!(
        "python3 - <<'END'\nimport socket\ntry:\n  socket.create_connection(('{address}', 80), timeout=3)\n  print('through')\nexcept OSError:\n  print('blocked')\nEND"
    )
}

fn activity(site: &Bottles, bottle: &Bottle) -> Option<Activity> {
    site.list().unwrap()[bottle.slug()].activity
}

fn all_up(bottle: &Bottle) {
    let health = bottle.health().unwrap();
    assert!(health.iter().all(ServiceHealth::is_up), "{health:#?}");
}

#[test]
#[ignore = "needs a container engine"]
fn a_stopped_bottle_starts_with_its_files_its_seal_and_its_credentials() {
    let lab = Lab::new("stopped");
    let host = host();
    let token = ("POWER_TOKEN".into(), "power-token-value".into());
    let host = Host::new(host.facts.clone(), host.environment().chain([token]).collect::<Vec<_>>());
    let route = "egress: {allow: [outside.test], routes: [{host: api.outside.test, inject: {token: POWER_TOKEN}}]}";
    let bottle = lab.options().with_host(host).launch(lab.plan(route, "")).unwrap();
    lab.outside.connect(&bottle.names().egress_network());
    let address = lab.outside.address(&bottle.names().egress_network());
    sh(&bottle, "echo kept > /workspace/kept; echo kept > ~/kept").ok();
    lab.outside.disconnect(&bottle.names().egress_network());
    bottle.stop().unwrap();
    let site = lab.options();
    assert_eq!(activity(&site, &bottle), Some(Activity::Stopped));
    assert_eq!(docker(["ps", "--quiet", "--filter", &format!("label=claude-bottle.slug={}", lab.slug)]).stdout, "");
    let error = bottle.exec(Exec::new(["true"])).unwrap_err().to_string();
    assert!(error.contains("exited"), "{error}");
    // Without its seal the agent's container cannot be started by anyone. Podman would start the seal as well.
    if !site.engine().is_podman() {
        let agent = bottle.names().container(Service::Agent);
        let by_hand = run(std::process::Command::new("docker").args(["start", &agent]));
        assert!(by_hand.code != 0 && by_hand.stderr.contains("non running container"), "{}", by_hand.stderr);
    }

    let began = Instant::now();
    bottle.start().unwrap();
    println!("started again in {:.2} s", began.elapsed().as_secs_f64());
    all_up(&bottle);
    assert_eq!(activity(&site, &bottle), Some(Activity::Running));
    assert_eq!(sh(&bottle, "cat /workspace/kept ~/kept").ok(), "kept\nkept");
    lab.outside.connect(&bottle.names().egress_network());
    assert_eq!(sh(&bottle, &attack(&address)).stdout, "blocked\n");
    let found = bottle.verify(Verify::Full).unwrap();
    assert!(found.into_result().is_ok());
    let credential = docker(["exec", &bottle.names().container(Service::Egress), "ls", "/run/credentials"]).stdout;
    assert_eq!(credential.lines().count(), 1, "{credential}");
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn a_bottle_whose_authorities_have_expired_says_so() {
    let lab = Lab::new("expired");
    let bottle = lab.launch("egress: {allow: [outside.test]}", "");
    bottle.stop().unwrap();
    // The shortest lifetime is ten minutes, so the journal is told that they have passed.
    let path = lab.state().join("metadata.json");
    let mut journal: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let end = journal.pointer_mut("/handle/restart/valid_until/secs_since_epoch").unwrap();
    *end = (end.as_u64().unwrap() - 8 * 86_400).into();
    std::fs::write(&path, journal.to_string()).unwrap();
    let error = lab.options().start(bottle.slug()).unwrap_err().to_string();
    assert!(error.contains("its certificate authorities have expired"), "{error}");
    assert_eq!(activity(&lab.options(), &bottle), Some(Activity::Stopped));
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn a_home_that_the_agent_has_closed_does_not_prevent_a_start() {
    let place = Place::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let events = Arc::clone(&seen);
    let site = place.site().with_observer(Arc::new(move |event: &Event| {
        if let Event::Warning { message } = event {
            events.lock().unwrap().push(message.clone());
        }
    }));
    let bottle = site.launch(plan(SMALL, "closed-home")).unwrap();
    seen.lock().unwrap().clear();
    for mode in ["500", "000"] {
        sh(&bottle, &format!("chmod {mode} ~")).ok();
        bottle.stop().unwrap();
        let again = site.start(bottle.slug()).unwrap();
        all_up(&again);
        assert!(again.verify(Verify::Quick).unwrap().into_result().is_ok());
    }
    assert_eq!(*seen.lock().unwrap(), Vec::<String>::new());
    bottle.close().unwrap();
    place.nothing_is_left("closed-home");
}

#[test]
#[ignore = "needs a container engine"]
fn a_paused_agent_resumes_and_its_bottle_can_be_stopped_and_closed() {
    let place = Place::new();
    let site = place.site();
    let bottle = site.launch(plan(SMALL, "paused")).unwrap();
    let mut running = bottle.spawn(Exec::new(["sh", "-c", "echo runs; sleep 1"]), None).unwrap();
    let mut line = String::new();
    BufReader::new(running.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "runs\n");
    let mut abandoned =
        bottle.spawn(Exec::new(["sh", "-c", "setsid sleep 4714 & echo runs; sleep 4714"]), None).unwrap();
    line.clear();
    BufReader::new(abandoned.stdout.take().unwrap()).read_line(&mut line).unwrap();
    bottle.pause().unwrap();
    assert_eq!(activity(&site, &bottle), Some(Activity::Paused));
    assert!(run(tool(&place).arg("list")).ok().contains(" paused "));
    let error = bottle.exec(Exec::new(["true"])).unwrap_err().to_string();
    assert!(error.contains("paused"), "{error}");
    let error = bottle.start().unwrap_err().to_string();
    assert!(error.contains("accepted: `resume`"), "{error}");
    drop(abandoned);
    std::thread::sleep(Duration::from_secs(2));
    // Another handle resumes it, as another process would.
    site.resume(bottle.slug()).unwrap();
    let left = docker(["top", &bottle.names().project(), "-eo", "pid,args"]).stdout;
    assert!(!left.contains("sleep 4714"), "what was dropped in the pause runs on: {left}");
    let status = running.wait().unwrap();
    assert!(status.is_success(), "{status}");
    bottle.pause().unwrap();
    bottle.stop().unwrap();
    assert_eq!(activity(&site, &bottle), Some(Activity::Stopped));
    bottle.start().unwrap();
    all_up(&bottle);
    bottle.pause().unwrap();
    bottle.close().unwrap();
    place.nothing_is_left("paused");
}

#[test]
#[ignore = "needs a container engine"]
fn another_process_stops_and_starts_a_kept_bottle_and_closes_a_stopped_one() {
    let place = Place::new();
    let site = place.site();
    site.launch(plan(FULL, "kept-stop")).unwrap().keep().unwrap();
    let with_token = |verb: &str| {
        let mut command = tool(&place);
        command.env("LIFECYCLE_TOKEN", "lifecycle-secret-value").args([verb, "kept-stop"]);
        run(&mut command).ok().to_owned()
    };
    with_token("stop");
    assert!(run(tool(&place).arg("list")).ok().contains(" stopped "));
    let report = site.recover().unwrap();
    assert!(report.recovered.is_empty() && report.is_clean(), "{report:?}");
    let mut without = tool(&place);
    let refused = run(without.env_remove("LIFECYCLE_TOKEN").args(["start", "kept-stop"]));
    assert!(refused.code != 0 && refused.stderr.contains("LIFECYCLE_TOKEN"), "{}", refused.stderr);
    with_token("start");
    let bottle = site.attach(&"kept-stop".parse().unwrap()).unwrap();
    all_up(&bottle);
    // As the end of the machine leaves it: everything ended at once, the sidecars come back and the agent does not.
    let containers = [Service::Agent, Service::Seal].map(|service| bottle.names().container(service));
    docker(["kill", &containers[0], &containers[1]]);
    docker(["start", &containers[1]]);
    bottle.start().unwrap();
    all_up(&bottle);
    assert!(bottle.verify(Verify::Full).unwrap().into_result().is_ok());
    bottle.stop().unwrap();
    bottle.close().unwrap();
    place.nothing_is_left("kept-stop");
}

#[test]
#[ignore = "needs a container engine"]
fn a_launcher_killed_while_its_bottle_is_stopped_leaves_nothing_after_recovery() {
    let _alone = super::alone();
    let lab = Lab::new("dead-stop");
    lab.launch_and_kill("workspace: {mode: none}", &[]);
    let site = lab.options();
    let slug = lab.slug.parse().unwrap();
    site.stop(&slug).unwrap();
    assert_eq!(site.list().unwrap()[&slug].status, Some(Status::Ready));
    let report = site.recover().unwrap();
    assert!(report.is_clean() && report.recovered.contains_key(&slug), "{report:?}");
    lab.assert_nothing_left();
}

#[test]
#[ignore = "needs a container engine"]
fn a_bottle_whose_launcher_is_gone_is_kept_once_it_is_started_again() {
    let _alone = super::alone();
    let lab = Lab::new("adopted");
    lab.launch_and_kill("workspace: {mode: none}", &[]);
    let site = lab.options();
    let slug = lab.slug.parse().unwrap();
    site.stop(&slug).unwrap();
    let bottle = site.start(&slug).unwrap();
    let report = site.recover().unwrap();
    assert!(report.kept.contains(&slug), "{report:?}");
    assert_eq!(sh(&bottle, "id -un").stdout, "agent\n");
    bottle.close().unwrap();
    lab.assert_nothing_left();
}
