//! The manifest: the YAML file that a person writes.
//!
//! The types here define the format of the file. `load` reads a file into them and reports all mistakes in one error,
//! each with line, key and what is accepted. `check` holds the rules that involve several keys.

mod build;
mod check;
mod check_egress;
mod check_git;
mod denied;
mod inspect;
mod known_hosts;
mod load;
mod networks;
mod rule;
mod schema;
mod shorthand;
mod spec;

pub use bottle_yaml::{ManifestError, ManifestMistake};
pub use denied::{EgressMode, OnDenied};
pub use inspect::{AllowSpec, Inspect, RequestScan};
pub use load::MAX_MANIFEST_BYTES;
pub use networks::{NetworkMode, NetworksSpec};
pub use shorthand::{EnvSpec, Toggle};
pub use spec::{
    AgentSpec, BottleSpec, ContainerLimits, DeployKeySpec, EgressSpec, Forge, GitIdentity, GitSpec, ImagesSpec,
    InjectScheme, InjectSpec, LimitsSpec, Manifest, PromptMode, Provider, PushSpec, RouteSpec, Runtime, SecretsMode,
    SuperviseSpec, TlsSpec, UpstreamSpec, WorkspaceMode, WorkspaceSpec,
};
