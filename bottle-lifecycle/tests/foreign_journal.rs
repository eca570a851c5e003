//! A changed journal: whatever it names, no command and no file is about anything but the bottle.

#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bottle_engine::{Engine, EngineChoice, ObjectKind, rehearsal};
use bottle_exec::{Answer, Control, Matcher, RecordingBackend};
use bottle_lifecycle::{Bottle, Journal, JournalFile, Owner, Scope, Status, TeardownOptions, Undo, recover, root_id};
use bottle_plan::{Names, Prefix, Service, StateRoot};
use proptest::prelude::*;
use serde_json::{Value, json};

const FOREIGN: [&str; 7] = [
    "foreign",
    "claude-bottle-foreign",
    "claude-bottle-net-foreign",
    "claude-bottle-workspace:foreign",
    "../foreign",
    "OUTSIDE/foreign",
    "demo/../../foreign",
];

fn names() -> Names {
    Names::new(Prefix::default(), "demo".parse().unwrap())
}

/// Returns the journal of a bottle that is up, with all that a launch records.
fn journal(root: &StateRoot) -> Value {
    let (names, layout) = (names(), root.bottle(names().slug()));
    let scope = Scope::here().map(|here| Scope { boot: "00000000".into(), ..here });
    let owner = Owner { pid: u32::MAX >> 2, start_time: Some(1), scope };
    let file = JournalFile::create(&layout, Journal::new(&names, "dev".parse().unwrap(), owner, "docker")).unwrap();
    let (project, compose_file, project_dir) = (names.project(), layout.compose_file(), layout.dir().to_owned());
    let (down, log) = ((project.clone(), compose_file.clone(), project_dir.clone()), layout.compose_log());
    let undo = vec![
        Undo::RemoveFiles { paths: Undo::key_dirs() },
        Undo::RemoveImage { tag: names.derived_image() },
        Undo::RemoveContainer { name: format!("{}.workspace", names.project()) },
        Undo::RemoveNetwork { name: names.internal_network() },
        Undo::RemoveVolume { name: format!("{}_data", names.project()) },
        Undo::ComposeDown { project: down.0, compose_file: down.1, project_dir: down.2 },
        Undo::DumpLogs { project, compose_file, project_dir, log },
    ];
    file.change(|journal| (journal.status, journal.undo) = (Status::Ready, undo)).unwrap();
    fs::write(layout.compose_file(), "services: {}\n").unwrap();
    let mut journal: Value = serde_json::from_str(&fs::read_to_string(layout.metadata()).unwrap()).unwrap();
    let container = names.container(Service::Agent);
    journal["handle"] = json!({"container": container, "user": null, "workdir": null, "agent": [], "copy": "engine"});
    journal
}

/// Returns the place of every text in a value that is not the kind of an undo.
fn texts(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::String(_) if !at.ends_with("/kind") => found.push(at.to_owned()),
        Value::Array(all) => all.iter().enumerate().for_each(|(key, it)| texts(it, &format!("{at}/{key}"), found)),
        Value::Object(all) => all.iter().for_each(|(key, it)| texts(it, &format!("{at}/{key}"), found)),
        _ => {}
    }
}

/// Writes a journal with other texts, uses and removes its bottle, and asserts that nothing foreign was touched.
fn check(changes: &[(usize, usize)]) {
    let directory = tempfile::tempdir().unwrap();
    let base = fs::canonicalize(directory.path()).unwrap();
    let outside = base.join("outside");
    for place in [&outside, &base.join("state")] {
        fs::create_dir_all(place.join("foreign")).unwrap();
        fs::write(place.join("foreign/docker-compose.yml"), "services: {}\n").unwrap();
    }
    let root = StateRoot::at(base.join("state"));
    let (mut journal, mut places) = (journal(&root), Vec::new());
    texts(&journal, "", &mut places);
    let mut what = Vec::new();
    for (place, value) in changes {
        let (place, value) = (&places[place % places.len()], FOREIGN[value % FOREIGN.len()]);
        let value = value.replace("OUTSIDE", outside.to_str().unwrap());
        what.push(format!("{place} = {value}"));
        *journal.pointer_mut(place).unwrap() = value.into();
    }
    fs::write(root.bottle(names().slug()).metadata(), journal.to_string()).unwrap();
    let info = Engine::detect(Arc::new(rehearsal()), &EngineChoice::Auto, Control::default()).unwrap();
    let backend = Arc::new(RecordingBackend::new());
    let engine = info.with_backend(backend.clone());
    let options = TeardownOptions::default();
    if let Ok(bottle) = Bottle::attach(engine.clone(), &root, names(), options.clone()) {
        let _failed = bottle.exec(["id"]);
    }
    let _report = recover(&engine, &root, &Prefix::default(), &options).unwrap();
    let _report = Bottle::down(&engine, &root, &names(), &options);
    let foreign: Vec<String> = backend.lines().into_iter().filter(|line| line.contains("foreign")).collect();
    let what = what.join("; ");
    assert_eq!(foreign, [""; 0], "{what}");
    let names_in = |path: &Path| fs::read_dir(path).unwrap().count();
    for place in [&outside, root.path()] {
        assert!(place.join("foreign/docker-compose.yml").exists(), "{what}");
        assert_eq!(names_in(&place.join("foreign")), 1, "{what}");
    }
    assert_eq!((names_in(&outside), names_in(root.path()), names_in(&base)), (1, 2, 2), "{what}");
}

#[test]
fn no_single_text_of_a_journal_leads_to_anything_foreign() {
    let directory = tempfile::tempdir().unwrap();
    let mut places = Vec::new();
    texts(&journal(&StateRoot::at(directory.path())), "", &mut places);
    assert!(places.len() > 20, "{places:?}");
    for place in 0..places.len() {
        (0..FOREIGN.len()).for_each(|value| check(&[(place, value)]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_journal_leads_to_anything_foreign(changes in prop::collection::vec((0usize..64, 0usize..7), 1..8)) {
        check(&changes);
    }
}

/// Removes a bottle whose objects have the labels of this slug and state root. Returns what was removed, and whether
/// everything was.
fn removed(slug: &str, state_root: &str) -> (Vec<String>, bool) {
    let directory = tempfile::tempdir().unwrap();
    let base = fs::canonicalize(directory.path()).unwrap();
    let root = StateRoot::at(base.join("state"));
    let labels =
        json!({"claude-bottle.slug": slug, "claude-bottle.state": root_id(&StateRoot::at(base.join(state_root)))});
    fs::write(root.bottle(names().slug()).metadata(), journal(&root).to_string()).unwrap();
    let named = |kind: ObjectKind, name: &str| {
        let object =
            json!([{"Id": name, "Name": name, "RepoTags": [name], "Labels": labels, "Config": {"Labels": labels}}]);
        (Matcher::prefix([kind.as_str(), "inspect", name]), Answer::stdout(object.to_string()))
    };
    let project = names().project();
    let container = names().container(Service::Agent);
    let mut backend = RecordingBackend::new();
    for (matcher, answer) in [
        named(ObjectKind::Container, &format!("{project}.workspace")),
        named(ObjectKind::Container, &container),
        named(ObjectKind::Network, &names().internal_network()),
        named(ObjectKind::Volume, &format!("{project}_data")),
        named(ObjectKind::Image, &names().derived_image()),
        (Matcher::prefix(["container", "ls"]), Answer::stdout(format!("{container}\n"))),
    ] {
        backend = backend.with_answer(matcher, answer);
    }
    let info = Engine::detect(Arc::new(rehearsal()), &EngineChoice::Auto, Control::default()).unwrap();
    let backend = Arc::new(backend);
    let down = Bottle::down(&info.with_backend(backend.clone()), &root, &names(), &TeardownOptions::default());
    let is_removal = |line: &String| [" rm ", " down "].iter().any(|word| line.contains(word));
    (backend.lines().into_iter().filter(is_removal).collect(), down.is_ok())
}

#[test]
fn an_object_with_the_name_but_without_the_labels_of_the_bottle_is_not_removed() {
    let (own, is_clean) = removed("demo", "state");
    assert!(is_clean && own.len() >= 5, "{own:?}");
    for (slug, state_root) in [("", "state"), ("foreign", "state"), ("demo", "other")] {
        assert_eq!(removed(slug, state_root), (vec![], false), "{slug} {state_root}");
    }
}
