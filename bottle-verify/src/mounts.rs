//! The mounts of the agent's container, as its own kernel lists them.
//!
//! The engine describes the mounts that it made. One that somebody made later in the container's mount namespace is seen
//! from inside alone.

use std::collections::BTreeSet;
use std::path::Path;

use crate::expected::Expected;
use crate::facts::{Facts, keys};
use crate::planned::PlannedMount;
use crate::report::Probe;

/// Mount points of the engines themselves.
const OF_ENGINE: [&str; 11] = [
    "/",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/dev/init",
    "/run/.containerenv",
    "/run/podman-init",
    "/run/secrets",
    "/sbin/docker-init",
    "/usr/bin/docker-init",
    "/usr/sbin/docker-init",
];

/// Mount points below `/dev`. An engine without privileges binds the devices of its host.
const DEVICES: [&str; 12] = [
    "/dev",
    "/dev/console",
    "/dev/full",
    "/dev/mqueue",
    "/dev/null",
    "/dev/pts",
    "/dev/random",
    "/dev/shm",
    "/dev/tty",
    "/dev/urandom",
    "/dev/zero",
    "/dev/ptmx",
];

/// File systems of the kernel, which the engines mount below `/proc` and `/sys`. They hide a path there
/// behind an empty directory or file in memory.
const OF_KERNEL: [&str; 6] = ["proc", "sysfs", "cgroup", "cgroup2", "tmpfs", "devtmpfs"];

/// A line of the list.
struct Mounted {
    target: String,
    read_only: bool,
    kind: String,
}

impl Mounted {
    /// Reads a line in the form of `/proc/self/mountinfo`.
    fn read(line: &str) -> Option<Self> {
        let (of_mount, of_system) = line.split_once(" - ")?;
        let mut words = of_mount.split(' ').skip(4);
        let (target, options) = (unescaped(words.next()?), words.next()?);
        let read_only = options.split(',').any(|option| option == "ro");
        Some(Self { target, read_only, kind: of_system.split(' ').next()?.to_owned() })
    }

    /// Returns what makes this a mount that nobody planned.
    fn problem(
        &self,
        planned: Option<&PlannedMount>,
        in_memory: bool,
        of_image: bool,
        is_gvisor: bool,
    ) -> Option<String> {
        let Self { target, read_only, kind } = self;
        let below = |directory: &str| target == directory || target.starts_with(&format!("{directory}/"));
        if let Some(planned) = planned {
            let is_weaker = planned.read_only && !read_only;
            return is_weaker.then(|| format!("`{target}` can be written; planned: {planned}"));
        }
        let is_known = if below("/proc") || below("/sys") {
            // A second one of these that can be written is the kernel's settings.
            let is_open = !read_only && target != "/proc" && kind != "tmpfs" && kind != "devtmpfs";
            OF_KERNEL.contains(&&**kind) && (is_gvisor || !is_open)
        } else if below("/dev") {
            DEVICES.contains(&&**target)
        } else {
            OF_ENGINE.contains(&&**target) || in_memory || of_image || (is_gvisor && target == "/tmp")
        };
        (!is_known).then(|| format!("`{target}` is mounted ({kind}); planned: nothing there"))
    }
}

/// Compares the mounts with those of the document and of the image.
pub(crate) fn probe(mounts: &str, facts: &Facts, expected: &Expected) -> Probe {
    const PROTECTION: &str = "mounts, from inside";
    let Some(agent) = expected.planned.containers.iter().find(|it| it.name == expected.agent) else {
        return Probe::not_run(PROTECTION, "nothing is known of the agent's container");
    };
    let in_memory: BTreeSet<&str> = agent.host.get("Tmpfs").into_iter().flat_map(keys).collect();
    let of_image: BTreeSet<&str> = keys(&facts.image(agent.image())["Config"]["Volumes"]).collect();
    let mounted: Vec<Mounted> = mounts.lines().filter_map(Mounted::read).collect();
    if mounted.is_empty() {
        return Probe::failed(PROTECTION, "the attack did not report them");
    }
    let targets: BTreeSet<&str> = mounted.iter().map(|it| &*it.target).collect();
    let wanted = || {
        agent.mounts.iter().map(|mount| &*mount.target).chain(in_memory.iter().copied()).chain(of_image.iter().copied())
    };
    // The list has the paths to which links of the image lead, such as `/run/x` for `/var/run/x`. Each explains one mount. In
    // another mount, a link is not the image's.
    let is_inside = |target: &str| {
        let outer = |mount: &PlannedMount| mount.target != target && Path::new(target).starts_with(&mount.target);
        agent.mounts.iter().any(outer)
    };
    let (missing, mut elsewhere): (Vec<&str>, Vec<&str>) =
        wanted().filter(|target| !targets.contains(target)).partition(|target| is_inside(target));
    let mut problems = Vec::new();
    for (index, it) in mounted.iter().enumerate() {
        let led = elsewhere.iter().position(|target| {
            !wanted().any(|wanted| wanted == it.target)
                && Path::new(target).file_name() == Path::new(&it.target).file_name()
        });
        let target = led.map_or(&*it.target, |place| elsewhere.swap_remove(place));
        let planned = agent.mounts.iter().find(|planned| planned.target == target);
        problems.extend(it.problem(planned, in_memory.contains(target), of_image.contains(target), expected.is_gvisor));
        if mounted[..index].iter().any(|earlier| earlier.target == it.target) {
            problems.push(format!("`{}` is mounted twice", it.target));
        }
    }
    let of_image = |target: &&str| of_image.contains(target);
    let missing = missing.into_iter().chain(elsewhere.into_iter().filter(|target| !of_image(target)));
    problems.extend(missing.map(|target| format!("nothing is mounted at `{target}`; planned: a mount")));
    Probe::of(PROTECTION, &problems, format!("{} mounts, all of them planned", mounted.len()))
}

/// Decodes `\\040` and the like, in which the list writes spaces, tabs, line ends and backslashes.
fn unescaped(written: &str) -> String {
    let known = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    known.into_iter().fold(written.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::expected::tests::expected;
    use crate::report::Outcome;

    /// Mounts of a container, as Docker 26 makes them.
    const DOCKER: &str = "\
716 646 0:111 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b,upperdir=/c,workdir=/d
717 716 0:114 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
718 716 0:115 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
719 718 0:116 / /dev/pts rw,nosuid,noexec,relatime - devpts devpts rw,gid=5,mode=620,ptmxmode=666
720 716 0:117 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
721 720 0:118 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755
722 721 0:30 /docker/f0 /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:17 - cgroup cgroup rw,memory
723 718 0:113 / /dev/mqueue rw,nosuid,nodev,noexec,relatime - mqueue mqueue rw
724 718 0:119 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k
725 716 254:0 /d/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/vda rw
726 716 254:0 /d/hostname /etc/hostname rw,relatime - ext4 /dev/vda rw
727 716 254:0 /d/hosts /etc/hosts rw,relatime - ext4 /dev/vda rw
728 716 254:0 /usr/libexec/docker-init /usr/sbin/docker-init ro,relatime - ext4 /dev/vda rw
729 716 254:0 /src/a /work\\040space ro,relatime - ext4 /dev/vda rw
730 716 0:50 / /var/lib/x rw,nosuid,nodev,relatime - tmpfs tmpfs rw,size=1048576k
731 716 254:0 /volumes/1 /data rw,relatime - ext4 /dev/vda rw
647 717 0:114 /bus /proc/bus ro,nosuid,nodev,noexec,relatime - proc proc rw
648 717 0:114 /sys /proc/sys ro,nosuid,nodev,noexec,relatime - proc proc rw
649 717 0:115 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
650 720 0:121 / /sys/firmware ro,relatime - tmpfs tmpfs ro
";

    /// Returns what the probe says of a list, if it fails.
    fn problem(mounts: &str) -> Option<String> {
        let mut expected = expected();
        for container in &mut expected.planned.containers {
            container.image = "example/agent:1".into();
        }
        let agent = &mut expected.planned.containers[0];
        agent.host.insert("Tmpfs".into(), json!({"/var/lib/x": "rw"}));
        agent.mounts = vec![PlannedMount {
            target: "/work space".into(),
            kind: "bind".into(),
            source: "/src/a".into(),
            subpath: String::new(),
            read_only: true,
        }];
        let image = json!({"RootFS": {}, "Config": {"Volumes": {"/data": {}}}});
        let facts = Facts::sorted(vec![image], &expected);
        let probe = probe(mounts, &facts, &expected);
        (probe.outcome == Outcome::Failed).then_some(probe.detail)
    }

    #[test]
    fn the_mounts_of_a_bottle_are_known() {
        assert_eq!(problem(DOCKER), None);
        let linked = DOCKER.replace("/work\\040space", "/mnt/work\\040space").replace("/var/lib/x", "/data/x");
        assert_eq!(problem(&linked), None);
    }

    #[test]
    fn a_mount_that_nobody_planned_is_found() {
        let line = |target: &str, options: &str, kind: &str| {
            format!("{DOCKER}900 716 254:0 /x {target} {options} - {kind} y rw\n")
        };
        for (target, options, kind) in [
            ("/extra", "ro,relatime", "ext4"),
            ("/etc/bottle", "ro", "tmpfs"),
            ("/proc/sys/kernel", "rw", "proc"),
            ("/sys/kernel/debug", "rw", "debugfs"),
            ("/sys/fs/cgroup/pids", "rw", "cgroup"),
            ("/proc/x", "ro", "ext4"),
            ("/dev/vda", "rw", "devtmpfs"),
            ("/dev/shm2", "rw", "tmpfs"),
            ("/work", "ro", "ext4"),
        ] {
            let told = format!("`{target}` is mounted ({kind}); planned: nothing there");
            assert_eq!(problem(&line(target, options, kind)), Some(told));
        }
        assert_eq!(problem(&line("/etc/hosts", "rw", "ext4")).unwrap(), "`/etc/hosts` is mounted twice");
        let open = problem(&DOCKER.replace("/work\\040space ro", "/work\\040space rw")).unwrap();
        let elsewhere = format!("{}1 2 0:1 / /y/x rw - tmpfs t rw\n", DOCKER.replace("/var/lib/x", "/data/x"));
        assert_eq!(problem(&elsewhere).unwrap(), "`/y/x` is mounted (tmpfs); planned: nothing there");
        assert!(open.starts_with("`/work space` can be written; planned: "), "{open}");
        assert_eq!(problem("").unwrap(), "the attack did not report them");
    }

    #[test]
    fn a_planned_mount_that_is_gone_is_found() {
        let without =
            |target: &str| DOCKER.split_inclusive('\n').filter(|line| !line.contains(target)).collect::<String>();
        for (target, written) in [("/work space", "/work\\040space"), ("/var/lib/x", "/var/lib/x")] {
            let told = format!("nothing is mounted at `{target}`; planned: a mount");
            assert_eq!(problem(&without(written)), Some(told));
        }
        assert_eq!(problem(&without("/data")), None, "an image's volume may be elsewhere");
    }

    #[test]
    fn a_link_of_the_agent_does_not_explain_a_mount() {
        // The protected file was replaced by a link, which the mount followed.
        let mut expected = expected();
        let mount = |target: &str, read_only| PlannedMount {
            target: target.into(),
            kind: "bind".into(),
            source: "/src/a".into(),
            subpath: String::new(),
            read_only,
        };
        expected.planned.containers[0].mounts = vec![mount("/w", false), mount("/w/.envrc", true)];
        let facts = Facts::sorted(Vec::new(), &expected);
        let lines = |target: &str| format!("1 2 0:1 /src/a /w rw - ext4 d rw\n2 1 0:1 /x {target} ro - ext4 d rw\n");
        assert_eq!(probe(&lines("/w/.envrc"), &facts, &expected).outcome, Outcome::Held);
        let found = probe(&lines("/host/.envrc"), &facts, &expected);
        assert_eq!(
            found.detail,
            "`/host/.envrc` is mounted (ext4); planned: nothing there; nothing is mounted at `/w/.envrc`; planned: a mount"
        );
    }
}
