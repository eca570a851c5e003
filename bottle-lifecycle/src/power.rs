//! Stopping a bottle and starting it again, with its seal before its agent.

use std::sync::PoisonError;
use std::time::{Instant, SystemTime};

use bottle_engine::{ContainerState, EngineError, Filter, PROJECT_LABEL};
use bottle_exec::step;
use bottle_files::FileLock;
use bottle_plan::SecretValue;
use bottle_verify::{Expected, Verify};

use crate::bottle::{Bottle, BottleError};
use crate::hand_over::hand_over;
use crate::health::{Activity, ServiceHealth};
use crate::journal::JournalError;
use crate::limits;
use crate::restart::{Fresh, Restart, StartOptions};

impl Bottle {
    /// Sets the options of [`start`](Bottle::start).
    #[must_use]
    pub fn with_start(mut self, options: StartOptions) -> Self {
        self.start = options;
        self
    }

    /// Stops every container. The bottle keeps its files, its networks and its journal, and its memory is free.
    /// [`start`](Bottle::start) brings it back. The agent's running commands end.
    ///
    /// A bottle that is stopped or paused can be stopped.
    ///
    /// # Errors
    ///
    /// Returns an error when a container cannot be stopped, or the bottle is being stopped or started already.
    pub fn stop(&self) -> Result<(), BottleError> {
        let _alone = self.alone()?;
        self.stop_containers()
    }

    /// Starts a bottle that was stopped, by [`stop`](Bottle::stop), by the end of the engine or of the machine: the sidecars
    /// and the seal first, which get their credentials again, and the agent once its seal is healthy. Then the bottle is
    /// attacked, as by a launch. Whatever still runs is stopped first. A bottle whose services are all up is left alone.
    ///
    /// Before the agent is started, nothing of its network namespace is left of earlier. If the start fails, the bottle is
    /// stopped again.
    ///
    /// # Errors
    ///
    /// [`BottleError::NotStarted`] when it is paused, a container was removed, the journal is lost, its certificate authorities
    /// have expired (`tls.lifetime` after the launch, by default seven days), or the bottle is being stopped or started already;
    /// [`BottleError::Credentials`] when a credential cannot be read, before anything is started; [`BottleError::Verify`] when
    /// a protection is missing.
    pub fn start(&self) -> Result<(), BottleError> {
        let restart = self.restart()?;
        let _alone = self.alone()?;
        let containers = self.own_containers()?;
        let is_there = |name: &String| containers.iter().any(|(known, _)| known == name);
        let mut wanted =
            restart.order.iter().map(|one| &one.container).chain(restart.store.iter().map(|it| &it.container));
        if let Some(missing) = wanted.find(|name| !is_there(name)) {
            return Err(self.not_started(&format!("the container `{missing}` was removed; launch the bottle again")));
        }
        let services = self.health()?;
        if services.iter().all(ServiceHealth::is_up) {
            return Ok(());
        }
        if Activity::of(&services) == Some(Activity::Paused) {
            return Err(self.not_started("it is paused; accepted: `resume`, or `stop` first"));
        }
        if restart.valid_until.is_some_and(|end| end <= SystemTime::now()) {
            return Err(self.not_started(
                "its certificate authorities have expired; launch the bottle again, with a longer `tls.lifetime` if it is \
                 to be stopped for that long",
            ));
        }
        let fresh = self.fresh(restart)?;
        self.stop_containers()?;
        if let Some(path) = self.handle.expected.as_ref().and_then(Expected::link_in_workspace) {
            let path = path.display();
            return Err(
                self.not_started(&format!("`{path}` was protected at the launch and is a link now; remove the link"))
            );
        }
        let started = step(&*self.observer(), "start the services again", || self.start_containers(restart, &fresh));
        if let Err(error) = started {
            // The error of the start is the one to report.
            drop(self.stop_containers());
            return Err(error);
        }
        self.set_sealed(Some(Instant::now()));
        if !fresh.renewals.is_empty() {
            self.renew(fresh.renewals, &self.observer());
        }
        Ok(())
    }

    /// Suspends every process of the agent. The sidecars keep running, so that the agent continues at once, with its
    /// connections and fresh credentials, after [`resume`](Bottle::resume). Commands cannot be run meanwhile.
    ///
    /// # Errors
    ///
    /// Returns an error when the agent's container does not run or is paused.
    pub fn pause(&self) -> Result<(), BottleError> {
        Ok(self.engine.pause(&self.handle.container)?)
    }

    /// Ends a [`pause`](Bottle::pause), and stops the commands that were dropped meanwhile.
    ///
    /// # Errors
    ///
    /// Returns an error when the agent's container is not paused, or a process of a dropped command survives. The agent then
    /// runs, and the next resume tries again.
    pub fn resume(&self) -> Result<(), BottleError> {
        self.engine.unpause(&self.handle.container)?;
        Ok(self.dropped().end_all()?)
    }

    /// Reads the credentials again and gives them to the sidecars, for a bottle that was launched without them
    /// (`Bottles::without_credentials` of the facade). Those that expire are renewed from then on.
    ///
    /// # Errors
    ///
    /// [`BottleError::Credentials`] when one cannot be read, [`BottleError::NotStarted`] when the handle has no source for
    /// them or the journal is lost, [`BottleError::HandOver`] when a sidecar did not get them.
    pub fn give_credentials(&self) -> Result<(), BottleError> {
        let restart = self.restart()?;
        let fresh = self.fresh(restart)?;
        hand_over(&self.engine, &restart.directory, &restart.credentials, &fresh.values)?;
        if !fresh.renewals.is_empty() {
            self.renew(fresh.renewals, &self.observer());
        }
        Ok(())
    }

    fn restart(&self) -> Result<&Restart, BottleError> {
        self.handle.restart.as_ref().ok_or_else(|| self.not_started("its journal is lost"))
    }

    /// Starts the stopped containers, gives the sidecars their credentials, and attacks the bottle.
    fn start_containers(&self, restart: &Restart, fresh: &Fresh) -> Result<(), BottleError> {
        let then = |container: &str| {
            let credentials = restart.credentials.iter().find(|(sidecar, _)| sidecar == container);
            credentials.map_or(Ok(()), |one| {
                let given = hand_over(&self.engine, &restart.directory, std::slice::from_ref(one), &fresh.values);
                given.map_err(BottleError::from)
            })
        };
        let project = self.names().project();
        if let Some(store) = &restart.store {
            store.start(&self.engine, &project, self.start.wait)?;
        }
        self.engine.start_all(&project, &restart.order, self.start.wait, then)?;
        limits::end_wait(&self.engine, &self.handle)?;
        if self.start.verify == Verify::Off {
            return Ok(());
        }
        let expected = self.handle.expected.as_ref().ok_or(bottle_verify::VerifyError::Unknown)?;
        let slots = restart.credentials.iter().flat_map(|(_, slots)| slots);
        let secrets: Vec<&str> = slots.filter_map(|slot| fresh.values.get(slot)).map(SecretValue::expose).collect();
        bottle_verify::verify(&self.engine, expected, self.start.verify, &secrets)?.into_result()?;
        Ok(())
    }

    /// Stops what runs, and checks that nothing does.
    fn stop_containers(&self) -> Result<(), BottleError> {
        self.set_sealed(None);
        self.stop_renewing();
        let running = || -> Result<Vec<(String, ContainerState)>, BottleError> {
            let mut containers = self.own_containers()?;
            containers.retain(|(_, state)| !matches!(state.status.as_str(), "created" | "exited" | "dead"));
            Ok(containers)
        };
        let containers = running()?;
        let stopped = self.engine.stop(containers.iter().map(|(name, _)| name.as_str()), self.grace());
        if let Some((name, state)) = running()?.first() {
            stopped?;
            let container = name.clone();
            return Err(
                EngineError::NotReady { container, state: format!("it {state} although it was stopped") }.into()
            );
        }
        self.dropped().forget();
        Ok(())
    }

    fn fresh(&self, restart: &Restart) -> Result<Fresh, BottleError> {
        if restart.credentials.iter().all(|(_, slots)| slots.is_empty()) {
            return Ok(Fresh::default());
        }
        let Some(source) = &self.start.credentials else {
            return Err(self.not_started("this handle has no source for the credentials of its sidecars"));
        };
        let slug = self.slug().clone();
        source.read(restart).map_err(|source| BottleError::Credentials { slug, source })
    }

    /// Returns the containers of this bottle, by name.
    fn own_containers(&self) -> Result<Vec<(String, ContainerState)>, BottleError> {
        let containers =
            self.engine.containers(&Filter::LabelValue(PROJECT_LABEL.to_owned(), self.names().project()))?;
        match self.foreign(containers.iter().map(|(_, state)| &state.labels)) {
            Some(foreign) => Err(BottleError::Foreign { slug: self.slug().clone(), foreign }),
            None => Ok(containers),
        }
    }

    /// Takes the lock that excludes another start or stop of this bottle. The file is there anyway.
    fn alone(&self) -> Result<FileLock, BottleError> {
        let path = self.state_dir().join("docker-compose.yml");
        let failed = |source| JournalError::Io { doing: "lock", path: path.clone(), source };
        let lock = FileLock::try_take(&path).map_err(failed)?;
        lock.ok_or_else(|| self.not_started("another process is stopping or starting it"))
    }

    fn not_started(&self, problem: &str) -> BottleError {
        BottleError::NotStarted { slug: self.slug().clone(), problem: problem.to_owned() }
    }

    fn set_sealed(&self, checked: Option<Instant>) {
        *self.sealed.lock().unwrap_or_else(PoisonError::into_inner) = checked;
    }
}
