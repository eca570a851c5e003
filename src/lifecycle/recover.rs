//! Finding what dead launchers left behind, and undoing it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use bottle_exec::Control;
use bottle_exec::engine::{Engine, EngineError, Filter, ObjectKind, PROJECT_LABEL};
use bottle_plan::{LabelKey, Names, Prefix, Slug, StateRoot};
use serde::Serialize;

use crate::lifecycle::journal::{BottleLock, JournalError, JournalFile, Status};
use crate::lifecycle::orphan;
use crate::lifecycle::owner::{Liveness, Owner};
use crate::lifecycle::teardown::{TeardownOptions, TeardownReport, UndoOutcome, attempt, tear_down};
use crate::lifecycle::undo::{Undo, Undoer};

/// What recovery found and did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
#[must_use = "a recovery that failed in part leaves something behind"]
pub struct RecoveryReport {
    /// The bottles whose owner is gone, and what came of undoing them. A second run does not name them again.
    pub recovered: BTreeMap<Slug, TeardownReport>,
    /// The bottles that belong to a process that lives, or that cannot be seen from here. They were not touched.
    pub live: BTreeSet<Slug>,
    /// The bottles that were to stay after their owner's end. They were not touched.
    pub kept: BTreeSet<Slug>,
    /// What could not be looked into.
    pub problems: Vec<String>,
}

impl RecoveryReport {
    /// Whether everything that should be gone is gone.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty() && self.recovered.values().all(TeardownReport::is_clean)
    }
}

/// Undoes every bottle under `prefix` whose owner is gone: first by the journals under `root`, then, for those whose
/// journal is lost, by the labels that everything on the engine carries. Done twice it does nothing the second time.
///
/// A bottle that was kept is known as such by its journal only; under another state root it counts as abandoned.
///
/// # Errors
///
/// When the engine cannot be asked. What goes wrong with a single bottle is in the report.
pub fn recover(
    engine: &Engine,
    root: &StateRoot,
    prefix: &Prefix,
    options: &TeardownOptions,
) -> Result<RecoveryReport, EngineError> {
    let engine = engine.clone().with_control(Control::cancelled_by(engine.control().cancel().clone()));
    let recovery = Recovery { engine: &engine, root, prefix, options };
    let mut report = RecoveryReport::default();
    recovery.by_journals(&mut report);
    recovery.by_labels(&mut report)?;
    Ok(report)
}

/// Removes everything of a bottle whose journal is lost: what carries its labels, and what carries only its project's, as
/// the volumes do that Compose made.
pub(crate) fn remove_by_labels(
    engine: &Engine,
    names: &Names,
    options: &TeardownOptions,
) -> Result<TeardownReport, EngineError> {
    let filters = [
        Filter::LabelValue(LabelKey::Slug.under(names.prefix()), names.slug().to_string()),
        Filter::LabelValue(PROJECT_LABEL.to_owned(), names.project()),
    ];
    let undoer = Undoer { engine, state_dir: None, handlers: &options.handlers, grace: options.grace };
    let mut steps: Vec<UndoOutcome> = Vec::new();
    for kind in ObjectKind::IN_ORDER_OF_REMOVAL {
        let mut found = BTreeSet::new();
        for filter in &filters {
            found.extend(engine.list(kind, filter)?.into_iter().map(|object| object.name));
        }
        steps.extend(found.into_iter().map(|name| attempt(&undoer, Undo::of_object(kind, name), &*options.observer)));
    }
    Ok(TeardownReport { steps, ..TeardownReport::default() })
}

struct Recovery<'a> {
    engine: &'a Engine,
    root: &'a StateRoot,
    prefix: &'a Prefix,
    options: &'a TeardownOptions,
}

impl Recovery<'_> {
    fn by_journals(&self, report: &mut RecoveryReport) {
        let entries = match fs::read_dir(self.root.path()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                report.problems.push(format!("read `{}`: {error}", self.root.path().display()));
                return;
            }
        };
        let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let slugs = directories.filter_map(|entry| entry.file_name().to_str()?.parse::<Slug>().ok());
        for slug in slugs.collect::<BTreeSet<_>>() {
            if let Err(error) = self.by_journal(&slug, report) {
                report.problems.push(error.to_string());
            }
        }
    }

    fn by_journal(&self, slug: &Slug, report: &mut RecoveryReport) -> Result<(), JournalError> {
        let layout = self.root.bottle(slug);
        if !fs::exists(layout.metadata()).unwrap_or(true) {
            return Ok(());
        }
        let journal = JournalFile::open(&layout)?.journal();
        if journal.prefix != *self.prefix || (journal.undo.is_empty() && journal.status == Status::Closed) {
            return Ok(());
        }
        if journal.owner.liveness(self.engine.info().endpoint.is_local) != Liveness::Gone {
            report.live.insert(slug.clone());
            return Ok(());
        }
        if journal.status == Status::Kept {
            report.kept.insert(slug.clone());
            return Ok(());
        }
        let _lock = match BottleLock::acquire(&layout, slug, &Owner::of_process(std::process::id())) {
            Ok(lock) => lock,
            // Its next owner, or another recovery, was quicker.
            Err(JournalError::AlreadyRunning { .. }) => {
                report.live.insert(slug.clone());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        // Between the first look and the lock the bottle may have got a new owner who is done already.
        let file = JournalFile::open(&layout)?;
        if file.journal().owner != journal.owner {
            report.live.insert(slug.clone());
            return Ok(());
        }
        self.stop_orphans(slug, &file.journal().undo);
        report.recovered.insert(slug.clone(), tear_down(self.engine, &file, self.options));
        Ok(())
    }

    /// Stops what a dead launcher had started and could not stop, before it makes more.
    fn stop_orphans(&self, slug: &Slug, undo: &[Undo]) {
        let names = Names::new(self.prefix.clone(), slug.clone());
        let derived = names.derived_image();
        let mut images = vec![derived.as_str()];
        images.extend(undo.iter().filter_map(|undo| match undo {
            Undo::RemoveImage { tag } => Some(tag.as_str()),
            _ => None,
        }));
        orphan::stop(&names.project(), &images, self.options.grace);
    }

    fn by_labels(&self, report: &mut RecoveryReport) -> Result<(), EngineError> {
        let (slug_key, owner_key) = (LabelKey::Slug.under(self.prefix), LabelKey::Owner.under(self.prefix));
        let with_slug = Filter::Label(slug_key.clone());
        let mut abandoned: BTreeSet<Slug> = BTreeSet::new();
        for kind in ObjectKind::IN_ORDER_OF_REMOVAL {
            for object in self.engine.list(kind, &with_slug)? {
                let label = |key: &str| object.labels.get(key).map(String::as_str).unwrap_or_default();
                let (Ok(slug), Ok(owner)) = (label(&slug_key).parse::<Slug>(), label(&owner_key).parse::<Owner>())
                else {
                    report.problems.push(format!("{kind} {} is labelled as of no known bottle", object.name));
                    continue;
                };
                if owner.liveness(self.engine.info().endpoint.is_local) == Liveness::Gone {
                    abandoned.insert(slug);
                } else {
                    report.live.insert(slug);
                }
            }
        }
        // Where one thing of it belongs to a process that lives, a new bottle of that name is being made.
        for slug in abandoned.into_iter().filter(|slug| !report.live.contains(slug) && !report.kept.contains(slug)) {
            self.stop_orphans(&slug, &[]);
            let names = Names::new(self.prefix.clone(), slug.clone());
            let removed = remove_by_labels(self.engine, &names, self.options)?;
            report.recovered.entry(slug).or_default().steps.extend(removed.steps);
        }
        Ok(())
    }
}
