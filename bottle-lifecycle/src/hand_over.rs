//! The hand-over of credentials to sidecars that run.

use std::thread;
use std::time::Duration;

use bottle_engine::{Engine, EngineError, Exec};
use bottle_exec::Stdin;
use bottle_plan::value::EnvName;
use bottle_plan::{SecretValue, Secrets};

/// Reads one line for each slot in its arguments and writes it to a file of that name in the working directory. `read` and
/// `printf` are builtins of the shell, so no value is on a command line or in an environment. A reader sees a whole file
/// or none.
const SCRIPT: &str = r#"umask 077
for slot; do
  IFS= read -r value && printf %s "$value" >".$slot" && mv -f ".$slot" "$slot" && continue
  echo "cannot write $slot" >&2
  exit 1
done"#;

/// Time limit for one sidecar.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An error of a hand-over. It contains no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandOverError {
    /// The engine reported an error.
    #[error("give `{container}` its credentials")]
    Engine {
        /// Name of the container.
        container: String,
        /// Cause.
        source: EngineError,
    },
    /// A value is unknown, or could not be written.
    #[error("give `{container}` its credentials: {problem}")]
    NotGiven {
        /// Name of the container.
        container: String,
        /// Problem, with the slot, and what would be accepted.
        problem: String,
    },
}

impl HandOverError {
    /// Returns true if the hand-over was cancelled.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Engine { source, .. } if source.is_cancelled())
    }
}

/// Gives sidecars their credentials, all at the same time. Each sidecar is the name of its container and its slots. The values
/// go through the standard input of one command in each container, which writes them to files in `directory`.
///
/// # Errors
///
/// Returns an error if a sidecar does not have all of its values.
pub fn hand_over(
    engine: &Engine,
    directory: &str,
    sidecars: &[(String, Vec<EnvName>)],
    values: &Secrets,
) -> Result<(), HandOverError> {
    thread::scope(|scope| {
        let give = |(container, slots)| scope.spawn(move || give(engine, directory, container, slots, values));
        let sidecars = sidecars.iter().filter(|(_, slots)| !slots.is_empty());
        let running: Vec<_> = sidecars.map(|(container, slots)| give((container, slots))).collect();
        let mut results = running.into_iter().map(thread::ScopedJoinHandle::join);
        results.try_for_each(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn give(
    engine: &Engine,
    directory: &str,
    container: &str,
    slots: &[EnvName],
    values: &Secrets,
) -> Result<(), HandOverError> {
    let mut lines = Vec::new();
    for slot in slots {
        let problem = match values.get(slot).map(SecretValue::expose) {
            Some(value) if !value.contains('\n') => {
                lines.extend([value.as_bytes(), b"\n"].concat());
                continue;
            }
            Some(_) => "several lines",
            None => "unknown",
        };
        let problem = format!("the value of `{slot}` is {problem}; accepted: one line");
        return Err(HandOverError::NotGiven { container: container.to_owned(), problem });
    }
    let exec = Exec::new(["sh", "-c", SCRIPT, "sh"].into_iter().chain(slots.iter().map(EnvName::as_str)))
        .with_workdir(directory)
        .with_stdin(Stdin::Bytes(lines))
        .with_timeout(TIMEOUT);
    let output = engine
        .exec_bare(container, &exec)
        .map_err(|source| HandOverError::Engine { container: container.to_owned(), source })?;
    if output.status.is_success() {
        return Ok(());
    }
    let message = output.stderr.text();
    let problem = message.trim().lines().last().unwrap_or("the command failed without a message").to_owned();
    Err(HandOverError::NotGiven { container: container.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bottle_engine::{EngineChoice, rehearsal};
    use bottle_exec::{Answer, Control, Matcher, RecordingBackend};

    use super::*;

    fn engine(backend: RecordingBackend) -> (Engine, Arc<RecordingBackend>) {
        let backend = Arc::new(backend);
        let engine = Engine::detect(backend.clone(), &EngineChoice::Auto, Control::default()).unwrap();
        backend.clear();
        (engine, backend)
    }

    fn give(engine: &Engine, sidecars: &[&str], second: &str) -> Result<(), HandOverError> {
        let slots: Vec<EnvName> = ["A", "B"].map(|slot| slot.parse().unwrap()).into();
        let mut values = Secrets::default();
        values.insert(slots[0].clone(), SecretValue::new("first value"));
        if !second.is_empty() {
            values.insert(slots[1].clone(), SecretValue::new(second));
        }
        let with_slots = sidecars.iter().map(|name| ((*name).to_owned(), slots.clone()));
        let sidecars: Vec<_> = with_slots.chain([("pipelock".to_owned(), Vec::new())]).collect();
        hand_over(engine, "/run/credentials", &sidecars, &values)
    }

    #[test]
    fn values_are_on_standard_input_alone() {
        let (engine, backend) = engine(rehearsal());
        give(&engine, &["egress", "git-gate"], "second").unwrap();
        let commands = backend.commands();
        assert_eq!(commands.len(), 2);
        for command in commands {
            let line = command.to_string();
            assert!(line.starts_with("docker exec --interactive --workdir /run/credentials "), "{line}");
            let shown = format!("{line} {command:?}");
            assert!(line.contains(" A B") && !shown.contains("first") && !shown.contains("second"), "{shown}");
            let Stdin::Bytes(given) = command.stdin() else { panic!("{:?}", command.stdin()) };
            assert_eq!(given, b"first value\nsecond\n");
        }
    }

    #[test]
    fn a_sidecar_without_its_values_is_an_error_that_shows_none() {
        let refused = Answer::exit(1).with_stderr("sh: No space left on device\ncannot write B\n");
        let (engine, backend) = engine(rehearsal().with_answer(Matcher::words(["git-gate"]), refused));
        let error = give(&engine, &["egress", "git-gate"], "second").unwrap_err();
        insta::assert_snapshot!(error, @"give `git-gate` its credentials: cannot write B");
        assert_eq!(backend.commands().len(), 2);

        let error = give(&engine, &["egress"], "a\nb").unwrap_err();
        insta::assert_snapshot!(error, @"give `egress` its credentials: the value of `B` is several lines; accepted: one line");
        let error = give(&engine, &["egress"], "").unwrap_err();
        insta::assert_snapshot!(error, @"give `egress` its credentials: the value of `B` is unknown; accepted: one line");
    }

    #[test]
    fn the_script_writes_whole_files_that_only_their_owner_reads() {
        use std::io::Write as _;
        use std::os::unix::fs::PermissionsExt as _;
        use std::process::{Command, Stdio};

        let dir = tempfile::tempdir().unwrap();
        let run = |input: &str| {
            let mut child = Command::new("sh")
                .args(["-c", SCRIPT, "sh", "A", "B"])
                .current_dir(dir.path())
                .stdin(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            child.wait().unwrap().success()
        };
        assert!(run("a $x\\n 'q' %s\nb=1\n"));
        let read = |slot: &str| std::fs::read_to_string(dir.path().join(slot)).unwrap();
        assert_eq!((read("A").as_str(), read("B").as_str()), ("a $x\\n 'q' %s", "b=1"));
        assert_eq!(std::fs::metadata(dir.path().join("A")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(!run("only one\n"), "a missing value is an error");
        assert_eq!(read("A"), "only one");
    }
}
