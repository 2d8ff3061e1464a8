# SPDX-License-Identifier: Apache-2.0
import itertools
import select
import ssl

from hypothesis import given
from hypothesis import strategies as st

from porthole_common.errors import FrameInvalid
from porthole_relay import frames
from porthole_relay.codec import MAX_FRAMES_PER_TURN, MAX_MESSAGE_BYTES, RawCodec, WebSocketCodec
from porthole_relay.frames import CloseCode, Opcode
from porthole_relay.liveness import LivenessPolicy
from porthole_relay.loop import PEER_ENDED, READ, WRITE
from porthole_relay.pipe import Watermarks
from porthole_relay.session import CLOSE_TIMEOUT_S
from porthole_relay.states import State
from support.cases import naming
from support.sessions import (
    ALWAYS_DUE,
    GREETING,
    MARKS,
    MASK,
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


def test_the_end_of_the_vnc_server_is_1000_behind_all_it_said():
    console = Console(room=(10, None), server=[b"x" * 200, b""])
    assert console.server.closed
    console.client.room_bytes = None
    console.pump()
    assert console.to_client == b"x" * 200
    assert close_frames(console.client.written) == [(1000, "The VNC server ended the session")]
    assert not console.ended
    console.client_sends(masked_close(1000))
    assert close_frames(console.client.written) == [(1000, "The VNC server ended the session")]
    console.assert_ended()


def test_a_vnc_server_that_resets_is_1011():
    console = Console()
    console.server_sends(GREETING, ConnectionResetError())
    assert console.to_client == GREETING
    assert close_frames(console.client.written) == [(1011, "The connection to the VNC server was lost")]
    console.client_sends(masked_close(1011))
    console.assert_ended()


def test_a_vnc_server_that_takes_no_more_is_still_read_to_its_end():
    console = Console()
    console.server.broken = BrokenPipeError()
    console.client_sends(masked(Opcode.BINARY, b"key"))
    console.client_sends(masked(Opcode.BINARY, b"key"))
    console.server_sends(b"last words", b"")
    assert console.to_client == b"last words"
    assert close_frames(console.client.written) == [(1000, "The VNC server ended the session")]


def test_a_vnc_server_that_breaks_with_bytes_held_for_it():
    console = Console(room=(None, 0))
    console.client_sends(masked(Opcode.BINARY, b"key"))
    assert console.held_bytes[1] == 3
    console.server.broken, console.server.room_bytes = BrokenPipeError(), None
    console.pump()
    assert console.held_bytes[1] == 0
    console.server_sends(b"")
    assert close_frames(console.client.written) == [(1000, "The VNC server ended the session")]


def test_a_client_that_closes_is_answered_and_both_sockets_are_closed():
    console = Console(server=[GREETING])
    console.client_sends(masked(Opcode.BINARY, b"bye") + masked_close(1000, b"done"))
    assert console.server.written == b"bye"
    assert close_frames(console.client.written) == [(1000, "")]
    console.assert_ended()


def test_a_close_without_a_code_is_answered_with_1000():
    console = Console(client=[masked_close()])
    assert close_frames(console.client.written) == [(1000, "")]
    console.assert_ended()


def test_after_its_close_a_client_is_not_heard():
    console = Console(client=[masked_close(1000) + masked(Opcode.BINARY, b"ghost") + masked(Opcode.PING, b"x")])
    assert console.server.written == b""
    assert from_proxy(console.client.written)[1] == [(Opcode.CLOSE, b"\x03\xe8")]
    console.assert_ended()


def test_a_client_that_closes_hears_the_answer_behind_what_is_held_for_it():
    console = Console(room=(0, None), server=[b"x" * 300])
    console.client_sends(masked_close(1000) + masked(Opcode.PING, b"ghost"))
    assert console.server.closed
    assert not console.ended
    console.client_sends(masked(Opcode.PING, b"ghost"))
    console.client.room_bytes = None
    console.pump()
    assert from_proxy(console.client.written) == (b"x" * 300, [(Opcode.CLOSE, b"\x03\xe8")])
    console.assert_ended()


def test_a_client_that_closes_and_takes_nothing_is_cut_at_the_deadline():
    console = Console(room=(0, None), server=[b"x" * 300])
    console.client_sends(masked_close(1000))
    console.loop.advance(CLOSE_TIMEOUT_S * 0.9)
    assert not console.ended
    console.loop.advance(CLOSE_TIMEOUT_S * 0.2)
    console.assert_ended()


def test_a_client_that_leaves_without_a_word_ends_the_session():
    for end in (b"", ConnectionResetError(), TimeoutError(), ssl.SSLError()):
        with naming(end):
            console = Console(server=[GREETING])
            console.client_sends(end)
            console.assert_ended()


def test_a_client_that_breaks_while_it_is_written_to_ends_the_session():
    console = Console()
    console.client.broken = BrokenPipeError()
    console.server_sends(GREETING)
    console.assert_ended()


def test_a_fault_of_the_proxy_ends_the_session_and_is_logged(caplog):
    """It would come again at once, and for ever, while the descriptor stays ready."""
    console = Console()
    console.client.broken = RuntimeError("a bug")
    console.server_sends(GREETING)
    console.assert_ended()
    assert "a bug" in caplog.text


def test_a_breach_of_the_protocol_is_told_and_then_nothing_is_heard():
    cases = [
        (b"\x82\x03abc" + b"\0" * 12, 1002),
        (b"\xff\xff" + b"\xff" * 12, 1002),
        (masked(0x3, b"x"), 1002),
        (b"\x82\xff" + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big") + MASK, 1009),
    ]
    for stream, code in cases:
        with naming(stream, code):
            console = Console(client=[masked(Opcode.BINARY, b"good"), stream])
            assert console.server.closed
            console.client_sends(masked(Opcode.BINARY, b"ghost"), masked(Opcode.PING, b"ghost"), masked_close(1000))
            assert console.server.written == b"good"
            assert [frame[0] for frame in close_frames(console.client.written)] == [code]
            assert not console.ended
            console.client_sends(b"")
            console.assert_ended()


class OnceBroken(WebSocketCodec):
    """A codec that must not be fed after a breach."""

    def feed(self, data):
        assert not self.is_broken
        try:
            yield from super().feed(data)
        except FrameInvalid:
            self.is_broken = True
            raise

    is_broken = False


def test_after_a_breach_of_the_protocol_nothing_is_decoded(caplog):
    for is_closing in (False, True):
        with naming(is_closing):
            console = Console(OnceBroken())
            if is_closing:
                console.session.close(CloseCode.REVOKED, "because")
            console.client_sends(masked(0x3, b"x"), masked_close(1000))
            assert console.session.state is State.REJECTING
            assert [code for code, _ in close_frames(console.client.written)] == [4401 if is_closing else 1002]
            console.loop.advance(CLOSE_TIMEOUT_S)
            console.assert_ended()
    assert "internal error" not in caplog.text


def test_a_client_that_breaks_the_protocol_for_ever_is_cut_at_the_deadline():
    console = Console(client=[b"\xff" * 100])
    for _ in range(50):
        console.client_sends(b"\xff" * 1000)
    console.loop.advance(CLOSE_TIMEOUT_S)
    console.assert_ended()


def test_a_close_of_ours_hangs_up_on_the_vnc_server_at_once_and_tells_the_client():
    for code in (CloseCode.REVOKED, CloseCode.GOING_AWAY):
        with naming(code):
            console = Console(server=[GREETING])
            console.session.close(code, "because")
            assert console.server.closed
            assert not console.client.closed
            assert close_frames(console.client.written) == [(code, "because")]
            console.client_sends(masked(Opcode.BINARY, b"late"), masked(Opcode.PING, b"late"), masked_close(code))
            assert close_frames(console.client.written) == [(code, "because")]
            console.assert_ended()


def test_a_close_of_ours_comes_behind_what_is_held_for_a_slow_client():
    console = Console(room=(0, None), server=[b"x" * 300])
    console.session.close(CloseCode.REVOKED, "because")
    assert not console.client.written
    console.client.room_bytes = None
    console.pump()
    assert console.to_client == b"x" * 300
    assert close_frames(console.client.written) == [(4401, "because")]


def test_a_client_that_never_answers_a_close_is_cut_at_the_deadline():
    console = Console()
    console.session.close(CloseCode.REVOKED, "because")
    console.loop.advance(CLOSE_TIMEOUT_S * 0.9)
    assert not console.ended
    console.loop.advance(CLOSE_TIMEOUT_S * 0.2)
    console.assert_ended()


def test_a_client_that_takes_nothing_is_cut_at_the_deadline():
    console = Console(room=(0, None), server=[b"x" * 300, b""])
    console.session.close(CloseCode.REVOKED, "because")
    console.loop.advance(CLOSE_TIMEOUT_S)
    console.assert_ended()


def test_the_second_close_says_nothing_more():
    console = Console()
    console.session.close(CloseCode.REVOKED, "because")
    console.session.close(CloseCode.GOING_AWAY, "too late")
    assert close_frames(console.client.written) == [(4401, "because")]


def test_a_client_that_leaves_instead_of_answering_leaves_no_timer():
    console = Console()
    console.session.close(CloseCode.REVOKED, "because")
    console.client_sends(b"")
    console.assert_ended()


def test_a_client_that_is_gone_when_it_is_closed():
    console = Console()
    console.client.broken = ConnectionResetError()
    console.session.close(CloseCode.REVOKED, "because")
    console.assert_ended()


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


def test_a_hang_up_of_the_client_is_noticed_while_it_is_not_read():
    console = Console(room=(None, 0), client=[masked(Opcode.BINARY, b"x" * 100)])
    assert not console.client.mask & select.EPOLLIN
    console.hang_up(console.client)
    console.assert_ended()


def test_a_browser_that_closes_while_its_vnc_server_takes_nothing_is_not_held():
    console = Console(room=(None, 0), client=[masked(Opcode.BINARY, b"x" * 100)])
    console.client_sends(masked(Opcode.BINARY, b"unread"))
    console.assert_open()
    console.client_sends(b"")
    console.assert_ended()


def test_a_native_viewer_that_ended_its_stream_is_held_until_its_vnc_server_has_it_all():
    console = Console(RawCodec(), room=(None, 0), client=[b"x" * 100, b"y" * 100, b""])
    console.assert_open()
    console.server.room_bytes = None
    console.pump()
    assert console.server.written == b"x" * 100 + b"y" * 100
    assert console.server.ended


def test_a_hang_up_of_the_vnc_server_is_no_busy_loop_while_it_is_not_read():
    console = Console(room=(0, None), server=[b"x" * 2000])
    assert console.server.mask == 0
    console.hang_up(console.server)
    assert 11 not in console.loop.callbacks
    console.server.incoming = type(console.server.incoming)([ConnectionResetError()])
    console.client.room_bytes = None
    console.pump()
    assert close_frames(console.client.written) == [(1011, "The connection to the VNC server was lost")]


def test_a_native_viewers_bytes_are_left_as_they_are():
    console = Console(RawCodec(), client=[GREETING], server=[b"\x88\x02\x03\xe8"])
    assert console.server.written == GREETING
    assert console.client.written == b"\x88\x02\x03\xe8"


def test_a_native_viewer_may_end_first_and_still_hear_the_rest():
    console = Console(RawCodec(), client=[b"last", b""])
    assert console.server.written == b"last"
    assert console.server.ended
    console.server_sends(b"answer")
    assert console.client.written == b"answer"
    console.assert_open()
    console.server_sends(b"")
    assert console.client.ended
    console.assert_ended()


def test_a_vnc_server_may_end_first_and_still_hear_the_rest():
    console = Console(RawCodec(), server=[b"last", b""])
    assert console.client.written == b"last"
    assert console.client.ended
    console.client_sends(b"answer")
    assert console.server.written == b"answer"
    console.assert_open()
    console.client_sends(b"")
    assert console.server.ended
    console.assert_ended()


def test_the_end_of_a_native_viewer_is_told_behind_all_it_said():
    console = Console(RawCodec(), room=(None, 10), client=[b"x" * 500, b""])
    assert not console.server.ended
    console.server.room_bytes = None
    console.pump()
    assert console.server.written == b"x" * 500
    assert console.server.ended


def test_the_end_of_a_vnc_server_is_told_to_a_native_viewer_behind_all_it_said():
    console = Console(RawCodec(), room=(10, None), server=[b"x" * 200, b""])
    assert not console.client.ended
    console.client.room_bytes = None
    console.pump()
    assert console.client.written == b"x" * 200
    assert console.client.ended
    console.assert_open()


def test_when_both_sides_have_ended_what_is_held_still_arrives():
    """Both ends are read while the viewer has not taken the last of the screen."""
    for first in ("client", "server"):
        with naming(first):
            console = Console(RawCodec(), room=(10, None))
            ends = [(console.client, [b""]), (console.server, [b"x" * 200, b""])]
            for stream, chunks in ends if first == "client" else reversed(ends):
                stream.incoming.extend(chunks)
                console.pump()
            console.client.room_bytes = None
            console.pump()
            assert console.client.written == b"x" * 200
            assert console.client.ended
            console.assert_ended()


def test_when_both_sides_have_ended_what_is_held_for_the_vnc_server_still_arrives():
    for first in ("client", "server"):
        with naming(first):
            console = Console(RawCodec(), room=(None, 10))
            ends = [(console.server, [b""]), (console.client, [b"x" * 200, b""])]
            for stream, chunks in ends if first == "server" else reversed(ends):
                stream.incoming.extend(chunks)
                console.pump()
            console.server.room_bytes = None
            console.pump()
            assert console.server.written == b"x" * 200
            console.assert_ended()


def test_when_both_sides_have_ended_and_the_vnc_server_takes_no_more():
    console = Console(RawCodec(), room=(None, 0), server=[b""])
    console.client_sends(b"x" * 100, b"")
    console.server.broken, console.server.room_bytes = BrokenPipeError(), None
    console.pump()
    console.assert_ended()


def test_over_tls_a_native_viewer_learns_of_the_end_too():
    """TLS has no half-close: the end of its session is how a viewer sees that the screen is gone."""
    for room in (None, 10):
        with naming(room):
            console = Console(RawCodec(), room=(room, None), start=False)
            console.client.tls = True
            console.session.start(b"", b"")
            console.server_sends(b"x" * 200, b"")
            console.client.room_bytes = None
            console.pump()
            assert console.client.written == b"x" * 200
            console.assert_ended()


def test_a_native_viewer_is_revoked_without_a_word():
    console = Console(RawCodec(), server=[GREETING])
    console.session.close(CloseCode.REVOKED, "because")
    assert console.client.written == GREETING
    assert console.server.closed
    assert console.client.ended
    console.client_sends(b"")
    console.assert_ended()


def test_a_native_viewer_whose_vnc_server_is_lost():
    console = Console(RawCodec(), server=[GREETING, ConnectionResetError()])
    assert console.client.ended
    console.loop.advance(CLOSE_TIMEOUT_S)
    console.assert_ended()


def test_the_session_limit_is_4408():
    """With a reason, and not as if the VNC server had ended (C20)."""
    console = Console(policy=LivenessPolicy(max_session_time_s=1.0), start=False)
    console.session.start(b"", b"")
    console.loop.advance(1.0)
    assert close_frames(console.client.written) == [(4408, "The time of this session is over")]
    console.client_sends(masked_close(4408))
    console.assert_ended()


def checked(**options):
    """A session whose checks are all due, just started."""
    console = Console(policy=ALWAYS_DUE, start=False, **options)
    console.session.start(b"", b"")
    console.pump()
    return console


def test_a_client_that_answers_no_ping_is_1011():
    console = checked()
    console.loop.advance(1)
    assert from_proxy(console.client.written)[1] == [(Opcode.PING, b"")]
    console.loop.advance(1)
    assert close_frames(console.client.written) == [(1011, "The client does not answer")]


def test_a_client_that_answers_its_pings_is_kept():
    console = checked()
    for _ in range(10):
        console.loop.advance(1)
        console.client_sends(masked(Opcode.PONG))
    assert from_proxy(console.client.written)[1] == [(Opcode.PING, b"")] * 10
    console.assert_open()


def test_a_slow_viewer_that_still_takes_its_bytes_is_kept():
    console = checked(room=(10, None), server=[b"x" * 300])
    for _ in range(20):
        console.loop.advance(1)
        console.client.room_bytes = 10
        console.pump()
    console.assert_open()
    console.loop.advance(1)
    console.loop.advance(1)
    assert console.session.state is State.CLOSING


def test_a_client_that_is_not_read_for_its_vnc_servers_sake_is_kept():
    console = checked(room=(None, 0), client=[masked(Opcode.BINARY, b"key")])
    for _ in range(10):
        console.loop.advance(1)
    console.assert_open()


def test_a_session_that_ends_early_leaves_no_timer():
    """Its session limit included (C20)."""
    policy = LivenessPolicy(ping_interval_s=1e9, idle_timeout_s=1e9, max_session_time_s=1e9)
    console = Console(policy=policy)
    assert console.loop.pending_timers == 1
    console.client_sends(b"")
    console.assert_ended()


def test_no_frame_length_lies_about_the_payload():
    for size in (1, 125, 126, 1024):
        console = Console(server=[b"x" * size])
        assert console.client.written == frames.build_header(size) + b"x" * size
