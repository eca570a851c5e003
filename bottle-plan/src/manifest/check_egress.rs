//! The rules of the hosts that an agent may reach.

use std::collections::BTreeMap;

use super::rule::{Check, check_username, err, need, one_line};
use super::{EgressSpec, InjectScheme, InjectSpec, Inspect, RouteSpec};
use crate::value::{AllowedHost, Method, PathPrefix};

impl EgressSpec {
    pub(super) fn check(&self, all: &mut Check, key: &str) {
        check_routes(all, &self.routes, &format!("{key}.routes"));
        check_allowed(all, self, &format!("{key}.allow"));
        check_inspect(all, self, key);
    }
}

/// The host, port, path prefix and method of a route. No two routes may share this combination.
type Rank<'a> = (&'a str, u16, Option<&'a PathPrefix>, Option<&'a Method>);

fn check_routes(all: &mut Check, routes: &[RouteSpec], list: &str) {
    let mut names = BTreeMap::new();
    let mut ranks: BTreeMap<Rank<'_>, usize> = BTreeMap::new();
    for (index, route) in routes.iter().enumerate() {
        let key = format!("{list}[{index}]");
        all.add(need(
            route.port > 0,
            || format!("{key}.port"),
            "it is out of range; accepted: a whole number from 1 to 65535",
        ));
        if let Some(earlier) = route.name.as_ref().and_then(|name| names.insert(name, index)) {
            all.add(err(
                format!("{key}.name"),
                format!("`{list}[{earlier}]` has this name too; each name may be given once"),
            ));
        }
        if let Some(inject) = &route.inject {
            check_inject(all, inject, &format!("{key}.inject"));
        }
        check_headers(all, route, routes, &key);
        for path in or_any(&route.paths) {
            for method in or_any(&route.methods) {
                if let Some(earlier) = ranks.insert((route.host.as_str(), route.port, path, method), index) {
                    let what = match (path, method) {
                        (None, None) => "every request".to_owned(),
                        (Some(path), None) => format!("`{path}`"),
                        (None, Some(method)) => format!("{method}"),
                        (Some(path), Some(method)) => format!("{method} `{path}`"),
                    };
                    let problem = if earlier == index {
                        "is named twice".to_owned()
                    } else {
                        format!("is described by `{list}[{earlier}]` as well, so neither goes before the other")
                    };
                    all.add(err(&key, format!("{what} to `{}` {problem}", route.host)));
                }
            }
        }
    }
}

/// Checks the further headers of a route. Egress replaces a header that it injects for the host, and refuses a header that
/// stands for another method or path.
fn check_headers(all: &mut Check, route: &RouteSpec, routes: &[RouteSpec], key: &str) {
    let injects = || routes.iter().filter(|other| other.host == route.host).filter_map(|other| other.inject.as_ref());
    if !route.headers.is_empty() && injects().next().is_none() {
        all.add(err(
            format!("{key}.headers"),
            format!("no route for `{}` has a credential, so every header passes; accepted: no `headers`", route.host),
        ));
    }
    for (index, header) in route.headers.iter().enumerate() {
        let problem = if injects().any(|inject| inject.header_name() == *header) {
            "egress injects it for this host"
        } else if OVERRIDES.contains(&header.as_str()) {
            "it stands for another method or path than the one that egress checks"
        } else if route.headers[..index].contains(header) {
            "it is named twice"
        } else {
            continue;
        };
        all.add(err(
            format!("{key}.headers[{index}]"),
            format!("`{header}` cannot pass: {problem}; accepted: another header"),
        ));
    }
}

/// Headers that egress refuses on routed hosts, as in `policy.py`.
const OVERRIDES: [&str; 5] =
    ["x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"];

/// Checks that no allowed host is in the domain of a route's wildcard. Only routes can allow hosts there, because
/// egress denies every other host of that domain. Nor can a host with routes have a port that none of them has.
fn check_allowed(all: &mut Check, egress: &EgressSpec, key: &str) {
    for (index, allowed) in egress.allow.iter().enumerate() {
        let Some(port) = allowed.port else { continue };
        let mut routes = egress.routes.iter().filter(|route| route.host.matches(allowed.host.as_str())).peekable();
        if routes.peek().is_some() && routes.all(|route| route.port != port) {
            all.add(err(
                format!("{key}[{index}]"),
                format!(
                    "`{}` has routes, and no other request to it passes; accepted: a route for it with `port: {port}`",
                    allowed.host
                ),
            ));
        }
    }
    for (index, allowed) in egress.allow.iter().map(|entry| &entry.host).enumerate() {
        if let Some(route) = egress.routes.iter().find(|route| route.host.claims(allowed)) {
            all.add(err(
                format!("{key}[{index}]"),
                format!(
                    "`{allowed}` is in the domain of the route for `{}`, in which only routes can allow a host; accepted: a \
                     route for it",
                    route.host
                ),
            ));
        }
    }
}

/// Checks that all entries for a host agree on its inspection. Pipelock passes every host that a wildcard with
/// `connection` covers, so the content of such a host cannot be inspected.
fn check_inspect(all: &mut Check, egress: &EgressSpec, key: &str) {
    // The place and the inspection of each host. For a host without an inspection, it is the place of its first entry.
    let mut known: BTreeMap<AllowedHost, (String, Option<Inspect>)> = BTreeMap::new();
    for (place, host, inspect) in egress.inspections() {
        match known.get(&host) {
            Some((earlier, Some(other))) => {
                if let Some(inspect) = inspect.filter(|inspect| inspect != other) {
                    all.add(err(
                        format!("{key}.{place}"),
                        format!(
                            "`{host}` is inspected by `{inspect}` here and by `{other}` in `{key}.{earlier}`; accepted: one of \
                             the two"
                        ),
                    ));
                }
            }
            Some((_, None)) if inspect.is_none() => {}
            Some((_, None)) | None => drop(known.insert(host, (place, inspect))),
        }
    }
    for (host, (place, _)) in known.iter().filter(|(_, (_, inspect))| *inspect == Some(Inspect::Content)) {
        let mut domain = host.domain().or(Some(host.as_str()));
        while let Some(name) = domain {
            let wildcard = format!("*.{name}");
            let wide = wildcard.parse().ok().filter(|wildcard| wildcard != host);
            let wide = wide.and_then(|wildcard: AllowedHost| known.get(&wildcard));
            if let Some((wide, _)) = wide.filter(|(_, inspect)| inspect.unwrap_or_default() == Inspect::Connection) {
                all.add(err(
                    format!("{key}.{place}"),
                    format!(
                        "`{host}` is inspected by `content`, but `{wildcard}` in `{key}.{wide}` covers it and is inspected by \
                         `connection`; accepted: `inspect: content` for both"
                    ),
                ));
            }
            domain = name.split_once('.').map(|(_, parent)| parent);
        }
    }
}

/// Returns each item, or one `None` for an empty list, which stands for everything.
fn or_any<T>(items: &[T]) -> Vec<Option<&T>> {
    if items.is_empty() { vec![None] } else { items.iter().map(Some).collect() }
}

fn check_inject(all: &mut Check, inject: &InjectSpec, key: &str) {
    let header = inject.scheme == InjectScheme::Header;
    all.add(need(header || inject.header.is_none(), || format!("{key}.header"), "only scheme `header` has a header"));
    all.add(need(
        header || inject.template.is_none(),
        || format!("{key}.template"),
        "only scheme `header` has a template",
    ));
    all.add(need(
        inject.scheme == InjectScheme::Basic || inject.username.is_none(),
        || format!("{key}.username"),
        "only scheme `basic` has a user name",
    ));
    if let Some(template) = &inject.template {
        all.add(one_line(template, || format!("{key}.template")));
        all.add(need(
            fits_header(template) && template.matches("{token}").count() == 1,
            || format!("{key}.template"),
            "it does not fit; accepted: ASCII text that holds `{token}` once and neither begins nor ends with a space",
        ));
    }
    if let Some(username) = &inject.username {
        all.add(check_username(username, &format!("{key}.username")));
        all.add(need(
            fits_header(username),
            || format!("{key}.username"),
            "it does not fit a header; accepted: ASCII text that neither begins nor ends with a space",
        ));
    }
}

/// Returns `true` if a header can carry the text unchanged. Egress would not start with any other text.
fn fits_header(text: &str) -> bool {
    text.is_ascii() && text == text.trim_matches(' ')
}
