//! Runs a command in a bottle, on the platform of its options:
//! `cargo run -p bottle-platform --example run -- --platform kubernetes --load "kind load docker-image" -- make test`.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use bottle::deploy_keys::RehearsedForges;
use bottle::exec::engine::Exec;
use bottle::exec::{Control, RecordingBackend, Subprocess, rehearsal};
use bottle::{Bottles, Engine, EngineChoice, Host, Verify};
use bottle_kube::{BuiltImages, ImageSource, KubeBottles, Kubectl, ReadyImages};
use bottle_platform::{Cluster, Platform};
use clap::{Parser, ValueEnum};

/// Run a command in a bottle, on a container engine or a Kubernetes cluster, or print what an engine would be asked.
#[derive(Parser)]
struct Args {
    /// The platform.
    #[arg(long, value_enum, default_value = "docker")]
    platform: Kind,
    /// The Docker Engine of `--platform docker`: `ssh://user@host`, `tcp://host:2376`, `unix:///path` or `context://NAME`. Default: the local one.
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// Command that makes the images after it known to the nodes of the cluster. Without it, the nodes have them.
    #[arg(long, value_name = "COMMAND", value_delimiter = ' ')]
    load: Vec<String>,
    /// The manifest.
    #[arg(long, value_name = "FILE", default_value = "bottle.yaml")]
    manifest: PathBuf,
    /// The command. Default: the agent's own.
    #[arg(last = true)]
    command: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Docker,
    Podman,
    Kubernetes,
    Rehearse,
}

fn platform(args: &Args, host: &Host, rehearsed: &Arc<RecordingBackend>) -> Result<Box<dyn Platform>, Box<dyn Error>> {
    Ok(match (args.platform, &args.host) {
        (Kind::Docker, Some(address)) => Box::new(Bottles::docker(address)?),
        (Kind::Docker, None) => Box::new(Bottles::local()?),
        (Kind::Podman, _) => Box::new(Bottles::podman()?),
        (Kind::Rehearse, _) => {
            let engine = Engine::detect(Arc::clone(rehearsed) as _, &EngineChoice::Auto, Control::default())?;
            let bottles = Bottles::new(engine, host.clone()).with_forges(Arc::new(RehearsedForges));
            // Nothing runs that could be attacked.
            Box::new(bottles.with_verification(Verify::Off))
        }
        (Kind::Kubernetes, _) => {
            let images: Arc<dyn ImageSource> = match args.load.as_slice() {
                [] => Arc::new(ReadyImages),
                command => Arc::new(BuiltImages::new(Bottles::local()?.engine().clone(), command)),
            };
            let kubectl = Kubectl::new(Arc::new(Subprocess::new(host.environment())));
            Box::new(Cluster::new(KubeBottles::new(kubectl, images), host.clone()))
        }
    })
}

#[expect(clippy::print_stdout, reason = "a program for a person")]
fn run(args: Args) -> Result<u8, Box<dyn Error>> {
    let (host, rehearsed) = (Host::current()?, Arc::new(rehearsal()));
    let platform = platform(&args, &host, &rehearsed)?;
    let bottle = platform.launch(host.read_plan(&args.manifest, host.plan_request())?)?;
    let command = if args.command.is_empty() { bottle.agent().unwrap_or_default() } else { Exec::new(args.command) };
    let mut live = bottle.spawn(command, None)?;
    // This program gives the command nothing to read.
    drop(live.stdin());
    let (stdout, stderr) = (live.stdout(), live.stderr());
    thread::scope(|scope| {
        let errors = scope.spawn(|| stderr.map_or(Ok(0), |mut stderr| io::copy(&mut stderr, &mut io::stderr())));
        let output = stdout.map_or(Ok(0), |mut stdout| io::copy(&mut stdout, &mut io::stdout()));
        errors.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(output)
    })?;
    let status = live.wait()?;
    drop(live);
    bottle.close()?;
    for line in rehearsed.lines() {
        println!("{line}");
    }
    Ok(u8::try_from(status.as_shell_code()).unwrap_or(1))
}

#[expect(clippy::print_stderr, reason = "a program for a person")]
fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("error: {}", bottle::report(&*error));
            ExitCode::FAILURE
        }
    }
}
