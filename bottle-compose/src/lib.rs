//! The typed Compose document and its pure renderer. [`render`] turns a resolved plan into a document, and the document
//! is written as YAML. This crate runs no command and accesses no file; `bottle-engine` runs the document.
//!
//! A bottle's sidecars implement [`Sidecar`]. [`render`] adds a service for each one that applies. The built-in
//! sidecars are in `bottle-sidecars`. This is another complete one, which is passed to [`render`] with the others:
//!
//! ```
//! use bottle_compose::document::Service;
//! use bottle_compose::sidecar::{Image, Reach, health_check, sidecar_service};
//! use bottle_compose::{AgentAccess, Sidecar};
//! use bottle_plan::value::ImageRef;
//! use bottle_plan::{BottlePlan, ResolvedPlan};
//!
//! /// A clock for the agent, attached only to the agent's network.
//! #[derive(Debug)]
//! struct Clock {
//!     image: ImageRef,
//! }
//!
//! impl Sidecar for Clock {
//!     fn name(&self) -> &str {
//!         "clock"
//!     }
//!
//!     fn applies(&self, _: &BottlePlan) -> bool {
//!         true
//!     }
//!
//!     fn service(&self, plan: &ResolvedPlan) -> Service {
//!         let alias = Some(self.name().to_owned());
//!         let mut service = sidecar_service(plan, self.name(), Image::Pulled(&self.image), Reach::Internal, alias);
//!         service.healthcheck = Some(health_check(plan, &["/clock", "--check"]));
//!         service
//!     }
//!
//!     fn agent_access(&self, _: &ResolvedPlan) -> AgentAccess {
//!         // Without its ports here the seal would keep the agent out.
//!         AgentAccess { no_proxy: vec![self.name().to_owned()], ports: vec![8080], ..AgentAccess::default() }
//!     }
//! }
//! ```
//!
//! # The document
//!
//! It follows the document of the first version of this design, service by service and key by key. The table lists
//! every part, and the reason for each difference.
//!
//! | first version | this crate | reason |
//! | --- | --- | --- |
//! | `name: claude-bottle-<slug>` | the same, with a configurable prefix | two installations can share one engine |
//! | order of services: pipelock, git-gate, egress, supervise, agent | the same, with `outlet` first and `seal` before the agent | a sidecar of the caller goes before the seal |
//! | git-gate, egress, supervise only when planned | the same; [`Sidecar::applies`] decides for each | a fifth sidecar can be added |
//! | `networks`: both `external: true`, created by the launcher | created by the launcher with Compose's labels, one with `internal: true`; `external` is an option | small subnets from a pool, and Compose still removes them; the option is for a pipelock that must know the subnet before it starts |
//! | | `enable_ipv6: false`, and driver options that keep the host's address off the internal bridge | through that address the agent reached every service on the host's 0.0.0.0, also over IPv6 |
//! | `container_name` of each service | the same | |
//! | aliases: the container's name for pipelock and git-gate, the short one for egress and supervise | the same | |
//! | | `ipv4_address` of each service where the subnet is known, and the addresses in the seal's `command` | the seal opens its endpoints without waiting for a sidecar, and one that is restarted keeps its address |
//! | pipelock on both networks | `network_mode: service:outlet`; the outlet is on both, with pipelock's aliases, `cap_add: [NET_ADMIN]` and the ports as `command` | pipelock connects to any port of an allowed host; in the outlet's namespace the kernel lets it reach the planned ones only |
//! | pipelock `image`, pinned | the same, from the plan | a mirror, or another release |
//! | pipelock `command: run --config … --listen 0.0.0.0:<port>` | the same | |
//! | pipelock's three binds: configuration, certificate, key | the same | |
//! | `build: {context: <repository>, dockerfile: …}` | `build: {context: <state>/images/<name>/<hash>, args}` with `pull_policy: never` | a library has no repository at run time; the tag is the context's hash, and an image of that name in a registry would be untrusted |
//! | git-gate: entry point, two hooks, a key for each upstream | every script of the sidecar, `upstreams.json`, the keys | the push rules are data for the hooks, not shell code generated at launch |
//! | git-gate's known hosts: planned | one `known_hosts` | a host with an unknown key is refused |
//! | git-gate `extra_hosts`, aggregated and sorted | the same; two addresses for one host are an error of the manifest | |
//! | egress `environment`: pipelock's address three times, `NO_PROXY`, the CA's path, then bare token names, sorted | the same; a token's variable is `EGRESS_TOKEN_<name>` | Compose has one environment for every service, and the agent's placeholder often has the token's own name |
//! | egress's binds: routes, its CA, pipelock's CA | the same | |
//! | egress `depends_on: [pipelock]` | with `condition: service_healthy` | a started pipelock may not listen yet |
//! | supervise: internal network, three variables, the queue read-write | the same, the time limit of its wait, and the decisions and the current configuration read-only | the sidecar must not be able to write a decision |
//! | agent `image`: the derived image, if there is one | the same | |
//! | agent `command: sleep infinity` | the same, with `init: true` and a short `stop_grace_period` | as process 1 it ignores SIGTERM: five such services took 20.8 s to stop, 0.75 s with an init |
//! | agent only on the internal network, `networks` | `network_mode: service:seal`; the seal is on that network, with an unreachable resolver and no search domain | the rules are set before the agent's container starts, and outlive it; older engines asked the host's resolver for outside names (CVE-2024-29018) |
//! | | service `seal`: `cap_add: [NET_ADMIN]`, its endpoints as `command` | an internal network alone leaves ways to the host and past egress |
//! | agent: proxy variables in both cases; `NO_PROXY` with loopback and supervise | the same, and git-gate's names | pipelock would refuse an address inside the bottle |
//! | agent: `NODE_EXTRA_CA_CERTS`, `SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE` | the same, `CURL_CA_BUNDLE`, `GIT_SSL_CAINFO`, `NODE_USE_ENV_PROXY` | curl, git and Node also read these |
//! | agent: forwarded names, bare and sorted | the same, including placeholders; literals come first | |
//! | agent `runtime: runsc` on request | the same | |
//! | agent `env_file` when it exists and is not empty, which the renderer checks | the same, decided when the plan is resolved | the renderer is pure |
//! | agent: the current configuration read-only, with supervise | the same, and the workspace if it is a bind mount | |
//! | agent `depends_on` every sidecar | with `condition: service_healthy` | the agent's first request must not fail |
//! | binds in the long form | the same, with `create_host_path: false` | the engine would create a missing source as a directory owned by root |
//! | | `read_only`, `cap_drop: [ALL]`, `no-new-privileges`, `user`, `pids_limit`, `mem_limit`, `tmpfs`, `logging` | the page of [`sidecar::sidecar_service`] gives the reason for each |
//! | | `restart: on-failure:5` of each sidecar, and `on-failure` once the bottle is up | a sidecar that is killed, such as for its memory use, must not cut the agent off permanently; one that cannot start must make the launch fail |
//! | | `healthcheck` of each sidecar | the only sign that a bottle is ready |
//! | | `labels` | recovery after a killed launcher finds objects by them |
//! | JSON in a file named `.yml` | YAML, a `$` doubled wherever Compose would interpolate | paths may hold a `$`, and people read the file |

mod agent;
pub mod document;
pub mod env_file;
pub mod podman;
mod render;
mod seal;
pub mod sidecar;
mod start;
mod store;
mod yaml;

pub use agent::{AGENT_CA_BUNDLE, AGENT_CA_CERT, AGENT_PROMPT, AGENT_USER, DISK_LABEL, agent_argv};
pub use document::ComposeFile;
pub use render::{RenderError, render};
pub use sidecar::{AgentAccess, Sidecar};
pub use start::StartOrder;
pub use store::{STORE, unstorable};
pub use yaml::to_plain_yaml;
