# Prints a line for every file that is missing in the current directory. Calls of these functions follow. `seen` counts
# the names.
seen=0
# Directories.
d() {
  seen=$((seen + $#))
  for name; do [ -d "$name" ] || echo "\`$name\` is missing"; done
}
# Symbolic links.
l() {
  seen=$((seen + $#))
  for name; do [ -h "$name" ] || echo "\`$name\` is missing"; done
}
# Hard links.
h() {
  seen=$((seen + $#))
  for name; do [ -f "$name" ] || echo "\`$name\` is missing"; done
}
# Regular files: their sizes as one argument, then their names.
f() {
  sizes=$1
  shift
  seen=$((seen + $#))
  [ "$(echo $(stat -c %s "$@" 2>/dev/null))" = "$sizes" ] && return
  for size in $sizes; do
    if [ ! -f "$1" ]; then
      echo "\`$1\` is missing"
    else
      has=$(wc -c <"$1") && [ "$has" -ne "$size" ] && echo "\`$1\` has $((has)) bytes instead of $size"
    fi
    shift
  done
}
