//! The typed Kubernetes objects: the part of the API that a bottle uses, in output order.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

/// An object of the Kubernetes API.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// API group and version.
    pub api_version: &'static str,
    /// Kind of the object.
    pub kind: &'static str,
    /// Name, namespace, labels and annotations.
    pub metadata: Metadata,
    /// The specification. `None` for a kind without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<Spec>,
}

/// Name, namespace, labels and annotations of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// The name.
    pub name: String,
    /// The namespace. `None` for an object outside namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The specification of an object.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Spec {
    /// Of a Pod.
    Pod(Box<PodSpec>),
    /// Of a Service.
    Service(ServiceSpec),
    /// Of a `NetworkPolicy`.
    Policy(PolicySpec),
    /// Of a Lease.
    Lease(LeaseSpec),
}

/// The specification of a Pod.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// Mounts a token for the API server. Always false.
    pub automount_service_account_token: bool,
    /// Adds a variable for each Service. Always false.
    pub enable_service_links: bool,
    /// Restart policy of the containers.
    pub restart_policy: &'static str,
    /// Seconds from the start of the Pod until the kubelet ends it. `None`: it is not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<u64>,
    /// Seconds between SIGTERM and SIGKILL.
    pub termination_grace_period_seconds: u32,
    /// Source of the resolver's configuration.
    pub dns_policy: &'static str,
    /// The resolver's configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_config: Option<DnsConfig>,
    /// Additional lines of the hosts file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host_aliases: Vec<HostAlias>,
    /// Labels of the nodes that may run the Pod. Empty: every node.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Priority class. `None`: the cluster's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// The containers see each other's processes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub share_process_namespace: bool,
    /// Runtime class. `None`: the cluster's default runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,
    /// User, group, system call filter and kernel parameters of all containers.
    pub security_context: PodSecurity,
    /// Containers that run one after the other before the others start.
    pub init_containers: Vec<Container>,
    /// The containers.
    pub containers: Vec<Container>,
    /// The volumes.
    pub volumes: Vec<Volume>,
}

/// The resolver's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DnsConfig {
    /// Addresses of the servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// Options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<NameValue>,
}

/// A name and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NameValue {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

impl NameValue {
    pub(crate) fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

/// A line of the hosts file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostAlias {
    /// The address.
    pub ip: IpAddr,
    /// Its names.
    pub hostnames: Vec<String>,
}

/// User, group, system call filter and kernel parameters of a Pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSecurity {
    /// Refuses to start a container as root.
    pub run_as_non_root: bool,
    /// User id.
    pub run_as_user: u32,
    /// Group id.
    pub run_as_group: u32,
    /// Group of the volumes.
    pub fs_group: u32,
    /// System call filter.
    pub seccomp_profile: Seccomp,
    /// Kernel parameters of the Pod's namespaces.
    pub sysctls: Vec<NameValue>,
}

/// A system call filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seccomp {
    /// Kind of the filter.
    #[serde(rename = "type")]
    pub kind: &'static str,
}

/// A container of a Pod.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// The name.
    pub name: String,
    /// The image.
    pub image: String,
    /// Pull policy of the image.
    pub image_pull_policy: PullPolicy,
    /// Replaces the image's entry point. Empty: the image's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments of the entry point. Empty: the image's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment variables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<Env>,
    /// Ports that a Service refers to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ContainerPort>,
    /// Requests and limits.
    pub resources: Resources,
    /// Mounts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,
    /// Probe of the start. The readiness probe runs after its first success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup_probe: Option<Probe>,
    /// Probe of a running container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<Probe>,
    /// Path of the file for a last message, which the kubelet keeps on the node. `None`: `/dev/termination-log`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub termination_message_path: Option<String>,
    /// Privileges.
    pub security_context: ContainerSecurity,
}

/// Pull policy of an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum PullPolicy {
    /// Every start asks the registry.
    Always,
    /// An image that the node has is not pulled.
    #[default]
    IfNotPresent,
    /// Only images that the node has are used.
    Never,
}

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Env {
    /// A value.
    Set(NameValue),
    /// A value from a Secret.
    #[serde(rename_all = "camelCase")]
    FromSecret {
        /// The variable's name.
        name: String,
        /// Source of the value.
        value_from: ValueFrom,
    },
}

/// The source of a variable's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ValueFrom {
    /// Key of a Secret.
    pub secret_key_ref: KeyRef,
}

/// A key of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyRef {
    /// Name of the Secret.
    pub name: String,
    /// The key.
    pub key: String,
}

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// The port.
    pub container_port: u16,
}

/// Requests and limits of a container, in Kubernetes quantities.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Resources {
    /// Amounts that the scheduler reserves.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<&'static str, String>,
    /// Amounts that the container cannot exceed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<&'static str, String>,
}

/// A mount of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMount {
    /// Name of the volume.
    pub name: String,
    /// Path in the container.
    pub mount_path: String,
    /// Path in the volume. Empty: all of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sub_path: String,
    /// `true` if the container may not write to the mount.
    #[serde(skip_serializing_if = "is_false")]
    pub read_only: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// A probe of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// The command.
    pub exec: ExecAction,
    /// Seconds between two probes.
    pub period_seconds: u32,
    /// Seconds that one probe may take.
    pub timeout_seconds: u32,
    /// Number of consecutive failures that count.
    pub failure_threshold: u32,
}

/// A command of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExecAction {
    /// Program and arguments.
    pub command: Vec<String>,
}

/// Privileges of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSecurity {
    /// Lets a program gain privileges. Always false.
    pub allow_privilege_escalation: bool,
    /// Mounts the root file system read-only.
    pub read_only_root_filesystem: bool,
    /// Capabilities.
    pub capabilities: Capabilities,
}

/// Capabilities of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Capabilities that are dropped.
    pub drop: Vec<&'static str>,
}

/// A volume of a Pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// The name.
    pub name: String,
    /// An empty directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDir>,
    /// Files of `ConfigMaps` and Secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projected: Option<Projected>,
}

/// An empty directory that ends with the Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDir {
    /// `Memory` for a tmpfs. `None`: the node's disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub medium: Option<&'static str>,
    /// Maximum size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<String>,
}

/// Files of `ConfigMaps` and Secrets in one directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Projected {
    /// The sources.
    pub sources: Vec<Source>,
}

/// A source of a projected volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// Keys of a `ConfigMap`.
    ConfigMap(Items),
    /// Keys of a Secret.
    Secret(Items),
}

/// Keys of a `ConfigMap` or a Secret, and the files that they become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Items {
    /// Name of the `ConfigMap` or Secret.
    pub name: String,
    /// The keys.
    pub items: Vec<Item>,
}

/// A key and its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// The key.
    pub key: String,
    /// Path of the file in the volume.
    pub path: String,
    /// Permission bits of the file.
    pub mode: u32,
}

/// The specification of a Lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseSpec {
    /// The holder.
    pub holder_identity: String,
    /// Seconds after its last renewal from which the Lease is free.
    pub lease_duration_seconds: u32,
    /// Time of the last renewal, as the holder's clock says.
    pub renew_time: String,
}

/// The specification of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// The address. `None`: the cluster chooses one.
    #[serde(rename = "clusterIP", skip_serializing_if = "Option::is_none")]
    pub cluster_ip: Option<IpAddr>,
    /// Labels of the Pods.
    pub selector: BTreeMap<String, String>,
    /// The ports.
    pub ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServicePort {
    /// The port's name.
    pub name: String,
    /// Transport protocol.
    pub protocol: &'static str,
    /// The port, of the Service and of the Pod.
    pub port: u16,
}

/// The specification of a `NetworkPolicy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicySpec {
    /// The Pods that the policy applies to.
    pub pod_selector: Selector,
    /// Directions that are denied unless a policy allows them.
    pub policy_types: Vec<Direction>,
    /// Incoming connections that are allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<Ingress>,
    /// Outgoing connections that are allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Egress>,
}

/// A direction of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Direction {
    /// Connections to a Pod.
    Ingress,
    /// Connections of a Pod.
    Egress,
}

/// A selection by labels. Empty: everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels and their values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

/// Incoming connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ingress {
    /// Sources.
    pub from: Vec<Peer>,
    /// Ports.
    pub ports: Vec<PolicyPort>,
}

/// Outgoing connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Egress {
    /// Destinations.
    pub to: Vec<Peer>,
    /// Ports.
    pub ports: Vec<PolicyPort>,
}

/// The other end of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Namespaces. `None`: the policy's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Selector>,
    /// Pods. `None`: not a Pod, or every Pod of the namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<Selector>,
    /// Addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlock>,
}

/// A range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IpBlock {
    /// The range in CIDR notation.
    pub cidr: String,
    /// Ranges in it that do not belong to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

/// A port of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyPort {
    /// Transport protocol.
    pub protocol: &'static str,
    /// The port.
    pub port: u16,
}

impl PolicyPort {
    pub(crate) const fn tcp(port: u16) -> Self {
        Self { protocol: "TCP", port }
    }
}
