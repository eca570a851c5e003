//! Where a bottle that is up can be reached.

use bottle_exec::engine::CopyMethod;
use serde::{Deserialize, Serialize};

/// What a handle needs to know of a bottle beside its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// The agent's container.
    pub container: String,
    /// Who runs commands in it unless a command says otherwise; the container's own user if there is none.
    pub user: Option<String>,
    /// Where; the container's own directory if there is none.
    pub workdir: Option<String>,
    /// The agent's own command; empty if nothing tells it.
    #[serde(default)]
    pub agent: Vec<String>,
    /// How files get into and out of it.
    pub copy: CopyMethod,
}
