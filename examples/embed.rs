//! A bottle without a manifest file: described in code, launched, used and taken down.
//!
//! `cargo run --example embed` runs where an engine answers. It shows an agent that may reach one host.
#![expect(clippy::print_stdout, reason = "a program's output")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bottle::exec::engine::Exec;
use bottle::exec::{Control, Event, Outcome, Subprocess};
use bottle::plan::manifest::{AgentSpec, BottleSpec, Provider};
use bottle::plan::{PlanRequest, Prefix};
use bottle::{Engine, EngineChoice, Host, LaunchOptions, Manifest};

fn main() -> Result<(), Box<dyn Error>> {
    let host = Host::current()?;
    let manifest =
        Manifest::default().with_bottle("sealed", BottleSpec::default().with_allow("example.com")?)?.with_agent(
            "worker",
            AgentSpec { command: vec!["sh".into()], ..AgentSpec::new("sealed", Provider::Custom)? },
        )?;
    let plan = manifest.plan(PlanRequest {
        agent: None,
        slug: None,
        prefix: Prefix::default(),
        manifest_dir: None,
        host: &host.facts,
        random: bottle::random_bytes()?,
    })?;

    let engine =
        Engine::detect(Arc::new(Subprocess::new(host.environment())), &EngineChoice::Auto, Control::default())?;
    let options =
        LaunchOptions::new(engine, host).with_wait(Duration::from_secs(60)).with_observer(Arc::new(|event: &Event| {
            if let Event::StepFinished { step, duration, outcome: Outcome::Done } = event {
                println!("{step}: {} ms", duration.as_millis());
            }
        }));
    let bottle = bottle::launch(plan, &options)?;

    let output = bottle.exec(Exec::new(["sh", "-c", "id -un; ls -A | wc -l"]))?;
    println!("the agent says: {}", output.stdout.text().replace('\n', " "));
    // Dropping the bottle would do; closing it tells what came of it.
    let report = bottle.close();
    if !report.is_clean() {
        return Err(report.to_string().into());
    }
    Ok(())
}
