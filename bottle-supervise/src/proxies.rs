//! The seam between an approval and the proxies of a running bottle.

use std::error::Error;
use std::fmt::Debug;
use std::fs;
use std::io;
use std::time::Duration;

use bottle_engine::{Engine, Exec};
use bottle_plan::manifest::NetworkMode;
use bottle_plan::value::Subnet;
use bottle_plan::{BottlePlan, Service, StateLayout};
use bottle_sidecars::egress;

use crate::mirror::Mirror;

/// Time in which a proxy must answer. Both answer within 0.3 s on an idle machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Failure of what runs the proxies, such as an engine.
pub type ProxyFailure = Box<dyn Error + Send + Sync>;

/// The running proxies of one bottle: pipelock and, if the plan has it, egress. Each has one file, and reads it again at SIGHUP.
pub trait Proxies: Debug + Send + Sync {
    /// Returns the state of a proxy that does not run, such as `was removed`. `None`: it runs.
    ///
    /// # Errors
    ///
    /// Returns an error if the state is unknown.
    fn stopped(&self, proxy: Service) -> Result<Option<String>, ProxyFailure>;

    /// Rewrites the file of a proxy in place. A bound file that is replaced keeps its old content in the container.
    ///
    /// # Errors
    ///
    /// Returns [`NotFound`](io::ErrorKind::NotFound) if the bottle was taken down.
    fn write(&self, proxy: Service, text: &str) -> io::Result<()>;

    /// Sends SIGHUP to a proxy.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot be sent.
    fn signal(&self, proxy: Service) -> Result<(), ProxyFailure>;

    /// Returns the timestamp of the last line that a proxy printed. `None` if it printed nothing.
    ///
    /// # Errors
    ///
    /// Returns an error if the log cannot be read.
    fn last_line(&self, proxy: Service) -> Result<Option<String>, ProxyFailure>;

    /// Returns what a proxy printed since a timestamp: standard output and standard error, or both in each. Each line begins
    /// with its timestamp and a space.
    ///
    /// # Errors
    ///
    /// Returns an error if the log cannot be read.
    fn log_since(&self, proxy: Service, time: Option<&str>) -> Result<[String; 2], ProxyFailure>;

    /// Returns the content of [`egress::STATUS`] in the container of egress.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot be read.
    fn egress_status(&self) -> Result<String, ProxyFailure>;

    /// Returns the subnet of the bottle's internal network, if pipelock's configuration names it.
    ///
    /// # Errors
    ///
    /// Returns an error if the network cannot be looked up.
    fn internal_subnet(&self) -> Result<Option<Subnet>, ProxyFailure>;
}

/// The proxies of a bottle on a container engine. Their files are in the bottle's state directory.
#[derive(Debug)]
pub(super) struct EngineProxies {
    engine: Engine,
    layout: StateLayout,
    /// The plan of the launch, for the names.
    plan: BottlePlan,
    mirror: Option<Mirror>,
}

impl EngineProxies {
    pub(super) const fn new(engine: Engine, layout: StateLayout, plan: BottlePlan, mirror: Option<Mirror>) -> Self {
        Self { engine, layout, plan, mirror }
    }

    fn container(&self, proxy: Service) -> String {
        self.plan.names.container(proxy)
    }
}

impl Proxies for EngineProxies {
    fn stopped(&self, proxy: Service) -> Result<Option<String>, ProxyFailure> {
        Ok(match self.engine.container(&self.container(proxy))? {
            None => Some("was removed".to_owned()),
            Some(state) if state.status == "running" => None,
            Some(state) => Some(state.to_string()),
        })
    }

    fn write(&self, proxy: Service, text: &str) -> io::Result<()> {
        let path = match proxy {
            Service::Egress => self.layout.egress_routes(),
            _ => self.layout.pipelock_config(),
        };
        // A file that has this content already may belong to another user.
        match fs::read(&path) {
            Ok(content) if content == text.as_bytes() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
            _ => bottle_files::rewrite(&path, text.as_bytes())?,
        }
        self.mirror.as_ref().map_or(Ok(()), |mirror| mirror.send(&[&path]))
    }

    fn signal(&self, proxy: Service) -> Result<(), ProxyFailure> {
        Ok(self.engine.kill(&self.container(proxy), "HUP")?)
    }

    fn last_line(&self, proxy: Service) -> Result<Option<String>, ProxyFailure> {
        Ok(self.engine.last_log_time(&self.container(proxy))?)
    }

    fn log_since(&self, proxy: Service, time: Option<&str>) -> Result<[String; 2], ProxyFailure> {
        let output = self.engine.logs_since(&self.container(proxy), time)?;
        Ok([output.stdout.text(), output.stderr.text()])
    }

    fn egress_status(&self) -> Result<String, ProxyFailure> {
        let exec = Exec::new(["cat", egress::STATUS]).with_timeout(PATIENCE);
        Ok(self.engine.exec(&self.container(Service::Egress), &exec)?.stdout.text())
    }

    fn internal_subnet(&self) -> Result<Option<Subnet>, ProxyFailure> {
        if self.plan.networks.mode == NetworkMode::Compose {
            return Ok(None);
        }
        let subnets = self.engine.network(&self.plan.names.internal_network())?.map(|info| info.subnets);
        Ok(subnets.unwrap_or_default().iter().find_map(|subnet| subnet.parse().ok()))
    }
}
