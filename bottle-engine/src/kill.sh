# Read by a shell from standard input. Ends processes of this container: SIGTERM, half a second, then SIGKILL. "$1" is an environment entry; its processes are
# those that have the entry, and everything below them, whatever their session. Without "$1" it is every process but the
# first one, the container's own command below it, and this shell.
#
# A process that cleared its environment and lost its parents before the first look is only found without "$1".
set -u
targets=' '

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
        for environ in $(grep -lszF -- "$1" /proc/[0-9]*/environ); do
            environ=${environ#/proc/}
            add "${environ%%/*}"
        done
    else
        own=
        for pair in $pairs; do
            pid=${pair%:*}
            if [ "${pair#*:}" = 1 ] && { [ -z "$own" ] || [ "$pid" -lt "$own" ]; }; then own=$pid; fi
        done
        for pair in $pairs; do
            case ${pair%:*} in 1 | "$$" | "$own") ;; *) add "${pair%:*}" ;; esac
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

add() {
    case $targets in *" $1 "*) ;; *) targets="$targets$1 " ;; esac
}

for try in TERM 0 0 0 0 0 KILL KILL KILL KILL KILL KILL KILL KILL KILL KILL; do
    look "$@"
    [ -n "$alive" ] || exit 0
    # One may have ended meanwhile. Signal 0 only asks.
    kill -s "$try" $alive 2>/dev/null
    sleep 0.1
done
look "$@"
[ -n "$alive" ] || exit 0
echo "still running:$alive" >&2
exit 1
