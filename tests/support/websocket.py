# SPDX-License-Identifier: Apache-2.0
"""Clients that send exactly what a test says: raw HTTP, and a WebSocket whose frames may be broken.

Why beside the ``websockets`` library, which the tests use as a real peer: that one sends nothing that is wrong, and
does not say whether a connection ended with FIN or with a reset.
"""

import contextlib
import os
import select
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

TIMEOUT_S = 30.0
BINARY, CLOSE, PING, PONG = 0x2, 0x8, 0x9, 0xA
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass
class Reply:
    """An HTTP response head, and the bytes that came behind it."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    rest: bytes = b""

    @classmethod
    def parse(cls, head: bytes, rest: bytes) -> Self:
        """Read a response head; header names in lower case."""
        lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:] if line)
        return cls(int(lines[0].split()[1]), {name.lower(): value.strip() for name, _colon, value in pairs}, rest)


def connect(
    port: int,
    context: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
    timeout_s: float = TIMEOUT_S,
    source: str | None = None,
) -> socket.socket:
    """Return a connection with a deadline on every operation; ``source``: the client's own address."""
    sock = socket.create_connection((host, port), timeout_s, (source, 0) if source else None)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(sock, server_hostname="localhost") if context else sock


def read_reply(sock: socket.socket) -> Reply:
    """Read to the blank line.

    :raises ConnectionError: when the connection ends before it.
    """
    received = b""
    while b"\r\n\r\n" not in received:
        data = sock.recv(65536)
        if not data:
            raise ConnectionError(f"the connection ended after {received!r}")
        received += data
    head, _blank, rest = received.partition(b"\r\n\r\n")
    return Reply.parse(head, rest)


def read_to_end(sock: socket.socket) -> bytes:
    """Read to the peer's FIN.

    :raises ConnectionResetError: when it resets the connection instead.
    """
    received = b""
    while data := sock.recv(65536):
        received += data
    return received


def exchange(port: int, request: bytes, context: ssl.SSLContext | None = None) -> Reply:
    """Send ``request``, read the answer to the end of the connection; :attr:`Reply.rest` is the body."""
    with connect(port, context) as sock:
        sock.sendall(request)
        reply = read_reply(sock)
        reply.rest += read_to_end(sock)
        return reply


def build_upgrade(path: str, headers: Sequence[tuple[str, str]] = (), host: str | None = "localhost") -> bytes:
    """Return an upgrade request (RFC 6455 section 4.1) with further ``headers``."""
    lines = [f"GET {path} HTTP/1.1"]
    lines += [f"Host: {host}"] if host is not None else []
    lines += ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def assert_refused(
    port: int,
    path: str,
    status: int,
    headers: Sequence[tuple[str, str]] = (),
    behind: bytes = b"",
    host: str | None = "localhost",
) -> None:
    """See what clients need of a refused upgrade: the status, no body, a length that says so, and an end, no reset."""
    with connect(port) as sock:
        sock.sendall(build_upgrade(path, headers, host) + behind)
        reply = read_reply(sock)
        rest = reply.rest + read_to_end(sock)
    assert reply.status == status
    assert rest == b""
    assert reply.headers["content-length"] == "0"
    assert "upgrade" not in reply.headers


def build_frame(opcode: int, payload: bytes = b"", first: int = 0x80, mask: bytes | None = None) -> bytes:
    """Return one masked frame; ``first`` holds FIN and the reserved bits."""
    mask = os.urandom(4) if mask is None else mask
    size = len(payload)
    if size < 126:
        head = bytes([first | opcode, 0x80 | size])
    elif size < 65536:
        head = bytes([first | opcode, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first | opcode, 0x80 | 127]) + size.to_bytes(8, "big")
    repeated = (mask * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return head + mask + masked.to_bytes(size, "big")


class RawWebSocket:
    """A WebSocket client that hides nothing. ``reply`` is the answer to the upgrade; more only after 101."""

    def __init__(
        self,
        port: int,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        behind: bytes = b"",
        context: ssl.SSLContext | None = None,
        receive_buffer_bytes: int | None = None,
        byte_by_byte: bool = False,
        host: str = "127.0.0.1",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Connect and ask for the upgrade, with the bytes ``behind`` in the same segment, or each byte in its own."""
        if receive_buffer_bytes is None:
            self.sock = connect(port, context, host, timeout_s)
        else:
            # Before connecting: it decides about the window.
            self.sock = socket.socket()
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
            self.sock.settimeout(timeout_s)
            self.sock.connect((host, port))
        stream = build_upgrade(path, headers) + behind
        for segment in [stream[at : at + 1] for at in range(len(stream))] if byte_by_byte else [stream]:
            self.sock.sendall(segment)
        try:
            self.reply = read_reply(self.sock)
        except OSError:
            self.sock.close()
            raise
        self._received = self.reply.rest
        # What read_data took out of frames beyond what it was asked for.
        self._data = b""

    def send(self, payload: bytes, opcode: int = BINARY) -> None:
        """Send one frame."""
        self.sock.sendall(build_frame(opcode, payload))

    def send_and_read(self, payload: bytes) -> bytes:
        """Send one frame while reading, and return as many bytes of binary frames: more than buffers on the way hold.

        In one thread: until Python 3.13 a TLS connection that one thread reads and another writes now and then ends.
        """
        left = memoryview(build_frame(BINARY, payload))
        self.sock.setblocking(False)
        while left:
            assert any(select.select([self.sock], [self.sock], [], TIMEOUT_S)), "neither bytes nor room for them"
            with contextlib.suppress(*_NOT_NOW):
                left = left[self.sock.send(left) :]
            with contextlib.suppress(*_NOT_NOW):
                self._receive()
        self.sock.settimeout(TIMEOUT_S)
        return self.read_data(len(payload))

    def read_frame(self) -> tuple[int, bytes]:
        """Return (opcode, payload) of the next frame, or the rest of one that :meth:`read_data` began.

        :raises ConnectionError: when the connection ends instead.
        """
        if self._data:
            rest, self._data = self._data, b""
            return BINARY, rest
        first, size = self._read(2)
        assert first & 0x80, "the proxy sends whole frames"
        assert not size & 0x80, "the proxy must not mask"
        if size > 125:
            size = int.from_bytes(self._read(2 if size == 126 else 8), "big")
        return first & 0x0F, self._read(size)

    def read_data(self, size: int) -> bytes:
        """Return the next ``size`` bytes of binary frames."""
        parts: list[bytes] = []
        held = 0
        while held < size:
            opcode, payload = self.read_frame()
            assert opcode == BINARY, f"opcode {opcode} with {payload!r}"
            parts.append(payload)
            held += len(payload)
        data = b"".join(parts)
        self._data = data[size:]
        return data[:size]

    def read_close(self) -> tuple[int, str]:
        """Return (code, reason) of the close frame; data before it is passed over."""
        while True:
            opcode, payload = self.read_frame()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    def close(self) -> None:
        """Close the socket, without a word."""
        self.sock.close()

    def _read(self, size: int) -> bytes:
        while len(self._received) < size:
            self._receive()
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    def _receive(self) -> None:
        data = self.sock.recv(1 << 20)
        if not data:
            raise ConnectionError("the connection ended")
        self._received += data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
