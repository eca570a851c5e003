//! The bottle's files on an engine that does not see this host's.

use std::io;
use std::path::{Path, PathBuf};

use bottle_engine::Engine;
use bottle_plan::{Names, StateLayout};
use bottle_store::Store;

/// The store of a bottle, which has the same files as the state directory of this host. The queue comes from there; everything
/// else goes there. A store that does not run gets its files when the bottle is started again.
#[derive(Debug, Clone)]
pub(super) struct Mirror {
    store: Store,
    layout: StateLayout,
}

impl Mirror {
    /// Returns `None` for an engine that sees this host's files.
    pub(super) fn of(engine: &Engine, layout: &StateLayout, names: &Names) -> Option<Self> {
        let is_remote = !engine.info().capabilities().local_files;
        is_remote.then(|| Self { store: Store::new(engine.clone(), names.store()), layout: layout.clone() })
    }

    /// Fetches the proposals and the sidecar's log, a file of this name that a store with files always has.
    pub(super) fn fetch_queue(&self, log: &str) -> io::Result<()> {
        Ok(self.store.fetch(StateLayout::STORED_QUEUE, &self.layout.supervise_queue(), log)?)
    }

    /// Sends files or directories of the state directory, as they are here.
    pub(super) fn send(&self, paths: &[&Path]) -> io::Result<()> {
        let stored = |path: &&Path| Some((PathBuf::from(path), self.layout.stored(path)?));
        Ok(self.store.put_if_running(&paths.iter().filter_map(stored).collect::<Vec<_>>())?)
    }
}
