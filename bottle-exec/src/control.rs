//! What a caller holds on to while a command runs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Says from another thread, or from a signal handler, that what runs should stop. Clones share one flag.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that was not used yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A token over a flag that something else sets, such as a signal handler.
    pub const fn over(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }

    /// Asks what runs to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// One of the two streams that a command prints to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes what a command prints as it is printed. Any closure of the right shape is one.
pub trait OutputSink: Send + Sync {
    /// Takes the next bytes of a stream; they may end in the middle of a character.
    fn write(&self, stream: Stream, bytes: &[u8]);
}

impl<F: Fn(Stream, &[u8]) + Send + Sync> OutputSink for F {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        self(stream, bytes);
    }
}

/// How a run can be stopped, and where streamed output goes. The default is never stopped and streams nowhere.
#[derive(Clone, Default)]
pub struct Control {
    cancel: CancelToken,
    sink: Option<Arc<dyn OutputSink>>,
}

impl Control {
    /// A run that this token stops.
    pub const fn cancelled_by(cancel: CancelToken) -> Self {
        Self { cancel, sink: None }
    }

    /// Sets what stops it.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// Sets where streamed output goes.
    #[must_use]
    pub fn with_sink(mut self, sink: Arc<dyn OutputSink>) -> Self {
        self.sink = Some(sink);
        self
    }

    /// What stops it.
    pub const fn cancel(&self) -> &CancelToken {
        &self.cancel
    }

    /// Where streamed output goes.
    pub fn sink(&self) -> Option<&dyn OutputSink> {
        self.sink.as_deref()
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("cancel", &self.cancel).field("sink", &self.sink.is_some()).finish()
    }
}
