//! Sources of credentials that change while a bottle runs.

use std::error::Error;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bottle_exec::{Backend, Command, Control, ExecError};
use bottle_plan::SecretValue;

/// A source of one credential, asked at the launch and again before each value expires.
///
/// A new value is handed to the sidecars that need it, without a restart. The agent never sees one. Closures are sources
/// through [`CallbackSource`].
pub trait SecretSource: Send + Sync + fmt::Debug {
    /// Returns the current value. It may take a while, since it runs on a thread of its own after the launch.
    ///
    /// # Errors
    ///
    /// Any error. It is shown to the user, so it must not hold the value. While a bottle runs, the source is asked again
    /// after a pause.
    fn value(&self) -> Result<Secret, Box<dyn Error + Send + Sync>>;
}

/// A credential's value and the end of its validity.
#[derive(Debug, Clone)]
pub struct Secret {
    /// The value: visible ASCII, with spaces only inside.
    pub value: SecretValue,
    /// Time from which the value is refused. `None`: it does not expire, and the source is not asked again.
    pub expires: Option<SystemTime>,
}

impl Secret {
    /// Problem of a source whose value is not [usable](Secret::is_usable).
    pub const UNUSABLE: &str = "gave an empty value, or one that no header can carry";

    /// Returns a value that expires after this time, or never. A time beyond the range of the clock is never.
    pub fn new(value: impl Into<String>, lifetime: Option<Duration>) -> Self {
        let expires = lifetime.and_then(|lifetime| SystemTime::now().checked_add(lifetime));
        Self { value: SecretValue::new(value), expires }
    }

    /// Returns true if the value can be a credential: not empty, visible ASCII, with spaces only inside.
    pub fn is_usable(&self) -> bool {
        !self.value.is_empty() && self.value.is_header_text()
    }
}

/// A file whose content is the value. A line end after it is removed.
#[derive(Debug, Clone)]
pub struct FileSource {
    path: PathBuf,
    lifetime: Option<Duration>,
}

impl FileSource {
    /// Returns a source that reads a file once.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), lifetime: None }
    }

    /// Sets how long a value is taken for valid; the file is read again before that. Default: it is read once.
    #[must_use]
    pub const fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }
}

impl SecretSource for FileSource {
    fn value(&self) -> Result<Secret, Box<dyn Error + Send + Sync>> {
        let text =
            fs::read_to_string(&self.path).map_err(|error| format!("read `{}`: {error}", self.path.display()))?;
        Ok(Secret::new(without_line_end(&text), self.lifetime))
    }
}

/// A command of this host that prints the value, such as `gcloud auth print-access-token`. A line end after it is removed.
/// No error shows its output, which may hold the value.
#[derive(Debug, Clone)]
pub struct CommandSource {
    backend: Arc<dyn Backend>,
    command: Command,
    lifetime: Option<Duration>,
}

impl CommandSource {
    /// Returns a source that runs a command once. Without a timeout of its own it may take a minute.
    pub fn new(backend: Arc<dyn Backend>, command: Command) -> Self {
        let timeout = command.timeout().unwrap_or(Duration::from_secs(60));
        Self { backend, command: command.with_timeout(timeout), lifetime: None }
    }

    /// Sets how long a value is taken for valid; the command is run again before that. Default: it is run once.
    #[must_use]
    pub const fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }
}

impl SecretSource for CommandSource {
    fn value(&self) -> Result<Secret, Box<dyn Error + Send + Sync>> {
        let output = self.backend.run(&self.command, &Control::default());
        let output = output.and_then(|output| output.success(&self.command)).map_err(without_output)?;
        Ok(Secret::new(without_line_end(&output.stdout.text()), self.lifetime))
    }
}

/// A closure as a source.
///
/// ```
/// use std::time::Duration;
/// use bottle_lifecycle::{CallbackSource, Secret, SecretSource};
/// let source = CallbackSource(|| Ok(Secret::new("a-token", Some(Duration::from_secs(3600)))));
/// assert!(source.value()?.expires.is_some());
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub struct CallbackSource<F>(pub F);

impl<F> SecretSource for CallbackSource<F>
where
    F: Fn() -> Result<Secret, Box<dyn Error + Send + Sync>> + Send + Sync,
{
    fn value(&self) -> Result<Secret, Box<dyn Error + Send + Sync>> {
        (self.0)()
    }
}

impl<F> fmt::Debug for CallbackSource<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallbackSource")
    }
}

/// Returns the error with advice in place of what the command printed.
fn without_output(error: ExecError) -> ExecError {
    let advice = || "its output is not shown, as it may hold a credential; run it by hand to see the reason".to_owned();
    match error {
        ExecError::Failed { command, status, stderr: _ } => ExecError::Failed { command, status, stderr: advice() },
        ExecError::TimedOut { command, limit, stderr: _ } => ExecError::TimedOut { command, limit, stderr: advice() },
        error => error,
    }
}

fn without_line_end(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use bottle_exec::Subprocess;

    use super::*;

    #[test]
    fn a_file_is_read_each_time_without_its_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let source = FileSource::new(&path).with_lifetime(Duration::from_secs(60));
        let error = source.value().unwrap_err().to_string();
        assert!(error.starts_with("read `") && error.contains("No such file"), "{error}");
        for (content, value) in [("one\n", "one"), ("two\r\n", "two"), (" three \n\n", " three \n")] {
            fs::write(&path, content).unwrap();
            let secret = source.value().unwrap();
            assert_eq!(secret.value.expose(), value);
            let left = secret.expires.unwrap().duration_since(SystemTime::now()).unwrap();
            assert!(left > Duration::from_secs(50), "{left:?}");
        }
    }

    #[test]
    fn a_command_prints_the_value_and_its_failure_names_no_value() {
        let backend = Arc::new(Subprocess::new([("PATH".into(), "/usr/bin:/bin".into())]));
        let sh =
            |script: &str| CommandSource::new(backend.clone(), Command::new("sh").with_args(["-c", script])).value();
        let secret = sh("echo a-token").unwrap();
        assert_eq!((secret.value.expose(), secret.expires), ("a-token", None));
        let script = "printf 'a-%s\\n' token | tee /dev/stderr";
        for end in ["exit 1", "kill -9 $$", "sleep 60"] {
            let command = Command::new("sh").with_args(["-c", &format!("{script}; {end}")]);
            let command = command.with_timeout(Duration::from_secs(if end == "sleep 60" { 1 } else { 30 }));
            let error = CommandSource::new(backend.clone(), command).value().unwrap_err();
            let texts = format!("{error}\n{error:?}");
            assert!(texts.contains("run it by hand to see the reason") && !texts.contains("a-token"), "{texts}");
        }
        let backend: Arc<dyn Backend> = backend;
        let forever = CommandSource::new(backend, Command::new("echo").with_arg("x")).with_lifetime(Duration::MAX);
        assert_eq!(forever.value().unwrap().expires, None);
    }
}
