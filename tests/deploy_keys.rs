//! Deploy keys against a forge that keeps state. The engine is a rehearsed one: no process is started.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bottle::deploy_keys::HttpForges;
use bottle::exec::{Control, Event, rehearsal};
use bottle::lifecycle::{JournalFile, Status, Undo};
use bottle::plan::{HostFacts, PlanRequest, Prefix, StateRoot, UserIds};
use bottle::{Bottles, Engine, EngineChoice, Host, LaunchError, Manifest, Verify};
use bottle_testing::forge::{FakeForge, Fault, REPOSITORY, TOKEN};
use serde_json::json;

const KINDS: [&str; 3] = ["github", "gitea", "gitlab"];

struct Bench {
    root: tempfile::TempDir,
    forge: FakeForge,
    kind: &'static str,
    push: bool,
    token: Option<&'static str>,
}

impl Bench {
    fn new(kind: &'static str) -> Self {
        Self { root: tempfile::tempdir().unwrap(), forge: FakeForge::start(), kind, push: true, token: Some(TOKEN) }
    }

    fn host(&self) -> Host {
        let owner = UserIds { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        let cwd = self.root.path().join("work");
        std::fs::create_dir_all(&cwd).unwrap();
        let variable = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
        let mut environment = vec![
            // Nothing listens there, so a client that uses this proxy reaches no forge.
            variable("HTTP_PROXY", "http://127.0.0.1:9"),
            variable("ALL_PROXY", "http://127.0.0.1:9"),
        ];
        environment.extend(self.token.map(|token| variable("FORGE_TOKEN", token)));
        Host::new(HostFacts { home: self.root.path().to_owned(), cwd, user: owner }, environment)
    }

    fn options(&self) -> Bottles {
        let engine = Engine::detect(Arc::new(rehearsal()), &EngineChoice::Auto, Control::default());
        let forges = HttpForges::default().with_timeout(Duration::from_secs(1)).with_settle(Duration::from_secs(4));
        let bottles = Bottles::new(engine.unwrap(), self.host()).with_state_root(self.state_root());
        bottles.with_forges(Arc::new(forges)).with_verification(Verify::Off)
    }

    fn state_root(&self) -> StateRoot {
        StateRoot::at(self.root.path().join("state"))
    }

    fn launch_with(&self, options: &Bottles) -> Result<bottle::Bottle, LaunchError> {
        let text = format!(
            "bottles:\n  lab:\n    git:\n      upstreams:\n        - name: app\n          url: git@git.example.com:{}.git\n          \
             known_hosts: [\"git.example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGv\"]\n          \
             deploy_key: {{forge: {}, api_url: \"{}\", token: FORGE_TOKEN}}\n          push: {{enabled: {}}}\n\
             agents:\n  tester: {{bottle: lab, command: [id]}}\n",
            REPOSITORY,
            self.kind,
            self.forge.api_url(self.kind),
            self.push,
        );
        let host = self.host();
        let plan = Manifest::parse(&text).unwrap().plan(PlanRequest {
            agent: None,
            slug: Some("keys".parse().unwrap()),
            prefix: Prefix::default(),
            manifest_dir: Some(self.root.path()),
            host: &host.facts,
            random: [0; 5],
        });
        options.launch(plan.unwrap())
    }

    fn launch(&self) -> Result<bottle::Bottle, LaunchError> {
        self.launch_with(&self.options())
    }

    fn journal(&self) -> bottle::lifecycle::Journal {
        JournalFile::open(&self.state_root().bottle(&"keys".parse().unwrap())).unwrap().journal()
    }

    /// Asserts that no key is at the forge or in the journal, and no key or token is in any file.
    fn assert_nothing_left(&self) {
        assert_eq!(self.forge.keys(), []);
        let journal = self.journal();
        assert_eq!((journal.undo.as_slice(), journal.status), (&[][..], Status::Closed));
        self.assert_no_file_holds(TOKEN);
        self.assert_no_file_holds("PRIVATE KEY");
    }

    fn assert_no_file_holds(&self, text: &str) {
        for file in files_below(self.root.path()) {
            let content = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
            assert!(!content.contains(text), "{} holds `{text}`", file.display());
        }
    }
}

fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files
}

#[test]
fn a_key_is_created_once_and_revoked_on_close_at_each_forge() {
    for kind in KINDS {
        for push in [true, false] {
            let bench = Bench { push, ..Bench::new(kind) };
            for other in 0..5 {
                bench.forge.add("someone else's", &format!("ssh-ed25519 AAAA{other}"));
            }
            let others = bench.forge.keys();
            let bottle = bench.launch().unwrap_or_else(|error| panic!("{kind}: {error}"));
            let keys = bench.forge.keys();
            assert_eq!(keys.len(), 6, "{kind}: {:?}", bench.forge.log());
            assert_eq!((keys[5].title.as_str(), keys[5].read_only), ("claude-bottle-keys-app", !push));
            assert!(keys[5].public.starts_with("ssh-ed25519 AAAA"), "{:?}", keys[5]);
            let path = bench.state_root().bottle(&"keys".parse().unwrap()).dir().join("git-gate/app-key");
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            let compose = path.parent().unwrap().with_file_name("docker-compose.yml");
            let compose = std::fs::read_to_string(compose).unwrap();
            assert!(compose.contains(path.to_str().unwrap()) && compose.contains("/etc/git-gate/creds/app-key"));
            bench.assert_no_file_holds(TOKEN);
            let report = bottle.close().unwrap_or_else(|error| error.report);
            assert!(report.is_clean(), "{report}");
            assert_eq!(bench.forge.keys(), others, "{kind}: {:?}", bench.forge.log());
            assert_eq!(bench.forge.made(), 6);
            bench.assert_no_file_holds("PRIVATE KEY");
            assert!(bench.journal().undo.is_empty());
        }
    }
}

#[test]
fn each_error_of_a_forge_is_reported_and_leaves_no_key() {
    for kind in KINDS {
        for (fault, told) in [
            (Fault::Status(401), "it answered 401: it does not accept the token (it says: Bad credentials: [token])"),
            (Fault::Status(404), "it answered 404: there is no such repository, or the token may not see it"),
            (Fault::Status(422), "it answered 422: it does not take the key (it says: Validation Failed; "),
            (Fault::Status(500), "it answered 500, a failure of its own (it says: out of order)"),
            (Fault::MadeBut(502), "it answered 502, a failure of its own"),
            (Fault::Late(Duration::from_millis(2500)), "it did not answer: timeout"),
        ] {
            if kind != "github" && matches!(fault, Fault::Status(500) | Fault::Late(_)) {
                // They only take time, and do not differ between forges.
                continue;
            }
            let bench = Bench::new(kind);
            bench.forge.set_fault(Some(fault));
            let error = bench.launch().unwrap_err();
            let text = bottle::report(&error).to_string();
            assert!(text.contains(told), "{kind} {fault:?}: {text}");
            assert!(
                text.starts_with(
                    "failed to register the deploy keys: git upstream `app` (bottles.lab.git.upstreams[0].deploy_key)"
                ) && text.contains("`FORGE_TOKEN`")
                    && text.contains(&bench.forge.api_url(kind))
                    && !text.contains("could not be undone")
                    && !text.contains(TOKEN),
                "{text}"
            );
            assert!(error.teardown.unwrap().is_clean());
            bench.assert_nothing_left();
        }
    }
}

#[test]
fn an_unreachable_forge_and_a_missing_token_are_reported_at_once() {
    let bench = Bench { token: None, ..Bench::new("gitea") };
    let text = bottle::report(&bench.launch().unwrap_err()).to_string();
    let start = "failed to prepare the launch: read manifest: 1 mistake\n\n\
                 error: bottles.lab.git.upstreams[0].deploy_key.token: the variable `FORGE_TOKEN` is not set; git upstream \
                 `app` registers its deploy key with it\n";
    assert!(text.starts_with(start), "{text}");
    assert!(bench.forge.log().is_empty() && !bench.state_root().path().exists());

    let bench = Bench::new("no-such-forge");
    let text = bottle::report(&Bench { kind: "gitea", ..bench }.with_dead_port().launch().unwrap_err()).to_string();
    assert!(text.contains("it was not reached"), "{text}");
}

impl Bench {
    /// Changes the manifest to a port where nothing listens.
    fn with_dead_port(self) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { forge: FakeForge::dead(port), ..self }
    }
}

#[test]
fn a_launch_that_fails_later_revokes_its_key() {
    let bench = Bench::new("github");
    let cancel = bottle::exec::CancelToken::default();
    let stop = cancel.clone();
    let options = bench
        .options()
        .with_observer(Arc::new(move |event: &Event| {
            if matches!(event, Event::StepStarted { step } if step == "write the Compose file") {
                stop.cancel();
            }
        }))
        .with_cancel(cancel);
    let error = bench.launch_with(&options).unwrap_err();
    assert!(error.is_cancelled() && error.teardown.unwrap().is_clean());
    assert_eq!(bench.forge.made(), 1);
    bench.assert_nothing_left();
}

#[test]
fn a_key_that_was_deleted_at_the_forge_counts_as_revoked() {
    let bench = Bench::new("gitlab");
    let bottle = bench.launch().unwrap();
    bench.forge.remove_all();
    let report = bottle.close().unwrap_or_else(|error| error.report);
    assert!(report.is_clean(), "{report}");
    bench.assert_nothing_left();
}

#[test]
fn a_key_that_cannot_be_revoked_stays_in_the_journal_until_it_can() {
    let mut bench = Bench::new("github");
    let launched = bench.launch().unwrap();
    // The process that takes the bottle down has no token.
    launched.keep().unwrap();
    bench.token = None;
    let slug = "keys".parse().unwrap();
    let attach = |bench: &Bench| {
        let site = bench.options();
        site.attach(&slug).unwrap()
    };
    let report = attach(&bench).close().unwrap_or_else(|error| error.report);
    let failures: Vec<_> = report.failures().collect();
    assert_eq!(failures.len(), 1, "{report}");
    let told = failures[0].error.clone().unwrap();
    assert!(
        told.contains("the variable `FORGE_TOKEN` is not set, so the key `claude-bottle-keys-app` of `team/app`"),
        "{told}"
    );
    assert_eq!((bench.forge.keys().len(), bench.journal().undo.len(), bench.journal().status), (1, 1, Status::Closing));
    let refused = bench_with_token(&mut bench, "wrong", &attach);
    assert!(refused.contains("was not registered at http://127.0.0.1:"), "{refused}");
    assert_eq!(bench.forge.keys().len(), 1);
    let report = {
        bench.token = Some(TOKEN);
        attach(&bench).close().unwrap_or_else(|error| error.report)
    };
    assert!(report.is_clean(), "{report}");
    bench.assert_nothing_left();
}

/// Changes a field of the journal's entries for keys, takes the bottle down, and returns the report.
fn down_with(bench: &Bench, field: &str, value: &serde_json::Value) -> String {
    let slug = "keys".parse().unwrap();
    let file = JournalFile::open(&bench.state_root().bottle(&slug)).unwrap();
    let set = |undo: &mut Undo| {
        if let Undo::Extension { data, .. } = undo {
            data[field] = value.clone();
        }
    };
    file.change(|journal| journal.undo.iter_mut().for_each(set)).unwrap();
    let down = bench.options().down(&slug);
    down.map_or_else(|error| bottle::report(&error).to_string(), |report| report.to_string())
}

#[test]
fn a_changed_journal_revokes_no_key_of_somebody_else() {
    for (field, value, left) in [
        ("title", json!("claude-bottle-other-app"), 1),
        ("title", json!("claude-bottle-keys-else"), 1),
        ("public_key", json!("ssh-ed25519 AAAA"), 1),
        // The number does not select the key.
        ("id", json!(4711), 0),
    ] {
        let bench = Bench::new("github");
        bench.launch().unwrap().keep().unwrap();
        let told = down_with(&bench, field, &value);
        assert_eq!(told.contains("is not this bottle's"), value == "claude-bottle-other-app", "{field}: {told}");
        assert_eq!(bench.forge.keys().len(), left, "{field}: {told}");
    }
}

#[test]
fn a_changed_journal_sends_no_token_to_another_host() {
    let other = FakeForge::start();
    for (field, value) in [
        ("api_url", json!(other.api_url("github"))),
        ("repository", json!("team/other")),
        ("forge", json!("gitlab")),
        // Another secret of the launcher's environment.
        ("token", json!("HTTP_PROXY")),
        ("bound", json!(null)),
    ] {
        let bench = Bench::new("github");
        bench.launch().unwrap().keep().unwrap();
        let before = bench.forge.log().len();
        let told = down_with(&bench, field, &value);
        assert!(told.contains("was not registered at") && !told.contains(TOKEN), "{field}: {told}");
        assert_eq!((other.log().len(), bench.forge.log().len()), (0, before), "{field}");
    }
}

fn bench_with_token(bench: &mut Bench, token: &'static str, attach: &dyn Fn(&Bench) -> bottle::Bottle) -> String {
    bench.token = Some(token);
    attach(bench).close().unwrap_or_else(|error| error.report).to_string()
}

/// The time is bounded by the request's timeout plus the time to look for the key.
#[test]
fn a_forge_that_does_not_answer_takes_bounded_time() {
    let bench = Bench::new("github");
    bench.forge.set_fault(Some(Fault::Late(Duration::from_secs(2))));
    let started = Instant::now();
    bench.launch().unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
    bench.assert_nothing_left();
}
