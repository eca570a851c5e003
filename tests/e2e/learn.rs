//! A bottle that may reach every host while their use is recorded, and the manifest that follows from it.

use std::sync::mpsc;

use bottle::Bottle;
use bottle::plan::Service;
use bottle::sidecars::audit::{AuditLine, AuditOutcome, AuditSource};

use super::egress::{arrived, header, host_with};
use bottle_testing::lab::{FORBIDDEN, Lab, OUTSIDE, figure, sh};

/// No host is listed. One route has a credential.
const LEARN: &str = "\
egress:
  mode: learn
  routes:
    - {name: api, host: api.anthropic.com, paths: [/echo], inject: {token: E2E_API_KEY, scheme: header}}
";

const TOKEN: &str = "sk-ant-api03-REAL-of-the-learning-bottle";

fn launch(lab: &Lab, lines: &str) -> Bottle {
    let bottles = lab.options().with_host(host_with(&[("E2E_API_KEY", TOKEN)]));
    let bottle = bottles.launch(lab.plan(lines, "")).unwrap_or_else(|error| panic!("{}", bottle::report(&error)));
    lab.outside.connect(&bottle.names().egress_network());
    bottle
}

fn code(bottle: &Bottle, url: &str) -> String {
    // Every request goes through the proxy, also one to a host that the agent would ask directly.
    sh(bottle, &format!("curl -s -m 20 --noproxy '' -o /dev/null -w '%{{http_code}}' '{url}'")).stdout
}

fn audit(lab: &Lab) -> Vec<AuditLine> {
    let (sender, lines) = mpsc::channel();
    lab.options().audit(&lab.slug.parse().unwrap(), false, move |line| sender.send(line).unwrap()).unwrap();
    lines.iter().collect()
}

#[test]
#[ignore = "needs a container engine"]
fn a_learning_bottle_reaches_every_public_host_and_suggests_those_it_used() {
    let lab = Lab::new("learn");
    let bottle = launch(&lab, LEARN);
    let posture = lab.options().posture(bottle.slug()).unwrap().to_string();
    assert!(posture.contains("EVERY HOST WITH A PUBLIC ADDRESS"), "{posture}");
    assert_eq!(code(&bottle, &format!("https://{FORBIDDEN}/echo?by=learning")), "200");
    assert_eq!(code(&bottle, "https://api.anthropic.com/echo?by=route"), "200");
    // The credential goes where the route is, and nowhere else.
    assert_eq!(header(&arrived(&lab, "by=route")[0], "x-api-key"), [TOKEN]);
    let learned = arrived(&lab, "by=learning");
    assert!(!learned.is_empty() && !format!("{learned:?}").contains(TOKEN), "{learned:?}");
    assert_eq!(code(&bottle, "https://api.anthropic.com/other?by=other"), "403");

    // What is inside stays out of reach, by name, by address and without the proxy.
    let inside = bottle.names().container(Service::Seal);
    let before = lab.outside.events().len();
    for url in [
        &format!("http://{inside}/"),
        &format!("https://{inside}/"),
        "http://localhost/",
        "http://169.254.169.254/latest/meta-data/",
        "http://198.51.100.1/",
        "http://verify.bottle.invalid/",
    ] {
        assert!(["403", "000"].contains(&&*code(&bottle, url)), "{url}");
    }
    let direct = format!("curl -s -m 5 --noproxy '*' -o /dev/null https://{FORBIDDEN}/echo");
    assert_ne!(sh(&bottle, &direct).code, 0);
    assert_eq!(lab.outside.events().len(), before);

    let lines = audit(&lab);
    let of = |host: &str, sidecar: AuditSource| {
        let lines = lines.iter().filter(move |line| line.sidecar == sidecar && line.text("host") == Some(host));
        lines.map(|line| (line.outcome, line.reason.as_deref())).collect::<Vec<_>>()
    };
    assert_eq!(of(FORBIDDEN, AuditSource::Egress), [(Some(AuditOutcome::Done), None)], "{lines:?}");
    assert_eq!(of("169.254.169.254", AuditSource::Egress), [(Some(AuditOutcome::Refused), Some("not-allowed"))]);
    let guard = (Some(AuditOutcome::Refused), Some("ssrf"));
    for host in [&inside, "localhost"] {
        let refused = of(host, AuditSource::Pipelock);
        assert!(!refused.is_empty() && refused.iter().all(|line| *line == guard), "{host}: {refused:?}, {lines:?}");
    }

    let suggestion = lab.options().suggest(bottle.slug()).unwrap();
    let text = suggestion.to_string();
    figure(format_args!("suggested:\n{text}"));
    assert!(text.contains("#   - closes every host that is not listed\n") && !text.contains("#   +"), "{text}");
    let section = &text[text.find("egress:").unwrap()..];
    // The order of the keys depends on a feature of serde_json, which another crate of the build may turn on.
    for part in
        [&format!("  allow:\n    - {FORBIDDEN}\n"), "  dlp: block\n", "  routes:\n", " host: api.anthropic.com\n"]
    {
        assert!(section.contains(part), "{part} is not in {text}");
    }
    assert!(!section.contains("learn"), "{text}");
    lab.close(&bottle);
    // The same of the bottle that is gone.
    assert_eq!(lab.options().suggest(&lab.slug.parse().unwrap()).unwrap(), suggestion);

    let lab = Lab::new("learned");
    let bottle = launch(&lab, section);
    assert_eq!(code(&bottle, &format!("https://{FORBIDDEN}/echo")), "200");
    assert_eq!(code(&bottle, "https://api.anthropic.com/echo?by=suggested"), "200");
    assert_eq!(header(&arrived(&lab, "by=suggested")[0], "x-api-key"), [TOKEN]);
    let before = lab.outside.events().len();
    for url in [&format!("https://{OUTSIDE}/echo"), "https://api.openai.com/echo", "https://api.anthropic.com/other"] {
        assert!(["403", "000"].contains(&&*code(&bottle, url)), "{url}");
    }
    assert_eq!(lab.outside.events().len(), before);
    let posture = lab.options().posture(bottle.slug()).unwrap().to_string();
    assert!(!posture.contains("EVERY HOST"), "{posture}");
    lab.close(&bottle);
}
