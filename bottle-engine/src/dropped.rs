//! Commands that were dropped while their container was paused.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use bottle_exec::chain;
use serde::{Deserialize, Serialize};

use crate::client::Engine;
use crate::error::EngineError;
use crate::kill::{LOOKS, Mark};

/// The commands in a container that were dropped while it was paused, so that they could not be stopped. They are in a file, so
/// that whichever process resumes the container can stop them.
#[derive(Debug, Clone)]
pub struct DroppedExecs {
    engine: Engine,
    container: String,
    path: PathBuf,
}

/// A command that may still run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DroppedExec {
    pub(crate) user: Option<String>,
    pub(crate) mark: Mark,
}

impl DroppedExecs {
    /// Returns the commands of a container, which are kept in the file at `path`. It is created with the first one. Its
    /// directory has to be one that only this user can write.
    pub fn new(engine: &Engine, container: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        // A command is also dropped by a program that was told to end.
        let engine = engine.clone().with_control(engine.control().for_cleanup());
        Self { engine, container: container.into(), path: path.into() }
    }

    /// Stops all of them, once the container is resumed. Those that cannot be stopped stay in the file.
    ///
    /// # Errors
    ///
    /// [`EngineError::StillRunning`] when a process survives, or the file cannot be read.
    pub fn end_all(&self) -> Result<(), EngineError> {
        let taken = self.path.with_extension(format!("{}.taken", std::process::id()));
        let text = match fs::rename(&self.path, &taken) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            renamed => renamed.and_then(|()| fs::read_to_string(&taken)).map_err(|error| self.failed(&error))?,
        };
        let mut ended = Ok(());
        for dropped in text.lines().filter_map(|line| serde_json::from_str(line).ok()) {
            if let Err(error) = self.end(&dropped) {
                ended = self.write(&dropped).map_err(|error| self.failed(&error)).and(Err(error));
            }
        }
        fs::remove_file(&taken).map_err(|error| self.failed(&error)).and(ended)
    }

    /// Forgets all of them: the container has ended, and with it each process.
    pub fn forget(&self) {
        _ = fs::remove_file(&self.path);
    }

    /// Takes a command that could not be stopped. If the container is paused, the command is stopped after that, else now.
    pub(crate) fn add(&self, dropped: &DroppedExec) -> Result<(), EngineError> {
        if self.is_paused() && self.write(dropped).is_ok() && self.is_paused() {
            return Ok(());
        }
        // It was resumed meanwhile.
        self.end(dropped)
    }

    fn is_paused(&self) -> bool {
        matches!(self.engine.container(&self.container), Ok(Some(state)) if state.status == "paused")
    }

    fn end(&self, dropped: &DroppedExec) -> Result<(), EngineError> {
        self.engine.end(&self.container, dropped.user.as_deref(), &[dropped.mark.as_entry(), LOOKS])
    }

    /// Adds a line to the file, in one write.
    fn write(&self, dropped: &DroppedExec) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        file.write_all((serde_json::to_string(dropped)? + "\n").as_bytes())
    }

    fn failed(&self, error: &io::Error) -> EngineError {
        let reason = format!("`{}`: {}", self.path.display(), chain(error));
        let cause = "it was dropped while the container was paused".to_owned();
        EngineError::StillRunning { container: self.container.clone(), cause, reason, was_cancelled: false }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use bottle_exec::{Answer, Control, Matcher, RecordingBackend};

    use super::*;
    use crate::detect::{EngineChoice, rehearsal};

    fn dropped(dir: &Path, status: &str, kill: Answer) -> (DroppedExecs, Arc<RecordingBackend>) {
        let state = format!(r#"[{{"Name":"/x","State":{{"Status":"{status}"}},"Config":{{}}}}]"#);
        let engine = Engine::detect(Arc::new(rehearsal()), &EngineChoice::Auto, Control::default()).unwrap();
        let backend = RecordingBackend::new()
            .with_answer(Matcher::prefix(["container", "inspect"]), Answer::stdout(state))
            .with_answer(Matcher::prefix(["exec"]), kill);
        let backend = Arc::new(backend);
        (DroppedExecs::new(&engine.with_backend(backend.clone()), "x", dir.join("dropped.jsonl")), backend)
    }

    fn command(number: u32) -> DroppedExec {
        serde_json::from_str(&format!(r#"{{"user":"agent","mark":"BOTTLE_EXEC={number}"}}"#)).unwrap()
    }

    fn ended(backend: &RecordingBackend) -> Vec<String> {
        let lines = backend.lines().into_iter().filter(|line| line.contains(" exec "));
        lines.filter_map(|line| Some(line.split_once("BOTTLE_EXEC=")?.1.split(' ').next()?.to_owned())).collect()
    }

    #[test]
    fn what_is_dropped_in_a_pause_is_stopped_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let (paused, backend) = dropped(dir.path(), "paused", Answer::stdout(""));
        paused.add(&command(1)).unwrap();
        paused.add(&command(2)).unwrap();
        assert_eq!(ended(&backend), [""; 0]);
        // Nothing can be stopped yet. It is tried again.
        let (refusing, _) = dropped(dir.path(), "paused", Answer::exit(1).with_stderr("it is paused"));
        refusing.end_all().unwrap_err();
        let (running, backend) = dropped(dir.path(), "running", Answer::stdout(""));
        running.end_all().unwrap();
        assert_eq!(ended(&backend), ["1", "2"]);
        running.end_all().unwrap();
        assert_eq!((ended(&backend).len(), fs::read_dir(dir.path()).unwrap().count()), (2, 0));
    }

    #[test]
    fn what_is_dropped_at_the_end_of_a_pause_is_stopped_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (running, backend) = dropped(dir.path(), "running", Answer::stdout(""));
        running.add(&command(3)).unwrap();
        assert_eq!((ended(&backend), fs::read_dir(dir.path()).unwrap().count()), (vec!["3".to_owned()], 0));
    }
}
