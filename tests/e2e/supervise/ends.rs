//! Every other end of a proposal: denied, pending, void, refused, recorded.

use super::*;

#[test]
#[ignore = "needs a container engine"]
fn every_other_outcome_of_a_proposal_is_reported_to_the_agent() {
    let it = Supervised::launch("ends", SMALL);
    let host = |name: &str| json!(["propose_allow_host", {"host": name, "reason": "x"}]);

    // Denied with a reason. The same request again is a new proposal, which is pending.
    let (told, _) = it.decide(&host("denied.example.com"), |review| it.supervisor.deny(review, "not today").unwrap());
    assert_eq!((status(&told), &told["data"]["reason"]), ("denied", &json!("not today")));

    // Nobody decides: pending, with an id. The same request again is the same proposal. Its status can be queried
    // later.
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

    // Changed after it was shown: neither content is decided, and the agent learns that the proposal is void.
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

/// Changes that a reload cannot apply are recorded for the next launch, or left to a person.
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
        // The queue accepts ten proposals per minute.
        let (told, decision) = it.approve(call);
        assert_eq!((status(&told), applied(&decision).0), ("approved", ApplyStatus::Recorded), "{decision:?}");
        assert!(applied(&decision).1.contains(why) && told["text"].as_str().unwrap().contains(why), "{told}");
    }
    let (plan, next) = (it.supervisor.plan().unwrap(), it.supervisor.next_plan().unwrap());
    assert!(plan.egress.is_none() && plan.git_gate.is_none() && plan.proxy.allow.len() < next.proxy.allow.len());
    assert_eq!(next.egress.unwrap().routes[0].host.as_str(), "api.example.com");
    assert_eq!(next.git_gate.unwrap().upstreams.len(), 1);
    assert!(next.images.agent.packages.iter().any(|package| package.as_str() == "ripgrep"));

    // At most ten per minute. The rest is refused quickly.
    let flood: Vec<Value> =
        (0..12).map(|n| json!(["propose_image_change", {"packages": [format!("flood{n}")], "reason": "x"}])).collect();
    let told: Vec<Value> = std::thread::scope(|scope| {
        let asked: Vec<_> = flood.chunks(4).map(|calls| scope.spawn(move || it.ask(&json!(calls)))).collect();
        asked.into_iter().flat_map(|asked| asked.join().unwrap()).collect()
    });
    let refused = told.iter().filter(|answer| answer["data"]["code"] == "rate").count();
    assert!(refused >= 2, "{told:?}");
}
