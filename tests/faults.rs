//! Launches of the full topology on the recording backend, in which each engine call fails in turn. The calls
//! afterwards must undo exactly what was created, and no key may remain.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bottle::exec::{CancelToken, Control, Event, Fault, RecordingBackend, rehearsal};
use bottle::lifecycle::{Journal, JournalFile, Status, TeardownReport, Undo};
use bottle::plan::{HostFacts, PlanRequest, Prefix, StateLayout, StateRoot, UserIds};
use bottle::{BottlePlan, Bottles, Engine, EngineChoice, Host, Manifest, Verify};

const MANIFEST: &str = "
bottles:
  full:
    supervise: true
    networks: {mode: external}
    egress:
      allow: [example.com]
      routes:
        - {host: api.example.com, inject: {token: MY_KEY, scheme: bearer}}
    git:
      upstreams:
        - {name: app, url: 'https://git.example.com/team/app.git'}
agents:
  demo:
    bottle: full
    command: [agent, --flag]
    prompt: Be brief.
    skills: [skill]
";

const SLUG: &str = "faulty";

/// A directory with a state root, a workspace and a skill in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for (dir, file) in [("workspace", "README.md"), ("skill", "SKILL.md")] {
            fs::create_dir(place.path(dir)).unwrap();
            fs::write(place.path(dir).join(file), "text\n").unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn root(&self) -> StateRoot {
        StateRoot::at(self.path("state"))
    }

    fn layout(&self) -> StateLayout {
        self.root().bottle(&SLUG.parse().unwrap())
    }

    fn host(&self) -> Host {
        let user = UserIds { uid: 1000, gid: 1000 };
        let facts = HostFacts { home: self.0.path().to_owned(), cwd: self.path("workspace"), user };
        Host::new(facts, [("MY_KEY".into(), "the-secret-value".into())])
    }

    fn plan(&self) -> BottlePlan {
        let request = PlanRequest {
            agent: None,
            slug: Some(SLUG.parse().unwrap()),
            prefix: Prefix::default(),
            manifest_dir: Some(self.0.path()),
            host: &self.host().facts,
            random: [0; 5],
        };
        Manifest::parse(MANIFEST).unwrap().plan(request).unwrap()
    }

    fn journal(&self) -> Journal {
        JournalFile::open(&self.layout()).unwrap().journal()
    }

    fn assert_no_secret(&self, when: &str) {
        for path in files_below(self.layout().dir()) {
            let bytes = fs::read(&path).unwrap();
            for secret in ["PRIVATE KEY-----", "the-secret-value"] {
                let holds = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!holds, "{when}: {} holds {secret}", path.display());
            }
            assert_ne!(path.file_name().unwrap(), "workspace.tar", "{when}");
        }
    }
}

/// Returns a rehearsed engine, and its backend without recorded calls.
fn engine(backend: RecordingBackend) -> (Arc<RecordingBackend>, Engine) {
    let rehearsal = Arc::new(rehearsal());
    let engine = Engine::detect(rehearsal, &EngineChoice::Auto, Control::default()).unwrap();
    let backend = Arc::new(backend);
    (backend.clone(), engine.with_backend(backend))
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => files.extend(files_below(&entry.path())),
            kind if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files
}

/// Returns the calls that undo a journal on an engine that has none of its objects any more. By a journal that was read
/// from disk, only an object with the labels of the bottle is removed, and those of the rehearsal have none.
fn undoing(journal: &[Undo], layout: &StateLayout, is_read: bool) -> Vec<String> {
    let state = layout.dir().display();
    let compose = |project: &str| {
        format!(
            "docker compose --ansi never --progress plain --project-name {project} --project-directory {state} --file \
             {state}/docker-compose.yml --env-file /dev/null"
        )
    };
    let search =
        |kind: &str, project: &str| format!("docker {kind} --filter label=com.docker.compose.project={project}");
    let calls = |undo: &Undo| match undo {
        // While the logs are saved, the containers stop.
        Undo::DumpLogs { project, .. } => vec![
            search("container ls --quiet --all --no-trunc", project),
            format!("{} logs --no-color --timestamps", compose(project)),
        ],
        Undo::ComposeDown { project, .. } => vec![
            search("container ls --quiet --all --no-trunc", project),
            search("network ls --quiet --no-trunc", project),
            search("volume ls --quiet", project),
        ],
        Undo::RemoveNetwork { name } if is_read => vec![format!("docker network inspect {name}")],
        Undo::RemoveImage { tag } if is_read => vec![format!("docker image inspect {tag}")],
        Undo::RemoveContainer { name } => vec![format!("docker container rm --force --volumes {name}")],
        Undo::RemoveNetwork { name } => vec![format!("docker network rm {name}")],
        Undo::RemoveImage { tag } => vec![format!("docker image rm {tag}")],
        Undo::RemoveFiles { .. } => Vec::new(),
        other => panic!("the launch recorded {other:?}"),
    };
    settled(journal.iter().rev().flat_map(calls).collect())
}

/// Returns the calls with those sorted that are made at the same time.
fn settled(mut calls: Vec<String>) -> Vec<String> {
    let is_of_project = |call: &String| call.contains(" ls --quiet ") || call.contains(" logs --no-color ");
    calls.chunk_by_mut(|one, next| is_of_project(one) && is_of_project(next)).for_each(<[String]>::sort);
    calls
}

/// The journal's undos at the beginning of the teardown.
type Seen = Arc<Mutex<Vec<Undo>>>;

fn options(place: &Place, engine: Engine, seen: &Seen) -> Bottles {
    let (seen, layout) = (Arc::clone(seen), place.layout());
    Bottles::new(engine, place.host())
        .with_state_root(place.root())
        .with_observer(Arc::new(move |event: &Event| {
            if let Event::StepStarted { .. } = event
                && let Ok(file) = JournalFile::open(&layout)
                && file.journal().status == Status::Closing
                && seen.lock().unwrap().is_empty()
            {
                *seen.lock().unwrap() = file.journal().undo;
            }
        }))
        .with_cancel(CancelToken::new())
        .with_verification(Verify::Off)
}

/// Returns every call of a launch, masked, and of its teardown.
fn calls_without_a_fault() -> (Vec<String>, Vec<String>) {
    let place = Place::new();
    let (backend, engine) = engine(rehearsal());
    let bottle = options(&place, engine, &Seen::default()).launch(place.plan()).unwrap();
    let launching = backend.lines();
    let recorded = place.journal().undo;
    bottle.close().unwrap();
    let closing = backend.lines().split_off(launching.len());
    let mut expected = undoing(&recorded, &place.layout(), false);
    // What a launched bottle has is listed once, while the logs are saved.
    expected.dedup();
    assert_eq!(settled(closing.clone()), expected);
    let kinds = |wanted: fn(&Undo) -> bool| recorded.iter().filter(|undo| wanted(undo)).count();
    assert_eq!(kinds(|undo| matches!(undo, Undo::RemoveNetwork { .. })), 2);
    assert_eq!(kinds(|undo| matches!(undo, Undo::RemoveImage { .. })), 1);
    assert_eq!(kinds(|undo| matches!(undo, Undo::RemoveFiles { .. })), 1);
    assert_eq!(kinds(|undo| matches!(undo, Undo::ComposeDown { .. })), 1);
    place.assert_no_secret("closed");
    (launching.iter().map(|line| masked(&place, line)).collect(), closing)
}

/// Returns a line without what differs from launch to launch: the directory, the state root's label, the time from which
/// events are wanted, the chosen subnet, and the script of an exec with its random number and its digests.
fn masked(place: &Place, line: &str) -> String {
    let mut line = line.replace(&place.0.path().display().to_string(), "DIR");
    if let Some((before, after)) = line.split_once(" --subnet ") {
        line = format!("{before} {}", after.split_once(' ').map_or("", |(_, rest)| rest));
    }
    let line = line.split(" --env BOTTLE_EXEC=").next().and_then(|line| line.split(" --since ").next());
    let words = line.into_iter().flat_map(|line| line.split(' '));
    words.filter(|word| !word.starts_with("claude-bottle.state=")).collect::<Vec<_>>().join(" ")
}

/// Removes the first line that is wanted, and returns true if there is one.
fn remove(lines: &mut Vec<String>, is_wanted: impl FnMut(&String) -> bool) -> bool {
    let found = lines.iter().position(is_wanted);
    found.map(|at| lines.remove(at)).is_some()
}

#[test]
fn after_a_failure_at_any_call_exactly_what_was_created_is_undone() {
    let (known, _) = calls_without_a_fault();
    assert!(known.len() > 20, "{known:#?}");
    println!("{} calls", known.len());
    for (index, fault) in (0..known.len()).flat_map(|index| {
        [Fault::Exit(1), Fault::TimedOut, Fault::NotFound, Fault::Cancelled].map(|fault| (index, fault))
    }) {
        let (place, seen) = (Place::new(), Seen::default());
        let (backend, engine) = engine(rehearsal().with_fault(index + 1, fault));
        let launched = options(&place, engine, &seen).launch(place.plan());
        let line = backend.lines().swap_remove(index);
        let when = format!("{fault:?} at call {} `{line}`", index + 1);
        // Without events, the engine is asked for the containers' states.
        let Err(error) = launched else {
            assert!(line.starts_with("docker events "), "{when}");
            continue;
        };
        assert_eq!(error.is_cancelled(), fault == Fault::Cancelled, "{when}: {error}");
        let text = bottle::report(&error).to_string();
        assert!(
            text.starts_with(&format!("failed to {}", error.step)) && !text.contains("not everything"),
            "{when}: {text}"
        );
        if line.contains("BOTTLE_EXEC=") && fault == Fault::Exit(1) {
            // The error names what was being provisioned.
            assert!(
                text.starts_with("failed to provision the agent: ") && text.contains(": it ended with status 1"),
                "{text}"
            );
        }
        let recorded = seen.lock().unwrap().clone();
        let mut after = backend.lines().split_off(index + 1);
        // The processes of an interrupted exec are stopped first.
        if line.contains("BOTTLE_EXEC=") && matches!(fault, Fault::TimedOut | Fault::Cancelled) {
            assert!(remove(&mut after, |line| line.contains("sh -s BOTTLE_EXEC=")), "{when}: {after:?}");
        }
        // After a failure the launch looks whose network has the name. The rehearsal's has no labels, so it stays.
        if line.contains("docker network create") && fault != Fault::Cancelled {
            assert!(remove(&mut after, |line| line.starts_with("docker network inspect")), "{when}: {after:?}");
        }
        // Other calls were under way, or were made before the failure was noticed. One of them removes the container from which
        // the workspace's image was made.
        let is_recorded = recorded.iter().any(|undo| matches!(undo, Undo::RemoveContainer { .. }));
        let is_undo = |line: &String| line.contains(" rm ") && (is_recorded || !line.contains("container rm"));
        after.retain(|line| is_undo(line) || !known.contains(&masked(&place, line)));
        assert_eq!(settled(after), undoing(&recorded, &place.layout(), false), "{when}");
        assert!(error.teardown.as_ref().is_some_and(TeardownReport::is_clean), "{when}");
        let journal = place.journal();
        assert_eq!((journal.status, journal.undo.as_slice()), (Status::Closed, &[][..]), "{when}");
        place.assert_no_secret(&when);
    }
}

#[test]
fn a_failed_launch_can_be_repeated_at_once() {
    let (launching, _) = calls_without_a_fault();
    let up = launching.iter().position(|line| line.contains(" create --no-build")).unwrap();
    let place = Place::new();
    let (_, failing) = engine(rehearsal().with_fault(up + 1, Fault::Exit(1)));
    options(&place, failing, &Seen::default()).launch(place.plan()).unwrap_err();
    let (backend, sound) = engine(rehearsal());
    options(&place, sound, &Seen::default()).launch(place.plan()).unwrap();
    assert!(backend.lines().len() > up);
}

#[test]
fn a_failed_call_of_the_teardown_stops_no_other_and_the_next_teardown_completes_it() {
    let (launching, closing) = calls_without_a_fault();
    for index in 0..closing.len() {
        let place = Place::new();
        let fault = Fault::TimedOut;
        let (backend, engine) = engine(rehearsal().with_fault(launching.len() + index + 1, fault));
        let bottle = options(&place, engine.clone(), &Seen::default()).launch(place.plan()).unwrap();
        let recorded = place.journal().undo;
        let report = bottle.close().unwrap_or_else(|error| error.report);
        let called = backend.lines().split_off(launching.len());
        let line = &called[index];
        // After a failed search, all objects of the project are searched for once more.
        let mut once = settled(called.clone());
        once.dedup();
        let mut expected = undoing(&recorded, &place.layout(), false);
        expected.dedup();
        assert_eq!(once, expected, "`{line}`");
        assert!(called.iter().any(|call| call.starts_with("docker image rm")), "`{line}`");
        place.assert_no_secret(line);

        backend.clear();
        let site = Bottles::new(engine, place.host()).with_state_root(place.root());
        let left = place.journal().undo;
        // A failed search was repeated. Saving the logs is not.
        let is_tried_again = line.contains(" rm ");
        assert_eq!(report.is_clean(), !is_tried_again && !line.contains(" logs "), "`{line}`: {report}");
        assert_eq!(left.len(), usize::from(is_tried_again), "`{line}`: {left:?}");
        assert!(left.iter().all(|undo| recorded.contains(undo)));
        if is_tried_again {
            assert!(site.down(&SLUG.parse().unwrap()).unwrap().is_clean());
            let again = undoing(&left, &place.layout(), true);
            assert_eq!(backend.lines()[..again.len()], again);
        }
        assert_eq!(place.journal().status, Status::Closed, "`{line}`");
    }
}

#[test]
fn an_engine_that_cannot_get_our_files_is_refused_before_anything_is_created() {
    for address in ["tcp://192.0.2.1:2376 verified", "ssh://someone@build.example"] {
        let place = Place::new();
        let remote = bottle::exec::Answer::stdout(format!("{address}\n"));
        let backend = RecordingBackend::new()
            .with_answer(bottle::exec::Matcher::prefix(["context", "inspect"]), remote)
            .with_answer(bottle::exec::Matcher::prefix(["version"]), answer_of_rehearsal(&["version"], "28.3.0"))
            // It cannot mount single files of a volume either.
            .with_answer(bottle::exec::Matcher::prefix(["info"]), answer_of_rehearsal(&["info"], "25.0.5"));
        let backend = Arc::new(backend);
        let engine = Engine::detect(backend.clone(), &EngineChoice::Auto, Control::default()).unwrap();
        backend.clear();
        let error =
            bottle::report(&options(&place, engine, &Seen::default()).launch(place.plan()).unwrap_err()).to_string();
        assert!(
            error.contains("it sees none of this host's files") && error.contains(address.split(' ').next().unwrap()),
            "{error}"
        );
        assert_eq!(backend.lines(), Vec::<String>::new());
        assert!(!place.path("state").exists(), "nothing is made");
    }
}

/// Returns a rehearsal's answer to a query, with another version of the engine.
fn answer_of_rehearsal(args: &[&str], version: &str) -> bottle::exec::Answer {
    use bottle::exec::{Backend, Command};
    let command = Command::new("docker").with_args(args);
    let output = rehearsal().run(&command, &Control::default()).unwrap();
    bottle::exec::Answer::stdout(output.stdout.text().replace("28.3.0", version))
}

#[test]
fn a_read_only_state_directory_is_reported_and_nothing_is_created() {
    let place = Place::new();
    fs::create_dir(place.path("state")).unwrap();
    fs::write(place.path("state").join(SLUG), "in the way").unwrap();
    fs::set_permissions(place.path("state"), fs::Permissions::from_mode(0o700)).unwrap();
    let (backend, engine) = engine(rehearsal());
    let error =
        bottle::report(&options(&place, engine, &Seen::default()).launch(place.plan()).unwrap_err()).to_string();
    assert!(error.contains("prepare the launch") && error.contains(SLUG), "{error}");
    assert_eq!(backend.lines(), Vec::<String>::new());
}

#[test]
fn a_state_that_another_user_could_have_planted_is_refused_by_every_method() {
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for (dir, mode) in [("state", 0o777), ("state/faulty", 0o777), ("state/images", 0o770)] {
        let place = Place::new();
        let (backend, engine) = engine(rehearsal());
        fs::create_dir_all(place.path(dir)).unwrap();
        chmod(&place.path(dir), mode);
        let bottles = options(&place, engine, &Seen::default());
        let problem = format!("{dir}` can be written by other users (mode {mode:04o}); accepted: what belongs to user");
        let refused = |message: String| assert!(message.contains(&problem), "{message}");
        refused(bottle::report(&bottles.launch(place.plan()).unwrap_err()).to_string());
        assert!(!backend.lines().iter().any(|line| line.contains(" build ")), "{:?}", backend.lines());
        let slug = SLUG.parse().unwrap();
        if dir != "state/images" {
            let logs = bottles.logs(&slug, false, Arc::new(|_: bottle::exec::Stream, _: &[u8]| {}));
            refused(bottle::report(&logs.unwrap_err()).to_string());
            refused(bottle::report(&bottles.posture(&slug).unwrap_err()).to_string());
            refused(bottle::report(&bottles.supervise(&slug).unwrap_err()).to_string());
            assert!(fs::read_dir(place.path(dir)).unwrap().next().is_none(), "nothing is created in {dir}");
        }
        if dir != "state/faulty" {
            let report = bottles.prune().unwrap();
            assert_eq!(report.problems.len(), 1);
            refused(report.problems[0].clone());
        }
    }
}
