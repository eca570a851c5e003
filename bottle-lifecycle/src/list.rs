//! Listing of bottles.

use std::collections::BTreeMap;
use std::fs;

use bottle_engine::{ContainerState, Engine, Filter};
use bottle_plan::{LabelKey, Prefix, Slug, StateRoot};
use serde::Serialize;

use crate::bottle::BottleError;
use crate::health::{Activity, ServiceHealth, services};
use crate::home::Home;
use crate::journal::{JournalFile, OpenForward, Status, open_root};
use crate::owner::{Liveness, Owner};

/// A bottle that is known by its journal, its containers or both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BottleSummary {
    /// Status of the bottle. `None` if its journal is lost.
    pub status: Option<Status>,
    /// Name of the agent in the manifest, if known.
    pub agent: Option<String>,
    /// Creation time. `None` if its journal is lost.
    pub created: Option<String>,
    /// Process that owns the bottle, if known.
    pub owner: Option<Owner>,
    /// True if the owner is alive or cannot be seen from here.
    pub is_owned: bool,
    /// Names of its containers on the engine.
    pub containers: Vec<String>,
    /// Activity of the bottle. `None` if its agent's container does not exist.
    pub activity: Option<Activity>,
    /// Ports of the agent that are open on the host, by processes that are alive or cannot be seen from here.
    pub forwards: Vec<OpenForward>,
    /// State of its services, including services whose container was removed.
    pub services: Vec<ServiceHealth>,
}

/// Returns every bottle of a prefix and a state root that was not completely removed, including those whose state
/// directory is lost.
///
/// # Errors
///
/// Returns an error when the engine cannot be queried, or another user could change the root. A journal that cannot be
/// read is skipped; its bottle is then listed by its containers only.
pub fn list(engine: &Engine, root: &StateRoot, prefix: &Prefix) -> Result<BTreeMap<Slug, BottleSummary>, BottleError> {
    open_root(root)?;
    let mut bottles: BTreeMap<Slug, BottleSummary> = BTreeMap::new();
    let entries = fs::read_dir(root.path()).into_iter().flatten().flatten();
    for slug in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<Slug>().ok()) {
        let Ok(file) = JournalFile::open(&root.bottle(&slug)) else { continue };
        let journal = file.journal();
        if journal.prefix == *prefix && journal.status != Status::Closed {
            let listed = BottleSummary {
                status: Some(journal.status),
                agent: Some(journal.agent.to_string()),
                created: Some(journal.created),
                owner: Some(journal.owner),
                forwards: journal.forwards,
                ..BottleSummary::default()
            };
            bottles.insert(slug, listed);
        }
    }
    let key = |key: LabelKey| key.under(prefix);
    let home = Home::new(engine, root, prefix);
    let mut containers: BTreeMap<Slug, Vec<(String, ContainerState)>> = BTreeMap::new();
    for (name, state) in engine.containers(&Filter::Label(key(LabelKey::Slug)))? {
        if home.foreign([&state.labels]).is_some() {
            continue;
        }
        let label = |wanted: LabelKey| state.labels.get(&key(wanted));
        let Some(slug) = label(LabelKey::Slug).and_then(|slug| slug.parse::<Slug>().ok()) else { continue };
        let listed = bottles.entry(slug.clone()).or_default();
        listed.agent = listed.agent.take().or_else(|| label(LabelKey::Agent).cloned());
        listed.owner = listed.owner.take().or_else(|| label(LabelKey::Owner)?.parse().ok());
        listed.containers.push(name.clone());
        containers.entry(slug).or_default().push((name, state));
    }
    for (slug, containers) in &containers {
        let containers = containers.iter().map(|(name, state)| (name.as_str(), state));
        let listed = bottles.entry(slug.clone()).or_default();
        listed.services = services(containers);
        listed.activity = Activity::of(&listed.services);
    }
    for listed in bottles.values_mut() {
        let is_local = engine.info().endpoint.is_local;
        listed.forwards.retain(|forward| forward.owner.liveness(is_local) != Liveness::Gone);
        listed.is_owned = listed.owner.as_ref().is_some_and(|owner| owner.liveness(is_local) != Liveness::Gone);
    }
    Ok(bottles)
}
