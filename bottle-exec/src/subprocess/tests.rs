use std::time::{Duration, Instant};

use super::*;
use crate::child::TerminalSize;
use crate::status::ExitStatus;
use bottle_values::SecretValue;

fn host() -> Subprocess {
    let path = "/usr/local/bin:/usr/bin:/bin";
    Subprocess::new([("PATH".into(), path.into())]).with_grace(Duration::from_millis(300))
}

fn sh(script: &str) -> Command {
    Command::new("sh").with_args(["-c", script]).with_timeout(Duration::from_secs(20))
}

fn run(command: &Command) -> Output {
    host().run(command, &Control::default()).unwrap()
}

#[test]
fn the_environment_has_only_allowed_variables_and_those_of_the_command() {
    let backend = Subprocess::new([
        ("PATH".into(), "/usr/bin:/bin".into()),
        ("DOCKER_HOST".into(), "unix:///x".into()),
        ("https_proxy".into(), "http://p".into()),
        ("COMPOSE_FILE".into(), "evil.yml".into()),
        ("AWS_SECRET_ACCESS_KEY".into(), "k".into()),
    ]);
    let command = sh("env | grep -v -e ^PWD= -e ^SHLVL= -e ^_= | sort").with_env("TOKEN", SecretValue::new("t"));
    let output = backend.run(&command, &Control::default()).unwrap();
    assert_eq!(output.stdout.text(), "DOCKER_HOST=unix:///x\nPATH=/usr/bin:/bin\nTOKEN=t\nhttps_proxy=http://p\n");
    assert!(!format!("{backend:?}").contains("http://p"));
}

#[test]
fn a_program_is_searched_in_absolute_directories_only() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("tool");
    std::fs::write(&script, "#!/bin/sh\necho here\n").unwrap();
    let run = |path: &std::ffi::OsStr| {
        let backend = Subprocess::new([("PATH".into(), path.to_owned())]);
        backend.run(&Command::new("tool").with_cwd(directory.path()), &Control::default())
    };
    let path = directory.path().as_os_str();
    assert!(matches!(run(path), Err(ExecError::NotFound { .. })), "it is not executable yet");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(run(path).unwrap().stdout.text(), "here\n");
    for unsafe_path in [":", ".", ""] {
        assert!(matches!(run(unsafe_path.as_ref()), Err(ExecError::NotFound { .. })), "PATH={unsafe_path}");
    }
}

#[test]
fn a_failure_shows_the_line_the_status_and_the_end_without_the_secret() {
    let command = sh("for i in 1 2 3; do echo line $i $TOKEN >&2; done; exit 9")
        .with_env("TOKEN", SecretValue::new("s3cr3t-value"));
    let error = run(&command).success(&command).unwrap_err();
    assert_eq!(
        error.to_string(),
        "run `TOKEN='<redacted>' sh -c 'for i in 1 2 3; do echo line $i $TOKEN >&2; done; exit 9'`: it ended with status \
         9\n    line 1 <redacted>\n    line 2 <redacted>\n    line 3 <redacted>"
    );
    assert!(!format!("{error:?}").contains("s3cr3t"));
}

#[test]
fn a_secret_on_the_command_line_is_refused() {
    let command = sh("echo s3cr3t-value").with_env("TOKEN", SecretValue::new("s3cr3t-value"));
    let error = host().run(&command, &Control::default()).unwrap_err();
    assert!(matches!(error, ExecError::SecretInArguments { .. }));
    assert!(!error.to_string().contains("s3cr3t"));
}

#[test]
fn both_streams_share_one_file_in_order_and_with_its_mode() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    run(&sh("echo a; echo b >&2; echo c").with_output(OutputPolicy::File { path: path.clone(), mode: 0o644 }));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nb\nc\n");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
}

#[test]
fn a_process_outside_the_group_that_holds_the_pipe_delays_the_end_by_a_bounded_time() {
    let started = Instant::now();
    let output = run(&sh("setsid sleep 30 & echo $!; exit 4"));
    assert_eq!(output.status, ExitStatus::Code(4));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    // It left the process group, so the test stops it.
    _ = run(&sh(&format!("kill {}", output.stdout.text().trim())));
}

#[test]
fn an_interactive_command_stays_in_the_callers_group() {
    let own = rustix::process::getpgrp().as_raw_nonzero().get();
    let group_of_child = |command: &Command| {
        let output = run(command);
        output.stdout.text().trim().parse::<i32>().unwrap()
    };
    let ask = sh("cut -d' ' -f5 /proc/$$/stat");
    assert_ne!(group_of_child(&ask), own);
    let kept = ask.with_interactive().with_stdin(Stdin::Null).with_output(OutputPolicy::default());
    assert_eq!(group_of_child(&kept), own);
}

#[test]
fn ends_are_noticed_at_once_and_not_at_the_next_tick() {
    let backend = host();
    let command = Command::new("true").with_output(OutputPolicy::Discard);
    let started = Instant::now();
    for _ in 0..20 {
        backend.run(&command, &Control::default()).unwrap();
    }
    // Twenty ticks would be 400 ms.
    assert!(started.elapsed() < Duration::from_millis(300), "{:?}", started.elapsed());
}

/// Simulates a Ctrl-C that reaches the command and this process at the same time. The signal is SIGTERM, because a shell
/// starts its background jobs with SIGINT ignored.
#[test]
fn a_command_that_fails_while_it_is_cancelled_is_reported_as_cancelled() {
    let run = |script: &str| {
        let token = crate::control::CancelToken::new();
        let cancel = token.clone();
        let control = Control::cancelled_by(token).with_sink(std::sync::Arc::new(move |_, bytes: &[u8]| {
            let pid: u32 = String::from_utf8_lossy(bytes).trim().parse().unwrap();
            let has_ended =
                || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
            let until = Instant::now() + Duration::from_secs(5);
            while !has_ended() {
                assert!(Instant::now() < until, "the command does not end");
                std::thread::yield_now();
            }
            cancel.cancel();
        }));
        host().run(&sh(script).with_output(OutputPolicy::Stream), &control)
    };
    for script in ["echo $$; kill -TERM $$", "echo $$; exit 1"] {
        let error = run(script).unwrap_err();
        assert!(error.is_cancelled(), "{error}");
    }
    assert_eq!(run("echo $$").unwrap().status, ExitStatus::SUCCESS, "a command that succeeds is reported as such");
}

#[test]
fn a_cancellation_ends_a_command_that_ignores_sigterm_within_a_second() {
    let token = crate::control::CancelToken::new();
    let started = std::sync::Arc::new(std::sync::Mutex::new(None));
    let control = Control::cancelled_by(token.clone()).with_sink({
        let started = std::sync::Arc::clone(&started);
        std::sync::Arc::new(move |_, _: &[u8]| {
            *started.lock().unwrap() = Some(Instant::now());
            token.cancel();
        })
    });
    let backend = host().with_grace(Duration::from_secs(30));
    let script = "trap '' TERM; echo ready; while :; do sleep 1; done";
    let error = backend.run(&sh(script).with_output(OutputPolicy::Stream), &control).unwrap_err();
    let took = started.lock().unwrap().unwrap().elapsed();
    assert!(error.is_cancelled() && took < Duration::from_secs(1), "{error} after {took:?}");
}

/// An engine continues without its client, so a cancellation waits for the client.
#[test]
fn a_cancellation_waits_for_an_uninterrupted_command_and_an_abort_does_not() {
    use crate::control::CancelToken;

    let run = |script: &str, aborts: bool| {
        let (cancel, abort) = (CancelToken::new(), CancelToken::new());
        let control = Control::cancelled_by(cancel.clone()).with_abort(abort.clone());
        let control = control.with_sink(std::sync::Arc::new(move |_, _: &[u8]| {
            cancel.cancel();
            if aborts {
                abort.cancel();
            }
        }));
        host().run(&sh(script).with_output(OutputPolicy::Stream).with_uninterrupted(), &control)
    };
    assert!(run("echo begin; sleep 1; echo end", false).unwrap().stdout.text().ends_with("end\n"));
    let started = Instant::now();
    assert!(run("echo begin; sleep 10", true).unwrap_err().is_cancelled());
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn a_command_that_listens_late_is_told_of_its_terminals_new_size() {
    use std::io::Read as _;
    // On a slow machine the signal comes again while the trap runs.
    let script = "echo started; sleep 0.7; trap 'trap \"\" WINCH; stty size; exit' WINCH; for i in $(seq 100); do sleep 0.1; done";
    let command = sh(script).with_terminal(TerminalSize { rows: 30, columns: 100 });
    let mut child = host().spawn(&command, &Control::default()).unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 9]).unwrap();
    child.resize(TerminalSize { rows: 40, columns: 120 }).unwrap();
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    assert_eq!(text, "40 120\r\n");
}

#[test]
fn a_command_of_the_standard_library_is_the_one_that_the_backend_would_run() {
    use crate::backend::Backend;

    let backend =
        Subprocess::new([("PATH".into(), "/usr/bin:/bin".into()), ("COMPOSE_FILE".into(), "evil.yml".into())]);
    let command = sh("echo $TOKEN $COMPOSE_FILE; cat; exit 4").with_env("TOKEN", SecretValue::new("t"));
    let mut process = crate::Logging::new(backend).process(&command).unwrap();
    let mut child = process.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"in").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.stdout.as_slice(), output.status.code()), (&b"t\nin"[..], Some(4)));
    let error = crate::RecordingBackend::default().process(&command).unwrap_err();
    assert!(error.to_string().contains("runs no process of this host"), "{error}");
    let error = host().process(&Command::new("no-such-program")).unwrap_err();
    assert!(matches!(error, ExecError::NotFound { .. }), "{error}");
}
