//! Benchmarks: the pure part by `cargo bench`, and a launch compared with plain `docker compose` of the same file.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::e2e;
use crate::process::{Result, checked, output, root};

/// The options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Number of runs of each measurement on the engine. The median is reported.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=50))]
    runs: u8,
    /// Skip the benchmarks that need no engine.
    #[arg(long)]
    engine_only: bool,
}

const MANIFEST: &str = "
bottles:
  bench:
    supervise: true
    egress:
      routes: [{host: api.example.com, inject: {token: BENCH_TOKEN}}]
    git:
      upstreams: [{name: app, url: 'https://git.example.com/team/app.git'}]
    workspace: {mode: none}
    images: {pipelock: PIPELOCK}
agents:
  bench: {bottle: bench, command: ['true']}
";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = root();
    if !arguments.engine_only {
        checked(Command::new(env!("CARGO")).current_dir(&root).args(["bench", "--quiet", "--workspace"]))?;
    }
    let pipelock = e2e::prepare(&root)?.ok_or("pipelock's image can be neither found nor pulled")?;
    checked(Command::new(env!("CARGO")).current_dir(&root).args(["build", "--release", "--quiet", "--examples"]))?;
    let dir = root.join("target/bench");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("bottle.yaml"), MANIFEST.replace("PIPELOCK", &pipelock))?;
    let launch = |slug: &str, more: &[&str]| -> Result<Duration> {
        let mut command = Command::new(root.join("target/release/examples/launch"));
        command.current_dir(&dir).env("BENCH_TOKEN", "no-real-token").stdin(Stdio::null());
        command.args(["--manifest", "bottle.yaml", "--state-dir", "state", "--slug", slug, "--events", "json"]);
        let started = Instant::now();
        let printed = command.args(more).args(["--", "true"]).output()?;
        let whole = started.elapsed();
        if !printed.status.success() {
            return Err(String::from_utf8_lossy(&printed.stderr).into());
        }
        // Up to the end of the launch. The command and the teardown are not measured.
        let events = String::from_utf8_lossy(&printed.stderr).into_owned();
        let after =
            events.lines().skip_while(|line| !line.contains("\"step\":\"hand out the bottle\"")).filter_map(seconds);
        Ok(whole.saturating_sub(Duration::from_secs_f64(after.sum())))
    };
    // The first launch builds the images. The kept one provides the file for the plain runs.
    launch("bench-first", &[])?;
    let launched = median((0..arguments.runs).map(|run| launch(&format!("bench-{run}"), &[])))?;
    launch("bench-kept", &["--keep"])?;
    let compose = |verb: &[&str]| -> Result<Duration> {
        let started = Instant::now();
        let mut command = Command::new("docker");
        command.args(["compose", "--project-name", "claude-bottle-bench-kept", "--file"]);
        command.arg(dir.join("state/bench-kept/docker-compose.yml")).args(verb).env("EGRESS_TOKEN_BENCH_TOKEN", "none");
        output(&mut command)?;
        Ok(started.elapsed())
    };
    compose(&["down"])?;
    let pairs: Vec<_> =
        (0..arguments.runs).map(|_| Ok((compose(&["up", "--detach", "--wait"])?, compose(&["down"])?))).collect();
    let pairs = pairs.into_iter().collect::<Result<Vec<_>>>();
    remove_kept(&dir)?;
    let pairs = pairs?;
    let up = median(pairs.iter().map(|(up, _)| Ok(*up)))?;
    let down = median(pairs.iter().map(|(_, down)| Ok(*down)))?;
    println!("full bottle, images present, median of {}:", arguments.runs);
    println!("  bare `docker compose up --detach --wait`  {:.2} s", up.as_secs_f64());
    println!("  bare `docker compose down`                {:.2} s", down.as_secs_f64());
    println!("  launch, command and teardown left out     {:.2} s", launched.as_secs_f64());
    println!(
        "  a launch adds                             {:.0} %",
        (launched.as_secs_f64() / up.as_secs_f64() - 1.0) * 100.0
    );
    Ok(())
}

/// Returns the duration of the last step, according to the events.
fn seconds(line: &str) -> Option<f64> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    (event["event"] == "step_finished").then(|| event["seconds"].as_f64())?
}

fn median(values: impl Iterator<Item = Result<Duration>>) -> Result<Duration> {
    let mut values = values.collect::<Result<Vec<_>>>()?;
    values.sort_unstable();
    values.get(values.len() / 2).copied().ok_or_else(|| "nothing was measured".into())
}

/// Removes the files of the kept bottle. Its containers and networks are removed already, and it has no derived image.
fn remove_kept(dir: &Path) -> Result<()> {
    Ok(fs::remove_dir_all(dir.join("state/bench-kept"))?)
}
