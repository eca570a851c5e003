//! The workspace: a tar of it for the derived image, and the protection of a host's git whose workspace an agent writes.

mod credentials;
mod git_config;
mod guard;
mod index;
mod pack;
mod places;
mod review;

pub use guard::{check, protect};
pub use pack::{Packed, WorkspaceError, pack};
pub use review::leave;
