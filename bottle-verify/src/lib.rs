//! Probes that attack a running bottle and say whether each of its protections holds.
//!
//! Three things are looked at, at the same time: what the engine says of the containers and the network, the rules and
//! interfaces in the network namespaces of seal and outlet, and what a small static program reaches when it attacks from inside,
//! as the agent's user. A probe that does not report counts as failed. The files of this host that the sidecars read are compared
//! with what was written.
//!
//! Under runc, an agent that runs cannot forge the results: the program's file is root's and cannot be read by its user, so that
//! the kernel protects the process from every other one of that user. It can be ended, or kept from trying an attack, which
//! counts as failed. In gVisor, such an agent could read what the results begin with.

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
mod waiting;

use std::thread;
use std::time::Instant;

use bottle_engine::Engine;

use facts::Facts;
use inside::Attacker;
use waiting::{Waiting, join};

pub use expected::Expected;
pub use inside::{Attack, read_attacks};
pub use report::{Outcome, Probe, Verification, Verify, VerifyError};

/// A verification whose slowest parts, commands in the containers of agent, seal and outlet, have started. They wait.
#[derive(Debug, Default)]
pub struct Prepared {
    attacker: Option<Attacker>,
    seal: Option<Waiting>,
    outlet: Option<Waiting>,
}

impl Prepared {
    /// Starts those commands in containers that run. The verification starts again what could not be started.
    pub fn start(engine: &Engine, expected: &Expected, level: Verify) -> Option<Self> {
        if level == Verify::Off {
            return None;
        }
        let outlet = expected.outlet.as_ref().and_then(|outlet| rules::start(engine, &outlet.container).ok());
        let seal = rules::start(engine, &expected.seal).ok();
        let attacker = inside::install(engine, expected).and_then(|()| Attacker::start(engine, expected, level)).ok();
        Some(Self { attacker, seal, outlet })
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

/// Runs the probes like [`verify`], with the commands that wait, unless they have ended. They must be of the same level.
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
    let prepared = prepared.unwrap_or_default();
    let attack = || {
        let attacker = prepared.attacker.and_then(|mut attacker| (!attacker.is_over()).then_some(attacker));
        let attacker = attacker.map_or_else(|| Attacker::start(engine, expected, level), Ok)?;
        attacker.attack(engine, expected, level, secrets)
    };
    let (facts, seal, outlet, inside) = thread::scope(|scope| {
        let inside = scope.spawn(attack);
        let seal = scope.spawn(|| rules::read(engine, &expected.seal, prepared.seal));
        let outlet = expected.outlet.as_ref();
        let outlet =
            outlet.map(|outlet| (outlet, scope.spawn(|| rules::read(engine, &outlet.container, prepared.outlet))));
        let facts = Facts::of(engine, expected, level);
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
