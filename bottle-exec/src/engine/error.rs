//! What can go wrong with an engine.

use crate::command::Command;
use crate::error::ExecError;
use crate::output::Output;

/// What went wrong with an engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A command was not run or ended badly.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The engine answered something that cannot be understood.
    #[error("parse the output of `{command}`: {reason}; it answered: {answer}")]
    Answer {
        /// The command line.
        command: String,
        /// What is wrong with the answer.
        reason: String,
        /// The beginning of the answer.
        answer: String,
    },
    /// None of the engines that were asked answered.
    #[error("find a container engine{}", what_each_said(.tried))]
    NoEngine {
        /// Each engine that was asked, and what came of it.
        tried: Vec<(String, String)>,
    },
    /// The engine cannot do what was asked for.
    #[error("use {wanted}: {engine} does not offer it")]
    Unsupported {
        /// The engine.
        engine: String,
        /// What was asked for.
        wanted: String,
    },
    /// The engine is another machine's. What it is given by bind mounts it would look for among its own files.
    #[error(
        "use the engine at `{address}`: it sees none of this host's files, and a bottle's configuration and keys are bind \
         mounts of this host's files; accepted is an engine behind a local socket"
    )]
    Remote {
        /// Where it is spoken to.
        address: String,
    },
    /// A variable cannot be handed on by name, since the engine's own program reads it.
    #[error("hand on the variable `{name}`: the engine's own program would read it; give it another name")]
    ReservedName {
        /// The variable.
        name: String,
    },
    /// An exec was interrupted, and something that it started in the container could not be ended.
    #[error("end what an interrupted command left in container `{container}`: {reason}; the command: {cause}")]
    StillRunning {
        /// The container.
        container: String,
        /// Why the command was interrupted.
        cause: String,
        /// Why its processes could not be ended.
        reason: String,
        /// True when the caller's token interrupted it.
        was_cancelled: bool,
    },
    /// The engine reported that it had copied files, and something of them is not there.
    #[error("copy files into `{container}:{directory}`: the engine reports success, but {missing}")]
    NotCopied {
        /// The container.
        container: String,
        /// The directory in the container.
        directory: String,
        /// The first five of what is missing or has another size.
        missing: String,
    },
    /// What was waited for did not happen.
    #[error("wait for container `{container}`: {state}")]
    NotReady {
        /// The container.
        container: String,
        /// What it was last seen doing.
        state: String,
    },
}

impl EngineError {
    /// How much of an answer is repeated, in characters.
    const EXCERPT: usize = 300;

    pub(crate) fn answer(command: &Command, reason: &str, answer: &str) -> Self {
        let answer = command.scrub(answer);
        let mut shown: String = answer.trim().chars().take(Self::EXCERPT).collect();
        if answer.trim().chars().nth(Self::EXCERPT).is_some() {
            shown.push('…');
        }
        Self::Answer { command: command.to_string(), reason: command.scrub(reason), answer: format!("`{shown}`") }
    }

    /// Whether the caller's own token ended it.
    pub const fn is_cancelled(&self) -> bool {
        match self {
            Self::Exec(error) => error.is_cancelled(),
            Self::StillRunning { was_cancelled, .. } => *was_cancelled,
            _ => false,
        }
    }
}

fn what_each_said(tried: &[(String, String)]) -> String {
    tried.iter().fold(String::new(), |all, (name, why)| all + "\n  " + name + ": " + why)
}

/// Whether a failed command says that what it is about does not exist. The engines word it differently: Docker "No such
/// container", "network x not found"; Podman "no such volume", "image not known"; nerdctl "no such object".
pub(super) fn says_not_there(output: &Output) -> bool {
    let said = output.stderr.text().to_lowercase();
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("error") || line.contains("no such")).collect();
    let not_there = |line: &&str| {
        ["no such container", "no such image", "no such network", "no such volume", "no such object", "image not known"]
            .iter()
            .any(|words| line.contains(words))
            || (line.contains("network") && line.ends_with("not found"))
    };
    !lines.is_empty() && lines.iter().all(not_there)
}
