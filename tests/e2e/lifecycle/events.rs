//! One stream of everything that happens in a bottle.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bottle::exec::Event;
use bottle::sidecars::audit::AuditOutcome;
use bottle::{BottleEvent, EventData, EventKind, EventSource};
use bottle_testing::events;
use bottle_testing::lab::{Lab, sh};

#[test]
#[ignore = "needs a container engine"]
fn requests_limits_health_and_steps_are_one_stream_live_and_from_files() {
    let lab = Lab::new("events");
    let bottles = lab.options();
    let limits = "limits: {requests: 2}\negress: {routes: [{host: outside.test, paths: [/echo]}]}";
    let bottle = bottles.launch(lab.plan(limits, "")).unwrap();
    lab.outside.connect(&bottle.names().egress_network());

    let live: Arc<Mutex<Vec<BottleEvent>>> = Arc::default();
    let (seen, slug) = (Arc::clone(&live), bottle.slug().clone());
    let following = {
        let bottles = lab.options();
        std::thread::spawn(move || bottles.events(&slug, true, move |event| seen.lock().unwrap().push(event)))
    };
    let wait = |what: &str, is_it: &dyn Fn(&BottleEvent) -> bool| {
        let until = Instant::now() + Duration::from_secs(20);
        while !live.lock().unwrap().iter().any(is_it) {
            assert!(Instant::now() < until, "{what}: {:?}", live.lock().unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    for (path, outcome) in [
        ("/echo", AuditOutcome::Done),
        ("/other", AuditOutcome::Refused),
        ("/echo", AuditOutcome::Done),
        ("/echo", AuditOutcome::Refused),
    ] {
        sh(&bottle, &format!("curl -s -m 10 https://outside.test{path} > /dev/null; true")).ok();
        wait(path, &|event| match &event.data {
            EventData::Request(request) => (request.path.as_deref(), request.outcome) == (Some(path), outcome),
            _ => false,
        });
    }
    wait("the limit", &|event| matches!(&event.data, EventData::Limit(limit) if limit.is_reached));
    wait("the launch", &|event| match &event.data {
        EventData::Step(it) => matches!(&it.event, Event::StepFinished { step, .. } if step == "start the services"),
        _ => false,
    });
    lab.close(&bottle);
    following.join().unwrap().unwrap();

    // The same from the files, sorted, and by every kind.
    let all: Arc<Mutex<Vec<BottleEvent>>> = Arc::default();
    let add = Arc::clone(&all);
    bottles.events(bottle.slug(), false, move |event| add.lock().unwrap().push(event)).unwrap();
    let all = all.lock().unwrap();
    assert!(all.windows(2).all(|pair| pair[0].time <= pair[1].time), "{all:?}");
    let kinds: BTreeSet<EventKind> = all.iter().map(BottleEvent::kind).collect();
    for kind in [EventKind::Request, EventKind::Tunnel, EventKind::Limit, EventKind::Step, EventKind::Sidecar] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    // Teardown is in the file too, and every live event of a sidecar.
    let is_teardown = |event: &BottleEvent| match &event.data {
        EventData::Step(it) => match &it.event {
            Event::StepStarted { step } => step.contains("remove") || step.contains("take down"),
            _ => false,
        },
        _ => false,
    };
    assert!(all.iter().any(is_teardown), "{all:?}");
    // The follower had all of it, to the end.
    let live = live.lock().unwrap();
    let of_launcher = |events: &[BottleEvent]| {
        events.iter().filter(|event| event.source == EventSource::Launcher).cloned().collect::<Vec<_>>()
    };
    assert_eq!(of_launcher(&live), of_launcher(&all));
    // Egress counts the requests. The launcher, which reports the same to its observers, is not heard a second time.
    let limits = all.iter().filter_map(|event| match &event.data {
        EventData::Limit(limit) => Some((event.source, limit.used, limit.is_reached)),
        _ => None,
    });
    assert_eq!(limits.collect::<Vec<_>>(), [(EventSource::Egress, 1, false), (EventSource::Egress, 2, true)]);
    let sidecars = |events: &[BottleEvent]| events.iter().filter(|event| event.source == EventSource::Egress).count();
    assert!(sidecars(&all) >= sidecars(&live));

    // Every event, and every line of the launcher's file, fits the committed schema.
    for event in all.iter() {
        assert!(events::is_valid(&serde_json::to_value(event).unwrap()), "{event:?}");
    }
    let file = std::fs::read_to_string(bottles.state_root().bottle(bottle.slug()).events()).unwrap();
    assert!(file.lines().count() > 30, "{file}");
    for line in file.lines() {
        assert!(events::is_valid(&serde_json::from_str(line).unwrap()), "{line}");
    }
}
