//! Compose accepts every document and reads every string unchanged.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use bottle::compose::document::{Mount, Service, Variable};
use bottle::compose::{ComposeFile, Sidecar, render};
use bottle::plan::{LaunchFacts, ResolvedPlan};
use bottle_testing::lab::figure;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

/// Value of every bare name. Compose does not interpolate it.
const BARE: &str = "v$x ${HOME} \"q\" 'l'\nline";

/// Number of random plans, besides the named ones.
const RANDOM: usize = 60;

#[test]
#[ignore = "needs a container engine"]
fn compose_accepts_every_document_and_reads_every_string_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("empty.env"), "").unwrap();
    fs::write(dir.path().join("agent.env"), "FROM_FILE='lit$eral'\n").unwrap();
    let mut plans = bottle_testing::plans::topologies();
    plans.push(("fullest".into(), bottle_testing::plans::fullest()));
    let (strategy, mut runner) = (bottle_testing::random::resolved_plan(), TestRunner::deterministic());
    plans.extend((0..RANDOM).map(|index| {
        (format!("random {index}"), strategy.new_tree(&mut runner).expect("the strategy gives plans").current())
    }));
    let mut strings = 0;
    for (name, plan) in plans {
        let document = document(&with_real_env_file(&plan, dir.path()));
        let file = dir.path().join("docker-compose.yml");
        fs::write(&file, document.to_yaml()).unwrap();
        compose(dir.path(), &document, &["config", "-q"]);
        let shown = compose(dir.path(), &document, &["config", "--format", "json"]);
        let shown = halved(serde_json::from_str(&shown).unwrap());
        strings += compare(&name, &document, &shown);
    }
    figure(format_args!("{strings} strings are what they were"));
}

fn document(plan: &ResolvedPlan) -> ComposeFile {
    let sidecars = bottle::sidecars::all();
    let sidecars: Vec<&dyn Sidecar> = sidecars.iter().map(|sidecar| &**sidecar).collect();
    render(plan, &sidecars).expect("the built-in sidecars fit each other")
}

/// Compose reads the agent's environment file, so the file must exist.
fn with_real_env_file(plan: &ResolvedPlan, dir: &Path) -> ResolvedPlan {
    let mut facts: LaunchFacts = plan.launch().clone();
    facts.agent.env_file = facts.agent.env_file.map(|_| dir.join("agent.env"));
    plan.plan().clone().resolve(facts).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test hands its own surroundings to the engine's client")]
fn compose(dir: &Path, document: &ComposeFile, arguments: &[&str]) -> String {
    let bare =
        document.services.iter().flat_map(|(_, service)| &service.environment).filter_map(|variable| match variable {
            Variable::Bare(name) => Some((name.clone(), BARE.to_owned())),
            Variable::Set(..) => None,
        });
    let inherited = ["PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"];
    let inherited = inherited.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    let output = Command::new("docker")
        .args(["compose", "--project-directory"])
        .arg(dir)
        .arg("--env-file")
        .arg(dir.join("empty.env"))
        .arg("-f")
        .arg(dir.join("docker-compose.yml"))
        .args(arguments)
        .env_clear()
        .envs(inherited)
        .envs(bare)
        .stdin(Stdio::null())
        .output()
        .expect("docker can be run");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}\n{}", document.to_yaml());
    assert!(complaint.trim().is_empty(), "{complaint}\n{}", document.to_yaml());
    String::from_utf8(output.stdout).expect("JSON is UTF-8")
}

/// Replaces `$$` by `$`, because Compose doubles every `$` in its output.
fn halved(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace("$$", "$")),
        Value::Array(items) => items.into_iter().map(halved).collect(),
        Value::Object(entries) => Value::Object(entries.into_iter().map(|(key, value)| (key, halved(value))).collect()),
        other => other,
    }
}

/// Compares each string of the document with Compose's output. Returns their number.
fn compare(name: &str, document: &ComposeFile, shown: &Value) -> usize {
    assert_eq!(shown["name"], document.name.as_str(), "{name}");
    let mut strings = 1;
    let services = shown["services"].as_object().unwrap();
    assert_eq!(services.len(), document.services.len(), "{name}");
    for (service_name, service) in &document.services {
        let shown = &services[service_name];
        for (key, ours) in expected(service) {
            assert_eq!(shown.get(key).unwrap_or(&Value::Null), &ours, "{name}: {service_name}.{key}");
            strings += count(&ours);
        }
    }
    for (network_name, network) in &document.networks {
        let shown = &shown["networks"][network_name];
        assert_eq!(shown["name"], network.name.as_str(), "{name}");
        assert_eq!(shown.get("external").is_some(), network.external, "{name}");
        assert_eq!(shown.get("internal").is_some(), network.internal, "{name}");
        let options = shown.get("driver_opts").cloned().unwrap_or_else(|| json!({}));
        assert_eq!(options, json!(network.driver_opts), "{name}");
        assert_eq!(shown.get("labels").cloned().unwrap_or_else(|| json!({})), json!(network.labels), "{name}");
    }
    for (volume_name, volume) in &document.volumes {
        let shown = &shown["volumes"][volume_name];
        assert_eq!((&shown["name"], &shown["driver"]), (&json!(volume.name), &json!(volume.driver)), "{name}");
        let options = shown.get("driver_opts").cloned().unwrap_or_else(|| json!({}));
        assert_eq!(options, json!(volume.driver_opts), "{name}");
        assert_eq!(shown["labels"], json!(volume.labels), "{name}");
    }
    strings
}

/// Returns a service's strings as Compose prints them. Null: Compose omits the key.
fn expected(service: &Service) -> Vec<(&'static str, Value)> {
    let list = |items: &[String]| if items.is_empty() { Value::Null } else { json!(items) };
    let mut environment: BTreeMap<&str, &str> = service
        .environment
        .iter()
        .map(|variable| match variable {
            Variable::Set(name, value) => (name.as_str(), value.as_str()),
            Variable::Bare(name) => (name.as_str(), BARE),
        })
        .collect();
    if !service.env_file.is_empty() {
        environment.insert("FROM_FILE", "lit$eral");
    }
    let mount = |mount: &Mount| {
        let (mut shown, read_only) = match mount {
            Mount::Bind(bind) => {
                (json!({"type": "bind", "source": bind.source, "target": bind.target, "bind": {}}), bind.read_only)
            }
            Mount::Volume(volume) => {
                let options = if volume.of_image { json!({}) } else { json!({"nocopy": true}) };
                (
                    json!({"type": "volume", "source": volume.source, "target": volume.target, "volume": options}),
                    volume.read_only,
                )
            }
        };
        if read_only {
            shown["read_only"] = json!(true);
        }
        shown
    };
    let hosts: Vec<String> = service.extra_hosts.iter().map(|host| host.replacen(':', "=", 1)).collect();
    vec![
        ("image", json!(service.image)),
        ("container_name", json!(service.container_name)),
        ("command", list(&service.command)),
        ("runtime", json!(service.runtime)),
        ("user", json!(service.user)),
        ("environment", if environment.is_empty() { Value::Null } else { json!(environment) }),
        ("volumes", if service.volumes.is_empty() { Value::Null } else { service.volumes.iter().map(mount).collect() }),
        ("extra_hosts", list(&hosts)),
        ("tmpfs", list(&service.tmpfs)),
        ("dns", list(&service.dns)),
        ("labels", json!(service.labels)),
        ("cap_drop", list(&service.cap_drop)),
        ("security_opt", list(&service.security_opt)),
    ]
}

fn count(value: &Value) -> usize {
    match value {
        Value::String(_) => 1,
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(entries) => entries.values().map(count).sum(),
        _ => 0,
    }
}
