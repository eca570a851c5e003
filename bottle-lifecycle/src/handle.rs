//! The data of a handle to a running bottle.

use bottle_engine::CopyMethod;
use bottle_plan::manifest::LimitsSpec;
use bottle_verify::Expected;
use serde::{Deserialize, Serialize};

use crate::restart::Restart;

/// The data that a handle needs besides the names of the bottle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// Name of the agent's container.
    pub container: String,
    /// Default user of commands. `None`: the container's own user.
    pub user: Option<String>,
    /// Default working directory of commands. `None`: the container's own directory.
    pub workdir: Option<String>,
    /// The agent's own command. Empty if unknown.
    #[serde(default)]
    pub agent: Vec<String>,
    /// Method for copying files into and out of the container.
    pub copy: CopyMethod,
    /// Protections that the bottle was launched with. `None` if unknown: the journal is lost.
    #[serde(default)]
    pub expected: Option<Expected>,
    /// Data for starting the bottle again. `None` if unknown: the journal is lost.
    #[serde(default)]
    pub restart: Option<Restart>,
    /// Limits of the bottle. Those of its containers are enforced by the engine.
    #[serde(default)]
    pub limits: LimitsSpec,
}
