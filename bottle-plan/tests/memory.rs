//! The memory limit of an agent for which the manifest gives none.

#![expect(clippy::unwrap_used, reason = "a test whose own manifest is wrong has failed")]

use std::path::Path;

use bottle_plan::Manifest;
use bottle_testing::plans;

/// Returns the agent's limit in MiB.
fn limit(limits: &str, engine: Option<u64>) -> Option<u64> {
    let text = format!("bottles: {{dev: {{limits: {limits}}}}}\nagents: {{demo: {{bottle: dev, command: [id]}}}}");
    let plan = plans::plan(&Manifest::parse(&text).unwrap());
    let mut facts = plans::facts(&plan, Path::new("/state"));
    facts.engine.memory = engine.map(|mib| mib << 20);
    plan.resolve(facts).unwrap().agent_memory().map(|bytes| bytes >> 20)
}

#[test]
fn it_is_half_of_the_engines_memory_between_two_gibibytes_and_all() {
    for (engine, expected) in [(24_000, 12_000), (4096, 2048), (3000, 2048), (1000, 1000)] {
        assert_eq!(limit("{}", Some(engine)), Some(expected), "{engine}");
    }
    assert_eq!(limit("{}", None), None);
    for engine in [None, Some(24_000)] {
        assert_eq!(limit("{agent: {memory: 20GiB}}", engine), Some(20_480));
    }
}
