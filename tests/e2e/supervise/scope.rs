//! Refused hosts that become proposals, and approvals that end.

use std::sync::{Arc, Mutex};

use bottle::events::{DecisionEvent, EventData};
use bottle::sidecars::audit::{AuditLine, AuditOutcome};
use bottle::supervise::{AutoApprover, Decider, Outcome, Scope};

use super::*;

/// No approval but by egress's own proposal, with short waits.
const PROPOSING: &str = "supervise: {wait: 1s}\negress: {allow: [outside.test], on_denied: propose}";

/// Time of an approval.
const SECONDS: u64 = 8;

impl Supervised {
    fn get(&self, host: &str) -> (String, String) {
        let told = sh(&self.bottle, &format!("curl -s -w '\n%{{http_code}}' https://{host}/echo"));
        let (body, code) = told.stdout.rsplit_once('\n').unwrap();
        (code.to_owned(), body.to_owned())
    }

    /// Returns egress's lines about a host, as event, outcome and reason.
    fn told(&self, host: &str) -> Vec<(String, Option<AuditOutcome>, Option<String>)> {
        let log = docker(["logs", &self.container(Service::Egress)]).stdout;
        let lines = log.lines().map(|line| serde_json::from_str::<AuditLine>(line).unwrap());
        lines
            .filter(|line| line.text("host") == Some(host))
            .map(|line| (line.event, line.outcome, line.reason))
            .collect()
    }

    /// Returns the events of decisions.
    fn decisions(&self) -> Vec<DecisionEvent> {
        let all: Arc<Mutex<Vec<DecisionEvent>>> = Arc::default();
        let add = Arc::clone(&all);
        let each = move |event: bottle::BottleEvent| {
            assert!(bottle_testing::events::is_valid(&serde_json::to_value(&event).unwrap()), "{event:?}");
            if let EventData::Decision(decision) = event.data {
                add.lock().unwrap().push(decision);
            }
        };
        self.lab.options().events(self.bottle.slug(), false, each).unwrap();
        let all = all.lock().unwrap();
        all.clone()
    }

    /// Returns the events of the host's log about a proposal.
    fn log(&self, id: &str) -> Vec<String> {
        let log = AuditLog::entries(&self.layout().supervise_decisions().join("audit.jsonl")).unwrap();
        log.into_iter().filter(|entry| entry.data.contains(id)).map(|entry| entry.event).collect()
    }

    fn is_allowed(&self, host: &str) -> [bool; 3] {
        let pipelock = std::fs::read_to_string(self.layout().pipelock_config()).unwrap();
        let posture = sh(&self.bottle, "cat /etc/bottle/current-config/posture.txt").ok().to_owned();
        let plan = self.supervisor.plan().unwrap();
        [
            pipelock.contains(host),
            posture.contains(host),
            plan.proxy.allow.iter().any(|allowed| allowed.as_str() == host),
        ]
    }
}

#[test]
#[ignore = "needs a container engine"]
fn a_refused_host_is_proposed_by_itself_allowed_for_seconds_and_refused_again() {
    let it = Supervised::launch("propose", PROPOSING);
    let (code, body) = it.get(FORBIDDEN);
    let answer: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{code} {body}"));
    assert_eq!((code.as_str(), &answer["error"]["rule"]), ("403", &json!("not-allowed")), "{answer}");
    assert_eq!(answer["error"]["ask"]["tool"], "propose_allow_host", "{answer}");
    assert_eq!(answer["error"]["ask"]["arguments"]["host"], FORBIDDEN, "{answer}");
    let review = it.pending(1).remove(0);
    assert!(
        review.to_string().contains("egress refused a request of the agent: GET https://forbidden.test/"),
        "{review}"
    );
    // The same host is not proposed again, and the tool finds the proposal that waits.
    it.get(FORBIDDEN);
    let asked = it.ask(&json!([["propose_allow_host", {"host": FORBIDDEN, "reason": "x"}]])).remove(0);
    assert_eq!((status(&asked), &asked["data"]["id"]), ("pending", &json!(review.proposal().id)));
    it.pending(1);

    let ended: Arc<Mutex<Vec<String>>> = Arc::default();
    let approver = AutoApprover::new([FORBIDDEN.parse().unwrap()]).with_scope(Scope::For(Duration::from_secs(SECONDS)));
    let began = Instant::now();
    let told = Arc::clone(&ended);
    let running = it.supervisor.start(Arc::new(approver), move |outcome| {
        if let Outcome::Ended(host) = outcome {
            told.lock().unwrap().push(host.to_string());
        }
    });
    until("allowed", || it.get(FORBIDDEN).0 == "200");
    figure(format_args!("from the start of the approver to the first answer: {:?}", began.elapsed()));
    let decision = || it.supervisor.queue().decision(&review.proposal().id).unwrap();
    // It is written after the change has been made.
    until("decided", || decision().is_some());
    let decision = decision().unwrap();
    assert!(applied(&decision).1.contains("for 8 s"), "{decision}");
    assert!(it.supervisor.next_plan().unwrap().proxy.allow.iter().all(|host| host.as_str() != FORBIDDEN));
    until("refused again", || it.get(FORBIDDEN).0 == "403");
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(SECONDS - 1), "{took:?}");
    figure(format_args!("an approval of {SECONDS} s ended after {took:?}"));
    until("the host has ended it", || *ended.lock().unwrap() == [FORBIDDEN]);
    drop(running);
    let id = review.proposal().id.to_string();
    assert_eq!(it.log(&id), ["approving", "decided", "ended"]);
    assert_eq!(it.is_allowed(FORBIDDEN), [false; 3]);
    // Which rule refuses it depends on whether the host has removed it already.
    until("the refusal is logged", || {
        let mut requests = it.told(FORBIDDEN).into_iter().rev().filter(|(event, ..)| event == "request");
        requests.next().is_some_and(|(_, outcome, _)| outcome == Some(AuditOutcome::Refused))
    });
    let lines = it.told(FORBIDDEN);
    let request = |outcome, reason: Option<&str>| ("request".to_owned(), Some(outcome), reason.map(ToOwned::to_owned));
    for line in [
        request(AuditOutcome::Refused, Some("not-allowed")),
        ("proposed".to_owned(), Some(AuditOutcome::Done), None),
        request(AuditOutcome::Done, None),
    ] {
        assert!(lines.contains(&line), "{line:?} is not in {lines:?}");
    }
    assert_eq!(lines.iter().filter(|(event, ..)| event == "proposed").count(), 1);
    // The events of the decision and of its end say who decided and until when.
    let by = decision.by.unwrap();
    assert_eq!((by.decider, by.process), (Decider::Automatic, std::process::id()));
    let events = it.decisions();
    assert!(
        matches!(
            &events[..],
            [DecisionEvent::Settled(settled), DecisionEvent::ApprovalEnded(ended)]
                if settled.by == Some(by) && settled.ends == Some(ended.ends) && ended.host == FORBIDDEN && ended.id == id
        ),
        "{events:?}"
    );
    it.supervisor.verify().unwrap();
    it.close();
}

#[test]
#[ignore = "needs a container engine"]
fn an_approval_ends_without_a_process_of_the_host_and_a_single_one_after_its_request() {
    let names = ["once.many.test".to_owned(), "unattended.many.test".to_owned()];
    let it = Supervised::launch_with_names("scope", PROPOSING, &names);
    let approve = |host: &str, scope: Scope| {
        it.get(host);
        let opens = |review: &Review| review.proposal().change.to_string() == format!("allow the host {host}");
        until("proposed", || it.supervisor.pending().unwrap().iter().any(opens));
        let review = it.supervisor.pending().unwrap().into_iter().find(opens).unwrap();
        it.supervisor.approve_for(&review, scope, "").unwrap_or_else(|error| panic!("{error}"))
    };
    let [once, unattended] = names.each_ref().map(String::as_str);
    approve(once, Scope::Once(Duration::from_secs(600)));
    assert_eq!([it.get(once).0, it.get(once).0], ["200", "403"]);
    let egress = it.container(Service::Egress);
    docker(["restart", "--time", "2", &egress]);
    engine().wait_ready(&egress, Duration::from_secs(30)).unwrap();
    assert_eq!((it.get(once).0.as_str(), it.get(OUTSIDE).0.as_str()), ("403", "200"));

    // Nobody supervises, and a connection is open that was made before the end.
    approve(unattended, Scope::For(Duration::from_secs(6)));
    let script = format!(
        "import requests, time\nwith requests.Session() as it:\n  for _ in range(2):\n    print(it.get('https://{unattended}/echo').status_code)\n    time.sleep(7)"
    );
    let exec = Exec::new(["python3", "-c", &script]).with_timeout(Duration::from_secs(60));
    assert_eq!(it.bottle.exec(exec).unwrap().stdout_text(), "200\n403\n");
    let refused = ("request".to_owned(), Some(AuditOutcome::Refused), Some("expired".to_owned()));
    assert_eq!(it.told(unattended).last(), Some(&refused));
    // The plan still has it, until somebody looks.
    assert_eq!(it.is_allowed(unattended), [true; 3]);
    assert_eq!(it.supervisor.end_approvals().unwrap(), [unattended.parse().unwrap()]);
    assert_eq!(it.is_allowed(unattended), [false; 3]);
    assert_eq!(it.get(unattended).0, "403");
    it.close();
}

#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(40);
    while !is_so() {
        assert!(Instant::now() < end, "not {what}");
        std::thread::sleep(Duration::from_millis(150));
    }
}
