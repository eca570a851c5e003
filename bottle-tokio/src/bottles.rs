//! The entry point.

use bottle::{BottlePlan, LaunchError};
use bottle_exec::CancelToken;

use crate::blocking::{CancelOnDrop, blocking};
use crate::bottle::Bottle;

/// Launches bottles from a runtime. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Bottles(bottle::Bottles);

impl Bottles {
    /// Returns an entry point with the options of a blocking one. Of these, the token of
    /// [`with_cancel`](bottle::Bottles::with_cancel) is not used.
    pub const fn new(bottles: bottle::Bottles) -> Self {
        Self(bottles)
    }

    /// Launches a bottle. Dropping the future stops the launch and removes what it created.
    ///
    /// # Errors
    ///
    /// As [`bottle::Bottles::launch`].
    pub async fn launch(&self, plan: BottlePlan) -> Result<Bottle, LaunchError> {
        let cancel = CancelToken::new();
        let bottles = self.0.clone().with_cancel(cancel.clone());
        let guard = CancelOnDrop::new(cancel);
        let launched = blocking(move || bottles.launch(plan)).await;
        guard.disarm();
        launched.map(Bottle::new)
    }

    /// Runs another method of the blocking entry point, such as `|bottles| bottles.list()`. Dropping the future does not
    /// stop it.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce(&bottle::Bottles) -> T + Send + 'static) -> T {
        let bottles = self.0.clone();
        blocking(move || work(&bottles)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use bottle::plan::{HostFacts, PlanRequest, Prefix, StateRoot, UserIds};
    use bottle::{Engine, EngineChoice, Host, Manifest, Verify};
    use bottle_exec::{Backend, Command, Control, ExecError, Output, RecordingBackend};
    use tokio::runtime::Builder;

    use super::*;

    /// A rehearsal that builds no image until the launch is cancelled, if it is stuck.
    #[derive(Debug)]
    struct Build {
        inner: RecordingBackend,
        is_stuck: bool,
        has_begun: AtomicBool,
    }

    impl Backend for Build {
        fn run(&self, command: &Command, control: &Control) -> Result<Output, ExecError> {
            if !self.is_stuck || !command.to_string().contains(" build ") {
                return self.inner.run(command, control);
            }
            self.has_begun.store(true, Ordering::SeqCst);
            let until = Instant::now() + Duration::from_secs(20);
            while !control.cancel().is_cancelled() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(ExecError::Cancelled { command: command.to_string() })
        }
    }

    /// Launches on a rehearsal and returns the launched slug, or `None` if the launch is dropped once an image is built, and
    /// the journal at the end of the runtime.
    fn launch(is_stuck: bool) -> (Option<String>, String) {
        let root = tempfile::tempdir().unwrap();
        let work = root.path().join("work");
        std::fs::create_dir(&work).unwrap();
        let facts = HostFacts { home: work.clone(), cwd: work, user: UserIds { uid: 1000, gid: 1000 } };
        let manifest = "{bottles: {dev: {}}, agents: {demo: {bottle: dev, command: [sh]}}}";
        let slug = Some("demo".parse().unwrap());
        let host = Host::new(facts.clone(), []);
        let request = PlanRequest {
            agent: None,
            slug,
            prefix: Prefix::default(),
            manifest_dir: None,
            host: &facts,
            random: [0; 5],
        };
        let plan = Manifest::parse(manifest).unwrap().plan(request).unwrap();
        let backend = Arc::new(Build { inner: bottle_engine::rehearsal(), is_stuck, has_begun: AtomicBool::default() });
        let engine = Engine::detect(backend.clone(), &EngineChoice::Auto, Control::default()).unwrap();
        let state = StateRoot::at(root.path().join("state"));
        let journal = state.bottle(plan.names.slug()).dir().join("metadata.json");
        let bottles = bottle::Bottles::new(engine, host).with_state_root(state).with_verification(Verify::Off);
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let launched = runtime.block_on(async {
            let bottles = Bottles::new(bottles);
            let begun = async {
                while !backend.has_begun.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                launched = bottles.launch(plan) => {
                    let bottle = launched.unwrap();
                    assert_eq!(bottle.run(|bottle| bottle.slug().to_string()).await, "demo");
                    bottle.exec(["true"]).await.unwrap();
                    Some(bottle.handle().slug().to_string())
                }
                () = begun => None,
            }
        });
        // It waits for what runs in the background.
        drop(runtime);
        (launched, std::fs::read_to_string(journal).unwrap())
    }

    #[test]
    fn a_bottle_is_taken_down_when_it_or_its_launch_is_dropped() {
        for is_stuck in [false, true] {
            let started = Instant::now();
            let (launched, journal) = launch(is_stuck);
            assert_eq!(launched.as_deref(), if is_stuck { None } else { Some("demo") });
            assert!(journal.contains("\"closed\""), "{journal}");
            assert!(started.elapsed() < Duration::from_secs(15), "nothing was cancelled");
        }
    }
}
