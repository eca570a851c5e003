# Read by a shell from standard input. Ends processes of this container: SIGTERM, half a second, then SIGKILL. "$1" is the
# environment entry of one exec, NAME=NUMBER. Its processes are those that have the entry, those whose limit of file locks
# is the number, those that have lowered such a limit, and everything below them, whatever their session. If there is none,
# the script looks "$2" times more, because the engine may still be starting it. Without "$1" it ends every process of this
# shell's user but the first one, the container's own command below it, and this shell.
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

# Sets `newest` to the process that started last, or to 0 where it cannot be told by this or by the limit, as under gVisor.
find_newest() {
    newest=0
    [ -z "$limit" ] || read -r _ _ _ _ newest 2>/dev/null </proc/loadavg || newest=0
}

# Sets `alive` to the targets that run, and `chased` if one started or ended meanwhile. Only built-in commands look at
# processes, so no helper is among them.
look() {
    pairs=
    chased=
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
        find_newest
        next=
        for ahead in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do
            next="$next /proc/$((newest + ahead))/limits"
        done
        for file in $(
            grep -lszF -- "$1" /proc/[0-9]*/environ
            [ -z "$limit" ] || grep -lsE -- "$limit" /proc/[0-9]*/limits $next
        ); do
            pid=${file#/proc/}
            pid=${pid%%/*}
            add "$pid"
            [ "$newest" = 0 ] || { [ "$pid" -le "$newest" ] && [ -d "/proc/$pid" ]; } || chased=yes
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
    for _ in 1 2 3 4; do
        look "$@"
        [ -z "$alive$chased" ] || return 0
    done
    exit 0
}

# Ends processes that each start the next and end before they can be looked up: stops the newest process of the container, looks
# whether it is one of the exec, and if not, lets it go on.
hunt() {
    tries=5000
    calm=0
    while [ "$calm" -lt 500 ] && [ "$tries" -gt 0 ]; do
        tries=$((tries - 1))
        calm=$((calm + 1))
        find_newest
        [ "$newest" != 0 ] || return 0
        kill -s STOP "$newest" 2>/dev/null || continue
        if grep -qsE -- "$limit" "/proc/$newest/limits"; then
            kill -s KILL "$newest"
            calm=0
        else
            kill -s CONT "$newest"
        fi
    done
}

add() {
    case $targets in *" $1 "*) ;; *) targets="$targets$1 " ;; esac
}

user_of "$$"
self=$uid
# Under gVisor, all execs of a container share their limits. This shell is not part of the exec.
# The number has 18 digits, and no process can raise the hard limit again.
limit=${1:+"^Max file locks +[^ ]+ +(${1#*=}|[0-9]{1,17}) "}
[ -n "$limit" ] && ! grep -qsE -- "$limit" "/proc/$$/limits" || limit=
looks=${2-0}
while look "$@" && [ -z "$alive$chased" ] && [ "$looks" -gt 0 ]; do
    looks=$((looks - 1))
    sleep 0.1
done
for try in TERM 0 0 0 0 0; do
    look_again "$@"
    # One may have ended meanwhile. Signal 0 only asks.
    kill -s "$try" $alive 2>/dev/null
    sleep 0.1
done
rounds=100
waits=10
while [ "$rounds" -gt 0 ] && [ "$waits" -gt 0 ]; do
    look_again "$@"
    kill -s KILL $alive 2>/dev/null
    rounds=$((rounds - 1))
    if [ -n "$chased" ]; then
        hunt
    else
        waits=$((waits - 1))
        sleep 0.1
    fi
done
look_again "$@"
echo "still running:$alive" >&2
exit 1
