# SPDX-License-Identifier: Apache-2.0
"""One direction of a session: the bytes that its sink has not taken yet, and how much may be read for it.

Why: back-pressure is the same in both directions. What was read is written at once, from the buffer that it was read
into. Only the bytes that the sink does not take are copied and held, and while more than the low watermark is held the
source is not read (O6). An interceptor stands between source and sink and may change the bytes. The pipe knows nothing
of epoll, of states or of the other direction. Called by :mod:`porthole_relay.session`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from porthole_relay.codec import Codec

# sendmsg takes a limited number of buffers; more parts than this are small and are joined.
_MAX_PARTS = 64


@dataclass(frozen=True)
class Watermarks:
    """Back-pressure towards the client, in bytes.

    With more than ``low_bytes`` held for the client its VNC server is not read. No read makes it hold more than
    ``high_bytes``. Towards the VNC server the low watermark is 0.
    """

    high_bytes: int
    low_bytes: int


class Sink(Protocol):
    """The part of :class:`porthole_relay.stream.Stream` that is used here."""

    def write(self, parts: Sequence[bytes | memoryview]) -> int: ...  # noqa: D102

    def write_end(self) -> None: ...  # noqa: D102

    def free_bytes(self) -> int: ...  # noqa: D102


class Interceptor(Protocol):
    """Sees the RFB bytes of one direction, and may change them. It does no I/O.

    Where ``[vnc] auth_schemes`` is not set, the first bytes are the RFB handshake between viewer and VNC server
    (RFC 6143 section 7.1), and an interceptor must let it pass. Otherwise the proxy has finished the handshake before.
    """

    def feed(self, data: memoryview) -> bytes | memoryview:
        """Return the bytes that go on in place of ``data``: the same, others, or none.

        ``data`` is cut anywhere, and good until the next call. Bytes that the interceptor keeps for later are its own
        to bound.

        :raises RfbInvalid: to end the session; ``peer`` says by whose fault.
        """

    @property
    def is_done(self) -> bool:
        """True once further bytes go on as they are: the interceptor is then taken out of the stream."""


class Intake(Protocol):
    """Where the bytes of one side go: to a pipe, or to the handshake."""

    def may_read(self) -> bool:
        """Say whether that side is to be read."""

    def relay(self, parts: Sequence[memoryview]) -> None:
        """Take bytes of that side.

        :raises RfbInvalid: when they break the protocol.
        :raises OSError: when the client's connection is broken.
        """


class ServerIntake(Intake, Protocol):
    """The intake of the VNC server, which says how much to read."""

    def room_bytes(self, limit_bytes: int) -> int:
        """Return how many bytes to read at once; 0 for none."""


class Pipe:
    """Takes the bytes of one side, frames them as the other side's codec has it, and writes them to it."""

    __slots__ = (
        "_codec",
        "_interceptor",
        "_is_cut",
        "_low_bytes",
        "_outlives_sink",
        "_sink",
        "at_end",
        "held",
        "high_bytes",
        "relayed_bytes",
    )

    def __init__(
        self,
        sink: Sink,
        codec: Codec,
        high_bytes: int,
        low_bytes: int,
        *,
        outlives_sink: bool = False,
        interceptor: Interceptor | None = None,
    ) -> None:
        """``codec``: that of the sink. ``outlives_sink``: a sink that breaks is no error; its bytes are dropped."""
        self._sink = sink
        self._codec = codec
        self._low_bytes = low_bytes
        self._outlives_sink = outlives_sink
        self._interceptor = interceptor
        self._is_cut = False
        self.high_bytes = high_bytes
        # The bytes that the sink has not taken yet, framed.
        self.held: bytes | memoryview = b""
        # Whether the source has ended.
        self.at_end = False
        # The RFB bytes that have gone on to the sink, without frames.
        self.relayed_bytes = 0

    def may_read(self) -> bool:
        """Say whether the source is to be read: it has not ended, and few enough bytes are held."""
        return not self.at_end and len(self.held) <= self._low_bytes

    def room_bytes(self, limit_bytes: int) -> int:
        """Return how much to read from the source: what the sink's kernel takes at once, and the high watermark on top.

        Large reads are what makes a stream cheap; the bound is what keeps a sink that stops from being held more than
        the high watermark.
        """
        free_bytes = max(0, self._sink.free_bytes())
        return max(1, min(limit_bytes, self.high_bytes - len(self.held) + free_bytes))

    def relay(self, parts: Sequence[memoryview]) -> None:
        """Send RFB bytes of the source on, through the interceptor.

        :raises RfbInvalid: when the interceptor ends the session.
        :raises OSError: when the sink is broken, unless the pipe outlives it.
        """
        if self._interceptor is None:
            self.relayed_bytes += self.write(parts)
        elif not self._is_cut:
            self.relayed_bytes += self.write([kept for part in parts if (kept := self._interceptor.feed(part))])
            if self._interceptor.is_done:
                self._interceptor = None

    def write(self, parts: Sequence[bytes | memoryview]) -> int:
        """Write RFB bytes in one frame, behind what is held; hold what the sink does not take. Return their number.

        :raises OSError: as :meth:`relay`.
        """
        size = len(parts[0]) if len(parts) == 1 else sum(map(len, parts))
        if self._is_cut or not size:
            return 0
        head = self._codec.build_header(size)
        if self.held:
            head = b"".join((self.held, head))
        if head:
            parts = (head, *parts)
        if len(parts) > _MAX_PARTS:
            parts = (b"".join(parts),)
        try:
            sent = self._sink.write(parts)
        except OSError:
            if not self._outlives_sink:
                raise
            self.cut()
        else:
            self.held = _join_behind(parts, sent) if sent < len(head) + size else b""
        return size

    def append(self, *messages: bytes) -> None:
        """Put framed bytes behind what is held; :meth:`flush` writes them."""
        self.held = b"".join((self.held, *messages))

    def flush(self) -> bool:
        """Write what is held, as far as the sink takes it; return whether nothing is held any more.

        :raises OSError: as :meth:`relay`.
        """
        try:
            while self.held:
                sent = self._sink.write((self.held,))
                if not sent:
                    return False
                self.held = memoryview(self.held)[sent:] if sent < len(self.held) else b""
        except OSError:
            if not self._outlives_sink:
                raise
            self.cut()
        return True

    def write_end(self) -> None:
        """Tell the sink that the stream has ended.

        :raises OSError: as :meth:`relay`.
        """
        if self._is_cut:
            return
        try:
            self._sink.write_end()
        except OSError:
            if not self._outlives_sink:
                raise
            self.cut()

    def cut(self) -> None:
        """Drop what is held, and everything that comes."""
        self._is_cut = True
        self.held = b""

    def connect(self, sink: Sink) -> None:
        """Go on with another sink; bytes that were held for the old one are dropped."""
        self._sink = sink
        self._is_cut = False
        self.held = b""


def _join_behind(parts: Sequence[bytes | memoryview], sent: int) -> bytes:
    """Return what is behind the first ``sent`` bytes of ``parts``."""
    for number, part in enumerate(parts):
        if sent < len(part):
            return b"".join((part[sent:], *parts[number + 1 :]))
        sent -= len(part)
    return b""
