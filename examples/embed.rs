//! A bottle described in code, without a manifest file: `cargo run --example embed`. Needs a container engine.

use std::io::Write as _;

use bottle::prelude::*;

fn main() -> bottle::Result<()> {
    let bottles = Bottles::local()?;
    let sealed = BottleSpec::default().with_allow("example.com")?;
    let worker = AgentSpec::custom("sealed", ["sh"])?;
    let plan = Manifest::default().with_bottle("sealed", sealed)?.with_agent("worker", worker)?.plan(&bottles)?;
    let bottle = bottles.launch(plan)?;
    let output = bottle.exec(["sh", "-c", "id -un; pwd"])?;
    // A reader that went away is no reason to leave the bottle behind.
    let _ = write!(std::io::stdout(), "{}", output.stdout_text());
    bottle.close()?;
    Ok(())
}
