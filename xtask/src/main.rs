//! Developer tasks, run as `cargo xtask <task>`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to its user")]

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
    /// Writes the manifest's JSON Schema, by which editors check manifests.
    Schema(schema::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Schema(arguments) => schema::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("xtask: {problem}");
            ExitCode::FAILURE
        }
    }
}
