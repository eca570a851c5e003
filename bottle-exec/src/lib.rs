//! Commands as data, and backends that run them. The crate is independent of bottles and of container engines.
//!
//! ```
//! use std::sync::Arc;
//! use bottle_exec::{Backend, Command, Control, Logging, RecordingBackend};
//!
//! // `Subprocess::new(std::env::vars_os())` would run the command. This backend only records it.
//! let backend = Arc::new(RecordingBackend::new());
//! let command = Command::new("git").with_args(["status", "--short"]).with_timeout(std::time::Duration::from_secs(5));
//! Logging::new(backend.clone()).run(&command, &Control::default())?.success(&command)?;
//! assert_eq!(backend.lines(), ["git status --short"]);
//! # Ok::<(), bottle_exec::ExecError>(())
//! ```

mod backend;
mod child;
mod command;
mod control;
mod decorators;
mod error;
mod observer;
mod output;
mod plain;
mod quote;
mod recording;
mod secret;
mod sink;
mod spans;
mod status;
mod subprocess;

pub use backend::Backend;
pub use bottle_values::SecretValue;
pub use bottle_values::environment::steers_the_engine;
pub use child::{Child, ChildInput, ChildOutput, ChildProcess, TerminalSize};
pub use command::{Command, EnvValue, OutputPolicy, Stdin};
pub use control::{CancelToken, Control};
pub use decorators::Logging;
pub use error::{ExecError, chain};
pub use observer::{Event, Observed, Observer, Outcome, step};
pub use output::{Captured, Output};
pub use plain::PlainText;
pub use quote::{quote_bytes, quote_text};
pub use recording::{Answer, Fault, Matcher, RecordingBackend};
pub use sink::{OutputSink, Stream};
pub use spans::Spans;
pub use status::ExitStatus;
pub use subprocess::Subprocess;
