//! Cached images and state that nothing uses.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bottle::Bottles;
use bottle::exec::engine::{Build, BuildContext, ObjectKind};
use bottle::plan::{LabelKey, Prefix, Service, StateRoot};
use bottle::sidecars::seal;
use bottle_testing::lab::{engine, host};

use super::Place;

/// Images under a prefix that no other test has. All of them are removed in the end.
struct Images {
    site: Bottles,
    prefix: Prefix,
    dir: PathBuf,
    tags: Vec<String>,
}

impl Images {
    fn new(place: &Place) -> Self {
        let prefix: Prefix = format!("bpr-{}", std::process::id()).parse().unwrap();
        let site =
            Bottles::new(engine(), host()).with_prefix(prefix.clone()).with_state_root(StateRoot::at(place.state()));
        let dir = place.root.path().join("context");
        std::fs::create_dir(&dir).unwrap();
        Self { site, prefix, dir, tags: Vec::new() }
    }

    /// Builds an image of its own content, with the label of a context.
    fn build(&mut self, name: &str, hash: &str, context: Option<&str>) -> String {
        let tag = format!("{}-{name}:{hash}", self.prefix);
        std::fs::write(self.dir.join("Dockerfile"), "FROM debian:trixie-slim\nARG TAG\nLABEL tag=$TAG\n").unwrap();
        let mut build = Build::new(&tag, BuildContext::Directory(self.dir.clone()));
        build.args = BTreeMap::from([("TAG".to_owned(), tag.as_str().into())]);
        build.labels = context.map(|it| (LabelKey::Context.under(&self.prefix), it.to_owned())).into_iter().collect();
        engine().build(&build).unwrap();
        self.tags.push(tag.clone());
        tag
    }
}

fn is_there(tag: &str) -> bool {
    engine().exists(ObjectKind::Image, tag).unwrap()
}

impl Drop for Images {
    fn drop(&mut self) {
        let container = format!("{}-user", self.prefix);
        let _ = engine().remove(ObjectKind::Container, &container);
        for tag in &self.tags {
            let _ = engine().remove(ObjectKind::Image, tag);
        }
    }
}

#[test]
#[ignore = "needs a container engine"]
fn prune_removes_stale_images_and_closed_state_and_nothing_that_is_used() {
    let place = Place::new();
    let mut images = Images::new(&place);
    let current = seal::CONTEXT.content_hash(&BTreeMap::new());
    let stale = [
        images.build("egress", "00000000000000e1", Some("an older version")),
        images.build("agent", "00000000000000a1", Some("an older version")),
    ];
    let used = images.build("git-gate", "00000000000000f1", Some("an older version"));
    let derived_from = images.build("agent", "00000000000000a2", Some("an older version"));
    let current = images.build("seal", "00000000000000c1", Some(&current));
    let unlabelled = images.build("egress", "00000000000000e2", None);
    let stranger = images.build("other", "00000000000000e3", Some("an older version"));
    engine().create_container(&format!("{}-user", images.prefix), &used, &BTreeMap::new()).unwrap();
    let derived = format!("{}-workspace:prune", images.prefix);
    let making = format!("{}-making", images.prefix);
    engine().create_container(&making, &derived_from, &BTreeMap::new()).unwrap();
    engine().commit_container(&making, &derived).unwrap();
    engine().remove(ObjectKind::Container, &making).unwrap();
    images.tags.push(derived.clone());

    // One bottle that is closed and one that has something left to undo.
    let bottle = |slug: &str, status: &str, undo: &str| {
        let dir = place.state().join(slug);
        std::fs::create_dir_all(dir.join(Service::Agent.as_str())).unwrap();
        let journal = format!(
            r#"{{"slug": "{slug}", "prefix": "{}", "agent": "dev", "version": "0.0.1", "created": "", "owner": "1:-:-",
            "status": "{status}", "project": "p", "engine": "docker", "undo": [{undo}]}}"#,
            images.prefix
        );
        std::fs::write(dir.join("metadata.json"), journal).unwrap();
        std::fs::write(dir.join("compose.log"), [b'x'; 1000]).unwrap();
        dir
    };
    let closed = bottle("closed", "closed", "");
    let closing = bottle("closing", "closing", r#"{"kind": "remove_network", "name": "n"}"#);
    let ready = bottle("ready", "ready", "");

    let planned = images.site.prunable().unwrap();
    let names = |all: &[bottle::Pruned]| all.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
    let mut expected = stale.to_vec();
    expected.sort();
    let mut found = names(&planned.images);
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(names(&planned.states), [closed.display().to_string()]);
    assert!(planned.states[0].bytes > 1000 && planned.bytes() > 2 << 20, "{planned:?}");
    assert!(images.tags.iter().all(|tag| is_there(tag)) && closed.exists(), "a preview removes nothing");

    // A launch in another process shares the lock until its containers exist.
    let lock = StateRoot::at(place.state()).images_lock();
    std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
    let mut launching =
        std::process::Command::new("flock").args(["--shared", lock.to_str().unwrap(), "sleep", "2"]).spawn().unwrap();
    while std::process::Command::new("flock")
        .args(["--nonblock", lock.to_str().unwrap(), "true"])
        .status()
        .unwrap()
        .success()
    {
        assert!(launching.try_wait().unwrap().is_none(), "the lock was never held");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let started = std::time::Instant::now();
    let pruned = images.site.prune().unwrap();
    assert!(started.elapsed() > std::time::Duration::from_secs(1), "it waited for the launch");
    launching.wait().unwrap();
    assert_eq!(pruned, planned);
    assert!(stale.iter().all(|tag| !is_there(tag)) && !closed.exists());
    for tag in [&used, &derived_from, &derived, &current, &unlabelled, &stranger] {
        assert!(is_there(tag), "{tag} was removed");
    }
    assert!(closing.exists() && ready.exists());
    let again = images.site.prune().unwrap();
    assert!(again.images.is_empty() && again.states.is_empty() && again.problems.is_empty(), "{again:?}");
}
