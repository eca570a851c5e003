//! Egress: credentials that the agent never holds.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bottle::exec::Event;
use bottle::exec::engine::Exec;
use bottle::plan::Service;
use bottle::{Bottle, Bottles, Host};
use serde_json::{Value, json};

use bottle_testing::lab::{FORBIDDEN, Finished, Lab, OUTSIDE, base64, docker, host, sh};

/// The routed host. The one that is allowed without a route is `OUTSIDE`.
const API: &str = "api.anthropic.com";

const BOTTLE: &str = "\
env:
  ANTHROPIC_API_KEY: {placeholder: true}
  CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: \"1\"
egress:
  allow: [outside.test]
  routes:
    - name: api
      host: api.anthropic.com
      paths: [/v1/, /echo, /sse, /big, /upload, /slow]
      methods: [GET, POST]
      inject: {token: E2E_API_KEY, scheme: header}
    - name: git
      host: api.anthropic.com
      paths: [/demo.git]
      inject: {token: E2E_GIT_TOKEN, scheme: basic}";

/// What a placeholder holds where the manifest says nothing else.
const PLACEHOLDER: &str = "placeholder-egress-injects-the-real-one";

/// The tokens of one test, which no other text can hold by chance.
struct Tokens {
    api: String,
    git: String,
}

impl Tokens {
    fn of(lab: &Lab) -> Self {
        Self { api: format!("sk-ant-api03-REAL-{}", lab.slug), git: format!("ghp-REAL-{}", lab.slug) }
    }

    /// The lab's options, on a host that has the tokens.
    fn options(&self, lab: &Lab) -> Bottles {
        let mut options = lab.options();
        options = options.with_host(host_with(&[("E2E_API_KEY", &self.api), ("E2E_GIT_TOKEN", &self.git)]));
        options
    }

    fn launch(&self, lab: &Lab) -> Bottle {
        let bottle = self.options(lab).launch(lab.plan(BOTTLE, "")).unwrap_or_else(|error| panic!("{error}"));
        lab.outside.connect(&bottle.names().egress_network());
        bottle
    }

    /// Every form in which a token is sent: as it is, and in base64 with its user name.
    fn forms(&self) -> Vec<String> {
        vec![self.api.clone(), self.git.clone(), base64(&format!("x-access-token:{}", self.git))]
    }

    /// Fails if the text holds a token in any form.
    #[track_caller]
    fn assert_absent(&self, place: &str, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        for form in self.forms() {
            let found = text.windows(form.len()).any(|window| window == form.as_bytes());
            assert!(!found, "a token is in {place}");
        }
    }
}

fn host_with(variables: &[(&str, &str)]) -> Host {
    let host = host();
    let added = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Host::new(host.facts.clone(), host.environment().chain(added))
}

/// Runs a Python script as the agent.
fn python(bottle: &Bottle, script: &str, arguments: &[&str]) -> Finished {
    let argv = ["python3", "-c", script].into_iter().chain(arguments.iter().copied());
    let output = bottle.exec(Exec::new(argv).with_timeout(Duration::from_secs(120))).unwrap();
    Finished {
        code: output.status.as_shell_code(),
        stdout: output.stdout.text(),
        stderr: output.stderr.text(),
        duration: output.duration,
    }
}

/// Requests that have reached the outside host, told from each other by a text in their target.
fn arrived(lab: &Lab, target: &str) -> Vec<Value> {
    let holds = |event: &Value| event["target"].as_str().is_some_and(|text| text.contains(target));
    lab.outside.events().into_iter().filter(holds).collect()
}

/// The values of a request's header, whatever its case.
fn header(event: &Value, name: &str) -> Vec<String> {
    let pairs = event["headers"].as_array().into_iter().flatten();
    let named = pairs.filter(|pair| pair[0].as_str().is_some_and(|text| text.eq_ignore_ascii_case(name)));
    named.filter_map(|pair| pair[1].as_str().map(ToOwned::to_owned)).collect()
}

#[expect(clippy::print_stderr, reason = "figures that a person asked for")]
fn figure(text: &str) {
    eprintln!("figure: {text}");
}

fn egress_container(bottle: &Bottle) -> String {
    bottle.names().container(Service::Egress)
}

#[test]
#[ignore = "needs a container engine"]
fn every_client_gets_the_real_token_there_and_a_placeholder_here() {
    let lab = Lab::new("inject");
    let tokens = Tokens::of(&lab);
    let bottle = tokens.launch(&lab);

    sh(&bottle, &format!("curl -fsS -H \"x-api-key: $ANTHROPIC_API_KEY\" 'https://{API}/echo?by=curl'")).ok();
    sh(&bottle, &format!("git clone -q https://{API}/demo.git /tmp/demo && test -d /tmp/demo/.git")).ok();
    // Node's own `fetch` takes the proxy's variables from Node 24 on; before that it must be given what reads them.
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
    figure(&format!("`claude -p hello` prints the answer after {:.1} s", claude.duration.as_secs_f64()));

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
    // The host echoes the credential; what comes back of it is asterisks.
    let echo = sh(&bottle, &format!("curl -fsSi https://{API}/echo"));
    assert!(echo.ok().contains("****"), "{echo:?}");
    tokens.assert_absent("an answer that echoes it", &echo.stdout);
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn the_example_for_claude_code_answers_without_a_key() {
    let lab = Lab::new("claude");
    let tokens = Tokens::of(&lab);
    // The example as it is, with what every lab adds to a bottle.
    let whole = lab.manifest("", "");
    let added: String =
        whole.lines().skip(2).take_while(|line| line.starts_with("    ")).flat_map(|line| [line, "\n"]).collect();
    let example = include_str!("../../examples/claude.yaml");
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
fn a_host_without_a_route_is_pipelocks_to_decide() {
    let lab = Lab::new("unrouted");
    let tokens = Tokens::of(&lab);
    let bottle = tokens.launch(&lab);
    sh(&bottle, &format!("curl -fsS -X PUT -d own -H 'Authorization: Bearer own' 'https://{OUTSIDE}/echo?by=own'"))
        .ok();
    let event = &arrived(&lab, "by=own")[0];
    assert_eq!((header(event, "authorization"), &event["method"]), (vec!["Bearer own".to_owned()], &json!("PUT")));
    let refused = sh(&bottle, &format!("curl -sS -o /dev/null -w '%{{http_code}}' https://{FORBIDDEN}/"));
    assert_eq!(refused.stdout.trim(), "403", "{refused:?}");
    assert!(lab.outside.events().iter().all(|event| event["sni"] != FORBIDDEN && event["host"] != FORBIDDEN));
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn events_arrive_as_they_are_sent() {
    let lab = Lab::new("stream");
    let tokens = Tokens::of(&lab);
    let bottle = tokens.launch(&lab);
    let printed = python(&bottle, include_str!("egress/stream.py"), &[&format!("https://{API}/sse?n=10&ms=200")]);
    let events: Vec<(f64, f64)> = serde_json::from_str(printed.ok()).unwrap();
    assert_eq!(events.len(), 10);
    let (first_received, last_sent) = (events[0].1, events[9].0);
    assert!(first_received < last_sent, "{events:?}");
    let mut delays: Vec<f64> = events.iter().map(|(sent, received)| (received - sent) * 1000.0).collect();
    delays.sort_by(f64::total_cmp);
    figure(&format!(
        "an event is received {:.1} ms after it is sent (median of 10; worst {:.1} ms); the first {:.0} ms before the last is sent",
        delays[5],
        delays[9],
        (last_sent - first_received) * 1000.0
    ));
    // Even the worst is far from the 200 ms between two events: nothing waits for the next one.
    assert!(delays[9] < 150.0, "{delays:?}");
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn a_token_is_found_nowhere_but_in_egress() {
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
    assert!(commands.contains("compose\0") && commands.contains("\0up\0"), "{commands:?}");
    tokens.assert_absent("a command line of the host", commands);
    tokens.assert_absent("an event", &*told.lock().unwrap());
    tokens.assert_absent("the options' debug form", format!("{options:?}"));
    tokens.assert_absent("the plan", format!("{:?}", lab.plan(BOTTLE, "")));

    // As root too, and every process.
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
    assert_eq!(names.lines().count(), 3, "{names}");
    for name in names.lines() {
        let inspected = docker(["inspect", "--size", name]).stdout;
        if name == egress {
            assert!(inspected.contains(&tokens.api), "what is looked for would not be found");
        } else {
            tokens.assert_absent(name, inspected);
        }
        let logs = docker(["logs", name]);
        tokens.assert_absent(&format!("the log of {name}"), logs.stdout + &logs.stderr);
    }
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
fn no_error_holds_a_token() {
    let lab = Lab::new("errors");
    let tokens = Tokens::of(&lab);
    let failing = |manifest: &str, options: &Bottles| {
        let error = options.launch(lab.plan(manifest, "")).unwrap_err();
        let text = format!("{error}\n{error:?}");
        tokens.assert_absent("an error", &text);
        lab.assert_nothing_left();
        assert_no_file_holds(&tokens, lab.root.path());
        text
    };
    // A service that does not come up: what Compose printed is part of the error.
    let broken = format!("{BOTTLE}\nlimits: {{sidecar: {{memory: 16MiB}}}}");
    let error = failing(&broken, &tokens.options(&lab));
    assert!(error.contains("start the services"), "{error}");
    // A token that was copied with the end of its line. The other one is all right.
    let mut options = tokens.options(&lab);
    options =
        options.with_host(host_with(&[("E2E_API_KEY", &format!("{}\n", tokens.api)), ("E2E_GIT_TOKEN", &tokens.git)]));
    let error = failing(BOTTLE, &options);
    assert!(error.contains("`E2E_API_KEY`") && error.contains("egress.routes[0].inject.token"), "{error}");
}

#[test]
#[ignore = "needs a container engine"]
fn a_missing_or_empty_token_is_refused_before_anything_is_made() {
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
        let error = options.launch(lab.plan(BOTTLE, "")).unwrap_err().to_string();
        for part in [variable, problem, key] {
            assert!(error.contains(part), "{error} does not say {part}");
        }
        assert!(!lab.state().exists(), "the state directory was made");
        lab.assert_nothing_left();
    }
}

/// A request as it is sent, and what comes of it: the status, and the rule that refuses it.
struct Case {
    name: &'static str,
    connect: Option<&'static str>,
    sni: &'static str,
    /// `CASE` stands for a text by which the request would be known outside.
    send: &'static str,
    status: u16,
    rule: &'static str,
}

/// In a tunnel to the routed host.
const fn inside(name: &'static str, send: &'static str, status: u16, rule: &'static str) -> Case {
    Case { name, connect: Some("api.anthropic.com:443"), sni: API, send, status, rule }
}

/// In the open.
const fn open(name: &'static str, send: &'static str, status: u16, rule: &'static str) -> Case {
    Case { name, connect: None, sni: "", send, status, rule }
}

const REFUSED: &[Case] = &[
    inside("another path", "GET /other?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n", 403, "path"),
    inside("a longer name of the path", "GET /echoes?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n", 403, "path"),
    inside("another method", "DELETE /v1/x?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n", 403, "method"),
    inside("a method's other case", "get /v1/x?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n", 403, "method"),
    inside("the path of a parent", "GET /v1/../other?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n", 400, "path"),
    inside("the same, escaped", "GET /v1/%2e%2e/other?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n", 400, "path"),
    inside("two slashes", "GET //v1/x?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n", 400, "path"),
    inside(
        "an override of the method",
        "POST /v1/x?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\nX-HTTP-Method-Override: DELETE\r\nContent-Length: 0\r\n\r\n",
        403,
        "override",
    ),
    inside("another Host", "GET /v1/x?CASE HTTP/1.1\r\nHost: outside.test\r\n\r\n", 421, "host-mismatch"),
    inside("no Host", "GET /v1/x?CASE HTTP/1.1\r\nX: y\r\n\r\n", 421, "host-mismatch"),
    Case {
        name: "another server name",
        connect: Some("outside.test:443"),
        sni: API,
        send: "GET /echo?CASE HTTP/1.1\r\nHost: outside.test\r\n\r\n",
        status: 421,
        rule: "server-name-mismatch",
    },
    Case {
        name: "the routed host inside another's tunnel",
        connect: Some("outside.test:443"),
        sni: OUTSIDE,
        send: "GET /v1/x?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n",
        status: 421,
        rule: "host-mismatch",
    },
    Case {
        name: "another port",
        connect: Some("api.anthropic.com:80"),
        sni: API,
        send: "GET /v1/x?CASE HTTP/1.1\r\nHost: api.anthropic.com:80\r\n\r\n",
        status: 403,
        rule: "port",
    },
    inside(
        "an absolute target in a tunnel",
        "GET https://api.anthropic.com/v1/x?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n",
        400,
        "target",
    ),
    inside(
        "an absolute target of another host in a tunnel",
        "GET https://outside.test/echo?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n",
        400,
        "target",
    ),
    open(
        "the routed host in the open",
        "GET http://api.anthropic.com/v1/x?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n",
        403,
        "https-only",
    ),
    open(
        "an absolute target that its Host denies",
        "GET http://outside.test/echo?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n",
        400,
        "host-mismatch",
    ),
    open(
        "an absolute https target without a tunnel",
        "GET https://api.anthropic.com/v1/x?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n",
        400,
        "scheme",
    ),
    inside("two Hosts", "GET /v1/x?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\nHost: outside.test\r\n\r\n", 400, ""),
    inside(
        "two lengths",
        "POST /v1/x?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\nContent-Length: 0\r\nContent-Length: 30\r\n\r\n\
         GET /v1/y?CASE HTTP/1.1\r\n\r\n",
        400,
        "",
    ),
    inside(
        "a length and chunks",
        "POST /v1/x?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\n\r\nGET /v1/y?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n",
        400,
        "",
    ),
    inside(
        "a length of a careless name",
        "POST /v1/x?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\nContent_Length: 4\r\n\r\n",
        400,
        "header",
    ),
    inside(
        "chunks of a careless name",
        "POST /v1/x?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\nContent-Length: 0\r\nTransfer_Encoding: chunked\r\n\r\n",
        400,
        "header",
    ),
    inside(
        "chunks in disguise",
        "POST /v1/x?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        400,
        "",
    ),
    inside(
        "a blank before the colon",
        "GET /v1/x?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\nx-api-key : own\r\n\r\n",
        400,
        "",
    ),
    inside(
        "a folded header",
        "GET /v1/x?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\nX: y\r\n x-api-key: own\r\n\r\n",
        400,
        "",
    ),
    inside("TRACE", "TRACE /v1/x?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n", 405, "trace"),
    inside(
        "a WebSocket",
        "GET /v1/x?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        501,
        "websocket",
    ),
];

#[test]
#[ignore = "needs a container engine"]
fn what_no_route_allows_is_refused_and_never_seen_outside() {
    let lab = Lab::new("refuse");
    let tokens = Tokens::of(&lab);
    let bottle = tokens.launch(&lab);
    let marked: Vec<Value> = (0..)
        .zip(REFUSED)
        .map(|(number, case)| {
            let send = case.send.replace("CASE", &format!("case-{number}-"));
            json!({"connect": case.connect, "sni": case.sni, "send": send})
        })
        .collect();
    let answers = raw(&bottle, &marked);
    for (case, answer) in REFUSED.iter().zip(&answers) {
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert_eq!(status, case.status.to_string(), "{}: {answer}", case.name);
        let rule = answer.to_ascii_lowercase().contains(&format!("x-egress-refused: {}\r\n", case.rule));
        assert!(rule || case.rule.is_empty(), "{}: {answer}", case.name);
        tokens.assert_absent(case.name, answer);
    }
    // What the agent puts where the credential goes is taken away, however it is written; the real one is there once.
    let send = "GET /echo?kept HTTP/1.1\r\nHost: api.anthropic.com\r\nX-Api-Key: own\r\nx-API-key: own\r\nX_Api_Key: own\r\n\
                Authorization: Bearer own\r\nauthorization: Basic own\r\nProxy-Authorization: own\r\nApi-Key: own\r\n\
                Connection: x-api-key\r\n\r\n";
    let kept = raw(&bottle, &[json!({"connect": "api.anthropic.com:443", "sni": API, "send": send})]);
    assert!(kept[0].starts_with("HTTP/1.1 200 "), "{kept:?}");
    let event = &arrived(&lab, "kept")[0];
    assert_eq!(header(event, "x-api-key"), [tokens.api.as_str()]);
    assert!(!event["headers"].to_string().contains("own"), "{event}");
    let outside = serde_json::to_string(&lab.outside.events()).unwrap();
    assert!(!outside.contains("case-"), "a refused request arrived: {outside}");
    lab.close(&bottle);
}

/// The heads of the answers to requests that are sent as they stand.
fn raw(bottle: &Bottle, cases: &[Value]) -> Vec<String> {
    let printed = python(bottle, include_str!("egress/raw.py"), &[&Value::from(cases).to_string()]);
    serde_json::from_str(printed.ok()).unwrap()
}

#[test]
#[ignore = "needs a container engine"]
fn with_either_proxy_down_requests_fail_and_nothing_leaves() {
    let lab = Lab::new("down");
    let tokens = Tokens::of(&lab);
    let bottle = tokens.launch(&lab);
    let curl = format!("curl -sS -m 30 -w '%{{http_code}} %{{http_connect}}' 'https://{API}/echo?by=down'");
    assert!(sh(&bottle, &curl).ok().ends_with("200 200"));
    let before = lab.outside.events().len();

    docker(["stop", &bottle.names().container(Service::Pipelock)]);
    let without_pipelock = sh(&bottle, &curl);
    assert!(
        without_pipelock.stdout.contains("502") && without_pipelock.stdout.contains("egress_refused"),
        "{without_pipelock:?}"
    );
    docker(["stop", &egress_container(&bottle)]);
    let without_both = sh(&bottle, &curl);
    docker(["start", &bottle.names().container(Service::Pipelock)]);
    let without_egress = sh(&bottle, &curl);
    for failed in [&without_both, &without_egress] {
        assert!(failed.code != 0 && failed.stdout.ends_with("000 000"), "{failed:?}");
    }
    for failed in [without_pipelock, without_both, without_egress] {
        assert!(failed.duration < Duration::from_secs(15), "{failed:?}");
        tokens.assert_absent("an answer", failed.stdout + &failed.stderr);
    }
    assert_eq!(lab.outside.events().len(), before, "something arrived outside");
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn nobody_goes_around_egress_and_whoever_could_would_get_no_credential() {
    let lab = Lab::new("around");
    let tokens = Tokens::of(&lab);
    let bottle = tokens.launch(&lab);
    let pipelock = bottle.names().container(Service::Pipelock);
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
    let addresses = docker(["inspect", "--format", format, &pipelock]).stdout;
    let mut names: Vec<&str> = addresses.split_whitespace().collect();
    assert_eq!(names.len(), 2, "{names:?}");
    names.extend(["pipelock", pipelock.as_str()]);
    // From the agent's place: by every name and address, by the interface, as root too.
    let connect = "import socket, sys
for name in sys.argv[1:]:
    for device in (None, b'eth0'):
        try:
            with socket.socket() as attempt:
                attempt.settimeout(3)
                if device:
                    attempt.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
                attempt.connect((name, 8888))
                print('reached', name, device)
        except OSError as error:
            print('failed', name, device, error, file=sys.stderr)";
    let tried = python(&bottle, connect, &names);
    assert_eq!((tried.ok(), tried.stderr.lines().count()), ("", 2 * names.len()), "{tried:?}");
    assert!(tried.duration < Duration::from_secs(3), "{tried:?}");
    let arguments = ["exec", "--user", "0", &bottle.names().project(), "python3", "-c", connect];
    assert_eq!(docker(arguments.iter().chain(&names)).stdout, "");
    // What the attempts would have met is there: egress reaches it.
    sh(&bottle, &format!("curl -fsS https://{API}/echo")).ok();

    // From beside the agent, where no rule holds: the limits of the routes are not pipelock's, but no credential is either.
    let image = docker(["inspect", "--format", "{{.Image}}", &bottle.names().project()]).stdout;
    let url = format!("https://{API}/status/200?by=bypass");
    let network = bottle.names().internal_network();
    let proxy = format!("http://{pipelock}:8888");
    docker(["run", "--rm", "--network", &network, image.trim(), "curl", "-fsSk", "--proxy", &proxy, &url]);
    let event = arrived(&lab, "by=bypass").remove(0);
    tokens.assert_absent("a request that did not come through egress", event.to_string());
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn what_the_two_proxies_cost() {
    let lab = Lab::new("cost");
    let tokens = Tokens::of(&lab);
    let bottle = tokens.launch(&lab);
    let (base, count, megabytes) = (format!("https://{API}"), "100", "100");
    let script = include_str!("egress/bench.py");
    // Directly: the agent's own image beside the outside host.
    let image = docker(["inspect", "--format", "{{.Image}}", &bottle.names().project()]).stdout;
    let bundle = format!("{}:/ca.pem:ro", lab.root.path().join("outside-ca.pem").display());
    let direct = docker([
        "run",
        "--rm",
        "--network",
        &bottle.names().egress_network(),
        "--volume",
        &bundle,
        "--env",
        "REQUESTS_CA_BUNDLE=/ca.pem",
        image.trim(),
        "python3",
        "-c",
        script,
        &base,
        count,
        megabytes,
    ]);
    let proxied = python(&bottle, script, &[&base, count, megabytes]);
    let figures = |finished: &Finished| serde_json::from_str::<Value>(finished.ok()).unwrap();
    let (direct, proxied) = (figures(&direct), figures(&proxied));
    let of = |figures: &Value, key: &str| figures[key].as_f64().unwrap();
    for (what, key, unit) in [
        ("a small request on a kept connection", "kept_ms", "ms"),
        ("a small request on a new connection", "fresh_ms", "ms"),
        ("100 MiB down", "down_mb_s", "MB/s"),
        ("50 MiB up", "up_mb_s", "MB/s"),
    ] {
        let (direct, proxied) = (of(&direct, key), of(&proxied, key));
        let ratio = proxied / direct;
        figure(&format!(
            "{what}: direct {direct:.1} {unit}, through both proxies {proxied:.1} {unit}, ratio {ratio:.2}"
        ));
    }
    // Bounds that only something broken exceeds, on the slowest machine.
    assert!(of(&proxied, "kept_ms") - of(&direct, "kept_ms") < 100.0, "{proxied}");
    assert!(of(&proxied, "down_mb_s") > 5.0 && of(&proxied, "up_mb_s") > 5.0, "{proxied}");
    // The largest of its processes is the proxy.
    let script = "sort -n -k 2 -r /proc/[0-9]*/status 2>/dev/null | grep -m 1 VmHWM";
    let peak = docker(["exec", &egress_container(&bottle), "sh", "-c", script]).stdout;
    figure(&format!("egress's memory at its largest: {}", peak.trim()));
    lab.close(&bottle);
}

/// The command lines of every process of the host, as long as it watches.
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
