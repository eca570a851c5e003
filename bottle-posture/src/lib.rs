//! The posture of a bottle: what the bottle may do. A person reads it before agreeing to a launch, and programs can
//! show or compare it.
//!
//! A [`Posture`] is made from a plan alone and holds no secret. For a credential it holds the variable's name or the
//! key's path. [`Posture::diff`] describes the changes between two postures in words, each with its direction.

mod diff;
mod posture;

pub use diff::{Change, Effect, PostureDiff};
pub use posture::{
    CredentialPosture, EnvironmentPosture, GitCredential, GitPosture, MountPosture, Posture, RoutePosture, Temporary,
    WorkspacePosture,
};
