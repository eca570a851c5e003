//! The launch: twelve steps from a plan to a running bottle. Each is recorded before it creates anything.

mod certificates;
mod context;
mod deploy_keys;
mod files;
mod images;
mod networks;
mod preflight;
mod start;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bottle_compose::sidecar::{CREDENTIALS, RESTART_ONCE_UP};
use bottle_compose::{ComposeFile, render};
use bottle_engine::ComposeProject;
use bottle_exec::step;
use bottle_plan::resolved::{AgentFacts, PipelockFacts};
use bottle_plan::{BottlePlan, LaunchFacts, ResolvedPlan, Service, StateLayout};
use bottle_provision::AgentContainer;
use bottle_sidecars::agent;
use bottle_verify::{Expected, Prepared, Verify, VerifyError};

pub use crate::launch_error::{LaunchCause, LaunchError, Step};

use context::{Launch, both, in_step};

use crate::Bottles;
use crate::lifecycle::{
    Bottle, BottleLock, Handle, Journal, JournalFile, Owner, Renewal, Restart, TeardownGuard, Undo,
};
use crate::power::renewals;

impl Bottles {
    /// Launches a bottle and returns its handle. The bottle is taken down when the handle is closed or dropped.
    ///
    /// Problems with the plan (a token that is not set, a missing key file, a protection that the engine lacks) are
    /// found first, before anything is created. A later failure removes everything that was created.
    ///
    /// # Errors
    ///
    /// [`LaunchError`]: the step, the cause, and what could not be removed.
    pub fn launch(&self, plan: BottlePlan) -> Result<Bottle, LaunchError> {
        let state = self.state_root.bottle(plan.names.slug());
        let is_ours = Arc::new(AtomicBool::new(false));
        self.with_event_file(plan.names.slug(), &state, Arc::clone(&is_ours)).launch_in(plan, state, &is_ours)
    }

    /// `is_ours` is set once the state directory is.
    fn launch_in(&self, plan: BottlePlan, state: StateLayout, is_ours: &AtomicBool) -> Result<Bottle, LaunchError> {
        let (ready, guard, owner) = in_step(self, Step::Prepare, || {
            let ready = preflight::check(&plan, self)?;
            let (guard, owner) = open(&plan, &state, self)?;
            is_ours.store(true, Ordering::Release);
            Ok((ready, guard, owner))
        })?;
        let root_id = crate::lifecycle::root_id_on(&self.engine, &self.state_root);
        let launching = Launch { plan, bottles: self, state, ready, owner, root_id, guard: &guard };
        match launching.run() {
            Ok((handle, renewals)) => {
                let bottle = Bottle::launched(self.engine.clone(), guard, handle);
                let bottle = bottle.map_err(|error| LaunchError::new(Step::HandOut, error.into()))?;
                bottle.renew(renewals, &self.observer);
                if self.hands_over {
                    bottle.watch_limits();
                }
                let options = self.start_options(bottle.slug());
                Ok(bottle.with_start(options))
            }
            Err(error) => Err(error.with_teardown(guard.close())),
        }
    }
}

/// Takes the slug's lock and creates the journal. From here on there is something to undo.
fn open(plan: &BottlePlan, state: &StateLayout, bottles: &Bottles) -> Result<(TeardownGuard, Owner), LaunchCause> {
    let owner = Owner::of_process(std::process::id());
    let lock = BottleLock::acquire(state, plan.names.slug(), &owner)?;
    let created = time::OffsetDateTime::from(SystemTime::now()).format(&time::format_description::well_known::Rfc3339);
    let journal = Journal::new(&plan.names, plan.agent_name.clone(), owner.clone(), &bottles.engine.info().program)
        .with_created(created.unwrap_or_default());
    let file = Arc::new(JournalFile::create(state, journal)?);
    let guard = TeardownGuard::new(bottles.engine.clone(), file, lock, bottles.teardown_options());
    // Files that hold a key are removed last.
    guard.record(Undo::RemoveFiles { paths: Undo::key_dirs() })?;
    Ok((guard, owner))
}

impl Launch<'_> {
    fn run(&self) -> Result<(Handle, Vec<Renewal>), LaunchError> {
        let valid_until = SystemTime::now().checked_add(self.plan.tls.lifetime.duration());
        let ((_in_use, images), (networks, authorities)) = both(
            // Until the containers exist, only this lock says that their images are in use.
            || self.step(Step::BuildImages, || Ok((images::share(self)?, images::build(self)?))),
            || {
                let networks = self.step(Step::CreateNetworks, || networks::create(self))?;
                let authorities = self.step(Step::MintCertificates, || certificates::mint(self))?;
                self.step(Step::WriteConfiguration, || files::write_configuration(self, networks.internal_cidr))?;
                Ok((networks, authorities))
            },
        )?;
        #[cfg(feature = "deploy-keys")]
        if deploy_keys::wanted(&self.plan).next().is_some() {
            self.step(Step::RegisterKeys, || deploy_keys::register(self))?;
        }
        let resolved = self.step(Step::Resolve, || {
            let image_of = |service| images.sidecars.get(&service);
            let launch = LaunchFacts {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                owner: self.owner.to_string(),
                state: self.root_id.clone(),
                engine: self.ready.engine,
                networks: networks.clone(),
                agent: AgentFacts {
                    image: images.agent.clone(),
                    env_file: self.ready.inputs.env_file.clone(),
                    volumes: images.agent_volumes.clone(),
                    workspace_mounts: images.workspace_mounts.clone(),
                },
                pipelock: PipelockFacts {
                    config: self.state.pipelock_config(),
                    ca_cert: authorities.pipelock.certificate.clone(),
                    ca_key: authorities.pipelock.key.clone(),
                },
                seal: images.seal.clone(),
                egress: image_of(Service::Egress).and_then(|image| authorities.egress_facts(self, image)),
                git_gate: image_of(Service::GitGate)
                    .and_then(|image| bottle_sidecars::git_gate_facts(&self.plan, &self.state, image)),
                supervise: image_of(Service::Supervise)
                    .and_then(|image| bottle_sidecars::supervise_facts(&self.plan, &self.state, image)),
                upstream_ca: self.plan.tls.upstream_ca.is_some().then(|| bottle_sidecars::upstream_ca(&self.state)),
                waits: !self.bottles.hands_over,
                stored: (!self.engine().info().capabilities().local_files).then(|| self.state.clone()),
            };
            Ok(self.plan.clone().resolve(launch)?)
        })?;
        let document = self.step(Step::WriteCompose, || self.write_compose(&resolved))?;
        let project = ComposeProject::new(document.name.clone(), self.state.dir(), self.state.compose_file());
        let trusted = authorities.egress.as_ref().unwrap_or(&authorities.pipelock);
        let agent = AgentContainer::new(self.engine(), &resolved, &trusted.certificate);
        let provision = || self.step(Step::Provision, || Ok(self.bottles.provisioner.provision(&agent)?));
        let is_late = self.bottles.provisioner.needs_services();
        let expected = self.expected(&document).map_err(|error| LaunchError::new(Step::Verify, error.into()))?;
        let prepared = Mutex::new(None);
        // While sidecars are still starting. Without it, the verification takes longer and reports the error.
        let prepare = || {
            let waiting = Prepared::start(self.engine(), &expected, self.bottles.verify);
            *prepared.lock().unwrap_or_else(PoisonError::into_inner) = waiting;
            Ok(())
        };
        let provide = || if is_late { Ok(()) } else { provision() };
        let images = step(&*self.bottles.observer, Step::Up.as_str(), || {
            start::start(self, &project, &document, || both(prepare, provide).map(drop))
        })?;
        if is_late {
            provision()?;
        }
        let prepared = prepared.into_inner().unwrap_or_else(PoisonError::into_inner);
        both(
            || match self.bottles.verify {
                Verify::Off => Ok(()),
                _ => self.step(Step::Verify, || self.verify(&expected, prepared)),
            },
            || {
                // From now on the engine restarts a sidecar however often it dies.
                let sidecars = document.restarted();
                if sidecars.is_empty() {
                    return Ok(());
                }
                let set = self.engine().set_restart_policy(sidecars, RESTART_ONCE_UP);
                set.map_err(|error| LaunchError::new(Step::HandOut, error.into()))
            },
        )?;
        self.step(Step::HandOut, || {
            let restart = Restart {
                order: start::order(&document),
                credentials: document.credentials.clone(),
                directory: CREDENTIALS.to_owned(),
                store: start::content(&document),
                valid_until,
            };
            let inputs = &self.ready.inputs;
            let renewals =
                if self.bottles.hands_over { renewals(inputs, &self.bottles.host, &restart) } else { Vec::new() };
            let ids = images.iter().map(|(service, image)| (service.as_str(), image.id.as_str()));
            let expected = expected.with_image_ids(ids);
            self.guard.file().change(|journal| journal.images = images)?;
            Ok((Handle { restart: Some(restart), ..bottle_provision::handle(&resolved, expected) }, renewals))
        })
    }

    fn write_compose(&self, plan: &ResolvedPlan) -> Result<ComposeFile, LaunchCause> {
        let sidecars: Vec<_> = self.bottles.sidecars.iter().map(|sidecar| &**sidecar).collect();
        let document = render(plan, &sidecars)?;
        let document = match plan.launch().networks.internal_subnet {
            Some(subnet) => document.with_addresses(subnet),
            None => document,
        };
        let document = match self.engine().info().seccomp_profile.as_deref() {
            Some(profile) => document.with_seccomp(&files::write_seccomp(self, profile)?),
            None => document,
        };
        files::write(&self.state.compose_file(), document.to_yaml().as_bytes(), 0o644)?;
        Ok(document)
    }

    fn expected(&self, document: &ComposeFile) -> Result<Expected, VerifyError> {
        let expected = Expected::of(document, agent::USER).ok_or(VerifyError::Unknown)?;
        let expected = expected.with_compose_file(&self.state.compose_file());
        let expected = if document.stored.is_empty() { expected.with_files(self.state.dir()) } else { expected };
        Ok(if self.engine().is_podman() { expected.with_podman(document) } else { expected })
    }

    /// Attacks the bottle. Every credential of a sidecar is searched for in what the agent can read.
    fn verify(&self, expected: &Expected, prepared: Option<Prepared>) -> Result<(), LaunchCause> {
        let secrets: Vec<&str> = self.ready.inputs.credentials.iter().map(|(_, value)| value.expose()).collect();
        let found = bottle_verify::verify_prepared(self.engine(), expected, self.bottles.verify, &secrets, prepared)?;
        Ok(found.into_result().map(drop)?)
    }
}
