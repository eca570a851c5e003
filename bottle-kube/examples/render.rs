//! Writes a bottle as a directory for `kubectl apply -k`, without a cluster and an engine:
//! `cargo run -p bottle-kube --example render -- --registry registry.example.com/agents --addresses 10.43.240.0/28 DIR`.
#![expect(clippy::print_stdout, reason = "a program for a person")]

use std::error::Error;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bottle::Host;
use bottle::exec::Subprocess;
use bottle::plan::value::Subnet;
use bottle_kube::{KubeBottles, KubeInputs, Kubectl, NamedImages};
use clap::Parser;

/// Write a bottle as a directory for `kubectl apply -k`.
#[derive(Parser)]
struct Args {
    /// The manifest.
    #[arg(long, value_name = "FILE", default_value = "bottle.yaml")]
    manifest: PathBuf,
    /// The registry, and a path in it, that has the bottle's images.
    #[arg(long)]
    registry: String,
    /// Addresses for the bottle's Services: a part of the cluster's range that is free.
    #[arg(long, value_name = "CIDR")]
    addresses: Subnet,
    /// The directory, which is created.
    dir: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let host = Host::current()?;
    let cluster = Kubectl::new(Arc::new(Subprocess::new(host.environment())));
    let bottles = KubeBottles::new(cluster, Arc::new(NamedImages { registry: args.registry }));
    let plan = host.read_plan(&args.manifest, host.plan_request())?;
    let value = |name: &str| host.variable(name).and_then(|value| value.to_str().map(ToOwned::to_owned));
    let inputs = KubeInputs::read(&plan, value)?;
    let files = bottles.directory(plan, &inputs, args.addresses)?;
    std::fs::create_dir(&args.dir)?;
    for (name, file) in &files {
        let path = args.dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(&args.dir))?;
        // A secret belongs to its owner alone.
        let mode = if file.is_secret { 0o600 } else { 0o644 };
        let mut new = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        new.write_all(file.content.expose().as_bytes())?;
    }
    println!("{} files; next: kubectl apply -k {}", files.len(), args.dir.display());
    Ok(())
}
