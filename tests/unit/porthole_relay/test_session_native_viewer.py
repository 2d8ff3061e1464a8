# SPDX-License-Identifier: Apache-2.0
"""A native viewer, whose bytes have no frames: each side may end first and still hear the other side."""

from porthole_relay.codec import RawCodec
from porthole_relay.frames import CloseCode
from porthole_relay.session import CLOSE_TIMEOUT_S
from support.cases import naming
from support.sessions import GREETING, Console


def test_a_native_viewer_that_ended_its_stream_is_held_until_its_vnc_server_has_it_all():
    console = Console(RawCodec(), room=(None, 0), client=[b"x" * 100, b"y" * 100, b""])
    console.assert_open()
    console.server.room_bytes = None
    console.pump()
    assert console.server.written == b"x" * 100 + b"y" * 100
    assert console.server.ended


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
