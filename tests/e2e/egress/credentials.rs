//! Credentials: sent to the routed host alone, and found nowhere but in egress.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bottle::exec::Event;

use super::*;

#[test]
#[ignore = "needs a container engine"]
fn every_client_holds_a_placeholder_and_the_host_receives_the_real_token() {
    let lab = Lab::new("inject");
    let tokens = Tokens::of(&lab);
    let bottle = tokens.launch(&lab);

    sh(&bottle, &format!("curl -fsS -H \"x-api-key: $ANTHROPIC_API_KEY\" 'https://{API}/echo?by=curl'")).ok();
    sh(&bottle, &format!("git clone -q https://{API}/demo.git /tmp/demo && test -d /tmp/demo/.git")).ok();
    // Node's own `fetch` reads the proxy variables since Node 24. Older releases need an agent that does.
    let node = format!(
        "const {{EnvHttpProxyAgent, setGlobalDispatcher}} = require('undici');
         setGlobalDispatcher(new EnvHttpProxyAgent());
         fetch('https://{API}/echo?by=node', {{method: 'POST', body: 'x', headers: {{'x-api-key': process.env.ANTHROPIC_API_KEY}}}})
           .then(answer => answer.text().then(() => process.exit(answer.status === 200 ? 0 : 1)))"
    );
    sh(&bottle, &format!("NODE_PATH=/usr/share/nodejs node -e \"{node}\"")).ok();
    let requests = "import os, requests, sys; key = os.environ['ANTHROPIC_API_KEY']
requests.get(sys.argv[1], headers={'x-api-key': key, 'Authorization': 'Bearer ' + key}).raise_for_status()";
    python(&bottle, requests, &[&format!("https://{API}/echo?by=requests")]).ok();
    let claude = sh(&bottle, "timeout 100 claude -p hello < /dev/null");
    assert_eq!(claude.ok(), "Hello from outside.", "{claude:?}");
    figure(format_args!("`claude -p hello` prints the answer after {:.1} s", claude.duration.as_secs_f64()));

    for by in ["by=curl", "by=node", "by=requests", "/v1/messages"] {
        let seen = arrived(&lab, by);
        assert!(!seen.is_empty(), "{by} did not arrive");
        for event in seen {
            assert_eq!(header(&event, "x-api-key"), [tokens.api.as_str()], "{by}");
            assert_eq!(header(&event, "authorization"), [""; 0], "{by}");
        }
    }
    let git = arrived(&lab, "/demo.git/");
    let basic = format!("Basic {}", base64(&format!("x-access-token:{}", tokens.git)));
    assert!(git.len() >= 2 && git.iter().all(|event| header(event, "authorization") == [basic.as_str()]));
    let all = serde_json::to_string(&lab.outside.events()).unwrap();
    assert!(!all.contains(PLACEHOLDER), "a placeholder left the bottle");

    assert_eq!(sh(&bottle, "echo $ANTHROPIC_API_KEY").ok(), PLACEHOLDER);
    // The host echoes the credential. The agent sees asterisks.
    let echo = sh(&bottle, &format!("curl -fsSi https://{API}/echo"));
    assert!(echo.ok().contains("****"), "{echo:?}");
    tokens.assert_absent("an answer that echoes it", &echo.stdout);
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn further_headers_of_a_route_reach_its_host_alone() {
    let lab = Lab::new("headers");
    let tokens = Tokens::of(&lab);
    let routes = format!(
        "egress:\n  routes:\n    - {{host: {API}, headers: [x-tenant], inject: {{token: E2E_API_KEY, scheme: header}}}}\n    \
         - {{host: {FORBIDDEN}, inject: {{token: E2E_GIT_TOKEN, scheme: bearer}}}}\n"
    );
    let bottle = launch_of(&lab, &tokens, &routes);
    let own = "-H 'X-Tenant: blue' -H 'X-Other: red' -H 'Cookie: session=own'";
    for host in [API, FORBIDDEN] {
        sh(&bottle, &format!("curl -fsS --retry 8 --retry-all-errors {own} 'https://{host}/echo?by={host}'")).ok();
    }
    for (host, tenant, name, token) in [
        (API, &["blue"][..], "x-api-key", tokens.api.clone()),
        (FORBIDDEN, &[][..], "authorization", format!("Bearer {}", tokens.git)),
    ] {
        let seen = arrived(&lab, &format!("by={host}"));
        assert!(!seen.is_empty(), "nothing arrived at {host}");
        for event in seen {
            assert_eq!(header(&event, "x-tenant"), tenant, "{event}");
            assert_eq!(header(&event, name), [token.as_str()], "{event}");
            for other in ["x-other", "cookie"] {
                assert_eq!(header(&event, other), [""; 0], "{event}");
            }
        }
    }
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn the_example_for_claude_code_works_without_a_key_in_the_bottle() {
    let lab = Lab::new("claude");
    let tokens = Tokens::of(&lab);
    // The unchanged example, plus the lines that every lab adds to a bottle.
    let whole = lab.manifest("", "");
    let added: String =
        whole.lines().skip(2).take_while(|line| line.starts_with("    ")).flat_map(|line| [line, "\n"]).collect();
    let example = include_str!("../../../examples/claude.yaml");
    let manifest = example.replacen("  claude:\n    env:", &format!("  claude:\n{added}    env:"), 1);
    let mut options = lab.options();
    options = options.with_host(host_with(&[("ANTHROPIC_API_KEY", &tokens.api)]));
    let bottle = options.launch(lab.plan_of(&manifest)).unwrap_or_else(|error| panic!("{error}"));
    lab.outside.connect(&bottle.names().egress_network());
    assert_eq!(sh(&bottle, "timeout 100 claude -p hello < /dev/null").ok(), "Hello from outside.");
    let asked = arrived(&lab, "");
    assert!(
        !asked.is_empty() && asked.iter().all(|event| header(event, "x-api-key") == [tokens.api.as_str()]),
        "{asked:?}"
    );
    assert_eq!(sh(&bottle, "echo $ANTHROPIC_API_KEY").ok(), PLACEHOLDER);
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn a_token_is_found_only_in_egress() {
    let lab = Lab::new("leaks");
    let tokens = Tokens::of(&lab);
    let told = Arc::new(Mutex::new(String::new()));
    let listener = Arc::clone(&told);
    let hear = move |event: &Event| {
        let mut told = listener.lock().unwrap();
        let _ = writeln!(told, "{event:?} {}", serde_json::to_string(event).unwrap());
    };
    let options = tokens.options(&lab).with_observer(Arc::new(hear));

    let commands = CommandLines::watch();
    let bottle = options.launch(lab.plan(BOTTLE, "")).unwrap_or_else(|error| panic!("{error}"));
    lab.outside.connect(&bottle.names().egress_network());
    sh(&bottle, &format!("curl -fsS 'https://{API}/echo?by=leaks' > /tmp/echo; git clone -q https://{API}/demo.git"))
        .ok();
    assert_eq!(header(&arrived(&lab, "by=leaks")[0], "x-api-key"), [tokens.api.as_str()], "the token was not in use");
    let commands = commands.stop();
    assert!(commands.contains("compose\0") && commands.contains("\0create\0"), "{commands:?}");
    tokens.assert_absent("a command line of the host", commands);
    tokens.assert_absent("an event", &*told.lock().unwrap());
    tokens.assert_absent("the options' debug form", format!("{options:?}"));
    tokens.assert_absent("the plan", format!("{:?}", lab.plan(BOTTLE, "")));

    // As the agent and as root, in the environment of every process.
    for user in ["agent", "root"] {
        let script = "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/task/*/environ; \
                      tar -C / -c --exclude=./workspace/nothing etc home root run tmp var workspace opt/cli/bin || true";
        let agent = bottle.names().project();
        let finished = std::process::Command::new("docker")
            .args(["exec", "--user", user, &agent, "sh", "-c", script])
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let found = |text: &str| finished.stdout.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(found(PLACEHOLDER) && found("tmp/echo"), "the agent's environment and files were not looked at");
        tokens.assert_absent("the agent's container", &finished.stdout);
    }

    let egress = egress_container(&bottle);
    let filter = format!("label=claude-bottle.slug={}", lab.slug);
    let names = docker(["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"]).stdout;
    assert_eq!(names.lines().count(), 5, "{names}");
    for name in names.lines() {
        let inspected = docker(["inspect", "--size", name]).stdout;
        tokens.assert_absent(name, inspected);
        let logs = docker(["logs", name]);
        tokens.assert_absent(&format!("the log of {name}"), logs.stdout + &logs.stderr);
    }
    let kept = docker(["exec", &egress, "cat", "/run/credentials/EGRESS_TOKEN_E2E_API_KEY"]).stdout;
    assert_eq!(kept, tokens.api, "egress holds it");
    for network in [bottle.names().internal_network(), bottle.names().egress_network()] {
        tokens.assert_absent(&network, docker(["network", "inspect", &network]).stdout);
    }
    assert_no_file_holds(&tokens, lab.root.path());
    assert!(lab.state().join("docker-compose.yml").exists());
    let state = lab.state();
    lab.close(&bottle);
    let log = std::fs::read_to_string(state.join("compose.log")).unwrap();
    assert!(log.contains("\"route\":\"api\"") && log.contains("\"injected\":true"), "{log}");
    assert_no_file_holds(&tokens, lab.root.path());
}

#[test]
#[ignore = "needs a container engine"]
fn no_error_contains_a_token() {
    let lab = Lab::new("errors");
    let tokens = Tokens::of(&lab);
    let failing = |manifest: &str, options: &Bottles| {
        let error = options.launch(lab.plan(manifest, "")).unwrap_err();
        let text = format!("{}\n{error:?}", bottle::report(&error));
        tokens.assert_absent("an error", &text);
        lab.assert_nothing_left();
        assert_no_file_holds(&tokens, lab.root.path());
        text
    };
    // A service that does not start: Compose's output is part of the error.
    let broken = format!("{BOTTLE}\nlimits: {{sidecar: {{memory: 16MiB}}}}");
    let error = failing(&broken, &tokens.options(&lab));
    assert!(error.contains("start the services"), "{error}");
    // A token that was copied with its line end. The other token is valid.
    let mut options = tokens.options(&lab);
    options =
        options.with_host(host_with(&[("E2E_API_KEY", &format!("{}\n", tokens.api)), ("E2E_GIT_TOKEN", &tokens.git)]));
    let error = failing(BOTTLE, &options);
    assert!(error.contains("`E2E_API_KEY`") && error.contains("egress.routes[0].inject.token"), "{error}");
}

#[test]
#[ignore = "needs a container engine"]
fn a_missing_or_empty_token_is_refused_before_anything_is_created() {
    let lab = Lab::new("empty");
    let mut options = lab.options();
    for (variables, variable, problem, key) in [
        (vec![("E2E_GIT_TOKEN", "x")], "E2E_API_KEY", "is not set", "bottles.lab.egress.routes[0].inject.token"),
        (
            vec![("E2E_API_KEY", "x"), ("E2E_GIT_TOKEN", "")],
            "E2E_GIT_TOKEN",
            "is empty",
            "bottles.lab.egress.routes[1].inject.token",
        ),
        (
            vec![("E2E_API_KEY", " \n"), ("E2E_GIT_TOKEN", "x")],
            "E2E_API_KEY",
            "is empty",
            "bottles.lab.egress.routes[0].inject.token",
        ),
    ] {
        options = options.with_host(host_with(&variables));
        let error = bottle::report(&options.launch(lab.plan(BOTTLE, "")).unwrap_err()).to_string();
        for part in [variable, problem, key] {
            assert!(error.contains(part), "{error} does not say {part}");
        }
        assert!(!lab.state().exists(), "the state directory was made");
        lab.assert_nothing_left();
    }
}

/// Collects the command lines of all processes of the host.
struct CommandLines {
    stop: Arc<AtomicBool>,
    watcher: std::thread::JoinHandle<BTreeSet<Vec<u8>>>,
}

impl CommandLines {
    fn watch() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watcher = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !stopped.load(Ordering::Relaxed) {
                let processes = std::fs::read_dir("/proc").unwrap().flatten();
                seen.extend(processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok()));
                std::thread::sleep(Duration::from_millis(5));
            }
            seen
        });
        Self { stop, watcher }
    }

    fn stop(self) -> String {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.watcher.join().unwrap();
        seen.iter().map(|line| String::from_utf8_lossy(line) + "\n").collect()
    }
}

fn assert_no_file_holds(tokens: &Tokens, dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            assert_no_file_holds(tokens, &path);
        } else if let Ok(bytes) = std::fs::read(&path) {
            tokens.assert_absent(&path.display().to_string(), bytes);
        }
    }
}
