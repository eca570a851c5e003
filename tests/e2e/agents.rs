//! The real Claude Code and Codex, each in a bottle of its example manifest. A server stands for their APIs: it
//! streams, requests two tool calls, and accepts only the real key.

mod adapter;
mod session;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bottle::Host;
use bottle_testing::lab::{Lab, docker, example, figure, host, pipelock_image, run, scratch};
use serde_json::Value;

use session::Session;

/// An agent program and how a person uses it.
struct Client {
    name: &'static str,
    manifest: &'static str,
    key_variable: &'static str,
    host: &'static str,
    version: &'static str,
    /// The arguments that ask one question without a session.
    headless: &'static [&'static str],
    /// Text that the screen shows once a session takes input.
    ready: &'static str,
    /// Input that ends a session.
    exit: &'static str,
}

const CLAUDE: Client = Client {
    name: "claude",
    manifest: include_str!("../../examples/claude.yaml"),
    key_variable: "ANTHROPIC_API_KEY",
    host: "api.anthropic.com",
    version: bottle::plan::CLAUDE_CODE_VERSION,
    headless: &["claude", "--permission-mode", "bypassPermissions", "-p"],
    ready: "bypass permissions on",
    exit: "/exit",
};

const CODEX: Client = Client {
    name: "codex",
    manifest: include_str!("../../examples/codex.yaml"),
    key_variable: "OPENAI_API_KEY",
    host: "api.openai.com",
    version: bottle::plan::CODEX_VERSION,
    headless: &["codex", "exec", "--skip-git-repo-check"],
    ready: "Ask Codex to do anything",
    exit: "/quit",
};

/// The question for which the server calls two tools, and its answer after both returned the result.
const QUESTION: &str = "What is 6 times 7: find out with your tools.";
const ANSWER: &str = "The tools agree: 6 times 7 is 42.";
/// Text that every placeholder contains.
const PLACEHOLDER: &str = "placeholder-egress-injects-the-real-one";
/// Long enough to build an image on a busy machine.
const LAUNCH: Duration = Duration::from_secs(580);
const TURN: Duration = Duration::from_secs(60);

/// A client's bottle in a lab whose server accepts one key.
struct Stage {
    client: Client,
    lab: Lab,
    key: String,
}

impl Stage {
    fn new(client: Client, test: &str) -> Self {
        let nanos = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
        let key = format!("sk-REAL-{nanos:09}-of-{}", client.name);
        let lab = Lab::with_outside(test, &["--env", &format!("OUTSIDE_API_KEY={key}")]);
        Self { client, lab, key }
    }

    /// Returns the example's manifest, with the lab's network and authority added.
    fn manifest(&self) -> String {
        let lab = self.lab.manifest("", "");
        let keys = ["    networks:", "    tls:"];
        let mut added: Vec<&str> = lab.lines().filter(|line| keys.iter().any(|key| line.starts_with(key))).collect();
        assert_eq!(added.len(), keys.len(), "{lab}");
        let pipelock = format!("    images: {{pipelock: {}}}", pipelock_image());
        added.push(&pipelock);
        let name = self.client.name;
        let start = format!("bottles:\n  {name}:\n");
        assert!(self.client.manifest.contains(&start), "{}", self.client.manifest);
        self.client.manifest.replacen(&start, &format!("{start}{}\n", added.join("\n")), 1)
    }

    /// Returns the command `launch --manifest FILE`, with the real key in its environment.
    fn launch(&self) -> Command {
        let file: PathBuf = self.lab.root.path().join("example.yaml");
        std::fs::write(&file, self.manifest()).unwrap();
        host();
        let mut command = example("launch");
        command.current_dir(scratch().join("workspace")).env(self.client.key_variable, &self.key);
        command.arg("--manifest").arg(file).arg("--state-dir").arg(self.lab.root.path().join("state"));
        command.args(["--slug", &self.lab.slug]);
        command
    }

    fn network(&self) -> String {
        format!("claude-bottle-egress-{}", self.lab.slug)
    }

    /// Connects the server as soon as the launch has created the network, which is before the agent starts.
    fn connect(&self) {
        let deadline = Instant::now() + LAUNCH;
        let network = self.network();
        while run(Command::new("docker").args(["network", "inspect", &network])).code != 0 {
            assert!(Instant::now() < deadline, "the launch has made no network");
            std::thread::sleep(Duration::from_millis(100));
        }
        self.lab.outside.connect(&network);
    }

    /// Asserts that the server received the real key and no other.
    fn assert_only_the_real_key_arrived(&self) {
        let events = self.lab.outside.events();
        let asked: Vec<&Value> = events.iter().filter(|event| event["host"] == self.client.host).collect();
        assert!(!asked.is_empty(), "{events:?}");
        for event in asked {
            let headers = event["headers"].as_array().unwrap();
            let credentials: Vec<&str> = headers
                .iter()
                .filter(|pair| ["x-api-key", "authorization"].contains(&&*pair[0].as_str().unwrap().to_lowercase()))
                .map(|pair| pair[1].as_str().unwrap().trim_start_matches("Bearer "))
                .collect();
            assert_eq!(credentials, [self.key.as_str()], "{event}");
        }
        let all = serde_json::to_string(&events).unwrap();
        assert!(!all.contains(PLACEHOLDER), "a placeholder has left the bottle");
    }

    /// Returns every request of the client as method and target, with its count.
    fn requests(&self) -> Vec<String> {
        let events = self.lab.outside.events();
        let asked = events.iter().filter(|event| event["host"].is_string());
        asked
            .map(|event| format!("{} {}{}", text(event, "method"), text(event, "host"), text(event, "target")))
            .collect()
    }

    fn headless(self) {
        let question: String =
            self.client.headless.iter().copied().chain([&*format!("'{QUESTION}'")]).collect::<Vec<_>>().join(" ");
        // The command waits for a line, so that the server can leave the bottle's network before it is removed.
        let script = format!(
            "{} --version; {question} < /dev/null; echo \"status $?\"; cat answer.txt; read -r line",
            self.client.name
        );
        let mut command = self.launch();
        command.args(["--", "sh", "-c", &script]);
        let stderr = self.lab.root.path().join("stderr");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(std::fs::File::create(&stderr).unwrap());
        let mut child = Launched(command.spawn().unwrap());
        self.connect();
        let mut printed = String::new();
        let mut output = BufReader::new(child.0.stdout.take().unwrap());
        while output.read_line(&mut printed).unwrap() > 0 && !printed.contains("\n6 times 7") {}
        self.lab.outside.disconnect(&self.network());
        child.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        output.read_to_string(&mut printed).unwrap();
        let status = child.0.wait().unwrap();
        let stderr = std::fs::read_to_string(&stderr).unwrap();
        assert!(status.success(), "{printed}{stderr}");
        let lines: Vec<&str> = printed.lines().collect();
        assert!(lines[0].split_whitespace().any(|word| word == self.client.version), "{printed}");
        assert!(lines.contains(&ANSWER) && lines.contains(&"status 0"), "{printed}{stderr}");
        assert!(lines.last().unwrap().starts_with("6 times 7 is 42"), "{printed}");
        // A WebSocket is either passed or refused at once. Codex would print each retry.
        assert!(!stderr.contains("Reconnecting"), "{stderr}");
        println!("{} headless asked: {:#?}", self.client.name, self.requests());
        self.assert_only_the_real_key_arrived();
        self.lab.assert_nothing_left();
    }

    fn interactive(self) {
        let mut session = Session::start(&self.launch());
        self.connect();
        session.wait_for(self.client.ready, LAUNCH);
        println!("{}", session.contents());
        session.enter(QUESTION);
        let asked = Instant::now();
        session.wait_for(ANSWER, TURN);
        println!("{}", session.contents());
        figure(format_args!(
            "{}: an answer after {:.2} s in a session",
            self.client.name,
            asked.elapsed().as_secs_f64()
        ));
        self.lab.outside.disconnect(&self.network());
        session.enter(self.client.exit);
        let (status, printed) = session.status();
        assert_eq!(status, Some(0), "{printed}");
        println!("{} session asked: {:#?}", self.client.name, self.requests());
        self.assert_only_the_real_key_arrived();
        self.lab.assert_nothing_left();
    }

    /// Compares the client with the same configuration in a bottle and in a plain container, alternately.
    fn beside_the_same_without_a_bottle(self) {
        const PAIRS: usize = 5;
        let host = host();
        let key = (self.client.key_variable.into(), self.key.clone().into());
        let host = Host::new(host.facts.clone(), host.environment().chain([key]));
        let bottle = self.lab.options().with_host(host).launch(self.lab.plan_of(&self.manifest()));
        let bottle = bottle.unwrap_or_else(|error| panic!("{error}"));
        self.lab.outside.connect(&bottle.names().egress_network());
        let agent = bottle.names().project();
        let plain = Plain::beside(&self, &agent);
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for _ in 0..PAIRS {
            for (container, times) in [(&agent, &mut inside), (&plain.0, &mut outside)] {
                let mut command = Command::new("docker");
                command.args(["exec", "--user", "agent", "--workdir", "/workspace", container, "timeout", "60"]);
                let asked = run(command.args(self.client.headless).arg(QUESTION));
                assert!(asked.code == 0 && asked.stdout.contains(ANSWER), "{asked:?}");
                times.push(asked.duration.as_secs_f64());
            }
        }
        let (inside, outside) = (median(inside), median(outside));
        figure(format_args!(
            "{}: prompt to answer {inside:.2} s in a bottle, {outside:.2} s without one (medians of {PAIRS} pairs)",
            self.client.name
        ));
        assert!(inside < outside + 2.0, "{inside:.2} s in a bottle, {outside:.2} s without");
        // The plain container uses the derived image.
        drop(plain);
        self.lab.close(&bottle);
    }
}

fn text<'a>(event: &'a Value, key: &str) -> &'a str {
    event[key].as_str().unwrap_or_default()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A launch that gets SIGTERM if a test fails, so that it takes its bottle down.
struct Launched(Child);

impl Drop for Launched {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            run(Command::new("kill").args(["-TERM", &self.0.id().to_string()]));
            _ = self.0.wait();
        }
    }
}

/// A container of the agent's image on the server's own network, with the agent's home and the real key.
struct Plain(String);

impl Plain {
    fn beside(stage: &Stage, agent: &str) -> Self {
        let (outside, key) = (&stage.lab.outside, &stage.key);
        let name = format!("bottle-e2e-plain-{}", stage.lab.slug);
        let image = docker(["inspect", "--format", "{{.Image}}", agent]).stdout;
        let address = outside.address(outside.network());
        let server = format!("{}:{address}", stage.client.host);
        let mut command = Command::new("docker");
        command.env(stage.client.key_variable, key);
        command.args(["run", "--detach", "--init", "--name", &name, "--network", outside.network()]);
        command.args(["--add-host", &server, "--env", stage.client.key_variable]);
        for variable in
            ["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1", "SSL_CERT_FILE=/ca.pem", "NODE_EXTRA_CA_CERTS=/ca.pem"]
        {
            command.args(["--env", variable]);
        }
        command.args([image.trim(), "sleep", "infinity"]);
        assert_eq!(run(&mut command).code, 0);
        let plain = Self(name);
        let ca = stage.lab.root.path().join("ca.pem");
        std::fs::write(&ca, &outside.ca).unwrap();
        docker(["cp", ca.to_str().unwrap(), &format!("{}:/ca.pem", plain.0)]);
        // Copies the bottle's configuration. Codex also needs a login with the real key.
        let copy = format!(
            "docker exec --user agent {agent} tar -C /home/agent -cf - . | docker exec --interactive --user agent {} tar -C /home/agent -xf -",
            plain.0
        );
        assert_eq!(run(Command::new("sh").args(["-c", &copy])).code, 0);
        let login =
            "command -v codex > /dev/null || exit 0; printf %s \"$OPENAI_API_KEY\" | codex login --with-api-key";
        docker(["exec", "--user", "agent", &plain.0, "sh", "-c", login]);
        plain
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        run(Command::new("docker").args(["rm", "--force", "--volumes", &self.0]));
    }
}

#[test]
#[ignore = "needs a container engine"]
fn claude_code_answers_with_two_tool_calls() {
    Stage::new(CLAUDE, "claude-p").headless();
}

#[test]
#[ignore = "needs a container engine"]
fn codex_answers_with_two_tool_calls() {
    Stage::new(CODEX, "codex-exec").headless();
}

#[test]
#[ignore = "needs a container engine"]
fn a_session_of_claude_code_starts_answers_and_ends() {
    Stage::new(CLAUDE, "claude-tty").interactive();
}

#[test]
#[ignore = "needs a container engine"]
fn a_session_of_codex_starts_answers_and_ends() {
    Stage::new(CODEX, "codex-tty").interactive();
}

#[test]
#[ignore = "needs a container engine"]
fn an_answer_of_claude_code_takes_little_longer_than_without_a_bottle() {
    Stage::new(CLAUDE, "claude-time").beside_the_same_without_a_bottle();
}

#[test]
#[ignore = "needs a container engine"]
fn an_answer_of_codex_takes_little_longer_than_without_a_bottle() {
    Stage::new(CODEX, "codex-time").beside_the_same_without_a_bottle();
}
