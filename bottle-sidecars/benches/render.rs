//! Benchmark of the way from a manifest's text to the Compose file's text, for the fullest topology.
//!
//! Rendering and writing YAML together should take less than 100 microseconds, so that a launch takes no longer than
//! the engine itself.

use bottle_compose::{Sidecar, render};
use bottle_plan::Manifest;
use bottle_posture::Posture;
use divan::{Bencher, black_box};

const FULLEST: &str = include_str!("../../bottle-plan/tests/good/fullest.yaml");

fn main() {
    divan::main();
}

fn manifest() -> Manifest {
    let mut manifest = Manifest::parse(FULLEST).expect("it is a good manifest");
    manifest.agents.retain(|name, _| name.as_str() == "coder");
    manifest
}

#[divan::bench]
fn parse_manifest() -> Manifest {
    Manifest::parse(black_box(FULLEST)).expect("it is a good manifest")
}

#[divan::bench]
fn plan(bencher: Bencher<'_, '_>) {
    let manifest = manifest();
    bencher.bench(|| bottle_testing::plans::plan(black_box(&manifest)));
}

#[divan::bench]
fn posture(bencher: Bencher<'_, '_>) {
    let plan = bottle_testing::plans::plan(&manifest());
    bencher.bench(|| Posture::of(black_box(&plan)).to_string());
}

#[divan::bench]
fn render_document(bencher: Bencher<'_, '_>) {
    let (plan, sidecars) = (bottle_testing::plans::fullest(), bottle_sidecars::all());
    let sidecars: Vec<&dyn Sidecar> = sidecars.iter().map(|sidecar| &**sidecar).collect();
    bencher.bench(|| render(black_box(&plan), &sidecars));
}

#[divan::bench]
fn write_yaml(bencher: Bencher<'_, '_>) {
    let (plan, sidecars) = (bottle_testing::plans::fullest(), bottle_sidecars::all());
    let sidecars: Vec<&dyn Sidecar> = sidecars.iter().map(|sidecar| &**sidecar).collect();
    let document = render(&plan, &sidecars).expect("the built-in sidecars fit each other");
    bencher.bench(|| black_box(&document).to_yaml());
}

#[divan::bench]
fn render_and_write_yaml(bencher: Bencher<'_, '_>) {
    let (plan, sidecars) = (bottle_testing::plans::fullest(), bottle_sidecars::all());
    let sidecars: Vec<&dyn Sidecar> = sidecars.iter().map(|sidecar| &**sidecar).collect();
    bencher.bench(|| render(black_box(&plan), &sidecars).map(|document| document.to_yaml()));
}
