# SPDX-License-Identifier: Apache-2.0
"""Several hosts on one machine: network namespaces with an address each, on a bridge that is a namespace too.

Why: what goes wrong between hosts (an address that means another machine, a cable that is cut, a name that only one of
them knows) does not go wrong on loopback. Nothing of it is in the machine's own network: not an interface, not a route.
Needs root and iproute2, see network_namespaces(7), veth(4) and ip-netns(8).

Whatever a thread creates inside :meth:`Host.entered` stays in that host: a process, a listening socket, a connection.
"""

import contextlib
import ctypes
import itertools
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from support import leftovers

_CLONE_NEWNET = 0x40000000
_NAMESPACES = Path("/run/netns")
# Addresses that belong to nobody (RFC 5737), in namespaces that reach nobody.
_PREFIX = "192.0.2"
# A locally administered address that no interface has: what is sent there is lost without a word.
_NOBODYS_MAC = "02:00:00:00:00:00"
_ESTABLISHED, _LISTEN = "01", "0A"
_LIBC = ctypes.CDLL(None, use_errno=True)
_IP_TIMEOUT_S = 60
_numbers = itertools.count(1)


class Host:
    """One namespace with loopback and an ``eth0``; made by :meth:`Network.add_host`."""

    def __init__(self, namespace: str, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self._namespace = namespace

    @property
    def namespace_path(self) -> Path:
        """Where programs that take a network namespace find it."""
        return _NAMESPACES / self._namespace

    @contextlib.contextmanager
    def entered(self) -> Iterator[Self]:
        """Put the calling thread into this host for a while; other threads stay where they are."""
        with _open(Path("/proc/thread-self/ns/net")) as before, _open(_NAMESPACES / self._namespace) as here:
            _enter(here)
            try:
                yield self
            finally:
                _enter(before)

    def reach(self, address: str, port: int, timeout_s: float) -> None:
        """Make a TCP connection from this host, and end it.

        :raises OSError: when it cannot be made.
        """
        with self.entered(), socket.create_connection((address, port), timeout_s):
            return

    def connections(self) -> set[tuple[str, int]]:
        """Return the far ends of the TCP connections that are established here."""
        return {far for _near, far, state in self._tcp() if state == _ESTABLISHED}

    def ports_to(self, address: str, port: int) -> set[int]:
        """Return the near ports of the TCP connections to ``port`` of ``address`` that are established here."""
        return {near[1] for near, far, state in self._tcp() if state == _ESTABLISHED and far == (address, port)}

    def listeners(self) -> set[tuple[str, int]]:
        """Return the addresses that are listened on here."""
        return {near for near, _far, state in self._tcp() if state == _LISTEN}

    def _tcp(self) -> Iterator[tuple[tuple[str, int], tuple[str, int], str]]:
        with self.entered():
            rows = Path("/proc/thread-self/net/tcp").read_text(encoding="ascii").splitlines()[1:]
        for near, far, state in (row.split()[1:4] for row in rows):
            yield _parse_address(near), _parse_address(far), state

    def cut(self, other: "Host") -> None:
        """Lose every packet between this host and ``other``, both ways; nobody is told."""
        for near, far in ((self, other), (other, self)):
            _ip("-n", near._namespace, "neigh", "replace", far.address, "lladdr", _NOBODYS_MAC, "dev", "eth0")

    def mend(self, other: "Host") -> None:
        """Undo :meth:`cut`."""
        for near, far in ((self, other), (other, self)):
            _ip("-n", near._namespace, "neigh", "del", far.address, "dev", "eth0")

    def set_link(self, up: bool) -> None:
        """Plug the host's only cable in, or pull it."""
        _ip("-n", self._namespace, "link", "set", "eth0", "up" if up else "down")


class Network:
    """Hosts that reach each other and nobody else; :meth:`close` takes them away."""

    def __init__(self) -> None:
        """Make the bridge."""
        leftovers.remove_namespaces()
        self._prefix = f"porthole-{os.getpid()}-{next(_numbers)}-"
        self._bridge = f"{self._prefix}bridge"
        self.hosts: dict[str, Host] = {}
        self._made: list[str] = []
        try:
            self._add_namespace(self._bridge)
            _ip("-n", self._bridge, "link", "add", "bridge", "type", "bridge")
            _ip("-n", self._bridge, "link", "set", "bridge", "up")
        except BaseException:
            self.close()
            raise

    def add_host(self, name: str) -> Host:
        """Make a host and plug it in; ``name`` has at most 15 characters, since its cable is called so."""
        host = Host(f"{self._prefix}{name}", name, f"{_PREFIX}.{len(self.hosts) + 1}")
        self._add_namespace(host._namespace)
        # The name eth0 is free in a new namespace, whatever the machine has.
        cable = ("type", "veth", "peer", "name", name, "netns", self._bridge)
        _ip("-n", host._namespace, "link", "add", "eth0", *cable)
        _ip("-n", self._bridge, "link", "set", "dev", name, "master", "bridge", "up")
        _ip("-n", host._namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
        _ip("-n", host._namespace, "link", "set", "eth0", "up")
        self.hosts[name] = host
        return host

    def _add_namespace(self, namespace: str) -> None:
        _ip("netns", "add", namespace)
        self._made.append(namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")

    def close(self) -> None:
        """Remove the namespaces and with them every interface; processes in them lose their network."""
        while self._made:
            _ip("netns", "del", self._made.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _parse_address(text: str) -> tuple[str, int]:
    """Read ``0100007F:1F90``, an IPv4 address in the machine's order and a port (proc_net_tcp)."""
    address, _colon, port = text.partition(":")
    return socket.inet_ntoa(struct.pack("=I", int(address, 16))), int(port, 16)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _enter(descriptor: int) -> None:
    """setns(2); os.setns came with Python 3.12."""
    if _LIBC.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*arguments: str) -> None:
    """Run ip(8).

    :raises AssertionError: when it complains; it says what.
    """
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    result = subprocess.run(
        ["ip", *arguments],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=_IP_TIMEOUT_S,
    )
    assert result.returncode == 0, f"ip {' '.join(arguments)}: {result.stderr.strip()} (it takes root)"
