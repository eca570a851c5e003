//! The things that are waited for: a command that has started in a container, and a thread.

use std::io::{self, Read, Write};
use std::panic;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bottle_engine::{Engine, EngineError, Exec};
use bottle_exec::{Captured, Child, Command, ExecError, Output, Stdin};

/// Time limit of a command, from its line to its end.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// Longest time between two looks at a cancellation while the command runs.
const TICK: Duration = Duration::from_millis(50);

/// A command that waits. Most of the time that a command in a container takes is its start.
#[derive(Debug)]
pub(crate) struct Waiting {
    container: String,
    exec: Exec,
    /// `None` for a backend that only runs commands to their end.
    child: Option<Child>,
}

impl Waiting {
    /// Starts a command, which reads one line before anything else.
    pub(crate) fn start(engine: &Engine, container: &str, exec: Exec) -> Result<Self, EngineError> {
        let child = match engine.spawn_bare(container, &exec) {
            Ok(child) => Some(child),
            Err(EngineError::Exec(ExecError::Backend { .. })) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { container: container.to_owned(), exec: exec.with_timeout(LIMIT), child })
    }

    /// Returns true if the command has ended before it got its line, as when its container was started again.
    pub(crate) fn is_over(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Sends the line, and returns what the command prints until its end.
    pub(crate) fn run(self, engine: &Engine, line: &str) -> Result<Output, EngineError> {
        let line = format!("{line}\n").into_bytes();
        match self.child {
            Some(child) => finish(engine, child, &self.container, line),
            None => engine.exec_bare(&self.container, &self.exec.with_stdin(Stdin::Bytes(line))),
        }
    }
}

fn finish(engine: &Engine, mut child: Child, container: &str, input: Vec<u8>) -> Result<Output, EngineError> {
    let command = || format!("run a part of the verification in `{container}`");
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (told, done) = mpsc::channel();
    // A command that ends early reads no more.
    let writing = thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
    for (stream, number) in [(stdout, 0), (stderr, 1)] {
        let told = told.clone();
        thread::spawn(move || told.send((number, stream.map_or(Ok(Vec::new()), read_all))));
    }
    let until = Instant::now() + LIMIT;
    let (mut printed, mut left) = ([Captured::default(), Captured::default()], 2);
    while left > 0 {
        match done.recv_timeout(TICK) {
            Ok((number, bytes)) => {
                let failed = |source| ExecError::Io { command: command(), doing: "read the output", source };
                printed[number] = bytes.map_err(failed)?.into();
                left -= 1;
            }
            Err(_) if engine.control().cancel().is_cancelled() => {
                child.kill()?;
                return Err(ExecError::Cancelled { command: command() }.into());
            }
            Err(_) if Instant::now() >= until => {
                child.kill()?;
                return Err(ExecError::TimedOut { command: command(), limit: LIMIT, stderr: String::new() }.into());
            }
            Err(_) => {}
        }
    }
    let status = child.wait()?;
    drop(writing.join());
    let [stdout, stderr] = printed;
    Ok(Output::ended(status).with_stdout(stdout).with_stderr(stderr))
}

/// Reads a stream to its end, and keeps no more of it than of a command's output.
fn read_all(mut stream: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    Read::by_ref(&mut stream).take(Command::CAPTURE_LIMIT as u64).read_to_end(&mut bytes)?;
    io::copy(&mut stream, &mut io::sink())?;
    Ok(bytes)
}

/// Returns a thread's result. A panic continues here.
pub(crate) fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
}
