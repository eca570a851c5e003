//! Refusals, and the lines of a manifest that allow what was refused.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bottle::Bottle;
use bottle::sidecars::audit::{AuditLine, AuditOutcome, Refusal};

use bottle_testing::lab::{Lab, sh};

fn refused(lab: &Lab) -> Vec<Refusal> {
    lab.options().refusals(&lab.slug.parse().unwrap()).unwrap()
}

#[test]
#[ignore = "needs a container engine"]
fn the_line_that_a_refusal_names_allows_what_was_refused() {
    let lab = Lab::new("why");
    let route = "egress: {routes: [{host: outside.test, paths: [/v1/], methods: [GET]}]}";
    for (lines, request, tried, line) in [
        ("", "https://forbidden.test/echo", "forbidden.test", "egress: {allow: [forbidden.test]}"),
        (
            route,
            "https://outside.test/echo",
            "GET outside.test/echo",
            "egress: {routes: [{host: outside.test, paths: [/echo], methods: [GET]}]}",
        ),
        (
            route,
            "https://forbidden.test:8443/echo",
            "GET forbidden.test:8443/echo",
            "egress: {allow: ['forbidden.test:8443']}",
        ),
    ] {
        let script = format!("curl -sS -m 20 -o /dev/null -w '%{{http_code}}' {request}");
        let status = |bottle: &Bottle| sh(bottle, &script).stdout;
        let bottle = lab.launch(lines, "");
        let before = lab.outside.events().len();
        assert!(["403", "000"].contains(&&*status(&bottle)), "{request}");
        assert_eq!(lab.outside.events().len(), before, "{request} arrived");
        let open = refused(&lab);
        let last = open.last().unwrap();
        assert_eq!((&*last.tried, last.allow.as_deref(), last.count), (tried, Some(line), 1), "{open:?}");
        lab.close(&bottle);
        // The log that a teardown saves says the same.
        assert_eq!(refused(&lab), open);

        let bottle = lab.launch(line, "");
        assert!(["200", "404"].contains(&&*status(&bottle)), "{request} is refused with {line}");
        assert!(lab.outside.events().len() > before, "{request} did not arrive with {line}");
        assert_eq!(refused(&lab), []);
        lab.close(&bottle);
    }
}

#[test]
#[ignore = "needs a container engine"]
fn audit_lines_arrive_while_the_bottle_runs_and_end_with_it() {
    let lab = Lab::new("audit");
    let bottle = lab.launch("egress: {routes: [{host: outside.test}]}", "");
    let (sender, lines) = mpsc::channel();
    let (bottles, slug) = (lab.options(), lab.slug.parse().unwrap());
    let follower = thread::spawn(move || bottles.audit(&slug, true, move |line| drop(sender.send(line))));
    let next = |wanted: &dyn Fn(&AuditLine) -> bool| {
        (0..50).map_while(|_| lines.recv_timeout(Duration::from_secs(20)).ok()).find(wanted).expect("the line arrives")
    };
    next(&|line| line.event == "started");
    sh(&bottle, "curl -fsS -m 20 https://outside.test/echo").ok();
    let done = next(&|line| line.outcome == Some(AuditOutcome::Done));
    assert_eq!((done.text("host"), done.port()), (Some("outside.test"), Some(443)));
    // A host that is spelled in a way that programs disagree on is named as it was sent.
    sh(&bottle, "curl -s -m 20 -o /dev/null https://outside.test./echo");
    next(&|line| line.reason.as_deref() == Some("connect"));
    assert_eq!(refused(&lab).pop().unwrap().tried, "outside.test.:443");
    let unknown = lab.options().suggest(&"no-such-bottle".parse().unwrap()).unwrap_err();
    assert!(bottle::report(&unknown).to_string().contains("find bottle `no-such-bottle`"), "{unknown}");
    lab.close(&bottle);
    assert!(follower.join().unwrap().is_ok());
}
