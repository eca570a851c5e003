//! Checks of an engine before a launch creates anything. The engine is rehearsed: no process is started.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::sync::{Arc, Mutex};

use bottle::exec::{Answer, Control, Event, Matcher, Observer, RecordingBackend, rehearsal};
use bottle::plan::{HostFacts, PlanRequest, Prefix, StateRoot, UserIds};
use bottle::{Bottles, Engine, EngineChoice, Host, Manifest, Verify};

const MANIFEST: &str = "
bottles: {dev: {}}
agents: {demo: {bottle: dev, command: [sh]}}
";

/// Returns the error of a launch on a Docker of this version, the commands that it ran, and true if it wrote state.
fn launch(version: &str) -> (Result<(), String>, Vec<String>, bool) {
    launch_of(MANIFEST, version, "{}")
}

/// Like [`launch`], for a manifest and the engine's description of its runtime `runsc`.
fn launch_of(manifest: &str, version: &str, runsc: &str) -> (Result<(), String>, Vec<String>, bool) {
    let info = format!(
        r#"{{"ServerVersion":"{version}","OSType":"linux","Architecture":"x86_64",
            "Runtimes":{{"runc":{{}},"runsc":{runsc}}},"ClientInfo":{{"Plugins":[{{"Name":"compose","Version":"v2.38.1"}}]}}}}"#
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
    let plan = Manifest::parse(manifest).unwrap().plan(request).unwrap();
    let state = root.path().join("state");
    let bottles = Bottles::new(engine, Host::new(facts, [])).with_state_root(StateRoot::at(&state));
    let launched = bottles.launch(plan).map(drop).map_err(|error| format!("{error}: {}", error.cause));
    (launched, backend.lines().split_off(before), state.exists())
}

#[test]
fn a_gvisor_with_its_own_network_stack_is_refused() {
    let manifest = "bottles: {dev: {runtime: runsc}}\nagents: {demo: {bottle: dev, command: [sh]}}";
    let told = "the runtime `runsc` with `--network=host` among its `runtimeArgs`";
    let (launched, lines, made) = launch_of(manifest, "28.3.0", r#"{"path":"/usr/bin/runsc"}"#);
    let error = launched.unwrap_err();
    assert!(error.contains(told), "{error}");
    assert!(lines.is_empty() && !made, "{lines:?}");
    // A bottle of another runtime does not mind, and neither does one of gVisor on the kernel's stack.
    let host = r#"{"path":"/usr/bin/runsc","runtimeArgs":["--network=host"]}"#;
    for (manifest, runsc) in [(MANIFEST, r#"{"path":"/usr/bin/runsc"}"#), (manifest, host)] {
        let (launched, lines, _) = launch_of(manifest, "28.3.0", runsc);
        assert!(!launched.unwrap_err().contains(told));
        assert!(!lines.is_empty());
    }
}

#[test]
fn an_engine_whose_resolver_forwards_names_of_an_internal_network_is_refused() {
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

/// Launches a manifest on a rehearsed engine with scripted answers to `image inspect`. Returns the error, the commands,
/// and true if the state directory was created.
fn launch_with_images(images: &str, present: &[(&str, &str)]) -> (String, Vec<String>, bool) {
    let absent = || Answer::exit(1).with_stderr("Error: No such image\n");
    let engine = Engine::detect(Arc::new(rehearsal()), &EngineChoice::Auto, Control::default()).unwrap();
    let backend = present.iter().fold(RecordingBackend::new(), |backend, (name, digests)| {
        let found = format!(r#"[{{"Id":"sha256:0123","RepoDigests":{digests}}}]"#);
        backend.with_answer(Matcher::prefix(["image", "inspect", name]), Answer::stdout(found))
    });
    let backend = backend
        .with_answer(Matcher::prefix(["image", "inspect"]), absent())
        .with_default(Answer::exit(1).with_stderr("it goes no further\n"));
    let backend = Arc::new(backend);
    let root = tempfile::tempdir().unwrap();
    let facts = HostFacts { home: root.path().into(), cwd: root.path().into(), user: UserIds { uid: 1000, gid: 1000 } };
    let manifest = format!("bottles: {{dev: {{images: {images}}}}}\nagents: {{demo: {{bottle: dev, command: [sh]}}}}");
    let plan = Manifest::parse(&manifest).unwrap().plan(PlanRequest::new(&facts, [0; 5])).unwrap();
    let state = root.path().join("state");
    let bottles = Bottles::new(engine.with_backend(backend.clone()), Host::new(facts, []));
    let error = bottles.with_state_root(StateRoot::at(&state)).launch(plan).map(drop).unwrap_err();
    (bottle::report(&error).to_string(), backend.lines(), state.exists())
}

#[test]
fn an_image_with_another_digest_is_refused_before_anything_is_created() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let other = format!("sha256:{}", "b".repeat(64));
    let (tag, pinned) = ("images.example.com/firewall:2", format!("images.example.com/firewall:2@{digest}"));
    let other_digest = format!(r#"["images.example.com/firewall@{other}"]"#);
    let own_digest = format!(r#"["mirror.example.com/firewall@{digest}"]"#);

    // The tag has other content, or content without a digest.
    for (key, digests, found) in [
        ("pipelock", other_digest.as_str(), format!("is `images.example.com/firewall@{other}`\n")),
        ("git_gate", "[]", "is sha256:0123 and has no digest, because it was built or loaded here\n".to_owned()),
    ] {
        let (error, lines, made) = launch_with_images(&format!("{{{key}: '{pinned}'}}"), &[(tag, digests)]);
        let start = "failed to prepare the launch: read manifest: 1 mistake\n\n";
        let problem = format!("error: bottles.dev.images.{key}: the engine has another image than `{pinned}`: `");
        assert!(error.starts_with(start) && error.contains(&problem) && error.contains(&found), "{error}");
        assert!(error.contains(&format!("accepted: the image that `docker pull {pinned}` gives")), "{error}");
        assert!(!made && lines.iter().all(|line| line.contains("image inspect")), "{lines:?}");
    }
    // The engine has the digest under any name, or does not have the image and will pull it.
    for present in [vec![(pinned.as_str(), own_digest.as_str()), (tag, other_digest.as_str())], vec![]] {
        let (error, lines, made) = launch_with_images(&format!("{{pipelock: '{pinned}'}}"), &present);
        assert!(made && error.contains("it goes no further"), "{error}: {lines:?}");
    }
    // A reference without a digest is not compared.
    let (error, lines, _) = launch_with_images(&format!("{{pipelock: '{tag}'}}"), &[(tag, other_digest.as_str())]);
    assert!(error.contains("it goes no further") && !lines.iter().any(|line| line.ends_with(tag)), "{lines:?}");
}

#[test]
fn every_missing_path_is_named_with_its_key_in_the_manifest() {
    let root = tempfile::tempdir().unwrap();
    let facts = HostFacts { home: root.path().into(), cwd: root.path().into(), user: UserIds { uid: 1000, gid: 1000 } };
    let manifest = "bottles: {dev: {workspace: {path: nowhere}, tls: {upstream_ca: no-roots}}}
agents: {demo: {bottle: dev, command: [sh], skills: [no-skill]}}";
    let plan = Manifest::parse(manifest).unwrap().plan(PlanRequest::new(&facts, [0; 5])).unwrap();
    let engine = Engine::detect(Arc::new(rehearsal()), &EngineChoice::Auto, Control::default()).unwrap();
    let state = root.path().join("state");
    let bottles = Bottles::new(engine, Host::new(facts, [])).with_state_root(StateRoot::at(&state));
    let error = bottles.launch(plan).map(drop).unwrap_err();
    let text = bottle::report(&error).to_string();
    let path = |name: &str| root.path().join(name).display().to_string();
    for (key, path) in [
        ("bottles.dev.workspace.path", path("nowhere")),
        ("bottles.dev.tls.upstream_ca", path("no-roots")),
        ("agents.demo.skills[0]", path("no-skill")),
    ] {
        assert!(text.contains(&format!("error: {key}: `{path}` cannot be used: ")), "{text}");
    }
    assert!(!state.exists());
}

#[derive(Debug, Default)]
struct Warnings(Mutex<Vec<String>>);

impl Observer for Warnings {
    fn event(&self, event: &Event) {
        if let Event::Warning { message } = event {
            self.0.lock().unwrap().push(message.clone());
        }
    }
}

#[test]
fn an_environment_file_that_does_not_exist_is_a_warning() {
    let root = tempfile::tempdir().unwrap();
    let facts = HostFacts { home: root.path().into(), cwd: root.path().into(), user: UserIds { uid: 1000, gid: 1000 } };
    let manifest = "bottles: {dev: {env_file: missing.env, workspace: {mode: none}}}
agents: {demo: {bottle: dev, command: [sh]}}";
    let launch = || {
        let plan = Manifest::parse(manifest).unwrap().plan(PlanRequest::new(&facts, [0; 5])).unwrap();
        let engine = Engine::detect(Arc::new(rehearsal()), &EngineChoice::Auto, Control::default()).unwrap();
        let warnings = Arc::new(Warnings::default());
        let bottles = Bottles::new(engine, Host::new(facts.clone(), []));
        let bottles = bottles.with_state_root(StateRoot::at(root.path().join("state"))).with_observer(warnings.clone());
        let bottles = bottles.with_verification(Verify::Off);
        bottles.launch(plan).unwrap().close().unwrap();
        let warnings = warnings.0.lock().unwrap().clone();
        warnings.into_iter().filter(|warning| warning.contains("env_file")).collect::<Vec<_>>()
    };
    let path = root.path().join("missing.env");
    let warning = format!("bottles.dev.env_file: `{}` does not exist; no variable is read from it", path.display());
    assert_eq!(launch(), [warning]);
    std::fs::write(&path, "").unwrap();
    assert_eq!(launch(), [""; 0]);
}

/// Launches a manifest on a rehearsed engine of another host. Returns the report of an error and the commands.
fn launch_elsewhere(manifest: &str) -> (Result<(), String>, Vec<String>) {
    let info = r#"{"ServerVersion":"26.1.5","OSType":"linux","Architecture":"x86_64","Runtimes":{"runc":{}},
        "ClientInfo":{"Plugins":[{"Name":"compose","Version":"v2.26.1"}]}}"#;
    let client = r#"{"Client":{"ApiVersion":"1.44","Context":"default"},"Server":{"Components":[{"Name":"Engine"}]}}"#;
    let backend = RecordingBackend::new()
        .with_answer(Matcher::prefix(["version"]), Answer::stdout(client))
        .with_answer(Matcher::prefix(["info"]), Answer::stdout(info))
        .with_answer(Matcher::prefix(["context", "inspect"]), Answer::stdout("ssh://host.example.com\n"));
    let engine = Engine::detect(Arc::new(backend), &EngineChoice::Auto, Control::default()).unwrap();
    let backend = Arc::new(rehearsal());
    let root = tempfile::tempdir().unwrap();
    let facts = HostFacts { home: root.path().into(), cwd: root.path().into(), user: UserIds { uid: 1000, gid: 1000 } };
    let plan = Manifest::parse(manifest).unwrap().plan(PlanRequest::new(&facts, [0; 5])).unwrap();
    let token = [("TOKEN".into(), "hunter2".into())];
    let bottles = Bottles::new(engine.with_backend(backend.clone()), Host::new(facts, token));
    let bottles = bottles.with_state_root(StateRoot::at(root.path().join("state"))).with_verification(Verify::Off);
    let launched =
        bottles.launch(plan).map(|bottle| drop(bottle.close())).map_err(|error| bottle::report(&error).to_string());
    (launched, backend.lines())
}

#[test]
fn an_engine_of_another_host_gets_the_files_before_any_service_starts() {
    let manifest =
        "bottles: {dev: {workspace: {mode: none}, supervise: true}}\nagents: {demo: {bottle: dev, command: [sh]}}";
    let (launched, lines) = launch_elsewhere(manifest);
    launched.unwrap();
    let place =
        |what: &str| lines.iter().position(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {lines:#?}"));
    let files = place(" /unpack /store");
    assert!(lines[files].starts_with("docker exec --interactive claude-bottle-store-demo-"), "{}", lines[files]);
    assert!(place("docker start claude-bottle-store-demo-") < files);
    for service in ["seal", "pipelock", "supervise"] {
        assert!(files < place(&format!("docker start claude-bottle-{service}-demo-")), "{service}");
    }
    // The engine knows which subnets its host has no route for.
    assert!(!lines.iter().any(|line| line.contains("--subnet")), "{lines:#?}");
}

#[test]
fn what_an_engine_of_another_host_would_keep_or_does_not_see_is_refused() {
    let bottle = "{workspace: {mode: bind}, env: {A: $TOKEN, B: plain}, env_file: agent.env, secrets: environment}";
    let (launched, lines) =
        launch_elsewhere(&format!("bottles: {{dev: {bottle}}}\nagents: {{demo: {{bottle: dev, command: [sh]}}}}"));
    let error = launched.unwrap_err();
    for key in ["workspace.mode", "env.A", "env_file", "secrets"] {
        assert!(error.contains(&format!("error: bottles.dev.{key}: the engine ")), "{key}: {error}");
    }
    assert!(!error.contains("env.B") && lines.is_empty(), "{lines:?}");
}
