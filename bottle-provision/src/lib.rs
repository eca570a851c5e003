//! Provisioning: the files and settings that the agent's container gets after its start.

mod claude;
mod codex;
mod error;
mod home;
mod provisioner;
mod script;
mod steps;
mod target;

pub use error::ProvisionError;
pub use provisioner::{AgentContainer, Builtin, Provisioner, Then};
pub use steps::{handle, unprivileged};
pub use target::Shell;

#[cfg(test)]
mod tests {
    use bottle_plan::{BottlePlan, Manifest};

    /// The plan of a bottle with these lines in its manifest.
    pub(crate) fn plan(lines: &str) -> BottlePlan {
        let lines: String = lines.lines().flat_map(|line| ["    ", line, "\n"]).collect();
        let agents = "agents:\n  a: {bottle: b, provider: claude}\n";
        let manifest = format!("bottles:\n  b:\n    workspace: {{mode: none}}\n{lines}{agents}");
        bottle_testing::plans::plan(&Manifest::parse(&manifest).unwrap())
    }
}
