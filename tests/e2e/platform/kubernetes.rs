//! On a Kubernetes cluster.

use bottle_platform::Feature;
use bottle_testing::lab::Lab;

use super::{Stage, git, lab_with, recovery, refused, work};

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn a_bottle_is_used_in_every_way_through_the_platform() {
    work(&Stage::cluster(Lab::new("kplat")));
}

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn pushes_are_taken_or_refused_through_the_platform() {
    let (lab, key) = lab_with("kplatgit", "app,web");
    git(&Stage::cluster(lab), &key);
}

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn a_bottle_of_a_killed_launcher_is_recovered_through_the_platform() {
    recovery(&Stage::cluster(Lab::new("kplatrec")));
}

#[test]
#[ignore = "needs a Kubernetes cluster"]
fn what_the_platform_does_not_have_is_refused_with_the_reason() {
    let expected = [Feature::BoundWorkspace, Feature::EnvironmentFile, Feature::Pause];
    refused(&Stage::cluster(Lab::new("kplatno")), &expected);
}
