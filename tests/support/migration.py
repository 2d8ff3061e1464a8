# SPDX-License-Identifier: Apache-2.0
"""A live migration that stops half-way, for as long as a test looks at it.

Why not a QEMU that is stopped by a signal: libvirtd may hold the domain's lock while it talks to that QEMU, and then
nothing that asks libvirtd about the domain has an answer. Here both QEMUs and both libvirtd go on. The guest's memory
passes through a relay of the test, and the relay holds it.
"""

import contextlib
import select
import socket
import threading
from types import TracebackType
from typing import Self

from support.deadlines import join_within
from support.libvirtd import Libvirtd, VirshFailed
from support.ports import reserve_block

TIMEOUT_S = 60
# The new QEMU listens on the one address, and the old QEMU is sent to the other one, on the same port.
_HERE, _THERE = "127.0.0.2", "127.0.0.1"


class HeldMigration:
    """Moves ``guest`` from ``source`` to ``destination``; it begins on entry and is held until :meth:`finish`.

    On entry it returns once the old QEMU is connected to the relay. The end of the block lets the migration go on, too.
    """

    def __init__(self, source: Libvirtd, destination: Libvirtd, guest: str) -> None:
        (self._port,) = reserve_block(1)
        self._listener = socket.create_server((_HERE, self._port))
        self._listener.settimeout(TIMEOUT_S)
        self._source = source
        self._to = ("--migrateuri", f"tcp://{_HERE}:{self._port}", "--listen-address", _THERE, guest, destination.uri)
        self._go_on = threading.Event()
        self._failures: list[str] = []
        self._migration = threading.Thread(target=self._migrate, name="migration", daemon=True)
        self._relay = threading.Thread(target=self._forward, name="migration-relay", daemon=True)
        self._incoming: socket.socket | None = None

    def _migrate(self) -> None:
        try:
            self._source.virsh("migrate", "--live", "--p2p", *self._to, timeout_s=2 * TIMEOUT_S)
        except VirshFailed as exc:
            self._failures.append(str(exc))

    def _forward(self) -> None:
        assert self._incoming
        if not self._go_on.wait(TIMEOUT_S):
            self._failures.append(f"nobody let the migration go on within {TIMEOUT_S} s")
        with self._incoming as incoming, socket.create_connection((_THERE, self._port), TIMEOUT_S) as outgoing:
            for sock in (incoming, outgoing):
                sock.settimeout(TIMEOUT_S)
            to = {incoming: outgoing, outgoing: incoming}
            while to:
                ready = select.select(list(to), [], [], TIMEOUT_S)[0]
                assert ready, f"the migration stood still for {TIMEOUT_S} s"
                for sock in ready:
                    _pass_on(sock, to)

    def finish(self) -> None:
        """Let the migration go on, and return when it is over.

        :raises AssertionError: when it failed or did not end within a deadline.
        """
        self._go_on.set()
        join_within(TIMEOUT_S, self._migration, self._relay)
        assert not self._failures, self._failures

    def __enter__(self) -> Self:
        self._migration.start()
        try:
            self._incoming, _address = self._listener.accept()
        except TimeoutError:
            join_within(2 * TIMEOUT_S, self._migration)
            raise AssertionError(f"the migration did not begin: {self._failures}") from None
        self._relay.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        # What the block raised is the better cause.
        with contextlib.suppress(AssertionError) if error else contextlib.nullcontext():
            self.finish()


def _pass_on(sock: socket.socket, to: dict[socket.socket, socket.socket]) -> None:
    """Hand on what has come; a side that has ended is taken out."""
    try:
        data = sock.recv(1 << 16)
        if data:
            to[sock].sendall(data)
            return
        to.pop(sock).shutdown(socket.SHUT_WR)
    except OSError:
        # One of the two QEMUs has gone; libvirt says whether the guest has arrived.
        to.clear()
