//! The rules of the agent's network namespace, as the seal prints them.

use std::collections::BTreeSet;
use std::time::Duration;

use bottle_engine::{Engine, EngineError, Exec};

use crate::expected::Expected;
use crate::report::Probe;

const PROTECTION: &str = "firewall rules";

/// Returns the rules, or the reason why there are none.
pub(crate) fn read(engine: &Engine, expected: &Expected) -> Result<Result<String, String>, EngineError> {
    let check = Exec::new(["/seal", "check"]).with_timeout(Duration::from_secs(30));
    let output = engine.exec_bare(&expected.seal, &check)?;
    Ok(if output.status.is_success() { Ok(output.stdout.text()) } else { Err(output.stderr.last_lines(2)) })
}

/// Compares the rules with those that the document promises. `addresses` are those of the sidecars.
pub(crate) fn probe(rules: &Result<String, String>, addresses: &BTreeSet<String>, expected: &Expected) -> Probe {
    let rules = match rules {
        Ok(rules) => rules,
        Err(reason) => return Probe::failed(PROTECTION, format!("the seal has none: {reason}")),
    };
    let mut problems = Vec::new();
    if !rules.contains("type filter hook output priority filter; policy drop;") {
        problems.push("packets leave that no rule names".to_owned());
    }
    let (ports, mut opened) = (expected.ports(), BTreeSet::new());
    for rule in rules.lines().map(str::trim).filter(|rule| rule.split(' ').any(|word| word == "accept")) {
        if rule == "oif \"lo\" accept" {
            continue;
        }
        match rule.split(' ').collect::<Vec<_>>()[..] {
            ["ip", "daddr", address, "tcp", "dport", port, "accept"]
                if addresses.contains(address) && port.parse().is_ok_and(|port| ports.contains(&port)) =>
            {
                opened.extend(port.parse::<u16>());
            }
            _ => problems.push(format!("the rule `{rule}` opens more than the sidecars' ports")),
        }
    }
    if let Some(port) = ports.difference(&opened).next() {
        problems.push(format!("no rule opens port {port}"));
    }
    Probe::of(
        PROTECTION,
        &problems,
        format!("only {} TCP ports at {} addresses are open", ports.len(), addresses.len()),
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::Outcome;

    pub(crate) const RULES: &str = "table inet bottle {\n\tchain output {\n\t\ttype filter hook output priority filter; policy drop;\n\
        \t\toif \"lo\" accept\n\t\ttcp dport 8888 ct state new ct count over 128 drop\n\t\tip daddr 172.20.0.2 tcp dport 8888 accept\n\
        \t\tmeta l4proto tcp reject with tcp reset\n\t\treject with icmpx port-unreachable\n\t}\n}\n";

    fn expected() -> Expected {
        Expected {
            agent: "a".into(),
            user: "agent".into(),
            seal: "s".into(),
            network: "n".into(),
            open: vec![("pipelock".into(), 8888)],
            closed: Vec::new(),
            proxy: None,
            binds: Vec::new(),
            pids: None,
            memory: None,
            nano_cpus: None,
            containers: Vec::new(),
            credentials: Vec::new(),
            slots: Vec::new(),
            watched_disk: None,
            is_gvisor: false,
        }
    }

    fn problem(rules: &str) -> Option<String> {
        let addresses = BTreeSet::from(["172.20.0.2".to_owned()]);
        let probe = probe(&Ok(rules.to_owned()), &addresses, &expected());
        (probe.outcome == Outcome::Failed).then_some(probe.detail)
    }

    #[test]
    fn the_rules_of_the_seal_hold() {
        assert_eq!(problem(RULES), None);
    }

    #[test]
    fn rules_that_open_more_or_less_are_found() {
        for (from, to, told) in [
            ("policy drop", "policy accept", "packets leave that no rule names"),
            ("172.20.0.2", "172.20.0.9", "opens more than the sidecars' ports"),
            ("dport 8888 accept", "dport 22 accept", "opens more than the sidecars' ports"),
            ("oif \"lo\" accept", "accept", "the rule `accept` opens more"),
            ("ip daddr 172.20.0.2 tcp dport 8888 accept", "", "no rule opens port 8888"),
        ] {
            let rules = RULES.replace(from, to);
            assert_ne!(rules, RULES);
            let problem = problem(&rules).unwrap_or_default();
            assert!(problem.contains(told), "{from} -> {to}: {problem}");
        }
        let none = probe(&Err("No such file or directory".into()), &BTreeSet::new(), &expected());
        assert_eq!(none.outcome, Outcome::Failed);
    }
}
