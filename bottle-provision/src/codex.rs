//! The configuration of Codex.

use bottle_plan::{BottlePlan, Service};
use bottle_sidecars::supervise;
use toml_edit::{DocumentMut, Item, Table, TableLike, value};

/// The user's configuration.
pub(crate) const CONFIG: &str = "/home/agent/.codex/config.toml";

/// Stores the API key of the agent's environment, usually a placeholder, unless the image has a login.
///
/// Codex does not read the variable itself.
pub(crate) const LOGIN: &str = r#"[ -n "${OPENAI_API_KEY:-}" ] && [ ! -e "$HOME/.codex/auth.json" ] || exit 0
command -v codex > /dev/null || exit 0
printf '%s' "$OPENAI_API_KEY" | codex login --with-api-key"#;

/// Settings for a session in a bottle, unless the image sets them: key path and value.
///
/// The sandbox of Codex needs user namespaces, which the container does not have; the bottle is the sandbox. The other
/// settings turn off requests to hosts that no route allows, and a daemon that would keep a copy of Codex.
const DEFAULTS: [(&[&str], Setting); 6] = [
    (&["sandbox_mode"], Setting::Text("danger-full-access")),
    (&["check_for_update_on_startup"], Setting::Off),
    (&["analytics", "enabled"], Setting::Off),
    (&["features", "plugins"], Setting::Off),
    (&["features", "api_key_model_discovery"], Setting::Off),
    (&["features", "daemon_auto_start"], Setting::Off),
];

#[derive(Clone, Copy)]
enum Setting {
    Text(&'static str),
    Off,
}

impl From<Setting> for Item {
    fn from(setting: Setting) -> Self {
        match setting {
            Setting::Text(text) => value(text),
            Setting::Off => value(false),
        }
    }
}

/// Returns the configuration with the workspace trusted, the credentials kept in a file, supervise's MCP server added
/// and the defaults for a bottle filled in. All other content of the image's file is kept.
pub(crate) fn config(text: &str, plan: &BottlePlan) -> Result<String, String> {
    let mut config: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
    let root = config.as_table_mut();
    for (path, setting) in DEFAULTS {
        set(root, path, setting, Overwrite::No)?;
    }
    // There is no keyring in the container.
    set(root, &["cli_auth_credentials_store"], value("file"), Overwrite::Yes)?;
    set(root, &["projects", plan.workspace.target.as_str(), "trust_level"], value("trusted"), Overwrite::Yes)?;
    if plan.supervise.is_some() {
        let server = ["mcp_servers", Service::Supervise.as_str()];
        set(root, &[server[0], server[1], "url"], value(supervise::url()), Overwrite::Yes)?;
        // The sidecar answers within 50 s.
        set(root, &[server[0], server[1], "startup_timeout_sec"], value(20), Overwrite::No)?;
        set(root, &[server[0], server[1], "tool_timeout_sec"], value(75), Overwrite::No)?;
    }
    Ok(config.to_string())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Overwrite {
    Yes,
    No,
}

/// Sets the value at a key path and adds the tables on the way.
fn set(root: &mut Table, path: &[&str], item: impl Into<Item>, overwrite: Overwrite) -> Result<(), String> {
    let Some((key, parents)) = path.split_last() else { return Ok(()) };
    let mut table: &mut dyn TableLike = root;
    for (depth, parent) in parents.iter().enumerate() {
        let entry = table.entry(parent).or_insert_with(|| {
            let mut added = Table::new();
            // A table that contains only tables needs no header.
            added.set_implicit(depth + 1 < parents.len());
            Item::Table(added)
        });
        table = entry.as_table_like_mut().ok_or_else(|| format!("`{}` is not a table", path[..=depth].join(".")))?;
    }
    if overwrite == Overwrite::Yes || !table.contains_key(key) {
        table.insert(key, item.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::plan;

    #[test]
    fn a_session_starts_without_a_question() {
        let text = config("", &plan("supervise: {}")).unwrap();
        let expected = "sandbox_mode = \"danger-full-access\"
check_for_update_on_startup = false
cli_auth_credentials_store = \"file\"

[analytics]
enabled = false

[features]
plugins = false
api_key_model_discovery = false
daemon_auto_start = false

[projects.\"/workspace\"]
trust_level = \"trusted\"

[mcp_servers.supervise]
url = \"http://supervise:9100/mcp\"
startup_timeout_sec = 20
tool_timeout_sec = 75
";
        assert_eq!(text, expected);
        assert_eq!(config(&text, &plan("supervise: {}")).unwrap(), text);
        assert!(!config("", &plan("")).unwrap().contains("mcp_servers"));
    }

    #[test]
    fn settings_of_the_image_are_kept() {
        let brought = "# mine\nmodel = \"x\" # why\nsandbox_mode = \"read-only\"\nfeatures = {plugins = true}\n\
                       [projects.\"/workspace\"]\ntrust_level = \"untrusted\"\n[mcp_servers.other]\nurl = \"y\"\n";
        let text = config(brought, &plan("supervise: {}")).unwrap();
        assert!(text.starts_with("# mine\nmodel = \"x\" # why\nsandbox_mode = \"read-only\"\n"), "{text}");
        let parsed: DocumentMut = text.parse().unwrap();
        assert_eq!(parsed["features"]["plugins"].as_bool(), Some(true));
        assert_eq!(parsed["features"]["daemon_auto_start"].as_bool(), Some(false));
        assert_eq!(parsed["projects"]["/workspace"]["trust_level"].as_str(), Some("trusted"));
        assert_eq!(parsed["mcp_servers"]["other"]["url"].as_str(), Some("y"));
        assert_eq!(parsed["mcp_servers"]["supervise"]["url"].as_str(), Some("http://supervise:9100/mcp"));
    }

    #[test]
    fn a_file_with_another_structure_is_refused_with_the_key() {
        let refused = |text| config(text, &plan("supervise: {}")).unwrap_err();
        assert_eq!(refused("features = 1"), "`features` is not a table");
        assert_eq!(refused("[projects]\n\"/workspace\" = true"), "`projects./workspace` is not a table");
        assert!(refused("a = ").contains("line 1"), "{}", refused("a = "));
    }
}
