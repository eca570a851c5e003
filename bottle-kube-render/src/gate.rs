//! The program of the init container that each Pod starts with.

/// Name of the file that says that the Pod's files are complete.
pub const COMPLETE: &str = ".complete";

/// Name of the file with the process id, in the gate, of the command that unpacks the Pod's files.
pub const RECEIVER: &str = ".receiver";

/// Waits for each of its arguments: `open:HOST:PORT` until a connection is made, `blocked:HOST:PORT` until none is made three
/// times in a row, `file:PATH` until the file exists and the command that wrote it has ended. A gate that ended first would end
/// the command, which then counts as failed.
///
/// A fresh Pod reached others for up to 0.12 s before its policies took effect. On a cluster that does not enforce
/// policies, a blocked target stays reachable, and the Pod's containers never start.
pub(crate) const SCRIPT: &str = r#"reach() { timeout 1 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>/dev/null; }
wait_for() {
  local deadline=$((SECONDS + $1)) message=$2; shift 2
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || { echo "gate: $message" >&2; exit 1; }
    sleep 0.05
  done
}
blocked() { ! reach "$@" && ! reach "$@" && ! reach "$@"; }
ended() { ! [ -e "/proc/$(cat "$1" 2>/dev/null || echo none)" ]; }
for target; do
  IFS=: read -r kind host port <<<"$target"
  case $kind in
    open) wait_for 600 "no connection to $host:$port" reach "$host" "$port" ;;
    blocked) wait_for 30 "network policies are not enforced: $host:$port is reachable" blocked "$host" "$port" ;;
    file)
      wait_for 600 "no files were handed over" test -e "$host"
      wait_for 30 "the command that hands over the files does not end" ended "${host%/*}/.receiver" ;;
  esac
done
"#;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_gate_outlives_the_command_that_hands_over_the_files() {
        let dir = tempfile::tempdir().unwrap();
        // It counts as running until it is reaped, which the runtime does and here the test.
        let mut receiver = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
        fs::write(dir.path().join(RECEIVER), receiver.id().to_string()).unwrap();
        fs::write(dir.path().join(COMPLETE), "").unwrap();
        let target = format!("file:{}", dir.path().join(COMPLETE).display());
        let mut gate = Command::new("bash").args(["-c", SCRIPT, "gate", &target]).spawn().unwrap();
        std::thread::sleep(Duration::from_secs(1));
        assert!(gate.try_wait().unwrap().is_none(), "the gate has ended");
        receiver.wait().unwrap();
        assert!(gate.wait().unwrap().success());
    }
}
