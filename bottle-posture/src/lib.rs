//! What a bottle may do, for a person who has to agree to it and for programs that show or compare it.
//!
//! A [`Posture`] is made from a plan alone and names no secret: of a credential it holds the variable's name or the key's
//! path. Two of them [differ](Posture::diff) in words, each change with its direction.

mod diff;
mod posture;

pub use diff::{Change, Effect, PostureDiff};
pub use posture::{
    CredentialPosture, EnvironmentPosture, GitCredential, GitPosture, MountPosture, Posture, RoutePosture,
    WorkspacePosture,
};
