//! Application of a changed plan to the running proxies.
//!
//! Each proxy reads one file, which its container mounts alone, and reads it again at SIGHUP. The file is therefore
//! rewritten in place and never replaced. A proxy's answer is bound to the content by its SHA-256, so the answer to an
//! earlier signal is not taken for the answer to this one.

mod answer;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bottle_engine::{ContainerState, Engine, EngineError, Exec};
use bottle_exec::chain;
use bottle_plan::manifest::NetworkMode;
use bottle_plan::value::Subnet;
use bottle_plan::{BottlePlan, Service, StateLayout};
use bottle_sidecars::{egress, pipelock};
use bottle_values::digest::sha256;

use answer::Answer;

/// Time in which a proxy must answer. Both answer within 0.3 s on an idle machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time after which an unanswered signal is sent again. Pipelock silently ignores a signal if it read the same content
/// within the last two seconds.
const REPEAT: Duration = Duration::from_millis(1500);
const PAUSE: Duration = Duration::from_millis(25);

/// Reason why a proxy does not run with a new configuration.
#[derive(Debug, thiserror::Error)]
pub(super) enum LiveError {
    #[error("the container of {service} cannot be controlled")]
    Engine { service: Service, source: EngineError },
    // Without the path: the agent reads this text, and the path belongs to the host.
    #[error("the configuration of {service} cannot be written")]
    Write { service: Service, source: io::Error },
    #[error("{service} rejected the new configuration: {reason}")]
    Rejected { service: Service, reason: String },
    #[error("{service} is not running: it {state}")]
    NotRunning { service: Service, state: String },
    #[error("{service} did not confirm its new configuration within {} s", PATIENCE.as_secs())]
    Silent { service: Service },
    #[error(
        "{service} read other content than what was written: its file was replaced instead of rewritten in place, and its \
         container must be restarted"
    )]
    Replaced { service: Service },
}

impl LiveError {
    /// Returns true if the proxy certainly still runs with its old configuration, or does not run at all.
    const fn kept_old(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::Rejected { .. } | Self::NotRunning { .. })
    }
}

/// Failure to apply a change.
#[derive(Debug)]
pub(super) struct Failure {
    /// Reason why the change was not applied.
    pub(super) cause: String,
    /// Reason why the old configuration could not be restored. Absent: the bottle is unchanged.
    pub(super) restore: Option<LiveError>,
}

/// Proxies of one bottle.
pub(super) struct Live<'a> {
    pub(super) engine: &'a Engine,
    /// Plan of the launch: a reload keeps every setting of pipelock except its allowlist.
    pub(super) launched: &'a BottlePlan,
    pub(super) layout: &'a StateLayout,
}

/// Configuration of one proxy.
#[derive(Debug, PartialEq, Eq)]
struct Config {
    service: Service,
    path: PathBuf,
    text: String,
}

impl Live<'_> {
    /// Returns the reason why the proxies cannot reload now, or `None` if they run.
    pub(super) fn unavailable(&self, plan: &BottlePlan) -> Option<String> {
        let proxies = [Some(Service::Pipelock), plan.egress.as_ref().map(|_| Service::Egress)];
        proxies.into_iter().flatten().find_map(|service| match self.engine.container(&plan.names.container(service)) {
            Ok(state) => not_running(service, state.as_ref()).map(|error| error.to_string()),
            Err(error) => Some(format!("the state of {service} is unknown: {}", chain(&error))),
        })
    }

    /// Writes the configuration for stopped proxies, which read it when their containers are started again. Does not
    /// recreate the files of a bottle that was taken down.
    pub(super) fn queue_for_next_start(&self, plan: &BottlePlan) -> Result<(), LiveError> {
        let configs = self.configs(plan)?;
        configs.iter().filter(|config| config.path.exists()).try_for_each(Config::write)
    }

    /// Makes the proxies run with `to` instead of `from`, then runs `commit`. Open connections stay open. If a step fails,
    /// every earlier step is undone.
    pub(super) fn apply(
        &self,
        from: &BottlePlan,
        to: &BottlePlan,
        commit: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), Failure> {
        let failed = |error: LiveError| Failure { cause: chain(&error), restore: None };
        let (old, new) = (self.configs(from).map_err(failed)?, self.configs(to).map_err(failed)?);
        // The old files of the proxies that were touched, and whether their proxies must read them again.
        let mut undo = Vec::new();
        let apply = || {
            for (new, old) in new.iter().zip(&old).filter(|(new, old)| new != old) {
                let done = self.reload(to, new);
                undo.push((old, done.as_ref().err().is_none_or(|error| !error.kept_old())));
                done.map_err(|error| chain(&error))?;
            }
            commit()
        };
        apply().map_err(|cause| {
            let restored = undo.iter().rev().map(
                |(old, must_reload)| {
                    if *must_reload { self.reload(from, old) } else { old.write() }
                },
            );
            // Every file is restored, even if restoring another one fails.
            Failure {
                cause,
                restore: restored.filter_map(Result::err).fold(None, |first, error| first.or(Some(error))),
            }
        })
    }

    /// Makes the proxies run with a plan, whatever they run with now.
    pub(super) fn restore(&self, plan: &BottlePlan) -> Result<(), LiveError> {
        self.configs(plan)?.iter().try_for_each(|config| self.reload(plan, config))
    }

    /// Returns the configuration of each proxy. Egress comes first, so that the limits of a new route apply before
    /// pipelock allows its host.
    fn configs(&self, plan: &BottlePlan) -> Result<Vec<Config>, LiveError> {
        let routes = plan.egress.as_ref().map(|_| Config {
            service: Service::Egress,
            path: self.layout.egress_routes(),
            text: egress::routes(plan),
        });
        let pipelock = Config {
            service: Service::Pipelock,
            path: self.layout.pipelock_config(),
            text: pipelock::live_config(self.launched, plan, self.internal_cidr(plan)?),
        };
        Ok(routes.into_iter().chain([pipelock]).collect())
    }

    fn internal_cidr(&self, plan: &BottlePlan) -> Result<Option<Subnet>, LiveError> {
        if plan.networks.mode == NetworkMode::Compose {
            return Ok(None);
        }
        let engine = |source| LiveError::Engine { service: Service::Pipelock, source };
        let info = self.engine.network(&plan.names.internal_network()).map_err(engine)?;
        let subnets = info.map(|info| info.subnets).unwrap_or_default();
        Ok(subnets.iter().find_map(|subnet| subnet.parse().ok()))
    }

    /// Writes a file and waits until its proxy runs with it.
    fn reload(&self, plan: &BottlePlan, config: &Config) -> Result<(), LiveError> {
        let service = config.service;
        let container = plan.names.container(service);
        let result = self.try_reload(&container, config);
        match result {
            Err(LiveError::Engine { .. } | LiveError::Silent { .. }) => {
                let state = self.engine.container(&container);
                let gone = state.ok().and_then(|state| not_running(service, state.as_ref()));
                gone.map_or(result, Err)
            }
            result => result,
        }
    }

    fn try_reload(&self, container: &str, config: &Config) -> Result<(), LiveError> {
        let service = config.service;
        let engine = |source| LiveError::Engine { service, source };
        config.write()?;
        let sha256 = sha256(&config.text);
        let last_line = self.engine.last_log_time(container).map_err(engine)?;
        let began = Instant::now();
        let mut next_signal = began;
        let mut replaced = false;
        loop {
            if Instant::now() >= next_signal {
                self.engine.kill(container, "HUP").map_err(engine)?;
                next_signal = Instant::now() + REPEAT;
            }
            let answer = self.answer(service, container, last_line.as_deref(), &sha256).map_err(engine)?;
            match answer {
                Answer::Taken => return Ok(()),
                Answer::Rejected(reason) => return Err(LiveError::Rejected { service, reason }),
                Answer::OtherContent => replaced = true,
                Answer::None => {}
            }
            if began.elapsed() >= PATIENCE {
                return Err(if replaced { LiveError::Replaced { service } } else { LiveError::Silent { service } });
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn answer(
        &self,
        service: Service,
        container: &str,
        last_line: Option<&str>,
        sha256: &str,
    ) -> Result<Answer, EngineError> {
        if service == Service::Egress {
            let exec = Exec::new(["cat", egress::STATUS]).with_timeout(PATIENCE);
            let output = self.engine.exec(container, &exec)?;
            return Ok(answer::of_egress(&output.stdout.text(), sha256));
        }
        let output = self.engine.logs_since(container, last_line)?;
        let (stdout, stderr) = (output.stdout.text(), output.stderr.text());
        Ok(answer::of_pipelock(&stdout, &stderr, last_line, sha256))
    }
}

impl Config {
    fn write(&self) -> Result<(), LiveError> {
        // A file that has this content already may belong to another user.
        if fs::read(&self.path).is_ok_and(|content| content == self.text.as_bytes()) {
            return Ok(());
        }
        let failed = |source| LiveError::Write { service: self.service, source };
        bottle_files::rewrite(&self.path, self.text.as_bytes()).map_err(failed)
    }
}

fn not_running(service: Service, state: Option<&ContainerState>) -> Option<LiveError> {
    let state = match state {
        None => "was removed".to_owned(),
        Some(state) if state.status == "running" => return None,
        Some(state) => state.to_string(),
    };
    Some(LiveError::NotRunning { service, state })
}
