#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Opens the screen of a virtual machine in a browser: the first command after a git clone, on Debian 12 or
# Ubuntu 24.04 and later.
#
#   deploy/quickstart.sh
#
# It installs what is missing (apt-get, as root or through sudo), makes a virtual environment in the checkout,
# starts a small guest on this machine's libvirt, starts "porthole standalone", prints the console's URL, and
# waits. Ctrl-C ends it and removes the guest; outside the checkout no file is left, only the packages. When the
# script was killed by SIGKILL, the next start with the same TMPDIR removes what the killed one left.
#
# A libvirtd that answers at qemu:///system is used, and left as it was. Where none does (no systemd, say), a
# private one is started, as an unprivileged user, and stopped at the end. KVM is not needed.
#
# The guest is a small Linux with a shell: see deploy/demo-guest.sh. Idle it needs next to no processor time, and
# less than 256 MiB of memory.
#
#   PORTHOLE_VENV   a virtual environment that has Porthole and bindep already: used as it is

# shellcheck disable=SC2317  # traps and wait_until call functions that nothing else calls

set -u
# QEMU runs as another user, and reads the files of its guest.
umask 022
# Whoever starts this may have closed its standard input.
exec </dev/null
# shellcheck source=deploy/packages.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/packages.sh"

case ${1:-} in
    "") ;;
    -h | --help)
        sed -n '4,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    *)
        say "there is no argument '$1'; see deploy/quickstart.sh --help"
        exit 2
        ;;
esac

DEMO_GUEST=$PORTHOLE_CHECKOUT/deploy/demo-guest.sh
DEMO_GUEST_FILES=$PORTHOLE_CHECKOUT/.cache/demo-guest
READY_TIMEOUT_S=60
STOP_TIMEOUT_S=20
# Each look at the guest starts a virsh.
GUEST_INTERVAL_S=5
# How often free ports are chosen: another process may take one before Porthole listens there.
PORT_ATTEMPTS=3

venv=${PORTHOLE_VENV:-$PORTHOLE_CHECKOUT/.venv}
work=
uri=
guest=
guest_uuid=
porthole_pid=
libvirtd_pid=
timer_pid=

# The user's own cloud and HTTP proxy are not what is asked here.
unset "${!OS_@}"
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 LC_ALL=C.UTF-8
# libvirtd lives where an ordinary user's PATH does not look.
PATH=$PATH:/usr/sbin:/sbin

# stop_process PID: SIGTERM, and SIGKILL when that does not do in time. A child of this shell.
stop_process() {
    local deadline=$((SECONDS + STOP_TIMEOUT_S))
    kill -TERM "$1" 2>/dev/null || return 0
    while kill -0 "$1" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ]; do
        sleep 0.1
    done
    kill -KILL "$1" 2>/dev/null
    wait "$1" 2>/dev/null
}

# A session of its own for virsh: with a terminal it starts polkit's agent, which complains where no polkit runs.
virsh_() {
    setsid --wait timeout "$STOP_TIMEOUT_S" virsh --quiet --connect "$uri" "$@"
}

# remove_guest WORK: the guest that WORK/guest names, and the log that the machine's own libvirtd keeps of it.
remove_guest() {
    local work=$1 uri uuid name log pid_file pid
    [ -e "$work/guest" ] || return 0
    read -r uri uuid name <"$work/guest"
    # It may be gone already: the guest's own doing, or somebody's at this machine.
    virsh_ destroy "$uuid" >/dev/null 2>&1
    if [ "$uri" != qemu:///system ]; then
        # A guest outlives a libvirtd that died. The number in the file may be another process's by now, and the folder
        # is of the user that the guest runs as: a FIFO there would hold this script.
        pid_file=$work/v/run/libvirt/qemu/run/$name.pid
        pid=$(timeout "$STOP_TIMEOUT_S" head -c 16 -- "$pid_file" 2>/dev/null)
        if [[ "$pid" =~ ^[0-9]+$ ]] && grep -qaF -- "$work/" "/proc/$pid/cmdline" 2>/dev/null; then
            kill -KILL "$pid" 2>/dev/null
        fi
        return 0
    fi
    # Long after a kill another guest may have the name.
    ! virsh_ domstate "$name" >/dev/null 2>&1 || return 0
    log=/var/log/libvirt/qemu/$name.log
    if [ "$(id -u)" -eq 0 ]; then
        rm -f -- "$log"
    elif ! sudo --non-interactive rm -f -- "$log" 2>/dev/null; then
        say "libvirt's log of the guest is left, for root to remove: $log"
    fi
}

# find_processes WORK: what the run with that folder has started, by the mark in the environment.
find_processes() {
    grep -lzxF -- "PORTHOLE_QUICKSTART=$1" /proc/[0-9]*/environ 2>/dev/null | cut -d / -f 3
}

# stop_processes WORK: SIGTERM, and SIGKILL when they take too long. For processes of a run that was killed.
stop_processes() {
    local deadline=$((SECONDS + STOP_TIMEOUT_S)) found signal=TERM
    while mapfile -t found < <(find_processes "$1") && [ "${#found[@]}" -gt 0 ]; do
        [ "$SECONDS" -lt "$deadline" ] || signal=KILL
        [ -z "$signal" ] || kill -"$signal" "${found[@]}" 2>/dev/null
        [ "$SECONDS" -lt $((deadline + STOP_TIMEOUT_S)) ] || return 1
        signal=
        sleep 0.2
    done
}

# get_start_time PID: when the process began, in clock ticks since the boot (proc_pid_stat(5)); nothing without it.
get_start_time() {
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20
}

# remove_leftovers: what runs of this user left that were killed: guest, libvirtd, Porthole, folder.
remove_leftovers() {
    local left pid started
    for left in "${TMPDIR:-/tmp}"/porthole.[0-9]*.??????; do
        # Everybody may write into the folder for temporary files; a folder of another user is left alone.
        if [ ! -d "$left" ] || [ -L "$left" ] || [ ! -O "$left" ]; then
            continue
        fi
        pid=${left##*/porthole.}
        pid=${pid%.*}
        # Another quickstart may be running beside this one; by now the number may also be another process's.
        started=$(get_start_time "$pid")
        if [ -n "$started" ] && { [ ! -e "$left/started" ] || [ "$started" = "$(head -c 32 "$left/started")" ]; }; then
            continue
        fi
        say "removing what a killed quickstart has left: $left"
        remove_guest "$left"
        stop_processes "$left" || say "some processes of it do not end: $(find_processes "$left" | paste -sd ' ')"
        rm -rf -- "$left"
    done
}

clean_up() {
    local status=$?
    # A second Ctrl-C must not leave half of it behind.
    trap '' INT TERM HUP
    [ -z "$timer_pid" ] || stop_process "$timer_pid"
    [ -z "$porthole_pid" ] || stop_process "$porthole_pid"
    [ -z "$work" ] || remove_guest "$work"
    [ -z "$libvirtd_pid" ] || stop_process "$libvirtd_pid"
    [ -z "$work" ] || rm -rf -- "$work"
    exit "$status"
}

fail() {
    say "$*"
    exit 1
}

# wait_until COMMAND...: until it succeeds; fails when the time is up or the process $watched_pid has ended.
wait_until() {
    local deadline=$((SECONDS + READY_TIMEOUT_S))
    until "$@"; do
        kill -0 "$watched_pid" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.2
    done
}

# install_project: Porthole into the environment, unless what is there was made from the same setup.cfg.
install_project() {
    local stamp=$venv/porthole-setup.cfg
    cmp -s "$PORTHOLE_CHECKOUT/setup.cfg" "$stamp" && return 0
    say "installing Porthole into $venv"
    # Editable: the next git pull is in effect at once.
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --use-pep517 \
        --editable "${PORTHOLE_CHECKOUT}[compute]" || fail "pip could not install Porthole into $venv"
    cp -- "$PORTHOLE_CHECKOUT/setup.cfg" "$stamp"
}

install_everything() {
    # pip's downloads stay in the checkout too.
    [ -n "${PORTHOLE_VENV:-}" ] || export PIP_CACHE_DIR="${PIP_CACHE_DIR:-$venv/pip-cache}"
    install_packages "$venv" quickstart || exit 1
    [ -n "${PORTHOLE_VENV:-}" ] || install_project
    "$DEMO_GUEST" build "$DEMO_GUEST_FILES" || exit 1
}

# start_libvirtd: a private one in session mode, which root cannot have: root starts it as the user nobody.
start_libvirtd() {
    local home=$work/v as_user=()
    mkdir -p "$home/run" "$home/c/libvirt" "$home/cache" "$home/data"
    # "file": libvirtd opens the guest's log itself, and starts no virtlogd that somebody would have to stop.
    # Display ports that another libvirtd does not choose from: two that start a guest at once would take the same one.
    local first=$((20000 + $$ % 120 * 100))
    printf 'stdio_handler = "file"\nremote_display_port_min = %d\nremote_display_port_max = %d\n' \
        "$first" $((first + 99)) >"$home/c/libvirt/qemu.conf"
    if [ "$(id -u)" -eq 0 ]; then
        chown -R nobody:nogroup "$home"
        as_user=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
        "${as_user[@]}" test -x "$home" || fail "the user nobody cannot reach $work; set TMPDIR to where it can"
    fi
    # A UNIX socket's path ends at 107 bytes, and libvirt's for the guest adds 51 to this one: hence the short names.
    [ "${#work}" -le 56 ] || fail "$work is too long a path for libvirt's sockets; set TMPDIR to a shorter one"
    # A session of its own: the terminal's Ctrl-C must not end it before the guest is removed through it.
    env HOME="$home" XDG_RUNTIME_DIR="$home/run" XDG_CONFIG_HOME="$home/c" XDG_CACHE_HOME="$home/cache" \
        XDG_DATA_HOME="$home/data" setsid "${as_user[@]}" libvirtd --timeout 0 \
        >"$work/libvirtd.log" 2>&1 &
    libvirtd_pid=$!
    uri="qemu+unix:///session?socket=$home/run/libvirt/libvirt-sock"
    watched_pid=$libvirtd_pid
    wait_until virsh_ version >/dev/null 2>&1 || {
        tail -n 20 -- "$work/libvirtd.log" >&2
        fail "libvirtd did not start"
    }
}

# may_use_system: root may, and so may the group that Debian's policy names. Others would be asked for a password.
may_use_system() {
    [ "$(id -u)" -eq 0 ] || [[ " $(id -nG) " == *" libvirt "* ]]
}

find_hypervisor() {
    uri=qemu:///system
    if may_use_system && virsh_ version >/dev/null 2>&1; then
        say "using the libvirtd of this machine"
    else
        say "no libvirtd answers us at qemu:///system; starting a private one"
        start_libvirtd
    fi
}

start_guest() {
    local name uuid
    # Whatever bears the name already is somebody's.
    for name in demo porthole-demo "porthole-demo-$$"; do
        virsh_ domstate "$name" >/dev/null 2>&1 || break
    done
    uuid=$(cat /proc/sys/kernel/random/uuid)
    # QEMU runs as a user who may not read below a home directory.
    mkdir -p "$work/boot"
    cp -- "$DEMO_GUEST_FILES/kernel" "$DEMO_GUEST_FILES/initramfs" "$work/boot" || fail "there is no room in $work"
    chmod 755 "$work/boot"
    "$DEMO_GUEST" xml "$name" "$uuid" "$work/boot" >"$work/guest.xml"
    guest=$name guest_uuid=$uuid
    # Written first, so that a Ctrl-C while it starts removes it too, and so does the start after a SIGKILL.
    printf '%s %s %s\n' "$uri" "$uuid" "$name" >"$work/guest"
    virsh_ create "$work/guest.xml" >/dev/null || fail "libvirt could not start the guest"
}

# choose_ports: the usual three, or free ones where somebody listens already.
choose_ports() {
    local usual=(8774 6080 6081) index
    read -r -a ports <<<"$("$venv/bin/python" - "${usual[@]}" <<'PYTHON'
import socket
import sys

held = []
for port in map(int, sys.argv[1:]):
    for candidate in (port, 0):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", candidate))
            listener.listen()
        except OSError:
            continue
        held.append(listener)
        break
print(*(listener.getsockname()[1] for listener in held))
PYTHON
    )"
    [ "${#ports[@]}" -eq 3 ] || fail "there are no free TCP ports on 127.0.0.1"
    for index in 0 1 2; do
        [ "${ports[index]}" = "${usual[index]}" ] ||
            say "port ${usual[index]} is taken; using ${ports[index]} in its place"
    done
}

porthole() {
    "$venv/bin/python" -m porthole_cli.main "$@"
}

# try_porthole: start Porthole on the chosen ports; fails when it ends, or has no console of the guest in time.
try_porthole() {
    setsid "$venv/bin/python" -m porthole_cli.main standalone --libvirt-uri "$uri" --api-port "${ports[0]}" \
        --novnc-port "${ports[1]}" --xvp-port "${ports[2]}" >"$work/porthole.log" 2>&1 &
    porthole_pid=$!
    watched_pid=$porthole_pid
    endpoint=http://127.0.0.1:${ports[0]}/v2.1
    # Its last word when it has started; the guest is known a moment later.
    wait_until grep -q "get-vnc-console SERVER" "$work/porthole.log" && wait_until get_url
}

# find_taken_port: the port that Porthole could not have, in its own words.
find_taken_port() {
    local port line
    line=$(grep -m 1 "Address already in use" "$work/porthole.log") || return 1
    for port in "${ports[@]}"; do
        ! grep -qw -- "$port" <<<"$line" || printf '%s\n' "$port"
    done
}

start_porthole() {
    local attempt taken=
    for ((attempt = 1; attempt <= PORT_ATTEMPTS; attempt++)); do
        choose_ports
        try_porthole && return 0
        taken=
        kill -0 "$porthole_pid" 2>/dev/null || taken=$(find_taken_port)
        # Anything else that is wrong will be wrong at the next start too.
        [ -n "$taken" ] || break
        wait "$porthole_pid"
        porthole_pid=
        say "another process has taken port $taken meanwhile"
    done
    tail -n 20 -- "$work/porthole.log" >&2
    [ ! -s "$work/get-url.log" ] || tail -n 1 -- "$work/get-url.log" >&2
    [ -z "$taken" ] || fail "port $taken is taken on 127.0.0.1. Find the process by: ss -ltnp. End it, and start again"
    fail "Porthole did not start"
}

get_url() {
    url=$(porthole --os-endpoint "$endpoint" get-vnc-console "$guest" novnc -f value -c Url 2>"$work/get-url.log")
}

show_url() {
    local command=$venv/bin/porthole
    [ "${ports[0]}" = 8774 ] || command="$command --os-endpoint $endpoint"
    cat <<TEXT

The screen of the guest "$guest":

    $url

Open it in a browser on this machine: you see a Linux shell; type into it. From another machine, open a way in first:

    ssh -L ${ports[1]}:127.0.0.1:${ports[1]} THIS-MACHINE

The URL opens the screen for ten minutes. Another one:

    $command get-vnc-console $guest

Ctrl-C ends Porthole and removes the guest.
TEXT
}

# guest_has_ended: libvirt answers, and no longer lists the guest. A libvirt that is silent proves nothing.
guest_has_ended() {
    local listed
    listed=$(virsh_ list --uuid 2>/dev/null) && [[ $listed != *"$guest_uuid"* ]]
}

# watch_guest: return when Porthole has ended, or the guest.
watch_guest() {
    while kill -0 "$porthole_pid" 2>/dev/null && ! guest_has_ended; do
        sleep "$GUEST_INTERVAL_S" &
        timer_pid=$!
        # A signal ends this wait at once, and so does the end of Porthole.
        wait -n "$porthole_pid" "$timer_pid"
    done
    [ -z "$timer_pid" ] || stop_process "$timer_pid"
    timer_pid=
}

trap clean_up EXIT
trap 'say "ending …"; exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

[[ "${TMPDIR:-/tmp}" != *[[:space:]]* ]] || fail "libvirt takes no path with a space; set TMPDIR to one without: $TMPDIR"
install_everything
remove_leftovers
# The number is how the next start finds out whether this one still runs.
work=$(mktemp -d "${TMPDIR:-/tmp}/porthole.$$.XXXXXX") || exit 1
chmod 711 "$work"
get_start_time $$ >"$work/started"
# How the next start finds this one's processes.
export PORTHOLE_QUICKSTART=$work
# stevedore's cache of entry points, and what else Python's libraries would leave in the home directory.
export XDG_CACHE_HOME=$work/cache
find_hypervisor
start_guest
start_porthole
show_url
watch_guest
if kill -0 "$porthole_pid" 2>/dev/null; then
    say "the guest \"$guest\" has ended. Press Ctrl-C, then start deploy/quickstart.sh again"
fi
wait "$porthole_pid"
status=$?
porthole_pid=
tail -n 20 -- "$work/porthole.log" >&2
fail "Porthole ended by itself (exit status $status)"
