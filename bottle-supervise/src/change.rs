//! The effect of a proposal on a plan. This module works on values only and has no side effects.

use std::fmt::{self, Write as _};

use bottle_plan::manifest::PushSpec;
use bottle_plan::manifest::RequestScan;
use bottle_plan::plan::{EgressPlan, GitAuth, GitGatePlan, Injection, InjectionValue, Route, Upstream};
use bottle_plan::value::{
    AllowedHost, CredentialName, DEFAULT_PORTS, DebianPackage, EntryName, GitTransport, GitUrl, HeaderName, Method,
    PathPrefix, RouteHost,
};
use bottle_plan::{BottlePlan, Service};
use bottle_sidecars::pipelock;

use crate::{Change, Proposal};

/// Time at which an approval takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum When {
    /// At once, in the running bottle.
    Now,
    /// At the next start of the proxy that is stopped, or at the next launch.
    NextStart,
    /// At the next launch with [`Supervisor::next_plan`](super::Supervisor::next_plan).
    NextLaunch,
    /// After a person has done the remaining steps by hand.
    ByHand,
    /// Not at all.
    Never,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Now => "takes effect at once",
            Self::NextStart => "takes effect when the stopped proxy is started again, or the bottle launched again",
            Self::NextLaunch => "takes effect when the bottle is launched again",
            Self::ByHand => "takes effect when a person has done the rest by hand",
            Self::Never => "cannot take effect",
        })
    }
}

/// Effect of a proposal on a plan.
pub(super) struct Edit {
    pub(super) plan: BottlePlan,
    pub(super) when: When,
    /// Reason why the change is not immediate, or another remark. Empty: none.
    pub(super) note: String,
}

/// Applies a proposal to a copy of `plan`. With `launched` (the plan of the launch), `plan` is the plan in effect;
/// without it, `plan` is the plan for the next launch.
pub(super) fn edit(plan: &BottlePlan, launched: Option<&BottlePlan>, proposal: &Proposal) -> Edit {
    let mut edited = plan.clone();
    let before = plan.proxy.allow.clone();
    // Stands for the position of a manifest entry in errors of a later launch.
    let key = format!("proposal {}", proposal.id);
    let outcome = match &proposal.change {
        Change::AllowHost { host } => allow_host(&mut edited, host),
        Change::Route { host, paths, methods, credential } => {
            route(&mut edited, key, host, paths, methods, credential.as_ref())
        }
        Change::GitUpstream { name, url } => git_upstream(&mut edited, key, name, url),
        Change::Packages(names) => Ok(packages(&mut edited, names)),
        Change::DockerfilePatch(_) => {
            Ok((When::ByHand, "a person has to build an image with it and name that in the manifest".to_owned()))
        }
    };
    match outcome {
        Ok((when, mut note)) => {
            let opened: Vec<_> =
                edited.proxy.allow.iter().filter(|host| before.binary_search(host).is_err()).cloned().collect();
            for host in &opened {
                inspect(&mut edited, launched, host, &mut note);
            }
            Edit { plan: edited, when, note }
        }
        Err(why) => Edit { plan: plan.clone(), when: When::Never, note: why },
    }
}

/// Time of effect and a note, or the reason why the change is impossible.
type Edited = Result<(When, String), String>;

/// Sets how pipelock inspects a newly allowed host. If the launch has a host with `inspect: content`, a reload cannot make
/// pipelock pass a further host without decrypting it, so a host that the launch did not pass is inspected by content
/// until the next launch. Otherwise pipelock decrypts no host.
fn inspect(plan: &mut BottlePlan, launched: Option<&BottlePlan>, host: &AllowedHost, note: &mut String) {
    let covers = |pattern: &AllowedHost| pattern.covers(host);
    // The next launch inspects the host as the wildcard that covers it.
    let at_launch = plan.proxy.content.iter().any(covers);
    let decrypted = |launched: &BottlePlan| launched.proxy.decrypts() && !launched.proxy.passed().any(covers);
    let is_content = launched.map_or(at_launch, decrypted);
    if !is_content {
        return;
    }
    plan.proxy.content.push(host.clone());
    plan.proxy.content.sort();
    if launched.is_some() && !at_launch {
        if !note.is_empty() {
            note.push_str("; ");
        }
        // Writing to a string does not fail.
        let _ = write!(
            note,
            "until the next launch pipelock inspects the content of {host}: an answer is held until it is scanned, which takes \
             about 2 s per MiB, and one above {} MiB is refused; from the next launch on it inspects only the connection",
            pipelock::MAX_RESPONSE_BYTES >> 20
        );
    }
}

fn allow_host(plan: &mut BottlePlan, host: &AllowedHost) -> Edited {
    let claims = |route: &Route| route.host.to_allowed() == *host || route.host.claims(host);
    if plan.egress.iter().flat_map(|egress| &egress.routes).any(claims) {
        return Err(format!("routes limit what may be asked of {host}; a route has to be proposed"));
    }
    match plan.proxy.allow.binary_search(host) {
        Ok(_) if plan.egress.as_mut().is_some_and(|egress| egress.temporary.remove(host).is_some()) => {
            Ok((When::Now, String::new()))
        }
        Ok(_) => {
            // The manifest may write another port only, in which case egress is there.
            let added = plan.proxy.ports.get_mut(host).is_some_and(|ports| {
                let before = ports.len();
                ports.extend(DEFAULT_PORTS);
                ports.len() > before
            });
            Ok((When::Now, if added { String::new() } else { format!("{host} is allowed already") }))
        }
        Err(place) => {
            plan.proxy.allow.insert(place, host.clone());
            Ok((When::Now, String::new()))
        }
    }
}

/// Returns egress as the manifest has it by default.
fn new_egress() -> EgressPlan {
    EgressPlan { dlp: RequestScan::Block, ..EgressPlan::default() }
}

fn route(
    plan: &mut BottlePlan,
    key: String,
    host: &RouteHost,
    paths: &[PathPrefix],
    methods: &[Method],
    credential: Option<&CredentialName>,
) -> Edited {
    let has_egress = plan.egress.is_some();
    let routes = &mut plan.egress.get_or_insert_with(new_egress).routes;
    let (inject, has_value) = match credential {
        None => (None, true),
        Some(token) => {
            // A credential that egress already holds is injected as in its other routes.
            let known = routes.iter().filter_map(|route| route.inject.as_ref()).find(|inject| inject.token == *token);
            (Some(known.cloned().unwrap_or_else(|| bearer(token.clone()))), known.is_some())
        }
    };
    let route = Route {
        name: free_name(routes, host),
        key,
        host: host.clone(),
        port: 443,
        paths: paths.to_vec(),
        methods: methods.to_vec(),
        headers: Vec::new(),
        inject,
        // The agent cannot ask for another search than that of the host.
        dlp: None,
    };
    let same = |other: &Route| Route { name: route.name.clone(), key: route.key.clone(), ..other.clone() } == route;
    if routes.iter().any(same) {
        return Ok((When::Now, "there is such a route already".into()));
    }
    if let Some(other) = routes.iter().find(|other| clash(other, &route)) {
        return Err(format!("the route `{}` describes some of these requests as well", other.name));
    }
    routes.push(route);
    let allowed = host.to_allowed();
    plan.egress.iter_mut().for_each(|egress| drop(egress.temporary.remove(&allowed)));
    if let Err(place) = plan.proxy.allow.binary_search(&allowed) {
        plan.proxy.allow.insert(place, allowed);
    }
    Ok(match (has_egress, has_value, credential) {
        (true, true, _) => (When::Now, String::new()),
        (_, false, Some(name)) => (
            When::NextLaunch,
            format!("egress holds no credential {name}; the host's environment must have it at the launch"),
        ),
        _ => (When::NextLaunch, "the bottle has no egress sidecar, which its first route needs".into()),
    })
}

/// Returns the injection, by a manifest's default scheme, of a credential that no route uses yet.
fn bearer(token: CredentialName) -> Injection {
    let value = InjectionValue::Template("Bearer {token}".into());
    Injection { slot: token.prefixed("EGRESS_TOKEN_"), token, header: HeaderName::constant("authorization"), value }
}

fn free_name(routes: &[Route], host: &RouteHost) -> String {
    let base = host.as_str().replace('*', "any");
    let numbered = (2..=routes.len() + 2).map(|number| format!("{base}-{number}"));
    let mut names = std::iter::once(base.clone()).chain(numbered);
    // There are more candidates than routes.
    names.find(|name| routes.iter().all(|route| route.name != *name)).unwrap_or(base)
}

/// Returns true if, for some request, neither of two routes takes precedence over the other.
fn clash(one: &Route, other: &Route) -> bool {
    fn meet<T: PartialEq>(one: &[T], other: &[T]) -> bool {
        one.is_empty() && other.is_empty() || one.iter().any(|item| other.contains(item))
    }
    (&one.host, one.port) == (&other.host, other.port)
        && meet(&one.paths, &other.paths)
        && meet(&one.methods, &other.methods)
}

fn git_upstream(plan: &mut BottlePlan, key: String, name: &EntryName, url: &GitUrl) -> Edited {
    if url.transport() == GitTransport::Ssh {
        return Ok((When::ByHand, "the manifest has to give it a key and the host's public key".into()));
    }
    let upstreams = &mut plan.git_gate.get_or_insert_with(|| GitGatePlan { upstreams: Vec::new() }).upstreams;
    if let Some(same) = upstreams.iter().find(|upstream| upstream.name == *name) {
        return if same.url == *url {
            Ok((When::NextLaunch, "it is there already".into()))
        } else {
            Err(format!("another repository is served as `{name}`"))
        };
    }
    upstreams.push(Upstream {
        name: name.clone(),
        key,
        url: url.clone(),
        auth: GitAuth::Anonymous,
        known_hosts: Vec::new(),
        extra_hosts: std::collections::BTreeMap::new(),
        push: PushSpec { enabled: false, ..PushSpec::default() },
    });
    Ok((When::NextLaunch, "read only and without a credential; git-gate learns of it at its start".into()))
}

fn packages(plan: &mut BottlePlan, names: &[DebianPackage]) -> (When, String) {
    if plan.images.ready.contains_key(&Service::Agent) {
        return (When::ByHand, "the manifest names a ready image, which a person has to change".into());
    }
    let packages = &mut plan.images.agent.packages;
    packages.extend_from_slice(names);
    packages.sort();
    packages.dedup();
    (When::NextLaunch, "the agent's image is built with them then".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bottle_plan::Manifest;
    use bottle_posture::Posture;
    use bottle_testing::plans;

    fn plan(bottle: &str) -> BottlePlan {
        let manifest = format!("bottles: {{dev: {bottle}}}\nagents: {{demo: {{bottle: dev, command: [id]}}}}\n");
        plans::plan(&Manifest::parse(&manifest).unwrap())
    }

    fn asked(kind: &str, change: &str) -> Proposal {
        let id = "1700000000000-aaaaaaaaaaaaaaaa";
        let text = format!(
            r#"{{"agent_reason":"x","change":{change},"created":"2026-01-02T03:04:05.678Z","id":"{id}","kind":"{kind}","slug":"demo-1","version":1}}"#
        );
        Proposal::parse(text.as_bytes()).unwrap()
    }

    /// Returns the time of effect, the note, and the change of the posture.
    fn told(plan: &BottlePlan, kind: &str, change: &str) -> String {
        let edit = edit(plan, Some(plan), &asked(kind, change));
        let diff = Posture::of(plan).diff(&Posture::of(&edit.plan));
        let note = match edit.note.split_once("until the next launch pipelock inspects the content of") {
            None => edit.note,
            Some((before, after)) => {
                let limit = format!("above {} MiB is refused", pipelock::MAX_RESPONSE_BYTES >> 20);
                assert!(after.contains("2 s per MiB") && after.contains(&limit), "{after}");
                format!("{before}content until the next launch")
            }
        };
        format!("{:?}; {note}; {diff}", edit.when).trim().to_owned()
    }

    const ROUTED: &str = "{egress: {allow: [{host: b.example.com, inspect: content}], routes: [{host: a.example.com, paths: [/v1/], inject: {token: T, scheme: header}}]}}";

    #[test]
    fn a_host_is_allowed_at_once_unless_a_route_limits_it() {
        let plan = plan(ROUTED);
        let told = |host: &str| told(&plan, "allow_host", &format!(r#"{{"host":"{host}"}}"#));
        assert_eq!(
            told("c.example.com"),
            "Now; content until the next launch; + opens c.example.com on ports 80, 443, for everything"
        );
        assert_eq!(told("b.example.com"), "Now; b.example.com is allowed already; no change");
        assert!(told("a.example.com").starts_with("Never; routes limit what may be asked of a.example.com"));
        let allow = edit(&plan, Some(&plan), &asked("allow_host", r#"{"host":"aa.example.com"}"#)).plan.proxy.allow;
        assert!(allow.is_sorted(), "{allow:?}");
    }

    #[test]
    fn a_host_with_a_written_port_is_opened_on_the_default_ones_too() {
        let plan = plan("{egress: {allow: ['a.example.com:8443']}}");
        assert_eq!(
            told(&plan, "allow_host", r#"{"host":"a.example.com"}"#),
            "Now; ; + opens a.example.com on ports 80, 443, for everything"
        );
        let both = edit(&plan, Some(&plan), &asked("allow_host", r#"{"host":"a.example.com"}"#)).plan;
        assert_eq!(both.outlet_ports(), [80, 443, 8443].into());
        assert_eq!(
            told(&both, "allow_host", r#"{"host":"a.example.com"}"#),
            "Now; a.example.com is allowed already; no change"
        );
    }

    #[test]
    fn a_live_host_is_inspected_by_content_unless_the_launch_passes_it() {
        let plan = plan("{egress: {allow: ['*.passed.example.com', {host: '*.read.example.com', inspect: content}]}}");
        let content = |launched: bool, host: &str| {
            let asked = asked("allow_host", &format!(r#"{{"host":"{host}"}}"#));
            let edit = edit(&plan, launched.then_some(&plan), &asked);
            assert!(edit.plan.proxy.content.is_sorted(), "{:?}", edit.plan.proxy.content);
            let is_content = !edit.plan.proxy.passed().any(|passed| passed.as_str() == host);
            (is_content, edit.note.contains("until the next launch"))
        };
        // In effect now, and in the plan for the next launch.
        for (host, now, next) in [
            ("new.example.com", (true, true), false),
            ("*.new.example.com", (true, true), false),
            ("a.passed.example.com", (false, false), false),
            ("passed.example.com", (false, false), false),
            ("a.read.example.com", (true, false), true),
        ] {
            assert_eq!((content(true, host), content(false, host)), (now, (next, false)), "{host}");
        }
    }

    #[test]
    fn where_the_launch_decrypts_nothing_a_live_host_is_not_decrypted_either() {
        for manifest in ["{}", "{egress: {allow: [a.example.com], routes: [{host: r.example.com}]}}"] {
            let plan = plan(manifest);
            let edit = edit(&plan, Some(&plan), &asked("allow_host", r#"{"host":"new.example.com"}"#));
            assert_eq!((edit.when, edit.note.as_str()), (When::Now, ""));
            assert!(edit.plan.proxy.passed().any(|host| host.as_str() == "new.example.com"), "{manifest}");
            assert!(!edit.plan.proxy.decrypts());
        }
    }

    #[test]
    fn a_route_needs_egress_and_a_credential_that_egress_holds() {
        let (bare, routed) = (plan("{}"), plan(ROUTED));
        let route = |plan: &BottlePlan, rest: &str| told(plan, "route", &format!("{{{rest}}}"));
        assert!(route(&bare, r#""host":"c.example.com""#).starts_with("NextLaunch; the bottle has no egress sidecar"));
        assert!(
            route(&routed, r#""host":"c.example.com","methods":["GET"]"#)
                .starts_with("Now; content until the next launch; + opens")
        );
        let known = route(&routed, r#""credential":"T","host":"c.example.com""#);
        assert!(
            known.starts_with("Now; content until the next launch;") && known.contains("$T as `x-api-key`"),
            "{known}"
        );
        let unknown = route(&routed, r#""credential":"U","host":"c.example.com""#);
        assert!(unknown.starts_with("NextLaunch; egress holds no credential U") && unknown.contains("$U"), "{unknown}");
        // The same as the one that is there, but for the credential; and exactly the same.
        assert!(
            route(&routed, r#""host":"a.example.com","paths":["/v1/"]"#)
                .starts_with("Never; the route `a.example.com`")
        );
        let same = route(&routed, r#""credential":"T","host":"a.example.com","paths":["/v1/"]"#);
        assert!(same.starts_with("Now; there is such a route already"), "{same}");
        let edited =
            edit(&routed, Some(&routed), &asked("route", r#"{"host":"a.example.com","methods":["GET"]}"#)).plan;
        let names: Vec<_> = edited.egress.unwrap().routes.into_iter().map(|route| route.name).collect();
        assert_eq!(names, ["a.example.com", "a.example.com-2"]);
    }

    #[test]
    fn a_change_to_a_container_waits_for_the_next_launch_or_for_a_person() {
        let bare = plan("{}");
        let https = told(&bare, "git_upstream", r#"{"name":"lib","url":"https://git.example.com/a/lib"}"#);
        assert!(https.starts_with("NextLaunch; read only"), "{https}");
        let ssh = told(&bare, "git_upstream", r#"{"name":"lib","url":"git@git.example.com:a/lib"}"#);
        assert!(ssh.starts_with("ByHand;") && ssh.ends_with("no change"), "{ssh}");
        assert!(told(&bare, "image_change", r#"{"packages":["ripgrep"]}"#).starts_with("NextLaunch;"));
        assert!(told(&bare, "image_change", r#"{"dockerfile_patch":"RUN true"}"#).starts_with("ByHand;"));
        let ready = plan("{images: {agent: my/agent}}");
        assert!(told(&ready, "image_change", r#"{"packages":["ripgrep"]}"#).starts_with("ByHand;"));
    }
}
