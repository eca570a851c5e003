//! Deploy keys that work, and launchers that are killed at every point of a key's life.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bottle::deploy_keys::HttpForges;
use bottle::exec::Event;
use bottle::plan::{PlanRequest, Prefix, StateRoot};
use bottle::{Bottle, BottlePlan, Bottles, Host, Manifest};

use super::{git_section, known_host};
use bottle_testing::forge::{FakeForge, Moment, REPOSITORY, TOKEN};
use bottle_testing::lab::{Lab, OUTSIDE, docker, engine, figure, host, run, scratch, sh};

pub(crate) const VARIABLE: &str = "E2E_FORGE_TOKEN";

fn host_with_token() -> Host {
    let host = host();
    let token = (OsString::from(VARIABLE), OsString::from(TOKEN));
    Host::new(host.facts.clone(), host.environment().chain([token]).collect::<Vec<_>>())
}

fn options(root: StateRoot) -> Bottles {
    let forges = HttpForges::default().with_timeout(Duration::from_secs(5)).with_settle(Duration::from_secs(3));
    Bottles::new(engine(), host_with_token()).with_state_root(root).with_forges(Arc::new(forges))
}

pub(crate) fn upstream(known_host: &str, api_url: &str, kind: &str, push: bool) -> String {
    format!(
        "    - {{name: app, url: \"git@{OUTSIDE}:{REPOSITORY}.git\", known_hosts: [\"{known_host}\"], push: {{enabled: {push}}}, \
         deploy_key: {{forge: {kind}, api_url: \"{api_url}\", token: {VARIABLE}}}}}\n",
    )
}

/// Returns a lab whose outside host accepts the deploy keys of the forge.
pub(crate) fn lab_with_forge(test: &str) -> (Lab, FakeForge) {
    let lab = Lab::with_outside(test, &["--env", "OUTSIDE_REPOS=app"]);
    // The forge's name of the repository includes its owner.
    lab.outside.as_git("mkdir -p team; mv app.git team/app.git");
    let forge = FakeForge::start();
    let outside = lab.outside.container().to_owned();
    forge.on_change(move |keys| {
        let script = "printf '%s\\n' \"$@\" > /data/authorized_keys";
        docker(["exec", &outside, "sh", "-euc", script, "sh"].into_iter().chain(keys.iter().map(String::as_str)));
    });
    (lab, forge)
}

#[test]
#[ignore = "needs a container engine"]
fn a_deploy_key_opens_the_repository_for_the_life_of_the_bottle() {
    let (lab, forge) = lab_with_forge("deploy");
    for (kind, push) in [("gitea", true), ("gitlab", false)] {
        let manifest = git_section(&upstream(&known_host(&lab, OUTSIDE), &forge.api_url(kind), kind, push));
        let bottle = options(lab.state_root()).launch(lab.plan(&manifest, ""));
        let bottle = bottle.unwrap_or_else(|error| panic!("{error}"));
        lab.outside.connect(&bottle.names().egress_network());
        let keys = forge.keys();
        assert_eq!((keys.len(), keys[0].read_only), (1, !push));
        assert_eq!(keys[0].title, format!("claude-bottle-{}-app", lab.slug));
        sh(&bottle, &format!("git clone -q git@{OUTSIDE}:{REPOSITORY}.git /tmp/app")).ok();
        let pushed = sh(
            &bottle,
            &format!(
                "set -e; cd /tmp/app; echo x > {kind}; git add .; git commit -qm 'With a key of its own'; git push -q origin HEAD:main"
            ),
        );
        assert_eq!(pushed.code == 0, push, "{pushed:?}");
        assert!(push || pushed.stderr.contains("pushing to `app` is turned off for this bottle"), "{pushed:?}");
        lab.close(&bottle);
        assert_eq!(forge.keys(), []);
        assert_eq!(lab.outside.read("/data/authorized_keys").trim(), "");
    }
    let log = lab.outside.as_git(&format!("git -C {REPOSITORY}.git log --format=%s main"));
    assert_eq!(log, "With a key of its own\nBegin\n");
    assert_eq!(forge.made(), 2);

    // A launch that fails after the key was created.
    let manifest = git_section(&upstream(&known_host(&lab, OUTSIDE), &forge.api_url("github"), "github", true));
    let mut plan = lab.plan(&manifest, "");
    plan.images.pipelock = "bottle-e2e/no-such-image:1".parse().unwrap();
    let error = options(lab.state_root()).launch(plan).unwrap_err();
    assert!(error.to_string().starts_with("start the services"), "{error}");
    assert!(error.teardown.unwrap().is_clean());
    assert_eq!((forge.made(), forge.keys().len()), (3, 0));
    lab.assert_nothing_left();
}

/// Point at which a launcher is killed.
#[derive(Debug, Clone, Copy)]
enum Point {
    /// At an event: true for the start of a step, and the beginning of its name.
    Step(bool, &'static str),
    /// In the middle of a request.
    Forge(Moment),
    /// When the bottle is up.
    Ready,
}

const POINTS: [(&str, Point); 10] = [
    ("nothing is recorded", Point::Step(true, "register the deploy keys")),
    ("recorded, not asked for", Point::Step(true, "register deploy key ")),
    ("asked for, not made", Point::Forge(Moment::BeforeCreate)),
    ("made, not answered", Point::Forge(Moment::AfterCreate)),
    ("answered, its number not recorded", Point::Step(false, "register deploy key ")),
    ("its number recorded", Point::Step(true, "resolve the plan")),
    ("the services start", Point::Step(true, "start the services")),
    ("the bottle is up", Point::Ready),
    ("about to be revoked", Point::Forge(Moment::BeforeDelete)),
    ("revoked, not answered", Point::Forge(Moment::AfterDelete)),
];

#[test]
#[ignore = "needs a container engine"]
fn a_launcher_killed_at_any_point_leaves_no_deploy_key_after_recovery() {
    let lab = Lab::new("orphan");
    // Recovery removes every abandoned bottle of its prefix, so this test has its own prefix. The images are shared.
    let key = known_host(&lab, OUTSIDE);
    let images = Images::of(&lab, &git_section(&upstream(&key, "http://127.0.0.1:1", "gitea", true)));
    for (number, (name, point)) in POINTS.into_iter().enumerate() {
        let forge = FakeForge::start();
        let root = tempfile::Builder::new().prefix("orphan-").tempdir_in(scratch()).unwrap();
        let kind = ["github", "gitea", "gitlab"][number % 3];
        let manifest = images.manifest(&lab, &upstream(&key, &forge.api_url(kind), kind, true));
        std::fs::write(root.path().join("bottle.yaml"), manifest).unwrap();
        let mut child = start_launcher(root.path(), &forge, point);
        child.kill().unwrap();
        child.wait().unwrap();
        // The forge continues the request during the recovery.
        let releasing = forge.clone();
        let release = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(700));
            releasing.release();
        });
        let forges = HttpForges::default().with_settle(Duration::from_secs(3));
        let site = Bottles::new(engine(), host_with_token())
            .with_state_root(StateRoot::at(root.path().join("state")))
            .with_prefix(prefix())
            .with_forges(Arc::new(forges));
        let started = Instant::now();
        let report = site.recover().unwrap();
        let took = started.elapsed();
        release.join().unwrap();
        assert!(report.is_clean(), "{name}: {report:?}");
        assert_eq!(forge.keys(), [], "{name}: {:?}", forge.log());
        figure(format_args!("{name}: made {}, recovered in {took:.1?}", forge.made()));
        let expected = u64::from(number > 1);
        assert_eq!(forge.made(), expected, "{name}: {:?}", forge.log());
        let again = site.recover().unwrap();
        assert!(again.is_clean() && again.recovered.is_empty(), "{name}: {again:?}");
        assert_no_residue(root.path(), name);
    }
}

fn prefix() -> Prefix {
    "e2e-orphan".parse().unwrap()
}

fn assert_no_residue(root: &Path, name: &str) {
    for kind in [vec!["ps", "-aq"], vec!["network", "ls", "-q"], vec!["volume", "ls", "-q"], vec!["images", "-q"]] {
        let left = docker(kind.iter().copied().chain(["--filter", "label=e2e-orphan.slug"])).stdout;
        assert_eq!(left.trim(), "", "{name}: docker {kind:?}");
    }
    let grep = run(Command::new("grep").args(["-rlE", &format!("PRIVATE KEY|{TOKEN}")]).arg(root.join("state")));
    assert_eq!(grep.stdout, "", "{name}");
}

/// The images of the default prefix, as ready images.
struct Images {
    agent: String,
    git_gate: String,
}

impl Images {
    /// Builds them if necessary, by a launch that fails at an unreachable forge after the build.
    fn of(lab: &Lab, manifest: &str) -> Self {
        let plan = lab.plan(&format!("workspace: {{mode: none}}\n{manifest}"), "");
        let base = std::collections::BTreeMap::from([("BASE".to_owned(), plan.images.base.to_string())]);
        let agent_args = bottle::sidecars::agent::build_args(&plan);
        let agent = plan.names.built_image("agent", &bottle::sidecars::agent::CONTEXT.content_hash(&agent_args));
        let git_gate = plan.names.built_image("git-gate", &bottle::sidecars::git_gate::CONTEXT.content_hash(&base));
        let error = options(lab.state_root()).launch(plan).unwrap_err();
        assert!(bottle::report(&error).to_string().contains("it was not reached"), "{error}");
        Self { agent, git_gate }
    }

    fn manifest(&self, lab: &Lab, upstream: &str) -> String {
        // Only the lab's subnet is taken from its manifest.
        let text = lab.manifest("", "");
        let subnet = text.split("egress_subnet: ").nth(1).and_then(|rest| rest.split('}').next()).unwrap();
        let git: String = git_section(upstream).lines().flat_map(|line| ["    ", line, "\n"]).collect();
        format!(
            "bottles:\n  lab:\n    networks: {{egress_subnet: {subnet}}}\n    workspace: {{mode: none}}\n    images: {{pipelock: \"{}\", agent: \"{}\", git_gate: \"{}\"}}\n{git}agents:\n  tester: {{bottle: lab, provider: custom, command: [id]}}\n",
            bottle_testing::lab::pipelock_image(),
            self.agent,
            self.git_gate
        )
    }
}

/// Starts a launcher process and waits until it reaches the point at which it is to be killed.
fn start_launcher(root: &Path, forge: &FakeForge, point: Point) -> Child {
    let (begins, step, close) = match point {
        Point::Step(begins, step) => (begins, step, false),
        Point::Ready => (true, "-", false),
        Point::Forge(moment) => {
            forge.hold(moment);
            (true, "-", matches!(moment, Moment::BeforeDelete | Moment::AfterDelete))
        }
    };
    let log = std::fs::File::create(root.join("launcher.log")).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "git::deploy_keys::launcher"])
        .env("E2E_LAUNCHER_ROOT", root)
        .env("E2E_LAUNCHER_STEP", step)
        .env("E2E_LAUNCHER_BEGINS", begins.to_string())
        .env("E2E_LAUNCHER_CLOSE", close.to_string())
        .env(VARIABLE, TOKEN)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(90);
    let reached = || match point {
        Point::Forge(_) => forge.is_holding(),
        Point::Step(..) | Point::Ready => root.join("reached").exists(),
    };
    while !reached() {
        if Instant::now() > until || child.try_wait().unwrap().is_some() {
            let _ = child.kill();
            panic!("{point:?} was not reached: {}", std::fs::read_to_string(root.join("launcher.log")).unwrap());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    if matches!(point, Point::Step(_, "start the services")) {
        // Wait until the step is in progress.
        std::thread::sleep(Duration::from_millis(900));
    }
    child
}

/// Not a test: the launcher that the test above starts and kills.
#[test]
#[ignore = "is started by another test"]
fn launcher() {
    #[expect(clippy::disallowed_methods, reason = "how the test tells it where to stop")]
    let variable = |name: &str| std::env::var(name).ok();
    let (Some(root), Some(step)) = (variable("E2E_LAUNCHER_ROOT"), variable("E2E_LAUNCHER_STEP")) else { return };
    let (begins, close) = (variable("E2E_LAUNCHER_BEGINS"), variable("E2E_LAUNCHER_CLOSE"));
    let (begins, close) = (begins.as_deref() == Some("true"), close.as_deref() == Some("true"));
    let root = Path::new(&root).to_owned();
    let reached = root.join("reached");
    let halt = {
        let reached = reached.clone();
        move |goes_on: bool| {
            std::fs::write(&reached, "").unwrap();
            if !goes_on {
                std::thread::sleep(Duration::from_secs(120));
            }
        }
    };
    let at_event = halt.clone();
    let options = options(StateRoot::at(root.join("state"))).with_observer(Arc::new(move |event: &Event| {
        let (at_begin, name) = match event {
            Event::StepStarted { step } => (true, step),
            Event::StepFinished { step, .. } => (false, step),
            _ => return,
        };
        if at_begin == begins && name.starts_with(&step) {
            at_event(name == "start the services");
        }
    }));
    let bottle = launch_from(&root, &options);
    if close {
        drop(bottle.close());
    } else {
        halt(false);
    }
}

fn launch_from(root: &Path, options: &Bottles) -> Bottle {
    let plan: BottlePlan = Manifest::read(root.join("bottle.yaml"))
        .unwrap()
        .plan(PlanRequest {
            agent: None,
            slug: Some("orphan".parse().unwrap()),
            prefix: prefix(),
            manifest_dir: Some(root),
            host: &host().facts,
            random: [0; 5],
        })
        .unwrap();
    options.launch(plan).unwrap_or_else(|error| panic!("{error}"))
}
