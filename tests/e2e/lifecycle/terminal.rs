//! `examples/launch` in a pseudo-terminal, as used by a person.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::{Place, SMALL, manifest};
use bottle_testing::lab::{example, needs_runtime, scratch};

/// A program in its own pseudo-terminal.
pub(crate) struct Terminal {
    master: fs::File,
    slave: OwnedFd,
    child: Child,
    pub(crate) bytes: Receiver<Vec<u8>>,
    /// All output so far.
    shown: String,
    /// Length of the output that earlier waits have consumed.
    seen: usize,
}

impl Terminal {
    pub(crate) fn start(command: &Command, rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = OwnedFd::from(fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap());
        resize(&slave, rows, columns);
        // `setsid --ctty` makes it the program's controlling terminal, which sends Ctrl-C and size changes as signals.
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        session.current_dir(command.get_current_dir().unwrap()).env("TERM", "xterm");
        session.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let child = session.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let master = fs::File::from(master);
        let (sender, bytes) = channel();
        let mut reader = master.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { master, slave, child, bytes, shown: String::new(), seen: 0 }
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the text is shown, after the text of the previous wait.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(at) = self.shown[self.seen..].find(text) {
                self.seen += at + text.len();
                return;
            }
            match self.bytes.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                // First what came since: a report may cut the rest.
                Err(error) => {
                    panic!("{error:?} while waiting for {text:?}: {:?}: {}", &self.shown[self.seen..], self.shown)
                }
            }
        }
    }

    #[track_caller]
    pub(crate) fn status(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.shown);
            match self.bytes.recv_timeout(Duration::from_millis(50)) {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        };
        while let Ok(bytes) = self.bytes.recv_timeout(Duration::from_millis(200)) {
            self.shown.push_str(&String::from_utf8_lossy(&bytes));
        }
        (status.code(), self.shown.clone())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Even if the test failed, let the launcher take its bottle down.
        let pid = rustix::process::Pid::from_child(&self.child);
        _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn resize(terminal: &OwnedFd, rows: u16, columns: u16) {
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

/// Returns the command of the example on a place's bottle, whose agent runs a script.
fn launch(place: &Place, runtime: &str, slug: &str, script: &str) -> Command {
    let file = place.root.path().join("bottle.yaml");
    fs::write(&file, manifest(&format!("runtime: {runtime}\n{SMALL}"))).unwrap();
    let mut command = example("launch");
    bottle_testing::lab::host();
    command.current_dir(scratch().join("workspace"));
    command.arg("--manifest").arg(file).arg("--state-dir").arg(place.state()).args(["--slug", slug]);
    command.args(["--", "bash", "-c", script]);
    command
}

fn session_under(runtime: &str) {
    needs_runtime(runtime);
    let place = Place::new();
    let slug = format!("terminal-{runtime}");
    // The engine's client sets the terminal's size shortly after the command has started, and a new size with a delay.
    // `read` would not do to wait for Ctrl-C: bash runs the trap after the line if the signal comes just before.
    let script = "caught=; trap 'caught=yes' INT; \
                  differs() { for _ in $(seq 400); do [ \"$(stty size)\" = \"$1\" ] || break; sleep 0.05; done; }; \
                  differs '0 0'; stty size; echo ready; \
                  for _ in $(seq 400); do [ -z \"$caught\" ] || break; sleep 0.05; done; echo \"caught it: $caught\"; \
                  read line; echo \"<$line>\"; differs '33 101'; stty size; \
                  [ -t 0 ] && [ -t 1 ] && echo both; exit 9";
    let mut terminal = Terminal::start(&launch(&place, runtime, &slug, script), 33, 101);
    terminal.wait_for("33 101");
    terminal.wait_for("ready");
    // Ctrl-C goes to the program in the container. Launcher and bottle continue.
    terminal.press("\x03");
    terminal.wait_for("caught it: yes");
    // The engine's client listens for a new size only after its own request to set the first one was answered.
    std::thread::sleep(Duration::from_secs(1));
    resize(&terminal.slave, 44, 122);
    terminal.press("typed\r");
    terminal.wait_for("<typed>");
    terminal.wait_for("44 122");
    terminal.wait_for("both");
    let (code, shown) = terminal.status();
    assert_eq!(code, Some(9), "{shown}");
    super::docker_has_nothing_of(&slug);
}

#[test]
#[ignore = "needs a container engine"]
fn a_session_at_a_terminal_works() {
    session_under("runc");
}

#[test]
#[ignore = "needs a container engine with the runtime runsc"]
fn a_session_at_a_terminal_works_under_gvisor() {
    session_under("runsc");
}

#[test]
#[ignore = "needs a container engine"]
fn an_uncaught_control_c_ends_the_command_and_removes_the_bottle() {
    let place = Place::new();
    let mut terminal = Terminal::start(&launch(&place, "runc", "interrupt", "echo ready; sleep 300"), 24, 80);
    terminal.wait_for("ready");
    terminal.press("\x03");
    let (code, shown) = terminal.status();
    assert_eq!(code, Some(130), "{shown}");
    super::docker_has_nothing_of("interrupt");

    // While the services start, Ctrl-C goes to the launcher, which stops and undoes the launch.
    let mut terminal = Terminal::start(&launch(&place, "runc", "interrupt", "echo ready"), 24, 80);
    terminal.wait_for("write the Compose file");
    terminal.press("\x03");
    let (code, shown) = terminal.status();
    assert!(code == Some(130) && shown.contains("error: failed to start the services"), "{code:?}: {shown}");
    super::docker_has_nothing_of("interrupt");
}

#[test]
#[ignore = "needs a container engine"]
fn without_a_terminal_the_container_gets_none() {
    let place = Place::new();
    let script = "[ -t 0 ] || [ -t 1 ] || echo none; cat; exit 3";
    let mut child = launch(&place, "runc", "piped", script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"piped in\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()), (Some(3), "none\npiped in\n"));
}

/// Returns the status as a shell reports it: 128 plus the number for a signal.
fn shell_status(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

#[test]
#[ignore = "needs a container engine"]
fn control_c_at_any_moment_gives_status_130_and_leaves_nothing_behind() {
    let place = Place::new();
    // Build the images first.
    let mut first = launch(&place, "runc", "moment", "true");
    assert!(first.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    for turn in 0..20 {
        let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
        // The turns are spread over three seconds.
        let moment = Duration::from_millis(turn * 150 + u64::from(now.subsec_millis()) % 150);
        let mut terminal = Terminal::start(&launch(&place, "runc", "moment", "echo ready; sleep 300"), 24, 80);
        std::thread::sleep(moment);
        terminal.press("\x03");
        let deadline = Instant::now() + Duration::from_secs(60);
        let status = loop {
            if let Some(status) = terminal.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "{moment:?}: it does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        while let Ok(bytes) = terminal.bytes.recv_timeout(Duration::from_millis(100)) {
            terminal.shown.push_str(&String::from_utf8_lossy(&bytes));
        }
        assert_eq!(shell_status(status), 130, "{moment:?}: {}", terminal.shown);
        super::docker_has_nothing_of("moment");
    }
}

#[test]
#[ignore = "needs a container engine"]
fn closing_the_terminal_removes_the_bottle() {
    let place = Place::new();
    for shown in ["prepare the launch", "write the Compose file", "ready"] {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        // A copy of the descriptor in the child would keep the terminal open.
        rustix::io::fcntl_setfd(&master, rustix::io::FdFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let command = launch(&place, "runc", "closed", "echo ready; sleep 300");
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        session.current_dir(command.get_current_dir().unwrap()).env("TERM", "xterm");
        let mut child = session.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        drop((session, slave));
        let mut master = fs::File::from(master);
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        while !text.contains(shown) {
            let count = master.read(&mut buffer).unwrap();
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        // No other process has it open, so this closes the terminal.
        drop(master);
        let deadline = Instant::now() + Duration::from_secs(60);
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "after {shown:?} it does not end");
            std::thread::sleep(Duration::from_millis(50));
        };
        assert_eq!(shell_status(status), 130, "after {shown:?}");
        super::docker_has_nothing_of("closed");
    }
}

#[test]
#[ignore = "needs a container engine"]
fn an_example_whose_output_nobody_reads_does_not_panic_and_leaves_nothing() {
    let place = Place::new();
    let mut embed = example("embed");
    embed.env("CLAUDE_BOTTLE_STATE", place.state()).current_dir(&bottle_testing::lab::host().facts.cwd);
    let mut child = embed.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    let entries = fs::read_dir(place.state()).unwrap().flatten();
    let slugs: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let slugs: Vec<&String> = slugs.iter().filter(|name| name.starts_with("worker-")).collect();
    assert_eq!(slugs.len(), 1, "{slugs:?}");
    super::docker_has_nothing_of(slugs[0]);
}

#[test]
#[ignore = "needs a container engine"]
fn the_second_control_c_ends_a_teardown_that_hangs_within_a_second() {
    use std::os::unix::fs::PermissionsExt;

    let place = Place::new();
    let bin = place.root.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for hangs in ["logs", "stop"] {
        let docker = bin.join("docker");
        let real = bottle_testing::lab::run(Command::new("sh").args(["-c", "command -v docker"]));
        let script = format!(
            "#!/bin/sh\nfor word; do [ \"$word\" != {hangs} ] || hangs=yes; done\n[ \"${{hangs:-}}\" ] || exec {} \"$@\"\n\
             trap '' INT TERM\nwhile :; do sleep 1; done\n",
            real.ok().trim()
        );
        fs::write(&docker, script).unwrap();
        fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).unwrap();
        let inner = launch(&place, "runc", "hung", "echo ready; sleep 300");
        let mut command = Command::new("env");
        command.arg(format!("PATH={}:/usr/bin:/bin:/usr/sbin:/sbin", bin.display()));
        command.arg(inner.get_program()).args(inner.get_args()).current_dir(inner.get_current_dir().unwrap());
        let mut terminal = Terminal::start(&command, 24, 80);
        terminal.wait_for("write the Compose file");
        // A teardown only stops what runs.
        let deadline = Instant::now() + Duration::from_secs(30);
        let is_running = || {
            let names = ["ps", "--quiet", "--filter", "name=^claude-bottle-pipelock-hung$"];
            !bottle_testing::lab::docker(names).stdout.trim().is_empty()
        };
        while !is_running() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        terminal.press("\x03");
        // Long enough to reach the teardown.
        std::thread::sleep(Duration::from_secs(4));
        let pressed = Instant::now();
        terminal.press("\x03");
        let deadline = pressed + Duration::from_secs(20);
        while terminal.child.try_wait().unwrap().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let took = pressed.elapsed();
        let (code, shown) = terminal.status();
        println!("{hangs}: ended {took:?} after the second Ctrl-C");
        assert!(code == Some(130) && took < Duration::from_secs(1), "{hangs}: {code:?} after {took:?}: {shown}");

        // `bottles down` removes the rest. There, the first Ctrl-C stops the wait.
        let client = |path: &str| {
            let inner = example("bottles");
            let mut env = Command::new("env");
            env.arg(format!("PATH={path}:/usr/bin:/bin:/usr/sbin:/sbin"));
            env.arg(inner.get_program()).arg("--state-dir").arg(place.state()).args(["down", "hung"]);
            env.current_dir(scratch());
            env
        };
        // Saving the logs is not retried.
        if hangs == "stop" {
            let mut terminal = Terminal::start(&client(bin.to_str().unwrap()), 24, 80);
            std::thread::sleep(Duration::from_secs(2));
            let pressed = Instant::now();
            terminal.press("\x03");
            let (code, shown) = terminal.status();
            assert!(code == Some(130) && pressed.elapsed() < Duration::from_secs(2), "{code:?}: {shown}");
        }
        bottle_testing::lab::run(&mut client("/usr/local/bin")).ok();
        super::docker_has_nothing_of("hung");
    }
}

#[test]
#[ignore = "needs a container engine"]
fn an_interrupted_exec_of_the_example_leaves_no_process() {
    let place = Place::new();
    let bottle = super::options(bottle_testing::lab::engine(), &place.state())
        .launch(super::plan(super::SMALL, "interrupted"))
        .unwrap_or_else(|error| panic!("{}", bottle::report(&error)));
    let processes = || {
        let script = "grep -lzx '391[7]' /proc/[0-9]*/cmdline 2>/dev/null | wc -l";
        bottle_testing::lab::sh(&bottle, script).ok().trim().to_owned()
    };
    for signal in ["INT", "TERM"] {
        let mut command = example("bottles");
        command.arg("--state-dir").arg(place.state()).args(["--prefix", "bottle-life"]);
        command.args(["exec", "interrupted", "--", "sleep", "3917"]).stdin(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while processes() == "0" && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(processes(), "1", "it has not started");
        bottle_testing::lab::run(Command::new("kill").args(["-s", signal, &child.id().to_string()])).ok();
        assert_eq!(child.wait().unwrap().code(), Some(130), "SIG{signal}");
        assert_eq!(processes(), "0", "SIG{signal}");
    }
    // At a terminal, a signal may reach the tool only, or the engine's client as well.
    for (signal, group) in [("INT", ""), ("TERM", ""), ("INT", "-"), ("TERM", "-"), ("HUP", "-")] {
        let mut command = super::handle::tool(&place);
        command.args(["exec", "interrupted", "--", "sh", "-c", "echo ready; exec sleep 3917"]).current_dir("/");
        let mut terminal = Terminal::start(&command, 24, 80);
        terminal.wait_for("ready");
        let target = format!("{group}{}", terminal.child.id());
        bottle_testing::lab::run(Command::new("kill").args(["-s", signal, "--", &target])).ok();
        let (code, shown) = terminal.status();
        assert_eq!((code, processes().as_str()), (Some(130), "0"), "SIG{signal} to {target}: {shown}");
    }
    bottle.close().unwrap();
    place.nothing_is_left("interrupted");
}
