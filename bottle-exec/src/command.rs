//! A command as data, before it is a process.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bottle_values::SecretValue;

use crate::child::TerminalSize;
use crate::quote::{is_assignable, quote};
use crate::secret::{REDACTED, scrub};

/// A value of an environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// A value that is visible wherever the command is shown.
    Plain(OsString),
    /// A value that is never shown.
    Secret(SecretValue),
}

impl EnvValue {
    /// Returns the value, for the process that needs it.
    pub fn expose(&self) -> &OsStr {
        match self {
            Self::Plain(value) => value,
            Self::Secret(value) => OsStr::new(value.expose()),
        }
    }
}

impl From<SecretValue> for EnvValue {
    fn from(value: SecretValue) -> Self {
        Self::Secret(value)
    }
}

impl From<&str> for EnvValue {
    fn from(value: &str) -> Self {
        Self::Plain(value.into())
    }
}

impl From<String> for EnvValue {
    fn from(value: String) -> Self {
        Self::Plain(value.into())
    }
}

impl From<OsString> for EnvValue {
    fn from(value: OsString) -> Self {
        Self::Plain(value)
    }
}

/// The standard input of a command.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Stdin {
    /// An immediate end of file.
    #[default]
    Null,
    /// These bytes, then the end of file. They may be secret, so only their number is ever shown.
    Bytes(Vec<u8>),
    /// The content of a file, which is opened when the command starts.
    File(PathBuf),
    /// The standard input of the calling process. A terminal is only read together with [`Command::interactive`].
    Inherit,
}

impl fmt::Debug for Stdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Inherit => f.write_str("Inherit"),
        }
    }
}

/// The destination of an output stream of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputPolicy {
    /// Keeps the output in memory: the first and the last half of `limit` bytes.
    Capture {
        /// Maximum number of bytes kept.
        limit: usize,
    },
    /// Passes the output to the sink of the [`Control`](crate::Control) as it arrives, and keeps
    /// [`Command::STREAM_KEEP`] bytes for error messages. Without a sink, the output is only captured.
    Stream,
    /// Writes the output to a file, which is created or truncated when the command starts. Both streams may name the
    /// same file.
    File {
        /// Path of the file.
        path: PathBuf,
        /// Permission bits of the file.
        mode: u32,
    },
    /// Writes to the calling process's own output.
    Inherit,
    /// Discards the output.
    Discard,
}

impl Default for OutputPolicy {
    fn default() -> Self {
        Self::Capture { limit: Command::CAPTURE_LIMIT }
    }
}

/// A program with its arguments, environment, working directory and streams.
///
/// [`Display`](fmt::Display) formats it as one line that can be pasted into a shell, with `'<redacted>'` in place of
/// secrets.
///
/// ```
/// use bottle_exec::{Command, SecretValue};
/// let command = Command::new("docker")
///     .with_args(["compose", "--project-name", "demo", "up"])
///     .with_env("TOKEN", SecretValue::new("hunter2"))
///     .with_env("NOTE", "two words");
/// assert_eq!(command.to_string(), "NOTE='two words' TOKEN='<redacted>' docker compose --project-name demo up");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    program: OsString,
    args: Vec<OsString>,
    env: BTreeMap<String, EnvValue>,
    hidden: Vec<SecretValue>,
    cwd: Option<PathBuf>,
    stdin: Stdin,
    stdout: OutputPolicy,
    stderr: OutputPolicy,
    timeout: Option<Duration>,
    interactive: bool,
    terminal: Option<TerminalSize>,
    uninterrupted: bool,
    label: Option<String>,
}

impl Command {
    /// Default number of bytes kept of each stream: 4 MiB.
    pub const CAPTURE_LIMIT: usize = 4 << 20;
    /// Number of bytes kept of a streamed output: 64 KiB.
    pub const STREAM_KEEP: usize = 64 << 10;

    /// Length of a script in an error message, in characters.
    const BRIEF: usize = 60;

    /// Returns a command without arguments, with empty input, both streams captured and no timeout.
    ///
    /// A program without a `/` is searched in the `PATH` of the backend.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            hidden: Vec::new(),
            cwd: None,
            stdin: Stdin::Null,
            stdout: OutputPolicy::default(),
            stderr: OutputPolicy::default(),
            timeout: None,
            interactive: false,
            terminal: None,
            uninterrupted: false,
            label: None,
        }
    }

    /// Adds one argument. Arguments are visible to every user of the host, so never pass a secret.
    #[must_use]
    pub fn with_arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn with_args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<String>, value: impl Into<EnvValue>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets environment variables.
    #[must_use]
    pub fn with_envs<N: Into<String>, V: Into<EnvValue>>(mut self, envs: impl IntoIterator<Item = (N, V)>) -> Self {
        self.env.extend(envs.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Adds a secret that the command may print although it is not in its environment. Errors redact it.
    #[must_use]
    pub fn with_hidden(mut self, value: SecretValue) -> Self {
        self.hidden.push(value);
        self
    }

    /// Sets the working directory. Default: the caller's.
    #[must_use]
    pub fn with_cwd(mut self, cwd: impl Into<PathBuf>) -> Self {
        self.cwd = Some(cwd.into());
        self
    }

    /// Sets the standard input.
    #[must_use]
    pub fn with_stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// Sets the destination of both output streams.
    #[must_use]
    pub fn with_output(mut self, policy: OutputPolicy) -> Self {
        self.stdout = policy.clone();
        self.stderr = policy;
        self
    }

    /// Sets the destination of standard output.
    #[must_use]
    pub fn with_stdout(mut self, policy: OutputPolicy) -> Self {
        self.stdout = policy;
        self
    }

    /// Sets the destination of standard error.
    #[must_use]
    pub fn with_stderr(mut self, policy: OutputPolicy) -> Self {
        self.stderr = policy;
        self
    }

    /// Sets the timeout, after which the command and everything that it started are stopped. Default: none.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Keeps the command in the terminal's process group with the caller's input and output, so that keys such as
    /// Ctrl-C reach it.
    #[must_use]
    pub fn with_interactive(mut self) -> Self {
        self.interactive = true;
        self.stdin = Stdin::Inherit;
        self.with_output(OutputPolicy::Inherit)
    }

    /// Gives the command a terminal of its own, of this size, when it is spawned.
    #[must_use]
    pub const fn with_terminal(mut self, size: TerminalSize) -> Self {
        self.terminal = Some(size);
        self
    }

    /// Makes a cancellation wait for the command's end. Only [`Control::abort`](crate::Control::abort) and the timeout
    /// stop it.
    ///
    /// This is for a client of a server that continues without its client: the teardown would miss what the server
    /// creates afterwards.
    #[must_use]
    pub const fn with_uninterrupted(mut self) -> Self {
        self.uninterrupted = true;
        self
    }

    /// Sets the description for people, such as "start the bottle's services".
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Returns the same command run by another program, such as `nice`, `env` or `strace`, which receives it as its
    /// last arguments. The environment, working directory and streams are unchanged and apply to the wrapper.
    ///
    /// ```
    /// use bottle_exec::Command;
    /// let command = Command::new("docker").with_arg("ps").wrapped_in("nice", ["-n", "5"]);
    /// assert_eq!(command.to_string(), "nice -n 5 docker ps");
    /// ```
    #[must_use]
    pub fn wrapped_in(
        mut self,
        program: impl Into<OsString>,
        args: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        self.label = Some(self.label());
        let inner = std::mem::replace(&mut self.program, program.into());
        let inner_args = std::mem::take(&mut self.args);
        self.args = args.into_iter().map(Into::into).chain([inner]).chain(inner_args).collect();
        self
    }

    /// Returns the program as it was given.
    pub fn program(&self) -> &OsStr {
        &self.program
    }

    /// Returns the arguments.
    pub fn args(&self) -> &[OsString] {
        &self.args
    }

    /// Returns the variables that are added to the environment.
    pub const fn env(&self) -> &BTreeMap<String, EnvValue> {
        &self.env
    }

    /// Returns the working directory, if one was set.
    pub fn cwd(&self) -> Option<&Path> {
        self.cwd.as_deref()
    }

    /// Returns the standard input.
    pub const fn stdin(&self) -> &Stdin {
        &self.stdin
    }

    /// Returns the destination of standard output.
    pub const fn stdout(&self) -> &OutputPolicy {
        &self.stdout
    }

    /// Returns the destination of standard error.
    pub const fn stderr(&self) -> &OutputPolicy {
        &self.stderr
    }

    /// Returns the timeout, if one was set.
    pub const fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Returns true if the command belongs to the terminal's process group.
    pub const fn interactive(&self) -> bool {
        self.interactive
    }

    /// Returns the size of the terminal that the command gets when it is spawned, if it gets one.
    pub const fn terminal(&self) -> Option<TerminalSize> {
        self.terminal
    }

    /// Returns true if a cancellation waits for the command's end.
    pub const fn uninterrupted(&self) -> bool {
        self.uninterrupted
    }

    /// Returns the description for people. Default: the program's name.
    pub fn label(&self) -> String {
        self.label.clone().unwrap_or_else(|| self.program.to_string_lossy().into_owned())
    }

    /// Returns every secret that the command knows.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretValue> {
        let in_env = self.env.values().filter_map(|value| match value {
            EnvValue::Secret(secret) => Some(secret),
            EnvValue::Plain(_) => None,
        });
        in_env.chain(&self.hidden)
    }

    /// Returns `text` with the command's secrets redacted.
    pub fn scrub(&self, text: &str) -> String {
        scrub(text, self.secrets())
    }

    /// Returns true if an argument contains a secret of eight bytes or more. Backends should refuse such a command,
    /// because arguments are visible to every user of the host.
    pub fn has_secret_argument(&self) -> bool {
        self.secrets().map(|secret| secret.expose().trim()).filter(|secret| secret.len() >= 8).any(|secret| {
            std::iter::once(&self.program).chain(&self.args).any(|arg| arg.to_string_lossy().contains(secret))
        })
    }

    /// Returns the command line for an error message. It is like [`Display`](fmt::Display), but of a script among the
    /// arguments it has only the beginning.
    ///
    /// ```
    /// use bottle_exec::Command;
    /// let command = Command::new("sh").with_args(["-c", "set -eu\nmake all"]);
    /// assert_eq!(command.brief(), "sh -c 'set -eu…'");
    /// ```
    pub fn brief(&self) -> String {
        self.line(|arg| {
            // Redacted first, because half of a secret would not be recognized.
            let text = self.scrub(&arg.to_string_lossy());
            let first = text.lines().next().unwrap_or_default();
            let is_long = text.chars().nth(Self::BRIEF).is_some() && text.contains(char::is_whitespace);
            if first.len() == text.len() && !is_long {
                return quote(arg);
            }
            let beginning: String = first.chars().take(Self::BRIEF).collect();
            quote(OsStr::new(&(beginning + "…")))
        })
    }

    /// Returns the command line, redacted, with each argument as `show` formats it.
    fn line(&self, show: impl Fn(&OsStr) -> String) -> String {
        let mut words: Vec<String> = Vec::new();
        if let Some(cwd) = &self.cwd {
            words.extend(["cd".into(), quote(cwd.as_os_str()), "&&".into()]);
        }
        if self.env.keys().any(|name| !is_assignable(name)) {
            words.push("env".into());
        }
        for (name, value) in &self.env {
            let value = match value {
                EnvValue::Plain(value) => quote(value),
                // The shell would read it as two redirections without the quotes.
                EnvValue::Secret(_) => format!("'{REDACTED}'"),
            };
            let name = if is_assignable(name) { name.clone() } else { quote(OsStr::new(name)) };
            words.push(format!("{name}={value}"));
        }
        words.push(quote(&self.program));
        words.extend(self.args.iter().map(|arg| show(arg)));
        if let Stdin::File(path) = &self.stdin {
            words.push(format!("<{}", quote(path.as_os_str())));
        }
        match (&self.stdout, &self.stderr) {
            (OutputPolicy::File { path, .. }, OutputPolicy::File { path: other, .. }) if path == other => {
                words.push(format!(">{} 2>&1", quote(path.as_os_str())));
            }
            (stdout, stderr) => {
                for (redirection, policy) in [(">", stdout), ("2>", stderr)] {
                    match policy {
                        OutputPolicy::File { path, .. } => {
                            words.push(format!("{redirection}{}", quote(path.as_os_str())));
                        }
                        OutputPolicy::Discard => words.push(format!("{redirection}/dev/null")),
                        _ => {}
                    }
                }
            }
        }
        if let Stdin::Bytes(bytes) = &self.stdin {
            words.push(format!("# reads {} bytes", bytes.len()));
        }
        self.scrub(&words.join(" "))
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line(quote))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_displayed_as_a_shell_line() {
        let command = Command::new("docker")
            .with_args(["cp", "-", "box:/a b", "it's", "new\nline", "", "~", "$HOME"])
            .with_cwd("/some dir")
            .with_stdin(Stdin::File("/tmp/in".into()))
            .with_output(OutputPolicy::File { path: "/tmp/out".into(), mode: 0o644 });
        assert_eq!(
            command.to_string(),
            r"cd '/some dir' && docker cp - 'box:/a b' 'it'\''s' $'new\nline' '' '~' '$HOME' </tmp/in >/tmp/out 2>&1"
        );
    }

    #[test]
    fn neither_display_nor_debug_shows_a_secret() {
        let secret = SecretValue::new("correct horse");
        let command = Command::new("x")
            .with_env("TOKEN", secret.clone())
            .with_env("weird.name", "v")
            .with_hidden(SecretValue::new("battery"))
            .with_args(["--token=correct horse", "battery"])
            .with_stdin(Stdin::Bytes(b"staple".to_vec()));
        assert!(command.has_secret_argument());
        assert!(!Command::new("x").with_env("TOKEN", secret).with_arg("harmless").has_secret_argument());
        let (line, debug) = (command.to_string(), format!("{command:?}"));
        assert_eq!(line, "env TOKEN='<redacted>' weird.name=v x '--token=<redacted>' <redacted> # reads 6 bytes");
        assert!(!debug.contains("staple") && !debug.contains("SecretValue(\""), "{debug}");
    }

    #[test]
    fn an_error_shows_the_beginning_of_a_script_and_no_part_of_a_secret() {
        let long = format!("echo {}", "x".repeat(100));
        let secret = SecretValue::new(format!("start {}", "y".repeat(100)));
        let path = format!("/{}", "z".repeat(100));
        let args = ["one\ntwo", &long, secret.expose(), &path, "a b", "-"];
        let command = Command::new("x").with_args(args).with_env("TOKEN", secret.clone());
        let wanted = format!(
            "TOKEN='<redacted>' x 'one…' 'echo {}…' '<redacted>' {path} 'a b' - # reads 3 bytes",
            "x".repeat(55)
        );
        assert_eq!(command.with_stdin(Stdin::Bytes(b"two".into())).brief(), wanted);
    }

    #[cfg(unix)]
    #[test]
    fn invalid_utf8_is_quoted_for_the_shell() {
        use std::os::unix::ffi::OsStringExt as _;
        let command = Command::new("cat").with_arg(OsString::from_vec(b"a\xff".to_vec()));
        assert_eq!(command.to_string(), r"cat $'a\xff'");
    }
}
