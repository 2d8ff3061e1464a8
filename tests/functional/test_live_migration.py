# SPDX-License-Identifier: Apache-2.0
"""A guest moves, live, from one libvirtd to another while somebody looks at its screen (S1, S2).

Both are private ones on this machine, each with a compute of its own; QEMU without KVM. What the proxy would dial by
mistake is a trap: whatever listens on the old port notes each connection.
"""

import threading
import time
import uuid as uuidlib
from collections.abc import Callable, Iterator

import pytest
import websockets.exceptions
from websockets.sync.connection import Connection

from support.console import (
    ask_console,
    exchange_rfb,
    get_console,
    open_console,
    read_greeting,
    refusal,
    token_of,
    wait_for_instances,
)
from support.daemons import Porthole
from support.deadlines import MACHINE_SLACK_S, REVOCATION_S, join_within
from support.libvirtd import Libvirtd, guest_xml
from support.ports import free_port
from support.processes import wait_until
from support.vnc_servers import EchoVnc

MakePorthole = Callable[..., Porthole]
NAME = "guest"
# Sessions end and the directory knows within a second of the guest's end here. With the allowance this is still well
# before the next inventory that is published anyway (30 s).
MOVED_WITHIN_S = REVOCATION_S + MACHINE_SLACK_S
# Between two questions of somebody who asks all the time: the guest has to move meanwhile.
PAUSE_S = 0.05


class Trap(EchoVnc):
    """Stands on the port that the guest left; :attr:`accepted` must stay 0.

    No other process takes that port first: the old host's libvirtd holds its display ports.
    """

    def __init__(self, port: int) -> None:
        self._greeting, self._farewell = b"RFB 003.008\n", b""
        super(EchoVnc, self).__init__(port)


class Asking:
    """Somebody who asks for a console of the guest all the time, and notes each answer."""

    def __init__(self, porthole: Porthole, uuid: str) -> None:
        self._porthole, self._uuid = porthole, uuid
        self.answers: set[int] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="asking")

    def _run(self) -> None:
        while not self._over.wait(PAUSE_S):
            self.answers.add(ask_console(self._porthole, self._uuid)[0])

    def __enter__(self) -> "Asking":
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        join_within(60, self._thread)


@pytest.fixture
def destination() -> Iterator[Libvirtd]:
    with Libvirtd() as daemon:
        yield daemon


def read_close(session: Connection) -> tuple[int, str]:
    """Return code and reason of the close frame that the proxy sends in time."""
    deadline = time.monotonic() + MOVED_WITHIN_S
    try:
        while True:
            session.recv(timeout=max(0.0, deadline - time.monotonic()))
    except websockets.exceptions.ConnectionClosed as exc:
        return (exc.rcvd.code, exc.rcvd.reason) if exc.rcvd else (1006, "no close frame")


def host_of(porthole: Porthole, uuid: str) -> str:
    """Return where the api sees the guest running; empty while it is on its way."""
    _status, body = porthole.request(f"/v2.1/servers/{uuid}")
    text = body.decode()
    return text.partition('"OS-EXT-SRV-ATTR:host": "')[2].partition('"')[0] if '"ACTIVE"' in text else ""


def test_a_guest_moves(make_porthole: MakePorthole, libvirtd: Libvirtd, destination: Libvirtd) -> None:
    uuid = str(uuidlib.uuid4())
    libvirtd.create(guest_xml(NAME, uuid))
    porthole = make_porthole(libvirt_uri=libvirtd.uri)
    there = f"{porthole.host}-2"
    porthole.add("compute", "compute-2", {"DEFAULT": {"host": there}, "libvirt": {"connection_uri": destination.uri}})
    porthole.start_daemon("compute-2")
    wait_for_instances(porthole, uuid)
    old_port = libvirtd.vnc_port(uuid)
    old = token_of(get_console(porthole, uuid))
    with open_console(porthole.novnc_port, old) as session, Asking(porthole, uuid) as asking:
        read_greeting(session)
        migrate_url = f"tcp://127.0.0.1:{free_port()}"
        libvirtd.virsh("migrate", "--live", "--p2p", "--migrateuri", migrate_url, uuid, destination.uri)
        arrived_at = time.monotonic()
        ended = read_close(session)
        closed_s = time.monotonic() - arrived_at
        wait_until(lambda: host_of(porthole, uuid) == there, MOVED_WITHIN_S, "the move", porthole.logs)
        moved_s = time.monotonic() - arrived_at
    # The session is over, and its page can say why.
    assert ended == (4401, "The instance has moved to another host")
    print(f"after the migration: the session ended in {closed_s:.2f} s, the directory knew in {moved_s:.2f} s")
    # Nobody was told that there is no such guest.
    assert asking.answers <= {200, 409, 503}
    trap = Trap(old_port)
    try:
        assert refusal(porthole.novnc_port, old) == 401
        new = token_of(get_console(porthole, uuid))
        with open_console(porthole.novnc_port, new) as session:
            assert exchange_rfb(session) == f"QEMU ({NAME})"
        assert refusal(porthole.novnc_port, old) == 401
        assert trap.accepted == 0
    finally:
        trap.stop()
    # And back again: the first host's tokens of before stay dead.
    destination.virsh("migrate", "--live", "--p2p", "--migrateuri", migrate_url, uuid, libvirtd.uri)
    wait_until(lambda: host_of(porthole, uuid) == porthole.host, MOVED_WITHIN_S, "the move back", porthole.logs)
    assert refusal(porthole.novnc_port, old) == 401
    wait_until(lambda: refusal(porthole.novnc_port, new) == 401, MOVED_WITHIN_S, "the second token's end")
    with open_console(porthole.novnc_port, token_of(get_console(porthole, uuid))) as session:
        assert exchange_rfb(session) == f"QEMU ({NAME})"
