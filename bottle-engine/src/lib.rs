//! A typed client of a container engine's command line: Docker, Podman, and nerdctl as far as it agrees with them.
//!
//! ```
//! use std::sync::Arc;
//! use bottle_engine::{ComposeProject, Engine, EngineChoice, Exec};
//! use bottle_exec::{Control, Logging};
//!
//! // `Subprocess::new(std::env::vars_os())` would run the commands. This backend only records them.
//! let backend = Arc::new(bottle_engine::rehearsal());
//! let engine = Engine::detect(Arc::new(Logging::new(backend.clone())), &EngineChoice::Auto, Control::default())?;
//! let project = ComposeProject::new("claude-bottle-demo", "/state/demo", "/state/demo/docker-compose.yml");
//! engine.compose(&project)?.up(std::time::Duration::from_secs(60), [])?;
//! engine.exec("claude-bottle-demo", &Exec::new(["id"]).with_user("agent"))?;
//! // `BOTTLE_EXEC` is a random number that identifies an interrupted command in the container.
//! let line = backend.lines().pop().unwrap_or_default();
//! assert!(line.starts_with("docker exec --user agent --env BOTTLE_EXEC=") && line.ends_with(" sh id"));
//! # Ok::<(), bottle_engine::EngineError>(())
//! ```

mod arrival;
mod client;
mod compose;
mod container;
mod derive;
mod detect;
mod dropped;
mod error;
mod events;
mod exec;
mod image;
mod info;
mod kill;
mod live;
mod object;
mod podman;
mod progress;
mod start;
mod state;

pub use client::{Engine, Limits};
pub use compose::{Compose, ComposeProject, NETWORK_LABEL, PROJECT_LABEL, ServiceState};
pub use detect::{EngineChoice, rehearsal};
pub use dropped::DroppedExecs;
pub use error::EngineError;
pub use events::{ContainerChange, ContainerEvent};
pub use exec::Exec;
pub use image::{Build, BuildContext};
pub use info::{Capabilities, Capability, Endpoint, EngineInfo, Flavour, Version};
pub use live::LiveExec;
pub use object::{Filter, ImageInfo, ListedContainer, NetworkInfo, NewNetwork, Object, ObjectKind, familiar};
pub use progress::BuildProgress;
pub use start::Start;
pub use state::{ContainerState, CopyMethod};

#[cfg(test)]
mod tests;
