//! Bottles on a Kubernetes cluster. `cargo xtask e2e --kubernetes` starts one.

mod git;
mod node;
mod registry;
mod scale;
mod work;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bottle::compose::Sidecar;
use bottle::exec::engine::Exec;
use bottle::supervise::{ApplyStatus, Review, Scope, Verdict};
use bottle_kube::{Delivery, KubeBottle, KubeError, KubeOptions, KubeSupervisor, render};
use bottle_testing::lab::cluster::Cluster;
use bottle_testing::lab::{FORBIDDEN, Finished, Lab, OUTSIDE, figure};
use bottle_testing::plans;
use serde_json::{Value, json};

const ROUTE: &str = "\
env: {E2E_KEY: {placeholder: true}}
egress:
  routes:
    - {host: outside.test, inject: {token: E2E_API_KEY, scheme: header}}";

fn sh(bottle: &KubeBottle, script: &str) -> Finished {
    let exec = Exec::new(["sh", "-c", script]).with_timeout(Duration::from_secs(60));
    let output = bottle.exec(exec).unwrap_or_else(|error| panic!("{error}"));
    Finished {
        code: output.status.as_shell_code(),
        stdout: output.stdout.text(),
        stderr: output.stderr.text(),
        duration: output.duration,
    }
}

fn launched(result: Result<KubeBottle, KubeError>) -> KubeBottle {
    result.unwrap_or_else(|error| panic!("{}", bottle::exec::chain(&error)))
}

/// Launches a bottle with a route and returns it with the token that egress injects.
fn launch(cluster: &Cluster, lab: &Lab, agent: &str) -> (KubeBottle, String) {
    let token = format!("sk-REAL-{}", lab.slug);
    let plan = lab.plan_on_cluster(&lab.slug, &format!("{ROUTE}\n{agent}"), "");
    let inputs = Lab::inputs_on_cluster(&plan, &[("E2E_API_KEY", &token)]);
    (launched(cluster.bottles(lab).launch(plan, &inputs)), token)
}

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn an_agent_on_a_cluster_reaches_its_route_and_holds_no_token() {
    let cluster = Cluster::find();
    let lab = Lab::new("kube");
    let (bottle, token) = launch(&cluster, &lab, "");

    assert_eq!(sh(&bottle, "cat README.md").ok(), "a workspace", "the workspace was copied");
    assert_eq!(sh(&bottle, "id -un; exit 3").code, 3);
    let answer = sh(&bottle, &format!("curl -fsS 'https://{OUTSIDE}/echo?by=kube'"));
    answer.ok();
    let seen: Vec<_> = lab.outside.events().into_iter().filter(|event| event.to_string().contains("by=kube")).collect();
    assert!(!seen.is_empty() && seen.iter().all(|event| event.to_string().contains(&token)), "{seen:?}");
    assert!(!answer.stdout.contains(&token), "the host's echo holds it");
    let refused = sh(&bottle, "curl -sS -o /dev/null -w '%{http_code}' http://forbidden.test/");
    assert_eq!(refused.stdout, "403", "{refused:?}");

    // Nothing of the cluster's API knows the token, and nothing that the agent can read.
    let objects =
        cluster.run(&["get", "all,configmaps,secrets", "--namespace", bottle.namespace(), "--output", "yaml"]);
    assert!(objects.ok().contains("kind: Pod") && !objects.stdout.contains(&token));
    let own = sh(
        &bottle,
        "cat /proc/[0-9]*/environ /run/bottle/* 2>/dev/null; env; find / -xdev -name '*TOKEN*' 2>/dev/null",
    );
    assert!(!own.stdout.contains(&token) && own.stdout.contains("E2E_KEY=placeholder"), "{own:?}");

    let found = bottle.verify().unwrap();
    assert!(found.holds(), "{found}");
    figure(format_args!(
        "verification of a running bottle: {} probes in {} ms",
        found.probes.len(),
        found.took.as_millis()
    ));
    close(&cluster, &lab.slug, bottle);
}

/// Closes a bottle and asserts that nothing of it is left.
fn close(cluster: &Cluster, slug: &str, bottle: KubeBottle) {
    let started = Instant::now();
    let namespace = bottle.namespace().to_owned();
    bottle.close().unwrap();
    figure(format_args!("teardown: {:.1} s", started.elapsed().as_secs_f64()));
    assert_eq!(cluster.namespaces(slug), "");
    let pods =
        cluster.run(&["get", "pods,services,networkpolicies,leases", "--namespace", &namespace, "--output", "name"]);
    assert_eq!(pods.ok(), "");
}

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn commands_stream_copy_and_end_on_a_cluster() {
    let cluster = Cluster::find();
    let lab = Lab::new("kubecmd");
    let (bottle, _) = launch(&cluster, &lab, "");

    let mut live = bottle.spawn(Exec::new(["sh", "-c", "read line; echo got $line; exit 5"]), None).unwrap();
    let child = live.child();
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert_eq!((printed.as_str(), live.wait().unwrap().as_shell_code()), ("got hello\n", 5));
    drop(live);

    // What a command leaves behind ends with it.
    let sleeping =
        "for p in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$p; echo; done 2>/dev/null | grep -c '^sleep 30[01]'";
    let mut live = bottle.spawn(Exec::new(["sh", "-c", "sleep 300 & setsid sleep 301 & echo up; wait"]), None).unwrap();
    BufReader::new(live.child().stdout.take().unwrap()).read_line(&mut printed).unwrap();
    assert_eq!(sh(&bottle, sleeping).stdout.trim(), "2");
    live.kill().unwrap();
    drop(live);
    assert_eq!(sh(&bottle, sleeping).stdout.trim(), "0");
    let overdue = bottle.exec(Exec::new(["sleep", "300"]).with_timeout(Duration::from_secs(2)));
    assert!(overdue.is_err());
    let empty = bottle.exec(Exec::default()).unwrap_err().to_string();
    assert!(empty.ends_with("a command is empty; accepted: a program and its arguments"), "{empty}");
    assert_eq!(sh(&bottle, sleeping).stdout.trim(), "0");

    sh(&bottle, "mkdir -p d && head -c 3000000 /dev/urandom >d/data && sha256sum <d/data >sum").ok();
    let tar = bottle.copy_out("/workspace/d").unwrap();
    assert!(tar.len() > 3_000_000);
    bottle.copy_in("/tmp", bottle::exec::Stdin::Bytes(tar)).unwrap();
    sh(&bottle, "sha256sum </tmp/d/data | cmp - sum").ok();
    // The agent's own processes cannot end the container.
    sh(&bottle, "kill -9 -1 2>/dev/null; true");
    assert_eq!(sh(&bottle, "echo still here").ok(), "still here");
    close(&cluster, &lab.slug, bottle);
}

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn the_api_server_accepts_every_topology() {
    let cluster = Cluster::find();
    let sidecars = bottle::sidecars::all();
    let sidecars: Vec<&dyn Sidecar> = sidecars.iter().map(|sidecar| &**sidecar).collect();
    let mut checked = 0;
    for (name, plan) in plans::topologies() {
        let manifests = render(&plan, &sidecars, &KubeOptions::default(), Delivery::HandOver).unwrap();
        let address = |number: usize| IpAddr::from([10, 43, 201, u8::try_from(number).unwrap() + 1]);
        let addresses: BTreeMap<String, IpAddr> =
            manifests.services().enumerate().map(|(number, name)| (name.to_owned(), address(number))).collect();
        let objects = manifests.with_addresses(&addresses).unwrap();
        // What is in a namespace is only checked if the namespace exists. Pod Security warns, and refuses, by its labels.
        cluster.kubectl.apply(&objects[..1]).unwrap();
        cluster.kubectl.check(&objects).unwrap_or_else(|error| panic!("{name}: {}", bottle::exec::chain(&error)));
        checked += objects.len();
    }
    cluster.kubectl.delete(["namespace", "claude-bottle-demo-1"], true).unwrap();
    figure(format_args!("{checked} objects of {} topologies accepted", plans::topologies().len()));
}

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn a_cluster_that_enforces_no_policies_is_refused() {
    let cluster = Cluster::find();
    let lab = Lab::new("kubeoff");
    if cluster.ask(&["policies", "off"]).is_none() {
        bottle_testing::lab::not_run("needs a cluster whose policies can be switched off");
    }
    let plan = lab.plan_on_cluster(&lab.slug, "", "");
    let inputs = Lab::inputs_on_cluster(&plan, &[]);
    let result = cluster.bottles(&lab).launch(plan, &inputs);
    assert!(cluster.ask(&["policies", "on"]).is_some());
    let error = result.map(|bottle| bottle.namespace().to_owned()).unwrap_err();
    assert!(matches!(error, KubeError::NotEnforced { .. }), "{}", bottle::exec::chain(&error));
    assert_eq!(cluster.namespaces(&lab.slug), "", "a refused launch leaves nothing");
}

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn an_agent_in_gvisor_on_a_cluster_is_sealed_as_well() {
    let cluster = Cluster::find();
    if cluster.run(&["get", "runtimeclass", "gvisor"]).code != 0 {
        bottle_testing::lab::not_run("needs the runtime class gvisor");
    }
    let lab = Lab::new("kubegv");
    let (bottle, token) = launch(&cluster, &lab, "runtime: runsc");
    assert!(sh(&bottle, "cat /proc/version").ok().contains("4.4.0"), "the kernel is gVisor's");
    let answer = sh(&bottle, &format!("curl -fsS 'https://{OUTSIDE}/echo?by=gvisor'"));
    answer.ok();
    assert!(
        lab.outside
            .events()
            .iter()
            .any(|event| event.to_string().contains("by=gvisor") && event.to_string().contains(&token))
    );
    let found = bottle.verify().unwrap();
    assert!(found.holds(), "{found}");
    close(&cluster, &lab.slug, bottle);
}

/// The attacks that the network alone has to stop, from the agent's own container, where its user runs what it likes.
#[test]
#[ignore = "needs a Kubernetes cluster"]
fn no_packet_of_the_agent_leaves_but_to_its_proxy() {
    let cluster = Cluster::find();
    let lab = Lab::new("kubeatt");
    let (bottle, _) = launch(&cluster, &lab, "");
    let api = cluster.run(&["get", "service", "kubernetes", "--output", "jsonpath={.spec.clusterIP}"]).ok().to_owned();
    let dns = cluster
        .run(&["get", "service", "kube-dns", "-n", "kube-system", "--output", "jsonpath={.spec.clusterIP}"])
        .ok()
        .to_owned();
    let outside = lab.link();
    let reach =
        |host: &str, port: u16| sh(&bottle, &format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{host}/{port}'")).code;
    assert_eq!(reach("egress", 9099), 0, "the way that is open");
    for (host, port) in [(api.as_str(), 443), (dns.as_str(), 53), (&outside.to_string(), 443), ("egress", 20009)] {
        assert_ne!(reach(host, port), 0, "{host}:{port}");
    }
    // Names do not resolve, by the resolver or by the cluster's server asked directly.
    assert_ne!(sh(&bottle, "getent hosts example.com").code, 0);
    let udp = format!(
        "printf 'x' >/dev/udp/{outside}/53; curl -sS --max-time 3 --noproxy '*' http://{outside}/ -o /dev/null"
    );
    assert_ne!(sh(&bottle, &format!("bash -c \"{udp}\"")).code, 0);
    assert_eq!(lab.outside.events().iter().filter(|event| event.to_string().contains("\"udp\"")).count(), 0);
    // No token for the API server, no privilege, no root.
    assert_ne!(sh(&bottle, "ls /var/run/secrets/kubernetes.io").code, 0);
    assert_eq!(sh(&bottle, "grep -E 'CapEff|CapBnd' /proc/self/status | tr -d '0\\t\\n'").ok(), "CapEff:CapBnd:");
    assert_ne!(sh(&bottle, "touch /etc/hosts").code, 0, "the hosts file cannot be changed");
    close(&cluster, &lab.slug, bottle);
}

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn twenty_bottles_start_at_once() {
    const COUNT: usize = 20;
    let cluster = Cluster::find();
    let lab = Lab::new("kube20");
    let bottles = cluster.bottles(&lab).with_time_limit(Duration::from_secs(600));
    // Its images are loaded before the time is measured.
    let ready = |number: usize| {
        let plan = lab.plan_on_cluster(&format!("{}-{number}", lab.slug), "workspace: {mode: none}", "");
        let inputs = Lab::inputs_on_cluster(&plan, &[]);
        (plan, inputs)
    };
    let launch = |(plan, inputs)| {
        let started = Instant::now();
        (launched(bottles.launch(plan, &inputs)), started.elapsed())
    };
    let (first, alone) = launch(ready(0));
    drop(first);
    // Each plan writes the lab's authority to the same file.
    let plans: Vec<_> = (1..=COUNT).map(ready).collect();
    let started = Instant::now();
    let mut all: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = plans.into_iter().map(|plan| scope.spawn(|| launch(plan))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let took = started.elapsed();
    all.sort_by_key(|(_, time)| *time);
    let median = all[COUNT / 2].1;
    figure(format_args!(
        "launch to hand-out with images present: {:.1} s alone; {COUNT} at once: {:.1} s in all, median {:.1} s",
        alone.as_secs_f64(),
        took.as_secs_f64(),
        median.as_secs_f64()
    ));
    for (bottle, _) in &all {
        assert_eq!(sh(bottle, "echo here").ok(), "here");
        assert!(bottle.verify().unwrap().holds());
    }
    let started = Instant::now();
    std::thread::scope(|scope| {
        for (bottle, _) in all {
            scope.spawn(move || bottle.close().unwrap());
        }
    });
    figure(format_args!("teardown of {COUNT}: {:.1} s", started.elapsed().as_secs_f64()));
    assert!(!cluster.run(&["get", "namespaces", "--output", "name"]).ok().contains(&lab.slug));
}

/// Waits for the only proposal that waits.
fn proposed(supervisor: &KubeSupervisor) -> Review {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let pending = supervisor.pending().unwrap();
        if let [review] = pending.as_slice() {
            return review.clone();
        }
        assert!(pending.is_empty() && Instant::now() < until, "{pending:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Calls a tool of supervise from the agent's container and returns its answer.
fn call(bottle: &KubeBottle, tool: &str, arguments: &Value) -> Value {
    let request =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}});
    let script = "curl -sS --max-time 120 --data-binary @- -H 'Content-Type: application/json' \
        -H 'Accept: application/json, text/event-stream' -H 'MCP-Protocol-Version: 2025-06-18' http://supervise:9100/mcp";
    let exec = Exec::new(["sh", "-c", script]).with_stdin(bottle::exec::Stdin::Bytes(request.to_string().into_bytes()));
    let output = bottle.exec(exec.with_timeout(Duration::from_secs(150))).unwrap();
    let text = output.stdout_text();
    let json = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&text);
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn an_approval_takes_effect_in_the_running_bottle_on_a_cluster() {
    let cluster = Cluster::find();
    let lab = Lab::new("kubesup");
    let bottles = cluster.bottles_with(&lab, [OUTSIDE, FORBIDDEN]);
    let token = format!("sk-REAL-{}", lab.slug);
    let plan = lab.plan_on_cluster(&lab.slug, &format!("supervise: {{wait: 50s}}\n{ROUTE}"), "");
    let inputs = Lab::inputs_on_cluster(&plan, &[("E2E_API_KEY", &token)]);
    let bottle = launched(bottles.launch(plan, &inputs));
    // Another process decides.
    let attached = bottles.attach(&lab.slug.parse().unwrap()).unwrap();
    let supervisor = attached.supervise().unwrap();
    let status =
        |host: &str| sh(&bottle, &format!("curl -sS -o /dev/null -w '%{{http_code}}' https://{host}/echo")).stdout;
    let posture = || sh(&bottle, "cat /etc/bottle/current-config/posture.txt").ok().to_owned();
    assert!(posture().contains(OUTSIDE) && !posture().contains(FORBIDDEN), "{}", posture());
    assert_eq!((status(OUTSIDE).as_str(), status(FORBIDDEN).as_str()), ("200", "403"));

    let ask = |arguments: &Value, decide: &dyn Fn(&Review)| {
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| call(&bottle, "propose_allow_host", arguments));
            decide(&proposed(&supervisor));
            asked.join().unwrap().to_string()
        })
    };
    let told = ask(&json!({"host": FORBIDDEN, "reason": "the test needs it"}), &|review| {
        assert!(review.to_string().contains("+ opens forbidden.test"), "{review}");
        let started = Instant::now();
        let decision = supervisor.approve(review, Scope::Always, "go on").unwrap();
        figure(format_args!("an approval on a cluster: {:.1} s", started.elapsed().as_secs_f64()));
        let applied = decision.applied.as_ref().unwrap();
        assert_eq!((decision.verdict, applied.status), (Verdict::Approved, ApplyStatus::Live), "{applied:?}");
    });
    assert!(told.contains("approved") && told.contains("go on"), "{told}");
    assert_eq!((status(OUTSIDE).as_str(), status(FORBIDDEN).as_str()), ("200", "200"));
    assert!(posture().contains(FORBIDDEN));
    let allowed = supervisor.plan().unwrap().proxy.allow;
    assert!(allowed.iter().any(|host| host.to_string() == FORBIDDEN), "{allowed:?}");

    let told = ask(&json!({"host": "other.example.com", "reason": "x"}), &|review| {
        supervisor.deny(review, "not today").unwrap();
        let again = supervisor.approve(review, Scope::Always, "").unwrap_err();
        assert!(bottle::exec::chain(&again).contains("decided already"), "{}", bottle::exec::chain(&again));
    });
    assert!(told.contains("denied") && told.contains("not today"), "{told}");
    let verified = supervisor.verify().unwrap();
    assert!(verified.decisions.head.seq >= 3, "{verified:?}");

    // The agent writes neither a decision nor a plan, and the protections hold with the new containers.
    assert_ne!(sh(&bottle, "touch /etc/bottle/current-config/posture.txt").code, 0);
    assert_eq!(sh(&bottle, "ls /state /queue /decisions 2>/dev/null").stdout, "");
    assert!(bottle.verify().unwrap().holds());
    close(&cluster, &lab.slug, bottle);
}

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn a_directory_that_kubectl_applies_is_a_bottle() {
    let cluster = Cluster::find();
    let lab = Lab::new("kubedir");
    let bottles = cluster.bottles(&lab);
    let token = format!("sk-REAL-{}", lab.slug);
    let plan = lab.plan_on_cluster(&lab.slug, &format!("workspace: {{mode: none}}\n{ROUTE}"), "");
    let inputs = Lab::inputs_on_cluster(&plan, &[("E2E_API_KEY", &token)]);
    let files = bottles.directory(plan, &inputs, "10.43.202.0/28".parse().unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (name, file) in &files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, file.content.expose()).unwrap();
    }
    let namespace = format!("claude-bottle-{}", lab.slug);
    let started = Instant::now();
    let applied = cluster.run(&["apply", "-k", dir.path().to_str().unwrap()]);
    let wait = ["wait", "--for=condition=Ready", "pods", "--all", "--timeout=120s", "--namespace", &namespace];
    let ready = cluster.run(&wait);
    let took = started.elapsed();
    let agent = |script: &str| {
        cluster.run(&["exec", "--namespace", &namespace, "agent", "--container", "main", "--", "sh", "-c", script])
    };
    let answer = agent(&format!("curl -fsS 'https://{OUTSIDE}/echo?by=directory'; env"));
    let refused = agent("curl -sS -o /dev/null -w '%{http_code}' http://forbidden.test/");
    let direct = agent(&format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{}/443'", lab.link()));
    let state = cluster.run(&["get", "pods", "--namespace", &namespace, "--output", "wide"]);
    let log = cluster.run(&["logs", "--namespace", &namespace, "egress", "--container", "main", "--tail", "20"]);
    cluster.kubectl.delete(["namespace", &namespace], true).unwrap();
    assert_eq!((applied.code, ready.code), (0, 0), "{applied:?} {ready:?} {state:?} {log:?}");
    assert!(answer.ok().contains("E2E_KEY=placeholder") && !answer.stdout.contains(&token), "{answer:?}");
    let seen = lab.outside.events();
    let seen: Vec<_> = seen.iter().filter(|event| event.to_string().contains("by=directory")).collect();
    assert!(!seen.is_empty() && seen.iter().all(|event| event.to_string().contains(&token)), "{seen:?}");
    assert_eq!(refused.stdout, "403", "{refused:?}");
    assert_ne!(direct.code, 0, "{direct:?}");
    figure(format_args!("kubectl apply -k to ready: {:.1} s", took.as_secs_f64()));
}
