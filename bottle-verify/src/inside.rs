//! The attacks from inside the agent's container, as the agent's user.

use std::io::{self, Read, Write as _};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bottle_compose::sidecar::PROBED_HOST;
use bottle_engine::{Engine, EngineError, Exec, LiveExec};
use bottle_exec::{Captured, Command, ExecError, Output, PlainText, Stdin};

use crate::expected::Expected;
use crate::report::{Probe, Verify, VerifyError};
use crate::secrets::holds_secret;

/// Path of the program in the seal's image.
const PROGRAM: &str = "/probe";

/// An outside address that no host has (RFC 5737).
const OUTSIDE: &str = "198.51.100.1";

/// Line between the program's output and what the agent can read of its processes.
const PROCESSES: &str = "\n--- processes ---\n";

/// Writes the program from standard input, runs it, removes it, and prints what it can read of every process. An agent may
/// have closed its own home directory.
const SCRIPT: &str = "test -w ~ && test -x ~ || chmod u+rwx ~; cd && set -C && umask 077 && p=./.bottle-probe.$$ && cat >$p && chmod 500 $p && $p \"$@\"; rm -f $p\n\
    printf '\\n--- processes ---\\n'; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null; :";

/// One attack: the protection, and the program's argument.
pub type Attack = (&'static str, String);

/// Time limit of the attacks.
const LIMIT: Duration = Duration::from_secs(120);

/// Longest time between two looks at a cancellation while the attacks run.
const TICK: Duration = Duration::from_millis(50);

/// Attacks whose shell has started in the agent's container and waits for the program. Most of the time that a command in a
/// container takes is its start.
#[derive(Debug)]
pub(crate) struct Waiting {
    attacks: Vec<Attack>,
    exec: Exec,
    /// `None` for a backend that only runs commands to their end.
    shell: Option<LiveExec>,
    program: Vec<u8>,
}

impl Waiting {
    /// Starts the shell, and meanwhile takes the program from the seal's container.
    pub(crate) fn start(engine: &Engine, expected: &Expected, level: Verify) -> Result<Self, VerifyError> {
        let attacks = attacks(expected, level);
        let arguments = attacks.iter().map(|(_, argument)| argument.as_str());
        let argv = ["sh", "-c", SCRIPT, "sh"].into_iter().chain(arguments);
        let exec = Exec::new(argv).with_user(&expected.user).with_workdir("/").with_timeout(LIMIT);
        let shell = match engine.spawn(&expected.agent, &exec, None) {
            Ok(shell) => Some(shell),
            Err(EngineError::Exec(ExecError::Backend { .. })) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { attacks, exec, shell, program: program(engine, expected)? })
    }

    /// Returns true if the shell has ended before it got the program, as when its container was started again.
    pub(crate) fn is_over(&mut self) -> bool {
        self.shell.as_mut().is_some_and(|shell| !matches!(shell.try_wait(), Ok(None)))
    }

    /// Sends the program, and returns the results of the attacks.
    pub(crate) fn attack(
        self,
        engine: &Engine,
        expected: &Expected,
        secrets: &[&str],
    ) -> Result<Vec<Probe>, VerifyError> {
        let output = match self.shell {
            Some(shell) => finish(engine, shell, self.program)?,
            None => engine.exec(&expected.agent, &self.exec.with_stdin(Stdin::Bytes(self.program)))?,
        };
        let printed = output.stdout.bytes();
        let end = find(&printed, PROCESSES.as_bytes());
        let (lines, processes) = printed.split_at(end.unwrap_or(printed.len()));
        let mut probes = read_attacks(&self.attacks, &String::from_utf8_lossy(lines), &output.stderr.last_lines(2));
        if expected.is_gvisor {
            let detail = "gVisor answers every system call with a kernel of its own";
            probes.push(Probe::not_run("system call filter", detail));
        }
        probes.push(environment(processes, secrets));
        Ok(probes)
    }
}

/// Writes the input of a command, closes it, and returns what the command prints until its end.
fn finish(engine: &Engine, mut shell: LiveExec, input: Vec<u8>) -> Result<Output, EngineError> {
    let command = || "run the attacks in the agent's container".to_owned();
    let (stdin, stdout, stderr) = (shell.stdin.take(), shell.stdout.take(), shell.stderr.take());
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
                shell.kill()?;
                return Err(ExecError::Cancelled { command: command() }.into());
            }
            Err(_) if Instant::now() >= until => {
                shell.kill()?;
                return Err(ExecError::TimedOut { command: command(), limit: LIMIT, stderr: String::new() }.into());
            }
            Err(_) => {}
        }
    }
    let status = shell.wait()?;
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

/// Returns the attacks of a level.
fn attacks(expected: &Expected, level: Verify) -> Vec<Attack> {
    let mut attacks = vec![
        ("processes", "process".to_owned()),
        ("raw sockets", "raw".to_owned()),
        ("IPv6", "ipv6".to_owned()),
        ("engine's socket", "sockets".to_owned()),
        ("outside host, TCP", format!("tcp:{OUTSIDE}:443")),
        ("outside host, UDP", format!("udp:{OUTSIDE}:53")),
        ("name resolution", format!("names:{PROBED_HOST}")),
    ];
    if !expected.is_gvisor {
        attacks.insert(1, ("system call filter", "seccomp".to_owned()));
    }
    let ports = expected.ports();
    for host in expected.hosts() {
        attacks.push(("sidecars, UDP", format!("udp:{host}:53")));
        let closed = [22, 80, 443, 3128, 8080, 8888, 9090].into_iter().filter(|port| !ports.contains(port));
        attacks.extend(closed.map(|port| ("sidecars, closed ports", format!("tcp:{host}:{port}"))));
        if level == Verify::Full {
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            attacks.push(("sidecars, every port", format!("scan:{host}:{}", ports.join(","))));
        }
    }
    // Without them, what is refused above may be a container that does not answer at all.
    attacks.extend(expected.open.iter().map(|(host, port)| ("sidecars, open ports", format!("open:{host}:{port}"))));
    if let Some((host, port)) = &expected.proxy {
        attacks.push(("proxy", format!("proxy:{host}:{port}:{PROBED_HOST}")));
    }
    attacks
}

/// Reads the program's output: one line for each attack, which is a protection and the program's argument. The attacks on one
/// protection become one probe. An attack that does not report counts as failed. The agent may have written the lines.
pub fn read_attacks(attacks: &[Attack], printed: &str, stderr: &str) -> Vec<Probe> {
    let [printed, stderr] = [printed, stderr].map(|text| PlainText::of(text.as_bytes()));
    let mut lines = printed.lines();
    let mut probes: Vec<(&'static str, Vec<String>, Vec<String>)> = Vec::new();
    for (protection, argument) in attacks {
        let index = probes.iter().position(|(known, ..)| known == protection).unwrap_or_else(|| {
            probes.push((*protection, Vec::new(), Vec::new()));
            probes.len() - 1
        });
        let (_, held, failed) = &mut probes[index];
        match lines.next().and_then(|line| line.split_once(' ')) {
            Some(("held", detail)) => held.push(detail.to_owned()),
            Some(("failed", detail)) => failed.push(detail.to_owned()),
            _ => failed.push(format!("the attack `{argument}` did not report: {stderr}")),
        }
    }
    let shown = |held: &[String]| match held {
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first}; and {} more", rest.len()),
        [] => String::new(),
    };
    probes.iter().map(|(protection, held, failed)| Probe::of(protection, failed, shown(held))).collect()
}

/// Searches the environments and command lines that the agent's user can read.
fn environment(processes: &[u8], secrets: &[&str]) -> Probe {
    const PROTECTION: &str = "environment";
    let read = processes.len().saturating_sub(PROCESSES.len());
    if read == 0 {
        return Probe::failed(PROTECTION, "the agent's own processes could not be read");
    }
    if secrets.is_empty() {
        return Probe::not_run(PROTECTION, "no secret is known to search for");
    }
    if holds_secret(processes, secrets) {
        return Probe::failed(PROTECTION, "a secret is in the environment or on the command line of a process");
    }
    Probe::held(PROTECTION, format!("no secret in {read} bytes of environments and command lines"))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Takes the program from the seal's container.
fn program(engine: &Engine, expected: &Expected) -> Result<Vec<u8>, VerifyError> {
    let packed = engine.cp_out_small(&expected.seal, PROGRAM)?;
    let unpack = || -> io::Result<Vec<u8>> {
        let mut archive = tar::Archive::new(&*packed);
        let mut entry = archive.entries()?.next().ok_or(io::ErrorKind::NotFound)??;
        let mut program = Vec::new();
        entry.read_to_end(&mut program)?;
        Ok(program)
    };
    unpack().map_err(VerifyError::Program)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use bottle_engine::{EngineChoice, rehearsal};
    use bottle_exec::{Answer, Backend, Child, Control, Matcher, RecordingBackend, Subprocess};

    use super::*;
    use crate::expected::tests::expected;
    use crate::report::Outcome;

    /// Returns what `docker cp` prints of this program.
    fn packed(program: &str) -> Answer {
        let mut header = tar::Header::new_gnu();
        header.set_size(program.len() as u64);
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_data(&mut header, "probe", program.as_bytes()).unwrap();
        Answer::stdout(tar.into_inner().unwrap())
    }

    fn engine(backend: impl Backend + 'static) -> Engine {
        let engine = Engine::detect(Arc::new(rehearsal()), &EngineChoice::Auto, Control::default()).unwrap();
        engine.with_backend(Arc::new(backend))
    }

    /// Engine whose commands in a container are run by a shell of this host.
    #[derive(Debug)]
    struct HostShell(RecordingBackend, Subprocess);

    impl HostShell {
        fn new(home: &Path, program: &str) -> Self {
            let variables = [("PATH".into(), "/usr/bin:/bin".into()), ("HOME".into(), home.into())];
            Self(RecordingBackend::new().with_default(packed(program)), Subprocess::new(variables))
        }
    }

    impl Backend for HostShell {
        fn run(&self, command: &Command, control: &Control) -> Result<Output, ExecError> {
            self.0.run(command, control)
        }

        fn spawn(&self, command: &Command, control: &Control) -> Result<Child, ExecError> {
            let words: Vec<_> = command.args().iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
            let script = words.iter().position(|word| word == SCRIPT).unwrap();
            self.1.spawn(&Command::new("sh").with_arg("-c").with_args(&words[script..]), control)
        }
    }

    /// Engine that runs each command to its end.
    #[derive(Debug)]
    struct OnlyRun(Arc<RecordingBackend>);

    impl Backend for OnlyRun {
        fn run(&self, command: &Command, control: &Control) -> Result<Output, ExecError> {
            self.0.run(command, control)
        }
    }

    fn held(probes: &[Probe]) -> usize {
        probes.iter().filter(|probe| probe.outcome == Outcome::Held).count()
    }

    #[test]
    fn a_shell_waits_for_the_program_and_then_runs_it() {
        let home = tempfile::tempdir().unwrap();
        let engine = engine(HostShell::new(home.path(), "#!/bin/sh\nfor one; do echo held $one; done\n"));
        let mut waiting = Waiting::start(&engine, &expected(), Verify::Quick).unwrap();
        thread::sleep(Duration::from_millis(100));
        assert!(!waiting.is_over());
        let probes = waiting.attack(&engine, &expected(), &["no-such-secret-value"]).unwrap();
        assert!(held(&probes) > 5 && held(&probes) == probes.len(), "{probes:#?}");
        assert_eq!(home.path().read_dir().unwrap().count(), 0, "the program is removed");
    }

    #[test]
    fn a_backend_that_only_runs_commands_to_their_end_is_enough() {
        let answers =
            RecordingBackend::new().with_answer(Matcher::prefix(["exec"]), Answer::stdout("held x\n".repeat(99)));
        let backend = Arc::new(answers.with_default(packed("program")));
        let engine = engine(OnlyRun(backend.clone()));
        let mut waiting = Waiting::start(&engine, &expected(), Verify::Quick).unwrap();
        assert!(!waiting.is_over() && backend.lines().iter().all(|line| !line.contains(" exec ")));
        assert!(held(&waiting.attack(&engine, &expected(), &[]).unwrap()) > 5);
    }

    #[test]
    fn a_shell_whose_container_was_started_again_is_over() {
        let engine = engine(RecordingBackend::new().with_default(packed("program")));
        assert!(Waiting::start(&engine, &expected(), Verify::Quick).unwrap().is_over());
    }

    #[test]
    fn an_attack_that_does_not_report_counts_as_failed() {
        let attacks = [("one", "a".to_owned()), ("two", "b".to_owned()), ("two", "c".to_owned())];
        let outcomes = |printed: &str| -> Vec<Outcome> {
            read_attacks(&attacks, printed, "Killed").iter().map(|probe| probe.outcome).collect()
        };
        assert_eq!(outcomes("held x\nheld y\nheld z\n"), [Outcome::Held, Outcome::Held]);
        assert_eq!(outcomes("held x\nheld y\nfailed z\n"), [Outcome::Held, Outcome::Failed]);
        assert_eq!(outcomes("held x\nheld y\n"), [Outcome::Held, Outcome::Failed]);
        assert_eq!(outcomes(""), [Outcome::Failed, Outcome::Failed]);
        assert_eq!(outcomes("heldx\nnonsense\nheld\n"), [Outcome::Failed, Outcome::Failed]);
        let probes = read_attacks(&attacks, "held x\nheld y\nheld z\n", "");
        assert_eq!(probes[1].to_string(), "two: y; and 1 more");
        let probes = read_attacks(&attacks[..1], "failed \u{1b}[31mred\u{1b}]0;title\u{7}\r\n", "");
        assert!(!probes[0].to_string().contains(char::is_control), "{:?}", probes[0]);
    }

    #[test]
    fn a_secret_of_a_process_is_found_and_not_shown() {
        let processes = [PROCESSES, "PATH=/bin\0TOKEN=hunter2hunter2\0"].concat();
        let probe = environment(processes.as_bytes(), &["hunter2hunter2"]);
        assert_eq!(probe.outcome, Outcome::Failed);
        assert!(!probe.detail.contains("hunter2"));
        assert_eq!(environment(processes.as_bytes(), &["another-secret"]).outcome, Outcome::Held);
        assert_eq!(environment(processes.as_bytes(), &[]).outcome, Outcome::NotRun);
        assert_eq!(environment(PROCESSES.as_bytes(), &["hunter2hunter2"]).outcome, Outcome::Failed);
    }
}
