//! Application of a changed plan to the running proxies.
//!
//! Each proxy reads one file, which its container mounts alone, and reads it again at SIGHUP. The file is therefore
//! rewritten in place and never replaced. A proxy's answer is bound to the content by its SHA-256, so the answer to an
//! earlier signal is not taken for the answer to this one.

mod answer;

use std::io;
use std::time::{Duration, Instant};

use bottle_exec::chain;
use bottle_plan::{BottlePlan, Service};
use bottle_sidecars::{egress, pipelock};
use bottle_values::digest::sha256;

use answer::Answer;

use crate::proxies::{PATIENCE, Proxies, ProxyFailure};

/// Time after which an unanswered signal is sent again. Pipelock silently ignores a signal if it read the same content
/// within the last two seconds.
const REPEAT: Duration = Duration::from_millis(1500);
const PAUSE: Duration = Duration::from_millis(25);

/// Reason why a proxy does not run with a new configuration.
#[derive(Debug, thiserror::Error)]
pub(super) enum LiveError {
    #[error("the container of {service} cannot be controlled")]
    Platform { service: Service, source: ProxyFailure },
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
    pub(super) proxies: &'a dyn Proxies,
    /// Plan of the launch: a reload keeps every setting of pipelock except its allowlist.
    pub(super) launched: &'a BottlePlan,
}

/// Configuration of one proxy.
#[derive(Debug, PartialEq, Eq)]
struct Config {
    service: Service,
    text: String,
}

impl Live<'_> {
    /// Returns the reason why the proxies cannot reload now, or `None` if they run.
    pub(super) fn unavailable(&self, plan: &BottlePlan) -> Option<String> {
        let proxies = [Some(Service::Pipelock), plan.egress.as_ref().map(|_| Service::Egress)];
        proxies.into_iter().flatten().find_map(|service| match self.proxies.stopped(service) {
            Ok(state) => state.map(|state| LiveError::NotRunning { service, state }.to_string()),
            Err(error) => Some(format!("the state of {service} is unknown: {}", chain(&*error))),
        })
    }

    /// Writes the configuration for stopped proxies, which read it when their containers are started again. Does not
    /// recreate the files of a bottle that was taken down.
    pub(super) fn queue_for_next_start(&self, plan: &BottlePlan) -> Result<(), LiveError> {
        self.configs(plan)?.iter().try_for_each(|config| match self.write(config) {
            Err(LiveError::Write { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        })
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
                let done = self.reload(new);
                undo.push((old, done.as_ref().err().is_none_or(|error| !error.kept_old())));
                done.map_err(|error| chain(&error))?;
            }
            commit()
        };
        apply().map_err(|cause| {
            let restored = undo.iter().rev().map(
                |(old, must_reload)| {
                    if *must_reload { self.reload(old) } else { self.write(old) }
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
        self.configs(plan)?.iter().try_for_each(|config| self.reload(config))
    }

    /// Returns the configuration of each proxy. Egress comes first, so that the limits of a new route apply before
    /// pipelock allows its host.
    fn configs(&self, plan: &BottlePlan) -> Result<Vec<Config>, LiveError> {
        let routes = plan.egress.as_ref().map(|_| Config { service: Service::Egress, text: egress::routes(plan) });
        let subnet = self.proxies.internal_subnet();
        let subnet = subnet.map_err(|source| LiveError::Platform { service: Service::Pipelock, source })?;
        let pipelock = Config { service: Service::Pipelock, text: pipelock::live_config(self.launched, plan, subnet) };
        Ok(routes.into_iter().chain([pipelock]).collect())
    }

    fn write(&self, config: &Config) -> Result<(), LiveError> {
        let service = config.service;
        self.proxies.write(service, &config.text).map_err(|source| LiveError::Write { service, source })
    }

    /// Writes a file and waits until its proxy runs with it.
    fn reload(&self, config: &Config) -> Result<(), LiveError> {
        let service = config.service;
        let result = self.try_reload(config);
        match result {
            Err(LiveError::Platform { .. } | LiveError::Silent { .. }) => {
                let state = self.proxies.stopped(service).ok().flatten();
                state.map_or(result, |state| Err(LiveError::NotRunning { service, state }))
            }
            result => result,
        }
    }

    fn try_reload(&self, config: &Config) -> Result<(), LiveError> {
        let service = config.service;
        let platform = |source| LiveError::Platform { service, source };
        self.write(config)?;
        let sha256 = sha256(&config.text);
        let last_line = self.proxies.last_line(service).map_err(platform)?;
        let began = Instant::now();
        let mut next_signal = began;
        let mut replaced = false;
        loop {
            if Instant::now() >= next_signal {
                self.proxies.signal(service).map_err(platform)?;
                next_signal = Instant::now() + REPEAT;
            }
            match self.answer(service, last_line.as_deref(), &sha256).map_err(platform)? {
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

    fn answer(&self, service: Service, last_line: Option<&str>, sha256: &str) -> Result<Answer, ProxyFailure> {
        if service == Service::Egress {
            return Ok(answer::of_egress(&self.proxies.egress_status()?, sha256));
        }
        let [stdout, stderr] = self.proxies.log_since(service, last_line)?;
        Ok(answer::of_pipelock(&stdout, &stderr, last_line, sha256))
    }
}
