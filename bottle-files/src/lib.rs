//! Files of the host: atomic writes, locks, private directories, and tar streams of files that somebody else may be changing.

mod lock;
mod private;
mod routes;
pub mod tar;
mod write;

pub use lock::FileLock;
pub use private::{PrivateDir, real_path, resolved_path};
pub use routes::host_networks;
pub use write::{NewFile, last_rewrite, place_directory, rewrite, sync_directory, write};
