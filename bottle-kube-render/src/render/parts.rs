//! One bottle while it is rendered.

use std::collections::{BTreeMap, BTreeSet};

use bottle_compose::document::Service;
use bottle_compose::sidecar::EGRESS;
use bottle_compose::{ComposeFile, Sidecar};
use bottle_plan::{LabelKey, ResolvedPlan, Service as Name};
use bottle_verify::Expected;

use crate::KubeOptions;
use crate::object::{Metadata, Object, ServicePort, ServiceSpec, Spec};

/// The way in which the containers get their files and credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The launcher hands them over to each Pod before its containers start, into memory. The API server never has them.
    HandOver,
    /// The Pods mount `ConfigMaps` and Secrets, which somebody creates with `kubectl apply -k`.
    Objects,
}

/// A connection that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) ports: Vec<u16>,
}

/// One bottle while it is rendered.
pub(super) struct Bottle<'a> {
    pub(super) plan: &'a ResolvedPlan,
    pub(super) options: &'a KubeOptions,
    pub(super) delivery: Delivery,
    pub(super) document: &'a ComposeFile,
    /// The sidecars that apply and have a Pod.
    pub(super) sidecars: Vec<&'a dyn Sidecar>,
    pub(super) expected: Expected,
    pub(super) edges: Vec<Edge>,
    pub(super) canary: Option<(String, u16)>,
}

impl<'a> Bottle<'a> {
    pub(super) fn new(
        plan: &'a ResolvedPlan,
        sidecars: &[&'a dyn Sidecar],
        options: &'a KubeOptions,
        delivery: Delivery,
        (document, expected): (&'a ComposeFile, Expected),
    ) -> Self {
        // The outlet's rules, like the seal's, are network policies here.
        let has_pod = |sidecar: &&dyn Sidecar| sidecar.applies(plan.plan()) && sidecar.name() != Name::Outlet.as_str();
        let sidecars: Vec<_> = sidecars.iter().copied().filter(has_pod).collect();
        let ports = |name: &str| -> Vec<u16> {
            let found = sidecars.iter().find(|sidecar| sidecar.name() == name);
            found.map(|sidecar| sidecar.agent_access(plan).ports).unwrap_or_default()
        };
        let agent = Name::Agent.as_str();
        let opened: BTreeSet<&str> = expected.open.iter().map(|(host, _)| host.as_str()).collect();
        let mut edges: Vec<_> =
            opened.into_iter().map(|to| Edge { from: agent.to_owned(), to: to.to_owned(), ports: ports(to) }).collect();
        for sidecar in &sidecars {
            let needed = document.service(sidecar.name()).into_iter().flat_map(|service| &service.depends_on);
            let needed =
                needed.map(|(name, _)| Edge { from: sidecar.name().into(), to: name.clone(), ports: ports(name) });
            edges.extend(needed.filter(|edge| !edge.ports.is_empty()));
        }
        let canary = expected.proxy.as_ref().and_then(|(host, _)| {
            let service =
                sidecars.iter().map(|sidecar| sidecar.name()).find(|name| names_of(document, name).contains(host))?;
            let taken = ports(service);
            (20009..u16::MAX).find(|port| !taken.contains(port)).map(|port| (service.to_owned(), port))
        });
        Self { plan, options, delivery, document, sidecars, expected, edges, canary }
    }

    pub(super) fn namespace(&self) -> Object {
        let labels = [
            ("pod-security.kubernetes.io/enforce", "restricted"),
            ("pod-security.kubernetes.io/audit", "restricted"),
            ("pod-security.kubernetes.io/warn", "restricted"),
        ];
        let mut metadata = self.metadata(&self.document.name);
        metadata.namespace = None;
        metadata.labels.extend(labels.map(|(key, value)| (key.to_owned(), value.to_owned())));
        Object { api_version: "v1", kind: "Namespace", metadata, spec: None }
    }

    /// Returns a Service for each sidecar that something in the bottle may reach. It keeps its address when the Pod is
    /// replaced.
    pub(super) fn services(&self) -> Vec<Object> {
        let reached: BTreeSet<&str> = self.edges.iter().map(|edge| edge.to.as_str()).collect();
        let service = |name: &str| {
            let mut ports: Vec<u16> = self.ports(name);
            ports.extend(self.canary.iter().filter(|(service, _)| service == name).map(|(_, port)| *port));
            let port = |port| ServicePort { name: format!("tcp-{port}"), protocol: "TCP", port };
            let spec = ServiceSpec {
                cluster_ip: None,
                selector: self.selector(name),
                ports: ports.into_iter().map(port).collect(),
            };
            self.object("v1", "Service", name, Spec::Service(spec))
        };
        reached.into_iter().map(service).collect()
    }

    /// Returns the names of other services that each Pod knows: only of those that it may reach.
    pub(super) fn names(&self) -> BTreeMap<String, BTreeMap<String, Vec<String>>> {
        let mut names: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
        for edge in &self.edges {
            let known = names.entry(edge.from.clone()).or_default();
            known.insert(edge.to.clone(), names_of(self.document, &edge.to).into_iter().collect());
        }
        names
    }

    pub(super) fn ports(&self, name: &str) -> Vec<u16> {
        let found = self.sidecars.iter().find(|sidecar| sidecar.name() == name);
        found.map(|sidecar| sidecar.agent_access(self.plan).ports).unwrap_or_default()
    }

    /// Returns true if the service is attached to a network with access to the outside, its own or that which it joins.
    pub(super) fn is_outside(&self, service: &Service) -> bool {
        let own =
            service.networks.iter().chain(joined(self.document, service).into_iter().flat_map(|other| &other.networks));
        own.map(|(network, _)| network).any(|network| network == EGRESS)
    }

    pub(super) fn object(&self, api_version: &'static str, kind: &'static str, name: &str, spec: Spec) -> Object {
        Object { api_version, kind, metadata: self.metadata(name), spec: Some(spec) }
    }

    /// Returns the name, the namespace, and the labels of every object. The owner is no label, because its text is not one.
    fn metadata(&self, name: &str) -> Metadata {
        let (names, launch) = (&self.plan.plan().names, self.plan.launch());
        let mut labels = names.labels(&self.plan.plan().agent_name, &launch.version, &launch.owner, &launch.state);
        labels.remove(&names.label(LabelKey::Owner));
        Metadata {
            name: name.to_owned(),
            namespace: Some(self.document.name.clone()),
            labels,
            annotations: BTreeMap::new(),
        }
    }

    /// Returns the label that selects a service's Pod.
    pub(super) fn selector(&self, name: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(format!("{}.service", self.plan.plan().names.prefix()), name.to_owned())])
    }
}

/// Returns the service whose network namespace a service joins.
fn joined<'a>(document: &'a ComposeFile, service: &Service) -> Option<&'a Service> {
    document.service(service.network_mode.as_deref()?.strip_prefix("service:")?)
}

/// Returns every name of a service on the bottle's network.
fn names_of(document: &ComposeFile, name: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::from([name.to_owned()]);
    if let Some(service) = document.service(name) {
        names.insert(service.container_name.clone());
        let networks =
            service.networks.iter().chain(joined(document, service).into_iter().flat_map(|other| &other.networks));
        names.extend(networks.flat_map(|(_, attachment)| attachment.aliases.iter().cloned()));
    }
    names
}
