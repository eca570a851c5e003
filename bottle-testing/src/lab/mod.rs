//! The lab for end-to-end tests: an engine, a private directory, and a host that stands for the outside.

pub mod canary;
pub mod cluster;
mod network;
mod outside;
mod run;
mod weaken;

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bottle::exec::engine::Exec;
use bottle::exec::{CancelToken, Control, Subprocess};
use bottle::plan::{PlanRequest, Prefix, StateRoot};
use bottle::{Bottle, BottlePlan, Bottles, Engine, EngineChoice, Host, Manifest};

pub use network::{FORBIDDEN, OUTSIDE, Subnet};
pub use outside::Outside;
pub use run::{Finished, docker, example, figure, nft, run, suspend, variable};
pub use weaken::{Changing, Part};

/// Returns pipelock's image, which `cargo xtask e2e` has found. Without it, the test counts as not run.
#[track_caller]
pub fn pipelock_image() -> String {
    let image = variable("BOTTLE_E2E_PIPELOCK");
    if image.is_empty() {
        not_run(&format!("needs the image {}", bottle::plan::PIPELOCK_IMAGE));
    }
    image
}

/// Ends a test that this machine cannot run. `cargo xtask e2e` counts it as not run and not as failed.
#[track_caller]
pub fn not_run(why: &str) -> ! {
    panic!("not run: {why}")
}

/// Ends the test as not run if the engine does not have the runtime. For a bottle, `runc` is the engine's default.
#[track_caller]
pub fn needs_runtime(name: &str) {
    let known = engine().info().runtimes.clone();
    if name != "runc" && !known.contains(name) {
        not_run(&format!("needs the runtime {name}; the engine has {known:?}"));
    }
}

/// Resources of one test: a slug, a state directory, two subnets, an outside host, and a bottle that reaches it.
///
/// Subnets are /28 blocks of 198.51.100.0/24 (TEST-NET-2, RFC 5737). Pipelock's SSRF guard treats these addresses as
/// public, and they belong to nobody, so a leak reaches no real host.
pub struct Lab {
    pub slug: String,
    pub root: tempfile::TempDir,
    pub outside: Outside,
    egress_subnet: Subnet,
}

impl Lab {
    /// Returns the resources for the test of this name.
    pub fn new(test: &str) -> Self {
        Self::with_outside(test, &[])
    }

    /// Like [`new`](Self::new), with additional `docker run` arguments for the outside host.
    pub fn with_outside(test: &str, arguments: &[&str]) -> Self {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
        let slug = format!("{test}-{:06x}", nanos & 0x00ff_ffff);
        let root = tempfile::Builder::new().prefix("state-").tempdir_in(scratch()).unwrap();
        let outside = Outside::start_with(&slug, Subnet::take(), arguments);
        Self { slug, root, outside, egress_subnet: Subnet::take() }
    }

    /// Returns a manifest with one bottle, `lab`, and one agent, `tester`. `bottle` and `agent` are additional lines of
    /// each.
    pub fn manifest(&self, bottle: &str, agent: &str) -> String {
        let indented = |text: &str| text.lines().flat_map(|line| ["    ", line, "\n"]).collect::<String>();
        let ca = self.root.path().join("outside-ca.pem");
        // As in a company's bundle: a comment and an unrelated certificate come first, and lines end with CRLF.
        let bundle = format!("# Example Root\n{}\n# Outside\n{}", stranger(), self.outside.ca).replace('\n', "\r\n");
        std::fs::write(&ca, bundle).unwrap();
        format!(
            "bottles:\n  lab:\n    networks: {{egress_subnet: {}}}\n    tls: {{upstream_ca: {}}}\n    images:\n      pipelock: {}\n      \
             packages: [nodejs, python3, python3-requests]\n      claude_code: \"{}\"\n{}agents:\n  tester:\n    bottle: lab\n    command: [sh, -c, id]\n{}",
            self.egress_subnet.net(),
            ca.display(),
            pipelock_image(),
            bottle::plan::CLAUDE_CODE_VERSION,
            indented(bottle),
            indented(agent),
        )
    }

    /// Returns the plan of that manifest.
    pub fn plan(&self, bottle: &str, agent: &str) -> BottlePlan {
        self.plan_of(&self.manifest(bottle, agent))
    }

    /// Returns the plan of a whole manifest.
    pub fn plan_of(&self, manifest: &str) -> BottlePlan {
        self.plan_from(&Manifest::parse(manifest).unwrap())
    }

    /// Returns the plan of a manifest that was changed in code.
    pub fn plan_from(&self, manifest: &Manifest) -> BottlePlan {
        let host = host();
        let request = PlanRequest {
            agent: None,
            slug: Some(self.slug.parse().unwrap()),
            prefix: Prefix::default(),
            manifest_dir: Some(self.root.path()),
            host: &host.facts,
            random: [0; 5],
        };
        manifest.plan(request).unwrap()
    }

    /// Returns the launch options of the tests, with the lab's own state directory.
    pub fn options(&self) -> Bottles {
        self.options_of(engine())
    }

    /// Returns the launch options of the tests for an engine.
    pub fn options_of(&self, engine: Engine) -> Bottles {
        Bottles::new(engine, host()).with_state_root(self.state_root())
    }

    pub fn state_root(&self) -> StateRoot {
        StateRoot::at(self.root.path().join("state"))
    }

    /// Returns the bottle's own state directory.
    pub fn state(&self) -> PathBuf {
        self.state_root().bottle(&self.slug.parse().unwrap()).dir().to_owned()
    }

    /// Launches the bottle and connects the outside host to its egress network.
    pub fn launch(&self, bottle: &str, agent: &str) -> Bottle {
        let bottle = self.options().launch(self.plan(bottle, agent)).unwrap_or_else(|error| panic!("{error}"));
        self.outside.connect(&bottle.names().egress_network());
        bottle
    }

    /// Launches the bottle in a process of its own, which has further variables and is killed while the agent runs.
    pub fn launch_and_kill(&self, bottle: &str, variables: &[(&str, &str)]) {
        let file = self.root.path().join("killed.yaml");
        std::fs::write(&file, self.manifest(bottle, "")).unwrap();
        host();
        let mut command = example("launch");
        command.current_dir(scratch().join("workspace")).envs(variables.iter().copied());
        command.arg("--manifest").arg(file).arg("--state-dir").arg(self.root.path().join("state"));
        command.args(["--slug", &self.slug, "--", "sh", "-c", "echo ready; exec sleep 300"]);
        let mut launcher = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(launcher.stdout.take().unwrap()).read_line(&mut line).unwrap();
        launcher.kill().unwrap();
        launcher.wait().unwrap();
        assert_eq!(line, "ready\n", "the launch failed");
    }

    /// Takes the bottle down and asserts that nothing is left of it.
    pub fn close(&self, bottle: &Bottle) {
        self.outside.disconnect(&bottle.names().egress_network());
        let report = bottle.close().unwrap_or_else(|error| error.report);
        assert!(report.is_clean(), "{report}");
        self.assert_nothing_left();
    }

    /// Asserts that engine and state directory have nothing of this bottle except what is meant to stay.
    pub fn assert_nothing_left(&self) {
        let filter = format!("label=claude-bottle.slug={}", self.slug);
        for kind in [vec!["ps", "-aq"], vec!["network", "ls", "-q"], vec!["volume", "ls", "-q"], vec!["images", "-q"]] {
            let left = docker(kind.iter().copied().chain(["--filter", filter.as_str()])).stdout;
            assert_eq!(left.trim(), "", "docker {kind:?} still shows something of {}", self.slug);
        }
        let image = format!("claude-bottle-workspace:{}", self.slug);
        assert_eq!(docker(["images", "-q", &image]).stdout.trim(), "");
        let state = self.state();
        for entry in std::fs::read_dir(&state).into_iter().flatten() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            let stays = [
                "compose.log",
                "docker-compose.yml",
                "events.jsonl",
                "lock",
                "metadata.json",
                "plan.json",
                "supervise",
            ];
            assert!(stays.contains(&name.as_str()), "{name} is left in {}", state.display());
        }
    }
}

/// Returns the directory in `target` that holds every test's scratch directory.
pub fn scratch() -> PathBuf {
    // The test binary is in `<target>/<profile>/deps`.
    let program = std::env::current_exe().unwrap();
    let path = program.ancestors().nth(3).unwrap().join("tmp/e2e");
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Returns the host, with a workspace of its own so that no test copies this repository.
pub fn host() -> Host {
    let host = Host::current().unwrap();
    let mut facts = host.facts.clone();
    facts.cwd = scratch().join("workspace");
    std::fs::create_dir_all(&facts.cwd).unwrap();
    std::fs::write(facts.cwd.join("README.md"), "a workspace\n").unwrap();
    Host::new(facts, host.environment().collect::<Vec<_>>())
}

pub fn engine() -> Engine {
    let backend = Arc::new(Subprocess::new(Host::current().unwrap().environment()));
    Engine::detect(backend, &EngineChoice::Auto, Control::cancelled_by(CancelToken::default())).unwrap()
}

/// Runs a shell script as the agent.
pub fn sh(bottle: &Bottle, script: &str) -> Finished {
    let exec = Exec::new(["sh", "-c", script]).with_timeout(std::time::Duration::from_secs(120));
    let output = bottle.exec(exec).unwrap_or_else(|error| panic!("{error}"));
    Finished {
        code: output.status.as_shell_code(),
        stdout: output.stdout.text(),
        stderr: output.stderr.text(),
        duration: output.duration,
    }
}

/// Encodes a text in base64 (RFC 4648, section 4).
pub fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in text.as_bytes().chunks(3) {
        let bits = (0..3).fold(0, |bits, index| bits << 8 | u32::from(*group.get(index).unwrap_or(&0)));
        for digit in 0..4 {
            let known = digit <= group.len();
            out.push(if known { DIGITS[(bits >> (18 - 6 * digit) & 63) as usize].into() } else { '=' });
        }
    }
    out
}

/// Returns the certificate of an authority that no host of the tests uses.
fn stranger() -> String {
    use bottle::tls::{CaRole, CaSpec, CertificateAuthority, SystemRandom};
    let spec = CaSpec::new("stranger", CaRole::Pipelock, SystemTime::now());
    CertificateAuthority::mint(&spec, &mut SystemRandom).unwrap().certificate_pem().to_owned()
}
