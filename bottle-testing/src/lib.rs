//! Support code for the tests of the workspace. It is not published.
//!
//! [`plans`] has a plan of every topology. [`random`] generates plans. [`forge`] is a git forge that keeps state,
//! and [`tokens`] a server of tokens, both over [`http`].
//! `kubernetes`, behind the feature of that name, has the schema of the objects that a bottle has on a cluster.
//! `events`, behind the feature `lab`, has the schema of events.
//! `lab`, behind the feature of that name, prepares a real engine with a host that stands for the outside.

#![expect(clippy::unwrap_used, reason = "a test that cannot make what it needs has failed")]
#![expect(missing_docs, reason = "the names tell it")]

#[cfg(feature = "lab")]
pub mod events;
pub mod forge;
pub mod http;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
#[cfg(feature = "lab")]
pub mod lab;
pub mod plans;
pub mod random;
pub mod tokens;
