//! Making running sidecars follow another plan.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use bottle_exec::engine::Exec;
use bottle_exec::{Engine, EngineError};
use bottle_plan::manifest::NetworkMode;
use bottle_plan::{BottlePlan, Service, StateLayout};
use bottle_sidecars::{egress, pipelock};
use ipnet::Ipv4Net;
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// How long a sidecar has to say that it took a file. Pipelock takes 0.2 s, egress less.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(25);

/// Why a sidecar does not follow.
#[derive(Debug, thiserror::Error)]
pub(super) enum LiveError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("write `{}`: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{service} keeps its old configuration: {why}")]
    Refused { service: Service, why: String },
    #[error("{service} did not say within {PATIENCE:?} that it took its new configuration")]
    Silent { service: Service },
}

/// A running bottle's sidecars.
pub(super) struct Live<'a> {
    pub(super) engine: &'a Engine,
    pub(super) layout: &'a StateLayout,
}

impl Live<'_> {
    /// Whether there is a pipelock that could follow. One that is paused is there: it would go on with what it knows.
    pub(super) fn is_running(&self, plan: &BottlePlan) -> Result<bool, LiveError> {
        let state = self.engine.container(&plan.names.container(Service::Pipelock))?;
        Ok(state.is_some_and(|state| !matches!(state.status.as_str(), "created" | "exited" | "dead")))
    }

    /// Gives the plan to sidecars that do not run, should they be started again. Where the bottle was taken down there is
    /// nothing to write.
    pub(super) fn leave_word(&self, plan: &BottlePlan) -> Result<(), LiveError> {
        let routes = plan.egress.as_ref().map(|egress| (self.layout.egress_routes(), egress::routes(egress)));
        let config = (self.layout.pipelock_config(), pipelock::config(plan, self.internal_cidr(plan)?));
        let is_there = |(path, _): &(PathBuf, String)| path.exists();
        routes.into_iter().chain([config]).filter(is_there).try_for_each(|(path, text)| rewrite(path, &text))
    }

    /// Makes pipelock and egress follow the plan. Connections that are open stay open. What is the same in the plan that
    /// they are known to follow is left alone.
    pub(super) fn follow(&self, plan: &BottlePlan, known: Option<&BottlePlan>) -> Result<(), LiveError> {
        let routes = |plan: &BottlePlan| plan.egress.as_ref().map(egress::routes);
        // Egress goes first: a new route's limits are there before pipelock lets its host through.
        if let Some(text) = routes(plan).filter(|text| known.and_then(routes).as_ref() != Some(text)) {
            self.reload_egress(plan, &text)?;
        }
        let cidr = self.internal_cidr(plan)?;
        let text = pipelock::config(plan, cidr);
        if known.is_none_or(|known| pipelock::config(known, cidr) != text) {
            self.reload_pipelock(plan, &text)?;
        }
        Ok(())
    }

    fn internal_cidr(&self, plan: &BottlePlan) -> Result<Option<Ipv4Net>, LiveError> {
        if plan.networks.mode == NetworkMode::Compose {
            return Ok(None);
        }
        let info = self.engine.network(&plan.names.internal_network())?;
        let subnets = info.map(|info| info.subnets).unwrap_or_default();
        Ok(subnets.iter().find_map(|subnet| subnet.parse().ok()))
    }

    fn reload_egress(&self, plan: &BottlePlan, text: &str) -> Result<(), LiveError> {
        #[derive(Deserialize)]
        struct Status {
            seen_sha256: Option<String>,
            error: Option<String>,
        }

        let service = Service::Egress;
        let container = plan.names.container(service);
        rewrite(self.layout.egress_routes(), text)?;
        self.engine.kill(&container, "HUP")?;
        let digest = Sha256::digest(text).iter().fold(String::new(), |mut hex, byte| {
            // Writing to a string does not fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        wait(service, || {
            let output = self.engine.exec(&container, &Exec::new(["cat", egress::STATUS]).with_timeout(PATIENCE))?;
            let status: Option<Status> = serde_json::from_str(&output.stdout.text()).ok();
            let seen = status.filter(|status| status.seen_sha256.as_deref() == Some(&digest));
            Ok(seen.map(|status| status.error.map_or(Ok(()), Err)))
        })
    }

    fn reload_pipelock(&self, plan: &BottlePlan, text: &str) -> Result<(), LiveError> {
        #[derive(Deserialize)]
        struct Line {
            event: String,
            status: String,
            #[serde(default)]
            detail: String,
        }

        let service = Service::Pipelock;
        let container = plan.names.container(service);
        rewrite(self.layout.pipelock_config(), text)?;
        let signalled = SystemTime::now();
        self.engine.kill(&container, "HUP")?;
        wait(service, || {
            let output = self.engine.logs_since(&container, signalled)?;
            let (stdout, stderr) = (output.stdout.text(), output.stderr.text());
            let lines = stdout.lines().chain(stderr.lines());
            let mut lines = lines.filter_map(|line| serde_json::from_str::<Line>(line).ok());
            let told = lines.find(|line| line.event == "config_reload");
            Ok(told.map(|line| if line.status == "success" { Ok(()) } else { Err(line.detail) }))
        })
    }
}

/// Asks until there is an answer, which is "taken" or why not.
fn wait(service: Service, ask: impl Fn() -> Result<Option<Result<(), String>>, LiveError>) -> Result<(), LiveError> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask()? {
            return answer.map_err(|why| LiveError::Refused { service, why });
        }
        if Instant::now() >= until {
            return Err(LiveError::Silent { service });
        }
        std::thread::sleep(PAUSE);
    }
}

fn rewrite(path: PathBuf, text: &str) -> Result<(), LiveError> {
    // Unless there is nothing to write, so that a file of another owner is no reason to fail.
    if fs::read(&path).is_ok_and(|content| content == text.as_bytes()) {
        return Ok(());
    }
    bottle_files::rewrite(&path, text.as_bytes()).map_err(|source| LiveError::Write { path, source })
}
