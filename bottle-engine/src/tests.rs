use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bottle_exec::{
    Answer, Backend, Command, Control, ExecError, ExitStatus, Fault, Matcher, Output, RecordingBackend, SecretValue,
    Stdin, Subprocess,
};

use super::*;

const DOCKER_26: &str = r#"{"Client":{"Version":"28.2.2","ApiVersion":"1.45","Context":"work"},"Server":{"Components":
    [{"Name":"Engine","Version":"26.1.5+dfsg1"},{"Name":"containerd","Version":"1.7"}]}}"#;
const DOCKER_26_INFO: &str = r#"{"ServerVersion":"26.1.5+dfsg1","OSType":"linux","Architecture":"x86_64","MemTotal":25276502016,"NCPU":2,"CpuCfsQuota":true,
    "SecurityOptions":["name=rootless"],"Runtimes":{"runc":{"path":"runc"},"runsc":{"path":"/usr/bin/runsc"}},
    "ClientInfo":{"Plugins":[{"Name":"buildx"},{"Name":"compose","Version":"2.26.1-4"}]}}"#;

fn rehearsed() -> (Arc<RecordingBackend>, Engine) {
    let backend = Arc::new(rehearsal());
    let engine = Engine::detect(backend.clone(), &EngineChoice::Auto, Control::default()).unwrap();
    backend.clear();
    (backend, engine)
}

fn answering(answers: impl IntoIterator<Item = (&'static str, Answer)>) -> Engine {
    let backend = answers.into_iter().fold(RecordingBackend::new(), |backend, (words, answer)| {
        backend.with_answer(Matcher::prefix(words.split(' ')), answer)
    });
    let info = rehearsed().1.info;
    Engine { backend: Arc::new(backend), info, control: Control::default(), limits: Limits::default() }
}

fn detect(backend: RecordingBackend) -> Result<EngineInfo, EngineError> {
    let engine = Engine::detect(Arc::new(backend), &EngineChoice::Auto, Control::default())?;
    Ok(engine.info().clone())
}

#[test]
fn command_lines() {
    let (backend, engine) = rehearsed();
    let project = ComposeProject::new("claude-bottle-demo", "/state/demo dir", "/state/demo dir/docker-compose.yml");
    let compose = engine.compose(&project).unwrap();
    let token = SecretValue::new("do-not-show-me");
    compose.up(Duration::from_millis(59_001), [("TOKEN".to_owned(), token.clone())]).unwrap();
    compose.create([("TOKEN".to_owned(), token.clone())]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    compose.logs_to(&directory.path().join("compose.log")).unwrap();
    compose.down(Duration::from_secs(3)).unwrap();
    assert_eq!(compose.ps().unwrap(), []);
    compose.config().unwrap();

    let mut build = Build::new("claude-bottle-agent:0123", BuildContext::Tar(vec![0; 1024]));
    build.args.insert("BASE".into(), "debian:trixie-slim".into());
    build.args.insert("NPM_TOKEN".into(), token.clone().into());
    build.labels.insert("claude-bottle.slug".into(), "demo".into());
    engine.build(&build).unwrap();
    engine.build(&Build::new("x", BuildContext::Directory("/ctx".into()))).unwrap();

    let network = NewNetwork {
        name: "claude-bottle-net-demo".into(),
        internal: true,
        driver_options: [("com.docker.network.bridge.inhibit_ipv4".into(), "true".into())].into(),
        labels: [("claude-bottle.slug".into(), "demo".into())].into(),
        subnet: None,
    };
    engine.create_network(&network).unwrap();
    assert_eq!(engine.network("claude-bottle-net-demo").unwrap().unwrap().subnets, ["192.0.2.0/24"]);
    assert!(!engine.exists(ObjectKind::Image, "claude-bottle-agent:0123").unwrap());
    for kind in ObjectKind::IN_ORDER_OF_REMOVAL {
        engine.remove(kind, "thing").unwrap();
        let value = Filter::LabelValue("claude-bottle.slug".into(), "demo".into());
        for filter in [Filter::Label("claude-bottle.slug".into()), value, Filter::NamePrefix("claude-".into())] {
            assert_eq!(engine.list(kind, &filter).unwrap(), []);
        }
    }

    let exec = Exec::new(["sh", "-c", "echo $A"])
        .with_user("agent")
        .with_workdir("/home/agent/work")
        .with_env("A", "plain value")
        .with_env("B", token)
        .with_stdin(Stdin::Bytes(b"in".to_vec()));
    engine.exec("claude-bottle-demo", &exec).unwrap();
    engine.exec_streaming("claude-bottle-demo", &Exec::new(["true"])).unwrap();
    engine.exec_interactive("claude-bottle-demo", &Exec::new(["sh"]), true).unwrap();
    engine.exec_interactive("claude-bottle-demo", &Exec::new(["sh"]), false).unwrap();
    let empty = engine.exec("claude-bottle-demo", &Exec::default()).unwrap_err();
    assert!(empty.to_string().ends_with("it is empty; accepted: a program and its arguments"), "{empty}");
    for method in [CopyMethod::Engine, CopyMethod::Tar] {
        engine.cp_in("claude-bottle-demo", "/etc", Stdin::Bytes(tar_stream()), method, None).unwrap();
        engine
            .cp_out("claude-bottle-demo", "/home/agent/work/", Path::new("/tmp/y.tar"), method, Some("agent"))
            .unwrap();
    }
    engine.kill("claude-bottle-pipelock-demo", "HUP").unwrap();
    engine.wait_ready("claude-bottle-demo", Duration::ZERO).unwrap();

    let lines = without_marks(&backend).join("\n");
    assert!(!lines.contains("do-not-show-me"));
    insta::assert_snapshot!(lines);
}

fn tar_stream() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    builder.append_data(&mut header, "kept", std::io::empty()).unwrap();
    for (name, content) in [("kept/it's\na file", "hello"), ("kept/empty", ""), ("kept/-n", "12345678901")] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "kept/link", "nowhere").unwrap();
    builder.into_inner().unwrap()
}

/// An engine that reports success and copies nothing. The exec that checks a copy runs in this host's own shell; every
/// other command succeeds.
#[derive(Debug)]
struct DroppingBackend {
    /// True if the list of files to check is dropped too.
    drops_lists: bool,
}

impl Backend for DroppingBackend {
    fn run(&self, command: &Command, control: &Control) -> Result<Output, ExecError> {
        let words = command.args();
        match words.iter().position(|word| word == "sh") {
            Some(at) => {
                let stdin = if self.drops_lists { Stdin::Null } else { command.stdin().clone() };
                let local = Command::new("sh").with_args(&words[at + 1..]).with_stdin(stdin);
                Subprocess::new([("PATH".into(), "/usr/bin:/bin".into())]).run(&local, control)
            }
            None if words.last().is_some_and(|word| word == "-") => {
                let said = b"Error response from daemon: Could not find the file".to_vec();
                Ok(Output::ended(ExitStatus::Code(1)).with_stderr(said))
            }
            None => Ok(Output::ended(ExitStatus::Code(0))),
        }
    }
}

#[test]
fn a_copy_that_copies_nothing_is_an_error_that_names_the_missing_files() {
    let engine = rehearsed().1.with_backend(Arc::new(DroppingBackend { drops_lists: false }));
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().to_str().unwrap();
    let stream = || Stdin::Bytes(tar_stream());
    for method in [CopyMethod::Engine, CopyMethod::Tar] {
        let copy = || engine.cp_in("box", directory, stream(), method, None).map_err(|error| error.to_string());
        let empty = root.path().join("kept");
        let error = copy().unwrap_err();
        assert!(
            error.starts_with("copy files into `box:/") && error.contains("the engine reports success, but"),
            "{error}"
        );
        assert!(error.contains("`./kept` is missing, `./kept/link` is missing, `./kept/-n` is missing"), "{error}");

        // Files that already exist with the right size count as copied.
        tar::Archive::new(tar_stream().as_slice()).unpack(root.path()).unwrap();
        assert_eq!(copy(), Ok(()));
        std::fs::write(empty.join("-n"), "123").unwrap();
        let error = copy().unwrap_err();
        assert!(error.ends_with("but `./kept/-n` has 3 bytes instead of 11"), "{error}");
        std::fs::remove_dir_all(empty).unwrap();
    }
    let deaf = rehearsed().1.with_backend(Arc::new(DroppingBackend { drops_lists: true }));
    let error = deaf.cp_in("box", directory, stream(), CopyMethod::Engine, None).unwrap_err().to_string();
    assert!(error.ends_with("but the list of what to look for is cut: 0 of 5 names"), "{error}");
    // The last small file is copied back from a container that does not run, or that has no such directory for the user.
    let error = engine.cp_into_created("box", "/", stream()).unwrap_err().to_string();
    assert!(error.contains("but `kept/-n` is missing: Error response from daemon"), "{error}");
    let error = engine.cp_in("box", "/nowhere", stream(), CopyMethod::Engine, None).unwrap_err().to_string();
    assert!(error.contains("but `kept/-n` is missing"), "{error}");
}

/// Returns the recorded lines without the random mark of each exec.
fn without_marks(backend: &RecordingBackend) -> Vec<String> {
    let plain = |line: String| match line.split_once("BOTTLE_EXEC=") {
        Some((before, after)) => format!("{before}BOTTLE_EXEC={}", &after[18..]),
        None => line,
    };
    backend.lines().into_iter().map(plain).collect()
}

#[test]
fn an_interrupted_exec_is_stopped_in_the_container_by_its_mark_and_user() {
    for fault in [Fault::TimedOut, Fault::Cancelled, Fault::Signal(9)] {
        let backend = Arc::new(RecordingBackend::new().with_fault(1, fault));
        let engine = rehearsed().1.with_backend(backend.clone()).with_control(Control::default());
        let result = engine.exec("box", &Exec::new(["sleep", "9"]).with_user("agent"));
        assert!(result.is_err() || fault == Fault::Signal(9), "{fault:?}: {result:?}");
        let commands = backend.commands();
        assert_eq!(commands.len(), 2, "{fault:?}");
        let word = |command: &Command, at: usize| command.args()[at].to_string_lossy().into_owned();
        let mark = word(&commands[0], 4);
        assert!(mark.starts_with("BOTTLE_EXEC=") && mark.len() == 30, "{mark}");
        let line = commands[1].to_string();
        let wanted = format!("docker exec --interactive --user agent box sh -s {mark} 10 # reads ");
        assert!(line.starts_with(&wanted), "{line}");
    }
    // An exec that ends by itself, or was never started, needs no further command.
    for fault in [Fault::Exit(1), Fault::Spawn, Fault::NotFound] {
        let backend = Arc::new(RecordingBackend::new().with_fault(1, fault));
        _ = rehearsed().1.with_backend(backend.clone()).exec("box", &Exec::new(["true"]));
        assert_eq!(backend.commands().len(), 1, "{fault:?}");
    }
    let (backend, engine) = rehearsed();
    engine.control().cancel().cancel();
    assert!(engine.exec("box", &Exec::new(["true"])).unwrap_err().is_cancelled());
    assert_eq!(backend.lines(), Vec::<String>::new());
}

#[test]
fn a_process_that_survives_an_interrupted_exec_is_an_error() {
    let survived = Answer::exit(1).with_stderr("still running: 12\n");
    let backend = RecordingBackend::new().with_fault(1, Fault::Cancelled).with_default(survived);
    let engine = rehearsed().1.with_backend(Arc::new(backend)).with_control(Control::default());
    let error = engine.exec("box", &Exec::new(["sleep", "9"])).unwrap_err();
    assert!(error.is_cancelled() && error.to_string().contains("still running: 12"), "{error}");
}

#[test]
fn logs_are_plain_text_in_the_file_and_in_the_stream() {
    let printed = "\x1b[2Kagent-1  | 2026-01-01T00:00:00Z größe\x1b]0;title\x07\x1b[31m!\r\n\x1b[2K";
    let plain = "agent-1  | 2026-01-01T00:00:00Z größe!\n";
    let backend = RecordingBackend::new().with_answer(Matcher::words(["logs"]), Answer::stdout(printed));
    let engine = rehearsed().1.with_backend(Arc::new(backend));
    let project = ComposeProject::new("p", "/d", "/d/f");
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("compose.log");
    engine.compose(&project).unwrap().logs_to(&log).unwrap();
    assert_eq!(std::fs::read_to_string(&log).unwrap(), plain);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&log).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o644);
    let missing = directory.path().join("missing/compose.log");
    let error = engine.compose(&project).unwrap().logs_to(&missing).unwrap_err().to_string();
    assert!(error.contains("save the output of `docker compose"), "{error}");

    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let sink = move |_, bytes: &[u8]| sink.lock().unwrap().extend_from_slice(bytes);
    let engine = engine.with_control(Control::default().with_sink(Arc::new(sink)));
    engine.compose(&project).unwrap().stream_logs(false).unwrap();
    assert_eq!(String::from_utf8(seen.lock().unwrap().clone()).unwrap(), plain);
}

#[test]
fn docker_is_recognised_by_its_output() {
    let info = detect(
        RecordingBackend::new()
            .with_answer(Matcher::prefix(["version"]), Answer::stdout(DOCKER_26))
            .with_answer(Matcher::prefix(["info"]), Answer::stdout(DOCKER_26_INFO))
            .with_answer(Matcher::prefix(["context"]), Answer::stdout("ssh://build@elsewhere\n")),
    )
    .unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&(&info, info.capabilities())).unwrap());
}

#[test]
fn an_engine_on_a_network_is_used_with_verified_tls_only() {
    let endpoint = |answer: &str| {
        let backend = RecordingBackend::new()
            .with_answer(Matcher::prefix(["version"]), Answer::stdout(DOCKER_26))
            .with_answer(Matcher::prefix(["info"]), Answer::stdout(DOCKER_26_INFO))
            .with_answer(Matcher::prefix(["context"]), Answer::stdout(format!("{answer}\n")));
        detect(backend).map(|info| info.endpoint.is_local)
    };
    for answer in
        ["tcp://192.0.2.1:2375 ", "tcp://build.example:2375 ", "tcp://[2001:db8::1]:2375/x ", "http://192.0.2.1 "]
    {
        let error = endpoint(answer).unwrap_err().to_string();
        assert!(error.contains(answer.trim()) && error.contains("DOCKER_TLS_VERIFY"), "{error}");
    }
    for answer in [
        "tcp://192.0.2.1:2376 verified",
        "tcp://127.0.0.1:2375 ",
        "tcp://[::1]:2375 ",
        "tcp://localhost:2375 ",
        "ssh://u@192.0.2.1 ",
    ] {
        assert_eq!(endpoint(answer).ok(), Some(false), "{answer}");
    }
    assert_eq!(endpoint("unix:///run/docker.sock ").ok(), Some(true));
}

#[test]
fn a_clock_that_differs_by_more_than_a_minute_is_a_warning() {
    let info = |ahead: i64| {
        let told = time::OffsetDateTime::from(std::time::SystemTime::now()) + time::Duration::seconds(ahead);
        let told = told.format(&time::format_description::well_known::Rfc3339).unwrap();
        let answer = DOCKER_26_INFO.replacen('{', &format!(r#"{{"SystemTime":"{told}","#), 1);
        detect(
            RecordingBackend::new()
                .with_answer(Matcher::prefix(["version"]), Answer::stdout(DOCKER_26))
                .with_answer(Matcher::prefix(["info"]), Answer::stdout(answer))
                .with_answer(Matcher::prefix(["context"]), Answer::stdout("unix:///x\n")),
        )
        .unwrap()
    };
    for ahead in [0, 50, -50] {
        assert_eq!(info(ahead).clock_warning(), None, "{ahead} s");
    }
    for (ahead, words) in [(90, "ahead of"), (-86_400, "behind")] {
        let warning = info(ahead).clock_warning().unwrap();
        assert!(warning.contains(words), "{ahead} s: {warning}");
    }
}

#[test]
fn podman_is_recognised_by_its_output_even_when_it_is_called_docker() {
    let info = detect(
        RecordingBackend::new()
            .with_answer(
                Matcher::prefix(["version"]),
                Answer::stdout(r#"{"Client":{"APIVersion":"5.4.2","Version":"5.4.2","Os":"linux"}}"#),
            )
            .with_answer(
                Matcher::prefix(["info"]),
                Answer::stdout(
                    r#"{"host":{"arch":"amd64","os":"linux","ociRuntime":{"name":"crun"},"serviceIsRemote":false,
                    "remoteSocket":{"path":"/run/podman/podman.sock"},
                    "security":{"rootless":true,"seccompProfilePath":"/usr/share/containers/seccomp.json"}},
                    "version":{"Version":"5.4.2"}}"#,
                ),
            )
            .with_answer(Matcher::prefix(["compose", "version"]), Answer::stdout("podman-compose version 1.3.0\n")),
    )
    .unwrap();
    assert_eq!((info.flavour, info.program.as_str(), info.rootless), (Flavour::Podman, "docker", true));
    assert!(info.endpoint.is_local);
    let capabilities = info.capabilities();
    assert!(!capabilities.compose_wait && !capabilities.inhibit_ipv4 && !capabilities.sealed_resolver);
    assert_eq!(info.to_string(), "podman 5.4.2 without root");
    let with_root = |version: &str, runtime: &str| {
        let mut info = info.clone();
        (info.rootless, info.server_version) = (false, Version::parse(version).unwrap());
        info.runtimes = [runtime.to_owned()].into();
        info.capabilities()
    };
    let capabilities = with_root("5.4.2", "crun");
    assert!(capabilities.compose_wait && capabilities.no_name_server && capabilities.sealed_resolver);
    assert!(!with_root("4.3.1", "crun").compose_wait, "its options differ");
    assert!(!with_root("5.4.2", "runsc").compose_wait, "no rule of the kernel applies to it");
}

/// Returns an engine like Podman 5.4 with root, and its backend.
fn podman() -> (Arc<RecordingBackend>, Engine) {
    let backend = Arc::new(
        RecordingBackend::new()
            .with_answer(Matcher::prefix(["version"]), Answer::stdout(r#"{"Client":{"APIVersion":"5.4.2"}}"#))
            .with_answer(
                Matcher::prefix(["info"]),
                Answer::stdout(
                    r#"{"host":{"arch":"amd64","os":"linux","ociRuntime":{"name":"crun"},"security":{"rootless":false}},
                    "version":{"Version":"5.4.2"}}"#,
                ),
            )
            .with_answer(
                Matcher::prefix(["image", "inspect"]),
                Answer::stdout(
                    r#"[{"Id":"1","RepoTags":["localhost/seal:1","docker.io/library/debian:12"],"Config":{}}]"#,
                ),
            ),
    );
    let engine = Engine::detect(backend.clone(), &EngineChoice::Program("podman".into()), Control::default()).unwrap();
    backend.clear();
    (backend, engine)
}

#[test]
fn podman_is_asked_in_its_own_words() {
    let (backend, engine) = podman();
    let network = NewNetwork { name: "net".into(), internal: true, ..NewNetwork::default() };
    engine.create_network(&network).unwrap();
    engine.remove(ObjectKind::Container, "a").unwrap();
    engine.set_restart_policy(["a", "b"], "on-failure").unwrap();
    let secret = ("TOKEN".to_owned(), SecretValue::new("do-not-show-me"));
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let commands = [words(&["volume", "create", "v"]), words(&["create", "--env=TOKEN", "image"])];
    engine.create_each(commands.iter().map(Vec::as_slice), std::slice::from_ref(&secret)).unwrap();
    let lines = backend.lines();
    assert_eq!(
        lines[..5],
        [
            "podman network create --driver bridge --internal --ipv6=false --disable-dns net",
            "podman container rm --force --volumes --depend a",
            "podman update --restart on-failure a",
            "podman update --restart on-failure b",
            "podman volume create v",
        ]
    );
    // Only the container that names the variable gets its value.
    assert!(lines[5].ends_with("podman create --env=TOKEN image") && lines[5].contains("TOKEN="), "{}", lines[5]);
    assert!(!lines[4].contains("TOKEN") && lines.iter().all(|line| !line.contains("do-not-show-me")), "{lines:#?}");
    let images = engine.images_named(&["seal:1"]).unwrap();
    assert_eq!(images[0].tags, ["seal:1", "debian:12"]);
}

#[test]
fn when_no_engine_answers_the_error_quotes_each_one() {
    let backend = RecordingBackend::new()
        .with_answer(Matcher::when(|command| command.program() == "docker"), Answer::exit(1).with_stderr("no daemon\n"))
        .with_answer(Matcher::when(|command| command.program() == "nerdctl"), Answer::stdout("{}"))
        .with_fault(2, Fault::NotFound);
    insta::assert_snapshot!(detect(backend).unwrap_err());
}

#[test]
fn a_client_without_a_daemon_is_not_an_engine() {
    let down = r#"{"ServerVersion":"","ServerErrors":["cannot connect"],"ClientInfo":{}}"#;
    let error = detect(
        RecordingBackend::new()
            .with_answer(Matcher::prefix(["version"]), Answer::stdout(r#"{"Client":{"ApiVersion":"1"},"Server":null}"#))
            .with_default(Answer::stdout(down)),
    )
    .unwrap_err();
    assert!(error.to_string().contains("it names no version of the engine"), "{error}");
}

#[test]
fn a_gvisor_with_its_own_network_stack_is_known_by_its_arguments() {
    let has_own = |runtime: &str| {
        let info = format!(
            r#"{{"ServerVersion":"28.3.0","OSType":"linux","Architecture":"x86_64","Runtimes":{{"runc":{{"path":"runc"}},
                "sandbox":{runtime}}},"ClientInfo":{{"Plugins":[{{"Name":"compose","Version":"v2.38.1"}}]}}}}"#
        );
        let version = r#"{"Client":{"ApiVersion":"1.51"},"Server":{"Components":[{"Name":"Engine"}]}}"#;
        let backend = RecordingBackend::new()
            .with_answer(Matcher::prefix(["version"]), Answer::stdout(version))
            .with_answer(Matcher::prefix(["info"]), Answer::stdout(info.as_str()))
            .with_default(Answer::stdout("unix:///var/run/docker.sock\n"));
        let capabilities = detect(backend).unwrap().capabilities();
        assert!(capabilities.has(&Capability::KernelNetwork("runc".into())));
        !capabilities.has(&Capability::KernelNetwork("sandbox".into()))
    };
    for own in [
        r#"{"path":"/usr/bin/runsc"}"#,
        r#"{"path":"runsc","runtimeArgs":["--debug","--platform=kvm"]}"#,
        r#"{"path":"runsc","runtimeArgs":["--network=host","-network","sandbox"]}"#,
        r#"{"path":"runsc","runtimeArgs":["--network=none"]}"#,
    ] {
        assert!(has_own(own), "{own}");
    }
    for kernel in [
        r#"{"path":"/usr/bin/runsc","runtimeArgs":["--network=host"]}"#,
        r#"{"path":"/usr/bin/runsc","runtimeArgs":["--debug","-network","host"]}"#,
        r#"{"path":"/usr/bin/crun"}"#,
        // Its arguments are in a file of the engine's host.
        r#"{"runtimeType":"io.containerd.runsc.v1","options":{"TypeUrl":"io.containerd.runsc.v1.options"}}"#,
    ] {
        assert!(!has_own(kernel), "{kernel}");
    }
}

#[test]
fn a_capability_that_is_missing_is_an_error_that_names_it() {
    let (_, engine) = rehearsed();
    assert!(engine.require(&Capability::Runtime("runsc".into())).is_ok());
    let error = engine.require(&Capability::Runtime("kata".into())).unwrap_err();
    assert_eq!(error.to_string(), "use the runtime `kata`: docker 28.3.0 with Compose v2.38.1 does not offer it");
}

#[test]
fn removing_a_missing_object_succeeds_and_a_real_failure_is_an_error() {
    let gone = "Error response from daemon: network x not found\nexit status 1\n";
    let engine = answering([("network rm", Answer::exit(1).with_stderr(gone))]);
    assert!(!engine.remove(ObjectKind::Network, "x").unwrap());
    for stderr in [
        "Error response from daemon: error while removing network: network x has active endpoints\n",
        "Error response from daemon: No such container: a\nError response from daemon: permission denied\n",
        "",
    ] {
        let engine = answering([("network rm", Answer::exit(1).with_stderr(stderr))]);
        assert!(engine.remove(ObjectKind::Network, "x").is_err(), "{stderr}");
    }
}

#[test]
fn a_removal_that_another_client_began_is_waited_for() {
    let under_way = "Error response from daemon: removal of container a is already in progress\n";
    let gone = "Error response from daemon: No such container: a\n";
    let engine = answering([
        ("container rm", Answer::exit(1).with_stderr(under_way).once()),
        ("container rm", Answer::exit(1).with_stderr(gone)),
    ]);
    assert!(!engine.remove(ObjectKind::Container, "a").unwrap());
}

#[test]
fn output_that_cannot_be_parsed_is_quoted_with_its_command() {
    let engine = answering([("network inspect", Answer::stdout("<html>a proxy's page</html>"))]);
    let error = engine.network("n").unwrap_err().to_string();
    assert!(error.starts_with("parse the output of `docker network inspect n`: expected value"), "{error}");
    assert!(error.ends_with("it answered: `<html>a proxy's page</html>`"), "{error}");
}

#[test]
fn listed_objects_are_inspected_and_may_vanish_meanwhile() {
    let engine = answering([
        ("container ls", Answer::stdout("b\na\n")),
        ("container inspect", Answer::stdout(r#"[{"Id":"a","Name":"/box","Config":{"Labels":{"k":"v"}}}]"#)),
    ]);
    let found = engine.list(ObjectKind::Container, &Filter::Label("k".into())).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].name.as_str(), found[0].labels["k"].as_str()), ("box", "v"));
}

#[test]
fn a_variable_that_the_client_itself_reads_is_refused() {
    let (backend, engine) = rehearsed();
    let project = ComposeProject::new("p", "/d", "/d/f");
    let compose = engine.compose(&project).unwrap();
    for name in ["DOCKER_HOST", "PATH", "HOME", "COMPOSE_FILE", "LD_PRELOAD", "CONTAINERS_CONF", "http_proxy"] {
        let secret = SecretValue::new("x");
        assert!(compose.up(Duration::ZERO, [(name.to_owned(), secret.clone())]).is_err(), "{name}");
        assert!(engine.exec("c", &Exec::new(["x"]).with_env(name, secret)).is_err(), "{name}");
    }
    assert!(backend.commands().is_empty());
}

#[test]
fn waiting_ends_at_once_when_there_is_nothing_to_wait_for() {
    let exited = r#"[{"Name":"/a","State":{"Status":"exited","ExitCode":3},"Config":{}}]"#;
    let starting = r#"[{"Name":"/a","State":{"Status":"running","Health":{"Status":"starting"}},"Config":{}}]"#;
    let wait = |answer: Answer, within| {
        answering([("container inspect", answer)]).wait_ready("a", within).unwrap_err().to_string()
    };
    let long = Duration::from_secs(3600);
    assert_eq!(wait(Answer::stdout(exited), long), "wait for container `a`: it ended with status 3");
    let gone = Answer::exit(1).with_stderr("Error: No such container: a\n");
    assert_eq!(wait(gone, long), "wait for container `a`: there is no such container");
    assert_eq!(
        wait(Answer::stdout(starting), Duration::ZERO),
        "wait for container `a`: after 0ns it is running and starting"
    );
}

#[test]
fn a_subnet_that_another_network_has_is_an_error_of_its_own() {
    let refuse = |said: &str| {
        let answer = Answer::exit(1).with_stderr(said);
        let backend = Arc::new(rehearsal().with_answer(Matcher::prefix(["network", "create"]), answer));
        let engine = Engine::detect(backend, &EngineChoice::Auto, Control::default()).unwrap();
        let subnet = Some("10.213.0.0/28".into());
        engine.create_network(&NewNetwork { name: "net".into(), subnet, ..NewNetwork::default() }).unwrap_err()
    };
    for said in [
        "Error response from daemon: Pool overlaps with other one on this address space\n",
        "Error response from daemon: invalid pool request: Pool overlaps with other one on this address space\n",
        "Error response from daemon: cannot create network 0a (br-0a): conflicts with network 1b (br-1b): networks have overlapping IPv4\n",
        "Error: subnet 10.213.0.0/28 is already used on the host or by another config\n",
    ] {
        assert!(matches!(refuse(said), EngineError::SubnetTaken { .. }), "{said}");
    }
    let name = "Error response from daemon: network with name net already exists\n";
    assert!(matches!(refuse(name), EngineError::Exec(_)));
}

#[test]
fn a_pushed_image_has_the_digest_of_the_registry_and_leaves_no_tag() {
    let digest = format!("sha256:{}", "0a".repeat(32));
    let printed =
        format!("The push refers to repository [registry.test/x]\nabc: Pushed\n1: digest: {digest} size: 1234\n");
    let engine = |answer: Answer| {
        let backend = Arc::new(RecordingBackend::new().with_answer(Matcher::words(["push"]), answer));
        let (info, limits) = (rehearsed().1.info, Limits::default());
        (backend.clone(), Engine { backend, info, control: Control::default(), limits })
    };
    let (backend, pushing) = engine(Answer::stdout(printed));
    assert_eq!(pushing.push("x:1", "registry.test/x:1").unwrap(), digest);
    let expected =
        ["docker tag x:1 registry.test/x:1", "docker push registry.test/x:1", "docker rmi registry.test/x:1"];
    assert_eq!(backend.lines(), expected);
    backend.clear();
    pushing.push("registry.test/x:1", "registry.test/x:1").unwrap();
    assert_eq!(backend.lines(), ["docker push registry.test/x:1"], "the tag is the caller's");
    let (_, silent) = engine(Answer::stdout("done"));
    let error = silent.push("x:1", "registry.test/x:1").unwrap_err();
    assert!(error.to_string().contains("it has no digest"), "{error}");
}

#[test]
fn every_container_is_listed_whoever_created_it() {
    let list = "0123abcd|mine|running|net-a,net-b|demo\n4567cdef|joined|Up||\n89ab0123|old|exited|bridge|other\n|odd\n";
    let engine = answering([("container ls --all", Answer::stdout(list))]);
    let listed = engine.list_containers().unwrap();
    let shown: Vec<_> = listed.iter().map(|it| (&*it.name, it.is_up, it.has_network, &*it.project)).collect();
    assert_eq!(shown, [("mine", true, true, "demo"), ("joined", true, false, ""), ("old", false, true, "other")]);
    assert_eq!(listed[1].id, "4567cdef");
}
