//! The agent's work that comes back from a bottle on a cluster, its ports, and its limits.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use bottle::exec::engine::Exec;
use bottle_testing::lab::cluster::Cluster;
use bottle_testing::lab::{Lab, OUTSIDE, figure, run};

use super::{ROUTE, close, launch, launched, sh};

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn changes_patch_export_and_commits_come_back_from_a_cluster() {
    let cluster = Cluster::find();
    let lab = Lab::new("kubework");
    let (bottle, _) = launch(&cluster, &lab, "");
    assert!(bottle.changes().unwrap().files.is_empty());
    sh(&bottle, "echo changed >>README.md; mkdir d; echo new >d/new; ln -s /etc/passwd link").ok();
    sh(&bottle, "git init -q -b main . && git add d && git -c user.name=A -c user.email=a@bottle.test commit -qm 'In the bottle'").ok();

    let changes = bottle.changes().unwrap();
    let mut paths: Vec<_> = changes.files.iter().map(|change| change.path.display().to_string()).collect();
    paths.sort();
    assert_eq!(paths, ["README.md", "d/new", "link"]);

    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    std::fs::write(copy.join("README.md"), "a workspace\n").unwrap();
    let patch = dir.path().join("work.patch");
    std::fs::write(&patch, bottle.patch().unwrap()).unwrap();
    run(Command::new("git").current_dir(&copy).arg("apply").arg(&patch)).ok();
    assert_eq!(std::fs::read_to_string(copy.join("README.md")).unwrap(), "a workspace\nchanged\n");
    assert_eq!(std::fs::read_to_string(copy.join("d/new")).unwrap(), "new\n");

    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    bottle.export(&out).unwrap();
    assert_eq!(std::fs::read_to_string(out.join("d/new")).unwrap(), "new\n");
    assert!(!out.join("link").exists() && !out.join("link").is_symlink(), "a link of the agent was created");

    let repository = dir.path().join("repository");
    run(Command::new("git").args(["init", "-q"]).arg(&repository)).ok();
    let fetched = bottle.fetch_into(&repository, "refs/bottle/demo").unwrap();
    assert_eq!(fetched.iter().map(|branch| branch.name.as_str()).collect::<Vec<_>>(), ["refs/bottle/demo/main"]);
    let log = run(Command::new("git").arg("-C").arg(&repository).args(["log", "--format=%s", "refs/bottle/demo/main"]));
    assert_eq!(log.ok(), "In the bottle");

    // A handle of another process has nothing to compare with.
    let attached = cluster.bottles(&lab).attach(&lab.slug.parse().unwrap()).unwrap();
    assert!(bottle::exec::chain(&attached.changes().unwrap_err()).contains("only the process that copied it"));
    close(&cluster, &lab.slug, bottle);
}

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn a_port_of_an_agent_on_a_cluster_is_open_on_this_host_alone() {
    let cluster = Cluster::find();
    let lab = Lab::new("kubeport");
    let (bottle, _) = launch(&cluster, &lab, "");
    let server = "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 3000, Listen => 50, ReuseAddr => 1) or die; \
        $| = 1; print qq(up\\n); while (my $c = $s->accept) { my $l = <$c>; print $c qq(agent: $l); close $c }";
    let mut live = bottle.spawn(Exec::new(["perl", "-e", server]), None).unwrap();
    let mut up = [0; 3];
    live.child().stdout.as_mut().unwrap().read_exact(&mut up).unwrap();

    let forward = bottle.forward(3000).unwrap();
    assert!(forward.local_addr().ip().is_loopback());
    let ask = |text: &str| {
        let mut socket = TcpStream::connect(forward.local_addr()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        writeln!(socket, "{text}").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    };
    assert_eq!(ask("hello"), "agent: hello\n");
    let started = Instant::now();
    std::thread::scope(|scope| {
        let ask = &ask;
        let asked: Vec<_> =
            (0..20).map(|number: u32| (number, scope.spawn(move || ask(&number.to_string())))).collect();
        for (number, answer) in asked {
            assert_eq!(answer.join().unwrap(), format!("agent: {number}\n"));
        }
    });
    figure(format_args!("a connection of a forward on a cluster: {:.0} ms", started.elapsed().as_secs_f64() * 50.0));
    // The program takes no part of the agent's: neither its processes nor a listener.
    assert_eq!(
        sh(&bottle, "for p in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$p; echo; done | grep -c '^/forward'")
            .stdout
            .trim(),
        "0"
    );
    let address = forward.local_addr();
    drop(forward);
    assert!(TcpStream::connect(address).is_err());
    assert!(bottle.verify().unwrap().holds());
    live.kill().unwrap();
    drop(live);
    close(&cluster, &lab.slug, bottle);
}

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn limits_of_requests_and_time_hold_on_a_cluster() {
    let cluster = Cluster::find();
    let lab = Lab::new("kubelim");
    let limits = format!("workspace: {{mode: none}}\nlimits: {{requests: 4, time: 60s}}\n{ROUTE}");
    let plan = lab.plan_on_cluster(&lab.slug, &limits, "");
    let inputs = Lab::inputs_on_cluster(&plan, &[("E2E_API_KEY", "sk-REAL-limited")]);
    let started = Instant::now();
    let bottle = launched(cluster.bottles(&lab).launch(plan, &inputs));
    let ask = || sh(&bottle, &format!("curl -sS -w ' %{{http_code}}' https://{OUTSIDE}/echo")).stdout;
    // The verification of the launch takes one.
    for number in 0..3 {
        let answer = ask();
        assert!(answer.ends_with("200"), "request {number}: {answer}");
    }
    let refused = ask();
    assert!(refused.ends_with("403") && refused.contains("limit"), "{refused}");
    let until = started + Duration::from_secs(150);
    let phase = || {
        let args = [
            "get",
            "pod",
            "agent",
            "--namespace",
            bottle.namespace(),
            "--output",
            "jsonpath={.status.phase} {.status.reason}",
        ];
        cluster.run(&args).stdout
    };
    while phase().trim() != "Failed DeadlineExceeded" {
        assert!(Instant::now() < until, "the agent's Pod still runs: {}", phase());
        std::thread::sleep(Duration::from_millis(500));
    }
    figure(format_args!("a limit of 60 s ended an agent after {:.0} s", started.elapsed().as_secs_f64()));
    assert!(bottle.exec(["true"]).is_err());
    close(&cluster, &lab.slug, bottle);
}
