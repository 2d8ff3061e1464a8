# SPDX-License-Identifier: Apache-2.0
"""TCP ports for servers that tests start: free ones, held from the moment they are given out.

Why not just port 0: a server that a test restarts must come back on the same port, and the kernel may have given an
ephemeral one to an outgoing connection by then. These ports lie below the ephemeral range.

How a port is held: this process keeps a socket that is bound to the port and does not listen. Linux lets a second
socket bind there, and listen, when both set SO_REUSEADDR (socket(7)): every server here does. A search of this module
does not set it, in this process or another, and passes over the port. So a number is never given out twice, whatever
time passes until its server starts, or between two starts.
"""

import errno
import random
import socket
from collections.abc import Iterator
from pathlib import Path

_LOWEST = 15000
_ATTEMPTS = 1000
_held: dict[int, list[socket.socket]] = {}


class NoFreePort(RuntimeError):
    """There are no free ports below the ephemeral range; the text says what was sought."""


def free_port() -> int:
    """Return a port on which nobody listens, held for this process.

    :raises NoFreePort: when no port is free below the ephemeral range.
    """
    return reserve_block(1)[0]


def reserve_block(count: int) -> range:
    """Return ``count`` consecutive ports on which nobody listens, held for this process.

    :raises NoFreePort: when so many are not free below the ephemeral range.
    """
    ports = _ports()
    for _ in range(_ATTEMPTS):
        first = random.randrange(ports.start, ports.stop - count + 1)
        if _hold(block := range(first, first + count)):
            return block
    # By chance none was met; a range that is nearly full may still have one.
    for first in range(ports.start, ports.stop - count + 1):
        if _hold(block := range(first, first + count)):
            return block
    raise NoFreePort(f"no {count} free TCP ports in a row from {ports.start} to {ports.stop - 1}: what listens there?")


def _ports() -> range:
    """Return the ports from which the tests take theirs.

    :raises NoFreePort: when the ephemeral range leaves no room.
    """
    highest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    if highest < _LOWEST + 1000:
        raise NoFreePort(f"ip_local_port_range starts at {highest}: no room below it for the tests' servers")
    return range(_LOWEST, highest)


def _hold(block: range) -> bool:
    """Hold each port of ``block``, or none; say whether all were free."""
    if any(port in _held for port in block):
        return False
    taken: dict[int, list[socket.socket]] = {}
    for port in block:
        holders = taken[port] = []
        try:
            holders.extend(_bind(port))
        except OSError:
            for sockets in taken.values():
                for holder in sockets:
                    holder.close()
            return False
    _held.update(taken)
    return True


def _bind(port: int) -> Iterator[socket.socket]:
    """Bind a socket of each address family to the port.

    :raises OSError: when somebody has the port.
    """
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            holder = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            if family == socket.AF_INET6:
                continue
            raise
        try:
            if family == socket.AF_INET6:
                holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            holder.bind((address, port))
        except OSError as exc:
            holder.close()
            # A machine may have no IPv6 address at all.
            if family == socket.AF_INET6 and exc.errno == errno.EADDRNOTAVAIL:
                continue
            raise
        # After the bind: before it, the option would let this socket share the port with another holder.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        yield holder
