//! Snapshots of the document of every topology, and of the configuration file of every sidecar.

use bottle_compose::document::Service;
use bottle_compose::{AgentAccess, ComposeFile, RenderError, Sidecar, render};
use bottle_plan::{BottlePlan, ResolvedPlan};
use bottle_sidecars::{egress, git_gate, pipelock};

fn document(plan: &ResolvedPlan) -> ComposeFile {
    let sidecars = bottle_sidecars::all();
    let sidecars: Vec<&dyn Sidecar> = sidecars.iter().map(|sidecar| &**sidecar).collect();
    render(plan, &sidecars).expect("the built-in sidecars fit each other")
}

#[test]
fn documents() {
    for (name, plan) in bottle_testing::plans::topologies() {
        insta::assert_snapshot!(name, document(&plan).to_yaml());
    }
    let fullest = bottle_testing::plans::fullest();
    let subnet = fullest.launch().networks.internal_subnet.unwrap();
    insta::assert_snapshot!("fullest", document(&fullest).with_addresses(subnet).to_yaml());
}

#[test]
fn the_commands_of_podman() {
    let topologies = bottle_testing::plans::topologies();
    let (_, plan) = topologies.iter().find(|(name, _)| name == "egress_git_gate_supervise__plain").unwrap();
    let file = document(plan).with_addresses("10.99.0.0/28".parse().unwrap());
    let containers = file.podman_containers();
    let lines = file.podman_volumes().into_iter().chain(containers.iter().map(|one| one.arguments.clone()));
    insta::assert_snapshot!("podman", lines.map(|words| words.join("\n  ")).collect::<Vec<_>>().join("\n"));
    // A container comes after the one whose namespace it joins.
    let place = |service: &str| {
        let name = &file.service(service).unwrap().container_name;
        containers.iter().position(|one| one.container == *name).unwrap()
    };
    assert!(place("seal") < place("agent") && place("outlet") < place("pipelock"));
    // Every path is one field, whatever is in it.
    let odd = document(&bottle_testing::plans::fullest()).podman_containers();
    let mounts: Vec<&String> =
        odd.iter().flat_map(|one| &one.arguments).filter(|word| word.starts_with("--mount=")).collect();
    assert!(
        mounts.iter().any(|mount| mount.contains("\"\"d\"\""))
            && mounts.iter().all(|mount| mount.ends_with("true\"") || mount.ends_with("false\""))
    );
}

#[test]
fn an_agent_leaves_half_a_processor_to_its_sidecars() {
    let plan = |cpus: &str| {
        let text = format!(
            "bottles: {{dev: {{limits: {{agent: {{{cpus}}}}}}}}}\nagents: {{it: {{bottle: dev, command: [id]}}}}"
        );
        bottle_testing::plans::plan(&bottle_plan::Manifest::parse(&text).unwrap())
    };
    for (cpus, processors, limit) in [
        ("", Some(1), Some("1")),
        ("", Some(2), Some("1.5")),
        ("", Some(64), Some("63.5")),
        ("", None, None),
        ("cpus: 0.25", Some(8), Some("0.25")),
    ] {
        let plan = plan(cpus);
        let mut facts = bottle_testing::plans::facts(&plan, std::path::Path::new("/state"));
        facts.engine.processors = processors;
        let document = document(&plan.resolve(facts).unwrap());
        assert_eq!(document.service("agent").unwrap().cpus.as_deref(), limit, "{cpus} {processors:?}");
    }
}

#[test]
fn a_subnet_with_too_few_addresses_gives_none() {
    let document = document(&bottle_testing::plans::fullest());
    // Five services, the gateway, and the two addresses that no host can have.
    assert_eq!(document.clone().with_addresses("10.99.0.0/30".parse().unwrap()), document);
    assert_ne!(document.clone().with_addresses("10.99.0.0/29".parse().unwrap()), document);
}

#[test]
fn endpoints() {
    let plain = bottle_testing::plans::topologies().into_iter().filter(|(name, _)| name.ends_with("__plain"));
    let endpoints = plain.map(|(name, plan)| {
        let document = document(&plan);
        format!("{name}: {}", document.service("seal").expect("every bottle has a seal").command.join(" "))
    });
    insta::assert_snapshot!("endpoints", endpoints.collect::<Vec<_>>().join("\n"));
}

#[test]
fn configuration() {
    let topologies = bottle_testing::plans::topologies();
    let (_, without) = topologies.iter().find(|(name, _)| name == "alone__plain").unwrap();
    let (_, with) = topologies.iter().find(|(name, _)| name == "egress_git_gate_supervise__external").unwrap();
    let config = |plan: &ResolvedPlan| pipelock::config(plan.plan(), plan.launch().networks.internal_cidr);
    insta::assert_snapshot!("pipelock_without_routes", config(without));
    insta::assert_snapshot!("pipelock_with_routes_and_a_known_subnet", config(with));
    insta::assert_snapshot!("pipelock_fullest", config(&bottle_testing::plans::fullest()));
    insta::assert_snapshot!("egress_routes", egress::routes(with.plan()));
    let gate = with.plan().git_gate.as_ref().unwrap();
    insta::assert_snapshot!("git_gate_upstreams", git_gate::upstreams(gate));
    insta::assert_snapshot!("git_gate_known_hosts", git_gate::known_hosts(gate));
}

#[test]
fn the_variable_with_the_prompt_s_path_is_set_only_if_there_is_a_prompt() {
    for (prompt, expected) in [("", None), (", prompt: Be brief.", Some("/home/agent/.bottle/prompt.md"))] {
        let text = format!("bottles: {{dev: {{}}}}\nagents: {{demo: {{bottle: dev, command: [id]{prompt}}}}}");
        let plan = bottle_testing::plans::plan(&bottle_plan::Manifest::parse(&text).unwrap());
        let plan = bottle_testing::plans::resolve(plan, std::path::Path::new("/state"));
        let yaml = document(&plan).to_yaml();
        let line = yaml.lines().find(|line| line.contains("BOTTLE_PROMPT_FILE"));
        assert_eq!(line.is_some(), expected.is_some(), "{yaml}");
        assert!(line.zip(expected).is_none_or(|(line, path)| line.contains(path)), "{line:?}");
    }
}

/// A caller's own sidecar with one port.
#[derive(Debug)]
struct Clock(u16);

impl Sidecar for Clock {
    fn name(&self) -> &'static str {
        "clock"
    }

    fn applies(&self, _: &BottlePlan) -> bool {
        true
    }

    fn service(&self, _: &ResolvedPlan) -> Service {
        Service::default()
    }

    fn agent_access(&self, _: &ResolvedPlan) -> AgentAccess {
        AgentAccess { ports: vec![self.0], ..AgentAccess::default() }
    }
}

#[test]
fn a_sidecar_cannot_open_the_port_of_a_closed_proxy() {
    let topologies = bottle_testing::plans::topologies();
    let render = |topology: &str, port| {
        let (_, plan) = topologies.iter().find(|(name, _)| name == topology).unwrap();
        let sidecars = bottle_sidecars::all();
        let clock = Clock(port);
        let sidecars = sidecars.iter().map(|sidecar| &**sidecar).chain([&clock as &dyn Sidecar]);
        render(plan, &sidecars.collect::<Vec<_>>()).map(|document| document.service("seal").unwrap().command.clone())
    };
    let expected = RenderError::ClosedPort { sidecar: "clock".into(), port: pipelock::PORT, proxy: "pipelock".into() };
    assert_eq!(render("egress__plain", pipelock::PORT), Err(expected));
    assert_eq!(render("egress__plain", 8889).unwrap(), ["egress:9099", "clock:8889", "pipelock"]);
    // Without egress, pipelock is open to the agent.
    assert_eq!(render("alone__plain", pipelock::PORT).unwrap(), ["pipelock:8888:128", "clock:8888"]);
}

#[test]
fn only_a_service_that_joins_another_one_s_network_waits_for_it() {
    let topologies = bottle_testing::plans::topologies();
    let (_, plan) = topologies.iter().find(|(name, _)| name == "egress_git_gate_supervise__plain").unwrap();
    let document = document(plan);
    let order = document.start_order().into_iter().map(|start| format!("{} {:?}", start.container, start.after));
    insta::assert_snapshot!(order.collect::<Vec<_>>().join("\n"));

    // A sidecar that somebody else wrote is started as its own service says.
    let mut document = document;
    let dependency = document.service("egress").unwrap().depends_on.clone();
    document.services.push((
        "clock".into(),
        Service { container_name: "clock".into(), depends_on: dependency, ..Service::default() },
    ));
    let order = document.start_order();
    let clock = order.iter().find(|start| start.container == "clock").unwrap();
    assert!(clock.after.len() == 1 && !clock.has_check, "{clock:?}");
}

/// Returns a topology as a launch on an engine that does not see this host's files resolves it.
fn stored(topology: &str) -> ResolvedPlan {
    let (_, plan) =
        bottle_testing::plans::topologies().into_iter().find(|(name, _)| name == topology).expect("it is a topology");
    let mut facts = plan.launch().clone();
    let root = facts.pipelock.config.ancestors().nth(3).expect("it is below the root");
    facts.stored = Some(bottle_plan::StateRoot::at(root).bottle(plan.plan().names.slug()));
    plan.plan().clone().resolve(facts).expect("the facts are those of the plan")
}

#[test]
fn documents_for_an_engine_that_does_not_see_the_host_s_files() {
    for topology in ["alone__plain", "egress_git_gate_supervise__plain"] {
        let document = document(&stored(topology));
        let yaml = document.to_yaml();
        assert!(!yaml.contains("type: bind") && !yaml.contains("env_file"), "{yaml}");
        let paths = document.stored.iter().map(|(source, path)| format!("{} -> {path}", source.display()));
        let paths = paths.collect::<Vec<_>>().join("\n");
        insta::assert_snapshot!(format!("stored__{topology}"), format!("{yaml}\n# {}\n", paths.replace('\n', "\n# ")));
    }
}
