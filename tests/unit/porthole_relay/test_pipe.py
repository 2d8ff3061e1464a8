# SPDX-License-Identifier: Apache-2.0
import pytest

from porthole_common.errors import RfbInvalid
from porthole_relay.codec import RawCodec, WebSocketCodec
from porthole_relay.pipe import Pipe
from support.cases import naming
from support.fake_loop import FakeStream


def make(sink=None, codec=None, **options):
    sink = sink or FakeStream(10)
    return Pipe(sink, codec or RawCodec(), 100, 20, **options), sink


class Upper:
    """An interceptor that changes letters and drops digits, and ends the session at a bang."""

    is_done = False

    def feed(self, data):
        if b"!" in bytes(data):
            raise RfbInvalid("The viewer", "it shouts")
        return bytes(data).upper().translate(None, b"0123456789")


class Words:
    """An interceptor that keeps a word until its end has come."""

    is_done = False

    def __init__(self):
        self.begun = b""

    def feed(self, data):
        whole, separator, self.begun = (self.begun + bytes(data)).rpartition(b" ")
        return whole + separator


def test_bytes_go_on_in_one_frame_and_nothing_is_held():
    pipe, sink = make(codec=WebSocketCodec())
    pipe.relay((memoryview(b"hel"), memoryview(b"lo")))
    assert sink.written == b"\x82\x05hello"
    assert pipe.held == b""
    assert pipe.relayed_bytes == 5


def test_no_bytes_are_no_frame():
    pipe, sink = make(codec=WebSocketCodec())
    pipe.relay(())
    pipe.relay((memoryview(b""),))
    assert sink.written == b""


def test_only_the_bytes_that_the_sink_does_not_take_are_held():
    for room in range(13):
        with naming(room):
            pipe, sink = make(FakeStream(10, room_bytes=room), WebSocketCodec())
            pipe.relay((memoryview(b"hello"), memoryview(b""), memoryview(b"world")))
            assert sink.written + bytes(pipe.held) == b"\x82\x0ahelloworld"
            assert len(pipe.held) == 12 - room


def test_more_parts_than_sendmsg_takes_are_joined():
    pipe, sink = make()
    counts = []
    write = sink.write
    sink.write = lambda parts: (counts.append(len(parts)), write(parts))[1]
    pipe.relay([memoryview(b"ab")] * 1000)
    assert sink.written == b"ab" * 1000
    assert max(counts) <= 64


def test_the_order_is_kept_behind_what_is_held():
    pipe, sink = make(FakeStream(10, room_bytes=3), WebSocketCodec())
    pipe.relay((memoryview(b"one"),))
    pipe.append(b"<ping>", b"<close>")
    pipe.relay((memoryview(b"two"),))
    assert not pipe.flush()
    sink.room_bytes = 4
    assert not pipe.flush()
    sink.room_bytes = None
    assert pipe.flush()
    assert sink.written == b"\x82\x03one<ping><close>\x82\x03two"


def test_the_source_is_read_up_to_the_low_watermark_and_not_behind_its_end():
    pipe, sink = make(FakeStream(10, room_bytes=0))
    pipe.relay((memoryview(b"x" * 20),))
    assert pipe.may_read()
    pipe.relay((memoryview(b"x"),))
    assert not pipe.may_read()
    sink.room_bytes = 1
    pipe.flush()
    assert pipe.may_read()
    pipe.at_end = True
    assert not pipe.may_read()


def test_a_read_is_as_large_as_the_sinks_room_and_the_high_watermark_on_top():
    pipe, sink = make(FakeStream(10, room_bytes=0))
    assert pipe.room_bytes(1000) == 100
    pipe.relay((memoryview(b"x" * 15),))
    assert pipe.room_bytes(1000) == 85
    sink.room_bytes = 40
    assert pipe.room_bytes(1000) == 125
    assert pipe.room_bytes(50) == 50
    pipe.append(b"x" * 1000)
    assert pipe.room_bytes(1000) == 1


def test_an_interceptor_changes_the_bytes_before_they_are_framed_and_counted():
    pipe, sink = make(codec=WebSocketCodec(), interceptor=Upper())
    pipe.relay((memoryview(b"a1b2"), memoryview(b"34"), memoryview(b"c")))
    assert sink.written == b"\x82\x03ABC"
    assert pipe.relayed_bytes == 3
    pipe.relay((memoryview(b"5"),))
    assert sink.written == b"\x82\x03ABC"


def test_an_interceptor_may_keep_bytes_back():
    text = b"key up key down "
    for cut in range(len(text) + 1):
        with naming(cut):
            pipe, sink = make(interceptor=Words())
            pipe.relay((memoryview(text[:cut]), memoryview(text[cut:])))
            assert sink.written == text


def test_an_interceptor_that_is_done_is_taken_out():
    interceptor = Upper()
    pipe, sink = make(interceptor=interceptor)
    pipe.relay([memoryview(b"abc")])
    interceptor.is_done = True
    pipe.relay([memoryview(b"def")])
    pipe.relay([memoryview(b"ghi!")])
    assert sink.written == b"ABCDEFghi!"


def test_the_proxys_own_messages_pass_no_interceptor():
    pipe, sink = make(interceptor=Upper())
    assert pipe.write((b"as1 it is!",)) == 10
    pipe.append(b" too!")
    pipe.flush()
    assert sink.written == b"as1 it is! too!"
    assert pipe.relayed_bytes == 0


def test_an_interceptor_may_end_the_session():
    pipe, sink = make(interceptor=Upper())
    with pytest.raises(RfbInvalid, match="it shouts"):
        pipe.relay((memoryview(b"fine"), memoryview(b"no!")))
    assert sink.written == b""


def test_a_broken_sink_is_an_error():
    pipe, sink = make()
    pipe.append(b"held")
    sink.broken = BrokenPipeError()
    for action in (pipe.flush, pipe.write_end, lambda: pipe.relay((memoryview(b"x"),))):
        with pytest.raises(BrokenPipeError):
            action()


def test_a_pipe_that_outlives_its_sink_drops_the_rest():
    for act in ("flush", "write_end", "relay"):
        with naming(act):
            pipe, sink = make(FakeStream(10, room_bytes=0), outlives_sink=True, interceptor=Upper())
            pipe.relay((memoryview(b"held"),))
            sink.broken = BrokenPipeError()
            if act == "relay":
                pipe.relay((memoryview(b"x"),))
            else:
                getattr(pipe, act)()
            assert pipe.held == b""
            sink.broken, sink.room_bytes = None, None
            pipe.relay((memoryview(b"dropped!"),))
            assert pipe.flush()
            pipe.write_end()
            assert sink.written == b""
            assert not sink.ended
            # The source is read on: its end is what ends the session.
            assert pipe.may_read()


def test_another_sink_gets_what_comes_and_not_what_was_held():
    pipe, old = make(FakeStream(10, room_bytes=2), outlives_sink=True)
    pipe.relay((memoryview(b"old"),))
    pipe.cut()
    new = FakeStream(11)
    pipe.connect(new)
    pipe.relay((memoryview(b"new"),))
    assert (old.written, new.written) == (b"ol", b"new")
    assert pipe.relayed_bytes == 6
