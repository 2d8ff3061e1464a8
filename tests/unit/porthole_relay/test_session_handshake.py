# SPDX-License-Identifier: Apache-2.0
"""The security handshake with the client, where the connection to the VNC server is secured."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from porthole_relay.codec import RawCodec, WebSocketCodec
from porthole_relay.frames import CloseCode, Opcode
from porthole_relay.session import CLOSE_TIMEOUT_S
from support.cases import naming
from support.rfb_talks import CHALLENGE, OK, RESPONSE, failed
from support.sessions import (
    ALWAYS_DUE,
    GREETING,
    MARKS,
    NONE,
    PASSWORD,
    SECURITY_TIMEOUT_S,
    binary_frames,
    close_frames,
    from_proxy,
    masked,
    masked_close,
    opening,
)


def test_a_browser_is_offered_none_each_message_in_a_frame_of_its_own():
    console = opening(server=[b"ServerInit"])
    console.client_sends(masked(Opcode.BINARY, GREETING))
    console.client_sends(masked(Opcode.BINARY, b"\1"))
    assert binary_frames(console.client.written) == [GREETING, b"\1\1", OK, b"ServerInit"]
    console.client_sends(masked(Opcode.BINARY, b"\1"))
    assert console.server.written == b"\1"
    console.assert_open()
    assert not console.loop.pending_timers


def test_a_browser_that_sends_its_handshake_byte_by_byte():
    console = opening()
    for byte in GREETING + b"\1" + b"\1keys":
        console.client_sends(*(bytes([part]) for part in masked(Opcode.BINARY, bytes([byte]))))
    assert binary_frames(console.client.written) == [GREETING, b"\1\1", OK]
    assert console.server.written == b"\1keys"


def test_a_browser_that_sends_all_of_it_ahead():
    for cut in range(0, 42, 3):
        with naming(cut):
            ahead = masked(Opcode.BINARY, GREETING + b"\1") + masked(Opcode.BINARY, b"\1keys")
            console = opening(from_client=ahead[:cut])
            console.client_sends(*([ahead[cut:]] if ahead[cut:] else []))
            assert binary_frames(console.client.written) == [GREETING, b"\1\1", OK]
            assert console.server.written == b"\1keys"


def test_what_the_vnc_server_says_meanwhile_waits_and_is_not_read():
    console = opening(from_server=b"Server", server=[b"Init"])
    assert console.server.taken_bytes == 0
    assert binary_frames(console.client.written) == [GREETING]
    console.client_sends(masked(Opcode.BINARY, GREETING + b"\1"))
    assert binary_frames(console.client.written) == [GREETING, b"\1\1", OK, b"Server", b"Init"]


def test_a_password_goes_through_and_the_client_waits_for_the_verdict():
    for tls, verdict in itertools.product([False, True], [OK, failed(b"no")]):
        with naming(tls, verdict):
            console = opening(PASSWORD, tls=tls)
            console.client_sends(masked(Opcode.BINARY, GREETING), masked(Opcode.BINARY, b"\2"))
            assert console.server.written == b""
            console.client_sends(masked(Opcode.BINARY, RESPONSE), masked(Opcode.BINARY, b"\1" * 500))
            assert console.server.written == RESPONSE
            # Neither what it sent ahead nor more of it passes before its password has.
            console.client_sends(masked(Opcode.BINARY, b"\1" * 50_000))
            assert console.client.taken_bytes < 2 * MARKS.high_bytes
            console.server_sends(verdict + b"ServerInit")
            assert binary_frames(console.client.written)[:4] == [GREETING, b"\1\2", CHALLENGE, verdict]
            assert console.to_client == GREETING + b"\1\2" + CHALLENGE + verdict + b"ServerInit"
            assert console.server.written == RESPONSE + b"\1" * 50_500
            console.assert_open()


def test_a_verdict_may_come_in_pieces():
    console = opening(PASSWORD, codec=RawCodec())
    console.client_sends(GREETING + b"\2" + RESPONSE)
    console.server_sends(b"\0", b"\0\0", b"\0", b"Init")
    assert console.client.written == GREETING + b"\1\2" + CHALLENGE + OK + b"Init"


def test_a_vnc_server_that_takes_nothing_gets_it_all_in_order_later():
    console = opening(PASSWORD, room=(None, 5))
    console.client_sends(masked(Opcode.BINARY, GREETING + b"\2" + RESPONSE + b"\1keys"))
    console.server_sends(OK)
    console.server.room_bytes = None
    console.pump()
    assert console.server.written == RESPONSE + b"\1keys"


def test_a_browser_that_takes_nothing_gets_it_all_in_order_later():
    console = opening(room=(0, None), server=[b"Init"])
    console.client_sends(masked(Opcode.BINARY, GREETING + b"\1"))
    for _ in range(100):
        console.client.room_bytes += 1
        console.pump()
    assert binary_frames(console.client.written) == [GREETING, b"\1\1", OK, b"Init"]


def test_a_native_viewer_gets_the_same_without_frames():
    console = opening(codec=RawCodec(), server=[b"Init"])
    console.client_sends(GREETING, b"\1", b"\1")
    assert console.client.written == GREETING + b"\1\1" + OK + b"Init"
    assert console.server.written == b"\1"
    console.client_sends(b"")
    assert console.server.ended
    console.assert_open()


def test_a_native_viewer_that_says_all_at_once_and_ends_is_still_answered():
    console = opening(codec=RawCodec())
    console.client_sends(GREETING + b"\1\1", b"")
    console.server_sends(b"Init", b"")
    assert console.client.written == GREETING + b"\1\1" + OK + b"Init"
    assert console.server.written == b"\1"
    console.assert_ended()


def test_a_client_that_leaves_during_the_handshake_ends_it():
    for codec in (WebSocketCodec, RawCodec):
        with naming(codec):
            console = opening(codec=codec())
            console.client_sends(b"")
            console.assert_ended()


def test_a_client_that_does_not_finish_its_handshake_in_time_is_4409():
    console = opening()
    console.client_sends(masked(Opcode.BINARY, GREETING))
    console.loop.advance(SECURITY_TIMEOUT_S - 1)
    console.assert_open()
    console.loop.advance(1)
    assert close_frames(bytes(console.client.written)) == [(4409, "The security handshake was not finished in time")]
    assert console.server.closed
    console.client_sends(masked_close(4409))
    console.assert_ended()


def test_a_client_that_finished_its_handshake_has_no_deadline():
    console = opening()
    console.client_sends(masked(Opcode.BINARY, GREETING + b"\1"))
    console.loop.advance(10 * SECURITY_TIMEOUT_S)
    console.assert_open()


def test_a_client_that_breaks_the_protocol_is_1002():
    console = opening()
    console.client_sends(masked(Opcode.BINARY, GREETING + b"\2"))
    reason = "The viewer broke the RFB protocol: it chooses a security type that it was not offered."
    assert close_frames(console.client.written) == [(1002, reason)]
    assert console.server.closed
    assert console.server.written == b""


def test_a_vnc_server_that_breaks_the_protocol_is_1011():
    for verdict in (b"\xff\xff\xff\xff", b"\0\0\0\1\xff\xff\xff\xff"):
        with naming(verdict):
            console = opening(PASSWORD)
            console.client_sends(masked(Opcode.BINARY, GREETING + b"\2" + RESPONSE))
            console.server_sends(verdict + b"x" * 100_000)
            ((code, reason),) = close_frames(console.client.written)
            assert (code, reason.split(":")[0]) == (1011, "The VNC server broke the RFB protocol")
            # Not a byte of what it announces is read.
            assert console.server.taken_bytes == len(verdict)
            console.client_sends(masked_close(1011))
            console.assert_ended()


def test_a_vnc_server_that_ends_instead_of_judging():
    for codec in (WebSocketCodec, RawCodec):
        with naming(codec):
            console = opening(PASSWORD, codec=codec())
            wrap = (lambda data: masked(Opcode.BINARY, data)) if codec is WebSocketCodec else bytes
            console.client_sends(wrap(GREETING + b"\2" + RESPONSE))
            console.server_sends(b"\0", b"")
            if codec is WebSocketCodec:
                assert close_frames(console.client.written) == [(1011, "The VNC server ended the security handshake")]
            console.loop.advance(CLOSE_TIMEOUT_S)
            console.assert_ended()


def test_a_revocation_reaches_a_handshake_too():
    console = opening(PASSWORD)
    console.client_sends(masked(Opcode.BINARY, GREETING + b"\2"))
    console.session.close(CloseCode.REVOKED, "because")
    assert console.server.closed
    # Whatever it still says is nothing.
    console.client_sends(masked(Opcode.BINARY, RESPONSE), masked_close(4401))
    assert close_frames(console.client.written) == [(4401, "because")]
    assert console.server.written == b""
    console.assert_ended()


def test_a_client_that_waits_for_the_verdict_is_not_taken_for_gone():
    console = opening(PASSWORD, policy=ALWAYS_DUE)
    console.client_sends(masked(Opcode.BINARY, GREETING + b"\2" + RESPONSE))
    for _ in range(10):
        console.loop.advance(1)
    console.assert_open()


def test_a_ping_is_answered_during_the_handshake():
    console = opening()
    console.client_sends(masked(Opcode.BINARY, GREETING) + masked(Opcode.PING, b"there?"))
    assert from_proxy(console.client.written) == (GREETING + b"\1\1", [(Opcode.PONG, b"there?")])


@given(st.binary(max_size=60), st.binary(max_size=60), st.sampled_from([NONE, PASSWORD]), st.booleans())
def test_any_client_and_any_vnc_server_leave_a_session_that_is_open_or_ends(says, answers, offer, is_good):
    console = opening(offer, codec=RawCodec())
    console.client_sends(*([GREETING] if is_good else []), *([says] if says else []))
    console.server_sends(*([answers] if answers else []))
    console.client_sends(b"")
    console.server_sends(b"")
    console.loop.advance(SECURITY_TIMEOUT_S)
    console.loop.advance(CLOSE_TIMEOUT_S)
    console.assert_ended()
