//! The number of launches that may run at once. It follows what the platform can take.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Time between two looks at a cancellation.
const LOOK: Duration = Duration::from_millis(100);

/// The launches that may run at once: one more for each round of successes, half of them after an overload.
#[derive(Debug)]
pub(crate) struct Limit {
    most: f64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    allowed: f64,
    running: u32,
    /// Number of bottles that have ended.
    ended: u64,
}

impl Limit {
    pub(crate) fn new(most: u32) -> Self {
        let most = f64::from(most.max(1));
        Self { most, state: Mutex::new(State { allowed: most, running: 0, ended: 0 }), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `is_over` returns true for the state or `is_cancelled` returns true, at most for `limit`.
    fn wait(
        &self,
        limit: Duration,
        is_cancelled: &dyn Fn() -> bool,
        is_over: impl Fn(&State) -> bool,
    ) -> MutexGuard<'_, State> {
        let until = std::time::Instant::now() + limit;
        let mut state = self.state();
        loop {
            let rest = until.saturating_duration_since(std::time::Instant::now());
            if is_over(&state) || is_cancelled() || rest.is_zero() {
                return state;
            }
            let waited = self.changed.wait_timeout(state, rest.min(LOOK)).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
        }
    }

    /// Waits until a launch may begin, and returns the number of bottles that had ended by then. `None`: cancelled.
    pub(crate) fn begin(&self, is_cancelled: &dyn Fn() -> bool) -> Option<u64> {
        const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        let mut state = self.wait(FOREVER, is_cancelled, |state| f64::from(state.running) + 1.0 <= state.allowed);
        if is_cancelled() {
            return None;
        }
        state.running += 1;
        Some(state.ended)
    }

    /// Ends a launch and changes what is allowed.
    fn finish(&self, change: impl FnOnce(f64) -> f64) {
        let mut state = self.state();
        state.running = state.running.saturating_sub(1);
        state.allowed = change(state.allowed).clamp(1.0, self.most);
        self.changed.notify_all();
    }

    pub(crate) fn succeeded(&self) {
        self.finish(|allowed| allowed + 1.0 / allowed);
    }

    pub(crate) fn overloaded(&self) {
        self.finish(|allowed| allowed / 2.0);
    }

    /// Ends a launch that says nothing about the load.
    pub(crate) fn failed(&self) {
        self.finish(|allowed| allowed);
    }

    /// Notes that a bottle has ended, so that there may be room for another.
    pub(crate) fn ended(&self) {
        self.state().ended += 1;
        self.changed.notify_all();
    }

    /// Waits until a bottle has ended since `before`, at most for `limit`.
    pub(crate) fn await_room(&self, before: u64, limit: Duration, is_cancelled: &dyn Fn() -> bool) {
        drop(self.wait(limit, is_cancelled, |state| state.ended > before));
    }

    /// Waits for a time.
    pub(crate) fn pause(&self, time: Duration, is_cancelled: &dyn Fn() -> bool) {
        drop(self.wait(time, is_cancelled, |_| false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(limit: &Limit) -> f64 {
        limit.state().allowed
    }

    #[test]
    fn an_overload_halves_the_launches_and_successes_bring_them_back() {
        let limit = Limit::new(8);
        let never = || false;
        let launch = |end: fn(&Limit)| {
            limit.begin(&never).unwrap();
            end(&limit);
        };
        launch(Limit::overloaded);
        launch(Limit::overloaded);
        assert!((allowed(&limit) - 2.0).abs() < f64::EPSILON);
        (0..9).for_each(|_| launch(Limit::overloaded));
        assert!((allowed(&limit) - 1.0).abs() < f64::EPSILON, "one launch is always allowed");
        launch(Limit::failed);
        assert!((allowed(&limit) - 1.0).abs() < f64::EPSILON, "a mistake in a plan is no overload");
        (0..60).for_each(|_| launch(Limit::succeeded));
        assert!((allowed(&limit) - 8.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_wait_for_room_ends_with_a_bottle_or_a_cancellation() {
        let limit = Limit::new(1);
        let before = limit.begin(&|| false).unwrap();
        limit.failed();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| limit.await_room(before, Duration::from_secs(60), &|| false));
            limit.ended();
            waiting.join().unwrap();
        });
        limit.await_room(before, Duration::from_secs(60), &|| false);
        limit.await_room(before + 1, Duration::from_secs(60), &|| true);
        assert_eq!(limit.begin(&|| true), None);
    }
}
