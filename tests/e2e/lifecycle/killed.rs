//! Launchers that are killed at every point of a full launch and its teardown.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bottle::exec::Event;

use super::{Arc, FULL, Place, observed_engine, options, plan, residue};
use bottle_testing::lab::variable;

/// Variable with the arguments of a launcher.
const TOLD: &str = "LIFECYCLE_LAUNCHER";

/// Not a test: the launcher that the test starts. It kills itself at event number `stop`, or `after` milliseconds
/// later, during the announced work. Each event is first written to disk.
#[test]
#[ignore = "is started by another test of this file"]
#[expect(clippy::disallowed_methods, reason = "this is how the other test speaks to it")]
fn launcher() {
    let Ok(told) = std::env::var(TOLD) else { return };
    let told: Vec<&str> = told.split('|').collect();
    let (state, slug, stop, after) = (Path::new(told[0]), told[1], told[2].parse().ok(), told[3].parse().unwrap());
    let count = AtomicUsize::new(0);
    let log = Mutex::new(fs::File::create(state.with_extension(format!("events-{slug}"))).unwrap());
    let observer = Arc::new(move |event: &Event| {
        let event = serde_json::to_value(event).unwrap();
        if !is_counted(&readable(&event)) {
            return;
        }
        let number = count.fetch_add(1, Ordering::SeqCst);
        let mut line = event.to_string().into_bytes();
        line.push(b'\n');
        std::io::Write::write_all(&mut *log.lock().unwrap(), &line).unwrap();
        if Some(number) == stop {
            if after == 0 {
                die();
            }
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(after));
                die();
            });
        }
    });
    let options = options(observed_engine(observer.clone()), state).with_observer(observer);
    let bottle = options.launch(plan(FULL, slug)).unwrap();
    let report = bottle.close().unwrap_or_else(|error| error.report);
    assert!(report.is_clean(), "{report}");
}

fn die() {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
}

/// Starts a launcher and returns the signal that ended it.
fn launch(state: &Path, slug: &str, stop: Option<usize>, after: u64) -> Option<i32> {
    let stop = stop.map_or_else(|| "never".to_owned(), |stop| stop.to_string());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "lifecycle::killed::launcher"])
        .env(TOLD, format!("{}|{slug}|{stop}|{after}", state.display()))
        .env("TMPDIR", state.with_extension("tmp"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.signal().is_some() || status.success(), "the launcher failed by itself at {stop}");
            return status.signal();
        }
        assert!(Instant::now() < deadline, "the launcher does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the events that the launcher counted as readable lines, in order.
fn events(state: &Path, slug: &str) -> Vec<String> {
    let text = fs::read_to_string(state.with_extension(format!("events-{slug}"))).unwrap();
    text.lines().map(|line| readable(&serde_json::from_str(line).unwrap())).collect()
}

fn readable(event: &serde_json::Value) -> String {
    let kind = event["event"].as_str().unwrap_or_default();
    let what = ["undo", "name", "label", "message"].iter().find_map(|key| event[key].as_str());
    format!("{kind}: {}", what.unwrap_or_default())
}

/// Returns true for events at which a launcher is killed: every journal entry, command and step.
fn is_point(event: &str) -> bool {
    is_counted(event) && !event.starts_with("command_started: ")
}

/// Returns true for the events that each launch of a plan has in the same number. The others depend on time:
/// progress, output, and the queries of something that is waited for.
fn is_counted(event: &str) -> bool {
    ["recorded: ", "command_started: ", "command_finished: ", "step_finished: "].iter().any(|kind| event.starts_with(kind))
        // Queries change nothing. Being killed after one is the same as being killed before the next command.
        && !["docker version", "docker info", "docker context", "inspect", "compose version"].iter().any(|it| event.contains(it))
}

#[test]
#[ignore = "needs a container engine"]
fn a_launcher_killed_at_any_point_leaves_nothing_after_recovery() {
    // Fail early, instead of in each launcher.
    variable("BOTTLE_E2E_PIPELOCK");
    let place = Place::new();
    let (state, site) = (place.state(), place.site());
    let temporary = state.with_extension("tmp");
    fs::create_dir(&temporary).unwrap();
    // The first launch may build images. Later ones do not.
    assert_eq!(launch(&state, "first", None, 0), None);
    assert_eq!(launch(&state, "whole", None, 0), None);
    place.nothing_is_left("whole");
    let events = events(&state, "whole");
    let mut points: Vec<(usize, u64)> =
        (0..events.len()).filter(|&number| is_point(&events[number])).map(|number| (number, 0)).collect();
    // Also kill in the middle of long steps.
    for (number, event) in events.iter().enumerate() {
        if event == "command_started: create the services" {
            points.extend([100, 300, 600, 900, 1200, 2400].map(|after| (number, after)));
        } else if event.starts_with("command_started: make image") || event.starts_with("command_started: stop and") {
            points.push((number, 40));
        }
    }
    println!("| killed at | after ms | undone by recovery | recovery s | left |\n| --- | --- | --- | --- | --- |");
    for (turn, &(number, after)) in points.iter().enumerate() {
        let _alone = super::alone();
        let slug = format!("killed-{turn}");
        let event = &events[number];
        let signal = launch(&state, &slug, Some(number), after);
        // A launch that was faster than the delay, or made fewer events than the first, has completed.
        assert!(signal == Some(9) || after > 0 || self::events(&state, &slug).len() <= number, "{event}");
        let started = Instant::now();
        let report = site.recover().unwrap();
        let took = started.elapsed().as_secs_f64();
        assert!(report.is_clean(), "{event}: {report:?}");
        let undone = report.recovered.values().map(|report| report.steps.len()).sum::<usize>();
        let left = residue(&state, &slug);
        println!("| {} | {after} | {undone} | {took:.2} | {} |", event.replace(&slug, "…"), left.len());
        assert_eq!(left, Vec::<String>::new(), "{event}");
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "{event}: a temporary file is left");
        let again = site.recover().unwrap();
        assert!(again.is_clean() && again.recovered.is_empty(), "{event}: {again:?}");
    }
    println!("{} points", points.len());
}
