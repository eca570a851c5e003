//! Recovery: finds what dead launchers left behind and undoes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use bottle_engine::{Engine, EngineError, Filter, Object, ObjectKind};
use bottle_exec::{Control, chain};
use bottle_plan::{LabelKey, Names, Prefix, Slug, StateLayout, StateRoot};
use serde::Serialize;

use crate::home::{Foreign, Home};
use crate::journal::{BottleLock, JournalError, JournalFile, Status, open_root};
use crate::orphan;
use crate::owner::{Liveness, Owner};
use crate::teardown::{TeardownOptions, TeardownReport, attempt, tear_down};
use crate::undo::{Origin, Undo};

/// The result of a recovery.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
#[must_use = "a recovery that failed in part leaves something behind"]
pub struct RecoveryReport {
    /// Bottles whose owner is gone, with the result of their teardown. A second run does not list them again.
    pub recovered: BTreeMap<Slug, TeardownReport>,
    /// Bottles whose owner is alive or cannot be seen from here. They were not touched.
    pub live: BTreeSet<Slug>,
    /// Bottles that were kept after their owner ended. They were not touched.
    pub kept: BTreeSet<Slug>,
    /// Bottles on the engine that belong to another state root, with the reason. They were not touched.
    pub foreign: BTreeMap<Slug, Foreign>,
    /// Errors of reading the state of a bottle.
    pub problems: Vec<String>,
}

impl RecoveryReport {
    /// Returns true if everything that should be removed is gone.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty() && self.recovered.values().all(TeardownReport::is_clean)
    }
}

/// Removes every bottle of `prefix` whose owner is gone: by the journals under `root`, then by the labels on the engine
/// for bottles whose journal is lost. A second run does nothing.
///
/// A root that another user could change is refused: the report then has this problem alone.
///
/// By labels, it removes only objects of this state root, and objects of a bottle whose state directory no longer
/// exists. All others are in the report with the reason.
///
/// # Errors
///
/// Returns an error when the engine cannot be queried. Failures of single bottles are in the report.
pub fn recover(
    engine: &Engine,
    root: &StateRoot,
    prefix: &Prefix,
    options: &TeardownOptions,
) -> Result<RecoveryReport, EngineError> {
    let control = Control::cancelled_by(engine.control().cancel().clone()).with_abort(engine.control().abort().clone());
    let engine = engine.clone().with_control(control);
    let recovery = Recovery { engine: &engine, root, prefix, options };
    let mut report = RecoveryReport::default();
    if let Err(problem) = open_root(root) {
        report.problems.push(chain(&problem));
        return Ok(report);
    }
    recovery.by_journals(&mut report);
    recovery.by_labels(&mut report)?;
    Ok(report)
}

/// Removes the objects of a bottle whose journal is lost, and the directories of its state that hold keys.
pub(crate) fn remove(
    engine: &Engine,
    objects: Vec<Object>,
    names: &Names,
    layout: &StateLayout,
    options: &TeardownOptions,
) -> TeardownReport {
    let (state_dir, origin) = (Some(layout.dir()), Origin::Labels);
    let undoer = options.undoer(engine, state_dir, names, origin);
    let mut undo: Vec<Undo> = objects.into_iter().map(|object| Undo::of_object(object.kind, object.name)).collect();
    let paths = Undo::key_dirs();
    if paths.iter().any(|path| fs::symlink_metadata(layout.dir().join(path)).is_ok()) {
        undo.push(Undo::RemoveFiles { paths });
    }
    let steps = undo.into_iter().map(|undo| attempt(&undoer, undo, &*options.observer)).collect();
    TeardownReport { steps, ..TeardownReport::default() }
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
        // A link is not followed. It is reported, as it is no bottle's directory.
        let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_file()));
        let slugs = directories.filter_map(|entry| entry.file_name().to_str()?.parse::<Slug>().ok());
        for slug in slugs.collect::<BTreeSet<_>>() {
            if let Err(error) = self.by_journal(&slug, report) {
                report.problems.push(chain(&error));
            }
        }
    }

    fn by_journal(&self, slug: &Slug, report: &mut RecoveryReport) -> Result<(), JournalError> {
        let layout = self.root.bottle(slug);
        let journal = match JournalFile::open(&layout) {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other?.journal(),
        };
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
            // A new owner or another recovery has taken the lock.
            Err(JournalError::AlreadyRunning { .. }) => {
                report.live.insert(slug.clone());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        // Between the check and the lock, a new owner may have launched and removed the bottle.
        let file = JournalFile::open(&layout)?;
        if file.journal().owner != journal.owner {
            report.live.insert(slug.clone());
            return Ok(());
        }
        self.stop_orphans(slug);
        report.recovered.insert(slug.clone(), tear_down(self.engine, &file, self.options));
        Ok(())
    }

    /// Stops engine clients that a dead launcher left running, before they create more.
    fn stop_orphans(&self, slug: &Slug) {
        let names = Names::new(self.prefix.clone(), slug.clone());
        orphan::stop(&names.project(), &[&names.derived_image()], self.options.grace);
    }

    fn by_labels(&self, report: &mut RecoveryReport) -> Result<(), EngineError> {
        let (slug_key, owner_key) = (LabelKey::Slug.under(self.prefix), LabelKey::Owner.under(self.prefix));
        let home = Home::new(self.engine, self.root, self.prefix);
        let with_slug = Filter::Label(slug_key.clone());
        // Two state roots can have a bottle of the same name.
        let mut bottles: BTreeMap<_, Vec<(Object, Owner)>> = BTreeMap::new();
        for kind in ObjectKind::IN_ORDER_OF_REMOVAL {
            for object in self.engine.list(kind, &with_slug)? {
                let label = |key: &str| object.labels.get(key).map(String::as_str).unwrap_or_default();
                let (Ok(slug), Ok(owner)) = (label(&slug_key).parse::<Slug>(), label(&owner_key).parse::<Owner>())
                else {
                    report.problems.push(format!("{kind} {} is labelled as of no known bottle", object.name));
                    continue;
                };
                let root = home.id_of(&object.labels).map(str::to_owned);
                bottles.entry((slug, root)).or_default().push((object, owner));
            }
        }
        let mut abandoned: BTreeSet<Slug> = BTreeSet::new();
        for ((slug, _), objects) in bottles {
            let is_local = self.engine.info().endpoint.is_local;
            if let Some(foreign) = home.foreign(objects.iter().map(|(object, _)| &object.labels)) {
                report.foreign.insert(slug, foreign);
            } else if objects.iter().any(|(_, owner)| owner.liveness(is_local) != Liveness::Gone) {
                report.live.insert(slug);
            } else {
                abandoned.insert(slug);
            }
        }
        // If an object of the bottle belongs to a living process, a new bottle of that name is being launched.
        for slug in abandoned.into_iter().filter(|slug| !report.live.contains(slug) && !report.kept.contains(slug)) {
            let names = Names::new(self.prefix.clone(), slug.clone());
            if !report.foreign.contains_key(&slug) {
                self.stop_orphans(&slug);
            }
            let found = home.objects_of(self.engine, &names)?;
            let removed = remove(self.engine, found.own, &names, &self.root.bottle(&slug), self.options);
            report.recovered.entry(slug).or_default().steps.extend(removed.steps);
        }
        Ok(())
    }
}
