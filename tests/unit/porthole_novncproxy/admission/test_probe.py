# SPDX-License-Identifier: Apache-2.0
"""What a VNC server says before anybody is its viewer, cut at every offset. Real sockets: functional tests."""

import time
from collections.abc import Iterable

import pytest

from porthole_novncproxy.admission.probe import _read_types
from support.cases import naming


class FakeSocket:
    """A socket whose peer sends ``chunks`` and then its end."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.chunks = [chunk for chunk in chunks if chunk]
        self.sent = b""

    def settimeout(self, timeout_s: float) -> None:
        assert timeout_s > 0

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def recv(self, size: int) -> bytes:
        assert 0 < size <= 255
        if not self.chunks:
            return b""
        taken, rest = self.chunks[0][:size], self.chunks[0][size:]
        self.chunks[:1] = [rest] if rest else []
        return taken


def read(*chunks: bytes, timeout_s: float = 60) -> tuple[tuple[int, ...], bytes]:
    sock = FakeSocket(chunks)
    return _read_types(sock, time.monotonic() + timeout_s), sock.sent  # type: ignore[arg-type]


SERVERS = [
    (b"RFB 003.008\n\x02\x01\x13", (1, 19), b"RFB 003.008\n"),
    (b"RFB 003.008\n\x01\x13", (19,), b"RFB 003.008\n"),
    (b"RFB 003.889\n\x01\x1e", (30,), b"RFB 003.008\n"),
    (b"RFB 003.008\n\x00", (), b"RFB 003.008\n"),
    (b"RFB 003.003\n\x00\x00\x00\x02", (2,), b"RFB 003.003\n"),
    (b"RFB 003.003\n\x00\x00\x00\x00", (), b"RFB 003.003\n"),
    (b"RFB 003.003\n\xff\xff\xff\xff", (), b"RFB 003.003\n"),
]


def test_security_types_wherever_the_stream_is_cut() -> None:
    for stream, types, answer in SERVERS:
        for cut in range(len(stream) + 1):
            with naming(stream, cut):
                assert read(stream[:cut], stream[cut:]) == (types, answer)
        with naming(stream, "byte by byte"):
            assert read(*(bytes([byte]) for byte in stream)) == (types, answer)


def test_what_is_no_vnc_server() -> None:
    for stream in (b"SSH-2.0-OpenSSH_9.2\r\n", b"RFB 003.008X", b"\0" * 12):
        with naming(stream), pytest.raises(ConnectionError):
            read(stream)


def test_a_server_that_hangs_up() -> None:
    for stream in (b"", b"RFB 003", b"RFB 003.008\n", b"RFB 003.008\n\x02\x01", b"RFB 003.003\n\0"):
        with naming(stream), pytest.raises(ConnectionError):
            read(stream)


def test_the_deadline() -> None:
    with pytest.raises(TimeoutError):
        read(SERVERS[0][0], timeout_s=-1)
