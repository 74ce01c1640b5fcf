#!/bin/sh
# Make a virtual environment with a working pip: make_venv.sh DIRECTORY [PYTHON]
#
# A working environment that is already there is kept. Debian and Ubuntu ship the half of `venv` that installs pip
# (ensurepip) as a package of its own, so a machine with Python may still be unable to make one: then every other
# way that the machine offers is tried before giving up with the command that helps.
set -eu

directory=${1:?usage: make_venv.sh DIRECTORY [PYTHON]}
python=${2:-}
candidates="python3.14 python3.13 python3.12 python3.11 python3"

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

# pyenv and asdf put a name on PATH for every version, the inactive ones too: only running one tells.
is_supported() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
has_module() { "$python" -c "import $1" >/dev/null 2>&1; }
has_pip() { "$directory/bin/python" -m pip --version >/dev/null 2>&1; }
version_of() { "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null || echo "unknown, it does not run"; }

choose_python() {
    if [ -n "$python" ]; then
        is_supported "$python" || fail "PYTHON=$python: version $(version_of "$python"), and Python >= 3.11 is needed"
        return
    fi
    for name in $candidates; do
        if is_supported "$name"; then python=$name; return; fi
    done
    say "error: no Python >= 3.11 found; looked for $candidates; python3 has version $(version_of python3)"
    fail "install one (Debian, Ubuntu: sudo apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3.12"
}

# Run one way of making the environment; what a failed one leaves behind is removed, its words are kept for the end.
attempt() {
    if "$@" >>"$log" 2>&1 && has_pip; then return 0; fi
    rm -rf "$directory"
    return 1
}

with_venv() { "$python" -m venv "$directory"; }
with_virtualenv() { virtualenv --quiet --python "$python" "$directory"; }
with_virtualenv_module() { "$python" -m virtualenv --quiet "$directory"; }
with_uv() { uv venv --quiet --seed --python "$python" "$directory"; }
with_outside_pip() {
    "$python" -m venv --without-pip "$directory" || return 1
    # `pip --python` came with pip 22.3.
    "$python" -m pip --python "$directory/bin/python" install --quiet pip && return 0
    pip3 --python "$directory/bin/python" install --quiet pip
}

make_without_ensurepip() {
    say "$python has no ensurepip; trying virtualenv, uv and an installed pip instead"
    for way in with_virtualenv with_virtualenv_module with_uv with_outside_pip; do
        if attempt "$way"; then return 0; fi
    done
    return 1
}

# The Debian package that holds ensurepip for this interpreter; nothing for one that is not Debian's.
debian_package() {
    case $("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))') in
        /usr/bin/python3.*) "$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])' ;;
    esac
}

make_environment() {
    if has_module venv && has_module ensurepip; then
        attempt with_venv && return 0
        cat "$log" >&2
        fail "$python -m venv $directory failed, see above"
    fi
    make_without_ensurepip && return 0

    package=$(debian_package)
    if [ -z "$package" ]; then
        cat "$log" >&2
        fail "$python cannot make a virtual environment: it has no ensurepip, and neither virtualenv, uv nor pip could stand in. Install virtualenv or another Python, and name it: make PYTHON=/path/to/python3.12"
    fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing $package with apt-get: Debian's Python cannot make a virtual environment without it"
        if ! { apt-get update && apt-get install -y --no-install-recommends "$package"; } >>"$log" 2>&1; then
            cat "$log" >&2
            fail "apt-get could not install $package, see above"
        fi
        attempt with_venv && return 0
        cat "$log" >&2
        fail "$python -m venv $directory failed, see above"
    fi
    fail "$python cannot make a virtual environment without Debian's package $package. Run this, then make again:
    sudo apt install $package"
}

if [ -e "$directory" ]; then
    if is_supported "$directory/bin/python" && has_pip; then exit 0; fi
    [ -f "$directory/pyvenv.cfg" ] || fail "$directory exists and is not a virtual environment; move it away, or: make VENV=another-folder"
    say "$directory is a virtual environment that no longer works (its Python is gone, too old, or without pip): making it anew"
    rm -rf "$directory"
fi

choose_python
log=$(mktemp)
finished=no
tidy_up() {
    rm -f "$log"
    [ "$finished" = yes ] || rm -rf "$directory"
}
trap tidy_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "making $directory with $python ($(version_of "$python"))"
make_environment
finished=yes
