//! Failures around a bottle: a sidecar that dies, a full or read-only disk, an engine's client that is missing or
//! hangs, a remote engine. Each gives a clear error in bounded time and leaves nothing behind.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bottle::exec::engine::{ComposeProject, Limits};
use bottle::exec::{Control, Subprocess};
use bottle::lifecycle::{Liveness, Owner};
use bottle::plan::Service;
use bottle::{Engine, EngineChoice, Verify};

use super::{FULL, Place, SMALL, host_with_token, names, options, plan};
use bottle_testing::lab::{docker, engine, run, sh};

#[test]
#[ignore = "needs a container engine"]
fn without_its_sidecar_the_agent_reaches_nothing_and_the_bottle_can_be_removed() {
    let place = Place::new();
    let bottle = options(engine(), &place.state()).launch(plan(SMALL, "sidecar")).unwrap();
    docker(["kill", &bottle.names().container(Service::Pipelock)]);
    let failed = sh(&bottle, "curl -sS -m 20 https://example.com/");
    assert!(failed.code != 0 && failed.duration < Duration::from_secs(10), "{failed:?}");
    let error = bottle.engine().wait_ready(&bottle.names().container(Service::Pipelock), Duration::from_secs(5));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("it ended with status 137"), "{error}");
    // The agent's own container can die as well.
    docker(["kill", &bottle.handle().container]);
    let started = Instant::now();
    let error = bottle.wait_ready(Duration::from_secs(30)).unwrap_err().to_string();
    assert!(error.contains("it ended with status") && started.elapsed() < Duration::from_secs(5), "{error}");
    let report = bottle.close().unwrap_or_else(|error| error.report);
    assert!(report.is_clean(), "{report}");
    place.nothing_is_left("sidecar");
}

#[test]
#[ignore = "needs a container engine"]
fn a_sidecar_that_dies_during_the_start_fails_the_launch_with_its_output() {
    let place = Place::new();
    let mut plan = plan(SMALL, "early");
    // An image whose program exits at once.
    plan.images.pipelock = "debian:trixie-slim".parse().unwrap();
    let started = Instant::now();
    let error = bottle::report(&options(engine(), &place.state()).launch(plan).unwrap_err()).to_string();
    assert!(error.contains("start the services") && error.contains("pipelock"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    place.nothing_is_left("early");
}

#[test]
#[ignore = "needs a container engine"]
fn a_network_of_somebody_else_with_a_bottles_name_fails_the_launch_and_stays() {
    let place = Place::new();
    for name in [names("taken").internal_network(), names("taken").egress_network()] {
        docker(["network", "create", &name]);
        let launched = options(engine(), &place.state()).launch(plan(FULL, "taken"));
        // Removing the state of the failed launch, and recovering, leave it as well.
        let recovered = place.site().recover();
        let is_there = docker(["network", "ls", "--quiet", "--filter", &format!("name=^{name}$")]).stdout;
        docker(["network", "rm", &name]);
        assert!(!is_there.trim().is_empty(), "{name} was removed");
        let error = launched.map(drop).unwrap_err();
        assert!(bottle::report(&error).to_string().contains("already exists"), "{error}");
        assert!(error.teardown.is_some_and(|report| report.is_clean()) && recovered.is_ok());
        place.nothing_is_left("taken");
    }
}

/// A tmpfs mounted at a directory. It is unmounted when this value is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn at(path: PathBuf, options: &str) -> Self {
        fs::create_dir_all(&path).unwrap();
        let mounted = run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "bottle-life"]).arg(&path));
        assert_eq!(mounted.code, 0, "this test mounts a file system, which root may: {mounted:?}");
        Self(path)
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert_eq!(run(Command::new("mount").args(["-o", &options]).arg(&self.0)).code, 0);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

#[test]
#[ignore = "needs a container engine and root"]
fn a_full_disk_at_any_step_fails_the_launch_and_leaves_nothing_behind() {
    let place = Place::new();
    // From no space at all to almost enough. Certificates and configuration are written last.
    let whole = size_of_a_launch(&place);
    let mut failed_at = Vec::new();
    for (turn, kib) in [4, whole / 4, whole / 2, whole - 60, whole - 40, whole - 24, whole - 12].into_iter().enumerate()
    {
        let (slug, dir) = (format!("full-{turn}"), place.root.path().join(format!("disk-{turn}")));
        let disk = Mounted::at(dir.clone(), &format!("size={kib}k,mode=0700"));
        let started = Instant::now();
        match options(engine(), &dir).launch(plan(FULL, &slug)) {
            Ok(bottle) => drop(bottle.close()),
            Err(error) => {
                let text = bottle::report(&error).to_string();
                assert!(text.contains("No space left on device"), "{kib} KiB: {text}");
                failed_at.push(format!("{kib} KiB: {}", error.step));
            }
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
        assert_eq!(super::residue(&dir, &slug), Vec::<String>::new(), "{kib} KiB");
        drop(disk);
    }
    println!("a full launch writes {whole} KiB; {failed_at:?}");
    assert!(failed_at.len() >= 4, "{failed_at:?}");
}

/// Returns the disk space that a launch needs, in KiB.
fn size_of_a_launch(place: &Place) -> u64 {
    let dir = place.root.path().join("disk");
    let _disk = Mounted::at(dir.clone(), "size=64m,mode=0700");
    let bottle = options(engine(), &dir).launch(plan(FULL, "room")).unwrap_or_else(|error| panic!("{error}"));
    let used = run(Command::new("df").args(["--output=used", "--block-size=1K"]).arg(&dir)).stdout;
    bottle.close().unwrap();
    used.lines().last().unwrap().trim().parse().unwrap()
}

#[test]
#[ignore = "needs a container engine and root"]
fn a_full_disk_does_not_prevent_the_teardown() {
    let place = Place::new();
    let dir = place.root.path().join("disk");
    let _disk = Mounted::at(dir.clone(), "size=8m,mode=0700");
    let bottle = options(engine(), &dir).launch(plan(SMALL, "filled")).unwrap();
    let filled = fs::write(dir.join("filler"), vec![0; 16 << 20]);
    assert!(filled.is_err(), "the disk is full");
    let report = bottle.close().unwrap_or_else(|error| error.report);
    // Saving the log and updating the journal may have failed. Everything else is removed.
    for failure in report.failures() {
        assert!(matches!(failure.undo, bottle::lifecycle::Undo::DumpLogs { .. }), "{report}");
    }
    assert_eq!(super::residue(&dir, "filled"), Vec::<String>::new());
}

#[test]
#[ignore = "needs a container engine and root"]
fn a_read_only_state_directory_is_reported_before_anything_is_created() {
    let place = Place::new();
    let dir = place.root.path().join("disk");
    let disk = Mounted::at(dir.clone(), "size=1m,mode=0700");
    disk.remount("ro");
    let error = options(engine(), &dir).launch(plan(SMALL, "readonly")).unwrap_err();
    let text = bottle::report(&error).to_string();
    assert!(text.contains("Read-only file system") && text.contains("readonly"), "{text}");
    assert!(error.teardown.is_none(), "nothing had been made: {text}");
    assert_eq!(super::residue(&dir, "readonly"), Vec::<String>::new());
}

/// A directory with another `docker`, and an environment whose PATH finds it.
struct Client {
    dir: PathBuf,
}

impl Client {
    fn new(place: &Place) -> Self {
        let dir = place.root.path().join("bin");
        fs::create_dir(&dir).unwrap();
        Self { dir }
    }

    fn docker(&self) -> PathBuf {
        self.dir.join("docker")
    }

    fn script(&self, text: &str) {
        fs::write(self.docker(), text).unwrap();
        fs::set_permissions(self.docker(), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn engine(&self) -> Result<Engine, bottle::EngineError> {
        let path = (OsString::from("PATH"), OsString::from(format!("{}:/usr/sbin:/sbin", self.dir.display())));
        let host = host_with_token();
        let variables = host.environment().filter(|(name, _)| name != "PATH").chain([path]);
        let backend = Subprocess::new(variables.collect::<Vec<_>>()).with_grace(Duration::from_millis(500));
        Engine::detect(Arc::new(backend), &EngineChoice::Program("docker".into()), Control::default())
    }
}

fn real_docker() -> PathBuf {
    let found = run(Command::new("sh").args(["-c", "command -v docker"]));
    PathBuf::from(found.ok())
}

#[test]
#[ignore = "needs a container engine"]
fn a_client_that_is_missing_from_path_is_named_and_its_bottle_is_recovered() {
    let place = Place::new();
    let client = Client::new(&place);
    let missing = client.engine().unwrap_err().to_string();
    assert!(missing.contains("no program `docker` in any directory of PATH"), "{missing}");

    symlink(real_docker(), client.docker()).unwrap();
    let gone = client.docker();
    let options = options(client.engine().unwrap(), &place.state()).with_observer(Arc::new(
        move |event: &bottle::exec::Event| {
            if matches!(event, bottle::exec::Event::StepStarted { step } if step == "provision the agent") {
                fs::remove_file(&gone).unwrap();
            }
        },
    ));
    let error = bottle::report(&options.launch(plan(SMALL, "gone")).unwrap_err()).to_string();
    assert!(
        error.starts_with("failed to provision the agent") && error.contains("not everything could be undone"),
        "{error}"
    );
    assert!(error.contains("No such file or directory"), "{error}");
    assert!(docker(["ps", "--format", "{{.Names}}"]).stdout.contains("bottle-life-gone"), "nobody could take it down");
    // The bottle is still known as not removed, to its launcher and to others.
    let report = place.site().down(&"gone".parse().unwrap()).unwrap();
    assert!(report.is_clean(), "{report}");
    place.nothing_is_left("gone");
}

#[test]
#[ignore = "needs a container engine"]
fn a_client_that_hangs_is_stopped_with_everything_that_it_started() {
    let place = Place::new();
    let client = Client::new(&place);
    let pid = place.root.path().join("pid");
    // It creates the services, then hangs and ignores SIGTERM.
    client.script(&format!(
        "#!/bin/sh\nfor word; do [ \"$word\" != --no-build ] || hangs=yes; done\n[ \"${{hangs:-}}\" ] || exec {docker} \"$@\"\n\
         trap '' TERM\n{docker} \"$@\"\necho the last words >&2\n/bin/sleep 300 & echo $! > {pid}\nwait\n",
        docker = real_docker().display(),
        pid = pid.display(),
    ));
    let limits = Limits { up: Duration::from_secs(12), ..Limits::default() };
    let engine = client.engine().unwrap().with_limits(limits);
    let options = options(engine, &place.state()).with_wait(Duration::from_secs(10));
    let started = Instant::now();
    let error = bottle::report(&options.launch(plan(SMALL, "hangs")).unwrap_err()).to_string();
    assert!(error.starts_with("failed to start the services") && error.contains("did not end within 12s"), "{error}");
    assert!(error.contains("the last words"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(45), "{:?}", started.elapsed());
    let sleeper = Owner::of_process(fs::read_to_string(pid).unwrap().trim().parse().unwrap());
    assert_eq!(sleeper.liveness(true), Liveness::Gone, "what it had started still runs");
    place.nothing_is_left("hangs");
}

#[test]
#[ignore = "needs a container engine"]
fn an_engine_behind_a_tcp_address_gets_the_files_in_memory_and_binds_nothing() {
    let place = Place::new();
    // The local engine behind a TCP address, which does not tell that it sees this host's files.
    let proxy = Forward::to_the_engine();
    let host = host_with_token().with_docker(&proxy.address());
    let backend = Arc::new(Subprocess::new(host.environment()));
    let engine = Engine::detect(backend, &EngineChoice::Auto, Control::default()).unwrap();
    let bottles = options(engine, &place.state()).with_prefix(super::prefix());
    let refused = "workspace: {mode: bind}\nenv: {A: $LIFECYCLE_TOKEN}\nsecrets: environment";
    let error = bottles.launch(plan(refused, "remote")).unwrap_err();
    let text = bottle::report(&error).to_string();
    for key in ["workspace.mode", "env.A", "secrets"] {
        assert!(text.contains(&format!("bottles.lab.{key}: ")), "{text}");
    }
    assert!(error.teardown.is_none() && !place.state().exists());

    let bottle = bottles.launch(plan(FULL, "remote")).unwrap_or_else(|error| panic!("{}", bottle::report(&error)));
    let filter = format!("label={}=remote", bottle.names().label(bottle::plan::LabelKey::Slug));
    let containers = docker(["ps", "--all", "--quiet", "--filter", &filter]).stdout;
    let mounts = docker(
        ["inspect", "--format", "{{range .Mounts}}{{.Type}} {{end}}"].into_iter().chain(containers.split_whitespace()),
    );
    assert!(mounts.stdout.contains("volume") && !mounts.stdout.contains("bind"), "{}", mounts.stdout);
    assert!(bottle.verify(bottle::Verify::Full).unwrap().holds());
    assert!(bottle.close().unwrap().is_clean());
    place.nothing_is_left("remote");
}

/// A TCP port of this host that forwards to the local engine.
struct Forward {
    port: u16,
}

impl Forward {
    fn to_the_engine() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // The thread ends with the test's process.
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let far = std::os::unix::net::UnixStream::connect("/var/run/docker.sock").unwrap();
                let (mut near_in, mut far_out) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                std::thread::spawn(move || {
                    _ = std::io::copy(&mut near_in, &mut far_out);
                    _ = far_out.shutdown(std::net::Shutdown::Write);
                });
                let (mut near_out, mut far_in) = (near, far);
                std::thread::spawn(move || {
                    _ = std::io::copy(&mut far_in, &mut near_out);
                    _ = near_out.shutdown(std::net::Shutdown::Both);
                });
            }
        });
        Self { port }
    }

    fn address(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }
}

/// Restarts the engine under a bottle. This stops every other container of the engine, so `cargo xtask e2e` skips the
/// test unless `--restart` gives a shell command that stops the engine, starts it again and waits until it answers.
#[test]
#[ignore = "needs a container engine that may be restarted: `cargo xtask e2e --restart COMMAND`"]
fn a_bottle_can_be_started_and_closed_after_a_restart_of_the_engine() {
    let restart = bottle_testing::lab::variable("BOTTLE_E2E_RESTART");
    if restart.is_empty() {
        bottle_testing::lab::not_run("needs an engine that may be restarted (`--restart COMMAND`)");
    }
    let place = Place::new();
    let bottle = options(engine(), &place.state()).launch(plan(FULL, "restart")).unwrap();
    let agent = bottle.handle().container.clone();
    run(Command::new("sh").args(["-c", &restart])).ok();
    // Without live restore, every container has ended. The engine starts a sidecar again that ended with an error, and never
    // the agent, which would have a namespace without the seal.
    let error = bottle.wait_ready(Duration::from_secs(10)).unwrap_err().to_string();
    assert!(error.contains("it ended with status") && error.contains(&agent), "{error}");
    let project = ComposeProject::new(names("restart").project(), place.state().join("restart"), bottle_file(&place));
    let states = bottle.engine().compose(&project).unwrap().ps().unwrap();
    let has_ended = |name: &str| states.iter().any(|service| service.service == name && service.state == "exited");
    assert!(has_ended("agent") && has_ended("seal"), "{states:?}");
    bottle.start().unwrap();
    assert!(bottle.verify(Verify::Quick).unwrap().into_result().is_ok());
    assert_eq!(bottle.exec(["id", "-un"]).unwrap().stdout.text(), "agent\n");
    let report = bottle.close().unwrap_or_else(|error| error.report);
    assert!(report.is_clean(), "{report}");
    place.nothing_is_left("restart");
}

fn bottle_file(place: &Place) -> PathBuf {
    place.state().join("restart/docker-compose.yml")
}
