//! A running bottle on a cluster.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::time::Duration;

use bottle_engine::Exec;
use bottle_exec::{Child, EnvValue, ExecError, ExitStatus, Output, Stdin, TerminalSize, chain, quote_text};
use bottle_kube_render::{MAIN, VERIFY};
use bottle_plan::{Service, Slug};
use bottle_verify::{Verification, VerifyError};
use bottle_workspace::WorkLimits;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::attacks::Attacks;
use crate::client::{Kubectl, Target};
use crate::error::KubeError;
use crate::keys::{self, Keys};
use crate::lease::Renewal;

/// File with the variables of the agent's commands, in its container.
pub(crate) const ENVIRONMENT: &str = "/run/bottle/env";

/// The script, for `sh -c`, that becomes the command in its arguments, with the agent's variables and in a directory.
/// Its first two arguments are the number of the exec and the directory.
const ENTER: &str = r#"export BOTTLE_EXEC="$1"; cd "$2" || exit 126; shift 2
[ ! -r /run/bottle/env ] || . /run/bottle/env
exec "$@""#;

/// Ends every process of the exec with the number in its first argument. A process may start another meanwhile, so it looks
/// until none is left, ten times at most.
const END: &str = r#"tries=10
while [ "$tries" -gt 0 ]; do
  found=
  for process in /proc/[0-9]*; do
    if tr '\0' '\n' <"$process/environ" 2>/dev/null | grep -qx "BOTTLE_EXEC=$1"; then
      kill -KILL "${process#/proc/}" 2>/dev/null && found=1
    fi
  done
  [ -n "$found" ] || exit 0
  tries=$((tries - 1))
done
exit 1"#;

/// Line that `kubectl exec` adds to standard error when the command fails.
const EXITED: &str = "command terminated with exit code ";

/// Time limit of a command that has none of its own.
const LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Time limit of commands that the library itself runs.
const OWN: Duration = Duration::from_secs(120);

/// The facts that another process needs to use a bottle, in an annotation of its namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// The slug.
    pub slug: Slug,
    /// The agent's name in the manifest.
    pub agent: String,
    /// The agent's command.
    pub command: Vec<String>,
    /// The directory in which commands run.
    pub workdir: String,
    /// The attacks of a verification. Empty until the launch has finished.
    pub attacks: Attacks,
    /// The deploy keys, which are revoked when the bottle is removed.
    #[serde(default)]
    pub keys: Vec<Value>,
}

/// A running bottle on a cluster. The bottle is removed when the handle is closed or dropped, unless it was attached.
#[derive(Debug)]
pub struct KubeBottle {
    pub(crate) cluster: Kubectl,
    pub(crate) namespace: String,
    pub(crate) journal: Journal,
    /// `None` for a bottle that another process owns.
    pub(crate) renewal: Option<Renewal>,
    pub(crate) is_removed_on_drop: bool,
    pub(crate) keys: Keys,
    /// The workspace as it was copied into the bottle, in a file without a name. `None` if this process did not copy it.
    pub(crate) packed: Option<File>,
    pub(crate) limits: WorkLimits,
}

impl KubeBottle {
    /// Returns the namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Returns what another process needs to use the bottle.
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Runs a command in the agent's container, as the agent's user, and returns its output. The user in `exec` is not used.
    ///
    /// # Errors
    ///
    /// Returns an error if the command cannot be run, or its time is over. Its processes are then ended. A failure status is
    /// not an error.
    pub fn exec(&self, exec: impl Into<Exec>) -> Result<Output, KubeError> {
        let exec = exec.into();
        let mark = mark();
        let argv = self.argv(&exec, &mark)?;
        let limit = exec.timeout.unwrap_or(LIMIT);
        let result = self.cluster.exec(&self.agent(MAIN), &argv, exec.stdin.clone(), limit);
        let is_interrupted = match &result {
            Ok(output) => matches!(output.status, ExitStatus::Signal(_)),
            Err(KubeError::Exec(error)) => matches!(error, ExecError::TimedOut { .. } | ExecError::Cancelled { .. }),
            Err(_) => false,
        };
        if is_interrupted {
            self.end(&mark)?;
        }
        result.and_then(|output| of_command(&argv, output))
    }

    /// Starts a command in the agent's container and returns it while it runs, with a pipe for each stream, or one terminal.
    ///
    /// # Errors
    ///
    /// Returns an error if `kubectl` cannot be started.
    pub fn spawn(&self, exec: impl Into<Exec>, terminal: Option<TerminalSize>) -> Result<KubeExec<'_>, KubeError> {
        let mark = mark();
        let argv = self.argv(&exec.into(), &mark)?;
        let child = self.cluster.spawn(&self.agent(MAIN), &argv, terminal)?;
        Ok(KubeExec { child, bottle: self, mark, is_over: false })
    }

    /// Runs the plan's agent. Its standard input and output are those of the returned command.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    pub fn run_agent(&self, terminal: Option<TerminalSize>) -> Result<KubeExec<'_>, KubeError> {
        self.spawn(Exec::new(self.journal.command.clone()), terminal)
    }

    /// Unpacks a tar stream below a directory of the agent's container.
    ///
    /// # Errors
    ///
    /// Returns an error if an entry cannot be written.
    pub fn copy_in(&self, directory: &str, tar: Stdin) -> Result<(), KubeError> {
        self.unpack(directory, 0, tar)
    }

    /// Unpacks a tar stream without the first directories of its names. A volume's own directory belongs to root, so that its
    /// mode cannot be set.
    pub(crate) fn unpack(&self, directory: &str, without: usize, tar: Stdin) -> Result<(), KubeError> {
        let strip = format!("--strip-components={without}");
        let argv = [
            "tar",
            "--extract",
            "--no-same-owner",
            "--preserve-permissions",
            "--touch",
            &strip,
            "--file",
            "-",
            "--directory",
        ];
        let argv: Vec<String> = argv.into_iter().chain([directory]).map(String::from).collect();
        let output = self.cluster.exec(&self.agent(MAIN), &argv, tar, OWN)?;
        succeed(&argv, output).map(drop)
    }

    /// Returns a file or directory of the agent's container as a tar stream.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot be read, or is larger than 64 MiB.
    pub fn copy_out(&self, path: &str) -> Result<Vec<u8>, KubeError> {
        let script = "cd \"$(dirname -- \"$1\")\" && exec tar --create --file - -- \"$(basename -- \"$1\")\"";
        let argv = ["sh", "-c", script, "sh", path].map(String::from);
        read_all(&self.cluster, &self.agent(MAIN), &argv, path, 64 << 20)
    }

    /// Returns the output of a service so far.
    ///
    /// # Errors
    ///
    /// Returns an error if the bottle has no such service.
    pub fn logs(&self, service: &str) -> Result<String, KubeError> {
        Ok(self.cluster.logs(&self.namespace, service, MAIN)?.stdout_text())
    }

    /// Attacks the bottle from a container of the agent's Pod that the agent cannot touch. It may be called while the agent
    /// runs.
    ///
    /// # Errors
    ///
    /// Returns an error if the attacks cannot be run. A missing protection is in the result.
    pub fn verify(&self) -> Result<Verification, KubeError> {
        if self.journal.attacks.is_empty() {
            return Err(VerifyError::Unknown.into());
        }
        self.journal.attacks.run(&self.cluster, &self.agent(VERIFY))
    }

    /// Replaces the value of credentials of a sidecar, each by its slot. The values go through standard input.
    ///
    /// # Errors
    ///
    /// Returns an error if a value cannot be written.
    pub fn renew(&self, service: &str, values: &bottle_plan::Secrets) -> Result<(), KubeError> {
        let mut script = "umask 077; cd /run/credentials\n".to_owned();
        let mut lines = Vec::new();
        for (slot, value) in values.iter() {
            if value.expose().contains('\n') {
                return Err(KubeError::input(format!("the value of `{slot}` is several lines; accepted: one line")));
            }
            // Writing to a string cannot fail.
            let _ = writeln!(
                script,
                "IFS= read -r value && printf %s \"$value\" >.{slot} && mv -f .{slot} {slot} || exit 1"
            );
            lines.extend([value.expose().as_bytes(), b"\n"].concat());
        }
        let argv = ["sh", "-c", &script].map(String::from);
        let target = Target { namespace: &self.namespace, pod: service, container: MAIN };
        let output = self.cluster.exec(&target, &argv, Stdin::Bytes(lines), OWN)?;
        succeed(&argv, output).map(drop)
    }

    /// Removes the bottle, and returns when nothing of it is left.
    ///
    /// # Errors
    ///
    /// Returns an error if the namespace is not gone within two minutes, or a deploy key could not be revoked.
    pub fn close(mut self) -> Result<(), KubeError> {
        self.is_removed_on_drop = false;
        self.renewal = None;
        self.remove()
    }

    pub(crate) fn remove(&self) -> Result<(), KubeError> {
        keys::remove(&self.cluster, &self.namespace, &self.keys, &self.journal.keys)
    }

    /// Leaves the bottle running without an owner. It is removed by a recovery, once its Lease has expired.
    pub fn detach(mut self) {
        self.is_removed_on_drop = false;
    }

    pub(crate) const fn agent<'a>(&'a self, container: &'a str) -> Target<'a> {
        Target { namespace: self.namespace.as_str(), pod: Service::Agent.as_str(), container }
    }

    fn argv(&self, exec: &Exec, mark: &str) -> Result<Vec<String>, KubeError> {
        if exec.argv.is_empty() {
            return Err(KubeError::input("a command is empty; accepted: a program and its arguments"));
        }
        let workdir = exec.workdir.as_deref().unwrap_or(&self.journal.workdir);
        let mut env = Vec::new();
        for (name, value) in &exec.env {
            let EnvValue::Plain(value) = value else {
                // It would be on the command line of the host and in the API server's audit log.
                let problem =
                    format!("the variable `{name}` of a command is secret; accepted: a variable of the manifest");
                return Err(KubeError::input(problem));
            };
            env.push(format!("{name}={}", value.to_string_lossy()));
        }
        if !env.is_empty() {
            env.insert(0, "env".to_owned());
        }
        let enter = ["sh", "-c", ENTER, "sh", mark, workdir].map(String::from);
        Ok(enter.into_iter().chain(env).chain(exec.argv.clone()).collect())
    }

    /// Ends what an exec left in the container.
    fn end(&self, mark: &str) -> Result<(), KubeError> {
        let argv = ["sh", "-c", END, "sh", mark].map(String::from);
        let cluster = self.cluster.clone().with_control(self.cluster.control().for_cleanup());
        succeed(&argv, cluster.exec(&self.agent(MAIN), &argv, Stdin::Null, OWN)?).map(drop)
    }
}

impl Drop for KubeBottle {
    fn drop(&mut self) {
        self.renewal = None;
        if self.is_removed_on_drop
            && let Err(error) = self.remove()
        {
            tracing::warn!(namespace = self.namespace, error = chain(&error), "the bottle is not removed");
        }
    }
}

/// A command in the agent's container that runs. Dropping it ends the command.
#[derive(Debug)]
pub struct KubeExec<'a> {
    child: Child,
    bottle: &'a KubeBottle,
    mark: String,
    is_over: bool,
}

impl KubeExec<'_> {
    /// Returns the streams of the command. Its standard error has one more line when the command fails.
    pub const fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Closes standard input, unless it was taken, and waits for the end.
    ///
    /// # Errors
    ///
    /// Returns an error when the control's token is cancelled.
    pub fn wait(&mut self) -> Result<ExitStatus, KubeError> {
        let status = self.child.wait()?;
        self.is_over = true;
        Ok(status)
    }

    /// Ends the command, with everything that it started in the container.
    ///
    /// # Errors
    ///
    /// Returns an error when a process survives.
    pub fn kill(&mut self) -> Result<(), KubeError> {
        if self.is_over || self.child.try_wait()?.is_some() {
            return Ok(());
        }
        self.bottle.end(&self.mark)?;
        self.is_over = true;
        Ok(self.child.kill()?)
    }
}

impl Drop for KubeExec<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!(error = chain(&error), "a command may still run");
        }
    }
}

/// Returns the number of an exec.
fn mark() -> String {
    getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id())).to_string()
}

/// Returns what a command in a container prints, up to a number of bytes. `what` is what it reads.
pub(crate) fn read_all(
    cluster: &Kubectl,
    target: &Target<'_>,
    argv: &[String],
    what: &str,
    most: u64,
) -> Result<Vec<u8>, KubeError> {
    let mut child = cluster.spawn(target, argv, None)?;
    let (mut printed, mut stderr) = (Vec::new(), Vec::new());
    drop(child.stdin.take());
    if let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) {
        let failed = |error: std::io::Error| KubeError::input(format!("`{what}` cannot be copied: {error}"));
        std::thread::scope(|scope| {
            // It prints a few lines at most.
            let errors = scope.spawn(|| err.take(1 << 16).read_to_end(&mut stderr));
            let copied = out.take(most + 1).read_to_end(&mut printed).map_err(failed);
            if printed.len() as u64 > most {
                child.kill()?;
                return Err(KubeError::input(format!("`{what}` is larger than {} MiB", most >> 20)));
            }
            let _ = errors.join();
            copied
        })?;
    }
    let status = child.wait()?;
    succeed(argv, Output::ended(status).with_stderr(stderr))?;
    Ok(printed)
}

/// Returns the output of a command in a container. A failure that is kubectl's own is an error.
pub(crate) fn of_command(argv: &[String], output: Output) -> Result<Output, KubeError> {
    if output.status.is_success() {
        return Ok(output);
    }
    let printed = output.stderr.bytes();
    let text = String::from_utf8_lossy(&printed);
    match text.trim_end().rsplit_once('\n').map_or(("", text.trim_end()), |(before, last)| (before, last)) {
        (before, last) if last.starts_with(EXITED) => {
            let end = if before.is_empty() { 0 } else { before.len() + 1 };
            Ok(output.with_stderr(printed[..end.min(printed.len())].to_vec()))
        }
        _ => Err(failed(argv, &output)),
    }
}

pub(crate) fn succeed(argv: &[String], output: Output) -> Result<Output, KubeError> {
    let output = of_command(argv, output)?;
    if output.status.is_success() { Ok(output) } else { Err(failed(argv, &output)) }
}

fn failed(argv: &[String], output: &Output) -> KubeError {
    let command = argv.first().map(|program| quote_text(program)).unwrap_or_default();
    ExecError::Failed { command, status: output.status, stderr: output.stderr.last_lines(6) }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_the_command_is_not_one_of_kubectl() {
        let output = |stderr: &str| Output::ended(ExitStatus::Code(3)).with_stderr(stderr.as_bytes().to_vec());
        let argv = ["sh".to_owned()];
        let own = of_command(&argv, output("its own line\ncommand terminated with exit code 3\n")).unwrap();
        assert_eq!((own.status, own.stderr_text().as_str()), (ExitStatus::Code(3), "its own line\n"));
        assert_eq!(of_command(&argv, output("command terminated with exit code 3\n")).unwrap().stderr_text(), "");
        let error =
            of_command(&argv, output("error: unable to upgrade connection: container not found\n")).unwrap_err();
        assert!(error.to_string().contains("container not found"), "{error}");
        assert!(succeed(&argv, output("x\ncommand terminated with exit code 3\n")).is_err());
    }
}
