//! The subprocess layer, the typed docker client, the bottle's handle, provisioning and teardown.

pub mod supervise;
