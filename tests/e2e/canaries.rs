//! The canary hunt: every kind of secret of a bottle, searched for wherever one could lie.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bottle::deploy_keys::{HttpForges, KeyPair};
use bottle::exec::{CancelToken, Control, Event, Fault, rehearsal};
use bottle::plan::Service;
use bottle::{Bottles, Engine, EngineChoice, Host, Manifest, Verify};
use bottle_testing::forge::FakeForge;
use bottle_testing::lab::canary::{Hunt, Processes};
use bottle_testing::lab::{self, Changing, Lab, OUTSIDE, Part, figure, sh};

/// Token of the forge: not that of other tests, whose processes may run at the same time.
const FORGE_TOKEN: &str = "forge-canary-that-is-seen-nowhere";

/// Values of the host's environment, by variable.
const VALUES: [(&str, &str); 5] = [
    ("CANARY_INJECTED", "canary-injected-6Wq0yTzN2v"),
    ("CANARY_BASIC", "canary-basic-1Lk8sPbX4m"),
    ("CANARY_GIT", "canary-git-9Jd3hRfC7a"),
    ("CANARY_FORWARDED", "canary-forwarded-5Ug2nVeM8o"),
    ("CANARY_FORGE", FORGE_TOKEN),
];

/// One hunt at a time: they have the same secrets, and look at all processes of the host.
static HUNT: Mutex<()> = Mutex::new(());

/// A line of the environment file.
const FROM_FILE: &str = "canary-from-file-3Tb7xKwQ1i";

/// A bottle with every kind of secret.
struct Bed {
    lab: Lab,
    forge: FakeForge,
    events: Arc<Mutex<String>>,
}

impl Bed {
    fn new(test: &str) -> Self {
        Self {
            lab: Lab::with_outside(test, &["--env", "OUTSIDE_REPOS=app,web"]),
            forge: FakeForge::accepting(FORGE_TOKEN),
            events: Arc::default(),
        }
    }

    fn hunt() -> Hunt {
        let mut hunt = Hunt::default();
        for (name, value) in VALUES {
            hunt.add(name, value);
        }
        hunt.add("env_file", FROM_FILE);
        hunt
    }

    fn host() -> Host {
        let host = lab::host();
        let values = VALUES.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        Host::new(host.facts.clone(), host.environment().chain(values).collect::<Vec<_>>())
    }

    fn options(&self, engine: Engine) -> Bottles {
        let events = Arc::clone(&self.events);
        let observer = move |event: &Event| {
            let _ = writeln!(events.lock().unwrap(), "{event:?} {}", serde_json::to_string(event).unwrap());
        };
        let options = self.lab.options_of(engine).with_host(Self::host()).with_observer(Arc::new(observer));
        options.with_forges(Arc::new(HttpForges::default()))
    }

    fn manifest(&self) -> String {
        let root = self.lab.root.path();
        std::fs::write(root.join("own.env"), format!("FROM_FILE={FROM_FILE}\n")).unwrap();
        let known = self.lab.outside.read("/data/known_hosts");
        let known = known.lines().find(|line| line.starts_with(&format!("{OUTSIDE} "))).unwrap();
        let identity = root.join("identity");
        if !identity.exists() {
            let pair = KeyPair::generate(|seed| bottle::tls::RandomSource::fill(&mut bottle::tls::SystemRandom, seed))
                .unwrap();
            write_private(&identity, pair.private());
        }
        format!(
            "env: {{FORWARDED: $CANARY_FORWARDED}}
env_file: \"{env_file}\"
supervise: true
egress:
  routes:
    - {{name: api, host: api.anthropic.com, paths: [/v1/, /echo], inject: {{token: CANARY_INJECTED, scheme: header}}}}
    - {{name: basic, host: api.anthropic.com, paths: [/web.git], inject: {{token: CANARY_BASIC, scheme: basic}}}}
git:
  upstreams:
    - {{name: app, url: \"git@{OUTSIDE}:app.git\", known_hosts: [\"{known}\"], identity_file: \"{identity}\"}}
    - {{name: web, url: \"https://{OUTSIDE}/web.git\", token: CANARY_GIT}}
    - {{name: forged, url: \"git@{OUTSIDE}:team/app.git\", known_hosts: [\"{known}\"], deploy_key: {{forge: gitea, api_url: \"{api}\", token: CANARY_FORGE}}}}",
            env_file = root.join("own.env").display(),
            identity = identity.display(),
            api = self.forge.api_url("gitea"),
        )
    }

    /// Launches the bottle, uses each secret, and searches every place. Takes the bottle down, and searches what is left.
    fn search(&self, engine: Engine, level: Verify) -> Hunt {
        let _alone = HUNT.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut hunt, start) = (Self::hunt(), SystemTime::now());
        let processes = Processes::watch();
        let options = self.options(engine).with_verification(level);
        let bottle = options.launch(self.lab.plan(&self.manifest(), ""));
        let bottle = bottle.unwrap_or_else(|error| panic!("{}", bottle::report(&error)));
        self.lab.outside.connect(&bottle.names().egress_network());
        sh(&bottle, "curl -fsS https://api.anthropic.com/echo").ok();
        sh(&bottle, "git ls-remote git://git-gate/web.git").ok();
        let received = serde_json::to_string(&self.lab.outside.events()).unwrap();
        assert!(received.contains(VALUES[0].1), "the token was not in use");
        let state = self.lab.state();
        hunt.add_keys(&state);
        processes.search(&mut hunt);
        hunt.engine("claude-bottle.slug", &self.lab.slug);
        hunt.directory("state directory", &state);
        hunt.temporary(start);
        hunt.search("options in their debug form", format!("{options:?}"));
        hunt.search("plan", format!("{:?}", self.lab.plan(&self.manifest(), "")));
        self.lab.outside.disconnect(&bottle.names().egress_network());
        assert!(bottle.close().unwrap().is_clean());
        self.lab.assert_nothing_left();
        hunt.search("compose.log", std::fs::read(state.join("compose.log")).unwrap());
        hunt.directory("state directory after the end", &state);
        hunt.search("events", self.events.lock().unwrap().as_bytes());
        for text in provoked(self) {
            hunt.search("error texts", text);
        }
        hunt
    }
}

fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
}

/// Provokes failures, and returns the text and the debug form of each error.
fn provoked(bed: &Bed) -> Vec<String> {
    let mut texts = Vec::new();
    // A call of the engine that fails, one after the other.
    for call in 1..=40 {
        let root = tempfile::tempdir().unwrap();
        let detected =
            Engine::detect(Arc::new(rehearsal()), &EngineChoice::Auto, Control::cancelled_by(CancelToken::new()))
                .unwrap();
        let engine = detected.with_backend(Arc::new(rehearsal().with_fault(call, Fault::Exit(1))));
        let options = bed
            .options(engine)
            .with_verification(Verify::Off)
            .with_state_root(bottle::plan::StateRoot::at(root.path().join("state")));
        if let Err(error) = options.launch(bed.lab.plan(&bed.manifest(), "")) {
            texts.push(format!("{}\n{error:?}", bottle::report(&error)));
        }
    }
    // A secret where the manifest wants something else. A value that looks like words is shown, as a name that is misspelt.
    for (_, value) in VALUES.into_iter().filter(|(_, value)| *value != FORGE_TOKEN) {
        for text in [
            format!(
                "bottles: {{dev: {{egress: {{allow: [{value}]}}}}}}\nagents: {{a: {{bottle: dev, command: [sh]}}}}"
            ),
            format!("bottles: {{dev: {{{value}: 1}}}}\nagents: {{a: {{bottle: dev, command: [sh]}}}}"),
            format!(
                "bottles: {{dev: {{egress: {{routes: [{{host: a.test, inject: {{token: {value}}}}}]}}}}}}\nagents: {{a: {{bottle: dev, command: [sh]}}}}"
            ),
        ] {
            if let Err(error) = Manifest::parse(&text) {
                texts.push(format!("manifest {}", bottle::report(&error)));
            }
        }
    }
    assert!(texts.len() >= 30, "only {} failures", texts.len());
    texts
}

/// Places where a secret may be, by the threat model: what the agent was given, and the file of each key.
fn expected(hunt: &Hunt) -> BTreeMap<String, BTreeSet<String>> {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let given = &["CANARY_FORWARDED", "env_file"][..];
    let mut expected = BTreeMap::from([
        // Of these, the agent gets two. The launcher hands the others to the sidecars through pipes.
        ("environment of docker compose".to_owned(), set(&["CANARY_FORWARDED"])),
        ("environments of processes in containers".to_owned(), set(given)),
        ("environment of the engine's runtime".to_owned(), set(given)),
        ("inspect of claude-bottle-SLUG".to_owned(), set(given)),
    ]);
    // A key is in its own file, and nowhere else.
    for (place, found) in hunt.found() {
        if let Some(file) = place.strip_prefix("state directory: ") {
            let own: BTreeSet<String> =
                found.iter().filter(|name| **name == format!("key {file}")).map(|name| (*name).to_owned()).collect();
            if !own.is_empty() {
                expected.insert(place.to_owned(), own);
            }
        }
    }
    expected
}

/// Returns each place with a secret that the threat model does not name.
fn unexpected(hunt: &Hunt) -> Vec<String> {
    let expected = expected(hunt);
    let may = |place: &str, name: &str| expected.get(place).is_some_and(|names| names.contains(name));
    let found = hunt.found();
    let pairs = found.iter().flat_map(|(place, names)| names.iter().map(move |name| (*place, *name)));
    pairs.filter(|(place, name)| !may(place, name)).map(|(place, name)| format!("{name} is in: {place}")).collect()
}

#[test]
#[ignore = "needs a container engine"]
fn every_secret_is_only_where_the_threat_model_names_it() {
    let bed = Bed::new("canaries");
    let hunt = bed.search(lab::engine(), Verify::Quick);
    println!("{}", hunt.table());
    assert_eq!(unexpected(&hunt), [""; 0], "{}", hunt.table());
    // The search itself works: it finds what has to be there.
    let found = hunt.found();
    assert!(hunt.count() >= VALUES.len() + 4, "{}", hunt.table());
    assert!(found.contains_key("environments of processes in containers"), "{}", hunt.table());
    assert!(found.keys().filter(|place| place.starts_with("state directory: ")).count() >= 3, "{}", hunt.table());
    for place in [
        "command lines of all processes",
        "logs of the engine",
        "history of the images",
        "inspect of the networks",
        "compose.log",
        "events",
        "error texts",
        "options in their debug form",
        "plan",
    ] {
        assert!(hunt.bytes(place) > 100, "{place}:\n{}", hunt.table());
    }
    figure(format_args!("{} secrets; bytes searched by place:\n{}", hunt.count(), hunt.table()));
}

#[test]
#[ignore = "needs a container engine"]
fn a_secret_in_a_weakened_bottle_is_found() {
    let bed = Bed::new("canaries-weak");
    let engine = lab::engine();
    let mut backend = Arc::clone(engine.backend());
    let (agent, supervise) = (Service::Agent, Service::Supervise);
    for (service, from, to) in [
        (agent, "    environment:\n", format!("    environment:\n      - LEAKED={}\n", VALUES[0].1)),
        (supervise, "    labels:\n", format!("    labels:\n      leaked: {}\n", VALUES[2].1)),
    ] {
        backend = Arc::new(Changing { backend, part: Part::Service(service), from, to });
    }
    let hunt = bed.search(engine.with_backend(backend), Verify::Off);
    let found = unexpected(&hunt);
    for place in [
        "inspect of claude-bottle-SLUG",
        "inspect of claude-bottle-supervise-SLUG",
        "state directory: docker-compose.yml",
    ] {
        assert!(found.iter().any(|found| found.ends_with(&format!("is in: {place}"))), "{place}: {found:?}");
    }
}
