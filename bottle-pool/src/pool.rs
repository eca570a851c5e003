//! The pool: threads that launch bottles, and those that are ready.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bottle::launch::LaunchError;
use bottle::lifecycle::BottleError;
use bottle::plan::manifest::{SecretsMode, WorkspaceMode};
use bottle::plan::plan::{GitAuth, PromptSource};
use bottle::plan::{Names, Slug};
use bottle::{Bottle, BottlePlan, Bottles, ServiceHealth};
use tempfile::TempDir;

use crate::take::{Filled, Take, fill};

/// Most launches at the same time.
const AT_ONCE: usize = 2;

/// Shortest and longest pause after a launch that failed.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Time between two looks at the services of the bottles that wait.
const LOOK: Duration = Duration::from_secs(10);

/// Bottles of one plan that are up, sealed and verified, and wait for workspace, prompt and credentials.
///
/// A bottle that was taken belongs to the caller and never comes back. The pool launches another one in the background, at
/// most two at the same time. If a container of a bottle that waits ends or is paused, the pool replaces the bottle within some
/// ten seconds. The time of a bottle (`limits.time` and `idle`) begins when it is taken. Dropping the pool removes what it holds,
/// after the launches that are under way.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("agent", &self.shared.plan.agent_name)
            .field("size", &self.shared.size)
            .field("ready", &self.ready())
            .finish_non_exhaustive()
    }
}

struct Shared {
    bottles: Bottles,
    plan: BottlePlan,
    size: usize,
    /// Workspace of a bottle that was not taken yet.
    empty: TempDir,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Bottle>,
    /// Number of launches that are under way.
    launching: usize,
    /// Time of the next look at the bottles that wait. `None` before the first launch.
    next_look: Option<Instant>,
    /// Error or panic of the last launch, until somebody is told.
    failure: Option<Failure>,
    /// Number of launches in a row that failed.
    failures: u32,
    is_closed: bool,
}

enum Failure {
    Error(LaunchError),
    /// A fault of the program, such as one in a caller's provisioner. It continues in the thread that waits for the bottle.
    Panic(Box<dyn Any + Send>),
}

impl Pool {
    /// Starts to launch `size` bottles of the plan in the background, at least one. The plan's slug is not used: each bottle gets
    /// one of its own.
    ///
    /// Everything but workspace, prompt and credentials is as the plan says from the launch on, also variables that are
    /// forwarded to the agent and key files of git upstreams.
    ///
    /// # Errors
    ///
    /// [`bottle::Error::Manifest`] when this host lacks something that the plan names, or the plan cannot be filled in later:
    /// its workspace is mounted, its credentials are in the environment of the sidecars, or an upstream has a deploy key.
    pub fn start(bottles: Bottles, plan: BottlePlan, size: usize) -> Result<Self, bottle::Error> {
        bottles.host().check(&plan)?;
        check(&plan)?;
        let empty = tempfile::tempdir().map_err(bottle::Error::Host)?;
        let (size, state) = (size.max(1), Mutex::default());
        let shared = Arc::new(Shared { bottles, plan, size, empty, state, changed: Condvar::new() });
        let start = |_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.refill())
        };
        let threads = (0..size.min(AT_ONCE)).map(start).collect();
        Ok(Self { shared, threads })
    }

    /// Returns the number of bottles that can be taken at once. Their containers are looked at every ten seconds.
    pub fn ready(&self) -> usize {
        self.shared.lock().ready.len()
    }

    /// Verifies a bottle again, at the level of the launch, fills it in, and hands it out. It waits if none is ready, until one
    /// was launched. A bottle of which a service is down is removed, and the next one taken.
    ///
    /// # Errors
    ///
    /// [`bottle::Error::Launch`] when none is ready and the last launch failed. [`BottleError::Verify`] when the bottle was
    /// changed while it waited, so that a protection is missing. Other errors when it cannot be filled in. It is then removed.
    pub fn take(&self, take: &Take) -> Result<Bottle, bottle::Error> {
        let mut attempts = 0;
        loop {
            let bottle = self.shared.next()?;
            let (slug, plan) = (bottle.slug().clone(), take.plan(&self.shared.plan, &bottle));
            match fill(&self.shared.bottles, bottle, &plan)? {
                Filled::Done(bottle) => return Ok(*bottle),
                Filled::Down if attempts > self.shared.size => {
                    let problem = "one of its services was down, as in each bottle of the pool".to_owned();
                    return Err(BottleError::Unsealed { slug, problem }.into());
                }
                Filled::Down => attempts += 1,
            }
        }
    }

    /// Removes the bottles of the pool, after the launches that are under way. Those that were taken stay.
    ///
    /// # Errors
    ///
    /// The first [`bottle::Error::Teardown`] of a bottle that could not be removed completely.
    pub fn close(mut self) -> Result<(), bottle::Error> {
        self.end()
    }

    fn end(&mut self) -> Result<(), bottle::Error> {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            _ = thread.join();
        }
        let left = std::mem::take(&mut self.shared.lock().ready);
        thread::scope(|scope| {
            let closing: Vec<_> = left.iter().map(|bottle| scope.spawn(|| bottle.close())).collect();
            let closed = closing.into_iter().map(|one| one.join().unwrap_or_else(|panic| panic::resume_unwind(panic)));
            closed.collect::<Vec<_>>().into_iter().try_for_each(|closed| Ok(closed.map(drop)?))
        })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // A bottle that could not be removed is still in its journal, for the next recovery.
        drop(self.end());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a bottle.
    fn next(&self) -> Result<Bottle, bottle::Error> {
        let mut state = self.lock();
        loop {
            if let Some(bottle) = state.ready.pop_front() {
                self.changed.notify_all();
                return Ok(bottle);
            }
            match state.failure.take() {
                Some(Failure::Error(error)) => return Err(error.into()),
                Some(Failure::Panic(panic)) => {
                    drop(state);
                    panic::resume_unwind(panic);
                }
                None => {}
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Launches bottles until the pool is closed.
    fn refill(&self) {
        let mut state = self.lock();
        while !state.is_closed {
            if state.ready.len() + state.launching >= self.size {
                let next = *state.next_look.get_or_insert_with(|| Instant::now() + LOOK);
                let left = next.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    state.next_look = Some(Instant::now() + LOOK);
                    drop(state);
                    self.remove_those_down();
                    state = self.lock();
                } else {
                    state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                continue;
            }
            state.launching += 1;
            drop(state);
            let launched = match panic::catch_unwind(AssertUnwindSafe(|| self.launch())) {
                Ok(launched) => launched.map_err(Failure::Error),
                Err(panic) => Err(Failure::Panic(panic)),
            };
            state = self.lock();
            state.launching -= 1;
            match launched {
                Ok(bottle) => {
                    state.ready.push_back(bottle);
                    (state.failure, state.failures) = (None, 0);
                    self.changed.notify_all();
                }
                Err(error) => {
                    let pause = (PAUSE.0 * 2_u32.saturating_pow(state.failures)).min(PAUSE.1);
                    (state.failure, state.failures) = (Some(error), state.failures.saturating_add(1).min(6));
                    self.changed.notify_all();
                    let until = Instant::now() + pause;
                    while !state.is_closed && Instant::now() < until {
                        let left = until.saturating_duration_since(Instant::now());
                        state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                    }
                }
            }
        }
    }

    /// Removes the bottles that wait and of which a container does not run. One that is unhealthy may only be slow.
    fn remove_those_down(&self) {
        let waiting: Vec<Slug> = self.lock().ready.iter().map(|bottle| bottle.slug().clone()).collect();
        // An engine that does not answer says nothing about a bottle.
        let Ok(listed) = self.bottles.list() else { return };
        let runs = |service: &ServiceHealth| service.status == "running" && !service.lost_network;
        let is_down = |slug: &Slug| {
            let services = listed.get(slug).map(|bottle| &bottle.services);
            waiting.contains(slug) && services.is_none_or(|services| services.is_empty() || !services.iter().all(runs))
        };
        let mut state = self.lock();
        let (down, up): (Vec<Bottle>, Vec<Bottle>) = state.ready.drain(..).partition(|bottle| is_down(bottle.slug()));
        state.ready = up.into();
        drop(state);
        self.changed.notify_all();
        // It is removed as it is dropped.
        drop(down);
    }

    /// Launches a bottle without workspace, prompt and credentials.
    fn launch(&self) -> Result<Bottle, LaunchError> {
        let slug = Slug::generate(&self.plan.agent_name, self.bottles.host().plan_request().random);
        let mut plan = self.plan.clone();
        plan.names = Names::new(plan.names.prefix().clone(), slug);
        self.empty.path().clone_into(&mut plan.workspace.source);
        // The variable with the prompt's path is set, and its file is there.
        plan.agent.prompt = Some(PromptSource::Text(String::new()));
        self.bottles.clone().without_credentials().launch(plan)
    }
}

/// Refuses a plan whose bottles cannot be filled in after their launch.
fn check(plan: &BottlePlan) -> Result<(), bottle::Error> {
    let mut mistakes = Vec::new();
    if matches!(plan.workspace.mode, WorkspaceMode::Bind | WorkspaceMode::BindRw) {
        let problem = "a pool cannot mount a workspace into a bottle that runs; accepted: `copy`, `none`";
        mistakes.push((plan.bottle_key("workspace.mode"), problem.to_owned()));
    }
    if plan.secrets == SecretsMode::Environment {
        let problem = "the sidecars of a pool get their credentials after their start; accepted: `memory`";
        mistakes.push((plan.bottle_key("secrets"), problem.to_owned()));
    }
    for upstream in plan.git_gate.iter().flat_map(|gate| &gate.upstreams) {
        if matches!(upstream.auth, GitAuth::DeployKey(_)) {
            let problem = "a pool registers no deploy keys ahead of time; accepted: `token`, `identity_file`";
            mistakes.push((format!("{}.deploy_key", upstream.key), problem.to_owned()));
        }
    }
    if mistakes.is_empty() { Ok(()) } else { Err(plan.error_at(mistakes).into()) }
}

#[cfg(test)]
mod tests {
    use bottle::exec::{Control, RecordingBackend, Stdin, rehearsal};
    use bottle::plan::{HostFacts, StateRoot, UserIds};
    use bottle::{Engine, EngineChoice, Host, Manifest, Verify};

    use super::*;

    const TOKEN: &str = "pool-token-value";

    /// Returns an entry point with an engine that runs nothing.
    fn bottles(dir: &std::path::Path) -> (Arc<RecordingBackend>, Bottles) {
        let user = UserIds { uid: 1000, gid: 1000 };
        let facts = HostFacts { home: "/home/me".into(), cwd: dir.to_owned(), user };
        let backend = Arc::new(rehearsal());
        let engine = Engine::detect(backend.clone(), &EngineChoice::Auto, Control::default()).unwrap();
        let bottles = Bottles::new(engine, Host::new(facts, [("TOKEN".into(), TOKEN.into())]))
            .with_state_root(StateRoot::at(dir.join("state")))
            .with_verification(Verify::Off);
        (backend, bottles)
    }

    fn plan(bottles: &Bottles, bottle: &str) -> BottlePlan {
        let text = format!("bottles: {{dev: {{{bottle}}}}}\nagents: {{demo: {{bottle: dev, command: [run]}}}}");
        Manifest::parse(&text).unwrap().plan(bottles).unwrap()
    }

    #[test]
    fn a_taken_bottle_gets_workspace_prompt_and_credentials_and_the_pool_refills() {
        let dir = tempfile::tempdir().unwrap();
        let (backend, bottles) = bottles(dir.path());
        let work = dir.path().join("work");
        std::fs::create_dir(&work).unwrap();
        std::fs::write(work.join("file"), "content").unwrap();
        let plan = plan(&bottles, "egress: {routes: [{host: api.example.com, inject: {token: TOKEN}}]}");
        let pool = Pool::start(bottles.clone(), plan, 1).unwrap();
        let given = |backend: &RecordingBackend| {
            let holds = |bytes: &[u8]| bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
            let commands = backend.commands();
            commands.iter().filter(|it| matches!(it.stdin(), Stdin::Bytes(bytes) if holds(bytes))).count()
        };
        let until = Instant::now() + Duration::from_secs(30);
        while pool.ready() == 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(given(&backend), 0, "the pool gives nobody a credential");
        let first = pool.take(&Take::default().with_workspace(&work).with_prompt("Be brief.")).unwrap();
        let lines = backend.lines();
        let unpacked = lines.iter().filter(|line| line.contains("tar --extract --file=-")).count();
        let prompted = lines.iter().filter(|line| line.contains("/home/agent/.bottle/prompt.md")).count();
        assert_eq!((unpacked, prompted), (1, 1), "{lines:#?}");
        assert_eq!(given(&backend), 1);
        let state = bottles.state_root().bottle(first.slug());
        let packed = std::fs::read(state.dir().join("agent/workspace.tar")).unwrap();
        assert!(packed.windows(7).any(|window| window == b"content"));
        let posture = bottles.posture(first.slug()).unwrap().to_string();
        assert!(posture.contains(&work.display().to_string()), "{posture}");
        let second = pool.take(&Take::default()).unwrap();
        assert_ne!(first.slug(), second.slug());
        drop(pool);
        let left: Vec<_> = bottles.list().unwrap().into_keys().collect();
        let mut taken = vec![first.slug().clone(), second.slug().clone()];
        taken.sort();
        assert_eq!(left, taken, "the pool removes what it holds, and nothing else");
    }

    #[test]
    fn a_plan_that_cannot_be_filled_in_later_is_refused_with_its_keys() {
        let dir = tempfile::tempdir().unwrap();
        let (_, bottles) = bottles(dir.path());
        let keys = "workspace: {mode: bind}, secrets: environment, git: {upstreams: [{name: app, url: 'git@github.com:team/app.git', known_hosts: [github.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtleQ==], \
                    deploy_key: {forge: github, token: TOKEN}}]}";
        let error = Pool::start(bottles.clone(), plan(&bottles, keys), 1).unwrap_err();
        let text = bottle::report(&error).to_string();
        for key in ["workspace.mode", "secrets", "git.upstreams[0].deploy_key"] {
            assert!(text.contains(key), "{text}");
        }
        assert!(bottles.list().unwrap().is_empty());
    }

    #[test]
    fn the_panic_of_a_launch_reaches_the_one_who_waits_and_the_pool_goes_on() {
        #[derive(Debug)]
        struct Broken(std::sync::atomic::AtomicBool);
        impl bottle::Provisioner for Broken {
            fn provision(&self, _: &bottle::AgentContainer<'_>) -> Result<(), bottle::ProvisionError> {
                assert!(self.0.swap(true, std::sync::atomic::Ordering::Relaxed), "a fault of the provisioner");
                Ok(())
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let (_, bottles) = bottles(dir.path());
        let bottles = bottles.with_provisioner(Arc::new(Broken(false.into())));
        let pool = Pool::start(bottles.clone(), plan(&bottles, ""), 1).unwrap();
        let taken = panic::catch_unwind(AssertUnwindSafe(|| pool.take(&Take::default())));
        let text = taken.unwrap_err().downcast_ref::<&str>().map(|text| (*text).to_owned());
        assert_eq!(text.as_deref(), Some("a fault of the provisioner"));
        // The next one is launched a second later, and the one that panicked is gone.
        let bottle = pool.take(&Take::default()).unwrap();
        assert_eq!(bottles.list().unwrap().into_keys().filter(|slug| slug == bottle.slug()).count(), 1);
        pool.close().unwrap();
        bottle.close().unwrap();
        assert!(bottles.list().unwrap().is_empty());
    }

    #[test]
    fn the_error_of_a_launch_reaches_the_one_who_waits() {
        let dir = tempfile::tempdir().unwrap();
        let (_, bottles) = bottles(dir.path());
        std::fs::write(dir.path().join("state"), "in the way").unwrap();
        let pool = Pool::start(bottles.clone(), plan(&bottles, ""), 1).unwrap();
        assert!(matches!(pool.take(&Take::default()), Err(bottle::Error::Launch(_))));
    }
}
