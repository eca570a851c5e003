//! The fleet: a bottle for each job.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use bottle::exec::CancelToken;
use bottle_platform::Failure;

use crate::launcher::Launcher;
use crate::limit::Limit;
use crate::report::{FleetReport, JobResult, Outcome};

/// Settings of a fleet.
#[derive(Clone)]
pub struct Fleet {
    launches: u32,
    alive: usize,
    attempts: u32,
    delays: (Duration, Duration),
    patience: Duration,
    cancel: CancelToken,
    observer: Arc<dyn Fn(&FleetEvent<'_>) + Send + Sync>,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet")
            .field("launches", &self.launches)
            .field("alive", &self.alive)
            .field("attempts", &self.attempts)
            .field("delays", &self.delays)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            launches: 4,
            alive: 100,
            attempts: 5,
            delays: (Duration::from_millis(500), Duration::from_secs(30)),
            patience: Duration::from_secs(600),
            cancel: CancelToken::new(),
            observer: Arc::new(|_| ()),
        }
    }
}

/// A change of a job.
#[derive(Debug)]
pub struct FleetEvent<'a> {
    /// The job, by its place in the list.
    pub job: usize,
    /// The change itself.
    pub change: Change<'a>,
    /// The jobs of the fleet after the change.
    pub counts: Counts,
}

/// Change of a job.
#[derive(Debug)]
#[non_exhaustive]
pub enum Change<'a> {
    /// A launch begins. The first attempt is 1.
    Launching {
        /// The attempt.
        attempt: u32,
    },
    /// The platform is overloaded, and the next attempt begins after the delay.
    Overloaded {
        /// Error of the attempt.
        error: &'a dyn Error,
        /// The delay.
        delay: Duration,
    },
    /// The platform is full, and the job waits for room.
    Queued {
        /// Error of the launch.
        error: &'a dyn Error,
    },
    /// The bottle runs.
    Running {
        /// Time of the launch.
        launch: Duration,
    },
    /// The work has ended, and the bottle is gone.
    Done,
    /// The job has failed. Its bottle was not launched, or not removed completely.
    Failed {
        /// Error of the launch or the removal.
        error: &'a dyn Error,
    },
}

/// The numbers of jobs in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Jobs whose launch has not begun, or begins again later.
    pub waiting: usize,
    /// Jobs whose bottle is launched.
    pub launching: usize,
    /// Jobs whose bottle runs.
    pub running: usize,
    /// Jobs that are done.
    pub done: usize,
    /// Jobs that have failed.
    pub failed: usize,
}

impl Fleet {
    /// Sets the number of launches that run at the same time, at most. Default: 4.
    #[must_use]
    pub const fn with_launches(mut self, launches: u32) -> Self {
        self.launches = launches;
        self
    }

    /// Sets the number of bottles that exist at the same time, at most. Each has a thread. Default: 100.
    #[must_use]
    pub const fn with_alive(mut self, alive: usize) -> Self {
        self.alive = alive;
        self
    }

    /// Sets the number of launches of a job that find the platform overloaded, after which the job has failed. Default: 5.
    #[must_use]
    pub const fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sets the delays before a further launch: the first, and the longest. Each is about twice as long as the one before,
    /// with a random part. Default: 0.5 s and 30 s.
    #[must_use]
    pub const fn with_delays(mut self, first: Duration, longest: Duration) -> Self {
        self.delays = (first, longest);
        self
    }

    /// Sets the time for which a job waits for room on a full platform. Default: 10 minutes.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets the token that stops the fleet: no further bottle is launched, and bottles that run keep running. Give the same
    /// token to the launcher and the work to stop these as well.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// Sets the observer of all changes. It is called from the fleet's threads. Default: none.
    #[must_use]
    pub fn with_observer(mut self, observer: impl Fn(&FleetEvent<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// Launches a bottle for each job, runs `work` in it, and removes it. Returns when all jobs have ended. The jobs begin in
    /// their order.
    ///
    /// # Panics
    ///
    /// Panics if `work` does, after the other jobs have ended. The job's bottle is removed.
    pub fn run<J: Sync, L: Launcher<J> + ?Sized, R: Send>(
        &self,
        launcher: &L,
        jobs: &[J],
        work: impl Fn(&J, &L::Bottle) -> R + Sync,
    ) -> FleetReport<R, L::Error> {
        let counts = Counts { waiting: jobs.len(), ..Counts::default() };
        let limit = Limit::new(self.launches);
        let run = Run { fleet: self, launcher, limit, started: Instant::now(), counts: Mutex::new(counts) };
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::with_capacity(jobs.len()));
        thread::scope(|scope| {
            for _ in 0..self.alive.clamp(1, jobs.len().max(1)) {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(job) = jobs.get(number) else { return };
                        let result = run.job(number, job, &work);
                        results.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
                    }
                });
            }
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_by_key(|(number, _)| *number);
        FleetReport { jobs: results.into_iter().map(|(_, result)| result).collect(), took: run.started.elapsed() }
    }
}

/// A fleet while it runs.
struct Run<'a, L: ?Sized> {
    fleet: &'a Fleet,
    launcher: &'a L,
    limit: Limit,
    started: Instant,
    counts: Mutex<Counts>,
}

/// A launch that failed for good.
enum GivenUp<E> {
    Failed(E),
    Cancelled,
}

impl<L: ?Sized> Run<'_, L> {
    /// Changes the counts and tells the observer, in the order of the changes.
    fn tell(&self, job: usize, change: Change<'_>, update: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        update(&mut counts);
        (self.fleet.observer)(&FleetEvent { job, change, counts: *counts });
    }

    fn job<J, R>(&self, number: usize, job: &J, work: impl Fn(&J, &L::Bottle) -> R) -> JobResult<R, L::Error>
    where
        L: Launcher<J>,
    {
        let mut result =
            JobResult { outcome: Outcome::Cancelled, attempts: 0, refusals: 0, launch: None, ready: None, gone: None };
        let bottle = match self.launch(number, job, &mut result) {
            Ok(bottle) => bottle,
            Err(GivenUp::Cancelled) => return result,
            Err(GivenUp::Failed(error)) => {
                self.tell(number, Change::Failed { error: &error }, |counts| {
                    counts.waiting -= 1;
                    counts.failed += 1;
                });
                result.outcome = Outcome::Failed(error);
                return result;
            }
        };
        result.ready = Some(self.started.elapsed());
        let done = work(job, &bottle);
        let closed = self.launcher.close(bottle);
        self.limit.ended();
        result.gone = closed.is_ok().then(|| self.started.elapsed());
        result.outcome = match closed {
            Ok(()) => {
                self.tell(number, Change::Done, |counts| {
                    counts.running -= 1;
                    counts.done += 1;
                });
                Outcome::Done(done)
            }
            Err(error) => {
                self.tell(number, Change::Failed { error: &error }, |counts| {
                    counts.running -= 1;
                    counts.failed += 1;
                });
                Outcome::NotRemoved(done, error)
            }
        };
        result
    }

    /// Launches a job's bottle, again and again if the platform may be able to later. A failed job counts as waiting.
    fn launch<J, R>(
        &self,
        number: usize,
        job: &J,
        result: &mut JobResult<R, L::Error>,
    ) -> Result<L::Bottle, GivenUp<L::Error>>
    where
        L: Launcher<J>,
    {
        let fleet = self.fleet;
        let is_cancelled = || fleet.cancel.is_cancelled();
        let delays = || {
            let (first, longest) = fleet.delays;
            let delays = ExponentialBuilder::default().with_min_delay(first).with_max_delay(longest);
            delays.with_jitter().without_max_times().build()
        };
        let (mut overloaded, mut full) = (delays(), delays());
        let mut queued: Option<Instant> = None;
        loop {
            let before = self.limit.begin(&is_cancelled).ok_or(GivenUp::Cancelled)?;
            let attempt = result.attempts + 1;
            self.tell(number, Change::Launching { attempt }, |counts| {
                counts.waiting -= 1;
                counts.launching += 1;
            });
            let started = Instant::now();
            let error = match self.launcher.launch(job) {
                Ok(bottle) => {
                    self.limit.succeeded();
                    let launch = started.elapsed();
                    (result.attempts, result.launch) = (attempt, Some(launch));
                    self.tell(number, Change::Running { launch }, |counts| {
                        counts.launching -= 1;
                        counts.running += 1;
                    });
                    return Ok(bottle);
                }
                Err(error) => error,
            };
            let back = |counts: &mut Counts| {
                counts.launching -= 1;
                counts.waiting += 1;
            };
            let give_up = |error| {
                back(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
                Err(GivenUp::Failed(error))
            };
            match self.launcher.failure(&error) {
                Failure::Final => {
                    self.limit.failed();
                    result.attempts = attempt;
                    return give_up(error);
                }
                Failure::Overloaded => {
                    self.limit.overloaded();
                    result.attempts = attempt;
                    if attempt >= fleet.attempts {
                        return give_up(error);
                    }
                    let delay = overloaded.next().unwrap_or(fleet.delays.1);
                    self.tell(number, Change::Overloaded { error: &error, delay }, back);
                    self.limit.pause(delay, &is_cancelled);
                }
                Failure::Full => {
                    self.limit.failed();
                    result.refusals += 1;
                    if queued.get_or_insert(started).elapsed() >= fleet.patience {
                        return give_up(error);
                    }
                    self.tell(number, Change::Queued { error: &error }, back);
                    self.limit.await_room(before, full.next().unwrap_or(fleet.delays.1), &is_cancelled);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A platform with room for some bottles, that can take some launches at once.
    #[derive(Debug, Default)]
    struct Simulated {
        room: usize,
        most_launches: usize,
        fails: BTreeMap<u32, Simulation>,
        state: Mutex<Load>,
    }

    #[derive(Debug, Default)]
    struct Load {
        alive: usize,
        launching: usize,
        most_launching: usize,
        most_alive: usize,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Simulation {
        Busy,
        NoRoom,
        Wrong,
        Stuck,
    }

    impl fmt::Display for Simulation {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{self:?}")
        }
    }

    impl Error for Simulation {}

    impl Launcher<u32> for Simulated {
        type Bottle = u32;
        type Error = Simulation;

        fn launch(&self, job: &u32) -> Result<u32, Simulation> {
            let is_busy = {
                let mut state = self.state.lock().unwrap();
                state.launching += 1;
                state.most_launching = state.most_launching.max(state.launching);
                state.launching > self.most_launches
            };
            thread::sleep(Duration::from_millis(2));
            let mut state = self.state.lock().unwrap();
            state.launching -= 1;
            match self.fails.get(job) {
                Some(error) if *error != Simulation::Stuck => Err(*error),
                _ if is_busy => Err(Simulation::Busy),
                _ if state.alive == self.room => Err(Simulation::NoRoom),
                _ => {
                    state.alive += 1;
                    state.most_alive = state.most_alive.max(state.alive);
                    Ok(*job)
                }
            }
        }

        fn failure(&self, error: &Simulation) -> Failure {
            match error {
                Simulation::Busy => Failure::Overloaded,
                Simulation::NoRoom => Failure::Full,
                Simulation::Wrong | Simulation::Stuck => Failure::Final,
            }
        }

        fn close(&self, bottle: u32) -> Result<(), Simulation> {
            self.state.lock().unwrap().alive -= 1;
            if self.fails.get(&bottle) == Some(&Simulation::Stuck) { Err(Simulation::Stuck) } else { Ok(()) }
        }
    }

    fn fleet() -> Fleet {
        Fleet::default().with_delays(Duration::from_millis(1), Duration::from_millis(20)).with_attempts(100)
    }

    fn short() {
        thread::sleep(Duration::from_millis(5));
    }

    #[test]
    fn every_job_runs_once_on_a_platform_that_is_small_and_slow() {
        let platform = Simulated { room: 5, most_launches: 3, ..Simulated::default() };
        let jobs: Vec<u32> = (0..60).collect();
        let report = fleet().with_launches(8).with_alive(20).run(&platform, &jobs, |job, bottle| {
            short();
            assert_eq!(job, bottle);
            *job
        });
        let done: Vec<u32> = report
            .jobs
            .iter()
            .map(|job| match job.outcome {
                Outcome::Done(number) => number,
                ref other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(done, jobs, "the results have the order of the jobs");
        let state = platform.state.into_inner().unwrap();
        assert_eq!(state.alive, 0);
        assert!((2..=5).contains(&state.most_alive), "{state:?}");
        assert!(state.most_launching <= 8, "{state:?}");
        assert!(report.jobs.iter().any(|job| job.attempts > 1), "8 launches at once are more than it can take");
        assert!(report.jobs.iter().any(|job| job.refusals > 0), "20 bottles are more than it has room for");
        assert!(report.to_string().starts_with("60 of 60 done in "), "{report}");
        assert!(report.launches().len() == 60 && report.per_minute() > 0.0);
    }

    #[test]
    fn a_job_that_fails_does_not_stop_the_others() {
        let fails = BTreeMap::from([(1, Simulation::Wrong), (2, Simulation::Busy), (3, Simulation::Stuck)]);
        let platform = Simulated { room: 9, most_launches: 9, fails, ..Simulated::default() };
        let report = fleet().with_attempts(3).run(&platform, &[0, 1, 2, 3, 4], |_, _| ());
        let shown: Vec<_> = report
            .jobs
            .iter()
            .map(|job| {
                let outcome = match &job.outcome {
                    Outcome::Done(()) => "done".to_owned(),
                    Outcome::NotRemoved((), error) => format!("not removed: {error}"),
                    Outcome::Failed(error) => format!("failed: {error}"),
                    Outcome::Cancelled => "cancelled".to_owned(),
                };
                (outcome, job.attempts, job.gone.is_some())
            })
            .collect();
        let expected = [
            ("done", 1, true),
            ("failed: Wrong", 1, false),
            ("failed: Busy", 3, false),
            ("not removed: Stuck", 1, false),
            ("done", 1, true),
        ];
        assert_eq!(shown, expected.map(|(outcome, attempts, gone)| (outcome.to_owned(), attempts, gone)));
    }

    #[test]
    fn a_full_platform_is_waited_for_only_so_long() {
        let platform = Simulated { room: 0, most_launches: 9, ..Simulated::default() };
        let report = fleet().with_patience(Duration::from_millis(50)).run(&platform, &[0], |_, _| ());
        let job = &report.jobs[0];
        assert!(matches!(job.outcome, Outcome::Failed(Simulation::NoRoom)), "{job:?}");
        assert!(job.refusals > 1 && job.attempts == 0, "{job:?}");
    }

    #[test]
    fn a_cancelled_fleet_launches_no_more() {
        let platform = Simulated { room: 9, most_launches: 9, ..Simulated::default() };
        let cancel = CancelToken::new();
        let jobs: Vec<u32> = (0..20).collect();
        let report = fleet().with_alive(1).with_cancel(cancel.clone()).run(&platform, &jobs, |job, _| {
            if *job == 2 {
                cancel.cancel();
            }
        });
        assert_eq!(report.done(), 3);
        assert_eq!(report.jobs.len(), 20);
        assert!(report.jobs[3..].iter().all(|job| matches!(job.outcome, Outcome::Cancelled)));
    }

    #[test]
    fn the_observer_sees_each_change_with_counts_that_add_up() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let fails = BTreeMap::from([(1, Simulation::Wrong)]);
        let platform = Simulated { room: 2, most_launches: 9, fails, ..Simulated::default() };
        let told = Arc::clone(&seen);
        let fleet = fleet().with_observer(move |event| {
            let counts = event.counts;
            let all = counts.waiting + counts.launching + counts.running + counts.done + counts.failed;
            let change = format!("{:?}", event.change);
            told.lock().unwrap().push((
                event.job,
                change.split([' ', '(']).next().unwrap_or_default().to_owned(),
                all,
                counts,
            ));
        });
        fleet.run(&platform, &[0, 1, 2, 3], |_, _| short());
        let seen = seen.lock().unwrap();
        assert!(seen.iter().all(|(_, _, all, _)| *all == 4), "{seen:?}");
        let last = seen.last().unwrap().3;
        assert_eq!(last, Counts { done: 3, failed: 1, ..Counts::default() });
        let of =
            |job| seen.iter().filter(|(of, ..)| *of == job).map(|(_, change, ..)| change.as_str()).collect::<Vec<_>>();
        assert_eq!(of(1), ["Launching", "Failed"]);
        assert_eq!(of(0).first(), Some(&"Launching"));
        assert_eq!(of(0).last(), Some(&"Done"));
    }
}
