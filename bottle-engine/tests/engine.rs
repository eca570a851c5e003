//! The client against a real engine. Run by `cargo xtask e2e`; needs the image `debian:trixie-slim`.

#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]
#![expect(clippy::print_stdout, reason = "measurements are shown")]

use std::io::{Read as _, Write as _};
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bottle_engine::{
    Build, BuildContext, Capability, ComposeProject, CopyMethod, Engine, EngineChoice, Exec, Filter, NewNetwork,
    ObjectKind,
};
use bottle_exec::{Control, ExitStatus, Logging, SecretValue, Stdin, Subprocess};

const IMAGE: &str = "debian:trixie-slim";

#[expect(clippy::disallowed_methods, reason = "a test is its own facade: it reads the environment that it passes on")]
fn engine() -> Engine {
    let backend = Logging::new(Subprocess::new(std::env::vars_os()));
    Engine::detect(Arc::new(backend), &EngineChoice::Auto, Control::default()).expect("an engine that answers")
}

/// Ends a test that needs a runtime which the engine does not have. `cargo xtask e2e` counts it as not run.
fn require(engine: &Engine, runtime: &str) {
    let has_runtime = engine.require(&Capability::Runtime(runtime.into())).is_ok();
    assert!(has_runtime, "not run: needs the runtime {runtime}");
}

/// A project of one idle service, under a name that no other test uses.
struct Project {
    engine: Engine,
    compose: ComposeProject,
    _directory: tempfile::TempDir,
}

impl Project {
    fn up(engine: Engine, name: &str, service: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("docker-compose.yml");
        let text = format!(
            "name: {name}\nservices:\n  agent:\n    image: {IMAGE}\n    command: [sleep, infinity]\n    init: true\n    \
             container_name: {name}\n    network_mode: none\n    environment: [TOKEN]\n    labels: {{bottle-e2e.slug: {name}}}\n\
             {service}"
        );
        std::fs::write(&file, text).unwrap();
        let compose = ComposeProject::new(name, directory.path(), file);
        let this = Self { engine, compose, _directory: directory };
        let secret = [("TOKEN".to_owned(), SecretValue::new("seen only inside"))];
        this.engine.compose(&this.compose).unwrap().up(Duration::from_secs(30), secret).unwrap();
        this
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        self.engine.compose(&self.compose).unwrap().down(Duration::from_secs(1)).unwrap();
    }
}

/// A tar stream of one directory with one file, owned by 1234:2345, mode 0640.
fn tar_stream() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o640);
    header.set_uid(1234);
    header.set_gid(2345);
    builder.append_data(&mut header, "kept/file", b"hello".as_slice()).unwrap();
    builder.into_inner().unwrap()
}

fn life_of_a_container(name: &str, runtime: &str, method: CopyMethod) {
    let engine = engine();
    require(&engine, runtime);
    let project = Project::up(engine.clone(), name, &format!("    runtime: {runtime}\n"));
    let services = engine.compose(&project.compose).unwrap().ps().unwrap();
    assert_eq!((services[0].service.as_str(), services[0].state.as_str()), ("agent", "running"));
    let state = engine.container(name).unwrap().unwrap();
    assert!(state.is_ready());
    assert_eq!(state.copy_method(), method);

    let run = |script: &str| engine.exec(name, &Exec::new(["sh", "-c", script])).unwrap();
    assert_eq!(run("echo $TOKEN").stdout.text(), "seen only inside\n");
    assert_eq!(run("exit 7").status, ExitStatus::Code(7));
    let echo = Exec::new(["sh", "-c", "id -u; pwd; echo $A $B; cat"])
        .with_user("65534")
        .with_workdir("/tmp")
        .with_env("A", "plain value")
        .with_env("B", SecretValue::new("secret value"))
        .with_stdin(Stdin::Bytes(b"piped in".to_vec()));
    assert_eq!(engine.exec(name, &echo).unwrap().stdout.text(), "65534\n/tmp\nplain value secret value\npiped in");

    engine.cp_in(name, "/tmp", Stdin::Bytes(tar_stream()), method, Some("1234:2345")).unwrap();
    assert_eq!(run("stat -c '%u:%g %a' /tmp/kept/file; cat /tmp/kept/file").stdout.text(), "1234:2345 640\nhello");
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("out.tar");
    engine.cp_out(name, "/tmp/kept", &archive, method, Some("1234:2345")).unwrap();
    let mut found = Vec::new();
    for entry in tar::Archive::new(std::fs::File::open(&archive).unwrap()).entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        found.push((
            entry.path().unwrap().display().to_string(),
            header.uid().unwrap(),
            header.mode().unwrap() & 0o777,
        ));
    }
    assert!(found.contains(&("kept/file".to_owned(), 1234, 0o640)), "{found:?}");
    assert!(engine.cp_out(name, "/nowhere", &archive, method, None).is_err());

    let labelled = Filter::LabelValue("bottle-e2e.slug".into(), name.into());
    assert_eq!(engine.list(ObjectKind::Container, &labelled).unwrap()[0].name, name);
    engine.kill(name, "HUP").unwrap();
    let log = directory.path().join("compose.log");
    engine.compose(&project.compose).unwrap().logs_to(&log).unwrap();
    assert!(log.exists());
    drop(project);
    assert_eq!(engine.list(ObjectKind::Container, &labelled).unwrap(), []);
    assert!(engine.container(name).unwrap().is_none());
}

#[test]
#[ignore = "needs a container engine"]
fn a_container_from_up_to_down() {
    life_of_a_container("bottle-e2e-exec-runc", "runc", CopyMethod::Engine);
}

#[test]
#[ignore = "needs a container engine with the runtime runsc"]
fn a_sandboxed_container_from_up_to_down() {
    life_of_a_container("bottle-e2e-exec-runsc", "runsc", CopyMethod::Tar);
}

/// Starts three children that are hard to stop: one ignores SIGTERM, one has its own session, one has no environment
/// and loses its parent at SIGTERM.
const STUBBORN: &str = "trap '' TERM
    (trap '' TERM; sleep 3101; sleep 3102) &
    setsid sh -c 'trap \"\" TERM; sleep 3103; sleep 3104' &
    setsid sh -c 'sleep 3105 & env -i setsid sh -c \"sleep 3106; sleep 3107\" & wait' &
    echo started; sleep 3108; sleep 3109";

/// Returns the commands `sleep 3…` that run in a container, sorted.
fn running(engine: &Engine, name: &str) -> String {
    let script = "for p in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$p; echo; done 2>/dev/null | \
                  grep -o 'sleep 3[0-9]*$\\|sleep 3[0-9]* ' | sort -u";
    engine.exec(name, &Exec::new(["sh", "-c", script])).unwrap().stdout.text()
}

fn interrupted_execs(name: &str, runtime: &str) {
    let engine = engine();
    require(&engine, runtime);
    let project = Project::up(engine.clone(), name, &format!("    user: '1234'\n    runtime: {runtime}\n"));
    let running = || running(&engine, name);
    std::thread::scope(|scope| {
        // Another exec in the same container, which must keep running.
        let other =
            scope.spawn(|| engine.exec(name, &Exec::new(["sh", "-c", "setsid sleep 3900 & sleep 12; echo other"])));
        std::thread::sleep(Duration::from_secs(1));
        let started = std::time::Instant::now();
        let limited = Exec::new(["sh", "-c", STUBBORN]).with_timeout(Duration::from_secs(2));
        let error = engine.exec(name, &limited).unwrap_err();
        assert!(error.to_string().contains("2s"), "{error}");
        assert_eq!(running().trim(), "sleep 3900", "after the timeout");
        println!("{runtime}: a timeout of 2 s ended everything after {:?}", started.elapsed());

        let token = bottle_exec::CancelToken::new();
        let cancel = token.clone();
        let seen = Arc::new(std::sync::Mutex::new(None));
        let at = Arc::clone(&seen);
        let sink = move |_, bytes: &[u8]| {
            if bytes.starts_with(b"started") {
                std::thread::sleep(Duration::from_millis(300));
                *at.lock().unwrap() = Some(std::time::Instant::now());
                cancel.cancel();
            }
        };
        let control = Control::cancelled_by(token).with_sink(Arc::new(sink));
        let cancelled = engine.clone().with_control(control);
        assert!(cancelled.exec_streaming(name, &Exec::new(["sh", "-c", STUBBORN])).unwrap_err().is_cancelled());
        println!("{runtime}: a cancellation ended everything after {:?}", seen.lock().unwrap().unwrap().elapsed());
        assert_eq!(running().trim(), "sleep 3900", "after the cancellation");
        assert_eq!(other.join().unwrap().unwrap().stdout.text(), "other\n");
    });
    // A process that an exec left running on purpose stays until everything is stopped.
    assert_eq!(running().trim(), "sleep 3900");
    let mut of_root = Exec::new(["sh", "-c", "setsid sleep 3950 >/dev/null 2>&1 &"]);
    of_root.user = Some("root".into());
    engine.exec(name, &of_root).unwrap();
    engine.kill_all(name, None).unwrap();
    assert_eq!(running().trim(), "sleep 3950", "another user's process keeps running");
    engine.kill_all(name, Some("root")).unwrap();
    assert_eq!(running(), "");
    assert!(engine.container(name).unwrap().unwrap().is_ready(), "the container itself still runs");
    drop(project);
}

#[test]
#[ignore = "needs a container engine"]
fn an_interrupted_exec_leaves_no_process_and_stops_no_other_exec() {
    interrupted_execs("bottle-e2e-exec-kill", "runc");
}

#[test]
#[ignore = "needs a container engine with the runtime runsc"]
fn an_interrupted_exec_leaves_no_process_in_a_sandbox() {
    interrupted_execs("bottle-e2e-exec-kill-runsc", "runsc");
}

#[test]
#[ignore = "needs a container engine"]
fn a_command_for_a_container_that_does_not_run_is_an_error_and_no_status() {
    let name = "bottle-e2e-exec-ended";
    let engine = engine();
    let project = Project::up(engine.clone(), name, "");
    let docker =
        |args: &[&str]| assert!(Process::new("docker").args(args).arg(name).output().unwrap().status.success());
    let said = || engine.exec(name, &Exec::new(["true"])).unwrap_err().to_string();
    let ended = |state: &str| format!("run a command in container `{name}`: it {state}");
    docker(&["pause"]);
    assert_eq!(said(), ended("is paused"));
    docker(&["unpause"]);
    docker(&["kill"]);
    assert_eq!(said(), ended("exited with status 137"));
    let streamed = engine.exec_streaming(name, &Exec::new(["true"])).unwrap_err().to_string();
    assert_eq!(streamed, ended("exited with status 137"));
    docker(&["rm"]);
    assert_eq!(said(), ended("does not exist"));
    drop(project);
}

#[test]
#[ignore = "needs a container engine"]
fn a_command_may_print_what_the_client_prints() {
    let name = "bottle-e2e-exec-says";
    let engine = engine();
    let project = Project::up(engine.clone(), name, "");
    let exec = Exec::new(["sh", "-c", "echo Error response from daemon: no >&2; exit 1"]);
    assert_eq!(engine.exec(name, &exec).unwrap().status, ExitStatus::Code(1));
    drop(project);
}

#[test]
#[ignore = "needs a container engine"]
fn an_interrupted_exec_leaves_no_process_without_environment_and_parents() {
    let name = "bottle-e2e-exec-cleared";
    let engine = engine();
    let project = Project::up(engine.clone(), name, "    user: '1234'\n");
    for script in
        ["exec env -i sleep 3201", "(exec env -i setsid sleep 3202 &); sleep 3203", "exec env -i setsid sleep 3204"]
    {
        for shell in ["sh", "bash"] {
            let exec = Exec::new([shell, "-c", script]).with_timeout(Duration::from_secs(1));
            engine.exec(name, &exec).unwrap_err();
            assert_eq!(running(&engine, name), "", "{shell}: {script}");
        }
    }
    // The limit is only a mark. The other limits and the environment are the container's own.
    let printed = |argv: &[&str]| engine.exec(name, &Exec::from(argv)).unwrap().stdout.text();
    let other_limits =
        |text: &str| text.lines().filter(|line| !line.contains("file locks")).map(str::to_owned).collect();
    let limits: Vec<String> = other_limits(&printed(&["cat", "/proc/self/limits"]));
    let plain = |argv: &[&str]| {
        let output = Process::new("docker").args(["exec", name]).args(argv).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(limits, other_limits(&plain(&["cat", "/proc/self/limits"])));
    let sorted =
        |text: &str| text.lines().filter(|line| !line.starts_with("BOTTLE_EXEC=")).map(str::to_owned).collect();
    let mut environment: std::collections::BTreeSet<String> = sorted(&printed(&["env"]));
    environment.remove("PWD=/");
    assert_eq!(environment, sorted(&plain(&["env"])));
    assert_eq!(engine.exec(name, &Exec::new(["no-such-program"])).unwrap().status, ExitStatus::Code(127));
    assert_eq!(engine.exec(name, &Exec::new(["/etc"])).unwrap().status, ExitStatus::Code(126));
    drop(project);
}

/// The engine starts the process of an exec some time after its client.
#[test]
#[ignore = "needs a container engine"]
fn an_exec_that_is_interrupted_while_it_starts_leaves_no_process() {
    let name = "bottle-e2e-exec-early";
    let engine = engine();
    let project = Project::up(engine.clone(), name, "    user: '1234'\n");
    for moment in (0..300).step_by(15) {
        let token = bottle_exec::CancelToken::new();
        // One token for everything, as in a program that ends at the first Ctrl-C.
        let control = Control::cancelled_by(token.clone()).with_abort(token.clone());
        let cancelled = engine.clone().with_control(control);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(moment));
                token.cancel();
            });
            let error = cancelled.exec(name, &Exec::new(["sleep", "3301"])).unwrap_err();
            assert!(error.is_cancelled(), "{moment} ms: {error}");
        });
        assert_eq!(running(&engine, name), "", "after {moment} ms");
    }
    drop(project);
}

/// The mark of an exec must not slow it down.
#[test]
#[ignore = "needs a container engine"]
fn an_exec_takes_no_longer_than_the_client_itself() {
    let name = "bottle-e2e-exec-latency";
    let engine = engine();
    let project = Project::up(engine.clone(), name, "");
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..60 {
        let started = std::time::Instant::now();
        assert!(engine.exec(name, &Exec::new(["true"])).unwrap().status.is_success());
        ours.push(started.elapsed());
        let started = std::time::Instant::now();
        let status = Process::new("docker").args(["exec", name, "true"]).stdin(Stdio::null()).status().unwrap();
        plain.push(started.elapsed());
        assert!(status.success());
    }
    ours.sort();
    plain.sort();
    let (ours, plain) = (ours[30], plain[30]);
    println!("median of 60: {ours:?} by the library, {plain:?} by `docker exec`");
    assert!(ours.as_secs_f64() <= plain.as_secs_f64() * 1.05, "{ours:?} beside {plain:?}");
    drop(project);
}

#[test]
#[ignore = "needs a container engine"]
fn a_network_is_created_inspected_and_removed() {
    let engine = engine();
    let name = "bottle-e2e-exec-net";
    let network = NewNetwork {
        name: name.into(),
        internal: true,
        labels: [("bottle-e2e.slug".into(), "a=b, c".into())].into(),
        driver_options: [("com.docker.network.bridge.inhibit_ipv4".into(), "true".into())].into(),
        subnet: Some("198.18.77.0/28".into()),
    };
    engine.create_network(&network).unwrap();
    let info = engine.network(name).unwrap().unwrap();
    let listed = engine.list(ObjectKind::Network, &Filter::NamePrefix("bottle-e2e-exec-n".into())).unwrap();
    assert!(engine.create_network(&network).is_err(), "the name is taken");
    assert!(engine.remove(ObjectKind::Network, name).unwrap());
    assert!(!engine.remove(ObjectKind::Network, name).unwrap(), "it is gone already");
    assert_eq!((info.internal, info.subnets, &info.labels), (true, vec!["198.18.77.0/28".to_owned()], &network.labels));
    assert_eq!(info.driver_options, network.driver_options);
    assert_eq!(listed[0].labels, network.labels);
}

#[test]
#[ignore = "needs a container engine"]
fn an_image_from_a_tar_on_standard_input() {
    let engine = engine();
    let tag = "bottle-e2e-exec-image:1";
    let mut builder = tar::Builder::new(Vec::new());
    let dockerfile = format!("FROM {IMAGE}\nARG GREETING\nRUN echo $GREETING >/greeting && cat /greeting\n");
    let mut header = tar::Header::new_gnu();
    header.set_size(dockerfile.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "Dockerfile", dockerfile.as_bytes()).unwrap();
    let mut build = Build::new(tag, BuildContext::Tar(builder.into_inner().unwrap()));
    build.args.insert("GREETING".into(), "hello there".into());
    build.labels.insert("bottle-e2e.slug".into(), "image".into());
    engine.build(&build).unwrap();
    assert!(engine.exists(ObjectKind::Image, tag).unwrap());
    let listed = engine.list(ObjectKind::Image, &Filter::NamePrefix("bottle-e2e-exec-image".into())).unwrap();
    assert_eq!((listed[0].name.as_str(), listed[0].labels["bottle-e2e.slug"].as_str()), (tag, "image"));
    assert!(engine.remove(ObjectKind::Image, tag).unwrap());
    assert!(!engine.remove(ObjectKind::Image, tag).unwrap(), "it is gone already");

    let broken = format!("FROM {IMAGE}\nRUN echo the reason >&2; exit 3\n");
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("Dockerfile"), broken).unwrap();
    let error = engine.build(&Build::new(tag, BuildContext::Directory(directory.path().into()))).unwrap_err();
    assert!(error.to_string().contains("the reason"), "{error}");
}

#[test]
#[ignore = "needs a container engine"]
fn an_error_of_compose_is_quoted() {
    let engine = engine();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("docker-compose.yml");
    std::fs::write(&file, "services: {agent: {image: 'bottle-e2e.invalid/none:0', network_mode: none}}\n").unwrap();
    let project = ComposeProject::new("bottle-e2e-exec-refused", directory.path(), &file);
    let compose = engine.compose(&project).unwrap();
    assert_eq!(compose.config().unwrap()["services"]["agent"]["image"], "bottle-e2e.invalid/none:0");
    let error = compose.up(Duration::from_secs(5), []).unwrap_err().to_string();
    assert!(error.contains("bottle-e2e.invalid"), "{error}");
    compose.down(Duration::from_secs(1)).unwrap();
    std::fs::write(&file, "services: [").unwrap();
    let error = compose.config().unwrap_err().to_string();
    assert!(error.contains("yaml"), "{error}");
}

/// Not a test: the program that [`a_person_at_a_terminal`] starts at a terminal.
#[test]
#[ignore = "is started by another test of this file"]
#[expect(clippy::disallowed_methods, reason = "this is how the other test speaks to it")]
#[expect(clippy::exit, reason = "the status is what the other test looks at")]
fn child_at_a_terminal() {
    use std::io::IsTerminal as _;

    let Ok(container) = std::env::var("ENGINE_TEST_CONTAINER") else { return };
    let tty = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let script = "stty size; trap 'echo caught' INT; echo ready; read line; echo \"<$line>\"; tty; exit 9";
    match engine().exec_interactive(&container, &Exec::new(["bash", "-c", script]), tty) {
        Ok(output) => std::process::exit(output.status.as_shell_code()),
        Err(error) => {
            println!("{error}");
            std::process::exit(77);
        }
    }
}

/// Starts [`child_at_a_terminal`] in a pseudo-terminal of 33 rows and 101 columns, types, and checks what is shown.
#[test]
#[ignore = "needs a container engine"]
fn a_person_at_a_terminal() {
    let name = "bottle-e2e-exec-tty";
    let project = Project::up(engine(), name, "");
    let myself = std::env::current_exe().unwrap();
    let start =
        format!("stty rows 33 cols 101; exec {} --ignored --exact child_at_a_terminal --nocapture", myself.display());
    let mut terminal = Process::new("timeout")
        .args(["--foreground", "60", "script", "--quiet", "--return", "--command", &start, "/dev/null"])
        .env("ENGINE_TEST_CONTAINER", name)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keys, mut screen) = (terminal.stdin.take().unwrap(), terminal.stdout.take().unwrap());
    let mut shown = Vec::new();
    let mut until = |wanted: &str| {
        let mut buffer = [0; 1024];
        while !String::from_utf8_lossy(&shown).contains(wanted) {
            let count = screen.read(&mut buffer).unwrap();
            assert!(count > 0, "it ended without {wanted:?}: {}", String::from_utf8_lossy(&shown));
            shown.extend_from_slice(&buffer[..count]);
        }
    };
    until("ready");
    // Ctrl-C goes to the program in the container. The client and this test keep running.
    keys.write_all(b"\x03").unwrap();
    until("caught");
    keys.write_all(b"typed\r").unwrap();
    until("/dev/pts/");
    assert_eq!(terminal.wait().unwrap().code(), Some(9));
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains("33 101") && shown.contains("<typed>"), "{shown}");
    drop(project);

    let without = Process::new(myself)
        .args(["--ignored", "--exact", "child_at_a_terminal", "--nocapture"])
        .env("ENGINE_TEST_CONTAINER", "bottle-e2e-exec-no-such-container")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(without.status.code(), Some(77));
    assert!(String::from_utf8_lossy(&without.stdout).contains("it does not exist"), "{without:?}");
}
