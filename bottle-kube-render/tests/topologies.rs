//! Snapshots of the objects of every topology, and what holds for all of them.

#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bottle_compose::Sidecar;
use bottle_kube_render::{Content, Delivery, KubeOptions, Manifests, RenderError, render, to_yaml};
use bottle_plan::manifest::WorkspaceMode;
use bottle_plan::{Manifest, ResolvedPlan};
use bottle_testing::plans;
use serde_json::Value;

fn manifests(plan: &ResolvedPlan, options: &KubeOptions, delivery: Delivery) -> Result<Manifests, RenderError> {
    let sidecars = bottle_sidecars::all();
    let sidecars: Vec<&dyn Sidecar> = sidecars.iter().map(|sidecar| &**sidecar).collect();
    render(plan, &sidecars, options, delivery)
}

fn addresses(manifests: &Manifests) -> BTreeMap<String, IpAddr> {
    let address = |number: usize| IpAddr::from([10, 43, 200, u8::try_from(number).unwrap() + 1]);
    manifests.services().enumerate().map(|(number, name)| (name.to_owned(), address(number))).collect()
}

/// Every topology that a cluster can have, and the manifest with every key.
fn topologies() -> Vec<(String, ResolvedPlan)> {
    let plain = plans::topologies().into_iter().filter(|(name, _)| name.ends_with("__plain") || name == "alone__runsc");
    plain.chain([("fullest".to_owned(), fullest())]).collect()
}

/// The manifest with every key, but for its workspace, which is a directory of the host.
fn fullest() -> ResolvedPlan {
    let plan = plans::fullest();
    let (mut bottle, facts) = (plan.plan().clone(), plan.launch().clone());
    bottle.workspace.mode = WorkspaceMode::Copy;
    bottle.resolve(facts).unwrap()
}

fn objects(plan: &ResolvedPlan, options: &KubeOptions, delivery: Delivery) -> Vec<Value> {
    let manifests = manifests(plan, options, delivery).unwrap();
    let objects = manifests.with_addresses(&addresses(&manifests)).unwrap();
    objects.iter().map(|object| serde_json::to_value(object).unwrap()).collect()
}

#[test]
fn documents() {
    for (name, plan) in topologies() {
        let manifests = manifests(&plan, &KubeOptions::default(), Delivery::HandOver).unwrap();
        let objects = manifests.with_addresses(&addresses(&manifests)).unwrap();
        insta::assert_snapshot!(name, to_yaml(&objects));
    }
    let options = KubeOptions {
        priority_class: Some("batch".into()),
        node_selector: BTreeMap::from([("pool".into(), "agents".into())]),
        hosts: BTreeMap::from([("web.example.com".parse().unwrap(), "198.51.100.9".parse().unwrap())]),
        ..KubeOptions::default()
    };
    let (_, plan) =
        plans::topologies().into_iter().find(|(name, _)| name == "egress_git_gate_supervise__plain").unwrap();
    let manifests = manifests(&plan, &options, Delivery::Objects).unwrap();
    let objects = manifests.with_addresses(&addresses(&manifests)).unwrap();
    insta::assert_snapshot!("as_objects", to_yaml(&objects));
}

#[test]
fn yaml_reads_back_as_the_objects() {
    let (_, plan) = topologies().pop().unwrap();
    let manifests = manifests(&plan, &KubeOptions::default(), Delivery::HandOver).unwrap();
    let objects = manifests.with_addresses(&addresses(&manifests)).unwrap();
    let yaml = to_yaml(&objects);
    let documents: Vec<Value> = yaml.split("---\n").map(|text| serde_yaml::from_str(text).unwrap()).collect();
    let expected: Vec<Value> = objects.iter().map(|object| serde_json::to_value(object).unwrap()).collect();
    assert_eq!(documents, expected);
}

/// The rules of Pod Security `restricted`, and what a bottle has beyond them.
#[test]
fn every_container_is_restricted() {
    let deliveries = [Delivery::HandOver, Delivery::Objects];
    let all = topologies()
        .into_iter()
        .flat_map(|(_, plan)| deliveries.map(|delivery| objects(&plan, &KubeOptions::default(), delivery)));
    let mut seen = 0;
    for object in all.flatten().filter(|object| object["kind"] == "Pod") {
        let (name, spec) = (object["metadata"]["name"].as_str().unwrap(), &object["spec"]);
        assert_eq!(
            (&spec["automountServiceAccountToken"], &spec["enableServiceLinks"]),
            (&false.into(), &false.into())
        );
        let security = &spec["securityContext"];
        assert_eq!(
            (&security["runAsNonRoot"], &security["seccompProfile"]["type"]),
            (&true.into(), &"RuntimeDefault".into())
        );
        assert_eq!(security["sysctls"][0]["value"], "1 0");
        assert_ne!(security["runAsUser"], 0);
        for absent in ["hostNetwork", "hostPID", "hostIPC", "serviceAccountName"] {
            assert!(spec.get(absent).is_none(), "{name} has {absent}");
        }
        for volume in spec["volumes"].as_array().unwrap() {
            assert!(volume.get("emptyDir").or_else(|| volume.get("projected")).is_some(), "{name}: {volume}");
        }
        let containers = ["initContainers", "containers"].map(|key| spec[key].as_array().unwrap());
        for container in containers.into_iter().flatten() {
            let own = &container["securityContext"];
            assert_eq!(
                (&own["allowPrivilegeEscalation"], &own["capabilities"]["drop"][0]),
                (&false.into(), &"ALL".into())
            );
            let is_agent = name == "agent" && container["name"] == "main";
            assert_eq!(own["readOnlyRootFilesystem"], !is_agent, "{name}/{}", container["name"]);
            if is_agent {
                let message = container["terminationMessagePath"].as_str().unwrap();
                let holds = |mount: &Value| message.starts_with(mount["mountPath"].as_str().unwrap());
                let mount = container["volumeMounts"].as_array().unwrap().iter().find(|mount| holds(mount));
                assert_eq!(mount.unwrap()["readOnly"], true, "{message}");
            }
            assert!(container["resources"]["requests"]["memory"].is_string());
            assert!(container["resources"]["limits"]["memory"].is_string(), "{name}/{}", container["name"]);
            seen += 1;
        }
        assert_eq!(spec["initContainers"][0]["name"], "gate");
    }
    assert!(seen > 100, "{seen}");
}

/// The ends of the connections that policies allow.
#[test]
fn what_is_not_planned_is_denied() {
    let edges = |topology: &str| {
        let plan = plans::topologies().into_iter().find(|(name, _)| name == topology).unwrap().1;
        let objects = objects(&plan, &KubeOptions::default(), Delivery::HandOver);
        let policies: Vec<Value> = objects.into_iter().filter(|object| object["kind"] == "NetworkPolicy").collect();
        let deny = &policies[0];
        assert_eq!(deny["spec"]["podSelector"], serde_json::json!({}), "it selects every Pod");
        assert_eq!(deny["spec"]["policyTypes"], serde_json::json!(["Ingress", "Egress"]));
        assert!(deny["spec"].get("ingress").or_else(|| deny["spec"].get("egress")).is_none());
        let name = |policy: &Value| policy["metadata"]["name"].as_str().unwrap().to_owned();
        policies[1..].iter().map(name).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
    };
    insta::assert_snapshot!(edges("alone__plain"), @"agent-to-pipelock pipelock-from-agent pipelock-to-dns pipelock-to-outside");
    insta::assert_snapshot!(edges("egress__plain"), @"agent-to-egress egress-from-agent egress-to-pipelock pipelock-from-egress pipelock-to-dns pipelock-to-outside");
    insta::assert_snapshot!(edges("egress_git_gate_supervise__plain"), @"agent-to-egress agent-to-git-gate agent-to-supervise egress-from-agent egress-to-pipelock git-gate-from-agent git-gate-to-dns git-gate-to-outside pipelock-from-egress pipelock-to-dns pipelock-to-outside supervise-from-agent");
}

#[test]
fn an_outside_range_holds_no_private_address() {
    let (_, plan) = plans::topologies().into_iter().find(|(name, _)| name == "alone__plain").unwrap();
    let objects = objects(&plan, &KubeOptions::default(), Delivery::HandOver);
    let outside = objects.iter().find(|object| object["metadata"]["name"] == "pipelock-to-outside").unwrap();
    let except = outside["spec"]["egress"][0]["to"][0]["ipBlock"]["except"].as_array().unwrap();
    assert_eq!(except.len(), 6);
    let ports = outside["spec"]["egress"][0]["ports"].as_array().unwrap();
    assert_eq!(ports.iter().map(|port| port["port"].as_u64().unwrap()).collect::<Vec<_>>(), [80, 443]);
}

/// A request that is left out is the limit: twelve agents with the default limit of 20 GiB filled a node.
#[test]
fn an_agent_reserves_less_disk_than_it_may_use() {
    let (_, plan) = plans::topologies().into_iter().find(|(name, _)| name == "alone__plain").unwrap();
    let objects = objects(&plan, &KubeOptions::default(), Delivery::HandOver);
    let agent = objects.iter().find(|object| object["kind"] == "Pod" && object["metadata"]["name"] == "agent").unwrap();
    let resources = &agent["spec"]["containers"][0]["resources"];
    assert_eq!(resources["requests"]["ephemeral-storage"], (256 << 20).to_string());
    assert_eq!(resources["limits"]["ephemeral-storage"], plan.plan().agent_disk().bytes().to_string());
}

#[test]
fn two_hosts_with_one_address_are_one_entry() {
    let (_, plan) = plans::topologies().into_iter().find(|(name, _)| name == "alone__plain").unwrap();
    let hosts = ["a.example.com", "b.example.com"];
    let hosts = hosts.map(|host| (host.parse().unwrap(), "198.51.100.9".parse().unwrap())).into();
    let objects = objects(&plan, &KubeOptions { hosts, ..KubeOptions::default() }, Delivery::HandOver);
    let pod = objects.iter().find(|object| object["kind"] == "Pod").unwrap();
    let aliases = serde_json::json!([{"ip": "198.51.100.9", "hostnames": ["a.example.com", "b.example.com"]}]);
    assert_eq!((&pod["metadata"]["name"], &pod["spec"]["hostAliases"]), (&"pipelock".into(), &aliases));
}

#[test]
fn handed_over_objects_hold_no_file_and_no_value() {
    for (name, plan) in topologies() {
        let objects = objects(&plan, &KubeOptions::default(), Delivery::HandOver);
        assert!(objects.iter().all(|object| object["kind"] != "Secret" && object["kind"] != "ConfigMap"), "{name}");
        let text = serde_json::to_string(&objects).unwrap();
        assert!(!text.contains("secretKeyRef") && !text.contains("/state/"), "{name}");
    }
}

#[test]
fn keys_and_credentials_are_secrets() {
    let manifests = manifests(&fullest(), &KubeOptions::default(), Delivery::HandOver).unwrap();
    let secrets = manifests.files().iter().filter(|file| file.is_secret);
    let shown = secrets.map(|file| match &file.content {
        Content::Credential(slot) => format!("{} {} {:o} slot {slot}", file.pod, file.target, file.mode),
        Content::Of(_) | Content::Text(_) => format!("{} {} {:o}", file.pod, file.target, file.mode),
    });
    insta::assert_snapshot!(shown.collect::<Vec<_>>().join("\n"), @r"
    pipelock /etc/pipelock-ca-key.pem 600
    git-gate /etc/git-gate/creds/app-key 600
    git-gate /etc/git-gate/creds/tools.v2-key 600
    git-gate /run/credentials/GIT_GATE_TOKEN_GIT_TOKEN 600 slot GIT_GATE_TOKEN_GIT_TOKEN
    egress /etc/egress/ca.pem 600
    egress /run/credentials/EGRESS_TOKEN_MODEL_KEY 600 slot EGRESS_TOKEN_MODEL_KEY
    egress /run/credentials/EGRESS_TOKEN_REGISTRY_TOKEN 600 slot EGRESS_TOKEN_REGISTRY_TOKEN
    ");
}

#[test]
fn a_workspace_of_the_host_is_refused() {
    for (mode, shown) in [("bind", "`workspace.mode: bind`"), ("bind-rw", "`workspace.mode: bind-rw`")] {
        let text = format!(
            "bottles: {{dev: {{workspace: {{mode: {mode}}}}}}}\nagents: {{demo: {{bottle: dev, command: [id]}}}}"
        );
        let plan = plans::resolve(plans::plan(&Manifest::parse(&text).unwrap()), std::path::Path::new("/state"));
        let error = manifests(&plan, &KubeOptions::default(), Delivery::HandOver).unwrap_err();
        assert!(error.to_string().contains(shown), "{error}");
    }
}

#[test]
fn a_pod_without_the_address_of_a_service_is_an_error() {
    let (_, plan) = plans::topologies().into_iter().find(|(name, _)| name == "alone__plain").unwrap();
    let manifests = manifests(&plan, &KubeOptions::default(), Delivery::HandOver).unwrap();
    insta::assert_snapshot!(manifests.pods(&BTreeMap::new()).unwrap_err(), @"render the Pods: Service `pipelock` has no address");
}

#[test]
fn a_limit_of_time_is_the_deadline_of_the_agents_pod_alone() {
    let full = fullest();
    let (mut bottle, facts) = (full.plan().clone(), full.launch().clone());
    bottle.limits.time = Some("90m".parse().unwrap());
    let objects = objects(&bottle.resolve(facts).unwrap(), &KubeOptions::default(), Delivery::HandOver);
    let deadlines = objects
        .iter()
        .filter(|object| object["kind"] == "Pod")
        .filter_map(|pod| Some((pod["metadata"]["name"].as_str()?, pod["spec"]["activeDeadlineSeconds"].as_u64()?)));
    assert_eq!(deadlines.collect::<Vec<_>>(), [("agent", 5400)]);
}
