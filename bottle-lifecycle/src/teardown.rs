//! Undoing everything, best effort and reported, whatever went wrong before.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bottle_exec::engine::Engine;
use bottle_exec::{Event, Observer, Outcome, chain};
use serde::Serialize;

use crate::journal::{BottleLock, Journal, JournalError, JournalFile, Status};
use crate::undo::{Undo, UndoHandlers, Undoer};

/// How a teardown is done, beside what the journal says.
#[derive(Clone)]
#[non_exhaustive]
pub struct TeardownOptions {
    /// How long containers are given between SIGTERM and SIGKILL. 3 s unless set.
    pub grace: Duration,
    /// Who undoes what the library knows nothing of.
    pub handlers: UndoHandlers,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
}

impl Default for TeardownOptions {
    fn default() -> Self {
        let silent = |_: &Event| {};
        Self { grace: Duration::from_secs(3), handlers: UndoHandlers::default(), observer: Arc::new(silent) }
    }
}

impl TeardownOptions {
    /// Sets how long containers are given between SIGTERM and SIGKILL.
    #[must_use]
    pub const fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets who undoes what the library knows nothing of.
    #[must_use]
    pub fn with_handlers(mut self, handlers: UndoHandlers) -> Self {
        self.handlers = handlers;
        self
    }

    /// Sets who is told.
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

/// What came of one undo.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UndoOutcome {
    /// What was undone.
    pub undo: Undo,
    /// Why it was not, if it was not.
    pub error: Option<String>,
    /// How long it took.
    pub duration: Duration,
}

/// What came of a teardown.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TeardownReport {
    /// Each undo in the order in which it was tried.
    pub steps: Vec<UndoOutcome>,
    /// What kept the journal from being brought up to date. Harmless: what is done is done again.
    pub journal_errors: Vec<String>,
}

impl TeardownReport {
    /// Whether nothing failed.
    pub fn is_clean(&self) -> bool {
        self.failures().next().is_none() && self.journal_errors.is_empty()
    }

    /// Turns a report with a failure into an error.
    ///
    /// # Errors
    ///
    /// When something failed.
    pub fn into_result(self) -> Result<Self, TeardownError> {
        if self.is_clean() { Ok(self) } else { Err(TeardownError { report: self }) }
    }

    /// The undos that failed.
    pub fn failures(&self) -> impl Iterator<Item = &UndoOutcome> {
        self.steps.iter().filter(|step| step.error.is_some())
    }
}

impl fmt::Display for TeardownReport {
    /// One line for each failure, or one that says that there was none.
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
    /// What was tried, and what failed.
    pub report: TeardownReport,
}

/// Undoes what a journal says, the last thing first. A step that fails stops no other one; each that is done is struck
/// from the journal, so that another process can go on where this one stops.
pub fn tear_down(engine: &Engine, file: &JournalFile, options: &TeardownOptions) -> TeardownReport {
    let mut report = TeardownReport::default();
    let note = |report: &mut TeardownReport, result: Result<(), JournalError>| {
        if let Err(error) = result {
            report.journal_errors.push(chain(&error));
        }
    };
    let journal = file.journal();
    if !journal.undo.is_empty() {
        note(&mut report, file.set_status(Status::Closing));
    }
    let engine = engine.clone().with_control(engine.control().for_cleanup());
    let undoer = Undoer {
        engine: &engine,
        state_dir: Some(file.state_dir()),
        handlers: &options.handlers,
        grace: options.grace,
    };
    for undo in journal.undo.into_iter().rev() {
        let outcome = attempt(&undoer, undo, &*options.observer);
        if outcome.error.is_none() || !outcome.undo.is_retried() {
            note(&mut report, file.mark_done(&outcome.undo));
        }
        report.steps.push(outcome);
    }
    if file.journal().undo.is_empty() {
        note(&mut report, file.set_status(Status::Closed));
    }
    report
}

/// One undo between its two events.
pub(crate) fn attempt(undoer: &Undoer<'_>, undo: Undo, observer: &dyn Observer) -> UndoOutcome {
    let step = undo.to_string();
    observer.event(&Event::StepStarted { step: step.clone() });
    let started = Instant::now();
    let error = undoer.undo(&undo).err().map(|error| chain(&error));
    let duration = started.elapsed();
    let outcome = error.clone().map_or(Outcome::Done, |error| Outcome::Failed { error });
    observer.event(&Event::StepFinished { step, duration, outcome });
    UndoOutcome { undo, error, duration }
}

/// Tears a bottle down when it is dropped: on an error, on a panic, and when the caller forgets. Made before the first
/// thing that must be undone.
#[derive(Debug)]
pub struct TeardownGuard {
    engine: Engine,
    file: Arc<JournalFile>,
    options: TeardownOptions,
    /// `None` once the teardown was done or given away.
    lock: Mutex<Option<BottleLock>>,
}

impl TeardownGuard {
    /// Guards what `file` says and will say. The lock is held as long as the guard is.
    pub const fn new(engine: Engine, file: Arc<JournalFile>, lock: BottleLock, options: TeardownOptions) -> Self {
        Self { engine, file, options, lock: Mutex::new(Some(lock)) }
    }

    /// Adds an undo, before the thing that it undoes is made.
    ///
    /// # Errors
    ///
    /// When it cannot be written; then the thing must not be made.
    pub fn record(&self, undo: Undo) -> Result<(), JournalError> {
        let recorded = Event::Recorded { undo: undo.to_string() };
        self.file.record(undo)?;
        self.options.observer.event(&recorded);
        Ok(())
    }

    /// What the journal says now.
    pub fn journal(&self) -> Journal {
        self.file.journal()
    }

    /// The journal itself.
    pub const fn file(&self) -> &Arc<JournalFile> {
        &self.file
    }

    /// Undoes everything now. A second call undoes nothing and returns an empty report.
    pub fn close(&self) -> TeardownReport {
        match self.release() {
            // Held until the last undo is done, so that no other process takes the slug meanwhile.
            Some(_lock) => tear_down(&self.engine, &self.file, &self.options),
            None => TeardownReport::default(),
        }
    }

    /// Leaves everything as it is, and marks the bottle as kept, so that recovery leaves it alone too.
    ///
    /// # Errors
    ///
    /// When the journal cannot be written. Everything is left as it is all the same.
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
