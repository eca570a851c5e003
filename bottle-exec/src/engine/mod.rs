//! A typed client of a container engine's command line.

mod arrival;
mod client;
mod compose;
mod container;
mod derive;
mod detect;
mod error;
mod exec;
mod image;
mod info;
mod kill;
mod object;
mod state;

pub use self::client::{Engine, Limits};
pub use self::compose::{Compose, ComposeProject, PROJECT_LABEL, ServiceState};
pub use self::detect::EngineChoice;
pub use self::error::EngineError;
pub use self::exec::Exec;
pub use self::image::{Build, BuildContext};
pub use self::info::{Capabilities, Capability, Endpoint, EngineInfo, Flavour, Version};
pub use self::object::{Filter, NetworkInfo, NewNetwork, Object, ObjectKind};
pub use self::state::{ContainerState, CopyMethod};

#[cfg(test)]
mod tests;
