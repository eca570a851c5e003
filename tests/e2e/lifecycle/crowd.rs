//! Eight simultaneous bottles, each from a process of its own. `outside.rs` has eight from one.

use std::process::{Command, Stdio};
use std::time::Instant;

use bottle::exec::engine::Exec;

use super::{Place, SMALL, options, plan};
use bottle_testing::lab::engine;

const COUNT: usize = 8;
/// Variable with the state directory and the slug of a launcher.
const TOLD: &str = "LIFECYCLE_CROWD";

/// Launches a bottle, checks its identity, and closes it.
fn live(place: &std::path::Path, slug: &str) {
    let bottle = options(engine(), place).launch(plan(SMALL, slug)).unwrap_or_else(|error| panic!("{error}"));
    let script = format!(
        "echo {slug} > ~/name; sleep 1; cat ~/name; getent hosts bottle-life-pipelock-{slug} >/dev/null && echo named"
    );
    let output = bottle.exec(Exec::new(["sh", "-c", &script])).unwrap();
    assert_eq!(output.stdout.text(), format!("{slug}\nnamed\n"));
    let report = bottle.close().unwrap_or_else(|error| error.report);
    assert!(report.is_clean(), "{report}");
}

/// Not a test: one of eight processes.
#[test]
#[ignore = "is started by another test of this file"]
#[expect(clippy::disallowed_methods, reason = "this is how the other test speaks to it")]
fn one_of_many() {
    let Ok(told) = std::env::var(TOLD) else { return };
    let (state, slug) = told.split_once('|').unwrap();
    live(std::path::Path::new(state), slug);
}

#[test]
#[ignore = "needs a container engine"]
fn eight_processes_run_a_bottle_each_at_once() {
    let place = Place::new();
    let state = place.state();
    for round in 0..2 {
        let slugs: Vec<String> = (0..COUNT).map(|number| format!("crowd-{round}-{number}")).collect();
        let started = Instant::now();
        let children = slugs.iter().map(|slug| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "lifecycle::crowd::one_of_many"])
                .env(TOLD, format!("{}|{slug}", state.display()))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        });
        let outputs: Vec<_> =
            children.collect::<Vec<_>>().into_iter().map(|it| it.wait_with_output().unwrap()).collect();
        println!("round {round}: {COUNT} processes: {:.1} s", started.elapsed().as_secs_f64());
        for output in outputs {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
        for slug in &slugs {
            place.nothing_is_left(slug);
        }
    }
}
