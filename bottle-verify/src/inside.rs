//! The attacks from inside the agent's container, as the agent's user.

use std::io::{self, Read as _};
use std::time::Duration;

use bottle_compose::sidecar::PROBED_HOST;
use bottle_engine::{Engine, Exec};
use bottle_exec::Stdin;

use crate::expected::Expected;
use crate::report::{Probe, Verify, VerifyError};
use crate::secrets::holds_secret;

/// Path of the program in the seal's image.
const PROGRAM: &str = "/probe";

/// An outside address that no host has (RFC 5737).
const OUTSIDE: &str = "198.51.100.1";

/// Line between the program's output and what the agent can read of its processes.
const PROCESSES: &str = "\n--- processes ---\n";

/// Writes the program from standard input, runs it, removes it, and prints what it can read of every process.
const SCRIPT: &str = "cd && set -C && umask 077 && p=./.bottle-probe.$$ && cat >$p && chmod 500 $p && $p \"$@\"; rm -f $p\n\
    printf '\\n--- processes ---\\n'; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null; :";

/// One attack: the protection, and the program's argument.
pub type Attack = (&'static str, String);

/// Runs the attacks.
pub(crate) fn attack(
    engine: &Engine,
    expected: &Expected,
    level: Verify,
    secrets: &[&str],
) -> Result<Vec<Probe>, VerifyError> {
    let attacks = attacks(expected, level);
    let arguments = attacks.iter().map(|(_, argument)| argument.as_str());
    let argv = ["sh", "-c", SCRIPT, "sh"].into_iter().chain(arguments);
    let exec = Exec::new(argv).with_user(&expected.user).with_workdir("/");
    let exec = exec.with_stdin(Stdin::Bytes(program(engine, expected)?)).with_timeout(Duration::from_secs(120));
    let output = engine.exec(&expected.agent, &exec)?;
    let printed = output.stdout.bytes();
    let end = find(&printed, PROCESSES.as_bytes());
    let (lines, processes) = printed.split_at(end.unwrap_or(printed.len()));
    let mut probes = read_attacks(&attacks, &String::from_utf8_lossy(lines), &output.stderr.last_lines(2));
    if expected.is_gvisor {
        probes.push(Probe::not_run("system call filter", "gVisor answers every system call with a kernel of its own"));
    }
    probes.push(environment(processes, secrets));
    Ok(probes)
}

/// Returns the attacks of a level.
fn attacks(expected: &Expected, level: Verify) -> Vec<Attack> {
    let mut attacks = vec![
        ("processes", "process".to_owned()),
        ("raw sockets", "raw".to_owned()),
        ("IPv6", "ipv6".to_owned()),
        ("engine's socket", "sockets".to_owned()),
        ("outside host, TCP", format!("tcp:{OUTSIDE}:443")),
        ("outside host, UDP", format!("udp:{OUTSIDE}:53")),
        ("name resolution", format!("names:{PROBED_HOST}")),
    ];
    if !expected.is_gvisor {
        attacks.insert(1, ("system call filter", "seccomp".to_owned()));
    }
    let ports = expected.ports();
    for host in expected.hosts() {
        attacks.push(("sidecars, UDP", format!("udp:{host}:53")));
        let closed = [22, 80, 443, 3128, 8080, 8888, 9090].into_iter().filter(|port| !ports.contains(port));
        attacks.extend(closed.map(|port| ("sidecars, closed ports", format!("tcp:{host}:{port}"))));
        if level == Verify::Full {
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            attacks.push(("sidecars, every port", format!("scan:{host}:{}", ports.join(","))));
        }
    }
    // Without them, what is refused above may be a container that does not answer at all.
    attacks.extend(expected.open.iter().map(|(host, port)| ("sidecars, open ports", format!("open:{host}:{port}"))));
    if let Some((host, port)) = &expected.proxy {
        attacks.push(("proxy", format!("proxy:{host}:{port}:{PROBED_HOST}")));
    }
    attacks
}

/// Reads the program's output: one line for each attack, which is a protection and the program's argument. The attacks on one
/// protection become one probe. An attack that does not report counts as failed.
pub fn read_attacks(attacks: &[Attack], printed: &str, stderr: &str) -> Vec<Probe> {
    let mut lines = printed.lines();
    let mut probes: Vec<(&'static str, Vec<String>, Vec<String>)> = Vec::new();
    for (protection, argument) in attacks {
        let index = probes.iter().position(|(known, ..)| known == protection).unwrap_or_else(|| {
            probes.push((*protection, Vec::new(), Vec::new()));
            probes.len() - 1
        });
        let (_, held, failed) = &mut probes[index];
        match lines.next().and_then(|line| line.split_once(' ')) {
            Some(("held", detail)) => held.push(detail.to_owned()),
            Some(("failed", detail)) => failed.push(detail.to_owned()),
            _ => failed.push(format!("the attack `{argument}` did not report: {stderr}")),
        }
    }
    let shown = |held: &[String]| match held {
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first}; and {} more", rest.len()),
        [] => String::new(),
    };
    probes.iter().map(|(protection, held, failed)| Probe::of(protection, failed, shown(held))).collect()
}

/// Searches the environments and command lines that the agent's user can read.
fn environment(processes: &[u8], secrets: &[&str]) -> Probe {
    const PROTECTION: &str = "environment";
    let read = processes.len().saturating_sub(PROCESSES.len());
    if read == 0 {
        return Probe::failed(PROTECTION, "the agent's own processes could not be read");
    }
    if secrets.is_empty() {
        return Probe::not_run(PROTECTION, "no secret is known to search for");
    }
    if holds_secret(processes, secrets) {
        return Probe::failed(PROTECTION, "a secret is in the environment or on the command line of a process");
    }
    Probe::held(PROTECTION, format!("no secret in {read} bytes of environments and command lines"))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Takes the program from the seal's container.
fn program(engine: &Engine, expected: &Expected) -> Result<Vec<u8>, VerifyError> {
    let packed = engine.cp_out_small(&expected.seal, PROGRAM)?;
    let unpack = || -> io::Result<Vec<u8>> {
        let mut archive = tar::Archive::new(&*packed);
        let mut entry = archive.entries()?.next().ok_or(io::ErrorKind::NotFound)??;
        let mut program = Vec::new();
        entry.read_to_end(&mut program)?;
        Ok(program)
    };
    unpack().map_err(VerifyError::Program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;

    #[test]
    fn an_attack_that_does_not_report_counts_as_failed() {
        let attacks = [("one", "a".to_owned()), ("two", "b".to_owned()), ("two", "c".to_owned())];
        let outcomes = |printed: &str| -> Vec<Outcome> {
            read_attacks(&attacks, printed, "Killed").iter().map(|probe| probe.outcome).collect()
        };
        assert_eq!(outcomes("held x\nheld y\nheld z\n"), [Outcome::Held, Outcome::Held]);
        assert_eq!(outcomes("held x\nheld y\nfailed z\n"), [Outcome::Held, Outcome::Failed]);
        assert_eq!(outcomes("held x\nheld y\n"), [Outcome::Held, Outcome::Failed]);
        assert_eq!(outcomes(""), [Outcome::Failed, Outcome::Failed]);
        assert_eq!(outcomes("heldx\nnonsense\nheld\n"), [Outcome::Failed, Outcome::Failed]);
        let probes = read_attacks(&attacks, "held x\nheld y\nheld z\n", "");
        assert_eq!(probes[1].to_string(), "two: y; and 1 more");
    }

    #[test]
    fn a_secret_of_a_process_is_found_and_not_shown() {
        let processes = [PROCESSES, "PATH=/bin\0TOKEN=hunter2hunter2\0"].concat();
        let probe = environment(processes.as_bytes(), &["hunter2hunter2"]);
        assert_eq!(probe.outcome, Outcome::Failed);
        assert!(!probe.detail.contains("hunter2"));
        assert_eq!(environment(processes.as_bytes(), &["another-secret"]).outcome, Outcome::Held);
        assert_eq!(environment(processes.as_bytes(), &[]).outcome, Outcome::NotRun);
        assert_eq!(environment(PROCESSES.as_bytes(), &["hunter2hunter2"]).outcome, Outcome::Failed);
    }
}
