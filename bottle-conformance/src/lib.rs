//! A conformance suite for implementations of [`Backend`].
//!
//! It needs a POSIX `sh` with the usual small tools where the backend runs commands, and takes about 20 s.
//!
//! ```no_run
//! # fn my_backend() -> impl bottle_exec::Backend { bottle_exec::RecordingBackend::new() }
//! if let Err(violations) = bottle_conformance::check(&my_backend()) {
//!     panic!("{}", violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
//! }
//! ```

use std::fmt;
use std::fs;
use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bottle_exec::{
    Backend, CancelToken, Child, ChildInput, ChildOutput, Command, Control, ExecError, ExitStatus, Output,
    OutputPolicy, SecretValue, Stdin, Stream, TerminalSize,
};

/// A rule that a backend breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: &'static str,
    /// Result that was seen instead.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.found)
    }
}

/// Tests a backend against every rule.
///
/// # Errors
///
/// Returns every rule that the backend breaks.
pub fn check(backend: &dyn Backend) -> Result<(), Vec<Violation>> {
    let broken = |(rule, test): &(&'static str, Rule)| {
        let found = test(backend).err()?;
        Some(Violation { rule, found })
    };
    let violations: Vec<Violation> = RULES.iter().filter_map(broken).collect();
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}

type Seen = Result<(), String>;
type Rule = fn(&dyn Backend) -> Seen;

const RULES: &[(&str, Rule)] = &[
    ("the status of the command is given back", status),
    ("a command that ended badly is no error of the backend", failure_is_output),
    ("a missing program is reported as such", not_found),
    ("arguments arrive as they are", arguments),
    ("variables arrive, secret ones too", variables),
    ("no COMPOSE variable is inherited", no_compose_variable),
    ("the working directory is the one asked for", working_directory),
    ("standard input is at its end unless something is to be read", null_input),
    ("bytes on standard input arrive unchanged", bytes_in),
    ("a command may leave its input unread", unread_input),
    ("a file can be standard input", file_in),
    ("both streams are told apart and are given back as bytes", bytes_out),
    ("a full standard error blocks nothing while standard output is silent", full_stderr),
    ("captured output is bounded and keeps both ends", bounded),
    ("streamed output arrives while the command runs", streamed),
    ("both streams can share one file", one_file),
    ("discarded output is not given back", discarded),
    ("a command that takes too long is stopped with what it started", timeout),
    ("a command that ignores SIGTERM is stopped as well", stubborn),
    ("a cancelled command is stopped with what it started", cancelled),
    ("nothing starts once cancelled", cancelled_before),
    ("what stays behind with the pipes open does not hold up the end", lingering),
    ("a secret in an argument is refused", secret_argument),
    ("no error shows a secret", secret_in_error),
    ("a live command reads and writes while it runs", live_echo),
    ("a live command that writes much waits for its reader, and loses nothing", live_much),
    ("the outputs of a live command are told apart, and its status is given back", live_outputs),
    ("a live command is stopped with what it started", live_kill),
    ("a dropped live command is stopped", live_drop),
    ("waiting for a live command can be cancelled", live_cancel),
    ("a live command can have a terminal, whose size can change", live_terminal),
    ("a live command with a secret in an argument is refused", live_secret),
    ("a command of the standard library has the arguments, variables and directory of the backend's own", process),
    ("a command of the standard library has no secret in an argument", process_secret),
    ("no command of the standard library is returned for a missing program", process_not_found),
];

/// Timeout that is longer than any rule needs.
const LIMIT: Duration = Duration::from_secs(20);

fn sh(script: &str) -> Command {
    Command::new("sh").with_args(["-c", script]).with_timeout(LIMIT)
}

fn run(backend: &dyn Backend, command: &Command) -> Result<Output, String> {
    backend.run(command, &Control::default()).map_err(|error| error.to_string())
}

fn expect<T: PartialEq + fmt::Debug>(what: &str, found: &T, wanted: &T) -> Seen {
    if found == wanted { Ok(()) } else { Err(format!("{what} is {found:?} instead of {wanted:?}")) }
}

fn prints(backend: &dyn Backend, command: &Command, wanted: &str) -> Seen {
    expect("standard output", &run(backend, command)?.stdout.text(), &wanted.to_owned())
}

fn status(backend: &dyn Backend) -> Seen {
    expect("`exit 7`", &run(backend, &sh("exit 7"))?.status, &ExitStatus::Code(7))?;
    expect("`exit 0`", &run(backend, &sh("exit 0"))?.status, &ExitStatus::SUCCESS)?;
    // A shell in between reports the signal as a status.
    expect("`kill -9 $$`", &run(backend, &sh("kill -9 $$"))?.status.as_shell_code(), &137)
}

fn failure_is_output(backend: &dyn Backend) -> Seen {
    let output = run(backend, &sh("echo out; echo why >&2; exit 3"))?;
    expect("standard output", &output.stdout.text(), &"out\n".to_owned())?;
    expect("standard error", &output.stderr.text(), &"why\n".to_owned())
}

fn not_found(backend: &dyn Backend) -> Seen {
    let command = Command::new("conformance-no-such-program").with_timeout(LIMIT);
    match backend.run(&command, &Control::default()) {
        Err(ExecError::NotFound { .. } | ExecError::Spawn { .. }) => Ok(()),
        // A shell in between reports this status.
        Ok(output) => expect("the status", &output.status, &ExitStatus::Code(127)),
        Err(other) => Err(other.to_string()),
    }
}

fn arguments(backend: &dyn Backend) -> Seen {
    let args = ["two words", "", "it's", "\"quoted\"", "$HOME", "*", "new\nline", "-n", "ä", "\\"];
    let command = sh(r#"printf '<%s>' "$@""#).with_arg("name").with_args(args);
    let wanted: String = args.iter().flat_map(|arg| ["<", arg, ">"]).collect();
    prints(backend, &command, &wanted)
}

fn variables(backend: &dyn Backend) -> Seen {
    let command = sh(r#"printf '%s|%s' "$PLAIN" "$TOKEN""#)
        .with_env("PLAIN", "a 'plain' $value")
        .with_env("TOKEN", SecretValue::new("hunter2 hunter2"));
    prints(backend, &command, "a 'plain' $value|hunter2 hunter2")
}

fn no_compose_variable(backend: &dyn Backend) -> Seen {
    prints(backend, &sh("env | grep -c ^COMPOSE_ || true"), "0\n")
}

fn working_directory(backend: &dyn Backend) -> Seen {
    prints(backend, &sh("pwd").with_cwd("/usr"), "/usr\n")
}

fn null_input(backend: &dyn Backend) -> Seen {
    prints(backend, &sh("cat; echo end"), "end\n")
}

fn bytes_in(backend: &dyn Backend) -> Seen {
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let command = Command::new("cat").with_timeout(LIMIT).with_stdin(Stdin::Bytes(bytes.clone()));
    let output = run(backend, &command)?;
    if output.stdout.bytes() == bytes {
        return Ok(());
    }
    Err(format!("{} of {} bytes came back, or others", output.stdout.bytes().len(), bytes.len()))
}

fn unread_input(backend: &dyn Backend) -> Seen {
    let command = sh("exit 5").with_stdin(Stdin::Bytes(vec![b'x'; 1 << 20]));
    expect("the status", &run(backend, &command)?.status, &ExitStatus::Code(5))
}

fn file_in(backend: &dyn Backend) -> Seen {
    let file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    fs::write(file.path(), "from a file").map_err(|error| error.to_string())?;
    prints(backend, &sh("cat").with_stdin(Stdin::File(file.path().to_owned())), "from a file")
}

fn bytes_out(backend: &dyn Backend) -> Seen {
    let output = run(backend, &sh(r"printf 'a\377\000b'; printf '\376' >&2"))?;
    expect("standard output", &output.stdout.bytes(), &b"a\xff\0b".to_vec())?;
    expect("standard error", &output.stderr.bytes(), &b"\xfe".to_vec())
}

fn full_stderr(backend: &dyn Backend) -> Seen {
    let output = run(backend, &sh("head -c 2000000 /dev/zero | tr '\\0' e >&2; echo done"))?;
    expect("standard output", &output.stdout.text(), &"done\n".to_owned())?;
    expect("the bytes of standard error", &output.stderr.bytes().len(), &2_000_000)
}

fn bounded(backend: &dyn Backend) -> Seen {
    let script = "printf begin; head -c 1000000 /dev/zero | tr '\\0' m; printf finis";
    let output = run(backend, &sh(script).with_stdout(OutputPolicy::Capture { limit: 4096 }))?;
    let kept = output.stdout.bytes();
    expect("the number of bytes kept and left out", &(kept.len() as u64 + output.stdout.omitted()), &1_000_010)?;
    expect("whether at most 4096 bytes are kept", &(kept.len() <= 4096), &true)?;
    expect("whether both ends are kept", &(kept.starts_with(b"begin") && kept.ends_with(b"finis")), &true)
}

/// Collects what is streamed.
#[derive(Default)]
struct Chunks(Mutex<Vec<(Stream, Vec<u8>, Instant)>>);

impl Chunks {
    fn control() -> (Arc<Self>, Control) {
        let chunks = Arc::new(Self::default());
        let sink = Arc::clone(&chunks);
        let sink = move |stream: Stream, bytes: &[u8]| {
            sink.0.lock().unwrap_or_else(PoisonError::into_inner).push((stream, bytes.to_vec(), Instant::now()));
        };
        (chunks, Control::default().with_sink(Arc::new(sink)))
    }

    fn of(&self, wanted: Stream) -> (String, Option<Instant>) {
        let chunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_stream: Vec<_> = chunks.iter().filter(|(stream, ..)| *stream == wanted).collect();
        let bytes = of_stream.iter().flat_map(|(_, bytes, _)| bytes.iter().copied()).collect::<Vec<u8>>();
        (String::from_utf8_lossy(&bytes).into_owned(), of_stream.first().map(|(.., at)| *at))
    }
}

fn streamed(backend: &dyn Backend) -> Seen {
    let (chunks, control) = Chunks::control();
    let command = sh("echo early; echo other >&2; sleep 1; echo late").with_output(OutputPolicy::Stream);
    let output = backend.run(&command, &control).map_err(|error| error.to_string())?;
    let ended = Instant::now();
    let (text, first) = chunks.of(Stream::Stdout);
    expect("what was streamed", &text, &"early\nlate\n".to_owned())?;
    expect("what was streamed of standard error", &chunks.of(Stream::Stderr).0, &"other\n".to_owned())?;
    let early = first.is_some_and(|first| ended.duration_since(first) > Duration::from_millis(500));
    expect("whether the first line came before the end", &early, &true)?;
    expect("what was kept as well", &output.stdout.text(), &text)
}

fn one_file(backend: &dyn Backend) -> Seen {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = directory.path().join("log");
    let policy = OutputPolicy::File { path: path.clone(), mode: 0o644 };
    run(backend, &sh("echo one; echo two >&2; echo three").with_output(policy))?;
    let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
    // Lines of the two streams may change places if the streams are transported separately.
    let mut lines: Vec<&str> = text.lines().filter(|line| *line != "two").collect();
    lines.extend(text.lines().find(|line| *line == "two"));
    expect("the file's lines", &lines, &vec!["one", "three", "two"])
}

fn discarded(backend: &dyn Backend) -> Seen {
    let output = run(backend, &sh("echo gone; echo seen >&2").with_stdout(OutputPolicy::Discard))?;
    expect("standard output", &output.stdout.text(), &String::new())?;
    expect("standard error", &output.stderr.text(), &"seen\n".to_owned())
}

/// Prints the number of a grandchild that would run for a minute and when it started, then waits for it.
const WITH_GRANDCHILD: &str = "sleep 61 & echo $! $(cut -d' ' -f22 /proc/$!/stat 2>/dev/null); wait";

/// Time in which a command on another host has started.
const SHORT: Duration = Duration::from_secs(2);

fn timeout(backend: &dyn Backend) -> Seen {
    let (chunks, control) = Chunks::control();
    let command = sh(WITH_GRANDCHILD).with_output(OutputPolicy::Stream).with_timeout(SHORT);
    let started = Instant::now();
    match backend.run(&command, &control) {
        Err(ExecError::TimedOut { .. }) => {}
        other => return Err(format!("it returned {other:?}")),
    }
    soon(started)?;
    is_gone(backend, &chunks.of(Stream::Stdout).0)
}

fn stubborn(backend: &dyn Backend) -> Seen {
    let (chunks, control) = Chunks::control();
    let script = "trap '' TERM; echo $$ $(cut -d' ' -f22 /proc/$$/stat 2>/dev/null); while :; do sleep 1; done";
    let command = sh(script).with_output(OutputPolicy::Stream).with_timeout(SHORT);
    let started = Instant::now();
    match backend.run(&command, &control) {
        Err(ExecError::TimedOut { .. }) => {}
        other => return Err(format!("it returned {other:?}")),
    }
    soon(started)?;
    is_gone(backend, &chunks.of(Stream::Stdout).0)
}

fn cancelled(backend: &dyn Backend) -> Seen {
    let (chunks, control) = Chunks::control();
    let token = control.cancel().clone();
    let started = Instant::now();
    let result = std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(SHORT);
            token.cancel();
        });
        backend.run(&sh(WITH_GRANDCHILD).with_output(OutputPolicy::Stream), &control)
    });
    match result {
        Err(ExecError::Cancelled { .. }) => {}
        other => return Err(format!("it returned {other:?}")),
    }
    soon(started)?;
    is_gone(backend, &chunks.of(Stream::Stdout).0)
}

fn cancelled_before(backend: &dyn Backend) -> Seen {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let trace = directory.path().join("trace");
    let token = CancelToken::new();
    token.cancel();
    let command = sh(r#"echo ran >"$1""#).with_arg("name").with_arg(&trace);
    match backend.run(&command, &Control::cancelled_by(token)) {
        Err(ExecError::Cancelled { .. }) => expect("whether it ran", &trace.exists(), &false),
        other => Err(format!("it returned {other:?}")),
    }
}

fn lingering(backend: &dyn Backend) -> Seen {
    let started = Instant::now();
    let output = run(backend, &sh("sleep 61 & echo $!; exit 4"))?;
    expect("the status", &output.status, &ExitStatus::Code(4))?;
    soon(started)
}

fn secret_argument(backend: &dyn Backend) -> Seen {
    let secret = "conformance-secret";
    let command = sh("true").with_arg(secret).with_env("TOKEN", SecretValue::new(secret));
    match backend.run(&command, &Control::default()) {
        Err(ExecError::SecretInArguments { .. }) => Ok(()),
        Err(other) => Err(format!("it was refused for another reason, {}", command.scrub(&other.to_string()))),
        Ok(_) => Err("it was run".to_owned()),
    }
}

fn secret_in_error(backend: &dyn Backend) -> Seen {
    let secret = "conformance-secret";
    let slow = sh("echo $TOKEN; echo $TOKEN >&2; sleep 61").with_timeout(SHORT);
    let missing = Command::new("conformance-no-such-program").with_timeout(LIMIT);
    for command in [slow, missing] {
        let command = command.with_env("TOKEN", SecretValue::new(secret));
        let result = backend.run(&command, &Control::default()).and_then(|output| output.success(&command));
        let Err(error) = result else { return Err("there was no error".to_owned()) };
        if format!("{error} {error:?}").contains(secret) {
            return Err("an error shows it".to_owned());
        }
    }
    Ok(())
}

fn soon(started: Instant) -> Seen {
    let took = started.elapsed();
    if took < Duration::from_secs(10) { Ok(()) } else { Err(format!("it took {took:?}")) }
}

/// Returns `Ok` if the process that a script named has ended, as seen from where the script ran. A zombie counts as
/// ended. The pid may belong to another process by now, or from the start if each command has its own pid namespace.
fn is_gone(backend: &dyn Backend, named: &str) -> Seen {
    let (pid, start) = named.trim().split_once(' ').unwrap_or((named.trim(), ""));
    if pid.is_empty() || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("the command was stopped before it had named its process: {pid:?}"));
    }
    let script = r#"[ -z "$2" ] || [ "$(cut -d' ' -f22 "/proc/$1/stat" 2>/dev/null)" = "$2" ] || exit 0
    for i in 1 2 3 4 5 6 7 8 9 10; do
        kill -0 "$1" 2>/dev/null || exit 0
        case "$(ps -o stat= -p "$1" 2>/dev/null || cut -d" " -f3 "/proc/$1/stat" 2>/dev/null)" in Z*) exit 0;; esac
        sleep 0.2
    done; exit 1"#;
    let output = run(backend, &sh(script).with_args(["name", pid, start]))?;
    if output.status.is_success() { Ok(()) } else { Err(format!("process {pid} still runs")) }
}

fn live(backend: &dyn Backend, command: &Command) -> Result<Child, String> {
    backend.spawn(command, &Control::default()).map_err(|error| error.to_string())
}

fn input(child: &mut Child) -> Result<ChildInput, String> {
    child.stdin.take().ok_or_else(|| "no standard input".to_owned())
}

fn output(child: &mut Child) -> Result<ChildOutput, String> {
    child.stdout.take().ok_or_else(|| "no standard output".to_owned())
}

fn rest(mut stream: ChildOutput) -> Result<String, String> {
    let mut text = String::new();
    stream.read_to_string(&mut text).map(|_| text).map_err(|error| error.to_string())
}

fn wait(child: &mut Child) -> Result<ExitStatus, String> {
    child.wait().map_err(|error| error.to_string())
}

fn live_echo(backend: &dyn Backend) -> Seen {
    let mut child = live(backend, &sh("cat; exit 3"))?;
    let (mut stdin, mut stdout) = (input(&mut child)?, output(&mut child)?);
    for word in [b"one", b"two"] {
        stdin.write_all(word).map_err(|error| error.to_string())?;
        let mut back = [0; 3];
        stdout.read_exact(&mut back).map_err(|error| error.to_string())?;
        expect("the answer", &back, word)?;
    }
    expect("the status while it runs", &child.try_wait().map_err(|error| error.to_string())?, &None)?;
    drop(stdin);
    expect("what is left", &rest(stdout)?, &String::new())?;
    expect("the status", &wait(&mut child)?, &ExitStatus::Code(3))?;
    expect("the status again", &child.try_wait().map_err(|error| error.to_string())?, &Some(ExitStatus::Code(3)))
}

fn live_much(backend: &dyn Backend) -> Seen {
    let bytes: Vec<u8> = (0..=255).cycle().take(8 << 20).collect();
    let mut child = live(backend, &Command::new("cat"))?;
    let (mut stdin, mut stdout) = (input(&mut child)?, output(&mut child)?);
    let back = thread::scope(|scope| {
        scope.spawn(|| {
            let written = stdin.write_all(&bytes);
            drop(stdin);
            written
        });
        // Nothing is read for a while, so all pipes are full.
        thread::sleep(Duration::from_millis(300));
        let mut back = Vec::new();
        stdout.read_to_end(&mut back).map(|_| back)
    });
    let back = back.map_err(|error| error.to_string())?;
    expect("whether the bytes came back unchanged", &(back == bytes), &true)?;
    expect("the status", &wait(&mut child)?, &ExitStatus::SUCCESS)
}

fn live_outputs(backend: &dyn Backend) -> Seen {
    let mut child = live(backend, &sh("echo out; echo why >&2; exit 7"))?;
    let stderr = child.stderr.take().ok_or("no standard error")?;
    expect("standard output", &rest(output(&mut child)?)?, &"out\n".to_owned())?;
    expect("standard error", &rest(stderr)?, &"why\n".to_owned())?;
    expect("the status", &wait(&mut child)?, &ExitStatus::Code(7))
}

/// Starts a command that ignores SIGTERM and has a child, and calls `end` when both run. Both must then end: the output has
/// an end only when nobody holds it.
fn live_until(backend: &dyn Backend, end: impl FnOnce(Child) -> Seen) -> Seen {
    let mut child = live(backend, &sh("trap '' TERM; sh -c 'sleep 30; :' & echo ready; wait; sleep 30"))?;
    let mut stdout = output(&mut child)?;
    let mut ready = [0; 6];
    stdout.read_exact(&mut ready).map_err(|error| error.to_string())?;
    let started = Instant::now();
    end(child)?;
    expect("what is left", &rest(stdout)?, &String::new())?;
    expect("whether both ended within 5 s", &(started.elapsed() < Duration::from_secs(5)), &true)
}

fn live_kill(backend: &dyn Backend) -> Seen {
    live_until(backend, |mut child| {
        child.kill().map_err(|error| error.to_string())?;
        expect("whether it succeeded", &wait(&mut child)?.is_success(), &false)
    })
}

fn live_drop(backend: &dyn Backend) -> Seen {
    live_until(backend, |child| {
        drop(child);
        Ok(())
    })
}

fn live_cancel(backend: &dyn Backend) -> Seen {
    let control = Control::default();
    let token = control.cancel().clone();
    let mut child = backend.spawn(&sh("sleep 30"), &control).map_err(|error| error.to_string())?;
    let canceller = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        token.cancel();
    });
    let (started, result) = (Instant::now(), child.wait());
    canceller.join().map_err(|_| "a panic")?;
    expect("whether it was cancelled", &result.is_err_and(|error| error.is_cancelled()), &true)?;
    expect("whether it ended within 5 s", &(started.elapsed() < Duration::from_secs(5)), &true)?;
    expect("whether nothing starts once cancelled", &backend.spawn(&sh(":"), &control).is_err(), &true)
}

fn live_terminal(backend: &dyn Backend) -> Seen {
    let size = |rows, columns| TerminalSize { rows, columns };
    let script = "test -t 0 && test -t 1 && stty size; read -r _; stty size";
    let mut child = live(backend, &sh(script).with_terminal(size(30, 100)))?;
    let (mut stdin, mut stdout) = (input(&mut child)?, output(&mut child)?);
    let mut said = String::new();
    while !said.contains('\n') {
        let mut bytes = [0; 256];
        let count = stdout.read(&mut bytes).map_err(|error| error.to_string())?;
        said.push_str(&String::from_utf8_lossy(&bytes[..count]));
        if count == 0 {
            break;
        }
    }
    expect("the size", &said.trim(), &"30 100")?;
    child.resize(size(40, 120)).map_err(|error| error.to_string())?;
    // Where the terminal is at the other end of a connection, the size needs its time.
    thread::sleep(Duration::from_millis(300));
    stdin.write_all(b"\n").map_err(|error| error.to_string())?;
    expect("the size afterwards", &rest(stdout)?.trim(), &"40 120")?;
    let mut plain = live(backend, &sh(":"))?;
    expect("whether a command without a terminal can be resized", &plain.resize(size(1, 1)).is_ok(), &false)
}

fn live_secret(backend: &dyn Backend) -> Seen {
    let command = sh("sleep 1").with_hidden(SecretValue::new("hunter2 hunter2")).with_arg("hunter2 hunter2");
    match backend.spawn(&command, &Control::default()) {
        Err(ExecError::SecretInArguments { .. }) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// Returns the command of the standard library. `None` if the backend runs nothing on this host.
fn process_of(backend: &dyn Backend, command: &Command) -> Result<Option<std::process::Command>, ExecError> {
    match backend.process(command) {
        Err(ExecError::Backend { .. }) => Ok(None),
        other => other.map(Some),
    }
}

fn process(backend: &dyn Backend) -> Seen {
    // The streams and the timeout are not used.
    let script = r#"printf '<%s>' "$1" "$2" "$(pwd)" "$TOKEN" "$(env | grep -c ^COMPOSE_)"; cat; echo why >&2; exit 3"#;
    let command = Command::new("sh").with_args(["-c", script, "name", "two words", ""]).with_cwd("/usr");
    let command = command.with_env("TOKEN", SecretValue::new("hunter2 hunter2"));
    let command = command.with_timeout(Duration::ZERO).with_output(OutputPolicy::Discard);
    let Some(mut process) = process_of(backend, &command).map_err(|error| error.to_string())? else { return Ok(()) };
    let shows = process.get_args().any(|word| word.to_string_lossy().contains("hunter2"));
    expect("whether its arguments show a secret", &shows, &false)?;
    let streams = process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = streams.spawn().map_err(|error| error.to_string())?;
    let mut stdin = child.stdin.take().ok_or("no standard input")?;
    stdin.write_all(b"input").map_err(|error| error.to_string())?;
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let wanted = "<two words><></usr><hunter2 hunter2><0>input";
    expect("standard output", &text(&output.stdout), &wanted.to_owned())?;
    expect("standard error", &text(&output.stderr), &"why\n".to_owned())?;
    expect("the status", &output.status.code(), &Some(3))
}

fn process_secret(backend: &dyn Backend) -> Seen {
    let command = sh(":").with_hidden(SecretValue::new("hunter2 hunter2")).with_arg("hunter2 hunter2");
    match process_of(backend, &command) {
        Ok(None) | Err(ExecError::SecretInArguments { .. }) => Ok(()),
        Ok(Some(_)) => Err("it was returned".to_owned()),
        Err(other) => Err(format!("it was refused for another reason, {}", command.scrub(&other.to_string()))),
    }
}

fn process_not_found(backend: &dyn Backend) -> Seen {
    let command = Command::new("conformance-no-such-program");
    match process_of(backend, &command) {
        Ok(None) | Err(ExecError::NotFound { .. }) => Ok(()),
        // A wrapper, which reports the missing program as a shell does.
        Ok(Some(mut process)) => {
            let status = process.stdout(Stdio::null()).stderr(Stdio::null()).status();
            expect("the status", &status.map_err(|error| error.to_string())?.code(), &Some(127))
        }
        Err(other) => Err(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bottle_exec::Logging;
    use bottle_exec::RecordingBackend;
    use bottle_exec::Subprocess;
    use bottle_exec::{Event, Observed};

    fn subprocess() -> Subprocess {
        let host = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("COMPOSE_FILE", "evil.yml")];
        Subprocess::new(host.map(|(name, value)| (name.into(), value.into()))).with_grace(Duration::from_millis(300))
    }

    fn assert_conforms(backend: &dyn Backend) {
        if let Err(violations) = check(backend) {
            panic!("{}", violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        }
    }

    #[test]
    fn processes_of_this_host_conform() {
        assert_conforms(&subprocess());
    }

    #[test]
    fn every_decorator_conforms() {
        let observed = Observed::new(Logging::new(subprocess()), Arc::new(|_: &Event| {}));
        assert_conforms(&observed);
    }

    /// Runs every command in another program, like a backend for another host.
    #[derive(Debug)]
    struct Wrapping(Subprocess);

    impl Backend for Wrapping {
        fn run(&self, command: &Command, control: &Control) -> Result<Output, ExecError> {
            self.0.run(&command.clone().wrapped_in("env", ["WRAPPED=yes"]), control)
        }

        fn spawn(&self, command: &Command, control: &Control) -> Result<Child, ExecError> {
            self.0.spawn(&command.clone().wrapped_in("env", ["WRAPPED=yes"]), control)
        }

        fn process(&self, command: &Command) -> Result<std::process::Command, ExecError> {
            self.0.process(&command.clone().wrapped_in("env", ["WRAPPED=yes"]))
        }
    }

    #[test]
    fn a_backend_that_wraps_every_command_can_conform() {
        let backend = Wrapping(subprocess());
        assert_conforms(&backend);
        assert_eq!(run(&backend, &sh("echo $WRAPPED")).unwrap().stdout.text(), "yes\n");
    }

    /// Proves that the suite can fail.
    #[test]
    fn a_backend_that_runs_nothing_keeps_only_the_rules_about_refusals() {
        let violations = check(&RecordingBackend::new()).unwrap_err();
        let mut kept: Vec<_> =
            RULES.iter().map(|(rule, _)| *rule).filter(|rule| violations.iter().all(|it| it.rule != *rule)).collect();
        // It has no process of this host.
        kept.retain(|rule| !rule.contains("of the standard library"));
        let refusals = ["nothing starts once cancelled", "a secret in an argument is refused"];
        assert_eq!(kept, [&refusals[..], &["a live command with a secret in an argument is refused"]].concat());
    }

    /// Hands out commands that have nothing but their words.
    #[derive(Debug)]
    struct Careless;

    impl Backend for Careless {
        fn run(&self, command: &Command, _: &Control) -> Result<Output, ExecError> {
            Err(ExecError::Cancelled { command: command.brief() })
        }

        fn process(&self, command: &Command) -> Result<std::process::Command, ExecError> {
            let mut process = std::process::Command::new(command.program());
            process.args(command.args());
            Ok(process)
        }
    }

    #[test]
    fn a_careless_command_of_the_standard_library_is_found() {
        for rule in [process, process_secret, process_not_found] {
            assert!(rule(&Careless).is_err());
        }
    }
}
