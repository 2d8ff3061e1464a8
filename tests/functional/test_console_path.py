# SPDX-License-Identifier: Apache-2.0
"""The console path, whole: four daemons, a broker, memcached, libvirt and QEMU; every row of who gets what.

The guests have no disk: their screen is the BIOS, which is all that most of this needs. What must survive a broken
server is in test_console_outages.py.
"""

import contextlib
import http.client
import json
import socket
import urllib.parse
import uuid as uuidlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import websockets.exceptions
from websockets.sync.connection import Connection

from support.console import (
    GREETING,
    ask_console,
    ask_remote_console,
    connect_xvp,
    exchange_rfb,
    get_console,
    get_console_and_end,
    open_console,
    read_greeting,
    refusal,
    token_of,
    wait_for_instances,
    wait_for_status,
)
from support.daemons import Porthole
from support.domain_lock import HeldDomain
from support.libvirtd import Libvirtd, guest_xml
from support.memcached import Memcached
from support.migration import HeldMigration
from support.ports import free_port
from support.processes import wait_until
from support.rabbitmq import RabbitMQ
from support.vnc_servers import TrapServer

MakePorthole = Callable[..., Porthole]
TTL_S = 5


@pytest.fixture
def guest(libvirtd: Libvirtd) -> str:
    """A running guest called demo; its UUID."""
    uuid = str(uuidlib.uuid4())
    libvirtd.create(guest_xml("demo", uuid))
    return uuid


@pytest.fixture(scope="module")
def daemons(
    tmp_path_factory: pytest.TempPathFactory, rabbitmq: RabbitMQ, memcached: Memcached, libvirtd_of_run: Libvirtd
) -> Iterator[Porthole]:
    directory = tmp_path_factory.mktemp("porthole")
    with Porthole(directory, rabbitmq, memcached, libvirt_uri=libvirtd_of_run.uri) as porthole:
        yield porthole


@pytest.fixture
def porthole(daemons: Porthole, guest: str) -> Porthole:
    """The four daemons, which know the guest; a test that kills one starts it again."""
    wait_for_instances(daemons, guest)
    return daemons


def vnc_xml(port: int) -> str:
    return f"<graphics type='vnc' port='{port}' autoport='no' listen='127.0.0.1'/>"


def read_to_the_end(connection: Connection) -> None:
    while True:
        connection.recv(timeout=20)


def test_a_browser_gets_the_screen_of_the_guest(porthole: Porthole, guest: str) -> None:
    for ask in (ask_console, ask_remote_console):
        status, body = ask(porthole, guest)
        assert status == 200, body
        console = body.get("console") or body["remote_console"]
        url = urllib.parse.urlsplit(console["url"])
        assert f"{url.scheme}://{url.netloc}{url.path}" == f"http://127.0.0.1:{porthole.novnc_port}/console.html"
        with open_console(porthole.novnc_port, token_of(console["url"])) as connection:
            assert connection.subprotocol == "binary"
            assert exchange_rfb(connection) == "QEMU (demo)"


def test_a_browser_of_the_same_host_is_let_in_and_a_foreign_one_is_not(porthole: Porthole, guest: str) -> None:
    """Through the real daemons (S4)."""
    token = token_of(get_console(porthole, guest))
    port = porthole.novnc_port
    assert refusal(port, token, f"http://127.0.0.1:{port}") == 101
    assert refusal(port, token, "http://evil.example") == 403
    assert refusal(port, token, f"https://127.0.0.1:{port}") == 403
    assert refusal(port, token, "null") == 403


def test_a_native_viewer_gets_raw_rfb(porthole: Porthole, guest: str) -> None:
    status, sock = connect_xvp(porthole.xvp_port, token_of(get_console(porthole, guest, "xvpvnc")))
    with sock:
        assert status == b"HTTP/1.1 200 OK"
        assert sock.recv(12, socket.MSG_WAITALL) == GREETING


def test_a_token_opens_only_the_door_it_was_issued_for(porthole: Porthole, guest: str) -> None:
    """S18."""
    novnc, xvp = (token_of(get_console(porthole, guest, kind)) for kind in ("novnc", "xvpvnc"))
    assert refusal(porthole.novnc_port, xvp) == 401
    status, sock = connect_xvp(porthole.xvp_port, novnc)
    sock.close()
    assert status == b"HTTP/1.1 401 Unauthorized"
    assert refusal(porthole.novnc_port, novnc) == 101


def test_tokens_that_open_nothing(porthole: Porthole, guest: str) -> None:
    port = porthole.novnc_port
    for token in ("", "x", str(uuidlib.uuid4()), guest, "a" * 10240, "%0a" + str(uuidlib.uuid4())):
        assert refusal(port, token) == 401
    for path, status in (("/console", b"400"), (f"/console?token={guest}", b"401")):
        with socket.create_connection(("127.0.0.1", porthole.xvp_port), 20) as sock:
            sock.sendall(f"CONNECT {path} HTTP/1.0\r\n\r\n".encode())
            assert sock.recv(100).split()[1] == status


def test_an_expired_token_opens_nothing(
    daemons: Porthole, make_porthole: MakePorthole, libvirtd: Libvirtd, guest: str
) -> None:
    """O13: the store ends it when the one owner of the time said so to the user, and the proxy has no other opinion."""
    # Two consoleauths of one broker would share the work: this one has it to itself.
    daemons.consoleauth.stop()
    try:
        porthole = make_porthole(libvirt_uri=libvirtd.uri, options={"consoleauth": {"token_ttl": TTL_S}})
        wait_for_instances(porthole, guest)
        asked_at = datetime.now(UTC)
        url, expires_at = get_console_and_end(porthole, guest)
        assert asked_at + timedelta(seconds=TTL_S - 1) < expires_at < datetime.now(UTC) + timedelta(seconds=TTL_S + 1)
        token = token_of(url)
        assert refusal(porthole.novnc_port, token) == 101
        wait_until(lambda: refusal(porthole.novnc_port, token) == 401, 3 * TTL_S, "the token to expire")
        # memcached counts whole seconds, by a clock that ticks once a second, and later on a busy machine.
        assert datetime.now(UTC) > expires_at - timedelta(seconds=2.5)
        porthole.consoleauth.stop()
    finally:
        # The other tests share the daemons.
        daemons.start_daemon("consoleauth")


def test_the_page_is_told_why(porthole: Porthole, guest: str) -> None:
    """A browser cannot read the status of a refused upgrade: the same path says it in JSON, and spends nothing."""
    token = token_of(get_console(porthole, guest))

    def ask(query: str) -> tuple[int, dict[str, object]]:
        client = http.client.HTTPConnection("127.0.0.1", porthole.novnc_port, timeout=20)
        with contextlib.closing(client):
            client.request("GET", f"/?{query}", headers={"Accept": "application/json"})
            answer = client.getresponse()
            return answer.status, json.loads(answer.read())

    assert ask(f"token={token}")[0] == 200
    status, body = ask(f"token={uuidlib.uuid4()}")
    assert (status, body["code"]) == (401, 401)
    assert "not valid" in str(body["reason"])
    assert refusal(porthole.novnc_port, token) == 101


def test_a_stopped_guest_takes_its_tokens_along(porthole: Porthole, libvirtd: Libvirtd, guest: str) -> None:
    """They die with it, and stay dead when it is born again (S1)."""
    token = token_of(get_console(porthole, guest))
    with open_console(porthole.novnc_port, token) as connection:
        read_greeting(connection)
        libvirtd.destroy("demo")
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            read_to_the_end(connection)
    assert refusal(porthole.novnc_port, token) == 401
    wait_until(lambda: ask_console(porthole, guest)[0] == 404, 20, "the transient guest to be gone")
    # Born again under the same UUID, it is another guest: the old token stays dead.
    libvirtd.create(guest_xml("demo", guest))
    wait_for_status(porthole, guest, "ACTIVE")
    assert refusal(porthole.novnc_port, token) == 401


def test_guests_that_have_no_screen_now(porthole: Porthole, libvirtd: Libvirtd) -> None:
    """C7: 409 with the reason for what passes, 400 for what the guest will never have, on both routes."""
    stopped, blind = (str(uuidlib.uuid4()) for _ in range(2))
    libvirtd.define(guest_xml("stopped", stopped))
    libvirtd.create(guest_xml("blind", blind, vnc=None))
    wait_for_instances(porthole, stopped, blind)
    for ask in (ask_console, ask_remote_console):
        for uuid, code, fault in (
            (stopped, 409, "conflictingRequest"),
            (blind, 400, "badRequest"),
            (str(uuidlib.uuid4()), 404, "itemNotFound"),
        ):
            status, body = ask(porthole, uuid)
            assert status == code, body
            assert body[fault]["code"] == code
            assert body[fault]["message"]


def test_a_paused_guest_has_a_console(porthole: Porthole, libvirtd: Libvirtd) -> None:
    """Whatever paused it: it is created so, and then restored so."""
    paused = str(uuidlib.uuid4())
    libvirtd.define(guest_xml("paused", paused))
    libvirtd.virsh("start", paused, "--paused")
    wait_for_status(porthole, paused, "PAUSED")
    assert refusal(porthole.novnc_port, token_of(get_console(porthole, paused))) == 101
    libvirtd.virsh("managedsave", paused, "--paused")
    wait_for_status(porthole, paused, "SHUTOFF")
    assert ask_console(porthole, paused)[0] == 409
    libvirtd.virsh("start", paused)
    wait_for_status(porthole, paused, "PAUSED")
    assert refusal(porthole.novnc_port, token_of(get_console(porthole, paused))) == 101


def test_a_running_guest_that_is_undefined_keeps_its_console(porthole: Porthole, libvirtd: Libvirtd) -> None:
    uuid = str(uuidlib.uuid4())
    libvirtd.define(guest_xml("persistent", uuid))
    libvirtd.virsh("start", uuid)
    wait_for_status(porthole, uuid, "ACTIVE")
    token = token_of(get_console(porthole, uuid))
    libvirtd.virsh("undefine", uuid)
    # libvirt keeps the order of its events: that of the running guest has arrived before.
    libvirtd.virsh("suspend", uuid)
    wait_for_status(porthole, uuid, "PAUSED")
    assert refusal(porthole.novnc_port, token) == 101


def test_a_guest_whose_lock_libvirtd_holds(porthole: Porthole, libvirtd: Libvirtd, guest: str) -> None:
    """O30: it is UNKNOWN and its console 503; the host is not silent, and nothing has ended when libvirtd lets go."""
    other = str(uuidlib.uuid4())
    libvirtd.create(guest_xml("other", other))
    wait_for_status(porthole, other, "ACTIVE")
    token = token_of(get_console(porthole, guest))
    with HeldDomain(libvirtd, guest):
        # The question makes compute notice, and say so in an inventory.
        assert ask_console(porthole, guest)[0] == 503
        wait_for_status(porthole, guest, "UNKNOWN")
        assert refusal(porthole.novnc_port, token) == 503
        wait_for_status(porthole, other, "ACTIVE")
        assert refusal(porthole.novnc_port, token_of(get_console(porthole, other))) == 101
    wait_for_status(porthole, guest, "ACTIVE")
    assert refusal(porthole.novnc_port, token) == 101


def test_a_guest_on_its_way_to_another_host(porthole: Porthole, libvirtd: Libvirtd, guest: str) -> None:
    """C7: 409 on both routes while it migrates; its token opens nothing, neither then nor afterwards."""
    token = token_of(get_console(porthole, guest))
    assert refusal(porthole.novnc_port, token) == 101
    with Libvirtd() as destination:
        with HeldMigration(libvirtd, destination, guest) as migration:
            wait_until(lambda: ask_console(porthole, guest)[0] == 409, 20, "the migration to be noticed")
            for ask in (ask_console, ask_remote_console):
                status, body = ask(porthole, guest)
                assert (status, body["conflictingRequest"]["code"]) == (409, 409)
            assert refusal(porthole.novnc_port, token) == 401
            migration.finish()
        wait_until(lambda: ask_console(porthole, guest)[0] == 404, 20, "the guest to have left")
        assert refusal(porthole.novnc_port, token) == 401


def test_a_token_does_not_follow_a_port_to_another_guest(
    porthole: Porthole, libvirtd: Libvirtd, tmp_path: Path
) -> None:
    """S1: guest A's port becomes guest B's while compute is blind; the token of A opens nothing of B's."""
    port = free_port()
    first, second = str(uuidlib.uuid4()), str(uuidlib.uuid4())
    libvirtd.create(guest_xml("first", first, vnc=vnc_xml(port)))
    wait_for_instances(porthole, first)
    token = token_of(get_console(porthole, first))
    assert refusal(porthole.novnc_port, token) == 101
    # A compute that was away when A ended revokes nothing: only the question at the moment of use protects B.
    porthole.compute.kill()
    libvirtd.destroy("first")
    libvirtd.create(guest_xml("second", second, vnc=vnc_xml(port)))
    porthole.start_daemon("compute")
    wait_for_instances(porthole, second)
    assert refusal(porthole.novnc_port, token) == 401
    assert refusal(porthole.novnc_port, token_of(get_console(porthole, second))) == 101


def test_a_moved_guest_leaves_no_way_to_its_old_port(porthole: Porthole, libvirtd: Libvirtd) -> None:
    """S2: a trap listens where the guest's VNC server was; nothing ever connects to it."""
    uuid, port = str(uuidlib.uuid4()), free_port()
    libvirtd.create(guest_xml("mover", uuid, vnc=vnc_xml(port)))
    wait_for_instances(porthole, uuid)
    token = token_of(get_console(porthole, uuid))
    porthole.compute.kill()
    libvirtd.destroy("mover")
    with TrapServer(port) as trap:
        libvirtd.create(guest_xml("mover", uuid, vnc=vnc_xml(free_port())))
        porthole.start_daemon("compute")
        assert refusal(porthole.novnc_port, token) == 401
        assert trap.accepted == 0
    assert refusal(porthole.novnc_port, token_of(get_console(porthole, uuid))) == 101


def test_no_token_in_any_log_or_command_line(porthole: Porthole, libvirtd: Libvirtd, guest: str) -> None:
    """S6: the whole flow at DEBUG in every daemon, what fails included."""
    tokens = []
    for kind in ("novnc", "xvpvnc"):
        for ask in (ask_console, ask_remote_console):
            body = ask(porthole, guest, kind)[1]
            tokens.append(token_of((body.get("console") or body["remote_console"])["url"]))
    unknown = str(uuidlib.uuid4())
    tokens.append(unknown)
    for token in tokens:
        refusal(porthole.novnc_port, token)
        refusal(porthole.novnc_port, token, "http://evil.example")
        connect_xvp(porthole.xvp_port, token)[1].close()
        for request in (
            f"GET /console.html?path=%3Ftoken%3D{token} HTTP/1.1\r\nHost: a\r\n\r\n",
            f"GET /%3Ftoken%3D{token} HTTP/1.1\r\nHost: a\r\n\r\n",
            f"GET /?token={token.replace('-', '%2D')} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
            f"GET /websockify HTTP/1.1\r\nHost: a\r\nCookie: token={token}\r\nUpgrade: websocket\r\n\r\n",
            f"POST /?token={token} HTTP/1.1\r\nHost: a\r\n\r\n",
            f"BROKEN /?token={token}\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", porthole.novnc_port), 20) as sock:
                sock.sendall(request.encode())
                assert sock.recv(65536), request
    libvirtd.destroy("demo")
    wait_until(lambda: refusal(porthole.novnc_port, tokens[0]) == 401, 20, "the revocation")
    porthole.consoleauth.stop()
    assert refusal(porthole.novnc_port, tokens[0]) == 503
    porthole.start_daemon("consoleauth")
    everything = porthole.logs() + "\n".join(porthole.command_lines())
    for token in tokens:
        assert token not in everything
        # As a client may write it that encodes more than it must.
        assert token.replace("-", "%2D") not in everything
        assert token.replace("-", "%2d") not in everything
    # The logs were read, and they are talkative: each request to the proxy is a line.
    assert everything.count("DEBUG") > len(tokens) * 4
    assert guest in everything
