//! The seal's service, which owns the agent's network namespace.

use bottle_plan::{ResolvedPlan, Service as Name};

use crate::document::{Attachment, Condition, Dependency, Service};
use crate::sidecar::{
    AgentAccess, INTERNAL, NO_NEW_PRIVILEGES, STOP_GRACE, bounded_logging, closed_dns, closed_dns_search, health_check,
    labels, local_image, no_ipv6,
};

/// Memory limit of the seal in bytes: 16 MiB. Its process needs 0.5 MiB; a health check runs `nft`, which needs 5 MiB.
const MEMORY: u64 = 16 << 20;
/// Maximum number of processes: the seal, a health check, and a command of a person who looks at the rules.
const PIDS: u32 = 16;

/// Returns the seal's service, given each sidecar's name and the access that the agent has to it.
///
/// The internal network has no route to the outside and no address of the host. Two ways out would remain. A socket that
/// is bound to the interface (`SO_BINDTODEVICE`, which needs no privilege since Linux 5.7) needs no route: its datagrams
/// arrive at the host's UDP services, such as a name server. And where egress is in front of pipelock, both are on the
/// agent's network, so that the agent could bypass egress and the rules of its routes.
///
/// The seal closes both before the agent's container is started. It holds the namespace, so that the rules outlive the
/// agent's container. If the seal itself ends, the agent is left with the loopback interface only.
pub(crate) fn seal_service(plan: &ResolvedPlan, access: &[(&str, &AgentAccess)]) -> Service {
    Service {
        container_name: plan.plan().names.container(Name::Seal),
        command: endpoints(access),
        // The engine gives a capability to root alone. This root has `NET_ADMIN`, and no file that it could write.
        user: Some("0:0".into()),
        networks: vec![(INTERNAL.into(), Attachment::default())],
        dns: closed_dns(),
        dns_search: closed_dns_search(),
        sysctls: no_ipv6(),
        read_only: true,
        cap_add: vec!["NET_ADMIN".into()],
        cap_drop: vec!["ALL".into()],
        security_opt: vec![NO_NEW_PRIVILEGES.into()],
        pids_limit: Some(PIDS),
        mem_limit: Some(MEMORY),
        memswap_limit: Some(MEMORY),
        stop_grace_period: Some(STOP_GRACE.into()),
        healthcheck: Some(health_check(plan, &["/seal", "check"])),
        // It resolves their names, which the engine knows once they have started.
        depends_on: access
            .iter()
            .map(|(name, _)| ((*name).to_owned(), Dependency { condition: Condition::ServiceStarted }))
            .collect(),
        logging: Some(bounded_logging()),
        labels: labels(plan),
        ..local_image(&plan.launch().seal)
    }
}

/// Returns the arguments of the seal's program, one for each port that the agent may reach.
///
/// An argument is `<service>:<port>`, or `<service>:<port>:<connections>` if the number of connections is limited. A
/// service without an open port is given by its name alone.
///
/// [`ComposeFile::with_addresses`](crate::ComposeFile::with_addresses) replaces the names if the subnet is known. Otherwise,
/// a sidecar that the engine restarts gets the lowest free address of the network. After two restarts at once that may
/// be the other sidecar's old address. The program therefore opens each port at the address of every service in its
/// arguments. The renderer refuses an open port that is also a closed proxy's.
fn endpoints(access: &[Access<'_>]) -> Vec<String> {
    let (open, closed) = open_and_closed(access);
    let open = open.into_iter().flat_map(|(name, access)| {
        let limit = access.max_connections.map(|limit| format!(":{limit}")).unwrap_or_default();
        access.ports.iter().map(move |port| format!("{name}:{port}{limit}"))
    });
    open.chain(closed.into_iter().map(|(name, _)| name.to_owned())).collect()
}

/// A sidecar's name and the agent's access to it.
type Access<'a> = (&'a str, &'a AgentAccess);

/// Splits the sidecars into those that the agent may reach, and the proxies whose ports stay closed. If several sidecars
/// are a proxy, the agent uses the last.
pub(crate) fn open_and_closed<'a>(access: &[Access<'a>]) -> (Vec<Access<'a>>, Vec<Access<'a>>) {
    let proxy = access.iter().rposition(|(_, access)| access.proxy.is_some());
    let is_open = |place: usize| access[place].1.proxy.is_none() || Some(place) == proxy;
    let (open, closed): (Vec<_>, Vec<_>) = (0..access.len()).partition(|place| is_open(*place));
    let named = |places: Vec<usize>| places.into_iter().map(|place| access[place]).collect();
    (named(open), named(closed))
}
