//! The agent's own image, and the script that makes its container trust the bottle's certificate authority.

use std::collections::BTreeMap;
use std::path::Path;

use bottle_plan::BottlePlan;
use serde_json::Value;

use crate::{BuildContext, ContextFile};

/// The build context of the agent's image.
pub const CONTEXT: BuildContext = BuildContext {
    name: "agent",
    files: &[ContextFile::text("Dockerfile", include_str!("../images/agent/Dockerfile"))],
};

/// A shell script that root runs in the agent's container, with the certificate on standard input.
pub const INSTALL_CA: &str = include_str!("../images/agent/install-ca.sh");

/// Name of the user that the agent runs as.
pub const USER: &str = bottle_compose::AGENT_USER;
/// The agent's home directory.
pub const HOME: &str = "/home/agent";

/// Returns the build arguments of the agent's image.
pub fn build_args(plan: &BottlePlan) -> BTreeMap<String, String> {
    let image = &plan.images.agent;
    let packages: Vec<&str> = image.packages.iter().map(AsRef::as_ref).collect();
    let version = |version: &Option<bottle_plan::value::NpmVersion>| version.as_ref().map(ToString::to_string);
    let ours = [
        ("BASE", plan.images.base.to_string()),
        ("AGENT_UID", plan.agent_user().uid.to_string()),
        ("AGENT_GID", plan.agent_user().gid.to_string()),
        ("EXTRA_PACKAGES", packages.join(" ")),
        ("CLAUDE_CODE_VERSION", version(&image.claude_code).unwrap_or_default()),
        ("CODEX_VERSION", version(&image.codex).unwrap_or_default()),
    ];
    let theirs = image.build_args.iter().map(|(name, value)| (name.to_string(), value.clone()));
    theirs.chain(ours.into_iter().map(|(name, value)| (name.to_owned(), value))).collect()
}

/// Returns the paths that an image declares with `VOLUME`, from the engine's description of it. An image that the engine has
/// yet to pull has no description (null).
///
/// # Errors
///
/// Returns the problem when one of them holds the agent's home or workspace, whose files would be hidden, or has a character
/// that no mount can have.
pub fn volumes(image: &Value, workspace: &str) -> Result<Vec<String>, String> {
    let declared = image["Config"]["Volumes"].as_object().into_iter().flatten();
    let mut declared: Vec<String> = declared.map(|(path, _)| path.clone()).collect();
    declared.sort_unstable();
    let is_odd = |path: &&String| {
        let holds = |used: &str| Path::new(used).starts_with(path);
        !path.starts_with('/') || path.contains([':', ',', '\n']) || holds(HOME) || holds(workspace)
    };
    match declared.iter().find(is_odd) {
        None => Ok(declared),
        Some(path) => Err(format!(
            "declares the volume `{path}`, whose files no limit counts; accepted: an image without `VOLUME` for the agent's \
             home and workspace"
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_volume_that_hides_the_home_or_the_workspace_is_refused() {
        let of = |paths: &[&str]| {
            let declared: BTreeMap<_, _> = paths.iter().map(|path| (*path, json!({}))).collect();
            volumes(&json!({"Config": {"Volumes": declared}}), "/workspace")
        };
        assert_eq!(volumes(&Value::Null, "/workspace"), Ok(Vec::new()));
        assert_eq!(of(&["/var/lib/db", "/cache", "/workspace2"]).unwrap(), ["/cache", "/var/lib/db", "/workspace2"]);
        for odd in ["/", "/home", "/home/agent", "/workspace", "data", "/a:b", "/a,b", "/a\nb"] {
            let problem = of(&["/cache", odd]).unwrap_err();
            assert!(problem.starts_with(&format!("declares the volume `{odd}`")), "{problem}");
        }
    }
}
