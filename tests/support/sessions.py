# SPDX-License-Identifier: Apache-2.0
"""A session between two fake streams, and what a test says and reads on each side."""

import select
from collections.abc import Iterable
from typing import Any, cast

from porthole_common.rfb.messages import Version
from porthole_common.rfb.negotiation import Offer
from porthole_common.rfb.viewer_handshake import offer_security
from porthole_relay.codec import Codec, WebSocketCodec
from porthole_relay.frames import CloseCode, Opcode
from porthole_relay.liveness import Liveness, LivenessPolicy
from porthole_relay.loop import Loop
from porthole_relay.pipe import Watermarks
from porthole_relay.session import Session
from porthole_relay.stream import Stream
from porthole_relay.subject import Subject
from support.fake_loop import FakeLoop, FakeStream, pump
from support.rfb_talks import CHALLENGE

MASK = b"\x5a\x11\xf0\x0f"
SUBJECT = Subject("i-1", "novnc", "192.0.2.7", "req-1")
HANG_UP = select.EPOLLHUP | select.EPOLLERR
MARKS = Watermarks(high_bytes=1024, low_bytes=256)
GREETING = b"RFB 003.008\n"
NONE = Offer(Version.V3_8)
PASSWORD = Offer(Version.V3_8, CHALLENGE)
SECURITY_TIMEOUT_S = 120.0
# So short that a ping is due whenever a test lets the check run.
ALWAYS_DUE = LivenessPolicy(ping_interval_s=1e-9)


def masked(opcode: int, payload: bytes = b"", final: bool = True) -> bytes:
    """One frame of a browser."""
    size = len(payload)
    head = bytes([(0x80 if final else 0) | opcode])
    head += bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2, "big")
    return head + MASK + bytes(byte ^ MASK[index % 4] for index, byte in enumerate(payload))


def masked_close(code: int | None = None, reason: bytes = b"") -> bytes:
    return masked(Opcode.CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason)


def from_proxy(written: bytes | bytearray) -> tuple[bytes, list[tuple[Opcode, bytes]]]:
    """Return (payload of all data frames, [(opcode, payload) of control frames]) that a browser would see."""
    stream, data = bytes(written), b""
    controls: list[tuple[Opcode, bytes]] = []
    closed = False
    while stream:
        assert not closed, "something was written after the close frame"
        first, size = stream[0], stream[1]
        assert first & 0x80
        assert not size & 0x80, "the proxy must not mask"
        start = 2
        if size == 126:
            start, size = 4, int.from_bytes(stream[2:4], "big")
        elif size == 127:
            start, size = 10, int.from_bytes(stream[2:10], "big")
        payload, stream = stream[start : start + size], stream[start + size :]
        assert len(payload) == size, "a frame was cut"
        opcode = Opcode(first & 0x0F)
        if opcode is Opcode.BINARY:
            data += payload
        else:
            controls.append((opcode, payload))
        closed = opcode is Opcode.CLOSE
    return data, controls


def close_frames(stream: bytes | bytearray) -> list[tuple[int, str]]:
    """Return [(code, reason)] of the close frames to a browser."""
    controls = from_proxy(stream)[1]
    return [(int.from_bytes(load[:2], "big"), load[2:].decode()) for code, load in controls if code is Opcode.CLOSE]


class Console:
    """A session between two fake streams."""

    def __init__(
        self,
        codec: Codec | None = None,
        client: Iterable[bytes | OSError] = (),
        server: Iterable[bytes | OSError] = (),
        room: tuple[int | None, int | None] = (None, None),
        marks: Watermarks = MARKS,
        policy: LivenessPolicy | None = None,
        start: bool = True,
        **options: Any,
    ) -> None:
        self.loop = FakeLoop()
        self.client = FakeStream(10, *client, room_bytes=room[0])
        self.server = FakeStream(11, *server, room_bytes=room[1])
        self.ended: list[Session] = []
        self.session = Session(
            loop=cast(Loop, self.loop),
            buffer=memoryview(bytearray(max(4096, marks.high_bytes))),
            client=cast(Stream, self.client),
            server=cast(Stream, self.server),
            codec=codec or WebSocketCodec(),
            watermarks=marks,
            liveness=Liveness(policy or LivenessPolicy(), 0.0, None),
            subject=SUBJECT,
            on_end=self.ended.append,
            **options,
        )
        if start:
            self.session.start(b"", b"")
            self.pump()

    def pump(self) -> None:
        pump(self.loop, self.client, self.server)

    def client_sends(self, *chunks: bytes | OSError) -> None:
        self.client.incoming.extend(chunks)
        self.pump()

    def server_sends(self, *chunks: bytes | OSError) -> None:
        self.server.incoming.extend(chunks)
        self.pump()

    def hang_up(self, stream: FakeStream) -> None:
        """What epoll tells when a connection is gone, whatever it was asked."""
        if stream.fd in self.loop.callbacks:
            self.loop.callbacks[stream.fd](HANG_UP)
        self.pump()

    @property
    def to_client(self) -> bytes:
        return from_proxy(self.client.written)[0]

    @property
    def held_bytes(self) -> tuple[int, int]:
        """How many bytes are held for the client, and for the VNC server."""
        streams = self.session._streams
        return len(streams.to_client.held), len(streams.to_server.held)

    def assert_ended(self) -> None:
        """Both sockets closed, the owner told once, and nothing left behind."""
        assert self.ended == [self.session]
        assert self.client.closed
        assert self.server.closed
        assert not self.loop.callbacks
        assert self.loop.pending_timers == 0
        assert self.held_bytes == (0, 0)
        self.session.end()
        self.session.close(CloseCode.NORMAL, "again")
        self.loop.advance(1000)
        assert self.ended == [self.session]

    def assert_open(self) -> None:
        self.assert_open_with(11)

    def assert_open_with(self, server_fd: int) -> None:
        assert not self.ended
        assert not self.client.closed
        assert not self.server.closed
        assert set(self.loop.callbacks) == {10, server_fd}


TLS_MARKS = Watermarks(high_bytes=100, low_bytes=50)


def over_tls(**options: Any) -> Console:
    """A browser over TLS, whose records are larger than what is read at once."""
    console = Console(marks=TLS_MARKS, start=False, **options)
    console.client.tls = True
    console.session.start(b"", b"")
    console.pump()
    return console


def opening(
    offer: Offer = NONE, from_server: bytes = b"", from_client: bytes = b"", tls: bool = False, **options: Any
) -> Console:
    """A console that begins with the handshake; its VNC server has been through its own."""
    console = Console(start=False, **options)
    console.server.tls = tls
    console.session.start_with_handshake(offer_security(offer), SECURITY_TIMEOUT_S, from_server, from_client)
    console.pump()
    return console


def binary_frames(stream: bytes | bytearray) -> list[bytes]:
    """The payloads of the frames to a browser, one by one."""
    found: list[bytes] = []
    while stream:
        assert stream[0] == 0x82
        assert 1 <= stream[1] <= 125
        found.append(bytes(stream[2 : 2 + stream[1]]))
        stream = stream[2 + stream[1] :]
    return found
