//! The agent's own command.

use bottle_compose::agent_argv;
use bottle_engine::Exec;
use bottle_plan::BottlePlan;

/// Returns the command that starts the plan's agent, with the prompt passed as its provider expects it.
pub fn agent_command(plan: &BottlePlan) -> Exec {
    Exec::new(agent_argv(plan))
}
