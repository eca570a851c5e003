//! The network policies: everything is denied, and each allowed connection has policies of its own.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bottle_plan::Service as Name;

use super::parts::Bottle;
use crate::object::{Direction, Egress, Ingress, IpBlock, Object, Peer, PolicyPort, PolicySpec, Selector, Spec};

impl Bottle<'_> {
    /// Returns the policies. They do what seal and outlet do with a container engine: only TCP to the endpoints leaves the
    /// agent's Pod, and pipelock's Pod connects only to the ports that the plan allows.
    ///
    /// Each connection is allowed at both ends, so that a Pod whose own policy is not in force yet is refused by the other.
    pub(super) fn policies(&self) -> Vec<Object> {
        let everything = PolicySpec {
            pod_selector: Selector::default(),
            policy_types: vec![Direction::Ingress, Direction::Egress],
            ingress: Vec::new(),
            egress: Vec::new(),
        };
        let mut policies = vec![self.policy("default-deny", everything)];
        for edge in &self.edges {
            let ports: Vec<_> = edge.ports.iter().copied().map(PolicyPort::tcp).collect();
            let leaves = Egress { to: vec![self.peer(&edge.to)], ports: ports.clone() };
            policies.push(self.egress(&format!("{}-to-{}", edge.from, edge.to), &edge.from, leaves));
            let arrives = PolicySpec {
                pod_selector: Selector { match_labels: self.selector(&edge.to) },
                policy_types: vec![Direction::Ingress],
                ingress: vec![Ingress { from: vec![self.peer(&edge.from)], ports }],
                egress: Vec::new(),
            };
            policies.push(self.policy(&format!("{}-from-{}", edge.to, edge.from), arrives));
        }
        for sidecar in &self.sidecars {
            let (name, ports) = (sidecar.name(), self.outside_ports(sidecar.name()));
            if ports.is_empty() {
                continue;
            }
            let ports = ports.into_iter().map(PolicyPort::tcp).collect();
            let to = self.outside(name);
            policies.push(self.egress(&format!("{name}-to-outside"), name, Egress { to, ports }));
            let dns = Peer {
                namespace_selector: Some(Selector { match_labels: self.options.dns_namespace.clone() }),
                pod_selector: Some(Selector { match_labels: self.options.dns_pods.clone() }),
                ip_block: None,
            };
            let ports = vec![PolicyPort { protocol: "UDP", port: 53 }, PolicyPort::tcp(53)];
            policies.push(self.egress(&format!("{name}-to-dns"), name, Egress { to: vec![dns], ports }));
        }
        policies
    }

    /// Returns the outside ports that a sidecar connects to. Empty: it has no access to the outside.
    pub(super) fn outside_ports(&self, name: &str) -> BTreeSet<u16> {
        let bottle = self.plan.plan();
        if !self.document.service(name).is_some_and(|service| self.is_outside(service)) || name == Name::Egress.as_str()
        {
            // Egress sends everything through pipelock.
            return BTreeSet::new();
        }
        if name != Name::GitGate.as_str() {
            return bottle.outlet_ports();
        }
        let upstreams = bottle.git_gate.iter().flat_map(|gate| &gate.upstreams);
        let default = |is_https| if is_https { 443 } else { 22 };
        upstreams.map(|up| up.url.port().unwrap_or_else(|| default(up.url.as_str().starts_with("https:")))).collect()
    }

    fn outside(&self, name: &str) -> Vec<Peer> {
        let block = |ip_block| Peer { ip_block: Some(ip_block), ..Peer::default() };
        let written: BTreeSet<IpAddr> = self.outside_hosts(name).into_iter().map(|(address, _)| address).collect();
        let single = |address: IpAddr| IpBlock {
            cidr: format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }),
            except: Vec::new(),
        };
        self.options.outside.iter().cloned().chain(written.into_iter().map(single)).map(block).collect()
    }

    /// Returns the outside hosts whose address is written in the manifest or the options.
    pub(super) fn outside_hosts(&self, name: &str) -> Vec<(IpAddr, String)> {
        let options = self.options.hosts.iter().map(|(host, address)| (*address, host.to_string()));
        let own = self.document.service(name).into_iter().flat_map(|service| &service.extra_hosts);
        let own = own
            .filter_map(|line| line.split_once(':'))
            .filter_map(|(host, ip)| Some((ip.parse().ok()?, host.to_owned())));
        own.chain(options).collect()
    }

    fn peer(&self, name: &str) -> Peer {
        Peer { pod_selector: Some(Selector { match_labels: self.selector(name) }), ..Peer::default() }
    }

    fn egress(&self, policy: &str, from: &str, egress: Egress) -> Object {
        let spec = PolicySpec {
            pod_selector: Selector { match_labels: self.selector(from) },
            policy_types: vec![Direction::Egress],
            ingress: Vec::new(),
            egress: vec![egress],
        };
        self.policy(policy, spec)
    }

    fn policy(&self, name: &str, spec: PolicySpec) -> Object {
        self.object("networking.k8s.io/v1", "NetworkPolicy", name, Spec::Policy(spec))
    }
}
