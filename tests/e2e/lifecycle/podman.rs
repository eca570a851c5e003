//! Podman without root, or an old one: supported operations work, and a launch is refused before anything is created.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use bottle::exec::engine::{Capability, CopyMethod, Filter, Flavour, NewNetwork, ObjectKind};
use bottle::exec::{Control, Stdin, Subprocess};
use bottle::{Engine, EngineChoice};

use super::{FULL, Place, SMALL, host_with_token, options, plan};
use bottle_testing::lab::{not_run, run};

fn podman() -> Engine {
    if run(Command::new("sh").args(["-c", "command -v podman"])).code != 0 {
        not_run("needs podman");
    }
    let backend = Arc::new(Subprocess::new(host_with_token().environment().collect::<Vec<_>>()));
    Engine::detect(backend, &EngineChoice::Program("podman".into()), Control::default()).unwrap()
}

#[test]
#[ignore = "needs podman"]
fn a_launch_on_podman_is_refused_with_the_reason_before_anything_is_created() {
    let engine = podman();
    println!("{}", engine.info());
    assert_eq!(engine.info().flavour, Flavour::Podman);
    if engine.require(&Capability::ComposeWait).is_ok() {
        not_run("needs podman before 5.4, or without root");
    }
    for topology in [SMALL, FULL] {
        let place = Place::new();
        let error = options(engine.clone(), &place.state()).launch(plan(topology, "podman")).unwrap_err();
        let text = bottle::report(&error).to_string();
        assert!(text.contains("podman") && text.contains("does not offer"), "{text}");
        println!("{text}");
        assert!(error.teardown.is_none() && !place.state().exists(), "nothing is made");
    }
}

#[test]
#[ignore = "needs podman and the image debian:trixie-slim in its store"]
fn networks_images_and_copies_work_with_podman() {
    let engine = podman();
    let labels = BTreeMap::from([("bottle-life".to_owned(), "podman".to_owned())]);
    let network = NewNetwork {
        name: "bottle-life-podman".into(),
        internal: true,
        labels: labels.clone(),
        subnet: Some("198.18.91.0/28".into()),
        ..NewNetwork::default()
    };
    engine.create_network(&network).unwrap();
    let info = engine.network(&network.name).unwrap();
    let mine = Filter::LabelValue("bottle-life".into(), "podman".into());
    let listed = engine.list(ObjectKind::Network, &mine);
    assert!(engine.remove(ObjectKind::Network, &network.name).unwrap());
    assert!(!engine.remove(ObjectKind::Network, &network.name).unwrap(), "it is gone already");
    let info = info.unwrap();
    assert_eq!((info.internal, info.subnets, info.labels), (true, vec!["198.18.91.0/28".to_owned()], labels.clone()));
    assert_eq!(listed.unwrap().len(), 1);

    let (container, image) = ("bottle-life-podman", "localhost/bottle-life-podman:1");
    let leftovers = Leftovers { engine: &engine, container, image };
    engine.create_container(container, "debian:trixie-slim", &labels).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o640);
    header.set_uid(1234);
    header.set_gid(1234);
    let mut stream = tar::Builder::new(Vec::new());
    stream.append_data(&mut header, "file", b"hello".as_slice()).unwrap();
    let stream = Stdin::Bytes(stream.into_inner().unwrap());
    engine.cp_in(container, "/srv", stream, CopyMethod::Engine, None).unwrap();
    let out = tempfile::NamedTempFile::new().unwrap();
    engine.cp_out(container, "/srv/file", out.path(), CopyMethod::Engine, None).unwrap();
    let mut archive = tar::Archive::new(out.reopen().unwrap());
    let entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.header().mode().unwrap() & 0o777, 0o640);
    // Podman's copy changes the owner to root, so the owner is checked in the container's file system.
    let root = run(Command::new("podman").args(["mount", container]));
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("{}/srv/file", root.ok())).unwrap());
    run(Command::new("podman").args(["umount", container])).ok();
    assert_eq!(owner, 1234);
    engine.commit_container(container, image).unwrap();
    assert!(engine.exists(ObjectKind::Image, image).unwrap());
    assert_eq!(engine.list(ObjectKind::Container, &mine).unwrap()[0].name, container);
    assert_eq!(engine.list(ObjectKind::Image, &mine).unwrap()[0].name, image);
    drop(leftovers);
    assert!(!engine.exists(ObjectKind::Container, container).unwrap());
    assert!(!engine.exists(ObjectKind::Image, image).unwrap());
}

/// Objects that are removed even if the test fails.
struct Leftovers<'a> {
    engine: &'a Engine,
    container: &'a str,
    image: &'a str,
}

impl Drop for Leftovers<'_> {
    fn drop(&mut self) {
        _ = self.engine.remove(ObjectKind::Container, self.container);
        _ = self.engine.remove(ObjectKind::Image, self.image);
    }
}
