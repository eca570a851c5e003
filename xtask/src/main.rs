//! Developer tasks: `cargo xtask e2e`.
#![expect(clippy::print_stderr, reason = "a program's output")]

mod e2e;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer tasks.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run the end-to-end tests against a real container engine, and look whether anything is left.
    E2e(e2e::Args),
}

fn main() -> ExitCode {
    let result = match Args::parse().task {
        Task::E2e(args) => e2e::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
