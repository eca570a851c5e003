//! Launches without a cluster: the commands of `kubectl`, and where values are.

#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]

use std::collections::BTreeMap;
use std::sync::Arc;

use bottle_exec::{Answer, Matcher, RecordingBackend, Stdin};
use bottle_kube::{ImageSource, KubeBottles, KubeError, KubeImages, KubeInputs, Kubectl, NamedImages, Ownership};
use bottle_plan::{BottlePlan, Manifest, Service};
use bottle_testing::plans;
use serde_json::{Value, json};

const TOKEN: &str = "hunter2-the-real-one";
const FORWARDED: &str = "a forwarded 'value'";

/// Images that are there already.
#[derive(Debug)]
struct Images;

impl ImageSource for Images {
    fn provide(&self, _: &BottlePlan) -> Result<KubeImages, KubeError> {
        let services = [Service::Agent, Service::Seal, Service::Egress, Service::GitGate, Service::Supervise];
        let image = |service: Service| (service, format!("registry.example.com/{service}:1").parse().unwrap());
        Ok(BTreeMap::from(services.map(image)).into())
    }
}

fn plan() -> BottlePlan {
    let text = "
bottles:
  dev:
    workspace: {mode: none}
    env: {NOTE: {forward: true}}
    egress:
      routes: [{host: api.example.com, inject: {token: KEY, scheme: bearer}}]
agents: {demo: {bottle: dev, command: [id]}}
";
    plans::plan(&Manifest::parse(text).unwrap())
}

fn inputs(plan: &BottlePlan) -> KubeInputs {
    let values = BTreeMap::from([("KEY", TOKEN), ("NOTE", FORWARDED)]);
    KubeInputs::read(plan, |name| values.get(name).map(|value| (*value).to_owned())).unwrap()
}

fn service(namespace: &str, name: &str, address: &str, port: u16) -> Value {
    let metadata = json!({"namespace": namespace, "name": name});
    json!({"metadata": metadata, "spec": {"clusterIP": address, "ports": [{"port": port}]}})
}

/// The output of the watch: each Pod while its gate runs, then its last state.
fn watch(end: &Value) -> String {
    let pods = ["pipelock", "egress", "agent"];
    let gate = json!({"phase": "Pending", "initContainerStatuses": [{"name": "gate", "state": {"running": {}}}]});
    let events = [&gate, end].into_iter().flat_map(|status| {
        pods.map(|name| {
            json!({"type": "MODIFIED", "object": {"metadata": {"name": name}, "status": status}}).to_string()
        })
    });
    events.collect::<Vec<_>>().join("\n")
}

fn ready() -> Value {
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})
}

fn cluster(end: &Value, attacks: &str) -> RecordingBackend {
    let namespace = "claude-bottle-demo-1";
    let services = json!({"items": [
        service("default", "kubernetes", "10.43.0.1", 443),
        service("kube-system", "kube-dns", "10.43.0.10", 53),
        service(namespace, "egress", "10.43.7.1", 9099),
        service(namespace, "pipelock", "10.43.7.2", 8888),
    ]});
    let pods = json!({"items": [
        {"metadata": {"name": "egress"}, "status": {"podIP": "10.42.0.7", "hostIP": "192.0.2.9"}},
        {"metadata": {"name": "agent"}, "status": {"podIP": "10.42.0.8", "hostIP": "192.0.2.9"}},
    ]});
    RecordingBackend::new()
        .with_answer(Matcher::words(["get", "services"]), Answer::stdout(services.to_string()))
        .with_answer(Matcher::words(["get", "pods", "--watch"]), Answer::stdout(watch(end)))
        .with_answer(Matcher::words(["get", "pods"]), Answer::stdout(pods.to_string()))
        .with_answer(
            Matcher::words(["logs"]),
            Answer::stdout("gate: network policies are not enforced: egress:20009 is reachable\n"),
        )
        .with_answer(Matcher::words(["exec", "agent", "verify"]), Answer::stdout(attacks.to_owned()))
}

/// A line for every attack that the bottle is subject to, and more.
fn held() -> String {
    "held by a test\n".repeat(100)
}

fn bottles(backend: &Arc<RecordingBackend>) -> KubeBottles {
    KubeBottles::new(Kubectl::new(backend.clone()).with_context("test"), Arc::new(Images))
}

#[test]
fn a_launch_runs_these_commands() {
    let backend = Arc::new(cluster(&ready(), &held()));
    let plan = plan();
    let inputs = inputs(&plan);
    let bottle = bottles(&backend).launch(plan, &inputs).unwrap();
    bottle.exec(["git", "status"]).unwrap();
    bottle.close().unwrap();
    // Hand-overs run at the same time, as do the verification and the record of the end.
    let mut lines: Vec<String> = backend.lines().iter().map(|line| shortened(line)).collect();
    lines.sort();
    insta::assert_snapshot!(lines.join("\n"));
    assert!(
        backend
            .lines()
            .last()
            .unwrap()
            .ends_with("delete --ignore-not-found --wait=true namespace claude-bottle-demo-1")
    );
}

/// A command without its scripts, its random number and the size of its input.
fn shortened(line: &str) -> String {
    let words = line.split(" # reads ").next().unwrap_or_default().split_inclusive(' ').map(|word| {
        let number = word.trim();
        if number.len() > 15 && number.bytes().all(|byte| byte.is_ascii_digit()) { "<number> " } else { word }
    });
    words.collect::<String>().chars().take(260).collect()
}

#[test]
fn values_are_in_hand_overs_alone() {
    let backend = Arc::new(cluster(&ready(), &held()));
    let plan = plan();
    let inputs = inputs(&plan);
    bottles(&backend).launch(plan, &inputs).unwrap().close().unwrap();
    let mut receivers = Vec::new();
    for command in backend.commands() {
        let shown = format!("{command} {command:?}");
        assert!(
            !shown.contains(TOKEN) && !shown.contains("PRIVATE KEY-----") && !shown.contains("forwarded 'value"),
            "{shown}"
        );
        let Stdin::Bytes(given) = command.stdin() else { continue };
        let given = String::from_utf8_lossy(given);
        let of = |text: &str| {
            given
                .contains(text)
                .then(|| command.args().iter().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>())
        };
        for (what, found) in [
            ("token", of(TOKEN)),
            ("key", of("PRIVATE KEY-----")),
            ("value", of(r"export NOTE='a forwarded '\''value'\'''")),
        ] {
            receivers.extend(found.map(|args| format!("{what}: {} {}", args[2], args[5])));
        }
    }
    receivers.sort();
    assert_eq!(receivers, ["key: exec egress", "key: exec pipelock", "token: exec egress", "value: exec agent"]);
}

#[test]
fn a_cluster_without_policies_is_refused_and_left_as_it_was() {
    let ended = json!({"phase": "Pending", "initContainerStatuses": [{"name": "gate", "state": {"terminated": {"exitCode": 1}}}]});
    let backend = Arc::new(cluster(&ended, &held()));
    let plan = plan();
    let inputs = inputs(&plan);
    let error = bottles(&backend).launch(plan, &inputs).unwrap_err();
    assert!(
        matches!(&error, KubeError::NotEnforced { detail, .. } if detail == "egress:20009 is reachable"),
        "{error}"
    );
    assert!(backend.lines().last().unwrap().contains("delete"), "{:?}", backend.lines().last());
}

#[test]
fn a_missing_protection_fails_the_launch() {
    let attacks = held().replacen("held", "failed", 1);
    let backend = Arc::new(cluster(&ready(), &attacks));
    let plan = plan();
    let inputs = inputs(&plan);
    let error = bottles(&backend).launch(plan, &inputs).unwrap_err();
    assert_eq!(error.to_string(), "prove that each protection holds: processes: by a test");
    assert!(backend.lines().last().unwrap().contains("delete"));
}

#[test]
fn a_bottle_that_exists_is_not_touched() {
    let lease = json!({"spec": {"holderIdentity": "7:1:00000000.1"}});
    let backend = Arc::new(
        RecordingBackend::new()
            .with_answer(Matcher::words(["create"]), Answer::exit(1).with_stderr("Error from server (AlreadyExists)"))
            .with_answer(Matcher::words(["get", "namespace"]), Answer::stdout("{}"))
            .with_answer(Matcher::words(["get", "lease"]), Answer::stdout(lease.to_string())),
    );
    let plan = plan();
    let inputs = inputs(&plan);
    let error = bottles(&backend).launch(plan, &inputs).unwrap_err();
    let expected = "create namespace `claude-bottle-demo-1`: it exists (owner: 7:1:00000000.1); use another slug, or remove the bottle";
    assert_eq!(error.to_string(), expected);
    assert!(
        backend.lines().iter().all(|line| !line.contains("delete") && !line.contains("apply")),
        "{:?}",
        backend.lines()
    );
}

#[test]
fn only_an_abandoned_bottle_is_recovered() {
    let namespace = |name: &str, created: &str| json!({"metadata": {"name": name, "creationTimestamp": created, "labels": {"claude-bottle.slug": name}}, "status": {"phase": "Active"}});
    let lease = |name: &str, renewed: &str| json!({"metadata": {"namespace": name, "managedFields": [{"time": renewed}]}, "spec": {"holderIdentity": "7:1:00000000.1"}});
    let list = |items: Value| Answer::stdout(json!({"items": items}).to_string());
    let old = "2026-01-01T00:00:00Z";
    let backend = Arc::new(
        RecordingBackend::new()
            .with_answer(
                Matcher::words(["get", "namespaces"]),
                list(json!([namespace("dead", old), namespace("alive", old)])),
            )
            .with_answer(
                Matcher::words(["get", "leases"]),
                list(json!([lease("dead", old), lease("alive", "2026-01-02T00:00:00Z")])),
            )
            .with_answer(
                Matcher::words(["create", "--dry-run=server"]),
                Answer::stdout(r#"{"metadata": {"creationTimestamp": "2026-01-02T00:00:10Z"}}"#),
            ),
    );
    let bottles = bottles(&backend);
    let found = bottles.list().unwrap();
    assert_eq!(
        found.iter().map(|bottle| bottle.ownership).collect::<Vec<_>>(),
        [Ownership::Abandoned, Ownership::Owned]
    );
    assert_eq!(bottles.recover().unwrap(), ["dead"]);
    let removed = backend.lines().into_iter().filter(|line| line.contains("delete")).collect::<Vec<_>>();
    assert_eq!(removed, ["kubectl --context test delete --ignore-not-found --wait=true namespace dead"]);
}

#[test]
fn a_directory_has_secrets_in_files_of_their_own() {
    let backend = Arc::new(RecordingBackend::new());
    let images = NamedImages { registry: "registry.example.com/agents/".into() };
    let bottles = KubeBottles::new(Kubectl::new(backend.clone()), Arc::new(images));
    let plan = plan();
    let inputs = inputs(&plan);
    let files = bottles.directory(plan, &inputs, "10.43.240.0/29".parse().unwrap()).unwrap();
    assert_eq!(backend.lines(), [""; 0], "a directory needs no cluster");
    insta::assert_snapshot!(files["kustomization.yaml"].content.expose());
    let objects = files["objects.yaml"].content.expose();
    assert!(
        objects.contains("registry.example.com/agents/claude-bottle-egress:") && objects.contains("10.43.240.2"),
        "{objects}"
    );
    for (path, file) in &files {
        let text = file.content.expose();
        let holds = [TOKEN, FORWARDED, "PRIVATE KEY-----"].iter().any(|secret| text.contains(secret));
        assert_eq!((holds, path.starts_with("secrets/")), (file.is_secret, file.is_secret), "{path}");
    }
}

#[test]
fn what_a_cluster_cannot_have_is_refused_before_anything_is_created() {
    let read = |lines: &str| {
        let text = format!("bottles:\n  dev:\n    {lines}\nagents: {{demo: {{bottle: dev, command: [id]}}}}");
        KubeInputs::read(&plans::plan(&Manifest::parse(&text).unwrap()), |_| None).unwrap_err().to_string()
    };
    insta::assert_snapshot!(read("env_file: agent.env"), @"prepare the launch: bottles.dev.env_file: a bottle on a cluster reads no environment file; accepted: `env`");
    insta::assert_snapshot!(read("limits: {idle: 5m}"), @"prepare the launch: bottles.dev.limits.idle: a cluster pauses no container; accepted: `limits.time`");
    insta::assert_snapshot!(read("env: {A: {forward: B}}"), @"prepare the launch: bottles.dev.env.A: the variable `B` is not set; the agent's variable `A` forwards it");
}
