//! The seal: owner of the agent's network namespace, and of the firewall rules there. `bottle-compose` renders its service.

use crate::BuildContext;
use crate::context::embedded;

/// The build context of its image.
pub const CONTEXT: BuildContext = BuildContext {
    name: "seal",
    files: embedded!("seal": ["Dockerfile", "forward.c", "probe.c", "seal.c", "unpack.c"], programs: []),
};
