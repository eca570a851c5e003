//! Supervise: the agent proposes, a person decides.

mod approval;
mod attack;
mod audit;
mod ends;
mod live;
mod scope;

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bottle::exec::Stdin;
use bottle::exec::engine::Exec;
use bottle::plan::{Service, StateLayout};
use bottle::supervise::{
    ApplyStatus, AuditError, AuditLog, Decision, QueueError, Review, SuperviseError, Supervisor, Verdict, When,
};
use bottle::{Bottle, Host};
use serde_json::{Value, json};

use bottle_testing::lab::{FORBIDDEN, Lab, OUTSIDE, docker, engine, example, figure, run, sh};

/// Supervise and pipelock only, with calls that wait only briefly.
const SMALL: &str = "supervise: {wait: 2s}\negress: {allow: [outside.test]}";

/// Every sidecar.
const FULL: &str = "\
supervise: {wait: 40s}
egress:
  allow: [outside.test]
  routes:
    - {name: api, host: api.anthropic.com, paths: [/v1/], inject: {token: E2E_TOKEN, scheme: header}}
git:
  upstreams:
    - {name: app, url: \"https://outside.test/demo.git\"}";

const TOKEN: &str = "e2e-token-that-the-agent-never-sees";

/// Runs the client with the SDK that was copied for it.
const ASK: &str = "PYTHONPATH=$(echo /tmp/python3*/site-packages) python3 /tmp/ask.py";

/// A supervised bottle with the official client in its agent's container.
struct Supervised {
    lab: Lab,
    bottle: Bottle,
    supervisor: Supervisor,
}

impl Supervised {
    fn launch(test: &str, manifest: &str) -> Self {
        Self::launch_in(Lab::new(test), manifest)
    }

    /// Launches a bottle whose outside host has these names as well.
    fn launch_with_names(test: &str, manifest: &str, names: &[String]) -> Self {
        let all = format!("OUTSIDE_NAMES={OUTSIDE},{FORBIDDEN},{}", names.join(","));
        let it = Self::launch_in(Lab::with_outside(test, &["--env", &all]), manifest);
        let (network, container) = (it.bottle.names().egress_network(), it.lab.outside.container().to_owned());
        docker(["network", "disconnect", &network, &container]);
        let names = names.iter().map(String::as_str).chain([OUTSIDE, FORBIDDEN]);
        let aliases = names.flat_map(|name| ["--alias", name]);
        docker(["network", "connect"].into_iter().chain(aliases).chain([network.as_str(), container.as_str()]));
        it
    }

    fn launch_in(lab: Lab, manifest: &str) -> Self {
        let mut options = lab.options();
        let environment: Vec<_> = options.host().environment().chain([("E2E_TOKEN".into(), TOKEN.into())]).collect();
        let facts = options.host().facts.clone();
        options = options.with_host(Host::new(facts, environment));
        let bottle = options.launch(lab.plan(manifest, "")).unwrap_or_else(|error| panic!("{error}"));
        lab.outside.connect(&bottle.names().egress_network());
        let supervisor = Supervisor::open(engine(), &lab.state_root(), bottle.slug()).unwrap();
        let this = Self { lab, bottle, supervisor };
        this.bring_client();
        this
    }

    /// Copies the client's packages from the sidecar's image, which has the same base as the agent's.
    fn bring_client(&self) {
        let sidecar = self.container(Service::Supervise);
        let image = docker(["inspect", "--format", "{{.Config.Image}}", &sidecar]).stdout;
        let copy = format!(
            "docker run --rm --network none --entrypoint sh {} -c 'cd /opt/supervise/lib && tar -cf - python3*' | docker exec -i {} tar -C /tmp -xf -",
            image.trim(),
            self.container(Service::Agent)
        );
        let copied = run(Command::new("sh").args(["-c", &copy]));
        assert_eq!(copied.code, 0, "{copied:?}");
        for (name, text) in [
            ("ask.py", include_str!("supervise/ask.py")),
            ("knock.py", include_str!("supervise/knock.py")),
            ("raw.py", include_str!("supervise/raw.py")),
            ("scan.py", include_str!("supervise/scan.py")),
        ] {
            let exec = Exec::new(["sh", "-c", &format!("cat > /tmp/{name}")]).with_stdin(Stdin::Bytes(text.into()));
            assert!(self.bottle.exec(exec).unwrap().status.is_success());
        }
    }

    fn container(&self, service: Service) -> String {
        self.bottle.names().container(service)
    }

    fn layout(&self) -> StateLayout {
        self.lab.state_root().bottle(self.bottle.slug())
    }

    /// Calls tools through the official client, in one session.
    fn ask(&self, calls: &Value) -> Vec<Value> {
        self.python(ASK, calls)
    }

    fn raw(&self, requests: &Value) -> Vec<Value> {
        self.python("python3 /tmp/raw.py", requests)
    }

    fn python(&self, command: &str, input: &Value) -> Vec<Value> {
        let exec = Exec::new(["sh", "-c", command])
            .with_stdin(Stdin::Bytes(input.to_string().into_bytes()))
            .with_timeout(Duration::from_secs(120));
        let output = self.bottle.exec(exec).unwrap();
        assert!(output.status.is_success(), "{}\n{}", output.stdout.text(), output.stderr.text());
        output.stdout.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until this many proposals are pending.
    fn pending(&self, count: usize) -> Vec<Review> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let pending = self.supervisor.pending().unwrap();
            if pending.len() >= count || Instant::now() > until {
                assert_eq!(pending.len(), count, "{pending:?}");
                return pending;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Makes one call, and decides on its proposal while the agent waits.
    fn decide(&self, call: &Value, decide: impl FnOnce(&Review) -> Decision) -> (Value, Decision) {
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| self.ask(&json!([call])).remove(0));
            let decision = decide(&self.pending(1)[0]);
            (asked.join().unwrap(), decision)
        })
    }

    fn approve(&self, call: &Value) -> (Value, Decision) {
        self.decide(call, |review| self.supervisor.approve(review, "").unwrap_or_else(|error| panic!("{error}")))
    }

    /// Returns the status of a request of the agent, from whichever proxy answers.
    fn status(&self, arguments: &str) -> String {
        let told = sh(&self.bottle, &format!("curl -s -o /dev/null -w '%{{http_connect}} %{{http_code}}' {arguments}"));
        let (connect, code) = told.stdout.split_once(' ').unwrap();
        if connect == "403" { connect.into() } else { code.trim().into() }
    }

    fn close(self) {
        self.lab.close(&self.bottle);
    }
}

fn status(told: &Value) -> &str {
    told["data"]["status"].as_str().unwrap_or_else(|| panic!("{told}"))
}

fn applied(decision: &Decision) -> (ApplyStatus, &str) {
    let applied = decision.applied.as_ref().unwrap();
    (applied.status, &applied.detail)
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}
