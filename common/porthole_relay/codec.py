# SPDX-License-Identifier: Apache-2.0
"""What is around the RFB bytes of a client: WebSocket frames, or nothing.

Why: one relay serves browsers and native viewers, and this is their only difference. Called by
:mod:`porthole_relay.pipe`, :mod:`porthole_relay.stream_pair` and :mod:`porthole_relay.session`.
"""

from collections.abc import Iterable
from typing import Protocol

from porthole_relay import frames

# The largest message that a browser may announce. noVNC's largest, a clipboard, is far below.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
# A frame costs the same however small it is, and a read of a client may hold tens of thousands. After so many, some two
# milliseconds of work, the other sessions have their turn.
MAX_FRAMES_PER_TURN = 128


class Codec(Protocol):
    """What is around the RFB bytes of one side. ``half_close``: that side may end its stream and still read."""

    half_close: bool

    def build_header(self, payload_bytes: int) -> bytes:
        """Return the header for ``payload_bytes`` bytes, or nothing."""

    def build_close(self, code: int, reason: str) -> bytes:
        """Return the message that ends the session, or nothing."""

    def build_ping(self) -> bytes:
        """Return a message that a living client answers, or nothing."""

    def feed(self, data: memoryview) -> Iterable[frames.Event]:
        """Yield the events of the client's bytes.

        :raises FrameInvalid: when the bytes break the protocol.
        """

    def take_rest(self) -> bytes:
        """Return the bytes that :meth:`feed` has left for the next turn of the loop; they are fed first then."""


class WebSocketCodec:
    """RFC 6455: binary frames both ways."""

    __slots__ = ("_decoder",)
    half_close = False

    def __init__(self) -> None:
        self._decoder = frames.FrameDecoder(MAX_MESSAGE_BYTES)

    def build_header(self, payload_bytes: int) -> bytes:
        """Return the header of a binary frame."""
        return frames.build_header(payload_bytes)

    def build_close(self, code: int, reason: str) -> bytes:
        """Return a close frame."""
        return frames.build_close(code, reason)

    def build_ping(self) -> bytes:
        """Return an empty ping."""
        return frames.build_header(0, frames.Opcode.PING)

    def feed(self, data: memoryview) -> Iterable[frames.Event]:
        """Yield the events of the frames.

        :raises FrameInvalid: when the client breaks RFC 6455.
        """
        return self._decoder.feed(data, MAX_FRAMES_PER_TURN)

    def take_rest(self) -> bytes:
        """Return the bytes of the frames beyond :data:`MAX_FRAMES_PER_TURN`."""
        return self._decoder.take_rest()


class RawCodec:
    """A native viewer or a VNC server: the bytes alone, and each side may end its stream on its own (half-close)."""

    __slots__ = ()
    half_close = True

    def build_header(self, payload_bytes: int) -> bytes:
        """Return nothing: the bytes have no frame."""
        return b""

    def build_close(self, code: int, reason: str) -> bytes:
        """Return nothing: the end of the stream is the message."""
        return b""

    def build_ping(self) -> bytes:
        """Return nothing: only TCP keepalive finds a dead peer."""
        return b""

    def feed(self, data: memoryview) -> Iterable[frames.Event]:
        """Yield the bytes as they are."""
        return (frames.Data(data),) if data else ()

    def take_rest(self) -> bytes:
        """Return nothing: there are no frames to count."""
        return b""
