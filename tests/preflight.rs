//! What a launch asks of an engine before it makes anything. The engine is a rehearsed one: no process is started.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::sync::Arc;

use bottle::exec::{Answer, Control, Matcher, RecordingBackend};
use bottle::plan::{HostFacts, PlanRequest, Prefix, StateRoot, UserIds};
use bottle::{Bottles, Engine, EngineChoice, Host, Manifest};

const MANIFEST: &str = "
bottles: {dev: {}}
agents: {demo: {bottle: dev, command: [sh]}}
";

/// What a launch says on a Docker of this version, and the commands that it ran.
fn launch(version: &str) -> (Result<(), String>, Vec<String>, bool) {
    let info = format!(
        r#"{{"ServerVersion":"{version}","OSType":"linux","Architecture":"x86_64",
            "Runtimes":{{"runc":{{}}}},"ClientInfo":{{"Plugins":[{{"Name":"compose","Version":"v2.38.1"}}]}}}}"#
    );
    let client = r#"{"Client":{"ApiVersion":"1.44","Context":"default"},"Server":{"Components":[{"Name":"Engine"}]}}"#;
    let backend = RecordingBackend::new()
        .with_answer(Matcher::prefix(["version"]), Answer::stdout(client))
        .with_answer(Matcher::prefix(["info"]), Answer::stdout(info.as_str()))
        .with_answer(Matcher::prefix(["context", "inspect"]), Answer::stdout("unix:///var/run/docker.sock\n"))
        .with_default(Answer::exit(1).with_stderr("it goes no further\n"));
    let backend = Arc::new(backend);
    let engine = Engine::detect(backend.clone(), &EngineChoice::Auto, Control::default()).unwrap();
    let before = backend.lines().len();
    let root = tempfile::tempdir().unwrap();
    let facts = HostFacts { home: root.path().into(), cwd: root.path().into(), user: UserIds { uid: 1000, gid: 1000 } };
    let request = PlanRequest {
        agent: None,
        slug: Some("resolver".parse().unwrap()),
        prefix: Prefix::default(),
        manifest_dir: None,
        host: &facts,
        random: [0; 5],
    };
    let plan = Manifest::parse(MANIFEST).unwrap().plan(request).unwrap();
    let state = root.path().join("state");
    let bottles = Bottles::new(engine, Host::new(facts, [])).with_state_root(StateRoot::at(&state));
    let launched = bottles.launch(plan).map(drop).map_err(|error| format!("{error}: {}", error.cause));
    (launched, backend.lines().split_off(before), state.exists())
}

#[test]
fn an_engine_whose_resolver_answers_an_internal_network_is_refused_before_anything_is_made() {
    for version in ["23.0.10", "24.0.9", "25.0.4"] {
        let (launched, lines, made) = launch(version);
        let error = launched.unwrap_err();
        assert!(error.contains("CVE-2024-29018") && error.contains(version), "{error}");
        assert!(lines.is_empty() && !made, "{version}: {lines:?}");
    }
    for version in ["23.0.11", "25.0.5", "26.1.5"] {
        let (launched, lines, _) = launch(version);
        assert!(!launched.unwrap_err().contains("CVE-2024-29018"), "{version}");
        assert!(!lines.is_empty(), "{version}");
    }
}
