//! Many bottles at once, and the subnets that they share.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;

use std::path::Path;

use bottle::launch::LaunchCause;
use bottle::plan::value::{Subnet, Subnets};
use bottle::plan::{BottlePlan, PlanRequest, StateRoot};
use bottle::{Bottle, Bottles, Manifest};
use bottle_fleet::Fleet;
use bottle_testing::lab::{self, docker, figure, pipelock_image, scratch};

/// More than an engine with its default address pools has room for.
const MANY: usize = 24;

/// Most launches at the same time.
const AT_ONCE: usize = 8;

fn site(state: &Path) -> Bottles {
    Bottles::new(lab::engine(), lab::host())
        .with_prefix("bottle-scale".parse().unwrap())
        .with_state_root(StateRoot::at(state))
}

/// Returns the plan of a small bottle.
fn small(site: &Bottles, slug: &str) -> BottlePlan {
    let image = pipelock_image();
    let text = format!(
        "bottles: {{lab: {{workspace: {{mode: none}}, images: {{pipelock: '{image}'}}}}}}\nagents: {{tester: {{bottle: lab, command: [id]}}}}"
    );
    Manifest::parse(&text).unwrap().plan(PlanRequest::from(site).with_slug(slug.parse().unwrap())).unwrap()
}

/// Asserts that the engine has nothing of a bottle.
fn nothing_is_left(slug: &str) {
    let filter = format!("label=bottle-scale.slug={slug}");
    for kind in [["ps", "--all", "--quiet"].as_slice(), &["network", "ls", "--quiet"], &["volume", "ls", "--quiet"]] {
        let left = docker(kind.iter().copied().chain(["--filter", filter.as_str()])).stdout;
        assert_eq!(left, "", "docker {kind:?} still shows something of {slug}");
    }
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
    let root = tempfile::Builder::new().prefix("many-").tempdir_in(scratch()).unwrap();
    // Two state roots share the pool, as two users would.
    let sites = ["one", "two"].map(|name| site(&root.path().join(name)));
    let (next, alive) = (Mutex::new(0..MANY), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(number) = next.lock().unwrap().next() else { return };
                    let site = &sites[number % 2];
                    let bottle = site
                        .launch(small(site, &format!("many-{number}")))
                        .unwrap_or_else(|error| panic!("{}", bottle::report(&error)));
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
    for slug in &slugs {
        nothing_is_left(slug);
    }
}

#[test]
#[ignore = "needs a container engine"]
fn a_pool_without_a_free_subnet_is_an_error_that_leaves_nothing() {
    let root = tempfile::Builder::new().prefix("used-up-").tempdir_in(scratch()).unwrap();
    let site = site(root.path());
    let one_pool = site.clone().with_subnets("10.219.83.0/27".parse().unwrap());
    let first = one_pool.launch(small(&site, "used-up-1")).unwrap_or_else(|error| panic!("{}", bottle::report(&error)));
    let mut taken = subnets(&first).map(|subnet| subnet.to_string());
    taken.sort();
    assert_eq!(taken, ["10.219.83.0/28", "10.219.83.16/28"]);
    let error = one_pool.launch(small(&site, "used-up-2")).unwrap_err();
    assert!(matches!(*error.cause, LaunchCause::NoSubnet { .. }), "{}", bottle::report(&error));
    assert!(bottle::report(&error).to_string().contains("`--subnets`"));
    nothing_is_left("used-up-2");
    let third = site.clone().with_subnets(Subnets::Engine).launch(small(&site, "used-up-2")).unwrap();
    assert_eq!(lab::sh(&third, "id -un").stdout, "agent\n");
    for bottle in [third, first] {
        bottle.close().unwrap();
        nothing_is_left(bottle.slug().as_str());
    }
}

/// The pool has room for two bottles at once.
#[test]
#[ignore = "needs a container engine"]
fn a_fleet_queues_the_jobs_for_which_the_engine_has_no_room() {
    const JOBS: usize = 5;
    let root = tempfile::Builder::new().prefix("fleet-").tempdir_in(scratch()).unwrap();
    let site = site(root.path()).with_subnets("10.219.84.0/26".parse().unwrap());
    let jobs: Vec<BottlePlan> = (0..JOBS).map(|number| small(&site, &format!("fleet-{number}"))).collect();
    let fleet = Fleet::default().with_launches(2).with_alive(3);
    let report = fleet.run(&site, &jobs, |plan, bottle| {
        let ran = lab::sh(bottle, &format!("echo {}", plan.names.slug())).stdout;
        assert_eq!(ran.trim(), plan.names.slug().as_str());
    });
    figure(format_args!("{report}"));
    assert_eq!(report.done(), JOBS, "{report:?}");
    assert!(report.jobs.iter().any(|job| job.refusals > 0), "a third bottle had to wait: {report:?}");
    for plan in &jobs {
        nothing_is_left(plan.names.slug().as_str());
    }
}
