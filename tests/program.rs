//! The example `launch` on a machine without an engine: rehearsals and mistakes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const TOKEN: &str = "a-token-that-nobody-may-see";

/// Runs `examples/launch`, which `cargo test` builds with the tests, with no engine in PATH and a private state
/// directory.
fn launch(home: &Path, args: &[&str]) -> Output {
    command(home, args).output().unwrap()
}

fn command(home: &Path, args: &[&str]) -> Command {
    let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples/launch");
    let mut command = Command::new(program);
    command
        .args(args)
        .current_dir(home)
        .env_clear()
        .env("HOME", home)
        .env("PATH", home.join("no-programs"))
        .env("API_TOKEN", TOKEN)
        .stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn state(home: &Path) -> PathBuf {
    home.join(".local/state/claude-bottle")
}

#[test]
fn every_invalid_manifest_gives_drawn_errors_and_status_2_and_creates_nothing() {
    let home = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("bottle-plan/tests/bad");
    let mut count = 0;
    for entry in fs::read_dir(fixtures).unwrap() {
        let path = entry.unwrap().path();
        let output = launch(home.path(), &["--manifest", path.to_str().unwrap(), "--", "true"]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{}: {stderr}", path.display());
        // Every mistake is drawn below its source line, without colors because there is no terminal.
        let title = format!("error: failed to read manifest `{}`: ", path.display());
        assert!(stderr.starts_with(&title) && stderr.contains("\n\nerror: "), "{stderr}");
        assert!(stderr.contains(&format!("--> {}", path.display())) && !stderr.contains('\u{1b}'), "{stderr}");
        assert!(output.stdout.is_empty());
        count += 1;
    }
    assert!(count >= 25, "only {count} fixtures");
    let workspace = home.path().join("workspace.yaml");
    fs::write(
        &workspace,
        "bottles: {dev: {workspace: {path: nowhere}, env: {A: $NOT_SET, EGRESS_A: x}}}\nagents: {demo: {bottle: dev, command: [id]}}\n",
    )
    .unwrap();
    let output = launch(home.path(), &["--manifest", workspace.to_str().unwrap(), "--", "true"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("workspace.yaml:1:35") && stderr.contains("bottles.dev.workspace.path: `"), "{stderr}");
    // What the host lacks and what the manifest says wrong are in one list.
    assert!(stderr.contains("bottles.dev.env.A: the variable `NOT_SET` is not set") && stderr.contains("3 mistakes"));
    for missing in ["missing.yaml", "."] {
        let output = launch(home.path(), &["--manifest", missing]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    }
    assert!(!state(home.path()).exists(), "a refused manifest has left something");
}

const MANIFEST: &str = "
bottles:
  full:
    env: {API_KEY: {placeholder: true}}
    supervise: true
    egress:
      routes: [{host: api.example.com, inject: {token: API_TOKEN}}]
    git:
      upstreams: [{name: app, url: 'https://git.example.com/team/app.git', token: API_TOKEN}]
    workspace: {mode: none}
agents:
  demo: {bottle: full, command: [id], prompt: Be brief.}
";

#[test]
fn a_rehearsal_writes_real_files_and_prints_commands_without_a_secret() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("bottle.yaml"), MANIFEST).unwrap();
    let output =
        launch(home.path(), &["--manifest", "bottle.yaml", "--engine", "rehearse", "--slug", "full-1", "--keep"]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let up = stdout.lines().find(|line| line.contains(" create --no-build")).unwrap();
    assert!(!up.contains("_TOKEN_API_TOKEN") && up.contains("API_KEY='<redacted>' docker compose"), "{up}");
    let given =
        |slot: &str| stdout.contains(&format!("done' sh {slot}_TOKEN_API_TOKEN # reads {} bytes", TOKEN.len() + 1));
    assert!(given("EGRESS") && given("GIT_GATE"), "{stdout}");
    assert!(!stdout.contains(TOKEN) && !stderr.contains(TOKEN));

    let bottle = state(home.path()).join("full-1");
    for (file, mode) in [
        ("docker-compose.yml", 0o644),
        ("metadata.json", 0o600),
        ("pipelock/pipelock.yaml", 0o644),
        ("pipelock/ca-key.pem", 0o600),
        ("egress/ca-combined.pem", 0o600),
        ("egress/routes.yaml", 0o644),
        ("git-gate/pre-receive", 0o755),
    ] {
        let path = bottle.join(file);
        let metadata = fs::metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{file}");
    }
    assert_eq!(fs::metadata(&bottle).unwrap().permissions().mode() & 0o777, 0o700);
    for path in files_below(&state(home.path())) {
        let content = fs::read(&path).unwrap();
        let holds = content.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
        assert!(!holds, "{} holds the token", path.display());
    }
}

#[test]
fn a_rehearsal_that_is_not_kept_leaves_no_key() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("bottle.yaml"), MANIFEST).unwrap();
    let output = launch(home.path(), &["--manifest", "bottle.yaml", "--engine", "rehearse", "--slug", "full-2"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for path in files_below(&state(home.path()).join("full-2")) {
        assert!(!text(&fs::read(&path).unwrap()).contains("PRIVATE KEY-----"), "{} is a key", path.display());
    }
}

#[test]
fn without_an_engine_it_prints_a_notice_and_exits_with_status_69() {
    let home = tempfile::tempdir().unwrap();
    let asked = launch(home.path(), &["--", "sh", "-c", "exit 0"]);
    let stderr = text(&asked.stderr);
    assert!(stderr.contains("NO CONTAINER ENGINE ANSWERS") && stderr.contains("Install Docker Engine"), "{stderr}");
    assert_eq!(asked.status.code(), Some(69), "{stderr}");
    let unasked = launch(home.path(), &[]);
    assert_eq!(unasked.status.code(), Some(0), "{}", text(&unasked.stderr));
    let wanted = launch(home.path(), &["--engine", "docker"]);
    assert_eq!(wanted.status.code(), Some(1), "{}", text(&wanted.stderr));
}

#[test]
fn a_missing_token_stops_the_launch_before_anything_is_created() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("bottle.yaml"), MANIFEST.replace("{token: API_TOKEN}", "{token: OTHER_TOKEN}")).unwrap();
    let output = launch(home.path(), &["--manifest", "bottle.yaml", "--engine", "rehearse"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let wanted = "error: bottles.full.egress.routes[0].inject.token: the variable `OTHER_TOKEN` is not set; route \
                  `api.example.com` injects it\n --> bottle.yaml:7:";
    assert!(stderr.contains(wanted), "{stderr}");
    assert!(!state(home.path()).exists());
}

#[test]
fn a_rehearsal_whose_output_nobody_reads_does_not_panic() {
    let home = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples/swap_backend");
    let mut rehearsal = Command::new(program);
    rehearsal.args(["ssh", "host.example.com"]).env_clear().env("HOME", home.path()).stdin(Stdio::null());
    let mut child = rehearsal.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let stderr = text(&output.stderr);
    assert!(output.status.code().is_some_and(|code| code < 101) && !stderr.contains("panicked"), "{output:?}");
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files
}

#[test]
fn an_events_file_that_cannot_be_written_is_one_warning_and_turns_success_into_status_1() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("bottle.yaml"), MANIFEST).unwrap();
    let args = ["--manifest", "bottle.yaml", "--engine", "rehearse", "--events-file", "/dev/full"];
    for format in ["text", "json"] {
        let output = launch(home.path(), &[&args[..], &["--events", format]].concat());
        let stderr = text(&output.stderr);
        let warning = "failed to write the events file: no storage space";
        assert_eq!((output.status.code(), stderr.matches(warning).count()), (Some(1), 1), "{stderr}");
    }
}

#[test]
fn standard_error_that_cannot_be_written_is_no_failure_and_loses_no_line_of_the_events_file() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("bottle.yaml"), MANIFEST).unwrap();
    let args = ["--manifest", "bottle.yaml", "--engine", "rehearse", "--events", "json"];
    for file in [&[][..], &["--events-file", "events"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let status =
            command(home.path(), &[&args[..], file].concat()).stdout(Stdio::null()).stderr(full).status().unwrap();
        assert_eq!(status.code(), Some(0), "{file:?}");
    }
    let events = fs::read_to_string(home.path().join("events")).unwrap();
    assert!(events.lines().count() > 10 && !events.contains("failed"), "{events}");
}

#[test]
fn with_json_events_standard_error_and_the_events_file_contain_only_json() {
    use bottle::EventRecord;
    use bottle::exec::Event;

    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("bottle.yaml"), MANIFEST).unwrap();
    let records = |text: &str| -> Vec<EventRecord> {
        let parse = |line: &str| {
            let json: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(bottle_testing::events::is_valid(&json), "{line}");
            serde_json::from_value(json).unwrap_or_else(|error| panic!("{error}: {line}"))
        };
        text.lines().map(parse).collect()
    };
    let args = ["--manifest", "bottle.yaml", "--slug", "json-1", "--engine", "rehearse", "--events", "json"];
    let output = launch(home.path(), &[&args[..], &["--events-file", "events"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = records(&text(&output.stderr));
    assert!(shown.len() > 30, "{}", shown.len());
    assert_eq!(shown[0].state_dir.as_deref(), Some(state(home.path()).join("json-1").as_path()));
    assert!(shown.iter().all(|record| record.slug.as_deref() == Some("json-1") && record.time.ends_with('Z')));
    assert!(shown.iter().filter(|record| record.step.is_some()).count() > 20);
    let in_file = records(&fs::read_to_string(home.path().join("events")).unwrap());
    assert_eq!(in_file.len(), shown.len());

    // Every kind of error is an event too.
    for (args, slug) in [
        (&["--events", "json", "--manifest", "missing.yaml"][..], None),
        (&["--events=json", "--no-such-option"], None),
        (&["--events", "json", "--manifest", "bottle.yaml", "--slug", "json-2", "--engine", "docker"], Some("json-2")),
        (&["--events", "json", "--events-file", "no/such/file"], None),
    ] {
        let output = launch(home.path(), args);
        let shown = records(&text(&output.stderr));
        let Some(EventRecord { slug: named, event: Event::Error { message, status }, .. }) = shown.last() else {
            panic!("{args:?}: {shown:?}");
        };
        assert_eq!((named.as_deref(), Some(i32::from(*status))), (slug, output.status.code()), "{args:?}: {message}");
    }
}
