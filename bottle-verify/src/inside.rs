//! The attacks from inside the agent's container, as the agent's user.

use std::io::{self, Read as _};

use bottle_compose::sidecar::PROBED_HOST;
use bottle_engine::{Engine, Exec};
use bottle_exec::{ExitStatus, PlainText, Stdin};

use crate::expected::Expected;
use crate::report::{Probe, Verify, VerifyError};
use crate::secrets::holds_secret;
use crate::waiting::{LIMIT, Waiting};

/// Path of the program in the seal's image.
pub(crate) const PROGRAM: &str = "/probe";

/// Path of the program in the agent's container. The directory is root's.
const INSTALLED: &str = "/.bottle/probe";

/// Writes the program from standard input, with the mode in its argument. It runs as root, which has no capability there, so
/// that it fails in a directory that is another user's. Root may have no write permission in its own `/`, as in Fedora's images
/// and on Podman.
const INSTALL: &str = "PATH=/usr/sbin:/usr/bin:/sbin:/bin; test -w / || chmod u+w /; umask 022 && mkdir -p /.bottle && chmod 755 /.bottle && cat >/.bottle/new && chmod \"$1\" /.bottle/new && \
    mv -f /.bottle/new /.bottle/probe";

/// An outside address that no host has (RFC 5737).
const OUTSIDE: &str = "198.51.100.1";

/// Ends of the lines before what the program prints after its results: the mounts, and what the agent can read of its
/// processes.
const MOUNTS: &str = " mounts\n";
const PROCESSES: &str = " processes\n";

/// One attack: the protection, and the program's argument.
pub type Attack = (&'static str, String);

/// Attacks whose program has started in the agent's container and waits for its line.
///
/// No shell of the agent's user starts the program, and its file cannot be read. So the kernel lets no other process of the
/// user trace it, or write to its output, from its first instruction on.
#[derive(Debug)]
pub(crate) struct Attacker {
    attacks: Vec<Attack>,
    /// Line that the program waits for, and begins each result with. In gVisor, the agent can write to the program's output.
    word: String,
    program: Waiting,
}

/// Results of the attacks.
pub(crate) struct Found {
    pub(crate) probes: Vec<Probe>,
    /// The mounts of the program, in the form of `/proc/self/mountinfo`.
    pub(crate) mounts: String,
}

impl Attacker {
    /// Starts the program, which the agent's container must have.
    pub(crate) fn start(engine: &Engine, expected: &Expected, level: Verify) -> Result<Self, VerifyError> {
        let attacks = attacks(expected, level);
        let arguments = attacks.iter().map(|(_, argument)| argument.as_str());
        let argv = [INSTALLED, "after"].into_iter().chain(arguments);
        let exec = Exec::new(argv).with_user(&expected.user).with_workdir("/");
        let program = Waiting::start(engine, &expected.agent, exec)?;
        let word = getrandom::u64().map_err(|_| VerifyError::Program(io::ErrorKind::Other.into()))?;
        Ok(Self { attacks, word: format!("{word:016x}"), program })
    }

    /// Returns true if the program has ended before it got its line, as when its container was started again.
    pub(crate) fn is_over(&mut self) -> bool {
        self.program.is_over()
    }

    /// Attacks, and installs the program first if the agent's container does not have it.
    pub(crate) fn attack(
        self,
        engine: &Engine,
        expected: &Expected,
        level: Verify,
        secrets: &[&str],
    ) -> Result<Found, VerifyError> {
        let Self { attacks, mut word, program } = self;
        let mut output = program.run(engine, &word)?;
        // What the engines' clients end with if there is no such program. 128: gVisor's.
        if matches!(output.status, ExitStatus::Code(126..=128)) {
            install(engine, expected)?;
            let again = Self::start(engine, expected, level)?;
            word = again.word;
            output = again.program.run(engine, &word)?;
        }
        let printed = output.stdout.bytes();
        let (results, rest) = cut(&printed, format!("\n{word}{MOUNTS}").as_bytes());
        let (mounts, processes) = cut(rest, format!("\n{word}{PROCESSES}").as_bytes());
        let results = String::from_utf8_lossy(results);
        let results: Vec<&str> =
            results.lines().filter_map(|line| line.strip_prefix(&*word)?.strip_prefix(' ')).collect();
        let mut probes = read_attacks(&attacks, &results.join("\n"), &output.stderr.last_lines(2));
        if expected.is_gvisor {
            let detail = "gVisor answers every system call with a kernel of its own";
            probes.push(Probe::not_run("system call filter", detail));
        }
        probes.push(environment(processes, secrets));
        Ok(Found { probes, mounts: String::from_utf8_lossy(mounts).into_owned() })
    }
}

/// Writes the program into the agent's container, as root.
pub(crate) fn install(engine: &Engine, expected: &Expected) -> Result<(), VerifyError> {
    // gVisor runs no program that its user cannot read.
    let mode = if expected.is_gvisor { "755" } else { "711" };
    let exec = Exec::new(["/bin/sh", "-c", INSTALL, "sh", mode]).with_user("0").with_workdir("/").with_timeout(LIMIT);
    // The image may look for programs and libraries in a directory that the agent can write.
    let exec = ["LD_PRELOAD", "LD_LIBRARY_PATH"].into_iter().fold(exec, |exec, name| exec.with_env(name, ""));
    let output = engine.exec_bare(&expected.agent, &exec.with_stdin(Stdin::Bytes(program(engine, expected)?)))?;
    if output.status.is_success() {
        return Ok(());
    }
    let detail = format!("the program that attacks could not be written: {}", output.stderr.last_lines(2));
    Err(VerifyError::Unprotected { failed: vec![Probe::failed("attacks from inside", detail)] })
}

/// Returns what is before and after a line. Nothing is after a line that is missing.
fn cut<'a>(bytes: &'a [u8], line: &[u8]) -> (&'a [u8], &'a [u8]) {
    match bytes.windows(line.len()).position(|window| window == line) {
        Some(at) => (&bytes[..at], &bytes[at + line.len()..]),
        None => (bytes, &[]),
    }
}

/// Returns the attacks of a level.
fn attacks(expected: &Expected, level: Verify) -> Vec<Attack> {
    let mut attacks = vec![
        ("program", "program".to_owned()),
        ("processes", "process".to_owned()),
        ("processes", "neighbours".to_owned()),
        ("raw sockets", "raw".to_owned()),
        ("IPv6", "ipv6".to_owned()),
        ("engine's socket", "sockets".to_owned()),
        ("outside host, TCP", format!("tcp:{OUTSIDE}:443")),
        ("outside host, UDP", format!("udp:{OUTSIDE}:53")),
        ("name resolution", format!("names:{PROBED_HOST}")),
    ];
    if !expected.is_gvisor {
        attacks.push(("system call filter", "seccomp".to_owned()));
        attacks
            .push(("control groups", format!("limits:{}", expected.limits().map(|limit| limit.to_string()).join(":"))));
    }
    let opened = expected.ports();
    for host in expected.hosts() {
        attacks.push(("sidecars, UDP", format!("udp:{host}:53")));
        let closed = [22, 80, 443, 3128, 8080, 8888, 9090].into_iter().filter(|port| !opened.contains(port));
        attacks.extend(closed.map(|port| ("sidecars, closed ports", format!("tcp:{host}:{port}"))));
        if level == Verify::Full {
            let ports: Vec<String> = opened.iter().map(u16::to_string).collect();
            attacks.push(("sidecars, every port", format!("scan:{host}:{}", ports.join(","))));
            // The seal opens each port at every sidecar's address, because a restarted sidecar may get another one's. Not every
            // sidecar may answer at the others' ports, also to refuse.
            let others = opened.difference(&expected.ports_of(host)).copied().collect::<Vec<_>>().into_iter();
            attacks.extend(others.map(|port| ("sidecars, every port", format!("blocked:{host}:{port}"))));
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
    let mut unknown = Vec::new();
    for (protection, argument) in attacks {
        let index = probes.iter().position(|(known, ..)| known == protection).unwrap_or_else(|| {
            probes.push((*protection, Vec::new(), Vec::new()));
            probes.len() - 1
        });
        let (_, held, failed) = &mut probes[index];
        match lines.next().and_then(|line| line.split_once(' ')) {
            Some(("held", detail)) => held.push(detail.to_owned()),
            Some(("unknown", detail)) => unknown.push((*protection, detail.to_owned())),
            Some(("failed", detail)) => failed.push(detail.to_owned()),
            _ => failed.push(format!("the attack `{argument}` did not report: {stderr}")),
        }
    }
    let shown = |held: &[String]| match held {
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first}; and {} more", rest.len()),
        [] => String::new(),
    };
    let of = |(protection, held, failed): &(&'static str, Vec<String>, Vec<String>)| match unknown
        .iter()
        .find(|(of, _)| of == protection)
    {
        Some((_, detail)) if held.is_empty() && failed.is_empty() => Probe::not_run(protection, detail),
        _ => Probe::of(protection, failed, shown(held)),
    };
    probes.iter().map(of).collect()
}

/// Searches the environments and command lines that the agent's user can read.
fn environment(processes: &[u8], secrets: &[&str]) -> Probe {
    const PROTECTION: &str = "environment";
    let read = processes.len();
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
    use std::thread;
    use std::time::Duration;

    use bottle_engine::{EngineChoice, rehearsal};
    use bottle_exec::{
        Answer, Backend, Child, Command, Control, ExecError, Matcher, Output, RecordingBackend, Subprocess,
    };

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

    /// Engine whose container is a directory of this host, and whose attacking program is a shell script. Its root is the user of
    /// the test.
    #[derive(Debug)]
    struct HostShell {
        container: std::path::PathBuf,
        others: RecordingBackend,
        host: Subprocess,
    }

    impl HostShell {
        fn new(container: &Path, program: &str) -> Self {
            let variables = [("PATH".into(), "/usr/bin:/bin".into())];
            let others = RecordingBackend::new().with_default(packed(program));
            Self { container: container.to_owned(), others, host: Subprocess::new(variables) }
        }

        /// Returns the words of a command in the container, as they are on this host.
        fn words(&self, command: &Command) -> Option<Vec<String>> {
            let words = command.args().iter().map(|argument| argument.to_string_lossy().into_owned());
            let words: Vec<_> = words.skip_while(|word| word != "/bin/sh" && word != INSTALLED).collect();
            let bottle = self.container.join(".bottle").display().to_string();
            Some(words)
                .filter(|words| !words.is_empty())
                .map(|words| words.iter().map(|word| word.replace("/.bottle", &bottle)).collect())
        }
    }

    impl Backend for HostShell {
        fn run(&self, command: &Command, control: &Control) -> Result<Output, ExecError> {
            match self.words(command) {
                Some(words) => self
                    .host
                    .run(&Command::new(&words[0]).with_args(&words[1..]).with_stdin(command.stdin().clone()), control),
                None => self.others.run(command, control),
            }
        }

        fn spawn(&self, command: &Command, control: &Control) -> Result<Child, ExecError> {
            let words = self.words(command).unwrap();
            // The engine's client says this of a program that does not exist.
            let missing = "[ -x \"$0\" ] || exit 127; exec \"$0\" \"$@\"";
            self.host.spawn(&Command::new("sh").with_args(["-c", missing]).with_args(&words), control)
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

    /// Waits for its line, and reports one result for each of its arguments after `after`.
    const ALL_HELD: &str = "#!/bin/sh\nread word || exit 1\nshift\nfor one; do echo failed forged; echo $word held $one; done\n\
        printf \"\\n$word mounts\\n1 0 0:1 / / rw - overlay overlay rw\\n\\n$word processes\\nA=b\\0\"\n";

    #[test]
    fn a_program_waits_and_then_attacks() {
        let root = tempfile::tempdir().unwrap();
        let engine = engine(HostShell::new(root.path(), ALL_HELD));
        install(&engine, &expected()).unwrap();
        let mut attacker = Attacker::start(&engine, &expected(), Verify::Quick).unwrap();
        thread::sleep(Duration::from_millis(100));
        assert!(!attacker.is_over());
        let found = attacker.attack(&engine, &expected(), Verify::Quick, &["no-such-secret-value"]).unwrap();
        assert!(held(&found.probes) > 5 && held(&found.probes) == found.probes.len(), "{:#?}", found.probes);
        assert_eq!(found.mounts, "1 0 0:1 / / rw - overlay overlay rw\n");
    }

    #[test]
    fn the_program_is_in_a_directory_of_root_and_installed_where_it_is_missing() {
        use std::os::unix::fs::PermissionsExt;

        let root = tempfile::tempdir().unwrap();
        let engine = engine(HostShell::new(root.path(), ALL_HELD));
        // Left from another version.
        let directory = root.path().join(".bottle");
        std::fs::create_dir(&directory).unwrap();
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o777)).unwrap();
        let attacker = Attacker::start(&engine, &expected(), Verify::Quick).unwrap();
        let found = attacker.attack(&engine, &expected(), Verify::Quick, &[]).unwrap();
        assert!(held(&found.probes) > 5, "{:#?}", found.probes);
        let mode = |name: &str| std::fs::metadata(directory.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("."), mode("probe")), (0o755, 0o711), "its user can neither replace nor read it");
        assert_eq!(directory.read_dir().unwrap().count(), 1);
        // A path that is not the launcher's is an error.
        let taken = tempfile::tempdir().unwrap();
        std::fs::write(taken.path().join(".bottle"), "").unwrap();
        let engine = self::engine(HostShell::new(taken.path(), ALL_HELD));
        let refused = install(&engine, &expected()).unwrap_err().to_string();
        assert!(refused.contains("could not be written"), "{refused}");
    }

    #[test]
    fn a_backend_that_only_runs_commands_to_their_end_is_enough() {
        let answers = RecordingBackend::new()
            .with_answer(Matcher::prefix(["exec"]), Answer::stdout("word held x\nfailed forged\n".repeat(99)));
        let backend = Arc::new(answers.with_default(packed("program")));
        let engine = engine(OnlyRun(backend.clone()));
        let mut attacker = Attacker::start(&engine, &expected(), Verify::Quick).unwrap();
        attacker.word = "word".into();
        assert!(!attacker.is_over() && backend.lines().iter().all(|line| !line.contains(" exec ")));
        assert!(held(&attacker.attack(&engine, &expected(), Verify::Quick, &[]).unwrap().probes) > 5);
        let attack = backend.lines().pop().unwrap();
        assert!(attack.contains("--user agent") && !attack.contains(" sh "), "no shell of the agent runs it: {attack}");
    }

    #[test]
    fn a_program_whose_container_was_started_again_is_over() {
        let engine = engine(RecordingBackend::new().with_default(packed("program")));
        assert!(Attacker::start(&engine, &expected(), Verify::Quick).unwrap().is_over());
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
        assert_eq!(outcomes("unknown x\nheld y\nunknown z\n"), [Outcome::NotRun, Outcome::Held]);
        assert_eq!(outcomes("held x\nunknown y\nfailed z\n"), [Outcome::Held, Outcome::Failed]);
        let probes = read_attacks(&attacks, "held x\nheld y\nheld z\n", "");
        assert_eq!(probes[1].to_string(), "two: y; and 1 more");
        let probes = read_attacks(&attacks[..1], "failed \u{1b}[31mred\u{1b}]0;title\u{7}\r\n", "");
        assert!(!probes[0].to_string().contains(char::is_control), "{:?}", probes[0]);
    }

    #[test]
    fn a_secret_of_a_process_is_found_and_not_shown() {
        let processes = b"PATH=/bin\0TOKEN=hunter2hunter2\0";
        let probe = environment(processes, &["hunter2hunter2"]);
        assert_eq!(probe.outcome, Outcome::Failed);
        assert!(!probe.detail.contains("hunter2"));
        assert_eq!(environment(processes, &["another-secret"]).outcome, Outcome::Held);
        assert_eq!(environment(processes, &[]).outcome, Outcome::NotRun);
        assert_eq!(environment(b"", &["hunter2hunter2"]).outcome, Outcome::Failed);
    }
}
