//! Requests that egress refuses, and what the agent is told.

use super::*;

#[test]
#[ignore = "needs a container engine"]
fn a_host_without_a_route_is_decided_by_pipelock() {
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
fn a_request_that_no_route_allows_is_refused_and_does_not_leave_the_bottle() {
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
    // The agent's own values of the credential's header are removed, in every spelling, and so is any header that is not
    // listed, and a credential in the query. The real value is there once.
    let send = "GET /echo?kept&Private_Token=own&key=own HTTP/1.1\r\nHost: api.anthropic.com\r\nX-Api-Key: own\r\nx-API-key: own\r\nX_Api_Key: own\r\n\
                Authorization: Bearer own\r\nauthorization: Basic own\r\nProxy-Authorization: own\r\nApi-Key: own\r\n\
                Cookie: own\r\nX-Access-Token: own\r\nX-Unknown: own\r\nX-Stainless-Lang: kept\r\n\
                Connection: x-api-key\r\n\r\n";
    let kept = raw(&bottle, &[json!({"connect": "api.anthropic.com:443", "sni": API, "send": send})]);
    assert!(kept[0].starts_with("HTTP/1.1 200 "), "{kept:?}");
    let event = &arrived(&lab, "kept")[0];
    assert_eq!(header(event, "x-api-key"), [tokens.api.as_str()]);
    assert_eq!(header(event, "x-stainless-lang"), ["kept"]);
    assert!(!event["headers"].to_string().contains("own") && !event["target"].to_string().contains("own"), "{event}");
    let outside = serde_json::to_string(&lab.outside.events()).unwrap();
    assert!(!outside.contains("case-"), "a refused request arrived: {outside}");
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn the_error_of_a_failed_request_names_the_failed_part() {
    let lab = Lab::new("reasons");
    let tokens = Tokens::of(&lab);
    let bottle = launch_of(
        &lab,
        &tokens,
        &BOTTLE.replace("[outside.test]", "[outside.test, nameless.test, 'outside.test:4444']"),
    );
    for (url, status, rule) in [
        (format!("https://{FORBIDDEN}/"), "403", "upstream-refused"),
        ("https://nameless.test/".into(), "502", "upstream-name"),
        (format!("https://{OUTSIDE}:4444/"), "502", "upstream-unreachable"),
        (format!("http://{FORBIDDEN}/"), "403", "upstream-refused"),
        ("http://nameless.test/".into(), "502", "upstream-name"),
        (format!("http://{OUTSIDE}:4444/"), "502", "upstream-unreachable"),
    ] {
        let answer = sh(&bottle, &format!("curl -sS -i -m 30 -w '%{{http_code}}' {url}"));
        assert!(answer.stdout.contains(&format!("\"rule\": \"{rule}\"")), "{url}: {answer:?}");
        assert!(answer.stdout.ends_with(status), "{url}: {answer:?}");
        let lower = answer.stdout.to_lowercase();
        assert!(!lower.contains("127.0.0.11") && !lower.contains("pipelock"), "{url}: {answer:?}");
    }
    // What a host itself answers is passed on.
    let own = sh(&bottle, &format!("curl -sS -m 30 -w '%{{http_code}}' http://{OUTSIDE}/status/403"));
    assert!(own.stdout.ends_with("403") && !own.stdout.contains("egress_refused"), "{own:?}");
    lab.close(&bottle);
}

/// Sends raw requests and returns the heads of the answers.
fn raw(bottle: &Bottle, cases: &[Value]) -> Vec<String> {
    let printed = python(bottle, include_str!("raw.py"), &[&Value::from(cases).to_string()]);
    serde_json::from_str(printed.ok()).unwrap()
}

/// A raw request, the status of its answer, and the rule that refuses it.
struct Case {
    name: &'static str,
    connect: Option<&'static str>,
    sni: &'static str,
    /// Text of the request. `CASE` stands for a text that identifies the request at the outside host.
    send: &'static str,
    status: u16,
    rule: &'static str,
}

/// Returns a case inside a tunnel to the routed host.
const fn inside(name: &'static str, send: &'static str, status: u16, rule: &'static str) -> Case {
    Case { name, connect: Some("api.anthropic.com:443"), sni: API, send, status, rule }
}

/// Returns a case over plain HTTP.
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
        "half a WebSocket handshake",
        "GET /v1/x?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        400,
        "websocket",
    ),
    inside(
        "a WebSocket on a path that no route allows",
        "GET /v2/x?CASE HTTP/1.1\r\nHost: api.anthropic.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n\r\n",
        403,
        "path",
    ),
];
