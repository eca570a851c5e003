//! Teardown of a bottle: best effort, with a report.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bottle_engine::Engine;
use bottle_exec::{Event, Observer, Outcome, chain};
use bottle_plan::Names;
use serde::Serialize;

use crate::journal::{BottleLock, Journal, JournalError, JournalFile, Status};
use crate::undo::{Origin, Undo, UndoHandlers, Undoer};

/// Options of a teardown.
#[derive(Clone)]
#[non_exhaustive]
pub struct TeardownOptions {
    /// Time that containers get between SIGTERM and SIGKILL. Default: 3 s.
    pub grace: Duration,
    /// Handlers of [`Undo::Extension`]. Default: none.
    pub handlers: UndoHandlers,
    /// Observer that receives the events of each undo.
    pub observer: Arc<dyn Observer>,
}

impl Default for TeardownOptions {
    fn default() -> Self {
        let silent = |_: &Event| {};
        Self { grace: Duration::from_secs(3), handlers: UndoHandlers::default(), observer: Arc::new(silent) }
    }
}

impl TeardownOptions {
    /// Sets the time that containers get between SIGTERM and SIGKILL.
    #[must_use]
    pub const fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets the handlers of [`Undo::Extension`].
    #[must_use]
    pub fn with_handlers(mut self, handlers: UndoHandlers) -> Self {
        self.handlers = handlers;
        self
    }

    pub(crate) fn undoer<'a>(
        &'a self,
        engine: &'a Engine,
        state_dir: Option<&'a Path>,
        names: &'a Names,
        origin: Origin,
    ) -> Undoer<'a> {
        Undoer {
            engine,
            state_dir,
            handlers: &self.handlers,
            names,
            origin,
            grace: self.grace,
            observer: &*self.observer,
            was_up: false,
            ahead: Mutex::default(),
        }
    }

    /// Sets the observer.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }
}

impl fmt::Debug for TeardownOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TeardownOptions")
            .field("grace", &self.grace)
            .field("handlers", &self.handlers)
            .finish_non_exhaustive()
    }
}

/// The result of one undo.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UndoOutcome {
    /// The undo.
    pub undo: Undo,
    /// Error message, if the undo failed.
    pub error: Option<String>,
    /// Time that the undo took.
    pub duration: Duration,
}

/// The result of a teardown.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TeardownReport {
    /// Results of the undos, in the order in which they were tried.
    pub steps: Vec<UndoOutcome>,
    /// Errors of updating the journal. They are harmless: an undo can be repeated.
    pub journal_errors: Vec<String>,
}

impl TeardownReport {
    /// Returns true if no undo failed.
    pub fn is_clean(&self) -> bool {
        self.failures().next().is_none() && self.journal_errors.is_empty()
    }

    /// Turns a report with a failure into an error.
    ///
    /// # Errors
    ///
    /// Returns an error when something failed.
    pub fn into_result(self) -> Result<Self, TeardownError> {
        if self.is_clean() { Ok(self) } else { Err(TeardownError { report: self }) }
    }

    /// Returns the undos that failed.
    pub fn failures(&self) -> impl Iterator<Item = &UndoOutcome> {
        self.steps.iter().filter(|step| step.error.is_some())
    }
}

impl fmt::Display for TeardownReport {
    /// Writes one line for each failure, or one line that says that there was none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut failures: Vec<String> = self
            .failures()
            .map(|step| format!("{}: {}", step.undo, step.error.as_deref().unwrap_or_default()))
            .collect();
        failures.extend(self.journal_errors.iter().cloned());
        if failures.is_empty() { f.write_str("everything was undone") } else { f.write_str(&failures.join("\n")) }
    }
}

/// A bottle that could not be removed completely.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("remove the bottle completely: {report}")]
pub struct TeardownError {
    /// Report of the teardown, with the undos that failed.
    pub report: TeardownReport,
}

/// Runs the undos of a journal in reverse order. An undo that names something that is not this bottle's is refused. A
/// failed undo does not stop the others. Each finished undo is removed from the journal, so that another process can
/// continue from there.
pub fn tear_down(engine: &Engine, file: &JournalFile, options: &TeardownOptions) -> TeardownReport {
    let mut report = TeardownReport::default();
    let note = |report: &mut TeardownReport, result: Result<(), JournalError>| {
        if let Err(error) = result {
            report.journal_errors.push(chain(&error));
        }
    };
    let journal = file.journal();
    let names = journal.names();
    if !journal.undo.is_empty() {
        note(&mut report, file.set_status(Status::Closing));
    }
    let engine = engine.clone().with_control(engine.control().for_cleanup());
    let was_up = journal.status.is_up();
    let undoer = options.undoer(&engine, Some(file.state_dir()), &names, file.origin(&engine));
    let undoer = Undoer { was_up, ..undoer };
    let mut undos = journal.undo.into_iter().rev().peekable();
    while let Some(undo) = undos.next() {
        let outcome = thread::scope(|scope| {
            // While the logs are saved, the services stop.
            if let (Undo::DumpLogs { .. }, Some(next @ Undo::ComposeDown { project, .. })) = (&undo, undos.peek())
                && undoer.check(next).is_ok()
            {
                // What a killed `create` still makes must be seen later.
                scope.spawn(|| if was_up { undoer.look_ahead(project) } else { drop(undoer.stop(project)) });
            }
            attempt(&undoer, undo, &*options.observer)
        });
        if outcome.error.is_none() || !outcome.undo.is_retried() {
            note(&mut report, file.mark_done(&outcome.undo));
        }
        report.steps.push(outcome);
    }
    if file.journal().undo.is_empty() {
        let closed = file.change(|journal| {
            journal.status = Status::Closed;
            journal.forwards.clear();
        });
        note(&mut report, closed);
    }
    report
}

/// Checks and runs one undo between its two events.
pub(crate) fn attempt(undoer: &Undoer<'_>, undo: Undo, observer: &dyn Observer) -> UndoOutcome {
    let step = undo.to_string();
    observer.event(&Event::StepStarted { step: step.clone() });
    let started = Instant::now();
    let error = undoer.check(&undo).and_then(|()| undoer.undo(&undo)).err().map(|error| chain(&error));
    let duration = started.elapsed();
    let outcome = error.clone().map_or(Outcome::Done, |error| Outcome::Failed { error });
    observer.event(&Event::StepFinished { step, duration, outcome });
    UndoOutcome { undo, error, duration }
}

/// Tears a bottle down when it is dropped: on an error, on a panic, or if the caller forgets. It is created before the
/// first thing that must be undone.
#[derive(Debug)]
pub struct TeardownGuard {
    engine: Engine,
    file: Arc<JournalFile>,
    options: TeardownOptions,
    /// `None` after the teardown was done or handed over.
    lock: Mutex<Option<BottleLock>>,
}

impl TeardownGuard {
    /// Returns a guard for the undos in `file`, including those recorded later. It holds the lock.
    pub const fn new(engine: Engine, file: Arc<JournalFile>, lock: BottleLock, options: TeardownOptions) -> Self {
        Self { engine, file, options, lock: Mutex::new(Some(lock)) }
    }

    /// Records an undo, before the thing that it undoes is created.
    ///
    /// # Errors
    ///
    /// Returns an error when it cannot be written. The thing must then not be created.
    pub fn record(&self, undo: Undo) -> Result<(), JournalError> {
        let recorded = Event::Recorded { undo: undo.to_string() };
        self.file.record(undo)?;
        self.options.observer.event(&recorded);
        Ok(())
    }

    /// Like [`record`](Self::record), for an undo that may be recorded already: it now comes before all others.
    ///
    /// # Errors
    ///
    /// As [`record`](Self::record).
    pub fn record_last(&self, undo: Undo) -> Result<(), JournalError> {
        let recorded = Event::Recorded { undo: undo.to_string() };
        self.file.change(|journal| {
            journal.undo.retain(|other| *other != undo);
            journal.undo.push(undo);
        })?;
        self.options.observer.event(&recorded);
        Ok(())
    }

    /// Returns the current content of the journal.
    pub fn journal(&self) -> Journal {
        self.file.journal()
    }

    pub(crate) const fn options(&self) -> &TeardownOptions {
        &self.options
    }

    pub(crate) fn observer(&self) -> Arc<dyn Observer> {
        Arc::clone(&self.options.observer)
    }

    /// Returns the journal file.
    pub const fn file(&self) -> &Arc<JournalFile> {
        &self.file
    }

    /// Runs every undo now. A second call does nothing and returns an empty report.
    pub fn close(&self) -> TeardownReport {
        match self.release() {
            // Held until the last undo is done, so that no other process takes the slug in the meantime.
            Some(_lock) => tear_down(&self.engine, &self.file, &self.options),
            None => TeardownReport::default(),
        }
    }

    /// Leaves the bottle running and marks it as kept, so that recovery leaves it alone too.
    ///
    /// # Errors
    ///
    /// Returns an error when the journal cannot be written. The bottle is left running all the same.
    pub fn keep(&self) -> Result<(), JournalError> {
        drop(self.release());
        self.file.set_status(Status::Kept)
    }

    fn release(&self) -> Option<BottleLock> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for TeardownGuard {
    fn drop(&mut self) {
        let report = self.close();
        if !report.is_clean() {
            tracing::error!(%report, "not everything was undone");
            let message = format!("not everything was undone: {report}");
            self.options.observer.event(&Event::Warning { message });
        }
    }
}

#[cfg(test)]
mod tests;
