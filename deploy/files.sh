# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# How deploy/install.sh changes a host: a file is whole or not there, a change is printed and counted, and an
# interrupted run leaves no secret behind and no restart forgotten. Sourced by install.sh, and used by broker.sh too.

# The folder for whatever a run makes on the way, keys among it: it is removed however the run ends.
SCRATCH=
# An interrupted run leaves this file when daemons have not been restarted since a change. A boot removes it, and
# starts the daemons with their new configuration.
PENDING=/run/porthole-install-pending

changes=0
# Whether this run is to note in PENDING that something was changed: a run that restarts what needs it.
notes_changes=
half_written=

fail() {
    say "$*"
    exit 1
}

# changed WHAT: print it, and count.
changed() {
    changes=$((changes + 1))
    printf 'changed: %s\n' "$*"
}

# make_scratch: the folder, and its end, also by Ctrl-C and by a signal.
make_scratch() {
    SCRATCH=$(mktemp -d)
    chmod 0700 "$SCRATCH"
    trap 'remove_scratch' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

remove_scratch() {
    rm -rf -- "$SCRATCH" ${half_written:+"$half_written"}
}

# note_change: from here on the daemons run with something else than what is installed, until restarts_done.
note_change() {
    [ -z "$notes_changes" ] || : >"$PENDING"
}

restarts_done() {
    rm -f "$PENDING"
}

# put FILE MODE GROUP: standard input becomes the file, root's and GROUP's, unless it is so already; 1 when it was.
# The mode is set before anything is in it, and the file is whole or not there.
put() {
    local file=$1 mode=$2 group=$3
    mkdir -p "${file%/*}"
    half_written=$(mktemp "$file.XXXXXX")
    chgrp "$group" "$half_written"
    chmod "$mode" "$half_written"
    cat >"$half_written"
    if cmp -s "$half_written" "$file" && [ "$(stat -c '%U:%G %a' "$file")" = "root:$group ${mode#0}" ]; then
        rm -f "$half_written"
        half_written=
        return 1
    fi
    note_change
    mv -f "$half_written" "$file"
    half_written=
    changed "$file"
}
