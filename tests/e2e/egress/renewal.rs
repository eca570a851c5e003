//! Credentials that expire while the bottle runs.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bottle::Bottle;
use bottle::exec::Event;
use bottle::exec::engine::Exec;
use bottle::lifecycle::{CallbackSource, Secret};
use bottle::plan::Service;
use bottle::plan::digest::sha256;
use bottle::token_sources::OAuthSource;
use bottle_testing::lab::canary::{Hunt, Processes};
use bottle_testing::lab::{Lab, docker, figure, host, sh};
use bottle_testing::tokens::{FakeTokens, access, refresh};
use serde_json::json;

/// Returns the time since 1970 in milliseconds.
fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// Returns the token that the outside host accepts for some time after `issued`; see `/expiring` in its `web.py`.
fn token(issued: u128) -> String {
    format!("expiring-{issued}-{}", sha256(format!("the issuer of the tests {issued}")))
}

/// Asks a host that accepts each token for `lifetime` and not a moment longer, for as long as `time`.
fn no_request_meets_an_expired_token(lab: &Lab, lifetime: Duration, time: Duration, fails: bool) {
    let issued: Arc<Mutex<Vec<u128>>> = Arc::default();
    let (issue, asked) = (Arc::clone(&issued), AtomicBool::default());
    let source = CallbackSource(move || {
        // Every second question after the launch fails.
        if fails && !issue.lock().unwrap().is_empty() && !asked.fetch_xor(true, Ordering::Relaxed) {
            return Err("the server is busy".into());
        }
        let time = now();
        issue.lock().unwrap().push(time);
        Ok(Secret::new(token(time), Some(lifetime)))
    });
    let bottles = lab.options().with_host(host().with_secret(&"RENEWED".parse().unwrap(), Arc::new(source)));
    let plan = lab.plan("egress: {routes: [{host: outside.test, inject: {token: RENEWED}}]}", "");
    let bottle = bottles.launch(plan).unwrap();
    lab.outside.connect(&bottle.names().egress_network());

    let script = "end=$(($(date +%s) + $1))
        while [ $(date +%s) -lt $end ]; do
          curl -sS -m 5 -w '\\n%{http_code}\\n' \"https://outside.test/expiring?ms=$2\" | tee -a answers; sleep 0.2
        done";
    let (seconds, milliseconds) = (time.as_secs().to_string(), lifetime.as_millis().to_string());
    let run = Exec::new(["sh", "-c", script, "sh", &seconds, &milliseconds]).with_timeout(time * 2);
    let output = bottle.exec(run).unwrap();
    let seen = output.stdout.text();
    let codes: Vec<&str> = seen.lines().filter(|line| line.len() == 3).collect();
    assert!(codes.len() as u64 > time.as_secs() && codes.iter().all(|code| *code == "200"), "{seen}");

    let tokens: Vec<String> = issued.lock().unwrap().iter().map(|issued| token(*issued)).collect();
    let used: Vec<&String> = tokens
        .iter()
        .filter(|token| super::arrived(lab, "/expiring").iter().any(|event| event.to_string().contains(*token)))
        .collect();
    let least = time.as_millis() / lifetime.as_millis();
    assert!(used.len() as u128 >= least, "{} tokens were used, {} issued", used.len(), tokens.len());
    // The host repeats the credential in its answer.
    assert!(seen.contains("****"), "{seen}");
    for (place, text) in places(&bottle).into_iter().chain([("the answers", seen.clone().into_bytes())]) {
        let found = |text: &[u8], part: &str| text.windows(part.len()).any(|window| window == part.as_bytes());
        assert!(place == "the answers" || found(&text, "\"shown\""), "{place} was not searched");
        for token in &tokens {
            // The digest alone is as good as the whole.
            assert!(!found(&text, &token[token.len() - 64..]), "a token is in {place}");
        }
    }
    let (requests, lifetime) = (codes.len(), lifetime.as_secs());
    figure(format_args!("tokens of {lifetime} s: {} used in {requests} requests, none answered 401", used.len()));
    lab.close(&bottle);
    let log = fs::read_to_string(lab.state().join("compose.log")).unwrap();
    assert!(log.contains("outside.test") && !log.contains("expiring-"));
    // Nobody asks any more.
    let asked = issued.lock().unwrap().len();
    thread::sleep(Duration::from_secs(lifetime));
    assert_eq!(issued.lock().unwrap().len(), asked);
}

/// Returns what the agent, and root in its container, can read: environments, command lines and files.
fn places(bottle: &Bottle) -> [(&'static str, Vec<u8>); 2] {
    let script = "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/task/*/environ; \
                  tar -C / -c etc home root run tmp var workspace opt/cli/bin; true";
    let agent = bottle.names().project();
    [("agent", "what the agent can read"), ("root", "the agent's container")].map(|(user, place)| {
        let mut command = Command::new("docker");
        command.args(["exec", "--user", user, &agent, "sh", "-c", script]);
        (place, command.stdin(Stdio::null()).output().unwrap().stdout)
    })
}

#[test]
#[ignore = "needs a container engine"]
fn an_expiring_token_is_replaced_while_requests_go_on() {
    let lab = Lab::new("renewal");
    no_request_meets_an_expired_token(&lab, Duration::from_secs(6), Duration::from_secs(24), false);
}

#[test]
#[ignore = "needs a container engine"]
fn three_minutes_of_requests_meet_no_expired_token() {
    let lab = Lab::new("renewal-long");
    no_request_meets_an_expired_token(&lab, Duration::from_secs(20), Duration::from_secs(180), true);
}

#[test]
#[ignore = "needs a container engine"]
fn a_refresh_token_is_nowhere_but_in_its_file() {
    let (lab, first, start) = (Lab::new("oauth"), "refresh-token-of-the-login", SystemTime::now());
    let server = FakeTokens::start(first);
    server.set_lifetime(6);
    let file = lab.root.path().join("credentials.json");
    let tokens = json!({"accessToken": "access-token-of-the-login", "refreshToken": first, "expiresAt": 0});
    fs::write(&file, json!({"claudeAiOauth": tokens}).to_string()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let source = OAuthSource::claude(&file).with_token_url(server.token_url());
    let told: Arc<Mutex<String>> = Arc::default();
    let tell = Arc::clone(&told);
    let observer = move |event: &Event| writeln!(tell.lock().unwrap(), "{event:?}").unwrap();
    let bottles = lab.options().with_observer(Arc::new(observer));
    let bottles = bottles.with_host(host().with_secret(&"SUBSCRIPTION".parse().unwrap(), Arc::new(source)));

    let processes = Processes::watch();
    let plan = lab.plan("egress: {routes: [{host: outside.test, inject: {token: SUBSCRIPTION}}]}", "");
    let bottle = bottles.launch(plan).unwrap();
    lab.outside.connect(&bottle.names().egress_network());
    sh(&bottle, "for i in $(seq 30); do curl -fsS https://outside.test/echo > answer; sleep 0.4; done").ok();
    let refreshed = server.refreshed();
    assert!(refreshed >= 3, "{refreshed}");
    let used = |number: &u32| {
        let header = format!("Bearer {}", access(*number));
        super::arrived(&lab, "/echo").iter().any(|event| super::header(event, "authorization") == [header.as_str()])
    };
    assert!((1..=refreshed).filter(used).count() >= 2, "{:?}", super::arrived(&lab, "/echo"));

    let mut hunt = Hunt::default();
    hunt.add("login", first);
    (1..=server.refreshed()).for_each(|number| hunt.add(&format!("refresh {number}"), &refresh(number)));
    processes.search(&mut hunt);
    hunt.engine("claude-bottle.slug", &lab.slug);
    hunt.temporary(start);
    hunt.search("events", told.lock().unwrap().as_bytes());
    hunt.search("options in their debug form", format!("{bottles:?}"));
    for (place, text) in places(&bottle) {
        hunt.search(place, text);
    }
    let egress = bottle.names().container(Service::Egress);
    let files = docker(["exec", &egress, "sh", "-c", "cat /run/credentials/* /tmp/egress-status.json"]).stdout;
    assert!(files.contains("access-token-number"), "{files}");
    hunt.search("egress", files);
    lab.close(&bottle);
    assert!(told.lock().unwrap().contains("renewed `SUBSCRIPTION`"));
    // What is left on disk: the one that is valid, in its file.
    (1..=server.refreshed()).for_each(|number| hunt.add(&format!("refresh {number}"), &refresh(number)));
    hunt.directory("files", lab.root.path());
    let last = format!("refresh {}", server.refreshed());
    assert_eq!(hunt.found(), [("files: credentials.json", vec![last.as_str()])].into(), "{}", hunt.table());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}
