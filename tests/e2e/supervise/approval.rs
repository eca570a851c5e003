//! Approvals that take effect in the running bottle.

use super::*;
use crate::lifecycle::terminal::Terminal;

#[test]
#[ignore = "needs a container engine"]
fn an_approval_takes_effect_in_the_running_bottle_and_keeps_connections_open() {
    let it = Supervised::launch("approve", FULL);
    let connected = sh(&it.bottle, "cd /tmp && timeout 60 claude mcp list");
    assert!(
        connected.ok().contains("http://supervise:9100/mcp (HTTP)") && connected.stdout.contains("Connected"),
        "{connected:?}"
    );
    let tools = it.ask(&json!([["list_tools", {}]])).remove(0)["tools"].clone();
    let named =
        ["current_config", "propose_allow_host", "propose_route", "propose_git_upstream", "propose_image_change"];
    assert!(named.iter().all(|name| tools.as_array().unwrap().contains(&json!(name))), "{tools}");
    let url = format!("https://{FORBIDDEN}/echo");
    assert_eq!(it.status(&url), "403");

    let proposal = json!(["propose_allow_host", {"host": FORBIDDEN, "reason": "the test\nneeds it"}]);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| it.ask(&json!([proposal, ["current_config", {}]])));
        let review = it.pending(1).remove(0);
        // Events for seven seconds, a slow request, and one that retries until it is allowed.
        let stream = scope.spawn(|| sh(&it.bottle, &format!("curl -fsSN 'https://{OUTSIDE}/sse?n=36&ms=200'")));
        let slow = scope.spawn(|| sh(&it.bottle, &format!("curl -fsS 'https://{OUTSIDE}/slow?ms=7000'")));
        let knock = scope.spawn(|| sh(&it.bottle, &format!("python3 /tmp/knock.py {url}")));
        std::thread::sleep(Duration::from_secs(3));
        assert!(!knock.is_finished() && !stream.is_finished() && !slow.is_finished());
        let shown = review.to_string();
        assert!(
            shown.contains("  | needs it\n") && shown.contains("at once") && shown.contains("+ opens forbidden.test"),
            "{shown}"
        );
        let began = SystemTime::now();
        let decision = it.supervisor.approve(&review, "go on").unwrap();
        let took = began.elapsed().unwrap();
        assert!(!stream.is_finished() && !slow.is_finished());

        let told = asked.join().unwrap();
        let known = told[0]["ended"].as_f64().unwrap() - seconds(began);
        assert_eq!(applied(&decision).0, ApplyStatus::Live, "{decision:?}");
        assert_eq!((status(&told[0]), &told[0]["data"]["reason"]), ("approved", &json!("go on")));
        assert_eq!(told[0]["data"]["applied"]["status"], "live");
        assert!(
            told[1]["data"]["posture"]["open_hosts"].as_array().unwrap().contains(&json!(FORBIDDEN)),
            "{}",
            told[1]
        );
        let knocked = knock.join().unwrap();
        let knocked: Value = serde_json::from_str(knocked.ok()).unwrap();
        assert!(
            knocked["refused"]["403"].as_u64().unwrap() > 0 && knocked["refused"].as_object().unwrap().len() == 1,
            "{knocked}"
        );
        let passed = knocked["answered"].as_f64().unwrap() - seconds(began);
        figure(format_args!(
            "from approval: first allowed request answered after {passed:.3} s, approve returned after {:.3} s, the agent told after {known:.3} s",
            took.as_secs_f64()
        ));
        assert!(passed < 3.0, "{passed}");
        assert_eq!(stream.join().unwrap().ok().matches("event: tick").count(), 36);
        assert_eq!(slow.join().unwrap().ok(), "ok");
    });
    assert_eq!(it.status(&url), "200");
    assert!(sh(&it.bottle, "cat /etc/bottle/current-config/posture.txt").ok().contains(FORBIDDEN));

    routes(&it);
    it.supervisor.verify().unwrap();
    let found = it.bottle.verify(bottle::Verify::Quick).unwrap();
    let changed = it.layout().egress_routes();
    assert!(bottle_files::last_rewrite(&changed).unwrap().is_some(), "an approval rewrote the routes");
    assert!(found.holds(), "{found}");
    it.close();
}

/// Routes in a bottle with egress: a limit, a known credential, an unknown one, and a stale consequence.
fn routes(it: &Supervised) {
    let url = format!("https://{FORBIDDEN}/echo");
    let route = json!(["propose_route", {
        "host": FORBIDDEN, "paths": ["/echo"], "methods": ["GET"], "credential": "E2E_TOKEN", "reason": "for its interface",
    }]);
    let (told, decision) = it.decide(&route, |review| {
        let shown = review.to_string();
        assert!(shown.contains("$E2E_TOKEN") && shown.contains("- narrows forbidden.test"), "{shown}");
        it.supervisor.approve(review, "").unwrap()
    });
    assert_eq!((status(&told), applied(&decision).0), ("approved", ApplyStatus::Live), "{decision:?}");
    assert_eq!(
        (it.status(&url), it.status(&format!("-X POST {url}")), it.status(&format!("https://{FORBIDDEN}/"))),
        ("200".into(), "403".into(), "403".into())
    );
    let events = it.lab.outside.events();
    let asked: Vec<_> = events.iter().filter(|event| event["sni"] == FORBIDDEN).collect();
    assert!(asked.last().unwrap()["headers"].to_string().contains(TOKEN), "{:?}", asked.last());
    assert!(!it.supervisor.plan().unwrap().proxy.allow.is_empty());

    // Egress does not have this variable and cannot get it while it runs.
    let unknown = json!(["propose_route", {"host": "api.example.com", "credential": "E2E_OTHER", "reason": "x"}]);
    let (told, decision) = it.approve(&unknown);
    assert_eq!((status(&told), applied(&decision).0), ("approved", ApplyStatus::Recorded));
    assert!(applied(&decision).1.contains("egress holds no credential E2E_OTHER"), "{decision:?}");
    assert!(it.supervisor.plan().unwrap().egress.unwrap().token_slots().len() == 1);
    assert_eq!(it.supervisor.next_plan().unwrap().egress.unwrap().token_slots().len(), 2);

    // Two proposals that are shown together: approving one changes the consequence of the other.
    std::thread::scope(|scope| {
        let calls = [
            json!([["propose_allow_host", {"host": "www.example.com", "reason": "x"}]]),
            json!([["propose_route", {"host": "www.example.com", "methods": ["GET"], "reason": "x"}]]),
        ];
        let asked = calls.map(|calls| scope.spawn(move || it.ask(&calls).remove(0)));
        let pending = it.pending(2);
        let find = |kind: &str| pending.iter().find(|review| review.proposal().change.kind() == kind).unwrap();
        it.supervisor.approve(find("route"), "").unwrap();
        let stale = find("allow_host");
        assert!(matches!(it.supervisor.approve(stale, ""), Err(SuperviseError::ConsequenceChanged(_))));
        let fresh = it.supervisor.show(&stale.proposal().id).unwrap();
        assert_eq!(fresh.consequence().when, When::Never);
        assert!(matches!(it.supervisor.approve(&fresh, ""), Err(SuperviseError::NotPossible { .. })));
        it.supervisor.deny(&fresh, "there is a route").unwrap();
        let told = asked.map(|asked| asked.join().unwrap());
        assert_eq!((status(&told[0]), status(&told[1])), ("denied", "approved"));
    });
}

#[test]
#[ignore = "needs a container engine"]
fn a_failed_reload_leaves_the_bottle_unchanged() {
    let it = Supervised::launch("follow", SMALL);
    let host = |name: &str| json!(["propose_allow_host", {"host": name, "reason": "x"}]);
    let pipelock = it.container(Service::Pipelock);
    let config = it.layout().pipelock_config();
    let before = std::fs::read_to_string(&config).unwrap();

    // The configuration file is missing for a while, so that applying and restoring both fail.
    let away = config.with_extension("away");
    std::fs::rename(&config, &away).unwrap();
    it.ask(&json!([host(FORBIDDEN)]));
    let decision = it.supervisor.approve(&it.pending(1)[0], "");
    std::fs::rename(&away, &config).unwrap();
    let decision = decision.unwrap();
    assert_eq!(applied(&decision).0, ApplyStatus::Failed, "{decision:?}");
    assert!(applied(&decision).1.contains("restoring the old configuration failed as well"), "{decision:?}");
    assert!(!it.supervisor.plan().unwrap().proxy.allow.iter().any(|host| host.as_str() == FORBIDDEN));
    // Simulates an interrupted approval that had already changed the allowlist.
    std::fs::write(&config, before.replacen(OUTSIDE, FORBIDDEN, 1)).unwrap();
    docker(["kill", "--signal", "HUP", &pipelock]);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(it.status(&format!("https://{OUTSIDE}/")), "403");
    // Any next decision restores the configuration.
    it.ask(&json!([host("other.example.com")]));
    it.supervisor.deny(&it.pending(1)[0], "").unwrap();
    assert_eq!(std::fs::read_to_string(&config).unwrap(), before);
    assert_eq!(
        (it.status(&format!("https://{FORBIDDEN}/")), it.status(&format!("https://{OUTSIDE}/"))),
        ("403".into(), "200".into())
    );
    it.ask(&json!([host(FORBIDDEN)]));
    let decision = it.supervisor.approve(&it.pending(1)[0], "").unwrap();
    assert_eq!(applied(&decision).0, ApplyStatus::Live, "{decision:?}");
    assert_eq!(it.status(&format!("https://{FORBIDDEN}/")), "200");
    it.close();
}

/// Returns the command of the example for a bottle.
fn example_of(it: &Supervised) -> Command {
    let mut program = example("supervise");
    program.args(["--slug", it.bottle.slug().as_ref(), "--state-dir"]).arg(it.lab.state_root().path());
    program.current_dir(it.lab.root.path());
    program
}

#[test]
#[ignore = "needs a container engine"]
fn a_person_decides_in_a_terminal_only_on_what_they_have_seen() {
    let it = Supervised::launch("person", SMALL);
    let mut terminal = Terminal::start(&example_of(&it), 40, 120);
    terminal.wait_for("watching bottle");
    let (yes, no) = std::thread::scope(|scope| {
        // Typed in advance: an approval, an empty line that would put the proposal off, and half a line.
        terminal.press("y\rbecause\r\ry");
        let yes = it.ask_in(scope, FORBIDDEN);
        terminal.wait_for("+ opens forbidden.test");
        // Typed while the proposal appears.
        terminal.press("y\rtoo early\r");
        terminal.wait_for("approve? ");
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(it.pending(1).len(), 1);
        terminal.press("y\r");
        terminal.wait_for("reason: ");
        terminal.press("you may\r");
        terminal.wait_for("Live: ");
        let yes = yes.join().unwrap();
        let no = it.ask_in(scope, "no.example.com");
        terminal.wait_for("approve? ");
        terminal.press("n\ryou may not\r");
        terminal.wait_for("Denied");
        (yes, no.join().unwrap())
    });
    assert_eq!((status(&yes), &yes["data"]["reason"]), ("approved", &json!("you may")));
    assert_eq!((status(&no), &no["data"]["reason"]), ("denied", &json!("you may not")));
    assert_eq!(it.status(&format!("https://{FORBIDDEN}/")), "200");
    it.close();
}

#[test]
#[ignore = "needs a container engine"]
fn an_answer_from_a_pipe_names_its_proposal() {
    let it = Supervised::launch("pipe", SMALL);
    let mut program = example_of(&it).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) = (program.stdin.take().unwrap(), program.stdout.take().unwrap());
    // Written before there is a proposal.
    input.write_all(b"y\nbecause\n\nlater\n").unwrap();
    let (yes, no) = std::thread::scope(|scope| {
        let yes = it.ask_in(scope, FORBIDDEN);
        let id = it.pending(1)[0].proposal().id.clone();
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(it.pending(1)[0].proposal().id, id);
        input.write_all(format!("y {id}\nyou may\n").as_bytes()).unwrap();
        let yes = yes.join().unwrap();
        let no = it.ask_in(scope, "no.example.com");
        let next = it.pending(1)[0].proposal().id.clone();
        // The first of them names a proposal that is no longer asked about.
        input.write_all(format!("y {id}\nn {next}\nyou may not\n").as_bytes()).unwrap();
        (yes, no.join().unwrap())
    });
    drop(input);
    let mut shown = String::new();
    program.kill().unwrap();
    output.read_to_string(&mut shown).unwrap();
    program.wait().unwrap();
    assert_eq!((status(&yes), &yes["data"]["reason"]), ("approved", &json!("you may")), "{shown}");
    assert_eq!((status(&no), &no["data"]["reason"]), ("denied", &json!("you may not")), "{shown}");
    assert_eq!(shown.matches("ignored: it does not name").count(), 5, "{shown}");
    assert_eq!(it.status(&format!("https://{FORBIDDEN}/")), "200");
    it.close();
}

impl Supervised {
    /// Proposes a host, and queries its status until it is decided.
    fn ask_in<'scope>(
        &'scope self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        host: &'scope str,
    ) -> std::thread::ScopedJoinHandle<'scope, Value> {
        scope.spawn(move || {
            let asked = self.ask(&json!([["propose_allow_host", {"host": host, "reason": "x"}]])).remove(0);
            if status(&asked) == "pending" {
                self.ask(&json!([["proposal_status", {"id": asked["data"]["id"], "wait_seconds": 20}]])).remove(0)
            } else {
                asked
            }
        })
    }
}
