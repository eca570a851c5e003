//! The program of the init container that each Pod starts with.

/// Name of the file that says that the Pod's files are complete.
pub const COMPLETE: &str = ".complete";

/// Waits for each of its arguments: `open:HOST:PORT` until a connection is made, `blocked:HOST:PORT` until none is made three
/// times in a row, `file:PATH` until the file exists.
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
for target; do
  IFS=: read -r kind host port <<<"$target"
  case $kind in
    open) wait_for 600 "no connection to $host:$port" reach "$host" "$port" ;;
    blocked) wait_for 30 "network policies are not enforced: $host:$port is reachable" blocked "$host" "$port" ;;
    file) wait_for 600 "no files were handed over" test -e "$host" ;;
  esac
done
"#;
