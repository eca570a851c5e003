//! The built-in provisioner.
//!
//! It runs up to three commands: one reads the agent's existing configuration, one installs git rules and certificates as root,
//! and one writes the agent's files as its user. The container has no capability, so root cannot write the agent's files.
//! Each task checks its own result.

use std::path::Path;

use bottle_engine::{CopyMethod, Engine};
use bottle_exec::quote_text;
use bottle_plan::digest::sha256;
use bottle_plan::manifest::Runtime;
use bottle_plan::plan::GitGatePlan;
use bottle_plan::{BottlePlan, ResolvedPlan, Service};
use bottle_sidecars::{agent, git_gate};
use bottle_verify::Expected;

use crate::error::ProvisionError;
use crate::script::Script;
use crate::target::{Shell, Target};
use crate::{codex, home};
use bottle_lifecycle::Handle;

const CERTIFICATE: &str = "install the certificate authority";

/// Provisions the agent's container: certificate authority, git identity and rules, prompt, skills, and the
/// configuration of its command line.
pub(crate) fn provision(engine: &Engine, plan: &ResolvedPlan, authority: &Path) -> Result<(), ProvisionError> {
    let bottle = plan.plan();
    let target = Target::Container { engine, name: bottle.names.container(Service::Agent) };
    let mut certificates = home::read(CERTIFICATE, authority)?;
    if let (None, Some(bundle)) = (&bottle.egress, &plan.launch().upstream_ca) {
        // Without egress, the agent itself verifies the certificates of hosts that pipelock does not decrypt.
        certificates.extend(home::read(CERTIFICATE, bundle)?);
    }
    if !certificates.ends_with(b"\n") {
        certificates.push(b'\n');
    }
    let files = home::files(&target, bottle)?;
    let agent_script = agent_script(bottle, &certificates, !files.is_empty());
    let rules = bottle.git_gate.as_ref().map(git_gate::agent_git_config);
    let input = [&*certificates, rules.as_deref().unwrap_or_default().as_bytes()].concat();
    target.run("0", &root_script(&certificates, rules.is_some()), input)?;
    target.run(agent::USER, &agent_script, files)
}

/// Provisions an agent's container in which nothing runs as root: git identity, prompt, skills, and the configuration of its
/// command line. The container trusts `certificates` (PEM) and has the git rules already, which is checked.
///
/// # Errors
///
/// Returns an error if something could not be put in place.
pub fn unprivileged(run: &Shell<'_>, plan: &BottlePlan, certificates: &[u8]) -> Result<(), ProvisionError> {
    let target = Target::Shell(run);
    let files = home::files(&target, plan)?;
    target.run(agent::USER, &agent_script(plan, certificates, !files.is_empty()), files)
}

/// Returns the tasks of root, which read the certificates and then the git rules from standard input. The rules of ten upstreams
/// are longer than one argument may be.
fn root_script(certificates: &[u8], has_rules: bool) -> Script {
    let mut script = Script::default();
    // The shell's `read` takes no byte of what comes after the line.
    let lines = certificates.split_inclusive(|&byte| byte == b'\n').count();
    let read = format!(
        "left={lines}
        while [ $left -gt 0 ]; do IFS= read -r line; printf '%s\\n' \"$line\"; left=$((left - 1)); done | (
{}
)",
        agent::INSTALL_CA
    );
    script.add(CERTIFICATE, &read);
    if has_rules {
        // In a separate file, so that the agent's own git settings stay readable.
        script.add(
            "write the git rules",
            "umask 022; mkdir -p /etc/bottle; cat > /etc/bottle/git-gate.gitconfig
            git config --system --get-all include.path | grep -qxF /etc/bottle/git-gate.gitconfig ||
            git config --system --add include.path /etc/bottle/git-gate.gitconfig",
        );
    }
    script
}

/// Returns the tasks of the agent's user. With `has_files`, the script reads an archive of files from standard input.
fn agent_script(plan: &BottlePlan, certificates: &[u8], has_files: bool) -> Script {
    let mut script = Script::default();
    if has_files {
        script.add("write the agent's files", home::EXTRACT);
    }
    // There may be many, so they are compared by digest.
    let lines = certificates.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count();
    script.add(
        "check that the agent trusts the certificate authority",
        &format!(
            "[ \"$(tail -n {lines} \"$SSL_CERT_FILE\" | sha256sum)\" = '{}  -' ] ||
            {{ echo \"it is not at the end of $SSL_CERT_FILE\" >&2; exit 1; }}",
            sha256(certificates)
        ),
    );
    script.add("set the git identity", &git_settings(plan));
    if let Some(gate) = &plan.git_gate {
        script.add("check the git rules", &git_rules_check(gate));
    }
    if home::has_codex(plan) {
        script.add("log Codex in", codex::LOGIN);
    }
    script
}

/// Returns commands that set author and committer, allow a workspace that belongs to another user of the host, and
/// check the values.
fn git_settings(plan: &BottlePlan) -> String {
    let identity = &plan.agent.git_identity;
    let settings = [
        ("user.name", identity.name.as_str()),
        ("user.email", identity.email.as_str()),
        ("safe.directory", plan.workspace.target.as_str()),
    ];
    let set = |(key, value): (&str, &str)| {
        let value = quote_text(value);
        format!("git config --global {key} {value}; [ \"$(git config --global {key})\" = {value} ]\n")
    };
    settings.into_iter().map(set).collect()
}

/// Returns commands that compare the URL that git uses for each upstream with git-gate's.
fn git_rules_check(gate: &GitGatePlan) -> String {
    let check = |upstream| {
        let served = git_gate::served_url(upstream);
        let (url, served) = (quote_text(upstream.url.as_str()), quote_text(&served));
        format!(
            "url=$(git ls-remote --get-url {url}); [ \"$url\" = {served} ] || \
             {{ echo {url} is rewritten to \"$url\" instead of {served} >&2; exit 1; }}\n"
        )
    };
    gate.upstreams.iter().map(check).collect()
}

/// Returns the handle of the running agent's container.
pub fn handle(plan: &ResolvedPlan, expected: Expected) -> Handle {
    let bottle = plan.plan();
    Handle {
        container: bottle.names.container(Service::Agent),
        user: Some(agent::USER.to_owned()),
        workdir: Some(bottle.workspace.target.to_string()),
        agent: bottle_compose::agent_argv(bottle),
        copy: match bottle.agent.runtime {
            Runtime::Runc => CopyMethod::Engine,
            Runtime::Runsc => CopyMethod::Tar,
        },
        expected: Some(expected),
        restart: None,
        limits: bottle.limits.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn certificates_and_git_rules_come_over_one_standard_input() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let certificates = b"-----BEGIN CERTIFICATE-----\nAA\\n==\n-----END CERTIFICATE-----\n";
        let text = root_script(certificates, true).text();
        // The files of the container, in a directory of the test.
        let text = text.replace("images=/etc/ssl", &format!("images={}", path("ssl")));
        let text = text.replace("source=$below/usr", &format!("source={}", path("usr")));
        let text = text.replace("/etc/bottle", &path("bottle")).replace("git config", ":");
        let mut shell = Command::new("sh");
        let mut child = shell.args(["-c", &text]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let rules = "[url \"git://git-gate/a.git\"]\n\tinsteadOf = https://example.com/a\n";
        child.stdin.take().unwrap().write_all(&[certificates, rules.as_bytes()].concat()).unwrap();
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success(), "{done:?}");
        let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
        assert_eq!(read("bottle/git-gate.gitconfig"), rules.as_bytes());
        assert_eq!(read("usr/local/share/ca-certificates/claude-bottle.crt"), certificates);
        assert!(read("ssl/certs/ca-certificates.crt").ends_with(certificates));
    }
}
