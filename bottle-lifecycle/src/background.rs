//! Threads that look after a bottle as long as its handle exists.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bottle_engine::Engine;
use bottle_exec::{CancelToken, Control};

/// A thread with a control of its own. When this is dropped, the thread is cancelled, with the command that it runs, and waited
/// for.
#[derive(Debug)]
pub(crate) struct Background {
    cancel: CancelToken,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts the thread. It has to return soon after the engine's control was cancelled.
    pub(crate) fn start(engine: &Engine, work: impl FnOnce(&Engine) + Send + 'static) -> Self {
        let cancel = CancelToken::new();
        let engine = engine.clone().with_control(Control::cancelled_by(cancel.clone()));
        let thread = thread::spawn(move || work(&engine));
        Self { cancel, thread: Some(thread) }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.cancel.cancel();
        // An observer that closes the bottle does so in the thread itself.
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id()) {
            _ = thread.join();
        }
    }
}

/// Waits, and returns true. Returns false at once when the engine's control is cancelled.
pub(crate) fn wait(engine: &Engine, time: Duration) -> bool {
    let until = Instant::now() + time;
    while Instant::now() < until {
        if engine.control().cancel().is_cancelled() {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}
