//! The adapters with which editors speak to Claude Code and Codex, each in a bottle behind the example `acp`. The editor is
//! `tests/outside/editor`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bottle_testing::lab::{docker, example, figure, host, not_run, run, scratch};

use super::{ANSWER, CLAUDE, CODEX, LAUNCH, Launched, QUESTION, Stage, TURN};
use crate::outside;

/// The package of an adapter, and its program as the bottle's workspace has it.
struct Adapter {
    package: &'static str,
    command: &'static [&'static str],
    question: &'static str,
    answer: &'static str,
}

const CLAUDE_ADAPTER: Adapter = Adapter {
    package: "@zed-industries/claude-agent-acp@0.23.1",
    command: &["node", "/workspace/node_modules/@zed-industries/claude-agent-acp/dist/index.js"],
    question: QUESTION,
    answer: ANSWER,
};

const CODEX_ADAPTER: Adapter = Adapter {
    package: "@zed-industries/codex-acp@0.16.0",
    command: &["/workspace/node_modules/.bin/codex-acp-linux-x64"],
    // The Codex in it has other tools than the server calls.
    question: "Who is there?",
    answer: "Hello from outside.",
};

impl Adapter {
    /// Returns a directory with the adapter, which the first run installs from npm's registry.
    #[track_caller]
    fn install(&self, name: &str) -> PathBuf {
        let directory = scratch().with_file_name(format!("acp-{name}"));
        let done = directory.join(self.package.rsplit('@').next().unwrap());
        if !done.exists() {
            std::fs::create_dir_all(&directory).unwrap();
            let mut npm = Command::new("npm");
            npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", self.package]);
            let installed = npm.current_dir(&directory).stdin(Stdio::null()).output();
            if !installed.is_ok_and(|output| output.status.success()) {
                not_run("needs npm and its registry, for the adapter of an agent");
            }
            std::fs::write(&done, "").unwrap();
        }
        directory
    }
}

impl Stage {
    /// Asks the question through an editor, and allows what the agent asks for.
    fn edits(self, adapter: &Adapter) {
        let work = adapter.install(self.client.name);
        // The slug of the bottle begins with the agent's name.
        let name = &*self.lab.slug;
        let agent = format!("agents:\n  {}:\n", self.client.name);
        // The packages of the lab, so that its image serves.
        let packages = "images: {packages: [nodejs, python3, python3-requests], ";
        let manifest = self.manifest().replace("images: {", packages);
        // Claude Code would describe its tools only to a model that searches for them.
        let manifest = manifest.replacen("    env:\n", "    env:\n      ENABLE_TOOL_SEARCH: \"false\"\n", 1);
        assert!(manifest.contains(&agent) && manifest.contains(packages), "{manifest}");
        let file = self.lab.root.path().join("editor.yaml");
        std::fs::write(&file, manifest.replace(&agent, &format!("agents:\n  {name}:\n"))).unwrap();
        host();
        let mut editor = Command::new(outside::program("editor"));
        editor.arg(adapter.question).arg(example("acp").get_program()).arg("--manifest").arg(&file).arg("--");
        editor.args(adapter.command).current_dir(&work).env(self.client.key_variable, &self.key);
        editor.env("CLAUDE_BOTTLE_STATE", self.lab.root.path().join("state"));
        let started = Instant::now();
        let (output, errors) = (self.lab.root.path().join("answer"), self.lab.root.path().join("errors"));
        let create = |path: &Path| std::fs::File::create(path).unwrap();
        editor.stdin(Stdio::null()).stdout(create(&output)).stderr(create(&errors));
        let mut editor = Launched(editor.spawn().unwrap());
        let network = until(LAUNCH, || {
            assert!(editor.0.try_wait().unwrap().is_none(), "{}", std::fs::read_to_string(&errors).unwrap());
            let filter = format!("name=-egress-{name}-");
            let found = docker(["network", "ls", "--format", "{{.Name}}", "--filter", &filter]).stdout;
            found.lines().next().map(ToOwned::to_owned)
        });
        self.lab.outside.connect(&network);
        let status = until(LAUNCH + TURN, || editor.0.try_wait().unwrap());
        self.lab.outside.disconnect(&network);
        let (said, errors) = (std::fs::read_to_string(&output).unwrap(), std::fs::read_to_string(&errors).unwrap());
        assert!(status.success() && said.contains(adapter.answer), "{status}: {said}\n{errors}");
        figure(format_args!(
            "{}: an editor's question answered through its adapter {:.1} s after the start of the launch",
            self.client.name,
            started.elapsed().as_secs_f64()
        ));
        self.assert_only_the_real_key_arrived();
        // The editor kills what it started, so a recovery removes what the launcher had no time for.
        until(Duration::from_secs(60), || {
            assert!(self.lab.options().recover().unwrap().is_clean());
            let left = docker(["ps", "--all", "--format", "{{.Names}}", "--filter", &format!("name={name}-")]).stdout;
            left.is_empty().then_some(())
        });
        let images = format!("claude-bottle-workspace:{name}-*");
        assert_eq!(docker(["images", "--format", "{{.Tag}}", &images]).stdout, "");
        assert_eq!(run(Command::new("docker").args(["network", "inspect", &network])).code, 1);
    }
}

/// Returns the result as soon as there is one.
#[track_caller]
fn until<T>(limit: Duration, mut result: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(result) = result() {
            return result;
        }
        assert!(Instant::now() < deadline, "nothing within {limit:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
#[ignore = "needs a container engine"]
fn an_editor_asks_claude_code_through_its_adapter() {
    Stage::new(CLAUDE, "claude-acp").edits(&CLAUDE_ADAPTER);
}

#[test]
#[ignore = "needs a container engine"]
fn an_editor_asks_codex_through_its_adapter() {
    Stage::new(CODEX, "codex-acp").edits(&CODEX_ADAPTER);
}
