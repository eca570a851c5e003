//! The manifest: what a person writes, in YAML.
//!
//! The types here are the file's grammar; `load` reads a file into them and turns every mistake into one error that
//! names file, line, key and what is accepted; `check` holds the rules that span several keys.

mod build;
mod check;
mod error;
mod inspect;
mod known_hosts;
mod load;
mod networks;
mod origin;
mod read;
mod schema;
mod shorthand;
mod spec;
mod tree;
mod words;

pub use error::{ManifestError, ManifestMistake};
pub use inspect::{AllowSpec, Inspect, RequestScan};
pub use load::MAX_MANIFEST_BYTES;
pub use networks::{NetworkMode, NetworksSpec};
pub use shorthand::{EnvSpec, Toggle};
pub use spec::{
    AgentSpec, BottleSpec, ContainerLimits, DeployKeySpec, EgressSpec, Forge, GitIdentity, GitSpec, ImagesSpec,
    InjectScheme, InjectSpec, LimitsSpec, Manifest, Provider, PushSpec, RouteSpec, Runtime, SuperviseSpec, TlsSpec,
    UpstreamSpec, WorkspaceMode, WorkspaceSpec,
};
