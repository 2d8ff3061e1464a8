# SPDX-License-Identifier: Apache-2.0
"""Two viewers at one screen of a real QEMU, each of which asks for the screen alone."""

import itertools
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from porthole_common.model import ConsoleType
from support.console import connect_xvp
from support.proxy import InProcessProxy
from support.qemu import QemuVnc
from support.websocket import BINARY, RawWebSocket

HELLO, NONE, EXCLUSIVE = b"RFB 003.008\n", b"\x01", b"\x00"
# FramebufferUpdateRequest of the first pixel, not incremental (RFC 6143 section 7.5.3).
ASK = b"\x03\x00\x00\x00\x00\x00\x00\x01\x00\x01"
PIXEL_BYTES = 4
Read = Callable[[int], bytes]


class Viewer:
    """A viewer through the proxy, past its ClientInit."""

    def __init__(self, send: Callable[[bytes], None], read: Read) -> None:
        self._send, self._read = send, read
        assert read(12) == HELLO
        send(HELLO)
        assert NONE in read(read(1)[0])
        send(NONE)
        assert read(4) == bytes(4)
        send(EXCLUSIVE)
        name_bytes = int.from_bytes(read(24)[20:], "big")
        read(name_bytes)

    def sees_the_screen(self) -> bool:
        """Ask for a pixel, and read the FramebufferUpdate; QEMU ends the connection of a viewer that it throws out."""
        try:
            self._send(ASK)
            kind, _padding, rectangles = struct.unpack(">BBH", self._read(4))
            for _ in range(rectangles):
                width, height, encoding = struct.unpack(">4xHHi", self._read(12))
                assert encoding == 0
                self._read(width * height * PIXEL_BYTES)
        except ConnectionError:
            return False
        return kind == 0


class BinaryReader:
    """Reads what binary frames bring, however they are cut."""

    def __init__(self, client: RawWebSocket) -> None:
        self._client = client
        self._received = b""

    def read(self, size: int) -> bytes:
        """Return that many bytes.

        :raises ConnectionError: when another frame comes before: the one that closes.
        """
        while len(self._received) < size:
            opcode, payload = self._client.read_frame()
            if opcode != BINARY:
                raise ConnectionError(payload)
            self._received += payload
        taken, self._received = self._received[:size], self._received[size:]
        return taken


def build_viewer(proxy: InProcessProxy, qemu: QemuVnc, console_type: ConsoleType, stack: ExitStack) -> Viewer:
    token = proxy.issue(qemu, console_type)
    if console_type is ConsoleType.NOVNC:
        client = stack.enter_context(RawWebSocket(proxy.novnc_port, f"/?token={token}"))
        assert client.reply.status == 101
        return Viewer(client.send, BinaryReader(client).read)
    status, sock = connect_xvp(proxy.xvp_port, token)
    stack.enter_context(sock)
    assert status.split()[1] == b"200"
    return Viewer(sock.sendall, lambda size: read_exactly(sock, size))


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Return that many bytes.

    :raises ConnectionError: when the connection ends before.
    """
    received = b""
    while len(received) < size:
        data = sock.recv(size - len(received))
        if not data:
            raise ConnectionError("the connection has ended")
        received += data
    return received


@pytest.mark.parametrize("force_shared", [True, False])
def test_no_viewer_throws_out_another(web_root: Path, stack: ExitStack, tmp_path: Path, force_shared: bool) -> None:
    """Each door's viewers, after each door's; without the option QEMU keeps the last viewer alone (O20)."""
    qemu = stack.enter_context(QemuVnc(tmp_path / "guest"))
    proxy = stack.enter_context(InProcessProxy(web_root, force_shared=force_shared))
    for first_type, second_type in itertools.product(ConsoleType, repeat=2):
        with ExitStack() as viewers:
            first = build_viewer(proxy, qemu, first_type, viewers)
            assert first.sees_the_screen()
            second = build_viewer(proxy, qemu, second_type, viewers)
            assert second.sees_the_screen()
            assert first.sees_the_screen() is force_shared
