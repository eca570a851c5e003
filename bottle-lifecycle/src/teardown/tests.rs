use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bottle_engine::{CopyMethod, EngineChoice, rehearsal};
use bottle_exec::{Answer, Control, Fault, Matcher, RecordingBackend};
use bottle_plan::{LabelKey, Names, Prefix, StateLayout, StateRoot};

use super::*;
use crate::bottle::Bottle;
use crate::handle::Handle;
use crate::owner::{Owner, Scope};
use crate::recover::recover;
use crate::undo::UndoHandler;

struct Fixture {
    _directory: tempfile::TempDir,
    root: StateRoot,
    layout: StateLayout,
    names: Names,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let names = Names::new(Prefix::default(), "demo".parse().unwrap());
    let root = StateRoot::at(directory.path());
    let layout = root.bottle(names.slug());
    Fixture { _directory: directory, root, layout, names }
}

fn engine(backend: RecordingBackend) -> (Arc<RecordingBackend>, Engine) {
    let rehearsal = Arc::new(rehearsal());
    let info = Engine::detect(rehearsal, &EngineChoice::Auto, Control::default()).unwrap();
    let backend = Arc::new(backend);
    (backend.clone(), info.with_backend(backend))
}

/// Returns a dead owner: a process of an earlier boot.
fn dead() -> Owner {
    let scope = Scope::here().map(|here| Scope { boot: "00000000".into(), ..here });
    Owner { pid: u32::MAX >> 2, start_time: Some(1), scope }
}

impl Fixture {
    fn journal(&self, owner: Owner) -> Arc<JournalFile> {
        let journal = Journal::new(&self.names, "dev".parse().unwrap(), owner, "docker");
        Arc::new(JournalFile::create(&self.layout, journal).unwrap())
    }

    /// Records what a full launch records, in its order.
    fn record_all(&self, file: &JournalFile) -> Vec<Undo> {
        let (project, project_dir) = (self.names.project(), self.layout.dir().to_owned());
        let compose_file = self.layout.compose_file();
        fs::write(&compose_file, "services: {}\n").unwrap();
        let undo = vec![
            Undo::RemoveImage { tag: self.names.derived_image() },
            Undo::RemoveNetwork { name: self.names.internal_network() },
            Undo::RemoveFiles { paths: vec!["pipelock/ca.key".into()] },
            Undo::Extension { handler: "deploy-key".into(), data: serde_json::json!({"id": 7}) },
            Undo::ComposeDown {
                project: project.clone(),
                compose_file: compose_file.clone(),
                project_dir: project_dir.clone(),
            },
            Undo::DumpLogs { project, compose_file, project_dir, log: self.layout.compose_log() },
        ];
        for undo in &undo {
            file.record(undo.clone()).unwrap();
        }
        fs::create_dir_all(self.layout.dir().join("pipelock")).unwrap();
        fs::write(self.key(), "key").unwrap();
        undo
    }

    fn key(&self) -> PathBuf {
        self.layout.dir().join("pipelock/ca.key")
    }

    /// Returns an answer to `network inspect` with the labels of a bottle under this root.
    fn network(&self, slug: &str) -> (Matcher, Answer) {
        let labels = serde_json::json!({"claude-bottle.slug": slug, "claude-bottle.state": crate::root_id(&self.root)});
        let name = format!("claude-bottle-net-{slug}");
        let network = serde_json::json!([{"Name": name, "Labels": labels}]);
        (Matcher::prefix(["network", "inspect", &name]), Answer::stdout(network.to_string()))
    }

    fn lock(&self) -> BottleLock {
        BottleLock::acquire(&self.layout, self.names.slug(), &Owner::of_process(std::process::id())).unwrap()
    }

    /// Returns the recorded lines without the parts that differ from run to run.
    fn lines(&self, backend: &RecordingBackend) -> String {
        let directory = self.root.path().display().to_string();
        let mut lines = backend.lines();
        // These run at the same time.
        let searches = lines.iter().take_while(|line| line.contains(" ls ") || line.contains(" logs ")).count();
        lines[..searches].sort();
        lines.join("\n").replace(&directory, "STATE")
    }
}

struct DeployKeys;

impl UndoHandler for DeployKeys {
    fn undo(&self, data: &serde_json::Value, _: &Engine, _: &Names) -> Result<(), String> {
        if data["id"] == 7 { Ok(()) } else { Err("another key".to_owned()) }
    }
}

fn options() -> TeardownOptions {
    TeardownOptions::default()
        .with_grace(Duration::from_secs(1))
        .with_handlers(UndoHandlers::default().with("deploy-key", Arc::new(DeployKeys)))
}

#[test]
fn everything_is_undone_in_reverse_and_only_once() {
    let fixture = fixture();
    let (backend, engine) = engine(RecordingBackend::new());
    let file = fixture.journal(dead());
    let mut undo = fixture.record_all(&file);
    undo.reverse();
    let report = tear_down(&engine, &file, &options());
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.steps.iter().map(|step| step.undo.clone()).collect::<Vec<_>>(), undo);
    assert!(!fixture.key().exists());
    assert_eq!(file.journal().status, Status::Closed);
    insta::assert_snapshot!(fixture.lines(&backend));
    backend.clear();
    assert_eq!(tear_down(&engine, &file, &options()), TeardownReport::default());
    assert!(backend.commands().is_empty());
}

#[test]
fn a_bottle_that_was_up_is_looked_at_once_and_one_that_was_not_again() {
    for (status, looks) in [(Status::Ready, 1), (Status::Launching, 3)] {
        let fixture = fixture();
        let found = |kind| Answer::stdout(kind).once();
        let answers = RecordingBackend::new()
            .with_answer(Matcher::prefix(["network", "ls"]), found("n1"))
            .with_answer(Matcher::prefix(["network", "inspect"]), Answer::stdout(r#"[{"Name":"n1"}]"#));
        let (backend, engine) = engine(answers);
        let file = fixture.journal(dead());
        fixture.record_all(&file);
        file.set_status(status).unwrap();
        let report = tear_down(&engine, &file, &options());
        assert!(report.is_clean(), "{report}");
        let lines = backend.lines();
        assert_eq!(lines.iter().filter(|line| line.contains("container ls")).count(), looks, "{status:?}: {lines:#?}");
        assert!(lines.iter().any(|line| line.ends_with("network rm n1")), "{lines:#?}");
    }
}

#[test]
fn a_failed_call_stops_no_other_step_and_the_next_teardown_completes_it() {
    let calls = {
        let fixture = fixture();
        let (backend, engine) = engine(RecordingBackend::new());
        let file = fixture.journal(dead());
        fixture.record_all(&file);
        assert!(tear_down(&engine, &file, &options()).is_clean());
        backend.commands().len()
    };
    for call in 1..=calls {
        for fault in [Fault::Exit(1), Fault::TimedOut, Fault::NotFound] {
            let fixture = fixture();
            let (_, failing) = engine(RecordingBackend::new().with_fault(call, fault));
            let file = fixture.journal(dead());
            let recorded = fixture.record_all(&file);
            let report = tear_down(&failing, &file, &options());
            assert_eq!(report.steps.len(), recorded.len());
            let failed: Vec<Undo> = report.failures().map(|step| step.undo.clone()).collect();
            // A failed search for the objects of the project is repeated.
            assert!(failed.len() <= 1, "call {call} {fault:?}: {report}");
            let retried: Vec<Undo> = failed.into_iter().filter(Undo::is_retried).collect();
            assert_eq!(file.journal().undo, retried, "call {call} {fault:?}");
            let (_, healthy) = engine(RecordingBackend::new());
            let again = tear_down(&healthy, &JournalFile::open(&fixture.layout).unwrap(), &options());
            assert!(again.is_clean() && again.steps.len() == retried.len(), "call {call} {fault:?}: {again}");
        }
    }
}

#[test]
fn what_runs_of_a_project_is_stopped_and_everything_is_removed_by_label() {
    let fixture = fixture();
    let container = r#"[{"Id":"c1","Name":"/claude-bottle-demo","State":{"Status":"running"},"Config":{"Labels":{}}},
        {"Id":"c2","Name":"/claude-bottle-egress-demo","State":{"Status":"exited"},"Config":{"Labels":{}}}]"#;
    let named = |name: &str| Answer::stdout(format!(r#"[{{"Name":"{name}","Labels":{{}}}}]"#));
    let (backend, engine) = engine(
        RecordingBackend::new()
            .with_answer(Matcher::prefix(["container", "ls"]), Answer::stdout("c1\nc2\n"))
            .with_answer(Matcher::prefix(["container", "inspect"]), Answer::stdout(container))
            .with_answer(Matcher::prefix(["network", "ls"]), Answer::stdout("n1\n"))
            .with_answer(Matcher::prefix(["network", "inspect", "n1"]), named("net"))
            .with_answer(Matcher::prefix(["volume", "ls"]), Answer::stdout("v1\n"))
            .with_answer(Matcher::prefix(["volume", "inspect"]), named("credentials")),
    );
    let file = fixture.journal(dead());
    fixture.record_all(&file);
    assert!(tear_down(&engine, &file, &options()).is_clean());
    let lines = backend.lines();
    let at =
        |wanted: &str| lines.iter().position(|line| line == wanted).unwrap_or_else(|| panic!("{wanted}: {lines:#?}"));
    let stopped = at("docker stop -t 1 claude-bottle-demo");
    let removed = at("docker container rm --force --volumes claude-bottle-demo claude-bottle-egress-demo");
    assert!(stopped < removed && removed < at("docker network rm net") && removed < at("docker volume rm credentials"));
}

#[test]
fn an_undo_without_a_handler_stays_in_the_journal() {
    let fixture = fixture();
    let (_, engine) = engine(RecordingBackend::new());
    let file = fixture.journal(dead());
    fixture.record_all(&file);
    let report = tear_down(&engine, &file, &TeardownOptions::default());
    assert_eq!(report.to_string(), "undo deploy-key: undo `deploy-key`: no handler of that name is registered");
    assert_eq!((file.journal().undo.len(), file.journal().status), (1, Status::Closing));
    assert!(tear_down(&engine, &file, &options()).is_clean());
}

#[test]
fn files_outside_the_state_directory_are_not_removed() {
    let fixture = fixture();
    let (_, engine) = engine(RecordingBackend::new());
    let outside = fixture.root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "mine").unwrap();
    let file = fixture.journal(dead());
    std::os::unix::fs::symlink(&outside, fixture.layout.dir().join("link")).unwrap();
    let absolute = fixture.layout.dir().join("absolute");
    fs::create_dir(&absolute).unwrap();
    // An agent can take the permissions of its own directories away.
    let closed = fixture.layout.dir().join("closed/inner");
    fs::create_dir_all(closed.join("last")).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o0)).unwrap();
    for (path, is_refused) in [
        (outside.join("file"), true),
        ("../outside/file".into(), true),
        ("link/file".into(), true),
        (".".into(), true),
        ("".into(), true),
        (fixture.layout.dir().to_owned(), true),
        ("link".into(), false),
        ("not-there".into(), false),
        (absolute.clone(), false),
        ("closed".into(), false),
    ] {
        let undo = Undo::RemoveFiles { paths: vec![path.clone()] };
        file.record(undo.clone()).unwrap();
        assert_eq!(tear_down(&engine, &file, &options()).is_clean(), !is_refused, "{}", path.display());
        file.mark_done(&undo).unwrap();
    }
    assert!(outside.join("file").exists() && !absolute.exists() && fixture.layout.metadata().exists());
}

#[test]
fn a_state_directory_that_cannot_be_written_stops_no_step() {
    let fixture = fixture();
    let (backend, engine) = engine(RecordingBackend::new());
    let file = fixture.journal(dead());
    fixture.record_all(&file);
    fs::remove_dir_all(fixture.layout.dir()).unwrap();
    let report = tear_down(&engine, &file, &options());
    let failed: Vec<&Undo> = report.failures().map(|step| &step.undo).collect();
    assert_eq!(report.steps.len(), 6, "{report}");
    assert!(matches!(failed[..], [Undo::DumpLogs { .. }]), "only the log has no place: {report}");
    assert!(!report.is_clean() && report.journal_errors[0].starts_with("write `"), "{report}");
    assert!(backend.lines().contains(&"docker image rm claude-bottle-workspace:demo".to_owned()));
    let made = file.record(Undo::RemoveNetwork { name: "claude-bottle-net-demo".into() });
    assert!(made.is_err(), "what cannot be recorded must not be made");
}

#[test]
fn a_panic_takes_the_bottle_down() {
    let fixture = fixture();
    let (backend, engine) = engine(RecordingBackend::new());
    let file = fixture.journal(Owner::of_process(std::process::id()));
    let guard = TeardownGuard::new(engine, file.clone(), fixture.lock(), options());
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        guard.record(Undo::RemoveNetwork { name: "claude-bottle-net-demo".into() }).unwrap();
        let _guard = guard;
        panic!("the caller's own");
    }));
    assert!(result.is_err());
    assert_eq!(backend.lines(), ["docker network rm claude-bottle-net-demo"]);
    assert_eq!(file.journal().status, Status::Closed);
    drop(fixture.lock());
}

#[test]
fn a_cancelled_launch_is_taken_down() {
    let fixture = fixture();
    let (backend, engine) = engine(RecordingBackend::new());
    engine.control().cancel().cancel();
    let file = fixture.journal(dead());
    file.record(Undo::RemoveNetwork { name: "claude-bottle-net-demo".into() }).unwrap();
    assert!(tear_down(&engine, &file, &options()).is_clean());
    assert_eq!(backend.lines(), ["docker network rm claude-bottle-net-demo"]);
}

fn handle(container: String) -> Handle {
    Handle {
        container,
        user: Some("agent".into()),
        workdir: Some("/work".into()),
        agent: vec!["claude".into()],
        copy: CopyMethod::Engine,
        expected: None,
        restart: None,
        limits: bottle_plan::manifest::LimitsSpec::default(),
    }
}

#[test]
fn a_bottle_is_closed_on_drop_kept_on_request_and_closed_through_another_handle() {
    use bottle_engine::Exec;

    let fixture = fixture();
    let (network, labelled) = fixture.network("demo");
    let (backend, engine) = engine(RecordingBackend::new().with_answer(network, labelled));
    let owner = || Owner::of_process(std::process::id());
    let handle = handle(fixture.names.container(bottle_plan::Service::Agent));
    let launch = || {
        let guard = TeardownGuard::new(engine.clone(), fixture.journal(owner()), fixture.lock(), options());
        guard.record(Undo::RemoveNetwork { name: "claude-bottle-net-demo".into() }).unwrap();
        Bottle::launched(engine.clone(), guard, handle.clone()).unwrap()
    };
    drop(launch());
    assert_eq!(backend.lines(), ["docker network rm claude-bottle-net-demo"]);

    backend.clear();
    launch().keep().unwrap();
    assert!(backend.commands().is_empty());
    let attached = || Bottle::attach(engine.clone(), &fixture.root, fixture.names.clone(), options());
    let bottle = attached().unwrap();
    bottle.exec(Exec::new(["id"])).unwrap();
    bottle.exec_agent(Exec::new(["id"]).with_user("root").with_workdir("/"), false).unwrap();
    drop(bottle);
    attached().unwrap().close().unwrap();
    // Each exec has a random mark, which a shell turns into a limit.
    let unmarked = |line: String| match (line.split_once(" --env BOTTLE_EXEC="), line.rsplit_once(" sh ")) {
        (Some((before, _)), Some((_, command))) => format!("{before}: {command}"),
        _ => line,
    };
    assert_eq!(
        backend.lines().into_iter().map(unmarked).collect::<Vec<_>>(),
        [
            "docker container inspect claude-bottle-demo claude-bottle-seal-demo",
            "docker exec --user agent --workdir /: /work id",
            "docker exec --interactive --user root --workdir /: / id",
            "docker container inspect claude-bottle-demo claude-bottle-seal-demo",
            "docker network inspect claude-bottle-net-demo",
            "docker network rm claude-bottle-net-demo"
        ]
    );
}

#[test]
fn a_handle_runs_no_command_while_the_seal_is_unhealthy() {
    let fixture = fixture();
    for (health, problem) in [
        ("healthy", None),
        ("unhealthy", Some("`seal` is running, unhealthy, so the agent's firewall rules may be missing")),
    ] {
        let container = |name: &str, state: serde_json::Value| serde_json::json!({"Name": format!("/claude-bottle-{name}"), "State": state, "Config": {}});
        let seal = serde_json::json!({"Status": "running", "Health": {"Status": health}});
        let states = [container("demo", serde_json::json!({"Status": "running"})), container("seal-demo", seal)];
        let states = serde_json::Value::from(states.to_vec()).to_string();
        let answers = Matcher::prefix(["container", "inspect"]);
        let (backend, engine) = engine(RecordingBackend::new().with_answer(answers, Answer::stdout(states)));
        let journal = fixture.journal(Owner::of_process(std::process::id()));
        let guard = TeardownGuard::new(engine.clone(), journal, fixture.lock(), options());
        let handle = handle(fixture.names.container(bottle_plan::Service::Agent));
        Bottle::launched(engine.clone(), guard, handle).unwrap().keep().unwrap();

        let warnings = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&warnings);
        let observer = Arc::new(move |event: &Event| seen.lock().unwrap().push(event.clone()));
        let bottle = Bottle::attach(engine, &fixture.root, fixture.names.clone(), options().with_observer(observer));
        let result = bottle.unwrap().exec(["id"]).map(drop).map_err(|error| error.to_string());
        let message = problem.map(|problem| format!("bottle `demo`: {problem}"));
        let expected = message.clone().map_or(Ok(()), |message| Err(format!("run a command in {message}")));
        assert_eq!(result, expected);
        let warned: Vec<Event> = message.into_iter().map(|message| Event::Warning { message }).collect();
        assert_eq!(*warnings.lock().unwrap(), warned);
        assert_eq!(backend.lines().iter().any(|line| line.starts_with("docker exec ")), problem.is_none());
    }
}

#[test]
fn without_its_state_a_bottle_is_found_by_the_labels_of_its_container() {
    let fixture = fixture();
    let labels = serde_json::json!({
        "claude-bottle.slug": "demo", "claude-bottle.state": crate::root_id(&fixture.root),
        "claude-bottle.workdir": "/w", "claude-bottle.command": r#"["claude","two words"]"#,
    });
    let container = serde_json::json!([{
        "Id": "c1", "Name": "/claude-bottle-demo", "State": {"Status": "running"}, "HostConfig": {"Runtime": "runsc"},
        "Config": {"User": "1000", "WorkingDir": "", "Labels": labels},
    }])
    .to_string();
    let (backend, engine) = engine(
        RecordingBackend::new()
            .with_answer(Matcher::prefix(["container", "ls"]), Answer::stdout("c1\n"))
            .with_answer(Matcher::prefix(["container", "inspect"]), Answer::stdout(container)),
    );
    let bottle = Bottle::attach(engine, &fixture.root, fixture.names.clone(), options()).unwrap();
    let wanted = Handle {
        container: "claude-bottle-demo".into(),
        user: Some("1000".into()),
        workdir: Some("/w".into()),
        agent: vec!["claude".into(), "two words".into()],
        copy: CopyMethod::Tar,
        expected: None,
        restart: None,
        limits: bottle_plan::manifest::LimitsSpec::default(),
    };
    assert_eq!(bottle.handle(), &wanted);
    assert_eq!(bottle.agent().unwrap().argv, wanted.agent);
    bottle.close().unwrap();
    assert!(backend.lines().contains(&"docker container rm --force --volumes claude-bottle-demo".to_owned()));
    assert!(!Path::new(fixture.layout.dir()).exists(), "nothing is made by looking");

    let gone = RecordingBackend::new().with_default(Answer::exit(1).with_stderr("Error: No such container: c\n"));
    let error = Bottle::attach(self::engine(gone).1, &fixture.root, fixture.names.clone(), options()).unwrap_err();
    assert_eq!(error.to_string(), "find bottle `demo`: neither its journal nor its container is there");
}

/// Returns an engine with one container for each slug, labelled with its owner and its state root.
fn labelled(root: &StateRoot, bottles: &[(&str, Owner)]) -> RecordingBackend {
    labelled_with(|_| Some((crate::root_id(root), "/nowhere/else".into())), bottles)
}

/// Like [`labelled`], with the state label and the state directory of each slug.
fn labelled_with(home: impl Fn(&str) -> Option<(String, String)>, bottles: &[(&str, Owner)]) -> RecordingBackend {
    let (slug_key, owner_key) = (LabelKey::Slug.under(&Prefix::default()), LabelKey::Owner.under(&Prefix::default()));
    let container = |(slug, owner): &(&str, Owner)| {
        let mut labels = serde_json::json!({ &slug_key: slug, &owner_key: owner.to_string() });
        if let Some((id, directory)) = home(slug) {
            labels["claude-bottle.state"] = id.into();
            labels["com.docker.compose.project.working_dir"] = directory.into();
        }
        serde_json::json!({"Id": slug, "Name": format!("/claude-bottle-{slug}"), "Config": {"Labels": labels}})
    };
    let mut backend = RecordingBackend::new();
    for subset in bottles.chunks(1).chain([bottles]) {
        let filter = match subset {
            [(slug, _)] => format!("label={slug_key}={slug}"),
            _ => format!("label={slug_key}"),
        };
        let ids: Vec<&str> = subset.iter().map(|(slug, _)| *slug).collect();
        let containers: Vec<_> = subset.iter().map(container).collect();
        let inspected = serde_json::to_string(&containers).unwrap();
        let is_inspect = {
            let wanted: Vec<_> = ["container", "inspect"].iter().chain(&ids).map(std::ffi::OsString::from).collect();
            Matcher::when(move |command| command.args() == wanted)
        };
        backend = backend
            .with_answer(Matcher::words(["container", "ls", &filter]), Answer::stdout(ids.join("\n")))
            .with_answer(is_inspect, Answer::stdout(inspected));
    }
    backend
}

#[test]
fn recovery_removes_bottles_of_dead_owners_and_leaves_live_and_kept_ones() {
    let fixture = fixture();
    let live = Owner::of_process(std::process::id());
    let journal = |slug: &str, owner: Owner| {
        let names = Names::new(Prefix::default(), slug.parse().unwrap());
        let file = JournalFile::create(
            &fixture.root.bottle(names.slug()),
            Journal::new(&names, "dev".parse().unwrap(), owner, "docker"),
        )
        .unwrap();
        file.record(Undo::RemoveNetwork { name: names.internal_network() }).unwrap();
        file
    };
    journal("dead", dead());
    journal("live", live.clone());
    journal("kept", dead()).set_status(Status::Kept).unwrap();
    journal("closed", dead()).change(|journal| (journal.undo, journal.status) = (vec![], Status::Closed)).unwrap();
    let unseen = Owner { scope: Scope::here().map(|here| Scope { namespace: here.namespace + 1, ..here }), ..dead() };
    let on_engine = [("kept", dead()), ("live", live.clone()), ("lost", dead()), ("other", live), ("unseen", unseen)];
    let (network, answer) = fixture.network("dead");
    let (backend, engine) = engine(labelled(&fixture.root, &on_engine).with_answer(network, answer));
    let listed: Vec<String> = crate::list(&engine, &fixture.root, &Prefix::default())
        .unwrap()
        .into_iter()
        .map(|(slug, it)| format!("{slug} {:?} owned={} {:?}", it.status, it.is_owned, it.containers))
        .collect();
    insta::assert_snapshot!(listed.join("\n"));
    backend.clear();
    let report = recover(&engine, &fixture.root, &Prefix::default(), &options()).unwrap();
    let names =
        |slugs: Vec<&bottle_plan::Slug>| slugs.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    assert!(report.is_clean());
    assert_eq!(names(report.recovered.keys().collect()), "dead lost");
    assert_eq!(names(report.live.iter().collect()), "live other unseen");
    assert_eq!(names(report.kept.iter().collect()), "kept");
    let removals: Vec<String> = backend.lines().into_iter().filter(|line| line.contains(" rm ")).collect();
    assert_eq!(
        removals,
        ["docker network rm claude-bottle-net-dead", "docker container rm --force --volumes claude-bottle-lost"]
    );

    let (backend, engine) = self::engine(labelled(&fixture.root, &on_engine[..2]));
    let again = recover(&engine, &fixture.root, &Prefix::default(), &options()).unwrap();
    assert!(again.recovered.is_empty() && again.is_clean());
    assert!(!backend.lines().iter().any(|line| line.contains(" rm ")));
}

#[test]
fn objects_of_another_state_root_are_left_alone_and_reported() {
    use crate::bottle::BottleError;
    use crate::{Foreign, list, root_id};

    let (here, there) = (fixture(), fixture());
    let other = there.root.bottle(&"kept".parse().unwrap());
    fs::create_dir(other.dir()).unwrap();
    let other_dir = other.dir().display().to_string();
    let home = |slug: &str| match slug {
        "own" => Some((root_id(&here.root), here.root.path().join("own").display().to_string())),
        "kept" => Some((root_id(&there.root), other_dir.clone())),
        "gone" => Some((root_id(&there.root), there.root.path().join("gone").display().to_string())),
        _ => None,
    };
    let all = [("gone", dead()), ("kept", dead()), ("old", dead()), ("own", dead())];
    let (backend, engine) = engine(labelled_with(home, &all));
    let listed = list(&engine, &here.root, &Prefix::default()).unwrap();
    assert_eq!(listed.keys().map(ToString::to_string).collect::<Vec<_>>(), ["gone", "own"]);

    let names = |slug: &str| Names::new(Prefix::default(), slug.parse().unwrap());
    for slug in ["kept", "old"] {
        let error = Bottle::down(&engine, &here.root, &names(slug), &options()).unwrap_err();
        assert!(matches!(error, BottleError::Foreign { .. }), "{error}");
        assert_eq!(error.to_string().contains(&other_dir), slug == "kept", "{error}");
    }
    let report = recover(&engine, &here.root, &Prefix::default(), &options()).unwrap();
    assert_eq!(report.recovered.keys().map(ToString::to_string).collect::<Vec<_>>(), ["gone", "own"]);
    let foreign = [
        ("kept".parse().unwrap(), Foreign::OtherRoot { directory: Some(other.dir().to_owned()) }),
        ("old".parse().unwrap(), Foreign::NoRoot),
    ];
    assert_eq!(report.foreign, foreign.into());
    let removals: Vec<String> = backend.lines().into_iter().filter(|line| line.contains(" rm ")).collect();
    let rm = |slug: &str| format!("docker container rm --force --volumes claude-bottle-{slug}");
    assert_eq!(removals, [rm("gone"), rm("own")]);
    // The bottle's own state root still removes it.
    let report = recover(&engine, &there.root, &Prefix::default(), &options()).unwrap();
    assert!(report.recovered.contains_key(names("kept").slug()), "{report:?}");
}
