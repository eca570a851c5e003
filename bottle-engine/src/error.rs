//! Errors of a container engine.

use bottle_exec::{Command, ExecError, ExitStatus, Output};

/// An error of a container engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A command was not run or ended badly.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The output of the engine cannot be parsed.
    #[error("parse the output of `{command}`: {reason}; it answered: {answer}")]
    Answer {
        /// Command line, redacted.
        command: String,
        /// Reason why it cannot be parsed.
        reason: String,
        /// Beginning of the output.
        answer: String,
    },
    /// No container engine answered.
    #[error("find a container engine{}", what_each_said(.tried))]
    NoEngine {
        /// Each engine that was tried, with the result.
        tried: Vec<(String, String)>,
    },
    /// The engine does not support a requested feature.
    #[error("use {wanted}: {engine} does not offer it")]
    Unsupported {
        /// Name of the engine.
        engine: String,
        /// Requested feature.
        wanted: String,
    },
    /// The engine does not see this host's files, and lacks what a bottle needs there instead.
    #[error(
        "use the engine at `{address}`: it sees none of this host's files, and cannot mount single files of a volume; accepted: \
         Docker 26 with Compose 2.26 or later, or an engine behind a local socket"
    )]
    Remote {
        /// Address of the engine.
        address: String,
    },
    /// The engine is reached over a network without TLS, or without a check of its certificate.
    #[error(
        "use the engine at `{address}`: what is sent there, credentials among it, is not protected on its way; accepted: `ssh://`, or \
         TLS with certificates (`DOCKER_TLS_VERIFY=1` and `DOCKER_CERT_PATH`, or a context with `ca`, `cert` and `key`)"
    )]
    NotEncrypted {
        /// Address of the engine.
        address: String,
    },
    /// A variable cannot be passed by name, because the engine's own client reads it.
    #[error("pass the variable `{name}` to a container: the engine's own client would read it; accepted: another name")]
    ReservedName {
        /// Name of the variable.
        name: String,
    },
    /// A command was not run, because its container does not run.
    #[error("run a command in container `{container}`: it {state}")]
    NotRunning {
        /// Name of the container.
        container: String,
        /// State of the container, such as `is paused` or `does not exist`.
        state: String,
    },
    /// A command has no words.
    #[error("run a command in container `{container}`: it is empty; accepted: a program and its arguments")]
    NoCommand {
        /// Name of the container.
        container: String,
    },
    /// An exec was interrupted, and a process that it started in the container could not be ended.
    #[error("end what an interrupted command left in container `{container}`: {reason}; the command: {cause}")]
    StillRunning {
        /// Name of the container.
        container: String,
        /// Reason why the command was interrupted.
        cause: String,
        /// Reason why its processes could not be ended.
        reason: String,
        /// True when the caller's token interrupted it.
        was_cancelled: bool,
    },
    /// The engine reported success for a copy, but files are missing or incomplete.
    #[error("copy files into `{container}:{directory}`: the engine reports success, but {missing}")]
    NotCopied {
        /// Name of the container.
        container: String,
        /// Directory in the container.
        directory: String,
        /// First five entries that are missing or have another size.
        missing: String,
    },
    /// The engine has another network with some of the addresses.
    #[error("create network `{network}`: the engine has another one with addresses of {subnet}")]
    SubnetTaken {
        /// Name of the network.
        network: String,
        /// Subnet that was asked for, in CIDR notation.
        subnet: String,
    },
    /// The awaited state was not reached.
    #[error("wait for container `{container}`: {state}")]
    NotReady {
        /// Name of the container.
        container: String,
        /// Last state that was seen.
        state: String,
    },
}

impl EngineError {
    /// Maximum length of quoted output, in characters.
    const EXCERPT: usize = 300;

    pub(crate) fn answer(command: &Command, reason: &str, answer: &str) -> Self {
        let answer = command.scrub(answer);
        let mut shown: String = answer.trim().chars().take(Self::EXCERPT).collect();
        if answer.trim().chars().nth(Self::EXCERPT).is_some() {
            shown.push('…');
        }
        Self::Answer { command: command.brief(), reason: command.scrub(reason), answer: format!("`{shown}`") }
    }

    /// Returns true if the caller's own token cancelled the command.
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

/// Returns true if a failed command reports that its object does not exist. The wording differs: Docker "No such
/// container", "network x not found"; Podman "no such volume", "image not known"; nerdctl "no such object".
pub(crate) fn says_not_there(output: &Output) -> bool {
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

/// Returns true if a failed command reports that an object is already being removed. Docker: "removal of container x is already
/// in progress"; Podman waits by itself.
pub(crate) fn says_under_way(output: &Output) -> bool {
    output.stderr.text().contains("is already in progress")
}

/// Returns true if a failed command reports that addresses are in use. Docker: "Pool overlaps with other one on this address
/// space", "networks have overlapping IPv4"; Podman: "subnet 10.0.0.0/28 is already used on the host or by another config".
pub(crate) fn says_overlap(output: &Output) -> bool {
    let said = output.stderr.text().to_lowercase();
    said.lines().any(|line| line.contains("overlap") || (line.contains("subnet") && line.contains("already used")))
}

/// Returns true if the status may be that of the engine's client, which could not start a command in a container, and not
/// that of the command. At a terminal only the user sees what the client said.
pub(crate) fn may_be_of_client(output: &Output, is_interactive: bool) -> bool {
    let says = |words: &str| output.stderr.text().lines().any(|line| line.contains(words));
    match output.status {
        ExitStatus::Code(1) => is_interactive || says("Error response from daemon: ") || says("No such container: "),
        // Podman's.
        ExitStatus::Code(125 | 255) => {
            is_interactive || says("Error: can only create exec") || says("Error: no container ")
        }
        _ => false,
    }
}
