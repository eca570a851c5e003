//! Progress of a launch, on an engine that runs nothing.
#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bottle::exec::{Answer, Control, Event, Matcher, rehearsal};
use bottle::plan::{HostFacts, StateRoot, UserIds};
use bottle::{BottlePlan, Bottles, Engine, EngineChoice, Host, Manifest, Verify};
use bottle_files::FileLock;

type Seen = Arc<Mutex<Vec<(String, Option<u32>, Option<u32>, String)>>>;

/// Returns an entry point and a plan, and the progress that is reported.
fn site(dir: &std::path::Path) -> (Bottles, BottlePlan, Seen) {
    let user = UserIds { uid: 1000, gid: 1000 };
    let facts = HostFacts { home: "/home/me".into(), cwd: dir.to_owned(), user };
    let built = Answer::stdout("#5 [stage-1 2/4] RUN apt-get update\n");
    let backend = Arc::new(rehearsal().with_answer(Matcher::prefix(["build"]), built));
    let engine = Engine::detect(backend, &EngineChoice::Auto, Control::default()).unwrap();
    let seen = Seen::default();
    let told = Arc::clone(&seen);
    let observer = move |event: &Event| {
        if let Event::Progress { step, done, total, line } = event {
            told.lock().unwrap().push((step.clone(), *done, *total, line.clone()));
        }
    };
    let bottles = Bottles::new(engine, Host::new(facts, []))
        .with_state_root(StateRoot::at(dir.join("state")))
        .with_verification(Verify::Off)
        .with_observer(Arc::new(observer));
    let text = "{bottles: {dev: {workspace: {mode: none}}}, agents: {demo: {bottle: dev, command: [id]}}}";
    let plan = Manifest::parse(text).unwrap().plan(&bottles).unwrap();
    (bottles, plan, seen)
}

#[test]
fn a_build_reports_its_steps() {
    let dir = tempfile::tempdir().unwrap();
    let (bottles, plan, seen) = site(dir.path());
    bottles.launch(plan).unwrap().close().unwrap();
    let seen = seen.lock().unwrap();
    let (step, done, total, line) = seen.first().expect("a build reports its progress");
    assert!(step.starts_with("build image claude-bottle-"), "{step}");
    assert_eq!((*done, *total, line.as_str()), (Some(2), Some(4), "#5 [stage-1 2/4] RUN apt-get update"));
}

#[test]
fn a_launch_says_that_it_waits_for_another_that_builds_the_same_image() {
    let dir = tempfile::tempdir().unwrap();
    let (bottles, plan, seen) = site(dir.path());
    bottles.launch(plan.clone()).unwrap().close().unwrap();
    let images = std::fs::read_dir(dir.path().join("state/images/agent")).unwrap();
    let locks: Vec<PathBuf> = images.map(|entry| entry.unwrap().path()).collect();
    let is_lock = |path: &&PathBuf| path.extension() == Some(OsStr::new("lock"));
    let held = FileLock::wait(locks.iter().find(is_lock).unwrap_or_else(|| panic!("{locks:?}"))).unwrap();
    let waits =
        || seen.lock().unwrap().iter().filter(|(.., line)| line.starts_with("waits for another launch")).count();
    std::thread::scope(|scope| {
        let launched = scope.spawn(|| bottles.launch(plan.clone()).unwrap().close().unwrap());
        let until = Instant::now() + Duration::from_secs(20);
        while waits() < 2 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        let seen_waiting = waits();
        drop(held);
        launched.join().unwrap();
        assert!(seen_waiting >= 2, "{:?}", seen.lock().unwrap());
    });
    let waiting = seen.lock().unwrap();
    let (step, ..) = waiting.iter().find(|(.., line)| line.starts_with("waits")).unwrap();
    assert!(step.starts_with("build image claude-bottle-agent"), "{step}");
}
