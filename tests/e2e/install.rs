//! Package managers through a bottle, beside the same without one.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use bottle::Bottle;
use bottle::exec::engine::Exec;
use bottle::plan::Service;
use serde_json::{Value, json};

use super::egress::{arrived, header, host_with};
use super::sidecar_state::assert_alive;
use bottle_testing::lab::{Lab, docker, figure, not_run, run, sh, variable};

/// The names of the host with the packages, which its pages and the certificate have as well.
const NAMES: [&str; 3] = ["pypi.example.com", "files.example.com", "npm.example.com"];

/// Every sidecar. No host with packages has a route, so its `inspect` is the default.
const FULL: &str = "\
env:
  PIP_INDEX_URL: https://pypi.example.com/simple/
  PIP_DISABLE_PIP_VERSION_CHECK: \"1\"
  NPM_CONFIG_REGISTRY: https://npm.example.com/
  NPM_CONFIG_UPDATE_NOTIFIER: \"false\"
supervise: true
git:
  upstreams:
    - {name: app, url: \"https://outside.test/demo.git\"}
egress:
  allow: [pypi.example.com, files.example.com, npm.example.com]
  routes:
    - {name: api, host: api.anthropic.com, paths: [/echo], inject: {token: E2E_API_KEY, scheme: header}}";

/// The variables of `FULL` for a container without a bottle.
const DIRECT: [&str; 6] = [
    "PIP_INDEX_URL=https://pypi.example.com/simple/",
    "PIP_DISABLE_PIP_VERSION_CHECK=1",
    "NPM_CONFIG_REGISTRY=https://npm.example.com/",
    "NPM_CONFIG_UPDATE_NOTIFIER=false",
    "NODE_EXTRA_CA_CERTS=/ca.pem",
    "CURL_CA_BUNDLE=/ca.pem",
];

/// Debian's npm takes minutes to install, so the clients get npm as npm itself is published.
const GET_NPM: &str = "mkdir ~/npm; curl -fsS https://npm.example.com/npm/-/npm-11.6.0.tgz | tar -xz -C ~/npm";

/// Prints the milliseconds of `pip install` with a cold cache in a new environment.
const PIP: &str = "\
rm -rf ~/.cache ~/venv; python3 -m venv ~/venv
started=$(date +%s%N)
~/venv/bin/pip install --quiet numpy pandas >&2
ended=$(date +%s%N)
~/venv/bin/python -c 'import numpy, pandas; assert pandas.DataFrame({\"n\": numpy.arange(5)}).n.sum() == 10'
echo $(((ended - started) / 1000000))";

/// Prints the milliseconds of `npm install` with a cold cache in a directory with nothing but `package.json`.
const NPM: &str = "\
rm -rf ~/.npm ~/app/node_modules ~/app/package-lock.json; cd ~/app
started=$(date +%s%N)
node ~/npm/package/bin/npm-cli.js install --no-audit --no-fund >&2
ended=$(date +%s%N)
node -e 'require(\"next\"); require(\"eslint\"); require(\"react-dom/server\")
  const {outputText} = require(\"typescript\").transpileModule(\"const n: number = 1\", {})
  if (outputText.includes(\"number\")) throw outputText' >&2
echo $(((ended - started) / 1000000))";

/// Rounds of each install. In a round both ways run, and the one that starts alternates, so that a busy machine is unfair to
/// neither. An odd number has a median.
const ROUNDS: usize = 3;

#[test]
#[ignore = "needs a container engine"]
fn pip_and_npm_installs_take_at_most_half_longer_than_direct() {
    let image = packages_image();
    let lab = Lab::new("install");
    let token = format!("sk-ant-api03-REAL-{}", lab.slug);
    let whole = lab.manifest(FULL, "").replace("python3-requests]", "python3-venv]");
    let mut options = lab.options();
    options = options.with_host(host_with(&[("E2E_API_KEY", &token)]));
    let bottle = options.launch(lab.plan_of(&whole)).unwrap_or_else(|error| panic!("{}", bottle::report(&error)));
    let network = bottle.names().egress_network();
    lab.outside.connect(&network);
    let packages = Packages::start(&lab, &image, &network);
    let direct = Direct::start(&lab, &bottle, &network);

    let app = "mkdir ~/app; cat > ~/app/package.json <<'end'\n";
    let prepare = format!("{GET_NPM}; {app}{}end", include_str!("../images/packages/package.json"));
    direct.run(&prepare);
    inside(&bottle, &prepare);
    for (what, script, fewest) in [("pip install numpy pandas", PIP, 16), ("npm install", NPM, 600)] {
        let measured = |through: bool| {
            packages.take_requests();
            let printed = if through { inside(&bottle, script) } else { direct.run(script) };
            (milliseconds(&printed), packages.take_requests())
        };
        let (mut without, mut through) = (Vec::new(), Vec::new());
        for round in 1..=ROUNDS {
            let first = measured(round % 2 == 0);
            let second = measured(round % 2 == 1);
            let ((plain, asked), (bottled, asked_through)) =
                if round % 2 == 1 { (first, second) } else { (second, first) };
            // The same requests, each answered, and none of them twice.
            assert!(asked.requests() >= fewest, "{what}: {asked:?}");
            assert_eq!(asked.answers, asked_through.answers, "{what}");
            figure(format_args!(
                "{what}, round {round}: direct {plain} ms, through the bottle {bottled} ms; {} requests over {} and {} connections; {}",
                asked.requests(),
                asked.connections,
                asked_through.connections,
                load()
            ));
            without.push(plain);
            through.push(bottled);
        }
        let ratio = median(&through) / median(&without);
        figure(format_args!(
            "{what}: direct {} ms, through the bottle {} ms, ratio {ratio:.2} (medians of {ROUNDS} rounds)",
            median(&without),
            median(&through)
        ));
        assert!(ratio <= 1.5, "{what}: direct {without:?} ms, through the bottle {through:?} ms");
    }

    // The bottle was a whole one all the while.
    sh(&bottle, "curl -fsS 'https://api.anthropic.com/echo?by=install'").ok();
    assert_eq!(header(&arrived(&lab, "by=install")[0], "x-api-key"), [token.as_str()]);
    for service in [Service::Pipelock, Service::Egress, Service::GitGate, Service::Supervise] {
        assert_alive(&bottle, service, 300);
    }
    let audit = docker(["logs", &bottle.names().container(Service::Egress)]).stdout;
    let lines: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_packages = |line: &&Value| NAMES.iter().any(|name| line["host"] == *name);
    let (lines, refused): (Vec<&Value>, Vec<&Value>) =
        lines.iter().filter(of_packages).partition(|line| line["status"] == 200 && line["error"].is_null());
    assert!(refused.is_empty(), "{refused:?}");
    assert!(lines.len() >= ROUNDS * 616, "egress saw only {} requests", lines.len());
    drop((packages, direct));
    lab.close(&bottle);
}

/// The packages' settings, more hosts than they need, and a route that nothing uses.
const WIDE: &str = "\
env:
  PIP_INDEX_URL: https://pypi.example.com/simple/
  PIP_DISABLE_PIP_VERSION_CHECK: \"1\"
  NPM_CONFIG_REGISTRY: https://npm.example.com/
  NPM_CONFIG_UPDATE_NOTIFIER: \"false\"
egress:
  allow: ['*.example.com', outside.test]
  routes:
    - {name: api, host: api.anthropic.com, paths: [/echo], inject: {token: E2E_API_KEY, scheme: header}}
";

#[test]
#[ignore = "needs a container engine"]
fn what_pip_and_npm_used_is_suggested_and_only_that_works_then() {
    let image = packages_image();
    let launch = |lab: &Lab, lines: &str| {
        let whole = lab.manifest(lines, "").replace("python3-requests]", "python3-venv]");
        let options = lab.options().with_host(host_with(&[("E2E_API_KEY", "sk-ant-api03-REAL-of-the-wide-bottle")]));
        let bottle = options.launch(lab.plan_of(&whole)).unwrap_or_else(|error| panic!("{}", bottle::report(&error)));
        let network = bottle.names().egress_network();
        lab.outside.connect(&network);
        let packages = Packages::start(lab, &image, &network);
        (bottle, packages)
    };
    let app = "mkdir ~/app; cat > ~/app/package.json <<'end'\n";
    let prepare = format!("{GET_NPM}; {app}{}end", include_str!("../images/packages/package.json"));
    let code = |bottle: &Bottle, url: &str| {
        sh(bottle, &format!("curl -s -m 20 -o /dev/null -w '%{{http_code}}' {url}")).stdout
    };

    let lab = Lab::new("wide");
    let (bottle, packages) = launch(&lab, WIDE);
    inside(&bottle, &prepare);
    inside(&bottle, PIP);
    inside(&bottle, NPM);
    let suggestion = lab.options().suggest(bottle.slug()).unwrap();
    let text = suggestion.to_string();
    figure(format_args!("{} requests; suggested:\n{text}", suggestion.usage.requests));
    let section =
        "egress:\n  allow:\n    - files.example.com\n    - npm.example.com\n    - pypi.example.com\n  dlp: block\n";
    assert!(text.ends_with(section), "{text}");
    for closed in ["*.example.com on ports 80, 443", "outside.test on ports 80, 443", "api.anthropic.com:443"] {
        assert!(text.contains(&format!("#   - closes {closed}")), "{closed}: {text}");
    }
    assert!(!text.contains("#   +"), "{text}");
    drop(packages);
    lab.close(&bottle);
    // A program says the same of the bottle that is gone.
    let mut program = bottle_testing::lab::example("bottles");
    program.arg("--state-dir").arg(lab.state_root().path()).args(["suggest", &lab.slug]);
    assert_eq!(run(&mut program).ok(), text.trim_end());

    let lab = Lab::new("locked");
    let env = WIDE.split("egress:").next().unwrap();
    let (bottle, packages) = launch(&lab, &format!("{env}{}", &text[text.find("egress:").unwrap()..]));
    inside(&bottle, &prepare);
    inside(&bottle, PIP);
    inside(&bottle, NPM);
    assert!(packages.take_requests().requests() >= 600);
    for url in ["https://other.example.com/", "https://outside.test/echo", "https://api.anthropic.com/echo"] {
        assert_eq!(code(&bottle, url), "403", "{url}");
    }
    drop(packages);
    lab.close(&bottle);
}

/// The image with the packages. Where they could not be fetched, the variable holds the reason.
#[track_caller]
fn packages_image() -> String {
    let image = variable("BOTTLE_E2E_PACKAGES");
    if !image.starts_with("bottle-e2e/packages:") {
        not_run(&format!("needs packages of pip and npm, which could not be fetched: {image}"));
    }
    image
}

/// Runs a shell script as the agent. Returns what it prints.
#[track_caller]
fn inside(bottle: &Bottle, script: &str) -> String {
    let exec = Exec::new(["sh", "-euc", script]).with_timeout(Duration::from_secs(120));
    let output = bottle.exec(exec).unwrap();
    assert!(output.status.is_success(), "{}: {}", output.status, output.stderr.text());
    output.stdout.text()
}

#[track_caller]
fn milliseconds(printed: &str) -> f64 {
    printed.trim().parse().unwrap_or_else(|_| panic!("{printed}"))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    format!("load {}", load.split_whitespace().next().unwrap())
}

/// The running host with the packages. It is removed with this value.
struct Packages(String);

/// Requests that have reached it: the number of answers of each status to each URL, and of connections.
#[derive(Debug, Default)]
struct Asked {
    answers: BTreeMap<String, usize>,
    connections: usize,
}

impl Asked {
    fn requests(&self) -> usize {
        self.answers.values().sum()
    }
}

impl Packages {
    /// Starts it on a network. The lab's authority signs its certificate.
    fn start(lab: &Lab, image: &str, network: &str) -> Self {
        let authority = lab.root.path().join("authority");
        std::fs::create_dir(&authority).unwrap();
        for file in ["ca.crt", "ca.key"] {
            std::fs::write(authority.join(file), lab.outside.read(&format!("/data/{file}"))).unwrap();
        }
        let container = format!("bottle-e2e-packages-{}", lab.slug);
        let mount = format!("{}:/ca:ro", authority.display());
        let aliases = NAMES.iter().flat_map(|name| ["--network-alias", name]);
        let first = ["run", "--detach", "--name", &container, "--network", network, "--volume", &mount];
        docker(first.into_iter().chain(aliases).chain([image]));
        let this = Self(container);
        for _ in 0..200 {
            let state = docker(["inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", &this.0]).stdout;
            match state.trim() {
                "running healthy" => return this,
                state if state.starts_with("exited") => break,
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        panic!("the host with the packages did not start: {:?}", docker(["logs", &this.0]));
    }

    /// Returns what has reached it since the last call. Fails if a request was not answered with 200.
    #[track_caller]
    fn take_requests(&self) -> Asked {
        let log = "cat /data/requests.jsonl; : > /data/requests.jsonl";
        let text = docker(["exec", &self.0, "sh", "-c", log]).stdout;
        let (mut asked, mut connections) = (Asked::default(), BTreeMap::new());
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["status"], json!(200), "{line}");
            *connections.entry(line["connection"].to_string()).or_insert(0) += 1;
            *asked.answers.entry(format!("{}{}", line["host"], line["path"])).or_default() += 1;
        }
        asked.connections = connections.len();
        asked
    }
}

impl Drop for Packages {
    fn drop(&mut self) {
        run(Command::new("docker").args(["rm", "--force", "--volumes", &self.0]));
    }
}

/// A container of the agent's own image that reaches the packages directly, with the agent's limits.
struct Direct(String);

impl Direct {
    fn start(lab: &Lab, bottle: &Bottle, network: &str) -> Self {
        let container = format!("bottle-e2e-direct-{}", lab.slug);
        let agent = bottle.names().container(Service::Agent);
        let format = "{{.Image}} {{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}";
        let facts = docker(["inspect", "--format", format, &agent]).stdout;
        let [image, memory, nano_cpus, pids] =
            <[&str; 4]>::try_from(facts.split_whitespace().collect::<Vec<_>>()).unwrap_or_else(|_| panic!("{facts}"));
        let cpus = (nano_cpus.parse::<f64>().unwrap() / 1e9).to_string();
        let ca = lab.root.path().join("direct-ca.pem");
        std::fs::write(&ca, &lab.outside.ca).unwrap();
        let mount = format!("{}:/ca.pem:ro", ca.display());
        let first = ["run", "--detach", "--init", "--name", &container, "--network", network, "--volume", &mount];
        let limits = ["--memory", memory, "--cpus", &cpus, "--pids-limit", pids];
        let variables = DIRECT.iter().flat_map(|variable| ["--env", variable]);
        docker(first.into_iter().chain(limits).chain(variables).chain([image, "sleep", "infinity"]));
        let this = Self(container);
        docker(["exec", "--user", "0", &this.0, "sh", "-c", "cat /ca.pem >> /etc/ssl/certs/ca-certificates.crt"]);
        this
    }

    #[track_caller]
    fn run(&self, script: &str) -> String {
        docker(["exec", &self.0, "timeout", "120", "sh", "-euc", script]).stdout
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        run(Command::new("docker").args(["rm", "--force", "--volumes", &self.0]));
    }
}
