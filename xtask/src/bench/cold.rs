//! The first launch on an engine without any image of a bottle: its time, the sizes, and how long the terminal is silent.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::process::{Result, output};

/// Beginning of the names of the images that a launch builds.
const PREFIX: &str = "claude-bottle-";

/// Removes the images and the build cache, launches a bottle by the command, and writes the figures into the directory.
pub(super) fn run(dir: &Path, mut command: Command) -> Result<()> {
    let images = images()?;
    if !images.is_empty() {
        output(Command::new("docker").args(["image", "rm", "--force"]).args(images))?;
    }
    output(Command::new("docker").args(["builder", "prune", "--all", "--force"]))?;

    let started = Instant::now();
    let mut launch = command.args(["--", "true"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let (mut last, mut silence, mut lines) = (started, 0.0_f64, Vec::new());
    for line in BufReader::new(launch.stderr.take().ok_or("standard error is piped")?).lines() {
        silence = silence.max(last.elapsed().as_secs_f64());
        last = Instant::now();
        lines.push(line?);
    }
    silence = silence.max(last.elapsed().as_secs_f64());
    let status = launch.wait()?;
    if !status.success() {
        return Err(format!("the launch ended with {status}: {}", lines.join("\n")).into());
    }
    let seconds = started.elapsed().as_secs_f64();

    let mut total = 0.0;
    let mut sizes = serde_json::Map::new();
    for name in self::images()? {
        let size: f64 = output(Command::new("docker").args(["image", "inspect", "--format", "{{.Size}}", &name]))?
            .trim()
            .parse()?;
        total += size / 1e6;
        println!("  {name:<44} {:>7.0} MB", size / 1e6);
        sizes.insert(name, json!(size / 1e6));
    }
    // What the images share is on the disk once.
    let disk = output(Command::new("docker").args(["system", "df", "--format", "json"]))?;
    let disk: Value = serde_json::from_str(disk.lines().next().unwrap_or("null"))?;
    let report = json!({
        "seconds": seconds, "longest_silence_seconds": silence, "lines": lines.len(), "megabytes": sizes,
        "total_megabytes": total, "images_on_disk": disk["Size"],
    });
    fs::write(dir.join("cold.json"), serde_json::to_string_pretty(&report)? + "\n")?;
    println!(
        "all images built and the first bottle closed in {seconds:.1} s; {total:.0} MB; silent for at most {silence:.2} s"
    );
    Ok(())
}

/// Returns the names of the images that launches have built.
fn images() -> Result<Vec<String>> {
    let found = output(Command::new("docker").args(["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]))?;
    let own = found.lines().filter(|name| name.starts_with(PREFIX) && !name.ends_with(":<none>"));
    Ok(own.map(ToOwned::to_owned).collect())
}
