//! Large repositories, and simultaneous pushes.

use std::process::Command;
use std::time::Duration;

use bottle::Bottle;
use bottle::exec::engine::Exec;
use bottle::plan::{Names, Prefix};

use super::{git_section, lab_with, launch, options, ssh_upstream};
use bottle_testing::lab::{Finished, Lab, OUTSIDE, docker, figure, run, sh};

/// Runs a shell script as the agent, with more time than usual.
fn patiently(bottle: &Bottle, script: &str) -> Finished {
    let exec = Exec::new(["sh", "-ec", script]).with_timeout(Duration::from_secs(400));
    let output = bottle.exec(exec).unwrap();
    Finished {
        code: output.status.as_shell_code(),
        stdout: output.stdout.text(),
        stderr: output.stderr.text(),
        duration: output.duration,
    }
}

const FIFTY_MEGABYTES: &str = "mkdir -p more; for n in $(seq 50); do head -c 1000000 /dev/urandom > more/$n; done; \
                               git add more; git commit -qm more";

#[test]
#[ignore = "needs a container engine"]
fn a_large_repository_and_a_large_push_take_bounded_time() {
    let (lab, key) = lab_with("large", "big");
    lab.outside.as_git(
        "git clone -q big.git /tmp/seed; cd /tmp/seed; mkdir data; for n in $(seq 200); do head -c 1000000 /dev/urandom > data/$n; done; \
         git add .; git -c user.name=o -c user.email=o@outside.test commit -qm data; git push -q origin HEAD:main; rm -rf /tmp/seed; \
         git -C /srv/git/big.git gc -q",
    );
    let bottle = launch(&lab, &git_section(&ssh_upstream(&lab, "big", &key, "")));
    let url = format!("git@{OUTSIDE}:big.git");

    // The same git with the key, directly in the outside host's network.
    let direct = Direct::start(&lab, &bottle, &key);
    let direct_clone = direct.run(&format!("git clone -q ssh://git@{OUTSIDE}/big.git /tmp/big"));
    direct.run(&format!("cd /tmp/big; {FIFTY_MEGABYTES}"));
    let direct_push = direct.run("cd /tmp/big; git push -q origin HEAD:direct");

    let first = patiently(&bottle, &format!("cd /tmp; git clone -q {url} big"));
    assert_eq!((first.code, sh(&bottle, "ls /tmp/big/data | wc -l").ok()), (0, "200"), "{first:?}");
    let second = patiently(&bottle, &format!("cd /tmp; git clone -q {url} again; rm -rf again"));
    second.ok();
    patiently(&bottle, &format!("cd /tmp/big; {FIFTY_MEGABYTES}")).ok();
    let push = patiently(&bottle, "cd /tmp/big; git push -q origin HEAD:agent");
    push.ok();
    let (inside, outside) =
        (sh(&bottle, "git -C /tmp/big rev-parse HEAD"), lab.outside.as_git("git -C big.git rev-parse agent"));
    assert_eq!(inside.ok(), outside.trim());

    figure(format_args!(
        "clone of 200 MB: direct {:.1?}, first through git-gate {:.1?}, second {:.1?}; push of 50 MB: direct {:.1?}, through git-gate {:.1?}",
        direct_clone.duration, first.duration, second.duration, direct_push.duration, push.duration
    ));
    // Git-gate fetches into its mirror and serves from there. It unpacks and scans each push.
    let slowest = Duration::from_secs(30);
    assert!(first.duration < direct_clone.duration * 6 + slowest, "{first:?}");
    assert!(push.duration < direct_push.duration * 20 + slowest, "{push:?}");
    drop(direct);
    lab.close(&bottle);
}

/// A container with the agent's own git that reaches the outside host directly.
struct Direct(String);

impl Direct {
    fn start(lab: &Lab, bottle: &Bottle, key: &std::path::Path) -> Self {
        let container = format!("bottle-e2e-direct-{}", lab.slug);
        let format = "{{.Config.Image}}";
        let gate = bottle.names().container(bottle::plan::Service::GitGate);
        let image = docker(["inspect", "--format", format, &gate]).stdout;
        let mount = format!("{}:/key:ro", key.display());
        docker([
            "run",
            "--detach",
            "--init",
            "--name",
            &container,
            "--network",
            lab.outside.network(),
            "--volume",
            &mount,
            "--user",
            "0",
            "--add-host",
            &format!("{OUTSIDE}:{}", lab.outside.address(lab.outside.network())),
            "--env",
            "GIT_SSH_COMMAND=ssh -i /key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
            "--entrypoint",
            "sleep",
            image.trim(),
            "infinity",
        ]);
        let this = Self(container);
        this.run("git config --global user.name Direct; git config --global user.email direct@bottle.test");
        this
    }

    #[track_caller]
    fn run(&self, script: &str) -> Finished {
        docker(["exec", &self.0, "sh", "-ec", script])
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        run(Command::new("docker").args(["rm", "--force", &self.0]));
    }
}

#[test]
#[ignore = "needs a container engine"]
fn two_bottles_that_push_at_once_lose_no_commit() {
    const ROUNDS: usize = 5;
    let (lab, key) = lab_with("race", "app");
    let first = lab.plan(&git_section(&ssh_upstream(&lab, "app", &key, "")), "");
    let mut second = first.clone();
    second.names = Names::new(Prefix::default(), format!("{}-2", lab.slug).parse().unwrap());
    // Git-gate connects to its remotes directly, so any subnet works.
    second.networks.egress_subnet = None;
    let bottles = [first, second].map(|plan| {
        let bottle = options(&lab).launch(plan).unwrap_or_else(|error| panic!("{error}"));
        lab.outside.connect(&bottle.names().egress_network());
        sh(&bottle, &format!("git clone -q git@{OUTSIDE}:app.git /tmp/app")).ok();
        bottle
    });
    let mut refusals = Vec::new();
    for round in 0..ROUNDS {
        for (number, bottle) in bottles.iter().enumerate() {
            let commit = format!(
                "set -e; cd /tmp/app; git fetch -q; git reset -q --hard origin/main; echo {round} > {number}-{round}; git add .; \
                 git commit -qm 'round {round} bottle {number}'"
            );
            sh(bottle, &commit).ok();
        }
        let pushed = std::thread::scope(|scope| {
            let pushing =
                bottles.each_ref().map(|bottle| scope.spawn(|| sh(bottle, "cd /tmp/app && git push origin HEAD:main")));
            pushing.map(|push| push.join().unwrap())
        });
        let winners = pushed.iter().filter(|push| push.code == 0).count();
        assert_eq!(winners, 1, "round {round}: {pushed:?}");
        for (bottle, push) in bottles.iter().zip(&pushed).filter(|(_, push)| push.code != 0) {
            assert!(
                push.stderr.contains("rejected")
                    && (push.stderr.contains("fetch first") || push.stderr.contains("non-fast-forward")),
                "{push:?}"
            );
            refusals.push(if push.stderr.contains("git-gate refused") { "git-gate" } else { "git" });
            sh(bottle, "set -e; cd /tmp/app; git pull -q --rebase origin main; git push -q origin HEAD:main").ok();
        }
    }
    println!("who refused: {refusals:?}");
    let subjects = lab.outside.as_git("git -C app.git log --format=%s main");
    for round in 0..ROUNDS {
        for number in 0..2 {
            let subject = format!("round {round} bottle {number}");
            assert_eq!(subjects.lines().filter(|line| **line == subject).count(), 1, "{subject}: {subjects}");
        }
    }
    for bottle in bottles {
        lab.close(&bottle);
    }
}
