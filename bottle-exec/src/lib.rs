//! How a bottle is run and how it ends: commands as data, the backends that run them, a typed client of container engines,
//! the handle of a bottle that is up, the journal of what was made, and teardown and recovery from it. It knows nothing of
//! what is in a bottle; the plan says that, and the facade's launch joins the two.
//!
//! ```
//! use std::sync::Arc;
//! use bottle_exec::engine::{ComposeProject, Exec};
//! use bottle_exec::{Control, Engine, EngineChoice, Logging, RecordingBackend};
//!
//! // `Subprocess::new(std::env::vars_os())` would run the commands; this one only records them.
//! let backend = Arc::new(RecordingBackend::rehearsal());
//! let engine = Engine::detect(Arc::new(Logging::new(backend.clone())), &EngineChoice::Auto, Control::default())?;
//! let project = ComposeProject::new("claude-bottle-demo", "/state/demo", "/state/demo/docker-compose.yml");
//! engine.compose(&project)?.up(std::time::Duration::from_secs(60), [])?;
//! engine.exec("claude-bottle-demo", &Exec::new(["id"]).with_user("agent"))?;
//! assert_eq!(backend.lines().last().unwrap(), "docker exec --user agent claude-bottle-demo id");
//! # Ok::<(), bottle_exec::EngineError>(())
//! ```

mod backend;
mod bottle;
mod command;
pub mod conformance;
mod control;
mod decorators;
pub mod engine;
mod error;
mod journal;
mod list;
mod observer;
mod orphan;
mod output;
mod owner;
mod quote;
mod recording;
mod recover;
mod secret;
mod subprocess;
mod teardown;
mod transfer;
mod undo;

pub use backend::Backend;
pub use bottle::{Bottle, BottleError, Handle};
pub use bottle_plan::SecretValue;
pub use command::{Command, EnvValue, OutputPolicy, Stdin};
pub use control::{CancelToken, Control, OutputSink, Stream};
pub use decorators::{Logging, Timeout};
pub use engine::{Engine, EngineChoice, EngineError};
pub use error::ExecError;
pub use journal::{BottleLock, Journal, JournalError, JournalFile, Status};
pub use list::{Listed, list};
pub use observer::{Event, Observed, Observer, Outcome, step};
pub use output::{Captured, ExitStatus, Output};
pub use owner::{Liveness, Owner, OwnerError, Scope};
pub use recording::{Answer, Fault, Matcher, RecordingBackend};
pub use recover::{RecoveryReport, recover};
pub use subprocess::Subprocess;
pub use teardown::{TeardownGuard, TeardownOptions, TeardownReport, UndoOutcome, tear_down};
pub use undo::{Undo, UndoError, UndoHandler, UndoHandlers};
