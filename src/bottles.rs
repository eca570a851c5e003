//! [`Bottles`], the entry point: launches bottles and finds running ones.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bottle_compose::Sidecar;
use bottle_engine::{ComposeProject, Engine, EngineChoice, EngineError};
use bottle_exec::{CancelToken, Control, Event, Observer, OutputSink, Stream, Subprocess};
use bottle_files::{PrivateDir, resolved_path};
use bottle_plan::value::Subnets;
use bottle_plan::{Names, PlanRequest, Prefix, Service, Slug, StateLayout, StateRoot};
use bottle_posture::Posture;
use bottle_provision::{Builtin, Provisioner};
use bottle_sidecars::audit::{AuditLine, AuditReader};
use bottle_supervise::{SuperviseError, Supervisor};
use bottle_verify::Verify;

use crate::Host;
#[cfg(feature = "deploy-keys")]
use crate::deploy_keys::{Forges, HttpForges, revoking};
use crate::lifecycle::{
    self, Bottle, BottleError, BottleSummary, JournalError, JournalFile, RecoveryReport, TeardownOptions,
    TeardownReport, UndoHandlers,
};

/// Entry point of this crate: launches bottles and finds running ones. It holds one engine, one state root, one prefix,
/// and the options that all launches and teardowns share.
///
/// [`local`](Bottles::local) finds engine and state root; each `with_*` method replaces one default. Cloning is cheap.
///
/// ```no_run
/// use bottle::prelude::*;
///
/// let bottles = Bottles::local()?;
/// for (slug, bottle) in bottles.list()? {
///     println!("{slug}: {} containers", bottle.containers.len());
/// }
/// # Ok::<(), bottle::Error>(())
/// ```
#[derive(Clone)]
pub struct Bottles {
    pub(crate) engine: Engine,
    pub(crate) host: Host,
    pub(crate) state_root: StateRoot,
    pub(crate) prefix: Prefix,
    pub(crate) sidecars: Vec<Arc<dyn Sidecar>>,
    pub(crate) provisioner: Arc<dyn Provisioner>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) cancel: CancelToken,
    pub(crate) wait: Duration,
    pub(crate) verify: Verify,
    pub(crate) subnets: Subnets,
    pub(crate) hands_over: bool,
    pub(crate) handlers: UndoHandlers,
    #[cfg(feature = "deploy-keys")]
    pub(crate) forges: Arc<dyn Forges>,
}

impl fmt::Debug for Bottles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bottles")
            .field("engine", &self.engine)
            .field("state_root", &self.state_root)
            .field("prefix", &self.prefix)
            .field("sidecars", &self.sidecars)
            .field("provisioner", &self.provisioner)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}

impl Bottles {
    /// Finds this machine's engine, and the state root of this user.
    ///
    /// The engine is the first of `docker` and `podman` that answers. The state root is `$CLAUDE_BOTTLE_STATE`, else
    /// `$XDG_STATE_HOME/claude-bottle`, else `~/.local/state/claude-bottle`.
    ///
    /// # Errors
    ///
    /// [`Error::Host`](crate::Error::Host) when the process has no home or working directory,
    /// [`Error::Engine`](crate::Error::Engine) when no engine answers.
    pub fn local() -> crate::Result<Self> {
        let host = Host::current().map_err(crate::Error::Host)?;
        Self::found(&EngineChoice::Auto, Subprocess::new(host.environment()), host)
    }

    /// Finds Podman 5.4 or later on this machine, and the state root of this user, who must be root.
    ///
    /// # Errors
    ///
    /// As [`local`](Self::local).
    pub fn podman() -> crate::Result<Self> {
        let host = Host::current().map_err(crate::Error::Host)?;
        Self::found(&EngineChoice::Program("podman".into()), Subprocess::new(host.environment()), host)
    }

    /// Finds the Docker Engine at an address, and the state root of this user: `ssh://user@host`, `tcp://host:2376` (with
    /// `DOCKER_TLS_VERIFY=1` and the certificates of `DOCKER_CERT_PATH`), `unix:///path`, or `context://NAME` for one of Docker's contexts.
    /// Without TLS, a TCP address is refused unless it is on the loopback interface.
    ///
    /// An engine of another host sees no file of this one. A bottle there has its files in memory, in a container of its own,
    /// and its workspace is copied. What would be on the engine's disk is refused: forwarded variables and environment files.
    ///
    /// # Errors
    ///
    /// As [`local`](Self::local).
    pub fn docker(address: &str) -> crate::Result<Self> {
        let host = Host::current().map_err(crate::Error::Host)?;
        let backend = Subprocess::new(host.with_docker(address).environment());
        Self::found(&EngineChoice::Program("docker".into()), backend, host)
    }

    fn found(choice: &EngineChoice, backend: Subprocess, host: Host) -> crate::Result<Self> {
        let engine = Engine::detect(Arc::new(backend), choice, Control::default())?;
        Ok(Self::new(engine, host))
    }

    /// Returns an entry point for this engine and this host, with the default of every other option.
    pub fn new(engine: Engine, host: Host) -> Self {
        Self {
            state_root: resolved(&host.state_root()),
            engine,
            host,
            prefix: Prefix::default(),
            sidecars: bottle_sidecars::all().to_vec(),
            provisioner: Arc::new(Builtin),
            observer: Arc::new(|_: &Event| {}),
            cancel: CancelToken::default(),
            wait: Duration::from_secs(120),
            verify: Verify::default(),
            subnets: Subnets::default(),
            hands_over: true,
            handlers: UndoHandlers::default(),
            #[cfg(feature = "deploy-keys")]
            forges: Arc::new(HttpForges::default()),
        }
    }

    /// Sets the host, whose environment holds the tokens. Default: [`Host::current`].
    #[must_use]
    pub fn with_host(mut self, host: Host) -> Self {
        self.host = host;
        self
    }

    /// Sets the directory where bottles keep their state. Default: [`Host::state_root`].
    ///
    /// The path is made absolute and its links are resolved now, once. The directory and all directories of bottles must
    /// belong to this user, and nobody else may write them. A link must belong to this user or to root, and so must each
    /// parent, which others may write only with the sticky bit. Otherwise nothing in it is used, and each method fails or
    /// reports the reason. What is missing is created with mode 0700.
    #[must_use]
    pub fn with_state_root(mut self, root: StateRoot) -> Self {
        self.state_root = root;
        self.state_root = resolved(&self.state_root);
        self
    }

    /// Sets the prefix of every name on the engine. Default: `claude-bottle`.
    ///
    /// It applies to plans made with [`Manifest::plan(&bottles)`](bottle_plan::Manifest::plan), and selects the bottles
    /// that [`list`](Self::list) and the other methods find.
    #[must_use]
    pub fn with_prefix(mut self, prefix: Prefix) -> Self {
        self.prefix = prefix;
        self
    }

    /// Adds a sidecar after the built-in ones.
    #[must_use]
    pub fn with_sidecar(mut self, sidecar: Arc<dyn Sidecar>) -> Self {
        self.sidecars.push(sidecar);
        self
    }

    /// Sets the provisioner, which puts files and settings into the agent's container after its start. Default:
    /// [`Builtin`].
    ///
    /// Use [`Builtin.then(yours)`](Provisioner::then) to add to the default.
    #[must_use]
    pub fn with_provisioner(mut self, provisioner: Arc<dyn Provisioner>) -> Self {
        self.provisioner = provisioner;
        self
    }

    /// Sets the observer that receives each step of launches and teardowns. Default: none.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Sets the token that stops a launch, including the command that it is running.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        let control = self.engine.control().clone().with_cancel(cancel.clone());
        self.engine = self.engine.with_control(control);
        self.cancel = cancel;
        self
    }

    /// Sets the time within which the services must become healthy. Default: two minutes.
    #[must_use]
    pub const fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Sets how much of a bottle is attacked before it is handed out. A missing protection fails the launch. Default:
    /// [`Verify::Quick`], which takes about a quarter of a second. An engine that runs nothing needs [`Verify::Off`].
    #[must_use]
    pub const fn with_verification(mut self, level: Verify) -> Self {
        self.verify = level;
        self
    }

    /// Returns the level at which a launch verifies its bottle.
    pub const fn verification(&self) -> Verify {
        self.verify
    }

    /// Sets the pools from which the networks of new bottles take their subnets, or [`Subnets::Engine`]. Default: pools with
    /// room for some two thousand bottles. A subnet in the manifest is used as it is.
    ///
    /// Addresses that a network of the engine or a route of this host uses are skipped. Processes and state roots can share the pools.
    #[must_use]
    pub fn with_subnets(mut self, subnets: Subnets) -> Self {
        self.subnets = subnets;
        self
    }

    /// Leaves the credentials in memory out of every launch, until [`Bottle::give_credentials`]. The launch checks them all the
    /// same. The time of the bottle (`limits.time`, `limits.idle`) begins with [`Bottle::begin_limits`].
    #[must_use]
    pub const fn without_credentials(mut self) -> Self {
        self.hands_over = false;
        self
    }

    /// Sets the handlers of journal entries that callers added themselves. Default: none.
    #[must_use]
    pub fn with_handlers(mut self, handlers: UndoHandlers) -> Self {
        self.handlers = handlers;
        self
    }

    /// Sets the clients that register and revoke deploy keys. Default: [`HttpForges`].
    #[cfg(feature = "deploy-keys")]
    #[must_use]
    pub fn with_forges(mut self, forges: Arc<dyn Forges>) -> Self {
        self.forges = forges;
        self
    }

    /// Returns the engine.
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Returns the host, whose environment holds the tokens.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the directory where bottles keep their state.
    pub const fn state_root(&self) -> &StateRoot {
        &self.state_root
    }

    /// Returns the prefix of every name on the engine.
    pub const fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// Returns every bottle that was not completely removed, by slug.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine cannot be queried, or another user could change the state root.
    pub fn list(&self) -> Result<BTreeMap<Slug, BottleSummary>, BottleError> {
        lifecycle::list(&self.engine, &self.state_root, &self.prefix)
    }

    /// Returns a handle on a bottle that another process launched. Dropping it leaves the bottle running.
    ///
    /// The handle's data comes from the bottle's journal or, if that is lost, from the labels of its container.
    ///
    /// # Errors
    ///
    /// [`BottleError::NotFound`] when there is neither.
    pub fn attach(&self, slug: &Slug) -> Result<Bottle, BottleError> {
        let options = self.with_events_of(slug).teardown_options();
        let bottle = Bottle::attach(self.engine.clone(), &self.state_root, self.names(slug), options)?;
        Ok(bottle.with_start(self.start_options(slug)))
    }

    /// Removes every bottle whose owner is gone. A second call does nothing.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine cannot be queried. Failures of single bottles are in the report.
    pub fn recover(&self) -> Result<RecoveryReport, EngineError> {
        lifecycle::recover(&self.engine, &self.state_root, &self.prefix, &self.teardown_options())
    }

    /// Removes a bottle, whichever process owns it and however far its launch got.
    ///
    /// # Errors
    ///
    /// [`BottleError::NotFound`] when there is no such bottle, [`BottleError::Launching`] while a live process launches
    /// it, [`BottleError::Teardown`] when something could not be removed.
    pub fn down(&self, slug: &Slug) -> Result<TeardownReport, BottleError> {
        let options = self.with_events_of(slug).teardown_options();
        Bottle::down(&self.engine, &self.state_root, &self.names(slug), &options)
    }

    /// Returns the supervisor of a bottle: what its agent asked for, and the methods that approve or deny it.
    ///
    /// # Errors
    ///
    /// Returns an error if the bottle has no state under this root, or was launched without `supervise`.
    pub fn supervise(&self, slug: &Slug) -> Result<Supervisor, SuperviseError> {
        Supervisor::open(self.engine.clone(), &self.state_root, slug)
    }

    /// Writes the log of a bottle's services to the sink. For a bottle that is down, that is the log saved at teardown.
    ///
    /// With `follow` it continues until the bottle is down or the engine's control is cancelled.
    ///
    /// # Errors
    ///
    /// [`BottleError::NotFound`] when neither the bottle nor a saved log exists, [`BottleError::Journal`] when another user
    /// could have changed the bottle's state.
    pub fn logs(&self, slug: &Slug, follow: bool, sink: Arc<dyn OutputSink>) -> Result<(), BottleError> {
        let (names, layout) = (self.names(slug), self.state_root.bottle(slug));
        check_private(&layout)?;
        if self.engine.container(&names.container(Service::Agent))?.is_none() {
            return lifecycle::saved_log(&layout.compose_log(), slug, &*sink);
        }
        let document = layout.compose_file();
        let project = if fs::exists(&document).unwrap_or(false) {
            ComposeProject::new(names.project(), layout.dir(), document)
        } else {
            ComposeProject::by_labels(names.project())
        };
        let control = Control::cancelled_by(self.engine.control().cancel().clone()).with_sink(sink);
        let engine = self.engine.clone().with_control(control);
        match engine.compose(&project)?.stream_logs(follow) {
            Err(error) if error.is_cancelled() && follow => Ok(()),
            other => Ok(other?),
        }
    }

    /// Gives each audit line in the log of a bottle to `each`, in the order of the log: services one after the other for
    /// what was printed before, mixed for what comes. [`refusals`](bottle_sidecars::audit::refusals) explains them.
    ///
    /// With `follow` it continues until the bottle is down or the engine's control is cancelled.
    ///
    /// # Errors
    ///
    /// As [`logs`](Bottles::logs).
    pub fn audit(
        &self,
        slug: &Slug,
        follow: bool,
        each: impl FnMut(AuditLine) + Send + 'static,
    ) -> Result<(), BottleError> {
        let sink = AuditSink(Mutex::new((AuditReader::new(&self.names(slug)), each)));
        self.logs(slug, follow, Arc::new(sink))
    }

    /// Returns the posture of a bottle: what its plan in effect allows, and the id of every image that its launch resolved.
    ///
    /// # Errors
    ///
    /// Returns an error if the bottle has no state under this root.
    pub fn posture(&self, slug: &Slug) -> crate::Result<Posture> {
        let layout = self.state_root.bottle(slug);
        let plan = bottle_supervise::current_plan(&layout)?;
        let journal = JournalFile::open(&layout)?.journal();
        let watched = journal.handle.and_then(|handle| Some(handle.expected?.watched_disk.is_some()));
        let ids = journal.images.into_iter().map(|(service, image)| (service, image.id)).collect();
        Ok(Posture::of(&plan).with_image_ids(ids).with_watched_disk(watched))
    }

    fn names(&self, slug: &Slug) -> Names {
        Names::new(self.prefix.clone(), slug.clone())
    }

    pub(crate) fn teardown_options(&self) -> TeardownOptions {
        #[cfg(feature = "deploy-keys")]
        let handlers = revoking(self.handlers.clone(), &self.host, &self.forges);
        #[cfg(not(feature = "deploy-keys"))]
        let handlers = self.handlers.clone();
        TeardownOptions::default().with_handlers(handlers).with_observer(Arc::clone(&self.observer))
    }
}

/// Reads the audit lines in a log.
struct AuditSink<F>(Mutex<(AuditReader, F)>);

impl<F: FnMut(AuditLine) + Send> OutputSink for AuditSink<F> {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        // Compose's own messages are on standard error.
        if stream == Stream::Stdout {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let (reader, each) = &mut *state;
            reader.push(bytes).into_iter().for_each(each);
        }
    }
}

impl<F> fmt::Debug for AuditSink<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditSink").finish_non_exhaustive()
    }
}

/// Requests a plan of the manifest's only agent, with a random slug.
impl<'a> From<&'a Bottles> for PlanRequest<'a> {
    fn from(bottles: &'a Bottles) -> Self {
        bottles.host.plan_request().with_prefix(bottles.prefix.clone())
    }
}

/// Refuses a state directory that another user could change. It may be missing.
pub(crate) fn check_private(layout: &StateLayout) -> Result<(), JournalError> {
    match PrivateDir::open_with_parent(layout.dir()) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(JournalError::Io { doing: "open", path: layout.dir().to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn resolved(root: &StateRoot) -> StateRoot {
    StateRoot::at(resolved_path(root.path()))
}

#[cfg(test)]
mod tests {
    use bottle_plan::{HostFacts, Manifest, UserIds};

    use super::*;
    use crate::lifecycle::{Journal, Owner, ServiceImage};

    #[test]
    fn the_posture_of_a_launched_bottle_has_the_ids_of_its_images() {
        let root = tempfile::tempdir().unwrap();
        let facts = HostFacts { home: "/home/me".into(), cwd: "/src".into(), user: UserIds { uid: 1000, gid: 1000 } };
        let engine = Engine::detect(Arc::new(crate::exec::rehearsal()), &EngineChoice::Auto, Control::default());
        let state = StateRoot::at(root.path().join("state"));
        let bottles = Bottles::new(engine.unwrap(), Host::new(facts, [])).with_state_root(state);
        let manifest = Manifest::parse("bottles: {dev: {}}\nagents: {demo: {bottle: dev, command: [id]}}").unwrap();
        let plan = manifest.plan(&bottles).unwrap();
        let slug = plan.names.slug().clone();
        assert!(bottles.posture(&slug).is_err());
        let layout = bottles.state_root.bottle(&slug);
        let owner = Owner::of_process(std::process::id());
        let journal = Journal::new(&plan.names, plan.agent_name.clone(), owner, "docker");
        let journal = JournalFile::create(&layout, journal).unwrap();
        bottle_supervise::write_launched_plan(&plan, &layout).unwrap();
        assert_eq!(bottles.posture(&slug).unwrap(), Posture::of(&plan));
        let image = ServiceImage { reference: "images.example.com/a:1".into(), id: "sha256:0123".into() };
        journal.change(|journal| drop(journal.images.insert("agent".into(), image))).unwrap();
        let posture = bottles.posture(&slug).unwrap();
        assert!(
            posture.to_string().ends_with("\nThe ids of the images that run:\n  agent: sha256:0123\n"),
            "{posture}"
        );
        assert!(Posture::of(&plan).diff(&posture).changes.is_empty());
    }
}
