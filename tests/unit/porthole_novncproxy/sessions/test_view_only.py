# SPDX-License-Identifier: Apache-2.0
"""What of a client's stream reaches the VNC server, at every split of its bytes."""

import itertools
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porthole_common.errors import RfbInvalid
from porthole_novncproxy.sessions.view_only import MAX_CUT_TEXT_BYTES, build_filters

V3_3, V3_7, V3_8 = b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.008\n"
NONE, VNC_AUTHENTICATION = 1, 2
RESPONSE = bytes(range(16))
EXCLUSIVE, SHARED = b"\x00", b"\x01"

HARMLESS = (
    struct.pack(">B3x16s", 0, b"pixel format 16b"),
    struct.pack(">BxH", 2, 0),
    struct.pack(">BxH3i", 2, 3, 0, -239, 16),
    struct.pack(">BBHHHH", 3, 1, 0, 0, 1024, 768),
    struct.pack(">BBHHHH", 150, 1, 0, 0, 1024, 768),
    struct.pack(">B3xIB", 248, 1 << 31, 0),
    struct.pack(">B3xIB64s", 248, 1, 64, b"\x04" * 64),
)
INPUT = (
    struct.pack(">BBxxI", 4, 1, 0x61),
    struct.pack(">BBHH", 5, 1, 10, 10),
    struct.pack(">B3xi", 6, 0),
    struct.pack(">B3xi20s", 6, 20, b"\x04" * 20),
    struct.pack(">B3xi20s", 6, -20, b"\x05" * 20),
    struct.pack(">BxBB", 250, 1, 2),
    struct.pack(">BxHHBx", 251, 640, 480, 0),
    struct.pack(">BxHHBx32s", 251, 640, 480, 2, b"\x04" * 32),
    struct.pack(">BBHII", 255, 0, 1, 0x61, 30),
    struct.pack(">BBH", 255, 1, 0),
    struct.pack(">BBH", 255, 1, 1),
    struct.pack(">BBHBBI", 255, 1, 2, 0, 2, 44100),
)


class Viewer:
    """A client behind the filters, whose VNC server has said ``greeting``."""

    def __init__(
        self,
        greeting: bytes = V3_8,
        *,
        is_view_only: bool = True,
        force_shared: bool = True,
        is_negotiated: bool = False,
    ) -> None:
        self.to_server, self.to_client = build_filters(
            is_view_only=is_view_only, force_shared=force_shared, is_negotiated=is_negotiated
        )
        self.hear(greeting)

    def hear(self, data: bytes) -> None:
        """Let the VNC server say ``data``, which reaches the client as it is."""
        if self.to_client is not None:
            assert bytes(self.to_client.feed(memoryview(data))) == data

    def send(self, *parts: bytes) -> bytes:
        """Send ``parts``; return what reaches the VNC server."""
        if self.to_server is None:
            return b"".join(parts)
        return b"".join(bytes(self.to_server.feed(memoryview(part))) for part in parts)


def open_viewer(**options: bool) -> Viewer:
    """Return a viewer past its ClientInit."""
    viewer = Viewer(**options)
    viewer.send(V3_8 + bytes([NONE]) + SHARED)
    return viewer


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """Return ``data`` cut at ``places``."""
    marks = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[begin:end] for begin, end in itertools.pairwise(marks)]


@pytest.mark.parametrize("message", HARMLESS)
def test_what_a_viewer_needs_passes_byte_by_byte(message: bytes) -> None:
    viewer = open_viewer()
    assert viewer.send(*(bytes([byte]) for byte in message * 2)) == message * 2


@pytest.mark.parametrize("message", INPUT)
def test_input_does_not_pass_and_what_follows_does(message: bytes) -> None:
    for split in range(len(message) + 1):
        viewer = open_viewer()
        assert viewer.send(message[:split], message[split:] + HARMLESS[3]) == HARMLESS[3]


@given(
    messages=st.lists(st.sampled_from([*HARMLESS, *INPUT]), max_size=30),
    places=st.lists(st.integers(0, 2000), max_size=20),
)
def test_any_order_and_any_split(messages: list[bytes], places: list[int]) -> None:
    stream = V3_8 + bytes([NONE]) + EXCLUSIVE + b"".join(messages)
    allowed = b"".join(message for message in messages if message in HARMLESS)
    assert Viewer().send(*cut(stream, places)) == V3_8 + bytes([NONE]) + SHARED + allowed


@given(stream=st.binary(max_size=300), places=st.lists(st.integers(0, 300), max_size=10))
def test_hostile_bytes_pass_as_harmless_messages_or_not_at_all(stream: bytes, places: list[int]) -> None:
    """A reader that knows the harmless messages alone understands whatever reached the VNC server."""
    viewer = open_viewer()
    passed = bytearray()
    try:
        for part in cut(stream, places):
            passed += viewer.send(part)
    except RfbInvalid:
        pass
    while passed:
        sizes = {0: 20, 3: 10, 150: 10}
        kind = passed[0]
        if kind == 2:
            size = 4 + 4 * int.from_bytes(passed[2:4], "big") if len(passed) >= 4 else 4
        elif kind == 248:
            size = 9 + passed[8] if len(passed) >= 9 else 9
        else:
            size = sizes[kind]
        del passed[:size]


def test_a_message_that_is_not_known_ends_the_session() -> None:
    known = {0, 2, 3, 4, 5, 6, 150, 248, 250, 251, 255}
    for message in (
        *(bytes([kind]) for kind in range(256) if kind not in known),
        struct.pack(">B3xi", 6, MAX_CUT_TEXT_BYTES + 1),
        struct.pack(">B3xi", 6, -(1 << 31)),
        struct.pack(">B3xIB", 248, 1, 65),
        b"\xff\x02",
    ):
        with pytest.raises(RfbInvalid) as caught:
            open_viewer().send(message)
        assert "view-only" in str(caught.value)
        assert "The viewer" in str(caught.value)


def test_a_long_text_is_dropped_without_being_held() -> None:
    viewer = open_viewer()
    assert viewer.send(struct.pack(">B3xi", 6, MAX_CUT_TEXT_BYTES)) == b""
    for _ in range(16):
        assert viewer.send(b"\x04" * (MAX_CUT_TEXT_BYTES // 16)) == b""
    assert viewer.send(HARMLESS[3]) == HARMLESS[3]


@pytest.mark.parametrize(
    ("greeting", "answer", "behind"),
    [
        (V3_8, V3_8, bytes([NONE])),
        (V3_8, V3_8, bytes([VNC_AUTHENTICATION]) + RESPONSE),
        (V3_8, V3_7, bytes([NONE])),
        (V3_7, V3_7, bytes([VNC_AUTHENTICATION]) + RESPONSE),
        (V3_3 + bytes([0, 0, 0, NONE]), V3_3, b""),
        (V3_3 + bytes([0, 0, 0, VNC_AUTHENTICATION]), V3_3, RESPONSE),
        (V3_8 + bytes([0, 0, 0, NONE]), V3_3, b""),
        (b"RFB 003.889\n", b"RFB 003.889\n", bytes([NONE])),
    ],
)
@pytest.mark.parametrize("is_view_only", [True, False])
def test_each_handshake_is_followed(greeting: bytes, answer: bytes, behind: bytes, is_view_only: bool) -> None:
    opening = answer + behind
    for split in range(len(opening) + 1):
        viewer = Viewer(greeting, is_view_only=is_view_only)
        sent = viewer.send(opening[:split], opening[split:] + EXCLUSIVE, INPUT[0], HARMLESS[3])
        assert sent == opening + SHARED + (b"" if is_view_only else INPUT[0]) + HARMLESS[3]


@pytest.mark.parametrize(
    ("greeting", "stream"),
    [
        # The proxy would count 16 bytes of a response, of which the VNC server makes ClientInit and keys.
        (V3_3 + bytes([0, 0, 0, NONE]), V3_8 + bytes([VNC_AUTHENTICATION]) + SHARED + INPUT[0]),
        (b"", V3_8 + bytes([NONE]) + SHARED + INPUT[0]),
        (V3_8[:11], V3_8 + bytes([NONE]) + SHARED + INPUT[0]),
        (V3_3 + bytes([0, 0, 0]), V3_3 + SHARED + INPUT[0]),
        (V3_3 + bytes([0, 0, 0, 19]), V3_3 + SHARED + INPUT[0]),
        (V3_8, V3_8 + bytes([19]) + SHARED + INPUT[0]),
        (V3_8, V3_8 + bytes([0]) + SHARED + INPUT[0]),
        (V3_8, b"GET / HTTP/1.1\r\n\r\n"),
        (V3_8, b"RFB 003.002\n" + SHARED),
    ],
)
def test_a_handshake_that_is_not_followed_ends_a_view_only_session_and_no_other(greeting: bytes, stream: bytes) -> None:
    for size in (1, len(stream)):
        parts = [stream[at : at + size] for at in range(0, len(stream), size)]
        with pytest.raises(RfbInvalid):
            Viewer(greeting).send(*parts)
        assert Viewer(greeting, is_view_only=False).send(*parts) == stream


def test_the_proxys_own_handshake_is_not_looked_for() -> None:
    viewer = Viewer(is_negotiated=True)
    assert viewer.to_client is None
    assert viewer.send(EXCLUSIVE + INPUT[0] + HARMLESS[3]) == SHARED + HARMLESS[3]


def test_the_shared_flag_is_the_clients_where_it_is_not_forced() -> None:
    for flag in (EXCLUSIVE, SHARED):
        viewer = Viewer(force_shared=False)
        assert viewer.send(V3_8 + bytes([NONE]) + flag + INPUT[0]) == V3_8 + bytes([NONE]) + flag


def test_nothing_stands_in_a_stream_that_is_not_changed() -> None:
    assert build_filters(is_view_only=False, force_shared=False, is_negotiated=False) == (None, None)


def test_behind_client_init_a_control_session_is_not_looked_at() -> None:
    viewer = Viewer(is_view_only=False)
    assert viewer.to_server is not None
    viewer.send(V3_8 + bytes([NONE]))
    assert not viewer.to_server.is_done
    viewer.send(EXCLUSIVE)
    assert viewer.to_server.is_done
    assert viewer.send(b"\x7f" * 1000) == b"\x7f" * 1000


def test_a_client_that_speaks_no_rfb_is_not_held_up() -> None:
    """Of a client whose VNC server is something else, each byte goes on at once."""
    viewer = Viewer(is_view_only=False)
    assert viewer.send(b"R") == b"R"
    assert viewer.send(b"?") == b"?"
    assert viewer.to_server is not None
    assert viewer.to_server.is_done


def test_the_servers_greeting_is_looked_at_and_no_more() -> None:
    viewer = Viewer(V3_3)
    assert viewer.to_client is not None
    assert not viewer.to_client.is_done
    viewer.hear(bytes([0, 0, 0, NONE]) + b"more")
    assert viewer.to_client.is_done
    viewer.hear(b"and more")
