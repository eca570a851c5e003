//! Stop and start of a bottle on an engine that runs nothing: the order of the commands.

#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bottle_engine::{CopyMethod, Engine, EngineChoice, Start, rehearsal};
use bottle_exec::{Answer, Control, Matcher, RecordingBackend, chain};
use bottle_lifecycle::{
    Bottle, BottleError, CredentialSource, Fresh, Handle, Journal, JournalFile, Owner, Restart, StartOptions, Status,
    TeardownOptions, root_id,
};
use bottle_plan::{Names, Prefix, SecretValue, Secrets, StateRoot};
use bottle_verify::Verify;

#[derive(Debug)]
struct Known(bool);

impl CredentialSource for Known {
    fn read(&self, restart: &Restart) -> Result<Fresh, Box<dyn Error + Send + Sync>> {
        if !self.0 {
            return Err("the variable `TOKEN` is not set".into());
        }
        let mut values = Secrets::default();
        for slot in restart.credentials.iter().flat_map(|(_, slots)| slots) {
            values.insert(slot.clone(), SecretValue::new("a-secret-value"));
        }
        Ok(Fresh { values, renewals: Vec::new() })
    }
}

/// Returns the engine's description of a container of the bottle.
fn container(root: &StateRoot, service: &str, status: &str) -> serde_json::Value {
    let name =
        if service == "agent" { "/claude-bottle-demo".to_owned() } else { format!("/claude-bottle-{service}-demo") };
    let labels = serde_json::json!({
        "com.docker.compose.service": service, "claude-bottle.slug": "demo", "claude-bottle.state": root_id(root),
    });
    serde_json::json!({"Name": name, "State": {"Status": status}, "Config": {"Labels": labels}})
}

/// Returns a bottle whose containers have these states, with the engine's answers for each container after its start.
fn bottle(directory: &std::path::Path, statuses: [(&str, &str); 3]) -> (Arc<RecordingBackend>, Bottle) {
    bottle_until(directory, statuses, None)
}

/// Returns the same bottle with certificate authorities that end at a time.
fn bottle_until(
    directory: &std::path::Path,
    statuses: [(&str, &str); 3],
    valid_until: Option<SystemTime>,
) -> (Arc<RecordingBackend>, Bottle) {
    let root = StateRoot::at(directory.join("state"));
    let names = Names::new(Prefix::default(), "demo".parse().unwrap());
    let layout = root.bottle(names.slug());
    let owner = Owner { pid: u32::MAX >> 2, start_time: Some(1), scope: None };
    let file = JournalFile::create(&layout, Journal::new(&names, "dev".parse().unwrap(), owner, "docker")).unwrap();
    let start = |container: &str, after: &[&str]| Start {
        container: container.to_owned(),
        after_started: Vec::new(),
        after_healthy: after.iter().map(|&name| name.to_owned()).collect(),
        has_check: container != "claude-bottle-demo",
    };
    let handle = Handle {
        container: "claude-bottle-demo".into(),
        user: None,
        workdir: None,
        agent: Vec::new(),
        copy: CopyMethod::Engine,
        expected: None,
        limits: bottle_plan::manifest::LimitsSpec::default(),
        restart: Some(Restart {
            // The order in the list does not matter.
            order: vec![
                start("claude-bottle-demo", &["claude-bottle-seal-demo"]),
                start("claude-bottle-seal-demo", &[]),
                start("claude-bottle-egress-demo", &[]),
            ],
            credentials: vec![("claude-bottle-egress-demo".into(), vec!["TOKEN".parse().unwrap()])],
            directory: "/run/credentials".into(),
            store: None,
            valid_until,
        }),
    };
    file.change(|journal| (journal.status, journal.handle) = (Status::Ready, Some(handle))).unwrap();
    let all: Vec<_> = statuses.iter().map(|(service, status)| container(&root, service, status)).collect();
    let healthy = r#"[{"Name":"/x","State":{"Status":"running","Health":{"Status":"healthy"}},"Config":{}}]"#;
    let backend = RecordingBackend::new()
        .with_answer(Matcher::prefix(["container", "ls"]), Answer::stdout("c1\nc2\nc3\n"))
        .with_answer(Matcher::words(["inspect", "c1"]), Answer::stdout(serde_json::Value::from(all).to_string()))
        .with_answer(Matcher::prefix(["container", "inspect"]), Answer::stdout(healthy));
    let backend = Arc::new(backend);
    let info = Engine::detect(Arc::new(rehearsal()), &EngineChoice::Auto, Control::default()).unwrap();
    let engine = info.with_backend(backend.clone());
    let bottle = Bottle::attach(engine, &root, names, TeardownOptions::default()).unwrap();
    backend.clear();
    let options = StartOptions::default().with_verification(Verify::Off).with_wait(Duration::from_secs(5));
    (backend, bottle.with_start(options.with_credentials(Arc::new(Known(true)))))
}

const STOPPED: [(&str, &str); 3] = [("agent", "exited"), ("seal", "exited"), ("egress", "exited")];

#[test]
fn the_agent_starts_after_its_seal_is_healthy_and_a_sidecar_gets_its_credentials_again() {
    let directory = tempfile::tempdir().unwrap();
    let (backend, bottle) = bottle(directory.path(), STOPPED);
    bottle.start().unwrap();
    let lines = backend.lines();
    let at = |wanted: &str| lines.iter().position(|line| line.contains(wanted)).unwrap_or_else(|| panic!("{lines:#?}"));
    assert!(at("start claude-bottle-seal-demo") < at("container inspect claude-bottle-seal-demo"), "{lines:#?}");
    assert!(at("container inspect claude-bottle-seal-demo") < at("docker start claude-bottle-demo"), "{lines:#?}");
    assert!(at("start claude-bottle-egress-demo") < at("--workdir /run/credentials"), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("docker stop") || line.contains("a-secret-value")), "{lines:#?}");
}

#[test]
fn a_bottle_whose_authorities_have_expired_is_not_started() {
    let now = SystemTime::now();
    let directory = tempfile::tempdir().unwrap();
    let (backend, expired) = bottle_until(directory.path(), STOPPED, Some(now - Duration::from_secs(1)));
    let error = expired.start().unwrap_err().to_string();
    assert!(error.contains("its certificate authorities have expired; launch the bottle again"), "{error}");
    assert!(!backend.lines().iter().any(|line| line.contains("docker start")), "{:#?}", backend.lines());
    let directory = tempfile::tempdir().unwrap();
    bottle_until(directory.path(), STOPPED, Some(now + Duration::from_secs(600))).1.start().unwrap();
}

#[test]
fn what_still_runs_is_stopped_before_anything_is_started() {
    let directory = tempfile::tempdir().unwrap();
    // The engine restarted the sidecars, and the agent has ended.
    let (backend, bottle) = bottle(directory.path(), [("agent", "exited"), ("seal", "running"), ("egress", "running")]);
    // This engine's containers never end.
    let error = bottle.start().unwrap_err();
    assert!(chain(&error).contains("although it was stopped"), "{}", chain(&error));
    let lines = backend.lines();
    assert!(
        lines.contains(&"docker stop -t 3 claude-bottle-egress-demo claude-bottle-seal-demo".to_owned()),
        "{lines:#?}"
    );
    assert!(!lines.iter().any(|line| line.contains("docker start ")), "{lines:#?}");
}

#[test]
fn a_bottle_that_cannot_be_started_says_why_and_starts_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |statuses: [(&str, &str); 3], change: fn(StartOptions) -> StartOptions| {
        let place = tempfile::tempdir_in(directory.path()).unwrap();
        let (backend, bottle) = bottle(place.path(), statuses);
        let options = StartOptions::default().with_credentials(Arc::new(Known(true)));
        let error = bottle.with_start(change(options)).start().unwrap_err();
        assert!(!backend.lines().iter().any(|line| line.contains("docker start")), "{:#?}", backend.lines());
        error
    };
    let paused = refused([("agent", "paused"), ("seal", "running"), ("egress", "running")], |it| it);
    assert!(paused.to_string().ends_with("it is paused; accepted: `resume`, or `stop` first"), "{paused}");
    let removed = refused([("agent", "exited"), ("other", "exited"), ("egress", "exited")], |it| it);
    assert!(removed.to_string().contains("`claude-bottle-seal-demo` was removed"), "{removed}");
    let unset = refused(STOPPED, |it| it.with_credentials(Arc::new(Known(false))));
    assert!(matches!(unset, BottleError::Credentials { .. }), "{unset}");
    assert!(chain(&unset).contains("`TOKEN` is not set"), "{}", chain(&unset));
    let without = refused(STOPPED, |_| StartOptions::default());
    assert!(without.to_string().contains("no source for the credentials"), "{without}");
}
