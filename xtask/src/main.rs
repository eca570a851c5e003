//! Developer tasks, run as `cargo xtask <task>`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to its user")]

mod bench;
mod check;
mod e2e;
mod fuzz;
mod process;
mod schema;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer tasks.
#[derive(Debug, Parser)]
#[command(name = "xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run everything that must pass.
    Ci,
    /// Measure the pure part, and a launch beside the bare `docker compose` of the same file.
    Bench(bench::Arguments),
    /// Check what no compiler checks: sizes of crates, dependencies, circles of modules, words.
    Check,
    /// Run the end-to-end tests against a real container engine, and look whether anything is left.
    E2e(e2e::Arguments),
    /// Follow generated and mutated manifests and plans through every renderer, and fail at a panic.
    Fuzz(fuzz::Arguments),
    /// Write the manifest's JSON Schema, by which editors check manifests.
    Schema(schema::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Ci => process::checked(&mut std::process::Command::new(process::root().join(".ci/run"))),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Check => check::run(),
        Task::E2e(arguments) => e2e::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Schema(arguments) => schema::run(&arguments).map_err(Into::into),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}
