//! The end-to-end tests: prepares engine and images, runs the tests, and checks that nothing is left behind.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use bottle_plan::PIPELOCK_IMAGE;

use crate::process::{Result, checked, output, quiet, root};

/// The options of `cargo xtask e2e`.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct Arguments {
    /// Run only tests whose name contains this.
    filter: Option<String>,
    /// Number of simultaneous tests.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Most minutes that the tests may take together. Then they are stopped.
    #[arg(long, default_value_t = 70)]
    minutes: u64,
    /// Shell command that restarts the engine and stops all of its containers. Enables one more test.
    #[arg(long, value_name = "COMMAND")]
    restart: Option<String>,
    /// Also run tests on a second engine that is reached over ssh, which takes some ten minutes.
    #[arg(long)]
    remote: bool,
    /// Also run tests on Podman 5 with root, which this program is: `podman`, or a path.
    #[arg(long, value_name = "PROGRAM")]
    podman: Option<String>,
    /// Leave out the tests that take longest, and those that measure. This is what CI runs.
    #[arg(long, conflicts_with_all = ["filter", "kubernetes"])]
    quick: bool,
    /// Run every attack of `tests/attacks` and rewrite `docs/attacks.md`. Otherwise every fourth is run.
    #[arg(long)]
    all_attacks: bool,
    /// Run the tests on a Kubernetes cluster, and no others. `BOTTLE_TESTBED_KUBERNETES` names the program that starts it.
    #[arg(long)]
    kubernetes: bool,
    /// Number of bottles of the fleet on a cluster. By default it is 6, which shows what a fleet does; more measure it.
    #[arg(long, value_name = "NUMBER", requires = "kubernetes")]
    fleet: Option<u16>,
    /// Fail if a test was not run that this machine could have run.
    #[arg(long)]
    deny_skips: bool,
}

pub(crate) fn run(args: &Arguments) -> Result<()> {
    let root = root();
    let pipelock = prepare(&root)?;
    let earlier = leftovers(&root)?;
    if !earlier.is_empty() {
        eprintln!("warning: earlier tests left behind:\n{}", earlier.join("\n"));
    }
    let outside = build_image(&root, "outside")?;
    let cluster = if args.kubernetes { Some(Cluster::start()?) } else { None };
    let filter = args.filter.as_deref().or_else(|| args.kubernetes.then_some("kubernetes"));
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(&root).args(arguments).stdin(Stdio::null());
        command
    };
    // Programs and examples with the features of the tests, so that nothing is compiled twice. `cargo test` builds the programs
    // only of packages that have tests in `tests/`.
    checked(&mut cargo(&["build", "--quiet", "--workspace", "--lib", "--bins", "--examples", "--tests"]))?;
    let select = |options: &[&str]| {
        let mut tests = cargo(&TESTS);
        tests.args(["--", "--ignored", "--skip", CHILD]).args(options).args(filter);
        tests
    };
    let packages = if output(&mut select(&["--list"]))?.lines().any(|test| test.starts_with("install::")) {
        // It takes a minute or more the first time, and the registries of pip and npm.
        build_image(&root, "packages").unwrap_or_else(|error| {
            eprintln!("warning: the tests that install packages are not run: {error}");
            error.to_string().lines().last().unwrap_or_default().to_owned()
        })
    } else {
        String::new()
    };
    let figures = root.join("target/e2e-figures.txt");
    fs::write(&figures, "")?;
    // One after the other: each of them measures, and one of them switches the cluster's policies off.
    let threads = format!("--test-threads={}", if args.kubernetes { 1 } else { args.threads });
    // Others at the same time would be measured as well.
    let measured = MEASURED.iter().copied();
    let without = |names: &mut dyn Iterator<Item = &'static str>| -> Vec<&str> {
        names.flat_map(|name| ["--skip", name]).chain([threads.as_str()]).collect()
    };
    let passes = match filter {
        Some(_) => vec![vec![threads.as_str()]],
        None if args.quick => vec![without(&mut measured.chain(SLOW))],
        None => vec![without(&mut measured.clone()), measured.chain(["--test-threads=1"]).collect()],
    };
    let deadline = Instant::now() + Duration::from_secs(60 * args.minutes);
    let mut report = Report::default();
    for pass in &passes {
        let mut tests = select(pass);
        tests.arg("--format=pretty").env("BOTTLE_E2E_RESTART", args.restart.as_deref().unwrap_or_default());
        tests.env("BOTTLE_E2E_PODMAN", args.podman.as_deref().unwrap_or_default());
        tests.env("BOTTLE_E2E_REMOTE", if args.remote { "yes" } else { "" });
        tests.env("BOTTLE_E2E_PIPELOCK", pipelock.as_deref().unwrap_or_default()).env("BOTTLE_E2E_OUTSIDE", &outside);
        tests.env("BOTTLE_E2E_FLEET", args.fleet.map(|number| number.to_string()).unwrap_or_default());
        tests.env("BOTTLE_E2E_ATTACKS", if args.all_attacks { "all" } else { "" });
        tests.env("BOTTLE_E2E_PACKAGES", &packages).env("BOTTLE_E2E_FIGURES", &figures);
        let (program, kubectl, kubeconfig) = cluster.as_ref().map(Cluster::variables).unwrap_or_default();
        tests
            .env("BOTTLE_E2E_CLUSTER", program)
            .env("BOTTLE_E2E_KUBECTL", kubectl)
            .env("BOTTLE_E2E_KUBECONFIG", kubeconfig);
        report.extend(Report::of(&mut tests, deadline)?);
    }
    drop(cluster);
    let mut left = leftovers(&root)?;
    left.retain(|left| !earlier.contains(left));
    eprint!("{}", fs::read_to_string(&figures)?);
    eprint!("{report}");
    if !left.is_empty() {
        return Err(format!("the tests left behind:\n{}", left.join("\n")).into());
    }
    eprintln!("nothing is left behind: no container, network, volume, derived image or key");
    if !report.failed.is_empty() {
        return Err(format!("{} tests failed", report.failed.len()).into());
    }
    if args.deny_skips {
        report.deny_skips(testbed().is_some())?;
    }
    Ok(())
}

/// The arguments of cargo that run the tests of every crate. Those that need an engine are ignored by default.
const TESTS: [&str; 4] = ["test", "--workspace", "--tests", "--no-fail-fast"];

/// Parts of the names of tests that compare times with a bound or race with the agent. They run one after the other, after all
/// others.
const MEASURED: [&str; 9] = [
    "egress::load::",
    "lifecycle::spawn::a_chain_of_short_processes",
    "lifecycle::work::the_changes_of_10_000",
    "pool::taking_a_bottle_is_fast",
    "three_minutes_of_requests",
    "install::",
    "agents::an_answer_",
    "an_exec_takes_no_longer",
    "a_quick_verification_is_measured",
];

/// Parts of the names of the tests that `--quick` leaves out: each takes more than some 25 s, and most of what it covers is
/// covered by a shorter one as well.
const SLOW: [&str; 17] = [
    "canaries::every_secret_is_only_where",
    "egress::renewal::",
    "git::deploy_keys::a_launcher_killed",
    "git::refusals::a_push_that_takes_much_more",
    "git::throughput::",
    "learn::a_learning_bottle",
    "lifecycle::crowd::",
    "lifecycle::forward::a_vite_server",
    "lifecycle::forward::many_connections",
    "lifecycle::health::a_restarted_sidecar_is_reached_again",
    "lifecycle::killed::",
    "lifecycle::power::another_process",
    "lifecycle::trouble::a_full_disk",
    "pipelock::a_sidecar_that_dies_eight_times",
    "pipelock::every_configuration_value",
    "pipelock::only_a_pipelock_that_decrypts",
    "weakened::a_weakness_of_the_manifest",
];

/// Beginning of the names of ignored tests that are the second half of another test, which starts them.
const CHILD: &str = "child_";

/// The variable that names a test bed: a program that brings up an engine (`engine`), the base image (`base`) and
/// pipelock's image (`pipelock`) where there is none.
const TESTBED: &str = "BOTTLE_TESTBED";

#[expect(clippy::disallowed_methods, reason = "a task takes the test bed from its caller's environment")]
fn testbed() -> Option<OsString> {
    std::env::var_os(TESTBED).filter(|program| !program.is_empty())
}

/// The variable that names a program that starts a Kubernetes cluster and prints `export KUBECONFIG=… PATH=…`. It copies images
/// of the engine into the cluster (`load IMAGE…`), stops the cluster (`down`), and may be able to switch the enforcement of
/// network policies (`policies off` and `policies on`).
const TESTBED_KUBERNETES: &str = "BOTTLE_TESTBED_KUBERNETES";

/// A cluster that was started for the tests, and is stopped with this value.
struct Cluster {
    program: OsString,
    kubectl: PathBuf,
    kubeconfig: String,
}

impl Cluster {
    #[expect(clippy::disallowed_methods, reason = "a task takes the test bed from its caller's environment")]
    fn start() -> Result<Self> {
        let program = std::env::var_os(TESTBED_KUBERNETES).filter(|program| !program.is_empty());
        let program = program
            .ok_or_else(|| format!("`{TESTBED_KUBERNETES}` is not set; it names the program that starts a cluster"))?;
        let printed = output(&mut Command::new(&program))?;
        let value = |name: &str| printed.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let (Some(kubeconfig), Some(path)) = (value("KUBECONFIG"), value("PATH")) else {
            return Err(
                format!("the program in `{TESTBED_KUBERNETES}` printed no KUBECONFIG and PATH: {printed}").into()
            );
        };
        let kubectl = Path::new(path.split(':').next().unwrap_or_default()).join("kubectl");
        Ok(Self { program, kubectl, kubeconfig: kubeconfig.to_owned() })
    }

    /// Returns the program, kubectl's path, and the configuration for it.
    fn variables(&self) -> (OsString, OsString, OsString) {
        (self.program.clone(), self.kubectl.clone().into(), self.kubeconfig.clone().into())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = checked(Command::new(&self.program).arg("down")) {
            eprintln!("warning: the cluster is not stopped: {error}");
        }
    }
}

/// Finds an engine that answers, and pipelock's image. Returns `None` if the image can be neither found nor pulled.
pub(crate) fn prepare(root: &Path) -> Result<Option<String>> {
    if let Some(testbed) = testbed() {
        for part in ["engine", "base", "pipelock"] {
            quiet(root, part, Command::new(&testbed).arg(part))?;
        }
    }
    let answers = output(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]));
    answers.map_err(|error| format!("no container engine answers: {error}"))?;
    // An image that was loaded, not pulled, has no digest.
    let tag = PIPELOCK_IMAGE.split_once('@').map_or(PIPELOCK_IMAGE, |(tag, _)| tag);
    let has = |image: &&str| output(Command::new("docker").args(["image", "inspect", *image])).is_ok();
    if let Some(image) = [PIPELOCK_IMAGE, tag].iter().find(|image| has(image)) {
        return Ok(Some((*image).to_owned()));
    }
    let mut pull = Command::new("timeout");
    let pulled = quiet(root, "pull", pull.args(["60", "docker", "pull", "--quiet", PIPELOCK_IMAGE]));
    if let Err(error) = &pulled {
        eprintln!("warning: the tests that need {PIPELOCK_IMAGE} are not run: {error}");
    }
    Ok(pulled.is_ok().then(|| PIPELOCK_IMAGE.to_owned()))
}

/// Most characters of a panic's message in the summary.
const MESSAGE: usize = 600;

/// Results of the tests, parsed from libtest's output.
#[derive(Debug, Default, PartialEq)]
struct Report {
    passed: usize,
    /// Failed tests, each with the beginning of its panic's message.
    failed: Vec<(String, String)>,
    /// Tests that ended with "not run: " and the reason. libtest counts them as failed.
    not_run: BTreeMap<String, String>,
}

impl Report {
    /// Runs the tests and prints their output as it arrives, with the time since the start. Stops them at the deadline.
    fn of(tests: &mut Command, deadline: Instant) -> Result<Self> {
        let started = Instant::now();
        let mut child = tests.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("the tests have no output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || BufReader::new(stdout).split(b'\n').try_for_each(|line| sender.send(line)));
        let mut printed = String::new();
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let line = line?;
                    let line = String::from_utf8_lossy(&line);
                    println!("{:5} {line}", started.elapsed().as_secs());
                    printed.push_str(&line);
                    printed.push('\n');
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    // Not a process group of its own, so that Ctrl-C reaches the tests.
                    let of_child = output(Command::new("pgrep").args(["--parent", &child.id().to_string()]));
                    child.kill()?;
                    child.wait()?;
                    checked(Command::new("kill").args(of_child?.lines()))?;
                    let (time, running) = (started.elapsed().as_secs(), running(&printed).join(", "));
                    return Err(format!("the tests were stopped after {time} s; these did not end: {running}").into());
                }
            }
        }
        let status = child.wait()?;
        let report = Self::read(&printed)?;
        if !status.success() && report.failed.is_empty() && report.not_run.is_empty() {
            return Err(format!("the tests ended with {status}, and none of them failed").into());
        }
        Ok(report)
    }

    /// Parses the output of all test programs and adds up their results.
    fn read(printed: &str) -> Result<Self> {
        let mut report = Self::default();
        let mut lines: Vec<&str> = Vec::new();
        for line in printed.lines() {
            // Below "failures:" is what the failed tests printed, which may be the output of a test program.
            if is_start(line) && lines.iter().any(|line| is_start(line)) && !lines.contains(&"failures:") {
                break;
            }
            lines.push(line);
            if let Some(result) = line.strip_prefix("test result: ") {
                report.add(&lines, result)?;
                lines.clear();
            }
        }
        match lines.iter().find(|line| is_start(line)) {
            Some(start) => Err(format!("a test program said `{start}` and ended without a result").into()),
            None if report == Self::default() => Err("no test was run".into()),
            None => Ok(report),
        }
    }

    fn extend(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.not_run.extend(other.not_run);
    }

    /// Adds the results of one test program.
    fn add(&mut self, lines: &[&str], result: &str) -> Result<()> {
        let count = |what: &str| {
            let words: Vec<&str> = result.split([' ', ';']).collect();
            let place = words.iter().position(|word| *word == what)?;
            words.get(place.checked_sub(1)?)?.parse::<usize>().ok()
        };
        let (Some(passed), Some(failed)) = (count("passed"), count("failed")) else {
            return Err(format!("the result `{result}` has no number of passed and failed tests").into());
        };
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        let mut not_run = BTreeMap::new();
        let mut current = None;
        let mut rest = lines.iter();
        while let Some(line) = rest.next() {
            if let Some(name) = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" stdout ----")) {
                names.insert(name.to_owned(), String::new());
                current = Some(name);
            } else if let (Some(name), Some(why)) = (current, line.strip_prefix("not run: ")) {
                not_run.insert(name.to_owned(), why.to_owned());
            } else if line.starts_with("thread '")
                && line.contains(" panicked at ")
                && let Some(message) = current.and_then(|name| names.get_mut(name)).filter(|message| message.is_empty())
            {
                let text = rest.as_slice().iter().take_while(|line| !line.is_empty() && !line.starts_with("note: "));
                *message = text.copied().collect::<Vec<_>>().join(" ").chars().take(MESSAGE).collect();
            }
        }
        if names.len() != failed {
            return Err(format!("{failed} tests failed, but the output is that of {}", names.len()).into());
        }
        self.passed += passed;
        self.failed.extend(names.into_iter().filter(|(name, _)| !not_run.contains_key(name)));
        self.not_run.extend(not_run);
        Ok(())
    }

    /// Returns an error if a test was not run that this machine could have run. A reason that only a person can remove does
    /// not count. Without a test bed, images, runtimes, the kernel and the user are as they are.
    fn deny_skips(&self, has_testbed: bool) -> Result<()> {
        let lacks = |why: &&String| {
            let starts = |starts: &[&str]| starts.iter().any(|start| why.starts_with(start));
            starts(&[
                "needs podman",
                "needs Podman",
                "needs a Kubernetes cluster",
                "needs an engine that may be restarted",
                "needs a second engine",
                "needs the runtime runsc-netstack",
            ]) || !has_testbed && starts(&["needs the image ", "needs the runtime ", "needs a kernel ", "needs root"])
        };
        match self.not_run.iter().find(|(_, why)| !lacks(why)) {
            Some((name, why)) => Err(format!("`{name}` was not run, although this machine could: {why}").into()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} passed, {} failed, {} not run", self.passed, self.failed.len(), self.not_run.len())?;
        self.failed.iter().try_for_each(|(name, message)| writeln!(f, "failed: {name}: {message}"))?;
        self.not_run.iter().try_for_each(|(name, why)| writeln!(f, "not run: {name}: {why}"))
    }
}

/// Returns the tests that libtest called slow and that did not end.
fn running(printed: &str) -> Vec<&str> {
    let names = |end: &'static str| {
        printed.lines().filter_map(move |line| line.strip_prefix("test ")?.split_once(end).map(|(name, _)| name))
    };
    names(" has been running for over ").filter(|&slow| names(" ... ").all(|ended| ended != slow)).collect()
}

/// Returns true for the first line of a test program.
fn is_start(line: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    matches!(words[..], ["running", count, "test" | "tests"] if count.parse::<usize>().is_ok())
}

/// Builds `tests/images/<name>`, tagged with the hash of its files, unless the image exists.
fn build_image(root: &Path, name: &str) -> Result<String> {
    let context = root.join("tests/images").join(name);
    let mut files: Vec<_> = fs::read_dir(&context)?.collect::<std::io::Result<Vec<_>>>()?;
    files.retain(|file| file.file_type().is_ok_and(|kind| kind.is_file()));
    files.sort_by_key(fs::DirEntry::file_name);
    let mut bytes = Vec::new();
    for file in files {
        bytes.extend(file.file_name().as_encoded_bytes());
        bytes.extend(fs::read(file.path())?);
    }
    let tag = format!("bottle-e2e/{name}:{:016x}", fnv(&bytes));
    if output(Command::new("docker").args(["image", "inspect", &tag])).is_err() {
        quiet(root, name, Command::new("docker").args(["build", "--tag", &tag]).arg(&context))?;
    }
    Ok(tag)
}

/// Returns the FNV-1a hash. It only needs to change when a file changes.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Prefixes of the names of the tests' bottles and of everything else that the tests start.
const PREFIXES: [&str; 4] = ["claude-bottle", "bottle-life", "bottle-e2e", "e2e"];

/// Returns everything that bottles left behind, found by label, by name, and among the files.
fn leftovers(root: &Path) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for prefix in PREFIXES {
        let (label, names) = (format!("label={prefix}.slug"), format!("name=^{prefix}-"));
        // The other images of bottles are a cache.
        let own = match prefix {
            "bottle-e2e" => "*",
            "e2e" => "*-workspace",
            _ => "workspace",
        };
        let derived = format!("reference={prefix}-{own}");
        let queries: [&[&str]; 6] = [
            &["ps", "--all", "--filter", &label, "--format", "container {{.Names}}"],
            &["ps", "--all", "--filter", &names, "--format", "container {{.Names}}"],
            &["network", "ls", "--filter", &names, "--format", "network {{.Name}}"],
            &["volume", "ls", "--filter", &names, "--format", "volume {{.Name}}"],
            &["images", "--filter", &label, "--format", "image {{.Repository}}:{{.Tag}}"],
            &["images", "--filter", &derived, "--format", "image {{.Repository}}:{{.Tag}}"],
        ];
        for query in queries {
            left.extend(output(Command::new("docker").args(query))?.lines().map(ToOwned::to_owned));
        }
    }
    left.sort_unstable();
    left.dedup();
    keys_below(&root.join("target/tmp/e2e"), &mut left)?;
    Ok(left)
}

fn keys_below(dir: &Path, left: &mut Vec<String>) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            keys_below(&path, left)?;
        } else if fs::read(&path).is_ok_and(|bytes| is_key(&String::from_utf8_lossy(&bytes))) {
            left.push(format!("key {}", path.display()));
        }
    }
    Ok(())
}

/// Returns true if a line of the text starts a private key in PEM. No source file has such a line.
fn is_key(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with("PRIVATE KEY-----"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "
running 4 tests
test a::one ... ok
test a::two ... FAILED
test b::three ... FAILED

failures:

---- a::two stdout ----

thread 'a::two' (7) panicked at tests/e2e/support/mod.rs:34:5:
not run: needs podman

---- b::three stdout ----
a line
not quite

thread 'b::three' (8) panicked at tests/e2e/b.rs:1:1:
no

failures:
    a::two
    b::three

test result: FAILED. 2 passed; 2 failed; 0 ignored; 0 measured; 9 filtered out; finished in 1.00s
";

    #[test]
    fn a_test_that_could_not_run_does_not_count_as_failed() {
        let report = Report::read(PRINTED).unwrap();
        assert_eq!(report.passed, 2);
        assert_eq!(report.failed, [("b::three".to_owned(), "no".to_owned())]);
        assert_eq!(report.not_run, BTreeMap::from([("a::two".to_owned(), "needs podman".to_owned())]));
        let text = "2 passed, 1 failed, 1 not run\nfailed: b::three: no\nnot run: a::two: needs podman\n";
        assert_eq!(report.to_string(), text);
    }

    #[test]
    fn results_of_several_programs_are_added_up() {
        let other = "\nrunning 1 test\ntest c ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored\n";
        let none = "\nrunning 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored\n";
        let report = Report::read(&[PRINTED, none, other, PRINTED].concat()).unwrap();
        // Two programs may each have a test of the same name.
        assert_eq!((report.passed, report.failed.len(), report.not_run.len()), (5, 2, 1));
    }

    #[test]
    fn a_slow_test_that_did_not_end_is_named() {
        let slow = "has been running for over 60 seconds";
        let printed = format!("test a::one {slow}\ntest b ... ok\ntest c {slow}\ntest a::one ... FAILED\n");
        assert_eq!(running(&printed), ["c"]);
    }

    #[test]
    fn a_run_is_stopped_at_its_deadline() {
        let mut tests = Command::new("sh");
        tests.args(["-c", "echo running 1 test; echo test a has been running for over 60 seconds; sleep 60; exit"]);
        let error = Report::of(&mut tests, Instant::now() + Duration::from_secs(1)).unwrap_err().to_string();
        assert_eq!(error, "the tests were stopped after 1 s; these did not end: a");
    }

    #[test]
    fn a_program_without_a_result_is_an_error() {
        let aborted = "running 4 tests\ntest a::one ... ok\n";
        let error = |printed: &str| Report::read(printed).unwrap_err().to_string();
        assert_eq!(error(""), "no test was run");
        for printed in [aborted.to_owned(), aborted.to_owned() + PRINTED, PRINTED.to_owned() + aborted] {
            assert_eq!(error(&printed), "a test program said `running 4 tests` and ended without a result");
        }
        let text = error(&PRINTED.replace("2 failed", "3 failed"));
        assert_eq!(text, "3 tests failed, but the output is that of 2");
    }

    #[test]
    fn only_tests_that_the_machine_cannot_run_may_be_skipped() {
        let report =
            |why: &str| Report { not_run: BTreeMap::from([("a".to_owned(), why.to_owned())]), ..Report::default() };
        assert!(report("needs podman").deny_skips(true).is_ok());
        assert!(report("needs the image x").deny_skips(false).is_ok());
        assert!(report("needs the image x").deny_skips(true).is_err());
        assert!(report("needs the runtime runsc; the engine has runc").deny_skips(false).is_ok());
        assert!(report("needs the runtime runsc; the engine has runc").deny_skips(true).is_err());
        assert!(report("needs packages of pip and npm").deny_skips(false).is_err());
    }
}
