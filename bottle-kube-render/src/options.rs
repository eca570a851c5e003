//! The settings of a cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bottle_plan::value::{ByteSize, HostName};

use crate::object::{IpBlock, PullPolicy};

/// The settings of a cluster that the renderer needs.
///
/// ```
/// use bottle_kube_render::KubeOptions;
/// let options = KubeOptions { priority_class: Some("batch".into()), ..KubeOptions::default() };
/// assert_eq!(options.runtime_class, "gvisor");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct KubeOptions {
    /// Runtime class of an agent with `runtime: runsc`. Default: `gvisor`.
    pub runtime_class: String,
    /// Pull policy of every image. Default: images that the node has are not pulled.
    pub pull_policy: PullPolicy,
    /// Priority class of every Pod. Default: the cluster's.
    pub priority_class: Option<String>,
    /// Labels of the nodes that may run the Pods. Default: every node.
    pub node_selector: BTreeMap<String, String>,
    /// Processors that each container reserves, as a Kubernetes quantity. Default: `10m`.
    pub cpu_request: String,
    /// Memory that each container reserves, at most its limit. Default: 64 MiB.
    pub memory_request: ByteSize,
    /// Disk that the agent reserves, at most its limit. Default: 256 MiB.
    pub disk_request: ByteSize,
    /// Memory limit of the agent, if the manifest has none. Default: 2 GiB.
    pub agent_memory: ByteSize,
    /// Addresses outside the cluster, which the egress firewall and git-gate may reach on the planned ports. Default:
    /// every IPv4 address except the private, shared, link-local and loopback ranges.
    ///
    /// A range that contains the API server's address is refused at the launch.
    pub outside: Vec<IpBlock>,
    /// Addresses of outside hosts that DNS does not resolve. They are reachable as well.
    pub hosts: BTreeMap<HostName, IpAddr>,
    /// Labels of the namespace of the cluster's DNS. Default: that of `kube-system`.
    pub dns_namespace: BTreeMap<String, String>,
    /// Labels of the Pods of the cluster's DNS. Default: `k8s-app: kube-dns`.
    pub dns_pods: BTreeMap<String, String>,
}

impl Default for KubeOptions {
    fn default() -> Self {
        let label = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let except =
            ["10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"];
        Self {
            runtime_class: "gvisor".into(),
            pull_policy: PullPolicy::default(),
            priority_class: None,
            node_selector: BTreeMap::new(),
            cpu_request: "10m".into(),
            memory_request: ByteSize::mib(64),
            disk_request: ByteSize::mib(256),
            agent_memory: ByteSize::mib(2048),
            outside: vec![IpBlock { cidr: "0.0.0.0/0".into(), except: except.map(String::from).into() }],
            hosts: BTreeMap::new(),
            dns_namespace: label("kubernetes.io/metadata.name", "kube-system"),
            dns_pods: label("k8s-app", "kube-dns"),
        }
    }
}
