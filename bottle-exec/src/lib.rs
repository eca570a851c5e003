//! The subprocess layer, the typed docker client, the bottle's handle, provisioning and teardown.
mod backend;
mod command;
pub mod conformance;
mod control;
mod decorators;
pub mod engine;
mod error;
mod observer;
mod output;
mod quote;
mod recording;
mod secret;
mod subprocess;

pub use backend::Backend;
pub use bottle_plan::SecretValue;
pub use command::{Command, EnvValue, OutputPolicy, Stdin};
pub use control::{CancelToken, Control, OutputSink, Stream};
pub use decorators::{Logging, Timeout};
pub use engine::{Engine, EngineChoice, EngineError};
pub use error::ExecError;
pub use observer::{Event, Observed, Observer, Outcome, step};
pub use output::{Captured, ExitStatus, Output};
pub use recording::{Answer, Fault, Matcher, RecordingBackend};
pub use subprocess::Subprocess;
