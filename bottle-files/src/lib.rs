//! Files of the host: atomic writes, locks, and tar streams of files that somebody else may be changing.

mod lock;
pub mod tar;
mod write;

pub use lock::FileLock;
pub use write::{NewFile, rewrite, sync_directory, write};
