//! Attempts of the agent to approve its own proposals.

use super::*;

#[test]
#[ignore = "needs a container engine"]
fn the_agent_cannot_approve_its_own_proposal() {
    let it = Supervised::launch("attack", FULL);
    let proposal = json!(["propose_allow_host", {"host": FORBIDDEN, "reason": "x"}]);

    // An approved proposal, whose request is replayed, and a pending one, on which every attempt below is made.
    let call = |id: u64, name: &str, arguments: &Value| {
        let body = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "arguments": arguments}});
        let headers = json!({"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"});
        json!(["POST", "http://supervise:9100/mcp", headers, body.to_string()])
    };
    let request = call(7, "propose_allow_host", &json!({"host": "replay.example.com", "reason": "x"}));
    let first = std::thread::scope(|scope| {
        let asked = scope.spawn(|| it.raw(&json!([request])).remove(0));
        it.supervisor.deny(&it.pending(1)[0], "").unwrap();
        asked.join().unwrap()
    });
    assert!(first[0] == 200 && first[1].as_str().unwrap().contains("denied"), "{first}");
    std::thread::scope(|scope| {
        let asked =
            [scope.spawn(|| it.raw(&json!([request])).remove(0)), scope.spawn(|| it.ask(&json!([proposal])).remove(0))];
        let waiting = it.pending(2);
        try_everything(&it, &call, &waiting);
        let still = it.pending(2);
        assert_eq!(still, waiting);
        let decided = std::fs::read_dir(it.layout().supervise_decisions()).unwrap();
        assert_eq!(
            decided.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains('-')).count(),
            1
        );
        assert_eq!(it.status(&format!("https://{FORBIDDEN}/echo")), "403");
        for review in &still {
            it.supervisor.deny(review, "").unwrap();
        }
        for asked in asked {
            let told = asked.join().unwrap().to_string();
            assert!(told.contains("denied") && !told.contains("approved"), "{told}");
        }
    });
    it.supervisor.verify().unwrap();
    it.close();
}

fn try_everything(it: &Supervised, call: &dyn Fn(u64, &str, &Value) -> Value, waiting: &[Review]) {
    let id = &waiting[0].proposal().id;
    let decision = json!({
        "version": 1, "id": id, "proposal_sha256": waiting[0].sha256(), "decision": "approved", "reason": "",
        "decided_at": "2026-01-02T03:04:05.678Z", "applied": {"status": "live", "detail": ""},
    });

    // Every port of every service on the internal network. With egress, only egress may reach pipelock.
    let services =
        [Service::Pipelock, Service::GitGate, Service::Egress, Service::Supervise].map(|service| it.container(service));
    let began = Instant::now();
    let scanned = sh(&it.bottle, &format!("python3 /tmp/scan.py {}", services.join(" ")));
    let found: Value = serde_json::from_str(scanned.ok()).unwrap();
    figure(format_args!("4 x 65535 ports in {:.1} s: {found}", began.elapsed().as_secs_f64()));
    // The seal lets the ports of sidecars through to each. Where pipelock does not listen on them, its outlet lets no refusal
    // out.
    let ports: [(&[u16], &[u16]); 4] = [(&[], &[9099, 9100, 9418]), (&[9418], &[]), (&[9099], &[]), (&[9100], &[])];
    let ports = ports.map(|(open, silent)| json!({"open": open, "silent": silent}));
    let expected = services.iter().cloned().zip(ports).collect::<std::collections::BTreeMap<_, _>>();
    assert_eq!(found, json!(expected));

    // Requests to decide, sent to everything that answers HTTP there.
    let mut requests = vec![
        call(1, "approve", &json!({"id": id})),
        call(2, "decide", &decision),
        call(3, "proposal_status", &json!({"id": id, "decision": "approved"})),
        call(4, "proposal_status", &json!({"id": format!("../../decisions/{id}")})),
        json!(["POST", "http://supervise:9100/mcp", {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"},
            json!({"jsonrpc": "2.0", "id": 5, "method": "supervise/approve", "params": decision}).to_string()]),
    ];
    for (service, port) in services.iter().zip([8888, 9418, 9099, 9100]).filter(|(_, port)| *port != 9418) {
        for path in ["approve", "decisions", "reload", "-/reload", "config", "admin", "api/v1/approve", "mcp/approve"] {
            for method in ["POST", "PUT"] {
                let url = format!("http://{service}:{port}/{path}");
                requests.push(json!([method, url, {"Content-Type": "application/json"}, decision.to_string()]));
            }
        }
    }
    let told = it.python("http_proxy= https_proxy= HTTP_PROXY= HTTPS_PROXY= python3 /tmp/raw.py", &json!(requests));
    let is_refused = |answer: &&Value| {
        let (code, text) = (answer[0].as_u64().unwrap(), answer[1].as_str().unwrap());
        code == 0 || code >= 400 || text.contains("\"error\"") || text.contains("\"isError\":true")
    };
    assert_eq!(told.iter().filter(is_refused).count(), requests.len(), "{told:?}");
    // Through the proxies, which reach more than the agent does.
    for (proxy, expected) in [(format!("{}:8888", services[0]), "000"), ("egress:9099".to_owned(), "403")] {
        let url = "http://supervise:9100/healthz";
        let command = format!("curl -s -o /dev/null -w '%{{http_code}}' --noproxy '' -x http://{proxy} {url}");
        let tried = sh(&it.bottle, &command);
        assert_eq!(tried.stdout, expected, "{tried:?}");
    }

    mounts(it, &decision, id.as_ref());
}

/// Tries to write to every mount of the agent and of the sidecar.
fn mounts(it: &Supervised, decision: &Value, id: &str) {
    let script = format!(
        "while read -r _ at type _; do
           if [ -d \"$at\" ]; then file=\"$at/{id}.json\"; else file=\"$at\"; fi
           (printf '%s' '{decision}' >> \"$file\") 2>/dev/null && echo \"$at $type\"
           mount -o remount,rw,bind \"$at\" 2>/dev/null && echo \"remounted $at\"
         done < /proc/self/mounts; true"
    );
    let written = sh(&it.bottle, &script);
    let own = ["tmpfs", "mqueue", "overlay"];
    for line in written.ok().lines() {
        let (at, kind) = line.split_once(' ').unwrap();
        let harmless = own.contains(&kind) || ["/dev", "/dev/pts", "/dev/null"].contains(&at) || kind == "devpts";
        assert!(harmless, "the agent wrote to {line}\n{written:?}");
    }
    let unshared = sh(&it.bottle, "unshare -Urm mount -o remount,rw,bind /etc/bottle/current-config");
    assert_ne!(unshared.code, 0, "{unshared:?}");
    let seen = sh(
        &it.bottle,
        "ls /queue /decisions /etc/bottle/current-config 2>/dev/null; find / -name audit.jsonl 2>/dev/null",
    );
    assert_eq!(seen.stdout, "/etc/bottle/current-config:\nposture.json\nposture.txt\n");

    // Even a compromised sidecar cannot write a decision: its mount is read-only, and it cannot remount it.
    let sidecar = it.container(Service::Supervise);
    for attempt in [
        format!("printf '%s' '{decision}' > /decisions/{id}.json"),
        "mount -o remount,rw /decisions".to_owned(),
        "umount /decisions".to_owned(),
        format!("ln -f /queue/proposals/{id}.json /decisions/{id}.json"),
    ] {
        let tried = run(Command::new("docker").args(["exec", &sidecar, "sh", "-c", &attempt]));
        assert_ne!(tried.code, 0, "{attempt}: {tried:?}");
    }
    // A decision that it writes into the proposals directory does not count.
    let forged = format!(
        "mkdir -p /queue/decisions && printf '%s' '{decision}' > /queue/decisions/{id}.json && printf '%s' '{decision}' > /queue/proposals/{id}.decision.json"
    );
    docker(["exec", &sidecar, "sh", "-c", &forged]);
    docker(["exec", &sidecar, "rm", "-r", "/queue/decisions", &format!("/queue/proposals/{id}.decision.json")]);
}
