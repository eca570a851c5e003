//! The events of a bottle as one stream.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;

use bottle_events::{AuditSink, BottleEvent, EventFile, EventLog, EventStream, Suggestion};
use bottle_files::PrivateDir;
use bottle_plan::{Slug, StateLayout};
use bottle_sidecars::audit::{AuditLine, Refusal, refusals};

use crate::Bottles;
use crate::bottles::check_private;
use crate::lifecycle::{BottleError, JournalError, JournalFile, Status};

impl Bottles {
    /// Gives each event of a bottle to `each`, sorted by time: what its sidecars report, and what its launcher did.
    ///
    /// With `follow` it continues until the bottle is down, with the last event of its teardown, or the engine's control is
    /// cancelled. What happened before the call then comes by source.
    ///
    /// # Errors
    ///
    /// As [`logs`](Bottles::logs).
    pub fn events(
        &self,
        slug: &Slug,
        follow: bool,
        each: impl FnMut(BottleEvent) + Send + 'static,
    ) -> Result<(), BottleError> {
        let layout = self.state_root().bottle(slug);
        check_private(&layout)?;
        let path = layout.events();
        let stream = EventStream::new(&path);
        let audit = |sink: AuditSink| self.audit(slug, follow, sink);
        let io = |source| JournalError::Io { doing: "read", path, source }.into();
        if !follow {
            return stream.read(audit, io, each);
        }
        let cancel = self.engine().control().cancel();
        let is_closing = || {
            let journal = JournalFile::open(&layout).map(|file| file.journal());
            !cancel.is_cancelled() && journal.is_ok_and(|journal| journal.status == Status::Closing)
        };
        stream.follow(audit, is_closing, io, each)
    }

    /// Returns the smallest `egress` of a manifest that covers the requests in the log of a bottle, which runs or was taken
    /// down. The log of each service is limited to some megabytes, and the oldest requests are removed first.
    ///
    /// # Errors
    ///
    /// As [`logs`](Bottles::logs), and if the bottle has no state under this root.
    pub fn suggest(&self, slug: &Slug) -> crate::Result<Suggestion> {
        let lines = self.logged(slug)?;
        let plan = bottle_supervise::current_plan(&self.state_root().bottle(slug))?;
        Ok(Suggestion::new(&plan, lines))
    }

    /// Returns the refusals in the log of a bottle, which runs or was taken down, each with the line of a manifest that would
    /// allow it. See [`refusals`].
    ///
    /// # Errors
    ///
    /// As [`logs`](Bottles::logs).
    pub fn refusals(&self, slug: &Slug) -> crate::Result<Vec<Refusal>> {
        let plan = bottle_supervise::current_plan(&self.state_root().bottle(slug)).ok();
        Ok(refusals(&self.logged(slug)?, plan.as_ref()))
    }

    fn logged(&self, slug: &Slug) -> Result<Vec<AuditLine>, BottleError> {
        let (sender, lines) = mpsc::channel();
        self.audit(slug, false, move |line| _ = sender.send(line))?;
        Ok(lines.into_iter().collect())
    }

    /// Returns this with an observer that also writes each event to the file of a bottle that exists.
    pub(crate) fn with_events_of(&self, slug: &Slug) -> Self {
        let state = self.state_root().bottle(slug);
        let is_ours = PrivateDir::open_with_parent(state.dir()).is_ok();
        self.with_event_file(slug, &state, Arc::new(is_ours.into()))
    }

    /// Returns this with an observer that also writes each event to the file of a bottle, once the flag is set.
    pub(crate) fn with_event_file(&self, slug: &Slug, state: &StateLayout, is_ours: Arc<AtomicBool>) -> Self {
        let log = EventLog::new(EventFile::new(state.events(), is_ours));
        log.set_bottle(slug.as_str(), state.dir());
        self.clone().with_observer(Arc::new(log.beside(Arc::clone(&self.observer))))
    }
}
