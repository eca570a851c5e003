//! Commands that run while their caller reads and writes their streams.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use bottle::exec::engine::Exec;
use bottle::exec::{ExitStatus, TerminalSize};
use bottle::{Bottle, BottleError, EngineError};

use super::{Place, SMALL, options, plan};
use bottle_testing::lab::{engine, figure, sh};

fn with_bottle(slug: &str, test: impl FnOnce(&Bottle)) {
    let place = Place::new();
    let bottle = options(engine(), &place.state()).launch(plan(SMALL, slug)).unwrap();
    test(&bottle);
    bottle.close().unwrap();
    place.nothing_is_left(slug);
}

/// Returns the number of processes in the bottle with this text in their command line.
fn running(bottle: &Bottle, text: &str) -> usize {
    // The brackets keep the search from finding itself.
    let pattern = format!("[{}]{}", &text[..1], &text[1..]);
    let found = sh(bottle, &format!("grep -lsa -- '{pattern}' /proc/[0-9]*/cmdline | wc -l"));
    found.ok().trim().parse().unwrap()
}

#[test]
#[ignore = "needs a container engine"]
fn a_live_command_moves_100_mb_both_ways_unchanged() {
    with_bottle("much", |bottle| {
        let bytes: Vec<u8> = (0..25 << 20).flat_map(|at: u32| at.wrapping_mul(0x9E37_79B9).to_le_bytes()).collect();
        let mut child = bottle.spawn(["cat"], None).unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let started = Instant::now();
        let back = thread::scope(|scope| {
            scope.spawn(|| {
                stdin.write_all(&bytes).unwrap();
                drop(stdin);
            });
            let mut back = Vec::with_capacity(bytes.len());
            stdout.read_to_end(&mut back).unwrap();
            back
        });
        assert!(back == bytes, "{} bytes came back, or others", back.len());
        assert!(child.wait().unwrap().is_success());
        figure(format_args!("100 MiB there and back: {:.0} MB/s", 104.86 / started.elapsed().as_secs_f64()));
    });
}

/// Returns the median time of a byte there and back, in microseconds.
fn echo_time(stdin: &mut impl std::io::Write, stdout: &mut impl std::io::Read) -> u128 {
    let mut times: Vec<u128> = (0..200)
        .map(|_| {
            let started = Instant::now();
            stdin.write_all(b"x").unwrap();
            stdin.flush().unwrap();
            stdout.read_exact(&mut [0]).unwrap();
            started.elapsed().as_micros()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
#[ignore = "needs a container engine"]
fn a_byte_takes_no_longer_than_with_the_engines_own_client() {
    with_bottle("echo", |bottle| {
        let mut child = bottle.spawn(["cat"], None).unwrap();
        let mut own = Command::new("docker")
            .args(["exec", "--interactive", &bottle.handle().container, "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdin, mut stdout) = (own.stdin.take().unwrap(), own.stdout.take().unwrap());
        let mut pairs = Vec::new();
        for _ in 0..5 {
            let ours = echo_time(child.stdin.as_mut().unwrap(), child.stdout.as_mut().unwrap());
            pairs.push((ours, echo_time(&mut stdin, &mut stdout)));
        }
        drop(stdin);
        own.wait().unwrap();
        pairs.sort_unstable_by_key(|(ours, theirs)| ours * 1000 / theirs.max(&1));
        let (ours, theirs) = pairs[pairs.len() / 2];
        figure(format_args!(
            "a byte there and back: {ours} us, `docker exec -i` {theirs} us (median of 5 pairs of 200)"
        ));
        assert!(ours < theirs * 3 / 2 + 200, "{pairs:?}");
    });
}

#[test]
#[ignore = "needs a container engine"]
fn a_live_command_that_is_killed_or_dropped_leaves_no_process() {
    with_bottle("kill", |bottle| {
        // It ignores SIGTERM, one child left the session, and another one has removed what it can be known by.
        let hidden = "ulimit -w 5; exec env -i setsid sleep 4711";
        let script = format!(
            "trap '' TERM; setsid sleep 4711 & sh -c '{hidden}' & sleep 0.5; echo ready; sleep 4711; sleep 4711"
        );
        for way in ["kill", "drop"] {
            let mut child = bottle.spawn(["sh", "-c", &script], None).unwrap();
            let mut ready = [0; 6];
            child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
            assert!(running(bottle, "sleep.4711") >= 3);
            let started = Instant::now();
            if way == "kill" {
                child.kill().unwrap();
                assert!(!child.wait().unwrap().is_success());
                child.kill().unwrap();
            }
            drop(child);
            figure(format_args!("{way}: {:?}", started.elapsed()));
            assert_eq!(running(bottle, "sleep.4711"), 0, "{way}");
        }
        let mut child = bottle.spawn(["no-such-program"], None).unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((child.wait().unwrap().as_shell_code(), said.contains("no-such-program")), (127, true), "{said}");
        // So is an unknown directory, however the command is run. A command without words is an error.
        let nowhere = || Exec::new(["true"]).with_workdir("/no-such-directory");
        let mut child = bottle.spawn(nowhere(), None).unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((child.wait().unwrap().as_shell_code(), said.contains("/no-such-directory")), (126, true), "{said}");
        let output = bottle.exec(nowhere()).unwrap();
        let said = output.stderr.text();
        assert_eq!((output.status.as_shell_code(), said.contains("/no-such-directory")), (126, true), "{output:?}");
        let within = bottle.exec(Exec::new(["pwd"]).with_workdir("/etc")).unwrap();
        assert_eq!(within.stdout_text(), "/etc\n");
        for empty in [bottle.exec(Exec::default()).map(drop), bottle.spawn(Exec::default(), None).map(drop)] {
            assert!(matches!(empty, Err(BottleError::Engine(EngineError::NoCommand { .. }))), "{empty:?}");
        }
        // The client dies: its command is stopped by whoever waits.
        let mut child = bottle.spawn(["sleep", "4712"], None).unwrap();
        while running(bottle, "sleep.4712") == 0 {
            thread::sleep(Duration::from_millis(50));
        }
        let pattern = format!("exec .*{} .*sleep 4712", bottle.handle().container);
        let found = Command::new("pgrep").args(["--full", &pattern]).output().unwrap().stdout;
        let pids = String::from_utf8(found).unwrap();
        let client = pids.lines().next().unwrap();
        assert!(Command::new("kill").args(["-KILL", client]).status().unwrap().success());
        assert!(!child.wait().unwrap().is_success());
        assert_eq!(running(bottle, "sleep.4712"), 0);
    });
}

/// While a client of a command that has ended does not read, dockerd reports the end of no other command.
#[test]
#[ignore = "needs a container engine"]
fn a_command_whose_output_nobody_reads_is_killed() {
    with_bottle("unread", |bottle| {
        for stream in ["", ">&2"] {
            let script = format!("head -c 200000000 /dev/zero {stream}; exec sleep 1001");
            let mut child = bottle.spawn(["sh", "-c", &script], None).unwrap();
            let until = Instant::now() + Duration::from_secs(20);
            while running(bottle, "head") == 0 && Instant::now() < until {
                thread::sleep(Duration::from_millis(50));
            }
            // Until the pipes between the command and this process are full.
            thread::sleep(Duration::from_secs(2));
            child.kill().unwrap();
            // Its client could not tell the status.
            assert_eq!(
                (child.wait().unwrap(), child.try_wait().unwrap()),
                (ExitStatus::Signal(9), Some(ExitStatus::Signal(9)))
            );
            drop(child);
            assert_eq!((running(bottle, "head -c"), running(bottle, "sleep 1001")), (0, 0), "{stream}");
        }
    });
}

/// Each process starts the next one and ends.
#[test]
#[ignore = "needs a container engine"]
fn a_chain_of_short_processes_is_killed() {
    with_bottle("chain", |bottle| {
        let script = "cat > /tmp/link <<'EOF'\n[ \"$1\" -gt 0 ] || exit\nsetsid sh /tmp/link $(($1 - 1)) &\nEOF\nsh /tmp/link 100000; sleep 1002";
        let mut child = bottle.spawn(["sh", "-c", script], None).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while running(bottle, "sleep 1002") == 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(50));
        }
        let killed = child.kill().map_err(|error| error.to_string());
        let found = (0..5).map(|_| running(bottle, "/tmp/link")).max();
        assert_eq!((killed.map(drop), found, running(bottle, "sleep 1002")), (Ok(()), Some(0), 0));
    });
}

#[test]
#[ignore = "needs a container engine"]
fn a_live_command_has_a_terminal_whose_size_changes() {
    with_bottle("tty", |bottle| {
        let size = |rows, columns| TerminalSize { rows, columns };
        let script = "tty; trap 'stty size' WINCH; stty size; while :; do sleep 0.1; done";
        let mut child = bottle.spawn(["sh", "-c", script], Some(size(30, 100))).unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut shown = String::new();
        let mut until = |text: &str| {
            while !shown.contains(text) {
                let mut bytes = [0; 256];
                let count = stdout.read(&mut bytes).unwrap();
                assert!(count > 0, "`{text}` is not in {shown:?}");
                shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        };
        until("/dev/pts/");
        until("30 100");
        child.resize(size(40, 120)).unwrap();
        until("40 120");
        // Ctrl-C goes to the command through its terminal.
        child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
        assert_eq!(child.wait().unwrap().as_shell_code(), 130);
    });
}

#[test]
#[ignore = "needs a container engine"]
fn fifty_live_commands_run_at_once() {
    with_bottle("fifty", |bottle| {
        let started = Instant::now();
        let children = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        children.lock().unwrap().push(bottle.spawn(["cat"], None).unwrap());
                    }
                });
            }
        });
        let mut children = children.into_inner().unwrap();
        for (number, child) in children.iter_mut().enumerate() {
            child.stdin.as_mut().unwrap().write_all(&[u8::try_from(number).unwrap()]).unwrap();
        }
        for (number, child) in children.iter_mut().enumerate() {
            let mut back = [0];
            child.stdout.as_mut().unwrap().read_exact(&mut back).unwrap();
            assert_eq!(usize::from(back[0]), number);
        }
        figure(format_args!("50 live commands answer after {:?}", started.elapsed()));
        assert_eq!(running(bottle, "cat"), 50);
        assert!(children.iter_mut().all(|child| child.wait().unwrap().is_success()));
        assert_eq!(running(bottle, "cat"), 0);
    });
}

#[test]
#[ignore = "needs a container engine"]
fn a_command_of_the_standard_library_has_the_streams_of_one_in_the_bottle() {
    with_bottle("std", |bottle| {
        let exec = Exec::new(["sh", "-c", "id -un; pwd; cat; echo $SECRET >&2; exit 3"]);
        let secret = bottle::plan::SecretValue::new("a secret value");
        let mut command = bottle.command(exec.with_env("SECRET", secret), false).unwrap();
        assert!(command.get_args().all(|word| !word.to_string_lossy().contains("a secret value")));
        let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = streams.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"from the host").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "agent\n/workspace\nfrom the host");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "a secret value\n");
        assert_eq!(output.status.code(), Some(3));
    });
}
