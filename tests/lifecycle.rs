//! Killed launchers, and recovery from them, on a real engine. Run by `cargo xtask e2e`; needs the image
//! `debian:trixie-slim`.

#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]
#![expect(clippy::disallowed_methods, reason = "a test is its own facade: it reads the environment that it passes on")]

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bottle::exec::engine::{Build, BuildContext, ComposeProject, Exec, Filter, NewNetwork, ObjectKind};
use bottle::exec::{Control, Engine, EngineChoice, SecretValue, Subprocess};
use bottle::lifecycle::{
    Bottle, BottleLock, Handle, Journal, JournalFile, Owner, TeardownGuard, TeardownOptions, Undo, list, recover,
    root_id,
};
use bottle::plan::{LabelKey, Names, Prefix, Service, StateRoot};

const IMAGE: &str = "debian:trixie-slim";

/// Points at which a launcher stops and waits to be killed.
const POINTS: [&str; 8] = ["locked", "recorded", "image", "network", "key", "project-recorded", "starting", "ready"];

fn engine() -> Engine {
    engine_with(Control::default())
}

fn engine_with(control: Control) -> Engine {
    let backend = Arc::new(Subprocess::new(std::env::vars_os()));
    Engine::detect(backend, &EngineChoice::Auto, control).expect("an engine that answers")
}

/// Returns a prefix for each test, because recovery removes every abandoned bottle of its prefix.
fn prefix(slug: &str) -> Prefix {
    format!("e2e-{}", slug.split('-').next().unwrap_or_default()).parse().unwrap()
}

fn options() -> TeardownOptions {
    TeardownOptions::default().with_grace(Duration::from_secs(1))
}

/// Launches a small bottle as the facade does: records each thing, then creates it. Calls `point` at every point.
fn launch(engine: Engine, root: &StateRoot, slug: &str, point: impl Fn(&str)) -> Result<Bottle, Box<dyn Error>> {
    let prefix = prefix(slug);
    let names = Names::new(prefix.clone(), slug.parse().unwrap());
    let layout = root.bottle(names.slug());
    let owner = Owner::of_process(std::process::id());
    let lock = BottleLock::acquire(&layout, names.slug(), &owner)?;
    point("locked");
    let journal = Journal::new(&names, "dev".parse().unwrap(), owner.clone(), "docker");
    let file = Arc::new(JournalFile::create(&layout, journal)?);
    let guard = TeardownGuard::new(engine.clone(), file, lock, options());
    let labels = [
        (LabelKey::Slug.under(&prefix), slug.to_owned()),
        (LabelKey::Owner.under(&prefix), owner.to_string()),
        (LabelKey::State.under(&prefix), root_id(root)),
    ];

    guard.record(Undo::RemoveImage { tag: names.derived_image() })?;
    point("recorded");
    fs::write(layout.dir().join("Dockerfile"), format!("FROM {IMAGE}\nRUN echo {slug} >/slug\n")).unwrap();
    let mut build = Build::new(names.derived_image(), BuildContext::Directory(layout.dir().to_owned()));
    build.labels.extend(labels.clone());
    engine.build(&build)?;
    point("image");

    guard.record(Undo::RemoveNetwork { name: names.internal_network() })?;
    let network = NewNetwork {
        name: names.internal_network(),
        internal: true,
        labels: labels.clone().into(),
        ..NewNetwork::default()
    };
    engine.create_network(&network)?;
    point("network");

    guard.record(Undo::RemoveFiles { paths: vec!["ca.key".into()] })?;
    fs::write(layout.dir().join("ca.key"), "key").unwrap();
    point("key");

    let service = |name: Service| {
        let labels = labels.iter().map(|(key, value)| format!("'{key}': '{value}'")).collect::<Vec<_>>().join(", ");
        format!(
            "  {name}:\n    image: {}\n    command: [sleep, infinity]\n    init: true\n    container_name: {}\n    \
             networks: [net]\n    environment: [TOKEN]\n    volumes: [data:/data]\n    labels: {{{labels}}}\n    healthcheck:\n      \
             test: [CMD, 'true']\n      interval: 4s\n",
            names.derived_image(),
            names.container(name),
        )
    };
    let document = format!(
        "name: {}\nservices:\n{}{}networks:\n  net:\n    name: {}\n    external: true\nvolumes:\n  data: {{}}\n",
        names.project(),
        service(Service::Seal),
        service(Service::Agent) + "    depends_on: {seal: {condition: service_healthy}}\n",
        names.internal_network(),
    );
    fs::write(layout.compose_file(), document).unwrap();
    let project = ComposeProject::new(names.project(), layout.dir(), layout.compose_file());
    let (compose_file, project_dir) = (layout.compose_file(), layout.dir().to_owned());
    guard.record(Undo::ComposeDown {
        project: names.project(),
        compose_file: compose_file.clone(),
        project_dir: project_dir.clone(),
    })?;
    guard.record(Undo::DumpLogs { project: names.project(), compose_file, project_dir, log: layout.compose_log() })?;
    point("project-recorded");
    point("starting");
    engine.compose(&project)?.up(Duration::from_secs(60), [("TOKEN".to_owned(), SecretValue::new("inside only"))])?;
    let container = names.container(Service::Agent);
    let copy = engine.container(&container)?.ok_or("the container is gone")?.copy_method();
    let handle = Handle {
        container,
        user: Some("65534".into()),
        workdir: Some("/tmp".into()),
        agent: vec!["id".into()],
        copy,
        expected: None,
        restart: None,
        limits: bottle::plan::manifest::LimitsSpec::default(),
    };
    let bottle = Bottle::launched(engine, guard, handle)?;
    point("ready");
    Ok(bottle)
}

/// Not a test: the launcher that the tests start and kill.
#[test]
#[ignore = "is started by the other tests of this file"]
fn child_launcher() {
    let (Some(root), Some(slug), Some(stop)) = (
        std::env::var_os("LIFECYCLE_ROOT"),
        std::env::var("LIFECYCLE_SLUG").ok(),
        std::env::var("LIFECYCLE_POINT").ok(),
    ) else {
        return;
    };
    let reached = Path::new(&root).join("reached");
    let _bottle = launch(engine(), &StateRoot::at(&root), &slug, |point| {
        if point == stop {
            fs::write(&reached, point).unwrap();
            // During the start it does not wait, and is killed in the middle.
            if point != "starting" {
                std::thread::sleep(Duration::from_secs(120));
            }
        }
    })
    .unwrap();
}

fn start_launcher(root: &Path, slug: &str, point: &str) -> Child {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child_launcher"])
        .env("LIFECYCLE_ROOT", root)
        .env("LIFECYCLE_SLUG", slug)
        .env("LIFECYCLE_POINT", point)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while !root.join("reached").exists() {
        assert!(Instant::now() < until && child.try_wait().unwrap().is_none(), "the launcher did not reach {point}");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

/// Returns everything of a bottle on the engine, by label, name and project.
fn residue(engine: &Engine, names: &Names) -> Vec<String> {
    let mut found = Vec::new();
    for kind in ObjectKind::IN_ORDER_OF_REMOVAL {
        for filter in [
            Filter::LabelValue(LabelKey::Slug.under(names.prefix()), names.slug().to_string()),
            Filter::LabelValue("com.docker.compose.project".into(), names.project()),
            Filter::NamePrefix(names.project()),
        ] {
            found.extend(
                engine.list(kind, &filter).unwrap().into_iter().map(|object| format!("{kind} {}", object.name)),
            );
        }
    }
    if engine.exists(ObjectKind::Image, &names.derived_image()).unwrap() {
        found.push(format!("image {}", names.derived_image()));
    }
    found
}

#[test]
#[ignore = "needs a container engine"]
fn a_launcher_killed_at_any_point_leaves_nothing_after_recovery() {
    let engine = engine();
    for (number, point) in POINTS.into_iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        let root = StateRoot::at(directory.path());
        let names = Names::new(prefix("killed"), format!("killed-{number}").parse().unwrap());
        let mut child = start_launcher(directory.path(), names.slug().as_str(), point);
        if point == "starting" {
            // Compose is between the first container and the second by now.
            std::thread::sleep(Duration::from_millis(1200));
        } else {
            let alive = recover(&engine, &root, names.prefix(), &options()).unwrap();
            assert!(alive.recovered.is_empty(), "{point}: the launcher lives: {alive:?}");
            let second = launch(engine.clone(), &root, names.slug().as_str(), |_| {}).unwrap_err().to_string();
            assert!(second.ends_with(&format!("(owner: process {})", child.id())), "{second}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let report = recover(&engine, &root, names.prefix(), &options()).unwrap();
        assert!(report.is_clean(), "{point}: {report:?}");
        // Give an orphan time to continue.
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(residue(&engine, &names), Vec::<String>::new(), "{point}");
        assert!(!root.bottle(names.slug()).dir().join("ca.key").exists(), "{point}");
        let again = recover(&engine, &root, names.prefix(), &options()).unwrap();
        assert!(again.is_clean() && again.recovered.is_empty(), "{point}: {again:?}");
    }
}

#[test]
#[ignore = "needs a container engine"]
fn a_bottle_whose_state_is_lost_is_recovered_by_its_labels() {
    let engine = engine();
    let directory = tempfile::tempdir().unwrap();
    let names = Names::new(prefix("lost"), "lost".parse().unwrap());
    let mut child = start_launcher(directory.path(), "lost", "ready");
    fs::remove_dir_all(directory.path()).unwrap();
    let elsewhere = StateRoot::at(directory.path().join("elsewhere"));
    let alive = recover(&engine, &elsewhere, names.prefix(), &options()).unwrap();
    assert!(alive.live.contains(names.slug()) && alive.recovered.is_empty(), "{alive:?}");
    let attached = Bottle::attach(engine.clone(), &elsewhere, names.clone(), options()).unwrap();
    assert_eq!(attached.exec(Exec::new(["printenv", "TOKEN"])).unwrap().stdout.text(), "inside only\n");
    child.kill().unwrap();
    child.wait().unwrap();
    let report = recover(&engine, &elsewhere, names.prefix(), &options()).unwrap();
    assert!(report.is_clean() && report.recovered.contains_key(names.slug()), "{report:?}");
    assert_eq!(residue(&engine, &names), Vec::<String>::new());
}

#[test]
#[ignore = "needs a container engine"]
fn a_bottle_is_used_through_its_handle_and_closed() {
    let directory = tempfile::tempdir().unwrap();
    let root = StateRoot::at(directory.path().join("state"));
    let bottle = launch(engine(), &root, "handle", |_| {}).unwrap();
    bottle.wait_ready(Duration::from_secs(5)).unwrap();
    let run = |script: &str| bottle.exec(Exec::new(["sh", "-c", script])).unwrap().stdout.text();
    assert_eq!(run("id -u; pwd; cat /slug"), "65534\n/tmp\nhandle\n");

    let tree = directory.path().join("skill");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("SKILL.md"), "how to\n").unwrap();
    bottle.cp_in(&tree, "/srv", Some((65534, 65534))).unwrap();
    bottle.write_file("/srv/prompt.md", b"be good\n", 0o640, (0, 65534)).unwrap();
    assert_eq!(
        run("cat /srv/skill/SKILL.md /srv/prompt.md; stat -c %u:%g:%a /srv/prompt.md"),
        "how to\nbe good\n0:65534:640\n"
    );
    let out = directory.path().join("out");
    fs::create_dir(&out).unwrap();
    bottle.cp_out("/srv/skill", &out).unwrap();
    assert_eq!(fs::read_to_string(out.join("skill/SKILL.md")).unwrap(), "how to\n");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "no temporary file stays");

    let (engine, names) = (bottle.engine().clone(), bottle.names().clone());
    let listed = list(&engine, &root, names.prefix()).unwrap();
    assert!(listed[names.slug()].is_owned && listed[names.slug()].containers.len() == 2, "{listed:?}");
    let started = Instant::now();
    let report = bottle.close().unwrap_or_else(|error| error.report);
    assert!(report.is_clean(), "{report}");
    assert!(list(&engine, &root, names.prefix()).unwrap().is_empty());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(residue(&engine, &names), Vec::<String>::new());
    assert!(root.bottle(names.slug()).compose_log().exists());
}

#[test]
#[ignore = "needs a container engine"]
fn a_launch_cancelled_while_the_services_start_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let root = StateRoot::at(directory.path());
    let names = Names::new(prefix("stopped"), "stopped".parse().unwrap());
    let control = Control::default();
    let token = control.cancel().clone();
    let mut cancelled_at = None;
    let error = std::thread::scope(|scope| {
        let launching = scope.spawn(|| {
            let (engine, token) = (engine_with(control), token.clone());
            let starting = |point: &str| {
                let token = token.clone();
                if point == "starting" {
                    std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_millis(1200));
                        token.cancel();
                    });
                }
            };
            launch(engine, &root, "stopped", starting).map(drop).unwrap_err().to_string()
        });
        while !token.is_cancelled() && !launching.is_finished() {
            std::thread::sleep(Duration::from_millis(10));
        }
        cancelled_at = Some(Instant::now());
        launching.join().unwrap()
    });
    assert!(error.ends_with("cancelled") && !error.contains("inside only"), "{error}");
    assert!(cancelled_at.unwrap().elapsed() < Duration::from_secs(15));
    assert_eq!(residue(&engine(), &names), Vec::<String>::new());
    assert!(root.bottle(names.slug()).compose_log().exists());
}
