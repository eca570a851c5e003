//! The same tests on every platform, through [`Platform`] alone.

mod docker;
mod kubernetes;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bottle::exec::Stdin;
use bottle::exec::engine::Exec;
use bottle::plan::{Service, Slug, StateRoot};
use bottle::supervise::{ApplyStatus, Review, Scope};
use bottle::{BottlePlan, Bottles, Host};
use bottle_platform::{Cluster, Feature, Ownership, Platform, PlatformBottle};
use bottle_testing::lab::cluster::Cluster as KubeLab;
use bottle_testing::lab::{self, FORBIDDEN, Finished, Lab, OUTSIDE, engine, figure, host, run, variable};
use serde_json::json;

use crate::git::refusals::secret;
use crate::git::{HTTPS_TOKEN, HTTPS_VARIABLE, git_section, lab_with, refs, ssh_upstream};

const TOKEN: (&str, &str) = ("E2E_API_KEY", "sk-REAL-on-every-platform");

/// A route with a token, and a person who decides.
const WORK: &str = "\
supervise: {wait: 50s}
env: {E2E_KEY: {placeholder: true}}
egress:
  routes:
    - {host: outside.test, inject: {token: E2E_API_KEY, scheme: header}}";

/// A platform, and an outside host that its bottles reach.
struct Stage {
    lab: Lab,
    platform: Box<dyn Platform>,
    cluster: Option<KubeLab>,
}

impl Stage {
    fn engine(lab: Lab) -> Self {
        let platform = Box::new(bottles(&lab.state_root()));
        Self { lab, platform, cluster: None }
    }

    fn cluster(lab: Lab) -> Self {
        let cluster = KubeLab::find();
        let bottles = cluster.bottles_with(&lab, [OUTSIDE, FORBIDDEN]);
        Self { lab, platform: Box::new(Cluster::new(bottles, tokens())), cluster: Some(cluster) }
    }

    fn plan(&self, bottle: &str) -> BottlePlan {
        match self.cluster {
            Some(_) => self.lab.plan_on_cluster(&self.lab.slug, bottle, ""),
            None => self.lab.plan(bottle, ""),
        }
    }

    fn slug(&self) -> Slug {
        self.lab.slug.parse().unwrap()
    }

    fn launch(&self, bottle: &str) -> Box<dyn PlatformBottle> {
        let plan = self.plan(bottle);
        let network = plan.names.egress_network();
        let started = Instant::now();
        let bottle = self.platform.launch(plan).unwrap_or_else(|error| panic!("{}", bottle::report(&error)));
        figure(format_args!("{}: launch: {:.1} s", self.platform.name(), started.elapsed().as_secs_f64()));
        if self.cluster.is_none() {
            self.lab.outside.connect(&network);
        }
        bottle
    }

    /// Asserts that what describes the containers holds none of these texts.
    fn assert_hidden(&self, secrets: &[&str]) {
        let slug = &self.lab.slug;
        let text = if let Some(cluster) = &self.cluster {
            let label = format!("claude-bottle.slug={slug}");
            let found = cluster.run(&["get", "namespaces", "--selector", &label, "--output", "name"]);
            let namespace = found.ok().trim_start_matches("namespace/").to_owned();
            cluster.run(&["get", "all,configmaps,secrets", "--namespace", &namespace, "--output", "yaml"]).stdout
        } else {
            let filter = format!("label=claude-bottle.slug={slug}");
            let containers = lab::docker(["ps", "--all", "--quiet", "--filter", &filter]);
            lab::docker(["inspect"].into_iter().chain(containers.ok().lines())).stdout
        };
        assert!(text.contains(slug.as_str()) && text.len() > 1000, "{text}");
        assert!(secrets.iter().all(|secret| !text.contains(secret)), "a secret is in what describes the containers");
    }

    fn close(&self, bottle: Box<dyn PlatformBottle>) {
        let started = Instant::now();
        if self.cluster.is_none() {
            self.lab.outside.disconnect(&self.plan("").names.egress_network());
        }
        bottle.close().unwrap_or_else(|error| panic!("{}", bottle::report(&error)));
        figure(format_args!("{}: close: {:.1} s", self.platform.name(), started.elapsed().as_secs_f64()));
        self.assert_nothing_left();
    }

    fn assert_nothing_left(&self) {
        assert!(!self.platform.list().unwrap().contains_key(&self.slug()));
        match &self.cluster {
            Some(cluster) => assert_eq!(cluster.namespaces(&self.lab.slug), ""),
            None => self.lab.assert_nothing_left(),
        }
    }
}

/// Returns this host with the tokens of the tests in its environment.
fn tokens() -> Host {
    let host = host();
    let tokens = [TOKEN, (HTTPS_VARIABLE, HTTPS_TOKEN)].map(|(name, value)| (name.into(), value.into()));
    Host::new(host.facts.clone(), host.environment().chain(tokens).collect::<Vec<_>>())
}

fn bottles(state: &StateRoot) -> Bottles {
    Bottles::new(engine(), tokens()).with_state_root(state.clone())
}

fn sh(bottle: &dyn PlatformBottle, script: &str) -> Finished {
    let exec = Exec::new(["sh", "-c", script]).with_timeout(Duration::from_secs(120));
    let output = bottle.exec(exec).unwrap_or_else(|error| panic!("{}", bottle::report(&error)));
    Finished {
        code: output.status.as_shell_code(),
        stdout: output.stdout.text(),
        stderr: output.stderr.text(),
        duration: output.duration,
    }
}

fn status(bottle: &dyn PlatformBottle, host: &str) -> String {
    sh(bottle, &format!("curl -sS -o /dev/null -w '%{{http_code}}' https://{host}/echo")).stdout
}

/// A bottle is launched, used in every way, and removed.
fn work(stage: &Stage) {
    let bottle = stage.launch(WORK);
    let agent = &*bottle;
    let listed = stage.platform.list().unwrap();
    let own = &listed[&stage.slug()];
    assert_eq!((own.agent.as_deref(), own.ownership), (Some("tester"), Ownership::Owned));
    assert_eq!(agent.slug(), stage.slug());
    assert_eq!(agent.agent().unwrap().argv, ["sh", "-c", "id"]);
    assert!(stage.platform.recover().unwrap().is_empty(), "a bottle whose owner lives was removed");

    assert_eq!(sh(agent, "cat README.md").ok(), "a workspace", "the workspace was copied");
    let failed = sh(agent, "echo out; echo err >&2; exit 3");
    assert_eq!((failed.code, failed.stdout.as_str(), failed.stderr.as_str()), (3, "out\n", "err\n"));
    streams(agent);

    // The host receives the token, which neither the agent nor what describes the containers has.
    let answer = sh(agent, &format!("curl -fsS 'https://{OUTSIDE}/echo?by=platform'"));
    answer.ok();
    let events = stage.lab.outside.events().into_iter().map(|event| event.to_string());
    let seen: Vec<_> = events.filter(|event| event.contains("by=platform")).collect();
    assert!(!seen.is_empty() && seen.iter().all(|event| event.contains(TOKEN.1)), "{seen:?}");
    assert!(!answer.stdout.contains(TOKEN.1), "the host's echo holds it");
    let held = sh(agent, "cat /proc/[0-9]*/environ /run/bottle/* 2>/dev/null; env");
    assert!(held.stdout.contains("E2E_KEY=") && !held.stdout.contains(TOKEN.1));
    stage.assert_hidden(&[TOKEN.1]);
    assert_eq!((status(agent, OUTSIDE).as_str(), status(agent, FORBIDDEN).as_str()), ("200", "403"));
    assert!(agent.logs(Service::Egress).unwrap().contains(OUTSIDE));

    came_back(agent);
    forwarded(agent);
    approved(stage, agent);
    let found = agent.verify().unwrap();
    assert!(found.holds(), "{found}");
    stage.close(bottle);
}

/// Streams, copies, and the end of everything that a command started.
fn streams(agent: &dyn PlatformBottle) {
    let mut live = agent.spawn(Exec::new(["sh", "-c", "read line; echo got $line; exit 5"]), None).unwrap();
    let (mut stdin, mut stdout) = (live.stdin().unwrap(), live.stdout().unwrap());
    stdin.write_all(b"hello\n").unwrap();
    let mut printed = String::new();
    stdout.read_to_string(&mut printed).unwrap();
    assert_eq!((printed.as_str(), live.wait().unwrap().as_shell_code()), ("got hello\n", 5));
    drop(live);

    let sleeping =
        "for p in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$p; echo; done 2>/dev/null | grep -c '^sleep 30[01]'";
    let mut live = agent.spawn(Exec::new(["sh", "-c", "sleep 300 & setsid sleep 301 & echo up; wait"]), None).unwrap();
    BufReader::new(live.stdout().unwrap()).read_line(&mut printed).unwrap();
    assert_eq!(sh(agent, sleeping).stdout.trim(), "2");
    live.kill().unwrap();
    drop(live);
    assert_eq!(sh(agent, sleeping).stdout.trim(), "0");
    assert!(agent.exec(Exec::new(["sleep", "300"]).with_timeout(Duration::from_secs(2))).is_err());
    assert_eq!(sh(agent, sleeping).stdout.trim(), "0");

    sh(agent, "mkdir /tmp/d && head -c 3000000 /dev/urandom >/tmp/d/data").ok();
    let tar = agent.copy_out("/tmp/d").unwrap();
    assert!(tar.len() > 3_000_000);
    sh(agent, "mkdir /tmp/copy").ok();
    agent.copy_in("/tmp/copy", Stdin::Bytes(tar)).unwrap();
    sh(agent, "cmp /tmp/d/data /tmp/copy/d/data").ok();
    let missing = agent.copy_out("/tmp/nothing").unwrap_err().to_string();
    assert!(missing.contains("/tmp/nothing"), "{missing}");
}

/// Changes, a patch, an export and commits.
fn came_back(agent: &dyn PlatformBottle) {
    assert!(agent.changes().unwrap().files.is_empty());
    let commit = "git add d && git -c user.name=A -c user.email=a@bottle.test commit -qm 'In the bottle'";
    sh(agent, &format!("echo changed >>README.md; mkdir d; echo new >d/new; git init -q -b main . && {commit}")).ok();
    let mut paths: Vec<_> =
        agent.changes().unwrap().files.iter().map(|change| change.path.display().to_string()).collect();
    paths.sort();
    assert_eq!(paths, ["README.md", "d/new"]);
    let patch = String::from_utf8(agent.patch().unwrap()).unwrap();
    assert!(patch.contains("+changed") && patch.contains("+new"), "{patch}");

    let dir = tempfile::tempdir().unwrap();
    let (out, repository) = (dir.path().join("out"), dir.path().join("repository"));
    std::fs::create_dir(&out).unwrap();
    agent.export(&out).unwrap();
    assert_eq!(std::fs::read_to_string(out.join("d/new")).unwrap(), "new\n");
    run(Command::new("git").args(["init", "-q"]).arg(&repository)).ok();
    let fetched = agent.fetch_into(&repository, "refs/bottle/demo").unwrap();
    assert_eq!(fetched.iter().map(|branch| branch.name.as_str()).collect::<Vec<_>>(), ["refs/bottle/demo/main"]);
}

/// A port of the agent's loopback on this host.
fn forwarded(agent: &dyn PlatformBottle) {
    let server = "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 3000, Listen => 5) or die; \
        $| = 1; print qq(up\\n); while (my $c = $s->accept) { my $l = <$c>; print $c qq(agent: $l); close $c }";
    let mut live = agent.spawn(Exec::new(["perl", "-e", server]), None).unwrap();
    let mut up = [0; 3];
    live.stdout().unwrap().read_exact(&mut up).unwrap();
    let forward = agent.forward(3000.into()).unwrap();
    let mut socket = TcpStream::connect(forward.local_addr()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    writeln!(socket, "hello").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "agent: hello\n");
    drop(forward);
    live.kill().unwrap();
}

/// Another handle decides what the agent asks for, and it holds in the running bottle.
fn approved(stage: &Stage, agent: &dyn PlatformBottle) {
    let attached = stage.platform.attach(&stage.slug()).unwrap();
    let supervision = attached.supervise().unwrap();
    let arguments = json!({"host": FORBIDDEN, "reason": "the test needs it"});
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "propose_allow_host", "arguments": arguments}});
    let script = "curl -sS --max-time 120 --data-binary @- -H 'Content-Type: application/json' \
        -H 'Accept: application/json, text/event-stream' -H 'MCP-Protocol-Version: 2025-06-18' http://supervise:9100/mcp";
    let mut asking = agent.spawn(Exec::new(["sh", "-c", script]), None).unwrap();
    asking.stdin().unwrap().write_all(request.to_string().as_bytes()).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let review: Review = loop {
        let pending = supervision.pending().unwrap();
        if let [review] = pending.as_slice() {
            break review.clone();
        }
        assert!(pending.is_empty() && Instant::now() < until, "{pending:?}");
        std::thread::sleep(Duration::from_millis(100));
    };
    let started = Instant::now();
    let decision = supervision.approve(&review, Scope::Always, "go on").unwrap();
    figure(format_args!("{}: an approval: {:.1} s", stage.platform.name(), started.elapsed().as_secs_f64()));
    assert_eq!(decision.applied.as_ref().unwrap().status, ApplyStatus::Live, "{decision:?}");
    let mut told = String::new();
    asking.stdout().unwrap().read_to_string(&mut told).unwrap();
    assert!(told.contains("approved") && told.contains("go on"), "{told}");
    assert_eq!(status(agent, FORBIDDEN), "200");
    assert!(supervision.plan().unwrap().proxy.allow.iter().any(|host| host.to_string() == FORBIDDEN));
    assert!(supervision.verify().unwrap().decisions.head.seq >= 2);
}

/// Pushes over ssh and https are taken, a secret is refused, and no credential is where it must not be.
fn git(stage: &Stage, key: &std::path::Path) {
    let upstreams = format!(
        "{}    - {{name: web, url: \"https://{OUTSIDE}/web.git\", token: {HTTPS_VARIABLE}}}\n",
        ssh_upstream(&stage.lab, "app", key, "")
    );
    let bottle = stage.launch(&format!("workspace: {{mode: none}}\n{}", git_section(&upstreams)));
    for (url, repository) in [(format!("git@{OUTSIDE}:app.git"), "app"), (format!("https://{OUTSIDE}/web.git"), "web")]
    {
        let commit = |name: &str, text: &str| {
            format!(
                "cd /tmp/{repository} && echo '{text}' >{name} && git add {name} && git commit -qm 'Add {name}' && git push -q origin HEAD:main"
            )
        };
        sh(&*bottle, &format!("git clone -q {url} /tmp/{repository}")).ok();
        sh(&*bottle, &commit("made", "by the agent")).ok();
        let log = stage.lab.outside.as_git(&format!("git -C {repository}.git log --format='%an <%ae> %s' main"));
        assert!(log.starts_with("The Agent <agent@bottle.test> Add made\n"), "{log}");
        let before = refs(&stage.lab, repository);
        let refused = sh(&*bottle, &commit("leak", &secret()));
        assert!(refused.code != 0 && refused.stderr.contains("git-gate refused this push"), "{refused:?}");
        assert!(!refused.stderr.contains(&secret()), "{refused:?}");
        assert_eq!(refs(&stage.lab, repository), before, "the upstream received something");
    }
    // What is no upstream cannot be reached.
    assert_ne!(sh(&*bottle, &format!("git clone -q git@{OUTSIDE}:demo.git /tmp/demo")).code, 0);

    let private = std::fs::read_to_string(key).unwrap();
    let line = private.lines().nth(2).unwrap();
    stage.assert_hidden(&[line, HTTPS_TOKEN]);
    let search =
        "grep -rlsF --devices=skip -f - /etc /home /root /run /srv /tmp /var /proc/[0-9]*/environ 2>/dev/null; true";
    let exec =
        Exec::new(["sh", "-c", search]).with_stdin(Stdin::Bytes(format!("{line}\n{HTTPS_TOKEN}\n").into_bytes()));
    assert_eq!(bottle.exec(exec).unwrap().stdout_text(), "", "the agent can read a credential");
    assert!(bottle.verify().unwrap().holds());
    stage.close(bottle);
}

/// A bottle outlives the kill of its launcher until another process recovers it.
fn recovery(stage: &Stage) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "platform::child_launches", "--nocapture"])
        .env("BOTTLE_E2E_SLUG", &stage.lab.slug)
        .env("BOTTLE_E2E_STATE", stage.lab.state_root().path())
        .env("BOTTLE_E2E_PLATFORM", if stage.cluster.is_some() { "cluster" } else { "engine" })
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let is_ready = lines.take(1000).any(|line| line == "ready");
    let owned = stage.platform.recover().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_ready && owned.is_empty(), "ready: {is_ready}, removed while its owner lived: {owned:?}");

    let attached = stage.platform.attach(&stage.slug()).unwrap();
    assert_eq!(sh(&*attached, "echo alive").ok(), "alive");
    drop(attached);
    assert_eq!(stage.platform.list().unwrap()[&stage.slug()].ownership, Ownership::Abandoned);
    let started = Instant::now();
    assert!(stage.platform.recover().unwrap().contains(&stage.slug()));
    figure(format_args!("{}: recovery after kill -9: {:.1} s", stage.platform.name(), started.elapsed().as_secs_f64()));
    stage.assert_nothing_left();
    assert!(stage.platform.recover().unwrap().is_empty());
}

/// Launches a bottle, says so, and waits to be killed. The second half of [`recovery`].
#[test]
#[ignore = "started by another test"]
fn child_launches() {
    let mut lab = Lab::new("child");
    lab.slug = variable("BOTTLE_E2E_SLUG");
    let mut stage = if variable("BOTTLE_E2E_PLATFORM") == "cluster" { Stage::cluster(lab) } else { Stage::engine(lab) };
    if stage.cluster.is_none() {
        stage.platform = Box::new(bottles(&StateRoot::at(variable("BOTTLE_E2E_STATE"))));
    }
    let bottle = stage.platform.launch(stage.plan("")).unwrap();
    // The outside host and the files of the plan would be left behind.
    drop(stage);
    println!("\nready");
    std::thread::sleep(Duration::from_secs(120));
    drop(bottle);
}

/// A plan that needs what the platform does not have is refused, and leaves nothing.
fn refused(stage: &Stage, expected: &[Feature]) {
    std::fs::write(stage.lab.root.path().join("variables.env"), "A=b\n").unwrap();
    let asking = [
        (Feature::BoundWorkspace, "workspace", "workspace: {mode: bind, path: .}"),
        (Feature::EnvironmentFile, "env_file", "env_file: variables.env"),
        (Feature::ForwardedVariables, "E2E_API_KEY", "env: {E2E_API_KEY: {forward: true}}"),
        (Feature::Pause, "limits.idle", "limits: {idle: 60s}"),
    ];
    let mut refused = Vec::new();
    for (feature, key, lines) in asking {
        if stage.platform.supports(feature) {
            continue;
        }
        refused.push(feature);
        let error = stage.platform.launch(stage.plan(lines)).map(|bottle| bottle.slug()).unwrap_err();
        let text = bottle::report(&error).to_string();
        assert!(text.contains(key), "{feature:?}: {text}");
        stage.assert_nothing_left();
    }
    assert_eq!(refused, expected);
}
