//! A backend that runs nothing, for rehearsals and for tests of code that launches bottles without an engine.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::backend::Backend;
use crate::child::{Child, ChildInput, ChildOutput, ChildProcess, TerminalSize};
use crate::command::{Command, OutputPolicy};
use crate::control::Control;
use crate::error::ExecError;
use crate::output::Output;
use crate::sink::Stream;
use crate::status::ExitStatus;

/// Records every command and returns scripted answers.
///
/// The first answer whose matcher fits is returned. Default: success with no output.
///
/// ```
/// use bottle_exec::{Answer, Backend, Command, Control, Fault, Matcher, RecordingBackend};
/// let backend = RecordingBackend::new()
///     .with_answer(Matcher::words(["version"]), Answer::stdout("27.0\n"))
///     .with_fault(2, Fault::Exit(125));
/// let version = backend.run(&Command::new("docker").with_arg("version"), &Control::default())?;
/// assert_eq!(version.stdout.text(), "27.0\n");
/// let second = backend.run(&Command::new("docker").with_arg("version"), &Control::default())?;
/// assert!(!second.status.is_success());
/// assert_eq!(backend.lines(), ["docker version", "docker version"]);
/// # Ok::<(), bottle_exec::ExecError>(())
/// ```
#[derive(Debug, Default)]
pub struct RecordingBackend {
    answers: Vec<(Matcher, Answer)>,
    default: Answer,
    faults: Vec<(usize, Fault)>,
    recorded: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    commands: Vec<Command>,
    /// Indices of the one-time answers that were used.
    spent: Vec<usize>,
}

impl RecordingBackend {
    /// Returns a backend on which every command succeeds and prints nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an answer after the existing ones.
    #[must_use]
    pub fn with_answer(mut self, matcher: Matcher, answer: Answer) -> Self {
        self.answers.push((matcher, answer));
        self
    }

    /// Sets the answer for commands that no matcher fits.
    #[must_use]
    pub fn with_default(mut self, answer: Answer) -> Self {
        self.default = answer;
        self
    }

    /// Makes the `call`th command fail, counted from 1, whatever the command is.
    #[must_use]
    pub fn with_fault(mut self, call: usize, fault: Fault) -> Self {
        self.faults.push((call, fault));
        self
    }

    /// Returns every command recorded so far.
    pub fn commands(&self) -> Vec<Command> {
        self.recorded().commands.clone()
    }

    /// Returns every command recorded so far as a shell line, redacted.
    pub fn lines(&self) -> Vec<String> {
        self.recorded().commands.iter().map(ToString::to_string).collect()
    }

    /// Removes the recorded commands and restarts the count for faults.
    pub fn clear(&self) {
        *self.recorded() = Recorded::default();
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, command: &Command) -> Result<Answer, &Fault> {
        let mut recorded = self.recorded();
        recorded.commands.push(command.clone());
        let call = recorded.commands.len();
        if let Some((_, fault)) = self.faults.iter().find(|(at, _)| *at == call) {
            return Err(fault);
        }
        let fitting = self.answers.iter().enumerate().find(|(place, (matcher, answer))| {
            matcher.fits(command) && !(answer.once && recorded.spent.contains(place))
        });
        let Some((place, (_, answer))) = fitting else { return Ok(self.default.clone()) };
        if answer.once {
            recorded.spent.push(place);
        }
        Ok(answer.clone())
    }
}

impl RecordingBackend {
    fn answered(&self, command: &Command, control: &Control) -> Result<Result<Answer, Output>, ExecError> {
        let line = || command.brief();
        if control.cancel().is_cancelled() {
            return Err(ExecError::Cancelled { command: line() });
        }
        if command.has_secret_argument() {
            return Err(ExecError::SecretInArguments { command: line() });
        }
        match self.answer(command) {
            Ok(answer) => Ok(Ok(answer)),
            Err(fault) => fault.happen(command, control).map(Err),
        }
    }
}

impl Backend for RecordingBackend {
    fn run(&self, command: &Command, control: &Control) -> Result<Output, ExecError> {
        let Answer { status, stdout, stderr, .. } = match self.answered(command, control)? {
            Ok(answer) => answer,
            Err(output) => return Ok(output),
        };
        if let Some(sink) = control.sink() {
            for (policy, stream, bytes) in
                [(command.stdout(), Stream::Stdout, &stdout), (command.stderr(), Stream::Stderr, &stderr)]
            {
                if *policy == OutputPolicy::Stream && !bytes.is_empty() {
                    sink.write(stream, bytes);
                }
            }
        }
        Ok(Output::ended(status).with_stdout(stdout).with_stderr(stderr))
    }

    /// Returns a child that has printed the answer and ended. It reads no input.
    fn spawn(&self, command: &Command, control: &Control) -> Result<Child, ExecError> {
        let (status, stdout, stderr) = match self.answered(command, control)? {
            Ok(answer) => (answer.status, answer.stdout, answer.stderr),
            Err(output) => (output.status, output.stdout.bytes(), output.stderr.bytes()),
        };
        let failed = |source| ExecError::Spawn { command: command.brief(), source };
        let (_, input) = io::pipe().map_err(failed)?;
        let printed = |bytes: Vec<u8>| {
            let (reader, mut writer) = io::pipe().map_err(failed)?;
            // A caller that does not read it all leaves the thread with a broken pipe.
            std::thread::spawn(move || writer.write_all(&bytes));
            Ok(ChildOutput::from(OwnedFd::from(reader)))
        };
        let input = ChildInput::from(OwnedFd::from(input));
        Ok(Child::new(Some(input), Some(printed(stdout)?), Some(printed(stderr)?), Box::new(Ended(status))))
    }
}

/// A process that has ended.
#[derive(Debug)]
struct Ended(ExitStatus);

impl ChildProcess for Ended {
    fn wait(&mut self) -> Result<ExitStatus, ExecError> {
        Ok(self.0)
    }

    fn try_wait(&mut self) -> Result<Option<ExitStatus>, ExecError> {
        Ok(Some(self.0))
    }

    fn kill(&mut self) -> Result<(), ExecError> {
        Ok(())
    }

    fn resize(&mut self, _: TerminalSize) -> Result<(), ExecError> {
        Ok(())
    }
}

type Fits = Box<dyn Fn(&Command) -> bool + Send + Sync>;

/// Selects the commands that an answer is for.
pub struct Matcher(Fits);

impl Matcher {
    /// Matches the commands for which a function returns true.
    pub fn when(fits: impl Fn(&Command) -> bool + Send + Sync + 'static) -> Self {
        Self(Box::new(fits))
    }

    /// Matches the commands whose arguments start with these words.
    pub fn prefix(words: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
        Self::when(move |command| command.args().starts_with(&words))
    }

    /// Matches the commands whose arguments contain these words in this order, possibly with others between them.
    pub fn words(words: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
        Self::when(move |command| {
            let mut args = command.args().iter();
            words.iter().all(|word| args.any(|arg| arg == word))
        })
    }

    fn fits(&self, command: &Command) -> bool {
        (self.0)(command)
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Matcher")
    }
}

/// The answer to a command. Default: success with no output.
#[derive(Debug, Clone)]
pub struct Answer {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    once: bool,
}

impl Default for Answer {
    fn default() -> Self {
        Self::exit(0)
    }
}

impl Answer {
    /// Returns success with this text on standard output.
    pub fn stdout(text: impl Into<Vec<u8>>) -> Self {
        Self { stdout: text.into(), ..Self::exit(0) }
    }

    /// Returns an answer with this exit status and no output.
    pub const fn exit(code: i32) -> Self {
        Self { status: ExitStatus::Code(code), stdout: Vec::new(), stderr: Vec::new(), once: false }
    }

    /// Sets the text on standard error.
    #[must_use]
    pub fn with_stderr(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.stderr = text.into();
        self
    }

    /// Limits the answer to the first matching command. Later commands get the next answer that fits.
    #[must_use]
    pub const fn once(mut self) -> Self {
        self.once = true;
        self
    }
}

/// A failure of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The command ends with this status.
    Exit(i32),
    /// The command is ended by this signal.
    Signal(i32),
    /// The program does not exist.
    NotFound,
    /// The command cannot be started.
    Spawn,
    /// The command times out.
    TimedOut,
    /// The caller's token is cancelled while the command runs.
    Cancelled,
}

impl Fault {
    fn happen(self, command: &Command, control: &Control) -> Result<Output, ExecError> {
        let line = command.brief();
        match self {
            Self::Exit(code) => Ok(Output::ended(ExitStatus::Code(code)).with_stderr(b"injected fault\n".to_vec())),
            Self::Signal(signal) => Ok(Output::ended(ExitStatus::Signal(signal))),
            Self::NotFound => {
                let program = command.program().to_string_lossy().into_owned();
                Err(ExecError::NotFound { program, command: line })
            }
            Self::Spawn => Err(ExecError::Spawn { command: line, source: io::Error::other("injected fault") }),
            Self::TimedOut => {
                let limit = command.timeout().unwrap_or(Duration::from_secs(1));
                Err(ExecError::TimedOut { command: line, limit, stderr: String::new() })
            }
            Self::Cancelled => {
                control.cancel().cancel();
                Err(ExecError::Cancelled { command: line })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_by_the_first_matcher_that_fits() {
        let backend = RecordingBackend::new()
            .with_answer(Matcher::prefix(["a", "b"]), Answer::stdout("once").once())
            .with_answer(Matcher::words(["a", "c"]), Answer::stdout("words"))
            .with_default(Answer::exit(3));
        let run = |args: &[&str]| {
            let output = backend.run(&Command::new("x").with_args(args), &Control::default()).unwrap();
            (output.status, output.stdout.text())
        };
        assert_eq!(run(&["a", "b", "c"]), (ExitStatus::SUCCESS, "once".into()));
        assert_eq!(run(&["a", "b", "c"]), (ExitStatus::SUCCESS, "words".into()));
        assert_eq!(run(&["c", "a"]), (ExitStatus::Code(3), String::new()));
        assert_eq!(backend.lines(), ["x a b c", "x a b c", "x c a"]);
    }

    #[test]
    fn a_cancellation_during_a_call_stops_the_ones_after_it() {
        let backend = RecordingBackend::new().with_fault(2, Fault::Cancelled);
        let control = Control::default();
        let run = || backend.run(&Command::new("x"), &control);
        assert!(run().is_ok());
        assert!(run().is_err_and(|error| error.is_cancelled()));
        assert!(run().is_err_and(|error| error.is_cancelled()));
        assert_eq!(backend.commands().len(), 2);
    }
}
