//! Plans for tests: every topology by name, and the fullest plan.

use std::collections::BTreeMap;
use std::path::Path;

use bottle_plan::manifest::NetworkMode;
use bottle_plan::plan::GitAuth;
use bottle_plan::resolved::{
    AgentFacts, BuildFacts, BuiltImage, EgressFacts, EngineFacts, GitGateFacts, HostGateway, NetworkFacts,
    PipelockFacts, SuperviseFacts,
};
use bottle_plan::{
    BottlePlan, HostFacts, LaunchFacts, Manifest, PlanRequest, Prefix, ResolvedPlan, Service, StateRoot, UserIds,
};

/// Returns the plan of a manifest's only agent, on a host with fixed facts.
pub fn plan(manifest: &Manifest) -> BottlePlan {
    let host = HostFacts { home: "/home/me".into(), cwd: "/src/app".into(), user: UserIds { uid: 1000, gid: 1000 } };
    let request = PlanRequest {
        agent: None,
        slug: Some("demo-1".parse().unwrap()),
        prefix: Prefix::default(),
        manifest_dir: None,
        host: &host,
        random: [0; 5],
    };
    manifest.plan(request).unwrap_or_else(|error| panic!("{error}: {manifest:#?}"))
}

/// Returns the facts that a launch would add to the plan, with its state under `root`.
pub fn facts(plan: &BottlePlan, root: &Path) -> LaunchFacts {
    let root = StateRoot::at(root);
    let state = root.bottle(plan.names.slug());
    let built = |service: Service| match plan.images.ready.get(&service) {
        Some(ready) => BuiltImage { reference: ready.clone(), build: None },
        None => BuiltImage {
            reference: plan.names.built_image(service.as_str(), "0123456789abcdef").parse().unwrap(),
            build: Some(BuildFacts {
                context: root.image_context(service.as_str(), "0123456789abcdef"),
                args: BTreeMap::from([("BASE".to_owned(), plan.images.base.to_string())]),
            }),
        },
    };
    let dir = |service| state.service_dir(service);
    let gate = plan.git_gate.as_ref().map(|gate| GitGateFacts {
        image: built(Service::GitGate),
        scripts: dir(Service::GitGate),
        upstreams: dir(Service::GitGate).join("upstreams.json"),
        known_hosts: dir(Service::GitGate).join("known_hosts"),
        identities: gate
            .upstreams
            .iter()
            .filter_map(|upstream| match &upstream.auth {
                GitAuth::IdentityFile(path) => Some((upstream.name.clone(), path.clone())),
                GitAuth::DeployKey(_) => {
                    Some((upstream.name.clone(), dir(Service::GitGate).join(format!("{}-key", upstream.name))))
                }
                GitAuth::Token { .. } | GitAuth::Anonymous => None,
            })
            .collect(),
    });
    LaunchFacts {
        waits: false,
        version: "0.1.0".into(),
        owner: "4242@1700000000".into(),
        state: "0123456789abcdef".into(),
        engine: EngineFacts {
            host_gateway: HostGateway::InhibitIpv4,
            start_interval: true,
            memory: Some(8 << 30),
            processors: None,
            disk_quota: false,
        },
        networks: NetworkFacts {
            internal: plan.names.internal_network(),
            egress: plan.names.egress_network(),
            internal_subnet: plan.networks.internal_subnet,
            egress_subnet: plan.networks.egress_subnet,
            internal_cidr: (plan.networks.mode == NetworkMode::External).then(|| "10.99.0.0/28".parse().unwrap()),
        },
        agent: AgentFacts {
            image: plan.names.derived_image().parse().unwrap(),
            env_file: plan.agent.env_file.clone(),
            volumes: Vec::new(),
            workspace_mounts: Vec::new(),
        },
        pipelock: PipelockFacts {
            config: state.pipelock_config(),
            ca_cert: dir(Service::Pipelock).join("ca.pem"),
            ca_key: dir(Service::Pipelock).join("ca-key.pem"),
        },
        seal: built(Service::Seal),
        egress: plan.egress.as_ref().map(|_| EgressFacts {
            image: built(Service::Egress),
            routes: state.egress_routes(),
            ca_combined: dir(Service::Egress).join("ca-combined.pem"),
            ca_cert: dir(Service::Egress).join("ca.pem"),
        }),
        git_gate: gate,
        supervise: plan.supervise.as_ref().map(|_| SuperviseFacts {
            image: built(Service::Supervise),
            queue: state.supervise_queue(),
            decisions: state.supervise_decisions(),
            current_config: state.current_config(),
        }),
        upstream_ca: plan.tls.upstream_ca.as_ref().map(|_| dir(Service::Pipelock).join("upstream-ca.pem")),
        stored: None,
    }
}

/// Resolves a plan with the facts that a launch would add.
pub fn resolve(plan: BottlePlan, root: &Path) -> ResolvedPlan {
    let facts = facts(&plan, root);
    plan.resolve(facts).unwrap()
}

const EGRESS: &str = "
      routes:
        - name: model
          host: api.example.com
          paths: [/v1/messages, /v1/models]
          methods: [GET, POST]
          inject: {token: MODEL_KEY, scheme: header, template: 'key {token}'}
        - host: registry.example.com
          port: 8443
          inject: {token: REGISTRY_TOKEN, scheme: basic, username: robot}
        - host: '*.cdn.example.com'
          methods: [GET]
";

const GIT: &str = "
    git:
      upstreams:
        - name: app
          url: git@git.example.com:team/app.git
          identity_file: ~/.ssh/id_ed25519
          known_hosts: [git.example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtleQ==]
          extra_hosts: {git.example.com: 198.51.100.7, forge.example.com: '2001:db8::7'}
        - name: docs
          url: https://git.example.com:8443/team/docs
          token: DOCS_TOKEN
          push: {enabled: false}
        - name: tools
          url: ssh://git@forge.example.com:2222/team/tools.git
          known_hosts: ['[forge.example.com]:2222 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHRvb2xz']
          deploy_key: {forge: gitea, api_url: 'https://forge.example.com/api/v1', token: FORGE_TOKEN}
          push: {branches: ['agent/**'], force: true, protected_paths: [], max_size: 10MiB}
        - {name: public, url: https://git.example.org/public/thing.git}
";

/// Returns every combination of the optional sidecars, by name, each plain and with one variation.
pub fn topologies() -> Vec<(String, ResolvedPlan)> {
    let variants = [
        ("plain", ""),
        ("runsc", "runtime: runsc"),
        ("external", "networks: external"),
        ("env_file", "env_file: agent.env"),
    ];
    let mut topologies = Vec::new();
    for combination in 0..8 {
        let on = |bit: u8| combination & 1 << bit != 0;
        let (egress, git, supervise) = (on(0), on(1), on(2));
        let parts = [(egress, "egress"), (git, "git_gate"), (supervise, "supervise")];
        let names: Vec<_> = parts.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
        let name = if names.is_empty() { "alone".to_owned() } else { names.join("_") };
        for (variant, line) in variants {
            let bottle = [
                "    egress:\n      allow: [example.com, '*.example.org']",
                if egress { EGRESS } else { "\n" },
                if git { GIT } else { "" },
                if supervise { "    supervise: true\n" } else { "" },
                "    env: {EDITOR: vi, LANG: {forward: true}, TZ: {forward: HOST_TZ}, MODEL_KEY: {placeholder: true}}\n    ",
                line,
            ];
            let agents = "\nagents: {demo: {bottle: dev, provider: claude, prompt: Mind the tests.}}\n";
            let text = format!("bottles:\n  dev:\n{}{agents}", bottle.concat());
            let manifest = Manifest::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            topologies.push((format!("{name}__{variant}"), resolve(plan(&manifest), Path::new("/state"))));
        }
    }
    topologies
}

/// Returns the plan of the manifest that has every key, on a newer engine, with paths that are hard to quote.
pub fn fullest() -> ResolvedPlan {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bottle-plan/tests/good/fullest.yaml");
    // Parsed from text, because a manifest read from a file resolves relative paths against its directory.
    let mut manifest = Manifest::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
    manifest.agents.retain(|name, _| name.as_str() == "coder");
    let plan = plan(&manifest);
    let mut facts = facts(&plan, Path::new(ODD));
    facts.engine = EngineFacts {
        host_gateway: HostGateway::Isolated,
        start_interval: false,
        memory: None,
        processors: Some(8),
        disk_quota: true,
    };
    plan.resolve(facts).unwrap()
}

/// A directory name that is hard to quote in YAML and in a Compose file.
pub const ODD: &str = "/st ate/$HOME/${X:-y}/a: b #c/'q'/\"d\"/\\n/ü-多/\u{1F600}/tab\there/two\nlines";
