# SPDX-License-Identifier: Apache-2.0
"""The end of a browser's session: what causes it, the close frame, and the deadline for the answer of the client."""

import select
import ssl

from porthole_common.errors import FrameInvalid
from porthole_relay.codec import MAX_MESSAGE_BYTES, WebSocketCodec
from porthole_relay.frames import CloseCode, Opcode
from porthole_relay.liveness import LivenessPolicy
from porthole_relay.session import CLOSE_TIMEOUT_S
from porthole_relay.states import State
from support.cases import naming
from support.sessions import ALWAYS_DUE, GREETING, MASK, Console, close_frames, from_proxy, masked, masked_close


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


def test_a_hang_up_of_the_vnc_server_is_no_busy_loop_while_it_is_not_read():
    console = Console(room=(0, None), server=[b"x" * 2000])
    assert console.server.mask == 0
    console.hang_up(console.server)
    assert 11 not in console.loop.callbacks
    console.server.incoming = type(console.server.incoming)([ConnectionResetError()])
    console.client.room_bytes = None
    console.pump()
    assert close_frames(console.client.written) == [(1011, "The connection to the VNC server was lost")]


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
