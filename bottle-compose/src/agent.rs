//! The agent's service.

use std::collections::BTreeMap;

use bottle_plan::manifest::{Runtime, WorkspaceMode};
use bottle_plan::plan::PromptMode;
use bottle_plan::resolved::WAIT;
use bottle_plan::{BottlePlan, ResolvedPlan, Service as Name, UserIds};

use crate::document::{Bind, Condition, Dependency, HealthCheck, Mount, PullPolicy, Service, Variable};
use crate::sidecar::{AgentAccess, NO_NEW_PRIVILEGES, STOP_GRACE, bounded_logging, labels};

/// Path, in the agent's container, of the certificate of the bottle's authority.
pub const AGENT_CA_CERT: &str = "/usr/local/share/ca-certificates/claude-bottle.crt";
/// Path, in the agent's container, of the bundle with the image's own roots and the bottle's authority.
pub const AGENT_CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Path of the agent's prompt in its container.
pub const AGENT_PROMPT: &str = "/home/agent/.bottle/prompt.md";
/// Name of the user that the agent runs as.
pub const AGENT_USER: &str = "agent";

/// Returns the command that starts the plan's agent, with the prompt passed as its provider expects it.
pub fn agent_argv(plan: &BottlePlan) -> Vec<String> {
    let agent = &plan.agent;
    let mut argv = agent.command.clone();
    if agent.prompt.is_some() {
        match agent.prompt_mode {
            PromptMode::AppendSystemPromptFile => {
                argv.extend(["--append-system-prompt-file".to_owned(), AGENT_PROMPT.to_owned()]);
            }
            // The container's shell reads it, so that it is on no command line of the host.
            PromptMode::LastArgument => {
                let read = format!("exec \"$@\" \"$(cat {AGENT_PROMPT})\"");
                argv = ["sh".to_owned(), "-c".to_owned(), read, "sh".to_owned()].into_iter().chain(argv).collect();
            }
            PromptMode::EnvironmentFile => {}
        }
    }
    argv
}

/// Returns the agent's service. It has no network of its own: it joins the seal's network namespace.
pub(crate) fn agent_service(plan: &ResolvedPlan, access: &[AgentAccess], sidecars: &[String]) -> Service {
    let bottle = plan.plan();
    let memory = plan.agent_memory();
    Service {
        image: plan.launch().agent.image.to_string(),
        // A ready image may be pulled from a registry. An image that the launcher built must not be.
        pull_policy: (!bottle.images.ready.contains_key(&Name::Agent) || copies(plan)).then_some(PullPolicy::Never),
        container_name: bottle.names.container(Name::Agent),
        entrypoint: first_process(plan),
        // Root would run that of the image, whose program the agent may be able to write.
        healthcheck: Some(HealthCheck::disabled()),
        runtime: match bottle.agent.runtime {
            Runtime::Runc => None,
            Runtime::Runsc => Some("runsc".into()),
        },
        // Processes of the agent cannot signal it, so that no `kill -9 -1` ends the container. It has no capability either.
        user: Some("0:0".into()),
        init: true,
        network_mode: Some(format!("service:{}", Name::Seal)),
        environment: environment(plan, access),
        env_file: plan.launch().agent.env_file.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
        volumes: volumes(plan, access),
        tmpfs: plan.launch().agent.volumes.iter().map(|path| in_memory(bottle, path)).collect(),
        cap_drop: vec!["ALL".into()],
        security_opt: vec![NO_NEW_PRIVILEGES.into()],
        pids_limit: Some(bottle.agent_pids()),
        mem_limit: memory,
        memswap_limit: memory,
        cpus: plan.agent_cpus().map(|cpus| cpus.to_string()),
        storage_opt: plan.launch().engine.disk_quota.then(|| ("size".to_owned(), disk(bottle))).into_iter().collect(),
        stop_grace_period: Some(STOP_GRACE.into()),
        depends_on: sidecars
            .iter()
            .map(String::as_str)
            .chain([Name::Seal.as_str()])
            .map(|name| (name.to_owned(), Dependency { condition: Condition::ServiceHealthy }))
            .collect(),
        logging: Some(bounded_logging()),
        labels: agent_labels(plan),
        ..Service::default()
    }
}

/// Returns the first process of the container, which is root's and ends with the agent's time. Its end ends the container, whoever
/// launched it. Neither the image's entry point nor its `PATH` has a part in it, because the agent may be able to write what they
/// name, and a container that is started again would run that as root.
fn first_process(plan: &ResolvedPlan) -> Vec<String> {
    let time = plan.plan().limits.time.map(|time| time.duration().as_secs().to_string());
    let waits = time.is_some() && plan.launch().waits;
    let script = format!("PATH=/usr/bin:/bin; {}", if waits { WAIT } else { "exec sleep \"$1\"" });
    ["/bin/sh", "-c", &script, "sh", time.as_deref().unwrap_or("infinity")].map(str::to_owned).to_vec()
}

/// Labels that let another process use the agent's container when all other state of the bottle is lost.
fn agent_labels(plan: &ResolvedPlan) -> BTreeMap<String, String> {
    let bottle = plan.plan();
    let argv = serde_json::Value::from(agent_argv(bottle)).to_string();
    let own = [("user", AGENT_USER), ("workdir", bottle.workspace.target.as_str()), ("command", &argv)];
    let own = own.map(|(key, value)| (key, value.to_owned()));
    // The limit that the launcher watches, where the engine has none.
    let watched = (!plan.launch().engine.disk_quota).then(|| (DISK_LABEL, disk(bottle)));
    let own = own.into_iter().chain(watched).map(|(key, value)| (format!("{}.{key}", bottle.names.prefix()), value));
    labels(plan).into_iter().chain(own).collect()
}

/// Label, below the prefix, with the size in bytes beyond which the launcher pauses the agent.
pub const DISK_LABEL: &str = "disk";

/// Options of a mount in memory in the place of a `VOLUME` of the image. It counts towards the memory limit.
const VOLUME: &str = "rw,exec,nosuid,nodev,mode=1777,size=1024m";

/// Returns the mount in the place of a `VOLUME`. It belongs to the agent, because a directory that the image has there keeps its
/// mode, and may be writable by its owner alone.
fn in_memory(plan: &BottlePlan, path: &str) -> String {
    let UserIds { uid, gid } = plan.agent_user();
    format!("{path}:{VOLUME},uid={uid},gid={gid}")
}

fn disk(plan: &BottlePlan) -> String {
    plan.agent_disk().bytes().to_string()
}

fn copies(plan: &ResolvedPlan) -> bool {
    plan.plan().workspace.mode == WorkspaceMode::Copy
}

/// Returns the variables in order: proxy and trust, the manifest's literals, then bare names, sorted.
fn environment(plan: &ResolvedPlan, access: &[AgentAccess]) -> Vec<Variable> {
    let agent = &plan.plan().agent;
    let mut variables = Vec::new();
    if let Some(proxy) = access.iter().rev().find_map(|access| access.proxy.as_deref()) {
        // Programs disagree on the case. For plain HTTP, curl reads only the lower-case name.
        variables
            .extend(["HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"].map(|name| Variable::set(name, proxy)));
    }
    let direct = access.iter().flat_map(|access| access.no_proxy.iter().map(String::as_str));
    let no_proxy = ["localhost", "127.0.0.1", "::1"].into_iter().chain(direct).collect::<Vec<_>>().join(",");
    variables.extend(["NO_PROXY", "no_proxy"].map(|name| Variable::set(name, &no_proxy)));
    variables.push(Variable::set("NODE_EXTRA_CA_CERTS", AGENT_CA_CERT));
    let bundles = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"];
    variables.extend(bundles.map(|name| Variable::set(name, AGENT_CA_BUNDLE)));
    // Node's own `fetch` reads the proxy variables since release 24, and only if this is set.
    variables.push(Variable::set("NODE_USE_ENV_PROXY", "1"));
    if agent.prompt.is_some() {
        variables.push(Variable::set("BOTTLE_PROMPT_FILE", AGENT_PROMPT));
    }
    variables.extend(access.iter().flat_map(|access| access.environment.iter().cloned()));
    variables.extend(agent.literals.iter().map(|(name, value)| Variable::set(name.as_str(), value)));
    let mut bare: Vec<&str> = agent.forwarded.keys().chain(agent.placeholders.keys()).map(AsRef::as_ref).collect();
    bare.sort_unstable();
    variables.extend(bare.into_iter().map(|name| Variable::Bare(name.to_owned())));
    variables
}

fn volumes(plan: &ResolvedPlan, access: &[AgentAccess]) -> Vec<Mount> {
    let workspace = &plan.plan().workspace;
    let target = workspace.target.as_str();
    let bound = match workspace.mode {
        WorkspaceMode::Bind => Some(Bind::read_only(&workspace.source, target)),
        WorkspaceMode::BindRw => Some(Bind::writable(&workspace.source, target)),
        WorkspaceMode::Copy | WorkspaceMode::None => None,
    };
    let inside = plan.launch().agent.workspace_mounts.iter().map(|mount| {
        let target = format!("{target}/{}", mount.below.display());
        if mount.writable { Bind::writable(&mount.source, target) } else { Bind::read_only(&mount.source, target) }
    });
    let others = access.iter().flat_map(|access| access.volumes.iter().cloned());
    bound.into_iter().chain(inside).chain(others).map(Mount::Bind).collect()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use bottle_plan::{HostFacts, Manifest, PlanRequest};

    use super::*;

    #[test]
    fn the_prompt_is_passed_as_the_manifest_says() {
        let user = UserIds { uid: 1000, gid: 1000 };
        let host = HostFacts { home: "/home/me".into(), cwd: "/src".into(), user };
        let mut shown = String::new();
        for provider in ["claude", "codex", "custom"] {
            for mode in ["", "append-system-prompt-file", "last-argument", "environment-file"] {
                let mode = if mode.is_empty() { String::new() } else { format!(", prompt_mode: {mode}") };
                let agent = format!("provider: {provider}, command: [run, it], prompt: Be brief.{mode}");
                let text = format!("bottles: {{dev: {{}}}}\nagents: {{demo: {{bottle: dev, {agent}}}}}");
                let plan = Manifest::parse(&text).unwrap().plan(PlanRequest::new(&host, [0; 5])).unwrap();
                writeln!(shown, "{provider}{mode}: {:?}", agent_argv(&plan)).unwrap();
            }
        }
        insta::assert_snapshot!(shown);
    }
}
