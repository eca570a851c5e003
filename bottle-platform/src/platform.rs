//! The traits that a platform implements.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::Path;

use bottle::exec::engine::Exec;
use bottle::exec::{ChildInput, ChildOutput, ExecError, ExitStatus, Output, Stdin, TerminalSize};
use bottle::plan::{Service, Slug};
use bottle::supervise::{Decision, Review, Scope, Verified};
use bottle::workspace::{Changes, Exported, FetchedRef};
use bottle::{BottlePlan, Forward, ForwardSpec, Verification};

use crate::error::PlatformError;

type Result<T, E = PlatformError> = std::result::Result<T, E>;

/// Most bytes of a tar stream that is returned.
const MOST_COPIED: u64 = 64 << 20;

/// A part of a manifest that some platforms do not have. A plan that needs one that is missing is refused at the launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// `workspace: {mode: bind | bind-rw}`: the agent sees a directory of this host.
    BoundWorkspace,
    /// `env_file`: a file of this host with variables.
    EnvironmentFile,
    /// `env`: variables whose values come from this host.
    ForwardedVariables,
    /// `limits.idle`: an idle agent is paused.
    Pause,
}

/// A place where bottles run.
pub trait Platform: fmt::Debug + Send + Sync {
    /// Returns what the platform is, for a person: `docker 26.1.5 with Compose 2.26.1`.
    fn name(&self) -> String;

    /// Returns true if the platform has a feature.
    fn supports(&self, feature: Feature) -> bool;

    /// Launches a bottle: it is verified, and handed out once every sidecar is ready. A failure leaves nothing behind.
    ///
    /// # Errors
    ///
    /// Returns an error if the plan cannot run on the platform, the bottle exists, a service does not become ready, or a
    /// protection is missing.
    fn launch(&self, plan: BottlePlan) -> Result<Box<dyn PlatformBottle>>;

    /// Returns a handle on a bottle that another process launched. Dropping it leaves the bottle running.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such bottle.
    fn attach(&self, slug: &Slug) -> Result<Box<dyn PlatformBottle>>;

    /// Returns every bottle that was not completely removed.
    ///
    /// # Errors
    ///
    /// Returns an error if the platform does not answer.
    fn list(&self) -> Result<BTreeMap<Slug, Summary>>;

    /// Removes every bottle whose owner has ended, and returns them.
    ///
    /// # Errors
    ///
    /// Returns an error if the platform does not answer, or a bottle could not be removed completely.
    fn recover(&self) -> Result<Vec<Slug>>;
}

/// A bottle in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Name of the agent in the manifest. `None` if it is not known any more.
    pub agent: Option<String>,
    /// State of the owner.
    pub ownership: Ownership,
}

/// State of the owner of a bottle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// The process that launched it lives, or cannot be seen from here, or left the bottle running on purpose.
    Owned,
    /// It has ended. [`Platform::recover`] removes the bottle.
    Abandoned,
}

/// A running bottle. A launched one is removed when it is closed or dropped, an attached one only when it is closed.
pub trait PlatformBottle: fmt::Debug + Send {
    /// Returns the slug.
    fn slug(&self) -> Slug;

    /// Runs a command in the agent's container and returns its output. A failure status is not an error.
    ///
    /// # Errors
    ///
    /// Returns an error if the command cannot be run, or its time is over. Its processes are then ended.
    fn exec(&self, exec: Exec) -> Result<Output>;

    /// Starts a command in the agent's container and returns it while it runs, with a pipe for each stream, or one terminal.
    /// The standard input and the timeout in `exec` are not used.
    ///
    /// # Errors
    ///
    /// Returns an error if the platform's client cannot be started.
    fn spawn(&self, exec: Exec, terminal: Option<TerminalSize>) -> Result<Box<dyn PlatformExec + '_>>;

    /// Returns the plan's own command. `None` if it is not known any more.
    fn agent(&self) -> Option<Exec>;

    /// Unpacks a tar stream below a directory of the agent's container, as the agent's user.
    ///
    /// # Errors
    ///
    /// Returns an error if an entry cannot be written.
    fn copy_in(&self, directory: &str, tar: Stdin) -> Result<()> {
        let argv = ["tar", "--extract", "--no-same-owner", "--touch", "--file", "-", "--directory", directory];
        let output = self.exec(Exec::new(argv).with_stdin(tar))?;
        if output.status.is_success() {
            return Ok(());
        }
        let stderr = output.stderr.last_lines(6);
        Err(PlatformError::new(ExecError::Failed { command: "tar".into(), status: output.status, stderr }))
    }

    /// Returns a file or directory of the agent's container as a tar stream of at most 64 MiB.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot be read, or is larger.
    fn copy_out(&self, path: &str) -> Result<Vec<u8>> {
        let script = "cd \"$(dirname -- \"$1\")\" && exec tar --create --file - -- \"$(basename -- \"$1\")\"";
        let mut live = self.spawn(Exec::new(["sh", "-c", script, "sh", path]), None)?;
        drop(live.stdin());
        let (stdout, stderr) = (live.stdout(), live.stderr());
        let failed = |error: &dyn fmt::Display| PlatformError::new(format!("`{path}` cannot be copied: {error}"));
        let (tar, said) = std::thread::scope(|scope| {
            // It prints a few lines at most. What it prints beyond them is not read, and ends with it.
            let said = scope.spawn(|| {
                let mut said = String::new();
                let read = stderr.map(|stderr| stderr.take(1 << 16).read_to_string(&mut said));
                read.transpose().map(|_| said)
            });
            let mut tar = Vec::new();
            let read = stdout.map(|stdout| stdout.take(MOST_COPIED + 1).read_to_end(&mut tar)).transpose();
            let said = said.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            read.and(said).map(|said| (tar, said))
        })
        .map_err(|error| failed(&error))?;
        if tar.len() as u64 > MOST_COPIED {
            live.kill()?;
            return Err(failed(&"it is larger than 64 MiB"));
        }
        if live.wait()?.is_success() { Ok(tar) } else { Err(failed(&said.trim_end())) }
    }

    /// Returns the files of a copied workspace that the agent added, modified or deleted since the launch.
    ///
    /// # Errors
    ///
    /// Returns an error if the workspace was not copied by this process, exceeds the limits, or cannot be read.
    fn changes(&self) -> Result<Changes>;

    /// Returns the changes as a binary patch for `git apply`: empty if there are none.
    ///
    /// # Errors
    ///
    /// As [`changes`](Self::changes), and if this host has no git.
    fn patch(&self) -> Result<Vec<u8>>;

    /// Copies the files of the workspace into an empty directory of this host.
    ///
    /// # Errors
    ///
    /// As [`changes`](Self::changes), and if the directory is not empty or cannot be written.
    fn export(&self, into: &Path) -> Result<Exported>;

    /// Fetches the agent's branches into a repository of this host: `main` becomes `<prefix>/main`. The prefix is below
    /// `refs/bottle/`.
    ///
    /// # Errors
    ///
    /// Returns an error if the agent has no branch, git refuses an object, or the repository cannot be written.
    fn fetch_into(&self, repository: &Path, prefix: &str) -> Result<Vec<FetchedRef>>;

    /// Opens a port of the agent's loopback on 127.0.0.1 of this host until the [`Forward`] is dropped.
    ///
    /// # Errors
    ///
    /// Returns an error if the port of the host is taken.
    fn forward(&self, spec: ForwardSpec) -> Result<Forward>;

    /// Returns the output of a service so far.
    ///
    /// # Errors
    ///
    /// Returns an error if the bottle has no such service.
    fn logs(&self, service: Service) -> Result<String>;

    /// Runs every attack of the full verification. It may be called while the agent runs.
    ///
    /// # Errors
    ///
    /// Returns an error if the attacks cannot be run. A missing protection is in the result.
    fn verify(&self) -> Result<Verification>;

    /// Opens the bottle for supervision: what its agent asked for, and the methods that approve or deny it.
    ///
    /// # Errors
    ///
    /// Returns an error if the bottle is not supervised.
    fn supervise(&self) -> Result<Box<dyn Supervision>>;

    /// Removes the bottle, and returns when nothing of it is left.
    ///
    /// # Errors
    ///
    /// Returns an error if something of it is left.
    fn close(self: Box<Self>) -> Result<()>;
}

/// A command in the agent's container that runs. Dropping it ends the command with everything that it started.
pub trait PlatformExec: fmt::Debug {
    /// Takes standard input. Dropping it is the end of file.
    fn stdin(&mut self) -> Option<ChildInput>;

    /// Takes standard output, or the output of the terminal.
    fn stdout(&mut self) -> Option<ChildOutput>;

    /// Takes standard error. A command with a terminal has none.
    fn stderr(&mut self) -> Option<ChildOutput>;

    /// Closes standard input, unless it was taken, and waits for the end.
    ///
    /// # Errors
    ///
    /// Returns an error if the platform's client fails, or is cancelled.
    fn wait(&mut self) -> Result<ExitStatus>;

    /// Ends the command, with everything that it started in the container.
    ///
    /// # Errors
    ///
    /// Returns an error if a process survives.
    fn kill(&mut self) -> Result<()>;
}

/// Supervision of a bottle, from any process that reaches the platform.
pub trait Supervision: fmt::Debug + Send {
    /// Returns the proposals that wait for a decision, oldest first.
    ///
    /// # Errors
    ///
    /// Returns an error if the state cannot be read.
    fn pending(&self) -> Result<Vec<Review>>;

    /// Approves a proposal and applies its change.
    ///
    /// # Errors
    ///
    /// Returns an error if the proposal is decided already, changed since it was read, or cannot be approved.
    fn approve(&self, review: &Review, scope: Scope, reason: &str) -> Result<Decision>;

    /// Denies a proposal. The agent reads the reason.
    ///
    /// # Errors
    ///
    /// As [`approve`](Self::approve).
    fn deny(&self, review: &Review, reason: &str) -> Result<Decision>;

    /// Returns the plan in effect: the launched plan with every change that was approved and applied since.
    ///
    /// # Errors
    ///
    /// Returns an error if the state cannot be read.
    fn plan(&self) -> Result<BottlePlan>;

    /// Checks both audit logs against each other and against the decisions.
    ///
    /// # Errors
    ///
    /// Returns an error if they do not agree.
    fn verify(&self) -> Result<Verified>;
}
