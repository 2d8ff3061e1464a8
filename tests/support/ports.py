# SPDX-License-Identifier: Apache-2.0
"""Free TCP ports on loopback, for servers that tests start.

Why not just port 0: a server that a test restarts must come back on the same port, and the kernel may have
given an ephemeral one to somebody's outgoing connection by then, or connect a client to itself. These
ports lie below the ephemeral range.
"""

import random
import socket
from pathlib import Path

_LOWEST = 15000
_given: set[int] = set()


def free_port() -> int:
    """Return a port that nobody listens on, never the same twice in this process.

    :raises RuntimeError: when no port is free below the ephemeral range.
    """
    highest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    if highest < _LOWEST + 1000:
        raise RuntimeError(f"ip_local_port_range starts at {highest}: no room below it for the tests' servers")
    for _ in range(1000):
        port = random.randrange(_LOWEST, highest)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise RuntimeError(f"no free port from {_LOWEST} to {highest}")


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        # As the servers do it: a port in TIME_WAIT is free for them.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("", port))
        except OSError:
            return False
    return True
