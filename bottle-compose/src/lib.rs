//! The typed Compose document and the pure renderer: a resolved plan goes in, a document comes out, and the document
//! becomes YAML. It runs nothing, reads nothing and writes nothing; running is `bottle-exec`'s part.
//!
//! A bottle's sidecars implement [`Sidecar`]; [`render`] puts those that apply around the agent. The four of every bottle
//! are in `bottle-sidecars`. A fifth takes no more than this, and is handed to [`render`] with the others:
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
//! It follows the document that the first version of the idea wrote, service by service and key by key. Where it differs,
//! this is why.
//!
//! | there | here | why |
//! | --- | --- | --- |
//! | `name: claude-bottle-<slug>` | the same, with a prefix that can be chosen | two installations on one engine |
//! | order of services: pipelock, git-gate, egress, supervise, agent | the same | |
//! | git-gate, egress, supervise only when planned | the same; each decides by [`Sidecar::applies`] | a fifth can be added |
//! | `networks`: both `external: true`, made by the launcher | Compose makes them, `internal: true` on the one; `external` on request | one thing fewer to undo; the launcher's own are for when pipelock must know the subnet before it starts |
//! | | `enable_ipv6: false`, and driver options that keep the host's address off the internal bridge | through it every service on the host's 0.0.0.0 answered, and over IPv6 as well |
//! | `container_name` of each service | the same | |
//! | aliases: the container's name for pipelock and git-gate, the short one for egress and supervise | the same | |
//! | pipelock `image`, pinned | the same, from the plan | a mirror, or another release |
//! | pipelock `command: run --config … --listen 0.0.0.0:<port>` | the same | |
//! | pipelock's three binds: configuration, certificate, key | the same | |
//! | `build: {context: <repository>, dockerfile: …}` | `build: {context: <state>/images/<name>/<hash>, args}` with `pull_policy: never` | a library has no repository at run time; the tag is the context's hash, and a registry's image of that name would be a stranger's |
//! | git-gate: entry point, two hooks, a key for each upstream | every script of the sidecar, `upstreams.json`, the keys | the rules for pushes are data for the hooks, not shell code made up at launch |
//! | git-gate's known hosts: to come | one `known_hosts` | a host whose key is not known is refused |
//! | git-gate `extra_hosts`, aggregated and sorted | the same; two addresses for one host are an error of the manifest | |
//! | egress `environment`: pipelock's address three times, `NO_PROXY`, the CA's path, then bare token names, sorted | the same; a token's variable is `EGRESS_TOKEN_<name>` | Compose has one environment for every service, and the agent's placeholder often has the token's own name |
//! | egress's binds: routes, its CA, pipelock's CA | the same | |
//! | egress `depends_on: [pipelock]` | with `condition: service_healthy` | a pipelock that was started need not listen yet |
//! | supervise: internal network, three variables, the queue read-write | the same, how long it waits, and decisions and the current configuration read-only | a decision has to come from where the sidecar cannot write |
//! | agent `image`: the derived one if there is one | the same | |
//! | agent `command: sleep infinity` | the same, with `init: true` and a short `stop_grace_period` | as process 1 it ignores SIGTERM: five such services took 20.8 s to stop, 0.75 s with an init |
//! | agent on the internal network alone | the same, with a resolver that is not there and no search domain | older engines asked the host's resolver for names of the outside (CVE-2024-29018) |
//! | agent: proxy variables in both cases; `NO_PROXY` with loopback and supervise | the same, and git-gate's names | pipelock would refuse an address of the bottle's own |
//! | agent: `NODE_EXTRA_CA_CERTS`, `SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE` | the same, `CURL_CA_BUNDLE`, `GIT_SSL_CAINFO`, `NODE_USE_ENV_PROXY` | what curl, git and Node read besides |
//! | agent: forwarded names, bare and sorted | the same, placeholders among them; literals before them | |
//! | agent `runtime: runsc` on request | the same | |
//! | agent `env_file` when it exists and is not empty, which the renderer looks up | the same, decided when the plan is resolved | the renderer asks nobody |
//! | agent: the current configuration read-only, with supervise | the same, and the workspace when it is bound | |
//! | agent `depends_on` every sidecar | with `condition: service_healthy` | the agent's first request must not fail |
//! | binds in the long form | the same, with `create_host_path: false` | the engine would make a missing source, as a directory that root owns |
//! | | `read_only`, `cap_drop: [ALL]`, `no-new-privileges`, `user`, `pids_limit`, `mem_limit`, `tmpfs`, `logging` | [`sidecar::sidecar_service`] says what each is for |
//! | | `restart: on-failure:5` of each sidecar | one that is killed, as for its memory, must not cut the agent off for good |
//! | | `healthcheck` of each sidecar | nothing else tells when a bottle is ready |
//! | | `labels` | what a killed launcher leaves is found by them |
//! | JSON in a file named `.yml` | YAML, a `$` doubled wherever Compose would interpolate | paths with a `$`; and a person reads it |

mod agent;
pub mod document;
mod render;
pub mod sidecar;
mod yaml;

pub use agent::{AGENT_CA_BUNDLE, AGENT_CA_CERT, AGENT_PROMPT, AGENT_USER, agent_argv};
pub use document::ComposeFile;
pub use render::{RenderError, render};
pub use sidecar::{AgentAccess, Sidecar};
pub use yaml::to_plain_yaml;
