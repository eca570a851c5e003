//! A running bottle.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bottle_engine::{DroppedExecs, Engine, EngineError, Exec, LiveExec};
use bottle_exec::{Control, Event, Observer, Output, Stdin, TerminalSize, chain};
use bottle_files::tar::{self, Packer, Skipped};
use bottle_forward::{Forward, ForwardError, ForwardSpec};
use bottle_plan::manifest::LimitsSpec;
use bottle_plan::{Names, Service, Slug, StateLayout, StateRoot};
use bottle_store::StoreError;
use bottle_verify::{Verification, Verify, VerifyError};
use bottle_workspace::{Tree, WorkError, WorkLimits, WorkspaceError};

use crate::background::Background;
use crate::forwards::RecordForwards;
use crate::hand_over::HandOverError;
use crate::handle::Handle;
use crate::health::{self, SealProblem, ServiceHealth};
use crate::home::{Foreign, Home};
use crate::journal::{Journal, JournalError, JournalFile, Status};
use crate::owner::Liveness;
use crate::recover::remove;
use crate::renewal::{Renewal, Renewing};
use crate::restart::StartOptions;
use crate::teardown::{TeardownError, TeardownGuard, TeardownOptions, TeardownReport, tear_down};
use crate::{disk, limits, watch};

/// An error of a running bottle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BottleError {
    /// The engine reported an error.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The journal cannot be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Part of the bottle could not be removed.
    #[error(transparent)]
    Teardown(#[from] TeardownError),
    /// The protections could not be probed.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A port cannot be forwarded.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// The work cannot be taken out of the bottle.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The workspace cannot be packed.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// The bottle does not exist.
    #[error("find bottle `{slug}`: neither its journal nor its container is there")]
    NotFound {
        /// Slug of the bottle.
        slug: Slug,
    },
    /// The bottle of that name on the engine belongs to another state root.
    #[error("find bottle `{slug}`: one of that name is on the engine, but {foreign}")]
    Foreign {
        /// Slug of the bottle.
        slug: Slug,
        /// Reason why it does not belong to this state root.
        foreign: Foreign,
    },
    /// The bottle is being launched by a living process, which takes it down when it is stopped.
    #[error("take down bottle `{slug}`: process {pid} is still launching it; stop that process instead")]
    Launching {
        /// Slug of the bottle.
        slug: Slug,
        /// Process id of the launcher.
        pid: u32,
    },
    /// The agent lost its network, or its firewall rules may be missing.
    #[error("run a command in bottle `{slug}`: {problem}")]
    Unsealed {
        /// Slug of the bottle.
        slug: Slug,
        /// State of the seal, and what to do.
        problem: String,
    },
    /// The agent's container does not run.
    #[error("run a command in bottle `{slug}`: {problem}")]
    Stopped {
        /// Slug of the bottle.
        slug: Slug,
        /// State of the agent, and what to do.
        problem: String,
    },
    /// A stopped bottle cannot be started.
    #[error("start bottle `{slug}`: {problem}")]
    NotStarted {
        /// Slug of the bottle.
        slug: Slug,
        /// Reason, and what to do.
        problem: String,
    },
    /// A credential of a stopped bottle cannot be read again.
    #[error("read the credentials of bottle `{slug}` again")]
    Credentials {
        /// Slug of the bottle.
        slug: Slug,
        /// Cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A sidecar of a stopped bottle did not get its credentials.
    #[error(transparent)]
    HandOver(#[from] HandOverError),
    /// The files of a stopped bottle could not be written to its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of this host cannot be read or written.
    #[error("copy `{}`", .path.display())]
    Copy {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
}

/// Time for which a seal that was found in order is not checked again.
const CHECKED_FOR: Duration = Duration::from_secs(5);

/// A running bottle. A launched bottle is taken down when it is dropped. An attached bottle is left running.
#[derive(Debug)]
pub struct Bottle {
    pub(crate) engine: Engine,
    names: Names,
    pub(crate) handle: Handle,
    /// Bounds of the work that is taken out.
    pub(crate) limits: WorkLimits,
    /// The workspace when it was taken out last.
    pub(crate) taken: Mutex<Option<Tree>>,
    /// Dropped before the owner, so that it reports nothing of the teardown.
    watch: Mutex<Option<Background>>,
    /// Dropped before the owner as well. These two watch limits, only in the process that launched the bottle.
    disk: Mutex<Option<Background>>,
    limited: Mutex<Option<Background>>,
    renewing: Mutex<Option<Renewing>>,
    ownership: Ownership,
    /// Options of starting it again.
    pub(crate) start: StartOptions,
    /// Time of the last check that found the seal in order.
    pub(crate) sealed: Mutex<Option<Instant>>,
}

#[derive(Debug)]
enum Ownership {
    /// This process owns the bottle.
    Owned(TeardownGuard),
    /// Another process owns the bottle, or no process does.
    Attached { root: StateRoot, layout: StateLayout, options: TeardownOptions },
}

impl Bottle {
    /// Returns the handle of a bottle that was just launched, and records in the journal that it is ready.
    ///
    /// # Errors
    ///
    /// Returns an error when the journal cannot be written; then the bottle is taken down.
    pub fn launched(engine: Engine, guard: TeardownGuard, handle: Handle) -> Result<Self, BottleError> {
        guard.file().change(|journal| {
            journal.status = Status::Ready;
            journal.handle = Some(handle.clone());
        })?;
        let names = guard.journal().names();
        let disk = handle.expected.as_ref().and_then(|expected| expected.watched_disk);
        let disk = disk.map(|limit| disk::watch(&engine, &names, limit, guard.observer()));
        let bottle = Self::of(engine, names, handle, Ownership::Owned(guard));
        Ok(Self { disk: Mutex::new(disk), sealed: Mutex::new(Some(Instant::now())), ..bottle })
    }

    /// Returns a handle that watches nothing yet.
    fn of(engine: Engine, names: Names, handle: Handle, ownership: Ownership) -> Self {
        Self {
            engine,
            names,
            handle,
            limits: WorkLimits::default(),
            taken: Mutex::default(),
            watch: Mutex::default(),
            disk: Mutex::default(),
            limited: Mutex::default(),
            renewing: Mutex::default(),
            ownership,
            start: StartOptions::default(),
            sealed: Mutex::default(),
        }
    }

    /// Attaches to a bottle that another process launched, by its journal or, if the journal is lost, by the labels of
    /// its container.
    ///
    /// If the agent lost its network, the observer of `options` receives a warning. The handle then runs no commands, but
    /// files can still be copied.
    ///
    /// # Errors
    ///
    /// [`BottleError::NotFound`] when there is neither, [`BottleError::Foreign`] when the container belongs to another
    /// state root, [`BottleError::Journal`] when another user could have changed the state.
    pub fn attach(
        engine: Engine,
        root: &StateRoot,
        names: Names,
        options: TeardownOptions,
    ) -> Result<Self, BottleError> {
        let layout = root.bottle(names.slug());
        let journal = journal(&layout, &names)?.filter(|journal| journal.status != Status::Closed);
        let container = names.container(Service::Agent);
        let handle = match journal.and_then(|journal| journal.handle).filter(|handle| handle.container == container) {
            Some(handle) => handle,
            None => Handle::from_container(&engine, root, &names)?,
        };
        let observer = Arc::clone(&options.observer);
        let ownership = Ownership::Attached { root: root.clone(), layout, options };
        let bottle = Self::of(engine, names, handle, ownership);
        if let Err(BottleError::Unsealed { slug, problem }) = bottle.check_seal() {
            observer.event(&Event::Warning { message: format!("bottle `{slug}`: {problem}") });
        }
        Ok(bottle)
    }

    /// Returns the agent's own command. `None` if neither journal nor labels provide it.
    pub fn agent(&self) -> Option<Exec> {
        (!self.handle.agent.is_empty()).then(|| Exec::new(&self.handle.agent))
    }

    /// Sets the agent's own command, for this handle and for those that other processes attach.
    ///
    /// # Errors
    ///
    /// Returns an error when the journal cannot be written.
    pub fn with_agent(mut self, command: Vec<String>) -> Result<Self, BottleError> {
        self.handle.agent = command;
        if let Ownership::Owned(guard) = &self.ownership {
            guard.file().change(|journal| journal.handle = Some(self.handle.clone()))?;
        }
        Ok(self)
    }

    /// Returns the slug of the bottle.
    pub const fn slug(&self) -> &Slug {
        self.names.slug()
    }

    /// Returns the names of the bottle on the engine.
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// Returns the data of the handle.
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Returns the engine that the bottle runs on.
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Runs a command and captures its output, at most 4 MiB of each stream. By default it runs as the agent's user in
    /// the workspace.
    ///
    /// # Errors
    ///
    /// Returns an error when the command could not be run to its end. A failure status is not an error.
    /// [`BottleError::Unsealed`] when the agent lost its network; the command is then not run. A seal that was in order
    /// is not checked again for five seconds.
    pub fn exec(&self, exec: impl Into<Exec>) -> Result<Output, BottleError> {
        self.exec_with(exec, self.engine.control().clone())
    }

    /// Like [`exec`](Bottle::exec), with a control whose token stops the command.
    ///
    /// # Errors
    ///
    /// As [`exec`](Bottle::exec).
    pub fn exec_with(&self, exec: impl Into<Exec>, control: Control) -> Result<Output, BottleError> {
        self.check_seal()?;
        let engine = self.engine.clone().with_control(control);
        Ok(engine.exec(&self.handle.container, &self.with_defaults(exec.into()))?)
    }

    /// Like [`exec`](Bottle::exec), but passes the output to the control's sink as it arrives. The control's token
    /// stops the command.
    ///
    /// # Errors
    ///
    /// As [`exec`](Bottle::exec).
    pub fn exec_streaming(&self, exec: impl Into<Exec>, control: Control) -> Result<Output, BottleError> {
        self.check_seal()?;
        let engine = self.engine.clone().with_control(control);
        Ok(engine.exec_streaming(&self.handle.container, &self.with_defaults(exec.into()))?)
    }

    /// Starts a command and returns it while it runs, with a pipe for each stream, or one terminal if `terminal` is given.
    /// It is stopped when it is dropped, or when the token of the engine's control is cancelled and somebody waits for it.
    /// The standard input and the timeout in `exec` are not used.
    ///
    /// While the agent is paused, nothing in its container can be stopped. A command that is dropped then is stopped by the next
    /// [`resume`](Bottle::resume), in whichever process.
    ///
    /// # Errors
    ///
    /// As [`exec`](Bottle::exec). A missing program is an exit status (126 or 127) with a message on standard error.
    pub fn spawn(&self, exec: impl Into<Exec>, terminal: Option<TerminalSize>) -> Result<LiveExec, BottleError> {
        self.check_seal()?;
        let live = self.engine.spawn(&self.handle.container, &self.with_defaults(exec.into()), terminal)?;
        Ok(live.with_dropped(self.dropped()))
    }

    /// Returns a command in the bottle as one of the standard library, for a program that starts its agents itself. It is the
    /// engine's client, whose three streams are those of the command. `tty` must be true exactly when they are a terminal. The
    /// timeout in `exec` is not used.
    ///
    /// Killing the client does not stop the command in the bottle; [`spawn`](Bottle::spawn) and
    /// [`kill_all`](Bottle::kill_all) do.
    ///
    /// # Errors
    ///
    /// As [`exec`](Bottle::exec), and when the backend runs nothing on this host.
    pub fn command(&self, exec: impl Into<Exec>, tty: bool) -> Result<std::process::Command, BottleError> {
        self.check_seal()?;
        let mut exec = self.with_defaults(exec.into());
        if exec.stdin == Stdin::Null {
            exec.stdin = Stdin::Inherit;
        }
        Ok(self.engine.process(&self.handle.container, &exec, tty)?)
    }

    /// Runs the agent or another command on the caller's own input and output. `tty` must be true exactly when both the
    /// caller's standard input and its standard output are terminals.
    ///
    /// # Errors
    ///
    /// As [`exec`](Bottle::exec).
    pub fn exec_agent(&self, exec: impl Into<Exec>, tty: bool) -> Result<Output, BottleError> {
        self.check_seal()?;
        Ok(self.engine.exec_interactive(&self.handle.container, &self.with_defaults(exec.into()), tty)?)
    }

    /// Opens a port of the agent's loopback on 127.0.0.1 of this host, at a free port or the one of the
    /// [`ForwardSpec`], until the [`Forward`] is dropped. The agent gets no way to the host: it can only answer the
    /// connections that are made there. While it is open, it is in the bottle's journal.
    ///
    /// # Errors
    ///
    /// Returns an error when the port of the host is taken, or the seal does not run.
    /// [`BottleError::Unsealed`] as for [`exec`](Bottle::exec).
    pub fn forward(&self, spec: impl Into<ForwardSpec>) -> Result<Forward, BottleError> {
        self.check_seal()?;
        let journal = match &self.ownership {
            Ownership::Owned(guard) => Some(Arc::clone(guard.file())),
            Ownership::Attached { layout, .. } => JournalFile::open(layout).ok().map(Arc::new),
        };
        let observer = Arc::new(RecordForwards { journal, other: self.observer() });
        Ok(Forward::open(&self.engine, self.names.container(Service::Seal), spec, observer)?)
    }

    /// Stops every process of the agent's user in the agent's container, except the one that keeps the container up.
    /// Sends SIGTERM, and SIGKILL half a second later. Running execs of that user are stopped too, whichever process
    /// started them.
    ///
    /// # Errors
    ///
    /// [`EngineError`] when a process survives or the container does not exist.
    pub fn kill_all(&self) -> Result<(), BottleError> {
        Ok(self.engine.kill_all(&self.handle.container, self.handle.user.as_deref())?)
    }

    /// Copies a file or a directory of this host into an existing directory of the agent's container, under its own
    /// name. Symbolic links and modes are kept. Everything belongs to `owner` (user and group), by default to the
    /// agent's user.
    ///
    /// Returns the pipes, sockets and devices in a directory, which are left out.
    ///
    /// Under gVisor ([`CopyMethod::Tar`](bottle_engine::CopyMethod::Tar)) the owner writes the files, so that user
    /// needs permission to write there.
    ///
    /// # Errors
    ///
    /// Returns an error when the file cannot be read or the directory cannot be written.
    pub fn cp_in(&self, from: &Path, directory: &str, owner: Option<(u32, u32)>) -> Result<Skipped, BottleError> {
        let failed = |source| BottleError::Copy { path: from.to_owned(), source };
        let name = from.file_name().ok_or_else(|| failed(io::Error::other("it has no name")))?;
        let owner = match owner {
            Some(owner) => owner,
            None => self.agent_ids()?,
        };
        let tar = tempfile::NamedTempFile::new_in(self.scratch()).map_err(failed)?;
        let mut packer = Packer::new(tar.as_file()).with_owner(owner);
        let skipped = packer.add_tree(from, Path::new(name)).map_err(failed)?;
        packer.finish().map_err(failed)?;
        self.unpack(directory, Stdin::File(tar.path().to_owned()), Some(owner))?;
        Ok(skipped)
    }

    /// Returns the agent's user and group ids, as `id` prints them in the container.
    fn agent_ids(&self) -> Result<(u32, u32), BottleError> {
        let exec = self.with_defaults(Exec::new(["sh", "-c", "id -u; id -g"]).with_workdir("/"));
        let output = self.engine.exec(&self.handle.container, &exec)?;
        let text = output.stdout.text();
        let mut ids = text.lines().map(|line| line.trim().parse().ok());
        match (ids.next().flatten(), ids.next().flatten()) {
            (Some(uid), Some(gid)) if output.status.is_success() => Ok((uid, gid)),
            _ => Err(BottleError::Copy {
                path: self.handle.container.clone().into(),
                source: io::Error::other(format!("`id` does not tell its user: {}", output.stderr.last_lines(3))),
            }),
        }
    }

    /// Writes a file in an existing directory of the agent's container. `owner` is treated as in
    /// [`cp_in`](Bottle::cp_in).
    ///
    /// # Errors
    ///
    /// Returns an error when the path has no directory, or the directory cannot be written.
    pub fn write_file(&self, path: &str, bytes: &[u8], mode: u32, owner: (u32, u32)) -> Result<(), BottleError> {
        let failed = |source| BottleError::Copy { path: path.into(), source };
        let (directory, name) =
            path.rsplit_once('/').ok_or_else(|| failed(io::Error::other("it is not an absolute path")))?;
        let directory = if directory.is_empty() { "/" } else { directory };
        let mut packer = Packer::new(Vec::new()).with_owner(owner);
        packer.add_bytes(Path::new(name), bytes, mode).map_err(failed)?;
        let tar = packer.finish().map_err(failed)?;
        self.unpack(directory, Stdin::Bytes(tar), Some(owner))
    }

    fn unpack(&self, directory: &str, tar: Stdin, owner: Option<(u32, u32)>) -> Result<(), BottleError> {
        let user = owner.map(|(uid, gid)| format!("{uid}:{gid}")).or_else(|| self.handle.user.clone());
        Ok(self.engine.cp_in(&self.handle.container, directory, tar, self.handle.copy, user.as_deref())?)
    }

    /// Copies a file or a directory of the agent's container into an existing directory of this host, under its own
    /// name. Modes are kept, without set-user-id bits. The caller becomes the owner. Nothing is written outside the
    /// directory. Symbolic links are kept as the agent made them, so do not follow them. Returns the pipes and devices in a
    /// directory, which are left out. Sockets are left out by the engine, and not returned.
    ///
    /// # Errors
    ///
    /// Returns an error when the path does not exist, or the directory cannot be written.
    pub fn cp_out(&self, path: &str, into: &Path) -> Result<Skipped, BottleError> {
        let failed = |source| BottleError::Copy { path: into.to_owned(), source };
        if !std::fs::metadata(into).map_err(failed)?.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        // Without the name of the temporary file, which is nobody's concern.
        let tar = tempfile::NamedTempFile::new_in(into).map_err(|error| failed(error.kind().into()))?;
        let user = self.handle.user.as_deref();
        self.engine.cp_out(&self.handle.container, path, tar.path(), self.handle.copy, user)?;
        // The engine wrote the file by its name, so it is opened again.
        let written = tar.reopen().map_err(failed)?;
        tar::unpack(&written, into).map_err(failed)
    }

    /// Waits until the agent's container is ready for commands.
    ///
    /// # Errors
    ///
    /// Returns an error when it is not ready in time, or has ended.
    pub fn wait_ready(&self, within: Duration) -> Result<(), BottleError> {
        Ok(self.engine.wait_ready(&self.handle.container, within)?)
    }

    /// Returns the state of every service, sorted by name.
    ///
    /// # Errors
    ///
    /// Returns an error when the engine cannot be queried.
    pub fn health(&self) -> Result<Vec<ServiceHealth>, BottleError> {
        Ok(health::health(&self.engine, &self.names)?)
    }

    /// Attacks the bottle and returns whether each of its protections holds. A launch can do the same before it hands out
    /// the bottle, and then also searches for the values of the secrets, which this handle does not have.
    ///
    /// The program that attacks runs as the agent's user, so an agent that is running could tamper with it. What the
    /// engine and the seal say stays true.
    ///
    /// # Errors
    ///
    /// Returns an error when the probes cannot be run, or the journal that says what to expect is lost. A missing
    /// protection is in the result.
    pub fn verify(&self, level: Verify) -> Result<Verification, BottleError> {
        let expected = self.handle.expected.as_ref().ok_or(VerifyError::Unknown)?;
        Ok(bottle_verify::verify(&self.engine, expected, level, &[])?)
    }

    /// Reports the services that go down or are up again to `observer`, as
    /// [`ServiceChanged`](bottle_exec::Event::ServiceChanged), first those that are already down. Each incident is two
    /// events at most.
    ///
    /// A thread follows the event stream of the engine until the handle is closed or dropped, and calls `observer`. A
    /// second call replaces the observer.
    pub fn watch_health(&self, observer: Arc<dyn Observer>) {
        let watch = watch::watch(&self.engine, &self.names, observer);
        drop(self.replace_watch(Some(watch)));
    }

    /// Renews credentials before they expire, and tells `observer` of each renewal and each failure. A launch does this for
    /// every credential that comes from a [`SecretSource`](crate::SecretSource).
    ///
    /// One thread for each runs until the handle is closed or dropped. A second call replaces the first.
    pub fn renew(&self, renewals: Vec<Renewal>, observer: &Arc<dyn Observer>) {
        let renewing = Renewing::start(&self.engine, renewals, observer);
        *self.renewing.lock().unwrap_or_else(PoisonError::into_inner) = Some(renewing);
    }

    pub(crate) fn stop_renewing(&self) {
        drop(std::mem::take(&mut *self.renewing.lock().unwrap_or_else(PoisonError::into_inner)));
    }

    /// Reports each limit that is near or reached, and pauses the agent when it is idle, from now on. In a process that did not
    /// launch the bottle, and a second time, it does nothing.
    pub fn watch_limits(&self) {
        let Ownership::Owned(guard) = &self.ownership else { return };
        let mut limited = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
        if limited.is_none() {
            *limited = limits::watch(&self.engine, &self.names, &self.handle.limits, guard.observer());
        }
    }

    /// Begins the limits on time of a bottle that waited, as in a pool: the agent's container ends that much later, and the limits
    /// are [watched](Bottle::watch_limits).
    ///
    /// # Errors
    ///
    /// Returns an error when no command can be run in the agent's container.
    pub fn begin_limits(&self) -> Result<(), BottleError> {
        limits::end_wait(&self.engine, &self.handle)?;
        self.watch_limits();
        Ok(())
    }

    fn replace_watch(&self, watch: Option<Background>) -> Option<Background> {
        std::mem::replace(&mut *self.watch.lock().unwrap_or_else(PoisonError::into_inner), watch)
    }

    /// Removes the bottle, also one that this process did not launch but attached to. Its owner then has nothing left
    /// to remove.
    ///
    /// Later calls do nothing. The handle's other methods fail from then on, because the container is gone. What the agent changed in
    /// a copied workspace is lost then, without a word: [`work_left`](Bottle::work_left) says before how much that is.
    ///
    /// # Errors
    ///
    /// [`TeardownError`] when something could not be removed. [`recover`](crate::recover) tries again.
    pub fn close(&self) -> Result<TeardownReport, TeardownError> {
        drop(self.replace_watch(None));
        self.stop_renewing();
        for watch in [&self.disk, &self.limited] {
            drop(watch.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        let report = match &self.ownership {
            Ownership::Owned(guard) => guard.close(),
            Ownership::Attached { root, options, .. } => undo_all(&self.engine, root, &self.names, options)
                .unwrap_or_else(|error| TeardownReport {
                    journal_errors: vec![chain(&error)],
                    ..TeardownReport::default()
                }),
        };
        report.into_result()
    }

    /// Takes a bottle down by its journal or, if the journal is lost, by the labels on the engine. This also works for
    /// a bottle without a handle, whose launch failed halfway.
    ///
    /// # Errors
    ///
    /// [`BottleError::NotFound`] when there is neither, [`BottleError::Foreign`] when the labels name another state
    /// root, [`BottleError::Launching`] while a live process is launching it, [`BottleError::Teardown`] when something
    /// could not be removed.
    pub fn down(
        engine: &Engine,
        root: &StateRoot,
        names: &Names,
        options: &TeardownOptions,
    ) -> Result<TeardownReport, BottleError> {
        let layout = root.bottle(names.slug());
        let journal = journal(&layout, names)?;
        if let Some(Journal { status: Status::Launching, owner, slug, .. }) = &journal
            && owner.liveness(engine.info().endpoint.is_local) != Liveness::Gone
        {
            return Err(BottleError::Launching { slug: slug.clone(), pid: owner.pid });
        }
        let report = undo_all(engine, root, names, options)?;
        let was_known = journal.is_some_and(|journal| journal.status != Status::Closed);
        if report.steps.is_empty() && !was_known {
            return Err(BottleError::NotFound { slug: names.slug().clone() });
        }
        Ok(report.into_result()?)
    }

    /// Leaves the bottle running after this process ends. Recovery leaves a kept bottle alone. Credentials are renewed only
    /// while this handle exists.
    ///
    /// # Errors
    ///
    /// Returns an error when the journal cannot be written. The bottle stays, but the next recovery may remove it.
    pub fn keep(&self) -> Result<(), BottleError> {
        match &self.ownership {
            Ownership::Owned(guard) => Ok(guard.keep()?),
            Ownership::Attached { .. } => Ok(()),
        }
    }

    /// Returns the journal, if this process launched the bottle.
    pub const fn journal(&self) -> Option<&Arc<JournalFile>> {
        match &self.ownership {
            Ownership::Owned(guard) => Some(guard.file()),
            Ownership::Attached { .. } => None,
        }
    }

    /// Returns the directory for temporary tar streams: the bottle's own private directory, if it exists.
    pub(crate) fn scratch(&self) -> &Path {
        let own = self.state_dir();
        if own.is_dir() { own } else { Path::new("/tmp") }
    }

    /// Returns the bottle's state directory.
    pub(crate) fn state_dir(&self) -> &Path {
        match &self.ownership {
            Ownership::Owned(guard) => guard.file().state_dir(),
            Ownership::Attached { layout, .. } => layout.dir(),
        }
    }

    /// Returns the commands that were dropped while the agent was paused.
    pub(crate) fn dropped(&self) -> DroppedExecs {
        DroppedExecs::new(&self.engine, &self.handle.container, self.state_dir().join("dropped.jsonl"))
    }

    /// Returns the options of its teardown.
    const fn options(&self) -> &TeardownOptions {
        match &self.ownership {
            Ownership::Owned(guard) => guard.options(),
            Ownership::Attached { options, .. } => options,
        }
    }

    pub(crate) fn observer(&self) -> Arc<dyn Observer> {
        Arc::clone(&self.options().observer)
    }

    /// Returns the time that a container gets between SIGTERM and SIGKILL.
    pub(crate) const fn grace(&self) -> Duration {
        self.options().grace
    }

    /// Returns the reason why objects with these labels belong to another state root.
    pub(crate) fn foreign<'a>(
        &self,
        labels: impl IntoIterator<Item = &'a BTreeMap<String, String>>,
    ) -> Option<Foreign> {
        let root = StateRoot::at(self.state_dir().parent()?);
        let mut labels = labels.into_iter().peekable();
        labels.peek()?;
        Home::new(&self.engine, &root, self.names.prefix()).foreign(labels)
    }

    /// Returns an error if the agent does not run, lost its network, or its seal is unhealthy.
    pub(crate) fn check_seal(&self) -> Result<(), BottleError> {
        let mut sealed = self.sealed.lock().unwrap_or_else(PoisonError::into_inner);
        if sealed.is_some_and(|checked| checked.elapsed() < CHECKED_FOR) {
            return Ok(());
        }
        if let Some(problem) = health::seal_problem(&self.engine, &self.names)? {
            *sealed = None;
            let slug = self.slug().clone();
            return Err(match problem {
                SealProblem::Stopped(problem) => BottleError::Stopped { slug, problem },
                SealProblem::Unsealed(problem) => BottleError::Unsealed { slug, problem },
            });
        }
        *sealed = Some(Instant::now());
        Ok(())
    }

    fn with_defaults(&self, exec: Exec) -> Exec {
        Exec {
            user: exec.user.or_else(|| self.handle.user.clone()),
            workdir: exec.workdir.or_else(|| self.handle.workdir.clone()),
            ..exec
        }
    }
}

/// Returns the bottle's journal, unless it is lost or malformed.
fn journal(layout: &StateLayout, names: &Names) -> Result<Option<Journal>, JournalError> {
    match JournalFile::open(layout) {
        Ok(file) => Ok(Some(file.journal()).filter(|journal| journal.names() == *names)),
        Err(error) if error.is_refused() => Err(error),
        Err(_) => Ok(None),
    }
}

/// Undoes by the journal, or by labels if the journal is lost or empty.
fn undo_all(
    engine: &Engine,
    root: &StateRoot,
    names: &Names,
    options: &TeardownOptions,
) -> Result<TeardownReport, BottleError> {
    match JournalFile::open(&root.bottle(names.slug())) {
        Ok(file) if file.journal().names() == *names && file.journal().status != Status::Closed => {
            Ok(tear_down(engine, &file, options))
        }
        Err(error) if error.is_refused() => Err(error.into()),
        _ => {
            let engine = engine.clone().with_control(engine.control().for_cleanup());
            let found = Home::new(&engine, root, names.prefix()).objects_of(&engine, names)?;
            match found.foreign {
                Some(foreign) if found.own.is_empty() => {
                    Err(BottleError::Foreign { slug: names.slug().clone(), foreign })
                }
                _ => Ok(remove(&engine, found.own, names, &root.bottle(names.slug()), options)),
            }
        }
    }
}

impl Handle {
    /// Reads the data from the container: its user and working directory, unless the labels `<prefix>.user` and
    /// `<prefix>.workdir` name others, and the agent's command from `<prefix>.command`, as JSON.
    fn from_container(engine: &Engine, root: &StateRoot, names: &Names) -> Result<Self, BottleError> {
        let container = names.container(Service::Agent);
        let Some(state) = engine.container(&container)? else {
            return Err(BottleError::NotFound { slug: names.slug().clone() });
        };
        if let Some(foreign) = Home::new(engine, root, names.prefix()).foreign([&state.labels]) {
            return Err(BottleError::Foreign { slug: names.slug().clone(), foreign });
        }
        let label = |key: &str| state.labels.get(&format!("{}.{key}", names.prefix())).cloned();
        let set = |text: &String| (!text.is_empty()).then(|| text.clone());
        Ok(Self {
            user: label("user").or_else(|| set(&state.user)),
            workdir: label("workdir").or_else(|| set(&state.workdir)),
            agent: label("command").and_then(|argv| serde_json::from_str(&argv).ok()).unwrap_or_default(),
            copy: state.copy_method(),
            container,
            expected: None,
            restart: None,
            limits: LimitsSpec::default(),
        })
    }
}
