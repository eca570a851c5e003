//! The end-to-end tests: an engine, the images that the tests need, the tests, and a look at what is left.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::{Result, checked, output, quiet, root};

/// The options of `cargo xtask e2e`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Run only tests whose name contains this.
    filter: Option<String>,
    /// How many tests run at once.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// A shell command that restarts the engine, and with it every container that it has: one more test is run then.
    #[arg(long, value_name = "COMMAND")]
    restart: Option<String>,
}

/// The release of pipelock that the library is written for.
const PIPELOCK: &str = "ghcr.io/luckypipewrench/pipelock:2.3.0";

pub(crate) fn run(args: &Arguments) -> Result<()> {
    let root = root();
    let pipelock = prepare(&root)?;
    let outside = build_image(&root, "outside")?;
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(&root).args(arguments).stdin(Stdio::null());
        command
    };
    checked(&mut cargo(&["build", "--quiet", "--examples"]))?;
    let mut tests = cargo(&["test", "--quiet", "--test", "e2e", "--", "--ignored"]);
    tests.args(args.filter.as_deref());
    tests.arg(format!("--test-threads={}", args.threads));
    if let Some(restart) = &args.restart {
        tests.env("BOTTLE_E2E_RESTART", restart);
    } else {
        eprintln!("left out: the test that restarts the engine, since no `--restart COMMAND` was given");
        tests.args(["--skip", "an_engine_that_is_restarted"]);
    }
    tests.env("BOTTLE_E2E_PIPELOCK", pipelock).env("BOTTLE_E2E_OUTSIDE", outside);
    let tested = checked(&mut tests);
    let left = leftovers(&root)?;
    tested?;
    if !left.is_empty() {
        return Err(format!("the tests left behind:\n{}", left.join("\n")).into());
    }
    eprintln!("nothing is left behind: no container, network, volume, derived image or key");
    Ok(())
}

/// An engine that answers, and the image of pipelock or of its stand-in.
pub(crate) fn prepare(root: &Path) -> Result<String> {
    engine(root)?;
    pipelock(root)
}

/// Starts an engine where a test bed is at hand, and looks whether one answers.
fn engine(root: &Path) -> Result<()> {
    let testbed = root.join("../shared/testbed/up");
    if testbed.exists() {
        for part in ["engine", "base"] {
            quiet(root, part, Command::new(&testbed).arg(part))?;
        }
        // Pipelock's source cannot be had everywhere: then its stand-in is built below.
        let _ = quiet(root, "pipelock", Command::new(&testbed).arg("pipelock"));
    }
    let answers = output(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]));
    answers.map(drop).map_err(|error| format!("no container engine answers: {error}").into())
}

/// Pipelock's image, or its stand-in where the image can be neither found nor pulled.
fn pipelock(root: &Path) -> Result<String> {
    let has = |image: &str| output(Command::new("docker").args(["image", "inspect", image])).is_ok();
    if has(PIPELOCK) {
        return Ok(PIPELOCK.to_owned());
    }
    let pulled = quiet(root, "pull", Command::new("timeout").args(["60", "docker", "pull", "--quiet", PIPELOCK]));
    if pulled.is_ok() {
        return Ok(PIPELOCK.to_owned());
    }
    let stand_in = output(&mut Command::new(root.join("tests/images/pipelock-stand-in/build.sh")))?;
    let stand_in = stand_in.lines().last().unwrap_or_default().to_owned();
    eprintln!(
        "warning: {PIPELOCK} can be neither found nor pulled; the tests run against {stand_in}, a stand-in of this project"
    );
    Ok(stand_in)
}

/// Builds `tests/images/<name>` unless it is there, tagged with the hash of its files.
fn build_image(root: &Path, name: &str) -> Result<String> {
    let context = root.join("tests/images").join(name);
    let mut files: Vec<_> = fs::read_dir(&context)?.collect::<std::io::Result<Vec<_>>>()?;
    files.retain(|file| file.file_type().is_ok_and(|kind| kind.is_file()));
    files.sort_by_key(fs::DirEntry::file_name);
    let mut bytes = Vec::new();
    for file in files {
        bytes.extend(file.file_name().as_encoded_bytes());
        bytes.extend(fs::read(file.path())?);
    }
    let tag = format!("bottle-e2e/{name}:{:016x}", fnv(&bytes));
    if output(Command::new("docker").args(["image", "inspect", &tag])).is_err() {
        quiet(root, name, Command::new("docker").args(["build", "--tag", &tag]).arg(&context))?;
    }
    Ok(tag)
}

/// FNV-1a: the tag only has to change when a file does.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What the names of the tests' bottles begin with, and those of what else the tests start.
const PREFIXES: [&str; 3] = ["claude-bottle", "bottle-life", "bottle-e2e"];

/// What no bottle may leave: looked for by label, by name, and among the files.
fn leftovers(root: &Path) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for prefix in PREFIXES {
        let (label, names) = (format!("label={prefix}.slug"), format!("name=^{prefix}-"));
        let derived = format!("reference={prefix}-workspace");
        let queries: [&[&str]; 6] = [
            &["ps", "--all", "--filter", &label, "--format", "container {{.Names}}"],
            &["ps", "--all", "--filter", &names, "--format", "container {{.Names}}"],
            &["network", "ls", "--filter", &names, "--format", "network {{.Name}}"],
            &["volume", "ls", "--filter", &names, "--format", "volume {{.Name}}"],
            &["images", "--filter", &label, "--format", "image {{.Repository}}:{{.Tag}}"],
            &["images", "--filter", &derived, "--format", "image {{.Repository}}:{{.Tag}}"],
        ];
        for query in queries {
            left.extend(output(Command::new("docker").args(query))?.lines().map(ToOwned::to_owned));
        }
    }
    left.sort_unstable();
    left.dedup();
    keys_below(&root.join("target/tmp/e2e"), &mut left)?;
    Ok(left)
}

fn keys_below(dir: &Path, left: &mut Vec<String>) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            keys_below(&path, left)?;
        } else if fs::read(&path).is_ok_and(|bytes| is_key(&String::from_utf8_lossy(&bytes))) {
            left.push(format!("key {}", path.display()));
        }
    }
    Ok(())
}

/// Whether a line of the text begins a private key in PEM, as no source file's does.
fn is_key(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with("PRIVATE KEY-----"))
}
