//! A sidecar's memory, and whether it has lived through what a test did to it.

use bottle::Bottle;
use bottle::plan::Service;
use bottle_testing::lab::{docker, figure};

/// Fails unless a sidecar has run without a break, with a peak of memory below this many MiB. Returns the peak.
#[track_caller]
pub(crate) fn assert_alive(bottle: &Bottle, service: Service, below_mib: u64) -> u64 {
    let format = "{{.State.Status}} {{.State.OOMKilled}} {{.RestartCount}}";
    let state = docker(["inspect", "--format", format, &bottle.names().container(service)]).stdout;
    assert_eq!(state.trim(), "running false 0", "{service}");
    let peak = peak_memory(bottle, service);
    figure(format_args!("peak memory of {service}: {peak} MiB"));
    assert!(peak < below_mib, "{service} took {peak} MiB, and {below_mib} MiB is the bound");
    peak
}

/// Returns the peak memory of a sidecar's process in MiB. It is read on the host, because the image may have no shell.
fn peak_memory(bottle: &Bottle, service: Service) -> u64 {
    let pid = docker(["inspect", "--format", "{{.State.Pid}}", &bottle.names().container(service)]).stdout;
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", pid.trim())).unwrap_or_default();
    let of = |pid: &str| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    };
    std::iter::once(pid.as_str()).chain(children.split_whitespace()).map(of).max().unwrap()
}
