//! Long answers and two-way connections.

use super::*;

#[test]
#[ignore = "needs a container engine"]
fn events_arrive_as_they_are_sent() {
    let lab = Lab::new("stream");
    let tokens = Tokens::of(&lab);
    let bottle = tokens.launch(&lab);
    let printed = python(&bottle, include_str!("stream.py"), &[&format!("https://{API}/sse?n=10&ms=200")]);
    let events: Vec<(f64, f64)> = serde_json::from_str(printed.ok()).unwrap();
    assert_eq!(events.len(), 10);
    let (first_received, last_sent) = (events[0].1, events[9].0);
    assert!(first_received < last_sent, "{events:?}");
    let mut delays: Vec<f64> = events.iter().map(|(sent, received)| (received - sent) * 1000.0).collect();
    delays.sort_by(f64::total_cmp);
    figure(format_args!(
        "an event is received {:.1} ms after it is sent (median of 10; worst {:.1} ms); the first {:.0} ms before the last is sent",
        delays[5],
        delays[9],
        (last_sent - first_received) * 1000.0
    ));
    // Even the worst delay is far below the 200 ms between two events, so no event is held until the next one.
    assert!(delays[9] < 150.0, "{delays:?}");
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn a_websocket_passes_if_only_the_connection_is_inspected() {
    let lab = Lab::new("socket");
    let tokens = Tokens::of(&lab);
    let manifest =
        BOTTLE.replace("[outside.test]", "[{host: outside.test, inspect: content}]").replace("/slow]", "/ws]");
    let whole = lab.manifest(&manifest, "").replace("python3-requests]", "python3-requests, python3-websockets]");
    let bottle = tokens.options(&lab).launch(lab.plan_of(&whole)).unwrap_or_else(|error| panic!("{error}"));
    lab.outside.connect(&bottle.names().egress_network());
    let talk = |url: &str| {
        let printed = python(&bottle, include_str!("websocket.py"), &[url, PLACEHOLDER]);
        serde_json::from_str::<Value>(printed.ok()).unwrap()
    };

    let talked = talk(&format!("wss://{API}/ws?by=library"));
    assert_eq!(talked["status"], 101, "{talked}");
    figure(format_args!(
        "a WebSocket opens in {:.0} ms; an echoed message takes {:.1} ms (median of 20, worst {:.1})",
        talked["opened_ms"].as_f64().unwrap(),
        talked["median_ms"].as_f64().unwrap(),
        talked["worst_ms"].as_f64().unwrap()
    ));
    let event = &arrived(&lab, "by=library")[0];
    assert_eq!(header(event, "x-api-key"), [tokens.api.as_str()]);
    assert_eq!(header(event, "sec-websocket-extensions"), [""; 0], "compressed, an echoed token could not be masked");
    let log = docker(["logs", &egress_container(&bottle)]).stdout;
    let line = log.lines().find(|line| line.contains("\"path\":\"/ws\"")).unwrap_or_else(|| panic!("{log}"));
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["status"], &line["route"], &line["injected"]), (&json!(101), &json!("api"), &json!(true)));
    for bytes in ["bytes_up", "bytes_down"] {
        assert!(line[bytes].as_u64().unwrap() > 1 << 20, "{line}");
    }

    let refused = talk(&format!("wss://{OUTSIDE}/ws?by=inspected"));
    assert_eq!((&refused["status"], &refused["rule"]), (&json!(426), &json!("websocket")));
    let took = refused["refused_ms"].as_f64().unwrap();
    figure(format_args!("where the content is inspected, 426 comes after {took:.0} ms"));
    assert!(took < 2000.0 && arrived(&lab, "by=inspected").is_empty(), "{refused}");
    let refused = talk(&format!("wss://{API}/elsewhere"));
    assert_eq!((&refused["status"], &refused["rule"]), (&json!(403), &json!("path")));
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn without_routes_a_websocket_passes_over_tls_and_is_refused_clearly_elsewhere() {
    // Pipelock alone, and behind egress, which is there because of a host with `inspect: content`.
    for (test, manifest, is_behind_egress) in [
        ("socket-one", "egress: {allow: [outside.test]}", false),
        ("socket-two", "egress: {allow: [outside.test, {host: forbidden.test, inspect: content}]}", true),
    ] {
        let lab = Lab::new(test);
        let whole = lab.manifest(manifest, "").replace("python3-requests]", "python3-requests, python3-websockets]");
        let bottle = lab.options().launch(lab.plan_of(&whole)).unwrap_or_else(|error| panic!("{error}"));
        lab.outside.connect(&bottle.names().egress_network());
        let talk = |url: &str| {
            let printed = python(&bottle, include_str!("websocket.py"), &[url, PLACEHOLDER]);
            println!("{test} {url}: {printed:?}");
            serde_json::from_str::<Value>(printed.ok()).unwrap()
        };
        assert_eq!(talk(&format!("wss://{OUTSIDE}/ws"))["status"], 101);
        // Clients open a tunnel for `ws:` too. Pipelock passes it unread, and egress allows only TLS in one.
        let plain = talk(&format!("ws://{OUTSIDE}/ws"));
        if is_behind_egress {
            assert_eq!((&plain["status"], &plain["rule"]), (&json!(403), &json!("not-tls")), "{plain}");
            let read = talk(&format!("wss://{FORBIDDEN}/ws"));
            assert_eq!((&read["status"], &read["rule"]), (&json!(426), &json!("websocket")), "{read}");
            assert!(read["refused_ms"].as_f64().unwrap() < 2000.0, "{read}");
        } else {
            assert_eq!(plain["status"], 101, "{plain}");
        }
        lab.close(&bottle);
    }
}
