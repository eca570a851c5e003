//! The networks, if the launcher owns them instead of Compose.

use bottle_engine::NewNetwork;
use bottle_plan::manifest::NetworkMode;
use bottle_plan::resolved::NetworkFacts;

use super::context::Launch;
use crate::launch_error::LaunchCause;
use crate::lifecycle::Undo;

pub(super) fn create(launch: &Launch<'_>) -> Result<NetworkFacts, LaunchCause> {
    let names = &launch.plan.names;
    let (internal, egress) = (names.internal_network(), names.egress_network());
    if launch.plan.networks.mode == NetworkMode::Compose {
        return Ok(NetworkFacts { internal, egress, internal_cidr: None });
    }
    let labels =
        names.labels(&launch.plan.agent_name, env!("CARGO_PKG_VERSION"), &launch.owner.to_string(), &launch.root_id);
    let wanted = [
        NewNetwork {
            name: internal.clone(),
            internal: true,
            labels: labels.clone(),
            driver_options: launch.ready.engine.host_gateway.driver_opts(),
            subnet: launch.plan.networks.internal_subnet.map(|subnet| subnet.to_string()),
        },
        NewNetwork {
            name: egress.clone(),
            labels,
            subnet: launch.plan.networks.egress_subnet.map(|subnet| subnet.to_string()),
            ..NewNetwork::default()
        },
    ];
    for network in &wanted {
        let removal = Undo::RemoveNetwork { name: network.name.clone() };
        launch.guard.record(removal.clone())?;
        launch.engine().create_network(network).or_else(|error| {
            // A network of somebody else that has the name stays. If nobody can tell, the first error is the one to report.
            let there = launch.engine().network(&network.name).ok().flatten();
            if there.is_some_and(|other| other.labels != network.labels) {
                launch.guard.file().mark_done(&removal)?;
            }
            Err(LaunchCause::from(error))
        })?;
    }
    let info = launch.engine().network(&internal)?;
    let subnets = info.map(|info| info.subnets).unwrap_or_default();
    let internal_cidr = subnets.iter().find_map(|subnet| subnet.parse().ok());
    Ok(NetworkFacts { internal, egress, internal_cidr })
}
