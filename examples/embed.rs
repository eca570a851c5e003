//! A bottle described in code, without a manifest file: `cargo run --example embed`. Needs a container engine.
#![expect(clippy::print_stdout, reason = "a program's output")]

use bottle::prelude::*;

fn main() -> bottle::Result<()> {
    let bottles = Bottles::local()?;
    let sealed = BottleSpec::default().with_allow("example.com")?;
    let worker = AgentSpec::custom("sealed", ["sh"])?;
    let plan = Manifest::default().with_bottle("sealed", sealed)?.with_agent("worker", worker)?.plan(&bottles)?;
    let bottle = bottles.launch(plan)?;
    let output = bottle.exec(["sh", "-c", "id -un; pwd"])?;
    print!("{}", output.stdout_text());
    bottle.close()?;
    Ok(())
}
