# SPDX-License-Identifier: Apache-2.0
import pytest

from porthole_common.errors import FrameInvalid
from porthole_relay import frames
from porthole_relay.codec import MAX_MESSAGE_BYTES, RawCodec, WebSocketCodec


def test_a_browsers_bytes_lie_in_frames():
    codec = WebSocketCodec()
    assert not codec.half_close
    assert codec.build_header(300).hex() == "827e012c"
    assert codec.build_close(4401, "gone") == frames.build_close(4401, "gone")
    assert codec.build_ping().hex() == "8900"
    (event,) = codec.feed(memoryview(bytearray(b"\x82\x83\0\0\0\0abc")))
    assert bytes(event.payload) == b"abc"


def test_a_browsers_message_has_a_bound():
    with pytest.raises(FrameInvalid) as caught:
        list(WebSocketCodec().feed(memoryview(b"\x82\xff" + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big") + bytes(4))))
    assert caught.value.code == 1009


def test_nothing_lies_around_a_native_viewers_bytes():
    codec = RawCodec()
    assert codec.half_close
    assert codec.build_header(300) == codec.build_close(4401, "gone") == codec.build_ping() == b""
    assert [bytes(event.payload) for event in codec.feed(memoryview(b"\x88\x00"))] == [b"\x88\x00"]
    assert list(codec.feed(memoryview(b""))) == []
