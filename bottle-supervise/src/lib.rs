//! Supervision of a bottle: lists the agent's proposals, shows the consequence of an approval, and applies it.
//!
//! It works from any process of the user who launched the bottle, because all its data is in the bottle's state
//! directory. The plan in effect is in `plan.json`. A launch writes that file, and every approval updates it. It is
//! separate from `metadata.json`, which only the launcher writes.
//!
//! The [`Queue`] below it holds the proposals and is the only place where they can be approved. The sidecar writes
//! proposals into one directory. Decisions go into another, which the sidecar's container mounts read-only and the
//! agent's does not mount. A decision is bound to the SHA-256 of the bytes that were shown, so deciding takes a
//! [`ProposalSnapshot`], which holds those bytes. The sidecar's files are read as an attacker's: only regular files are
//! read, no links are followed, sizes are bounded, and every string is validated before it reaches a terminal.
//! `images/supervise/FORMAT.md` of `bottle-sidecars` specifies the files.
//!
//! A [`Review`] holds what a person was shown: the proposal, bound to the hash of its bytes, and the [`Consequence`] of
//! an approval. Both are checked again at the approval, which fails if either differs.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (engine, root, slug): (bottle_engine::Engine, bottle_plan::StateRoot, bottle_plan::Slug) = todo!();
//! use bottle_supervise::Supervisor;
//!
//! let supervisor = Supervisor::open(engine, &root, &slug)?;
//! for review in supervisor.pending()? {
//!     println!("{review}");
//!     supervisor.deny(&review, "not today")?;
//! }
//! # Ok(())
//! # }
//! ```

mod approver;
mod audit;
mod canonical;
mod change;
mod decision;
mod error;
mod files;
mod live;
mod mirror;
mod proposal;
mod proxies;
mod queue;
mod record;
mod review;
mod scope;
mod terminal;
mod text;
mod watch;

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use bottle_engine::Engine;
use bottle_exec::chain;
use bottle_files::{FileLock, resolved_path};
use bottle_plan::plan::TemporaryHost;
use bottle_plan::value::AllowedHost;
use bottle_plan::{BottlePlan, Service, Slug, StateLayout, StateRoot};
use bottle_posture::Posture;
use serde_json::json;

pub use approver::{Answer, Approver, AutoApprover};
pub use audit::{AuditEntry, AuditError, AuditLog, AuditSummary, Head};
pub use bottle_sidecars::audit::{ApplyStatus, ApprovalEnd, DecidedBy, Decider};
pub use change::When;
pub use decision::{Applied, Decision, Verdict};
pub use error::SuperviseError;
pub use proposal::{Change, Malformed, Proposal, ProposalId};
pub use proxies::{Proxies, ProxyFailure};
pub use queue::{Pending, ProposalSnapshot, Queue, QueueError, Unusable, Verified};
pub use review::{Consequence, Event, Review};
pub use scope::Scope;
pub use terminal::Terminal;
pub use watch::{Watch, WatchEvent};

use change::edit;
use live::{Failure, Live};
use mirror::Mirror;
use proxies::EngineProxies;
use record::{Record, failed};

/// Supervision of one bottle: its proposals, and the decisions about them.
#[derive(Debug, Clone)]
pub struct Supervisor {
    proxies: Arc<dyn Proxies>,
    layout: StateLayout,
    queue: Queue,
    mirror: Option<Mirror>,
}

impl Supervisor {
    /// Opens a bottle for supervision, whichever process launched it.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such bottle, or it is not supervised.
    pub fn open(engine: Engine, root: &StateRoot, slug: &Slug) -> Result<Self, SuperviseError> {
        let layout = StateRoot::at(resolved_path(root.path())).bottle(slug);
        let plan = Record::read(&layout)?.plan;
        let mirror = Mirror::of(&engine, &layout, &plan.names);
        let proxies = EngineProxies::new(engine, layout, plan, mirror.clone());
        let supervisor = Self::with_proxies(Arc::new(proxies), root, slug)?;
        Ok(Self { queue: supervisor.queue.with_mirror(mirror.clone()), mirror, ..supervisor })
    }

    /// Sets the decider that its decisions name. Default: [`Decider::Program`]. [`run`](Self::run) sets that of the answer.
    #[must_use]
    pub fn with_decider(self, decider: Decider) -> Self {
        Self { queue: self.queue.with_decider(decider), ..self }
    }

    /// Opens a bottle whose proxies run elsewhere than on a container engine. Its state directory is below `root`.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn with_proxies(proxies: Arc<dyn Proxies>, root: &StateRoot, slug: &Slug) -> Result<Self, SuperviseError> {
        let layout = StateRoot::at(resolved_path(root.path())).bottle(slug);
        if Record::read(&layout)?.plan.supervise.is_none() {
            return Err(SuperviseError::NotSupervised(slug.clone()));
        }
        let queue = Queue::open(&layout.supervise_queue(), &layout.supervise_decisions())?;
        Ok(Self { proxies, layout, queue, mirror: None })
    }

    /// Returns the plan in effect: the launched plan with every change that was approved and applied since.
    ///
    /// # Errors
    ///
    /// Returns an error if the plan cannot be read.
    pub fn plan(&self) -> Result<BottlePlan, SuperviseError> {
        Ok(Record::read(&self.layout)?.plan)
    }

    /// Returns the plan in effect with every approved change that waits for the next launch. Launch this plan to apply
    /// them.
    ///
    /// # Errors
    ///
    /// Returns an error if the plan cannot be read.
    pub fn next_plan(&self) -> Result<BottlePlan, SuperviseError> {
        Ok(Record::read(&self.layout)?.next().clone())
    }

    /// Returns the proposals that wait for a decision, oldest first. Files that are not proposals are skipped;
    /// [`watch`](Self::watch) reports them.
    ///
    /// # Errors
    ///
    /// Returns an error if the queue or the plan cannot be read.
    pub fn pending(&self) -> Result<Vec<Review>, SuperviseError> {
        self.queue.pending()?.proposals.into_iter().map(|shown| self.review(shown)).collect()
    }

    /// Returns one proposal, decided or not, with the consequence of an approval.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such proposal, or it is malformed.
    pub fn show(&self, id: &ProposalId) -> Result<Review, SuperviseError> {
        self.review(self.queue.show(id)?)
    }

    /// Approves a proposal and applies its change: to the running proxies where that is possible, otherwise for the
    /// next launch. The decision says which. If applying the change fails, the decision gives the reason and the bottle
    /// is unchanged.
    ///
    /// # Errors
    ///
    /// Returns an error if nothing was decided: the proposal, its consequence or the logs have changed, or the change
    /// cannot be made.
    pub fn approve(&self, review: &Review, reason: &str) -> Result<Decision, SuperviseError> {
        self.approve_for(review, Scope::Always, reason)
    }

    /// Like [`approve`](Self::approve), with a scope.
    ///
    /// # Errors
    ///
    /// As [`approve`](Self::approve), and [`SuperviseError::NotPossible`] for a change that cannot have an end.
    pub fn approve_for(&self, review: &Review, scope: Scope, reason: &str) -> Result<Decision, SuperviseError> {
        let _lock = self.lock()?;
        let (id, now) = (|| review.shown.proposal().id.clone(), SystemTime::now());
        self.end_locked(now)?;
        let record = Record::read(&self.layout)?;
        let unavailable = self.live(&record).unavailable(&record.plan);
        let consequence = consequence(&record, unavailable.as_deref(), review.shown.proposal());
        if consequence != review.consequence {
            return Err(SuperviseError::ConsequenceChanged(id()));
        }
        if consequence.when == When::Never {
            return Err(SuperviseError::NotPossible { id: id(), why: consequence.note });
        }
        let end = scope.end(&record.plan, review.shown.proposal(), consequence.when, now);
        let end = end.map_err(|why| SuperviseError::NotPossible { id: id(), why })?;
        let apply = |proposal: &Proposal| self.apply(&record, proposal, &consequence, end.map(|end| (scope, end)));
        Ok(self.queue.approve(&review.shown, reason, now, apply)?)
    }

    /// Removes the hosts whose approval has ended, and returns them. Egress refuses them already. Every approval and
    /// [`run`](Self::run) do this too.
    ///
    /// # Errors
    ///
    /// Returns an error if the plan cannot be read, or a proxy does not take the change; the next call tries again.
    pub fn end_approvals(&self) -> Result<Vec<AllowedHost>, SuperviseError> {
        let _lock = self.lock()?;
        self.end_locked(SystemTime::now())
    }

    fn end_locked(&self, now: SystemTime) -> Result<Vec<AllowedHost>, SuperviseError> {
        let record = Record::read(&self.layout)?;
        let ended = scope::ended(&record.plan, now);
        if ended.is_empty() {
            return Ok(Vec::new());
        }
        let new = record.clone().with(scope::without(&record.plan, &ended), record.next().clone());
        let done = match self.live(&record).unavailable(&record.plan) {
            None => self.apply_now(&record, &new),
            Some(_) => self.queue_for_next_start(&record, &new),
        };
        done.map_err(SuperviseError::NotEnded)?;
        for (host, end) in &ended {
            let TemporaryHost { proposal, until, once } = end;
            self.queue.note(now, "ended", &json!({"host": host, "id": proposal, "once": once, "until": until}))?;
        }
        Ok(ended.into_iter().map(|(host, _)| host).collect())
    }

    /// Denies a proposal. The agent reads the reason.
    ///
    /// # Errors
    ///
    /// Returns an error if the proposal was decided already, or has changed since it was shown.
    pub fn deny(&self, review: &Review, reason: &str) -> Result<Decision, SuperviseError> {
        let _lock = self.lock()?;
        // A denial is possible even if this fails. The marker file then stays for the next decision.
        let _ = self.finish_interrupted(&Record::read(&self.layout)?);
        Ok(self.queue.deny(&review.shown, reason, SystemTime::now())?)
    }

    /// Returns an iterator over proposals as they arrive.
    ///
    /// It looks every `interval`, at most `polls` times, until `cancelled` returns `true`.
    pub fn watch<C: FnMut() -> bool>(
        &self,
        interval: Duration,
        polls: u64,
        cancelled: C,
    ) -> impl Iterator<Item = Event> + use<'_, C> {
        self.queue.watch(interval, polls, cancelled).map(|event| self.event(event))
    }

    fn event(&self, event: WatchEvent) -> Event {
        match event {
            WatchEvent::Proposed(shown) => match self.review(shown) {
                Ok(review) => Event::Proposed(Box::new(review)),
                Err(error) => Event::Failed(error),
            },
            WatchEvent::Settled(id) => Event::Settled(id),
            WatchEvent::Unusable(file) => Event::Unusable(file),
            WatchEvent::Failed(error) => Event::Failed(error.into()),
        }
    }

    /// Checks both audit logs against each other and against the decisions.
    ///
    /// # Errors
    ///
    /// [`QueueError::Audit`] and [`QueueError::Contradiction`].
    pub fn verify(&self) -> Result<Verified, SuperviseError> {
        Ok(self.queue.verify()?)
    }

    /// Returns the queue.
    pub const fn queue(&self) -> &Queue {
        &self.queue
    }

    fn live<'a>(&'a self, record: &'a Record) -> Live<'a> {
        Live { proxies: &*self.proxies, launched: record.launched() }
    }

    fn review(&self, shown: ProposalSnapshot) -> Result<Review, SuperviseError> {
        let record = Record::read(&self.layout)?;
        let unavailable = self.live(&record).unavailable(&record.plan);
        let consequence = consequence(&record, unavailable.as_deref(), shown.proposal());
        Ok(Review { shown, consequence })
    }

    /// Applies an approval. One that has an end does not change the plan of the next launch.
    fn apply(
        &self,
        record: &Record,
        proposal: &Proposal,
        consequence: &Consequence,
        end: Option<(Scope, (AllowedHost, TemporaryHost))>,
    ) -> Applied {
        let Consequence { diff, when, note } = consequence;
        let changes = diff.changes.iter().map(|change| change.words.clone());
        let later = (*when != When::Now).then(|| format!("it {when}"));
        let note = Some(note.clone()).filter(|note| !note.is_empty());
        let scope = end.as_ref().map(|(scope, _)| scope.to_string());
        let ends =
            end.as_ref().map(|(_, (_, TemporaryHost { until, once, .. }))| ApprovalEnd { until: *until, once: *once });
        let detail = changes.chain(scope).chain(later).chain(note).collect::<Vec<_>>().join("; ");
        let mut now = edit(&record.plan, Some(record.launched()), proposal);
        let next = match end {
            None => edit(record.next(), None, proposal).plan,
            Some((_, (host, end))) => {
                now.plan.egress.iter_mut().for_each(|egress| drop(egress.temporary.insert(host.clone(), end.clone())));
                record.next().clone()
            }
        };
        let done = match (when, now.when) {
            (When::Never, _) => Err(detail.clone()),
            (When::ByHand, _) => Ok(()),
            (When::Now, _) => self.apply_now(record, &record.clone().with(now.plan, next)),
            // A stopped proxy reads its file when it is started again.
            (When::NextStart, _) => self.queue_for_next_start(record, &record.clone().with(now.plan, next)),
            (When::NextLaunch, _) => {
                self.write(&record.clone().with(record.plan.clone(), next)).map_err(|error| chain(&error))
            }
        };
        match done {
            Ok(()) if *when == When::Now => Applied { ends, ..Applied::live(detail) },
            Ok(()) => Applied::recorded(detail),
            Err(error) => Applied::failed(error),
        }
    }

    /// Applies a change to the running proxies. On failure the bottle is unchanged, or the error says that it is not.
    fn apply_now(&self, old: &Record, new: &Record) -> Result<(), String> {
        self.finish_interrupted(old)?;
        let mark = self.unfinished();
        File::create(&mark).and_then(|file| file.sync_all()).map_err(|error| chain(&failed("write", &mark)(error)))?;
        let write = |record: &Record| self.write(record).map_err(|error| chain(&error));
        let commit = || write(new).inspect_err(|_| drop(write(old)));
        let done = self.live(old).apply(&old.plan, &new.plan, commit);
        if !matches!(done, Err(Failure { restore: Some(_), .. })) {
            fs::remove_file(&mark).map_err(|error| chain(&failed("remove", &mark)(error)))?;
        }
        done.map_err(|Failure { cause, restore }| match restore {
            None => format!("{cause}; the bottle is as it was"),
            Some(error) => format!(
                "{cause}; restoring the old configuration failed as well: {}; the next decision tries again",
                chain(&error)
            ),
        })
    }

    fn queue_for_next_start(&self, old: &Record, new: &Record) -> Result<(), String> {
        self.live(old).queue_for_next_start(&new.plan).map_err(|error| chain(&error))?;
        self.write(new).map_err(|error| chain(&error))
    }

    /// Writes the plan, and the posture that the bottle can read.
    fn write(&self, record: &Record) -> Result<(), SuperviseError> {
        record.write(&self.layout)?;
        let posture = self.layout.current_config();
        let sent = self.mirror.as_ref().map_or(Ok(()), |mirror| mirror.send(&[&posture]));
        sent.map_err(failed("send", &posture))
    }

    /// Restores the plan in effect after an approval that was interrupted.
    fn finish_interrupted(&self, record: &Record) -> Result<(), String> {
        let mark = self.unfinished();
        if !mark.exists() {
            return Ok(());
        }
        let restored = self.live(record).restore(&record.plan);
        restored
            .map_err(|error| format!("an earlier approval was interrupted and cannot be undone: {}", chain(&error)))?;
        fs::remove_file(&mark).map_err(|error| chain(&failed("remove", &mark)(error)))
    }

    /// Returns the path of the marker file, which exists while a change is applied.
    fn unfinished(&self) -> PathBuf {
        self.layout.service_dir(Service::Supervise).join("unfinished")
    }

    /// Locks the bottle: decisions are made and applied one at a time.
    fn lock(&self) -> Result<FileLock, SuperviseError> {
        let path = self.layout.service_dir(Service::Supervise).join("lock");
        FileLock::wait(&path).map_err(failed("lock", &path))
    }
}

/// Returns the consequence of an approval. `unavailable` is the reason why the proxies cannot reload now.
fn consequence(record: &Record, unavailable: Option<&str>, proposal: &Proposal) -> Consequence {
    let mut now = edit(&record.plan, Some(record.launched()), proposal);
    if let (When::Now, Some(reason)) = (now.when, unavailable) {
        // A proxy reads its file when it is started.
        now.when = When::NextStart;
        reason.clone_into(&mut now.note);
    }
    let (before, after) = match now.when {
        When::NextLaunch => (record.next(), edit(record.next(), None, proposal).plan),
        _ => (&record.plan, now.plan),
    };
    Consequence { diff: Posture::of(before).diff(&Posture::of(&after)), when: now.when, note: now.note }
}

/// Pause between two looks at the queue.
const INTERVAL: Duration = Duration::from_millis(200);
/// Number of times that a proposal is asked about whose consequence changes meanwhile.
const ATTEMPTS: usize = 10;

/// Event of [`Supervisor::run`] that no answer caused.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// An event of the queue. It is never [`Event::Proposed`].
    Queue(Event),
    /// The approval of a host has ended.
    Ended(AllowedHost),
}

/// A thread that runs [`Supervisor::run`]. It ends when this is dropped, after an approver that is just being asked. A panic of the
/// thread, such as one of `tell`, continues at the drop.
#[derive(Debug)]
pub struct Running {
    is_cancelled: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Asks `approver` about each proposal as it arrives, applies its answers, and removes hosts whose approval has ended,
    /// until `is_cancelled` returns true or the approver answers [`Answer::Stop`]. `tell` receives everything else. After a panic
    /// of [`Approver::decide`], `tell` receives [`SuperviseError::ApproverPanicked`], and the next proposal is asked about.
    pub fn run(&self, approver: &dyn Approver, mut is_cancelled: impl FnMut() -> bool, mut tell: impl FnMut(Outcome)) {
        let mut watch = self.queue.watch(INTERVAL, u64::MAX, || false);
        let mut is_failing = false;
        while !is_cancelled() {
            match self.end_approvals() {
                Ok(ended) => {
                    for host in ended {
                        tell(Outcome::Ended(host));
                    }
                    is_failing = false;
                }
                // It is told once, and tried at each look.
                Err(error) if !std::mem::replace(&mut is_failing, true) => tell(Outcome::Queue(Event::Failed(error))),
                Err(_) => {}
            }
            for event in watch.poll() {
                match self.event(event) {
                    Event::Proposed(_) if is_cancelled() => return,
                    Event::Proposed(review) => {
                        if !self.ask(approver, *review, &mut tell) {
                            return;
                        }
                    }
                    other => tell(Outcome::Queue(other)),
                }
            }
            thread::sleep(INTERVAL);
        }
    }

    /// Starts a thread that runs [`run`](Self::run) until the returned value is dropped.
    pub fn start(&self, approver: Arc<dyn Approver>, tell: impl FnMut(Outcome) + Send + 'static) -> Running {
        let is_cancelled = Arc::new(AtomicBool::new(false));
        let (supervisor, token) = (self.clone(), Arc::clone(&is_cancelled));
        let thread = Some(thread::spawn(move || supervisor.run(&*approver, || token.load(Ordering::SeqCst), tell)));
        Running { is_cancelled, thread }
    }

    /// Asks about a proposal, again if its consequence has changed meanwhile. Returns false if no more is to be asked.
    fn ask(&self, approver: &dyn Approver, mut review: Review, tell: &mut impl FnMut(Outcome)) -> bool {
        for _ in 0..ATTEMPTS {
            // Nothing here is half done, whatever the approver has broken in itself.
            let Ok((who, answer)) = catch_unwind(AssertUnwindSafe(|| approver.decide_as(&review))) else {
                let id = review.proposal().id.clone();
                tell(Outcome::Queue(Event::Failed(SuperviseError::ApproverPanicked(id))));
                return true;
            };
            let decided = match answer {
                Answer::Approve { scope, reason } => {
                    self.clone().with_decider(who).approve_for(&review, scope, &reason)
                }
                Answer::Deny { reason } => self.clone().with_decider(who).deny(&review, &reason),
                Answer::Later => return true,
                Answer::Stop => return false,
            };
            let error = match decided {
                Ok(decision) => {
                    approver.told(&review, Ok(&decision.to_string()));
                    return true;
                }
                Err(error) => error,
            };
            approver.told(&review, Err(&chain(&error)));
            match (error, self.show(&review.proposal().id)) {
                (SuperviseError::ConsequenceChanged(_), Ok(again)) => review = again,
                _ => return true,
            }
        }
        true
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.is_cancelled.store(true, Ordering::SeqCst);
        // An approver that drops this does so in the thread itself.
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id()) {
            match thread.join() {
                Err(panic) if !thread::panicking() => resume_unwind(panic),
                _ => {}
            }
        }
    }
}

/// Returns the plan in effect of a bottle, with or without `supervise`.
///
/// # Errors
///
/// Returns an error if the bottle has no plan on disk, or the file is malformed.
pub fn current_plan(layout: &StateLayout) -> Result<BottlePlan, SuperviseError> {
    Ok(Record::read(layout)?.plan)
}

/// Writes the plan of a launch to the bottle's state directory, before the launch puts it into effect.
///
/// # Errors
///
/// Returns an error if a file of the state directory cannot be written or removed.
pub fn write_launched_plan(plan: &BottlePlan, layout: &StateLayout) -> Result<(), SuperviseError> {
    let mark = layout.service_dir(Service::Supervise).join("unfinished");
    match fs::remove_file(&mark) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &mark)(error)),
        _ => {}
    }
    Record::new(plan.clone()).write(layout)
}

#[cfg(test)]
mod tests {
    use super::*;

    use bottle_engine::{EngineChoice, rehearsal};
    use bottle_exec::Control;
    use bottle_plan::Manifest;
    use bottle_testing::plans;

    fn plan(egress: &str) -> BottlePlan {
        let manifest = format!(
            "bottles: {{dev: {{egress: {egress}, supervise: true}}}}\nagents: {{demo: {{bottle: dev, command: [id]}}}}\n"
        );
        plans::plan(&Manifest::parse(&manifest).unwrap())
    }

    #[test]
    fn an_approval_is_refused_if_its_consequence_has_changed_or_it_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let root = StateRoot::at(dir.path());
        let slug: Slug = "demo-1".parse().unwrap();
        let layout = root.bottle(&slug);
        let proposals = layout.supervise_queue().join("proposals");
        for dir in [&layout.current_config(), &layout.supervise_decisions(), &proposals] {
            fs::create_dir_all(dir).unwrap();
        }
        write_launched_plan(&plan("{allow: [b.example.com]}"), &layout).unwrap();
        let id: ProposalId = "1700000000000-aaaaaaaaaaaaaaaa".parse().unwrap();
        let proposal = format!(
            r#"{{"agent_reason":"x","change":{{"host":"a.example.com"}},"created":"2026-01-02T03:04:05.678Z","id":"{id}","kind":"allow_host","slug":"demo-1","version":1}}"#
        );
        fs::write(proposals.join(format!("{id}.json")), proposal).unwrap();
        let engine = Engine::detect(Arc::new(rehearsal()), &EngineChoice::Auto, Control::default()).unwrap();
        let supervisor = Supervisor::open(engine, &root, &slug).unwrap();

        let stale = supervisor.show(&id).unwrap();
        assert_eq!(stale.consequence().when, When::Now);
        // A route now limits what may be asked of the host.
        let routed = plan("{allow: [b.example.com], routes: [{host: a.example.com, paths: [/v1/]}]}");
        write_launched_plan(&routed, &layout).unwrap();
        let refused = supervisor.approve(&stale, "");
        assert!(matches!(&refused, Err(SuperviseError::ConsequenceChanged(of)) if *of == id), "{refused:?}");

        let fresh = supervisor.show(&id).unwrap();
        assert_eq!(fresh.consequence().when, When::Never);
        let refused = supervisor.approve(&fresh, "");
        assert!(
            matches!(&refused, Err(SuperviseError::NotPossible { id: of, why }) if *of == id && *why == fresh.consequence().note),
            "{refused:?}"
        );

        // Nothing was decided.
        assert_eq!(supervisor.pending().unwrap().len(), 1);
        assert_eq!(supervisor.plan().unwrap(), routed);
    }
}
