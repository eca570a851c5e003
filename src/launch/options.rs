//! What a launch is given beside the plan.

use std::sync::Arc;
use std::time::Duration;

use bottle_compose::Sidecar;
use bottle_exec::{CancelToken, Engine, Event, Observer};
use bottle_plan::StateRoot;

use crate::Host;
#[cfg(feature = "deploy-keys")]
use crate::deploy_keys::{Forges, HttpForges, revoking};
use crate::lifecycle::{TeardownOptions, UndoHandlers};

/// What a launch is given beside the plan: where it runs, who is told, what stops it.
#[derive(Clone)]
#[non_exhaustive]
pub struct LaunchOptions {
    /// The engine.
    pub engine: Engine,
    /// The host, whose environment holds the tokens.
    pub host: Host,
    /// Where bottles keep their state.
    pub state_root: StateRoot,
    /// The sidecars, in the order of the document. Default: the four of `bottle-sidecars`.
    pub sidecars: Vec<Arc<dyn Sidecar>>,
    /// Who is told of every step. Default: nobody.
    pub observer: Arc<dyn Observer>,
    /// What stops the launch.
    pub cancel: CancelToken,
    /// How long the services have to become healthy. Default: two minutes.
    pub wait: Duration,
    /// Who undoes what the library knows nothing of.
    pub handlers: UndoHandlers,
    /// Who asks forges for deploy keys. Default: [`HttpForges`].
    #[cfg(feature = "deploy-keys")]
    pub forges: Arc<dyn Forges>,
}

impl std::fmt::Debug for LaunchOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaunchOptions")
            .field("engine", &self.engine)
            .field("host", &self.host)
            .field("state_root", &self.state_root)
            .field("sidecars", &self.sidecars)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}

impl LaunchOptions {
    /// A launch on this engine of this host, with the defaults of every field.
    pub fn new(engine: Engine, host: Host) -> Self {
        Self {
            state_root: host.state_root(),
            engine,
            host,
            sidecars: bottle_sidecars::all().to_vec(),
            observer: Arc::new(|_: &Event| {}),
            cancel: CancelToken::default(),
            wait: Duration::from_secs(120),
            handlers: UndoHandlers::default(),
            #[cfg(feature = "deploy-keys")]
            forges: Arc::new(HttpForges::default()),
        }
    }

    /// Keeps state elsewhere.
    #[must_use]
    pub fn with_state_root(mut self, root: StateRoot) -> Self {
        self.state_root = root;
        self
    }

    /// Adds a sidecar after the others.
    #[must_use]
    pub fn with_sidecar(mut self, sidecar: Arc<dyn Sidecar>) -> Self {
        self.sidecars.push(sidecar);
        self
    }

    /// Tells somebody of every step.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Lets a token stop the launch, a command of it that is running included.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        let control = self.engine.control().clone().with_cancel(cancel.clone());
        self.engine = self.engine.with_control(control);
        self.cancel = cancel;
        self
    }

    /// Gives the services this long to become healthy.
    #[must_use]
    pub const fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Sets who undoes what the library knows nothing of.
    #[must_use]
    pub fn with_handlers(mut self, handlers: UndoHandlers) -> Self {
        self.handlers = handlers;
        self
    }

    /// Sets who asks forges for deploy keys.
    #[cfg(feature = "deploy-keys")]
    #[must_use]
    pub fn with_forges(mut self, forges: Arc<dyn Forges>) -> Self {
        self.forges = forges;
        self
    }

    /// How a bottle that was launched with these options is taken down.
    pub(super) fn teardown(&self) -> TeardownOptions {
        let handlers = self.handlers.clone();
        #[cfg(feature = "deploy-keys")]
        let handlers = revoking(handlers, &self.host, &self.forges);
        TeardownOptions::default().with_handlers(handlers).with_observer(Arc::clone(&self.observer))
    }
}
