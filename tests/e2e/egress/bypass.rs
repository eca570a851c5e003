//! Neither proxy can be left out.

use super::*;

#[test]
#[ignore = "needs a container engine"]
fn with_either_proxy_down_requests_fail_and_nothing_leaves_the_bottle() {
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
fn the_agent_cannot_bypass_egress_and_a_bypass_would_get_no_credential() {
    let lab = Lab::new("around");
    let tokens = Tokens::of(&lab);
    let bottle = tokens.launch(&lab);
    let pipelock = bottle.names().container(Service::Pipelock);
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
    let addresses = docker(["inspect", "--format", format, &bottle.names().container(Service::Outlet)]).stdout;
    let mut names: Vec<&str> = addresses.split_whitespace().collect();
    assert_eq!(names.len(), 2, "{names:?}");
    names.extend(["pipelock", pipelock.as_str()]);
    // From the agent's namespace: by every name and address, by the interface, also as root.
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
    // Pipelock itself is up, because egress reaches it.
    sh(&bottle, &format!("curl -fsS https://{API}/echo")).ok();

    // From a container beside the agent, without the seal: pipelock does not enforce the limits of the routes, but it
    // adds no credential either.
    let image = docker(["inspect", "--format", "{{.Image}}", &bottle.names().project()]).stdout;
    let url = format!("https://{API}/status/200?by=bypass");
    let network = bottle.names().internal_network();
    let proxy = format!("http://{pipelock}:8888");
    docker(["run", "--rm", "--network", &network, image.trim(), "curl", "-fsSk", "--proxy", &proxy, &url]);
    let event = arrived(&lab, "by=bypass").remove(0);
    tokens.assert_absent("a request that did not come through egress", event.to_string());
    lab.close(&bottle);
}
