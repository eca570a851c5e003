//! Bottles on a Docker Engine that is reached over ssh or TLS: a second engine with a data directory, a network namespace and a
//! socket of its own, behind an ssh server and a TLS port on the loopback interface. The tests of the other files run there
//! unchanged.

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bottle::exec::engine::Exec;
use bottle::exec::{Control, Subprocess};
use bottle::{Bottles, Engine, EngineChoice, Host};
use bottle_testing::lab::canary::Hunt;
use bottle_testing::lab::{Lab, OUTSIDE, docker, figure, host, not_run, run, sh, variable};

/// Tests that must pass there as well.
const CONTAINMENT: &[&str] = &[
    "remote::child_nothing_of_the_bottle_is_on_either_disk",
    "launch::every_client_reaches_an_allowed_host_and_no_other",
    "egress::credentials::every_client_holds_a_placeholder_and_the_host_receives_the_real_token",
    "lifecycle::power::a_launcher_killed_while_its_bottle_is_stopped_leaves_nothing_after_recovery",
    "platform::docker::a_bottle_of_a_killed_launcher_is_recovered_through_the_platform",
    "verify::every_protection_of_a_bottle_holds",
];

/// The same for what a bottle is used for.
const WORK: &[&str] = &[
    "lifecycle::power::a_stopped_bottle_starts_with_its_files_its_seal_and_its_credentials",
    "platform::docker::a_bottle_is_used_in_every_way_through_the_platform",
    "platform::docker::pushes_are_taken_or_refused_through_the_platform",
    "platform::docker::what_the_platform_does_not_have_is_refused_with_the_reason",
    "git::the_agent_uses_its_remotes_as_usual_and_holds_no_key",
    "git::refusals::a_forbidden_push_is_refused_and_leaves_the_remote_unchanged",
];

/// The same over TLS.
const TLS: &[&str] = &[
    "launch::every_client_reaches_an_allowed_host_and_no_other",
    "platform::docker::a_bottle_is_used_in_every_way_through_the_platform",
];

/// Every sidecar with files of this host.
const FULL: &str = "\
workspace: {mode: none}
supervise: true
egress:
  allow: [outside.test]
  routes:
    - {host: api.anthropic.com, paths: [/echo], inject: {token: REMOTE_TOKEN, scheme: header}}
git:
  upstreams:
    - {name: app, url: 'https://outside.test/app.git'}";

const TOKEN: &str = "canary-of-a-remote-engine-8Vx2mQ";

/// Name of a context of Docker's client.
const CONTEXT: &str = "bottle-e2e-remote";

/// Names the engine's data directory to a test that runs on it.
const DATA: &str = "BOTTLE_E2E_REMOTE_DATA";

/// An engine behind ssh and TLS. It ends with this value, and nothing of it stays.
struct Remote {
    directory: PathBuf,
    processes: Vec<Child>,
    port: u16,
    tls_port: u16,
}

impl Remote {
    fn over_ssh() -> Self {
        let mut remote = Self::start(&["/usr/sbin/sshd", "/usr/bin/ssh-keygen"]);
        remote.start_ssh();
        remote
    }

    /// Starts the engine, with its TLS port. `more` are further programs that the test needs.
    fn start(more: &[&str]) -> Self {
        if variable("BOTTLE_E2E_REMOTE").is_empty() {
            not_run("needs a second engine (`cargo xtask e2e --remote`)");
        }
        for program in ["/usr/sbin/dockerd", "/usr/bin/unshare", "/usr/bin/openssl"].iter().chain(more) {
            if !Path::new(program).exists() {
                not_run(&format!("needs {program}"));
            }
        }
        if !rustix::process::geteuid().is_root() {
            not_run("needs root, for a second engine");
        }
        // Neither on tmpfs nor on an overlay: the engine has a storage driver of its own there.
        let directory = PathBuf::from(format!("/var/lib/bottle-e2e-remote-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let tls = TcpListener::bind("127.0.0.1:0").unwrap();
        let tls_port = tls.local_addr().unwrap().port();
        let mut remote = Self { directory, processes: Vec::new(), port, tls_port };
        remote.make_certificates();
        remote.start_engine(tls);
        remote
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn socket(&self) -> String {
        format!("unix://{}", self.path("docker.sock"))
    }

    /// Makes the certificates of the engine and of its client, each with an authority of its own.
    fn make_certificates(&self) {
        const SCRIPT: &str = "set -e
            for side in engine client; do
                mkdir $side
                openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj \"/CN=$side\" \\
                    -keyout $side/authority-key.pem -out $side/authority.pem
                openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost \\
                    -keyout $side/key.pem -out $side/request.pem
                printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth' >$side/extensions
                openssl x509 -req -days 2 -in $side/request.pem -CA $side/authority.pem -CAkey $side/authority-key.pem \\
                    -extfile $side/extensions -out $side/cert.pem
            done
            cp client/authority.pem engine/ca.pem
            cp engine/authority.pem client/ca.pem";
        run(Command::new("sh").args(["-c", SCRIPT]).current_dir(&self.directory)).ok();
    }

    /// The engine gets a port of this host's loopback interface, which is not in its network namespace.
    fn start_engine(&mut self, tls: TcpListener) {
        let script = "ip link set lo up && exec 3<&0 </dev/null && LISTEN_FDS=1 LISTEN_PID=$$ exec dockerd \"$@\"";
        let arguments = [
            "--net".to_owned(),
            "sh".into(),
            "-c".into(),
            script.into(),
            "sh".into(),
            "--host=fd://".into(),
            "--tlsverify".into(),
            format!("--tlscacert={}", self.path("engine/ca.pem")),
            format!("--tlscert={}", self.path("engine/cert.pem")),
            format!("--tlskey={}", self.path("engine/key.pem")),
            format!("--data-root={}", self.path("data")),
            format!("--exec-root={}", self.path("exec")),
            format!("--pidfile={}", self.path("pid")),
            format!("--host={}", self.socket()),
            "--bip=192.0.2.1/24".into(),
        ];
        let log = fs::File::create(self.path("dockerd.log")).unwrap();
        let mut engine = Command::new("/usr/bin/unshare");
        engine.args(arguments).stdin(OwnedFd::from(tls)).stdout(Stdio::null()).stderr(log);
        self.processes.push(engine.spawn().unwrap());
        let socket = self.socket();
        self.wait("the engine", || run(Command::new("docker").args(["-H", &socket, "version"])).code == 0);
    }

    fn start_ssh(&mut self) {
        for name in ["host", "user"] {
            let key = self.path(&format!("{name}-key"));
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &key])).ok();
        }
        let read = |name: &str| fs::read_to_string(self.directory.join(name)).unwrap();
        fs::write(self.path("authorized"), read("user-key.pub")).unwrap();
        fs::write(self.path("known"), format!("[127.0.0.1]:{} {}", self.port, read("host-key.pub"))).unwrap();
        let config = [
            format!("Port {}\nListenAddress 127.0.0.1", self.port),
            format!("HostKey {}\nAuthorizedKeysFile {}", self.path("host-key"), self.path("authorized")),
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none".into(),
            // A launch runs many commands at once, each in a connection of its own.
            "MaxStartups 200\nMaxSessions 200".into(),
            format!("SetEnv DOCKER_HOST={}", self.socket()),
        ];
        fs::write(self.path("sshd_config"), config.join("\n") + "\n").unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        let mut server = Command::new("/usr/sbin/sshd");
        let log = fs::File::create(self.path("sshd.log")).unwrap();
        server.args(["-D", "-e", "-f", &self.path("sshd_config")]).stdin(Stdio::null()).stderr(log);
        self.processes.push(server.spawn().unwrap());

        // Docker's client runs the `ssh` of its `PATH` and passes no option.
        fs::create_dir(self.path("bin")).unwrap();
        let program = format!(
            "#!/bin/sh\nexec /usr/bin/ssh -F none -i '{}' -o UserKnownHostsFile='{}' -o StrictHostKeyChecking=yes -o LogLevel=ERROR \"$@\"\n",
            self.path("user-key"),
            self.path("known")
        );
        fs::write(self.path("bin/ssh"), program).unwrap();
        fs::set_permissions(self.path("bin/ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        self.wait("the ssh server", || run(self.on(&mut Command::new("docker")).arg("version")).code == 0);
    }

    /// Makes a command use this engine.
    fn on<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let address = format!("ssh://root@127.0.0.1:{}", self.port);
        let path = format!("{}:{}", self.path("bin"), variable("PATH"));
        command.env("DOCKER_HOST", address).env("PATH", path).env(DATA, self.path("data"))
    }

    /// Makes a command use this engine over TLS, by the variables of Docker's client.
    fn on_tls(&self, command: &mut Command) {
        command.env("DOCKER_HOST", self.tls_address()).env("DOCKER_TLS_VERIFY", "1");
        command.env("DOCKER_CERT_PATH", self.path("client"));
    }

    /// Makes a command use this engine over TLS, by a context of Docker's client.
    fn by_context(&self, command: &mut Command) {
        command.env("DOCKER_CONFIG", self.path("config")).env("DOCKER_CONTEXT", CONTEXT);
    }

    fn tls_address(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.tls_port)
    }

    fn wait(&self, what: &str, is_up: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !is_up() {
            let log = |name: &str| fs::read_to_string(self.directory.join(name)).unwrap_or_default();
            assert!(Instant::now() < deadline, "{what} does not answer: {}{}", log("dockerd.log"), log("sshd.log"));
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Gives another engine the images of a full bottle, which a launch on the engine of this host has made. `load` reads them from
/// its standard input.
pub(crate) fn copy_images(load: &mut Command) {
    let lab = Lab::new("remote-images");
    let bottle = options(&lab).launch(lab.plan(FULL, "")).unwrap_or_else(|error| panic!("{}", bottle::report(&error)));
    let filter = format!("label=claude-bottle.slug={}", lab.slug);
    let images = docker(["ps", "--all", "--filter", &filter, "--format", "{{.Image}}"]).stdout;
    bottle.close().unwrap();
    let outside = variable("BOTTLE_E2E_OUTSIDE");
    let mut images: Vec<&str> = images.lines().chain([outside.as_str()]).collect();
    images.sort_unstable();
    images.dedup();
    let started = Instant::now();
    let mut save = Command::new("docker").arg("save").args(&images).stdout(Stdio::piped()).spawn().unwrap();
    let loaded = load.stdin(save.stdout.take().unwrap()).output().unwrap();
    assert!(save.wait().unwrap().success() && loaded.status.success(), "{loaded:?}");
    println!("loaded {} images in {:.0} s", images.len(), started.elapsed().as_secs_f64());
}

/// Runs tests of this program, each in a process of its own that `on` gives another engine.
pub(crate) fn pass_on(engine: &str, tests: &[&str], on: impl Fn(&mut Command)) {
    let mut failed = Vec::new();
    for name in tests {
        let started = Instant::now();
        let result = test(name, &on);
        let outcome = if result.is_ok() { "passed" } else { "failed" };
        figure(format_args!("{name} {outcome} {engine} in {:.0} s", started.elapsed().as_secs_f64()));
        failed.extend(result.err());
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn test(name: &str, on: impl Fn(&mut Command)) -> Result<(), String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", name, "--nocapture"]).stdin(Stdio::null()).stdout(Stdio::piped());
    on(&mut command);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).map(|_| text)
    });
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    let errors = errors.join().unwrap().unwrap();
    let passed = child.wait().unwrap().success() && text.contains("1 passed");
    if passed { Ok(()) } else { Err(format!("{name}:\n{text}\n{errors}")) }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // Containers of a failed test would keep their file systems mounted.
        let socket = self.socket();
        let left = run(Command::new("docker").args(["-H", &socket, "ps", "--all", "--quiet"])).stdout;
        for container in left.split_whitespace() {
            run(Command::new("docker").args(["-H", &socket, "rm", "--force", "--volumes", container]));
        }
        for process in self.processes.iter_mut().rev() {
            run(Command::new("kill").arg(process.id().to_string()));
            drop(process.wait());
        }
        // What the engine has started ends after it, and still writes there.
        for _ in 0..100 {
            if fs::remove_dir_all(&self.directory).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Returns the launch options, with the token in the environment.
fn options(lab: &Lab) -> Bottles {
    let host = host();
    let token = [("REMOTE_TOKEN".into(), TOKEN.into())];
    lab.options().with_host(Host::new(host.facts.clone(), host.environment().chain(token).collect::<Vec<_>>()))
}

/// Runs these tests on an engine of their own.
fn pass_over_ssh(tests: &[&str]) {
    let remote = Remote::over_ssh();
    copy_images(Command::new("docker").args(["-H", &remote.socket(), "load", "--quiet"]));
    pass_on("over ssh", tests, |command| _ = remote.on(command));
}

#[test]
#[ignore = "needs a container engine"]
fn a_bottle_over_ssh_is_contained_as_on_a_local_engine() {
    pass_over_ssh(CONTAINMENT);
}

#[test]
#[ignore = "needs a container engine"]
fn a_bottle_over_ssh_is_used_as_on_a_local_engine() {
    pass_over_ssh(WORK);
}

#[test]
#[ignore = "needs a container engine"]
fn a_bottle_over_tls_is_used_as_on_a_local_engine() {
    let remote = Remote::start(&[]);
    copy_images(Command::new("docker").args(["-H", &remote.socket(), "load", "--quiet"]));
    pass_on("over TLS", TLS, |command| remote.on_tls(command));

    let client = ["ca", "cert", "key"].map(|name| format!("{name}={}", remote.path(&format!("client/{name}.pem"))));
    let endpoint = format!("host={},{}", remote.tls_address(), client.join(","));
    let mut create = Command::new("docker");
    create.args(["context", "create", CONTEXT, "--docker", &endpoint]).env("DOCKER_CONFIG", remote.path("config"));
    run(&mut create).ok();
    pass_on("by a context", &TLS[..1], |command| remote.by_context(command));

    // A client that the engine does not know, and an engine that the client does not know.
    for what in ["cert", "ca"] {
        let stranger = remote.directory.join(format!("without-{what}"));
        fs::create_dir(&stranger).unwrap();
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            // The engine's own side has none of what the other one accepts.
            let side = if name.starts_with("ca") == (what == "ca") { "engine" } else { "client" };
            fs::copy(remote.directory.join(side).join(name), stranger.join(name)).unwrap();
        }
        let own = host();
        let variables = [("DOCKER_TLS_VERIFY", "1".into()), ("DOCKER_CERT_PATH", stranger.into_os_string())];
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value));
        let host = Host::new(own.facts.clone(), own.environment().chain(variables).collect::<Vec<_>>());
        let backend = Subprocess::new(host.with_docker(&remote.tls_address()).environment());
        let choice = EngineChoice::Program("docker".into());
        let error = Engine::detect(Arc::new(backend), &choice, Control::default()).unwrap_err().to_string();
        assert!(error.contains("tls: ") && error.contains("certificate"), "without {what}: {error}");
    }
}

/// Runs on the engine that another test has started.
#[test]
#[ignore = "started by another test"]
fn child_nothing_of_the_bottle_is_on_either_disk() {
    let data = PathBuf::from(variable(DATA));
    let lab = Lab::new("remote");
    let began = SystemTime::now();
    let bottles = options(&lab);
    assert!(!bottles.engine().info().endpoint.is_local, "{:?}", bottles.engine().info());
    let launching = Instant::now();
    let bottle = bottles.launch(lab.plan(FULL, "")).unwrap_or_else(|error| panic!("{}", bottle::report(&error)));
    figure(format_args!("launch to hand-out over ssh: {:.1} s", launching.elapsed().as_secs_f64()));
    lab.outside.connect(&bottle.names().egress_network());

    let mut hunt = Hunt::default();
    hunt.add("token", TOKEN);
    hunt.add_keys(&lab.state());
    assert!(hunt.count() >= 3, "the authorities of pipelock and egress have keys");
    // What the engine needs is all there: it works without this host's files.
    let (state, aside) = (lab.state(), lab.root.path().join("aside"));
    fs::rename(&state, &aside).unwrap();
    for service in [bottle::plan::Service::Pipelock, bottle::plan::Service::Egress] {
        docker(["restart", &bottle.names().container(service)]);
    }
    let script = "for i in $(seq 60); do curl -fsS https://api.anthropic.com/echo && exit; sleep 0.5; done; exit 1";
    let answer = Exec::new(["sh", "-c", script]);
    assert!(bottle.exec(answer).unwrap().status.is_success());
    assert!(lab.outside.events().iter().any(|event| event.to_string().contains(TOKEN)), "the token was not in use");
    assert_ne!(sh(&bottle, &format!("curl -fsS https://forbidden.test/ || curl -fsS http://{OUTSIDE}:1/")).code, 0);
    fs::rename(&aside, &state).unwrap();

    // The outside host is there as well, and logs what it receives.
    let format = "{{.GraphDriver.Data.UpperDir}}\n{{.LogPath}}";
    let outside = docker(["inspect", "--format", format, lab.outside.container()]).stdout;
    let outside: Vec<PathBuf> = outside.lines().map(PathBuf::from).collect();
    hunt.written("disk of the engine", &data, began, &outside);
    assert!(hunt.bytes("disk of the engine") > 10_000, "the engine has written its configuration");
    hunt.engine("claude-bottle.slug", &lab.slug);
    assert!(hunt.found().is_empty(), "{}", hunt.table());
    println!("{}", hunt.table());

    // The hunt finds what is there.
    docker([
        "exec",
        &bottle.names().container(bottle::plan::Service::Agent),
        "sh",
        "-c",
        &format!("echo {TOKEN} > /tmp/x"),
    ]);
    let mut weak = Hunt::default();
    weak.add("token", TOKEN);
    weak.written("disk of the engine", &data, began, &outside);
    assert!(!weak.found().is_empty());
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn an_engine_that_does_not_answer_over_ssh_is_named() {
    let backend = Subprocess::new(host().with_docker("ssh://root@127.0.0.1:1").environment());
    let choice = EngineChoice::Program("docker".into());
    let error = Engine::detect(std::sync::Arc::new(backend), &choice, Control::default()).unwrap_err();
    assert!(bottle::report(&error).to_string().contains("docker"), "{error}");
}
