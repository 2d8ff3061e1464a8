# SPDX-License-Identifier: Apache-2.0
"""A session relays every byte in order, and a slow side holds up the other side."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from porthole_relay import frames
from porthole_relay.codec import MAX_FRAMES_PER_TURN
from porthole_relay.frames import CloseCode, Opcode
from porthole_relay.loop import PEER_ENDED, READ, WRITE
from porthole_relay.pipe import Watermarks
from support.cases import naming
from support.sessions import (
    GREETING,
    MARKS,
    TLS_MARKS,
    Console,
    close_frames,
    from_proxy,
    masked,
    masked_close,
    over_tls,
)


def test_bytes_go_both_ways():
    console = Console()
    console.server_sends(GREETING)
    console.client_sends(masked(Opcode.BINARY, GREETING))
    console.server_sends(b"\x01\x01")
    assert console.to_client == GREETING + b"\x01\x01"
    assert console.server.written == GREETING
    console.assert_open()


def test_what_was_read_before_the_session_goes_first():
    console = Console(start=False)
    console.server.incoming.append(b" and more")
    console.client.incoming.append(masked(Opcode.BINARY, b"!"))
    console.session.start(GREETING, masked(Opcode.BINARY, b"pipelined"))
    console.pump()
    assert console.to_client == GREETING + b" and more"
    assert console.server.written == b"pipelined!"


def test_a_pipelined_frame_may_be_cut_by_the_start():
    for early in range(20):
        with naming(early):
            frame = masked(Opcode.BINARY, b"pipelined")
            console = Console(start=False)
            console.session.start(b"", frame[:early])
            console.client_sends(*([frame[early:]] if frame[early:] else []))
            assert console.server.written == b"pipelined"


def test_a_close_may_be_pipelined():
    console = Console(start=False)
    console.session.start(GREETING, masked(Opcode.BINARY, b"x") + masked_close(1000))
    console.pump()
    assert console.server.written == b"x"
    assert console.to_client == GREETING
    assert close_frames(console.client.written) == [(1000, "")]
    console.assert_ended()


STREAM = (
    masked(Opcode.BINARY, b"a" * 130)
    + masked(Opcode.PING, b"are you there")
    + masked(Opcode.TEXT, b"b", final=False)
    + masked(Opcode.PONG)
    + masked(Opcode.CONTINUATION, b"c")
    + masked_close(1001)
)


def test_what_a_browser_sends_may_be_cut_anywhere():
    for cut in range(len(STREAM) + 1):
        with naming(cut):
            console = Console()
            console.client_sends(*(part for part in (STREAM[:cut], STREAM[cut:]) if part))
            assert console.server.written == b"a" * 130 + b"bc"
            assert from_proxy(console.client.written)[1] == [
                (Opcode.PONG, b"are you there"),
                (Opcode.CLOSE, (1001).to_bytes(2, "big")),
            ]
            console.assert_ended()


def test_a_browser_may_take_what_it_gets_in_any_pieces():
    for cut in range(1, 40):
        with naming(cut):
            console = Console(room=(cut, None))
            console.server_sends(b"0123456789" * 3)
            for _ in range(5):
                console.client.room_bytes = cut
                console.server_sends(b"abc")
            console.client.room_bytes = None
            console.pump()
            assert console.to_client == b"0123456789" * 3 + b"abc" * 5


@given(
    st.lists(
        st.tuples(st.sampled_from("sckr"), st.binary(min_size=1, max_size=2000), st.integers(0, 1500)), max_size=30
    )
)
def test_nothing_is_lost_or_mixed_up_whatever_each_side_takes(steps):
    console = Console(room=(0, 0))
    down, up = b"", b""
    for who, payload, room in steps:
        if who == "s":
            down += payload
            console.server.incoming.append(payload)
        elif who == "c":
            up += payload
            console.client.incoming.append(masked(Opcode.BINARY, payload))
        elif who == "k":
            console.client.room_bytes += room
        else:
            console.server.room_bytes += room
        console.pump()
        assert console.held_bytes[0] <= MARKS.high_bytes + 14
        assert console.held_bytes[1] <= MARKS.high_bytes
    console.client.room_bytes = console.server.room_bytes = None
    console.pump()
    assert console.to_client == down
    assert console.server.written == up
    console.assert_open()


def test_a_slow_viewer_stops_its_vnc_server():
    """At the high mark (O6)."""
    console = Console(room=(100, None), server=[b"x" * 100_000])
    assert console.server.taken_bytes <= 100 + MARKS.high_bytes
    taken = console.server.taken_bytes
    console.server_sends(b"y" * 100_000)
    assert console.server.taken_bytes == taken
    console.client.room_bytes = 50
    console.pump()
    assert console.server.taken_bytes <= 150 + MARKS.high_bytes
    console.client.room_bytes = None
    console.pump()
    assert console.to_client == b"x" * 100_000 + b"y" * 100_000


def test_a_slow_viewer_is_still_heard():
    console = Console(room=(0, None), server=[b"x" * 5000])
    console.client_sends(masked(Opcode.BINARY, b"key"))
    assert console.server.written == b"key"


def test_a_slow_vnc_server_stops_its_viewer():
    frame = masked(Opcode.BINARY, b"x" * 1000)
    console = Console(room=(None, 100), client=[frame * 50])
    assert console.client.taken_bytes <= 100 + 2 * MARKS.high_bytes
    taken = console.client.taken_bytes
    console.server_sends(b"screen")
    assert console.to_client == b"screen"
    assert console.client.taken_bytes == taken
    console.server.room_bytes = None
    console.pump()
    assert console.server.written == b"x" * 50_000


def test_the_rest_of_a_tls_record_is_not_left_behind():
    for first, second in itertools.product([1, 99, 100, 101, 399, 400], [1, 100, 350, 401, 1000]):
        with naming(first, second):
            stream = masked(Opcode.BINARY, b"x" * 2000)[: first + second]
            console = over_tls(client=[stream[:first], stream[first:]])
            assert console.client.taken_bytes == first + second
            console.assert_open()


def test_the_rest_of_a_tls_record_waits_for_a_slow_vnc_server():
    console = over_tls(room=(None, 0))
    payload = bytes(range(256)) * 8
    frame = masked(Opcode.BINARY, payload)
    console.client_sends(frame[:1000], frame[1000:])
    for _ in range(100):
        console.server.room_bytes += 30
        console.pump()
        assert console.held_bytes[1] <= TLS_MARKS.high_bytes
    assert console.server.written == payload


def test_a_resumed_client_is_held_up_again_when_its_vnc_server_is():
    """The call that resumes it comes after a read of the same round has filled the VNC server's side anew."""
    console = over_tls(room=(None, 0))
    payload = bytes(range(256)) * 8
    frame = masked(Opcode.BINARY, payload)
    console.client.incoming.extend([frame[:1000], frame[1000:]])
    console.pump()
    for _ in range(100):
        console.server.room_bytes += 20
        if console.server.mask & WRITE:
            console.loop.callbacks[console.server.fd](WRITE)
        if console.client.mask & READ == READ:
            console.loop.callbacks[console.client.fd](READ)
        console.loop.run_soon()
    console.server.room_bytes = None
    console.pump()
    assert console.server.written == payload


def test_the_rest_of_a_vnc_servers_tls_record_is_not_left_behind():
    for sizes, room, client_tls in itertools.product(
        [[1, 99], [100, 101, 300], [5000], [20_000], [1, 5000, 1, 100, 100]], [None, 0, 1, 60, 120], [False, True]
    ):
        with naming(sizes, room, client_tls):
            console = Console(marks=TLS_MARKS, start=False, room=(room, None))
            console.server.tls, console.client.tls = True, client_tls
            records = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
            console.server.incoming.extend(records)
            console.session.start(b"", b"")
            console.pump()
            assert console.held_bytes[0] <= TLS_MARKS.high_bytes + 14
            for _ in range(200 if room else 0):
                console.client.room_bytes = room
                console.pump()
            console.client.room_bytes = None
            console.pump()
            assert console.to_client == b"".join(records)
            console.assert_open()


def test_what_tls_holds_at_the_start_is_read_without_a_word_of_epoll():
    console = Console(start=False)
    console.server.tls, console.server.hidden = True, b"behind the handshake"
    console.session.start(b"", b"")
    console.pump()
    assert console.to_client == b"behind the handshake"


def test_a_ping_is_answered_with_its_payload():
    console = Console(client=[masked(Opcode.PING, b"one") + masked(Opcode.PING, b"") + masked(Opcode.PONG, b"x")])
    assert from_proxy(console.client.written)[1] == [(Opcode.PONG, b"one"), (Opcode.PONG, b"")]
    console.assert_open()


def test_a_pong_comes_behind_the_frame_that_is_half_sent():
    console = Console(room=(50, None), server=[b"x" * 200])
    console.client_sends(masked(Opcode.PING, b"one"))
    console.client.room_bytes = None
    console.pump()
    assert from_proxy(console.client.written) == (b"x" * 200, [(Opcode.PONG, b"one")])


def test_pings_of_one_read_are_answered_in_one_write():
    console = Console()
    writes = []
    write = console.client.write
    console.client.write = lambda parts: (writes.append(1), write(parts))[1]
    console.client_sends(masked(Opcode.PING, b"ab") * 100)
    assert len(from_proxy(console.client.written)[1]) == 100
    assert len(writes) <= 2


def test_a_client_that_floods_pings_and_reads_no_pong_is_not_read_for_ever():
    console = Console(room=(0, None))
    flood = masked(Opcode.PING, b"x" * 125)
    for _ in range(200):
        console.client_sends(flood * 10)
    assert console.held_bytes[0] <= 4 * MARKS.high_bytes
    assert console.client.taken_bytes <= 5 * MARKS.high_bytes
    console.client.room_bytes = None
    console.pump()
    assert len(from_proxy(console.client.written)[1]) == 2000
    console.assert_open()


FLOODS = (
    masked(Opcode.PING, b""),
    masked(Opcode.BINARY, b""),
    masked(Opcode.BINARY, b"a"),
    masked(Opcode.PONG, b""),
)


def test_small_frames_of_one_read_take_turns_with_the_other_sessions():
    """A frame costs the same however small it is: so many of them are the work of one turn."""
    for frame in FLOODS:
        with naming(frame):
            console = Console(start=False, marks=Watermarks(high_bytes=65536, low_bytes=1024))
            console.session.start(b"", b"")
            count = 3 * MAX_FRAMES_PER_TURN + 1
            console.client.incoming.append(frame * count + masked(Opcode.PING, b"last"))
            console.loop.callbacks[10](READ)
            turns = 1
            while console.loop.soon:
                # What it has not fed yet comes first: nothing more is read of it.
                assert not console.loop.masks[10] & READ & ~PEER_ENDED
                console.loop.soon.popleft()()
                turns += 1
            assert turns == 4
            controls = from_proxy(console.client.written)[1]
            assert controls[-1] == (Opcode.PONG, b"last")
            assert console.loop.masks[10] & READ == READ
            console.assert_open()


def test_frames_that_wait_for_their_turn_go_no_further_when_the_session_closes():
    console = Console(start=False, marks=Watermarks(high_bytes=65536, low_bytes=1024))
    console.session.start(b"", b"")
    console.client.incoming.append(masked(Opcode.BINARY, b"a") * (2 * MAX_FRAMES_PER_TURN))
    console.loop.callbacks[10](READ)
    console.session.close(CloseCode.REVOKED, "revoked")
    console.loop.run_soon()
    assert console.server.written == b"a" * MAX_FRAMES_PER_TURN


def test_no_frame_length_lies_about_the_payload():
    for size in (1, 125, 126, 1024):
        console = Console(server=[b"x" * size])
        assert console.client.written == frames.build_header(size) + b"x" * size
