//! Manifest, plan and resolved plan of a bottle. The crate also re-exports the types for names, values, state paths and
//! secrets.
//!
//! A [`Manifest`] is the file that a person writes. [`Manifest::plan`] joins it with an agent's name, a slug and facts
//! about the host, and returns a [`BottlePlan`], which can be serialized and holds no secret. [`BottlePlan::resolve`]
//! adds what only a launch knows (images, files, networks) and returns a [`ResolvedPlan`], the only type that can be
//! rendered. Nothing in this crate runs a process or reads the clock, the environment or the file system. The only
//! exception is [`Manifest::read`].
//!
//! ```
//! use bottle_plan::{HostFacts, Manifest, PlanRequest, Prefix, UserIds};
//!
//! let manifest = Manifest::parse(
//!     "
//! bottles:
//!   dev:
//!     egress: {allow: [example.com]}
//! agents:
//!   demo: {bottle: dev, command: [curl, -sS, https://example.com]}
//! ",
//! )?;
//! let host = HostFacts { home: "/home/me".into(), cwd: "/src".into(), user: UserIds { uid: 1000, gid: 1000 } };
//! let plan = manifest.plan(PlanRequest {
//!     agent: None,
//!     slug: Some("demo-1".parse()?),
//!     prefix: Prefix::default(),
//!     manifest_dir: None,
//!     host: &host,
//!     random: [0; 5],
//! })?;
//! assert_eq!(plan.names.project(), "claude-bottle-demo-1");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod manifest;
mod narrow;
pub mod plan;
mod prepare;
pub mod resolved;

pub use bottle_values::{SecretValue, Secrets, StateLayout, StateRoot, digest, name, value};
pub use manifest::{Manifest, ManifestError, ManifestMistake};
pub use name::{AgentName, BottleName, LabelKey, NameError, Names, Prefix, Service, Slug};
pub use plan::{BottlePlan, UserIds};
pub use prepare::{CLAUDE_CODE_VERSION, CODEX_VERSION, HostFacts, PIPELOCK_IMAGE, PlanError, PlanRequest};
pub use resolved::{LaunchFacts, ResolveError, ResolvedPlan};
