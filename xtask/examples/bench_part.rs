//! The parts of `cargo xtask bench` that use the library. Each prints lines of seconds and the name of a row. An example and no
//! module of the task, which depends on no engine.
//!
//! - `exec STATE SLUG`: `Bottle::exec` of `true` and `docker exec`, by turns
//! - `start ROW PROJECT FILE`: creation and start of a Compose file's services, as a launch does it

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to its user")]

use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bottle::exec::engine::{ComposeProject, EngineError, Start};
use bottle::exec::{Control, Subprocess};
use bottle::plan::StateRoot;
use bottle::{Bottles, Engine, EngineChoice, Host};
use serde_json::Value;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Number of pairs of commands in one round.
const PAIRS: usize = 6;

/// Time within which every service must be healthy.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["exec", state, slug] => exec(state, slug),
        ["start", row, project, file] => start(row, project, file),
        _ => Err("accepted: `exec STATE SLUG` and `start ROW PROJECT FILE`".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn engine(host: &Host) -> Result<Engine> {
    let backend = Subprocess::new(host.environment());
    Ok(Engine::detect(Arc::new(backend), &EngineChoice::Auto, Control::default())?)
}

fn exec(state: &str, slug: &str) -> Result<()> {
    let host = Host::current()?;
    let root = StateRoot::at(host.facts.cwd.join(state));
    let bottle = Bottles::new(engine(&host)?, host).with_state_root(root).attach(&slug.parse()?)?;
    let container = bottle.handle().container.clone();
    for _ in 0..PAIRS {
        let started = Instant::now();
        let status = bottle.exec(["true"])?.status;
        println!("{} exec of true", started.elapsed().as_secs_f64());
        let started = Instant::now();
        let bare = Command::new("docker").args(["exec", &container, "true"]).stdin(Stdio::null()).output()?.status;
        println!("{} docker exec of true", started.elapsed().as_secs_f64());
        if !status.is_success() || !bare.success() {
            return Err(format!("`true` ended with {status} and {bare}").into());
        }
    }
    Ok(())
}

fn start(row: &str, project: &str, file: &str) -> Result<()> {
    let host = Host::current()?;
    let (engine, directory) = (engine(&host)?, &host.facts.cwd);
    let project = ComposeProject::new(project, directory, directory.join(file));
    let document = engine.compose(&project)?.config()?;
    let services = document["services"].as_object().into_iter().flatten();
    let containers: Vec<Start> = services.map(|(_, service)| start_of(&document, service)).collect();
    let started = Instant::now();
    engine.compose(&project)?.create([])?;
    engine.start_all(&project.name, &containers, PATIENCE, |_| Ok::<(), EngineError>(()))?;
    println!("{} {row}", started.elapsed().as_secs_f64());
    Ok(())
}

/// Returns the start of a service. As in a launch, only one that joins another one's network namespace waits: the agent for
/// the healthy seal, pipelock for the outlet.
fn start_of(document: &Value, service: &Value) -> Start {
    let container = |service: &Value| service["container_name"].as_str().unwrap_or_default().to_owned();
    let owner = service["network_mode"].as_str().and_then(|mode| mode.strip_prefix("service:"));
    let after = |is_seal: bool| {
        let owner = owner.filter(|owner| (*owner == "seal") == is_seal);
        owner.map(|owner| container(&document["services"][owner])).into_iter().collect()
    };
    Start {
        container: container(service),
        after_started: after(false),
        after_healthy: after(true),
        has_check: service.get("healthcheck").is_some(),
    }
}
