//! Many bottles alive at once: the time of each launch, and the memory that they take.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::process::{Result, output};

/// Most commands at the same time.
const AT_ONCE: usize = 8;

/// Attempts at each launch. On a busy machine one can miss a time limit.
const ATTEMPTS: usize = 3;

/// Memory of the machine that has to stay free, in MiB. No further bottle is launched below it.
const RESERVE: f64 = 2048.0;

/// One launch, while others were under way.
struct Launched {
    slug: String,
    /// Number of bottles that were up when it was done, itself included.
    alive: u32,
    seconds: f64,
    /// Memory of the machine in use beyond the beginning, in MiB.
    used: f64,
}

/// The programs of a run, and the directory of its results.
pub(super) struct Programs<'a> {
    pub(super) dir: &'a Path,
    /// Launches a bottle of this name that stays up, and returns the seconds until it was handed out.
    pub(super) launch: &'a (dyn Fn(&str) -> Result<f64> + Sync),
    /// Returns the command that manages bottles.
    pub(super) bottles: &'a (dyn Fn() -> Command + Sync),
}

/// Launches this number of bottles, runs a command in each, and removes all of them. Writes the figures and a chart.
pub(super) fn run(programs: &Programs<'_>, topology: &str, count: usize) -> Result<()> {
    let free_before = free()?;
    let launched = Mutex::new(Vec::<Launched>::new());
    let failures = Mutex::new(Vec::<String>::new());
    let began = Instant::now();
    let result = at_once((0..count).collect(), |number| {
        if free()? < RESERVE {
            return Ok(());
        }
        let slug = format!("many-{topology}-{number}");
        let Some(seconds) = attempt(programs, &slug, &failures)? else { return Ok(()) };
        let used = f64::max(free_before - free()?, 0.0);
        let mut launched = launched.lock().map_err(|_| "another launch panicked")?;
        let alive = u32::try_from(launched.len())? + 1;
        println!("  {alive:>3} alive: launched in {seconds:.2} s, {used:.0} MiB in use");
        launched.push(Launched { slug, alive, seconds, used });
        Ok(())
    });
    let (launched, failures) = (launched.into_inner()?, failures.into_inner()?);
    let launching = began.elapsed().as_secs_f64();
    // They are removed whatever happens.
    let measured = result.and_then(|()| measure(programs, &launched));
    let began = Instant::now();
    let slugs: Vec<&str> = launched.iter().map(|one| one.slug.as_str()).collect();
    let removed = at_once(slugs, |slug| output((programs.bottles)().args(["down", slug])).map(drop));
    let closing = began.elapsed().as_secs_f64();
    let left = left(topology)?;
    let (services, answered) =
        measured.as_ref().map_or((Value::Null, 0), |(services, answered)| (services.clone(), *answered));
    let each = launched.last().map_or(0.0, |one| one.used / f64::from(one.alive));
    let points: Vec<Value> =
        launched.iter().map(|one| json!({"alive": one.alive, "seconds": one.seconds, "used_mib": one.used})).collect();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let report = json!({
        "topology": topology, "asked": count, "alive": launched.len(), "answered": answered, "at_once": AT_ONCE,
        "cores": thread::available_parallelism()?.get(), "load_at_the_end": load.trim(),
        "mib_per_bottle": each, "mib_per_service": services, "launching_seconds": launching,
        "closing_seconds": closing, "left": left, "failed_launches": failures, "launches": points,
    });
    fs::write(programs.dir.join(format!("many-{topology}.json")), serde_json::to_string_pretty(&report)? + "\n")?;
    fs::write(programs.dir.join(format!("many-{topology}.svg")), chart(topology, &launched))?;
    println!(
        "{} of {count} bottles `{topology}` alive at once, {answered} answered; {each:.0} MiB each; up in {launching:.0} s, gone in {closing:.0} s; {} launches failed",
        launched.len(),
        failures.len()
    );
    measured?;
    removed?;
    if !left.is_empty() {
        return Err(format!("after the end there are still: {}", left.join(", ")).into());
    }
    Ok(())
}

/// Launches a bottle, again if it fails, and returns the seconds of the launch that succeeded. `None` if none did.
fn attempt(programs: &Programs<'_>, slug: &str, failures: &Mutex<Vec<String>>) -> Result<Option<f64>> {
    for _ in 0..ATTEMPTS {
        match (programs.launch)(slug) {
            Ok(seconds) => return Ok(Some(seconds)),
            Err(error) => {
                let lines: Vec<String> = error.to_string().lines().rev().take(3).map(ToOwned::to_owned).collect();
                println!("  {slug} failed: {}", lines.join(" | "));
                failures.lock().map_err(|_| "another launch panicked")?.push(format!("{slug}: {}", lines.join(" | ")));
            }
        }
    }
    Ok(None)
}

/// Runs a command in each bottle. Returns the mean memory of each service in MiB, and the number of answers.
fn measure(programs: &Programs<'_>, launched: &[Launched]) -> Result<(Value, usize)> {
    at_once(launched.iter().collect(), |one| {
        let said = output((programs.bottles)().args(["exec", &one.slug, "--", "id", "-un"]))?;
        if said.trim() == "agent" { Ok(()) } else { Err(format!("bottle `{}` answered `{said}`", one.slug).into()) }
    })?;
    let text = output(Command::new("docker").args(["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}"]))?;
    let mut services = serde_json::Map::new();
    for service in ["agent", "seal", "outlet", "pipelock", "egress", "git-gate", "supervise"] {
        let is_of = |name: &str| {
            let stem = name.strip_prefix("claude-bottle-").and_then(|rest| rest.split_once("many-"));
            stem.is_some_and(|(kind, _)| kind.trim_end_matches('-') == if service == "agent" { "" } else { service })
        };
        let lines = text.lines().filter_map(|line| line.split_once(' ')).filter(|(name, _)| is_of(name));
        let sizes: Vec<f64> = lines.filter_map(|(_, usage)| mebibytes(usage.split(' ').next()?)).collect();
        if !sizes.is_empty() {
            services.insert(service.to_owned(), json!(mean(&sizes)));
        }
    }
    Ok((Value::Object(services), launched.len()))
}

/// Returns the mean of some numbers.
fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.iter().map(|_| 1.0).sum::<f64>()
}

/// Returns a size that the engine prints, such as `12.5MiB`, in MiB.
fn mebibytes(text: &str) -> Option<f64> {
    let units = [("GiB", 1024.0), ("MiB", 1.0), ("KiB", 1.0 / 1024.0), ("kB", 1.0 / 1049.0), ("B", 1.0 / 1_048_576.0)];
    let (number, factor) = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

/// Returns the engine's objects of these bottles.
fn left(topology: &str) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for (kind, format) in [("container", "{{.Names}}"), ("network", "{{.Name}}"), ("volume", "{{.Name}}")] {
        let mut command = Command::new("docker");
        command.args([kind, "ls", "--filter", "label=claude-bottle.slug", "--format", format]);
        if kind == "container" {
            command.arg("--all");
        }
        let found = output(&mut command)?;
        left.extend(found.lines().filter(|name| name.contains(&format!("many-{topology}-"))).map(ToOwned::to_owned));
    }
    Ok(left)
}

/// Does the work for each item, a few at the same time. After an error no further item is begun.
fn at_once<T: Send>(items: Vec<T>, work: impl Fn(T) -> Result<()> + Sync) -> Result<()> {
    let next = Mutex::new((items.into_iter(), None::<String>));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(item) =
                        next.lock().ok().and_then(|mut it| if it.1.is_some() { None } else { it.0.next() })
                    else {
                        return;
                    };
                    if let Err(error) = work(item)
                        && let Ok(mut next) = next.lock()
                    {
                        next.1.get_or_insert(error.to_string());
                    }
                }
            });
        }
    });
    let error = next.into_inner().map_err(|_| "one of the threads panicked")?.1;
    error.map_or(Ok(()), |error| Err(error.into()))
}

/// Returns the memory that the machine has available, in MiB.
fn free() -> Result<f64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kibibytes.ok_or("/proc/meminfo does not tell the available memory")? / 1024.0)
}

/// Draws the launch times and the memory in use against the number of bottles alive.
fn chart(topology: &str, launched: &[Launched]) -> String {
    const WIDTH: f64 = 720.0;
    const HEIGHT: f64 = 360.0;
    const MARGIN: f64 = 50.0;
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(1.0_f64, f64::max);
    let (count, seconds, used) = (
        most(&mut launched.iter().map(|one| f64::from(one.alive))),
        most(&mut launched.iter().map(|one| one.seconds)),
        most(&mut launched.iter().map(|one| one.used)),
    );
    let x = |alive: u32| MARGIN + f64::from(alive) / count * (WIDTH - 2.0 * MARGIN);
    let y = |part: f64| HEIGHT - MARGIN - part * (HEIGHT - 2.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"20\" font-size=\"14\">Bottles `{topology}` alive at once, {AT_ONCE} launches at the same time</text>\n"
    );
    let bottom = y(0.0);
    for quarter in 0..=4 {
        let part = f64::from(quarter) / 4.0;
        let (at, right) = (y(part), WIDTH - MARGIN);
        _ = writeln!(
            svg,
            "<line x1=\"{MARGIN}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#06c\">{:.1} s</text>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#c60\">{:.1} GiB</text>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.0}</text>",
            MARGIN - 4.0,
            at + 4.0,
            part * seconds,
            right + 4.0,
            at + 4.0,
            part * used / 1024.0,
            MARGIN + part * (WIDTH - 2.0 * MARGIN),
            bottom + 18.0,
            part * count,
        );
    }
    for one in launched {
        let (cx, cy) = (x(one.alive), y(one.seconds / seconds));
        _ = writeln!(svg, "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3\" fill=\"#06c\"/>");
    }
    let line: Vec<String> =
        launched.iter().map(|one| format!("{:.1},{:.1}", x(one.alive), y(one.used / used))).collect();
    _ = writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"#c60\" stroke-width=\"2\"/>", line.join(" "));
    _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">alive (points: seconds of the launch; line: memory in use)</text>\n</svg>",
        WIDTH / 2.0,
        HEIGHT - 10.0
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_the_engine_are_read() {
        assert_eq!(
            ["1.5GiB", "12MiB", "512KiB", "0B", "x"].map(mebibytes),
            [Some(1536.0), Some(12.0), Some(0.5), Some(0.0), None]
        );
    }

    #[test]
    fn the_first_error_ends_the_work_and_is_returned() {
        let done = Mutex::new(0);
        let result = at_once((0..1000).collect(), |number| {
            *done.lock().unwrap() += 1;
            if number == 3 { Err("third".into()) } else { Ok(()) }
        });
        assert_eq!(result.unwrap_err().to_string(), "third");
        assert!(*done.lock().unwrap() < 1000);
    }

    #[test]
    fn the_chart_has_a_point_for_each_launch() {
        let one = |alive: u32| Launched { slug: "a".into(), alive, seconds: 2.0, used: 100.0 };
        let svg = chart("full", &[one(1), one(2)]);
        assert_eq!((svg.matches("<circle").count(), svg.matches("<polyline").count()), (2, 1));
    }
}
