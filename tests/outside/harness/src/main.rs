//! An evaluation harness: `harness MANIFEST WORKSPACE RESULTS TASK...` gives each task to the agent in a bottle of its own, with a
//! copy of the workspace, and writes what it printed and changed to the results.

use std::env::args;
use std::fs;
use std::path::PathBuf;

use bottle::prelude::*;
use bottle_pool::{Pool, Take};

fn main() {
    if let Err(error) = run() {
        eprintln!("{}", bottle::report(&*error));
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = args().skip(1);
    let mut next = || args.next().ok_or("usage: harness MANIFEST WORKSPACE RESULTS TASK...");
    let (manifest, workspace, results) = (next()?, next()?, PathBuf::from(next()?));
    let bottles = Bottles::local()?;
    let plan = bottles.host().read_plan(manifest, &bottles)?;
    let pool = Pool::start(bottles, plan, 2)?;
    for (number, task) in args.enumerate() {
        let bottle = pool.take(&Take::default().with_workspace(&workspace).with_prompt(&task))?;
        let output = bottle.exec(bottle.agent().ok_or("the agent has no command")?)?;
        fs::write(results.join(format!("{number}.log")), output.stdout_text().as_bytes())?;
        bottle.write_patch(&results.join(format!("{number}.patch")))?;
        println!("{number}: {}, {} files changed", output.status, bottle.changes()?.files.len());
        bottle.close()?;
    }
    pool.close()?;
    Ok(())
}
