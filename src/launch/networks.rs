//! The networks. The launcher creates them, also those that belong to the Compose project, because it chooses their subnets.

use std::collections::BTreeMap;

use bottle_compose::sidecar::{EGRESS, INTERNAL};
use bottle_engine::{EngineError, NETWORK_LABEL, NewNetwork, PROJECT_LABEL};
use bottle_plan::digest::sha256;
use bottle_plan::manifest::NetworkMode;
use bottle_plan::resolved::NetworkFacts;
use bottle_plan::value::{Subnet, Subnets};

use super::context::{Launch, both};
use crate::launch_error::LaunchCause;
use crate::lifecycle::Undo;

/// Most refusals of the engine before the launch gives up. Each means that another process was faster.
const MOST_REFUSALS: usize = 64;

/// Addresses of a network that no sidecar has: its own, the gateway's, the broadcast address, the seal's and the outlet's.
const RESERVED: usize = 5;

pub(super) fn create(launch: &Launch<'_>) -> Result<NetworkFacts, LaunchCause> {
    let (names, wanted) = (&launch.plan.names, &launch.plan.networks);
    let (internal, egress) = (names.internal_network(), names.egress_network());
    let is_external = wanted.mode == NetworkMode::External;
    if is_external {
        launch.guard.record(Undo::RemoveNetwork { name: internal.clone() })?;
        launch.guard.record(Undo::RemoveNetwork { name: egress.clone() })?;
    } else {
        launch.guard.record(launch.compose_down())?;
    }
    let labels = |key: &str| {
        let own = names.labels(
            &launch.plan.agent_name,
            env!("CARGO_PKG_VERSION"),
            &launch.owner.to_string(),
            &launch.root_id,
        );
        let of_project = [(PROJECT_LABEL, names.project()), (NETWORK_LABEL, key.to_owned())];
        let of_project =
            of_project.into_iter().filter(|_| !is_external).map(|(label, value)| (label.to_owned(), value));
        own.into_iter().chain(of_project).collect::<BTreeMap<_, _>>()
    };
    let (internal_subnet, egress_subnet) = both(
        || {
            let network = NewNetwork {
                name: internal.clone(),
                internal: true,
                labels: labels(INTERNAL),
                driver_options: launch.ready.engine.host_gateway.driver_opts(),
                subnet: None,
            };
            create_one(launch, network, wanted.internal_subnet)
        },
        || {
            let network = NewNetwork {
                name: egress.clone(),
                labels: labels(EGRESS),
                driver_options: launch.ready.engine.host_gateway.egress_opts(),
                ..NewNetwork::default()
            };
            create_one(launch, network, wanted.egress_subnet)
        },
    )?;
    // Podman's containers find each other by their addresses.
    let internal_subnet = match internal_subnet {
        None if launch.engine().is_podman() => launch.engine().subnet_of(&internal)?.and_then(|net| net.parse().ok()),
        known => known,
    };
    let internal_cidr =
        if is_external { launch.engine().subnet_of(&internal)?.and_then(|subnet| subnet.parse().ok()) } else { None };
    Ok(NetworkFacts { internal, egress, internal_subnet, egress_subnet, internal_cidr })
}

/// Creates a network and returns the subnet that it asked for.
fn create_one(
    launch: &Launch<'_>,
    mut network: NewNetwork,
    wanted: Option<Subnet>,
) -> Result<Option<Subnet>, LaunchCause> {
    // This host's routes say nothing about those of the host of another engine, which the engine itself avoids.
    let is_elsewhere =
        !launch.engine().info().capabilities().local_files && launch.bottles.subnets == Subnets::default();
    let created = if wanted.is_some() || is_elsewhere || launch.bottles.subnets == Subnets::Engine {
        network.subnet = wanted.map(|subnet| subnet.to_string());
        launch.engine().create_network(&network).map(|()| wanted).map_err(LaunchCause::from)
    } else {
        create_in_pool(launch, &mut network).map(Some)
    };
    if created.is_err() && launch.plan.networks.mode == NetworkMode::External {
        // A network of somebody else that has the name stays. If nobody can tell, the first error is the one to report.
        let there = launch.engine().network(&network.name).ok().flatten();
        if there.is_some_and(|other| other.labels != network.labels) {
            launch.guard.file().mark_done(&Undo::RemoveNetwork { name: network.name })?;
        }
    }
    created
}

/// Creates a network in the first block of the pools that nothing uses.
///
/// The engine decides between processes: it refuses a network with addresses of another one, and the next block is tried. The
/// order of the blocks differs from bottle to bottle, so that launches at the same time rarely meet.
fn create_in_pool(launch: &Launch<'_>, network: &mut NewNetwork) -> Result<Subnet, LaunchCause> {
    let (engine, subnets) = (launch.engine(), &launch.bottles.subnets);
    let addresses = launch.bottles.sidecars.len() + RESERVED;
    let prefix_len = (8..=28).rev().find(|length| 1_usize << (32 - length) >= addresses).unwrap_or(8);
    let digest = sha256(format!("{} {}", launch.root_id, network.name));
    let key = u64::from_str_radix(&digest[..16], 16).unwrap_or_default();
    let networks = bottle_files::host_networks();
    let mut used: Vec<Subnet> = networks.iter().filter_map(|net| net.parse().ok()).collect();
    used.retain(|net| subnets.overlaps(*net));
    let mut refusals = 0;
    for block in subnets.blocks(prefix_len, key) {
        if used.iter().any(|net| net.overlaps(block)) {
            continue;
        }
        network.subnet = Some(block.to_string());
        match engine.create_network(network) {
            Err(EngineError::SubnetTaken { .. }) if refusals < MOST_REFUSALS => {
                refusals += 1;
                used.extend(engine.subnets()?.iter().filter_map(|subnet| subnet.parse::<Subnet>().ok()));
            }
            Err(error) => return Err(error.into()),
            Ok(()) => return Ok(block),
        }
    }
    Err(LaunchCause::NoSubnet { network: network.name.clone(), prefix_len, subnets: subnets.to_string() })
}
