//! A container engine, of this machine or over ssh.

use std::collections::BTreeMap;
use std::path::Path;

use bottle::exec::engine::{Exec, LiveExec};
use bottle::exec::{ChildInput, ChildOutput, ExitStatus, Output, TerminalSize};
use bottle::lifecycle::Status;
use bottle::plan::{Service, Slug};
use bottle::supervise::{Decision, Review, Scope, Supervisor, Verified};
use bottle::workspace::{Changes, Exported, FetchedRef};
use bottle::{Bottle, BottlePlan, Bottles, Forward, ForwardSpec, Verification, Verify};

use crate::error::PlatformError;
use crate::platform::{Feature, Ownership, Platform, PlatformBottle, PlatformExec, Summary, Supervision};

type Result<T, E = PlatformError> = std::result::Result<T, E>;

/// Returns the result of an engine.
fn of<T>(result: Result<T, impl Into<bottle::Error>>) -> Result<T> {
    result.map_err(|error| error.into().into())
}

impl Platform for Bottles {
    fn name(&self) -> String {
        self.engine().info().to_string()
    }

    fn supports(&self, feature: Feature) -> bool {
        match feature {
            Feature::Pause => true,
            // Podman reads such a file in another way.
            Feature::EnvironmentFile if self.engine().is_podman() => false,
            // An engine of another host sees no file of this one, and keeps what it is given on its disk.
            Feature::BoundWorkspace | Feature::EnvironmentFile | Feature::ForwardedVariables => {
                self.engine().info().capabilities().local_files
            }
        }
    }

    fn launch(&self, plan: BottlePlan) -> Result<Box<dyn PlatformBottle>> {
        let slug = plan.names.slug().clone();
        let bottle = of(Self::launch(self, plan))?;
        Ok(Box::new(EngineBottle { bottle, bottles: self.clone(), slug }))
    }

    fn attach(&self, slug: &Slug) -> Result<Box<dyn PlatformBottle>> {
        let bottle = of(Self::attach(self, slug))?;
        Ok(Box::new(EngineBottle { bottle, bottles: self.clone(), slug: slug.clone() }))
    }

    fn list(&self) -> Result<BTreeMap<Slug, Summary>> {
        let bottles = of(Self::list(self))?.into_iter();
        Ok(bottles
            .map(|(slug, bottle)| {
                let is_owned = bottle.is_owned || bottle.status == Some(Status::Kept);
                let ownership = if is_owned { Ownership::Owned } else { Ownership::Abandoned };
                (slug, Summary { agent: bottle.agent, ownership })
            })
            .collect())
    }

    fn recover(&self) -> Result<Vec<Slug>> {
        let report = of(Self::recover(self))?;
        if let Some(problem) = report.problems.first() {
            return Err(PlatformError::new(problem.clone()));
        }
        report.recovered.into_iter().map(|(slug, report)| of(report.into_result()).map(|_| slug)).collect()
    }
}

/// A bottle, with what its supervision and its logs are read from.
#[derive(Debug)]
struct EngineBottle {
    bottle: Bottle,
    bottles: Bottles,
    slug: Slug,
}

impl PlatformBottle for EngineBottle {
    fn slug(&self) -> Slug {
        self.slug.clone()
    }

    fn exec(&self, exec: Exec) -> Result<Output> {
        of(self.bottle.exec(exec))
    }

    fn spawn(&self, exec: Exec, terminal: Option<TerminalSize>) -> Result<Box<dyn PlatformExec + '_>> {
        Ok(Box::new(of(self.bottle.spawn(exec, terminal))?))
    }

    fn agent(&self) -> Option<Exec> {
        self.bottle.agent()
    }

    fn changes(&self) -> Result<Changes> {
        of(self.bottle.changes())
    }

    fn patch(&self) -> Result<Vec<u8>> {
        of(self.bottle.patch())
    }

    fn export(&self, into: &Path) -> Result<Exported> {
        of(self.bottle.export(into))
    }

    fn fetch_into(&self, repository: &Path, prefix: &str) -> Result<Vec<FetchedRef>> {
        of(self.bottle.fetch_into(repository, prefix))
    }

    fn forward(&self, spec: ForwardSpec) -> Result<Forward> {
        of(self.bottle.forward(spec))
    }

    fn logs(&self, service: Service) -> Result<String> {
        let output = of(self.bottle.engine().logs_since(&self.bottle.names().container(service), None))?;
        // Each line is after its timestamp.
        let lines = output.stdout_text();
        Ok(lines.lines().flat_map(|line| [line.split_once(' ').map_or("", |(_, text)| text), "\n"]).collect())
    }

    fn verify(&self) -> Result<Verification> {
        of(self.bottle.verify(Verify::Full))
    }

    fn supervise(&self) -> Result<Box<dyn Supervision>> {
        Ok(Box::new(of(self.bottles.supervise(&self.slug))?))
    }

    fn close(self: Box<Self>) -> Result<()> {
        of(self.bottle.close()).map(drop)
    }
}

impl PlatformExec for LiveExec {
    fn stdin(&mut self) -> Option<ChildInput> {
        self.stdin.take()
    }

    fn stdout(&mut self) -> Option<ChildOutput> {
        self.stdout.take()
    }

    fn stderr(&mut self) -> Option<ChildOutput> {
        self.stderr.take()
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        of(Self::wait(self))
    }

    fn kill(&mut self) -> Result<()> {
        of(Self::kill(self))
    }
}

impl Supervision for Supervisor {
    fn pending(&self) -> Result<Vec<Review>> {
        of(Self::pending(self))
    }

    fn approve(&self, review: &Review, scope: Scope, reason: &str) -> Result<Decision> {
        of(self.approve_for(review, scope, reason))
    }

    fn deny(&self, review: &Review, reason: &str) -> Result<Decision> {
        of(Self::deny(self, review, reason))
    }

    fn plan(&self) -> Result<BottlePlan> {
        of(Self::plan(self))
    }

    fn verify(&self) -> Result<Verified> {
        of(Self::verify(self))
    }
}
