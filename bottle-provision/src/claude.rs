//! The configuration of Claude Code.
//!
//! Without it, an interactive session does not start in a bottle. The first run contacts hosts that no route allows,
//! and the questions about the workspace, the API key and the permission mode preselect "no".

use bottle_plan::{BottlePlan, Service};
use bottle_sidecars::supervise;
use serde_json::{Map, Value, json};

/// The user's state, which also holds the MCP servers.
///
/// A file of the workspace would ask for consent at every start and dirty the repository, and a managed configuration
/// would disable every other server.
pub(crate) const STATE: &str = "/home/agent/.claude.json";
/// The user's settings.
pub(crate) const SETTINGS: &str = "/home/agent/.claude/settings.json";

/// The variable that holds an API key.
const API_KEY: &str = "ANTHROPIC_API_KEY";
/// Number of characters at the end of an API key that Claude Code stores to remember the approved key.
const KEY_SUFFIX: usize = 20;

/// Returns the state with the first run done, the workspace trusted, the placeholder key approved and supervise's MCP
/// server added. All other content of the image's file is kept.
pub(crate) fn state(text: &str, plan: &BottlePlan) -> Result<String, String> {
    let mut state = parse(text)?;
    state.insert("hasCompletedOnboarding".into(), json!(true));
    let projects = object(&mut state, "projects")?;
    let project = object(projects, plan.workspace.target.as_str())?;
    project.insert("hasTrustDialogAccepted".into(), json!(true));
    if let Some((_, key)) = plan.agent.placeholders.iter().find(|(name, _)| name.as_str() == API_KEY) {
        let start = key.char_indices().rev().nth(KEY_SUFFIX - 1).map_or(0, |(at, _)| at);
        let approved = object(&mut state, "customApiKeyResponses")?.entry("approved").or_insert_with(|| json!([]));
        let approved = approved.as_array_mut().ok_or("`customApiKeyResponses.approved` is not an array")?;
        let suffix = json!(key[start..]);
        if !approved.contains(&suffix) {
            approved.push(suffix);
        }
    }
    if plan.supervise.is_some() {
        let server = json!({"type": "http", "url": supervise::url()});
        object(&mut state, "mcpServers")?.insert(Service::Supervise.to_string(), server);
    }
    Ok(render(state))
}

/// Returns the settings with the warning about bypassed permissions answered, unless the image sets it.
///
/// The warning recommends a container without free internet access, which a bottle is. It is shown only if the command
/// uses that permission mode.
pub(crate) fn settings(text: &str) -> Result<String, String> {
    let mut settings = parse(text)?;
    settings.entry("skipDangerousModePermissionPrompt").or_insert(json!(true));
    Ok(render(settings))
}

fn parse(text: &str) -> Result<Map<String, Value>, String> {
    match text.trim() {
        "" => Ok(Map::new()),
        text => serde_json::from_str(text).map_err(|error| error.to_string()),
    }
}

/// Returns the object under a key. Adds it if it is missing.
fn object<'a>(parent: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Map<String, Value>, String> {
    let value = parent.entry(key).or_insert_with(|| json!({}));
    value.as_object_mut().ok_or_else(|| format!("`{key}` is not an object"))
}

fn render(config: Map<String, Value>) -> String {
    format!("{:#}\n", Value::Object(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::plan;

    const BOTTLE: &str = "env: {ANTHROPIC_API_KEY: {placeholder: sk-a-dummy-that-everybody-may-see}}\nsupervise: {}";

    #[test]
    fn a_session_starts_without_a_question() {
        let config: Value = serde_json::from_str(&state("", &plan(BOTTLE)).unwrap()).unwrap();
        assert_eq!(
            config,
            json!({
                "hasCompletedOnboarding": true,
                "projects": {"/workspace": {"hasTrustDialogAccepted": true}},
                "customApiKeyResponses": {"approved": ["hat-everybody-may-see"[1..]]},
                "mcpServers": {"supervise": {"type": "http", "url": "http://supervise:9100/mcp"}},
            })
        );
        assert_eq!(settings("").unwrap(), "{\n  \"skipDangerousModePermissionPrompt\": true\n}\n");
    }

    #[test]
    fn settings_of_the_image_are_kept() {
        let brought = r#"{"theme": "dark", "hasCompletedOnboarding": false, "mcpServers": {"other": {"type": "stdio"}},
            "projects": {"/workspace": {"allowedTools": ["Bash"]}, "/else": {}},
            "customApiKeyResponses": {"approved": ["x"], "rejected": ["y"]}}"#;
        let once = state(brought, &plan(BOTTLE)).unwrap();
        let config: Value = serde_json::from_str(&once).unwrap();
        assert_eq!(config["theme"], "dark");
        assert_eq!(config["hasCompletedOnboarding"], true);
        assert_eq!(config["mcpServers"]["other"]["type"], "stdio");
        assert_eq!(config["projects"]["/workspace"], json!({"allowedTools": ["Bash"], "hasTrustDialogAccepted": true}));
        assert_eq!(
            config["customApiKeyResponses"],
            json!({"approved": ["x", "at-everybody-may-see"], "rejected": ["y"]})
        );
        assert_eq!(state(&once, &plan(BOTTLE)).unwrap(), once);
        let asks = r#"{"skipDangerousModePermissionPrompt": false}"#;
        assert!(settings(asks).unwrap().contains("false"));
    }

    #[test]
    fn a_short_placeholder_is_approved_as_a_whole_and_no_key_approves_nothing() {
        let short = state("", &plan("env: {ANTHROPIC_API_KEY: {placeholder: dümmy}}")).unwrap();
        assert!(short.contains("\"dümmy\""), "{short}");
        let none = state("", &plan("")).unwrap();
        assert!(!none.contains("customApiKeyResponses") && !none.contains("mcpServers"), "{none}");
    }

    #[test]
    fn a_file_with_another_structure_is_refused_with_the_key() {
        let refused = |text| state(text, &plan(BOTTLE)).unwrap_err();
        assert!(refused("[]").contains("invalid type: sequence"));
        assert!(refused("{").contains("EOF"));
        assert_eq!(refused(r#"{"mcpServers": 1}"#), "`mcpServers` is not an object");
        assert_eq!(refused(r#"{"projects": {"/workspace": []}}"#), "`/workspace` is not an object");
    }
}
