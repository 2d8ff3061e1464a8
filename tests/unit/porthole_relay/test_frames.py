# SPDX-License-Identifier: Apache-2.0
import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from porthole_common.errors import FrameInvalid
from porthole_relay import frames
from porthole_relay.frames import Close, Data, FrameDecoder, Opcode, Ping, Pong
from support.cases import naming

MASK = b"\x37\xfa\x21\x3d"
LIMIT = 1 << 20


def slow_xor(payload, mask, offset=0):
    """The definition, byte by byte (RFC 6455 section 5.3)."""
    return bytes(byte ^ mask[(offset + index) % 4] for index, byte in enumerate(payload))


def client_frame(opcode, payload=b"", final=True, mask=MASK, reserved=0, length=None):
    """One masked frame; ``length`` announces another size than the payload has."""
    size = len(payload) if length is None else length
    first = (0x80 if final else 0) | reserved | opcode
    if size < 126:
        head = bytes([first, 0x80 | size])
    elif size < 65536:
        head = bytes([first, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, 0x80 | 127]) + size.to_bytes(8, "big")
    return head + mask + slow_xor(payload, mask)


def decode(chunks, limit=LIMIT):
    """Return (data bytes, control events) of a stream that comes in ``chunks``."""
    decoder = FrameDecoder(limit)
    data, controls = b"", []
    for chunk in chunks:
        for event in decoder.feed(bytearray(chunk)):
            if isinstance(event, Data):
                data += event.payload
            else:
                controls.append((len(data), event))
    return data, controls


def outcome(chunks):
    """What a stream means, or the close code it ends in; any other exception is a fault."""
    try:
        return decode(chunks, limit=4096)
    except FrameInvalid as exc:
        return exc.code


def is_events_or_close_code(found):
    return found in (1002, 1009) if isinstance(found, int) else isinstance(found, tuple)


def split(stream, cuts):
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


masks = st.binary(min_size=4, max_size=4)
controls = st.one_of(
    st.builds(lambda p, m: (client_frame(Opcode.PING, p, mask=m), Ping(p)), st.binary(max_size=125), masks),
    st.builds(lambda p, m: (client_frame(Opcode.PONG, p, mask=m), Pong(p)), st.binary(max_size=125), masks),
)


@st.composite
def streams(draw):
    """A valid stream of one client, with the payload and the control events it means."""
    stream, data, events = b"", b"", []
    for parts in draw(st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=4), max_size=4)):
        first = draw(st.sampled_from([Opcode.BINARY, Opcode.TEXT]))
        for number, part in enumerate(parts):
            for frame, event in draw(st.lists(controls, max_size=2)):
                stream += frame
                events.append((len(data), event))
            opcode = Opcode.CONTINUATION if number else first
            stream += client_frame(opcode, part, final=number == len(parts) - 1, mask=draw(masks))
            data += part
    if draw(st.booleans()):
        code = draw(st.sampled_from([1000, 1001, 1011, 3000, 4999]))
        reason = draw(st.text(max_size=30))
        stream += client_frame(Opcode.CLOSE, code.to_bytes(2, "big") + reason.encode())
        events.append((len(data), Close(code, reason)))
    return stream, data, events


@given(streams(), st.lists(st.integers(0, 5000), max_size=12))
def test_any_split_of_a_valid_stream_means_the_same(stream, cuts):
    encoded, data, events = stream
    assert decode(split(encoded, cuts)) == (data, events)


@given(streams())
def test_a_valid_stream_byte_by_byte(stream):
    encoded, data, events = stream
    assert decode(encoded[index : index + 1] for index in range(len(encoded))) == (data, events)


def test_a_stream_of_every_kind_cut_at_every_offset():
    encoded = (
        client_frame(Opcode.TEXT, b"a" * 130, final=False)
        + client_frame(Opcode.PING, b"are you there")
        + client_frame(Opcode.CONTINUATION, b"b" * 5)
        + client_frame(Opcode.BINARY, b"")
        + client_frame(Opcode.CLOSE, b"\x03\xe8bye")
    )
    whole = decode([encoded])
    assert whole == (b"a" * 130 + b"b" * 5, [(130, Ping(b"are you there")), (135, Close(1000, "bye"))])
    for cut in range(len(encoded) + 1):
        with naming(cut):
            assert decode([encoded[:cut], encoded[cut:]]) == whole


@given(streams(), st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 255)), min_size=1, max_size=5))
def test_a_damaged_stream_ends_in_events_or_in_a_close_code(stream, damages):
    damaged = bytearray(stream[0] or client_frame(Opcode.BINARY, b"x"))
    for position, flip in damages:
        damaged[position % len(damaged)] ^= flip
    assert is_events_or_close_code(outcome([bytes(damaged)]))


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_noise_ends_in_events_or_in_a_close_code(noise, cuts):
    assert outcome([noise]) == outcome(split(noise, cuts))
    assert is_events_or_close_code(outcome([noise]))


def test_unmask_against_the_definition():
    for size, offset in itertools.product(
        [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 125, 126, 254, 255, 256, 257, 263, 264, 4097], range(9)
    ):
        with naming(size, offset):
            payload = bytes((index * 31 + 7) % 256 for index in range(size))
            place = bytearray(payload)
            frames.unmask(memoryview(place), MASK, offset)
            assert place == slow_xor(payload, MASK, offset)


@given(st.binary(max_size=600), masks, st.integers(0, 1 << 40))
@example(b"\0" * 256, b"\xff\x00\xff\x00", 3)
def test_unmask_of_anything_against_the_definition(payload, mask, offset):
    place = bytearray(payload)
    frames.unmask(memoryview(place), mask, offset)
    assert place == slow_xor(payload, mask, offset)


def test_unmask_touches_its_own_bytes_only_and_need_not_be_aligned():
    for start, size in itertools.product(range(9), [3, 255, 256, 261, 1000]):
        with naming(start, size):
            store = bytearray(range(256)) * 5
            before = bytes(store)
            frames.unmask(memoryview(store)[start : start + size], MASK, 1)
            assert store[:start] == before[:start]
            assert store[start : start + size] == slow_xor(before[start : start + size], MASK, 1)
            assert store[start + size :] == before[start + size :]


def test_bytes_that_cannot_be_changed_are_left_as_they_are():
    fed = client_frame(Opcode.BINARY, b"x" * 300)
    before = bytes(bytearray(fed))
    assert [bytes(event.payload) for event in FrameDecoder(LIMIT).feed(fed)] == [b"x" * 300]
    assert fed == before


def test_a_breach_of_the_protocol_has_its_close_code():
    cases = [
        (client_frame(Opcode.BINARY, b"x", reserved=0x40), 1002),
        (client_frame(Opcode.BINARY, b"x", reserved=0x20), 1002),
        (client_frame(Opcode.BINARY, b"x", reserved=0x10), 1002),
        (client_frame(0x3, b"x"), 1002),
        (client_frame(0xB, b"x"), 1002),
        (b"\x82\x01x" + b"\0" * 16, 1002),
        (b"\x82\x01x" * 3, 1002),
        (b"\x89\x00", 1002),
        (client_frame(Opcode.CONTINUATION, b"x"), 1002),
        (client_frame(Opcode.BINARY, b"x", final=False) + client_frame(Opcode.BINARY, b"y"), 1002),
        (client_frame(Opcode.PING, b"x", final=False), 1002),
        (client_frame(Opcode.PING, b"x" * 126), 1002),
        (client_frame(Opcode.CLOSE, b"x" * 126), 1002),
        (client_frame(Opcode.CLOSE, b"\x03"), 1002),
        (client_frame(Opcode.CLOSE, b"\x03\xe8\xff\xfe"), 1002),
        (client_frame(Opcode.BINARY, b"", length=1 << 63), 1002),
        (client_frame(Opcode.BINARY, b"", length=(1 << 63) - 1), 1009),
        (client_frame(Opcode.BINARY, b"", length=LIMIT + 1), 1009),
        (client_frame(Opcode.BINARY, b"x", False) + client_frame(Opcode.CONTINUATION, b"", length=LIMIT), 1009),
    ]
    for stream, code in cases:
        for chunks in ([stream], [stream[index : index + 1] for index in range(len(stream))]):
            with naming(stream, code, f"chunks: {len(chunks)}"):
                with pytest.raises(FrameInvalid) as caught:
                    decode(chunks)
                assert caught.value.code == code


def test_a_close_code_that_must_not_be_sent_is_refused():
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535):
        with naming(code):
            with pytest.raises(FrameInvalid) as caught:
                decode([client_frame(Opcode.CLOSE, code.to_bytes(2, "big"))])
            assert caught.value.code == 1002


def test_a_close_code_that_may_be_sent_is_passed_on():
    for code in (1000, 1001, 1002, 1003, 1007, 1014, 3000, 4401, 4999):
        with naming(code):
            assert decode([client_frame(Opcode.CLOSE, code.to_bytes(2, "big"))]) == (b"", [(0, Close(code, ""))])


def test_a_close_frame_without_a_code_is_1005():
    assert decode([client_frame(Opcode.CLOSE)]) == (b"", [(0, Close(1005, ""))])


def test_a_message_of_exactly_the_limit_passes_and_the_next_one_starts_anew():
    stream = client_frame(Opcode.BINARY, b"x" * 10) + client_frame(Opcode.BINARY, b"y" * 10)
    assert decode([stream], limit=10) == (b"x" * 10 + b"y" * 10, [])


def test_an_announced_giant_frame_holds_no_memory_and_gives_payload_as_it_comes():
    decoder = FrameDecoder(1 << 40)
    assert list(decoder.feed(client_frame(Opcode.BINARY, b"", length=1 << 40))) == []
    assert [bytes(event.payload) for event in decoder.feed(slow_xor(b"first", MASK))] == [b"first"]
    assert [bytes(event.payload) for event in decoder.feed(slow_xor(b"second", MASK, 5))] == [b"second"]


def test_headers_to_the_client_are_the_shortest_and_unmasked():
    cases = [
        (0, "8200"),
        (125, "827d"),
        (126, "827e007e"),
        (65535, "827effff"),
        (65536, "827f0000000000010000"),
    ]
    for size, header in cases:
        with naming(size, header):
            assert frames.build_header(size).hex() == header


def test_a_close_frame_to_the_client():
    assert frames.build_close(4401, "gone").hex() == "8806" + "1131" + b"gone".hex()
    assert len(frames.build_close(1000, "x" * 200)) == 2 + frames.MAX_CONTROL_BYTES
    # Not within a character: a browser takes a reason that is no UTF-8 for a broken connection.
    assert frames.build_close(4403, "\u865a" * 100)[4:].decode() == "\u865a" * 41


def test_a_pong_carries_the_pings_payload():
    assert frames.build_pong(b"hello").hex() == "8a05" + b"hello".hex()
