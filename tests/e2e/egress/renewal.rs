//! Credentials that expire while the bottle runs.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bottle::lifecycle::{CallbackSource, Secret};
use bottle_testing::lab::{Lab, figure, host, sh};

/// Time for which each token is valid.
const LIFETIME: Duration = Duration::from_secs(12);

/// Returns the time since 1970 in seconds.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
#[ignore = "needs a container engine"]
fn an_expiring_token_is_replaced_while_requests_go_on() {
    let lab = Lab::new("renewal");
    // The times at which the tokens were issued. The third question fails.
    let issued: Arc<Mutex<Vec<f64>>> = Arc::default();
    let issue = Arc::clone(&issued);
    let source = CallbackSource(move || {
        let mut issued = issue.lock().unwrap();
        issued.push(now());
        if issued.len() == 3 {
            return Err("the server is busy".into());
        }
        Ok(Secret::new(format!("expiring-token-{}", issued.len() - 1), Some(LIFETIME)))
    });
    let token = "RENEWED_TOKEN".parse().unwrap();
    let bottles = lab.options().with_host(host().with_secret(&token, Arc::new(source)));
    let plan = lab.plan("egress: {routes: [{host: outside.test, inject: {token: RENEWED_TOKEN}}]}", "");
    let bottle = bottles.launch(plan).unwrap();
    lab.outside.connect(&bottle.names().egress_network());
    let script = "for i in $(seq 100); do curl -sS -m 5 -o /dev/null -w '%{http_code} ' https://outside.test/echo; sleep 0.4; done
                  cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep -c expiring-token";
    let shown = sh(&bottle, script);
    let codes: Vec<&str> = shown.stdout.split_whitespace().filter(|code| code.len() == 3).collect();
    assert!(codes.len() == 100 && codes.iter().all(|code| *code == "200"), "{shown:?}");
    assert!(shown.stdout.ends_with(" 0\n"), "the agent sees a token: {shown:?}");

    let times = issued.lock().unwrap().clone();
    let mut seen = BTreeSet::new();
    let mut oldest: f64 = 0.0;
    for event in lab.outside.events() {
        let headers = event["headers"].as_array().into_iter().flatten();
        let own = headers.filter_map(|pair| Some((pair[0].as_str()?.to_lowercase(), pair[1].as_str()?)));
        for (_, value) in own.filter(|(name, _)| name == "authorization") {
            let number: usize = value.strip_prefix("Bearer expiring-token-").unwrap().parse().unwrap();
            let age = event["time"].as_f64().unwrap() - times[number];
            assert!(age < LIFETIME.as_secs_f64(), "token {number} arrived {age:.1} s after it was issued");
            (oldest, _) = (oldest.max(age), seen.insert(number));
        }
    }
    // The third failed, so there are at least three others in 40 s.
    assert!(seen.len() >= 3 && !seen.contains(&2), "{seen:?}");
    figure(format_args!("tokens of 12 s: {} used in 100 requests, the oldest {oldest:.1} s old", seen.len()));
    lab.close(&bottle);
    let log = fs::read_to_string(lab.state().join("compose.log")).unwrap();
    assert!(log.contains("outside.test") && !log.contains("expiring-token"));
    // Nobody asks any more.
    let asked = issued.lock().unwrap().len();
    thread::sleep(LIFETIME);
    assert_eq!(issued.lock().unwrap().len(), asked);
}
