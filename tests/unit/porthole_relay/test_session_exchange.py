# SPDX-License-Identifier: Apache-2.0
"""Another VNC server in the place of the first, and interceptors."""

from porthole_common.errors import RfbInvalid
from porthole_relay.codec import RawCodec
from porthole_relay.frames import CloseCode, Opcode
from porthole_relay.states import State
from support.cases import naming
from support.fake_loop import FakeStream
from support.rfb_talks import CHALLENGE, OK, RESPONSE
from support.sessions import GREETING, PASSWORD, Console, binary_frames, close_frames, masked, masked_close, opening


def exchange(console, *incoming, from_server=b"", room=None):
    """Give the console another VNC server; return whether it took it. The old one stays at ``old_server``."""
    console.old_server, console.server = console.server, FakeStream(12, *incoming, room_bytes=room)
    taken = console.session.exchange_server(console.server, from_server)
    console.pump()
    return taken


def test_a_client_goes_on_with_another_vnc_server():
    console = Console(server=[GREETING])
    assert exchange(console, b"screen", from_server=b"first ")
    assert console.old_server.closed
    assert set(console.loop.callbacks) == {10, 12}
    console.client_sends(masked(Opcode.BINARY, b"key"))
    assert console.to_client == GREETING + b"first screen"
    assert (console.old_server.written, console.server.written) == (b"", b"key")
    console.server_sends(b"")
    assert close_frames(console.client.written) == [(1000, "The VNC server ended the session")]
    console.client_sends(masked_close(1000))
    console.assert_ended()


def test_an_exchange_keeps_what_is_held_for_the_client_and_drops_what_is_held_for_the_old_server():
    console = Console(room=(5, 2), server=[b"x" * 600])
    console.client_sends(masked(Opcode.BINARY, b"old input"))
    assert console.held_bytes == (599, 7)
    assert exchange(console, b"new screen")
    # The client is too slow for the new server as well.
    assert console.server.taken_bytes == 0
    assert console.held_bytes == (599, 0)
    console.client.room_bytes = None
    console.pump()
    assert console.to_client == b"x" * 600 + b"new screen"
    console.client_sends(masked(Opcode.BINARY, b"new input"))
    assert (console.old_server.written, console.server.written) == (b"ol", b"new input")


def test_a_frame_that_is_cut_by_an_exchange_is_decoded_to_its_end():
    frame = masked(Opcode.BINARY, b"0123456789")
    for cut in range(len(frame) + 1):
        with naming(cut):
            console = Console(client=[frame[:cut]] if cut else [])
            assert exchange(console)
            console.client_sends(*([frame[cut:]] if frame[cut:] else []))
            assert console.old_server.written + console.server.written == b"0123456789"
            console.assert_open_with(12)


def test_a_frame_that_is_half_taken_at_an_exchange_is_not_cut():
    for taken in range(14):
        with naming(taken):
            console = Console(room=(taken, None), server=[b"0123456789"])
            assert exchange(console, from_server=b"abc")
            console.client.room_bytes = None
            console.pump()
            assert console.to_client == b"0123456789abc"


def test_an_exchange_ends_the_grace():
    console = Console(close_grace_s=5.0, server=[b"old", b""])
    assert console.session.state is State.GRACE
    assert console.session.server_has_ended
    assert exchange(console, b"new")
    assert console.session.state is State.OPEN
    assert not console.session.server_has_ended
    console.loop.advance(100)
    assert console.to_client == b"oldnew"
    console.assert_open_with(12)


def test_an_exchange_brings_a_vnc_server_that_took_no_more_back():
    console = Console()
    console.server.broken = BrokenPipeError()
    console.client_sends(masked(Opcode.BINARY, b"lost"))
    assert exchange(console)
    console.client_sends(masked(Opcode.BINARY, b"heard"))
    assert console.server.written == b"heard"


def test_what_tls_holds_of_another_vnc_server_is_read_without_a_word_of_epoll():
    console = Console()
    console.old_server, console.server = console.server, FakeStream(12)
    console.server.tls, console.server.hidden = True, b"behind the handshake"
    assert console.session.exchange_server(console.server)
    console.pump()
    assert console.to_client == b"behind the handshake"


def test_another_vnc_server_is_told_that_a_native_viewer_has_ended():
    console = Console(RawCodec(), client=[b"last", b""])
    assert console.server.ended
    assert exchange(console, b"screen")
    assert console.server.ended
    assert console.client.written == b"screen"
    console.server_sends(b"")
    console.assert_ended()


def test_a_session_that_cannot_go_on_closes_another_vnc_server():
    closing = Console()
    closing.session.close(CloseCode.REVOKED, "because")
    ended = Console()
    ended.session.end()
    told = Console(RawCodec(), server=[b""])
    handshake = opening()
    for console in (closing, ended, told, handshake):
        with naming(console.session.state):
            before = console.session.state
            assert not exchange(console)
            assert console.server.closed
            assert 12 not in console.loop.callbacks
            assert console.session.state is before


class Filter:
    """Drops a letter, and ends the session at another."""

    is_done = False

    def __init__(self, peer, dropped, fatal):
        self.peer, self.dropped, self.fatal = peer, dropped, fatal

    def feed(self, data):
        if self.fatal in bytes(data):
            raise RfbInvalid(self.peer, "it says what it must not")
        return bytes(data).replace(self.dropped, b"")


def intercepted(**options):
    return Console(
        to_client_interceptor=Filter("The VNC server", b"s", b"S"),
        to_server_interceptor=Filter("The viewer", b"c", b"C"),
        **options,
    )


def test_an_interceptor_stands_in_each_direction():
    console = intercepted(server=[b"screens"], client=[masked(Opcode.BINARY, b"clicks")])
    console.server_sends(b"sss")
    assert binary_frames(console.client.written) == [b"creen"]
    assert console.server.written == b"liks"
    console.assert_open()


def test_bytes_that_were_read_before_the_session_pass_the_interceptors():
    console = intercepted(start=False)
    console.session.start(b"screens", masked(Opcode.BINARY, b"clicks"))
    assert (console.to_client, console.server.written) == (b"creen", b"liks")


def test_bytes_behind_the_security_handshake_pass_the_interceptors_and_its_own_do_not():
    console = opening(
        PASSWORD,
        to_client_interceptor=Filter("The VNC server", b"s", GREETING),
        to_server_interceptor=Filter("The viewer", b"c", RESPONSE),
    )
    console.client_sends(masked(Opcode.BINARY, GREETING + b"\2" + RESPONSE + b"clicks"))
    console.server_sends(OK + b"screens")
    assert console.server.written == RESPONSE + b"liks"
    assert console.to_client == GREETING + b"\1\2" + CHALLENGE + OK + b"creen"


def test_an_interceptor_ends_the_session_of_a_client_with_1002_and_of_a_vnc_server_with_1011():
    console = intercepted(client=[masked(Opcode.BINARY, b"Click")])
    reason = "broke the RFB protocol: it says what it must not."
    assert close_frames(console.client.written) == [(1002, f"The viewer {reason}")]
    assert console.session.state is State.REJECTING
    assert console.server.written == b""
    console.client_sends(masked(Opcode.BINARY, b"more"), b"")
    console.assert_ended()
    console = intercepted(server=[b"Screen"])
    assert close_frames(console.client.written) == [(1011, f"The VNC server {reason}")]
    assert console.server.closed
    console.client_sends(masked_close(1011))
    console.assert_ended()
