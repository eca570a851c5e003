//! Refusals, with their reason and the line of a manifest that would allow them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bottle_compose::sidecar::PROBED_HOST;
use bottle_plan::manifest::RouteSpec;
use bottle_plan::plan::Route;
use bottle_plan::value::{AllowedHost, Method, PathPrefix};
use bottle_plan::{BottlePlan, Service};
use serde::Serialize;
use serde_json::Value;

use crate::audit::line::{AuditLine, AuditOutcome, AuditSource};

/// Equal refusals of a bottle. See [`refusals`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Refusal {
    /// Sidecar that decided.
    pub sidecar: AuditSource,
    /// Request, git operation or tool that was refused, such as `GET api.example.com/v2/users`.
    pub tried: String,
    /// Reason, as a sentence without its full stop.
    pub why: String,
    /// Line below the bottle's name in the manifest that would allow it. `None` if no line of a manifest can.
    pub allow: Option<String>,
    /// Name of the route that [`allow`](Self::allow) is a new version of. `None` if the line is an addition.
    pub replaces: Option<String>,
    /// Number of times.
    pub count: usize,
    /// Time of the first, as in [`AuditLine::ts`].
    pub first: String,
    /// Time of the last.
    pub last: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = if self.count == 1 { String::new() } else { format!(" ({} times)", self.count) };
        writeln!(f, "{}  {}{times}", self.last, self.tried)?;
        write!(f, "    {}: {}", self.sidecar, self.why)?;
        match (&self.allow, &self.replaces) {
            (None, _) => Ok(()),
            (Some(line), None) => write!(f, "\n    to allow it: {line}"),
            (Some(line), Some(route)) => write!(f, "\n    to allow it, change the route `{route}`: {line}"),
        }
    }
}

/// Returns the refusals of the sidecars, equal ones once, the latest last. `plan` is the plan of their bottle. With it, a request
/// to a host for which a route injects a credential is allowed by a change of that route: a further route would pass the request
/// without the credential.
///
/// A request that egress passed on and pipelock refused is in both logs; it is returned once, with pipelock's reason.
/// Requests that failed for another reason than a rule, such as a host that does not answer, are not refusals.
///
/// ```
/// use bottle_sidecars::audit::{AuditLine, refusals};
/// let line = r#"{"ts":"2026-01-02T03:04:05.678Z","sidecar":"egress","event":"request","outcome":"refused",
///     "reason":"path","method":"GET","host":"api.example.com","port":443,"path":"/v2/users"}"#;
/// let lines: Vec<AuditLine> = vec![serde_json::from_str(line)?];
/// let all = refusals(&lines, None);
/// assert_eq!(all[0].tried, "GET api.example.com/v2/users");
/// assert_eq!(all[0].allow.as_deref(), Some(
///     "egress: {routes: [{host: api.example.com, paths: [/v2/users], methods: [GET]}]}"
/// ));
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn refusals(lines: &[AuditLine], plan: Option<&BottlePlan>) -> Vec<Refusal> {
    let mut all: BTreeMap<(AuditSource, String, String), Refusal> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.text("host") != Some(PROBED_HOST)) {
        // Egress passed it on. Pipelock's own line has the reason.
        if line.outcome != Some(AuditOutcome::Refused) || is_unresolved(line) {
            continue;
        }
        let (tried, why) = (legible(&tried(line)), legible(&why(line, plan)));
        let key = (line.sidecar, tried.clone(), why.clone());
        let refusal = all.entry(key).or_insert_with(|| {
            let route = plan.and_then(|plan| injecting(line, plan));
            let allow = match (plan, route) {
                (Some(plan), _) if is_own(line, plan) => None,
                (Some(plan), Some(route)) => widened(line, plan, route),
                (Some(plan), None) => on_port(line, plan).or_else(|| in_wildcard(line, plan)).or_else(|| allow(line)),
                (None, _) => allow(line),
            };
            let replaces = route.filter(|_| allow.is_some()).map(|route| legible(&route.name));
            let (count, first, last) = (0, line.ts.clone(), line.ts.clone());
            Refusal { sidecar: line.sidecar, tried, why, allow, replaces, count, first, last }
        });
        refusal.count += 1;
        refusal.first = refusal.first.clone().min(line.ts.clone());
        refusal.last = refusal.last.clone().max(line.ts.clone());
    }
    let mut all: Vec<Refusal> = all.into_values().collect();
    all.sort_by(|a, b| a.last.cmp(&b.last).then_with(|| a.tried.cmp(&b.tried)));
    all
}

/// Returns true if pipelock refused a request only because the host's name has no address.
fn is_unresolved(line: &AuditLine) -> bool {
    line.reason.as_deref() == Some("ssrf")
        && line.text("detail").is_some_and(|detail| detail.contains("DNS resolution error"))
}

/// Returns true if a host was refused that is the agent's own machine or a sidecar of the bottle, which no line of a manifest
/// allows.
fn is_own(line: &AuditLine, plan: &BottlePlan) -> bool {
    if !matches!(line.reason.as_deref(), Some("allowlist" | "not-allowed" | "port")) {
        return false;
    }
    let host = line.text("host").unwrap_or_default();
    let names = |service: Service| service.as_str() == host || plan.names.container(service) == host;
    host == "localhost"
        || host.ends_with(".localhost")
        || Service::SIDECARS.into_iter().chain([Service::Agent]).any(names)
}

/// Returns true if egress found encoded data in the name of a host.
fn is_encoded(line: &AuditLine) -> bool {
    line.finding.as_ref().is_some_and(|finding| finding.pattern == "encoded-data")
}

fn tried(line: &AuditLine) -> String {
    if let Some(upstream) = line.text("upstream") {
        let what = if line.event == "lookup" { "repository" } else { &line.event };
        return format!("git {what} {upstream}");
    }
    let Some(host) = line.text("host") else {
        return line.text("tool").map_or_else(|| line.event.clone(), |tool| format!("the tool `{tool}`"));
    };
    // The allowlist knows no more of a request than its host.
    let (method, path) = match line.reason.as_deref() {
        Some("allowlist" | "not-allowed" | "expired") => (None, None),
        _ => (line.text("method").filter(|method| *method != "CONNECT"), line.text("path")),
    };
    let method = method.map(|method| format!("{method} ")).unwrap_or_default();
    let port = line.port().filter(|port| !matches!(port, 80 | 443)).map(|port| format!(":{port}")).unwrap_or_default();
    format!("{method}{host}{port}{}", path.unwrap_or_default())
}

fn why(line: &AuditLine, plan: Option<&BottlePlan>) -> String {
    let rule = line.reason.as_deref().unwrap_or_default();
    let text = match (line.sidecar, rule) {
        _ if plan.is_some_and(|plan| is_own(line, plan)) => {
            "the host is the bottle itself or one of its sidecars, which the agent reaches without a proxy or not at all"
        }
        (AuditSource::Pipelock, "allowlist") | (AuditSource::Egress, "not-allowed") => "the host is not allowed",
        (AuditSource::Pipelock, "ssrf") => "the host's name has an address that is never allowed",
        (AuditSource::Egress, "expired") => "the approval of the host has ended",
        (AuditSource::Egress, "path") => "no route of the host allows the path",
        (AuditSource::Egress, "method") => "no route of the host allows the method on this path",
        (AuditSource::Egress, "host") => "the host is in the domain of a route's wildcard, and no route is for it",
        (AuditSource::Egress, "port") => "the host is not allowed on this port",
        (AuditSource::Egress, "https-only") => "a host with a route is reached over https only",
        (AuditSource::Egress, "connect") => "CONNECT must name one host, without a dot at its end, and a port",
        (AuditSource::Egress, "target") => "the request must name one host, without a dot at its end, and a path",
        (AuditSource::Egress, "limit") => {
            "the bottle has used the requests or bytes that it may (`limits.requests`, `limits.bytes`)"
        }
        (AuditSource::Egress, "host-mismatch") => "the request and its Host header name different hosts or ports",
        (AuditSource::Egress, "server-name-mismatch") => "CONNECT and the TLS server name are not the same host",
        (AuditSource::Egress, "not-tls") => "a tunnel must carry TLS",
        (AuditSource::Egress, "dlp") if is_encoded(line) => "the name looks like encoded data, or like one part of it",
        (AuditSource::Egress, "dlp") => {
            return line.finding.as_ref().map_or_else(
                || "it holds what looks like a credential".to_owned(),
                |finding| {
                    format!("it holds what looks like a credential (`{}`, in its {})", finding.pattern, finding.place)
                },
            );
        }
        (AuditSource::Egress, _) => return format!("rule `{rule}`"),
        (AuditSource::Supervise, "rate") => "the bottle has made too many proposals within a minute",
        (AuditSource::Supervise, "full") => "too many proposals wait for a decision",
        (AuditSource::Supervise, "ever") => "the bottle has made as many proposals as it may",
        (AuditSource::Supervise, "invalid") => "the proposal is not one that the tool takes",
        (AuditSource::Supervise, "too-large") => "the proposal is too large",
        (AuditSource::Supervise, "log-full") => "the audit log is full; launch the bottle again",
        (AuditSource::Supervise, "disk") => "the proposal could not be written to the disk",
        _ => return line.text("detail").map_or_else(|| rule.to_owned(), |detail| format!("{rule}: {detail}")),
    };
    text.to_owned()
}

/// Returns the manifest's line that would allow it and no more. What the agent sent becomes a part of it only if a manifest
/// may have it.
fn allow(line: &AuditLine) -> Option<String> {
    let host = quoted(line.text("host")?.parse::<AllowedHost>().ok()?.as_ref());
    let entry = match line.port() {
        None | Some(80 | 443) => host.clone(),
        Some(port) => format!("'{}:{port}'", host.trim_matches('\'')),
    };
    match (line.sidecar, line.reason.as_deref()?) {
        (AuditSource::Pipelock, "allowlist") | (AuditSource::Egress, "port" | "not-allowed" | "expired") => {
            Some(format!("egress: {{allow: [{entry}]}}"))
        }
        (AuditSource::Egress, "host" | "path" | "method") => {
            let path = quoted(line.text("path")?.parse::<PathPrefix>().ok()?.as_str());
            let method = quoted(line.text("method")?.parse::<Method>().ok()?.as_str());
            Some(format!("egress: {{routes: [{{host: {host}, paths: [{path}], methods: [{method}]}}]}}"))
        }
        (AuditSource::Egress, "dlp") if is_encoded(line) => Some(format!("egress: {{allow: [{entry}]}}")),
        // A value that egress injects must never leave in another place.
        (AuditSource::Egress, "dlp") if line.finding.as_ref()?.pattern != "bottle-secret" => {
            Some(format!("egress: {{allow: [{{host: {entry}, dlp: warn}}]}}"))
        }
        _ => None,
    }
}

/// Returns the routes of a request's host, the one whose path prefix is the longest match last.
fn routes<'a>(line: &AuditLine, plan: &'a BottlePlan) -> Option<Vec<&'a Route>> {
    let host: AllowedHost = line.text("host")?.parse().ok()?;
    let (_, parent) = host.as_str().split_once('.').unwrap_or_default();
    let routes = &plan.egress.as_ref()?.routes;
    let of = |name: &str| routes.iter().filter(|route| route.host.as_str() == name).collect::<Vec<&Route>>();
    let exact = of(host.as_str());
    let mut routes = if exact.is_empty() { of(&format!("*.{parent}")) } else { exact };
    let path = line.text("path").unwrap_or_default();
    routes.sort_by_key(|route| {
        let prefixes = route.paths.iter().map(PathPrefix::as_str).filter(|prefix| path.starts_with(prefix));
        prefixes.map(str::len).max().or(route.paths.is_empty().then_some(0))
    });
    Some(routes)
}

/// Returns the route that injects a credential for the host of a request whose path or method no route allows.
fn injecting<'a>(line: &AuditLine, plan: &'a BottlePlan) -> Option<&'a Route> {
    let rule = line.reason.as_deref()?;
    if line.sidecar != AuditSource::Egress || !matches!(rule, "path" | "method") {
        return None;
    }
    routes(line, plan)?.into_iter().rfind(|route| route.inject.is_some())
}

/// Returns the manifest's line of a route with what a refused request needs in addition.
fn widened(line: &AuditLine, plan: &BottlePlan, route: &Route) -> Option<String> {
    let path: PathPrefix = line.text("path")?.parse().ok()?;
    let method: Method = line.text("method")?.parse().ok()?;
    let mut spec = spec(plan, route)?;
    if line.reason.as_deref() == Some("path") && !spec.paths.is_empty() {
        spec.paths.push(path);
    }
    if !spec.methods.is_empty() && !spec.methods.contains(&method) {
        spec.methods.push(method);
    }
    written(&spec)
}

/// Returns the manifest's line of a further route, for a host that has routes on other ports only. It has their credential. An
/// entry below `allow` has no effect on such a host.
fn on_port(line: &AuditLine, plan: &BottlePlan) -> Option<String> {
    let (true, Some("port"), Some(port)) = (line.sidecar == AuditSource::Egress, line.reason.as_deref(), line.port())
    else {
        return None;
    };
    let routes = routes(line, plan)?;
    let route = routes.iter().rfind(|route| route.inject.is_some()).or(routes.last())?;
    let mut spec = spec(plan, route)?;
    spec.name = format!("{}-{port}", route.name).parse().ok();
    spec.port = port;
    spec.paths = vec![line.text("path")?.parse().ok()?];
    spec.methods = vec![line.text("method")?.parse().ok()?];
    written(&spec)
}

/// Returns the manifest's line of a further route, for a host whose routes are those of a wildcard. A route for the host alone would
/// take its place, with all that it allows.
fn in_wildcard(line: &AuditLine, plan: &BottlePlan) -> Option<String> {
    let is_routed = matches!(line.reason.as_deref(), Some("path" | "method")) && line.sidecar == AuditSource::Egress;
    let routes = routes(line, plan).filter(|_| is_routed)?;
    let wildcard = routes.last().filter(|route| route.host.as_str().starts_with("*."))?;
    let mut spec = spec(plan, wildcard)?;
    (spec.name, spec.dlp, spec.inspect) = (None, None, None);
    spec.paths = vec![line.text("path")?.parse().ok()?];
    spec.methods = vec![line.text("method")?.parse().ok()?];
    written(&spec)
}

/// Returns the entry of a manifest that a route comes from.
fn spec(plan: &BottlePlan, route: &Route) -> Option<RouteSpec> {
    plan.egress_for(&BTreeMap::new(), &BTreeSet::from([route.name.clone()])).routes.pop()
}

/// Returns the manifest's line of a route, without the keys that have their default value.
fn written(spec: &RouteSpec) -> Option<String> {
    let mut fields = serde_json::to_value(spec).ok()?;
    let route = fields.as_object_mut()?;
    route.retain(|key, value| key != "port" || *value != 443);
    if let Some(inject) = route.get_mut("inject").and_then(Value::as_object_mut) {
        inject.retain(|key, value| key != "scheme" || *value != "bearer");
    }
    Some(format!("egress: {{routes: [{}]}}", flow(&fields)))
}

/// Returns a value as YAML on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(key, value)| format!("{key}: {}", flow(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

/// Returns a text as YAML reads it in a list: quoted, unless it can be nothing else.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '_' | '-');
    let is_known = matches!(text, "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS");
    if text.chars().all(is_plain)
        && (text.starts_with('/') || is_known || text.contains('.') && text.contains(char::is_alphabetic))
    {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// Escapes what could change the meaning of a terminal's line: control characters, and invisible ones such as those that
/// change the direction of text.
fn legible(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        if c.is_ascii_graphic() { shown.push(c) } else { shown.extend(c.escape_debug()) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(json: &str) -> AuditLine {
        serde_json::from_str(&format!(r#"{{"ts":"2026-01-02T03:04:05.678Z",{json}}}"#)).unwrap()
    }

    fn request(rule: &str, more: &str) -> AuditLine {
        line(&format!(
            r#""sidecar":"egress","event":"request","outcome":"refused","reason":"{rule}","host":"a.example.com",{more}"#
        ))
    }

    fn only(line: AuditLine) -> Refusal {
        refusals(&[line], None).pop().unwrap()
    }

    #[test]
    fn a_refusal_names_the_line_that_allows_it() {
        for (line, allowed) in [
            (request("not-allowed", r#""method":"GET","path":"/x""#), Some("egress: {allow: [a.example.com]}")),
            (request("port", r#""port":8443"#), Some("egress: {allow: ['a.example.com:8443']}")),
            (
                request("method", r#""method":"PUT","path":"/v1/x,/""#),
                Some("egress: {routes: [{host: a.example.com, paths: ['/v1/x,/'], methods: [PUT]}]}"),
            ),
            (
                request("host", r#""method":"TRUE","path":"/""#),
                Some("egress: {routes: [{host: a.example.com, paths: [/], methods: ['TRUE']}]}"),
            ),
            (
                request("dlp", r#""finding":{"pattern":"github-token","place":"url"}"#),
                Some("egress: {allow: [{host: a.example.com, dlp: warn}]}"),
            ),
            (request("dlp", r#""finding":{"pattern":"bottle-secret","place":"url"}"#), None),
            (request("https-only", r#""port":80"#), None),
            // No manifest may have this path.
            (request("path", r#""path":"/a b\u001b[2K""#), None),
        ] {
            assert_eq!(only(line.clone()).allow.as_deref(), allowed, "{line:?}");
        }
    }

    #[test]
    fn an_allowed_line_is_one_that_a_manifest_takes() {
        let lines = [
            request("port", r#""port":8443"#),
            request("method", r#""method":"NULL","path":"/v1/it's,inject:""#),
            request("path", r#""method":"GET","path":"/x,/""#),
            request("dlp", r#""finding":{"pattern":"github-token","place":"url"}"#),
        ];
        for asked in lines {
            let line = only(asked.clone()).allow.unwrap();
            let text = format!("bottles:\n  b:\n    {line}\nagents: {{a: {{bottle: b, command: [id]}}}}");
            let manifest = bottle_plan::Manifest::parse(&text).unwrap_or_else(|error| panic!("{line}: {error}"));
            for route in manifest.bottles.values().flat_map(|bottle| &bottle.egress.routes) {
                let paths: Vec<&str> = route.paths.iter().map(PathPrefix::as_str).collect();
                let methods: Vec<&str> = route.methods.iter().map(Method::as_str).collect();
                assert_eq!((paths, methods), (vec![asked.text("path").unwrap()], vec![asked.text("method").unwrap()]));
            }
        }
    }

    #[test]
    fn a_route_that_injects_is_changed_so_that_the_request_gets_its_credential() {
        let manifest = |routes: &str| {
            let text = format!("bottles:\n  b:\n    {routes}\nagents: {{a: {{bottle: b, command: [id]}}}}");
            bottle_plan::Manifest::parse(&text).unwrap_or_else(|error| panic!("{routes}: {error}"))
        };
        let plan = bottle_testing::plans::plan(&manifest(
            "egress: {routes: [{host: a.example.com, paths: [/echo], methods: [GET], inject: {token: A_TOKEN}}]}",
        ));
        for (asked, paths, methods) in [
            (request("method", r#""method":"POST","path":"/echo""#), vec!["/echo"], vec!["GET", "POST"]),
            (request("path", r#""method":"GET","path":"/v1/x""#), vec!["/echo", "/v1/x"], vec!["GET"]),
        ] {
            let refusal = refusals(&[asked], Some(&plan)).pop().unwrap();
            assert_eq!(refusal.replaces.as_deref(), Some("a.example.com"), "{refusal}");
            assert!(refusal.to_string().contains("change the route `a.example.com`: egress: {routes: [{"), "{refusal}");
            let changed = bottle_testing::plans::plan(&manifest(&refusal.allow.unwrap()));
            let [route] = &changed.egress.as_ref().unwrap().routes[..] else { panic!("{changed:?}") };
            assert_eq!(route.paths.iter().map(PathPrefix::as_str).collect::<Vec<_>>(), paths);
            assert_eq!(route.methods.iter().map(Method::as_str).collect::<Vec<_>>(), methods);
            assert_eq!(route.inject, plan.egress.as_ref().unwrap().routes[0].inject);
        }
        // Another port needs a route of its own, which injects too.
        let refusal =
            refusals(&[request("port", r#""method":"GET","path":"/echo","port":8443"#)], Some(&plan)).pop().unwrap();
        assert_eq!(refusal.replaces, None);
        let added = bottle_testing::plans::plan(&manifest(&refusal.allow.unwrap()));
        let [route] = &added.egress.as_ref().unwrap().routes[..] else { panic!("{added:?}") };
        assert_eq!((&*route.name, route.port), ("a.example.com-8443", 8443));
        assert_eq!(route.inject, plan.egress.as_ref().unwrap().routes[0].inject);
        // No line allows the bottle's own sidecars.
        let sidecar = plan.names.container(Service::Pipelock);
        for (host, is_own) in [("localhost", true), ("egress", true), (&*sidecar, true), ("egress.example.com", false)]
        {
            let asked = line(&format!(
                r#""sidecar":"egress","event":"request","outcome":"refused","reason":"not-allowed","host":"{host}","port":8888"#
            ));
            let refusal = refusals(&[asked], Some(&plan)).pop().unwrap();
            assert_eq!((refusal.allow.is_none(), refusal.why.contains("sidecars")), (is_own, is_own), "{refusal}");
        }
        // A route that injects nothing stays as it is.
        let bare = bottle_testing::plans::plan(&manifest("egress: {routes: [{host: a.example.com, paths: [/echo]}]}"));
        let refusal = refusals(&[request("path", r#""method":"GET","path":"/x""#)], Some(&bare)).pop().unwrap();
        assert_eq!(refusal.replaces, None);
    }

    #[test]
    fn a_line_for_a_host_of_a_wildcard_keeps_what_the_wildcard_allows() {
        let wildcard = "{host: '*.example.com', paths: [/echo]}";
        let plan_of = |routes: &str| {
            let text = format!(
                "bottles: {{b: {{egress: {{routes: [{routes}]}}}}}}\nagents: {{a: {{bottle: b, command: [id]}}}}"
            );
            bottle_testing::plans::plan(&bottle_plan::Manifest::parse(&text).unwrap())
        };
        let plan = plan_of(&format!("{wildcard}, {{host: b.example.com, paths: [/own]}}"));
        let asked = request("path", r#""method":"GET","path":"/v1""#);
        let line = refusals(&[asked], Some(&plan)).pop().unwrap().allow.unwrap();
        let added = line.strip_prefix("egress: {routes: [").unwrap().strip_suffix("]}").unwrap();
        let both = plan_of(&format!("{wildcard}, {added}"));
        let [_, further] = &both.egress.as_ref().unwrap().routes[..] else { panic!("{line}") };
        assert_eq!((further.host.as_str(), further.paths[0].as_str()), ("*.example.com", "/v1"));
        assert_eq!((further.methods[0].as_str(), further.paths.len(), further.methods.len()), ("GET", 1, 1));
        // The host's own route is not that of the wildcard.
        let mut asked = request("path", r#""method":"GET","path":"/v1""#);
        asked.details["host"] = "b.example.com".into();
        let line = refusals(&[asked], Some(&plan)).pop().unwrap().allow.unwrap();
        assert_eq!(line, "egress: {routes: [{host: b.example.com, paths: [/v1], methods: [GET]}]}");
    }

    #[test]
    fn every_refusal_names_what_was_tried_and_says_why() {
        let shown = |json: &str| {
            let refusal = only(line(json));
            format!("{} | {}", refusal.tried, refusal.why)
        };
        let connect = r#""sidecar":"egress","event":"request","outcome":"refused","reason":"connect","method":"CONNECT","host":"a.example.com.:443""#;
        let why = "CONNECT must name one host, without a dot at its end, and a port";
        assert_eq!(shown(connect), format!("a.example.com.:443 | {why}"));
        let lookup = r#""sidecar":"git-gate","event":"lookup","outcome":"refused","reason":"no upstream of the bottle has this name","upstream":"none","seconds":0.0"#;
        assert_eq!(shown(lookup), "git repository none | no upstream of the bottle has this name");
        for code in ["rate", "full", "ever", "invalid", "too-large", "log-full", "disk"] {
            let proposal = format!(
                r#""sidecar":"supervise","event":"refused","outcome":"refused","reason":"{code}","tool":"propose_allow_host","code":"{code}""#
            );
            let text = shown(&proposal);
            assert!(text.starts_with("the tool `propose_allow_host` | ") && text.contains("the "), "{text}");
            assert!(!text.ends_with(&format!("| {code}")), "{text}");
        }
    }

    #[test]
    fn a_mismatch_of_hosts_is_explained() {
        let refusal = only(request("host-mismatch", r#""method":"CONNECT","port":443"#));
        let why = "the request and its Host header name different hosts or ports";
        assert_eq!((&*refusal.tried, &*refusal.why, refusal.allow), ("a.example.com", why, None));
    }

    #[test]
    fn equal_refusals_are_counted_and_the_latest_is_last() {
        let mut lines = vec![request("path", r#""method":"GET","path":"/x""#); 3];
        lines[2].ts = "2026-01-02T03:04:07.000Z".into();
        let mut other = request("path", r#""path":"/y""#);
        other.ts = "2026-01-02T03:04:06.000Z".into();
        lines.push(other);
        let all = refusals(&lines, None);
        assert_eq!(all.iter().map(|refusal| refusal.count).collect::<Vec<_>>(), [1, 3]);
        let text = all[1].to_string();
        let shown = "2026-01-02T03:04:07.000Z  GET a.example.com/x (3 times)\n    egress: no route of the host allows the path\n    to \
                     allow it: egress: {routes: [{host: a.example.com, paths: [/x], methods: [GET]}]}";
        assert_eq!(text, shown);
    }

    #[test]
    fn the_probe_of_a_launch_and_names_without_address_are_no_refusals() {
        let blocked = |host: &str, scanner: &str, detail: &str| {
            line(&format!(
                r#""sidecar":"pipelock","event":"request","outcome":"refused","reason":"{scanner}","host":"{host}","detail":"{detail}""#
            ))
        };
        let lines = [
            blocked(PROBED_HOST, "allowlist", "domain not in allowlist"),
            blocked("a.example.com", "ssrf", "SSRF check failed: DNS resolution error for a.example.com"),
            blocked("b.example.com", "ssrf", "SSRF check failed: private address"),
        ];
        let all = refusals(&lines, None);
        assert_eq!((all.len(), &*all[0].tried, &all[0].allow), (1, "b.example.com", &None));
    }

    #[test]
    fn an_agent_cannot_draw_on_the_terminal() {
        let refusal = only(request("path", r#""path":"/\u001b[2K\nGET ok""#));
        assert_eq!(refusal.tried, r"a.example.com/\u{1b}[2K\nGET ok");
        let refusal = only(request("path", r#""path":"/'é' \u202egnp.exe""#));
        assert_eq!(refusal.tried, r"a.example.com/'é' \u{202e}gnp.exe");
    }
}
