# SPDX-License-Identifier: Apache-2.0
"""A console belongs to one run of its guest and to its owner, whether or not anybody watched the change.

A guest that starts again at its port, and an entry that is put back, have the address that the console was made for.
"""

import signal
import uuid as uuidlib
from collections.abc import Callable
from pathlib import Path

import pytest
import websockets.exceptions
import yaml
from websockets.sync.connection import Connection

from support.console import get_console, open_console, read_greeting, refusal, token_of, wait_for_instances
from support.daemons import Porthole
from support.libvirtd import Libvirtd, guest_xml
from support.ports import free_port
from support.processes import wait_until
from support.vnc_servers import EchoVnc

MakePorthole = Callable[..., Porthole]
TIMEOUT_S = 60
ALICE, BOB = ("p-alice", "u-alice"), ("p-bob", "u-bob")
OTHER_OWNER = (4401, "The instance has another owner")


@pytest.fixture
def guest(libvirtd: Libvirtd) -> str:
    """A running guest that has the same port at each start, and the first id of its libvirtd; its UUID."""
    libvirtd.restart()
    uuid = str(uuidlib.uuid4())
    vnc = f"<graphics type='vnc' port='{free_port()}' autoport='no' listen='127.0.0.1'/>"
    libvirtd.define(guest_xml("demo", uuid, vnc=vnc, metadata=make_metadata(ALICE)))
    libvirtd.virsh("start", uuid)
    return uuid


def make_metadata(owner: tuple[str, str]) -> str:
    project, user = owner
    return f"<instance xmlns='urn:porthole:instance:1'><owner project='{project}' user='{user}'/></instance>"


def change_owner(libvirtd: Libvirtd, uuid: str, owner: tuple[str, str]) -> None:
    project, user = owner
    element = f"<instance><owner project='{project}' user='{user}'/></instance>"
    libvirtd.virsh("metadata", uuid, "urn:porthole:instance:1", "--live", "--key", "porthole", "--set", element)


def make_token(porthole: Porthole, uuid: str) -> str:
    """Return a new token, which opens the console."""
    wait_for_instances(porthole, uuid)
    token = token_of(get_console(porthole, uuid))
    assert refusal(porthole.novnc_port, token) == 101
    return token


def read_to_the_end(connection: Connection) -> None:
    while True:
        connection.recv(timeout=TIMEOUT_S)


def read_close(connection: Connection) -> tuple[int, str]:
    with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
        read_to_the_end(connection)
    assert caught.value.rcvd
    return caught.value.rcvd.code, caught.value.rcvd.reason


@pytest.mark.parametrize("daemon_restarts", [False, True])
def test_a_guest_that_started_again_while_compute_was_away(
    make_porthole: MakePorthole, libvirtd: Libvirtd, guest: str, daemon_restarts: bool
) -> None:
    """At the same port, and where libvirtd restarted in between, with the same id too (S1)."""
    porthole = make_porthole(libvirt_uri=libvirtd.uri)
    token = make_token(porthole, guest)
    before = libvirtd.virsh("domid", guest), libvirtd.vnc_port(guest)
    porthole.compute.kill()
    libvirtd.destroy(guest)
    if daemon_restarts:
        libvirtd.restart()
    libvirtd.virsh("start", guest)
    after = libvirtd.virsh("domid", guest), libvirtd.vnc_port(guest)
    assert (before == after) == daemon_restarts
    porthole.start_daemon("compute")
    assert refusal(porthole.novnc_port, token) == 401
    make_token(porthole, guest)


def test_a_guest_that_ran_on_keeps_its_token(make_porthole: MakePorthole, libvirtd: Libvirtd, guest: str) -> None:
    porthole = make_porthole(libvirt_uri=libvirtd.uri)
    token = make_token(porthole, guest)
    with open_console(porthole.novnc_port, token) as console:
        assert read_greeting(console)
        porthole.compute.kill()
        libvirtd.restart()
        libvirtd.virsh("suspend", guest)
        libvirtd.virsh("resume", guest)
        libvirtd.virsh("reset", guest)
        porthole.start_daemon("compute")
        libvirtd.restart()
        wait_until(lambda: refusal(porthole.novnc_port, token) != 503, TIMEOUT_S, "libvirtd", porthole.logs)
        assert refusal(porthole.novnc_port, token) == 101
        console.ping().wait(TIMEOUT_S)
        assert porthole.novncproxy.log_of_run().count("Console ended") == 0


def test_another_owner_in_a_guests_metadata(make_porthole: MakePorthole, libvirtd: Libvirtd, guest: str) -> None:
    """Seen by compute, and not seen; an administrator's tokens, as noauth's are, are the owner's too (S23)."""
    porthole = make_porthole(libvirt_uri=libvirtd.uri)
    token = make_token(porthole, guest)
    with open_console(porthole.novnc_port, token) as console:
        assert read_greeting(console)
        change_owner(libvirtd, guest, BOB)
        assert read_close(console) == OTHER_OWNER
    assert refusal(porthole.novnc_port, token) == 401
    token = make_token(porthole, guest)
    porthole.compute.kill()
    change_owner(libvirtd, guest, ALICE)
    porthole.start_daemon("compute")
    assert refusal(porthole.novnc_port, token) == 401
    make_token(porthole, guest)


class Entries:
    """The file of the static driver, and the compute that reads it."""

    def __init__(self, path: Path, server: EchoVnc) -> None:
        self.uuid = str(uuidlib.uuid4())
        self._path = path
        self._entry = {"uuid": self.uuid, "name": "vm", "host": server.host, "port": server.port}

    def write(self, *, listed: bool = True, owner: tuple[str, str] = ALICE) -> None:
        owned = {**self._entry, "project_id": owner[0], "user_id": owner[1]}
        self._path.write_text(yaml.safe_dump({"instances": [owned] if listed else []}), encoding="utf-8")


def reload(porthole: Porthole) -> None:
    count = porthole.compute.log_of_run().count("Instances reread")
    porthole.compute.signal(signal.SIGHUP)
    wait_until(
        lambda: porthole.compute.log_of_run().count("Instances reread") > count, TIMEOUT_S, "the file", porthole.logs
    )


def restart(porthole: Porthole) -> None:
    porthole.compute.kill()
    porthole.start_daemon("compute")


def test_an_entry_that_is_put_back_is_another_run(make_porthole: MakePorthole, tmp_path: Path) -> None:
    """The daemon was restarted while the entry was out, so that it revoked nothing, and after it was back (S1)."""
    path = tmp_path / "instances.yaml"
    with EchoVnc() as server:
        entries = Entries(path, server)
        entries.write()
        porthole = make_porthole(instances_file=path)
        token = make_token(porthole, entries.uuid)
        restart(porthole)
        assert refusal(porthole.novnc_port, token) == 101
        entries.write(listed=False)
        restart(porthole)
        assert refusal(porthole.novnc_port, token) == 401
        entries.write()
        reload(porthole)
        before = server.accepted
        assert refusal(porthole.novnc_port, token) == 401
        restart(porthole)
        assert refusal(porthole.novnc_port, token) == 401
        assert server.accepted == before


def test_another_owner_in_an_entry(make_porthole: MakePorthole, tmp_path: Path) -> None:
    """Reread, and read at a start (S23)."""
    path = tmp_path / "instances.yaml"
    with EchoVnc() as server:
        entries = Entries(path, server)
        entries.write()
        porthole = make_porthole(instances_file=path)
        token = make_token(porthole, entries.uuid)
        with open_console(porthole.novnc_port, token) as console:
            assert read_greeting(console)
            entries.write(owner=BOB)
            reload(porthole)
            assert read_close(console) == OTHER_OWNER
        assert refusal(porthole.novnc_port, token) == 401
        token = make_token(porthole, entries.uuid)
        entries.write(owner=("p-bob", "u-carol"))
        restart(porthole)
        assert refusal(porthole.novnc_port, token) == 401
        make_token(porthole, entries.uuid)
