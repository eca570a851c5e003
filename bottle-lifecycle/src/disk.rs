//! Limit on the agent's files, where the engine has none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bottle_engine::{Engine, EngineError};
use bottle_exec::{Event, Observer, chain};
use bottle_plan::{Names, Service, Slug};

use crate::background::{Background, wait};

/// Bounds of the time between two measurements.
const OFTEN: Duration = Duration::from_secs(1);
const SELDOM: Duration = Duration::from_secs(10);
/// Bytes that an agent writes in a second at most, for the time until the next measurement.
const FASTEST: u64 = 2 << 30;
/// The longest pause after a measurement that took long, which is nine times as long as it took.
const RESTED: Duration = Duration::from_secs(300);

/// Starts a thread that measures what the agent has written, and pauses the agent beyond a limit.
///
/// A measurement takes about 50 ms, and longer with very many files. They come the closer together the less is left of the
/// limit, and take at most a tenth of the time.
pub(crate) fn watch(engine: &Engine, names: &Names, limit: u64, observer: Arc<dyn Observer>) -> Background {
    let container = names.container(Service::Agent);
    let slug = names.slug().clone();
    Background::start(engine, move |engine| follow(engine, &container, &slug, limit, &*observer))
}

fn follow(engine: &Engine, container: &str, slug: &Slug, limit: u64, observer: &dyn Observer) {
    let (mut pause, mut was_broken) = (until_next(0, limit), false);
    while wait(engine, pause) {
        let began = Instant::now();
        let written = measure(engine, container, slug, limit, observer);
        if engine.control().cancel().is_cancelled() {
            return;
        }
        pause = until_next(*written.as_ref().unwrap_or(&0), limit).max((began.elapsed() * 9).min(RESTED));
        match written {
            Ok(_) => was_broken = false,
            Err(_) if std::mem::replace(&mut was_broken, true) => {}
            Err(error) => {
                let message =
                    format!("failed to measure what {container} has written, trying again: {}", chain(&error));
                observer.event(&Event::Warning { message });
            }
        }
    }
}

/// Returns the size of the agent's files, and pauses the agent if they are larger than the limit and it runs.
fn measure(
    engine: &Engine,
    container: &str,
    slug: &Slug,
    limit: u64,
    observer: &dyn Observer,
) -> Result<u64, EngineError> {
    let written = engine.written_bytes(container)?.unwrap_or_default();
    if written > limit && engine.container(container)?.is_some_and(|state| state.status == "running") {
        engine.pause(container)?;
        let (written, limit) = (mebibytes(written), mebibytes(limit));
        let state = format!(
            "was paused: its files take {written} MiB, more than the {limit} MiB of `limits.agent.disk`; take the bottle \
             down, or resume it (`Bottles::resume`, `bottles resume {slug}`) to let it go on until the next measurement"
        );
        observer.event(&Event::ServiceChanged { service: Service::Agent.to_string(), is_up: false, state });
    }
    Ok(written)
}

const fn mebibytes(bytes: u64) -> u64 {
    bytes >> 20
}

/// Returns the time in which an agent cannot write what is left of its limit, within the bounds.
fn until_next(written: u64, limit: u64) -> Duration {
    Duration::from_secs(limit.saturating_sub(written) / FASTEST).clamp(OFTEN, SELDOM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_come_closer_together_near_the_limit() {
        let seconds = |written: u64, limit: u64| until_next(written << 30, limit << 30).as_secs();
        assert_eq!(
            [seconds(0, 200), seconds(0, 20), seconds(10, 20), seconds(19, 20), seconds(30, 20)],
            [10, 10, 5, 1, 1]
        );
    }
}
