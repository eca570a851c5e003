//! What the built-in provisioner does.

use std::fmt::Write as _;
use std::path::Path;

use bottle_compose::AGENT_PROMPT;
use bottle_exec::engine::CopyMethod;
use bottle_exec::{Engine, EngineError};
use bottle_plan::manifest::{Provider, Runtime};
use bottle_plan::plan::{GitGatePlan, PromptSource};
use bottle_plan::{ResolvedPlan, Service};
use bottle_sidecars::{agent, git_gate};

use super::error::ProvisionError;
use super::mcp;
use super::target::Target;
use crate::lifecycle::Handle;

/// Provisions the agent's container: the authority it faces, its git identity, its way to git-gate, its prompt and its skills.
pub(super) fn provision(engine: &Engine, plan: &ResolvedPlan, authority: &Path) -> Result<(), ProvisionError> {
    let target = Target { engine, container: plan.plan().names.container(Service::Agent) };
    let what = "install the certificate authority";
    let mut certificate = read(what, authority)?;
    if let (None, Some(bundle)) = (&plan.plan().egress, &plan.launch().upstream_ca) {
        // Without egress the agent itself checks the certificates of hosts that pipelock passes.
        certificate.extend(read(what, bundle)?);
    }
    target.run(what, "0", agent::INSTALL_CA, certificate.clone())?;
    target.run(what, agent::USER, TRUSTS, certificate)?;
    target.run("set the git identity", agent::USER, &git_script(plan), Vec::new())?;
    if let Some(gate) = &plan.plan().git_gate {
        let what = "lead git to git-gate";
        target.run(what, "0", PLACE_GIT_RULES, git_gate::agent_git_config(gate).into_bytes())?;
        target.run(what, agent::USER, &git_rules_check(gate), Vec::new())?;
    }
    if let Some(prompt) = &plan.plan().agent.prompt {
        let what = "place the prompt";
        let text = match prompt {
            PromptSource::Text(text) => text.clone().into_bytes(),
            PromptSource::File(path) => read(what, path)?,
        };
        // What arrived is compared by its length: the shell cannot hold the text itself.
        let script = format!(
            "set -eu; umask 077; mkdir -p \"${{0%/*}}\"; cat > \"$0\"; [ \"$(wc -c < \"$0\")\" -eq {} ]",
            text.len()
        );
        target.run_with(what, agent::USER, &script, &[AGENT_PROMPT], text)?;
    }
    for skill in &plan.plan().agent.skills {
        place_skill(&target, plan, skill)?;
    }
    mcp::place(&target, plan)
}

/// Whether the agent itself can read the certificates on its standard input as the last of those that it trusts.
const TRUSTS: &str = r#"set -eu; wanted=$(cat); count=$(printf '%s\n' "$wanted" | wc -l)
[ "$(tail -n "$count" "$SSL_CERT_FILE")" = "$wanted" ] || { echo 'they are not among the trusted ones' >&2; exit 1; }"#;

/// The handle of the agent's container.
pub(crate) fn handle(engine: &Engine, plan: &ResolvedPlan) -> Result<Handle, EngineError> {
    let bottle = plan.plan();
    let container = bottle.names.container(Service::Agent);
    // Asked, and not assumed: a handle is given out for a container that runs.
    engine.wait_ready(&container, std::time::Duration::from_secs(10))?;
    Ok(Handle {
        container,
        user: Some(agent::USER.to_owned()),
        workdir: Some(bottle.workspace.target.to_string()),
        agent: bottle_compose::agent_argv(bottle),
        copy: match bottle.agent.runtime {
            Runtime::Runc => CopyMethod::Engine,
            Runtime::Runsc => CopyMethod::Tar,
        },
    })
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, ProvisionError> {
    std::fs::read(path).map_err(|source| ProvisionError::Read { what, path: path.to_owned(), source })
}

/// Sets author and committer, lets git work in a workspace that is another user's on the host, and asks git for the result.
fn git_script(plan: &ResolvedPlan) -> String {
    let bottle = plan.plan();
    let identity = &bottle.agent.git_identity;
    let settings = [
        ("user.name", identity.name.as_str()),
        ("user.email", identity.email.as_str()),
        ("safe.directory", bottle.workspace.target.as_str()),
    ];
    let mut script = String::from("set -eu; export HOME=/home/agent; ");
    for (key, value) in settings {
        let value = quoted(value);
        // Writing to a string does not fail.
        let _ = write!(script, "git config --global {key} {value}; [ \"$(git config --global {key})\" = {value} ]; ");
    }
    script
}

/// The rules are the system's, in a file of their own: the agent's own settings stay what a person would write.
const PLACE_GIT_RULES: &str = "set -eu; umask 022; mkdir -p /etc/bottle; cat > /etc/bottle/git-gate.gitconfig; \
     git config --system --get-all include.path | grep -qxF /etc/bottle/git-gate.gitconfig || \
     git config --system --add include.path /etc/bottle/git-gate.gitconfig";

/// Asks git itself, as the agent, where each upstream's URL leads.
fn git_rules_check(gate: &GitGatePlan) -> String {
    let mut script = String::from("set -eu; export HOME=/home/agent; ");
    for upstream in &gate.upstreams {
        let (url, served) = (quoted(upstream.url.as_str()), quoted(&git_gate::served_url(upstream)));
        // Writing to a string does not fail.
        let _ = write!(script, "[ \"$(git ls-remote --get-url {url})\" = {served} ]; ");
    }
    script
}

/// A text as one word of a shell script.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Copies a skill's directory to where the provider looks for skills, as the agent's own.
fn place_skill(target: &Target<'_>, plan: &ResolvedPlan, skill: &Path) -> Result<(), ProvisionError> {
    let what = "place a skill";
    let directory = match plan.plan().agent.provider {
        Provider::Claude => "/home/agent/.claude/skills",
        Provider::Codex => "/home/agent/.codex/skills",
        Provider::Custom => "/home/agent/.bottle/skills",
    };
    let name = skill.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(false);
    let packed = tar.append_dir_all(&name, skill).and_then(|()| tar.into_inner());
    let packed = packed.map_err(|source| ProvisionError::Read { what, path: skill.to_owned(), source })?;
    // Every entry is looked for afterwards, the directory's own included.
    let count = tar::Archive::new(packed.as_slice()).entries().map(Iterator::count);
    let count = count.map_err(|source| ProvisionError::Read { what, path: skill.to_owned(), source })?.to_string();
    let script = "set -eu; umask 077; mkdir -p \"$0\"
        tar --directory \"$0\" --extract --no-same-owner --same-permissions --file -
        [ \"$(find \"$0/$1\" -exec printf x \\; | wc -c)\" -eq \"$2\" ] || { echo 'not all of it arrived' >&2; exit 1; }";
    target.run_with(what, agent::USER, script, &[directory, &name, &count], packed)
}
