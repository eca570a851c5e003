//! The rules of a manifest that involve several keys.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bottle_values::environment::steers_the_engine;
use bottle_yaml::words::{listed, meant};
use bottle_yaml::{MAX_MISTAKES, ManifestError, ManifestMistake};

use super::{
    AgentSpec, BottleSpec, ContainerLimits, DeployKeySpec, EgressSpec, EnvSpec, Forge, GitSpec, InjectScheme,
    InjectSpec, Inspect, Manifest, NetworksSpec, Provider, RouteSpec, Toggle, UpstreamSpec, WorkspaceMode,
};
use crate::name::{AgentName, BottleName};
use crate::value::{ByteSize, EnvName, GitTransport, HostName, Method, PathPrefix, Span};

/// The outcome of one rule.
type Checked = Result<(), Box<ManifestMistake>>;

/// The mistakes of the rules that a manifest breaks.
#[derive(Default)]
struct Check {
    mistakes: Vec<ManifestMistake>,
}

/// Returns the names of the keys that the rules about a key also read: its siblings, or those in its value.
pub(super) fn reads(key: &str) -> &'static [&'static str] {
    let name = key.rsplit('.').next().unwrap_or_default();
    match name.split('[').next().unwrap_or_default() {
        "header" | "template" => &["scheme"],
        "username" => &["scheme", "token", "url"],
        "token" | "known_hosts" => &["url"],
        "identity_file" | "deploy_key" | "upstreams" => &["url", "identity_file", "deploy_key"],
        "allow" => &["host", "inspect"],
        "routes" => &["host", "port", "paths", "methods", "inspect"],
        "api_url" => &["forge"],
        "path" | "include_env_files" => &["mode"],
        "command" => &["provider"],
        "prompt_mode" => &["prompt", "prompt_file"],
        _ => &[],
    }
}

impl Check {
    fn add(&mut self, checked: Checked) {
        // A second mistake at the same key would only repeat the first.
        let news = |mistake: &ManifestMistake| self.mistakes.iter().all(|told| told.key != mistake.key);
        if self.mistakes.len() < MAX_MISTAKES {
            self.mistakes.extend(checked.err().map(|mistake| *mistake).filter(news));
        }
    }
}

/// Variables of the agent that the renderer or the image sets.
const RESERVED_ENV: &[&str] = &[
    "USER",
    "SHELL",
    "NODE_EXTRA_CA_CERTS",
    "NODE_USE_ENV_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "BOTTLE_PROMPT_FILE",
];

/// Prefixes of names that belong to the sidecars.
const RESERVED_ENV_PREFIXES: &[&str] = &["EGRESS_", "GIT_GATE_", "SUPERVISE_"];

impl Manifest {
    /// Checks the rules that involve several keys. [`Manifest::parse`] and [`Manifest::plan`] check them too.
    ///
    /// # Errors
    ///
    /// If a rule is broken. The error holds every broken rule with its key.
    pub fn check(&self) -> Result<(), ManifestError> {
        let mistakes = self.broken_rules();
        if mistakes.is_empty() { Ok(()) } else { Err(self.origin.error(mistakes)) }
    }

    /// Returns a mistake for each broken rule.
    pub(crate) fn broken_rules(&self) -> Vec<ManifestMistake> {
        let mut all = Check::default();
        self.check_all(&mut all);
        all.mistakes
    }

    fn check_all(&self, all: &mut Check) {
        all.add(need(!self.bottles.is_empty(), || "bottles".into(), "it is empty; at least one bottle is needed"));
        all.add(need(!self.agents.is_empty(), || "agents".into(), "it is empty; at least one agent is needed"));
        for (name, bottle) in &self.bottles {
            bottle.check(all, &format!("bottles.{name}"));
        }
        for (name, agent) in &self.agents {
            if !self.bottles.is_empty() && !self.bottles.contains_key(&agent.bottle) {
                all.add(Err(Box::new(self.no_such_bottle(name, &agent.bottle))));
            }
            agent.check(all, &format!("agents.{name}"));
        }
    }

    pub(crate) fn no_such_bottle(&self, agent: &AgentName, bottle: &BottleName) -> ManifestMistake {
        let known = || self.bottles.keys().map(BottleName::as_str);
        let text = format!("no bottle is named `{bottle}`; accepted: {}", listed(known()));
        ManifestMistake::new(format!("agents.{agent}.bottle"), &text).with_suggestion(meant(bottle.as_str(), known()))
    }
}

fn err(key: impl Into<String>, text: impl AsRef<str>) -> Checked {
    Err(Box::new(ManifestMistake::new(key, text.as_ref())))
}

/// Returns an error with `message` unless `right` is `true`.
fn need(right: bool, key: impl FnOnce() -> String, message: &str) -> Checked {
    if right { Ok(()) } else { err(key(), message) }
}

/// Checks text that is written to one line of a file: it must not be empty or contain control characters.
fn one_line(text: &str, key: impl FnOnce() -> String) -> Checked {
    match text.chars().find(|c| c.is_control()) {
        Some(bad) => err(key(), format!("it holds the control character `{}`; accepted: one line", bad.escape_debug())),
        None => need(!text.is_empty(), key, "it is empty"),
    }
}

fn usable_path(path: &Path, key: impl Fn() -> String) -> Checked {
    let text = path.to_string_lossy();
    need(!text.is_empty() && !text.contains('\0'), &key, "it is empty or holds NUL; accepted: a path")?;
    need(
        !text.starts_with("-----BEGIN"),
        key,
        "it holds the file's content; accepted: the path of a file that holds it",
    )
}

impl BottleSpec {
    fn check(&self, all: &mut Check, key: &str) {
        for (name, spec) in &self.env {
            all.add(check_env(name, spec, &format!("{key}.env.{name}")));
        }
        for (what, path) in [("env_file", &self.env_file), ("tls.upstream_ca", &self.tls.upstream_ca)] {
            if let Some(path) = path {
                all.add(usable_path(path, || format!("{key}.{what}")));
            }
        }
        check_routes(all, &self.egress.routes, &format!("{key}.egress.routes"));
        check_allowed(all, &self.egress, &format!("{key}.egress.allow"));
        check_inspect(all, &self.egress, &format!("{key}.egress"));
        self.git.check(all, &format!("{key}.git"));
        if let Toggle::On(supervise) = &self.supervise {
            all.add(need(
                (Span::seconds(1)..=Span::seconds(50)).contains(&supervise.wait),
                || format!("{key}.supervise.wait"),
                "a client would have given the call up; accepted: from `1s` to `50s`",
            ));
        }
        self.check_images(all, &format!("{key}.images"));
        self.check_workspace(all, &format!("{key}.workspace"));
        check_limits(all, self.limits.agent, &format!("{key}.limits.agent"));
        check_limits(all, self.limits.sidecar, &format!("{key}.limits.sidecar"));
        self.networks.check(all, &format!("{key}.networks"));
        all.add(need(
            (Span::seconds(600)..=Span::seconds(398 * 24 * 60 * 60)).contains(&self.tls.lifetime),
            || format!("{key}.tls.lifetime"),
            "it is too short or too long; accepted: from `10m` to `398d`, the most that strict clients take",
        ));
    }

    fn check_images(&self, all: &mut Check, key: &str) {
        let images = &self.images;
        let built = [
            ("packages", images.packages.is_empty()),
            ("claude_code", images.claude_code.is_none()),
            ("codex", images.codex.is_none()),
            ("build_args", images.build_args.is_empty()),
        ];
        if let (Some(agent), Some((what, _))) = (&images.agent, built.iter().find(|(_, empty)| !empty)) {
            all.add(err(
                format!("{key}.{what}"),
                format!("it has no effect, since `images.agent` names the ready image `{agent}`; give one of the two"),
            ));
        }
        let ours = ["BASE", "AGENT_UID", "AGENT_GID", "EXTRA_PACKAGES", "CLAUDE_CODE_VERSION", "CODEX_VERSION"];
        for (name, value) in &images.build_args {
            let key = || format!("{key}.build_args.{name}");
            all.add(need(!ours.contains(&name.as_str()), key, "it is set from other keys of the manifest"));
            all.add(need(!value.contains('\0'), key, "it holds NUL"));
        }
    }

    fn check_workspace(&self, all: &mut Check, key: &str) {
        let workspace = &self.workspace;
        if let Some(path) = &workspace.path {
            all.add(usable_path(path, || format!("{key}.path")));
            all.add(need(workspace.mode != WorkspaceMode::None, || format!("{key}.path"), "mode `none` takes no path"));
        }
        all.add(need(
            !workspace.include_env_files || workspace.mode == WorkspaceMode::Copy,
            || format!("{key}.include_env_files"),
            "only mode `copy` leaves files out",
        ));
        if let Some(target) = &workspace.target {
            let system =
                ["/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr", "/var"];
            let under = |dir: &&str| Path::new(target.as_str()).starts_with(dir);
            all.add(need(
                !system.iter().any(under) && target.as_str() != "/home/agent" && target.as_str() != "/home",
                || format!("{key}.target"),
                "it would hide part of the image's system; accepted: a directory such as `/workspace`",
            ));
        }
    }
}

fn check_env(name: &EnvName, spec: &EnvSpec, key: &str) -> Checked {
    check_env_name(name, key)?;
    match spec {
        EnvSpec::Forward(Some(source)) => {
            check_variable(source, key)?;
            check_env_name(source, key)
        }
        EnvSpec::Placeholder(Some(dummy)) => one_line(dummy, || key.to_owned()),
        EnvSpec::Literal(text) => need(!text.contains('\0'), || key.to_owned(), "a variable cannot hold NUL"),
        EnvSpec::Forward(None) | EnvSpec::Placeholder(None) => Ok(()),
    }
}

/// Rejects a token that was written in place of its variable's name.
fn check_variable(name: &EnvName, key: &str) -> Checked {
    name.check_not_a_token().or_else(|error| err(key, error.to_string()))
}

fn check_env_name(name: &EnvName, key: &str) -> Checked {
    let name = name.as_str();
    // Compose takes forwarded values from its own environment.
    let reserved = steers_the_engine(name)
        || RESERVED_ENV.contains(&name)
        || RESERVED_ENV_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if reserved {
        return err(
            key,
            format!("`{name}` is set by the bottle or read by the engine's own tools; accepted: another name"),
        );
    }
    Ok(())
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

/// Checks that no allowed host is in the domain of a route's wildcard. Only routes can allow hosts there, because
/// egress denies every other host of that domain.
fn check_allowed(all: &mut Check, egress: &EgressSpec, key: &str) {
    for (index, allowed) in egress.allow.iter().map(|entry| &entry.host).enumerate() {
        if let Some(route) = egress.routes.iter().find(|route| route.host.claims(allowed)) {
            all.add(err(
                format!("{key}[{index}]"),
                format!(
                    "`{allowed}` lies in the domain of the route for `{}`, where routes alone say what is open; accepted: a \
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
    let mut known: BTreeMap<&str, (String, Option<Inspect>)> = BTreeMap::new();
    for (place, host, inspect) in egress.inspections() {
        match known.get(host.as_str()) {
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
            Some((_, None)) | None => drop(known.insert(host.as_str(), (place, inspect))),
        }
    }
    for (host, (place, _)) in known.iter().filter(|(_, (_, inspect))| *inspect == Some(Inspect::Content)) {
        let mut domain = host.strip_prefix("*.").or(Some(host));
        while let Some(name) = domain {
            let wildcard = format!("*.{name}");
            let wide = known.get(wildcard.as_str()).filter(|_| wildcard != **host);
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

/// Checks a token's variable. It becomes part of a sidecar's variable name, which leaves room for 100 characters.
fn check_token(token: &EnvName, key: &str) -> Checked {
    check_variable(token, key)?;
    need(token.as_str().len() <= 100, || key.to_owned(), "it is too long; accepted: at most 100 characters")
}

fn check_inject(all: &mut Check, inject: &InjectSpec, key: &str) {
    all.add(check_token(&inject.token, &format!("{key}.token")));
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
            "it does not fit; accepted: ASCII text that holds `{token}` once and neither begins nor ends with a blank",
        ));
    }
    if let Some(username) = &inject.username {
        all.add(check_username(username, &format!("{key}.username")));
        all.add(need(
            fits_header(username),
            || format!("{key}.username"),
            "it does not fit a header; accepted: ASCII text without a blank at its ends",
        ));
    }
}

/// Returns `true` if a header can carry the text unchanged. Egress would not start with any other text.
fn fits_header(text: &str) -> bool {
    text.is_ascii() && text == text.trim_matches(' ')
}

/// Checks the user name of basic authentication, which must not contain a colon (RFC 7617 section 2).
fn check_username(username: &str, key: &str) -> Checked {
    one_line(username, || key.to_owned())?;
    need(!username.contains(':'), || key.to_owned(), "it holds `:`, which ends a user name")
}

impl GitSpec {
    fn check(&self, all: &mut Check, key: &str) {
        if let Some(user) = &self.user {
            for (what, text) in [("name", &user.name), ("email", &user.email)] {
                all.add(one_line(text, || format!("{key}.user.{what}")));
                all.add(need(
                    !text.contains(['<', '>']),
                    || format!("{key}.user.{what}"),
                    "git allows no `<` or `>` there",
                ));
            }
        }
        let (mut names, mut urls) = (BTreeSet::new(), BTreeSet::new());
        let mut addresses = BTreeMap::<&HostName, _>::new();
        for (index, upstream) in self.upstreams.iter().enumerate() {
            let key = format!("{key}.upstreams[{index}]");
            all.add(need(names.insert(&upstream.name), || format!("{key}.name"), "another upstream has this name"));
            // The agent may write one repository's URL in many ways. All of them must select one upstream.
            let path = upstream.url.path();
            let repository = (upstream.url.host(), path.strip_suffix(".git").unwrap_or(path));
            all.add(need(urls.insert(repository), || format!("{key}.url"), "another upstream is this repository too"));
            for (host, address) in &upstream.extra_hosts {
                if addresses.insert(host, address).is_some_and(|earlier| earlier != address) {
                    all.add(err(
                        format!("{key}.extra_hosts.{host}"),
                        "another upstream gives this host another address",
                    ));
                }
            }
            upstream.check(all, &key);
        }
    }
}

impl UpstreamSpec {
    fn check(&self, all: &mut Check, key: &str) {
        let ssh = self.url.transport() == GitTransport::Ssh;
        let only_https = "only an https upstream has it";
        let only_ssh = "only an ssh upstream has it";
        all.add(need(!ssh || self.token.is_none(), || format!("{key}.token"), only_https));
        all.add(need(!ssh || self.username.is_none(), || format!("{key}.username"), only_https));
        all.add(need(ssh || self.identity_file.is_none(), || format!("{key}.identity_file"), only_ssh));
        all.add(need(ssh || self.known_hosts.is_empty(), || format!("{key}.known_hosts"), only_ssh));
        all.add(need(ssh || self.deploy_key.is_none(), || format!("{key}.deploy_key"), only_ssh));
        all.add(need(
            self.identity_file.is_none() || self.deploy_key.is_none(),
            || format!("{key}.deploy_key"),
            "`identity_file` is given as well; give one of the two",
        ));
        all.add(need(
            !ssh || self.identity_file.is_some() || self.deploy_key.is_some(),
            || key.to_owned(),
            "an ssh upstream needs `identity_file` or `deploy_key`",
        ));
        all.add(need(
            !ssh || !self.known_hosts.is_empty(),
            || format!("{key}.known_hosts"),
            "an ssh upstream needs the host's public keys, as `ssh-keyscan` prints them",
        ));
        all.add(need(
            self.push.max_size >= ByteSize::kib(1),
            || format!("{key}.push.max_size"),
            "no push is that small; accepted: at least `1KiB`",
        ));
        for (index, line) in self.known_hosts.iter().enumerate() {
            all.add(check_known_host(line, &format!("{key}.known_hosts[{index}]")));
        }
        all.add(need(
            !ssh || self.known_hosts.iter().any(|line| super::known_hosts::names_host(line, &self.url)),
            || format!("{key}.known_hosts"),
            "no line of it names the URL's host; accepted: `host …`, with a port other than 22 `[host]:port …`",
        ));
        if let Some(path) = &self.identity_file {
            all.add(usable_path(path, || format!("{key}.identity_file")));
        }
        if let Some(token) = &self.token {
            all.add(check_token(token, &format!("{key}.token")));
        }
        if let Some(username) = &self.username {
            all.add(check_username(username, &format!("{key}.username")));
            all.add(need(self.token.is_some(), || format!("{key}.username"), "it has no effect without `token`"));
        }
        if let Some(deploy_key) = &self.deploy_key {
            deploy_key.check(all, &format!("{key}.deploy_key"));
        }
    }
}

/// Checks a line of `known_hosts`: hosts, key type, key and an optional comment (sshd(8)).
fn check_known_host(line: &str, key: &str) -> Checked {
    one_line(line, || key.to_owned())?;
    let accepted = "accepted: `host key-type base64-key`, as `ssh-keyscan` prints it";
    let fields: Vec<_> = line.split_whitespace().skip_while(|field| *field == "@cert-authority").collect();
    let [hosts, kind, public, ..] = fields.as_slice() else {
        return err(key, format!("it has fewer than three fields; {accepted}"));
    };
    let known = ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"].iter().any(|start| kind.starts_with(start));
    let base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    need(
        !hosts.starts_with(['#', '@']) && known && public.starts_with("AAAA") && public.chars().all(base64),
        || key.to_owned(),
        &format!("it is not such a line; {accepted}"),
    )
}

impl DeployKeySpec {
    fn check(&self, all: &mut Check, key: &str) {
        all.add(check_token(&self.token, &format!("{key}.token")));
        match &self.api_url {
            Some(url) => all.add(check_api_url(url, &format!("{key}.api_url"))),
            None => all.add(need(
                self.forge != Forge::Gitea,
                || format!("{key}.api_url"),
                "Gitea and Forgejo have no public API to fall back on; accepted: `https://host/api/v1`",
            )),
        }
        if let Some(repository) = &self.repository {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
            all.add(one_line(repository, || format!("{key}.repository")));
            all.add(need(
                repository.chars().all(plain) && repository.contains('/') && !repository.contains(".."),
                || format!("{key}.repository"),
                "it is not a repository's name; accepted: `owner/name`",
            ));
        }
    }
}

fn check_api_url(url: &str, key: &str) -> Checked {
    one_line(url, || key.to_owned())?;
    let loopback = ["http://127.0.0.1", "http://localhost", "http://[::1]"];
    let rest = loopback.iter().find_map(|start| url.strip_prefix(start));
    let loopback = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']));
    need(
        (url.starts_with("https://") || loopback) && !url.contains(['@', '?', '#', ' ']),
        || key.to_owned(),
        "it is not such an address; accepted: `https://host[:port][/path]` without credentials, query or fragment",
    )
}

fn check_limits(all: &mut Check, limits: ContainerLimits, key: &str) {
    all.add(need(
        limits.memory.is_none_or(|memory| memory >= ByteSize::mib(16)),
        || format!("{key}.memory"),
        "too little for any of the containers; accepted: at least `16MiB`",
    ));
    all.add(need(
        limits.pids.is_none_or(|pids| pids >= 16),
        || format!("{key}.pids"),
        "too few for any of the containers; accepted: at least 16",
    ));
}

impl NetworksSpec {
    fn check(&self, all: &mut Check, key: &str) {
        for (what, subnet) in [("internal_subnet", self.internal_subnet), ("egress_subnet", self.egress_subnet)] {
            let Some(subnet) = subnet else { continue };
            let key = || format!("{key}.{what}");
            // A /29 has just enough addresses for four sidecars, the agent and the gateway.
            all.add(need(
                (8..=29).contains(&subnet.prefix_len()),
                key,
                "it is too large or too small; accepted: a prefix length from 8 to 29",
            ));
            all.add(need(
                subnet.trunc() == subnet,
                key,
                "its host bits are not zero; accepted: a network such as `10.99.0.0/28`",
            ));
            let first = subnet.network();
            all.add(need(
                !first.is_loopback() && !first.is_link_local() && !first.is_multicast() && !first.is_unspecified(),
                key,
                "loopback, link-local, multicast and unspecified addresses cannot be a container network",
            ));
        }
        if let (Some(internal), Some(egress)) = (self.internal_subnet, self.egress_subnet) {
            let overlap = internal.contains(&egress) || egress.contains(&internal);
            all.add(need(!overlap, || format!("{key}.egress_subnet"), "it overlaps `internal_subnet`"));
        }
    }
}

impl AgentSpec {
    fn check(&self, all: &mut Check, key: &str) {
        all.add(need(
            self.provider != Provider::Custom || !self.command.is_empty(),
            || format!("{key}.command"),
            "the provider `custom` needs a command; accepted: a list such as `[sh, -c, make]`",
        ));
        for (index, word) in self.command.iter().enumerate() {
            let key = || format!("{key}.command[{index}]");
            all.add(need(!word.contains('\0'), key, "it holds NUL"));
            all.add(need(index > 0 || !word.is_empty(), key, "the program's name is empty"));
        }
        all.add(need(
            self.prompt.is_none() || self.prompt_file.is_none(),
            || format!("{key}.prompt_file"),
            "`prompt` is given as well; give one of the two",
        ));
        all.add(need(
            self.prompt_mode.is_none() || self.prompt.is_some() || self.prompt_file.is_some(),
            || format!("{key}.prompt_mode"),
            "it has no effect without `prompt` or `prompt_file`",
        ));
        for (index, skill) in self.skills.iter().enumerate() {
            all.add(usable_path(skill, || format!("{key}.skills[{index}]")));
        }
    }
}
