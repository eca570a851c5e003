//! The Kubernetes objects of a bottle: [`render`] turns a resolved plan into them, without a cluster, and [`to_yaml`] writes them.
//!
//! # From a Compose project to a namespace
//!
//! | in the Compose project | on the cluster |
//! | --- | --- |
//! | project | namespace with Pod Security `restricted` |
//! | service | Pod. In a shared one, the agent would share the network of its proxy |
//! | internal network, seal | every connection denied, in both directions and for every Pod, and two policies for each connection that is allowed |
//! | outlet | the ports of the policies of pipelock and git-gate |
//! | names of services | `hostAliases` with the addresses of Services, and no resolver where there is no access to the outside |
//! | bind mounts | files in memory, which the launcher hands over to an init container. For `kubectl apply -k`: `ConfigMaps` and Secrets |
//! | health check | startup and readiness probe |
//! | `runtime: runsc` | runtime class |
//! | root in the agent's container | none: an init container makes the bundle of certificates, and git reads its rules by `GIT_CONFIG_SYSTEM` |
//! | files that an approval changes | a container of each Pod, the keeper, which alone can write them |
//! | `limits.time` | `activeDeadlineSeconds` of the agent's Pod, which counts from its start. Its files end with it |
//! | log of the agent's container | none: its main process has no output, and the kubelet's file for a last message is out of reach |
//! | limit on processes | none: the kubelet has one for all Pods (`podPidsLimit`) |
//! | limit on connections to pipelock | none: a policy does not count |
//!
//! # Policies that take effect late
//!
//! A Pod can run before its policies do. Each Pod therefore starts with an init container that waits until connections are
//! refused that no policy allows: to the API server and, from the agent's Pod, to a canary that listens beside its proxy.
//! Ingress is denied as well, so that the other end refuses a Pod that is too early.

mod gate;
pub mod object;
mod options;
mod render;
mod yaml;

pub use gate::{COMPLETE, RECEIVER};
pub use options::KubeOptions;
pub use render::{Content, Delivery, FILES, File, GATE, KEEPER, MAIN, Manifests, RenderError, STATE, VERIFY, render};
pub use yaml::to_yaml;
