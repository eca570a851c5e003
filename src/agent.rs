//! The agent's own command.

use bottle_compose::AGENT_PROMPT;
use bottle_exec::engine::Exec;
use bottle_plan::BottlePlan;
use bottle_plan::plan::PromptMode;

/// The command that starts the plan's agent, with the prompt handed over in the way that its provider takes one.
pub fn agent_command(plan: &BottlePlan) -> Exec {
    let agent = &plan.agent;
    let mut argv = agent.command.clone();
    if agent.prompt.is_some() {
        match agent.prompt_mode {
            PromptMode::AppendSystemPromptFile => {
                argv.extend(["--append-system-prompt-file".to_owned(), AGENT_PROMPT.to_owned()]);
            }
            // The container's shell reads it, so that it is on no command line of the host.
            PromptMode::LastArgument => {
                let read = format!("exec \"$@\" \"$(cat {AGENT_PROMPT})\"");
                argv = ["sh".to_owned(), "-c".to_owned(), read, "sh".to_owned()].into_iter().chain(argv).collect();
            }
            PromptMode::EnvironmentFile => {}
        }
    }
    Exec::new(argv)
}
