//! Cancellation and streamed output of a running command.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::plain::PlainSink;
use crate::sink::OutputSink;

/// A flag that stops a running command from another thread or from a signal handler. Clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Returns a token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a token over an existing flag, such as the one that a signal handler sets.
    pub const fn over(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }

    /// Cancels everything that runs under this token.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Returns true after [`cancel`](CancelToken::cancel).
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The tokens that stop a run, and the sink of streamed output. By default nothing stops it, and output is not streamed.
#[derive(Clone, Default)]
pub struct Control {
    cancel: CancelToken,
    abort: CancelToken,
    sink: Option<Arc<dyn OutputSink>>,
}

impl Control {
    /// Returns a control whose runs this token stops.
    pub fn cancelled_by(cancel: CancelToken) -> Self {
        Self { cancel, ..Self::default() }
    }

    /// Sets the token that stops a run.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// Sets the token that stops the cleanup after a cancellation or a failure. Default: a token that is never used.
    ///
    /// Cleanup is what [`cancel`](Control::cancel) must not stop: teardown, and ending the processes that an interrupted
    /// exec left in its container. A program sets this token at the second Ctrl-C.
    #[must_use]
    pub fn with_abort(mut self, abort: CancelToken) -> Self {
        self.abort = abort;
        self
    }

    /// Sets the sink of streamed output.
    #[must_use]
    pub fn with_sink(mut self, sink: Arc<dyn OutputSink>) -> Self {
        self.sink = Some(sink);
        self
    }

    /// Returns the token that stops a run.
    pub const fn cancel(&self) -> &CancelToken {
        &self.cancel
    }

    /// Returns the token that stops the cleanup.
    pub const fn abort(&self) -> &CancelToken {
        &self.abort
    }

    /// Returns the control for the cleanup: only [`abort`](Control::abort) stops it, and output is not streamed.
    #[must_use]
    pub fn for_cleanup(&self) -> Self {
        Self { cancel: self.abort.clone(), abort: self.abort.clone(), sink: None }
    }

    /// Filters the sink's input to plain text: see [`PlainText`](crate::PlainText).
    #[must_use]
    pub fn with_plain_text(mut self) -> Self {
        self.sink = self.sink.map(|sink| Arc::new(PlainSink::new(sink)) as Arc<dyn OutputSink>);
        self
    }

    /// Returns the sink of streamed output.
    pub fn sink(&self) -> Option<&dyn OutputSink> {
        self.sink.as_deref()
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("cancel", &self.cancel)
            .field("abort", &self.abort)
            .field("sink", &self.sink.is_some())
            .finish()
    }
}
