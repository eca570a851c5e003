//! What a bottle is: manifest, plan, resolved plan, names, state layout and secrets.

pub mod manifest;
pub mod name;
mod secret;
mod state;
pub mod value;

pub use manifest::{Manifest, ManifestError};
pub use name::{AgentName, BottleName, LabelKey, NameError, Names, Prefix, Service, Slug};
pub use secret::{SecretValue, Secrets};
pub use state::{StateLayout, StateRoot};
