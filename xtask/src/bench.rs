//! Benchmarks: the pure part by `cargo bench`, and a launch, its commands and its teardown compared with plain `docker` and
//! `docker compose` of the same file, in interleaved rounds.

mod cold;
mod figures;
mod many;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use figures::{CLOSE, DOWN, Figures, LAUNCH, SEED_DOWN, START, START_UNSEALED, STEP, UP, UP_WAIT};

use crate::e2e;
use crate::process::{Result, checked, output, root};

/// The options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Number of rounds on the engine.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=50))]
    runs: u8,
    /// Skip the benchmarks that need no engine.
    #[arg(long)]
    engine_only: bool,
    /// Only launch this number of bottles of each topology, all alive at once.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=500))]
    many: Option<u16>,
    /// Only build all images anew. Removes the engine's whole build cache and the images of bottles first.
    #[arg(long, conflicts_with = "many")]
    cold: bool,
}

const MANIFEST: &str = "
bottles:
  full:
    supervise: true
    egress:
      routes: [{host: api.example.com, inject: {token: BENCH_TOKEN}}]
    git:
      upstreams: [{name: app, url: 'https://git.example.com/team/app.git'}]
    workspace: {mode: none}
    images: {pipelock: PIPELOCK}
  alone:
    workspace: {mode: none}
    images: {pipelock: PIPELOCK}
agents:
  full: {bottle: full, command: ['true']}
  alone: {bottle: alone, command: ['true']}
";

/// The topologies that are measured: all sidecars, and pipelock alone.
const TOPOLOGIES: [&str; 2] = ["full", "alone"];

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = root();
    if !(arguments.engine_only || arguments.cold || arguments.many.is_some()) {
        checked(Command::new(env!("CARGO")).current_dir(&root).args(["bench", "--quiet", "--workspace"]))?;
    }
    let pipelock = e2e::prepare(&root)?.ok_or("pipelock's image can be neither found nor pulled")?;
    // Many launches at the same time wait for the engine alone.
    let (profile, directory) = if arguments.many.is_some() { ("dev", "debug") } else { ("release", "release") };
    let build = ["build", "--profile", profile, "--quiet", "--package", "bottle", "--package", "xtask", "--examples"];
    checked(Command::new(env!("CARGO")).current_dir(&root).args(build))?;
    let programs = root.join("target").join(directory).join("examples");
    let bench = Bench { dir: root.join("target/bench"), programs };
    fs::create_dir_all(&bench.dir)?;
    fs::write(bench.dir.join("bottle.yaml"), MANIFEST.replace("PIPELOCK", &pipelock))?;
    if arguments.cold {
        return cold::run(&bench.dir, bench.launcher("full", "bench-cold"));
    }
    if let Some(count) = arguments.many {
        for topology in TOPOLOGIES {
            // The first launch builds the images.
            bench.launch(topology, &format!("bench-{topology}-first"), &[], &mut Figures::default())?;
            let launch = |slug: &str| -> Result<f64> {
                let mut figures = Figures::default();
                bench.launch(topology, slug, &["--keep"], &mut figures)?;
                Ok(figures.percentile(LAUNCH, 50))
            };
            let programs = many::Programs { dir: &bench.dir, launch: &launch, bottles: &|| bench.bottles() };
            many::run(&programs, topology, count.into())?;
        }
        println!("\nthe figures and charts are in target/bench/many-*");
        return Ok(());
    }
    let mut figures = TOPOLOGIES.map(|_| Figures::default());
    for topology in TOPOLOGIES {
        // The first launch builds the images. The kept one provides the file for the plain runs.
        bench.launch(topology, &kept(topology), &["--keep"], &mut Figures::default())?;
        bench.compose(topology, &["down", "--volumes"])?;
        bench.write_unsealed(topology)?;
    }
    bench.write_seed()?;
    let measured = (0..arguments.runs).try_for_each(|round| -> Result<()> {
        for (topology, figures) in TOPOLOGIES.into_iter().zip(&mut figures) {
            bench.launch(topology, &format!("bench-{topology}-{round}"), &[], figures)?;
            for up in [UP_WAIT, UP] {
                let words: Vec<&str> = up.split(' ').skip(1).collect();
                figures.add(up, bench.compose(topology, &words)?);
                if up == UP_WAIT {
                    bench.part(figures, &["exec", "state", &kept(topology)])?;
                }
                figures.add(DOWN, bench.compose(topology, &["down", "--volumes"])?);
            }
            for (row, file) in [(START, "docker-compose.yml"), (START_UNSEALED, UNSEALED)] {
                let project = format!("claude-bottle-{}", kept(topology));
                bench.part(figures, &["start", row, &project, &format!("state/{}/{file}", kept(topology))])?;
                bench.compose(topology, &["down", "--volumes"])?;
            }
        }
        // Each takes the two times ten seconds after which Compose kills what does not end.
        if round < SEED_ROUNDS {
            bench.compose_file(TOPOLOGIES[0], SEED, &["up", "--detach"])?;
            figures[0].add(SEED_DOWN, bench.compose_file(TOPOLOGIES[0], SEED, &["down", "--volumes"])?);
        }
        Ok(())
    });
    // The containers and networks of the kept bottles are removed already, and they have no derived image.
    for topology in TOPOLOGIES {
        _ = bench.compose(topology, &["down", "--volumes"]);
        fs::remove_dir_all(bench.dir.join("state").join(kept(topology)))?;
    }
    measured?;
    let topologies: BTreeMap<&str, Value> =
        TOPOLOGIES.into_iter().zip(&figures).map(|(topology, figures)| (topology, figures.report())).collect();
    let cores = std::thread::available_parallelism()?.get();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let report = json!({"rounds": arguments.runs, "cores": cores, "load_at_the_end": load, "topologies": topologies});
    fs::write(bench.dir.join("launch.json"), serde_json::to_string_pretty(&report)? + "\n")?;
    for (topology, figures) in TOPOLOGIES.into_iter().zip(&figures) {
        figures.print(topology);
        let title = format!("bottle `{topology}`: median and p95 of {} rounds on {cores} cores", arguments.runs);
        fs::write(bench.dir.join(format!("launch-{topology}.svg")), figures.chart(&title))?;
    }
    println!("\n{cores} cores, load {load} at the end; the figures and charts are in target/bench");
    Ok(())
}

/// Returns the slug of the bottle whose file the plain runs use.
fn kept(topology: &str) -> String {
    format!("bench-{topology}-kept")
}

/// The Compose file without seal and outlet.
const UNSEALED: &str = "unsealed.json";

/// The stand-in for the document of the earlier Python system: no init process and no health checks.
const SEED: &str = "seed.json";

/// Most rounds in which the stand-in is measured.
const SEED_ROUNDS: u8 = 3;

struct Bench {
    dir: PathBuf,
    /// Directory of the examples.
    programs: PathBuf,
}

impl Bench {
    /// Returns the program that manages the bottles of the benchmark.
    fn bottles(&self) -> Command {
        let mut command = Command::new(self.programs.join("bottles"));
        command.current_dir(&self.dir).env("BENCH_TOKEN", "no-real-token").args(["--state-dir", "state"]);
        command
    }

    /// Returns the command that launches a bottle.
    fn launcher(&self, topology: &str, slug: &str) -> Command {
        let mut command = Command::new(self.programs.join("launch"));
        command.current_dir(&self.dir).env("BENCH_TOKEN", "no-real-token").stdin(Stdio::null());
        command.args(["--manifest", "bottle.yaml", "--agent", topology, "--state-dir", "state", "--slug", slug]);
        command
    }

    /// Launches a bottle and closes it, and adds the durations of both and of each step.
    fn launch(&self, topology: &str, slug: &str, more: &[&str], figures: &mut Figures) -> Result<()> {
        let mut command = self.launcher(topology, slug);
        let printed = command.args(["--events", "json"]).args(more).args(["--", "true"]).output()?;
        let text = String::from_utf8_lossy(&printed.stderr).into_owned();
        if !printed.status.success() {
            return Err(text.into());
        }
        let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let time = |kind: &str, name: &str| {
            let of_step = |event: &&Value| event["event"] == kind && (name.is_empty() || event["name"] == name);
            events.iter().find(of_step).and_then(|event| seconds_of_day(event["time"].as_str()?))
        };
        let (started, out) = (time("step_started", "prepare the launch"), time("step_finished", "hand out the bottle"));
        let (Some(started), Some(out)) = (started, out) else { return Err(format!("no launch in {text}").into()) };
        figures.add(LAUNCH, elapsed(started, out));
        let is_out = |event: &&Value| event["event"] == "step_finished" && event["name"] == "hand out the bottle";
        let closing = events.iter().skip_while(|event| !is_out(event)).filter(|event| {
            matches!(event["event"].as_str(), Some("step_started" | "step_finished")) && !is_out(event)
        });
        let closing: Vec<f64> = closing.filter_map(|event| seconds_of_day(event["time"].as_str()?)).collect();
        if let (Some(first), Some(last)) = (closing.first(), closing.last()) {
            figures.add(CLOSE, elapsed(*first, *last));
        }
        for event in events.iter().filter(|event| event["event"] == "step_finished") {
            if let (Some(name), Some(seconds)) = (event["name"].as_str(), event["seconds"].as_f64()) {
                let name = name.split(" claude-bottle").next().unwrap_or(name).split(" /").next().unwrap_or(name);
                figures.add(&format!("{STEP}{name}"), seconds);
            }
        }
        Ok(())
    }

    /// Runs a part of the benchmark that uses the library, and adds the seconds that it prints after the name of a row.
    fn part(&self, figures: &mut Figures, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(self.programs.join("bench_part"));
        for line in output(command.current_dir(&self.dir).args(arguments))?.lines() {
            let (seconds, row) = line.split_once(' ').ok_or("a part of the benchmark prints `SECONDS ROW`")?;
            figures.add(row, seconds.parse()?);
        }
        Ok(())
    }

    /// Writes the Compose file of the kept bottle in which agent and pipelock own their network namespaces themselves.
    fn write_unsealed(&self, topology: &str) -> Result<()> {
        let dir = self.dir.join("state").join(kept(topology));
        let mut compose = Command::new("docker");
        compose.args(["compose", "--file"]).arg(dir.join("docker-compose.yml")).args(["config", "--format", "json"]);
        let mut document: Value = serde_json::from_str(&output(&mut compose)?)?;
        unseal(&mut document);
        Ok(fs::write(dir.join(UNSEALED), document.to_string())?)
    }

    /// Writes the stand-in for the earlier system's document of the kept bottle with all sidecars.
    fn write_seed(&self) -> Result<()> {
        let dir = self.dir.join("state").join(kept(TOPOLOGIES[0]));
        let mut document: Value = serde_json::from_str(&fs::read_to_string(dir.join(UNSEALED))?)?;
        as_in_the_seed(&mut document);
        Ok(fs::write(dir.join(SEED), document.to_string())?)
    }

    /// Runs Compose on the file of the kept bottle and returns the seconds that it took.
    fn compose(&self, topology: &str, verb: &[&str]) -> Result<f64> {
        self.compose_file(topology, "docker-compose.yml", verb)
    }

    /// Runs Compose on a file in the directory of the kept bottle and returns the seconds that it took.
    fn compose_file(&self, topology: &str, file: &str, verb: &[&str]) -> Result<f64> {
        let slug = kept(topology);
        let started = Instant::now();
        let mut command = Command::new("docker");
        command.args(["compose", "--project-name", &format!("claude-bottle-{slug}"), "--file"]);
        command.arg(self.dir.join("state").join(&slug).join(file)).args(verb);
        output(&mut command)?;
        Ok(started.elapsed().as_secs_f64())
    }
}

/// Removes the services that own network namespaces. Those that joined one get its networks, names and settings.
fn unseal(document: &mut Value) {
    let Some(services) = document["services"].as_object_mut() else { return };
    let owners: BTreeMap<String, Value> =
        ["seal", "outlet"].into_iter().filter_map(|name| Some((name.to_owned(), services.remove(name)?))).collect();
    for service in services.values_mut().filter_map(Value::as_object_mut) {
        let mode = service.get("network_mode").and_then(Value::as_str).unwrap_or_default();
        if let Some(owner) = mode.strip_prefix("service:").and_then(|owner| owners.get(owner)) {
            service.remove("network_mode");
            for key in ["networks", "sysctls", "extra_hosts", "dns", "hostname"] {
                if let Some(value) = owner.get(key) {
                    service.insert(key.to_owned(), value.clone());
                }
            }
        }
        if let Some(after) = service.get_mut("depends_on").and_then(Value::as_object_mut) {
            after.retain(|name, _| !owners.contains_key(name));
        }
    }
}

/// Takes init processes, health checks and stop settings away, lets dependencies only order the start, and lets the agent's
/// first process be one that ignores the signal to stop.
fn as_in_the_seed(document: &mut Value) {
    let Some(services) = document["services"].as_object_mut() else { return };
    for (name, service) in services.iter_mut() {
        let Some(service) = service.as_object_mut() else { continue };
        for key in ["init", "healthcheck", "stop_grace_period", "stop_signal"] {
            service.remove(key);
        }
        if let Some(after) = service.get_mut("depends_on").and_then(Value::as_object_mut) {
            for dependency in after.values_mut() {
                dependency["condition"] = json!("service_started");
            }
        }
        if name == "agent" {
            service.insert("entrypoint".to_owned(), json!(["sleep", "infinity"]));
            service.remove("command");
        }
    }
}

/// Returns the seconds since midnight of a time in RFC 3339.
fn seconds_of_day(time: &str) -> Option<f64> {
    let mut parts = time.split_once('T')?.1.trim_end_matches('Z').split(':').map(str::parse::<f64>);
    let mut next = || parts.next()?.ok();
    Some(next()? * 3600.0 + next()? * 60.0 + next()?)
}

/// Returns the seconds between two times of day, the second of which may be on the next day.
fn elapsed(from: f64, to: f64) -> f64 {
    if to < from { to + 86400.0 - from } else { to - from }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_seal_keeps_the_networks() {
        let mut document = json!({"services": {
            "agent": {"network_mode": "service:seal", "depends_on": {"seal": {}, "egress": {}}},
            "seal": {"networks": {"internal": null}, "dns": ["192.0.2.1"]},
            "egress": {"networks": {"internal": null}},
        }});
        unseal(&mut document);
        let agent = json!({"networks": {"internal": null}, "dns": ["192.0.2.1"], "depends_on": {"egress": {}}});
        assert_eq!(document, json!({"services": {"agent": agent, "egress": {"networks": {"internal": null}}}}));
    }

    #[test]
    fn the_stand_in_for_the_seed_has_no_init_and_no_health_check() {
        let mut document = json!({"services": {
            "agent": {"init": true, "command": ["x"], "depends_on": {"egress": {"condition": "service_healthy"}}},
            "egress": {"healthcheck": {}, "stop_grace_period": "2s", "image": "a"},
        }});
        as_in_the_seed(&mut document);
        let agent =
            json!({"entrypoint": ["sleep", "infinity"], "depends_on": {"egress": {"condition": "service_started"}}});
        assert_eq!(document, json!({"services": {"agent": agent, "egress": {"image": "a"}}}));
    }

    #[test]
    fn a_launch_may_end_on_the_next_day() {
        let time = |text: &str| seconds_of_day(text).unwrap();
        let (from, to) = (time("2026-01-01T23:59:59.500Z"), time("2026-01-02T00:00:01.000Z"));
        assert!((elapsed(from, to) - 1.5).abs() < 1e-6 && (elapsed(to, to)).abs() < 1e-6);
    }
}
