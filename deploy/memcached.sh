# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# memcached, which holds the console tokens: who reaches it, and that it deletes none that is in use. Sourced by
# install.sh.

MEMCACHED_CONF=/etc/memcached.conf
# memcached(1): an error when the memory is full, rather than the deletion of items.
NO_EVICTION='-M|--disable-evictions'

check_memcached() {
    # A client that reaches memcached can read and write tokens: memcached has no login.
    local listens
    listens=$(sed -n 's/^ *-l *//p' "$MEMCACHED_CONF" | tr ',\n' '  ')
    [ -n "${listens// /}" ] || fail "memcached would listen on every address: give $MEMCACHED_CONF its -l 127.0.0.1"
    for listens in $listens; do
        case $listens in
            127.* | ::1 | localhost) ;;
            *) say "memcached listens on $listens: see that only the controllers reach it" ;;
        esac
    done
}

# keep_tokens: a full memcached refuses new tokens (503). Without -M it would delete the URLs of other users.
keep_tokens() {
    local mode group pid
    if ! grep -Eqx -e "[[:space:]]*($NO_EVICTION)[[:space:]]*" "$MEMCACHED_CONF"; then
        mode=$(stat -c 0%a "$MEMCACHED_CONF") && group=$(stat -c %G "$MEMCACHED_CONF")
        # Where Debian's file has it as a comment; otherwise at the end.
        awk '!done && /^#[ \t]*-M[ \t]*$/ { print "-M"; done = 1; next } { print } END { if (!done) print "-M" }' \
            "$MEMCACHED_CONF" >"$SCRATCH/memcached.conf"
        put "$MEMCACHED_CONF" "$mode" "$group" <"$SCRATCH/memcached.conf" || true
    fi
    # The process is asked, and not the change: an earlier run may have been interrupted before the restart.
    pid=$(systemctl show --property MainPID --value memcached)
    [ "${pid:-0}" -ne 0 ] || return 0
    if ! tr '\0' '\n' <"/proc/$pid/cmdline" | grep -Eqx -e "$NO_EVICTION"; then
        systemctl restart memcached
        changed "memcached is restarted: when it is full, it refuses new tokens and deletes none"
    fi
}
