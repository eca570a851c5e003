//! What a bottle is: manifest, plan, resolved plan, names, state layout and secrets.

pub mod name;
mod state;

pub use name::{AgentName, BottleName, LabelKey, NameError, Names, Prefix, Service, Slug};
pub use state::{StateLayout, StateRoot};
