//! The trait that puts files and settings into the agent's container after its start.

use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use bottle_engine::{Engine, Exec};
use bottle_exec::Output;
use bottle_plan::{ResolvedPlan, Service};
use bottle_sidecars::agent;

use crate::error::ProvisionError;
use crate::steps;

/// Puts files and settings into the agent's container, before the launch returns the bottle.
///
/// The launch runs one provisioner, [`Builtin`] by default. An error aborts the launch and removes the bottle.
///
/// ```
/// use bottle_engine::Exec;
/// use bottle_provision::{AgentContainer, Builtin, ProvisionError, Provisioner};
///
/// /// Creates a directory for the agent's notes.
/// #[derive(Debug)]
/// struct Notes;
///
/// impl Provisioner for Notes {
///     fn provision(&self, agent: &AgentContainer<'_>) -> Result<(), ProvisionError> {
///         agent.run("create the notes directory", Exec::new(["mkdir", "-p", "/home/agent/notes"]))?;
///         Ok(())
///     }
/// }
///
/// let provisioner = Builtin.then(Notes);
/// # let _: &dyn Provisioner = &provisioner;
/// ```
pub trait Provisioner: Debug + Send + Sync {
    /// Provisions the container.
    ///
    /// # Errors
    ///
    /// Returns an error if something could not be put in place. [`ProvisionError::Custom`] takes any error.
    fn provision(&self, agent: &AgentContainer<'_>) -> Result<(), ProvisionError>;

    /// Returns true if it uses a sidecar or the network, and so has to wait until every service is healthy. Otherwise the
    /// launch runs it while sidecars are still starting. Default: true.
    fn needs_services(&self) -> bool {
        true
    }

    /// Returns a provisioner that runs this one, then `next`.
    fn then<P: Provisioner>(self, next: P) -> Then<Self, P>
    where
        Self: Sized,
    {
        Then(self, next)
    }
}

/// Two provisioners, one after the other. Made by [`Provisioner::then`].
#[derive(Debug, Clone, Copy)]
pub struct Then<A, B>(A, B);

impl<A: Provisioner, B: Provisioner> Provisioner for Then<A, B> {
    fn provision(&self, agent: &AgentContainer<'_>) -> Result<(), ProvisionError> {
        self.0.provision(agent)?;
        self.1.provision(agent)
    }

    fn needs_services(&self) -> bool {
        self.0.needs_services() || self.1.needs_services()
    }
}

/// The default provisioner: certificate authority, git identity and rules, prompt, skills, supervise's MCP entry and the
/// provider's own configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct Builtin;

impl Provisioner for Builtin {
    fn provision(&self, agent: &AgentContainer<'_>) -> Result<(), ProvisionError> {
        steps::provision(agent.engine, agent.plan, agent.authority)
    }

    fn needs_services(&self) -> bool {
        false
    }
}

/// The agent's container while it is provisioned.
#[derive(Debug, Clone, Copy)]
pub struct AgentContainer<'a> {
    engine: &'a Engine,
    plan: &'a ResolvedPlan,
    authority: &'a Path,
}

impl<'a> AgentContainer<'a> {
    /// Returns the agent's container of a plan that was started. `authority` is the certificate authority (PEM) to trust.
    pub const fn new(engine: &'a Engine, plan: &'a ResolvedPlan, authority: &'a Path) -> Self {
        Self { engine, plan, authority }
    }

    /// Returns the plan that is being launched.
    pub const fn plan(&self) -> &ResolvedPlan {
        self.plan
    }

    /// Returns the engine that runs the container.
    pub const fn engine(&self) -> &Engine {
        self.engine
    }

    /// Returns the container's name on the engine.
    pub fn name(&self) -> String {
        self.plan.plan().names.container(Service::Agent)
    }

    /// Returns the path on the host of the certificate authority (PEM) that the agent trusts.
    pub const fn authority(&self) -> &Path {
        self.authority
    }

    /// Runs a command in the container and returns its output. `what` completes "failed to …" in an error.
    ///
    /// By default it runs as the agent's user, in the workspace, for at most 60 seconds. `Exec::with_user("0")` runs it
    /// as the container's root, who has no capability either.
    ///
    /// # Errors
    ///
    /// Returns an error if the command cannot be run or does not exit with status 0.
    pub fn run(&self, what: &'static str, exec: Exec) -> Result<Output, ProvisionError> {
        let exec = Exec {
            user: exec.user.or_else(|| Some(agent::USER.to_owned())),
            workdir: exec.workdir.or_else(|| Some(self.plan.plan().workspace.target.to_string())),
            timeout: exec.timeout.or(Some(Duration::from_secs(60))),
            ..exec
        };
        let output = self.engine.exec(&self.name(), &exec).map_err(|source| ProvisionError::Engine { what, source })?;
        if output.status.is_success() {
            return Ok(output);
        }
        Err(ProvisionError::Failed { what, status: output.status.to_string(), stderr: output.stderr.last_lines(5) })
    }
}
