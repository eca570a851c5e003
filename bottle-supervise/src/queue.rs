//! The queue of proposals: reading them and recording decisions.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bottle_files::{FileLock, NewFile, sync_directory};
use bottle_values::digest::sha256;
use serde_json::{Value, json};

use super::audit::{AuditError, AuditLog, AuditSummary, Chain, Head, timestamp};
use super::canonical::canonical;
use super::decision::{Applied, Decision, Verdict};
use super::files::Directory;
use super::mirror::Mirror;
use super::proposal::{MAX_BYTES, Malformed, Proposal, ProposalId};
use super::{DecidedBy, Decider};

/// Maximum number of proposals that are read. A correct sidecar keeps at most 1000.
const MAX_PROPOSALS: usize = 1024;
/// Maximum bytes of the person's reason and of the result's detail. One byte takes up to six bytes in JSON.
const MAX_TEXT_BYTES: usize = 4096;
const LOG: &str = "audit.jsonl";

/// The queue of one bottle, from the host's side.
#[derive(Debug, Clone)]
pub struct Queue {
    incoming: PathBuf,
    decisions: PathBuf,
    mirror: Option<Mirror>,
    decider: Decider,
}

/// A proposal as it was read, with the hash of its bytes. A decision is bound to that hash.
///
/// Only [`Queue::show`] and [`Queue::pending`] return one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposalSnapshot {
    proposal: Proposal,
    sha256: String,
}

/// Proposals that wait for a decision.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Pending {
    /// Oldest first.
    pub proposals: Vec<ProposalSnapshot>,
    /// Entries of the proposals directory that are not proposals. They are a sign of a faulty sidecar.
    pub unusable: Vec<Unusable>,
}

/// A file in the proposals directory that is not a proposal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Unusable {
    /// Name of the file, escaped for display.
    pub name: String,
    /// Problem with the entry.
    pub why: String,
}

/// Both logs, checked against each other and against the decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The sidecar's log.
    pub queue: AuditSummary,
    /// The host's log.
    pub decisions: AuditSummary,
    /// Last line of the sidecar's log that the host's log confirms. Later lines are unconfirmed.
    pub witnessed: Head,
}

/// Error of reading a queue or making a decision.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// A file or directory cannot be read or written.
    #[error("{action} `{}`", path.display())]
    Io {
        /// Operation that failed.
        action: &'static str,
        /// Path of the file or directory.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// There is no such proposal.
    #[error("find proposal `{0}`: there is none")]
    NotFound(ProposalId),
    /// The proposal's file is not a proposal.
    #[error("read proposal `{id}`")]
    Malformed {
        /// The proposal.
        id: ProposalId,
        /// Problem with the proposal.
        source: Malformed,
    },
    /// The proposal's file has changed since it was shown; nothing was decided.
    #[error("decide proposal `{0}`: it has changed since it was shown")]
    ChangedSinceShown(ProposalId),
    /// The proposal has been decided already. That decision stands.
    #[error("decide proposal `{0}`: it has been decided already")]
    AlreadyDecided(ProposalId),
    /// A log failed its verification.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The sidecar's log, the host's log and the decisions contradict each other.
    #[error("verify the audit logs: they contradict each other: {0}")]
    Contradiction(String),
}

impl Queue {
    /// Opens a queue that has its proposals under `queue` and its decisions in `decisions`. Both must exist.
    ///
    /// # Errors
    ///
    /// [`QueueError::Io`] if one is not a directory.
    pub fn open(queue: &Path, decisions: &Path) -> Result<Self, QueueError> {
        for path in [queue, decisions] {
            Directory::open(path).map_err(io("open", path))?;
        }
        Ok(Self {
            incoming: queue.to_owned(),
            decisions: decisions.to_owned(),
            mirror: None,
            decider: Decider::default(),
        })
    }

    /// Takes the proposals from the bottle's store, and sends the decisions there.
    pub(super) fn with_mirror(mut self, mirror: Option<Mirror>) -> Self {
        self.mirror = mirror;
        self
    }

    /// Sets the decider that the decisions name. Default: [`Decider::Program`].
    #[must_use]
    pub fn with_decider(self, decider: Decider) -> Self {
        Self { decider, ..self }
    }

    fn fetch(&self) -> Result<(), QueueError> {
        self.mirror.as_ref().map_or(Ok(()), |mirror| mirror.fetch_queue(LOG)).map_err(io("fetch", &self.incoming))
    }

    /// Returns the proposals that wait for a decision.
    ///
    /// # Errors
    ///
    /// [`QueueError::Io`] if the queue cannot be read. A file that is not a proposal is no error: see
    /// [`Pending::unusable`].
    pub fn pending(&self) -> Result<Pending, QueueError> {
        self.fetch()?;
        let mut pending = Pending::default();
        let Some(proposals) = self.proposals()? else {
            return Ok(pending);
        };
        let decided = self.decided()?;
        let names = proposals.names(MAX_PROPOSALS).map_err(io("list", &self.incoming))?;
        for name in names {
            let id = name.to_str().ok().and_then(|name| name.strip_suffix(".json")?.parse::<ProposalId>().ok());
            let unusable = |why: String| Unusable { name: name.to_string_lossy().escape_debug().to_string(), why };
            match id {
                Some(id) if decided.contains(&id) => {}
                Some(id) => match self.read(&proposals, &id) {
                    Ok(Some(shown)) => pending.proposals.push(shown),
                    Ok(None) => {}
                    Err(error) => pending.unusable.push(unusable(bottle_exec::chain(&error))),
                },
                None => pending.unusable.push(unusable("not the name of a proposal".to_owned())),
            }
        }
        Ok(pending)
    }

    /// Returns one proposal, decided or not.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`] and [`QueueError::Malformed`].
    pub fn show(&self, id: &ProposalId) -> Result<ProposalSnapshot, QueueError> {
        self.fetch()?;
        self.proposals()?
            .map_or(Ok(None), |proposals| self.read(&proposals, id))?
            .ok_or_else(|| QueueError::NotFound(id.clone()))
    }

    /// Returns the decision on a proposal, if there is one.
    ///
    /// # Errors
    ///
    /// [`QueueError::Io`] if it cannot be read.
    pub fn decision(&self, id: &ProposalId) -> Result<Option<Decision>, QueueError> {
        let path = self.decisions.join(format!("{id}.json"));
        let content = Directory::open(&self.decisions)
            .and_then(|dir| dir.read(&format!("{id}.json"), MAX_BYTES))
            .map_err(io("read", &path))?;
        content
            .map(|content| serde_json::from_slice(&content).map_err(|error| io("read", &path)(error.into())))
            .transpose()
    }

    /// Approves the proposal that was shown. `apply` makes the change, then the decision and its result are written for
    /// the agent. `reason` and the result's detail are cut after 4 KiB.
    ///
    /// Decisions are made one at a time; a second caller waits. If this process dies between the change and the
    /// decision, the proposal stays pending, with an `approving` line in the host's log. The next approval then calls
    /// `apply` again, so `apply` must accept that its change is already made.
    ///
    /// # Errors
    ///
    /// Before `apply` is called: [`QueueError::ChangedSinceShown`], [`QueueError::AlreadyDecided`], and every error of
    /// [`Queue::verify`], because nothing is approved while the sidecar's log is invalid. After `apply`:
    /// [`QueueError::Io`] and [`QueueError::Audit`]. The change is then made, but the decision is not recorded.
    pub fn approve(
        &self,
        shown: &ProposalSnapshot,
        reason: &str,
        now: SystemTime,
        apply: impl FnOnce(&Proposal) -> Applied,
    ) -> Result<Decision, QueueError> {
        let _lock = self.lock()?;
        self.check_undecided(shown)?;
        let witness = self.verify()?.queue.head;
        let mut log = AuditLog::open(&self.decisions.join(LOG), now)?;
        log.append(
            now,
            "approving",
            &json!({"id": shown.proposal.id, "proposal_sha256": shown.sha256, "witness": witness}),
        )?;
        let applied = apply(&shown.proposal);
        self.decide(&mut log, shown, Verdict::Approved, reason, Some(applied), Some(&witness), now)
    }

    /// Denies the proposal that was shown. Works even if the sidecar's log is invalid, which the host's log records.
    ///
    /// # Errors
    ///
    /// [`QueueError::ChangedSinceShown`] and [`QueueError::AlreadyDecided`]; [`QueueError::Audit`] if the host's own
    /// log is invalid.
    pub fn deny(&self, shown: &ProposalSnapshot, reason: &str, now: SystemTime) -> Result<Decision, QueueError> {
        let _lock = self.lock()?;
        self.check_undecided(shown)?;
        let witness = self.verify().ok().map(|verified| verified.queue.head);
        let mut log = AuditLog::open(&self.decisions.join(LOG), now)?;
        self.decide(&mut log, shown, Verdict::Denied, reason, None, witness.as_ref(), now)
    }

    /// Checks both logs and every decision. The sidecar's log must still contain each line that the host's log names as
    /// its end at that time. Each decision must be the one that was logged.
    ///
    /// Two kinds of truncation leave no trace. Whoever controls the sidecar can remove lines after
    /// [`Verified::witnessed`]. The host's user can remove the last lines of the host's log together with their
    /// decisions.
    ///
    /// # Errors
    ///
    /// [`QueueError::Audit`] for a log that is invalid by itself, [`QueueError::Contradiction`] for the rest.
    pub fn verify(&self) -> Result<Verified, QueueError> {
        self.fetch()?;
        let host = Chain::read(&self.decisions.join(LOG))?;
        let sidecar = Chain::read(&self.incoming.join(LOG))?;
        let mut witnessed = Head::default();
        let mut recorded = BTreeSet::new();
        for link in &host.entries {
            if let Some(head) = link.data.get("witness").and_then(Head::from_json) {
                if !sidecar.passed(&head) {
                    return Err(QueueError::Contradiction(format!(
                        "the sidecar's log was cut or made anew before line {}, which the host has seen",
                        head.seq
                    )));
                }
                witnessed = head;
            }
            if link.event == "decided" {
                let field = |name| link.data.get(name).and_then(Value::as_str).unwrap_or_default();
                recorded.insert((field("id").to_owned(), field("decision_sha256").to_owned()));
            }
        }
        let decisions = Directory::open(&self.decisions).map_err(io("open", &self.decisions))?;
        for id in self.decided()? {
            let name = format!("{id}.json");
            let content = decisions.read(&name, MAX_BYTES).map_err(io("read", &self.decisions.join(&name)))?;
            if content.is_some_and(|content| !recorded.contains(&(id.to_string(), sha256(content)))) {
                return Err(QueueError::Contradiction(format!(
                    "the decision on `{id}` is not the one in the host's log"
                )));
            }
        }
        Ok(Verified { queue: sidecar.summary(), decisions: host.summary(), witnessed })
    }

    /// Appends an event to the host's log.
    pub(super) fn note(&self, now: SystemTime, event: &str, data: &Value) -> Result<(), QueueError> {
        let _lock = self.lock()?;
        AuditLog::open(&self.decisions.join(LOG), now)?.append(now, event, data)?;
        Ok(())
    }

    fn proposals(&self) -> Result<Option<Directory>, QueueError> {
        Directory::open(&self.incoming)
            .and_then(|dir| dir.sub("proposals"))
            .map_err(io("open", &self.incoming.join("proposals")))
    }

    fn read(&self, proposals: &Directory, id: &ProposalId) -> Result<Option<ProposalSnapshot>, QueueError> {
        let name = format!("{id}.json");
        let path = || self.incoming.join("proposals").join(&name);
        let Some(content) = proposals.read(&name, MAX_BYTES).map_err(|error| io("read", &path())(error))? else {
            return Ok(None);
        };
        let malformed = |source| QueueError::Malformed { id: id.clone(), source };
        let proposal = Proposal::parse(&content).map_err(malformed)?;
        if proposal.id != *id {
            return Err(malformed(Malformed("its id is not its name")));
        }
        Ok(Some(ProposalSnapshot { proposal, sha256: sha256(content) }))
    }

    fn decided(&self) -> Result<BTreeSet<ProposalId>, QueueError> {
        let names = Directory::open(&self.decisions)
            .and_then(|dir| dir.names(MAX_PROPOSALS + 1))
            .map_err(io("list", &self.decisions))?;
        Ok(names.iter().filter_map(|name| name.to_str().ok()?.strip_suffix(".json")?.parse().ok()).collect())
    }

    fn lock(&self) -> Result<FileLock, QueueError> {
        let path = self.decisions.join(".lock");
        FileLock::wait(&path).map_err(io("lock", &path))
    }

    fn check_undecided(&self, shown: &ProposalSnapshot) -> Result<(), QueueError> {
        let id = &shown.proposal.id;
        if self.decided()?.contains(id) {
            return Err(QueueError::AlreadyDecided(id.clone()));
        }
        match self.show(id) {
            Ok(now) if now == *shown => Ok(()),
            Ok(_) | Err(QueueError::NotFound(_) | QueueError::Malformed { .. }) => {
                Err(QueueError::ChangedSinceShown(id.clone()))
            }
            Err(error) => Err(error),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "each is one field of the decision or of the line that records it")]
    fn decide(
        &self,
        log: &mut AuditLog,
        shown: &ProposalSnapshot,
        verdict: Verdict,
        reason: &str,
        applied: Option<Applied>,
        witness: Option<&Head>,
        now: SystemTime,
    ) -> Result<Decision, QueueError> {
        let id = &shown.proposal.id;
        let decision = Decision {
            version: 1,
            id: id.clone(),
            proposal_sha256: shown.sha256.clone(),
            verdict,
            reason: cut(reason),
            decided_at: timestamp(now),
            by: Some(DecidedBy { decider: self.decider, process: std::process::id() }),
            applied: applied.map(|applied| Applied { detail: cut(&applied.detail), ..applied }),
        };
        let path = self.decisions.join(format!("{id}.json"));
        let failed = io("write", &path);
        let content = serde_json::to_value(&decision)
            .ok()
            .and_then(|value| canonical(&value))
            .ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
        // The line comes first: a decision without a line in the log counts as forged.
        log.append(
            now,
            "decided",
            &json!({
                "id": id,
                "proposal_sha256": shown.sha256,
                "decision": verdict,
                "decision_sha256": sha256(&content),
                "witness": witness,
            }),
        )?;
        self.publish(&path, content.as_bytes()).map_err(failed)?;
        Ok(decision)
    }

    fn publish(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        // Readable by all: with mapped user namespaces, the sidecar may run as another user.
        let mut file = NewFile::create(path, 0o644)?;
        file.write_all(content)?;
        file.sync()?;
        file.place()?;
        sync_directory(&self.decisions)?;
        self.mirror.as_ref().map_or(Ok(()), |mirror| mirror.send(&[path]))
    }
}

impl ProposalSnapshot {
    /// Returns the proposal.
    pub fn proposal(&self) -> &Proposal {
        &self.proposal
    }

    /// Returns the SHA-256 of the proposal's file.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

/// Returns the beginning of a text. A decision must fit its file, because its change is already made.
fn cut(text: &str) -> String {
    match text.char_indices().find(|(index, c)| index + c.len_utf8() > MAX_TEXT_BYTES) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn io(action: &'static str, path: &Path) -> impl Fn(io::Error) -> QueueError {
    move |source| QueueError::Io { action, path: path.to_owned(), source }
}
