//! The filling of a bottle that is taken from a pool.

use std::path::PathBuf;
use std::thread::{self, ScopedJoinHandle};

use bottle::compose::{AGENT_PROMPT, agent_argv};
use bottle::exec::Stdin;
use bottle::lifecycle::BottleError;
use bottle::plan::manifest::WorkspaceMode;
use bottle::plan::plan::PromptSource;
use bottle::prelude::Exec;
use bottle::{Bottle, BottlePlan, Bottles, ServiceHealth, Verify};

/// Workspace and prompt of a bottle that is taken. Default: those of the pool's plan.
#[derive(Debug, Clone, Default)]
pub struct Take {
    workspace: Option<PathBuf>,
    prompt: Option<String>,
}

/// Writes standard input to a file that the agent alone may read.
const WRITE_PROMPT: &str = "umask 077; cat > \"$1\"";

impl Take {
    /// Sets the directory of this host that is copied into the bottle.
    #[must_use]
    pub fn with_workspace(mut self, path: impl Into<PathBuf>) -> Self {
        self.workspace = Some(path.into());
        self
    }

    /// Sets the agent's prompt.
    #[must_use]
    pub fn with_prompt(mut self, text: impl Into<String>) -> Self {
        self.prompt = Some(text.into());
        self
    }

    /// Returns the plan of a bottle that is filled in.
    pub(crate) fn plan(&self, plan: &BottlePlan, bottle: &Bottle) -> BottlePlan {
        let mut plan = plan.clone();
        plan.names = bottle.names().clone();
        if let Some(path) = &self.workspace {
            plan.workspace.source.clone_from(path);
        }
        if let Some(text) = &self.prompt {
            plan.agent.prompt = Some(PromptSource::Text(text.clone()));
        }
        plan
    }
}

/// Result of filling in a bottle.
pub(crate) enum Filled {
    Done(Box<Bottle>),
    /// A service of the bottle is down. Another bottle may be in order.
    Down,
}

/// Verifies a bottle again, which may have waited for hours, and fills it in. Workspace and prompt are copied meanwhile; the
/// sidecars get their credentials once every protection holds, and its time begins last. If something fails, the bottle is removed.
pub(crate) fn fill(bottles: &Bottles, bottle: Bottle, plan: &BottlePlan) -> Result<Filled, bottle::Error> {
    let (health, verified, filled) = thread::scope(|scope| {
        let health = scope.spawn(|| bottle.health());
        let verified = scope.spawn(|| match bottles.verification() {
            Verify::Off => Ok(None),
            level => bottle.verify(level).map(Some),
        });
        let work = [
            scope.spawn(|| match plan.workspace.mode {
                WorkspaceMode::Copy => bottle.put_workspace(&plan.workspace).map(drop),
                _ => Ok(()),
            }),
            scope.spawn(|| put_prompt(&bottle, plan)),
        ];
        (joined(health), joined(verified), work.map(joined).into_iter().collect::<Result<(), _>>())
    });
    if !health?.iter().all(ServiceHealth::is_up) {
        return Ok(Filled::Down);
    }
    if let Some(found) = verified? {
        found.into_result().map_err(BottleError::from)?;
    }
    filled?;
    bottle.give_credentials()?;
    bottle::supervise::write_launched_plan(plan, &bottles.state_root().bottle(bottle.slug()))?;
    bottle.begin_limits()?;
    Ok(Filled::Done(Box::new(bottle.with_agent(agent_argv(plan))?)))
}

fn put_prompt(bottle: &Bottle, plan: &BottlePlan) -> Result<(), BottleError> {
    let Some(prompt) = &plan.agent.prompt else { return Ok(()) };
    let failed = |source| BottleError::Copy { path: AGENT_PROMPT.into(), source };
    let text = match prompt {
        PromptSource::Text(text) => text.clone().into_bytes(),
        PromptSource::File(path) => {
            std::fs::read(path).map_err(|source| BottleError::Copy { path: path.clone(), source })?
        }
    };
    let exec = Exec::new(["sh", "-c", WRITE_PROMPT, "sh", AGENT_PROMPT]).with_stdin(Stdin::Bytes(text));
    let output = bottle.exec(exec)?;
    if output.status.is_success() {
        return Ok(());
    }
    Err(failed(std::io::Error::other(output.stderr.last_lines(3))))
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
