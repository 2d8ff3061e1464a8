# SPDX-License-Identifier: Apache-2.0
from porthole_common.rfb.messages import Version
from porthole_common.rfb.negotiation import Offer
from porthole_common.rfb.viewer_handshake import offer_security
from porthole_relay.codec import RawCodec, WebSocketCodec
from porthole_relay.pipe import Pipe
from porthole_relay.viewer_handshake import ViewerHandshake
from support.fake_loop import FakeStream
from support.rfb_talks import CHALLENGE, OK, RESPONSE

GREETING = b"RFB 003.008\n"


class Stage:
    """A handshake between two pipes on fake streams."""

    def __init__(self, challenge=None, room=None):
        self.client, self.server = FakeStream(10), FakeStream(11, room_bytes=room)
        self.over = []
        self.may_relay = True
        self.stage = ViewerHandshake(
            offer_security(Offer(Version.V3_8, challenge)),
            Pipe(self.client, WebSocketCodec(), 1024, 256),
            Pipe(self.server, RawCodec(), 1024, 0),
            lambda: self.may_relay,
            lambda *rest: self.over.append(rest),
        )
        self.stage.start()

    def client_says(self, *parts):
        self.stage.from_client.relay([memoryview(part) for part in parts])

    def server_says(self, *parts):
        self.stage.from_server.relay([memoryview(part) for part in parts])

    @property
    def reads(self):
        """Which sides may be read: (the VNC server, the client)."""
        return self.stage.from_server.may_read(), self.stage.from_client.may_read()


def test_each_message_is_a_frame_of_its_own():
    stage = Stage()
    stage.client_says(GREETING, b"\1")
    assert stage.client.written == b"\x82\x0c" + GREETING + b"\x82\x02\1\1" + b"\x82\x04" + OK


def test_the_bytes_behind_the_handshake_are_the_sessions():
    stage = Stage()
    stage.server_says(b"Server", b"Init")
    stage.client_says(GREETING)
    assert stage.over == []
    stage.client_says(b"\1\1", b"keys")
    assert stage.over == [(b"ServerInit", b"\1keys")]
    assert stage.server.written == b""


def test_the_vnc_server_is_read_only_when_it_must_answer_and_the_client_only_when_it_must_not():
    stage = Stage(CHALLENGE)
    assert stage.reads == (False, True)
    assert stage.stage.from_server.room_bytes(100) == 0
    stage.client_says(GREETING, b"\2", RESPONSE)
    assert stage.server.written == RESPONSE
    assert stage.reads == (True, False)
    assert stage.stage.from_server.room_bytes(100) == 4
    assert stage.stage.from_server.room_bytes(3) == 3
    stage.server_says(OK[:1])
    assert stage.stage.from_server.room_bytes(100) == 3
    stage.server_says(OK[1:])
    assert stage.over == [(b"", b"")]


def test_a_vnc_server_that_does_not_take_the_password_holds_the_client_up():
    stage = Stage(CHALLENGE, room=5)
    stage.client_says(GREETING, b"\2", RESPONSE)
    assert stage.server.written == RESPONSE[:5]
    assert stage.reads == (True, False)


def test_a_handshake_whose_session_must_end_says_and_passes_nothing_more():
    stage = Stage(CHALLENGE)
    stage.client_says(GREETING, b"\2")
    said = bytes(stage.client.written)
    stage.may_relay = False
    stage.client_says(RESPONSE)
    assert (stage.client.written, stage.server.written, stage.over) == (said, b"", [])
