//! Supervise: the agent asks, a person decides.

mod live;

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

use bottle_testing::lab::{FORBIDDEN, Lab, OUTSIDE, docker, engine, example, run, sh};

/// Supervise beside pipelock alone, with calls that do not wait for long.
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

/// Runs the client with the SDK that was brought for it.
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

    /// A bottle whose outside host has these names as well.
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

    /// The client's packages are those of the sidecar's own image, which is made of the same base as the agent's.
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

    /// Waits until this many proposals wait.
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

    /// One call that is decided on while the agent waits for it.
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

    /// The status of a request that the agent makes, wherever it is refused.
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

#[test]
#[ignore = "needs a container engine"]
fn an_approval_takes_effect_in_the_running_bottle_and_cuts_nothing() {
    let it = Supervised::launch("approve", FULL);
    let connected = sh(&it.bottle, "cd /tmp && timeout 60 claude mcp list");
    assert!(
        connected.ok().contains("http://supervise:9100/mcp (HTTP)") && connected.stdout.contains("Connected"),
        "{connected:?}"
    );
    let tools = it.ask(&json!([["list_tools", {}]])).remove(0)["tools"].clone();
    let named =
        ["current_config", "propose_allow_host", "propose_route", "propose_git_upstream", "propose_image_change"];
    assert!(named.iter().all(|name| tools.as_array().unwrap().contains(&json!(name))), "{tools}");
    let url = format!("https://{FORBIDDEN}/echo");
    assert_eq!(it.status(&url), "403");

    let proposal = json!(["propose_allow_host", {"host": FORBIDDEN, "reason": "the test\nneeds it"}]);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| it.ask(&json!([proposal, ["current_config", {}]])));
        let review = it.pending(1).remove(0);
        // Events for seven seconds, a request that sleeps, and one that tries until it is let through.
        let stream = scope.spawn(|| sh(&it.bottle, &format!("curl -fsSN 'https://{OUTSIDE}/sse?n=36&ms=200'")));
        let slow = scope.spawn(|| sh(&it.bottle, &format!("curl -fsS 'https://{OUTSIDE}/slow?ms=7000'")));
        let knock = scope.spawn(|| sh(&it.bottle, &format!("python3 /tmp/knock.py {url}")));
        std::thread::sleep(Duration::from_secs(3));
        assert!(!knock.is_finished() && !stream.is_finished() && !slow.is_finished());
        let shown = review.to_string();
        assert!(
            shown.contains("  | needs it\n") && shown.contains("at once") && shown.contains("+ opens forbidden.test"),
            "{shown}"
        );
        let began = SystemTime::now();
        let decision = it.supervisor.approve(&review, "go on").unwrap();
        let took = began.elapsed().unwrap();
        assert!(!stream.is_finished() && !slow.is_finished());

        let told = asked.join().unwrap();
        let known = told[0]["ended"].as_f64().unwrap() - seconds(began);
        assert_eq!(applied(&decision).0, ApplyStatus::Live, "{decision:?}");
        assert_eq!((status(&told[0]), &told[0]["data"]["reason"]), ("approved", &json!("go on")));
        assert_eq!(told[0]["data"]["applied"]["status"], "live");
        assert!(
            told[1]["data"]["posture"]["open_hosts"].as_array().unwrap().contains(&json!(FORBIDDEN)),
            "{}",
            told[1]
        );
        let knocked = knock.join().unwrap();
        let knocked: Value = serde_json::from_str(knocked.ok()).unwrap();
        assert!(
            knocked["refused"]["403"].as_u64().unwrap() > 0 && knocked["refused"].as_object().unwrap().len() == 1,
            "{knocked}"
        );
        let passed = knocked["answered"].as_f64().unwrap() - seconds(began);
        println!(
            "from approval: first allowed request answered after {passed:.3} s, approve returned after {:.3} s, the agent told after {known:.3} s",
            took.as_secs_f64()
        );
        assert!(passed < 3.0, "{passed}");
        assert_eq!(stream.join().unwrap().ok().matches("event: tick").count(), 36);
        assert_eq!(slow.join().unwrap().ok(), "ok");
    });
    assert_eq!(it.status(&url), "200");
    assert!(sh(&it.bottle, "cat /etc/bottle/current-config/posture.txt").ok().contains(FORBIDDEN));

    routes(&it);
    it.supervisor.verify().unwrap();
    it.close();
}

/// Routes in a bottle that has egress: a limit, a credential that is there, one that is not, and a stale consequence.
fn routes(it: &Supervised) {
    let url = format!("https://{FORBIDDEN}/echo");
    let route = json!(["propose_route", {
        "host": FORBIDDEN, "paths": ["/echo"], "methods": ["GET"], "credential": "E2E_TOKEN", "reason": "for its interface",
    }]);
    let (told, decision) = it.decide(&route, |review| {
        let shown = review.to_string();
        assert!(shown.contains("$E2E_TOKEN") && shown.contains("- narrows forbidden.test"), "{shown}");
        it.supervisor.approve(review, "").unwrap()
    });
    assert_eq!((status(&told), applied(&decision).0), ("approved", ApplyStatus::Live), "{decision:?}");
    assert_eq!(
        (it.status(&url), it.status(&format!("-X POST {url}")), it.status(&format!("https://{FORBIDDEN}/"))),
        ("200".into(), "403".into(), "403".into())
    );
    let events = it.lab.outside.events();
    let asked: Vec<_> = events.iter().filter(|event| event["sni"] == FORBIDDEN).collect();
    assert!(asked.last().unwrap()["headers"].to_string().contains(TOKEN), "{:?}", asked.last());
    assert!(!it.supervisor.plan().unwrap().proxy.allow.is_empty());

    // Egress has no such variable, and cannot be given one.
    let unknown = json!(["propose_route", {"host": "api.example.com", "credential": "E2E_OTHER", "reason": "x"}]);
    let (told, decision) = it.approve(&unknown);
    assert_eq!((status(&told), applied(&decision).0), ("approved", ApplyStatus::Recorded));
    assert!(applied(&decision).1.contains("egress holds no credential E2E_OTHER"), "{decision:?}");
    assert!(it.supervisor.plan().unwrap().egress.unwrap().token_slots().len() == 1);
    assert_eq!(it.supervisor.next_plan().unwrap().egress.unwrap().token_slots().len(), 2);

    // Two that are shown together: approving one makes the other something else.
    std::thread::scope(|scope| {
        let calls = [
            json!([["propose_allow_host", {"host": "www.example.com", "reason": "x"}]]),
            json!([["propose_route", {"host": "www.example.com", "methods": ["GET"], "reason": "x"}]]),
        ];
        let asked = calls.map(|calls| scope.spawn(move || it.ask(&calls).remove(0)));
        let pending = it.pending(2);
        let find = |kind: &str| pending.iter().find(|review| review.proposal().change.kind() == kind).unwrap();
        it.supervisor.approve(find("route"), "").unwrap();
        let stale = find("allow_host");
        assert!(matches!(it.supervisor.approve(stale, ""), Err(SuperviseError::ConsequenceChanged(_))));
        let fresh = it.supervisor.show(&stale.proposal().id).unwrap();
        assert_eq!(fresh.consequence().when, When::Never);
        assert!(matches!(it.supervisor.approve(&fresh, ""), Err(SuperviseError::NotPossible { .. })));
        it.supervisor.deny(&fresh, "there is a route").unwrap();
        let told = asked.map(|asked| asked.join().unwrap());
        assert_eq!((status(&told[0]), status(&told[1])), ("denied", "approved"));
    });
}

#[test]
#[ignore = "needs a container engine"]
fn every_other_end_of_a_proposal_is_told_to_the_agent() {
    let it = Supervised::launch("ends", SMALL);
    let host = |name: &str| json!(["propose_allow_host", {"host": name, "reason": "x"}]);

    // Denied, with a reason; asking again is another proposal, which waits.
    let (told, _) = it.decide(&host("denied.example.com"), |review| it.supervisor.deny(review, "not today").unwrap());
    assert_eq!((status(&told), &told["data"]["reason"]), ("denied", &json!("not today")));

    // Nobody answers: pending, with an id; the same again is the same proposal; its end can be asked for later.
    let told = it.ask(&json!([host("late.example.com"), host("late.example.com")]));
    assert_eq!((status(&told[0]), status(&told[1])), ("pending", "pending"));
    let waited = told[0]["ended"].as_f64().unwrap() - told[0]["began"].as_f64().unwrap();
    assert!((1.9..4.0).contains(&waited), "{waited}");
    assert_eq!(told[0]["data"]["id"], told[1]["data"]["id"]);
    let review = it.pending(1).remove(0);
    assert_eq!(told[0]["data"]["id"], json!(review.proposal().id));
    it.supervisor.approve(&review, "").unwrap();
    assert!(matches!(it.supervisor.deny(&review, ""), Err(SuperviseError::Queue(QueueError::AlreadyDecided(_)))));
    let later = it.ask(&json!([["proposal_status", {"id": review.proposal().id}]])).remove(0);
    assert_eq!(status(&later), "approved");

    // Changed after it was shown: no decision on either content, and the agent is told that it is void.
    it.ask(&json!([host("harmless.example.com")]));
    let review = it.pending(1).remove(0);
    let file = it.layout().supervise_queue().join(format!("proposals/{}.json", review.proposal().id));
    let written = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, written.replace("harmless", "evil")).unwrap();
    let refused = it.supervisor.approve(&review, "");
    assert!(matches!(refused, Err(SuperviseError::Queue(QueueError::ChangedSinceShown(_)))), "{refused:?}");
    assert!(!it.supervisor.plan().unwrap().proxy.allow.iter().any(|host| host.as_str().contains("harmless")));
    let changed = it.pending(1).remove(0);
    it.supervisor.approve(&changed, "").unwrap();
    let void = it.ask(&json!([["proposal_status", {"id": changed.proposal().id}]])).remove(0);
    assert!(status(&void) == "changed" && void["text"].as_str().unwrap().starts_with("Void"), "{void}");

    bad_requests(&it);
    recorded(&it);
    it.supervisor.verify().unwrap();
    it.close();
}

fn bad_requests(it: &Supervised) {
    let told = it.ask(&json!([
        ["propose_allow_host", {"host": "198.51.100.7", "reason": "x"}],
        ["propose_allow_host", {"host": "a.example.com"}],
        ["propose_allow_host", {"host": "a.example.com", "reason": "x", "approve": true}],
        ["propose_allow_host", {"host": "a.example.com", "reason": "\u{1b}[2Jlooks fine"}],
        ["propose_allow_host", {"host": "a.example.com", "reason": "x".repeat(2001)}],
        ["propose_route", {"host": "a.example.com", "paths": ["/../x"], "reason": "x"}],
        ["propose_git_upstream", {"name": "a", "url": "https://user:pass@git.example.com/a", "reason": "x"}],
        ["proposal_status", {"id": "../../decisions/x"}],
    ]));
    for answer in &told {
        assert_eq!((status(answer), &answer["is_error"]), ("refused", &json!(true)), "{answer}");
    }
    let url = "http://supervise:9100/mcp";
    let headers = json!({"Content-Type": "application/json", "Accept": "application/json, text/event-stream"});
    let told = it.raw(&json!([
        ["POST", url, headers, "{not json"],
        ["POST", url, headers, "x".repeat(200_000)],
        ["GET", url, headers, ""],
        ["POST", url, {"Host": "elsewhere:9100", "Content-Type": "application/json", "Accept": "application/json, text/event-stream"}, "{}"],
    ]));
    let codes: Vec<_> = told.iter().map(|answer| answer[0].as_u64().unwrap()).collect();
    assert_eq!(codes, [400, 413, 405, 421], "{told:?}");
    it.pending(0);
}

/// What no reload can bring about is kept for the next launch, or said to be a person's work.
fn recorded(it: &Supervised) {
    let ends = [
        (json!(["propose_route", {"host": "api.example.com", "methods": ["GET"], "reason": "x"}]), "no egress sidecar"),
        (
            json!(["propose_git_upstream", {"name": "lib", "url": "https://git.example.com/team/lib.git", "reason": "x"}]),
            "git-gate",
        ),
        (
            json!(["propose_git_upstream", {"name": "own", "url": "git@git.example.com:team/own.git", "reason": "x"}]),
            "key",
        ),
        (json!(["propose_image_change", {"packages": ["ripgrep"], "reason": "x"}]), "built with them"),
        (json!(["propose_image_change", {"dockerfile_patch": "RUN true", "reason": "x"}]), "a person has to build"),
    ];
    for (call, why) in &ends {
        // The queue takes ten proposals a minute.
        let (told, decision) = it.approve(call);
        assert_eq!((status(&told), applied(&decision).0), ("approved", ApplyStatus::Recorded), "{decision:?}");
        assert!(applied(&decision).1.contains(why) && told["text"].as_str().unwrap().contains(why), "{told}");
    }
    let (plan, next) = (it.supervisor.plan().unwrap(), it.supervisor.next_plan().unwrap());
    assert!(plan.egress.is_none() && plan.git_gate.is_none() && plan.proxy.allow.len() < next.proxy.allow.len());
    assert_eq!(next.egress.unwrap().routes[0].host.as_str(), "api.example.com");
    assert_eq!(next.git_gate.unwrap().upstreams.len(), 1);
    assert!(next.images.agent.packages.iter().any(|package| package.as_str() == "ripgrep"));

    // Ten in a minute, and no more: the flood is refused, and the refusals are cheap.
    let flood: Vec<Value> =
        (0..12).map(|n| json!(["propose_image_change", {"packages": [format!("flood{n}")], "reason": "x"}])).collect();
    let told: Vec<Value> = std::thread::scope(|scope| {
        let asked: Vec<_> = flood.chunks(4).map(|calls| scope.spawn(move || it.ask(&json!(calls)))).collect();
        asked.into_iter().flat_map(|asked| asked.join().unwrap()).collect()
    });
    let refused = told.iter().filter(|answer| answer["data"]["code"] == "rate").count();
    assert!(refused >= 2, "{told:?}");
}

#[test]
#[ignore = "needs a container engine"]
fn nothing_that_the_agent_can_reach_approves() {
    let it = Supervised::launch("attack", FULL);
    let proposal = json!(["propose_allow_host", {"host": FORBIDDEN, "reason": "x"}]);

    // An approved one and its request, to be sent again; then one that waits, for all that follows to be tried on.
    let call = |id: u64, name: &str, arguments: &Value| {
        let body = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "arguments": arguments}});
        let headers = json!({"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"});
        json!(["POST", "http://supervise:9100/mcp", headers, body.to_string()])
    };
    let request = call(7, "propose_allow_host", &json!({"host": "replay.example.com", "reason": "x"}));
    let first = std::thread::scope(|scope| {
        let asked = scope.spawn(|| it.raw(&json!([request])).remove(0));
        it.supervisor.deny(&it.pending(1)[0], "").unwrap();
        asked.join().unwrap()
    });
    assert!(first[0] == 200 && first[1].as_str().unwrap().contains("denied"), "{first}");
    std::thread::scope(|scope| {
        let asked =
            [scope.spawn(|| it.raw(&json!([request])).remove(0)), scope.spawn(|| it.ask(&json!([proposal])).remove(0))];
        let waiting = it.pending(2);
        try_everything(&it, &call, &waiting);
        let still = it.pending(2);
        assert_eq!(still, waiting);
        let decided = std::fs::read_dir(it.layout().supervise_decisions()).unwrap();
        assert_eq!(
            decided.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains('-')).count(),
            1
        );
        assert_eq!(it.status(&format!("https://{FORBIDDEN}/echo")), "403");
        for review in &still {
            it.supervisor.deny(review, "").unwrap();
        }
        for asked in asked {
            let told = asked.join().unwrap().to_string();
            assert!(told.contains("denied") && !told.contains("approved"), "{told}");
        }
    });
    it.supervisor.verify().unwrap();
    it.close();
}

fn try_everything(it: &Supervised, call: &dyn Fn(u64, &str, &Value) -> Value, waiting: &[Review]) {
    let id = &waiting[0].proposal().id;
    let decision = json!({
        "version": 1, "id": id, "proposal_sha256": waiting[0].sha256(), "decision": "approved", "reason": "",
        "decided_at": "2026-01-02T03:04:05.678Z", "applied": {"status": "live", "detail": ""},
    });

    // Every port of every service on the internal network. Pipelock is for egress alone where there is egress.
    let services =
        [Service::Pipelock, Service::GitGate, Service::Egress, Service::Supervise].map(|service| it.container(service));
    let began = Instant::now();
    let scanned = sh(&it.bottle, &format!("python3 /tmp/scan.py {}", services.join(" ")));
    let found: Value = serde_json::from_str(scanned.ok()).unwrap();
    println!("4 x 65535 ports in {:.1} s: {found}", began.elapsed().as_secs_f64());
    let ports: [&[u16]; 4] = [&[], &[9418], &[9099], &[9100]];
    let expected = services.iter().cloned().zip(ports).collect::<std::collections::BTreeMap<_, _>>();
    assert_eq!(found, json!(expected));

    // Whatever answers HTTP there, asked to decide.
    let mut requests = vec![
        call(1, "approve", &json!({"id": id})),
        call(2, "decide", &decision),
        call(3, "proposal_status", &json!({"id": id, "decision": "approved"})),
        call(4, "proposal_status", &json!({"id": format!("../../decisions/{id}")})),
        json!(["POST", "http://supervise:9100/mcp", {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"},
            json!({"jsonrpc": "2.0", "id": 5, "method": "supervise/approve", "params": decision}).to_string()]),
    ];
    for (service, port) in services.iter().zip([8888, 9418, 9099, 9100]).filter(|(_, port)| *port != 9418) {
        for path in ["approve", "decisions", "reload", "-/reload", "config", "admin", "api/v1/approve", "mcp/approve"] {
            for method in ["POST", "PUT"] {
                let url = format!("http://{service}:{port}/{path}");
                requests.push(json!([method, url, {"Content-Type": "application/json"}, decision.to_string()]));
            }
        }
    }
    let told = it.python("http_proxy= https_proxy= HTTP_PROXY= HTTPS_PROXY= python3 /tmp/raw.py", &json!(requests));
    let is_refused = |answer: &&Value| {
        let (code, text) = (answer[0].as_u64().unwrap(), answer[1].as_str().unwrap());
        code == 0 || code >= 400 || text.contains("\"error\"") || text.contains("\"isError\":true")
    };
    assert_eq!(told.iter().filter(is_refused).count(), requests.len(), "{told:?}");
    // By way of the proxies, which reach more than the agent does.
    for (proxy, expected) in [(format!("{}:8888", services[0]), "000"), ("egress:9099".to_owned(), "403")] {
        let url = "http://supervise:9100/healthz";
        let command = format!("curl -s -o /dev/null -w '%{{http_code}}' --noproxy '' -x http://{proxy} {url}");
        let tried = sh(&it.bottle, &command);
        assert_eq!(tried.stdout, expected, "{tried:?}");
    }

    mounts(it, &decision, id.as_ref());
}

/// Writes to every mount of the agent, and to what the sidecar itself has.
fn mounts(it: &Supervised, decision: &Value, id: &str) {
    let script = format!(
        "while read -r _ at type _; do
           if [ -d \"$at\" ]; then file=\"$at/{id}.json\"; else file=\"$at\"; fi
           (printf '%s' '{decision}' >> \"$file\") 2>/dev/null && echo \"$at $type\"
           mount -o remount,rw,bind \"$at\" 2>/dev/null && echo \"remounted $at\"
         done < /proc/self/mounts; true"
    );
    let written = sh(&it.bottle, &script);
    let own = ["tmpfs", "mqueue", "overlay"];
    for line in written.ok().lines() {
        let (at, kind) = line.split_once(' ').unwrap();
        let harmless = own.contains(&kind) || ["/dev", "/dev/pts", "/dev/null"].contains(&at) || kind == "devpts";
        assert!(harmless, "the agent wrote to {line}\n{written:?}");
    }
    let unshared = sh(&it.bottle, "unshare -Urm mount -o remount,rw,bind /etc/bottle/current-config");
    assert_ne!(unshared.code, 0, "{unshared:?}");
    let seen = sh(
        &it.bottle,
        "ls /queue /decisions /etc/bottle/current-config 2>/dev/null; find / -name audit.jsonl 2>/dev/null",
    );
    assert_eq!(seen.stdout, "/etc/bottle/current-config:\nposture.json\nposture.txt\n");

    // Even a sidecar that was taken over cannot: its mount of the decisions is read-only, and it cannot change that.
    let sidecar = it.container(Service::Supervise);
    for attempt in [
        format!("printf '%s' '{decision}' > /decisions/{id}.json"),
        "mount -o remount,rw /decisions".to_owned(),
        "umount /decisions".to_owned(),
        format!("ln -f /queue/proposals/{id}.json /decisions/{id}.json"),
    ] {
        let tried = run(Command::new("docker").args(["exec", &sidecar, "sh", "-c", &attempt]));
        assert_ne!(tried.code, 0, "{attempt}: {tried:?}");
    }
    // What it can write does not count: a decision among the proposals is none.
    let forged = format!(
        "mkdir -p /queue/decisions && printf '%s' '{decision}' > /queue/decisions/{id}.json && printf '%s' '{decision}' > /queue/proposals/{id}.decision.json"
    );
    docker(["exec", &sidecar, "sh", "-c", &forged]);
    docker(["exec", &sidecar, "rm", "-r", "/queue/decisions", &format!("/queue/proposals/{id}.decision.json")]);
}

/// What is done to a file, which file, and how.
type Edit = (&'static str, PathBuf, fn(&str) -> String);

#[test]
#[ignore = "needs a container engine"]
fn logs_show_tampering_and_a_killed_sidecar_loses_nothing_that_was_decided() {
    let it = Supervised::launch("audit", SMALL);
    let mut decided = Vec::new();
    for round in 0..4_u32 {
        // Killed while it takes proposals: at another moment in each round.
        std::thread::scope(|scope| {
            let calls = json!([
                ["propose_allow_host", {"host": format!("a{round}.example.com"), "reason": "x".repeat(2000)}],
                ["propose_allow_host", {"host": format!("b{round}.example.com"), "reason": "x".repeat(2000)}],
            ]);
            let exec = Exec::new(["sh", "-c", ASK])
                .with_stdin(Stdin::Bytes(calls.to_string().into_bytes()))
                .with_timeout(Duration::from_secs(30));
            let bottle = &it.bottle;
            let client = scope.spawn(move || bottle.exec(exec));
            let until = Instant::now() + Duration::from_secs(10);
            while it.supervisor.pending().unwrap().is_empty() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
            // A decision may be on its way when it happens.
            if let (1 | 3, Some(review)) = (round, it.supervisor.pending().unwrap().first()) {
                decided.push(it.supervisor.approve(review, "").unwrap());
            }
            std::thread::sleep(Duration::from_millis(u64::from(round) * 3));
            let sidecar = it.container(Service::Supervise);
            docker(["kill", "--signal", "KILL", &sidecar]);
            let _ = client.join().unwrap();
            for review in it.supervisor.pending().unwrap() {
                decided.push(if round % 2 == 0 {
                    it.supervisor.approve(&review, "").unwrap()
                } else {
                    it.supervisor.deny(&review, "no").unwrap()
                });
            }
            docker(["start", &sidecar]);
            engine().wait_ready(&sidecar, Duration::from_secs(20)).unwrap();
        });
    }
    assert!(decided.len() >= 4, "{decided:?}");
    let calls: Vec<Value> = decided.iter().map(|decision| json!(["proposal_status", {"id": decision.id}])).collect();
    for (decision, told) in decided.iter().zip(it.ask(&json!(calls))) {
        let expected = if decision.verdict == Verdict::Approved { "approved" } else { "denied" };
        assert_eq!(status(&told), expected, "{told}");
    }
    let verified = it.supervisor.verify().unwrap();
    println!(
        "{} decisions over 4 kills, {} lines of the sidecar's log, {} of the host's",
        decided.len(),
        verified.queue.head.seq,
        verified.decisions.head.seq
    );

    it.ask(&json!([["propose_allow_host", {"host": "last.example.com", "reason": "x"}]]));
    let review = it.pending(1).remove(0);
    let (queue, decisions) = (it.layout().supervise_queue(), it.layout().supervise_decisions());
    let first = decisions.join(format!("{}.json", decided[0].id));
    let edits: [Edit; 5] = [
        ("an edited line", queue.join("audit.jsonl"), |text| text.replacen("allow_host", "allow_hosts", 1)),
        ("a line taken out", queue.join("audit.jsonl"), |text| {
            text.split_inclusive('\n').enumerate().filter(|(index, _)| *index != 2).map(|(_, line)| line).collect()
        }),
        ("an end cut off", queue.join("audit.jsonl"), |text| text.split_inclusive('\n').take(2).collect()),
        ("an edited line of the host's", decisions.join("audit.jsonl"), |text| text.replacen("approved", "denied", 1)),
        ("an edited decision", first, |text| text.replacen("\"approved\"", "\"denied\"", 1)),
    ];
    for (what, path, edit) in edits {
        let before = std::fs::read_to_string(&path).unwrap();
        let after = edit(&before);
        assert_ne!(before, after, "{what}");
        std::fs::write(&path, after).unwrap();
        let found = it.supervisor.verify();
        let is_found = matches!(
            found,
            Err(SuperviseError::Queue(QueueError::Audit(AuditError::Tampered { .. }) | QueueError::Contradiction(_)))
        );
        assert!(is_found, "{what}: {found:?}");
        assert!(it.supervisor.approve(&review, "").is_err(), "{what}");
        std::fs::write(&path, before).unwrap();
        it.supervisor.verify().unwrap();
    }
    it.supervisor.approve(&review, "").unwrap();
    AuditLog::verify(&queue.join("audit.jsonl")).unwrap();
    it.close();
}

#[test]
#[ignore = "needs a container engine"]
fn a_sidecar_that_does_not_follow_leaves_the_bottle_as_it_was() {
    let it = Supervised::launch("follow", SMALL);
    let host = |name: &str| json!(["propose_allow_host", {"host": name, "reason": "x"}]);
    let pipelock = it.container(Service::Pipelock);
    let config = it.layout().pipelock_config();
    let before = std::fs::read_to_string(&config).unwrap();

    // Its file is out of reach for a while, for going forward and for going back.
    let away = config.with_extension("away");
    std::fs::rename(&config, &away).unwrap();
    it.ask(&json!([host(FORBIDDEN)]));
    let decision = it.supervisor.approve(&it.pending(1)[0], "");
    std::fs::rename(&away, &config).unwrap();
    let decision = decision.unwrap();
    assert_eq!(applied(&decision).0, ApplyStatus::Failed, "{decision:?}");
    assert!(applied(&decision).1.contains("restoring the old configuration failed as well"), "{decision:?}");
    assert!(!it.supervisor.plan().unwrap().proxy.allow.iter().any(|host| host.as_str() == FORBIDDEN));
    // What an approval that was interrupted had written already: it changes the allowlist alone.
    std::fs::write(&config, before.replacen(OUTSIDE, FORBIDDEN, 1)).unwrap();
    docker(["kill", "--signal", "HUP", &pipelock]);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(it.status(&format!("https://{OUTSIDE}/")), "403");
    // The next decision, whichever it is, puts right what was left.
    it.ask(&json!([host("other.example.com")]));
    it.supervisor.deny(&it.pending(1)[0], "").unwrap();
    assert_eq!(std::fs::read_to_string(&config).unwrap(), before);
    assert_eq!(
        (it.status(&format!("https://{FORBIDDEN}/")), it.status(&format!("https://{OUTSIDE}/"))),
        ("403".into(), "200".into())
    );
    it.ask(&json!([host(FORBIDDEN)]));
    let decision = it.supervisor.approve(&it.pending(1)[0], "").unwrap();
    assert_eq!(applied(&decision).0, ApplyStatus::Live, "{decision:?}");
    assert_eq!(it.status(&format!("https://{FORBIDDEN}/")), "200");
    it.close();
}

#[test]
#[ignore = "needs a container engine"]
fn a_person_answers_in_a_terminal() {
    let it = Supervised::launch("person", SMALL);
    let mut program = example("supervise")
        .args(["--slug", it.bottle.slug().as_ref(), "--state-dir"])
        .arg(it.lab.state_root().path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, mut output) = (program.stdin.take().unwrap(), program.stdout.take().unwrap());
    let (yes, no) = std::thread::scope(|scope| {
        let yes = it.ask_in(scope, FORBIDDEN);
        std::thread::sleep(Duration::from_millis(100));
        input.write_all(b"y\nyou may\n").unwrap();
        let yes = yes.join().unwrap();
        let no = it.ask_in(scope, "no.example.com");
        input.write_all(b"n\nyou may not\n").unwrap();
        (yes, no.join().unwrap())
    });
    program.kill().unwrap();
    let mut shown = String::new();
    output.read_to_string(&mut shown).unwrap();
    program.wait().unwrap();
    assert_eq!((status(&yes), &yes["data"]["reason"]), ("approved", &json!("you may")), "{shown}");
    assert_eq!((status(&no), &no["data"]["reason"]), ("denied", &json!("you may not")), "{shown}");
    assert!(
        shown.contains("+ opens forbidden.test") && shown.contains("Live: ") && shown.contains("Denied"),
        "{shown}"
    );
    assert_eq!(it.status(&format!("https://{FORBIDDEN}/")), "200");
    it.close();
}

impl Supervised {
    /// Proposes a host, and asks for the end of it until there is one.
    fn ask_in<'scope>(
        &'scope self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        host: &'scope str,
    ) -> std::thread::ScopedJoinHandle<'scope, Value> {
        scope.spawn(move || {
            let asked = self.ask(&json!([["propose_allow_host", {"host": host, "reason": "x"}]])).remove(0);
            if status(&asked) == "pending" {
                self.ask(&json!([["proposal_status", {"id": asked["data"]["id"], "wait_seconds": 20}]])).remove(0)
            } else {
                asked
            }
        })
    }
}
