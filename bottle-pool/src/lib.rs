//! Bottles of one plan that are launched ahead of time. [`Pool`] keeps some of them sealed and verified, without a workspace,
//! a prompt and credentials. [`Pool::take`] verifies one again, fills it in, and hands it out.
//!
//! ```no_run
//! use bottle::prelude::*;
//! use bottle_pool::{Pool, Take};
//!
//! let bottles = Bottles::local()?;
//! let plan = bottles.host().read_plan("bottle.yaml", &bottles)?;
//! let pool = Pool::start(bottles, plan, 2)?;
//! for task in ["fix the first test", "fix the second test"] {
//!     let bottle = pool.take(&Take::default().with_workspace("/src/app").with_prompt(task))?;
//!     let agent = bottle.agent().expect("the plan has a command");
//!     bottle.exec(agent)?;
//!     bottle.write_patch("work.patch".as_ref())?;
//!     bottle.close()?;
//! }
//! # Ok::<(), bottle::Error>(())
//! ```
//!
//! A bottle in the pool is one like any other: its journal names this process as its owner, so that
//! [`Bottles::recover`](bottle::Bottles::recover) removes it if the process is killed.

mod pool;
mod take;

pub use pool::Pool;
pub use take::Take;
