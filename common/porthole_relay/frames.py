# SPDX-License-Identifier: Apache-2.0
"""WebSocket frames (RFC 6455 section 5) without I/O: bytes in, events out, headers out.

Why not websockify's own codec: websockify collects a whole frame, of any length, before it gives out a byte, and
accepts reserved bits and broken fragments. This decoder gives out payload as it arrives, holds at most one control
frame, and turns every breach of the protocol into a close code. Called by :mod:`porthole_relay.codec` and
:mod:`porthole_relay.stream_pair`; the upgrade itself is websockify's.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy

from porthole_common.errors import FrameInvalid

# The largest header: 2 bytes, 8 bytes of extended length, 4 bytes of mask.
_MAX_HEADER_BYTES = 14
# Below this many bytes one big-integer XOR is cheaper than building numpy views.
_SMALL_BYTES = 256
MAX_CONTROL_BYTES = 125
# The code of a close frame without a code (RFC 6455 section 7.1.5); it is never sent.
NO_CODE = 1005


class Opcode(IntEnum):
    """RFC 6455 section 11.8."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(IntEnum):
    """The close codes that Porthole sends: those of RFC 6455 section 7.4.1, and its own from 4400 on."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    REVOKED = 4401
    ENDED_BY_USER = 4403
    SESSION_LIMIT = 4408
    IDLE = 4409


@dataclass(frozen=True)
class Data:
    """Unmasked payload: the part of a message that has arrived.

    It is a view into the bytes that were fed, unmasked in place, and good until the next feed.
    """

    payload: memoryview


@dataclass(frozen=True)
class Ping:
    """A ping; its payload goes back in a pong."""

    payload: bytes


@dataclass(frozen=True)
class Pong:
    """A pong."""

    payload: bytes


@dataclass(frozen=True)
class Close:
    """The peer's close frame; ``code`` is :data:`NO_CODE` when it had none."""

    code: int
    reason: str


Event = Data | Ping | Pong | Close


def build_header(payload_bytes: int, opcode: Opcode = Opcode.BINARY) -> bytes:
    """Return the header of one unmasked, final frame: ``U8 0x80|opcode, U8 length[, U16 | U64 length]``."""
    first = 0x80 | opcode
    if payload_bytes < 126:
        return struct.pack(">BB", first, payload_bytes)
    if payload_bytes < 65536:
        return struct.pack(">BBH", first, 126, payload_bytes)
    return struct.pack(">BBQ", first, 127, payload_bytes)


def build_close(code: int, reason: str) -> bytes:
    """Return a close frame: ``U16 code, UTF-8 reason``, the reason cut to the size of a control frame."""
    # Not within a character: a browser takes a reason that is no UTF-8 for a broken connection.
    text = reason.encode()[: MAX_CONTROL_BYTES - 2].decode(errors="ignore")
    payload = struct.pack(">H", code) + text.encode()
    return build_header(len(payload), Opcode.CLOSE) + payload


def build_pong(payload: bytes) -> bytes:
    """Return the answer to a ping with ``payload`` (at most 125 bytes)."""
    return build_header(len(payload), Opcode.PONG) + payload


def unmask(payload: memoryview, mask: bytes, offset: int = 0) -> None:
    """XOR the writable ``payload`` in place with the 4-byte ``mask``, beginning at the mask's byte ``offset % 4``."""
    size = len(payload)
    shift = offset % 4
    key = mask[shift:] + mask[:shift]
    if size < _SMALL_BYTES:
        repeated = (key * (size // 4 + 1))[:size]
        masked = int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")
        payload[:] = masked.to_bytes(size, "little")
        return
    # Eight bytes at a time; the rest, fewer than eight, byte by byte.
    whole = size - size % 8
    wide = numpy.frombuffer(payload[:whole], dtype=numpy.uint64)
    numpy.bitwise_xor(wide, numpy.frombuffer(key + key, dtype=numpy.uint64), out=wide)
    for index in range(whole, size):
        payload[index] ^= key[index % 4]


class FrameDecoder:
    """Decodes the frames of one client. Feed it bytes as they arrive, split anywhere; they are unmasked in place.

    Holds at most a partial header and one control frame's payload. Text frames count as data, since old
    noVNC peers send them; messages are not put together again: RFB is a stream.
    """

    __slots__ = (
        "_control",
        "_fragmented",
        "_header",
        "_in_payload",
        "_mask",
        "_max_message_bytes",
        "_message_bytes",
        "_offset",
        "_opcode",
        "_remaining_bytes",
        "_rest",
    )

    def __init__(self, max_message_bytes: int) -> None:
        """``max_message_bytes`` bounds what one message may announce; more is close code 1009."""
        self._max_message_bytes = max_message_bytes
        self._header = b""
        self._opcode = Opcode.BINARY
        self._mask = b""
        self._remaining_bytes = 0
        self._offset = 0
        self._in_payload = False
        self._fragmented = False
        self._message_bytes = 0
        self._control = b""
        self._rest = memoryview(b"")

    def feed(self, data: bytes | bytearray | memoryview, max_frames: int | None = None) -> Iterator[Event]:
        """Yield the events that ``data`` completes, in order; consume the iterator before the next feed.

        Of more than ``max_frames`` frames the bytes of the later ones are left for :meth:`take_rest`.

        :raises FrameInvalid: when the peer breaks RFC 6455; nothing may be fed afterwards.
        """
        view = memoryview(data)
        if view.readonly:
            view = memoryview(bytearray(view))
        left = -1 if max_frames is None else max_frames
        while view or (self._in_payload and not self._remaining_bytes):
            if not self._in_payload:
                if not left:
                    self._rest = view
                    return
                left -= 1
                used = self._take_header(view)
                view = view[used:]
                continue
            take = min(self._remaining_bytes, len(view))
            payload, view = view[:take], view[take:]
            unmask(payload, self._mask, self._offset)
            self._offset += take
            self._remaining_bytes -= take
            self._in_payload = self._remaining_bytes > 0
            if self._opcode >= Opcode.CLOSE:
                self._control += payload
                if not self._in_payload:
                    yield self._finish_control()
            elif take:
                yield Data(payload)

    def take_rest(self) -> bytes:
        """Return the bytes that the last :meth:`feed` has left, once: they come first in the next one."""
        rest, self._rest = bytes(self._rest), memoryview(b"")
        return rest

    def _take_header(self, view: memoryview) -> int:
        """Take header bytes from ``view``; return how many. Enters the payload when the header is whole."""
        have = len(self._header)
        header = self._header + bytes(view[: _MAX_HEADER_BYTES - have])
        size = _header_bytes(header)
        if len(header) < max(size, 2):
            self._header = header
            return len(header) - have
        self._header = b""
        self._begin_frame(header[:size])
        return size - have

    def _begin_frame(self, header: bytes) -> None:
        first, second = header[0], header[1]
        if first & 0x70:
            raise FrameInvalid(CloseCode.PROTOCOL_ERROR, "a reserved bit is set")
        if not second & 0x80:
            raise FrameInvalid(CloseCode.PROTOCOL_ERROR, "the frame is not masked")
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError:
            raise FrameInvalid(CloseCode.PROTOCOL_ERROR, "the opcode is reserved") from None
        size = int.from_bytes(header[2:-4], "big") if len(header) > 6 else second & 0x7F
        if size >= 1 << 63:
            raise FrameInvalid(CloseCode.PROTOCOL_ERROR, "the length has its highest bit set")
        final = bool(first & 0x80)
        if opcode >= Opcode.CLOSE:
            if not final or size > MAX_CONTROL_BYTES:
                raise FrameInvalid(CloseCode.PROTOCOL_ERROR, "a control frame is fragmented or too long")
            self._control = b""
        else:
            self._begin_data(opcode, final, size)
        self._opcode = opcode
        self._mask = header[-4:]
        self._remaining_bytes = size
        self._offset = 0
        self._in_payload = True

    def _begin_data(self, opcode: Opcode, final: bool, size: int) -> None:
        if (opcode is Opcode.CONTINUATION) != self._fragmented:
            raise FrameInvalid(CloseCode.PROTOCOL_ERROR, "the fragments of messages are mixed up")
        self._message_bytes = size if opcode is not Opcode.CONTINUATION else self._message_bytes + size
        if self._message_bytes > self._max_message_bytes:
            raise FrameInvalid(CloseCode.TOO_BIG, "the message is too long")
        self._fragmented = not final

    def _finish_control(self) -> Event:
        payload = self._control
        if self._opcode is Opcode.PING:
            return Ping(payload)
        if self._opcode is Opcode.PONG:
            return Pong(payload)
        if not payload:
            return Close(NO_CODE, "")
        if len(payload) == 1:
            raise FrameInvalid(CloseCode.PROTOCOL_ERROR, "a close frame has half a code")
        code = int.from_bytes(payload[:2], "big")
        if not _may_be_sent(code):
            raise FrameInvalid(CloseCode.PROTOCOL_ERROR, "a close frame has a code that must not be sent")
        try:
            return Close(code, payload[2:].decode())
        except UnicodeDecodeError:
            raise FrameInvalid(CloseCode.PROTOCOL_ERROR, "a close reason is not UTF-8") from None


def _header_bytes(header: bytes) -> int:
    """Return how long the header that begins with ``header`` is; 0 while fewer than two bytes are there."""
    if len(header) < 2:
        return 0
    extended = {126: 2, 127: 8}.get(header[1] & 0x7F, 0)
    return 2 + extended + (4 if header[1] & 0x80 else 0)


def _may_be_sent(code: int) -> bool:
    """Say whether a frame may have the code: not 1004 to 1006, 1015 or an unassigned one (RFC 6455 section 7.4)."""
    return 3000 <= code < 5000 or 1000 <= code <= 1003 or 1007 <= code <= 1014
