//! The rules of a manifest that involve several keys.

use std::path::Path;

use bottle_values::environment::steers_the_engine;
use bottle_yaml::words::{listed, meant};
use bottle_yaml::{ManifestError, ManifestMistake};

use super::rule::{Check, Checked, check_variable, err, need, one_line, usable_path};
use super::{
    AgentSpec, BottleSpec, ContainerLimits, EnvSpec, Manifest, NetworksSpec, OnDenied, Provider, Toggle, WorkspaceMode,
};
use crate::name::{AgentName, BottleName};
use crate::value::{ByteSize, EnvName, Span};

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
        "on_denied" => &["supervise"],
        "path" | "include_credential_files" => &["mode"],
        "command" => &["provider"],
        "prompt_mode" => &["prompt", "prompt_file"],
        _ => &[],
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
        self.egress.check(all, &format!("{key}.egress"));
        all.add(need(
            self.egress.on_denied == OnDenied::Refuse || self.supervise.as_option().is_some(),
            || format!("{key}.egress.on_denied"),
            "nobody can decide on a proposal without `supervise`; accepted: `refuse`, or `supervise: true` in the bottle",
        ));
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
        all.add(need(
            self.limits.sidecar.disk.is_none(),
            || format!("{key}.limits.sidecar.disk"),
            "a sidecar writes no files, since its root is read-only; accepted: `disk` of the agent",
        ));
        for (what, span) in [("time", self.limits.time), ("idle", self.limits.idle)] {
            all.add(need(
                span.is_none_or(|span| span >= Span::seconds(10)),
                || format!("{key}.limits.{what}"),
                "it would be over before an agent starts; accepted: at least `10s`",
            ));
        }
        all.add(need(
            self.limits.requests != Some(0),
            || format!("{key}.limits.requests"),
            "no request would pass; accepted: at least 1",
        ));
        all.add(need(
            self.limits.bytes.is_none_or(|bytes| bytes.bytes() >= 1024),
            || format!("{key}.limits.bytes"),
            "too little for a request; accepted: at least `1KiB`",
        ));
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
            !workspace.include_credential_files || workspace.mode == WorkspaceMode::Copy,
            || format!("{key}.include_credential_files"),
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
    all.add(need(
        limits.disk.is_none_or(|disk| disk >= ByteSize::mib(16)),
        || format!("{key}.disk"),
        "too little for an agent; accepted: at least `16MiB`",
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
                !subnet.has_host_bits(),
                key,
                "its host bits are not zero; accepted: a network such as `10.99.0.0/28`",
            ));
            let first = subnet.address();
            all.add(need(
                !first.is_loopback() && !first.is_link_local() && !first.is_multicast() && !first.is_unspecified(),
                key,
                "loopback, link-local, multicast and unspecified addresses cannot be a container network",
            ));
        }
        if let (Some(internal), Some(egress)) = (self.internal_subnet, self.egress_subnet) {
            all.add(need(
                !internal.overlaps(egress),
                || format!("{key}.egress_subnet"),
                "it overlaps `internal_subnet`",
            ));
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
