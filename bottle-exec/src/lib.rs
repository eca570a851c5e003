//! Commands as data, backends that run them, and a typed client for container engines. The crate is independent of
//! bottles.
//!
//! ```
//! use std::sync::Arc;
//! use bottle_exec::engine::{ComposeProject, Exec};
//! use bottle_exec::{Control, Engine, EngineChoice, Logging, RecordingBackend};
//!
//! // `Subprocess::new(std::env::vars_os())` would run the commands. This backend only records them.
//! let backend = Arc::new(RecordingBackend::rehearsal());
//! let engine = Engine::detect(Arc::new(Logging::new(backend.clone())), &EngineChoice::Auto, Control::default())?;
//! let project = ComposeProject::new("claude-bottle-demo", "/state/demo", "/state/demo/docker-compose.yml");
//! engine.compose(&project)?.up(std::time::Duration::from_secs(60), [])?;
//! engine.exec("claude-bottle-demo", &Exec::new(["id"]).with_user("agent"))?;
//! // `BOTTLE_EXEC` is a random number that identifies an interrupted command in the container.
//! let line = backend.lines().pop().unwrap_or_default();
//! assert!(line.starts_with("docker exec --user agent --env BOTTLE_EXEC=") && line.ends_with(" claude-bottle-demo id"));
//! # Ok::<(), bottle_exec::EngineError>(())
//! ```

mod backend;
mod command;
mod control;
mod decorators;
pub mod engine;
mod error;
mod observer;
mod output;
mod plain;
mod quote;
mod recording;
mod secret;
mod sink;
mod status;
mod subprocess;

pub use backend::Backend;
pub use bottle_values::SecretValue;
pub use command::{Command, EnvValue, OutputPolicy, Stdin};
pub use control::{CancelToken, Control};
pub use decorators::Logging;
pub use engine::{Engine, EngineChoice, EngineError};
pub use error::{ExecError, chain};
pub use observer::{Event, Observed, Observer, Outcome, step};
pub use output::{Captured, Output};
pub use plain::PlainText;
pub use recording::{Answer, Fault, Matcher, RecordingBackend};
pub use sink::{OutputSink, Stream};
pub use status::ExitStatus;
pub use subprocess::Subprocess;
