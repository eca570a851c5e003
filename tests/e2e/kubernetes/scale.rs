//! Many bottles on a cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use bottle::compose::Sidecar;
use bottle_kube::{Delivery, KubeOptions, render};
use bottle_testing::lab::cluster::Cluster;
use bottle_testing::lab::figure;
use bottle_testing::plans;

/// Bottles with every sidecar, whose objects the API server checks.
const FULL: u8 = 60;

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn the_objects_of_sixty_full_bottles_are_accepted_together() {
    let cluster = Cluster::find();
    let sidecars = bottle::sidecars::all();
    let sidecars: Vec<&dyn Sidecar> = sidecars.iter().map(|sidecar| &**sidecar).collect();
    let (_, plan) =
        plans::topologies().into_iter().find(|(name, _)| name == "egress_git_gate_supervise__plain").unwrap();
    let started = Instant::now();
    let mut namespaces = Vec::new();
    let mut checked = 0;
    for number in 0..FULL {
        let slug = format!("full-{number}");
        let manifests = render(&plan, &sidecars, &KubeOptions::default(), Delivery::HandOver).unwrap();
        let address =
            |at: usize| IpAddr::from([10, 43, 210 + number / 32, number % 32 * 8 + u8::try_from(at).unwrap()]);
        let addresses: BTreeMap<String, IpAddr> =
            manifests.services().enumerate().map(|(at, name)| (name.to_owned(), address(at))).collect();
        let mut objects = manifests.with_addresses(&addresses).unwrap();
        let namespace = format!("claude-bottle-{slug}-{}", std::process::id());
        for object in &mut objects {
            if object.kind == "Namespace" {
                object.metadata.name.clone_from(&namespace);
            } else {
                object.metadata.namespace = Some(namespace.clone());
            }
        }
        // All but the Pods are created, with their addresses. The Pods would not fit; the API server checks each.
        let (base, pods): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| object.kind != "Pod");
        namespaces.push(namespace);
        let applied = cluster.kubectl.apply(&base).and_then(|()| cluster.kubectl.check(&pods));
        if let Err(error) = applied {
            remove(&cluster, &namespaces);
            panic!("bottle {number}: {}", bottle::exec::chain(&error));
        }
        checked += base.len() + pods.len();
    }
    let took = started.elapsed().as_secs_f64();
    figure(format_args!("{checked} objects of {FULL} full bottles accepted in {took:.1} s"));
    remove(&cluster, &namespaces);
}

fn remove(cluster: &Cluster, namespaces: &[String]) {
    cluster.kubectl.delete(["namespace"].into_iter().chain(namespaces.iter().map(String::as_str)), true).unwrap();
}
