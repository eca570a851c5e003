# Read by a shell from standard input. Ends processes of this container: SIGTERM, half a second, then SIGKILL. "$1" is the
# environment entry of one exec, NAME=NUMBER. Its processes are those that have the entry, those whose limit of file locks
# is the number, and everything below them, whatever their session. If there is none, the script looks "$2" times more,
# because the engine may still be starting it. Without "$1" it ends every process of this shell's user but the first one,
# the container's own command below it, and this shell.
#
# gVisor has no such limit. There, a process that cleared its environment and lost its parents before the first look is
# only found without "$1".
set -u
targets=' '

# Sets `uid` to the user of process "$1".
user_of() {
    while read -r key uid _; do
        [ "$key" != Uid: ] || return 0
    done 2>/dev/null <"/proc/$1/status"
    uid=
}

# Sets `alive` to the targets that run. Only built-in commands look at processes, so no helper is among them.
look() {
    pairs=
    for status in /proc/[0-9]*/status; do
        while read -r key value _; do
            case $key in
                State:) state=$value ;;
                Pid:) pid=$value ;;
                PPid:)
                    # A zombie has ended.
                    case $state in Z | X) ;; *) pairs="$pairs $pid:$value" ;; esac
                    break
                    ;;
            esac
        done 2>/dev/null <"$status"
    done
    if [ -n "${1-}" ]; then
        # Under gVisor, all execs of a container share their limits. This shell is not part of the exec.
        limit="^Max file locks .* ${1#*=} "
        for file in $(
            grep -lszF -- "$1" /proc/[0-9]*/environ
            grep -qs -- "$limit" "/proc/$$/limits" || grep -ls -- "$limit" /proc/[0-9]*/limits
        ); do
            file=${file#/proc/}
            add "${file%%/*}"
        done
    else
        own=
        for pair in $pairs; do
            pid=${pair%:*}
            if [ "${pair#*:}" = 1 ] && { [ -z "$own" ] || [ "$pid" -lt "$own" ]; }; then own=$pid; fi
        done
        for pair in $pairs; do
            user_of "${pair%:*}"
            case ${pair%:*} in 1 | "$$" | "$own") ;; *) [ "$uid" != "$self" ] || add "${pair%:*}" ;; esac
        done
    fi
    grown=yes
    while [ -n "$grown" ]; do
        grown=
        for pair in $pairs; do
            case $targets in *" ${pair%:*} "*) continue ;; esac
            case $targets in *" ${pair#*:} "*) add "${pair%:*}"; grown=yes ;; esac
        done
    done
    alive=
    for pair in $pairs; do
        case $targets in *" ${pair%:*} "*) alive="$alive ${pair%:*}" ;; esac
    done
}

# Looks again if there is none: one that starts another and ends may be missed.
look_again() {
    left=$again
    while look "$@" && [ -z "$alive" ] && [ "$left" -gt 0 ]; do
        left=$((left - 1))
    done
}

# Sets `new` if there are other targets than the last time. One that starts the next and ends may do so before its signal. So it
# is looked for without pauses, and longer.
compare() {
    new=
    for pid in $alive; do
        case "$before " in ' ' | *" $pid "*) ;; *) new=yes; again=20 ;; esac
    done
    before=$alive
}

add() {
    case $targets in *" $1 "*) ;; *) targets="$targets$1 " ;; esac
}

user_of "$$"
self=$uid
looks=${2-0}
again=1
before=
while look "$@" && [ -z "$alive" ] && [ "$looks" -gt 0 ]; do
    looks=$((looks - 1))
    sleep 0.1
done
for try in TERM 0 0 0 0 0; do
    look_again "$@"
    [ -n "$alive" ] || exit 0
    # One may have ended meanwhile. Signal 0 only asks.
    kill -s "$try" $alive 2>/dev/null
    compare
    sleep 0.1
done
rounds=100
waits=10
while [ "$rounds" -gt 0 ] && [ "$waits" -gt 0 ]; do
    look_again "$@"
    [ -n "$alive" ] || exit 0
    kill -s KILL $alive 2>/dev/null
    compare
    if [ -z "$new" ]; then
        waits=$((waits - 1))
        sleep 0.1
    fi
    rounds=$((rounds - 1))
done
look_again "$@"
[ -n "$alive" ] || exit 0
echo "still running:$alive" >&2
exit 1
