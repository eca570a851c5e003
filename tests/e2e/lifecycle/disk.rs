//! The limit on the agent's files.

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bottle::exec::Event;
use bottle::{Bottle, Bottles};

use bottle_testing::lab::{Lab, docker, figure, sh};

const EGRESS: &str = "egress: {allow: [outside.test]}";
const WRITES: &str = "head -c 200M /dev/zero > /tmp/filled";

/// Returns the lab's options, and the events about the agent.
fn observed(lab: &Lab) -> (Bottles, Arc<Mutex<Vec<Event>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let observer = move |event: &Event| {
        if matches!(event, Event::ServiceChanged { .. }) {
            seen.lock().unwrap().push(event.clone());
        }
    };
    (lab.options().with_observer(Arc::new(observer)), events)
}

#[test]
#[ignore = "needs a container engine"]
fn an_agent_that_writes_more_than_its_limit_is_stopped_within_seconds() {
    let lab = Lab::new("disk");
    let (options, events) = observed(&lab);
    let bottle = options.launch(lab.plan("limits: {agent: {disk: 64MiB}}", "")).unwrap();
    let posture = options.posture(bottle.slug()).unwrap();
    let agent = bottle.names().project();
    let quota = "{{index .HostConfig.StorageOpt \"size\"}}";
    if posture.disk_is_watched == Some(false) {
        assert_eq!(docker(["inspect", "--format", quota, &agent]).stdout.trim(), (64 << 20).to_string());
        assert!(posture.to_string().contains("files of 64MiB: the engine limits it"), "{posture}");
        let full = sh(&bottle, WRITES);
        assert!(full.code != 0 && full.stderr.contains("No space left"), "{full:?}");
        return close(&lab, &bottle);
    }
    assert!(posture.to_string().contains("files of 64MiB: beyond that the launching process pauses it"), "{posture}");
    sh(&bottle, "head -c 32M /dev/zero > /tmp/fits").ok();
    let status = || docker(["inspect", "--format", "{{.State.Status}}", &agent]).stdout.trim().to_owned();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((status().as_str(), events.lock().unwrap().len()), ("running", 0));

    let began = Instant::now();
    docker(["exec", "--detach", "--user", "agent", &agent, "sh", "-c", WRITES]);
    while events.lock().unwrap().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(10), "the agent is not paused");
        std::thread::sleep(Duration::from_millis(20));
    }
    figure(format_args!("paused {:?} after the beginning of the write", began.elapsed()));
    assert_eq!(status(), "paused");
    let told = format!("{:?}", events.lock().unwrap()[0]);
    assert!(told.contains("was paused: its files take") && told.contains("64 MiB of `limits.agent.disk`"), "{told}");
    assert!(told.contains(&format!("`bottles resume {}`", lab.slug)), "{told}");
    close(&lab, &bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn a_volume_of_the_image_is_in_memory_and_takes_no_disk() {
    let lab = Lab::new("disk-volume");
    let image = |path: &str| {
        let tag = format!("bottle-e2e/volume:{}{}", lab.slug, path.replace('/', "-"));
        let base = lab.plan(EGRESS, "").images.base;
        let mut build = std::process::Command::new("docker");
        build.args(["build", "--quiet", "--tag", &tag, "-"]).stdin(std::process::Stdio::piped());
        build.stdout(std::process::Stdio::null());
        let mut build = build.spawn().unwrap();
        build.stdin.take().unwrap().write_all(format!("FROM {base}\nVOLUME {path}\n").as_bytes()).unwrap();
        assert!(build.wait().unwrap().success());
        tag
    };
    let (data, home) = (image("/data"), image("/home"));
    let plan = |base: &str| {
        let images = format!("    images:\n      base: '{base}'\n");
        lab.plan_of(&lab.manifest(EGRESS, "").replace("    images:\n", &images))
    };
    let bottle = lab.options().launch(plan(&data)).unwrap();
    let found = sh(&bottle, "stat -f -c %T /data; head -c 2000M /dev/zero > /data/x; stat -c %s /data/x");
    assert_eq!(found.stdout, "tmpfs\n1073741824\n", "{found:?}");
    let anonymous = docker(["inspect", "--format", "{{json .Mounts}}", &bottle.names().project()]).stdout;
    assert!(!anonymous.contains("\"volume\""), "{anonymous}");
    assert!(bottle.verify(bottle::Verify::Full).unwrap().holds());
    close(&lab, &bottle);
    let refused = lab.options().launch(plan(&home)).unwrap_err();
    let refused = bottle::report(&refused).to_string();
    assert!(refused.contains("declares the volume `/home`, whose files no limit counts"), "{refused}");
    lab.assert_nothing_left();
    docker(["rmi", &data, &home]);
}

#[test]
#[ignore = "needs a container engine"]
fn an_agent_below_its_limit_keeps_running() {
    let lab = Lab::new("disk-free");
    let (options, events) = observed(&lab);
    let bottle = options.launch(lab.plan("limits: {agent: {disk: 1GiB}}", "")).unwrap();
    sh(&bottle, &format!("{WRITES}; sleep 4; test -s /tmp/filled")).ok();
    assert!(events.lock().unwrap().is_empty(), "{:?}", events.lock().unwrap());
    close(&lab, &bottle);
}

fn close(lab: &Lab, bottle: &Bottle) {
    let report = bottle.close().unwrap_or_else(|error| error.report);
    assert!(report.is_clean(), "{report}");
    lab.assert_nothing_left();
}
