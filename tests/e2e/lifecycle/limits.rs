//! The limits of a bottle as a whole.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bottle::exec::Event;
use bottle::{Bottle, Bottles};
use bottle_testing::lab::{Lab, docker, sh};

type Told = Arc<Mutex<Vec<(String, bool)>>>;

/// Returns the lab's options, and the limits that were reported, each with true if it was reached.
fn observed(lab: &Lab) -> (Bottles, Told) {
    let told: Told = Arc::default();
    let tell = Arc::clone(&told);
    let observer = move |event: &Event| {
        if let Event::Limit { limit, is_reached, .. } = event {
            tell.lock().unwrap().push((limit.clone(), *is_reached));
        }
    };
    (lab.options().with_observer(Arc::new(observer)), told)
}

fn status(bottle: &Bottle) -> String {
    docker(["inspect", "--format", "{{.State.Status}}", &bottle.names().project()]).stdout.trim().to_owned()
}

fn until(within: Duration, what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < within, "{what}: waited {within:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn event(limit: &str, is_reached: bool) -> (String, bool) {
    (limit.to_owned(), is_reached)
}

const CODE: &str = "curl -sS -m 10 -o /tmp/body -w '%{http_code} ' https://outside.test/";

#[test]
#[ignore = "needs a container engine"]
fn requests_and_bytes_beyond_their_budget_are_refused() {
    let lab = Lab::new("budget");
    let (options, told) = observed(&lab);
    let limits = "limits: {requests: 12, bytes: 4MiB}\negress: {allow: [outside.test], dlp: off}";
    let bottle = options.launch(lab.plan(limits, "")).unwrap();
    lab.outside.connect(&bottle.names().egress_network());
    let posture = options.posture(bottle.slug()).unwrap().to_string();
    assert!(posture.contains("may pass 12 requests through egress in all"), "{posture}");
    let codes = sh(&bottle, &format!("for i in $(seq 8); do {CODE}; done"));
    assert_eq!(codes.ok().trim(), "200 ".repeat(8).trim());
    // A restarted egress does not begin again.
    let egress = bottle.names().container(bottle::plan::Service::Egress);
    std::thread::sleep(Duration::from_millis(1100));
    sh(&bottle, CODE).ok();
    docker(["restart", &egress]);
    until(Duration::from_secs(20), "egress", || {
        docker(["inspect", "--format", "{{.State.Health.Status}}", &egress]).stdout.trim() == "healthy"
    });
    // The verification of the launch has taken one.
    let codes = sh(&bottle, &format!("for i in $(seq 4); do {CODE}; done; cat /tmp/body"));
    let (codes, body) = codes.ok().split_at(16);
    assert_eq!(codes, "200 200 403 403 ");
    assert!(body.contains("\"rule\": \"limit\"") && body.contains("the 12 requests that it may"), "{body}");
    until(Duration::from_secs(15), "the event", || told.lock().unwrap().contains(&event("requests", true)));
    assert_eq!(*told.lock().unwrap(), [event("requests", false), event("requests", true)]);
    lab.close(&bottle);
    let log = std::fs::read_to_string(lab.state().join("compose.log")).unwrap();
    assert!(log.contains("\"event\":\"limit-near\"") && log.contains("\"event\":\"limit-reached\""), "{log}");
}

#[test]
#[ignore = "needs a container engine"]
fn a_bottle_that_is_stopped_and_started_counts_on() {
    let lab = Lab::new("budget-stop");
    let limits = "limits: {requests: 6}\negress: {allow: [outside.test], dlp: off}";
    let bottle = lab.options().launch(lab.plan(limits, "")).unwrap();
    let asked = |times: u32| {
        lab.outside.connect(&bottle.names().egress_network());
        let codes = sh(&bottle, &format!("for i in $(seq {times}); do {CODE}; done")).ok().to_owned();
        lab.outside.disconnect(&bottle.names().egress_network());
        codes
    };
    // The verification of each start may take one as well.
    assert_eq!(asked(3).trim(), "200 200 200");
    bottle.stop().unwrap();
    bottle.start().unwrap();
    let codes = asked(4);
    assert!(codes.contains("403") && codes.matches("200").count() <= 3, "{codes}");
    bottle.stop().unwrap();
    bottle.start().unwrap();
    assert_eq!(asked(1).trim(), "403");
    assert!(bottle.close().unwrap().is_clean());
    lab.assert_nothing_left();
}

#[test]
#[ignore = "needs a container engine"]
fn an_answer_larger_than_the_budget_is_cut() {
    let lab = Lab::new("bytes");
    let (options, told) = observed(&lab);
    let bottle = options.launch(lab.plan("limits: {bytes: 4MiB}\negress: {allow: [outside.test]}", "")).unwrap();
    lab.outside.connect(&bottle.names().egress_network());
    let cut = sh(&bottle, "curl -sS -m 60 'https://outside.test/big?mb=64' | wc -c");
    let received: u64 = cut.stdout.trim().parse().unwrap();
    assert!(received <= 4 << 20, "{received} bytes");
    assert_eq!(sh(&bottle, CODE).ok().trim(), "403");
    until(Duration::from_secs(15), "the event", || told.lock().unwrap().contains(&event("bytes", true)));
    // One answer is larger than what is left, so both come at once.
    assert_eq!(*told.lock().unwrap(), [event("bytes", false), event("bytes", true)]);
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn an_idle_agent_is_paused_and_goes_on_when_it_is_let() {
    let lab = Lab::new("idle");
    let (options, told) = observed(&lab);
    let bottle = options.launch(lab.plan("limits: {idle: 12s}\negress: {allow: [outside.test]}", "")).unwrap();
    lab.outside.connect(&bottle.names().egress_network());
    // Requests keep it awake for longer than the limit.
    sh(&bottle, &format!("for i in $(seq 6); do {CODE}; sleep 3; done")).ok();
    assert_eq!((status(&bottle).as_str(), told.lock().unwrap().len()), ("running", 0));
    until(Duration::from_secs(25), "the pause", || status(&bottle) == "paused");
    until(Duration::from_secs(5), "the events", || told.lock().unwrap().len() == 2);
    assert_eq!(*told.lock().unwrap(), [event("idle", false), event("idle", true)]);
    // As the event says.
    lab.options().resume(bottle.slug()).unwrap();
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(status(&bottle), "running");
    sh(&bottle, CODE).ok();
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn a_paused_agent_is_ended_when_its_time_is_over() {
    let lab = Lab::new("paused-time");
    let (options, told) = observed(&lab);
    let bottle = options.launch(lab.plan("limits: {time: 15s}", "")).unwrap();
    bottle.pause().unwrap();
    until(Duration::from_secs(40), "the event", || told.lock().unwrap().contains(&event("time", true)));
    // When the event comes, it has happened.
    assert_eq!(status(&bottle), "exited");
    assert_eq!(*told.lock().unwrap(), [event("time", false), event("time", true)]);
    assert!(bottle.close().unwrap().is_clean());
    lab.assert_nothing_left();
}

#[test]
#[ignore = "needs a container engine"]
fn the_time_of_a_bottle_ends_without_its_launcher() {
    let lab = Lab::new("time");
    lab.launch_and_kill("limits: {time: 25s}", &[]);
    let agent = format!("claude-bottle-{}", lab.slug);
    let state = |format: &str| docker(["inspect", "--format", format, &agent]).stdout.trim().to_owned();
    until(Duration::from_secs(40), "the end", || state("{{.State.Status}}") == "exited");
    let ran = state("{{.State.StartedAt}} {{.State.FinishedAt}}");
    let seconds = |time: &str| {
        let parts: Vec<f64> = time[11..].trim_end_matches('Z').split(':').map(|part| part.parse().unwrap()).collect();
        parts[0] * 3600.0 + parts[1] * 60.0 + parts[2]
    };
    let (started, finished) = ran.split_once(' ').unwrap();
    let ran = (seconds(finished) - seconds(started)).rem_euclid(86400.0);
    assert!((24.9..28.0).contains(&ran), "it ran for {ran} s");
    assert!(lab.options().recover().unwrap().is_clean());
    lab.assert_nothing_left();
}
