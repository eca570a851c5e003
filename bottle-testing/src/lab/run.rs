//! Running programs.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A program that ended.
#[derive(Debug)]
pub struct Finished {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub duration: Duration,
}

impl Finished {
    /// Asserts that it succeeded. Returns its standard output without the last line end.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout.trim_end()
    }
}

pub fn run(command: &mut Command) -> Finished {
    let started = Instant::now();
    let output = command.stdin(Stdio::null()).output().unwrap();
    Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        duration: started.elapsed(),
    }
}

/// Runs `docker` directly, for what the library does not offer.
#[track_caller]
pub fn docker(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Finished {
    let finished = run(Command::new("docker").args(args));
    assert_eq!(finished.code, 0, "{finished:?}");
    finished
}

/// Returns the command of an example of this repository, which `cargo xtask e2e` has built.
pub fn example(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let target = tests.ancestors().nth(2).unwrap();
    Command::new(target.join("examples").join(name))
}

#[expect(clippy::disallowed_methods, reason = "how xtask tells the tests what it prepared")]
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("`{name}` is not set: run the tests by `cargo xtask e2e`"))
}
