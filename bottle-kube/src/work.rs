//! The work of an agent on a cluster, taken out without trust, and its ports.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bottle_engine::Exec;
use bottle_exec::{Child, Event, chain};
use bottle_forward::{Forward, ForwardError, ForwardSpec};
use bottle_kube_render::{MAIN, VERIFY};
use bottle_plan::Service;
use bottle_workspace::{Changes, Exported, FetchedRef, Git, WorkError, WorkLimits, WorkSource, write_bundle};

use crate::bottle::KubeBottle;
use crate::client::Target;
use crate::error::KubeError;

impl KubeBottle {
    /// Sets the bounds of what [`changes`](KubeBottle::changes) and the methods after it read and take out.
    #[must_use]
    pub const fn with_work_limits(mut self, limits: WorkLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Returns the files of a copied workspace that the agent added, modified or deleted since the launch.
    ///
    /// `tar` in the agent's container prints the files, and this process compares them with the copy that it kept. The
    /// repository (`.git`) is left out, and so are new files that a `.gitignore` excludes.
    ///
    /// # Errors
    ///
    /// [`WorkError::NoBase`] when the workspace was not copied, or another process launched the bottle. Other errors when the
    /// workspace exceeds the limits, or cannot be read.
    pub fn changes(&self) -> Result<Changes, KubeError> {
        self.source().changes(self.packed()?)
    }

    /// Returns the changes as a binary patch for `git apply`: empty if there are none.
    ///
    /// # Errors
    ///
    /// As [`changes`](KubeBottle::changes), and when the changed files exceed [`WorkLimits::taken`], or this host has no git.
    pub fn patch(&self) -> Result<Vec<u8>, KubeError> {
        let scratch = scratch()?;
        let (patch, _) = self.source().patch(self.packed()?, &self.git(scratch.path())?)?;
        Ok(patch)
    }

    /// Copies the files of the workspace into an empty directory of this host, without the repository (`.git`). Symbolic links,
    /// pipes, sockets and devices are named in the result and never created.
    ///
    /// # Errors
    ///
    /// As [`changes`](KubeBottle::changes), and when the directory is not empty or cannot be written.
    pub fn export(&self, into: &Path) -> Result<Exported, KubeError> {
        self.source().export(into)
    }

    /// Fetches the agent's branches into a repository of this host: `main` becomes `<prefix>/main`. The prefix is below
    /// `refs/bottle/`. Git checks every object in an empty repository first, and no hook runs.
    ///
    /// # Errors
    ///
    /// Returns an error when the agent has no branch, the bundle exceeds [`WorkLimits::taken`], git refuses an object, or the
    /// repository cannot be written.
    pub fn fetch_into(&self, repository: &Path, prefix: &str) -> Result<Vec<FetchedRef>, KubeError> {
        let scratch = scratch()?;
        let git = self.git(scratch.path())?;
        let bundle = git.path("bundle");
        let exec = Exec::new(["git", "bundle", "create", "--quiet", "-", "--branches"]);
        let mut live = self.spawn(exec, None)?;
        let child = live.child();
        child.stdin = None;
        let streams = (child.stdout.take(), child.stderr.take());
        let said = write_bundle(streams, &bundle, &self.limits, self.cluster.control().cancel())?;
        if !live.wait()?.is_success() {
            return Err(WorkError::Git { doing: "bundle the agent's branches", said }.into());
        }
        Ok(git.fetch(&bundle, repository, prefix)?)
    }

    /// Opens a port of the agent's loopback on 127.0.0.1 of this host, at a free port or the one of the [`ForwardSpec`],
    /// until the [`Forward`] is dropped. The connections go over one command in a container of the agent's Pod: the agent can
    /// only answer them, and no policy is opened.
    ///
    /// # Errors
    ///
    /// Returns an error when the port of the host is taken, or the Pod does not run.
    pub fn forward(&self, spec: impl Into<ForwardSpec>) -> Result<Forward, KubeError> {
        let (cluster, namespace, spec) = (self.cluster.clone(), self.namespace.clone(), spec.into());
        let container = format!("{namespace}/{}", Service::Agent);
        let place = container.clone();
        let start = move |argv: &[String]| {
            let target = Target { namespace: &namespace, pod: Service::Agent.as_str(), container: VERIFY };
            cluster.spawn(&target, argv, None).map_err(|error| match error {
                KubeError::Exec(error) => ForwardError::Engine(error.into()),
                other => ForwardError::Start { port: spec.port(), container: place.clone(), reason: chain(&other) },
            })
        };
        Ok(Forward::open_with(start, container, spec, Arc::new(|_: &Event| ()))?)
    }

    fn source(&self) -> WorkSource<'_, KubeError> {
        WorkSource::new(|| self.read_out(), &self.limits, self.cluster.control().cancel())
    }

    fn git<'a>(&'a self, scratch: &Path) -> Result<Git<'a>, WorkError> {
        Git::new(self.cluster.backend(), self.cluster.control(), &self.limits, scratch)
    }

    /// Starts the command that prints the workspace.
    fn read_out(&self) -> Result<Child, KubeError> {
        let trimmed = self.journal.workdir.trim_end_matches('/');
        let (parent, name) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
        let directory = format!("--directory={}", if parent.is_empty() { "/" } else { parent });
        let argv = ["tar", "--create", "--file=-", &directory, "--", name].map(String::from);
        let mut child = self.cluster.spawn(&self.agent(MAIN), &argv, None)?;
        child.stdin = None;
        Ok(child)
    }

    fn packed(&self) -> Result<&File, WorkError> {
        self.packed.as_ref().ok_or_else(|| WorkError::NoBase {
            path: self.journal.workdir.clone().into(),
            source: io::Error::other("only the process that copied it can compare it"),
        })
    }
}

/// Returns a private directory of this host for git.
fn scratch() -> Result<tempfile::TempDir, WorkError> {
    tempfile::tempdir().map_err(|source| WorkError::Write { path: std::env::temp_dir(), source })
}
