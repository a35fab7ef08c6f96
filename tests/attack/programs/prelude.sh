# What every Bash program begins with, as prelude.py does for Python.
say() { printf '%s\n' "$*"; }
attempt() {
    local what=$1 out
    shift
    if out=$("$@" 2> /dev/null); then
        say reached "$what"
        [ -z "$out" ] || say "$out"
    else
        say refused "$what"
    fi
}
exists() { [ -e "$1" ]; }
reads() { [ -r "$1" ] && head -c 4096 -- "$1" | tr '\0' '\n'; }
