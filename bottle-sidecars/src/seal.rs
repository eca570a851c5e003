//! The seal: rules in the agent's network namespace that leave it the doors of its sidecars and nothing else.
//!
//! The internal network has no route out and no address of the host. Two ways would remain. A socket that is bound to the
//! interface (`SO_BINDTODEVICE`, which needs no privilege since Linux 5.7) needs no route: its datagrams arrive at the
//! host's UDP services, a name server among them. And where egress stands before pipelock, both are on the agent's
//! network, so that the agent could go past egress and its routes' rules. A container that runs for a moment in the
//! agent's network namespace, before any command of the agent, closes both.

use bottle_compose::Sidecar;
use bottle_plan::ResolvedPlan;

use crate::BuildContext;
use crate::context::embedded;

/// The build context of its image.
pub const CONTEXT: BuildContext =
    BuildContext { name: "seal", files: embedded!("seal": ["Dockerfile"], programs: ["seal"]) };

/// The doors of the sidecars that apply, as the program takes them: `<service>:<port>`.
///
/// Of several sidecars that are a proxy, the agent's is the last; the others' doors stay shut.
pub fn doors(plan: &ResolvedPlan, sidecars: &[&dyn Sidecar]) -> Vec<String> {
    let applying = sidecars.iter().filter(|sidecar| sidecar.applies(plan.plan()));
    let access: Vec<_> = applying.map(|sidecar| (sidecar.name(), sidecar.agent_access(plan))).collect();
    let proxy = access.iter().rposition(|(_, access)| access.proxy.is_some());
    let open = access.iter().enumerate().filter(|(place, (_, access))| access.proxy.is_none() || Some(*place) == proxy);
    open.flat_map(|(_, (name, access))| access.ports.iter().map(move |port| format!("{name}:{port}"))).collect()
}
