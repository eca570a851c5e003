//! The one printer of errors.

use std::error::Error as StdError;
use std::fmt;

use bottle_plan::{ManifestError, NameError, PlanError};

use crate::Error;
use crate::launch_error::{LaunchCause, LaunchError};

/// Reports an error to a person: "failed to", the error, and every cause behind it. A mistake of a manifest is drawn below
/// its source line, and a launch that could not be undone says what is left.
///
/// ```
/// use bottle::Manifest;
///
/// let error = Manifest::parse("bottles: {dev: {egres: {}}}\nagents: {demo: {bottle: dev, command: [id]}}").unwrap_err();
/// let text = bottle::report(&error).to_string();
/// assert!(text.starts_with("failed to read manifest: 1 mistake\n"), "{text}");
/// assert!(text.contains("did you mean `egress`?"), "{text}");
/// ```
pub fn report<'a>(error: &'a (dyn StdError + 'static)) -> Report<'a> {
    Report { error, color: false }
}

/// An error as [`report`] prints it.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    error: &'a (dyn StdError + 'static),
    color: bool,
}

impl Report<'_> {
    /// Sets whether source lines are drawn in color, as on a terminal. Default: no.
    #[must_use]
    pub const fn with_color(mut self, color: bool) -> Self {
        self.color = color;
        self
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut error = self.error;
        let mut between = "";
        f.write_str("failed to ")?;
        // A name's error is a sentence about the text, since it stands behind a key in a manifest's error.
        if error.is::<NameError>() {
            between = "parse a name or value: ";
        }
        loop {
            if let Some(manifest) = manifest_error(error).filter(|manifest| !manifest.is_unreadable()) {
                let drawn = manifest.drawn(self.color);
                return write!(f, "{between}{}\n\n{}", manifest.summary(), drawn.trim_end());
            }
            write!(f, "{between}{error}")?;
            between = ": ";
            match error.source() {
                Some(source) => error = source,
                None => break,
            }
        }
        match launch_error(self.error).and_then(|error| error.teardown.as_ref()) {
            Some(report) if !report.is_clean() => write!(f, "\nnot everything could be undone: {report}"),
            _ => Ok(()),
        }
    }
}

/// The report, which is what a `main` that returns the error prints. `{:#?}` prints the variant and its fields.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(&report(self), f);
        }
        let (variant, error): (&str, &dyn fmt::Debug) = match self {
            Self::Host(error) => ("Host", error),
            Self::Name(error) => ("Name", error),
            Self::Manifest(error) => ("Manifest", error),
            Self::Plan(error) => ("Plan", error),
            Self::Engine(error) => ("Engine", error),
            Self::Launch(error) => ("Launch", error),
            Self::Bottle(error) => ("Bottle", error),
            Self::Journal(error) => ("Journal", error),
            Self::Supervise(error) => ("Supervise", error),
            Self::Teardown(error) => ("Teardown", error),
        };
        f.debug_tuple(variant).field(error).finish()
    }
}

fn manifest_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a ManifestError> {
    let of_plan = |error: &'a PlanError| match error {
        PlanError::Manifest(error) => Some(error),
        _ => None,
    };
    match error.downcast_ref::<Error>() {
        Some(Error::Manifest(error)) => return Some(error),
        Some(Error::Plan(error)) => return of_plan(error),
        _ => {}
    }
    if let Some(LaunchCause::Manifest(error)) = error.downcast_ref::<LaunchCause>() {
        return Some(error);
    }
    error.downcast_ref::<ManifestError>().or_else(|| error.downcast_ref::<PlanError>().and_then(of_plan))
}

fn launch_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a LaunchError> {
    match error.downcast_ref::<Error>() {
        Some(Error::Launch(error)) => Some(error),
        _ => error.downcast_ref::<LaunchError>(),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::io;
    use std::path::PathBuf;
    use std::time::Duration;

    use bottle_compose::RenderError;
    use bottle_engine::EngineError;
    use bottle_exec::ExecError;
    use bottle_plan::{HostFacts, Manifest, PlanRequest, ResolveError, Service, Slug, UserIds};
    use bottle_store::StoreError;
    use bottle_supervise::{AuditError, Malformed, Proposal, ProposalId, QueueError, SuperviseError};
    use bottle_tls::{BundleInput, TlsError};
    use bottle_verify::{Outcome, Probe, VerifyError};
    use bottle_workspace::{WorkError, WorkspaceError};

    use super::*;
    use crate::ProvisionError;
    use crate::launch_error::Step;
    use crate::lifecycle::{
        BottleError, Foreign, ForwardError, ForwardSpecError, HandOverError, JournalError, Owner, OwnerError,
        TeardownError, TeardownReport, Undo, UndoError, UndoOutcome,
    };

    fn unprotected() -> VerifyError {
        let detail = "the seal has none: No such file or directory".to_owned();
        let probe = Probe { protection: "firewall rules", outcome: Outcome::Failed, detail };
        VerifyError::Unprotected { failed: vec![probe] }
    }

    /// Every variant of every public error. `cargo xtask check` finds one that is not constructed here.
    fn every() -> Vec<(&'static str, Box<dyn StdError>)> {
        fn path() -> PathBuf {
            "/home/me/file".into()
        }
        fn denied() -> io::Error {
            io::Error::from(io::ErrorKind::PermissionDenied)
        }
        let unsupported = || EngineError::Unsupported { engine: "docker".into(), wanted: "Compose".into() };
        let bundle =
            || TlsError::Bundle { input: BundleInput::ExtraRoots, line: 7, problem: "certificate 2: …".into() };
        let text = "bottles: {dev: {runtime: kata, egres: {}}}\nagents: {demo: {bottle: dev, command: [id]}}";
        let manifest = || -> ManifestError { Manifest::parse(text).unwrap_err() };
        let name = || -> NameError { "No".parse::<Slug>().unwrap_err() };
        let malformed = || -> Malformed { Proposal::parse(b"{").unwrap_err() };
        let owner = || -> OwnerError { "7".parse::<Owner>().unwrap_err() };
        let (known, what) = ("`demo`", "the workspace");
        let mut all: Vec<(&str, Box<dyn StdError>)> = vec![
            ("ManifestError", Box::new(manifest())),
            ("ManifestError", Box::new(Manifest::read("/nowhere/bottle.yaml").unwrap_err())),
            ("ManifestError", Box::new(Manifest::read("/").unwrap_err())),
            ("NameError", Box::new(name())),
            ("Malformed", Box::new(malformed())),
            ("PlanError", Box::new(PlanError::UnknownAgent { wanted: "x".into(), known: known.into() })),
            ("PlanError", Box::new(PlanError::AgentNotChosen { known: known.into() })),
            ("PlanError", Box::new(PlanError::Manifest(manifest()))),
            ("PlanError", Box::new(PlanError::RelativePath { what: "the home directory", path: "x".into() })),
            ("ResolveError", Box::new(ResolveError::Sidecar { service: Service::Egress, planned: true })),
            ("ResolveError", Box::new(ResolveError::Sidecar { service: Service::Egress, planned: false })),
            ("ResolveError", Box::new(ResolveError::RelativePath { what: what.into(), path: "x".into() })),
            ("ResolveError", Box::new(ResolveError::NotUnicode { what: what.into(), path: path() })),
            ("ResolveError", Box::new(ResolveError::NoIdentity { name: "app".parse().unwrap() })),
            ("ResolveError", Box::new(ResolveError::UpstreamCa)),
            ("RenderError", Box::new(RenderError::DuplicateService { name: "agent".into() })),
            ("RenderError", Box::new(RenderError::Dangling { service: "clock".into(), missing: "moon".into() })),
            ("RenderError", Box::new(RenderError::NoPorts { sidecar: "clock".into(), given: "its proxy".into() })),
            (
                "RenderError",
                Box::new(RenderError::ClosedPort { sidecar: "clock".into(), port: 8888, proxy: "pipelock".into() }),
            ),
            ("WorkspaceError", Box::new(WorkspaceError::NotADirectory { path: path() })),
            ("WorkspaceError", Box::new(WorkspaceError::Read { path: path(), source: denied() })),
            ("WorkspaceError", Box::new(WorkspaceError::Write(denied()))),
        ];
        let causes = [
            (Step::Up, LaunchCause::Cancelled),
            (Step::Prepare, LaunchCause::Manifest(manifest())),
            (
                Step::Prepare,
                LaunchCause::Unusable { what: what.into(), path: path(), problem: "is not a directory".into() },
            ),
            (Step::WriteConfiguration, LaunchCause::Write { path: path(), source: denied() }),
            (Step::BuildImages, LaunchCause::Workspace(WorkspaceError::Write(denied()))),
            (Step::MintCertificates, LaunchCause::Tls(bundle())),
            (Step::Resolve, LaunchCause::Resolve(ResolveError::UpstreamCa)),
            (Step::WriteCompose, LaunchCause::Render(RenderError::DuplicateService { name: "agent".into() })),
            (
                Step::WriteConfiguration,
                LaunchCause::Supervise(SuperviseError::Malformed { path: path(), reason: "no plan".into() }),
            ),
            (Step::CreateNetworks, LaunchCause::Engine(unsupported())),
            (Step::Up, LaunchCause::Exec(ExecError::Cancelled { command: "docker ps".into() })),
            (Step::Prepare, LaunchCause::Journal(JournalError::NotUndone { slug: "demo".parse().unwrap() })),
            (
                Step::Prepare,
                LaunchCause::NoDeployKeys { upstream: "app".into(), key: "bottles.dev.git.upstreams[0]".into() },
            ),
            (Step::Provision, LaunchCause::Provision(ProvisionError::Custom(Box::new(denied())))),
            (Step::Verify, LaunchCause::Verify(unprotected())),
            (Step::Verify, LaunchCause::Verify(VerifyError::Engine(unsupported()))),
            (Step::Verify, LaunchCause::Verify(VerifyError::Program(denied()))),
            (Step::Verify, LaunchCause::Verify(VerifyError::Unknown)),
            (Step::HandOut, LaunchCause::Bottle(BottleError::Engine(unsupported()))),
        ];
        all.extend(
            causes
                .into_iter()
                .map(|(step, cause)| ("LaunchError", Box::new(LaunchError::new(step, cause)) as Box<dyn StdError>)),
        );
        let with_rest = LaunchError::new(Step::Up, LaunchCause::Cancelled).with_teardown(incomplete_teardown().report);
        all.push(("LaunchError", Box::new(with_rest)));
        all.push(("TeardownError", Box::new(incomplete_teardown())));
        let errors = [
            Error::Host(denied()),
            Error::Name(name()),
            Error::Manifest(manifest()),
            Error::Plan(PlanError::AgentNotChosen { known: known.into() }),
            Error::Engine(unsupported()),
            Error::Launch(LaunchError::new(Step::Prepare, LaunchCause::Cancelled)),
            Error::Bottle(BottleError::NotFound { slug: "demo".parse().unwrap() }),
            Error::Journal(JournalError::NotUndone { slug: "demo".parse().unwrap() }),
            Error::Supervise(SuperviseError::NotSupervised("demo".parse().unwrap())),
            Error::Teardown(incomplete_teardown()),
        ];
        all.extend(errors.into_iter().map(|error| ("Error", Box::new(error) as Box<dyn StdError>)));
        all.push(("OwnerError", Box::new(owner())));
        all.extend(of_the_engine());
        all.extend(of_a_bottle());
        all.extend(of_a_start());
        all.extend(of_a_store());
        all.extend(of_the_work());
        all
    }

    /// A teardown of which two parts failed.
    fn incomplete_teardown() -> TeardownError {
        let failed = |undo, error: &str| UndoOutcome { undo, error: Some(error.into()), duration: Duration::ZERO };
        let steps = vec![
            failed(Undo::RemoveNetwork { name: "claude-bottle-demo".into() }, "it has active endpoints"),
            UndoOutcome { undo: Undo::RemoveImage { tag: "x".into() }, error: None, duration: Duration::ZERO },
            failed(Undo::RemoveFiles { paths: vec!["keys".into()] }, "permission denied"),
        ];
        TeardownReport { steps, ..TeardownReport::default() }.into_result().unwrap_err()
    }

    /// Every variant of the errors of the engine and of the commands that it runs.
    fn of_the_engine() -> Vec<(&'static str, Box<dyn StdError>)> {
        let (command, stderr) = (|| "docker ps".to_owned(), String::new);
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let status = bottle_exec::ExitStatus::Code(3);
        let exec = [
            ExecError::NotFound { program: "docker".into(), command: command() },
            ExecError::Spawn { command: command(), source: denied() },
            ExecError::Failed { command: command(), status, stderr: "no such thing".into() },
            ExecError::TimedOut { command: command(), limit: Duration::from_secs(5), stderr: stderr() },
            ExecError::Cancelled { command: command() },
            ExecError::Io { command: command(), doing: "open standard input", source: denied() },
            ExecError::SecretInArguments { command: command() },
            ExecError::Backend { command: command(), message: "the machine is gone".into() },
        ];
        let (container, reason, wanted) = (|| "box".to_owned(), "expected `[`".into(), "the runtime `runsc`".into());
        let engine = [
            EngineError::Exec(ExecError::Spawn { command: command(), source: denied() }),
            EngineError::Answer { command: command(), reason, answer: "`{`".into() },
            EngineError::NoEngine {
                tried: vec![("docker".into(), "start `docker version`: permission denied".into())],
            },
            EngineError::Unsupported { engine: "docker".into(), wanted },
            EngineError::Remote { address: "ssh://host.example.com".into() },
            EngineError::NotEncrypted { address: "tcp://192.0.2.1:2375".into() },
            EngineError::ReservedName { name: "DOCKER_HOST".into() },
            EngineError::NotRunning { container: "claude-bottle-demo".into(), state: "is paused".into() },
            EngineError::NoCommand { container: "claude-bottle-demo".into() },
            EngineError::StillRunning {
                container: container(),
                cause: "run `docker exec`: cancelled".into(),
                reason: "run `docker exec`: it ended with status 1".into(),
                was_cancelled: true,
            },
            EngineError::NotCopied {
                container: container(),
                directory: "/srv".into(),
                missing: "`./a` is missing".into(),
            },
            EngineError::SubnetTaken { network: "claude-bottle-net-demo".into(), subnet: "10.213.0.0/28".into() },
            EngineError::NotReady { container: container(), state: "there is no such container".into() },
        ];
        let exec = exec.into_iter().map(|error| ("ExecError", Box::new(error) as Box<dyn StdError>));
        exec.chain(engine.into_iter().map(|error| ("EngineError", Box::new(error) as Box<dyn StdError>))).collect()
    }

    /// The errors of a bottle whose engine does not see this host's files.
    fn of_a_store() -> Vec<(&'static str, Box<dyn StdError>)> {
        let (container, source) = (|| "store".to_owned(), io::Error::from(io::ErrorKind::PermissionDenied));
        let engine = EngineError::Unsupported { engine: "docker".into(), wanted: "Compose".into() };
        let unread = StoreError::Io { action: "read", path: "/home/me/file".into(), source };
        let unwritten = StoreError::NotWritten { container: container(), problem: "no space is left".into() };
        let render = RenderError::NotStored { service: "clock".into(), source_path: "/srv/clock".into() };
        let launch = LaunchCause::Store(StoreError::Engine { container: container(), source: engine });
        vec![
            ("RenderError", Box::new(render)),
            ("StoreError", Box::new(unread)),
            ("LaunchCause", Box::new(launch)),
            ("BottleError", Box::new(BottleError::Store(unwritten))),
        ]
    }

    /// The errors of subnets, of starting a stopped bottle, and of filling one in.
    fn of_a_start() -> Vec<(&'static str, Box<dyn StdError>)> {
        let slug = || "demo".parse::<Slug>().unwrap();
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let engine = || EngineError::Unsupported { engine: "docker".into(), wanted: "Compose".into() };
        let no_subnet = LaunchCause::NoSubnet {
            network: "claude-bottle-net-demo".into(),
            prefix_len: 28,
            subnets: "10.213.0.0/16".into(),
        };
        let not_started = BottleError::NotStarted {
            slug: slug(),
            problem: "the container `claude-bottle-seal-demo` was removed; launch the bottle again".into(),
        };
        let errors = [
            not_started,
            BottleError::Workspace(WorkspaceError::Write(denied())),
            BottleError::Credentials { slug: slug(), source: Box::new(denied()) },
            BottleError::HandOver(HandOverError::Engine { container: "egress".into(), source: engine() }),
        ];
        let errors = errors.into_iter().map(|error| ("BottleError", Box::new(error) as Box<dyn StdError>));
        let launch = LaunchError::new(Step::CreateNetworks, no_subnet);
        errors.chain([("LaunchError", Box::new(launch) as Box<dyn StdError>)]).collect()
    }

    /// Every variant of the errors of taking work out of a bottle.
    fn of_the_work() -> Vec<(&'static str, Box<dyn StdError>)> {
        let path = || PathBuf::from("/home/me/file");
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let errors = [
            WorkError::NoBase { path: path(), source: denied() },
            WorkError::Read(denied()),
            WorkError::TooMuch { what: "files", limit: "9 bytes".into() },
            WorkError::Write { path: path(), source: denied() },
            WorkError::Run(ExecError::Cancelled { command: "git".into() }),
            WorkError::Git { doing: "check the prefix", said: "fatal: no".into() },
            WorkError::Prefix { prefix: "refs/heads".into() },
        ];
        errors.into_iter().map(|error| ("WorkError", Box::new(error) as Box<dyn StdError>)).collect()
    }

    /// Every variant of the errors of a bottle that is there: its journal, its handle, its removal, its supervision.
    fn of_a_bottle() -> Vec<(&'static str, Box<dyn StdError>)> {
        fn boxed<E: StdError + 'static>(name: &'static str, error: E) -> (&'static str, Box<dyn StdError>) {
            (name, Box::new(error))
        }
        let path = || PathBuf::from("/home/me/file");
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let slug = || "demo".parse::<Slug>().unwrap();
        let id = || "1700000000000-abcdefghij234567".parse::<ProposalId>();
        let engine = || EngineError::Unsupported { engine: "docker".into(), wanted: "Compose".into() };
        let forward_spec = || -> ForwardSpecError { "0".parse::<crate::ForwardSpec>().unwrap_err() };
        let what = "copy the skills";
        let handler = || "deploy-key".to_owned();
        let not_given = HandOverError::NotGiven { container: "egress".into(), problem: "cannot write A".into() };
        let mut all = vec![
            boxed("ForwardSpecError", forward_spec()),
            boxed("ForwardError", ForwardError::Port),
            boxed("ForwardError", ForwardError::Listen { local: 8080, source: denied() }),
            boxed("ForwardError", ForwardError::Start { port: 3000, container: "seal".into(), reason: "no".into() }),
            boxed("ForwardError", ForwardError::Engine(engine())),
            boxed("JournalError", JournalError::Io { doing: "write", path: path(), source: denied() }),
            boxed("JournalError", JournalError::Malformed { path: path(), reason: "no slug".into() }),
            boxed("JournalError", JournalError::AlreadyRunning { slug: slug(), owner: None }),
            boxed("JournalError", JournalError::NotUndone { slug: slug() }),
            boxed("BottleError", BottleError::Engine(engine())),
            boxed("BottleError", BottleError::Verify(VerifyError::Unknown)),
            boxed("BottleError", BottleError::Journal(JournalError::NotUndone { slug: slug() })),
            boxed("BottleError", BottleError::Teardown(incomplete_teardown())),
            boxed("BottleError", BottleError::Forward(ForwardError::Port)),
            boxed("BottleError", BottleError::Work(WorkError::NoBase { path: path(), source: denied() })),
            boxed("BottleError", BottleError::NotFound { slug: slug() }),
            boxed("BottleError", BottleError::Foreign { slug: slug(), foreign: Foreign::NoRoot }),
            boxed(
                "BottleError",
                BottleError::Foreign {
                    slug: slug(),
                    foreign: Foreign::OtherRoot { directory: Some("/home/you/state/demo".into()) },
                },
            ),
            boxed("BottleError", BottleError::Launching { slug: slug(), pid: 7 }),
            boxed("BottleError", BottleError::Stopped { slug: slug(), problem: "its agent is stopped".into() }),
            boxed(
                "BottleError",
                BottleError::Unsealed {
                    slug: slug(),
                    problem: "its agent lost its network: `seal` was removed".into(),
                },
            ),
            boxed("HandOverError", HandOverError::Engine { container: "egress".into(), source: engine() }),
            boxed("LaunchCause", LaunchCause::HandOver(not_given)),
            boxed("BottleError", BottleError::Copy { path: path(), source: denied() }),
            boxed("UndoError", UndoError::Engine(engine())),
            boxed("UndoError", UndoError::File { path: path(), source: denied() }),
            boxed("UndoError", UndoError::Outside { path: path() }),
            boxed("UndoError", UndoError::Foreign { found: "other".into(), accepted: "`claude-bottle-demo.*`".into() }),
            boxed(
                "UndoError",
                UndoError::OtherHome { found: "claude-bottle-net-demo".into(), foreign: Foreign::NoRoot },
            ),
            boxed("UndoError", UndoError::NoHandler { handler: handler() }),
            boxed("UndoError", UndoError::Handler { handler: handler(), message: "the forge did not answer".into() }),
            boxed("ProvisionError", ProvisionError::Engine { what, source: engine() }),
            boxed("ProvisionError", ProvisionError::Failed { what, status: "status 1".into(), stderr: "full".into() }),
            boxed("ProvisionError", ProvisionError::Read { what, path: path(), source: denied() }),
            boxed(
                "ProvisionError",
                ProvisionError::Configuration { path: "~/.claude.json", reason: "no object".into() },
            ),
            boxed("ProvisionError", ProvisionError::Custom(Box::new(denied()))),
            boxed("TlsError", TlsError::Bottle { bottle: "a b".into(), reason: "holds a space" }),
            boxed("TlsError", TlsError::Validity { reason: "the lifetime is zero" }),
            boxed("TlsError", TlsError::Random { source: denied() }),
            boxed("TlsError", TlsError::BadRandomness { what: "a serial number", attempts: 3 }),
            boxed("TlsError", TlsError::Encode { what: "the key", reason: "…".into() }),
            boxed("TlsError", TlsError::Bundle { input: BundleInput::ExtraRoots, line: 7, problem: "…".into() }),
            boxed("TlsError", TlsError::File { action: "write", path: path(), source: denied() }),
            boxed("SuperviseError", SuperviseError::Io { action: "read", path: path(), source: denied() }),
            boxed("SuperviseError", SuperviseError::Malformed { path: path(), reason: "no plan".into() }),
            boxed("SuperviseError", SuperviseError::NotSupervised(slug())),
        ];
        let id = id().unwrap();
        let audit = [
            AuditError::Io { path: path(), source: denied() },
            AuditError::Tampered { path: path(), line: 3, why: "has another hash" },
            AuditError::Full { path: path() },
        ];
        let queue = [
            QueueError::Io { action: "list", path: path(), source: denied() },
            QueueError::NotFound(id.clone()),
            QueueError::Malformed { id: id.clone(), source: Proposal::parse(b"{").unwrap_err() },
            QueueError::ChangedSinceShown(id.clone()),
            QueueError::AlreadyDecided(id.clone()),
            QueueError::Contradiction("the host knows more".into()),
        ];
        let queue = queue.into_iter().chain(audit.into_iter().map(QueueError::Audit));
        all.extend(queue.map(|error| boxed("SuperviseError", SuperviseError::Queue(error))));
        all.push(boxed("SuperviseError", SuperviseError::ConsequenceChanged(id.clone())));
        all.push(boxed("SuperviseError", SuperviseError::ApproverPanicked(id.clone())));
        all.push(boxed("SuperviseError", SuperviseError::NotEnded("pipelock rejected it".into())));
        all.push(boxed("SuperviseError", SuperviseError::NotPossible { id, why: "it is a wildcard".into() }));
        all
    }

    /// Every variant of the errors of a forge, as a launch reports them.
    #[cfg(feature = "deploy-keys")]
    fn of_a_forge() -> Vec<(&'static str, Box<dyn StdError>)> {
        use crate::deploy_keys::{DeployKeyError, ForgeError};

        let reason = || "…".to_owned();
        let errors = [
            ForgeError::NoToken,
            ForgeError::Unusable { reason: reason() },
            ForgeError::Unreachable { reason: reason() },
            ForgeError::Refused { status: 403, message: "no".into() },
            ForgeError::Failed { status: 500, message: String::new() },
            ForgeError::Unanswered { reason: reason() },
            ForgeError::Malformed { reason: reason() },
        ];
        let key = |source| DeployKeyError {
            upstream: "app".into(),
            key: "bottles.dev.git.upstreams[0]".into(),
            repository: "team/app".into(),
            api_url: "https://git.example.com/api/v1".into(),
            variable: "FORGE_TOKEN".parse().unwrap(),
            source,
        };
        let launch = |error| LaunchError::new(Step::RegisterKeys, LaunchCause::DeployKey(Box::new(key(error))));
        errors.into_iter().map(|error| ("ForgeError", Box::new(launch(error)) as Box<dyn StdError>)).collect()
    }

    /// Every variant of the errors of a source of tokens.
    #[cfg(feature = "token-sources")]
    fn of_a_token_source() -> Vec<(&'static str, Box<dyn StdError>)> {
        use crate::token_sources::TokenError;

        let url = || "https://auth.example.com/oauth/token".to_owned();
        let path = || PathBuf::from("/home/me/.codex/auth.json");
        let errors = [
            TokenError::File { path: path(), problem: "it is not JSON".into() },
            TokenError::Io { action: "lock", path: path(), source: std::io::ErrorKind::PermissionDenied.into() },
            TokenError::Unusable { url: url(), problem: "its proxy is not valid: …".into() },
            TokenError::Refused { url: url(), status: 400, message: "invalid_grant".into() },
            TokenError::NoAnswer { url: url(), reason: "…".into() },
            TokenError::Malformed { url: url() },
        ];
        errors.into_iter().map(|error| ("TokenError", Box::new(error) as Box<dyn StdError>)).collect()
    }

    #[cfg(feature = "token-sources")]
    #[test]
    fn every_error_of_a_token_source_follows_failed_to() {
        let mut shown = String::new();
        for (family, error) in of_a_token_source() {
            writeln!(shown, "{family}: {}", report(&*error)).unwrap();
        }
        insta::assert_snapshot!(shown);
    }

    #[cfg(feature = "deploy-keys")]
    #[test]
    fn every_error_of_a_forge_follows_failed_to() {
        let mut shown = String::new();
        for (family, error) in of_a_forge() {
            writeln!(shown, "{family}: {}", report(&*error)).unwrap();
        }
        insta::assert_snapshot!(shown);
    }

    /// Every error of a bottle on a cluster.
    fn of_a_cluster() -> Vec<(&'static str, Box<dyn StdError>)> {
        use bottle_kube::{KubeError, RenderError};
        use bottle_platform::PlatformError;
        let agent = || "agent".to_owned();
        let render = RenderError::NoAddress { service: "egress".into() };
        let document = bottle_compose::RenderError::DuplicateService { name: "clock".into() };
        let failed = ExecError::NotFound { program: "kubectl".into(), command: "kubectl version".into() };
        let errors = [
            KubeError::Exec(failed),
            KubeError::Answer { command: "kubectl get pods".into(), reason: "expected value at line 1".into() },
            KubeError::Render(render.clone()),
            KubeError::Resolve(ResolveError::UpstreamCa),
            KubeError::Input { problem: "the variable `KEY` is not set".into() },
            KubeError::Taken { namespace: "claude-bottle-demo".into(), owner: "7:1:00000000.1".into() },
            KubeError::Pod { pod: agent(), problem: "ImagePullBackOff: no such image".into() },
            KubeError::DeployKey {
                upstream: "app".into(),
                key: "bottles.dev.git.upstreams[0]".into(),
                problem: "nothing registers deploy keys; accepted: `identity_file` or `token`".into(),
            },
            KubeError::NotRevoked {
                namespace: "claude-bottle-demo".into(),
                problems: vec!["a deploy key is registered".into()],
            },
            KubeError::NotEnforced { pod: agent(), detail: "egress:20009 is reachable".into() },
            KubeError::Late { pods: vec!["`agent` (not created)".into()], within: Duration::from_secs(300) },
            KubeError::Image(EngineError::NoEngine { tried: Vec::new() }),
            KubeError::Tls(TlsError::Validity { reason: "the lifetime is zero" }),
            KubeError::Workspace(WorkspaceError::NotADirectory { path: "/home/me/file".into() }),
            KubeError::Work(WorkError::Prefix { prefix: "refs/heads".into() }),
            KubeError::Forward(ForwardError::Port),
            KubeError::Provision(ProvisionError::Custom("no space".into())),
            KubeError::Supervise(SuperviseError::NotSupervised("demo".parse().unwrap())),
            KubeError::Unprotected(unprotected()),
            KubeError::Cancelled,
        ];
        let errors = errors.into_iter().map(|error| ("KubeError", Box::new(error) as Box<dyn StdError>));
        let rendering = [RenderError::Document(document), RenderError::Workspace { mode: "bind" }, render];
        let rendering = rendering.into_iter().map(|error| ("RenderError", Box::new(error) as Box<dyn StdError>));
        let of_platform: Box<dyn StdError> = Box::new(PlatformError::new(KubeError::Cancelled));
        errors.chain(rendering).chain([("PlatformError", of_platform)]).collect()
    }

    #[test]
    fn every_error_of_a_cluster_follows_failed_to() {
        let mut shown = String::new();
        for (family, error) in of_a_cluster() {
            writeln!(shown, "{family}: {}", report(&*error)).unwrap();
        }
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn every_error_follows_failed_to() {
        let mut shown = String::new();
        for (family, error) in every() {
            writeln!(shown, "{family}: {}", report(&*error)).unwrap();
        }
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn a_main_that_returns_an_error_prints_the_report() {
        let launch = || {
            let cause = LaunchCause::from(WorkspaceError::NotADirectory { path: "/home/me/file".into() });
            Error::from(LaunchError::new(Step::BuildImages, cause))
        };
        let text = "failed to build the images: pack the workspace `/home/me/file`: it is not a directory";
        assert_eq!(format!("Error: {:?}", launch()), format!("Error: {text}"));
        assert_eq!(report(&launch()).to_string(), text);
        // Passed on as another type of error, it is still the report.
        let boxed: Box<dyn StdError + Send + Sync> = Box::new(launch());
        assert_eq!(format!("{boxed:?}"), text);
        let fields = format!("{:#?}", launch());
        assert!(fields.starts_with("Launch(\n    LaunchError {\n        step: BuildImages,"), "{fields}");
    }

    #[test]
    fn an_error_of_a_plan_is_passed_on_and_printed_as_a_report() {
        fn plan(text: &str) -> crate::Result<()> {
            let facts = HostFacts { home: "/home/me".into(), cwd: "/src".into(), user: UserIds { uid: 7, gid: 7 } };
            Manifest::parse(text)?.plan(PlanRequest::new(&facts, [0; 5]))?;
            Ok(())
        }
        let agent = "{bottle: dev, command: [id]}";
        let error = plan(&format!("bottles: {{dev: {{}}}}\nagents: {{one: {agent}, two: {agent}}}")).unwrap_err();
        let text = "failed to choose an agent: the manifest does not have exactly one; accepted: `one`, `two`";
        assert_eq!(format!("{error:?}"), text);
    }

    #[test]
    fn an_error_chain_repeats_no_text() {
        let mut all = every();
        all.extend(of_a_cluster());
        #[cfg(feature = "deploy-keys")]
        all.extend(of_a_forge());
        #[cfg(feature = "token-sources")]
        all.extend(of_a_token_source());
        for (family, error) in all {
            let mut said: Vec<String> = Vec::new();
            let mut next: Option<&dyn StdError> = Some(&*error);
            while let Some(error) = next {
                let text = error.to_string();
                assert!(said.iter().all(|earlier| !earlier.contains(&text)), "{family}: {said:?} say `{text}` already");
                said.push(text);
                next = error.source();
            }
        }
    }
}
