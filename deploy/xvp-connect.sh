#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Joins standard input and output to a console's RFB stream, through the xvpvnc door of porthole-novncproxy.
#
# Why: viewers speak RFB over a plain TCP connection, and none sends the request that the door wants first. socat
# offers a viewer such a connection and starts this for it:
#
#   read -r PORTHOLE_URL < <(porthole get-vnc-console SERVER xvpvnc -f value -c Url) && export PORTHOLE_URL
#   socat TCP-LISTEN:5999,bind=127.0.0.1,reuseaddr EXEC:deploy/xvp-connect.sh
#   vncviewer 127.0.0.1:5999
#
# The URL comes in the environment, since a command line can be read by every user of the machine. http only: for
# https put the TLS into socat, and the address of that listener into the URL.

set -u
if [[ ! ${PORTHOLE_URL-} =~ ^http://([^/]+):([0-9]+)(/.*)$ ]]; then
    echo "xvp-connect.sh: PORTHOLE_URL must be what get-vnc-console SERVER xvpvnc gives, with http:// and a port" >&2
    exit 2
fi
host=${BASH_REMATCH[1]} port=${BASH_REMATCH[2]} path=${BASH_REMATCH[3]}
exec 3<>"/dev/tcp/$host/$port" || exit 1
printf 'CONNECT %s HTTP/1.0\r\n\r\n' "$path" >&3
# Read to the blank line and not a byte further: what follows is RFB already. bash reads a socket byte by byte.
read -r -t 30 status <&3 || status="no answer from $host:$port"
while IFS=$' \t\r' read -r -t 30 header <&3 && [ -n "$header" ]; do :; done
if [[ ! $status =~ ^HTTP/1\.[01]\ 200\  ]]; then
    echo "xvp-connect.sh: the console was refused: ${status%$'\r'}" >&2
    exit 1
fi
# Neither side ends half of its stream, so the end of one direction is the end of the console: a viewer that has left
# must not keep it open.
cat <&3 &
down=$!
cat <&0 >&3 &
up=$!
trap 'kill "$down" "$up" 2>/dev/null' EXIT
trap 'exit 143' TERM
wait -n
exit 0
