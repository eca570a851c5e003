//! Many bottles at once, and the subnets that they share.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;

use bottle::Bottle;
use bottle::launch::LaunchCause;
use bottle::plan::value::{Subnet, Subnets};
use bottle::plan::{BottlePlan, Slug};
use bottle_testing::lab::{self, Lab, docker};

/// More than an engine with its default address pools has room for.
const MANY: usize = 24;

/// Most launches at the same time.
const AT_ONCE: usize = 8;

/// Returns the plan of a small bottle, whose networks get their subnets at the launch.
fn small(lab: &Lab, slug: &str) -> BottlePlan {
    let manifest = lab.manifest("workspace: {mode: none}", "");
    let line = manifest.lines().find(|line| line.trim_start().starts_with("networks:")).unwrap().to_owned();
    let mut plan = lab.plan_of(&manifest.replace(&format!("{line}\n"), ""));
    let slug: Slug = slug.parse().unwrap();
    plan.names = bottle::plan::Names::new(plan.names.prefix().clone(), slug);
    plan
}

/// Returns the subnets of the bottle's two networks.
fn subnets(bottle: &Bottle) -> [Subnet; 2] {
    [bottle.names().internal_network(), bottle.names().egress_network()].map(|network| {
        let found = docker(["network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", &network]);
        found.stdout.trim().parse().unwrap()
    })
}

#[test]
#[ignore = "needs a container engine"]
fn more_bottles_are_alive_at_once_than_the_engine_has_subnets_for() {
    let lab = Lab::new("many");
    // Two state roots share the pool, as two users would.
    let roots = ["one", "two"].map(|name| bottle::plan::StateRoot::at(lab.root.path().join(name)));
    let (next, alive) = (Mutex::new(0..MANY), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(number) = next.lock().unwrap().next() else { return };
                    let options = lab.options().with_state_root(roots[number % 2].clone());
                    let plan = small(&lab, &format!("{}-{number}", lab.slug));
                    let bottle = options.launch(plan).unwrap_or_else(|error| panic!("{}", bottle::report(&error)));
                    alive.lock().unwrap().push(bottle);
                }
            });
        }
    });
    let bottles = alive.into_inner().unwrap();
    assert_eq!(bottles.len(), MANY);
    let mut seen: BTreeSet<Subnet> = BTreeSet::new();
    let pool = Subnets::default();
    for bottle in &bottles {
        assert_eq!(lab::sh(bottle, "id -un").stdout, "agent\n");
        for subnet in subnets(bottle) {
            assert!(subnet.prefix_len() == 28 && pool.overlaps(subnet), "{subnet}");
            assert!(seen.insert(subnet), "{subnet} is of two bottles");
        }
    }
    let slugs: Vec<String> = bottles.iter().map(|bottle| bottle.slug().to_string()).collect();
    for bottle in bottles {
        let report = bottle.close().unwrap_or_else(|error| error.report);
        assert!(report.is_clean(), "{report}");
    }
    for slug in slugs {
        let filter = format!("label=claude-bottle.slug={slug}");
        for kind in [["ps", "--all", "--quiet"].as_slice(), &["network", "ls", "--quiet"], &["volume", "ls", "--quiet"]]
        {
            let left = docker(kind.iter().copied().chain(["--filter", filter.as_str()])).stdout;
            assert_eq!(left, "", "docker {kind:?} still shows something of {slug}");
        }
    }
}

#[test]
#[ignore = "needs a container engine"]
fn a_pool_without_a_free_subnet_is_an_error_that_leaves_nothing() {
    let lab = Lab::new("used-up");
    let options = lab.options().with_subnets("10.219.83.0/27".parse().unwrap());
    let first = options.launch(small(&lab, &lab.slug)).unwrap_or_else(|error| panic!("{}", bottle::report(&error)));
    let mut taken = subnets(&first).map(|subnet| subnet.to_string());
    taken.sort();
    assert_eq!(taken, ["10.219.83.0/28", "10.219.83.16/28"]);
    let second = format!("{}-2", lab.slug);
    let error = options.launch(small(&lab, &second)).unwrap_err();
    assert!(matches!(*error.cause, LaunchCause::NoSubnet { .. }), "{}", bottle::report(&error));
    assert!(bottle::report(&error).to_string().contains("`--subnets`"));
    let left = docker(["network", "ls", "--quiet", "--filter", &format!("label=claude-bottle.slug={second}")]);
    assert_eq!(left.stdout, "");
    let third = lab.options().with_subnets(Subnets::Engine).launch(small(&lab, &second)).unwrap();
    assert_eq!(lab::sh(&third, "id -un").stdout, "agent\n");
    third.close().unwrap();
    lab.close(&first);
}
