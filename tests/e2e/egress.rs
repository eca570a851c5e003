//! Egress: credentials that the agent never holds.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bottle::exec::Event;
use bottle::exec::engine::Exec;
use bottle::plan::Service;
use bottle::{Bottle, Host, LaunchOptions};
use serde_json::{Value, json};

use crate::support::{FORBIDDEN, Finished, Lab, OUTSIDE, docker, host, run, scratch, sh};

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
    fn options(&self, lab: &Lab) -> LaunchOptions {
        let mut options = lab.options();
        options.host = host_with(&[("E2E_API_KEY", &self.api), ("E2E_GIT_TOKEN", &self.git)]);
        options
    }

    fn launch(&self, lab: &Lab) -> Bottle {
        let bottle = bottle::launch(lab.plan(BOTTLE, ""), &self.options(lab)).unwrap_or_else(|error| panic!("{error}"));
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

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in text.as_bytes().chunks(3) {
        let bits = (0..3).fold(0, |bits, index| bits << 8 | u32::from(*group.get(index).unwrap_or(&0)));
        for digit in 0..4 {
            let known = digit <= group.len();
            out.push(if known { DIGITS[(bits >> (18 - 6 * digit) & 63) as usize].into() } else { '=' });
        }
    }
    out
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
            assert_eq!(header(&event, "x-api-key"), [tokens.api.clone()], "{by}");
            assert_eq!(header(&event, "authorization"), [""; 0], "{by}");
        }
    }
    let git = arrived(&lab, "/demo.git/");
    let basic = format!("Basic {}", base64(&format!("x-access-token:{}", tokens.git)));
    assert!(git.len() >= 2 && git.iter().all(|event| header(event, "authorization") == [basic.clone()]));
    let all = serde_json::to_string(&lab.outside.events()).unwrap();
    assert!(!all.contains(PLACEHOLDER), "a placeholder left the bottle");

    assert_eq!(sh(&bottle, "echo $ANTHROPIC_API_KEY").ok(), PLACEHOLDER);
    // The host echoes the credential; what comes back of it is asterisks.
    let echo = sh(&bottle, &format!("curl -fsSi https://{API}/echo"));
    assert!(echo.ok().contains("****"), "{echo:?}");
    tokens.assert_absent("an answer that echoes it", &echo.stdout);
    lab.close(bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn a_host_without_a_route_is_pipelocks_to_decide() {
    let lab = Lab::new("unrouted");
    let tokens = Tokens::of(&lab);
    let bottle = tokens.launch(&lab);
    sh(&bottle, &format!("curl -fsS -X PUT -d own -H 'Authorization: Bearer own' 'https://{OUTSIDE}/echo?by=own'")).ok();
    let event = &arrived(&lab, "by=own")[0];
    assert_eq!((header(event, "authorization"), &event["method"]), (vec!["Bearer own".to_owned()], &json!("PUT")));
    let refused = sh(&bottle, &format!("curl -sS -o /dev/null -w '%{{http_code}}' https://{FORBIDDEN}/"));
    assert_eq!(refused.stdout.trim(), "403", "{refused:?}");
    assert!(lab.outside.events().iter().all(|event| event["sni"] != FORBIDDEN && event["host"] != FORBIDDEN));
    lab.close(bottle);
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
    lab.close(bottle);
}
