//! Egress, the proxy that injects credentials the agent never holds.

use std::collections::{BTreeMap, BTreeSet};

use bottle_compose::document::{Bind, Condition, Dependency, Mount, Service, Variable};
use bottle_compose::sidecar::{Image, Reach, health_check, sidecar_service, tmpfs};
use bottle_compose::{AgentAccess, Sidecar, to_plain_yaml};
use bottle_plan::manifest::RequestScan;
use bottle_plan::plan::{InjectionValue, Route, TemporaryHost};
use bottle_plan::value::{AllowedHost, ByteSize, EnvName};
use bottle_plan::{BottlePlan, ResolvedPlan, Service as Name};
use serde::Serialize;

use crate::context::embedded;
use crate::{BuildContext, pipelock, supervise};

/// The port of the egress proxy.
pub const PORT: u16 = 9099;

/// The build context of its image.
pub const CONTEXT: BuildContext = BuildContext {
    name: "egress",
    files: embedded!("egress": [
        "Dockerfile",
        "requirements.txt",
        "egress/__init__.py",
        "egress/__main__.py",
        "egress/addon.py",
        "egress/answers.py",
        "egress/audit.py",
        "egress/budget.py",
        "egress/connections.py",
        "egress/dlp.py",
        "egress/endings.py",
        "egress/firewall.py",
        "egress/frames.py",
        "egress/guard.py",
        "egress/labels.py",
        "egress/layers.py",
        "egress/headers.py",
        "egress/lean.py",
        "egress/mask.py",
        "egress/names.py",
        "egress/paths.py",
        "egress/patterns.py",
        "egress/policy.py",
        "egress/proposer.py",
        "egress/proxy.py",
        "egress/query.py",
        "egress/routes.py",
        "egress/settings.py",
        "egress/status.py",
    ], programs: ["entrypoint", "healthcheck"], shared: ["sidecar/__init__.py", "sidecar/audit_line.py", "sidecar/credentials.py", "sidecar/grammar.json", "sidecar/grammar.py"]),
};

/// Path, in egress's container, of its status file: the routes that it read last, and whether it accepted them.
pub const STATUS: &str = "/tmp/egress-status.json";

/// Path of the routes in the container of egress.
pub const ROUTES: &str = "/etc/egress/routes.yaml";
const CA: &str = "/etc/egress/ca.pem";
const PIPELOCK_CA: &str = "/etc/egress/pipelock-ca.pem";
const EXTRA_CA: &str = "/etc/egress/extra-ca.pem";

/// The proxy that injects credentials.
#[derive(Debug, Clone, Copy, Default)]
pub struct Egress;

impl Sidecar for Egress {
    fn name(&self) -> &str {
        Name::Egress.as_str()
    }

    fn applies(&self, plan: &BottlePlan) -> bool {
        plan.egress.is_some()
    }

    fn service(&self, plan: &ResolvedPlan) -> Service {
        let Some(facts) = &plan.launch().egress else { return Service::default() };
        let alias = Some(Name::Egress.as_str().to_owned());
        let mut service = sidecar_service(plan, Name::Egress, Image::Local(&facts.image), Reach::Both, alias);
        let upstream = pipelock::url(&plan.plan().names);
        service.environment = vec![
            Variable::set("EGRESS_UPSTREAM_PROXY", &upstream),
            Variable::set("HTTPS_PROXY", &upstream),
            Variable::set("HTTP_PROXY", &upstream),
            Variable::set("NO_PROXY", "localhost,127.0.0.1"),
            Variable::set("EGRESS_UPSTREAM_CA", PIPELOCK_CA),
            Variable::set("EGRESS_MAX_INSPECTED", pipelock::max_inspected(plan.plan()).to_string()),
        ];
        if plan.plan().supervise.is_some() {
            let on_denied = plan.plan().egress.as_ref().map(|egress| egress.on_denied).unwrap_or_default();
            service.environment.push(Variable::set("EGRESS_ON_DENIED", on_denied.to_string()));
            service
                .environment
                .push(Variable::set("EGRESS_SUPERVISE", format!("{}:{}", Name::Supervise, supervise::PORT)));
        }
        let volumes = [
            Bind::read_only(&facts.routes, ROUTES),
            Bind::read_only(&facts.ca_combined, CA),
            Bind::read_only(&plan.launch().pipelock.ca_cert, PIPELOCK_CA),
        ];
        service.volumes = volumes.map(Mount::Bind).into();
        if let Some(bundle) = &plan.launch().upstream_ca {
            service.volumes.push(Bind::read_only(bundle, EXTRA_CA).into());
            service.environment.push(Variable::set("EGRESS_EXTRA_CA", EXTRA_CA));
        }
        service.tmpfs = vec![tmpfs("/tmp", 64)];
        service.healthcheck = Some(health_check(plan, &["/opt/egress/bin/healthcheck"]));
        service.depends_on =
            vec![(Name::Pipelock.as_str().to_owned(), Dependency { condition: Condition::ServiceHealthy })];
        service
    }

    fn credentials(&self, plan: &BottlePlan) -> Vec<EnvName> {
        plan.egress.iter().flat_map(|egress| egress.token_slots().into_keys()).collect()
    }

    /// The use of the budget, so that neither a restart nor a stop of the bottle begins again.
    fn keeps_data(&self, plan: &BottlePlan) -> bool {
        plan.limits.need_egress()
    }

    fn agent_access(&self, _: &ResolvedPlan) -> AgentAccess {
        let proxy = Some(format!("http://{}:{PORT}", Name::Egress));
        AgentAccess { proxy, ports: vec![PORT], ..AgentAccess::default() }
    }
}

/// Returns true for each name in which egress counts a character as data (`labels.py` in its image): a part that is in no
/// word has a digit or five consonants in a row.
fn may_look_encoded(host: &AllowedHost) -> bool {
    let is_vowel = |byte: u8| matches!(byte, b'a' | b'e' | b'i' | b'o' | b'u' | b'y');
    let is_consonant = |byte: &u8| byte.is_ascii_lowercase() && !is_vowel(*byte);
    let name = host.as_str().as_bytes();
    name.iter().any(u8::is_ascii_digit) || name.windows(5).any(|five| five.iter().all(is_consonant))
}

/// Returns the rules for each routed host, and the ports of the other hosts, in the form that egress's image reads.
pub fn routes(plan: &BottlePlan) -> String {
    let routes = || plan.egress.iter().flat_map(|egress| &egress.routes);
    let hosts_of_routes: BTreeSet<AllowedHost> = routes().map(|route| route.host.to_allowed()).collect();
    let open = plan.proxy.allow.iter().filter(|host| !plan.proxy.ports.is_empty() && !hosts_of_routes.contains(host));
    let ports = open.map(|host| (host, plan.proxy.ports_of(host))).collect();
    let dlp = plan.egress.as_ref().map(|egress| egress.dlp).unwrap_or_default();
    let mut hosts: BTreeMap<_, _> = plan.egress.iter().flat_map(|egress| egress.dlp_of_hosts.clone()).collect();
    // Egress may take such a name for data of the agent, unless the file has it.
    for host in plan.proxy.allow.iter().filter(|host| may_look_encoded(host)) {
        hosts.entry(host.clone()).or_insert(dlp);
    }
    let hosts = hosts.iter().map(|(host, dlp)| Searched { host: host.as_str(), dlp: *dlp }).collect();
    let limits = Limits { requests: plan.limits.requests, bytes: plan.limits.bytes.map(ByteSize::bytes) };
    let limits = Some(limits).filter(|limits| limits.requests.is_some() || limits.bytes.is_some());
    let ends: BTreeMap<_, _> = plan.egress.iter().flat_map(|egress| &egress.temporary).collect();
    // Where a person decides, egress tells the agent how to ask, and an approval can end.
    let lasting = || plan.proxy.allow.iter().filter(|host| !ends.contains_key(host)).map(AsRef::as_ref);
    let allow = (plan.supervise.is_some() && !plan.learns()).then(|| lasting().collect());
    let temporary = ends.iter().map(|(host, end)| {
        let TemporaryHost { proposal, until, once } = end;
        Ending { host: host.as_str(), proposal, until: *until, once: *once }
    });
    to_plain_yaml(
        &File {
            version: 1,
            dlp,
            hosts,
            routes: routes().map(entry).collect(),
            learn: plan.learns(),
            allow,
            temporary: temporary.collect(),
            ports,
            limits,
        },
        &["What egress does with each routed host, and the ports of others. It holds names of variables, no token."
            .into()],
    )
}

/// The file that egress reads.
#[derive(Serialize)]
struct File<'a> {
    version: u8,
    dlp: RequestScan,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<Searched<'a>>,
    routes: Vec<Entry<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    learn: bool,
    /// The hosts that egress lets pass. `None`: all, since pipelock decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    allow: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    temporary: Vec<Ending<'a>>,
    /// Empty: every host is reached on the default ports.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    ports: BTreeMap<&'a AllowedHost, BTreeSet<u16>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
}

#[derive(Serialize)]
struct Limits {
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

#[derive(Serialize)]
struct Searched<'a> {
    host: &'a str,
    dlp: RequestScan,
}

#[derive(Serialize)]
struct Ending<'a> {
    host: &'a str,
    proposal: &'a str,
    until: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    once: bool,
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    host: &'a str,
    port: u16,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paths: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    methods: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inject: Option<Inject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dlp: Option<RequestScan>,
}

#[derive(Serialize)]
struct Inject<'a> {
    header: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    basic_username: Option<&'a str>,
    slot: &'a str,
}

fn entry(route: &Route) -> Entry<'_> {
    Entry {
        name: &route.name,
        host: route.host.as_str(),
        port: route.port,
        paths: route.paths.iter().map(AsRef::as_ref).collect(),
        methods: route.methods.iter().map(AsRef::as_ref).collect(),
        headers: route.headers.iter().map(AsRef::as_ref).collect(),
        inject: route.inject.as_ref().map(|inject| {
            let (template, basic_username) = match &inject.value {
                InjectionValue::Template(template) => (Some(template.as_str()), None),
                InjectionValue::Basic { username } => (None, Some(username.as_str())),
            };
            Inject { header: inject.header.as_str(), template, basic_username, slot: inject.slot.as_str() }
        }),
        dlp: route.dlp,
    }
}
