//! The bottles that are there already, whoever launched them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::sync::Arc;

use bottle_exec::engine::ComposeProject;
use bottle_exec::{Control, Engine, EngineError, Event, Observer, OutputSink, PlainText, Stream};
use bottle_plan::{Names, Prefix, Slug, StateRoot};

use crate::Host;
#[cfg(feature = "deploy-keys")]
use crate::deploy_keys::{Forges, HttpForges, revoking};
use crate::lifecycle::{Bottle, BottleError, Listed, RecoveryReport, TeardownOptions, TeardownReport, UndoHandlers};

/// Where bottles are looked for: on one engine, under one state root and one prefix.
#[derive(Clone)]
#[non_exhaustive]
pub struct Site {
    /// The engine.
    pub engine: Engine,
    /// Where bottles keep their state.
    pub state_root: StateRoot,
    /// What every name of theirs on the engine begins with. Default: `claude-bottle`.
    pub prefix: Prefix,
    /// Who is told of every undo. Default: nobody.
    pub observer: Arc<dyn Observer>,
    /// Who undoes what the library knows nothing of: the same as at the launch.
    pub handlers: UndoHandlers,
    /// Who asks forges to revoke deploy keys. Default: [`HttpForges`].
    #[cfg(feature = "deploy-keys")]
    pub forges: Arc<dyn Forges>,
    /// Whose environment holds the tokens for that.
    pub host: Host,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site")
            .field("engine", &self.engine)
            .field("state_root", &self.state_root)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Site {
    /// This engine, and where bottles of this host keep their state.
    pub fn new(engine: Engine, host: &Host) -> Self {
        Self {
            engine,
            state_root: host.state_root(),
            prefix: Prefix::default(),
            observer: Arc::new(|_: &Event| {}),
            handlers: UndoHandlers::default(),
            #[cfg(feature = "deploy-keys")]
            forges: Arc::new(HttpForges::default()),
            host: host.clone(),
        }
    }

    /// Looks for state elsewhere.
    #[must_use]
    pub fn with_state_root(mut self, root: StateRoot) -> Self {
        self.state_root = root;
        self
    }

    /// Looks for bottles of another prefix.
    #[must_use]
    pub fn with_prefix(mut self, prefix: Prefix) -> Self {
        self.prefix = prefix;
        self
    }

    /// Tells somebody of every undo.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Sets who undoes what the library knows nothing of.
    #[must_use]
    pub fn with_handlers(mut self, handlers: UndoHandlers) -> Self {
        self.handlers = handlers;
        self
    }

    /// Sets who asks forges to revoke deploy keys.
    #[cfg(feature = "deploy-keys")]
    #[must_use]
    pub fn with_forges(mut self, forges: Arc<dyn Forges>) -> Self {
        self.forges = forges;
        self
    }

    fn names(&self, slug: &Slug) -> Names {
        Names::new(self.prefix.clone(), slug.clone())
    }

    fn teardown(&self) -> TeardownOptions {
        let handlers = self.handlers.clone();
        #[cfg(feature = "deploy-keys")]
        let handlers = revoking(handlers, &self.host, &self.forges);
        TeardownOptions::default().with_handlers(handlers).with_observer(Arc::clone(&self.observer))
    }
}

/// Every bottle of the site that was not wholly undone.
///
/// # Errors
///
/// When the engine cannot be asked.
pub fn list(site: &Site) -> Result<BTreeMap<Slug, Listed>, EngineError> {
    crate::lifecycle::list(&site.engine, &site.state_root, &site.prefix)
}

/// A handle on a bottle that another process launched, with everything that the first handle had: from its journal or,
/// where that is lost, from the labels of its container. Dropping it leaves the bottle up.
///
/// # Errors
///
/// [`BottleError::NotFound`] when there is neither.
pub fn attach(site: &Site, slug: &Slug) -> Result<Bottle, BottleError> {
    Bottle::attach(site.engine.clone(), &site.state_root, site.names(slug), site.teardown())
}

/// Undoes every bottle of the site whose owner is gone. Done twice it does nothing the second time.
///
/// # Errors
///
/// When the engine cannot be asked. What goes wrong with a single bottle is in the report.
pub fn recover(site: &Site) -> Result<RecoveryReport, EngineError> {
    crate::lifecycle::recover(&site.engine, &site.state_root, &site.prefix, &site.teardown())
}

/// Takes a bottle down, whoever owns it and however far its launch came.
///
/// # Errors
///
/// [`BottleError::NotFound`] when there is no such bottle, [`BottleError::Launching`] while a process that lives launches
/// it. What could not be undone is in the report.
pub fn down(site: &Site, slug: &Slug) -> Result<TeardownReport, BottleError> {
    Bottle::down(&site.engine, &site.state_root, &site.names(slug), &site.teardown())
}

/// Hands the sink what a bottle's services print; of one that is down, what was saved of it. With `follow` it goes on
/// until the bottle is down or the engine's control is cancelled.
///
/// # Errors
///
/// [`BottleError::NotFound`] when neither the bottle nor a log of it is there.
pub fn logs(site: &Site, slug: &Slug, follow: bool, sink: Arc<dyn OutputSink>) -> Result<(), BottleError> {
    let (names, layout) = (site.names(slug), site.state_root.bottle(slug));
    if site.engine.container(&names.container(bottle_plan::Service::Agent))?.is_none() {
        return saved_log(&layout.compose_log(), slug, &*sink);
    }
    let document = layout.compose_file();
    let project = if fs::exists(&document).unwrap_or(false) {
        ComposeProject::new(names.project(), layout.dir(), document)
    } else {
        ComposeProject::by_labels(names.project())
    };
    let control = Control::cancelled_by(site.engine.control().cancel().clone()).with_sink(sink);
    let engine = site.engine.clone().with_control(control);
    match engine.compose(&project)?.stream_logs(follow) {
        Err(error) if error.is_cancelled() && follow => Ok(()),
        other => Ok(other?),
    }
}

fn saved_log(path: &std::path::Path, slug: &Slug, sink: &dyn OutputSink) -> Result<(), BottleError> {
    let failed = |source| BottleError::Copy { path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BottleError::NotFound { slug: slug.clone() });
        }
        other => other.map_err(failed)?,
    };
    // The log of an earlier version can hold control sequences.
    let mut plain = PlainText::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match io::Read::read(&mut file, &mut buffer).map_err(failed)? {
            0 => return Ok(()),
            count => sink.write(Stream::Stdout, plain.push(&buffer[..count]).as_bytes()),
        }
    }
}
