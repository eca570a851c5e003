//! One interface of bottles on every platform.
//!
//! A [`Platform`] launches bottles, and lists, attaches and recovers those of other processes. [`bottle::Bottles`] is one: a
//! container engine of this machine, or over ssh. [`Cluster`] is another: Kubernetes. A program chooses by value:
//!
//! ```no_run
//! use bottle::prelude::*;
//! use bottle_platform::{Cluster, Platform};
//!
//! # fn address() -> Option<String> { None }
//! # fn is_cluster() -> bool { true }
//! # fn plan() -> BottlePlan { unimplemented!() }
//! let platform: Box<dyn Platform> = match address() {
//!     Some(address) => Box::new(Bottles::docker(&address)?),
//!     None if is_cluster() => Box::new(Cluster::current(bottle::Host::current()?)),
//!     None => Box::new(Bottles::local()?),
//! };
//! let bottle = platform.launch(plan())?;
//! let tests = bottle.exec(Exec::new(["make", "test"]))?;
//! print!("{}", tests.stdout_text());
//! bottle.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The features of a single platform are in its own types: [`bottle::Bottle`] can be paused, and [`bottle_kube::KubeBottles`] writes the
//! objects to files.

mod cluster;
mod engine;
mod error;
mod platform;

pub use cluster::Cluster;
pub use error::{Failure, PlatformError};
pub use platform::{Feature, Ownership, Platform, PlatformBottle, PlatformExec, Summary, Supervision};
