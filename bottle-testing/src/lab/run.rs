//! Running programs.

use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;
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

/// Suspends the program of a seal or an outlet, which would close its namespace and end when its rules are changed.
#[track_caller]
pub fn suspend(owner: &str) {
    docker(["kill", "--signal", "STOP", owner]);
}

/// Runs nft in the container of a seal or an outlet, whose program is suspended first.
#[track_caller]
pub fn nft(owner: &str, arguments: &[&str]) {
    suspend(owner);
    docker(["exec", owner, "/usr/sbin/nft"].iter().chain(arguments));
}

/// Returns the command of an example of this repository, which `cargo xtask e2e` has built.
pub fn example(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let target = tests.ancestors().nth(2).unwrap();
    Command::new(target.join("examples").join(name))
}

/// Records something that a test measured. `cargo xtask e2e` prints it at the end, also for a test that passed.
#[expect(clippy::disallowed_methods, reason = "how xtask tells the tests where it reads the figures")]
#[expect(clippy::print_stdout, reason = "figures are for a person to read")]
pub fn figure(text: impl Display) {
    let thread = thread::current();
    let line = format!("figure: {}: {text}\n", thread.name().unwrap_or("main"));
    print!("{line}");
    if let Some(path) = std::env::var_os("BOTTLE_E2E_FIGURES") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "how xtask tells the tests what it prepared")]
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("`{name}` is not set: run the tests by `cargo xtask e2e`"))
}
