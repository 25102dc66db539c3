#!/usr/bin/env bash
# Makes .venv with everything cloudlet needs, and says what it does.
#
#   scripts/setup.sh          what is needed to run cloudlet (make demo)
#   scripts/setup.sh dev      the checking and testing tools as well (make check, make test)
#
# Nothing happens when .venv is up to date already. The configuration of pip on this machine (mirrors,
# certificates, proxies) decides where packages come from: nothing here names a server.
# PYTHON=/path/to/python chooses the interpreter; otherwise the newest suitable one is taken.
set -euo pipefail
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1

LEVEL="${1:-run}"
VENV=.venv
STAMP=$VENV/.cloudlet-setup         # what .venv was made for; written last
UNFINISHED=$VENV/.cloudlet-unfinished # there while packages are being installed

say() { printf '%s\n' "$*"; }
die() { printf 'set-up: %s\n' "$*" >&2; exit 1; }

# A moved checkout or a changed pyproject.toml needs new work, so both are part of the stamp.
fingerprint() { printf '%s %s\n' "$(cksum <pyproject.toml)" "$PWD"; }

up_to_date() {
    [ -f "$STAMP" ] && [ ! -e "$UNFINISHED" ] || return 1
    local level print
    { read -r level; read -r print; } <"$STAMP" || return 1
    [ "$print" = "$(fingerprint)" ] || return 1
    [ "$level" = dev ] || [ "$level" = "$LEVEL" ] || return 1
    "$VENV/bin/python" -c '' 2>/dev/null
}

# Prints the candidates that exist, are Python 3.11 or newer and really start (version managers put
# commands on PATH that only print an error).
pythons() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3 python3.14; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && say "$candidate"
    done
    return 0
}

# The first candidate that can make virtual environments (Debian splits that part off).
usable_python() {
    local candidate
    for candidate in $(pythons); do
        "$candidate" -c 'import ensurepip, venv' 2>/dev/null && { say "$candidate"; return; }
    done
    return 1
}

missing_packages() {
    local first
    first=$(pythons | head -n 1)
    if [ -z "$first" ]; then
        say python3 python3-venv
    elif [ "$("$first" -V 2>&1)" = "$(/usr/bin/python3 -V 2>&1)" ]; then
        say python3-venv
    else
        say "python$("$first" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    fi
}

install_python() {
    local packages root=""
    packages=$(missing_packages)
    command -v apt-get >/dev/null ||
        die "Python 3.11 or newer with its venv module is needed: install it, or name one with PYTHON=/path/to/python"
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || die "missing $packages; run: sudo apt-get install -y $packages"
        root="sudo -n"
    fi
    say "Installing $packages with apt"
    # shellcheck disable=SC2086 # both are lists of words
    $root env DEBIAN_FRONTEND=noninteractive sh -ec '
        apt-get update -q
        apt-get install -q -y --no-install-recommends "$@"
    ' sh $packages || die "apt could not install $packages; run: sudo apt-get install -y $packages"
    usable_python >/dev/null ||
        die "there is still no Python 3.11 or newer with its venv module: install one and name it with PYTHON=/path/to/python"
}

# An interrupted installation may have left packages half written, and a moved .venv has the wrong paths in
# its commands: both start again from nothing.
healthy_venv() {
    [ ! -e "$UNFINISHED" ] && grep -qsF "$PWD/$VENV" "$VENV/bin/activate" &&
        "$VENV/bin/python" -m pip --version >/dev/null 2>&1
}

make_venv() {
    local python
    healthy_venv && return
    if [ -e "$VENV" ]; then
        say "Removing a $VENV that is unfinished, broken or from another place"
        rm -rf "$VENV" || die "cannot remove $PWD/$VENV: remove it as the user who made it"
    fi
    usable_python >/dev/null || install_python
    python=$(usable_python)
    say "Making $VENV with $("$python" -V) ($(command -v "$python"))"
    mkdir "$VENV" || die "cannot write in $PWD: clone the repository as the user who runs make"
    : >"$UNFINISHED"
    "$python" -m venv "$VENV" || die "$python could not make $PWD/$VENV (see above)"
}

install_packages() {
    local target="." started=$SECONDS
    [ "$LEVEL" = dev ] && target=".[dev]"
    { : >"$UNFINISHED"; } 2>/dev/null || die "cannot write in $PWD/$VENV: remove it as the user who made it"
    rm -f "$STAMP"
    say "Installing packages (about $([ "$LEVEL" = dev ] && say 160 || say 130) MB the first time; pip keeps them)"
    if [ -t 1 ]; then
        "$VENV/bin/python" -m pip install --editable "$target" || pip_failed
    else
        # Without a terminal there is no progress bar: one line for each package instead.
        "$VENV/bin/python" -m pip install --progress-bar off --editable "$target" | shorten || pip_failed
    fi
    { say "$LEVEL"; fingerprint; } >"$STAMP"
    rm -f "$UNFINISHED"
    say "Set-up finished in $((SECONDS - started)) s"
}

# pip's "Downloading NAME-VERSION-TAGS.whl (SIZE)" as "  NAME-VERSION (SIZE)"; the rest is left out.
shorten() {
    local line wheel='^ *(Downloading|Using cached) ([^-]+-[^-]+)-.*(\([0-9].*\))'
    while IFS= read -r line; do
        if [[ $line =~ $wheel ]]; then
            say "  ${BASH_REMATCH[2]} ${BASH_REMATCH[3]}"
        elif [[ $line == "Installing collected"* ]]; then
            say "  unpacking"
        fi
    done
}

pip_failed() {
    die "pip could not install the packages (see above); the same command tries again. Mirrors and proxies are taken from pip's configuration (pip.conf, PIP_INDEX_URL)"
}

case "$LEVEL" in run | dev) ;; *) die "unknown argument '$LEVEL': use nothing or 'dev'" ;; esac
up_to_date && exit 0
# One at a time; the lock ends with this process. Systems without flock do without.
exec 9<. && { ! command -v flock >/dev/null || flock 9; }
up_to_date && exit 0
make_venv
install_packages
