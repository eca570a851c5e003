//! A Kubernetes cluster.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bottle::exec::engine::Exec;
use bottle::exec::{ChildInput, ChildOutput, ExitStatus, Output, Subprocess, TerminalSize};
use bottle::plan::{Service, Slug};
use bottle::supervise::{Decision, Review, Scope, Verified};
use bottle::workspace::{Changes, Exported, FetchedRef};
use bottle::{BottlePlan, Forward, ForwardSpec, Host, Verification};
use bottle_kube::{self as kube, KubeBottle, KubeBottles, KubeExec, KubeInputs, KubeSupervisor, Kubectl};

use crate::error::PlatformError;
use crate::platform::{Feature, Ownership, Platform, PlatformBottle, PlatformExec, Summary, Supervision};

type Result<T, E = PlatformError> = std::result::Result<T, E>;

/// Bottles on a cluster, with the values of a host.
#[derive(Debug, Clone)]
pub struct Cluster {
    bottles: KubeBottles,
    host: Host,
}

impl Cluster {
    /// Returns the cluster of `kubectl`'s current context. The images of a plan have to be on its nodes, or where these can
    /// pull them.
    pub fn current(host: Host) -> Self {
        let kubectl = Kubectl::new(Arc::new(Subprocess::new(host.environment())));
        Self::new(KubeBottles::new(kubectl, Arc::new(kube::ReadyImages)), host)
    }

    /// Returns a cluster with these options, and a host whose environment holds the tokens.
    pub fn new(bottles: KubeBottles, host: Host) -> Self {
        Self { bottles, host }
    }

    /// Returns the bottles of the cluster, for what only a cluster has.
    pub const fn bottles(&self) -> &KubeBottles {
        &self.bottles
    }
}

impl Platform for Cluster {
    fn name(&self) -> String {
        "Kubernetes".into()
    }

    fn supports(&self, feature: Feature) -> bool {
        match feature {
            Feature::ForwardedVariables => true,
            Feature::BoundWorkspace | Feature::EnvironmentFile | Feature::Pause => false,
        }
    }

    fn launch(&self, plan: BottlePlan) -> Result<Box<dyn PlatformBottle>> {
        let value = |name: &str| self.host.variable(name)?.to_str().map(ToOwned::to_owned);
        let inputs = KubeInputs::read(&plan, value)?;
        Ok(Box::new(self.bottles.launch(plan, &inputs)?))
    }

    fn attach(&self, slug: &Slug) -> Result<Box<dyn PlatformBottle>> {
        Ok(Box::new(self.bottles.attach(slug)?))
    }

    fn list(&self) -> Result<BTreeMap<Slug, Summary>> {
        let summary = |bottle: kube::KubeSummary| {
            let ownership = match bottle.ownership {
                kube::Ownership::Owned => Ownership::Owned,
                kube::Ownership::Abandoned => Ownership::Abandoned,
            };
            (bottle.slug, Summary { agent: bottle.journal.map(|journal| journal.agent), ownership })
        };
        Ok(self.bottles.list()?.into_iter().map(summary).collect())
    }

    fn recover(&self) -> Result<Vec<Slug>> {
        let known = self.bottles.list()?;
        let removed = self.bottles.recover()?;
        Ok(known.into_iter().filter(|bottle| removed.contains(&bottle.namespace)).map(|bottle| bottle.slug).collect())
    }
}

impl PlatformBottle for KubeBottle {
    fn slug(&self) -> Slug {
        self.journal().slug.clone()
    }

    fn exec(&self, exec: Exec) -> Result<Output> {
        Ok(Self::exec(self, exec)?)
    }

    fn spawn(&self, exec: Exec, terminal: Option<TerminalSize>) -> Result<Box<dyn PlatformExec + '_>> {
        Ok(Box::new(Self::spawn(self, exec, terminal)?))
    }

    fn agent(&self) -> Option<Exec> {
        Some(Exec::new(self.journal().command.clone()))
    }

    fn changes(&self) -> Result<Changes> {
        Ok(Self::changes(self)?)
    }

    fn patch(&self) -> Result<Vec<u8>> {
        Ok(Self::patch(self)?)
    }

    fn export(&self, into: &Path) -> Result<Exported> {
        Ok(Self::export(self, into)?)
    }

    fn fetch_into(&self, repository: &Path, prefix: &str) -> Result<Vec<FetchedRef>> {
        Ok(Self::fetch_into(self, repository, prefix)?)
    }

    fn forward(&self, spec: ForwardSpec) -> Result<Forward> {
        Ok(Self::forward(self, spec)?)
    }

    fn logs(&self, service: Service) -> Result<String> {
        Ok(Self::logs(self, service.as_str())?)
    }

    fn verify(&self) -> Result<Verification> {
        Ok(Self::verify(self)?)
    }

    fn supervise(&self) -> Result<Box<dyn Supervision>> {
        Ok(Box::new(Self::supervise(self)?))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(Self::close(*self)?)
    }
}

impl PlatformExec for KubeExec<'_> {
    fn stdin(&mut self) -> Option<ChildInput> {
        self.child().stdin.take()
    }

    fn stdout(&mut self) -> Option<ChildOutput> {
        self.child().stdout.take()
    }

    fn stderr(&mut self) -> Option<ChildOutput> {
        self.child().stderr.take()
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        Ok(Self::wait(self)?)
    }

    fn kill(&mut self) -> Result<()> {
        Ok(Self::kill(self)?)
    }
}

impl Supervision for KubeSupervisor {
    fn pending(&self) -> Result<Vec<Review>> {
        Ok(Self::pending(self)?)
    }

    fn approve(&self, review: &Review, scope: Scope, reason: &str) -> Result<Decision> {
        Ok(Self::approve(self, review, scope, reason)?)
    }

    fn deny(&self, review: &Review, reason: &str) -> Result<Decision> {
        Ok(Self::deny(self, review, reason)?)
    }

    fn plan(&self) -> Result<BottlePlan> {
        Ok(Self::plan(self)?)
    }

    fn verify(&self) -> Result<Verified> {
        Ok(Self::verify(self)?)
    }
}
