//! The process that owns a bottle, and its liveness.

use std::fmt;
use std::fs;
use std::str::FromStr;

use rustix::process::Pid;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A process: its pid, and what distinguishes it from a later process with the same pid.
///
/// Its text form is `<pid>:<start time>:<scope>`, with `-` for unknown parts. The start time is in clock ticks since
/// boot (field 22 of `/proc/<pid>/stat`). The scope identifies the boot and the pid namespace of the pid: the same pid
/// on another machine that shares an engine, or in another container, is another process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot, if known.
    pub start_time: Option<u64>,
    /// Boot and pid namespace of the pid, if known.
    pub scope: Option<Scope>,
}

/// One boot of one machine, and one pid namespace on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// First eight digits of the kernel's random id of this boot.
    pub boot: String,
    /// Number of the pid namespace.
    pub namespace: u64,
}

/// Liveness of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// The process runs.
    Alive,
    /// The process ended, or its machine was restarted.
    Gone,
    /// The process cannot be seen from here. It counts as alive.
    Unknown,
}

impl Owner {
    /// Returns a process of this host, as the system describes it now.
    pub fn of_process(pid: u32) -> Self {
        Self { pid, start_time: start_time(pid).map(|(start, _)| start), scope: Scope::here() }
    }

    /// Returns the liveness of the process. `engine_is_local` decides what a different boot means: with a local engine
    /// it is an earlier boot of this machine, with a shared engine it may be another machine.
    ///
    /// Without `/proc` only the pid is checked, so another process with the same pid counts as the owner. A bottle may
    /// then stay although it could be removed, never the other way round.
    pub fn liveness(&self, engine_is_local: bool) -> Liveness {
        if let (Some(there), Some(here)) = (&self.scope, Scope::here()) {
            if there.boot != here.boot {
                return if engine_is_local { Liveness::Gone } else { Liveness::Unknown };
            }
            if there.namespace != here.namespace {
                return Liveness::Unknown;
            }
        }
        let lives = match (start_time(self.pid), self.start_time) {
            (Some((_, 'Z' | 'X')), _) => false,
            (Some((now, _)), Some(then)) => now == then,
            (Some(_), None) => true,
            (None, _) if has_proc() => false,
            (None, _) => i32::try_from(self.pid)
                .ok()
                .and_then(Pid::from_raw)
                .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)),
        };
        if lives { Liveness::Alive } else { Liveness::Gone }
    }
}

impl Scope {
    /// Returns the scope of the calling process, or `None` if the system does not provide it.
    pub fn here() -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
        let namespace = namespace.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()?;
        Some(Self { boot: boot.get(..8)?.to_owned(), namespace })
    }
}

/// Returns the start time and the state of a process.
fn start_time(pid: u32) -> Option<(u64, char)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses. It may contain anything, including parentheses and spaces.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((fields.nth(18)?.parse().ok()?, state))
}

fn has_proc() -> bool {
    fs::exists("/proc/self/stat").unwrap_or(false)
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.pid)?;
        match self.start_time {
            Some(start) => write!(f, "{start}:")?,
            None => f.write_str("-:")?,
        }
        match &self.scope {
            Some(scope) => write!(f, "{}.{}", scope.boot, scope.namespace),
            None => f.write_str("-"),
        }
    }
}

/// A text that does not name a process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parse `{0}` as an owner; accepted: `<pid>:<start time or ->:<boot>.<namespace> or -`")]
pub struct OwnerError(String);

impl FromStr for Owner {
    type Err = OwnerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut parts = text.split(':');
            let pid = parts.next()?.parse().ok()?;
            let start_time = match parts.next()? {
                "-" => None,
                start => Some(start.parse().ok()?),
            };
            let scope = match parts.next()? {
                "-" => None,
                scope => {
                    let (boot, namespace) = scope.split_once('.')?;
                    Some(Scope { boot: boot.to_owned(), namespace: namespace.parse().ok()? })
                }
            };
            parts.next().is_none().then_some(Self { pid, start_time, scope })
        };
        parse().ok_or_else(|| OwnerError(text.chars().take(80).collect()))
    }
}

impl Serialize for Owner {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Owner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zombie_or_reaped_process_is_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let owner = Owner::of_process(child.id());
        assert_eq!(owner.liveness(true), Liveness::Alive);
        let successor = Owner { start_time: owner.start_time.map(|start| start - 1), ..owner.clone() };
        assert_eq!(successor.liveness(true), Liveness::Gone, "the number is the same, the process another");
        child.kill().unwrap();
        while start_time(child.id()).is_some_and(|(_, state)| state != 'Z') {
            std::thread::yield_now();
        }
        assert_eq!(owner.liveness(true), Liveness::Gone, "a zombie holds nothing");
        child.wait().unwrap();
        assert_eq!(owner.liveness(true), Liveness::Gone);
    }

    #[test]
    fn a_pid_of_another_pid_namespace_is_unknown_and_of_an_earlier_boot_is_gone() {
        let mut owner = Owner::of_process(std::process::id());
        let here = owner.scope.clone().unwrap();
        owner.scope = Some(Scope { boot: "00000000".into(), ..here.clone() });
        assert_eq!(owner.liveness(true), Liveness::Gone);
        assert_eq!(owner.liveness(false), Liveness::Unknown);
        owner.scope = Some(Scope { namespace: here.namespace + 1, ..here });
        assert_eq!(owner.liveness(true), Liveness::Unknown);
    }

    #[test]
    fn an_owner_survives_formatting_and_parsing() {
        let own = Owner::of_process(std::process::id());
        for owner in [own, Owner { pid: 7, start_time: None, scope: None }] {
            assert_eq!(owner.to_string().parse(), Ok(owner));
        }
        for bad in ["", "x", "1", "1:2", "1:2:3", "1:-:-:-", "-1:-:-"] {
            assert!(bad.parse::<Owner>().is_err(), "{bad}");
        }
    }
}
