//! Engine clients that outlived the launcher that started them.
//!
//! A killed launcher cannot stop its children. A `compose up` that was still pulling an image would continue and start
//! the bottle after everything was undone. Such processes are found by their command lines in `/proc`, by pairs of
//! arguments that only this library passes. On a host without `/proc` nothing is done.
//!
//! A client that creates a network is not stopped but waited for: the engine would create it all the same, after everything was
//! undone.

use std::fs;
use std::time::{Duration, Instant};

use bottle_engine::PROJECT_LABEL;
use rustix::process::{Pid, Signal};

use crate::owner::{Liveness, Owner};

/// Stops every process of this host that works on a project or builds one of the images. Those that create a network have
/// `grace` to end by themselves.
pub(crate) fn stop(project: &str, images: &[&str], grace: Duration) {
    let (creating, mut found): (Vec<_>, Vec<_>) =
        find(project, images).into_iter().partition(|(_, work)| *work == Work::Creates);
    found.extend(wait(creating, grace));
    for (owner, _) in &found {
        signal(owner, Signal::TERM);
    }
    for (owner, _) in wait(found, grace) {
        signal(&owner, Signal::KILL);
    }
}

/// The work of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// It has the engine create one object, and ends when that is there.
    Creates,
    /// It may go on for long, and gives the engine more to do.
    GoesOn,
}

/// Waits until the clients have ended, and returns those that live after the time.
fn wait(mut clients: Vec<(Owner, Work)>, time: Duration) -> Vec<(Owner, Work)> {
    let until = Instant::now() + time;
    loop {
        clients.retain(|(owner, _)| owner.liveness(true) == Liveness::Alive);
        if clients.is_empty() || Instant::now() >= until {
            return clients;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn find(project: &str, images: &[&str]) -> Vec<(Owner, Work)> {
    let project_label = format!("{PROJECT_LABEL}={project}");
    let of_project = format!("label={project_label}");
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&pid| pid != std::process::id())
        .map(Owner::of_process)
        .filter_map(|owner| {
            let command_line = fs::read(format!("/proc/{}/cmdline", owner.pid)).unwrap_or_default();
            let args: Vec<&[u8]> = command_line.split(|&byte| byte == 0).collect();
            let has =
                |option: &str, value: &str| args.windows(2).any(|pair| pair == [option.as_bytes(), value.as_bytes()]);
            let builds = |image: &&str| args.contains(&b"build".as_slice()) && has("--tag", image);
            let creates = has("--label", &project_label) && args.contains(&b"create".as_slice());
            let goes_on = (has("--project-name", project) && args.contains(&b"--project-directory".as_slice()))
                || (has("--filter", &of_project) && args.contains(&b"events".as_slice()))
                || images.iter().any(builds);
            let work = if creates { Work::Creates } else { Work::GoesOn };
            (creates || goes_on).then_some((owner, work))
        })
        .collect()
}

fn signal(owner: &Owner, signal: Signal) {
    if let Some(pid) = i32::try_from(owner.pid).ok().and_then(Pid::from_raw) {
        // The process may have ended already, or belong to another user.
        _ = rustix::process::kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clients_that_work_on_the_project_are_stopped() {
        let run = |script: &str, args: &[&str]| {
            std::process::Command::new("sh").args(["-c", script, "docker"]).args(args).spawn().unwrap()
        };
        let start = |args: &[&str]| run("while :; do sleep 1; done", args);
        let project = format!("orphan-test-{}", std::process::id());
        let (image, label) = (format!("{project}:1"), format!("{PROJECT_LABEL}={project}"));
        let mut stopped = [
            start(&["compose", "--project-name", &project, "--project-directory", "/s", "up"]),
            start(&["build", "--tag", &image, "-"]),
            start(&["events", "--filter", &format!("label={label}")]),
            start(&["network", "create", "--label", &label, "net"]),
        ];
        let mut creating = run("sleep 0.2; :", &["network", "create", "--label", &label, "net"]);
        let mut left = [
            start(&["compose", "--project-name", &format!("{project}-2"), "--project-directory", "/s", "up"]),
            start(&["logs", &project]),
            start(&["ps", "--filter", &format!("label={label}")]),
            start(&["build", "--tag", "other:1", "-"]),
        ];
        stop(&project, &[&image], Duration::from_millis(500));
        assert!(creating.wait().unwrap().success(), "the engine's answer was not waited for");
        for child in &mut stopped {
            assert!(!child.wait().unwrap().success());
        }
        for child in &mut left {
            assert_eq!(child.try_wait().unwrap(), None);
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
