# SPDX-License-Identifier: Apache-2.0
"""Clients that nobody here wrote, each moving 64 MiB and more through a console: no byte lost, repeated or swapped.

noVNC's own WebSocket is with the browser tests.
"""

import logging
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import websocket
import websockets.sync.client

from porthole_common.model import ConsoleType
from porthole_relay.pipe import Watermarks
from support.browser import read_pixels
from support.bulk import BULK_BYTES, SummingEcho, exchange, run_node, short_buffer_options, shorten_all, shorten_buffers
from support.processes import wait_until
from support.proxy import InProcessProxy
from support.vnc_servers import GREETING, EchoVnc
from support.websocket import connect, read_to_end
from support.x11_screen import Screen
from support.xvnc import Xvnc
from support.xvp_viewer import ViewerPort

Make = Callable[..., InProcessProxy]
MakeBoth = Callable[[bool], tuple[InProcessProxy, SummingEcho]]
# Far below what a message of the stream has, so that every party has to stop within it.
SHORT_BYTES = 32768
SHORT_MARKS = Watermarks(high_bytes=16384, low_bytes=4096)
PEER_TIMEOUT_S = 120
RECEIVE_TIMEOUT_S = 30


@pytest.fixture
def make(web_root: Path, stack: ExitStack) -> Make:
    return lambda **options: stack.enter_context(InProcessProxy(web_root, **options))


@pytest.fixture
def make_both(make: Make, stack: ExitStack) -> MakeBoth:
    """A maker of a proxy and a VNC server; when short, the kernel holds little for either, and the proxy holds less."""

    def run(short: bool) -> tuple[InProcessProxy, SummingEcho]:
        proxy = make(marks=SHORT_MARKS if short else None)

        def before_greeting(sock: socket.socket) -> None:
            if short:
                shorten_all(sock, proxy.novnc_port, SHORT_BYTES)

        return proxy, stack.enter_context(SummingEcho(before_greeting))

    return run


def url_of(proxy: InProcessProxy, token: str) -> str:
    return f"ws://127.0.0.1:{proxy.novnc_port}/websockify?token={token}"


@contextmanager
def open_websockets(url: str, port: int, short: bool) -> Iterator[tuple[Callable[[bytes], object], Callable[[], Any]]]:
    sock = socket.socket()
    if short:
        shorten_buffers(sock, SHORT_BYTES)
    sock.settimeout(RECEIVE_TIMEOUT_S)
    sock.connect(("127.0.0.1", port))
    with websockets.sync.client.connect(
        url,
        sock=sock,
        origin=websockets.Origin("http://127.0.0.1"),
        subprotocols=[websockets.Subprotocol("binary")],
        max_size=None,
        proxy=None,
    ) as client:
        assert client.subprotocol == "binary"
        # The proxy offers no compression, whatever the client asks for.
        assert client.protocol.extensions == []
        # A byte that is lost is a failure, and not an endless wait.
        yield client.send, partial(client.recv, timeout=RECEIVE_TIMEOUT_S)
        client.close(1000, "done")
        assert client.close_code == 1000


@contextmanager
def open_websocket_client(
    url: str, port: int, short: bool
) -> Iterator[tuple[Callable[[bytes], object], Callable[[], Any]]]:
    options = short_buffer_options(SHORT_BYTES) if short else []
    client = websocket.create_connection(
        url, timeout=RECEIVE_TIMEOUT_S, subprotocols=["binary"], sockopt=options, enable_multithread=True
    )
    try:
        assert client.subprotocol == "binary"
        yield client.send_binary, client.recv
        client.send_close(1000, b"done")
        opcode, payload = client.recv_data(control_frame=True)
        assert (opcode, payload[:2]) == (websocket.ABNF.OPCODE_CLOSE, (1000).to_bytes(2, "big"))
    finally:
        client.shutdown()


@pytest.mark.parametrize("short", [False, True], ids=["", "short-buffers"])
@pytest.mark.parametrize("open_peer", [open_websockets, open_websocket_client])
def test_a_python_library(make_both: MakeBoth, open_peer: Any, short: bool) -> None:
    proxy, server = make_both(short)
    with open_peer(url_of(proxy, proxy.issue(server)), proxy.novnc_port, short) as (send, receive):
        sent, received = exchange(send, receive)
        assert server.heard_bytes == BULK_BYTES
        assert sent == server.heard_sum() == received
    wait_until(lambda: proxy.counter.total == 0 and not server.open_connections, 30, "both sides end")


@pytest.mark.parametrize("short", [False, True], ids=["", "short-buffers"])
def test_ws_of_node_with_fragments_and_pings_between_them(make_both: MakeBoth, short: bool) -> None:
    proxy, server = make_both(short)
    result = run_node(url_of(proxy, proxy.issue(server)), "http://127.0.0.1")
    assert (result["code"], result["protocol"]) == (1000, "binary")
    assert result["sentBytes"] == result["receivedBytes"] == server.heard_bytes == BULK_BYTES
    assert result["sent"] == server.heard_sum() == result["received"]
    assert result["pongs"] > 10


# A screen of 34 MiB, which is moved raw: two looks at it are more than 64 MiB.
SCREEN = (4096, 2176)
CELL = 128


def paint_cells(screen: Screen) -> np.ndarray[Any, Any]:
    """Fill the screen with cells of random colours, and return what it should look like."""
    columns, rows = SCREEN[0] // CELL, SCREEN[1] // CELL
    colours = np.random.default_rng(1).integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    for row in range(rows):
        for column in range(columns):
            red, green, blue = map(int, colours[row, column])
            screen.paint(red, green, blue, (column * CELL, row * CELL, CELL, CELL))
    return colours.repeat(CELL, axis=0).repeat(CELL, axis=1)


def vncdo(port: int, *commands: str) -> None:
    argv = [sys.executable, "-m", "vncdotool.command", "--nocursor", "-s", f"127.0.0.1::{port}", *commands]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=PEER_TIMEOUT_S, check=False)
    assert ran.returncode == 0, ran.stderr


def test_vncdotool_over_xvpvnc_sees_every_pixel_and_types(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A real viewer, a real VNC server, and deploy/xvp-connect.sh between them as its first lines tell."""
    caplog.set_level(logging.INFO, "porthole_relay.session")
    proxy = make()
    with Xvnc(tmp_path, "x".join(map(str, SCREEN))) as server, Screen(server.display) as screen:
        token = proxy.issue(server, ConsoleType.XVPVNC)
        url = f"http://127.0.0.1:{proxy.xvp_port}/console?token={token}"
        with ViewerPort(url) as viewer_port:
            expected = paint_cells(screen)
            screen.sync()
            shots = [tmp_path / "first.png", tmp_path / "second.png"]
            vncdo(viewer_port.port, "capture", str(shots[0]), "type", "aba", "capture", str(shots[1]))
            keys = [screen.next_key() for _ in range(3)]
            assert keys[0] == keys[2] != keys[1]
        for shot in shots:
            assert np.array_equal(read_pixels(shot.read_bytes()), expected)
        # The viewer has gone, and the console with it, though neither side of the shim was told to end.
        wait_until(lambda: proxy.counter.total == 0, 30, "the console ends")
    (line,) = (line for line in caplog.messages if line.startswith("Console closed"))
    found = re.search(r" bytes_to_client=(\d+) ", line)
    assert found is not None
    assert int(found.group(1)) >= BULK_BYTES


def test_xvp_connect_ends_with_its_console(make: Make, stack: ExitStack) -> None:
    """Whichever side goes, the other is told, and no process is left that holds the console open."""
    proxy = make()
    echo = stack.enter_context(EchoVnc())
    token = proxy.issue(echo, ConsoleType.XVPVNC)
    with ViewerPort(f"http://127.0.0.1:{proxy.xvp_port}/console?token={token}") as viewer_port:
        with connect(viewer_port.port) as viewer:
            viewer.sendall(b"key")
            assert viewer.recv(100, socket.MSG_PEEK)
        wait_until(lambda: proxy.counter.total == 0, 30, "the console of a viewer that left ends")
        with connect(viewer_port.port) as viewer:
            # Counted it is before the greeting has come all the way.
            assert viewer.recv(100, socket.MSG_PEEK)
            proxy.sessions.close_instance(proxy.instance_of(token))
            assert read_to_end(viewer) == GREETING
        proxy.consoleauth.tokens.clear()
        with connect(viewer_port.port) as viewer:
            assert read_to_end(viewer) == b""
        assert viewer_port.wait_for_scripts() == [0, 0, 1]
