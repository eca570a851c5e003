//! Bottles on Podman 5 with root, without Compose. The tests of the other files run there unchanged: in their `PATH`, `docker` is
//! Podman.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bottle::exec::engine::{Capability, Flavour};
use bottle::exec::{Backend, Command as Line, Control, ExecError, Output};
use bottle::{Engine, Verify};
use bottle_testing::lab::{Lab, engine, not_run, run, scratch, sh, variable};

use crate::remote::{copy_images, pass_on};

/// Tests that must pass there as well.
const CONTAINMENT: &[&str] = &[
    "launch::every_client_reaches_an_allowed_host_and_no_other",
    "launch::a_direct_connection_fails_at_once_and_does_not_leave_the_bottle",
    "launch::the_agent_reaches_no_address_of_the_host",
    "launch::a_socket_bound_to_the_interface_reaches_nothing",
    "launch::an_agent_that_kills_every_process_does_not_end_its_container",
    "verify::every_protection_of_a_bottle_holds",
    "podman::child_a_container_that_was_created_in_another_way_is_not_handed_out",
];

/// The same for what a bottle is used for.
const WORK: &[&str] = &[
    "egress::credentials::every_client_holds_a_placeholder_and_the_host_receives_the_real_token",
    "git::the_agent_uses_its_remotes_as_usual_and_holds_no_key",
    "git::refusals::a_forbidden_push_is_refused_and_leaves_the_remote_unchanged",
    "supervise::approval::an_approval_takes_effect_in_the_running_bottle_and_keeps_connections_open",
    "lifecycle::spawn::a_live_command_moves_100_mb_both_ways_unchanged",
    "lifecycle::handle::every_method_of_a_handle_works",
    "lifecycle::power::a_stopped_bottle_starts_with_its_files_its_seal_and_its_credentials",
    "lifecycle::power::a_launcher_killed_while_its_bottle_is_stopped_leaves_nothing_after_recovery",
    "platform::docker::a_bottle_is_used_in_every_way_through_the_platform",
    "platform::docker::pushes_are_taken_or_refused_through_the_platform",
    "platform::docker::a_bottle_of_a_killed_launcher_is_recovered_through_the_platform",
    "platform::docker::what_the_platform_does_not_have_is_refused_with_the_reason",
];

/// A directory in which `docker` is Podman.
struct Podman {
    directory: tempfile::TempDir,
}

impl Podman {
    fn find() -> Self {
        let program = variable("BOTTLE_E2E_PODMAN");
        if program.is_empty() {
            not_run("needs Podman 5 (`cargo xtask e2e --podman podman`)");
        }
        let found = run(Command::new("sh").args(["-c", "command -v \"$0\"", &program]));
        let directory = tempfile::Builder::new().prefix("podman-").tempdir_in(scratch()).unwrap();
        std::os::unix::fs::symlink(Path::new(found.ok()), directory.path().join("docker")).unwrap();
        Self { directory }
    }

    /// Makes a command use Podman.
    fn on(&self, command: &mut Command) {
        command.env("PATH", format!("{}:{}", self.directory.path().display(), variable("PATH")));
        // The tests' own containers have health checks, which Podman gives to systemd.
        command.env("DISABLE_HC_SYSTEMD", "true");
    }

    fn load_images(&self) {
        let mut load = Command::new(self.directory.path().join("docker"));
        copy_images(load.args(["load", "--quiet"]).stderr(Stdio::piped()));
    }
}

fn pass(tests: &[&str]) {
    let podman = Podman::find();
    podman.load_images();
    pass_on("on Podman", tests, |command| podman.on(command));
}

#[test]
#[ignore = "needs a container engine and Podman 5"]
fn a_bottle_on_podman_is_contained_as_on_docker() {
    pass(CONTAINMENT);
}

#[test]
#[ignore = "needs a container engine and Podman 5"]
fn a_bottle_on_podman_is_used_as_on_docker() {
    pass(WORK);
}

/// Backend that adds a word to the command that creates one container, and takes away those that begin with another.
#[derive(Debug)]
struct Weakening {
    engine: Arc<dyn Backend>,
    container: &'static str,
    added: Option<&'static str>,
    removed: Option<&'static str>,
}

impl Backend for Weakening {
    fn run(&self, command: &Line, control: &Control) -> Result<Output, ExecError> {
        let words: Vec<String> = command.args().iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let is_it =
            |words: &[String]| words[0] == "create" && words[1].starts_with(&format!("--name={}", self.container));
        let is_network = self.container == "network" && words.starts_with(&["network".into(), "create".into()]);
        if !(is_network || words.len() > 2 && is_it(&words)) {
            return self.engine.run(command, control);
        }
        let kept = words
            .iter()
            .skip(1)
            .map(String::as_str)
            .filter(|word| self.removed.is_none_or(|removed| !word.starts_with(removed)));
        let words = words.iter().take(1).map(String::as_str);
        let words = words.chain(self.added.filter(|_| !is_network)).chain(kept);
        self.engine.run(&Line::new(command.program()).with_args(words), control)
    }
}

/// Runs on Podman, which another test has found.
#[test]
#[ignore = "started by another test"]
fn child_a_container_that_was_created_in_another_way_is_not_handed_out() {
    let lab = Lab::new("podman-weak");
    assert_eq!(engine().info().flavour, Flavour::Podman);
    engine().require(&Capability::ComposeWait).unwrap();
    let drop_all = "--cap-drop=ALL";
    for (container, added, removed, wanted) in [
        ("claude-bottle-podman-weak", Some("--cap-add=NET_RAW"), None, "capabilities"),
        ("claude-bottle-podman-weak", None, Some(drop_all), "capabilities"),
        ("claude-bottle-podman-weak", None, Some("--security-opt=seccomp="), "system call filter"),
        ("claude-bottle-podman-weak", Some("--volume=/etc:/host:ro"), None, "mounts"),
        ("claude-bottle-podman-weak", Some("--ipc=host"), None, "host namespaces"),
        ("claude-bottle-podman-weak", Some("--device=/dev/null:/dev/other"), None, "host namespaces"),
        ("claude-bottle-podman-weak", None, Some("--pids-limit=4096"), "limits"),
        ("claude-bottle-podman-weak", Some("--env=EXTRA=1"), None, "images and programs"),
        ("claude-bottle-seal", Some("--sysctl=net.ipv4.ip_forward=1"), None, "other settings"),
        ("claude-bottle-outlet", Some("--add-host=outside.test:192.0.2.1"), None, "other settings"),
        ("claude-bottle-outlet", Some("--cap-add=NET_RAW"), None, "capabilities"),
        ("network", None, Some("--disable-dns"), "networks and ports"),
    ] {
        let backend = Arc::clone(engine().backend());
        let weakening = Weakening { engine: backend, container, added, removed };
        let engine: Engine = engine().with_backend(Arc::new(weakening));
        let bottles = lab.options_of(engine).with_verification(Verify::Quick);
        let error = match bottles.launch(lab.plan("egress: {allow: [outside.test]}", "")) {
            Ok(bottle) => {
                bottle.close().unwrap();
                panic!("{container} {added:?} {removed:?}: the weakened bottle was handed out");
            }
            Err(error) => bottle::report(&error).to_string(),
        };
        assert!(error.contains(&format!("{wanted}: ")), "{container} {added:?} {removed:?}: {error}");
        lab.assert_nothing_left();
    }
    let bottle = lab.launch("egress: {allow: [outside.test]}", "");
    assert_eq!(sh(&bottle, "id -un").ok(), "agent");
    lab.close(&bottle);
}
