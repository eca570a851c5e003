//! Steps as spans of `tracing`.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use tracing::Span;
use tracing::field::Empty;

use crate::observer::{Event, Observer, Outcome};

/// An observer that shows each step as a span of `tracing`, and each note, warning and change of a service as an event.
///
/// The spans are named `bottle_step` and have the field `otel.name` with the step's name, which a layer for OpenTelemetry
/// shows. A step that failed has `otel.status_code` and `error`. Their parent is the span that is current when the observer is
/// made, because steps run on several threads, and at the same time.
///
/// ```
/// use std::sync::Arc;
/// use bottle_exec::{Observer, Spans, step};
/// let root = tracing::info_span!("launch", bottle = "demo");
/// let observer: Arc<dyn Observer> = Arc::new(root.in_scope(Spans::new));
/// step(&*observer, "build the images", || Ok::<(), std::io::Error>(()))?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Spans {
    parent: Span,
    open: Mutex<Vec<(String, Span)>>,
}

impl Spans {
    /// Returns an observer whose spans are children of the current span.
    #[expect(clippy::new_without_default, reason = "it depends on the current span")]
    pub fn new() -> Self {
        Self { parent: Span::current(), open: Mutex::default() }
    }
}

impl Observer for Spans {
    fn event(&self, event: &Event) {
        let parent = &self.parent;
        match event {
            Event::StepStarted { step } => {
                let span = tracing::info_span!(
                    parent: parent, "bottle_step", otel.name = %step, otel.status_code = Empty, error = Empty
                );
                self.open.lock().unwrap_or_else(PoisonError::into_inner).push((step.clone(), span));
            }
            Event::StepFinished { step, outcome, .. } => {
                let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(at) = open.iter().rposition(|(name, _)| name == step) else { return };
                let (_, span) = open.remove(at);
                drop(open);
                if let Outcome::Failed { error } = outcome {
                    span.record("otel.status_code", "ERROR").record("error", error);
                }
            }
            Event::Note { message } => tracing::info!(parent: parent, "{message}"),
            Event::Warning { message } => tracing::warn!(parent: parent, "{message}"),
            Event::ServiceChanged { service, is_up, state } => {
                tracing::warn!(parent: parent, %service, is_up, "{state}");
            }
            Event::Limit { limit, is_reached, used, allowed, state } => {
                tracing::warn!(parent: parent, %limit, is_reached, used, allowed, "{state}");
            }
            _ => {}
        }
    }
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spans").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Write as _};
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Metadata, Subscriber};

    use super::*;
    use crate::observer::step;

    /// Writes a line for everything that it is told.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<String>>, Arc<AtomicU64>);

    impl Lines {
        fn line(&self, text: &str, fields: impl FnOnce(&mut Fields)) {
            let mut shown = Fields(String::new());
            fields(&mut shown);
            writeln!(self.0.lock().unwrap(), "{text}{}", shown.0).unwrap();
        }
    }

    struct Fields(String);

    impl Visit for Fields {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            write!(self.0, " {field}={value:?}").unwrap();
        }
    }

    impl Subscriber for Lines {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, span: &Attributes<'_>) -> Id {
            let id = self.1.fetch_add(1, Ordering::Relaxed) + 1;
            let parent = span.parent().map_or(0, Id::into_u64);
            self.line(&format!("{id} in {parent}: {}", span.metadata().name()), |fields| span.record(fields));
            Id::from_u64(id)
        }
        fn record(&self, span: &Id, values: &Record<'_>) {
            self.line(&format!("{}:", span.into_u64()), |fields| values.record(fields));
        }
        fn event(&self, event: &tracing::Event<'_>) {
            let parent = event.parent().map_or(0, Id::into_u64);
            self.line(&format!("{} in {parent}:", event.metadata().level()), |fields| event.record(fields));
        }
        fn try_close(&self, span: Id) -> bool {
            self.line(&format!("{} is closed", span.into_u64()), |_| {});
            true
        }
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn each_step_is_a_span_below_the_one_where_the_observer_was_made() {
        let lines = Lines::default();
        tracing::subscriber::with_default(lines.clone(), || {
            let spans = Spans { parent: tracing::info_span!(parent: None, "launch"), open: Mutex::default() };
            let outer = step(&spans, "build the images", || {
                step(&spans, "pull", || Ok::<(), io::Error>(()))?;
                spans.event(&Event::Warning { message: "slow".into() });
                Err::<(), _>(io::Error::other("no space left"))
            });
            assert!(outer.is_err());
        });
        insta::assert_snapshot!(*lines.0.lock().unwrap());
    }
}
