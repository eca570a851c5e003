//! Credentials in the engine's data and in processes: none by default, and found where `secrets: environment` puts them.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bottle::plan::Service;
use bottle::{Bottle, Verify};
use bottle_testing::lab::{Lab, OUTSIDE, docker, figure, run, sh};

use crate::egress::host_with;

const API: &str = "api.anthropic.com";

/// Returns the bottle's section of a manifest with a route and a git upstream that have a token each.
fn manifest(secrets: &str) -> String {
    format!(
        "secrets: {secrets}\negress:\n  routes:\n    - {{name: api, host: {API}, inject: {{token: E2E_API_KEY, scheme: header}}}}\n\
         git:\n  upstreams:\n    - {{name: web, url: \"https://{OUTSIDE}/web.git\", token: E2E_GIT_TOKEN}}\n"
    )
}

/// The credentials of one test, which cannot occur by chance.
#[derive(Clone)]
struct Canaries([String; 2]);

impl Canaries {
    fn are_in(&self, bytes: &[u8]) -> bool {
        self.0.iter().any(|canary| bytes.windows(canary.len()).any(|window| window == canary.as_bytes()))
    }
}

/// Looks at the environment and the command line of every process of the host, again and again.
struct Processes {
    stop: Arc<AtomicBool>,
    watcher: JoinHandle<(u32, BTreeSet<String>)>,
}

impl Processes {
    fn watch(canaries: &Canaries) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, canaries) = (Arc::clone(&stop), canaries.clone());
        let watcher = std::thread::spawn(move || {
            let (mut looks, mut found) = (0, BTreeSet::new());
            while !stopped.load(Ordering::Relaxed) {
                looks += 1;
                for process in fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()) {
                    for file in ["environ", "cmdline"] {
                        // The outside host was told the token that it wants.
                        let outside = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("OUTSIDE_GIT_TOKEN=");
                        if fs::read(process.join(file)).is_ok_and(|bytes| canaries.are_in(&bytes) && !outside(&bytes)) {
                            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
                            found.insert(format!("{file} of {}", name.trim()));
                        }
                    }
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            (looks, found)
        });
        Self { stop, watcher }
    }

    fn stop(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        let (looks, found) = self.watcher.join().unwrap();
        assert!(looks > 5, "the processes were looked at {looks} times");
        found
    }
}

/// Returns the files below a directory, on its file system alone, that hold a canary. The canary is not on a command line,
/// where the search would find itself.
fn files_with(canary: &str, directory: &str) -> Vec<String> {
    let patterns = tempfile::NamedTempFile::new().unwrap();
    fs::write(patterns.path(), canary).unwrap();
    let mut find = Command::new("find");
    find.args([directory, "-xdev", "-name", "overlay2", "-prune", "-o", "-type", "f"]);
    find.args(["-exec", "grep", "-lsaF", "-f"]).arg(patterns.path()).args(["{}", "+"]).stdin(Stdio::null());
    run(&mut find).stdout.lines().map(ToOwned::to_owned).collect()
}

/// Returns every place in the engine's data, and in the bottle's own files, that holds a canary.
fn places(lab: &Lab, bottle: &Bottle, canaries: &Canaries, began: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut look = |place: &str, text: &str| {
        assert!(!text.is_empty(), "nothing was read of {place}");
        if canaries.are_in(text.as_bytes()) {
            found.insert(place.to_owned());
        }
    };
    let label = format!("label=claude-bottle.slug={}", lab.slug);
    for kind in ["container", "network", "volume"] {
        let format = if kind == "container" { "{{.Names}}" } else { "{{.Name}}" };
        let all: &[&str] = if kind == "container" { &["--all"] } else { &[] };
        let list = [&[kind, "ls"], all, &["--filter", &label, "--format", format]].concat();
        let names = docker(list).stdout;
        // With `secrets: environment` there is no volume.
        assert!(!names.is_empty() || kind == "volume", "the bottle has no {kind}");
        for name in names.lines() {
            look(&format!("{kind} {name}"), &docker([kind, "inspect", name]).stdout);
        }
    }
    let events = docker(["events", "--since", began, "--until", "0s", "--filter", &label, "--format", "{{json .}}"]);
    look("events", &events.stdout);
    let root = docker(["info", "--format", "{{.DockerRootDir}}"]).stdout;
    let directories = [root.trim(), "/run/docker", "/var/run/docker/containerd", &lab.root.path().to_string_lossy()];
    let mut directories = directories.map(ToOwned::to_owned).to_vec();
    // The writable layers, which the search leaves out below the root because of their number of files.
    directories.extend([Service::Egress, Service::GitGate, Service::Seal].map(|service| {
        let container = bottle.names().container(service);
        docker(["inspect", "--format", "{{.GraphDriver.Data.UpperDir}}", &container]).stdout.trim().to_owned()
    }));
    directories.retain(|directory| fs::read_dir(directory).is_ok());
    figure(format_args!("searched: {}", directories.join(", ")));
    let outside = docker(["inspect", "--format", "{{.Id}}", lab.outside.container()]).stdout;
    let [api, git] = &canaries.0;
    for directory in &directories {
        found.extend(files_with(api, directory));
        // The engine keeps the environment of the outside host, which was told the token that it wants, in files of its
        // own and in one database for all containers.
        let by_git = files_with(git, directory).into_iter();
        found.extend(by_git.filter(|file| !file.contains(outside.trim()) && !file.ends_with("/meta.db")));
    }
    found
}

/// Sends a request and clones a repository, and asserts that the outside host saw both credentials.
fn credentials_arrive(lab: &Lab, bottle: &Bottle, canaries: &Canaries, by: &str) {
    sh(bottle, &format!("curl -fsS --retry 8 --retry-all-errors 'https://{API}/echo?by={by}'")).ok();
    sh(bottle, &format!("for _ in 1 2 3 4 5 6 7 8; do\nrm -rf /tmp/web; git clone -q https://{OUTSIDE}/web.git /tmp/web && break; sleep 1\ndone; ls -A /tmp/web")).ok();
    let events = lab.outside.events();
    let seen = events.iter().find(|event| event.to_string().contains(&format!("by={by}"))).expect(by).to_string();
    assert!(seen.contains(&canaries.0[0]), "{by}: {seen}");
}

fn first_process_of(container: &str) -> String {
    docker(["inspect", "--format", "{{.State.Pid}}", container]).stdout.trim().to_owned()
}

/// Returns a lab whose outside host wants the second of the canaries.
fn lab_with_canaries(test: &str) -> (Lab, Canaries) {
    let wanted = format!("OUTSIDE_GIT_TOKEN={test}-git-canary");
    let lab = Lab::with_outside(test, &["--env", "OUTSIDE_REPOS=web", "--env", &wanted]);
    (lab, Canaries([format!("{test}-api-canary"), format!("{test}-git-canary")]))
}

/// Returns the seconds since 1970, as the engine reads a time.
fn seconds() -> String {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().to_string()
}

/// Launches a bottle and returns every place in which a credential was found.
fn found_with(secrets: &str) -> BTreeSet<String> {
    let (lab, canaries) = lab_with_canaries(&format!("secrets-{secrets}"));
    let [api, git] = &canaries.0;
    let options = lab.options().with_host(host_with(&[("E2E_API_KEY", api), ("E2E_GIT_TOKEN", git)]));
    let began = seconds();
    let watched = Processes::watch(&canaries);
    let bottle = options.with_verification(Verify::Quick).launch(lab.plan(&manifest(secrets), "")).unwrap();
    lab.outside.connect(&bottle.names().egress_network());
    credentials_arrive(&lab, &bottle, &canaries, "first");
    let mut found = places(&lab, &bottle, &canaries, &began);
    for service in [Service::Egress, Service::GitGate] {
        let container = bottle.names().container(service);
        // As `docker kill` does, and as the kernel does: then the engine starts it again.
        docker(["kill", &container]);
        docker(["start", &container]);
        let pid = first_process_of(&container);
        run(Command::new("kill").args(["-KILL", &pid]));
        let killed = Instant::now();
        while first_process_of(&container) == pid || first_process_of(&container) == "0" {
            assert!(killed.elapsed() < Duration::from_secs(60), "{container} is not started again");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    credentials_arrive(&lab, &bottle, &canaries, "second");
    found.extend(watched.stop());
    let state = lab.state();
    lab.close(&bottle);
    if canaries.are_in(&fs::read(state.join("compose.log")).unwrap()) {
        found.insert("compose.log".to_owned());
    }
    found
}

#[test]
#[ignore = "needs a container engine"]
fn no_credential_is_in_the_engines_data_or_in_a_process() {
    let found = found_with("memory");
    assert_eq!(found, BTreeSet::new());
}

#[test]
#[ignore = "needs a container engine"]
fn credentials_in_the_environment_are_found() {
    let found = found_with("environment");
    for (what, is_found) in [
        ("inspect of egress", found.iter().any(|place| place.starts_with("container") && place.contains("egress"))),
        ("inspect of git-gate", found.iter().any(|place| place.starts_with("container") && place.contains("git-gate"))),
        ("an environment", found.iter().any(|place| place.starts_with("environ of "))),
    ] {
        assert!(is_found, "{what}: {found:?}");
    }
    // No child of git-gate inherits its token, and the agent has none.
    let children = ["environ of git", "environ of access-hook", "environ of git-remote-http", "environ of git-daemon"];
    assert!(!children.iter().any(|child| found.contains(*child)), "{found:?}");
    assert!(!found.iter().any(|place| place.starts_with("cmdline")), "{found:?}");
}

#[test]
#[ignore = "needs a container engine"]
fn credentials_in_memory_outlive_a_killed_launcher_until_the_recovery() {
    let (lab, canaries) = lab_with_canaries("secrets-killed");
    let [api, git] = &canaries.0;
    let began = seconds();
    lab.launch_and_kill(&manifest("memory"), &[("E2E_API_KEY", api), ("E2E_GIT_TOKEN", git)]);
    // This process has no credential.
    let bottle = lab.options().attach(&lab.slug.parse().unwrap()).unwrap();
    lab.outside.connect(&bottle.names().egress_network());
    credentials_arrive(&lab, &bottle, &canaries, "attached");
    let found = bottle.verify(Verify::Quick).unwrap();
    assert!(found.holds(), "{found}");
    assert_eq!(places(&lab, &bottle, &canaries, &began), BTreeSet::new());
    lab.outside.disconnect(&bottle.names().egress_network());
    let report = lab.options().recover().unwrap();
    assert!(report.is_clean() && report.recovered.len() == 1, "{report:?}");
    lab.assert_nothing_left();
    assert_eq!(files_with(api, &lab.root.path().to_string_lossy()), [""; 0]);
}
