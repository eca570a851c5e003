//! Strategies that generate plans and manifests.

use std::path::{Path, PathBuf};

use bottle_plan::manifest::{
    AgentSpec, AllowSpec, BottleSpec, ContainerLimits, DeployKeySpec, EgressMode, EgressSpec, EnvSpec, Forge, GitSpec,
    ImagesSpec, InjectScheme, InjectSpec, Inspect, LimitsSpec, Manifest, NetworkMode, NetworksSpec, OnDenied, Provider,
    PushSpec, RequestScan, RouteSpec, Runtime, SecretsMode, SuperviseSpec, TlsSpec, Toggle, UpstreamSpec,
    WorkspaceMode, WorkspaceSpec,
};
use bottle_plan::resolved::{EngineFacts, HostGateway};
use bottle_plan::value::{ByteSize, Span};
use bottle_plan::{ResolvedPlan, Slug};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

/// Marker in every value that must not reach the document.
pub const MARKER: &str = "hunter2-MARKER";

/// Generates resolved plans.
pub fn resolved_plan() -> impl Strategy<Value = ResolvedPlan> {
    (manifest(), root(), any::<bool>(), any::<bool>()).prop_map(|(manifest, root, isolated, start_interval)| {
        let plan = crate::plans::plan(&manifest);
        let mut facts = crate::plans::facts(&plan, &root);
        let host_gateway = if isolated { HostGateway::Isolated } else { HostGateway::InhibitIpv4 };
        facts.engine = EngineFacts {
            host_gateway,
            start_interval,
            memory: Some(8 << 30),
            processors: Some(8),
            disk_quota: start_interval,
        };
        plan.resolve(facts).unwrap()
    })
}

/// Generates manifests that pass their own checks.
pub fn manifest() -> impl Strategy<Value = Manifest> {
    (bottle(), agent()).prop_map(|(bottle, agent)| {
        Manifest::default().with_bottle("dev", bottle).unwrap().with_agent("demo", agent).unwrap()
    })
}

/// Generates text that YAML, Compose or a shell may misread.
pub fn odd_text() -> impl Strategy<Value = String> {
    let words = [
        "",
        "no",
        "Yes",
        "on",
        "true",
        "null",
        "~",
        "1:30",
        "22:22",
        "0o17",
        "0x1f",
        "017",
        "1e3",
        "1_000",
        ".5",
        "-0",
        "2024-01-01",
        "2024-01-01T00:00:00Z",
        "=",
        "<<",
        "a: b",
        "a:",
        "a #b",
        "#a",
        "- a",
        "---",
        "? a",
        "&a",
        "*a",
        "!a",
        "%a",
        "@a",
        "`a",
        "line\nline",
        "\n",
        "cr\rlf\r\n",
        "tab\t",
        " lead",
        "trail ",
        "$HOME",
        "a${HOME}b",
        "$$",
        "$",
        "a$b$$c",
        "${X:-y}z",
        "\"q\"",
        "'s'",
        "back\\slash",
        "\u{7f}",
        "\u{85}",
        "\u{2028}",
        "\u{feff}",
        "\u{1b}[31m",
        "ü",
        "多",
        "\u{1F600}",
        "[a]",
        "{a}",
        "|",
        ">",
    ];
    prop_oneof![
        3 => proptest::sample::select(words.to_vec()).prop_map(ToOwned::to_owned),
        1 => "[a-zA-Z0-9 $:#'\"\\\\/{}.,=_-]{0,12}",
        1 => proptest::collection::vec(any::<char>().prop_filter("NUL ends a string", |c| *c != '\0'), 0..6)
            .prop_map(|chars| chars.into_iter().collect()),
    ]
}

/// Generates paths relative to the manifest.
fn path() -> impl Strategy<Value = PathBuf> {
    odd_text().prop_map(|text| Path::new("x").join(text.trim_start_matches('/')))
}

/// Generates absolute directories.
fn root() -> impl Strategy<Value = PathBuf> {
    path().prop_map(|path| Path::new("/state").join(path))
}

fn host() -> impl Strategy<Value = String> {
    "(\\*\\.)?[a-z]{1,3}\\.[a-z]{2}"
}

fn env_name() -> impl Strategy<Value = String> {
    "[A-KM-Z][A-Z0-9_]{0,4}Z"
}

/// Limits of the whole bottle.
fn whole() -> impl Strategy<Value = LimitsSpec> {
    let span = || option::of((10..9999_u64).prop_map(Span::seconds));
    let numbers = (option::of(1..=u64::MAX), option::of((1..9999_u64).prop_map(ByteSize::kib)));
    (span(), span(), numbers).prop_map(|(time, idle, (requests, bytes))| LimitsSpec {
        time,
        idle,
        requests,
        bytes,
        ..LimitsSpec::default()
    })
}

fn bottle() -> impl Strategy<Value = BottleSpec> {
    let env = btree_map(env_name(), env_value(), 0..5);
    let inspect = option::of(prop_oneof![Just(Inspect::Connection), Just(Inspect::Content)]);
    let ports = option::of(prop_oneof![Just(80), Just(443), 1..=65535_u16]);
    let scan = prop_oneof![Just(RequestScan::Off), Just(RequestScan::Warn), Just(RequestScan::Block)];
    let inspect = (ports, inspect, scan.clone(), option::of(scan));
    let first = (env, option::of(path()), vec(host(), 0..4), vec(route(), 0..4), vec(upstream(), 0..4), inspect);
    let second = (
        option::of(1..=50_u64),
        prop_oneof![Just(Runtime::Runc), Just(Runtime::Runsc)],
        workspace(),
        (
            limits().boxed(),
            limits().boxed(),
            whole().boxed(),
            prop_oneof![Just(SecretsMode::Memory), Just(SecretsMode::Environment)],
        ),
        networks(),
        option::of(path()),
        images(),
    );
    (first, second).prop_map(|(first, second)| {
        let (env, env_file, allow, routes, upstreams, (port, inspect, scan_requests, dlp)) = first;
        let (wait, runtime, workspace, (agent, sidecar, whole, secrets), networks, upstream_ca, images) = second;
        // Routes get distinct hosts and upstreams distinct names, because duplicates are refused.
        let routes = routes.into_iter().enumerate().map(|(index, route)| RouteSpec {
            host: format!("r{index}.{}", route.host.as_str().trim_start_matches("*.")).parse().unwrap(),
            inspect,
            dlp,
            ..route
        });
        let upstreams = upstreams.into_iter().enumerate().map(|(index, upstream)| UpstreamSpec {
            name: format!("{}-{index}", upstream.name).parse().unwrap(),
            url: upstream.url.as_str().replace("repo", &format!("repo{index}")).parse().unwrap(),
            ..upstream
        });
        BottleSpec {
            env: env.into_iter().map(|(name, value)| (name.parse().unwrap(), value)).collect(),
            env_file,
            egress: EgressSpec {
                allow: allow.iter().map(|host| AllowSpec { host: host.parse().unwrap(), port, inspect, dlp }).collect(),
                routes: routes.collect(),
                on_denied: if wait.is_some() && dlp.is_some() { OnDenied::Propose } else { OnDenied::Refuse },
                mode: if dlp == Some(RequestScan::Warn) { EgressMode::Learn } else { EgressMode::Enforce },
                scan_requests,
                dlp,
            },
            git: GitSpec { user: None, upstreams: upstreams.collect() },
            supervise: wait.map_or(Toggle::Off, |wait| Toggle::On(SuperviseSpec { wait: Span::seconds(wait) })),
            runtime,
            images,
            workspace,
            limits: LimitsSpec { agent, sidecar: ContainerLimits { disk: None, ..sidecar }, ..whole },
            networks,
            tls: TlsSpec { upstream_ca, ..TlsSpec::default() },
            secrets,
        }
    })
}

fn env_value() -> impl Strategy<Value = EnvSpec> {
    prop_oneof![
        3 => odd_text().prop_map(EnvSpec::Literal),
        1 => option::of(env_name()).prop_map(|name| EnvSpec::Forward(name.map(|name| name.parse().unwrap()))),
        1 => Just(EnvSpec::Placeholder(None)),
        1 => "[a-z$]{0,4}".prop_map(|text| EnvSpec::Placeholder(Some(format!("{MARKER}{text}")))),
    ]
}

fn route() -> impl Strategy<Value = RouteSpec> {
    let inject = (env_name(), 0..3_u8, option::of("[a-z]{1,5}")).prop_map(|(token, kind, word)| {
        let inject = InjectSpec::bearer(&token).unwrap();
        match kind {
            0 => inject,
            1 => InjectSpec { scheme: InjectScheme::Basic, username: word, ..inject },
            _ => InjectSpec {
                scheme: InjectScheme::Header,
                template: word.map(|word| format!("{word} {{token}}$'")),
                ..inject
            },
        }
    });
    let paths = proptest::collection::btree_set("/[a-z$&']{0,4}", 0..3);
    let methods = proptest::collection::btree_set("[A-BD-S]{2,5}", 0..3);
    (host(), any::<u16>(), paths, methods, option::of(inject)).prop_map(|(host, port, paths, methods, inject)| {
        RouteSpec {
            port: port.max(1),
            paths: paths.iter().map(|path| path.parse().unwrap()).collect(),
            methods: methods.iter().map(|method| method.parse().unwrap()).collect(),
            headers: if inject.is_some() { vec!["x-tenant".parse().unwrap()] } else { Vec::new() },
            inject,
            ..RouteSpec::new(&host).unwrap()
        }
    })
}

fn upstream() -> impl Strategy<Value = UpstreamSpec> {
    let addresses = btree_map("[a-z]{1,3}", Just("198.51.100.7".parse().unwrap()), 0..3);
    let kind = (0..4_u8, path(), env_name());
    ("[a-z]{1,4}", kind, addresses, any::<[bool; 5]>()).prop_map(|(name, (kind, path, token), addresses, flags)| {
        let url = if kind < 2 { "git@git.example.com:team/repo.git" } else { "https://git.example.com:8443/team/repo" };
        let spec = UpstreamSpec::new(&name, url).unwrap();
        let [enabled, force, delete, tags, scan] = flags;
        let token: bottle_plan::value::CredentialName = token.parse().unwrap();
        let known_hosts = vec!["git.example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5".to_owned()];
        let deploy_key = DeployKeySpec { forge: Forge::Github, api_url: None, token: token.clone(), repository: None };
        UpstreamSpec {
            known_hosts: if kind < 2 { known_hosts } else { Vec::new() },
            identity_file: (kind == 0).then_some(path),
            deploy_key: (kind == 1).then_some(deploy_key),
            token: (kind == 2).then_some(token),
            extra_hosts: addresses.into_iter().map(|(host, address)| (host.parse().unwrap(), address)).collect(),
            push: PushSpec { enabled, force, delete, tags, scan, max_size: ByteSize::mib(1), ..PushSpec::default() },
            ..spec
        }
    })
}

fn workspace() -> impl Strategy<Value = WorkspaceSpec> {
    let modes = [WorkspaceMode::Copy, WorkspaceMode::Bind, WorkspaceMode::BindRw, WorkspaceMode::None];
    (proptest::sample::select(modes.to_vec()), option::of(path()), option::of("/w[a-z $#'\"]{0,6}x"), any::<bool>())
        .prop_map(|(mode, path, target, env_files)| WorkspaceSpec {
            mode,
            path: path.filter(|_| mode != WorkspaceMode::None),
            target: target.map(|target| target.parse().unwrap()),
            include_credential_files: env_files && mode == WorkspaceMode::Copy,
        })
}

fn limits() -> impl Strategy<Value = ContainerLimits> {
    (option::of(16..4096_u64), option::of(1..64_000_u32), option::of(16..5000_u32)).prop_map(|(memory, cpus, pids)| {
        let cpus = cpus.map(|cpus| format!("{}.{:03}", cpus / 1000, cpus % 1000).parse().unwrap());
        ContainerLimits { memory: memory.map(ByteSize::mib), cpus, pids, disk: memory.map(ByteSize::mib) }
    })
}

fn networks() -> impl Strategy<Value = NetworksSpec> {
    (any::<bool>(), any::<bool>()).prop_map(|(external, subnets)| NetworksSpec {
        mode: if external { NetworkMode::External } else { NetworkMode::Compose },
        internal_subnet: subnets.then(|| "10.99.0.0/28".parse().unwrap()),
        egress_subnet: subnets.then(|| "10.99.0.16/28".parse().unwrap()),
    })
}

fn images() -> impl Strategy<Value = ImagesSpec> {
    let image = || option::of("[a-z]{1,4}(:[0-9][0-9.]{0,2})?".prop_map(|image| image.parse().unwrap()));
    (image(), image(), image(), image(), image(), image()).prop_map(
        |(base, agent, pipelock, egress, git_gate, supervise)| ImagesSpec {
            base,
            agent,
            pipelock,
            egress,
            git_gate,
            supervise,
            ..ImagesSpec::default()
        },
    )
}

fn agent() -> impl Strategy<Value = AgentSpec> {
    let providers = [Provider::Claude, Provider::Codex, Provider::Custom];
    (proptest::sample::select(providers.to_vec()), vec(odd_text(), 0..3), any::<bool>()).prop_map(
        |(provider, words, prompt)| AgentSpec {
            command: std::iter::once("run".to_owned()).chain(words).collect(),
            prompt: prompt.then(|| MARKER.to_owned()),
            ..AgentSpec::new("dev", provider).unwrap()
        },
    )
}

/// Generates slugs.
pub fn slug() -> impl Strategy<Value = Slug> {
    "[a-z0-9]{1,5}(-[a-z0-9]{1,5})?".prop_filter_map("a sidecar's name", |text| text.parse().ok())
}
