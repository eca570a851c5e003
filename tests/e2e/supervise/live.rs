//! Live application of an approval to the real proxies: latency, failures, concurrency.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bottle::Engine;
use bottle::exec::{Backend, CancelToken, Command, Control, ExecError, Output, Subprocess};

use crate::sidecar_state::assert_alive;

use super::*;

/// One host that pipelock passes and one that it decrypts.
const BOTH_WAYS: &str = "\
supervise: {wait: 40s}
egress: {allow: [outside.test, {host: api.anthropic.com, inspect: content}]}";
const DECRYPTED: &str = "api.anthropic.com";

/// A backend that runs an action once, just before the command with this label.
struct Before<F> {
    inner: Subprocess,
    label: String,
    done: AtomicBool,
    action: F,
}

impl<F> std::fmt::Debug for Before<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Before").field("label", &self.label).finish_non_exhaustive()
    }
}

impl<F: Fn() + Send + Sync> Backend for Before<F> {
    fn run(&self, command: &Command, control: &Control) -> Result<Output, ExecError> {
        if command.label() == self.label && !self.done.swap(true, Ordering::SeqCst) {
            (self.action)();
        }
        self.inner.run(command, control)
    }
}

impl Supervised {
    /// Returns a supervisor that runs an action once, between writing pipelock's configuration and the signal.
    fn before_the_signal(&self, action: impl Fn() + Send + Sync + 'static) -> Supervisor {
        let backend = Before {
            inner: Subprocess::new(Host::current().unwrap().environment()),
            label: format!("send HUP to {}", self.container(Service::Pipelock)),
            done: AtomicBool::new(false),
            action,
        };
        let control = Control::cancelled_by(CancelToken::default());
        let engine = Engine::detect(Arc::new(backend), &bottle::EngineChoice::Auto, control).unwrap();
        Supervisor::open(engine, &self.lab.state_root(), self.bottle.slug()).unwrap()
    }

    fn code(&self, host: &str) -> String {
        self.status(&format!("https://{host}/echo"))
    }

    fn allows(&self, host: &str) -> bool {
        self.supervisor.plan().unwrap().proxy.allow.iter().any(|allowed| allowed.as_str() == host)
    }

    fn posture(&self) -> String {
        sh(&self.bottle, "cat /etc/bottle/current-config/posture.txt").ok().to_owned()
    }

    fn config(&self) -> String {
        std::fs::read_to_string(self.layout().pipelock_config()).unwrap()
    }
}

fn host(name: &str) -> Value {
    json!(["propose_allow_host", {"host": name, "reason": "x"}])
}

#[test]
#[ignore = "needs a container engine"]
fn a_reload_that_pipelock_rejects_is_explained_and_changes_nothing() {
    let it = Supervised::launch("reject", BOTH_WAYS);
    let pipelock = it.container(Service::Pipelock);
    let (before, posture) = (it.config(), it.posture());
    // Pipelock starts with a stricter file than the one that the library wrote.
    let strict = before.replacen("  passthrough_domains:\n    - outside.test\n", "  passthrough_domains: []\n", 1);
    assert_ne!(before, strict);
    docker(["stop", "--time", "2", &pipelock]);
    std::fs::write(it.layout().pipelock_config(), strict).unwrap();
    docker(["start", &pipelock]);
    engine().wait_ready(&pipelock, Duration::from_secs(30)).unwrap();
    std::fs::write(it.layout().pipelock_config(), &before).unwrap();

    let (told, decision) = it.approve(&host(FORBIDDEN));
    assert_eq!(applied(&decision).0, ApplyStatus::Failed, "{decision:?}");
    let text = told["text"].as_str().unwrap();
    for reason in [
        "pipelock rejected the new configuration",
        "security downgrade from strict mode",
        "passthrough domains added: outside.test",
        "the bottle is as it was",
    ] {
        assert!(applied(&decision).1.contains(reason) && text.contains(reason), "{reason}: {told}");
    }
    assert!(text.starts_with("Approved, but it could not be applied: "), "{told}");
    assert_eq!((it.config(), it.posture()), (before, posture));
    assert!(!it.allows(FORBIDDEN) && it.supervisor.next_plan().unwrap() == it.supervisor.plan().unwrap());
    assert_eq!((it.code(FORBIDDEN), it.code(OUTSIDE)), ("403".into(), "200".into()));

    // After a restart with the library's own file, pipelock accepts the same change.
    docker(["restart", "--time", "2", &pipelock]);
    engine().wait_ready(&pipelock, Duration::from_secs(30)).unwrap();
    let (_, decision) = it.approve(&host(FORBIDDEN));
    assert_eq!((applied(&decision).0, it.code(FORBIDDEN).as_str()), (ApplyStatus::Live, "200"), "{decision:?}");
    it.supervisor.verify().unwrap();
    it.close();
}

#[test]
#[ignore = "needs a container engine"]
fn a_file_that_pipelock_cannot_parse_is_explained_and_restored() {
    let it = Supervised::launch("parse", SMALL);
    let before = it.config();
    it.ask(&json!([host(FORBIDDEN)]));
    let path = it.layout().pipelock_config();
    let supervisor = it.before_the_signal(move || {
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text + "}\n").unwrap();
    });
    let decision = supervisor.approve(&it.pending(1)[0], "").unwrap();
    assert_eq!(applied(&decision).0, ApplyStatus::Failed, "{decision:?}");
    let told = it.ask(&json!([["proposal_status", {"id": decision.id}]])).remove(0);
    for reason in ["pipelock rejected the new configuration: parsing config", "yaml", "the bottle is as it was"] {
        let text = told["text"].as_str().unwrap();
        assert!(applied(&decision).1.contains(reason) && text.contains(reason), "{reason}: {told}");
    }
    assert_eq!(it.config(), before);
    assert!(!it.allows(FORBIDDEN));
    assert_eq!((it.code(FORBIDDEN), it.code(OUTSIDE)), ("403".into(), "200".into()));

    // Somebody replaced the file, so pipelock does not see it any more.
    it.ask(&json!([host(FORBIDDEN)]));
    let (path, old) = (it.layout().pipelock_config(), before.clone());
    let supervisor = it.before_the_signal(move || {
        let copy = path.with_extension("copy");
        std::fs::copy(&path, &copy).unwrap();
        // The container still sees the old file with the old content.
        std::fs::write(&path, &old).unwrap();
        std::fs::rename(copy, &path).unwrap();
    });
    let decision = supervisor.approve(&it.pending(1)[0], "").unwrap();
    assert_eq!(applied(&decision).0, ApplyStatus::Failed, "{decision:?}");
    for reason in ["its file was replaced instead of rewritten in place", "the bottle is as it was"] {
        assert!(applied(&decision).1.contains(reason), "{decision:?}");
    }
    assert_eq!(it.config(), before);
    assert_eq!((it.code(FORBIDDEN), it.code(OUTSIDE)), ("403".into(), "200".into()));
    assert!(!it.allows(FORBIDDEN), "{decision:?}");
    it.close();
}

#[test]
#[ignore = "needs a container engine"]
fn a_stopped_proxy_is_reported_before_the_decision() {
    let it = Supervised::launch("stopped", SMALL);
    let pipelock = it.container(Service::Pipelock);
    it.ask(&json!([host(FORBIDDEN)]));
    let running = it.pending(1).remove(0);
    assert_eq!(running.consequence().when, When::Now);
    let shown = running.to_string();
    assert!(!shown.contains("until the next launch"), "{shown}");

    docker(["kill", "--signal", "KILL", &pipelock]);
    docker(["update", "--restart", "no", &pipelock]);
    docker(["stop", &pipelock]);
    assert!(matches!(it.supervisor.approve(&running, ""), Err(SuperviseError::ConsequenceChanged(_))));
    let stopped = it.pending(1).remove(0);
    assert_eq!(stopped.consequence().when, When::NextStart);
    let shown = stopped.to_string();
    let when = "takes effect when the stopped proxy is started again, or the bottle launched again";
    for part in [when, "pipelock is not running: it exited with status 137"] {
        assert!(shown.contains(part), "{shown}");
    }
    let decision = it.supervisor.approve(&stopped, "").unwrap();
    assert_eq!(applied(&decision).0, ApplyStatus::Recorded, "{decision:?}");
    let told = it.ask(&json!([["proposal_status", {"id": decision.id}]])).remove(0);
    for part in [when, "pipelock is not running"] {
        assert!(applied(&decision).1.contains(part) && told["text"].as_str().unwrap().contains(part), "{told}");
    }
    docker(["start", &pipelock]);
    engine().wait_ready(&pipelock, Duration::from_secs(30)).unwrap();
    assert_eq!(it.code(FORBIDDEN), "200");

    // Killed while a change is applied.
    it.ask(&json!([host(DECRYPTED)]));
    let (before, container) = (it.config(), pipelock.clone());
    let supervisor = it.before_the_signal(move || drop(docker(["stop", "--time", "1", &container])));
    let decision = supervisor.approve(&it.pending(1)[0], "").unwrap();
    assert_eq!(applied(&decision).0, ApplyStatus::Failed, "{decision:?}");
    assert!(applied(&decision).1.contains("pipelock is not running: it exited with status"), "{decision:?}");
    assert_eq!(it.config(), before);
    assert!(!it.allows(DECRYPTED));
    docker(["start", &pipelock]);
    engine().wait_ready(&pipelock, Duration::from_secs(30)).unwrap();
    assert_eq!((it.code(DECRYPTED), it.code(FORBIDDEN)), ("403".into(), "200".into()));
    it.close();
}

#[test]
#[ignore = "needs a container engine"]
fn a_proxy_that_does_not_answer_fails_the_approval_in_bounded_time() {
    let it = Supervised::launch("silent", SMALL);
    let pipelock = it.container(Service::Pipelock);
    let before = it.config();
    it.ask(&json!([host(FORBIDDEN)]));
    let review = it.pending(1).remove(0);
    // The process is stopped by SIGSTOP, which the engine does not notice.
    docker(["kill", "--signal", "STOP", &pipelock]);
    let began = Instant::now();
    let decision = it.supervisor.approve(&review, "").unwrap();
    let took = began.elapsed();
    docker(["kill", "--signal", "CONT", &pipelock]);
    figure(format_args!("an application without an answer is given up after {:.1} s", took.as_secs_f64()));
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert_eq!(applied(&decision).0, ApplyStatus::Failed, "{decision:?}");
    let detail = applied(&decision).1;
    assert!(detail.contains("pipelock did not confirm its new configuration within 10 s"), "{detail}");
    assert!(detail.contains("restoring the old configuration failed as well"), "{detail}");
    assert!(it.config() == before && !it.allows(FORBIDDEN));
    // The next decision restores what this one could not.
    it.ask(&json!([host("other.example.com")]));
    it.supervisor.deny(&it.pending(1)[0], "").unwrap();
    assert_eq!((it.config(), it.code(FORBIDDEN), it.code(OUTSIDE)), (before, "403".into(), "200".into()));
    it.ask(&json!([host(FORBIDDEN)]));
    let decision = it.supervisor.approve(&it.pending(1)[0], "").unwrap();
    assert_eq!((applied(&decision).0, it.code(FORBIDDEN).as_str()), (ApplyStatus::Live, "200"), "{decision:?}");
    it.close();
}

#[test]
#[ignore = "needs a container engine"]
fn streams_and_connections_survive_an_approval() {
    let it = Supervised::launch("streams", BOTH_WAYS);
    let (_, decision) = it.approve(&host(FORBIDDEN));
    assert_eq!(applied(&decision).0, ApplyStatus::Live, "{decision:?}");
    std::thread::scope(|scope| {
        // A host that pipelock passes, one decrypted since the launch, and one decrypted since the approval.
        let streams = [OUTSIDE, DECRYPTED, FORBIDDEN].map(|host| {
            let (bottle, script) = (&it.bottle, format!("curl -fsSN 'https://{host}/sse?n=100&ms=200'"));
            scope.spawn(move || sh(bottle, &script))
        });
        std::thread::sleep(Duration::from_secs(2));
        for name in ["first.example.com", "second.example.com"] {
            let (_, decision) = it.approve(&host(name));
            assert_eq!(applied(&decision).0, ApplyStatus::Live, "{decision:?}");
        }
        assert!(streams.iter().all(|stream| !stream.is_finished()));
        for stream in streams {
            assert_eq!(stream.join().unwrap().ok().matches("event: tick").count(), 100);
        }
    });
    // The host that was allowed live is decrypted, and its answers are limited as the review says.
    assert_eq!(it.status(&format!("https://{FORBIDDEN}/big?mb=6")), "403");
    assert_eq!(it.status(&format!("https://{OUTSIDE}/big?mb=6")), "200");
    let next = it.supervisor.next_plan().unwrap();
    assert!(next.proxy.passed().any(|host| host.as_str() == FORBIDDEN));
    it.close();
}

#[test]
#[ignore = "needs a container engine"]
fn simultaneous_approvals_all_take_effect_and_pipelock_never_reads_a_partial_file() {
    let names: Vec<String> = (0..6).map(|n| format!("n{n}.many.test")).collect();
    let it = Supervised::launch_with_names("at-once", &SMALL.replace("2s", "1s"), &names);
    let pipelock = it.container(Service::Pipelock);
    it.ask(&json!(names.iter().map(|name| host(name)).collect::<Vec<_>>()));
    let pending = it.pending(names.len());
    // Another process keeps sending SIGHUP to pipelock.
    let storm = "i=0; while [ $i -lt 600 ]; do kill -HUP 1 || exit 1; sleep 0.005; i=$((i+1)); done";
    let pid = format!("container:{pipelock}");
    std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            let base = "debian:trixie-slim";
            docker(["run", "--rm", "--network", "none", "--pid", &pid, base, "sh", "-c", storm])
        });
        std::thread::sleep(Duration::from_millis(700));
        let approvals: Vec<_> = pending
            .iter()
            .map(|review| {
                let supervisor = Supervisor::open(engine(), &it.lab.state_root(), it.bottle.slug()).unwrap();
                scope.spawn(move || supervisor.approve(review, "").unwrap())
            })
            .collect();
        for approval in approvals {
            let decision = approval.join().unwrap();
            assert_eq!(applied(&decision).0, ApplyStatus::Live, "{decision:?}");
        }
        assert_eq!(storm.join().unwrap().code, 0);
    });
    for name in &names {
        assert_eq!(it.code(name), "200", "{name}");
    }
    let log = docker(["logs", &pipelock]);
    let log = format!("{}{}", log.stdout, log.stderr);
    let reloads = log.matches("\"event\":\"config_reload\"").count();
    figure(format_args!("{reloads} reloads while {} approvals were applied", names.len()));
    assert!(reloads >= names.len(), "{log}");
    assert!(!log.contains("config reload failed") && !log.contains("CONFIG_RELOAD"), "{log}");
    it.supervisor.verify().unwrap();
    it.close();
}

#[test]
#[ignore = "needs a container engine"]
fn an_agent_cannot_end_pipelock_through_a_host_that_was_approved_live() {
    let it = Supervised::launch("http2", SMALL);
    it.ask(&json!([host(FORBIDDEN)]));
    let review = it.pending(1).remove(0);
    assert_eq!(applied(&it.supervisor.approve(&review, "").unwrap()).0, ApplyStatus::Live);
    let flood = Exec::new(["python3", "-c", include_str!("../pipelock/http2.py")].into_iter().chain([
        &*format!("{}:8888", it.container(Service::Pipelock)),
        &*format!("https://{FORBIDDEN}/big?mb=1"),
        "64",
        "250",
        "20",
    ]));
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| it.bottle.exec(flood.with_timeout(Duration::from_secs(100))).unwrap());
        std::thread::sleep(Duration::from_secs(10));
        let other = sh(&it.bottle, &format!("curl -fsS -m 20 https://{OUTSIDE}/echo"));
        assert!(other.code == 0 && other.duration < Duration::from_secs(5), "{other:?}");
        let flood = flood.join().unwrap();
        assert_eq!(flood.stdout.text().trim(), "{\"http/1.1\": 64}", "{}", flood.stderr.text());
    });
    assert_alive(&it.bottle, Service::Pipelock, 100);
    // An answer of any size comes whole: the host is inspected as it will be from the next launch on.
    let large = sh(&it.bottle, &format!("curl -fsS https://{FORBIDDEN}/big?mb=6 | wc -c"));
    assert_eq!(large.ok(), (6 << 20).to_string());
    it.close();
}

#[test]
#[ignore = "needs a container engine"]
fn an_approved_host_answers_within_a_second() {
    let names: Vec<String> = (0..10).map(|n| format!("n{n}.many.test")).collect();
    let it = Supervised::launch_with_names("latency", &SMALL.replace("2s", "1s"), &names);
    it.ask(&json!(names.iter().map(|name| host(name)).collect::<Vec<_>>()));
    let mut latencies = Vec::new();
    for review in it.pending(names.len()) {
        let bottle::supervise::Change::AllowHost { host } = &review.proposal().change else { panic!("{review}") };
        let url = format!("https://{host}/echo");
        std::thread::scope(|scope| {
            let knock = scope.spawn(|| sh(&it.bottle, &format!("python3 /tmp/knock.py {url}")));
            std::thread::sleep(Duration::from_millis(1500));
            assert!(!knock.is_finished());
            let began = SystemTime::now();
            let decision = it.supervisor.approve(&review, "").unwrap();
            assert_eq!(applied(&decision).0, ApplyStatus::Live, "{decision:?}");
            let knocked: Value = serde_json::from_str(knock.join().unwrap().ok()).unwrap();
            latencies.push(knocked["answered"].as_f64().unwrap() - seconds(began));
        });
    }
    latencies.sort_by(f64::total_cmp);
    figure(format_args!(
        "from approval to the first allowed request, 10 times: {latencies:.3?} s, p50 {:.3} s",
        latencies[5]
    ));
    assert!(latencies[5] < 1.0 && latencies[9] < 3.0, "{latencies:?}");
    it.close();
}
