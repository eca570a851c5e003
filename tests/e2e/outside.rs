//! Crates of strangers, who have nothing but the documentation: an editor, a crowd of bottles on one runtime, and a harness.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bottle::Bottles;
use bottle::plan::StateRoot;
use bottle_testing::lab::{docker, engine, example, figure, host, pipelock_image, run, scratch};

/// Most lines of such a crate.
const LINES: usize = 59;

/// A crate below `tests/outside`, its directory, and a state root of its own.
struct Outside {
    program: PathBuf,
    root: tempfile::TempDir,
}

impl Outside {
    #[track_caller]
    fn new(name: &str) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/outside").join(name).join("src");
        let files: Vec<PathBuf> = fs::read_dir(source).unwrap().map(|entry| entry.unwrap().path()).collect();
        let lines: usize = files.iter().map(|file| fs::read_to_string(file).unwrap().lines().count()).sum();
        assert!((10..=LINES).contains(&lines), "{name} has {lines} lines");
        let program = program(name);
        let root = tempfile::Builder::new().prefix("outside-").tempdir_in(scratch()).unwrap();
        fs::create_dir(root.path().join("work")).unwrap();
        Self { program, root }
    }

    fn path(&self, name: &str) -> String {
        self.root.path().join(name).display().to_string()
    }

    /// Writes a manifest with an agent of this name and command. Its workspace is the directory `work`.
    fn manifest(&self, agent: &str, command: &str) -> String {
        let (image, work, path) = (pipelock_image(), self.path("work"), self.path("bottle.yaml"));
        let text = format!(
            "bottles:\n  lab:\n    images: {{pipelock: '{image}'}}\n    workspace: {{path: '{work}'}}\nagents:\n  {agent}:\n    bottle: lab\n    {command}\n"
        );
        fs::write(&path, text).unwrap();
        path
    }

    /// Runs the program, for ten minutes at most. Returns what it prints.
    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("timeout");
        command.arg("600").arg(&self.program).args(arguments).env("CLAUDE_BOTTLE_STATE", self.path("state"));
        let ended = run(&mut command);
        assert_eq!(ended.code, 0, "{ended:?}");
        print!("{}", ended.stderr);
        ended.stdout
    }

    /// Asserts that the engine has nothing of an agent of this name, once a recovery has removed what was left.
    #[track_caller]
    fn assert_nothing_left(&self, agent: &str) {
        let bottles = Bottles::new(engine(), host()).with_state_root(StateRoot::at(self.root.path().join("state")));
        let left = || {
            let filter = format!("name=-{agent}-");
            let containers = docker(["ps", "--all", "--format", "{{.Names}}", "--filter", &filter]).stdout;
            let images = format!("claude-bottle-workspace:{agent}-*");
            containers + &docker(["images", "--format", "{{.Tag}}", &images]).stdout
        };
        let until = Instant::now() + Duration::from_secs(60);
        while !left().is_empty() {
            assert!(Instant::now() < until, "left: {}", left());
            std::thread::sleep(Duration::from_millis(200));
            assert!(bottles.recover().unwrap().is_clean());
        }
    }
}

/// Returns the program of such a crate.
#[track_caller]
pub(crate) fn program(name: &str) -> PathBuf {
    // Cargo puts programs beside the directory of the examples.
    let examples = PathBuf::from(example("launch").get_program());
    let program = examples.ancestors().nth(2).unwrap().join(format!("outside-{name}"));
    assert!(program.exists(), "{} is not built: run the tests by `cargo xtask e2e`", program.display());
    program
}

/// An agent may go on when its input has ended, and then nobody is there who would stop it.
#[test]
#[ignore = "needs a container engine"]
fn an_agent_that_ignores_the_end_of_its_input_is_removed() {
    let editor = Outside::new("editor");
    let manifest = editor.manifest("acpend", "command: [sh, -c, 'echo started; exec sleep 900']");
    let mut acp = Command::new("timeout");
    acp.arg("300").arg(example("acp").get_program()).args(["--manifest", &manifest]);
    let acp = acp.env("CLAUDE_BOTTLE_STATE", editor.path("state")).stdin(std::process::Stdio::null());
    let ended = run(acp);
    assert_eq!((ended.stdout.as_str(), ended.code), ("started\n", 143), "{ended:?}");
    let left = docker(["ps", "--all", "--format", "{{.Names}}", "--filter", "name=-acpend-"]).stdout;
    assert_eq!(left, "");
}

#[test]
#[ignore = "needs a container engine"]
fn an_editor_talks_to_an_agent_in_a_bottle() {
    let editor = Outside::new("editor");
    let work = editor.root.path().join("work");
    fs::copy(example("acp_agent").get_program(), work.join("agent")).unwrap();
    fs::write(work.join("note"), "the note").unwrap();
    let manifest = editor.manifest("acp-editor", "command: [/workspace/agent]");
    let acp = example("acp").get_program().to_str().unwrap().to_owned();
    let answer = editor.run(&["hello", &acp, "--manifest", &manifest]);
    assert!(answer.starts_with("the note of ") && answer.ends_with(": hello") && !answer.contains("of 0:"), "{answer}");
    // The client kills what it started, so a recovery removes what the launcher had no time for.
    editor.assert_nothing_left("acp-editor");
}

#[test]
#[ignore = "needs a container engine"]
fn eight_bottles_stream_at_once_on_one_runtime() {
    let crowd = Outside::new("crowd");
    let manifest = crowd.manifest("outside-crowd", "command: [sh]");
    let started = Instant::now();
    let said = crowd.run(&[&manifest]);
    let mut slugs: Vec<&str> = said
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(slug, count)| {
            assert_eq!(count, (16 << 20).to_string(), "{said}");
            slug
        })
        .collect();
    slugs.sort_unstable();
    slugs.dedup();
    assert_eq!(slugs.len(), 8, "{said}");
    figure(format_args!("8 bottles launched, 16 MiB through each, removed: {:.1} s", started.elapsed().as_secs_f64()));
    crowd.assert_nothing_left("outside-crowd");
}

#[test]
#[ignore = "needs a container engine"]
fn a_harness_takes_the_patch_of_each_task() {
    let harness = Outside::new("harness");
    let (work, results) = (harness.root.path().join("work"), harness.path("results"));
    fs::write(work.join("greeting"), "hello\n").unwrap();
    fs::create_dir(&results).unwrap();
    // The prompt is the script of the shell.
    let agent = "command: [sh, -c]\n    prompt: 'true'\n    prompt_mode: last-argument";
    let manifest = harness.manifest("outside-harness", agent);
    let (edit, add) = ("sed -i s/hello/goodbye/ greeting; echo edited", "ls; echo text > new; exit 3");
    let said = harness.run(&[&manifest, &harness.path("work"), &results, edit, add]);
    assert_eq!(said.lines().count(), 2, "{said}");
    let result = |name: &str| fs::read_to_string(Path::new(&results).join(name)).unwrap();
    // The second task sees nothing of the first.
    assert_eq!((result("0.log"), result("1.log")), ("edited\n".to_owned(), "greeting\n".to_owned()));
    assert_eq!(fs::read_to_string(work.join("greeting")).unwrap(), "hello\n");
    // Otherwise git looks for the files in the repository around it.
    run(Command::new("git").current_dir(&work).args(["init", "--quiet"])).ok();
    for number in 0..2 {
        let patch = Path::new(&results).join(format!("{number}.patch"));
        run(Command::new("git").current_dir(&work).arg("apply").arg(patch)).ok();
    }
    let now = |name: &str| fs::read_to_string(work.join(name)).unwrap();
    assert_eq!((now("greeting"), now("new")), ("goodbye\n".to_owned(), "text\n".to_owned()));
    harness.assert_nothing_left("outside-harness");
}
