#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs every check of Porthole, installing what is missing first: the first command on a fresh machine, and
# all that .ci/run calls.
#
#   tests/run.sh [STAGE...] [-- ARGUMENT...]
#
# STAGE: see "stages" below; without one all run, the quick ones first, up to the first that fails. An ARGUMENT
# goes to the stage's tool: tests/run.sh functional -- -k rabbitmq
# Works as root, or as a user who may use sudo for apt-get; with systemd or without. Only root can make the network
# namespaces of tests/functional/test_hosts_*.py, which fail for a user. Exits 0 only when every
# stage passed. A server that is missing is a failure, never a skipped test. A test that fails is run once more by
# itself; if it passes then, it is named FLAKY, and up to two of them leave the run green (tests/support/suite.py).

set -u
# Those that share no environment run side by side.
apart=(lint ansible types docs)
stages=("${apart[@]}" imports samples unit functional browser)
# Whoever starts this may have closed its standard input, and whatever opened a file next would be given that number.
exec </dev/null
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit 1
# shellcheck source=deploy/packages.sh
. deploy/packages.sh

case ${1:-} in
    -h | --help)
        sed -n '4,/^$/s/^# \{0,1\}//p' tests/run.sh
        exit 0
        ;;
esac

chosen=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case " ${stages[*]} " in
        *" $1 "*) chosen+=("$1") ;;
        *)
            say "there is no stage '$1'; the stages are: ${stages[*]}"
            exit 2
            ;;
    esac
    shift
done
[ "${#chosen[@]}" -gt 0 ] || chosen=("${stages[@]}")

tools=$PWD/.tox/tools
summary=()
# The stages with tests count their flaky ones together, in a file.
PORTHOLE_FLAKY_FILE=$(mktemp) || exit 1
export PORTHOLE_FLAKY_FILE
trap 'rm -f -- "$PORTHOLE_FLAKY_FILE"' EXIT
child=
trap 'interrupt' INT TERM HUP

# interrupt: end the stage as a terminal's Ctrl-C does, and wait until it has stopped its servers.
interrupt() {
    trap '' INT TERM HUP
    say "interrupted; the stage stops what it has started"
    [ -z "$child" ] || { kill -INT -- "-$child"; wait "$child"; } 2>/dev/null
    exit 130
}

report() {
    printf '\n'
    printf '%s\n' "${summary[@]}"
    sed 's/^/run.sh: FLAKY /' "$PORTHOLE_FLAKY_FILE"
}

# record NAME RESULT SECONDS
record() {
    summary+=("$(printf 'tests/run.sh: %-23s %-6s %4d s' "$1" "$2" "$3")")
}

# stage NAME COMMAND...: run it; the first failure ends the run.
stage() {
    local name=$1 started=$SECONDS status
    shift
    printf '\n===== %s =====\n' "$name"
    # In the background, since a trap waits for a command in the foreground; and in a process group of its own, for one
    # in this shell's would ignore Ctrl-C.
    set -m
    "$@" &
    child=$!
    set +m
    wait "$child"
    status=$?
    child=
    if [ "$status" -ne 0 ]; then
        record "$name" FAILED $((SECONDS - started))
        report
        say "FAILED at stage $name (exit status $status) after $SECONDS s"
        exit 1
    fi
    record "$name" ok $((SECONDS - started))
}

# install_novnc: the releases of noVNC that the browser tests load. npm is not in bindep.txt: Node.js may come from
# elsewhere than the distribution, with an npm of its own, and the distribution's package would conflict with it.
install_novnc() {
    command -v npm >/dev/null || apt_install npm || return 1
    "$tools/bin/python" tests/support/novnc_releases.py
}

install() {
    install_packages "$tools" test || return 1
    case " ${chosen[*]} " in
        *" browser "*) install_novnc || return 1 ;;
    esac
    "$tools/bin/python" -c 'import tox' 2>/dev/null && return 0
    say "installing tox into $tools"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check 'tox>=4.4' || {
        say "pip could not install tox into $tools"
        return 1
    }
}

stage install install
# Not by a name on the PATH: tox.ini hands commands on by the same interpreter.
tox=("$tools/bin/python" -m tox)
# setuptools packs whatever an earlier build left here, and a module that was deleted since would still be found.
rm -rf build
count=${#chosen[@]}
# Arguments are for one tool: with them each stage runs by itself.
if [ "${chosen[*]}" = "${stages[*]}" ] && [ $# -eq 0 ]; then
    names=$(IFS=, && printf '%s' "${apart[*]}")
    # And what the functional tests need of OpenStack is installed meanwhile.
    stage "$names" "${tox[@]}" run-parallel --parallel-no-spinner --parallel all -e "$names,openstack"
    chosen=("${chosen[@]:${#apart[@]}}")
fi
for name in "${chosen[@]}"; do
    stage "$name" "${tox[@]}" run -e "$name" "$@"
done
report
say "passed: $count of ${#stages[@]} stages in $SECONDS s"
