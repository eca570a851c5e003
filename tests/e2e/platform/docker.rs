//! On a container engine: the local one, or the one that `remote.rs` names.

use bottle_platform::Feature;
use bottle_testing::lab::{Lab, engine};

use super::{Stage, git, lab_with, recovery, refused, work};

#[test]
#[ignore = "needs a container engine"]
fn a_bottle_is_used_in_every_way_through_the_platform() {
    work(&Stage::engine(Lab::new("plat")));
}

#[test]
#[ignore = "needs a container engine"]
fn pushes_are_taken_or_refused_through_the_platform() {
    let (lab, key) = lab_with("platgit", "app,web");
    git(&Stage::engine(lab), &key);
}

#[test]
#[ignore = "needs a container engine"]
fn a_bottle_of_a_killed_launcher_is_recovered_through_the_platform() {
    recovery(&Stage::engine(Lab::new("platrec")));
}

#[test]
#[ignore = "needs a container engine"]
fn what_the_platform_does_not_have_is_refused_with_the_reason() {
    let remote = [Feature::BoundWorkspace, Feature::EnvironmentFile, Feature::ForwardedVariables];
    let expected = match () {
        () if !engine().info().capabilities().local_files => &remote[..],
        () if engine().is_podman() => &[Feature::EnvironmentFile],
        () => &[],
    };
    refused(&Stage::engine(Lab::new("platno")), expected);
}
