//! Telling the agent's command line where supervise is.
//!
//! The entry goes into the user's own configuration: one in the workspace would ask a person for consent at every start
//! and dirty the repository, and a managed one would switch off every other server. What an image has there already is
//! kept.

use bottle_exec::Stdin;
use bottle_exec::engine::Exec;
use bottle_plan::ResolvedPlan;
use bottle_plan::manifest::Provider;
use bottle_sidecars::{agent, supervise};
use serde_json::{Map, Value, json};

use super::error::ProvisionError;
use super::target::Target;

/// Claude Code keeps its own state in the same file.
const CLAUDE: &str = "/home/agent/.claude.json";
const CODEX: &str = "/home/agent/.codex/config.toml";
const NAME: &str = "supervise";

const WHAT: &str = "tell the agent where supervise is";

/// Adds the entry for every command line that the plan's agent has.
pub(super) fn place(target: &Target<'_>, plan: &ResolvedPlan) -> Result<(), ProvisionError> {
    let plan = plan.plan();
    if plan.supervise.is_none() {
        return Ok(());
    }
    let (provider, image) = (plan.agent.provider, &plan.images.agent);
    if provider == Provider::Claude || image.claude_code.is_some() {
        edit(target, CLAUDE, claude)?;
    }
    if provider == Provider::Codex || image.codex.is_some() {
        edit(target, CODEX, |text| Ok(codex(text)))?;
    }
    Ok(())
}

/// The configuration with the entry in it.
fn claude(text: &str) -> Result<String, String> {
    let mut config = match text.trim() {
        "" => Value::Object(Map::new()),
        text => serde_json::from_str(text).map_err(|error| error.to_string())?,
    };
    let servers = config.as_object_mut().map(|config| config.entry("mcpServers").or_insert_with(|| json!({})));
    let servers = servers.and_then(Value::as_object_mut).ok_or("it holds no object")?;
    servers.insert(NAME.into(), json!({"type": "http", "url": supervise::url()}));
    Ok(config.to_string() + "\n")
}

/// A table of its own at the end goes with whatever is before it. The sidecar answers within 50 s; the rest is slack.
fn codex(text: &str) -> String {
    let header = format!("[mcp_servers.{NAME}]");
    if text.lines().any(|line| line.trim() == header) {
        return text.to_owned();
    }
    let before = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{before}{header}\nurl = \"{}\"\nstartup_timeout_sec = 20\ntool_timeout_sec = 75\n", supervise::url())
}

/// Reads a file of the agent that may not be there, and writes what becomes of it, as the agent.
fn edit(
    target: &Target<'_>,
    path: &str,
    change: impl FnOnce(&str) -> Result<String, String>,
) -> Result<(), ProvisionError> {
    let script = "[ ! -e \"$0\" ] || cat \"$0\"";
    let exec = Exec::new(["sh", "-c", script, path])
        .with_user(agent::USER)
        .with_stdin(Stdin::Null)
        .with_timeout(std::time::Duration::from_secs(60));
    let output =
        target.engine.exec(&target.container, &exec).map_err(|source| ProvisionError::Engine { what: WHAT, source })?;
    let failed = |stderr: String| ProvisionError::Failed { what: WHAT, status: output.status.to_string(), stderr };
    if !output.status.is_success() {
        return Err(failed(output.stderr.last_lines(5)));
    }
    if output.stdout.is_truncated() {
        return Err(failed(format!("`{path}` is too large")));
    }
    let text = change(&output.stdout.text()).map_err(|why| failed(format!("`{path}` is not usable: {why}")))?;
    let script = format!(
        "set -eu; umask 077; mkdir -p \"${{0%/*}}\"; cat > \"$0.new\"; [ \"$(wc -c < \"$0.new\")\" -eq {} ]; mv \"$0.new\" \"$0\"",
        text.len()
    );
    target.run_with(WHAT, agent::USER, &script, &[path], text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_configuration_already_stays() {
        let text = claude(r#"{"theme": "dark", "mcpServers": {"other": {"type": "stdio"}}}"#).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["theme"], "dark");
        assert_eq!(config["mcpServers"]["other"]["type"], "stdio");
        assert_eq!(config["mcpServers"]["supervise"]["url"], "http://supervise:9100/mcp");
        assert_eq!(claude(&text).unwrap(), text);
        assert!(claude("").unwrap().contains("supervise"));
        assert!(claude("[]").is_err() && claude("{").is_err() && claude(r#"{"mcpServers": 1}"#).is_err());

        let text = codex("model = \"x\"");
        assert!(
            text.starts_with("model = \"x\"\n[mcp_servers.supervise]\nurl = \"http://supervise:9100/mcp\"\n"),
            "{text}"
        );
        assert_eq!(codex(&text), text);
    }
}
