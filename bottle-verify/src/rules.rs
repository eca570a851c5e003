//! The rules of a network namespace, as the program that owns it prints them, and its interfaces.
//!
//! The program of seal and outlet writes few forms of rules. A line of another form is a problem, even if it does not say
//! `accept`: a packet also leaves by `queue` or `dup`, and the rules of a table with `flags dormant` are not consulted. The
//! engine's resolver has a table of its own there, whose rules concern its address alone.

use std::collections::BTreeSet;

use bottle_engine::{Engine, EngineError, Exec};

use crate::expected::{Expected, Outlet};
use crate::inside::PROGRAM;
use crate::report::Probe;
use crate::waiting::Waiting;

/// The interfaces and rules that a container prints, or the reason why there are none.
pub(crate) type Printed = Result<String, String>;

/// Start of a line that names an interface.
const INTERFACE: &str = "interface ";

/// Starts the command that prints the rules, in a container that owns a network namespace. It waits for a line.
pub(crate) fn start(engine: &Engine, container: &str) -> Result<Waiting, EngineError> {
    Waiting::start(engine, container, Exec::new([PROGRAM, "after", "rules"]))
}

/// Asks for the rules in such a container, with the command that waits, unless it has ended.
pub(crate) fn read(engine: &Engine, container: &str, waiting: Option<Waiting>) -> Result<Printed, EngineError> {
    let waiting = waiting.and_then(|mut waiting| (!waiting.is_over()).then_some(waiting));
    let output = waiting.map_or_else(|| start(engine, container), Ok)?.run(engine, "")?;
    Ok(if output.status.is_success() { Ok(output.stdout.text()) } else { Err(output.stderr.last_lines(2)) })
}

/// Compares the number of interfaces with that of the networks, for the seal and each other container that owns a namespace.
pub(crate) fn interfaces(owners: &[(&str, &Printed)], expected: &Expected) -> Probe {
    let mut problems = Vec::new();
    for (container, printed) in owners {
        let lines = printed.iter().flat_map(|printed| printed.lines());
        let names: Vec<&str> = lines.filter_map(|line| line.strip_prefix(INTERFACE)).collect();
        let planned = expected.networks(container);
        if names.len() != planned {
            problems.push(format!("`{container}` has the interfaces {names:?}; planned: {planned}"));
        }
    }
    Probe::of("network interfaces", &problems, "one for each network")
}

/// Compares the seal's rules with those that the document promises. `addresses` are those of the sidecars.
pub(crate) fn of_seal(rules: &Printed, addresses: &BTreeSet<String>, expected: &Expected) -> Probe {
    const PROTECTION: &str = "firewall rules";
    let rules = match rules {
        Ok(rules) => rules,
        Err(reason) => return Probe::failed(PROTECTION, format!("the seal has none: {reason}")),
    };
    let (ports, mut opened) = (expected.ports(), BTreeSet::new());
    let mut problems = problems(rules, |rule| match rule {
        ["ip", "daddr", address, "tcp", "dport", port, "accept"]
            if addresses.contains(*address) && port.parse().is_ok_and(|port| ports.contains(&port)) =>
        {
            opened.extend(port.parse::<u16>());
            true
        }
        _ => false,
    });
    problems.extend(ports.difference(&opened).next().map(|port| format!("no rule opens port {port}")));
    Probe::of(
        PROTECTION,
        &problems,
        format!("only {} TCP ports at {} addresses are open", ports.len(), addresses.len()),
    )
}

/// Compares the outlet's rules with those that the document promises.
pub(crate) fn of_outlet(rules: &Printed, outlet: &Outlet) -> Probe {
    const PROTECTION: &str = "outlet's rules";
    let rules = match rules {
        Ok(rules) => rules,
        Err(reason) => return Probe::failed(PROTECTION, format!("the outlet has none: {reason}")),
    };
    let mut opened = BTreeSet::new();
    let mut problems = problems(rules, |rule| match rule {
        ["tcp", "dport", port, "accept"] if port.parse().is_ok_and(|port| outlet.ports.contains(&port)) => {
            opened.extend(port.parse::<u16>());
            true
        }
        // What names and IPv6 need, and the answers of the proxy.
        ["tcp", "sport", own, "accept"] => own.parse() == Ok(outlet.own),
        ["meta", "skuid", "!=", user, "tcp", "dport", "53", "accept"] => user.parse() == Ok(outlet.user),
        ["udp", "dport", "53", "accept"] | ["meta", "l4proto", "58" | "ipv6-icmp", "accept"] => true,
        _ => false,
    });
    let wanted: BTreeSet<u16> = outlet.ports.iter().copied().collect();
    problems.extend(wanted.difference(&opened).next().map(|port| format!("no rule opens port {port}")));
    let ports: Vec<String> = wanted.iter().map(u16::to_string).collect();
    Probe::of(PROTECTION, &problems, format!("only TCP to the ports {} and names leave", ports.join(", ")))
}

/// Returns what in the rules differs from what the program writes. `opens` returns true for a rule, as its words, that may
/// let packets leave.
fn problems(printed: &str, mut opens: impl FnMut(&[&str]) -> bool) -> Vec<String> {
    const CLOSED: &str = "type filter hook output priority filter; policy drop;";
    let rules: Vec<&str> = printed.lines().filter(|line| !line.starts_with(INTERFACE)).collect();
    let (mut problems, mut is_own) = (Vec::new(), false);
    if !rules.iter().any(|line| line.trim() == CLOSED) {
        problems.push("packets leave that no rule names".to_owned());
    }
    for line in rules {
        if let Some(table) = line.strip_prefix("table ") {
            is_own = table == "inet bottle {";
            continue;
        }
        let line = line.trim();
        let words: Vec<&str> = line.split(' ').collect();
        let lets_nothing_out = match words[..] {
            ["" | "}"] => true,
            ["chain", _, "{"] if !is_own => true,
            _ if !is_own => concerns_resolver(&words),
            ["chain", "output", "{"]
            | ["type", "filter", "hook", "output", ..]
            | ["oif", "\"lo\"", "accept"]
            | ["reject", ..]
            | ["meta", "l4proto", _, "reject", ..]
            | ["tcp", "dport", _, "ct", "state", _, "ct", "count", "over", _, "drop"] => true,
            _ => false,
        };
        if !(lets_nothing_out || is_own && opens(&words)) {
            problems.push(format!("`{line}` is not a rule of this bottle"));
        }
    }
    problems
}

/// Returns true for a rule that leads packets to and from the engine's resolver, at an address of the loopback interface.
/// The seal's program keeps the same list.
fn concerns_resolver(words: &[&str]) -> bool {
    const ADDRESS: &str = "127.0.0.11";
    let is_known = |word: &&str| {
        let known = [
            "tcp", "udp", "dport", "sport", "counter", "packets", "bytes", "jump", "dnat", "snat", "to", "xt",
            "target", "\"DNAT\"", "\"SNAT\"", ":53",
        ];
        known.contains(word)
            || word.starts_with("DOCKER_")
            || word.strip_prefix(ADDRESS).is_some_and(|port| port.starts_with(':'))
            || word.bytes().all(|byte| byte.is_ascii_digit())
    };
    match words {
        ["#", ..] | ["type", "nat", "hook", ..] => true,
        ["ip", "daddr" | "saddr", address, rest @ ..] => *address == ADDRESS && rest.iter().all(is_known),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expected::tests::expected;
    use crate::report::Outcome;

    const SEAL: &str = "table inet bottle {\n\tchain output {\n\t\ttype filter hook output priority filter; policy drop;\n\
        \t\toif \"lo\" accept\n\t\ttcp dport 8888 ct state new ct count over 128 drop\n\t\tip daddr 172.20.0.2 tcp dport 8888 accept\n\
        \t\tmeta l4proto tcp reject with tcp reset\n\t\treject with icmpx port-unreachable\n\t}\n}\n";

    const INTERFACES: &str = "interface eth0\n";

    /// As nft prints it with and without the extensions of iptables.
    const RESOLVER: &str = "# Warning: table ip nat is managed by iptables-nft, do not touch!\ntable ip nat {\n\tchain DOCKER_OUTPUT {\n\
        \t\tip daddr 127.0.0.11 udp dport 53 counter packets 3 bytes 180 dnat to 127.0.0.11:41000\n\
        \t\tip daddr 127.0.0.11 tcp dport 53 counter packets 0 bytes 0 xt target \"DNAT\"\n\t}\n\n\tchain DOCKER_POSTROUTING {\n\
        \t\tip saddr 127.0.0.11 udp sport 41000 counter packets 0 bytes 0 snat to :53\n\t}\n\n\tchain OUTPUT {\n\
        \t\ttype nat hook output priority -100; policy accept;\n\t\tip daddr 127.0.0.11 counter packets 3 bytes 180 jump DOCKER_OUTPUT\n\
        \t}\n}\n";

    const OUTLET: &str = "table inet bottle {\n\tchain output {\n\t\ttype filter hook output priority filter; policy drop;\n\
        \t\toif \"lo\" accept\n\t\tmeta l4proto 58 accept\n\t\ttcp sport 8888 accept\n\t\tudp dport 53 accept\n\
        \t\tmeta skuid != 1000 tcp dport 53 accept\n\t\ttcp dport 80 accept\n\t\ttcp dport 443 accept\n\
        \t\tmeta l4proto 6 reject with tcp reset\n\t\treject\n\t}\n}\n";

    fn problem_of_seal(rules: &Printed) -> Option<String> {
        let addresses = BTreeSet::from(["172.20.0.2".to_owned()]);
        let probe = of_seal(rules, &addresses, &expected());
        (probe.outcome == Outcome::Failed).then_some(probe.detail)
    }

    fn problem_of_outlet(rules: &Printed) -> Option<String> {
        let probe = of_outlet(rules, expected().outlet.as_ref().unwrap());
        (probe.outcome == Outcome::Failed).then_some(probe.detail)
    }

    /// Replaces a part of the rules.
    fn changed(rules: &str, from: &str, to: &str) -> String {
        let changed = rules.replace(from, to);
        assert_ne!(changed, rules);
        changed
    }

    #[test]
    fn the_rules_of_a_bottle_hold() {
        assert_eq!(problem_of_seal(&Ok(SEAL.to_owned())), None);
        assert_eq!(problem_of_seal(&Ok([INTERFACES, RESOLVER, SEAL].concat())), None);
        assert_eq!(problem_of_outlet(&Ok(OUTLET.to_owned())), None);
    }

    #[test]
    fn rules_of_the_seal_that_open_more_or_less_are_found() {
        for (from, to, told) in [
            ("policy drop", "policy accept", "packets leave that no rule names"),
            ("\tchain output", "\tflags dormant\n\tchain output", "`flags dormant` is not a rule of this bottle"),
            ("172.20.0.2", "172.20.0.9", "is not a rule of this bottle"),
            ("dport 8888 accept", "dport 22 accept", "is not a rule of this bottle"),
            ("oif \"lo\" accept", "accept", "`accept` is not a rule of this bottle"),
            ("oif \"lo\" accept", "queue flags bypass to 0", "`queue flags bypass to 0` is not"),
            ("ct state new ct count over 128 drop", "dup to 198.51.100.1 drop", "is not a rule of this bottle"),
            ("ip daddr 172.20.0.2 tcp dport 8888 accept", "", "no rule opens port 8888"),
        ] {
            let problem = problem_of_seal(&Ok(changed(SEAL, from, to))).unwrap_or_default();
            assert!(problem.contains(told), "{from} -> {to}: {problem}");
        }
        let none = problem_of_seal(&Err("No such file or directory".into())).unwrap();
        assert_eq!(none, "the seal has none: No such file or directory");
    }

    #[test]
    fn rules_in_further_tables_are_found() {
        let chain = |of: &str, rule: &str| format!("table {of} {{\n\tchain x {{\n\t\t{rule}\n\t}}\n}}\n");
        for (table, rule) in [
            ("ip evil", "type filter hook output priority -300; policy accept;"),
            ("ip evil", "ip daddr 172.20.0.2 tcp dport 8888 ip daddr set 198.51.100.1"),
            ("ip nat", "ip daddr 127.0.0.11 udp dport 53 dnat to 198.51.100.1:53"),
            ("ip nat", "ip daddr 127.0.0.12 udp dport 53 dnat to 127.0.0.11:53"),
            ("ip nat", "ip daddr 127.0.0.11 udp dport 53 dup to 198.51.100.1"),
            ("ip nat", "masquerade"),
            ("inet bottle2", "oif \"lo\" accept"),
            ("netdev evil", "type filter hook egress device \"eth0\" priority 0; policy accept;"),
        ] {
            for rules in [[SEAL, &chain(table, rule)].concat(), [&*chain(table, rule), SEAL].concat()] {
                assert_eq!(problem_of_seal(&Ok(rules)).unwrap(), format!("`{rule}` is not a rule of this bottle"));
            }
        }
        // What is the resolver's is none of the bottle's own rules.
        let own =
            changed(SEAL, "oif \"lo\" accept", "ip daddr 127.0.0.11 counter packets 3 bytes 180 jump DOCKER_OUTPUT");
        assert!(problem_of_seal(&Ok(own)).unwrap().contains("jump DOCKER_OUTPUT` is not a rule"));
    }

    #[test]
    fn a_further_interface_is_found() {
        let mut expected = expected();
        expected.planned.containers[1].networks =
            vec![crate::planned::Attachment { network: "bottle-int".into(), aliases: Vec::new(), address: None }];
        let of = |printed: Printed| interfaces(&[("s", &printed)], &expected);
        assert_eq!(of(Ok([INTERFACES, SEAL].concat())).outcome, Outcome::Held);
        for printed in
            [Ok([INTERFACES, "interface eth1\n", SEAL].concat()), Ok(SEAL.to_owned()), Err("none".to_owned())]
        {
            assert_eq!(of(printed).outcome, Outcome::Failed);
        }
    }

    #[test]
    fn rules_of_the_outlet_that_open_more_or_less_are_found() {
        for (from, to, told) in [
            ("policy drop", "policy accept", "packets leave that no rule names"),
            ("\tchain output", "\tflags dormant\n\tchain output", "`flags dormant` is not a rule of this bottle"),
            ("tcp dport 80 accept", "accept", "`accept` is not a rule of this bottle"),
            ("tcp dport 80 accept", "tcp dport 22 accept", "`tcp dport 22 accept` is not a rule of this bottle"),
            ("tcp dport 80 accept", "", "no rule opens port 80"),
            ("tcp sport 8888", "tcp sport 9999", "`tcp sport 9999 accept` is not a rule of this bottle"),
            ("udp dport 53", "udp dport 123", "`udp dport 123 accept` is not a rule of this bottle"),
            ("skuid != 1000", "skuid != 1001", "is not a rule of this bottle"),
        ] {
            let problem = problem_of_outlet(&Ok(changed(OUTLET, from, to))).unwrap_or_default();
            assert!(problem.contains(told), "{from} -> {to}: {problem}");
        }
        let none = problem_of_outlet(&Err("No such file or directory".into())).unwrap();
        assert_eq!(none, "the outlet has none: No such file or directory");
    }
}
