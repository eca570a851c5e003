//! The differences between two postures, in words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::posture::{
    CredentialPosture, GitCredential, GitPosture, Posture, RoutePosture, Temporary, methods, paths, ports,
};
use bottle_plan::manifest::{
    ContainerLimits, Inspect, OnDenied, PushSpec, RequestScan, Runtime, SecretsMode, WorkspaceMode,
};
use bottle_plan::name::Service;
use bottle_plan::value::{AllowedHost, DEFAULT_PORTS, Glob, HeaderName, Method, PathPrefix};

/// The direction of a change: whether the bottle may do more or less than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Neither widening nor narrowing.
    Neutral,
    /// The bottle may do less than before.
    Narrowing,
    /// The bottle may do more than before.
    Widening,
}

/// One difference between two postures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The direction of the change.
    pub effect: Effect,
    /// Description of the change, as a verb and its object: `opens api.example.com:443 for POST`.
    pub words: String,
}

/// All differences between two postures. Widening changes come first, then narrowing ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostureDiff {
    /// The differences. Empty if both postures allow the same.
    pub changes: Vec<Change>,
}

impl PostureDiff {
    /// Returns the strongest effect of the changes: widening before narrowing before neutral. Neutral if there are no
    /// changes.
    pub fn effect(&self) -> Effect {
        self.changes.iter().map(|change| change.effect).max().unwrap_or(Effect::Neutral)
    }
}

impl fmt::Display for PostureDiff {
    /// Writes one line for each change: `+` for a widening one, `-` for a narrowing one, `~` for a neutral one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes.is_empty() {
            return writeln!(f, "no change");
        }
        for change in &self.changes {
            let sign = match change.effect {
                Effect::Widening => '+',
                Effect::Narrowing => '-',
                Effect::Neutral => '~',
            };
            writeln!(f, "{sign} {}", change.words)?;
        }
        Ok(())
    }
}

impl Posture {
    /// Compares this posture with a newer one, `other`. Something that only `other` allows is a widening change.
    ///
    /// Route names and the order of lists are ignored.
    pub fn diff(&self, other: &Self) -> PostureDiff {
        let mut changes = Changes::default();
        let (allowed, allowed_by_other) = (Allowed::of(self), Allowed::of(other));
        let (on, off) = ("opens EVERY HOST on ports 80, 443", "closes every host that is not listed");
        changes.switch(self.is_open, other.is_open, on, off);
        changes.reach(&allowed, &allowed_by_other);
        changes.sets(&injections(self), &injections(other), |(credential, place)| {
            [
                format!("adds {credential} to requests to {place}"),
                format!("no longer adds {credential} to requests to {place}"),
            ]
        });
        changes.sets(&headers(self), &headers(other), |(header, place)| {
            [
                format!("passes the agent's header `{header}` to {place}"),
                format!("no longer passes the agent's header `{header}` to {place}"),
            ]
        });
        changes.inspection(&allowed, &allowed_by_other);
        changes.ends(self, other);
        let (before, after) = (self.scan_requests, other.scan_requests);
        if before != after {
            // The variants are ordered by strictness.
            let effect = if after < before { Effect::Widening } else { Effect::Narrowing };
            changes.add(effect, format!("scans requests with `{after}` instead of `{before}`"));
        }
        let of_other = searches(other);
        for (place, before) in searches(self) {
            if let Some(after) = of_other.get(&place).filter(|after| **after != before) {
                let effect = if *after < before { Effect::Widening } else { Effect::Narrowing };
                changes.add(
                    effect,
                    format!("searches requests to {place} for credentials with `{after}` instead of `{before}`"),
                );
            }
        }
        changes.git(self, other);
        changes.environment(self, other);
        changes.workspace(self, other);
        changes.container(self, other);
        changes.list.sort_by_key(|change| std::cmp::Reverse(change.effect));
        PostureDiff { changes: changes.list }
    }
}

#[derive(Default)]
struct Changes {
    list: Vec<Change>,
}

impl Changes {
    fn add(&mut self, effect: Effect, words: impl Into<String>) {
        self.list.push(Change { effect, words: words.into() });
    }

    /// Compares two sets. An item that is only in `new` is a widening change, an item that is only in `old` a narrowing
    /// one. `words` returns the text for each case.
    fn sets<T: Ord>(&mut self, old: &BTreeSet<T>, new: &BTreeSet<T>, words: impl Fn(&T) -> [String; 2]) {
        for gained in new.difference(old) {
            let [words, _] = words(gained);
            self.add(Effect::Widening, words);
        }
        for lost in old.difference(new) {
            let [_, words] = words(lost);
            self.add(Effect::Narrowing, words);
        }
    }

    /// Compares a boolean that widens the posture when it becomes `true`.
    fn switch(&mut self, old: bool, new: bool, on: impl Into<String>, off: impl Into<String>) {
        match (old, new) {
            (false, true) => self.add(Effect::Widening, on),
            (true, false) => self.add(Effect::Narrowing, off),
            _ => {}
        }
    }

    /// Compares the allowed requests host by host, because a route limits a host that would be open without it.
    fn reach(&mut self, old: &Allowed<'_>, new: &Allowed<'_>) {
        for host in old.hosts.union(&new.hosts) {
            let (before, after) = (old.reaches(host), new.reaches(host));
            let missing = |reach: &&Reach, others: &[Reach]| !others.iter().any(|other| other.covers(reach));
            for reach in after.iter().filter(|reach| missing(reach, &before)) {
                self.add(Effect::Widening, format!("opens {host}{reach}"));
            }
            let lost: Vec<_> = before.iter().filter(|reach| missing(reach, &after)).collect();
            if lost.iter().any(|lost| after.iter().any(|left| lost.covers(left))) {
                let left: Vec<String> = after.iter().map(|reach| format!("{host}{reach}")).collect();
                self.add(Effect::Narrowing, format!("narrows {host} to {}", left.join(", ")));
            } else {
                for reach in lost {
                    self.add(Effect::Narrowing, format!("closes {host}{reach}"));
                }
            }
        }
    }

    /// Compares the inspection by pipelock, host by host. Only hosts that both postures allow are compared. A host that
    /// becomes allowed is already listed as such.
    fn inspection(&mut self, old: &Allowed<'_>, new: &Allowed<'_>) {
        for host in old.hosts.union(&new.hosts) {
            let both = !old.reaches(host).is_empty() && !new.reaches(host).is_empty();
            match (old.inspects(host), new.inspects(host)) {
                (Inspect::Content, Inspect::Connection) if both => {
                    self.add(Effect::Widening, format!("inspects {host} by connection instead of content"));
                }
                (Inspect::Connection, Inspect::Content) if both => {
                    self.add(Effect::Narrowing, format!("inspects {host} by content instead of connection"));
                }
                _ => {}
            }
        }
    }

    /// Compares the ends of hosts that both postures allow.
    fn ends(&mut self, old: &Posture, new: &Posture) {
        let words = |end: Option<&Temporary>| end.map_or("without an end".to_owned(), ToString::to_string);
        for host in old.open_hosts.iter().filter(|host| new.open_hosts.contains(host)) {
            let (before, after) = (old.temporary.get(host), new.temporary.get(host));
            if before != after {
                // A time sorts as its text. No end is the latest.
                let widens = after.is_none() || before.is_some_and(|before| after > Some(before));
                let effect = if widens { Effect::Widening } else { Effect::Narrowing };
                self.add(effect, format!("allows {host} {} instead of {}", words(after), words(before)));
            }
        }
    }

    fn git(&mut self, old: &Posture, new: &Posture) {
        let find = |posture: &Posture, name: &str| posture.git.iter().find(|up| up.name.as_str() == name).cloned();
        let names: BTreeSet<_> = old.git.iter().chain(&new.git).map(|upstream| upstream.name.as_str()).collect();
        for name in names {
            match (find(old, name), find(new, name)) {
                (None, Some(upstream)) => {
                    self.add(Effect::Widening, format!("opens the git repository {upstream}"));
                    self.git_credential(None, Some(&upstream.credential));
                }
                (Some(upstream), None) => {
                    self.add(Effect::Narrowing, format!("closes the git repository {name}: {}", upstream.url));
                    self.git_credential(Some(&upstream.credential), None);
                }
                (Some(old), Some(new)) => self.upstream(&old, &new),
                (None, None) => {}
            }
        }
    }

    fn upstream(&mut self, old: &GitPosture, new: &GitPosture) {
        let name = &new.name;
        if old.url != new.url {
            // The rights at the old URL cannot be compared with those at the new one.
            self.add(
                Effect::Widening,
                format!("points the git repository {name} at {} instead of {}", new.url, old.url),
            );
        }
        if old.credential != new.credential {
            self.git_credential(Some(&old.credential), Some(&new.credential));
        }
        let (before, after) = (&effective(&old.push), &new.push);
        self.switch(
            before.enabled,
            after.enabled,
            format!("lets {name} be pushed to"),
            format!("makes {name} read only"),
        );
        if !after.enabled {
            return;
        }
        let globs = |globs: &[Glob]| globs.iter().cloned().collect::<BTreeSet<_>>();
        self.sets(&globs(&before.branches), &globs(&after.branches), |glob| {
            [format!("lets {name} be pushed to on {glob}"), format!("no longer lets {name} be pushed to on {glob}")]
        });
        // The order is reversed, because an added path is an added protection.
        self.sets(&globs(&after.protected_paths), &globs(&before.protected_paths), |glob| {
            [format!("lets pushes to {name} change {glob}"), format!("no longer lets pushes to {name} change {glob}")]
        });
        let switches = [
            (before.force, after.force, "rewrite branches"),
            (before.delete, after.delete, "delete branches and tags"),
            (before.tags, after.tags, "bring tags"),
            (!before.scan, !after.scan, "go without a scan for secrets"),
        ];
        for (before, after, what) in switches {
            let (on, off) =
                (format!("lets pushes to {name} {what}"), format!("no longer lets pushes to {name} {what}"));
            self.switch(before, after, on, off);
        }
        let (small, large) = (before.max_size, after.max_size);
        if small != large {
            let effect = if small < large { Effect::Widening } else { Effect::Narrowing };
            self.add(effect, format!("lets a push to {name} bring {large} instead of {small}"));
        }
    }

    fn git_credential(&mut self, old: Option<&GitCredential>, new: Option<&GitCredential>) {
        let words = |credential: &GitCredential| match credential {
            GitCredential::KeyFile(path) => Some(format!("the key {path}")),
            GitCredential::DeployKey { repository, read_only, .. } => {
                Some(format!("a key of its own that may {} {repository}", if *read_only { "read" } else { "write" }))
            }
            GitCredential::Token(variable) => Some(format!("the token ${variable}")),
            GitCredential::None => None,
        };
        if let Some(words) = new.and_then(words) {
            self.add(Effect::Widening, format!("gives git-gate {words}"));
        }
        if let Some(words) = old.and_then(words) {
            self.add(Effect::Narrowing, format!("takes from git-gate {words}"));
        }
    }

    fn environment(&mut self, old: &Posture, new: &Posture) {
        let (old, new) = (&old.environment, &new.environment);
        let pairs = |environment: &super::EnvironmentPosture| -> BTreeSet<_> {
            environment.forwarded.iter().map(|(name, source)| (source.clone(), name.clone())).collect()
        };
        self.sets(&pairs(old), &pairs(new), |(source, name)| {
            [format!("hands the agent ${source} as ${name}"), format!("no longer hands the agent ${source} as ${name}")]
        });
        let file = |environment: &super::EnvironmentPosture| environment.file.iter().cloned().collect::<BTreeSet<_>>();
        self.sets(&file(old), &file(new), |path| {
            [
                format!("hands the agent the variables in {path}"),
                format!("no longer hands the agent the variables in {path}"),
            ]
        });
        for (what, old, new) in
            [("literal", &old.literals, &new.literals), ("dummy", &old.placeholders, &new.placeholders)]
        {
            for name in new.difference(old) {
                self.add(Effect::Neutral, format!("sets the agent's ${name} to a {what}"));
            }
            for name in old.difference(new) {
                self.add(Effect::Neutral, format!("no longer sets the agent's ${name} to a {what}"));
            }
        }
    }

    fn workspace(&mut self, old: &Posture, new: &Posture) {
        let (old, new) = (&old.workspace, &new.workspace);
        if old == new {
            return;
        }
        let none = |mode| mode == WorkspaceMode::None;
        let same_source = old.source == new.source || none(old.mode) || none(new.mode);
        // The agent's access to the directory: none, part of it, all of it, or all of it with the right to change it.
        let rank = |workspace: &super::WorkspacePosture| match workspace.mode {
            WorkspaceMode::None => 0,
            WorkspaceMode::Copy if !workspace.include_credential_files => 1,
            WorkspaceMode::Copy => 2,
            WorkspaceMode::Bind => 3,
            WorkspaceMode::BindRw => 4,
        };
        let effect = match rank(old).cmp(&rank(new)) {
            std::cmp::Ordering::Less => Effect::Widening,
            _ if !same_source => Effect::Widening,
            std::cmp::Ordering::Greater => Effect::Narrowing,
            std::cmp::Ordering::Equal => Effect::Neutral,
        };
        self.add(effect, format!("shows the agent {new}, instead of {old}"));
    }

    fn container(&mut self, old: &Posture, new: &Posture) {
        let set = |list: &[String]| list.iter().cloned().collect::<BTreeSet<_>>();
        self.sets(&set(&old.capabilities), &set(&new.capabilities), |name| {
            [format!("gives the agent the capability {name}"), format!("takes from the agent the capability {name}")]
        });
        let (on, off) = ("lets the agent share the host's kernel", "gives the agent a kernel of its own");
        self.switch(old.runtime == Runtime::Runc, new.runtime == Runtime::Runc, on, off);
        let ca = |posture: &Posture| posture.upstream_ca.iter().cloned().collect::<BTreeSet<_>>();
        self.sets(&ca(old), &ca(new), |path| {
            [
                format!("lets upstream connections trust the certificates in {path}"),
                format!("no longer lets upstream connections trust the certificates in {path}"),
            ]
        });
        if old.on_denied != new.on_denied {
            self.add(
                Effect::Neutral,
                match new.on_denied {
                    OnDenied::Propose => "has a refused host proposed to a person by itself",
                    OnDenied::Refuse => "no longer has a refused host proposed by itself",
                },
            );
        }
        match (old.supervise, new.supervise) {
            (None, Some(_)) => self.add(Effect::Neutral, "lets the agent ask a person for changes"),
            (Some(_), None) => self.add(Effect::Neutral, "no longer lets the agent ask a person for changes"),
            (Some(old), Some(new)) if old != new => {
                self.add(Effect::Neutral, format!("lets the agent wait {new} instead of {old} for a person's answer"));
            }
            _ => {}
        }
        if old.networks != new.networks {
            self.add(Effect::Neutral, "lets somebody else make the networks");
        }
        let environment = |posture: &Posture| posture.secrets == SecretsMode::Environment;
        let (on, off) = ("lets the engine store its credentials", "no longer lets the engine store its credentials");
        self.switch(environment(old), environment(new), on, off);
        if old.certificate_lifetime != new.certificate_lifetime {
            let (old, new) = (old.certificate_lifetime, new.certificate_lifetime);
            self.add(Effect::Neutral, format!("lets the bottle's certificates be valid for {new} instead of {old}"));
        }
        self.images(old, new);
        self.limits(Service::Agent.as_str(), old.limits.agent, new.limits.agent);
        self.limits("each sidecar", old.limits.sidecar, new.limits.sidecar);
        let none = "no limit";
        self.limit("time", old.limits.time, new.limits.time, none);
        self.limit("time without a request", old.limits.idle, new.limits.idle, none);
        self.limit("requests", old.limits.requests, new.limits.requests, none);
        self.limit("bytes of requests and answers", old.limits.bytes, new.limits.bytes, none);
    }

    /// Compares the images. A different image may contain anything. For a sidecar, which guards the agent, it is a
    /// widening change.
    fn images(&mut self, old: &Posture, new: &Posture) {
        let services: BTreeSet<_> = old.images.keys().chain(new.images.keys()).copied().collect();
        for service in services {
            let (before, after) = (old.images.get(&service), new.images.get(&service));
            if before == after {
                continue;
            }
            let words = |image: Option<&bottle_plan::value::ImageRef>| {
                image.map_or("the built image".into(), ToString::to_string)
            };
            let effect = if service == Service::Agent { Effect::Neutral } else { Effect::Widening };
            self.add(effect, format!("runs {service} from {} instead of {}", words(after), words(before)));
        }
    }

    fn limits(&mut self, whose: &str, old: ContainerLimits, new: ContainerLimits) {
        let default = "the default";
        self.limit(&format!("memory of {whose}"), old.memory, new.memory, default);
        self.limit(&format!("processors of {whose}"), old.cpus, new.cpus, default);
        self.limit(&format!("processes of {whose}"), old.pids, new.pids, default);
        self.limit(&format!("files of {whose}"), old.disk, new.disk, default);
    }

    /// Compares one limit. A missing limit stands for the default or for no limit, and counts as higher than any value.
    fn limit<T: Ord + Copy + fmt::Display>(&mut self, what: &str, old: Option<T>, new: Option<T>, none: &str) {
        let words = |limit: Option<T>| limit.map_or(none.to_owned(), |limit| limit.to_string());
        let widens = match (old, new) {
            (old, new) if old == new => return,
            (Some(old), Some(new)) => new > old,
            (_, new) => new.is_none(),
        };
        let effect = if widens { Effect::Widening } else { Effect::Narrowing };
        self.add(effect, format!("limits the {what} to {} instead of {}", words(new), words(old)));
    }
}

/// Returns the push rules that are in effect. If pushes are disabled, nothing may be pushed, whatever the other fields
/// say.
fn effective(push: &PushSpec) -> PushSpec {
    if push.enabled {
        return push.clone();
    }
    PushSpec { branches: Vec::new(), force: false, delete: false, tags: false, scan: true, ..push.clone() }
}

/// Returns every credential with the host and the requests that it is added to.
fn injections(posture: &Posture) -> BTreeSet<(CredentialPosture, String)> {
    let routes = posture.routes.iter().filter_map(|route| Some((route, route.credential.clone()?)));
    routes
        .flat_map(|(route, credential)| {
            parts(route).map(move |reach| (credential.clone(), format!("{}{reach}", route.host)))
        })
        .collect()
}

/// Returns every further header that passes, with the host and the requests that it passes with.
fn headers(posture: &Posture) -> BTreeSet<(HeaderName, String)> {
    let routes = posture.routes.iter().flat_map(|route| route.headers.iter().map(move |header| (route, header)));
    routes
        .flat_map(|(route, header)| parts(route).map(move |reach| (header.clone(), format!("{}{reach}", route.host))))
        .collect()
}

/// A kind of request that a host may receive. `None` in a field means any value.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reach {
    /// One port, or the default ones together.
    ports: BTreeSet<u16>,
    path: Option<PathPrefix>,
    method: Option<Method>,
}

impl Reach {
    /// Returns every request to these ports.
    fn everything(ports: &BTreeSet<u16>) -> Vec<Self> {
        let defaults: BTreeSet<u16> = DEFAULT_PORTS.into();
        let together = Some(defaults).filter(|defaults| defaults.is_subset(ports));
        let others = ports.iter().filter(|port| !together.as_ref().is_some_and(|together| together.contains(port)));
        let others: Vec<BTreeSet<u16>> = others.map(|port| [*port].into()).collect();
        together.into_iter().chain(others).map(|ports| Self { ports, path: None, method: None }).collect()
    }

    fn covers(&self, other: &Self) -> bool {
        let below = |outer: &PathPrefix, inner: &PathPrefix| {
            let rest = inner.as_str().strip_prefix(outer.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || outer.as_str().ends_with('/'))
        };
        self.ports.is_superset(&other.ports)
            && (self.method.is_none() || self.method == other.method)
            && match (&self.path, &other.path) {
                (None, _) => true,
                (Some(outer), Some(inner)) => below(outer, inner),
                (Some(_), None) => false,
            }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ports.first() {
            Some(port) if self.ports.len() == 1 => write!(f, ":{port}")?,
            _ => write!(f, " on {},", ports(&self.ports))?,
        }
        match (&self.method, &self.path) {
            (None, None) => f.write_str(" for everything"),
            (Some(method), None) => write!(f, " for {method}"),
            (None, Some(path)) => write!(f, " below {path}"),
            (Some(method), Some(path)) => write!(f, " for {method} below {path}"),
        }
    }
}

/// The hosts of a posture, by their patterns. A bottle may have thousands of them.
struct Allowed<'a> {
    open: BTreeMap<&'a str, BTreeSet<u16>>,
    routes: BTreeMap<&'a str, Vec<&'a RoutePosture>>,
    content: BTreeSet<&'a str>,
    hosts: BTreeSet<AllowedHost>,
    is_open: bool,
}

impl<'a> Allowed<'a> {
    fn of(posture: &'a Posture) -> Self {
        let mut routes: BTreeMap<&str, Vec<&RoutePosture>> = BTreeMap::new();
        for route in &posture.routes {
            routes.entry(route.host.as_str()).or_default().push(route);
        }
        Self {
            open: posture.open_hosts.iter().map(|host| (host.as_str(), posture.ports_of(host))).collect(),
            content: posture.content.iter().map(AllowedHost::as_str).collect(),
            hosts: posture
                .open_hosts
                .iter()
                .cloned()
                .chain(posture.routes.iter().map(|route| route.host.to_allowed()))
                .collect(),
            routes,
            is_open: posture.is_open,
        }
    }

    /// Returns the allowed requests to a host: those of its routes if it has routes, every request to its ports if it is
    /// open, and else none.
    fn reaches(&self, host: &AllowedHost) -> Vec<Reach> {
        // A route's wildcard stands for exactly one label. A route for exactly this host hides it.
        let wildcard = || self.routes.get(format!("*.{}", host.as_str().split_once('.')?.1).as_str());
        if let Some(routes) = self.routes.get(host.as_str()).or_else(wildcard) {
            return routes.iter().flat_map(|route| parts(route)).collect();
        }
        let open = covering(host).filter_map(|pattern| self.open.get(pattern.as_str()));
        let everywhere = DEFAULT_PORTS.into_iter().filter(|_| self.is_open);
        Reach::everything(&open.flatten().copied().chain(everywhere).collect())
    }

    /// Returns the kind of inspection for a host. The pattern for exactly this host decides, or else a wildcard that
    /// covers it. A wildcard with `connection` never covers a host with `content`.
    fn inspects(&self, host: &AllowedHost) -> Inspect {
        let is_content = |pattern: &String| self.content.contains(pattern.as_str());
        let is_named =
            |pattern: &String| self.open.contains_key(pattern.as_str()) || self.routes.contains_key(pattern.as_str());
        if self.content.contains(host.as_str())
            || !covering(host).any(|pattern| is_named(&pattern) && !is_content(&pattern))
                && covering(host).any(|pattern| is_content(&pattern))
        {
            Inspect::Content
        } else {
            Inspect::Connection
        }
    }
}

/// Returns the search for credentials in requests to each host, and to each route with its limits. A host with routes
/// has the weakest of theirs.
fn searches(posture: &Posture) -> BTreeMap<String, RequestScan> {
    let of_host = |host: &AllowedHost| {
        let named = covering(host).find_map(|pattern| {
            posture.dlp_of_hosts.iter().find_map(|(host, dlp)| (host.as_str() == pattern).then_some(*dlp))
        });
        named.or(posture.dlp).filter(|_| posture.dlp.is_some()).unwrap_or_default()
    };
    let mut found: BTreeMap<_, _> = posture.open_hosts.iter().map(|host| (host.to_string(), of_host(host))).collect();
    for route in &posture.routes {
        let host = route.host.to_allowed();
        let dlp = route.dlp.unwrap_or_else(|| of_host(&host));
        let weakest = found.entry(host.to_string()).or_insert(dlp);
        *weakest = dlp.min(*weakest);
        found.insert(format!("{host}:{}, {}, {}", route.port, methods(&route.methods), paths(&route.paths)), dlp);
    }
    found
}

/// Returns the open patterns that cover a host: its own, and every wildcard that matches it. An open wildcard matches the
/// domain itself and every name below it.
fn covering(host: &AllowedHost) -> impl Iterator<Item = String> {
    let name = host.domain().unwrap_or(host.as_str());
    let domains = std::iter::successors(Some(name), |name| Some(name.split_once('.')?.1));
    std::iter::once(host.to_string()).chain(domains.map(|domain| format!("*.{domain}")))
}

fn parts(route: &RoutePosture) -> impl Iterator<Item = Reach> {
    fn or_any<T: Clone>(items: &[T]) -> Vec<Option<T>> {
        if items.is_empty() { vec![None] } else { items.iter().cloned().map(Some).collect() }
    }
    let methods = or_any(&route.methods);
    or_any(&route.paths).into_iter().flat_map(move |path| {
        let methods = methods.clone();
        methods.into_iter().map(move |method| Reach { ports: [route.port].into(), path: path.clone(), method })
    })
}
