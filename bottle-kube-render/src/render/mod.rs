//! The pure renderer: a resolved plan becomes Kubernetes objects.

mod files;
mod parts;
mod pod;
mod policy;

use std::collections::BTreeMap;
use std::net::IpAddr;

use bottle_compose::{AGENT_USER, Sidecar};
use bottle_plan::manifest::WorkspaceMode;
use bottle_plan::{ResolvedPlan, Service as Name};
use bottle_verify::Expected;

pub use files::{Content, File};
use parts::Bottle;
pub use parts::Delivery;
pub use pod::{FILES, GATE, KEEPER, MAIN, STATE, VERIFY};

use crate::KubeOptions;
use crate::object::{HostAlias, Object, Spec};

/// Error of rendering Kubernetes objects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// The sidecars do not fit each other.
    #[error(transparent)]
    Document(#[from] bottle_compose::RenderError),
    /// The workspace is a directory of the launcher's host, which no node of a cluster has.
    #[error(
        "render the agent's Pod: a cluster has no directory of this host for `workspace.mode: {mode}`; accepted: `copy` or `none`"
    )]
    Workspace {
        /// The mode.
        mode: &'static str,
    },
    /// The address of a Service is unknown.
    #[error("render the Pods: Service `{service}` has no address")]
    NoAddress {
        /// The Service.
        service: String,
    },
}

/// The objects of one bottle.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifests {
    base: Vec<Object>,
    pods: Vec<Object>,
    /// The names that each Pod knows, by Pod and Service.
    names: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    files: Vec<File>,
    expected: Expected,
    canary: Option<(String, u16)>,
}

impl Manifests {
    /// Returns namespace, policies and Services, in the order in which they are to be created.
    pub fn base(&self) -> &[Object] {
        &self.base
    }

    /// Returns the names of the Services.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        let services = self.base.iter().filter(|object| object.kind == "Service");
        services.map(|object| object.metadata.name.as_str())
    }

    /// Returns the names of the Pods, the agent's last.
    pub fn pod_names(&self) -> impl Iterator<Item = &str> {
        self.pods.iter().map(|pod| pod.metadata.name.as_str())
    }

    /// Returns the Pods. `addresses` are those of the Services, which are the only names that the agent's Pod resolves.
    ///
    /// # Errors
    ///
    /// Returns an error if the address of a Service is missing.
    pub fn pods(&self, addresses: &BTreeMap<String, IpAddr>) -> Result<Vec<Object>, RenderError> {
        let mut pods = self.pods.clone();
        for pod in &mut pods {
            let Some(Spec::Pod(spec)) = &mut pod.spec else { continue };
            for (service, hostnames) in self.names.get(&pod.metadata.name).into_iter().flatten() {
                let ip = *addresses.get(service).ok_or_else(|| RenderError::NoAddress { service: service.clone() })?;
                spec.host_aliases.push(HostAlias { ip, hostnames: hostnames.clone() });
            }
        }
        Ok(pods)
    }

    /// Returns the namespace, policies and Services with these fixed addresses, and the Pods.
    ///
    /// # Errors
    ///
    /// Returns an error if the address of a Service is missing.
    pub fn with_addresses(&self, addresses: &BTreeMap<String, IpAddr>) -> Result<Vec<Object>, RenderError> {
        let mut objects = self.base.clone();
        for object in &mut objects {
            if let Some(Spec::Service(service)) = &mut object.spec {
                service.cluster_ip = addresses.get(&object.metadata.name).copied();
            }
        }
        objects.extend(self.pods(addresses)?);
        Ok(objects)
    }

    /// Returns the files of the Pods.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> &str {
        self.base.first().map_or("", |object| object.metadata.name.as_str())
    }

    /// Returns the protections that the agent's Pod has.
    pub const fn expected(&self) -> &Expected {
        &self.expected
    }

    /// Returns the Service and port that listen for the agent's Pod and that no policy opens. A connection to it is a proof
    /// that policies are not enforced. `None` if the agent has no proxy.
    pub fn canary(&self) -> Option<(&str, u16)> {
        self.canary.as_ref().map(|(service, port)| (service.as_str(), *port))
    }
}

/// Renders the objects of a bottle.
///
/// It uses no clock, environment, file system or randomness, so the same plan gives the same objects.
///
/// # Errors
///
/// Returns an error if the sidecars do not fit each other, or the workspace is a directory of the host.
pub fn render(
    plan: &ResolvedPlan,
    sidecars: &[&dyn Sidecar],
    options: &KubeOptions,
    delivery: Delivery,
) -> Result<Manifests, RenderError> {
    let mode = match plan.plan().workspace.mode {
        WorkspaceMode::Bind => Some("bind"),
        WorkspaceMode::BindRw => Some("bind-rw"),
        WorkspaceMode::Copy | WorkspaceMode::None => None,
    };
    if let Some(mode) = mode {
        return Err(RenderError::Workspace { mode });
    }
    let document = bottle_compose::render(plan, sidecars)?;
    // Every document has an agent and a seal.
    let expected = Expected::of(&document, AGENT_USER).ok_or_else(|| bottle_compose::RenderError::Dangling {
        service: Name::Agent.to_string(),
        missing: Name::Seal.to_string(),
    })?;
    let bottle = Bottle::new(plan, sidecars, options, delivery, (&document, expected));
    let mut base = vec![bottle.namespace()];
    base.extend(bottle.policies());
    base.extend(bottle.services());
    let names = bottle.names();
    let (pods, files) = bottle.pods();
    Ok(Manifests { base, pods, names, files, canary: bottle.canary, expected: bottle.expected })
}
