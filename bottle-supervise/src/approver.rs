//! The programs and people that decide on proposals.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bottle_plan::value::AllowedHost;
use bottle_sidecars::audit::Decider;

use super::{Change, Review, Scope, When};

/// Decides on proposals. [`Supervisor::run`](super::Supervisor::run) asks it, one proposal after the other, and applies what
/// it answers. Closures of type `Fn(&Review) -> Answer` implement it.
pub trait Approver: Send + Sync {
    /// Returns the answer to a proposal. It may take as long as a person needs. After a panic the proposal stays open.
    fn decide(&self, review: &Review) -> Answer;

    /// Returns the answer with who gave it, which the decision and its event say. Default: the answer of
    /// [`decide`](Self::decide), by a callback.
    fn decide_as(&self, review: &Review) -> (Decider, Answer) {
        (Decider::Callback, self.decide(review))
    }

    /// Receives the result of the answer: the decision in words, or the reason why there is none. Default: does nothing.
    fn told(&self, _: &Review, _: Result<&str, &str>) {}
}

/// An answer to a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The change is approved.
    Approve {
        /// The scope of the approval.
        scope: Scope,
        /// The reason, which the agent can read. May be empty.
        reason: String,
    },
    /// The change is denied.
    Deny {
        /// The reason, which the agent can read. May be empty.
        reason: String,
    },
    /// The proposal stays open. It is not asked about again, unless its consequence has changed.
    Later,
    /// The proposal stays open, and no further one is asked about.
    Stop,
}

impl<F: Fn(&Review) -> Answer + Send + Sync> Approver for F {
    fn decide(&self, review: &Review) -> Answer {
        self(review)
    }
}

/// Approves hosts within bounds, and leaves everything else to another approver.
///
/// The bounds are entries of an allowlist. A proposal is within them if it opens one host that an entry covers, at once, on
/// the default ports and for everything, and changes nothing else. `Display` shows the bounds.
///
/// ```
/// use std::time::Duration;
/// use bottle_supervise::{Answer, AutoApprover, Review, Scope};
/// let auto = AutoApprover::new(["*.example.com".parse()?])
///     .with_scope(Scope::For(Duration::from_secs(1800)))
///     .with_limit(5)
///     .or(|_: &Review| Answer::Later);
/// assert_eq!(
///     auto.to_string(),
///     "approves by itself, for 1800 s, up to 5 hosts of: *.example.com (example.com and every name below it)"
/// );
/// # Ok::<(), bottle_plan::name::NameError>(())
/// ```
pub struct AutoApprover {
    bounds: Vec<AllowedHost>,
    scope: Scope,
    limit: usize,
    approved: AtomicUsize,
    otherwise: Arc<dyn Approver>,
}

impl AutoApprover {
    /// Returns an approver with these bounds. Everything else is left for later.
    pub fn new(bounds: impl IntoIterator<Item = AllowedHost>) -> Self {
        let (bounds, otherwise) = (bounds.into_iter().collect(), Arc::new(|_: &Review| Answer::Later));
        Self { bounds, scope: Scope::Always, limit: 20, approved: AtomicUsize::default(), otherwise }
    }

    /// Sets the scope of the approvals. Default: [`Scope::Always`].
    #[must_use]
    pub const fn with_scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Sets the number of proposals that are approved. Default: 20.
    #[must_use]
    pub const fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Sets the approver for everything else.
    #[must_use]
    pub fn or(mut self, otherwise: impl Approver + 'static) -> Self {
        self.otherwise = Arc::new(otherwise);
        self
    }

    fn is_within(&self, review: &Review) -> bool {
        let Change::AllowHost { host } = &review.proposal().change else { return false };
        let consequence = review.consequence();
        consequence.when == When::Now
            && consequence.opens_only(host)
            && self.bounds.iter().any(|bound| bound.covers(host))
            && self.approved.load(Ordering::SeqCst) < self.limit
    }
}

impl Approver for AutoApprover {
    fn decide(&self, review: &Review) -> Answer {
        self.decide_as(review).1
    }

    fn decide_as(&self, review: &Review) -> (Decider, Answer) {
        if !self.is_within(review) {
            return self.otherwise.decide_as(review);
        }
        self.approved.fetch_add(1, Ordering::SeqCst);
        let reason = "approved automatically: it is within the bounds".into();
        (Decider::Automatic, Answer::Approve { scope: self.scope, reason })
    }

    fn told(&self, review: &Review, result: Result<&str, &str>) {
        self.otherwise.told(review, result);
    }
}

impl fmt::Display for AutoApprover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bounds: Vec<String> = self.bounds.iter().map(AllowedHost::in_words).collect();
        let hosts = if bounds.is_empty() { "nothing".to_owned() } else { bounds.join(", ") };
        write!(f, "approves by itself, {}, up to {} hosts of: {hosts}", self.scope, self.limit)
    }
}

impl fmt::Debug for AutoApprover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use bottle_engine::{Engine, EngineChoice, rehearsal};
    use bottle_exec::Control;
    use bottle_plan::{Manifest, StateRoot};
    use bottle_testing::plans;

    use crate::{Outcome, ProposalId, Supervisor, write_launched_plan};

    /// Proposals of a host within the bounds, of a wildcard, of a host beyond them, and of a route.
    const PROPOSED: [(&str, &str); 4] = [
        ("allow_host", r#"{"host":"a.b.example.com"}"#),
        ("allow_host", r#"{"host":"*.example.com"}"#),
        ("allow_host", r#"{"host":"notb.example.com"}"#),
        ("route", r#"{"host":"a.b.example.com"}"#),
    ];

    /// Returns a supervisor with these proposals.
    fn supervised(dir: &std::path::Path) -> Supervisor {
        let (root, slug) = (StateRoot::at(dir), "demo-1".parse().unwrap());
        let layout = root.bottle(&slug);
        let proposals = layout.supervise_queue().join("proposals");
        for dir in [&layout.current_config(), &layout.supervise_decisions(), &proposals] {
            fs::create_dir_all(dir).unwrap();
        }
        let manifest = "bottles: {dev: {supervise: true}}\nagents: {demo: {bottle: dev, command: [id]}}\n";
        write_launched_plan(&plans::plan(&Manifest::parse(manifest).unwrap()), &layout).unwrap();
        for (number, (kind, change)) in PROPOSED.iter().enumerate() {
            let id: ProposalId = format!("170000000000{number}-aaaaaaaaaaaaaaaa").parse().unwrap();
            let proposal = format!(
                r#"{{"agent_reason":"x","change":{change},"created":"2026-01-02T03:04:05.678Z","id":"{id}","kind":"{kind}","slug":"demo-1","version":1}}"#
            );
            fs::write(proposals.join(format!("{id}.json")), proposal).unwrap();
        }
        let engine = Engine::detect(Arc::new(rehearsal()), &EngineChoice::Auto, Control::default()).unwrap();
        Supervisor::open(engine, &root, &slug).unwrap()
    }

    #[test]
    fn a_panic_of_an_approver_is_told_and_the_other_proposals_are_asked_about() {
        let dir = tempfile::tempdir().unwrap();
        let supervisor = supervised(dir.path());
        let asked = AtomicUsize::default();
        let approver = |_: &Review| {
            assert!(asked.fetch_add(1, Ordering::SeqCst) > 0, "on purpose");
            Answer::Deny { reason: String::new() }
        };
        let (mut told, mut looks) = (Vec::new(), 0);
        let over = || {
            looks += 1;
            looks > 6
        };
        supervisor.run(&approver, over, |outcome| told.push(outcome));
        assert_eq!(asked.load(Ordering::SeqCst), PROPOSED.len());
        let panics = told.iter().filter(|outcome| {
            matches!(outcome, Outcome::Queue(crate::Event::Failed(crate::SuperviseError::ApproverPanicked(_))))
        });
        assert_eq!((panics.count(), supervisor.pending().unwrap().len()), (1, 1), "{told:?}");
    }

    #[test]
    fn a_panic_of_the_thread_continues_where_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let approver = |_: &Review| -> Answer { panic!("on purpose") };
        let (sender, told) = std::sync::mpsc::channel();
        let running = supervised(dir.path()).start(Arc::new(approver), move |outcome| {
            sender.send(()).unwrap();
            panic!("{outcome:?}");
        });
        told.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(running))).unwrap_err();
        assert!(panic.downcast_ref::<String>().unwrap().contains("ApproverPanicked"), "{panic:?}");
    }

    #[test]
    fn only_hosts_within_the_bounds_are_approved_and_the_rest_is_asked_about() {
        let dir = tempfile::tempdir().unwrap();
        let supervisor = supervised(dir.path());
        let auto = AutoApprover::new(["*.b.example.com".parse().unwrap()]).with_limit(1);
        let pending = supervisor.pending().unwrap();
        let answers: Vec<bool> =
            pending.iter().map(|review| matches!(auto.decide(review), Answer::Approve { .. })).collect();
        assert_eq!(answers, [true, false, false, false]);
        assert_eq!(auto.decide(&pending[0]), Answer::Later, "the limit is reached");

        // What is left goes to the other approver, whose answers are applied.
        let auto = auto.or(|_: &Review| Answer::Deny { reason: "no".into() });
        let mut told = Vec::new();
        let mut looks = 0;
        let over = || {
            looks += 1;
            // The first look, and once for each of its proposals.
            looks > 6
        };
        supervisor.run(&auto, over, |outcome| told.push(outcome));
        assert_eq!(supervisor.pending().unwrap().len(), 0);
        assert!(told.iter().all(|outcome| matches!(outcome, Outcome::Queue(crate::Event::Settled(_)))), "{told:?}");
    }
}
