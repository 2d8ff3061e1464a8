# SPDX-License-Identifier: Apache-2.0
"""A session that must end, in each of its states: no byte of the client goes on to the VNC server."""

import pytest

from porthole_relay.codec import RawCodec, WebSocketCodec
from porthole_relay.frames import CloseCode, Opcode
from porthole_relay.liveness import EndSession, LivenessPolicy
from support.cases import naming
from support.rfb_talks import OK, RESPONSE
from support.sessions import (
    GREETING,
    NONE,
    PASSWORD,
    Console,
    close_frames,
    masked,
    masked_close,
    opening,
)

REVOKED = EndSession(CloseCode.REVOKED, "The console was revoked")
# KeyEvent, RFC 6143 section 7.5.4.
KEY = b"\4\1\0\0\0\0\0\x61"
WORDS = [(4401, "The console was revoked")]


class Verdict:
    """What the owner says of the session: nothing, until a test revokes it."""

    def __init__(self):
        self.end = None

    def __call__(self, session):
        return self.end


@pytest.fixture
def verdict():
    return Verdict()


def test_a_session_that_must_end_before_it_begins_relays_nothing_of_either_side(verdict):
    verdict.end = REVOKED
    for codec, sent in ((WebSocketCodec, masked(Opcode.BINARY, KEY)), (RawCodec, KEY)):
        with naming(codec):
            console = Console(codec(), start=False, find_end=verdict)
            console.session.start(GREETING, sent)
            console.client_sends(sent)
            assert console.server.written == b""
            assert console.server.closed
            if codec is WebSocketCodec:
                assert console.to_client == b""
                assert close_frames(console.client.written) == WORDS
            console.loop.advance(10)
            console.assert_ended()


def test_a_close_frame_that_was_sent_ahead_is_the_answer_wherever_it_is_cut(verdict):
    verdict.end = REVOKED
    sent = masked(Opcode.BINARY, KEY) + masked_close(1000)
    for cut in range(len(sent)):
        with naming(cut):
            console = Console(start=False, find_end=verdict)
            console.session.start(GREETING, sent[:cut])
            console.client_sends(sent[cut:])
            assert console.server.written == b""
            assert close_frames(console.client.written) == WORDS
            console.assert_ended()


def test_an_open_session_relays_nothing_more(verdict):
    console = Console(find_end=verdict)
    console.client_sends(masked(Opcode.BINARY, KEY))
    verdict.end = REVOKED
    console.client_sends(masked(Opcode.BINARY, KEY) + masked(Opcode.BINARY, KEY))
    assert console.server.written == KEY
    assert close_frames(console.client.written) == WORDS


def test_a_ping_is_no_byte_for_the_guest(verdict):
    console = Console(find_end=verdict)
    verdict.end = REVOKED
    console.client_sends(masked(Opcode.PING, b"?"))
    console.assert_open()


def test_a_handshake_that_was_sent_ahead_is_not_begun(verdict):
    verdict.end = REVOKED
    ahead = masked(Opcode.BINARY, GREETING) + masked(Opcode.BINARY, b"\1") + masked(Opcode.BINARY, b"\1" + KEY)
    for offer in (NONE, PASSWORD):
        with naming(offer):
            console = opening(offer, from_server=b"ServerInit", from_client=ahead, find_end=verdict)
            assert console.server.written == b""
            assert console.to_client == b""
            assert close_frames(console.client.written) == WORDS
            console.loop.advance(10)
            console.assert_ended()


def test_a_handshake_goes_on_at_no_message(verdict):
    """And not with what was sent ahead of its turn."""
    talk = [GREETING, b"\1", b"\1" + KEY]
    for done in range(len(talk)):
        with naming(done):
            verdict.end = None
            console = opening(find_end=verdict)
            for message in talk[:done]:
                console.client_sends(masked(Opcode.BINARY, message))
            verdict.end = REVOKED
            console.client_sends(masked(Opcode.BINARY, b"".join(talk[done:])))
            assert console.server.written == b""
            assert close_frames(console.client.written) == WORDS


def test_neither_a_password_nor_the_keys_behind_it_pass_when_it_is_the_servers_turn(verdict):
    """The server's answer would send on what the client sent before the revocation."""
    console = opening(PASSWORD, find_end=verdict)
    console.client_sends(masked(Opcode.BINARY, GREETING + b"\2" + RESPONSE), masked(Opcode.BINARY, b"\1" + KEY))
    assert console.server.written == RESPONSE
    verdict.end = REVOKED
    console.server_sends(OK)
    assert console.server.written == RESPONSE
    assert close_frames(console.client.written) == WORDS


def test_a_key_in_the_grace_of_a_session_tells_why_it_ends(verdict):
    console = Console(find_end=verdict, close_grace_s=5.0)
    console.server_sends(b"")
    verdict.end = REVOKED
    console.client_sends(masked(Opcode.BINARY, KEY))
    assert console.server.written == b""
    assert close_frames(console.client.written) == WORDS


def test_the_time_of_a_session_counts_for_what_was_sent_ahead():
    console = Console(start=False, policy=LivenessPolicy(max_session_time_s=1e-9))
    console.session.start(GREETING, masked(Opcode.BINARY, KEY))
    assert console.server.written == b""
    assert close_frames(console.client.written) == [(4408, "The time of this session is over")]
