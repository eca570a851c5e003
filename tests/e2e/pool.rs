//! Pools: bottles that are launched ahead of time, and filled in when they are taken.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bottle::exec::engine::Exec;
use bottle::lifecycle::Status;
use bottle::plan::{Service, StateRoot};
use bottle::{Bottles, Host, Manifest, ServiceHealth, Verify};
use bottle_pool::{Pool, Take};
use bottle_testing::lab::{self, docker, figure, host, nft, pipelock_image, scratch, sh};

const TOKEN: &str = "pool-token-value";

/// All sidecars.
const FULL: &str = "supervise: true
egress:
  routes:
    - {host: api.example.com, inject: {token: POOL_TOKEN}}
git:
  upstreams:
    - {name: app, url: 'https://git.example.com/team/app.git', token: POOL_TOKEN}";

fn bottles(state: &Path) -> Bottles {
    let host = host();
    let token = [("POOL_TOKEN".into(), TOKEN.into())];
    let host = Host::new(host.facts.clone(), host.environment().chain(token).collect::<Vec<_>>());
    Bottles::new(lab::engine(), host).with_prefix("bottle-pool".parse().unwrap()).with_state_root(StateRoot::at(state))
}

fn pool(bottles: &Bottles, lines: &str, size: usize) -> Pool {
    let lines: String = lines.lines().flat_map(|line| ["    ", line, "\n"]).collect();
    let image = pipelock_image();
    let agent = "agents: {tester: {bottle: lab, command: [cat], prompt: from the plan, prompt_mode: last-argument}}";
    let text = format!("bottles:\n  lab:\n    images: {{pipelock: '{image}'}}\n{lines}{agent}\n");
    let plan = Manifest::parse(&text).unwrap().plan(bottles).unwrap();
    Pool::start(bottles.clone(), plan, size).unwrap_or_else(|error| panic!("{}", bottle::report(&error)))
}

fn wait_for(pool: &Pool, count: usize) {
    let until = Instant::now() + Duration::from_secs(300);
    while pool.ready() < count {
        assert!(Instant::now() < until, "the pool has {} of {count} bottles", pool.ready());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn nothing_is_left(state: &Path) {
    let site = bottles(state);
    assert!(site.list().unwrap().is_empty(), "{:?}", site.list().unwrap());
    let label = format!("label=bottle-pool.state={}", bottle::lifecycle::root_id(site.state_root()));
    for kind in [
        ["ps", "--all", "--quiet"].as_slice(),
        &["network", "ls", "--quiet"],
        &["volume", "ls", "--quiet"],
        &["images", "--quiet"],
    ] {
        let left = docker(kind.iter().copied().chain(["--filter", label.as_str()])).stdout;
        assert_eq!(left, "", "docker {kind:?}");
    }
}

#[test]
#[ignore = "needs a container engine"]
fn a_taken_bottle_has_workspace_prompt_and_credentials_and_its_work_comes_back() {
    let root = tempfile::Builder::new().prefix("pool-").tempdir_in(scratch()).unwrap();
    let state = root.path().join("state");
    let work = root.path().join("work");
    std::fs::create_dir_all(work.join("src")).unwrap();
    for (name, text) in [
        ("src/a.txt", "one\n"),
        ("README", "read\n"),
        (".env", "SECRET=1\n"),
        (".gitignore", "built\n"),
        ("built", "no\n"),
    ] {
        std::fs::write(work.join(name), text).unwrap();
    }
    let site = bottles(&state);
    let pool = pool(&site, FULL, 1);
    wait_for(&pool, 1);
    let waiting = site.list().unwrap().into_keys().next().unwrap();
    // Egress keeps the count of the budget in the same directory, as `.usage`.
    let in_memory = |slug: &bottle::plan::Slug| {
        let names = bottle::plan::Names::new("bottle-pool".parse().unwrap(), slug.clone());
        docker(["exec", &names.container(Service::Egress), "ls", "/run/credentials"]).stdout.lines().count()
    };
    assert_eq!(in_memory(&waiting), 0, "a bottle in the pool has no credential");
    let attached = site.attach(&waiting).unwrap();
    assert_eq!(sh(&attached, "ls -A /workspace; cat ~/.bottle/prompt.md").stdout, "");
    drop(attached);

    let bottle = pool.take(&Take::default().with_workspace(&work).with_prompt("Be brief.")).unwrap();
    assert_eq!((bottle.slug(), in_memory(&waiting)), (&waiting, 1));
    assert_eq!(
        sh(&bottle, "ls -A /workspace; stat -c %U /workspace/src/a.txt; cat ~/.bottle/prompt.md").stdout,
        ".gitignore\nREADME\nsrc\nagent\nBe brief."
    );
    // The prompt is the command's last argument, here a file that does not exist.
    let said = bottle.exec(bottle.agent().unwrap()).unwrap();
    assert!(said.stderr.text().contains("Be brief."), "{}", said.stderr.text());
    assert!(bottle.changes().unwrap().files.is_empty(), "{:?}", bottle.changes().unwrap().files);
    sh(&bottle, "echo two >> src/a.txt; rm README; echo new > b.txt").ok();
    let patch = String::from_utf8(bottle.patch().unwrap()).unwrap();
    assert!(patch.contains("+two") && patch.contains("deleted file") && patch.contains("b.txt"), "{patch}");
    assert!(bottle.verify(Verify::Full).unwrap().into_result().is_ok());
    let again = site.attach(&waiting).unwrap();
    assert_eq!(again.agent().unwrap().argv, bottle.agent().unwrap().argv);
    bottle.close().unwrap();
    assert!(!site.list().unwrap().contains_key(&waiting));
    pool.close().unwrap();
    nothing_is_left(&state);
}

#[test]
#[ignore = "needs a container engine"]
fn taking_a_bottle_is_fast() {
    let root = tempfile::Builder::new().prefix("pool-").tempdir_in(scratch()).unwrap();
    for (name, lines) in [("alone", ""), ("full", FULL)] {
        let state = root.path().join(name);
        let pool = pool(&bottles(&state), lines, 4);
        let (mut times, rounds) = (Vec::new(), 3);
        for _ in 0..rounds {
            wait_for(&pool, 4);
            for _ in 0..4 {
                let began = Instant::now();
                let bottle = pool.take(&Take::default()).unwrap();
                let said = bottle.exec(Exec::new(["id", "-un"])).unwrap();
                times.push(began.elapsed().as_secs_f64());
                assert_eq!(said.stdout.text(), "agent\n");
                assert!(bottle.health().unwrap().iter().all(ServiceHealth::is_up));
                bottle.close().unwrap();
            }
        }
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| times[(times.len() - 1) * percent / 100] * 1000.0;
        figure(format!(
            "{name}: `take` to the first command's output, {} rounds: p50 {:.0} ms, p95 {:.0} ms",
            times.len(),
            at(50),
            at(95)
        ));
        drop(pool);
        nothing_is_left(&state);
    }
}

#[test]
#[ignore = "needs a container engine"]
fn a_bottle_that_was_weakened_while_it_waited_is_not_handed_out() {
    let root = tempfile::Builder::new().prefix("pool-").tempdir_in(scratch()).unwrap();
    let state = root.path().join("state");
    let site = bottles(&state);
    let pool = pool(&site, &format!("{FULL}\nlimits: {{time: 90s, idle: 40s}}"), 1);
    let sleeps = |slug: &bottle::plan::Slug| {
        let names = bottle::plan::Names::new("bottle-pool".parse().unwrap(), slug.clone());
        let processes = docker(["top", &names.container(Service::Agent), "-eo", "pid,args"]).stdout;
        let words = processes.lines().filter_map(|line| line.split_once("   sleep "));
        words.map(|(_, time)| time.trim().to_owned()).collect::<Vec<_>>()
    };
    let seal = |slug: &bottle::plan::Slug| {
        bottle::plan::Names::new("bottle-pool".parse().unwrap(), slug.clone()).container(Service::Seal)
    };
    wait_for(&pool, 1);
    let weakened = site.list().unwrap().into_keys().next().unwrap();
    nft(&seal(&weakened), &["insert rule inet bottle output accept"]);
    let error = pool.take(&Take::default()).unwrap_err();
    let text = bottle::report(&error).to_string();
    assert!(text.contains("firewall rules"), "{text}");
    // It is gone, and the next one is in order.
    let next = pool.take(&Take::default()).unwrap();
    assert!(!site.list().unwrap().contains_key(&weakened) && *next.slug() != weakened);
    assert_eq!(sleeps(next.slug()), ["90"], "its time has begun");
    next.stop().unwrap();
    next.start().unwrap();
    assert_eq!(sleeps(next.slug()), ["90"], "it does not wait again");
    next.close().unwrap();

    // One that ended or was paused while it waited cannot be taken, and another one is launched for it.
    wait_for(&pool, 1);
    let waiting = || site.list().unwrap().into_keys().next().unwrap();
    let paused = waiting();
    assert_eq!(sleeps(&paused), ["infinity"], "its time has not begun");
    site.pause(&paused).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while site.list().unwrap().contains_key(&paused) {
        assert!(Instant::now() < until, "{paused} stays in the pool");
        std::thread::sleep(Duration::from_millis(50));
    }
    wait_for(&pool, 1);
    assert_ne!(waiting(), paused);
    pool.close().unwrap();
    nothing_is_left(&state);
}

/// Not a test: the process that holds a pool until it is killed.
#[test]
#[ignore = "is started by another test of this file"]
fn child_that_holds_a_pool() {
    #[expect(clippy::disallowed_methods, reason = "the other test passes the state directory")]
    let Some(state) = std::env::var_os("POOL_STATE") else { return };
    let pool = pool(&bottles(Path::new(&state)), "", 2);
    wait_for(&pool, 2);
    println!("holds two");
    std::thread::sleep(Duration::from_secs(300));
}

#[test]
#[ignore = "needs a container engine"]
fn recovery_removes_the_bottles_of_a_pool_whose_process_was_killed() {
    let root = tempfile::Builder::new().prefix("pool-").tempdir_in(scratch()).unwrap();
    let state = root.path().join("state");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "pool::child_that_holds_a_pool"])
        .env("POOL_STATE", &state)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let holds = lines.any(|line| line.contains("holds two"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(holds, "the process holds no pool");
    let site = bottles(&state);
    let listed = site.list().unwrap();
    assert!(listed.len() == 2 && listed.values().all(|it| it.status == Some(Status::Ready)), "{listed:#?}");
    let report = site.recover().unwrap();
    assert!(report.is_clean() && report.recovered.len() == 2, "{report:?}");
    nothing_is_left(&state);
}
