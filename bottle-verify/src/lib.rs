//! Probes that attack a running bottle and say whether each of its protections holds.
//!
//! Three things are looked at, at the same time: what the engine says of the containers and the network, the rules and
//! interfaces in the network namespaces of seal and outlet, and what a small static program reaches when it attacks from inside,
//! as the agent's user. A probe that does not report counts as failed. The files of this host that the sidecars read are compared
//! with what was written.
//!
//! An agent that runs cannot forge the results: the program's file is root's and cannot be read by its user, so that the kernel
//! protects the process from every other one of that user. It can be ended, which counts as failed.

mod compare;
mod engine;
mod expected;
mod facts;
mod files;
mod inside;
mod mounts;
mod planned;
mod podman;
mod report;
mod rules;
mod secrets;
mod value;

use std::thread;
use std::time::Instant;

use bottle_engine::Engine;

use facts::Facts;
use inside::Waiting;

pub use expected::Expected;
pub use inside::{Attack, read_attacks};
pub use report::{Outcome, Probe, Verification, Verify, VerifyError};

/// A verification whose slowest part, a command in the agent's container, has started. The command waits.
#[derive(Debug)]
pub struct Prepared(Waiting);

impl Prepared {
    /// Starts that command in a container that runs. `None` if it cannot be started, which the verification then reports, or
    /// if nothing is to be verified.
    pub fn start(engine: &Engine, expected: &Expected, level: Verify) -> Option<Self> {
        if level == Verify::Off {
            return None;
        }
        inside::install(engine, expected).and_then(|()| Waiting::start(engine, expected, level)).ok().map(Self)
    }
}

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
    verify_prepared(engine, expected, level, secrets, None)
}

/// Runs the probes like [`verify`], with the command that waits, unless it has ended. It must be of the same level.
///
/// # Errors
///
/// Same as [`verify`].
pub fn verify_prepared(
    engine: &Engine,
    expected: &Expected,
    level: Verify,
    secrets: &[&str],
    prepared: Option<Prepared>,
) -> Result<Verification, VerifyError> {
    let start = Instant::now();
    if level == Verify::Off {
        return Ok(Verification { probes: Vec::new(), took: start.elapsed() });
    }
    let attack = || {
        let waiting = prepared.and_then(|Prepared(mut waiting)| (!waiting.is_over()).then_some(waiting));
        let waiting = waiting.map_or_else(|| Waiting::start(engine, expected, level), Ok)?;
        waiting.attack(engine, expected, level, secrets)
    };
    let (facts, seal, outlet, inside) = thread::scope(|scope| {
        let inside = scope.spawn(attack);
        let seal = scope.spawn(|| rules::read(engine, &expected.seal));
        let outlet = expected.outlet.as_ref();
        let outlet = outlet.map(|outlet| (outlet, scope.spawn(|| rules::read(engine, &outlet.container))));
        let facts = Facts::of(engine, expected);
        (facts, join(seal), outlet.map(|(outlet, rules)| (outlet, join(rules))), join(inside))
    });
    let facts = facts?;
    let mut probes = engine::probes(&facts, expected, secrets);
    probes.extend(files::probe(&expected.files));
    let seal = seal?;
    let mut owners = vec![(&*expected.seal, &seal)];
    probes.push(rules::of_seal(&seal, &facts.addresses(), expected));
    let outlet = outlet.map(|(outlet, rules)| rules.map(|rules| (outlet, rules))).transpose()?;
    if let Some((outlet, rules)) = &outlet {
        probes.push(rules::of_outlet(rules, outlet));
        owners.push((&outlet.container, rules));
    }
    probes.push(rules::interfaces(&owners, expected));
    match inside {
        Ok(found) => {
            probes.push(mounts::probe(&found.mounts, &facts, expected));
            probes.extend(found.probes);
        }
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
