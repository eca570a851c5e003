//! Many bottles on a cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bottle::compose::Sidecar;
use bottle::exec::engine::Exec;
use bottle_fleet::{Fleet, FleetReport};
use bottle_kube::{Delivery, KubeOptions, render};
use bottle_platform::Platform;
use bottle_testing::lab::cluster::Cluster;
use bottle_testing::lab::{Lab, figure, host};
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

/// Bottles of the fleet: by default as many as three times those that are alive at once.
#[expect(clippy::disallowed_methods, reason = "how xtask tells the tests what to run")]
fn jobs() -> usize {
    std::env::var("BOTTLE_E2E_FLEET").ok().and_then(|number| number.parse().ok()).unwrap_or(6)
}

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn a_fleet_runs_more_jobs_than_bottles_at_once_on_a_cluster() {
    let jobs = jobs();
    // Two Pods each, of which a node takes 110 by default.
    let alive = (jobs / 2).min(40);
    let cluster = Cluster::find();
    let lab = Lab::new("kubefleet");
    let bottles = cluster.bottles(&lab).with_time_limit(Duration::from_secs(600));
    let platform: &dyn Platform = &bottle_platform::Cluster::new(bottles, host());
    let job = |number: usize| lab.plan_on_cluster(&format!("{}-{number}", lab.slug), "workspace: {mode: none}", "");
    let list: Vec<_> = (0..jobs).map(job).collect();
    let fleet = Fleet::default().with_launches(if jobs > 6 { 4 } else { 2 }).with_alive(alive);
    let report = fleet.run(platform, &list, |plan, bottle| {
        let slug = plan.names.slug().as_str();
        let said = bottle.exec(Exec::new(["echo", slug])).unwrap();
        assert_eq!(said.stdout_text().trim_end(), slug);
    });
    figure(format_args!("{report}; {}", spread(&report)));
    assert_eq!(report.done(), jobs, "{report:?}");
    assert!(!cluster.run(&["get", "namespaces", "--output", "name"]).ok().contains(&lab.slug));
}

/// Returns the times of the launches, and when each tenth of the bottles was ready and gone.
fn spread<R, E>(report: &FleetReport<R, E>) -> String {
    let launches = report.launches();
    let tenths = |mut times: Vec<Duration>| {
        times.sort();
        let at = |tenth: usize| times.get((times.len() * tenth).div_ceil(10).max(1) - 1).map_or(0, Duration::as_secs);
        (1..=10).map(|tenth| at(tenth).to_string()).collect::<Vec<_>>().join(" ")
    };
    let seconds = |at: usize| launches.get(at).map_or(0.0, Duration::as_secs_f64);
    format!(
        "launch {:.1} s (median), {:.1} s (longest); each tenth ready after {} s, gone after {} s",
        seconds(launches.len() / 2),
        seconds(launches.len().saturating_sub(1)),
        tenths(report.jobs.iter().filter_map(|job| job.ready).collect()),
        tenths(report.jobs.iter().filter_map(|job| job.gone).collect()),
    )
}

fn remove(cluster: &Cluster, namespaces: &[String]) {
    cluster.kubectl.delete(["namespace"].into_iter().chain(namespaces.iter().map(String::as_str)), true).unwrap();
}
