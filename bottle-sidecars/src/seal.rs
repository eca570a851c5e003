//! The seal: firewall rules in the agent's network namespace that allow only its endpoints, the open ports of its
//! sidecars.
//!
//! The internal network has no route to the outside and no address of the host. Without the seal, two ways would
//! remain. First, a socket that is bound to the interface (`SO_BINDTODEVICE`, which needs no privilege since Linux 5.7)
//! needs no route. Its datagrams reach the host's UDP services, such as a name server. Second, if the bottle has
//! egress, pipelock is also on the agent's network, so the agent could bypass egress and the rules of its routes. A
//! short-lived container in the agent's network namespace closes both, before any command of the agent runs.

use std::collections::BTreeSet;

use bottle_compose::Sidecar;
use bottle_plan::ResolvedPlan;

use crate::BuildContext;
use crate::context::embedded;

/// The build context of its image.
pub const CONTEXT: BuildContext =
    BuildContext { name: "seal", files: embedded!("seal": ["Dockerfile"], programs: ["seal"]) };

/// Returns the program's arguments, one for each open port of the sidecars that apply.
///
/// An argument is `<service>:<port>`, or `<service>:<port>:<connections>` if the number of connections is bounded. A
/// service without an open port is given by its name alone. If several sidecars are a proxy, the agent uses the last,
/// and the ports of the others stay closed.
///
/// A sidecar that the engine restarts gets the lowest free address of the network. After two restarts at once that may
/// be the other sidecar's old address. The program therefore opens each port at the address of every service in its
/// arguments. A service whose own closed port is an open port of another service is left out.
pub fn doors(plan: &ResolvedPlan, sidecars: &[&dyn Sidecar]) -> Vec<String> {
    let applying = sidecars.iter().filter(|sidecar| sidecar.applies(plan.plan()));
    let access: Vec<_> = applying.map(|sidecar| (sidecar.name(), sidecar.agent_access(plan))).collect();
    let proxy = access.iter().rposition(|(_, access)| access.proxy.is_some());
    let is_open = |place: usize| access[place].1.proxy.is_none() || Some(place) == proxy;
    let (open, shut): (Vec<_>, Vec<_>) = (0..access.len()).partition(|place| is_open(*place));
    let ports: BTreeSet<u16> = open.iter().flat_map(|place| access[*place].1.ports.clone()).collect();
    let doors = open.into_iter().flat_map(|place| {
        let (name, access) = &access[place];
        let limit = access.max_connections.map(|limit| format!(":{limit}")).unwrap_or_default();
        access.ports.iter().map(move |port| format!("{name}:{port}{limit}"))
    });
    let doors: Vec<String> = doors.collect();
    let shut = shut.into_iter().map(|place| &access[place]);
    let shut = shut.filter(|(_, access)| access.ports.iter().all(|port| !ports.contains(port)));
    doors.into_iter().chain(shut.map(|(name, _)| (*name).to_owned())).collect()
}
