//! Waiting for proposals.

use std::collections::{BTreeSet, VecDeque};
use std::thread;
use std::time::Duration;

use super::{ProposalId, ProposalSnapshot, Queue, QueueError, Unusable};

/// Event of a [`Watch`].
#[derive(Debug)]
#[non_exhaustive]
pub enum WatchEvent {
    /// A proposal waits for a decision.
    Proposed(ProposalSnapshot),
    /// A proposal no longer waits: decided elsewhere, or its file is gone or changed. A changed one comes again.
    Settled(ProposalId),
    /// A file in the proposals directory is not a proposal.
    Unusable(Unusable),
    /// The queue could not be read. The next poll may succeed.
    Failed(QueueError),
}

/// The iterator of [`Queue::watch`]. It blocks for at most one interval at a time, reports each event once, then ends.
#[derive(Debug)]
pub struct Watch<'q, C> {
    queue: &'q Queue,
    interval: Duration,
    polls_left: u64,
    cancelled: C,
    first: bool,
    waiting: BTreeSet<(ProposalId, String)>,
    unusable: BTreeSet<(String, String)>,
    events: VecDeque<WatchEvent>,
}

impl Queue {
    /// Returns an iterator over proposals as they arrive.
    ///
    /// It looks every `interval`, at most `polls` times, until `cancelled` returns `true`.
    pub fn watch<C: FnMut() -> bool>(&self, interval: Duration, polls: u64, cancelled: C) -> Watch<'_, C> {
        Watch::new(self, interval, polls, cancelled)
    }
}

impl<'q, C: FnMut() -> bool> Watch<'q, C> {
    fn new(queue: &'q Queue, interval: Duration, polls: u64, cancelled: C) -> Self {
        Self {
            queue,
            interval,
            polls_left: polls,
            cancelled,
            first: true,
            waiting: BTreeSet::new(),
            unusable: BTreeSet::new(),
            events: VecDeque::new(),
        }
    }

    /// Looks once and returns what is new.
    pub(super) fn poll(&mut self) -> VecDeque<WatchEvent> {
        self.look();
        std::mem::take(&mut self.events)
    }

    fn look(&mut self) {
        let pending = match self.queue.pending() {
            Ok(pending) => pending,
            Err(error) => return self.events.push_back(WatchEvent::Failed(error)),
        };
        let key = |shown: &ProposalSnapshot| (shown.proposal().id.clone(), shown.sha256().to_owned());
        let waiting: BTreeSet<_> = pending.proposals.iter().map(key).collect();
        for (id, _) in self.waiting.difference(&waiting) {
            self.events.push_back(WatchEvent::Settled(id.clone()));
        }
        for shown in pending.proposals {
            if !self.waiting.contains(&key(&shown)) {
                self.events.push_back(WatchEvent::Proposed(shown));
            }
        }
        let mut unusable = BTreeSet::new();
        for file in pending.unusable {
            let key = (file.name.clone(), file.why.clone());
            if !self.unusable.contains(&key) {
                self.events.push_back(WatchEvent::Unusable(file));
            }
            unusable.insert(key);
        }
        self.waiting = waiting;
        self.unusable = unusable;
    }
}

impl<C: FnMut() -> bool> Iterator for Watch<'_, C> {
    type Item = WatchEvent;

    fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if (self.cancelled)() {
                return None;
            }
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            self.polls_left = self.polls_left.checked_sub(1)?;
            if !std::mem::take(&mut self.first) {
                thread::sleep(self.interval);
            }
            self.look();
        }
    }
}
