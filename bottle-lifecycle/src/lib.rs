//! The lifecycle of a running bottle: its handle, the journal of what was created, teardown and recovery.

mod bottle;
mod disk;
mod event_log;
mod hand_over;
mod handle;
mod health;
mod home;
mod journal;
mod list;
mod log;
mod orphan;
mod owner;
mod recover;
mod renewal;
mod secret_source;
mod teardown;
mod undo;
mod watch;
mod work;

pub use bottle::{Bottle, BottleError};
pub use bottle_files::tar::Skipped;
pub use bottle_forward::{CONNECTIONS as FORWARDED_CONNECTIONS, Forward, ForwardError, ForwardSpec, ForwardSpecError};
pub use event_log::{EventLog, EventRecord};
pub use hand_over::{HandOverError, hand_over};
pub use handle::Handle;
pub use health::{ServiceHealth, ServiceImage, images};
pub use home::{Foreign, root_id};
pub use journal::{BottleLock, Journal, JournalError, JournalFile, Status};
pub use list::{BottleSummary, list};
pub use log::saved_log;
pub use owner::{Liveness, Owner, OwnerError, Scope};
pub use recover::{RecoveryReport, recover};
pub use renewal::Renewal;
pub use secret_source::{CallbackSource, CommandSource, FileSource, Secret, SecretSource};
pub use teardown::{TeardownError, TeardownGuard, TeardownOptions, TeardownReport, UndoOutcome, tear_down};
pub use undo::{Undo, UndoError, UndoHandler, UndoHandlers};
