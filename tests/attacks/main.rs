//! Attacks on a bottle, run as the agent: whether one gets through is decided by what the outside host, a neighbor, the host and
//! the git remote record, not by what the attacker sees.
//!
//! `docs/attacks.md` is the table of the results. Its columns of results are written by the tests here; see `document.rs`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod cluster;
mod credentials;
mod document;
mod evidence;
mod git;
mod host;
mod kernel;
mod launch;
mod names;
mod network;
mod proxy;
mod secrets;
mod site;
mod supervise;
mod table;
mod weakened;
mod workspace;

use std::collections::BTreeMap;
use std::time::Instant;

use bottle_testing::lab::{figure, needs_runtime};

use crate::launch::Launched;
use crate::site::Fate;
use crate::table::{Attack, attacks};

#[test]
#[ignore = "needs a container engine"]
fn no_attack_gets_through() {
    under("runc");
}

#[test]
#[ignore = "needs a container engine with the runtime runsc"]
fn no_attack_gets_through_under_gvisor() {
    under("runsc");
}

/// Runs every attack under a runtime, and compares the results with the table.
fn under(runtime: &str) {
    needs_runtime(runtime);
    let start = Instant::now();
    let is_whole = is_whole();
    let attacks = chosen();
    let launched = Launched::both(runtime);
    let mut fates: BTreeMap<&'static str, Fate> = launched.full.attack(&attacks);
    fates.extend(launched.plain.attack(&attacks));
    let unattributed = [launched.full.unattributed(), launched.plain.unattributed()].concat();
    launched.close();
    let took = start.elapsed().as_secs_f64();
    let listed = |is_wanted: &dyn Fn(&Fate) -> bool| -> Vec<String> {
        let wanted = attacks.iter().filter(|attack| is_wanted(&fates[attack.name]));
        wanted
            .map(|attack| {
                format!(
                    "{}: {}: {:?}\n{}",
                    attack.group,
                    attack.name,
                    fates[attack.name].through,
                    ending(&fates[attack.name].printed)
                )
            })
            .collect()
    };
    let broken = listed(&|fate| fate.is_broken);
    let through = listed(&|fate| !fate.through.is_empty());
    figure(format_args!("{runtime}: {} attacks, {} got through, {took:.0} s", attacks.len(), through.len()));
    assert!(
        broken.is_empty(),
        "{} attacks are broken:\n{}\n\n{}",
        broken.len(),
        broken.join("\n\n"),
        through.join("\n\n")
    );
    let column = if runtime == "runc" { document::Column::Runc } else { document::Column::Gvisor };
    let has_changed = is_whole && document::record(column, &fates);
    assert!(through.is_empty(), "{} attacks got through:\n{}", through.len(), through.join("\n\n"));
    assert!(unattributed.is_empty(), "{}", unattributed.join("\n"));
    assert!(!has_changed, "`docs/attacks.md` had other results; it has been written anew");
}

/// Returns every attack, or every fourth.
fn chosen() -> Vec<Attack> {
    attacks().into_iter().step_by(if is_whole() { 1 } else { 4 }).collect()
}

/// Returns true if every attack is to be run. By default every fourth is, so that the end-to-end tests stay short.
#[expect(clippy::disallowed_methods, reason = "how xtask tells the tests what to run")]
fn is_whole() -> bool {
    std::env::var("BOTTLE_E2E_ATTACKS").is_ok_and(|which| which == "all")
}

/// Returns the last lines of an output.
fn ending(printed: &str) -> String {
    let lines: Vec<&str> = printed.lines().collect();
    let last = lines[lines.len().saturating_sub(12)..].join("\n");
    last.chars().take(1500).collect()
}
