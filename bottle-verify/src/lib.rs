//! Probes that attack a running bottle and say whether each of its protections holds.
//!
//! Three things are looked at, at the same time: what the engine says of the containers and the network, the rules that
//! seal and outlet have set, and what a small static program reaches when it attacks from inside, as the agent's user. A probe that
//! does not report counts as failed.
//!
//! The results are those of a bottle whose agent has not started. An agent that runs could tamper with the program, which
//! runs as the same user; what the engine and the seal say stays true.

mod engine;
mod expected;
mod inside;
mod report;
mod rules;
mod secrets;

use std::thread;
use std::time::Instant;

use bottle_engine::Engine;

pub use expected::Expected;
pub use inside::{Attack, read_attacks};
pub use report::{Outcome, Probe, Verification, Verify, VerifyError};

/// Runs the probes of a level against a bottle. `secrets` are values that the agent must not hold.
///
/// # Errors
///
/// Returns an error if the probes cannot be run. A missing protection is in the result.
pub fn verify(
    engine: &Engine,
    expected: &Expected,
    level: Verify,
    secrets: &[&str],
) -> Result<Verification, VerifyError> {
    let start = Instant::now();
    if level == Verify::Off {
        return Ok(Verification { probes: Vec::new(), took: start.elapsed() });
    }
    let (facts, seal, outlet, inside) = thread::scope(|scope| {
        let inside = scope.spawn(|| inside::attack(engine, expected, level, secrets));
        let seal = scope.spawn(|| rules::read(engine, &expected.seal));
        let outlet = expected.outlet.as_ref();
        let outlet = outlet.map(|outlet| (outlet, scope.spawn(|| rules::read(engine, &outlet.container))));
        let facts = engine::facts(engine, expected);
        (facts, join(seal), outlet.map(|(outlet, rules)| (outlet, join(rules))), join(inside))
    });
    let facts = facts?;
    let mut probes = engine::probes(&facts, expected, secrets);
    probes.push(rules::of_seal(&seal?, &facts.addresses(), expected));
    if let Some((outlet, rules)) = outlet {
        probes.push(rules::of_outlet(&rules?, outlet));
    }
    match inside {
        Ok(attacks) => probes.extend(attacks),
        // An agent that lost its network cannot be attacked within the time, and that is known by now.
        Err(error) if probes.iter().any(|probe| probe.outcome == Outcome::Failed) => {
            probes.push(Probe::failed("attacks from inside", bottle_exec::chain(&error)));
        }
        Err(error) => return Err(error),
    }
    Ok(Verification { probes, took: start.elapsed() })
}

/// Returns a thread's result. A panic continues here.
fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
