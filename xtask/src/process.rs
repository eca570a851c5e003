//! Running programs.

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Returns the root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// Runs a command that must succeed, with our own output streams.
pub(crate) fn checked(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", line(command)).into()) }
}

/// Runs a command that must succeed. Its output goes to a log, whose end is part of the error.
pub(crate) fn quiet(root: &Path, name: &str, command: &mut Command) -> Result<()> {
    let dir = root.join("target/e2e-logs");
    fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{name}.log"));
    let log = File::create(&path)?;
    let status = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).status()?;
    if status.success() {
        return Ok(());
    }
    let text = fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(20)..].join("\n");
    Err(format!("{} ended with {status}:\n{end}", line(command)).into())
}

/// Returns the output of a command that must succeed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{} ended with {}: {}", line(command), output.status, stderr.trim()).into())
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
