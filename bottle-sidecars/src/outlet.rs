//! The outlet: owner of pipelock's network namespace, and of the firewall rules there.
//!
//! Pipelock 2.3.0 has no rule for ports. It connects to any port of an allowed host, and its URL scanner does not see the
//! port of a CONNECT. The rules are therefore the kernel's: TCP connections leave the namespace only to the ports that the
//! plan allows for some host. No spelling of a request gets around them, and neither does a redirect or another endpoint of
//! pipelock. Where the ports differ from host to host, egress is in front of pipelock and judges each host.
//!
//! The outlet holds the namespace, so that a restarted pipelock is in the same one. If the outlet itself ends, pipelock is
//! left with the loopback interface only.

use bottle_compose::Sidecar;
use bottle_compose::document::Service;
use bottle_compose::sidecar::{Image, Reach, health_check, sidecar_service};
use bottle_plan::{BottlePlan, ResolvedPlan, Service as Name};

use crate::pipelock;

/// Memory limit in bytes: 16 MiB. Its process needs 0.5 MiB; a health check runs `nft`, which needs 5 MiB.
const MEMORY: u64 = 16 << 20;
/// Maximum number of processes: its own, a health check, and a command of a person who looks at the rules.
const PIDS: u32 = 16;

/// The owner of pipelock's network namespace. It runs the program of the [seal](crate::seal) in its other mode.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outlet;

impl Sidecar for Outlet {
    fn name(&self) -> &str {
        Name::Outlet.as_str()
    }

    fn applies(&self, _: &BottlePlan) -> bool {
        true
    }

    fn service(&self, plan: &ResolvedPlan) -> Service {
        let bottle = plan.plan();
        let image = Image::Local(&plan.launch().seal);
        let mut service = sidecar_service(plan, Name::Outlet, image, Reach::Both, None);
        // Pipelock has no network of its own, so these are the names under which it is reached.
        if let Some((_, internal)) = service.networks.first_mut() {
            internal.aliases = vec![bottle.names.container(Name::Pipelock), Name::Pipelock.to_string()];
        }
        service.command = vec!["outlet".into(), format!("{}:{}", bottle.user.uid, pipelock::PORT)];
        service.command.extend(bottle.outlet_ports().iter().map(ToString::to_string));
        // The engine gives a capability to root alone. This root has `NET_ADMIN`, and no file that it could write.
        service.user = Some("0:0".into());
        service.cap_add = vec!["NET_ADMIN".into()];
        service.init = false;
        service.restart = None;
        service.pids_limit = Some(PIDS);
        (service.mem_limit, service.memswap_limit) = (Some(MEMORY), Some(MEMORY));
        service.healthcheck = Some(health_check(plan, &["/seal", "check"]));
        service
    }
}
