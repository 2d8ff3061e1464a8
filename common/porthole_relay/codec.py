# SPDX-License-Identifier: Apache-2.0
"""What lies around the RFB bytes on a client's leg: WebSocket frames, or nothing.

Why: one relay serves browsers and native viewers; this is all they differ in. Called by
:mod:`porthole_relay.session`.
"""

from collections.abc import Iterable
from typing import Protocol

from porthole_relay import frames

# The largest message a browser may announce: noVNC's largest, a clipboard, is far below.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024


class Codec(Protocol):
    """What lies around the RFB bytes on the client's leg; ``half_close``: each side may end on its own."""

    half_close: bool

    def build_header(self, payload_bytes: int) -> bytes:
        """Return what precedes ``payload_bytes`` bytes to the client."""

    def build_close(self, code: int, reason: str) -> bytes:
        """Return what tells the client that the session ends, or nothing."""

    def build_ping(self) -> bytes:
        """Return what a client that is there must answer, or nothing."""

    def feed(self, data: memoryview) -> Iterable[frames.Event]:
        """Yield what the client's bytes mean.

        :raises FrameInvalid: when they mean nothing.
        """


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
        return self._decoder.feed(data)


class RawCodec:
    """xvpvnc: the bytes themselves, and each side may end on its own (half-close)."""

    __slots__ = ()
    half_close = True

    def build_header(self, payload_bytes: int) -> bytes:
        """Return nothing: the bytes stand alone."""
        return b""

    def build_close(self, code: int, reason: str) -> bytes:
        """Return nothing: the end of the stream says it."""
        return b""

    def build_ping(self) -> bytes:
        """Return nothing: TCP keepalive has to do."""
        return b""

    def feed(self, data: memoryview) -> Iterable[frames.Event]:
        """Yield the bytes as they are."""
        return (frames.Data(data),) if data else ()
