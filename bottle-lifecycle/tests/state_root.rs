//! The state root: every spelling of it is the same root, and none that another user could change is used.

#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bottle_engine::{CopyMethod, Engine, EngineChoice, rehearsal};
use bottle_exec::{Control, RecordingBackend, chain};
use bottle_lifecycle::{
    Bottle, BottleLock, Handle, Journal, JournalFile, Owner, Scope, Status, TeardownOptions, Undo, list, recover,
};
use bottle_plan::{Names, Prefix, Service, StateRoot};

fn names() -> Names {
    Names::new(Prefix::default(), "demo".parse().unwrap())
}

fn engine() -> (Arc<RecordingBackend>, Engine) {
    let info = Engine::detect(Arc::new(rehearsal()), &EngineChoice::Auto, Control::default()).unwrap();
    let backend = Arc::new(RecordingBackend::new());
    (Arc::clone(&backend), info.with_backend(backend))
}

/// Creates a bottle that is up, of a process that is gone, and returns the path of its key.
fn bottle(root: &StateRoot) -> PathBuf {
    let layout = root.bottle(names().slug());
    let scope = Scope::here().map(|here| Scope { boot: "00000000".into(), ..here });
    let owner = Owner { pid: u32::MAX >> 2, start_time: Some(1), scope };
    let file = JournalFile::create(&layout, Journal::new(&names(), "dev".parse().unwrap(), owner, "docker")).unwrap();
    file.record(Undo::RemoveFiles { paths: Undo::key_dirs() }).unwrap();
    let container = names().container(Service::Agent);
    let handle = Handle {
        container,
        user: None,
        workdir: None,
        agent: vec!["id".into()],
        copy: CopyMethod::Engine,
        expected: None,
        restart: None,
        limits: bottle_plan::manifest::LimitsSpec::default(),
    };
    file.change(|journal| (journal.status, journal.handle) = (Status::Ready, Some(handle))).unwrap();
    let key = layout.service_dir(Service::Pipelock).join("ca.key");
    fs::create_dir(layout.service_dir(Service::Pipelock)).unwrap();
    fs::write(&key, "key").unwrap();
    key
}

/// Returns spellings of `<base>/state`.
fn spellings(base: &Path) -> Vec<PathBuf> {
    fs::create_dir_all(base.join("dir")).unwrap();
    symlink("state", base.join("link")).unwrap();
    symlink(base, base.join("above")).unwrap();
    let cwd = std::env::current_dir().unwrap();
    let up: PathBuf = cwd.components().skip(1).map(|_| "..").collect();
    let mut all: Vec<PathBuf> = ["state", "link", "above/state", "dir/../state", "state/", "./state/."]
        .into_iter()
        .map(|spelling| base.join(spelling))
        .collect();
    all.push(up.join(base.strip_prefix("/").unwrap()).join("state"));
    all
}

#[test]
fn every_spelling_of_a_root_lists_attaches_and_removes_its_bottles_with_their_keys() {
    let directory = tempfile::tempdir().unwrap();
    let base = fs::canonicalize(directory.path()).unwrap();
    let spellings = spellings(&base);
    for made in &spellings {
        for used in &spellings {
            let (made, used) = (StateRoot::at(made), StateRoot::at(used));
            let (what, (_, engine)) = (format!("{made:?} {used:?}"), engine());
            let options = TeardownOptions::default();
            let key = bottle(&made);
            assert!(list(&engine, &used, &Prefix::default()).unwrap().contains_key(names().slug()), "{what}");
            Bottle::attach(engine.clone(), &used, names(), options.clone()).unwrap();
            Bottle::down(&engine, &used, &names(), &options).unwrap();
            assert!(!key.exists(), "{what}: the key is left");

            let key = bottle(&made);
            let report = recover(&engine, &used, &Prefix::default(), &options).unwrap();
            assert!(report.is_clean() && report.recovered.len() == 1, "{what}: {report:?}");
            assert!(!key.exists(), "{what}: the key is left");
        }
    }
}

type Plant<'a> = Box<dyn Fn() + 'a>;

#[test]
fn a_state_that_another_user_could_have_planted_is_neither_used_nor_changed() {
    let directory = tempfile::tempdir().unwrap();
    let base = fs::canonicalize(directory.path()).unwrap();
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let (root, other) = (StateRoot::at(base.join("state")), StateRoot::at(base.join("other")));
    let layout = root.bottle(names().slug());
    let plants: [(&str, Plant<'_>); 4] = [
        ("demo` can be written by other users (mode 0777)", Box::new(|| chmod(layout.dir(), 0o777))),
        ("state` can be written by other users (mode 0770)", Box::new(|| chmod(root.path(), 0o770))),
        (
            "demo` is not a directory",
            Box::new(|| {
                fs::remove_dir_all(layout.dir()).unwrap();
                symlink(other.bottle(names().slug()).dir(), layout.dir()).unwrap();
            }),
        ),
        ("metadata.json` can be written by other users (mode 0666)", Box::new(|| chmod(&layout.metadata(), 0o666))),
    ];
    let options = TeardownOptions::default();
    for (problem, plant) in plants {
        let (backend, engine) = engine();
        fs::create_dir(root.path()).unwrap();
        let keys = [bottle(&root), bottle(&other)];
        plant();
        let has_problem =
            |message: String| assert!(message.contains(problem) && message.contains("; accepted: "), "{message}");
        let down = Bottle::down(&engine, &root, &names(), &options).unwrap_err();
        has_problem(chain(&down));
        has_problem(chain(&Bottle::attach(engine.clone(), &root, names(), options.clone()).unwrap_err()));
        let report = recover(&engine, &root, &Prefix::default(), &options).unwrap();
        assert_eq!(report.problems.len(), 1, "{report:?}");
        has_problem(report.problems[0].clone());
        let owner = Owner::of_process(std::process::id());
        has_problem(chain(&JournalFile::open(&layout).unwrap_err()));
        if !problem.starts_with("metadata") {
            has_problem(chain(&BottleLock::acquire(&layout, names().slug(), &owner).unwrap_err()));
        }
        if problem.starts_with("state") {
            has_problem(chain(&list(&engine, &root, &Prefix::default()).unwrap_err()));
        } else {
            assert!(list(&engine, &root, &Prefix::default()).unwrap().is_empty());
        }
        assert!(keys[0].exists() && keys[1].exists(), "{problem}: a key is gone");
        let removals: Vec<String> = backend.lines().into_iter().filter(|line| line.contains(" rm ")).collect();
        assert_eq!(removals, [""; 0], "{problem}");
        chmod(root.path(), 0o700);
        fs::remove_dir_all(root.path()).unwrap();
        fs::remove_dir_all(other.path()).unwrap();
    }
}

#[test]
fn what_is_created_is_for_this_user_alone() {
    let directory = tempfile::tempdir().unwrap();
    let root = StateRoot::at(directory.path().join("new/state"));
    bottle(&root);
    let dir = root.bottle(names().slug()).dir().to_owned();
    for path in [&directory.path().join("new"), root.path(), &dir] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o700, "{}", path.display());
    }
}
