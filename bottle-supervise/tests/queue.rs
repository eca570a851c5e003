//! The host's side of the supervise queue against everything that a sidecar can put into it.

#![expect(clippy::unwrap_used, reason = "the helpers of the tests panic as the tests do")]

use std::cell::Cell;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use bottle_supervise::{
    Applied, AuditError, AuditLog, ProposalId, ProposalSnapshot, Queue, QueueError, Verdict, WatchEvent,
};
use serde_json::{Value, json};

struct Fixture {
    dir: tempfile::TempDir,
    queue: Queue,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("queue/proposals")).unwrap();
        fs::create_dir(dir.path().join("decisions")).unwrap();
        let queue = Queue::open(&dir.path().join("queue"), &dir.path().join("decisions")).unwrap();
        Self { dir, queue }
    }

    fn path(&self, rest: &str) -> PathBuf {
        self.dir.path().join(rest)
    }

    fn proposal_file(&self, number: u64) -> PathBuf {
        self.path(&format!("queue/proposals/{}.json", id(number)))
    }

    /// Writes a proposal as the sidecar does: first a line in its log, then the file.
    fn propose(&self, number: u64, host: &str) -> ProposalSnapshot {
        let mut log = AuditLog::open(&self.path("queue/audit.jsonl"), now()).unwrap();
        log.append(now(), "proposed", &json!({"id": id(number), "kind": "allow_host"})).unwrap();
        fs::write(self.proposal_file(number), content(number, host)).unwrap();
        self.queue.show(&id(number)).unwrap()
    }

    fn approve(&self, shown: &ProposalSnapshot) -> Result<(), QueueError> {
        self.queue.approve(shown, "", now(), |_| Applied::live("")).map(drop)
    }
}

fn id(number: u64) -> ProposalId {
    format!("{number:013}-abcdefghij234567").parse().unwrap()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn content(number: u64, host: &str) -> String {
    format!(
        "{{\"agent_reason\":\"why\",\"change\":{{\"host\":\"{host}\"}},\"created\":\"2026-01-02T03:04:05.678Z\",\
         \"id\":\"{}\",\"kind\":\"allow_host\",\"slug\":\"dev-x\",\"version\":1}}",
        id(number)
    )
}

fn edit(path: &PathBuf, from: &str, to: &str) {
    let content = fs::read_to_string(path).unwrap();
    assert!(content.contains(from));
    fs::write(path, content.replace(from, to)).unwrap();
}

#[test]
fn an_approval_is_applied_first_then_written_and_bound_to_what_was_shown() {
    let f = Fixture::new();
    let shown = f.propose(1, "a.example");
    let file = f.path(&format!("decisions/{}.json", id(1)));
    let decision = f
        .queue
        .approve(&shown, "fine", now(), |proposal| {
            assert_eq!(proposal.change.to_string(), "allow the host a.example");
            assert!(!file.exists());
            Applied::live("reloaded")
        })
        .unwrap();
    assert_eq!(decision.verdict, Verdict::Approved);
    let written: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(
        written,
        json!({
            "version": 1, "id": id(1), "proposal_sha256": shown.sha256(), "decision": "approved", "reason": "fine",
            "decided_at": "2023-11-14T22:13:20.000Z", "applied": {"status": "live", "detail": "reloaded"},
            "by": {"decider": "program", "process": std::process::id()},
        })
    );
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(f.queue.decision(&id(1)).unwrap(), Some(decision));
    assert!(f.queue.pending().unwrap().proposals.is_empty());
    let events: Vec<_> =
        AuditLog::entries(&f.path("decisions/audit.jsonl")).unwrap().into_iter().map(|entry| entry.event).collect();
    assert_eq!(events, ["approving", "decided"]);
    assert_eq!(f.queue.verify().unwrap().witnessed.seq, 1);
}

#[test]
fn a_denial_says_why_and_applies_nothing() {
    let f = Fixture::new();
    let shown = f.propose(1, "a.example");
    f.queue.deny(&shown, "no", now()).unwrap();
    let written: Value =
        serde_json::from_slice(&fs::read(f.path(&format!("decisions/{}.json", id(1)))).unwrap()).unwrap();
    assert_eq!((&written["decision"], &written["reason"]), (&json!("denied"), &json!("no")));
    assert!(written.get("applied").is_none());
}

#[test]
fn a_second_decision_is_refused_and_the_first_stands() {
    let f = Fixture::new();
    let shown = f.propose(1, "a.example");
    f.queue.deny(&shown, "", now()).unwrap();
    assert!(matches!(f.approve(&shown), Err(QueueError::AlreadyDecided(_))));
    assert!(matches!(f.queue.deny(&shown, "", now()), Err(QueueError::AlreadyDecided(_))));
    assert_eq!(f.queue.decision(&id(1)).unwrap().unwrap().verdict, Verdict::Denied);
}

#[test]
fn of_two_simultaneous_approvals_one_succeeds() {
    let f = Fixture::new();
    let shown = f.propose(1, "a.example");
    let applied = AtomicUsize::new(0);
    let approved: usize = thread::scope(|scope| {
        let approvers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    f.queue.approve(&shown, "", now(), |_| {
                        applied.fetch_add(1, Ordering::SeqCst);
                        Applied::live("")
                    })
                })
            })
            .collect();
        approvers.into_iter().map(|approver| usize::from(approver.join().unwrap().is_ok())).sum()
    });
    assert_eq!((approved, applied.into_inner()), (1, 1));
    f.queue.verify().unwrap();
}

#[test]
fn a_proposal_that_changed_since_it_was_shown_is_not_decided() {
    type Attack = fn(&Fixture) -> std::io::Result<()>;
    let attacks: [(&str, Attack); 6] = [
        ("other host", |f| fs::write(f.proposal_file(1), content(1, "b.example"))),
        ("other spelling", |f| fs::write(f.proposal_file(1), content(1, "a.example") + " ")),
        ("not json", |f| fs::write(f.proposal_file(1), "{")),
        ("removed", |f| fs::remove_file(f.proposal_file(1))),
        ("another's content", |f| fs::write(f.proposal_file(1), content(2, "a.example"))),
        ("directory removed", |f| fs::remove_dir_all(f.path("queue/proposals"))),
    ];
    for (name, attack) in attacks {
        let f = Fixture::new();
        let shown = f.propose(1, "a.example");
        attack(&f).unwrap();
        let called = Cell::new(false);
        let approved = f.queue.approve(&shown, "", now(), |_| {
            called.set(true);
            Applied::live("")
        });
        assert!(matches!(approved, Err(QueueError::ChangedSinceShown(_))), "{name}: {approved:?}");
        assert!(matches!(f.queue.deny(&shown, "", now()), Err(QueueError::ChangedSinceShown(_))), "{name}");
        assert!(!called.get() && f.queue.decision(&id(1)).unwrap().is_none(), "{name}");
    }
}

#[test]
fn hostile_files_are_listed_as_unusable() {
    let f = Fixture::new();
    let good = f.propose(9, "a.example");
    let proposals = f.path("queue/proposals");
    let outside = f.path("outside.json");
    fs::write(&outside, content(1, "a.example")).unwrap();
    symlink(&outside, f.proposal_file(1)).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, f.proposal_file(2), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    fs::create_dir(f.proposal_file(3)).unwrap();
    fs::File::create(f.proposal_file(4)).unwrap().set_len(1 << 40).unwrap();
    fs::write(f.proposal_file(5), [0xff, 0xfe]).unwrap();
    fs::write(f.proposal_file(6), "[".repeat(60_000)).unwrap();
    fs::write(f.proposal_file(7), content(8, "a.example")).unwrap();
    fs::write(proposals.join("\u{1b}[2J.json"), "{}").unwrap();
    fs::write(proposals.join("0000000000001-abcdefghij234567"), "{}").unwrap();
    symlink("/dev/zero", proposals.join("zero.json")).unwrap();
    fs::write(proposals.join(".hidden"), "").unwrap();

    let pending = f.queue.pending().unwrap();
    assert_eq!(pending.proposals, std::slice::from_ref(&good));
    assert_eq!(pending.unusable.len(), 10, "{:#?}", pending.unusable);
    assert!(pending.unusable.iter().all(|file| !file.name.contains('\u{1b}') && !file.why.contains('\u{1b}')));
    f.approve(&good).unwrap();
}

#[test]
fn a_link_in_place_of_the_proposals_directory_is_not_followed() {
    let f = Fixture::new();
    f.propose(1, "a.example");
    fs::rename(f.path("queue/proposals"), f.path("elsewhere")).unwrap();
    symlink(f.path("elsewhere"), f.path("queue/proposals")).unwrap();
    assert!(matches!(f.queue.pending(), Err(QueueError::Io { .. })));
    assert!(matches!(f.queue.show(&id(1)), Err(QueueError::Io { .. })));
}

#[test]
fn too_many_files_are_an_error() {
    let f = Fixture::new();
    for number in 0..1100 {
        fs::write(f.proposal_file(number), "").unwrap();
    }
    assert!(matches!(f.queue.pending(), Err(QueueError::Io { .. })));
}

#[test]
fn a_tampered_log_blocks_approvals_but_not_denials() {
    let f = Fixture::new();
    let shown = f.propose(1, "a.example");
    f.propose(2, "b.example");
    edit(&f.path("queue/audit.jsonl"), "allow_host", "allow_hose");
    assert!(matches!(f.approve(&shown), Err(QueueError::Audit(AuditError::Tampered { line: 1, .. }))));
    f.queue.deny(&shown, "", now()).unwrap();
    let entries = AuditLog::entries(&f.path("decisions/audit.jsonl")).unwrap();
    assert!(entries[0].data.contains("\"witness\":null"));
}

#[test]
fn a_log_truncated_or_replaced_before_a_decision_is_detected() {
    for anew in [false, true] {
        let f = Fixture::new();
        let shown = f.propose(1, "a.example");
        let other = f.propose(2, "b.example");
        f.approve(&shown).unwrap();
        let log = f.path("queue/audit.jsonl");
        let first = fs::read_to_string(&log).unwrap().lines().next().unwrap().to_owned() + "\n";
        fs::write(&log, first).unwrap();
        if anew {
            AuditLog::open(&log, now()).unwrap().append(now(), "proposed", &json!({"id": "another"})).unwrap();
        }
        AuditLog::verify(&log).unwrap();
        assert!(matches!(f.queue.verify(), Err(QueueError::Contradiction(_))), "made anew: {anew}");
        assert!(matches!(f.approve(&other), Err(QueueError::Contradiction(_))));
    }
}

#[test]
fn a_truncation_after_the_last_decision_is_not_detected_and_verify_reports_the_last_confirmed_line() {
    let f = Fixture::new();
    let shown = f.propose(1, "a.example");
    f.approve(&shown).unwrap();
    let log = f.path("queue/audit.jsonl");
    let before = fs::read(&log).unwrap();
    f.propose(2, "b.example");
    assert_eq!(f.queue.verify().unwrap().queue.head.seq, 2);
    fs::write(&log, before).unwrap();
    let verified = f.queue.verify().unwrap();
    assert_eq!((verified.queue.head.seq, verified.witnessed.seq), (1, 1));
}

#[test]
fn a_forged_or_edited_decision_is_detected() {
    let f = Fixture::new();
    let shown = f.propose(1, "a.example");
    f.queue.deny(&shown, "", now()).unwrap();
    edit(&f.path(&format!("decisions/{}.json", id(1))), "denied", "approved");
    assert!(matches!(f.queue.verify(), Err(QueueError::Contradiction(_))));

    let f = Fixture::new();
    f.propose(1, "a.example");
    fs::write(f.path(&format!("decisions/{}.json", id(1))), "{}").unwrap();
    assert!(matches!(f.queue.verify(), Err(QueueError::Contradiction(_))));
}

#[test]
fn a_host_killed_between_log_line_and_decision_can_decide_again() {
    let f = Fixture::new();
    let shown = f.propose(1, "a.example");
    f.approve(&shown).unwrap();
    fs::remove_file(f.path(&format!("decisions/{}.json", id(1)))).unwrap();
    let mut log = fs::OpenOptions::new().append(true).open(f.path("decisions/audit.jsonl")).unwrap();
    log.write_all(b"{\"data\":{\"de").unwrap();
    f.queue.deny(&shown, "", now()).unwrap();
    let events: Vec<_> =
        AuditLog::entries(&f.path("decisions/audit.jsonl")).unwrap().into_iter().map(|entry| entry.event).collect();
    assert_eq!(events, ["approving", "decided", "repaired", "decided"]);
    f.queue.verify().unwrap();
}

#[test]
fn long_reasons_are_cut_and_the_decision_is_valid() {
    let f = Fixture::new();
    let shown = f.propose(1, "a.example");
    let long = "\u{1}ü".repeat(100_000);
    let decision = f.queue.approve(&shown, &long, now(), |_| Applied::failed(long.clone())).unwrap();
    assert!(decision.reason.len() < 5000 && decision.reason.ends_with('…'));
    assert_eq!(f.queue.decision(&id(1)).unwrap(), Some(decision));
}

#[test]
fn a_missing_proposal_is_not_found() {
    let f = Fixture::new();
    assert!(matches!(f.queue.show(&id(1)), Err(QueueError::NotFound(_))));
    assert!(f.queue.decision(&id(1)).unwrap().is_none());
    assert!(Queue::open(&f.path("none"), &f.path("decisions")).is_err());
    fs::remove_dir(f.path("queue/proposals")).unwrap();
    assert!(f.queue.pending().unwrap().proposals.is_empty());
    for bad in ["", "..", "../../../../../../etc/passwd", "0000000000001-ABCDEFGHIJ234567", "1-a"] {
        assert!(bad.parse::<ProposalId>().is_err(), "{bad}");
    }
}

#[test]
fn a_watch_reports_each_event_once_and_ends() {
    let f = Fixture::new();
    let first = f.propose(1, "a.example");
    let mut watch = f.queue.watch(Duration::from_millis(1), 8, || false);
    assert!(matches!(watch.next(), Some(WatchEvent::Proposed(shown)) if shown == first));
    f.queue.deny(&first, "", now()).unwrap();
    assert!(matches!(watch.next(), Some(WatchEvent::Settled(settled)) if settled == id(1)));
    let second = f.propose(2, "b.example");
    assert!(matches!(watch.next(), Some(WatchEvent::Proposed(shown)) if shown == second));
    fs::write(f.proposal_file(2), content(2, "c.example")).unwrap();
    assert!(matches!(watch.next(), Some(WatchEvent::Settled(_))));
    assert!(matches!(watch.next(), Some(WatchEvent::Proposed(shown)) if shown != second));
    fs::write(f.path("queue/proposals/x"), "").unwrap();
    assert!(matches!(watch.next(), Some(WatchEvent::Unusable(_))));
    assert!(watch.next().is_none());

    let cancelled = Cell::new(false);
    let mut watch = f.queue.watch(Duration::from_secs(3600), u64::MAX, || cancelled.get());
    assert!(watch.next().is_some());
    cancelled.set(true);
    assert!(watch.next().is_none());
}

#[test]
fn a_proposal_written_by_the_sidecar_is_read() {
    let f = Fixture::new();
    let fixture = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/supervise/proposal.json");
    let content: Value = serde_json::from_slice(&fs::read(&fixture).unwrap()).unwrap();
    let id: ProposalId = content["id"].as_str().unwrap().parse().unwrap();
    fs::copy(&fixture, f.path(&format!("queue/proposals/{id}.json"))).unwrap();
    let shown = f.queue.show(&id).unwrap();
    assert_eq!(shown.proposal().change.to_string(), "allow the host a.example");
    assert!(shown.proposal().reason.starts_with("Grüße"));
}
