//! A node whose kubelet and container runtime end.

use std::time::{Duration, Instant};

use bottle_testing::lab::cluster::Cluster;
use bottle_testing::lab::{FORBIDDEN, Lab, OUTSIDE, figure, not_run};

use super::{close, launch, sh};

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn a_bottle_survives_the_end_of_kubelet_and_runtime() {
    let cluster = Cluster::find();
    let lab = Lab::new("kubenode");
    let (bottle, token) = launch(&cluster, &lab, "");
    sh(&bottle, "echo kept >/workspace/kept; sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >/tmp/pid").ok();
    let restarts = || {
        let format = "jsonpath={range .items[*].status.containerStatuses[*]}{.restartCount} {end}";
        cluster.run(&["get", "pods", "--namespace", bottle.namespace(), "--output", format]).ok().to_owned()
    };
    let before = restarts();
    let started = Instant::now();
    if cluster.ask(&["node", "restart"]).is_none() {
        not_run("needs a cluster whose node can be restarted");
    }
    // The kubelet has to find the Pods again before it runs commands in them.
    let until = Instant::now() + Duration::from_secs(90);
    let runs = || bottle.exec(["cat", "/workspace/kept"]).is_ok_and(|output| output.stdout_text() == "kept\n");
    while !runs() {
        assert!(Instant::now() < until, "no command runs in the bottle");
        std::thread::sleep(Duration::from_millis(500));
    }
    figure(format_args!(
        "kubelet and runtime killed: commands run again after {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    sh(&bottle, "kill -0 $(cat /tmp/pid)").ok();
    sh(&bottle, &format!("curl -fsS 'https://{OUTSIDE}/echo?by=node'")).ok();
    let seen: Vec<_> = lab.outside.events().into_iter().filter(|event| event.to_string().contains("by=node")).collect();
    assert!(!seen.is_empty() && seen.iter().all(|event| event.to_string().contains(&token)), "{seen:?}");
    let refused = sh(&bottle, &format!("curl -sS -o /dev/null -w '%{{http_code}}' http://{FORBIDDEN}/"));
    assert_eq!(refused.stdout, "403", "{refused:?}");
    assert_eq!(restarts(), before, "a container was started again");
    let found = bottle.verify().unwrap();
    assert!(found.holds(), "{found}");
    close(&cluster, &lab.slug, bottle);
}
