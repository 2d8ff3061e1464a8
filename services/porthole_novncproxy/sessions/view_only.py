# SPDX-License-Identifier: Apache-2.0
"""What of a client's RFB stream reaches the VNC server: all of it, or no input.

Why at the proxy: a page that only promises not to type can be changed by whoever has it in his browser. Here a message
goes on when it is known to be harmless, is dropped when it is known to be input, and ends the session when it is not
known. ClientInit's shared flag can be set for everybody, so that no viewer throws out the others (RFC 6143 section
7.3.1). Scripts of :mod:`porthole_common.rfb.stream_filter`, without I/O.
"""

import functools
from collections.abc import Callable

from porthole_common.errors import RfbInvalid
from porthole_common.rfb.handshake import Peer
from porthole_common.rfb.opening import Opening, OpeningNotFollowed, ServerGreeting, follow_opening
from porthole_common.rfb.stream_filter import Drop, Emit, Pass, Script, StreamFilter, Take

SHARED = b"\x01"
# The longest text that QEMU takes from a client; a longer one is no clipboard.
MAX_CUT_TEXT_BYTES = 1 << 20
_MAX_FENCE_BYTES = 64

# RFC 6143 section 7.5, and the client messages of rfbproto beside it, by their first byte.
SET_PIXEL_FORMAT = 0
SET_ENCODINGS = 2
UPDATE_REQUEST = 3
KEY_EVENT = 4
POINTER_EVENT = 5
CUT_TEXT = 6
ENABLE_CONTINUOUS_UPDATES = 150
FENCE = 248
XVP = 250
SET_DESKTOP_SIZE = 251
QEMU = 255
QEMU_KEY_EVENT = 0
QEMU_AUDIO = 1
_QEMU_AUDIO_SET_FORMAT = 2

# The sizes of messages that have one, the first byte included.
_HARMLESS = {SET_PIXEL_FORMAT: 20, UPDATE_REQUEST: 10, ENABLE_CONTINUOUS_UPDATES: 10}
_INPUT = {KEY_EVENT: 8, POINTER_EVENT: 6, XVP: 4}


def build_filters(
    *, is_view_only: bool, force_shared: bool, is_negotiated: bool
) -> tuple[StreamFilter | None, ServerGreeting | None]:
    """Return what stands in the stream to the VNC server, and in the stream to the client; None for nothing.

    ``is_negotiated``: the proxy has done the security handshake with both sides, so that ClientInit comes first.
    """
    if not is_view_only and not force_shared:
        return None, None
    greeting = None if is_negotiated else ServerGreeting()
    build = functools.partial(_view, greeting, force_shared) if is_view_only else functools.partial(_share, greeting)
    return StreamFilter(build), greeting


def _view(greeting: ServerGreeting | None, force_shared: bool) -> Script:
    """Let through what a viewer needs to see the screen.

    :raises RfbInvalid: when the client's bytes cannot be followed, or have no known meaning.
    """
    try:
        shared = yield from _read_client_init(greeting)
    except OpeningNotFollowed as exc:
        raise _not_viewing(exc.reason) from exc
    yield Emit(SHARED if force_shared else shared)
    while True:
        kind = yield Take(1)
        number = kind[0]
        if number in _HARMLESS:
            yield Emit(kind)
            yield Pass(_HARMLESS[number] - 1)
        elif number in _INPUT:
            yield Drop(_INPUT[number] - 1)
        elif number in _OF_ANY_SIZE:
            yield from _OF_ANY_SIZE[number]()
        else:
            raise _not_viewing(f"its message type {number} is not known")


def _share(greeting: ServerGreeting | None) -> Script:
    """Set ClientInit's shared flag; look at nothing behind it.

    Where a handshake that cannot be followed hides ClientInit, the session goes on as the client wants it.
    """
    try:
        yield from _read_client_init(greeting)
        yield Emit(SHARED)
    except OpeningNotFollowed as exc:
        yield Emit(exc.pending)
    yield Pass()


def _read_client_init(greeting: ServerGreeting | None) -> Opening:
    """Return ``U8 shared`` (RFC 6143 section 7.3.1)."""
    if greeting is None:
        return (yield Take(1))
    return (yield from follow_opening(greeting))


def _set_encodings() -> Script:
    """``U8 type, U8 padding, U16 count, count * 4 bytes of an encoding`` (RFC 6143 section 7.5.2)."""
    head = yield Take(3)
    yield Emit(bytes([SET_ENCODINGS]) + head)
    yield Pass(4 * int.from_bytes(head[1:], "big"))


def _fence() -> Script:
    """``U8 type, 3 * padding, U32 flags, U8 length, length * U8`` (rfbproto, "ClientFence")."""
    head = yield Take(8)
    if head[-1] > _MAX_FENCE_BYTES:
        raise _not_viewing(f"its fence has {head[-1]} bytes")
    yield Emit(bytes([FENCE]) + head)
    yield Pass(head[-1])


def _cut_text() -> Script:
    """``U8 type, 3 * padding, 4 bytes of a signed length, |length| * U8`` (RFC 6143 section 7.5.6).

    The length is negative in rfbproto's extended clipboard.
    """
    head = yield Take(7)
    size = abs(int.from_bytes(head[3:], "big", signed=True))
    if size > MAX_CUT_TEXT_BYTES:
        raise _not_viewing(f"its text has {size} bytes")
    yield Drop(size)


def _set_desktop_size() -> Script:
    """``U8 type, padding, U16 width, U16 height, U8 screens, padding, screens * 16 bytes`` (rfbproto)."""
    head = yield Take(7)
    yield Drop(16 * head[5])


def _qemu() -> Script:
    """``U8 type, U8 subtype``, and a body that depends on it (rfbproto, "QEMU Client Message")."""
    subtype = (yield Take(1))[0]
    if subtype == QEMU_KEY_EVENT:
        yield Drop(10)
    elif subtype == QEMU_AUDIO:
        operation = int.from_bytes((yield Take(2)), "big")
        yield Drop(6 if operation == _QEMU_AUDIO_SET_FORMAT else 0)
    else:
        raise _not_viewing(f"its QEMU message {subtype} is not known")


def _not_viewing(reason: str) -> RfbInvalid:
    return RfbInvalid(Peer.VIEWER.value, f"{reason}, and the console is view-only")


_OF_ANY_SIZE: dict[int, Callable[[], Script]] = {
    SET_ENCODINGS: _set_encodings,
    CUT_TEXT: _cut_text,
    FENCE: _fence,
    SET_DESKTOP_SIZE: _set_desktop_size,
    QEMU: _qemu,
}
