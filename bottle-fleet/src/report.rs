//! The results of a fleet.

use std::fmt;
use std::time::Duration;

/// The end of a job.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome<R, E> {
    /// The work ran, and its bottle is gone.
    Done(R),
    /// The work ran, but something of its bottle may be left.
    NotRemoved(R, E),
    /// No bottle could be launched.
    Failed(E),
    /// The fleet was cancelled before the job's bottle ran.
    Cancelled,
}

/// The result of a job.
#[derive(Debug)]
#[non_exhaustive]
pub struct JobResult<R, E> {
    /// The end of the job.
    pub outcome: Outcome<R, E>,
    /// Number of launches that were tried, without those that found the platform full.
    pub attempts: u32,
    /// Number of launches that found the platform full.
    pub refusals: u32,
    /// Time of the launch that succeeded.
    pub launch: Option<Duration>,
    /// Time from the start of the fleet until the bottle ran.
    pub ready: Option<Duration>,
    /// Time from the start of the fleet until the bottle was gone.
    pub gone: Option<Duration>,
}

/// The results of a fleet, and its time.
#[derive(Debug)]
#[non_exhaustive]
pub struct FleetReport<R, E> {
    /// The result of each job, in the order of the jobs.
    pub jobs: Vec<JobResult<R, E>>,
    /// Time from the start to the end of the last job.
    pub took: Duration,
}

impl<R, E> FleetReport<R, E> {
    /// Returns the number of jobs whose work ran and whose bottle is gone.
    pub fn done(&self) -> usize {
        self.jobs.iter().filter(|job| matches!(job.outcome, Outcome::Done(_))).count()
    }

    /// Returns the bottles that became ready per minute, up to the last of them. 0: none did.
    pub fn per_minute(&self) -> f64 {
        let ready: Vec<Duration> = self.jobs.iter().filter_map(|job| job.ready).collect();
        let last = ready.iter().max().map_or(0.0, Duration::as_secs_f64);
        if last == 0.0 { 0.0 } else { 60.0 * f64::from(u32::try_from(ready.len()).unwrap_or(u32::MAX)) / last }
    }

    /// Returns the times of the launches that succeeded, in order.
    pub fn launches(&self) -> Vec<Duration> {
        let mut times: Vec<Duration> = self.jobs.iter().filter_map(|job| job.launch).collect();
        times.sort();
        times
    }
}

/// One line: the jobs that are done, and the throughput.
impl<R, E> fmt::Display for FleetReport<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let again: u32 = self.jobs.iter().map(|job| job.attempts.saturating_sub(1)).sum();
        let refusals: u32 = self.jobs.iter().map(|job| job.refusals).sum();
        write!(
            f,
            "{} of {} done in {:.1} s, {:.1} bottles a minute, {again} attempts again, {refusals} times full",
            self.done(),
            self.jobs.len(),
            self.took.as_secs_f64(),
            self.per_minute()
        )
    }
}
