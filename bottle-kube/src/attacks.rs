//! The attacks on a running bottle, from a container in the agent's Pod.

use std::time::{Duration, Instant};

use bottle_compose::sidecar::PROBED_HOST;
use bottle_exec::Stdin;
use bottle_kube_render::Manifests;
use bottle_verify::{Verification, read_attacks};
use serde::{Deserialize, Serialize};

use crate::client::{Kubectl, Target};
use crate::error::KubeError;

/// An outside address that no host has (RFC 5737).
const OUTSIDE: &str = "198.51.100.1";
/// Port of the kubelet's API.
const KUBELET: u16 = 10250;
/// Ports of a sidecar that are attacked, unless they are open.
const PORTS: [u16; 9] = [22, 80, 443, 3128, 8080, 8888, 9090, 9099, 9418];

/// Addresses of a cluster that a bottle must not reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// Host and port of the API server.
    pub(crate) api: Option<(String, u16)>,
    /// Address of the cluster's DNS.
    pub(crate) dns: Option<String>,
    /// Addresses of the nodes.
    pub(crate) nodes: Vec<String>,
    /// The Pods of the bottle except the agent's, each with its address and its ports that are open to the agent.
    pub(crate) pods: Vec<(String, Vec<u16>)>,
}

/// A protection that is attacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Protection {
    Processes,
    RawSockets,
    SystemCalls,
    EngineSocket,
    Names,
    Outside,
    ApiServer,
    ClusterDns,
    Nodes,
    Canary,
    ClosedPorts,
    OpenPorts,
    Proxy,
}

impl Protection {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Processes => "processes",
            Self::RawSockets => "raw sockets",
            Self::SystemCalls => "system call filter",
            Self::EngineSocket => "engine's socket",
            Self::Names => "name resolution",
            Self::Outside => "outside host",
            Self::ApiServer => "API server",
            Self::ClusterDns => "cluster's DNS",
            Self::Nodes => "nodes",
            Self::Canary => "canary",
            Self::ClosedPorts => "sidecars, closed ports",
            Self::OpenPorts => "sidecars, open ports",
            Self::Proxy => "proxy",
        }
    }
}

/// The attacks of a verification: protections, each with an argument of the attacking program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attacks(Vec<(Protection, String)>);

impl Attacks {
    /// Returns the attacks on a bottle.
    pub(crate) fn on(manifests: &Manifests, around: &Surroundings) -> Self {
        let expected = manifests.expected();
        let mut attacks = vec![
            (Protection::Processes, "process".into()),
            (Protection::RawSockets, "raw".into()),
            (Protection::EngineSocket, "sockets".into()),
            (Protection::Names, format!("names:{PROBED_HOST}")),
            (Protection::Outside, format!("blocked:{OUTSIDE}:443")),
        ];
        if !expected.is_gvisor {
            attacks.push((Protection::SystemCalls, "seccomp".into()));
        }
        attacks.extend(around.api.iter().map(|(host, port)| (Protection::ApiServer, format!("blocked:{host}:{port}"))));
        attacks
            .extend(around.dns.iter().map(|host| (Protection::ClusterDns, format!("silent:{host}:53:{PROBED_HOST}"))));
        attacks.extend(around.dns.iter().map(|host| (Protection::ClusterDns, format!("blocked:{host}:53"))));
        attacks.extend(around.nodes.iter().map(|host| (Protection::Nodes, format!("blocked:{host}:{KUBELET}"))));
        attacks.extend(manifests.canary().map(|(host, port)| (Protection::Canary, format!("blocked:{host}:{port}"))));
        for (host, open) in &around.pods {
            let closed = PORTS.into_iter().filter(|port| !open.contains(port));
            attacks.extend(closed.map(|port| (Protection::ClosedPorts, format!("blocked:{host}:{port}"))));
        }
        // Without them, what is refused above may be a Pod without a network.
        attacks.extend(expected.open.iter().map(|(host, port)| (Protection::OpenPorts, format!("open:{host}:{port}"))));
        attacks.extend(
            expected.proxy.iter().map(|(host, port)| (Protection::Proxy, format!("proxy:{host}:{port}:{PROBED_HOST}"))),
        );
        Self(attacks)
    }

    /// Returns true if there is none, because the launch has not finished.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs the attacks in a container with the attacking program.
    pub(crate) fn run(&self, cluster: &Kubectl, target: &Target<'_>) -> Result<Verification, KubeError> {
        let start = Instant::now();
        let arguments = self.0.iter().map(|(_, argument)| argument.clone());
        let argv: Vec<String> = ["/probe".to_owned()].into_iter().chain(arguments).collect();
        let output = cluster.exec(target, &argv, Stdin::Null, Duration::from_secs(120))?;
        let attacks: Vec<_> =
            self.0.iter().map(|(protection, argument)| (protection.as_str(), argument.clone())).collect();
        let probes = read_attacks(&attacks, &output.stdout_text(), &output.stderr.last_lines(2));
        Ok(Verification { probes, took: start.elapsed() })
    }
}
