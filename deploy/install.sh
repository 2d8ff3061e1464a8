#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs Porthole on this host, as systemd units: one command per host, on a fresh Debian 12 or Ubuntu 24.04 and
# later, as root.
#
#   deploy/install.sh controller [--address ADDRESS]
#   deploy/install.sh compute --controller ADDRESS --join-secret-file FILE [--address ADDRESS]
#   deploy/install.sh all [--address ADDRESS]
#   deploy/install.sh join NAME [--output FILE | --revoke]
#   deploy/install.sh --uninstall
#
# controller: api, consoleauth and novncproxy, with RabbitMQ and memcached. compute: porthole-compute beside libvirt,
# which is installed where there is none. all: both, on one host. join, on the controller: write the secret that lets
# the compute node NAME onto the message bus to FILE, which root alone may read, or print it; or withdraw it. The FILE
# of --join-secret-file may be "-", for standard input.
#
# ADDRESS is the host's, as the other hosts and the users' browsers reach it; by default the one that its own
# connections come from. Every option is remembered: installing again with a newer checkout takes none. What is as it
# should be is left alone, and each change is printed; so a second run prints only that there is nothing to change.
#
# pip's own variables and configuration count (PIP_INDEX_URL, PIP_FIND_LINKS, ...), for hosts without the internet.

set -euo pipefail
# shellcheck source=deploy/packages.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/packages.sh"
# shellcheck source=deploy/files.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/files.sh"
# shellcheck source=deploy/broker.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/broker.sh"
# shellcheck source=deploy/memcached.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/memcached.sh"

VENV=/opt/porthole
ETC=/etc/porthole
UNITS=/etc/systemd/system
# What this script knows. The operator's own settings are in porthole.conf.d, which is read after it and wins.
GENERATED=$ETC/porthole.conf
LOCAL=$ETC/porthole.conf.d/50-local.conf
GENERATED_MARK="# Written by install.sh, which will write it again; settings of your own go into porthole.conf.d/50-local.conf."
START_TIMEOUT_S=180
CONTROLLER_DAEMONS=(porthole-consoleauth porthole-api porthole-novncproxy)
COMPUTE_DAEMONS=(porthole-compute)

restart=

usage() {
    sed -n '3,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

# own_address [PEER]: the address that connections of this host to PEER come from. No packet is sent.
own_address() {
    python3 - "${1:-192.0.2.1}" <<'PYTHON'
import socket
import sys

try:
    family, kind, _, _, peer = socket.getaddrinfo(sys.argv[1], 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(peer)
        print(probe.getsockname()[0])
except OSError:
    print("127.0.0.1")
PYTHON
}

# in_url ADDRESS: with brackets where a URL wants them.
in_url() {
    case $1 in *:*) printf '[%s]' "$1" ;; *) printf '%s' "$1" ;; esac
}

# remembered KEY: a "# KEY: value" line of what an earlier run generated.
remembered() {
    [ ! -r "$GENERATED" ] || sed -n "s/^# $1: //p" "$GENERATED"
}

# installed_daemons: those whose unit is here.
installed_daemons() {
    local daemon
    for daemon in "${CONTROLLER_DAEMONS[@]}" "${COMPUTE_DAEMONS[@]}"; do
        [ ! -e "$UNITS/$daemon.service" ] || printf '%s\n' "$daemon"
    done
}

install_user_and_units() {
    local daemon units_changed=
    put /etc/sysusers.d/porthole.conf 0644 root <"$PORTHOLE_CHECKOUT/deploy/systemd/porthole.sysusers.conf" || true
    if ! getent passwd porthole >/dev/null; then
        systemd-sysusers porthole.conf
        changed "the user porthole"
    fi
    put /etc/tmpfiles.d/porthole.conf 0644 root <"$PORTHOLE_CHECKOUT/deploy/systemd/porthole.tmpfiles.conf" || true
    systemd-tmpfiles --create porthole.conf
    for daemon in "${daemons[@]}"; do
        if put "$UNITS/$daemon.service" 0644 root <"$PORTHOLE_CHECKOUT/deploy/systemd/$daemon.service"; then
            units_changed=yes
        fi
    done
    if [ -n "$units_changed" ]; then
        systemctl daemon-reload
        restart=yes
    fi
}

# install_project [EXTRA]: Porthole into the environment, unless it was made from the same sources.
install_project() {
    local stamp=$VENV/porthole-sources sources work wheels
    local pip=("$VENV/bin/python" -m pip --quiet --disable-pip-version-check --no-cache-dir)
    sources=$(cd "$PORTHOLE_CHECKOUT" && printf '%s\n' "$1" &&
        find setup.cfg pyproject.toml README.rst LICENSE common services -type f ! -path '*/__pycache__/*' \
            ! -path '*.egg-info/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
    [ "$sources" != "$(cat "$stamp" 2>/dev/null)" ] || return 0
    say "installing Porthole into $VENV"
    # Not from the checkout itself, where setuptools would leave what it makes on the way.
    work=$SCRATCH/sources
    mkdir "$work"
    note_change
    cp -r -- "$PORTHOLE_CHECKOUT"/{setup.cfg,pyproject.toml,README.rst,LICENSE,common,services} "$work"
    # Built once: first Porthole itself, also where the same version is installed, and then whatever it needs.
    if ! "${pip[@]}" wheel --use-pep517 --no-deps --wheel-dir "$work/wheels" "$work" ||
        ! wheels=("$work"/wheels/porthole-*.whl) ||
        ! "${pip[@]}" install --root-user-action=ignore --force-reinstall --no-deps "${wheels[0]}" ||
        ! "${pip[@]}" install --root-user-action=ignore "${wheels[0]}$1"; then
        fail "pip could not install Porthole into $VENV"
    fi
    printf '%s\n' "$sources" >"$stamp"
    changed "Porthole in $VENV"
    restart=yes
}

# write_generated TRANSPORT_URL PROXY_ADDRESS [LINE...]
write_generated() {
    local transport_url=$1 proxy
    proxy=$(in_url "$2")
    shift 2
    [ -e "$LOCAL" ] || put "$LOCAL" 0640 porthole <<'CONF'
# This host's own settings, which win over those of ../porthole.conf. install.sh made this file once and leaves it
# alone. Every option with its meaning: deploy/config/porthole.conf.sample
CONF
    if put "$GENERATED" 0640 porthole <<CONF; then
$GENERATED_MARK
# address: $address
# controller: $controller
[DEFAULT]
transport_url = $transport_url

[vnc]
# Where users' browsers and viewers find the proxy.
novncproxy_base_url = http://$proxy:6080/console.html
xvpvncproxy_base_url = http://$proxy:6081/console
$(printf '%s\n' "$@")
CONF
        restart=yes
    fi
}

# start_units: enabled, and running what was installed; each has START_TIMEOUT_S to be ready.
start_units() {
    local daemon deadline=$((SECONDS + START_TIMEOUT_S))
    for daemon in "${daemons[@]}"; do
        if ! systemctl --quiet is-enabled "$daemon" 2>/dev/null; then
            systemctl --quiet enable "$daemon"
            changed "$daemon is enabled"
        fi
        # Not waited for one by one: what a daemon waits for may be another that is started after it.
        if [ -n "$restart" ]; then
            systemctl --no-block restart "$daemon"
            changed "$daemon is restarted"
        elif ! systemctl --quiet is-active "$daemon"; then
            systemctl --no-block start "$daemon"
            changed "$daemon is started"
        fi
    done
    for daemon in "${daemons[@]}"; do
        until systemctl --quiet is-active "$daemon"; do
            if [ "$SECONDS" -ge "$deadline" ] || systemctl --quiet is-failed "$daemon"; then
                systemctl --no-pager --lines=10 status "$daemon" >&2 || true
                fail "$daemon is installed, but not ready"
            fi
            sleep 0.2
        done
    done
    restarts_done
}

install_controller() {
    local password profiles=(controller) lines=()
    prepare_broker
    [ "$role" = controller ] || profiles+=(compute)
    install_role_packages "${profiles[@]}"
    check_memcached
    keep_tokens
    install_user_and_units
    if [ "$role" = all ]; then install_project "[compute]"; else install_project ""; fi
    make_certificates "$address"
    configure_broker "$address"
    password=$(sed -n 's#^transport_url = rabbit://porthole:\([0-9a-f]\{64\}\)@.*#\1#p' "$GENERATED" 2>/dev/null || true)
    [ -n "$password" ] || password=$(new_password)
    ensure_broker_user porthole "$password"
    write_generated "rabbit://porthole:$password@127.0.0.1:5672/$VHOST" "$address" "${lines[@]}"
    start_units
}

install_compute() {
    local secret name password url
    [ -n "$controller" ] || fail "a compute node needs --controller ADDRESS"
    [ ! -e "$UNITS/porthole-api.service" ] || fail "this is a controller: deploy/install.sh all makes it a compute too"
    [ -z "$secret_file" ] || check_join_secret "$secret_file"
    install_role_packages compute
    install_user_and_units
    install_project "[compute]"
    if [ -n "$secret_file" ]; then
        secret=$(cat -- "${secret_file/#-/\/dev/stdin}" | base64 -d 2>/dev/null | tr -d '\0') || true
        [[ $secret == "porthole-join-1 "* ]] || fail "$secret_file holds no join secret: see deploy/install.sh join"
        read -r _ name password <<<"${secret%%$'\n'*}"
        if put "$ETC/ca.pem" 0644 root <<<"${secret#*$'\n'}"; then restart=yes; fi
        check_controller
        url=rabbit://porthole-$name:$password@$(in_url "$controller"):5671/$VHOST
    else
        url=$(sed -n 's/^transport_url = //p' "$GENERATED" 2>/dev/null || true)
        [ -n "$url" ] || fail "a compute node needs --join-secret-file FILE: see deploy/install.sh join"
    fi
    write_generated "$url" "$controller" "# Where the proxy finds the VNC servers of this host." \
        "server_proxyclient_address = $address" "" \
        "[oslo_messaging_rabbit]" "ssl = true" "ssl_ca_file = $ETC/ca.pem"
    start_units
}

# check_controller: that it answers, by a certificate that the join secret vouches for.
check_controller() {
    "$VENV/bin/python" - "$controller" "$ETC/ca.pem" <<'PYTHON' || fail "the controller cannot be joined"
import socket
import ssl
import sys

host, authority = sys.argv[1:]
try:
    context = ssl.create_default_context(cafile=authority)
    with socket.create_connection((host, 5671), timeout=10) as sock, context.wrap_socket(sock, server_hostname=host):
        pass
except OSError as error:
    sys.exit(f"{host} port 5671: {error}")
PYTHON
}

# install_role_packages PROFILE...
install_role_packages() {
    local before
    # Where a hypervisor runs already, it is left as it is.
    if [ "$role" != controller ] && ! command -v libvirtd virtqemud >/dev/null; then
        set -- "$@" hypervisor
    fi
    mkdir -p "${VENV%/*}"
    before=$(sha256sum </var/lib/dpkg/status)
    install_packages "$VENV" "$@" || exit 1
    [ "$before" = "$(sha256sum </var/lib/dpkg/status)" ] || changed "packages of the profiles $*"
}

uninstall() {
    local daemon
    for daemon in $(installed_daemons); do
        systemctl --quiet disable --now "$daemon"
        rm -f "$UNITS/$daemon.service"
        changed "$daemon is removed"
    done
    systemctl daemon-reload
    remove_from_broker
    if [ -e "$VENV" ] || [ -e "$ETC" ]; then
        rm -rf "$VENV" "$ETC" /var/log/porthole /var/cache/porthole /var/lib/porthole
        changed "$VENV and $ETC are removed"
    fi
    rm -f /etc/sysusers.d/porthole.conf /etc/tmpfiles.d/porthole.conf
    if getent passwd porthole >/dev/null; then
        userdel porthole
        changed "the user porthole is removed"
    fi
    say "Debian's packages are left, and RabbitMQ and memcached as they run"
}

parse_arguments() {
    [ $# -gt 0 ] || { usage >&2; exit 2; }
    role=$1
    shift
    case $role in
        controller | compute | all | --uninstall) ;;
        join)
            join_name=${1-}
            [[ $join_name =~ ^[a-z0-9][a-z0-9.-]{0,62}$ ]] || { say "join NAME: letters, digits, '-' and '.'"; exit 2; }
            shift
            ;;
        -h | --help) usage; exit 0 ;;
        *) say "there is no role '$role'; see deploy/install.sh --help"; exit 2 ;;
    esac
    while [ $# -gt 0 ]; do
        case $role:$1 in
            join:--revoke) revoke=yes; shift; continue ;;
            join:--output) ;;
            controller:--address | compute:--address | all:--address) ;;
            compute:--controller | compute:--join-secret-file) ;;
            *) say "$role does not take '$1'; see deploy/install.sh --help"; exit 2 ;;
        esac
        [ -n "${2-}" ] || { say "$1 wants a value"; exit 2; }
        case $1 in
            --join-secret-file) secret_file=$2 ;;
            --output) join_output=$2 ;;
            # They become part of URLs, of a certificate and of configuration files.
            *) [[ $2 =~ ^[A-Za-z0-9.:-]+$ ]] || { say "$1: '$2' is no address and no name"; exit 2; } ;;&
            --address) address=$2 ;;
            --controller) controller=$2 ;;
        esac
        shift 2
    done
}

address='' controller='' secret_file='' join_name='' join_output='' revoke=''
parse_arguments "$@"
[ "$(id -u)" -eq 0 ] || fail "root is needed to install"
[ -d /run/systemd/system ] || fail "this host does not run systemd; deploy/quickstart.sh does without it"
# Only root can read a file while it is being written, whatever the caller's umask.
umask 022
PATH=$PATH:/usr/sbin:/sbin
make_scratch
case $role in
    join) join "$join_name" "$join_output" "$revoke"; exit 0 ;;
    --uninstall) uninstall ;;
    *)
        [ ! -e "$GENERATED" ] || grep -qxF "$GENERATED_MARK" "$GENERATED" ||
            fail "$GENERATED is not install.sh's: move it to $LOCAL"
        ensure_python || exit 1
        notes_changes=yes
        if [ -e "$PENDING" ]; then
            say "an earlier run was interrupted: whatever it did not restart is restarted now"
            restart=yes
            systemctl daemon-reload
        fi
        controller=${controller:-$(remembered controller)}
        address=${address:-$(remembered address)}
        address=${address:-$(own_address "$controller")}
        case $role in
            controller) daemons=("${CONTROLLER_DAEMONS[@]}") && install_controller ;;
            all) daemons=("${CONTROLLER_DAEMONS[@]}" "${COMPUTE_DAEMONS[@]}") && install_controller ;;
            compute) daemons=("${COMPUTE_DAEMONS[@]}") && install_compute ;;
        esac
        ;;
esac
if [ "$changes" -eq 0 ]; then
    echo "Nothing to change."
else
    echo "$changes changes."
fi
