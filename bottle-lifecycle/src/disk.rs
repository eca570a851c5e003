//! Limit on the agent's files, where the engine has none.

use std::path::{Path, PathBuf};
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
/// Part of the engine's disk that is kept free, in percent.
const KEPT_FREE: u64 = 5;

/// Starts a thread that measures what the agent has written, and pauses the agent beyond a limit.
///
/// A measurement takes about 50 ms, and longer with very many files. They come the closer together the less is left of the
/// limit, and take at most a tenth of the time. The engine counts neither directories nor files that were deleted while a
/// process has them open. So the agent is also paused when the engine's disk is nearly full, which costs one system call a second.
pub(crate) fn watch(engine: &Engine, names: &Names, limit: u64, observer: Arc<dyn Observer>) -> Background {
    let container = names.container(Service::Agent);
    let slug = names.slug().clone();
    Background::start(engine, move |engine| follow(engine, &container, &slug, limit, &*observer))
}

fn follow(engine: &Engine, container: &str, slug: &Slug, limit: u64, observer: &dyn Observer) {
    let (mut next, mut was_broken) = (Instant::now() + until_next(0, limit), false);
    let disk = engine.info().data_root.as_deref().filter(|_| engine.info().endpoint.is_local).and_then(Disk::of);
    while wait(engine, OFTEN) {
        let began = Instant::now();
        let paused = disk.as_ref().map_or(Ok(()), |disk| keep_free(engine, container, slug, disk, observer));
        let paused = paused.and_then(|()| {
            if began < next {
                return Ok(());
            }
            let written = measure(engine, container, slug, limit, observer);
            next = Instant::now()
                + until_next(*written.as_ref().unwrap_or(&0), limit).max((began.elapsed() * 9).min(RESTED));
            written.map(drop)
        });
        if engine.control().cancel().is_cancelled() {
            return;
        }
        match paused {
            Ok(()) => was_broken = false,
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
    if written > limit {
        let (written, limit) = (mebibytes(written), mebibytes(limit));
        let reason = format!("its files take {written} MiB, more than the {limit} MiB of `limits.agent.disk`");
        pause(engine, container, slug, &reason, observer)?;
    }
    Ok(written)
}

/// Pauses the agent if the engine's disk is nearly full.
fn keep_free(
    engine: &Engine,
    container: &str,
    slug: &Slug,
    disk: &Disk,
    observer: &dyn Observer,
) -> Result<(), EngineError> {
    disk.shortage().map_or(Ok(()), |shortage| pause(engine, container, slug, &shortage, observer))
}

/// Pauses the agent if it runs.
fn pause(
    engine: &Engine,
    container: &str,
    slug: &Slug,
    reason: &str,
    observer: &dyn Observer,
) -> Result<(), EngineError> {
    if engine.container(container)?.is_some_and(|state| state.status == "running") {
        engine.pause(container)?;
        let state = format!(
            "was paused: {reason}; take the bottle down, or resume it (`Bottles::resume`, `bottles resume {slug}`) to let it \
             go on until the next measurement"
        );
        observer.event(&Event::ServiceChanged { service: Service::Agent.to_string(), is_up: false, state });
    }
    Ok(())
}

/// The file system with the engine's data, which was not nearly full when the bottle was launched.
#[derive(Debug)]
struct Disk {
    path: PathBuf,
    /// Free bytes, and free inodes, below which it is nearly full.
    bytes: u64,
    inodes: u64,
}

impl Disk {
    /// Returns the file system of a path. `None` if it is not on this host, or nearly full already.
    fn of(path: &Path) -> Option<Self> {
        let space = rustix::fs::statvfs(path).ok()?;
        let bytes = (space.f_blocks.saturating_mul(space.f_frsize) / 100 * KEPT_FREE).min(FASTEST);
        let disk = Self { path: path.to_owned(), bytes, inodes: space.f_files / 100 * KEPT_FREE };
        disk.shortage().is_none().then_some(disk)
    }

    /// Returns in words what there is too little of.
    fn shortage(&self) -> Option<String> {
        let space = rustix::fs::statvfs(&self.path).ok()?;
        let (bytes, path) = (space.f_bavail.saturating_mul(space.f_frsize), self.path.display());
        if bytes < self.bytes {
            return Some(format!("only {} MiB are free in `{path}`", mebibytes(bytes)));
        }
        (space.f_ffree < self.inodes).then(|| format!("only {} more files fit into `{path}`", space.f_ffree))
    }
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
    use std::sync::Mutex;

    use bottle_engine::{EngineChoice, rehearsal};
    use bottle_exec::Control;

    use super::*;

    #[test]
    fn measurements_come_closer_together_near_the_limit() {
        let seconds = |written: u64, limit: u64| until_next(written << 30, limit << 30).as_secs();
        assert_eq!(
            [seconds(0, 200), seconds(0, 20), seconds(10, 20), seconds(19, 20), seconds(30, 20)],
            [10, 10, 5, 1, 1]
        );
    }

    #[test]
    fn a_disk_that_is_nearly_full_is_found() {
        let Some(disk) = Disk::of(Path::new("/proc/self")) else { panic!("it has no blocks, and no inodes") };
        assert_eq!((disk.bytes, disk.inodes, disk.shortage()), (0, 0, None));
        let here = tempfile::tempdir().unwrap();
        let space = rustix::fs::statvfs(here.path()).unwrap();
        let disk = |bytes, inodes| Disk { path: here.path().to_owned(), bytes, inodes };
        let found = disk(space.f_blocks * space.f_frsize + 1, 0).shortage();
        assert!(found.is_some_and(|found| found.contains("MiB are free in")));
        let found = disk(0, space.f_files + 1).shortage();
        assert!(found.is_some_and(|found| found.contains("more files fit into")));
        assert!(Disk::of(Path::new("/nowhere")).is_none(), "the engine is elsewhere");
    }

    #[test]
    fn an_agent_is_paused_while_the_disk_is_nearly_full() {
        let backend = Arc::new(rehearsal());
        let engine = Engine::detect(backend.clone(), &EngineChoice::Auto, Control::default()).unwrap();
        let here = tempfile::tempdir().unwrap();
        let events = Mutex::new(Vec::new());
        let observer = |event: &Event| events.lock().unwrap().push(format!("{event:?}"));
        let paused = |bytes| {
            backend.clear();
            let disk = Disk { path: here.path().to_owned(), bytes, inodes: 0 };
            keep_free(&engine, "bottle-x", &"x".parse().unwrap(), &disk, &observer).unwrap();
            backend.commands().iter().any(|command| command.to_string().contains("pause bottle-x"))
        };
        assert_eq!([paused(0), paused(u64::MAX)], [false, true]);
        let told = events.into_inner().unwrap().join("\n");
        assert!(told.contains("was paused: only") && told.contains("`bottles resume x`"), "{told}");
    }
}
