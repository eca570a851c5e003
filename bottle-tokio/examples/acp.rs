//! Launches an agent that speaks the Agent Client Protocol, for an editor: `acp --manifest bottle.yaml [-- COMMAND...]`.
//!
//! Standard input and output are the agent's own. Its standard error, and errors of the launch, go to standard error. The bottle
//! is removed when the agent ends, ten seconds after standard input ends, or on SIGTERM, SIGINT or SIGHUP.
//!
//! For Claude Code and Codex, COMMAND is an adapter in the workspace or the image: `node DIR/claude-agent-acp/dist/index.js` of
//! the npm package `@zed-industries/claude-agent-acp`, or the program of `@zed-industries/codex-acp`.
#![expect(clippy::print_stderr, reason = "a program")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bottle::prelude::{Exec, Host};
use bottle::report;
use bottle_tokio::Bottles;
use clap::Parser;
use tokio::io::{AsyncWriteExt as _, copy, stderr, stdin, stdout};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Time that the agent has to end after its standard input.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Launch an agent that speaks ACP in a bottle.
#[derive(Parser)]
struct Args {
    /// The manifest, with one agent.
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// Command to run in place of the agent's own.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

fn main() -> ExitCode {
    let runtime = match Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("failed to start a runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(Args::parse())) {
        Ok(status) => {
            // A thread may still read standard input.
            runtime.shutdown_background();
            ExitCode::from(status)
        }
        Err(error) => {
            eprintln!("{}", report(&*error));
            // What is left of a bottle is removed meanwhile.
            runtime.shutdown_timeout(Duration::from_secs(30));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<u8, Box<dyn std::error::Error>> {
    let (mut term, mut int, mut hup) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
    let stopped = async {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = hup.recv() => {}
        }
    };
    tokio::pin!(stopped);
    let host = Host::current()?;
    let plan = host.read_plan(&args.manifest, host.plan_request())?;
    let command = if args.command.is_empty() { bottle::agent_command(&plan) } else { Exec::new(args.command) };
    let bottles = Bottles::new(bottle::Bottles::local()?);
    let bottle = tokio::select! {
        bottle = bottles.launch(plan) => bottle?,
        () = &mut stopped => return Err("run the agent: stopped by a signal".into()),
    };
    let mut child = bottle.spawn(command, None).await?;
    let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut input), Some(mut output), Some(mut errors)) = streams else {
        return Err("run the agent: it has no streams".into());
    };
    let asked = tokio::spawn(async move {
        let ended = copy(&mut stdin(), &mut input).await;
        let _ = input.shutdown().await;
        match ended {
            Ok(_) => tokio::time::sleep(LAST_WORDS).await,
            // The agent reads no more, but may still answer.
            Err(_) => std::future::pending().await,
        }
    });
    let said = tokio::spawn(async move { copy(&mut errors, &mut stderr()).await });
    let answered = async {
        // An editor that is gone closes its end. The agent is then stopped.
        let _ = copy(&mut output, &mut stdout()).await;
        stdout().flush().await
    };
    tokio::select! {
        _ = answered => {}
        _ = asked => child.kill().await?,
        () = &mut stopped => child.kill().await?,
    }
    let status = tokio::time::timeout(Duration::from_secs(5), child.wait()).await;
    said.abort();
    drop(child);
    bottle.close().await?;
    Ok(status.map_or(Ok(143), |status| status.map(|status| u8::try_from(status.as_shell_code()).unwrap_or(1)))?)
}
