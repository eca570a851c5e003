//! Many bottles at once. [`Fleet`] launches a bottle for each job, runs the job's work in it, and removes it.
//!
//! ```no_run
//! use bottle::prelude::*;
//! use bottle_fleet::Fleet;
//!
//! let bottles = Bottles::local()?;
//! let mut jobs = Vec::new();
//! for number in 0..100 {
//!     let request = bottle::plan::PlanRequest::from(&bottles).with_slug(format!("job-{number}").parse()?);
//!     jobs.push(bottles.host().read_plan("bottle.yaml", request)?);
//! }
//! let fleet = Fleet::default().with_launches(4).with_alive(20);
//! let report = fleet.run(&bottles, &jobs, |_, bottle| bottle.exec(["make", "test"]));
//! println!("{} of {} done, {:.1} a minute", report.done(), jobs.len(), report.per_minute());
//! # Ok::<(), bottle::Error>(())
//! ```
//!
//! # What an error means
//!
//! A [`Launcher`] sorts each error of a launch:
//!
//! | [`Failure`] | examples | what the fleet does |
//! | --- | --- | --- |
//! | [`Overloaded`](Failure::Overloaded) | a command timed out; the engine or the API server refuses connections; a service is not healthy in time | halves the launches that may run at once, and tries again after a random delay, a bounded number of times |
//! | [`Full`](Failure::Full) | no free subnet; a quota; no node with room | keeps the job in the queue until a bottle of the fleet has ended, or a delay is over. This counts as no attempt |
//! | [`Final`](Failure::Final) | the plan names a file that does not exist; a protection is missing | gives the job up |
//!
//! Each launch that succeeds allows more launches at once again, up to [`Fleet::with_launches`].

mod fleet;
mod launcher;
mod limit;
mod report;

pub use bottle_platform::Failure;
pub use fleet::{Change, Counts, Fleet, FleetEvent};
pub use launcher::Launcher;
pub use report::{FleetReport, JobResult, Outcome};
