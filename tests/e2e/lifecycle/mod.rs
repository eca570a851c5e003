//! Launchers that die and engines that fail. Nothing may be left behind.

mod crowd;
mod disk;
mod events;
mod forward;
mod handle;
mod health;
mod killed;
mod limits;
mod podman;
mod power;
mod prune;
mod runtime;
mod spawn;
pub(crate) mod terminal;
mod trouble;
mod work;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bottle::exec::engine::{Filter, ObjectKind};
use bottle::exec::{Control, Observed, Observer, Subprocess};
use bottle::plan::{LabelKey, Names, PlanRequest, Prefix, Slug, StateRoot};
use bottle::{BottlePlan, Bottles, Engine, EngineChoice, Host, Manifest};

use bottle_testing::lab::{docker, host, pipelock_image, scratch};

/// A prefix only for these tests, because recovery removes every abandoned bottle of its prefix.
fn prefix() -> Prefix {
    "bottle-life".parse().unwrap()
}

/// Lock for tests that check a recovery, because another test's recovery could remove their bottle first.
static RECOVERY: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    RECOVERY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Agent and pipelock.
const SMALL: &str = "egress: {allow: [example.com]}";

/// A bottle with every feature.
const FULL: &str = "supervise: true
networks: {mode: external}
egress:
  allow: [example.com]
  routes:
    - {host: api.example.com, inject: {token: LIFECYCLE_TOKEN, scheme: bearer}}
git:
  upstreams:
    - {name: app, url: 'https://git.example.com/team/app.git'}";

/// A private state directory and its bottles.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { root: tempfile::Builder::new().prefix("life-").tempdir_in(scratch()).unwrap() }
    }

    fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    fn site(&self) -> Bottles {
        site_at(&self.state())
    }

    fn nothing_is_left(&self, slug: &str) {
        assert_eq!(residue(&self.state(), slug), Vec::<String>::new());
    }
}

fn site_at(state: &Path) -> Bottles {
    Bottles::new(bottle_testing::lab::engine(), host_with_token())
        .with_prefix(prefix())
        .with_state_root(StateRoot::at(state))
}

fn host_with_token() -> Host {
    let host = host();
    let token = [("LIFECYCLE_TOKEN".into(), "lifecycle-secret-value".into())];
    Host::new(host.facts.clone(), host.environment().chain(token).collect::<Vec<_>>())
}

/// Returns a manifest of one bottle. `bottle` are additional lines of it.
fn manifest(bottle: &str) -> String {
    let lines: String = bottle.lines().flat_map(|line| ["    ", line, "\n"]).collect();
    format!(
        "bottles:\n  lab:\n    images: {{pipelock: '{}'}}\n{lines}agents:\n  tester:\n    bottle: lab\n    command: [sh, -c, 'echo the agent; id -un; pwd']\n",
        pipelock_image()
    )
}

fn plan(bottle: &str, slug: &str) -> BottlePlan {
    let host = host_with_token();
    let request = PlanRequest {
        agent: None,
        slug: Some(slug.parse().unwrap()),
        prefix: prefix(),
        manifest_dir: None,
        host: &host.facts,
        random: [0; 5],
    };
    Manifest::parse(&manifest(bottle)).unwrap().plan(request).unwrap()
}

fn options(engine: Engine, state: &Path) -> Bottles {
    Bottles::new(engine, host_with_token()).with_state_root(StateRoot::at(state))
}

/// Returns the engine, with every command reported to the observer.
fn observed_engine(observer: Arc<dyn Observer>) -> Engine {
    let backend = Observed::new(Subprocess::new(host().environment()), observer);
    Engine::detect(Arc::new(backend), &EngineChoice::Auto, Control::default()).unwrap()
}

fn names(slug: &str) -> Names {
    Names::new(prefix(), slug.parse().unwrap())
}

/// Returns everything left of a bottle: objects by label, project and name, and key files.
fn residue(state: &Path, slug: &str) -> Vec<String> {
    let (engine, names) = (bottle_testing::lab::engine(), names(slug));
    let mut found = Vec::new();
    for kind in ObjectKind::IN_ORDER_OF_REMOVAL {
        for filter in [
            Filter::LabelValue(names.label(LabelKey::Slug), slug.to_owned()),
            Filter::LabelValue("com.docker.compose.project".into(), names.project()),
        ] {
            found.extend(engine.list(kind, &filter).unwrap().into_iter().map(|it| format!("{kind} {}", it.name)));
        }
    }
    let all = docker(["ps", "--all", "--format", "container {{.Names}}"]).stdout
        + &docker(["network", "ls", "--format", "network {{.Name}}"]).stdout
        + &docker(["volume", "ls", "--format", "volume {{.Name}}"]).stdout
        + &docker(["images", "--format", "image {{.Repository}}:{{.Tag}}"]).stdout;
    let of_bottle = |line: &&str| {
        line.contains(prefix().as_str())
            && (line.ends_with(&format!("-{slug}"))
                || line.contains(&format!("-{slug}."))
                || line.ends_with(&format!(":{slug}")))
    };
    found.extend(all.lines().filter(of_bottle).map(ToOwned::to_owned));
    keys_below(StateRoot::at(state).bottle(&slug.parse::<Slug>().unwrap()).dir(), &mut found);
    found
}

fn keys_below(dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            keys_below(&path, found);
        } else if std::fs::read(&path).is_ok_and(|bytes| {
            bytes.windows(16).any(|window| window == b"PRIVATE KEY-----") || path.ends_with("workspace.tar")
        }) {
            found.push(format!("file {}", path.display()));
        }
    }
}

/// Like `nothing_is_left`, for the example program, whose bottles have the default prefix.
#[track_caller]
fn docker_has_nothing_of(slug: &str) {
    let filter = format!("label=claude-bottle.slug={slug}");
    for kind in [["ps", "--all", "--quiet"].as_slice(), &["network", "ls", "--quiet"], &["images", "--quiet"]] {
        let left = docker(kind.iter().copied().chain(["--filter", filter.as_str()])).stdout;
        assert_eq!(left, "", "docker {kind:?} still shows something of {slug}");
    }
}
