//! Developer tasks, run as `cargo xtask <task>`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to its user")]

mod bench;
mod check;
mod e2e;
mod kubernetes;
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
    /// Measure the pure part, and a launch compared with plain `docker compose` of the same file.
    Bench(bench::Arguments),
    /// Check crate sizes, dependencies between crates, import circles and banned phrases.
    Check,
    /// Run the end-to-end tests against a real container engine, and check that nothing is left behind.
    E2e(e2e::Arguments),
    /// Run generated and mutated manifests and plans through every renderer, and fail on a panic.
    #[command(disable_help_flag = true)]
    Fuzz {
        /// `--help` for all of them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Write the schema of the objects that a bottle has on a cluster, from the cluster of kubectl's current context.
    KubernetesSchema(kubernetes::Arguments),
    /// Write the generated files: the manifest's JSON Schema, and the grammars that the sidecars load.
    Schema(schema::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Ci => process::checked(&mut std::process::Command::new(process::root().join(".ci/run"))),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Check => check::run(),
        Task::E2e(arguments) => e2e::run(&arguments),
        Task::Fuzz { arguments } => {
            let mut cargo = std::process::Command::new(env!("CARGO"));
            cargo.current_dir(process::root()).args([
                "run",
                "--quiet",
                "--package",
                "xtask",
                "--example",
                "fuzz",
                "--",
            ]);
            process::checked(cargo.args(arguments))
        }
        Task::KubernetesSchema(arguments) => kubernetes::run(&arguments),
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
