//! The workspace: a tar of it for the derived image, the protection of a host's git whose workspace an agent writes, and the
//! work that comes back: changes, a patch, an export, commits. The agent is not trusted with any of it.

mod changes;
mod commands;
mod credentials;
mod export;
mod fetch;
mod git;
mod git_config;
mod guard;
mod index;
mod nested;
mod pack;
mod patch;
mod places;
mod read;
mod repository;
mod review;
mod source;
mod stream;
mod work_error;

pub use changes::{Change, ChangeKind, Changes, FileState, Tree};
pub use commands::UserGit;
pub use export::{Exported, export};
pub use fetch::FetchedRef;
pub use git::Git;
pub use guard::{check, protect};
pub use pack::{PACKED, Packed, WorkspaceError, pack};
pub use review::leave;
pub use source::{WorkSource, write_bundle};
pub use work_error::{WorkError, WorkLimits};
