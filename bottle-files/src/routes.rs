//! The networks that this host has a route to: those of its interfaces, of VPNs and of other engines.

use std::fs;

/// Shortest prefix that counts as a route to a network. A VPN that takes all traffic has routes to halves of the address
/// space, which say nothing about what is used.
const SHORTEST: u8 = 8;

/// Returns the IPv4 networks of all routing tables of this host, policy routing included, in CIDR notation. Empty on a host
/// without `/proc`.
pub fn host_networks() -> Vec<String> {
    fs::read_to_string("/proc/net/fib_trie").map(|text| networks(&text)).unwrap_or_default()
}

/// Returns the networks in the kernel's dump of its routes: lines `|-- ADDRESS`, each followed by lines `/LENGTH TYPE`.
fn networks(text: &str) -> Vec<String> {
    let (mut found, mut address) = (Vec::new(), "");
    for line in text.lines().map(str::trim_start) {
        if let Some(leaf) = line.strip_prefix("|-- ") {
            address = leaf.trim_end();
        } else if line.starts_with('/') {
            let length = line.split(' ').next().unwrap_or_default();
            if length[1..].parse().is_ok_and(|length: u8| length >= SHORTEST) {
                found.push(format!("{address}{length}"));
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_read_and_a_default_route_is_not_a_network() {
        let text = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
        /1 universe UNICAST
     +-- 172.17.0.0/16 2 0 2
        |-- 172.17.0.0
           /16 link UNICAST
        |-- 172.17.0.1
           /32 host LOCAL
Id 52:
  |-- 100.64.0.0
     /10 universe UNICAST
Local:
     |-- 172.17.0.1
        /32 host LOCAL
";
        assert_eq!(networks(text), ["100.64.0.0/10", "172.17.0.0/16", "172.17.0.1/32"]);
    }

    #[test]
    fn this_host_has_at_least_its_loopback_network() {
        let has_loopback = host_networks().contains(&"127.0.0.0/8".to_owned());
        assert_eq!(has_loopback, fs::exists("/proc/net/fib_trie").unwrap_or(false));
    }
}
