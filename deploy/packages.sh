# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Installs what is missing on a Debian or Ubuntu machine: sourced by deploy/quickstart.sh and tests/run.sh.
#
# Why: both must be the first command on a fresh machine, and what they need stands in one list, bindep.txt.
# bindep reads that list, and is itself a Python package, so python3-venv comes first.
#
#   install_packages VENV PROFILE...   VENV: virtual environment that bindep is put into; made when missing
#   ensure_venv VENV                   the same without any package of bindep.txt
#
# Every function returns non-zero after one line on stderr that says what to do.

PORTHOLE_CHECKOUT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# as_root COMMAND...: run it as root, with sudo where we are not.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- "$@"
    else
        say "root is needed for this, and there is no sudo: $*"
        return 1
    fi
}

# apt_install PACKAGE...
apt_install() {
    if ! command -v apt-get >/dev/null; then
        say "only Debian and Ubuntu are known here; install these yourself and start again: $*"
        return 1
    fi
    say "installing $*"
    # Two minutes for a lock: a fresh machine runs its own first update in the background. Configuration that stands
    # already is kept, where no user can be asked.
    if ! { as_root apt-get -q -o DPkg::Lock::Timeout=120 update &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 \
            -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
            install --no-install-recommends -- "$@"; } >&2; then
        say "apt-get could not install: $*"
        return 1
    fi
}

# ensure_python: a python3 of at least 3.11 that can make virtual environments.
ensure_python() {
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        apt_install python3 python3-venv || return 1
    fi
    if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        say "Python 3.11 or later is needed, and python3 is $(python3 -V 2>&1)." \
            "Debian 12 and Ubuntu 24.04 are the first releases that have it."
        return 1
    fi
}

ensure_venv() {
    local venv=$1
    # Asking pip catches an environment whose making was cut short, or whose Python has been replaced since.
    if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        return 0
    fi
    ensure_python || return 1
    say "making the virtual environment $venv"
    python3 -m venv --clear "$venv" || {
        say "python3 could not make the virtual environment $venv"
        return 1
    }
}

install_packages() {
    local venv=$1 missing
    shift
    ensure_venv "$venv" || return 1
    if ! "$venv/bin/python" -c 'import bindep' 2>/dev/null; then
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check bindep || {
            say "pip could not install bindep into $venv"
            return 1
        }
    fi
    # bindep exits 1 both when packages are missing and when it fails; only the former says which.
    if missing=$("$venv/bin/python" -m bindep --brief --file "$PORTHOLE_CHECKOUT/bindep.txt" "$@"); then
        return 0
    fi
    if [ -z "$missing" ]; then
        say "bindep could not read $PORTHOLE_CHECKOUT/bindep.txt"
        return 1
    fi
    # shellcheck disable=SC2086  # one package per line, and a package's name has no space
    apt_install $missing
}
