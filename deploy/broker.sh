# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# The message bus of a controller: RabbitMQ with a vhost and users of Porthole's own, and certificates of its own for
# the way to it. Sourced by deploy/install.sh; uses files.sh.
#
# A RabbitMQ that was on the host before belongs to somebody: it is given the vhost and the users, and stays as it is
# otherwise. One that comes with Porthole listens in the clear on loopback alone, for the controller's own daemons, and
# with TLS for the compute nodes; its two other ports, Erlang's, are on loopback too, and the user guest is removed.

VHOST=porthole
TLS=/etc/porthole/tls
RABBITMQ_ENV=/etc/rabbitmq/rabbitmq-env.conf
RABBITMQ_CONF=/etc/rabbitmq/conf.d/10-porthole.conf
RABBITMQ_CERT=/etc/rabbitmq/porthole.pem
RABBITMQ_KEY=/etc/rabbitmq/porthole.key
EPMD_DROPIN=/etc/systemd/system/epmd.socket.d/porthole.conf
CA_DAYS=3650
CERT_DAYS=825
# A certificate that has no more than this left is made anew when install.sh runs.
RENEW_DAYS=60

new_password() {
    od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n'
}

broker_is_ours() {
    [ -e "$RABBITMQ_CONF" ]
}

# prepare_broker: before the package is there, so that not even its first start listens to the world.
prepare_broker() {
    if broker_is_ours || command -v rabbitmqctl >/dev/null; then
        return 0
    fi
    mkdir -p "${RABBITMQ_CONF%/*}" "${EPMD_DROPIN%/*}"
    put "$RABBITMQ_ENV" 0644 root <<'CONF' || true
# Written by Porthole's install.sh. A node of this name is found wherever the host's name leads to.
NODENAME=rabbit@localhost
SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
export ERL_EPMD_ADDRESS=127.0.0.1
CONF
    put "$EPMD_DROPIN" 0644 root <<'CONF' || true
# Written by Porthole's install.sh.
[Socket]
ListenStream=
ListenStream=127.0.0.1:4369
CONF
    put "$RABBITMQ_CONF" 0644 root <<<"$(broker_conf)" || true
}

# broker_conf [ADDRESS]: with a port for TLS once there is a certificate.
broker_conf() {
    cat <<'CONF'
# Written by Porthole's install.sh, which will write it again.
# In the clear for the daemons of this host alone.
listeners.tcp.local = 127.0.0.1:5672
CONF
    [ $# -gt 0 ] || return 0
    cat <<CONF
# For the compute nodes, which check the certificate.
listeners.ssl.default = 5671
ssl_options.cacertfile = $RABBITMQ_CERT
ssl_options.certfile = $RABBITMQ_CERT
ssl_options.keyfile = $RABBITMQ_KEY
ssl_options.versions.1 = tlsv1.3
ssl_options.versions.2 = tlsv1.2
ssl_options.verify = verify_none
ssl_options.fail_if_no_peer_cert = false
CONF
}

# configure_broker ADDRESS
configure_broker() {
    local again=
    broker_is_ours || return 0
    if [ -e "$PENDING" ]; then again=yes; fi
    if put "$RABBITMQ_CERT" 0640 rabbitmq < <(cat "$TLS/broker.pem" "$TLS/ca.pem"); then again=yes; fi
    if put "$RABBITMQ_KEY" 0640 rabbitmq <"$TLS/broker.key"; then again=yes; fi
    if put "$RABBITMQ_CONF" 0644 root <<<"$(broker_conf "$1")"; then again=yes; fi
    [ -z "$again" ] || systemctl restart rabbitmq-server
}

rabbitmq() {
    rabbitmqctl --silent "$@"
}

# ensure_broker_user USER PASSWORD: may do everything in the vhost, and nothing outside.
ensure_broker_user() {
    local user=$1 password=$2
    if ! rabbitmq list_vhosts | grep -Fqx -- "$VHOST"; then
        rabbitmq add_vhost "$VHOST" </dev/null || fail "RabbitMQ does not take a vhost"
        changed "RabbitMQ's vhost $VHOST"
    fi
    # Passwords go through standard input: a command line can be read by every user of the host.
    if ! rabbitmq authenticate_user "$user" <<<"$password" >/dev/null 2>&1; then
        if rabbitmq list_users | cut -f1 | grep -Fqx -- "$user"; then
            rabbitmq change_password "$user" <<<"$password" >/dev/null
        else
            rabbitmq add_user "$user" <<<"$password" >/dev/null || fail "RabbitMQ does not take a user"
        fi
        changed "RabbitMQ's user $user"
    fi
    if [ "$(rabbitmq list_user_permissions "$user")" != "$VHOST"$'\t.*\t.*\t.*' ]; then
        rabbitmq set_permissions --vhost "$VHOST" "$user" '.*' '.*' '.*' </dev/null
        changed "the permissions of RabbitMQ's user $user"
    fi
    if broker_is_ours && rabbitmq list_users | cut -f1 | grep -Fqx guest; then
        rabbitmq delete_user guest </dev/null
        changed "RabbitMQ's user guest is removed"
    fi
}

# make_certificates ADDRESS: an authority that signs for this controller alone, and a certificate for its broker.
make_certificates() {
    local address=$1 san work=$SCRATCH/tls
    install -d -m 0700 "$TLS" "$work"
    if [ ! -s "$TLS/ca.pem" ]; then
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days "$CA_DAYS" \
            -subj "/CN=Porthole on $(uname -n)" -addext keyUsage=critical,keyCertSign,cRLSign \
            -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null || fail "openssl could not make an authority"
        put "$TLS/ca.key" 0600 root <"$work/ca.key" || true
        put "$TLS/ca.pem" 0644 root <"$work/ca.pem" || true
    fi
    case $address in
        *:* | *[0-9].[0-9]*.[0-9]*) san=IP:$address ;;
        *) san=DNS:$address ;;
    esac
    if ! is_certificate_for "$address"; then
        printf 'subjectAltName = %s\nextendedKeyUsage = serverAuth\n' "$san" >"$work/extensions"
        openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj "/CN=$address" \
            -keyout "$work/key" -out "$work/request" 2>/dev/null || fail "openssl could not make a key"
        openssl x509 -req -in "$work/request" -CA "$TLS/ca.pem" -CAkey "$TLS/ca.key" -days "$CERT_DAYS" \
            -set_serial "0x$(new_password | cut -c 1-30)" -extfile "$work/extensions" -out "$work/pem" 2>/dev/null ||
            fail "openssl could not make a certificate"
        put "$TLS/broker.key" 0600 root <"$work/key" || true
        put "$TLS/broker.pem" 0644 root <"$work/pem" || true
    fi
}

is_certificate_for() {
    local check=-checkhost
    case $1 in *:* | *[0-9].[0-9]*.[0-9]*) check=-checkip ;; esac
    [ -s "$TLS/broker.pem" ] && [ -s "$TLS/broker.key" ] &&
        openssl verify -CAfile "$TLS/ca.pem" "$TLS/broker.pem" >/dev/null 2>&1 &&
        openssl x509 -in "$TLS/broker.pem" -noout -checkend "$((RENEW_DAYS * 86400))" >/dev/null &&
        openssl x509 -in "$TLS/broker.pem" -noout "$check" "$1" | grep -q "does match"
}

# join NAME OUTPUT REVOKE: print the secret of the compute node NAME, or write it to the file OUTPUT, making it on the
# first time; or, with REVOKE, withdraw it.
# The secret: base64 of "porthole-join-1 NAME PASSWORD", a line feed, and the certificate of the authority in PEM.
join() {
    local name=$1 output=$2 revoke=$3
    local file=/etc/porthole/join/$name user=porthole-$name
    [ -e "$TLS/ca.pem" ] || fail "this is no controller: there is no $TLS/ca.pem"
    if [ -n "$revoke" ]; then
        rm -f "$file"
        rabbitmq delete_user "$user" </dev/null >/dev/null 2>&1 || fail "RabbitMQ knows no user $user"
        rabbitmq close_all_user_connections "$user" "the join secret is withdrawn" </dev/null >/dev/null
        say "$name is off the message bus"
        return 0
    fi
    install -d -m 0700 "${file%/*}"
    [ -s "$file" ] || put "$file" 0600 root <<<"$(new_password)" >/dev/null
    ensure_broker_user "$user" "$(cat "$file")" >/dev/null
    if [ -n "$output" ]; then
        [[ $output == */* ]] || output=./$output
        [ ! -d "$output" ] || fail "$output is a folder; --output takes the name of a file"
        put "$output" 0600 root < <(join_secret "$name" "$file") >/dev/null || true
        say "the join secret of $name is in $output"
    else
        join_secret "$name" "$file"
    fi
}

# join_secret NAME FILE
join_secret() {
    printf 'porthole-join-1 %s %s\n%s\n' "$1" "$(cat "$2")" "$(cat "$TLS/ca.pem")" | base64 -w0
    echo
}

# check_join_secret FILE: refuse one that other users could read, since it is the key to every screen.
check_join_secret() {
    local mode
    [ "$1" != - ] || return 0
    mode=$(stat -L -c %a -- "$1" 2>/dev/null) || fail "$1 is not there, or cannot be read"
    [[ $mode =~ ^([0-7]*0)?0$ ]] ||
        fail "$1 can be read by other users of this host (mode $mode): chmod 600 $1." \
            "If one of them has read it, withdraw it on the controller: deploy/install.sh join NAME --revoke"
}

# remove_from_broker: the vhost and Porthole's users. A broker of ours goes on, on loopback alone.
remove_from_broker() {
    local user
    command -v rabbitmqctl >/dev/null || return 0
    if rabbitmq list_vhosts 2>/dev/null | grep -Fqx -- "$VHOST"; then
        rabbitmq delete_vhost "$VHOST" </dev/null
        for user in $(rabbitmq list_users | cut -f1 | grep -Ex 'porthole(-.*)?'); do
            rabbitmq delete_user "$user" </dev/null
        done
        changed "RabbitMQ's vhost and users of Porthole are removed"
    fi
    broker_is_ours || return 0
    if put "$RABBITMQ_CONF" 0644 root <<<"$(broker_conf)"; then
        rm -f "$RABBITMQ_CERT" "$RABBITMQ_KEY"
        systemctl restart rabbitmq-server
    fi
}
