//! On a container engine: the local one, or the one that `remote.rs` names.

use bottle_testing::lab::Lab;

use super::{Stage, git, lab_with, recovery, work};

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
