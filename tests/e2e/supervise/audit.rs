//! The two logs: kills of the sidecar, and tampering.

use super::*;

#[test]
#[ignore = "needs a container engine"]
fn tampered_logs_are_detected_and_a_killed_sidecar_loses_no_decision() {
    let it = Supervised::launch("audit", SMALL);
    let mut decided = Vec::new();
    for round in 0..4_u32 {
        // Kill the sidecar while it accepts proposals, at another moment in each round.
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
            // In some rounds a decision is made at the same time.
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
    figure(format_args!(
        "{} decisions over 4 kills, {} lines of the sidecar's log, {} of the host's",
        decided.len(),
        verified.queue.head.seq,
        verified.decisions.head.seq
    ));

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

/// Description of an edit, the file, and the edit itself.
type Edit = (&'static str, PathBuf, fn(&str) -> String);
