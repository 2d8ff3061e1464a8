# SPDX-License-Identifier: Apache-2.0
"""What changes between the first check of a console and its first byte: the client learns it, and the guest nothing."""

import contextlib
import signal
import socket
import threading
import uuid as uuidlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from support.console import get_console, token_of, wait_for_instances
from support.daemons import Porthole
from support.processes import wait_until
from support.vnc_servers import GREETING, VncServer
from support.websocket import BINARY, build_frame, build_upgrade, connect, read_reply

FIRST, SECOND = str(uuidlib.uuid4()), str(uuidlib.uuid4())
# The handshake of a viewer without a password, and a KeyEvent (RFC 6143 sections 7.1 to 7.5.4), all sent ahead.
AHEAD = b"".join(
    build_frame(BINARY, message) for message in (GREETING, b"\x01", b"\x01", b"\x04\x01\x00\x00\x00\x00\x00\x61")
)
LONG_S = 30.0


class LateServer(VncServer):
    """A VNC server that greets when it may, and keeps every byte that it hears."""

    def __init__(self) -> None:
        self.may_greet = threading.Event()
        self.heard = b""
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        """Greet and listen."""
        self.may_greet.wait(LONG_S)
        sock.sendall(GREETING)
        while data := sock.recv(65536):
            self.heard += data


@pytest.fixture
def late() -> Iterator[LateServer]:
    with LateServer() as server:
        yield server
        server.may_greet.set()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "instances.yaml"


@pytest.fixture
def porthole(make_porthole: Callable[..., Porthole], path: Path, late: LateServer) -> Porthole:
    """Daemons that know one guest, whose VNC server is late; the dial waits for it."""
    write(path, (FIRST, late.port))
    made = make_porthole(instances_file=path, options={"novncproxy": {"dial_timeout": LONG_S}})
    wait_for_instances(made, FIRST)
    return made


def write(path: Path, *instances: tuple[str, int]) -> None:
    rows = [{"uuid": uuid, "name": uuid[:8], "host": "127.0.0.1", "port": port} for uuid, port in instances]
    path.write_text(yaml.safe_dump({"instances": rows}), encoding="utf-8")


@contextlib.contextmanager
def asking_ahead(porthole: Porthole, server: LateServer) -> Iterator[socket.socket]:
    """Ask for the console, with all that a viewer says sent ahead; the proxy has dialled and waits for the greeting."""
    token = token_of(get_console(porthole, FIRST))
    with connect(porthole.novnc_port) as client:
        client.sendall(build_upgrade(f"/?token={token}") + AHEAD)
        wait_until(lambda: server.open_connections == 1, LONG_S, "the dial", porthole.novncproxy.log)
        yield client


def read_all(client: socket.socket) -> bytes:
    """Return what the client hears until the connection ends, one way or the other."""
    heard = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65536):
            heard += data
    return heard


def test_a_key_that_was_sent_ahead_does_not_reach_a_guest_that_was_revoked_meanwhile(
    porthole: Porthole, path: Path, late: LateServer
) -> None:
    with asking_ahead(porthole, late) as client:
        write(path)
        porthole.compute.signal(signal.SIGHUP)
        wait_until(
            lambda: "Revocation received" in porthole.novncproxy.log(),
            LONG_S,
            "the revocation to arrive",
            porthole.novncproxy.log,
        )
        late.may_greet.set()
        heard = read_all(client)
    wait_until(lambda: late.open_connections == 0, LONG_S, "the proxy to hang up", porthole.novncproxy.log)
    assert late.heard == b""
    # Refused, or let in and closed at once: by now the answer may be on its way.
    assert heard.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 101 "))
    assert GREETING not in heard


def test_what_was_sent_ahead_reaches_a_guest_that_is_still_there(porthole: Porthole, late: LateServer) -> None:
    with asking_ahead(porthole, late) as client:
        late.may_greet.set()
        assert read_reply(client).status == 101
        wait_until(lambda: late.heard.endswith(b"\x61"), LONG_S, "the key to arrive", porthole.novncproxy.log)


class Successor(VncServer):
    """The guest that has the port from now on: compute knows it when somebody connects, and not before."""

    def __init__(self) -> None:
        self.take_over: Callable[[], None] = lambda: None
        self.heard = b""
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        """Take the port over, then greet and show something."""
        self.take_over()
        sock.sendall(GREETING + b"the screen of somebody else")
        while data := sock.recv(65536):
            self.heard += data


def test_a_guest_that_takes_the_port_before_the_dial_is_not_shown(
    make_porthole: Callable[..., Porthole], path: Path
) -> None:
    """S1: compute said yes, and when the connection stands the port is another guest's. Compute revokes nothing."""
    with Successor() as server:
        write(path, (FIRST, server.port))
        porthole = make_porthole(instances_file=path, options={"novncproxy": {"dial_timeout": LONG_S}})
        wait_for_instances(porthole, FIRST)
        token = token_of(get_console(porthole, FIRST))

        def take_over() -> None:
            porthole.compute.kill()
            write(path, (SECOND, server.port))
            porthole.start_daemon("compute")

        server.take_over = take_over
        with connect(porthole.novnc_port, timeout_s=2 * LONG_S) as client:
            client.sendall(build_upgrade(f"/?token={token}") + AHEAD)
            heard = read_all(client)
        assert heard.startswith(b"HTTP/1.1 401 ")
        assert b"somebody else" not in heard
        assert server.accepted == 1
        wait_until(lambda: server.open_connections == 0, LONG_S, "the proxy to hang up", porthole.novncproxy.log)
        assert server.heard == b""
        server.take_over = lambda: None
        wait_for_instances(porthole, SECOND)
        with connect(porthole.novnc_port) as client:
            client.sendall(build_upgrade(f"/?token={token_of(get_console(porthole, SECOND))}"))
            assert read_reply(client).status == 101
