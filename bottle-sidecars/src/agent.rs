//! The agent's own image, and the script that makes its container trust the bottle's certificate authority.

use std::collections::BTreeMap;

use bottle_plan::BottlePlan;
use bottle_plan::UserIds;

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

/// Returns the user that the agent runs as in a built image: the launcher's own user, so that files written to a bound
/// workspace belong to the launcher. If the launcher is root, it is 1000.
pub fn user(plan: &BottlePlan) -> UserIds {
    plan.images.agent.user.unwrap_or(UserIds { uid: 1000, gid: 1000 })
}

/// Returns the build arguments of the agent's image.
pub fn build_args(plan: &BottlePlan) -> BTreeMap<String, String> {
    let image = &plan.images.agent;
    let packages: Vec<&str> = image.packages.iter().map(AsRef::as_ref).collect();
    let version = |version: &Option<bottle_plan::value::NpmVersion>| version.as_ref().map(ToString::to_string);
    let ours = [
        ("BASE", plan.images.base.to_string()),
        ("AGENT_UID", user(plan).uid.to_string()),
        ("AGENT_GID", user(plan).gid.to_string()),
        ("EXTRA_PACKAGES", packages.join(" ")),
        ("CLAUDE_CODE_VERSION", version(&image.claude_code).unwrap_or_default()),
        ("CODEX_VERSION", version(&image.codex).unwrap_or_default()),
    ];
    let theirs = image.build_args.iter().map(|(name, value)| (name.to_string(), value.clone()));
    theirs.chain(ours.into_iter().map(|(name, value)| (name.to_owned(), value))).collect()
}
