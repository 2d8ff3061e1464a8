# SPDX-License-Identifier: Apache-2.0
"""Open consoles: bytes both ways, slow and vanishing peers, revocation, many clients.

Over TLS: test_proxy_relay_tls.py.
"""

import os
import socket
import threading

import pytest
import websockets.sync.client
from websockets.exceptions import InvalidStatus

from porthole_common.model import ConsoleType
from porthole_relay.liveness import LivenessPolicy
from support.deadlines import join_within, kept_within
from support.processes import wait_until
from support.proxy import (
    InProcessProxy,
    assert_echoes,
    count_children,
    count_descriptors,
    open_console,
    own_socket,
    resident_bytes,
)
from support.vnc_servers import (
    GREETING,
    ClosingServer,
    DribblingServer,
    EchoVnc,
    FloodingServer,
    ResettingServer,
    SilentServer,
    SpeakingServer,
    reset,
)
from support.websocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    RawWebSocket,
    build_frame,
    build_upgrade,
    connect,
    read_reply,
    read_to_end,
)
from support.xvnc import Xvnc


@pytest.fixture
def make(web_root, stack):
    return lambda **options: stack.enter_context(InProcessProxy(web_root, **options))


# Bytes


@pytest.mark.parametrize("size", [1, 125, 126, 65535, 65536, 3_000_000])
def test_what_the_vnc_server_is_sent_comes_back_whole(make, echo, size):
    payload = os.urandom(size)
    with open_console(make(), echo) as client:
        sender = threading.Thread(target=client.send, args=(payload,))
        sender.start()
        assert client.read_data(size) == payload
        join_within(30, sender)


def test_a_real_websocket_peer(make, echo):
    proxy = make()
    payload = os.urandom(2_000_000)
    url = f"ws://127.0.0.1:{proxy.novnc_port}/websockify?token={proxy.issue(echo)}"
    with websockets.sync.client.connect(
        url, subprotocols=["binary"], origin="http://127.0.0.1", max_size=None, compression=None
    ) as client:
        assert client.subprotocol == "binary"
        assert client.recv(timeout=30) == GREETING
        sender = threading.Thread(
            target=client.send, args=([payload[at : at + 50_000] for at in range(0, 2_000_000, 50_000)],)
        )
        sender.start()
        received = b""
        while len(received) < len(payload):
            received += client.recv(timeout=30)
        join_within(30, sender)
        assert received == payload
        assert client.ping().wait(5)
        client.close(1000, "done")
        assert client.close_code == 1000


def test_a_real_websocket_peer_is_told_the_status_of_a_refusal(make, echo):
    with pytest.raises(InvalidStatus) as caught:
        websockets.sync.client.connect(f"ws://127.0.0.1:{make().novnc_port}/?token=x", proxy=None)
    assert caught.value.response.status_code == 401


def test_a_dribbling_vnc_server(make, stack):
    """A byte at a time, those above 127 too (C21)."""
    server = stack.enter_context(DribblingServer())
    proxy = make()
    with RawWebSocket(proxy.novnc_port, f"/?token={proxy.issue(server)}") as client:
        assert client.read_data(len(GREETING)) == GREETING
        assert_echoes(client, bytes(range(256)))


@pytest.mark.parametrize("frame_bytes", [1, 3, 1000])
def test_frames_that_come_right_behind_the_upgrade_reach_the_vnc_server(make, echo, frame_bytes):
    """A client that does not wait for 101 (C21)."""
    payload = bytes(range(256)) * 8
    behind = b"".join(build_frame(BINARY, payload[at : at + frame_bytes]) for at in range(0, len(payload), frame_bytes))
    proxy = make()
    with RawWebSocket(proxy.novnc_port, f"/?token={proxy.issue(echo)}", behind=behind) as client:
        assert client.read_data(len(GREETING) + len(payload)) == GREETING + payload


def test_upgrade_and_frames_byte_by_byte(make, echo):
    """Bytes above 127 in it (C21)."""
    proxy = make()
    frame = build_frame(BINARY, b"\xff\x80key")
    with RawWebSocket(proxy.novnc_port, f"/?token={proxy.issue(echo)}", behind=frame, byte_by_byte=True) as client:
        assert client.read_data(len(GREETING) + 5) == GREETING + b"\xff\x80key"


def test_the_first_frame_holds_exactly_the_first_rfb_message(make, stack):
    """Clients that count on it: each message of the handshake alone in a frame, unmasked and short."""
    server = stack.enter_context(EchoVnc())
    proxy = make()
    with RawWebSocket(proxy.novnc_port, f"/?token={proxy.issue(server)}") as client:
        assert client.read_frame() == (BINARY, GREETING)
        client.send(b"\x01\x01")
        assert client.read_frame() == (BINARY, b"\x01\x01")


@pytest.mark.parametrize("door", ["novnc", "xvpvnc"])
def test_neither_leg_delays_small_writes_and_both_notice_a_peer_that_vanished(make, echo, door):
    """TCP_NODELAY (O9) and keepalive (O8)."""
    proxy = make()
    if door == "novnc":
        client = open_console(proxy, echo).sock
    else:
        client = connect(proxy.xvp_port)
        client.sendall(f"CONNECT /console?token={proxy.issue(echo, ConsoleType.XVPVNC)} HTTP/1.0\r\n\r\n".encode())
        read_reply(client)
    with client:
        wait_until(lambda: proxy.counter.total == 1, 30, "the console is open")
        for leg in ({"peer": client.getsockname()}, {"peer": (echo.host, echo.port)}):
            with own_socket(**leg) as sock:
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60


def test_a_ping_is_answered(make, echo):
    with open_console(make(), echo) as client:
        client.send(b"are you there", PING)
        assert client.read_frame() == (PONG, b"are you there")
        assert_echoes(client)


# Ends


def test_the_end_of_the_vnc_server_is_1000_with_a_reason_behind_all_it_said(make, stack):
    server = stack.enter_context(SpeakingServer(b"x" * 1_000_000))
    with open_console(make(), server) as client:
        assert client.read_data(1_000_000) == b"x" * 1_000_000
        assert client.read_close() == (1000, "The VNC server ended the session")
        client.send((1000).to_bytes(2, "big"), CLOSE)
        assert read_to_end(client.sock) == b""


def test_a_vnc_server_that_resets_is_1011(make, stack):
    server = stack.enter_context(TakenAback())
    with open_console(make(), server) as client:
        client.send(b"boo")
        assert client.read_close() == (1011, "The connection to the VNC server was lost")


class TakenAback(SilentServer):
    """Greets, and breaks off at the first word."""

    def serve(self, sock):
        sock.sendall(GREETING)
        sock.recv(100)
        reset(sock)


def test_the_clients_close_is_answered_and_ends_both(make, echo):
    proxy = make()
    with open_console(proxy, echo) as client:
        client.send((1000).to_bytes(2, "big") + b"done", CLOSE)
        assert client.read_close() == (1000, "")
        assert read_to_end(client.sock) == b""
    wait_until(lambda: proxy.counter.total == 0 and not echo.open_connections, 30, "both sides end")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x82\x05hello" + b"\0" * 9, 1002),
        (build_frame(0x3, b"x"), 1002),
        (build_frame(BINARY, b"x", first=0xC0), 1002),
        (b"\x82\xff\x00\x00\x00\x10\x00\x00\x00\x00abcd", 1009),
        (build_frame(PING, b"x" * 126), 1002),
    ],
    # The masks are random, and a test's name must not be.
    ids=["unmasked", "opcode", "reserved bit", "length", "ping"],
)
def test_a_breach_of_the_protocol_has_its_code_and_ends_the_vnc_leg(make, echo, sent, code):
    proxy = make()
    with open_console(proxy, echo) as client:
        client.sock.sendall(sent)
        assert client.read_close()[0] == code
        wait_until(lambda: not echo.open_connections, 30, "the VNC server is hung up on")
    wait_until(lambda: proxy.counter.total == 0, 30, "the session ends")


def test_a_revocation_ends_the_consoles_of_its_instance_and_no_others(make, echo):
    proxy = make()
    token = proxy.issue(echo)
    with (
        RawWebSocket(proxy.novnc_port, f"/?token={token}") as first,
        RawWebSocket(proxy.novnc_port, f"/?token={token}") as second,
        open_console(proxy, echo) as other,
    ):
        wait_until(lambda: proxy.counter.total == 3, 30, "three consoles are open")
        proxy.sessions.close_instance(proxy.instance_of(token))
        assert first.read_close() == (4401, "The console was revoked")
        assert second.read_close() == (4401, "The console was revoked")
        assert_echoes(other)
        wait_until(lambda: echo.open_connections == 1, 30, "the VNC server of the revoked is hung up on")


def test_a_revocation_ends_a_console_that_is_being_opened(make, echo):
    proxy = make()
    token = proxy.issue(echo)
    proxy.compute.may_answer.clear()
    with connect(proxy.novnc_port) as sock:
        sock.sendall(build_upgrade(f"/?token={token}"))
        wait_until(lambda: proxy.compute.asked, 30, "compute is asked")
        proxy.sessions.close_instance(proxy.instance_of(token))
        proxy.compute.may_answer.set()
        reply = read_reply(sock)
        assert reply.status == 101
        assert b"\x11\x31The console was revoked" in reply.rest + read_to_end(sock)
    with RawWebSocket(proxy.novnc_port, f"/?token={token}") as later:
        assert later.read_data(len(GREETING)) == GREETING


def test_a_proxy_that_stops_tells_its_clients(web_root, echo):
    proxy = InProcessProxy(web_root)
    with open_console(proxy, echo) as client:
        stopper = threading.Thread(target=proxy.stop)
        stopper.start()
        assert client.read_close() == (1001, "The console proxy is stopping")
        client.send((1001).to_bytes(2, "big"), CLOSE)
        join_within(30, stopper)
    wait_until(lambda: not echo.open_connections, 30, "the VNC server is hung up on")


def test_a_client_that_does_not_answer_a_ping_is_given_up(make, echo):
    """After one more interval (O8)."""
    proxy = make(liveness=LivenessPolicy(ping_interval_s=1.0))
    with open_console(proxy, echo) as client:
        assert client.read_frame() == (PING, b"")
        client.send(b"", PONG)
        assert client.read_frame() == (PING, b"")
        # Not a third ping, however long one reads.
        opcode, payload = client.read_frame()
        assert (opcode, payload[:2]) == (CLOSE, (1011).to_bytes(2, "big"))
        assert payload[2:] == b"The client does not answer"


def test_the_session_limit_and_the_idle_limit_have_their_codes(make, echo):
    """4408 and 4409 (C20)."""
    with open_console(make(liveness=LivenessPolicy(max_session_time_s=0.3)), echo) as client:
        assert client.read_close()[0] == 4408
    with open_console(make(liveness=LivenessPolicy(idle_timeout_s=0.3)), echo) as client:
        assert client.read_close()[0] == 4409


# Slow, many, gone


def test_a_viewer_that_does_not_read_stops_its_own_vnc_server_alone(make, stack, echo):
    """Memory is bounded, and others are unharmed (O6)."""
    flood = stack.enter_context(FloodingServer())
    proxy = make()
    slow = stack.enter_context(open_console(proxy, flood, receive_buffer_bytes=4096))
    other = stack.enter_context(open_console(proxy, echo))
    before = resident_bytes()
    wait_until(stands_still(lambda: flood.sent_bytes), 20, "the VNC server stands still")
    # What the kernel holds for four sockets, and the proxy's own mark; without a bound it is gigabytes by now.
    assert flood.sent_bytes < 40_000_000
    assert resident_bytes() - before < 20_000_000
    for _ in range(100):
        assert_echoes(other, os.urandom(1000))
    stopped_at = flood.sent_bytes
    read = 0
    while read < 2 * stopped_at:
        data = slow.sock.recv(1 << 20)
        assert data
        read += len(data)
    assert flood.sent_bytes > stopped_at


def stands_still(read, rounds=15):
    """A predicate that holds once ``read()`` has given the same, other than 0, that many times in turn."""
    seen = []

    def ask():
        seen.append(read())
        return len(seen) > rounds and seen[-1] and len(set(seen[-rounds:])) == 1

    return ask


def test_a_vnc_server_that_does_not_read_stops_its_client_and_no_other(make, stack, echo):
    deaf = stack.enter_context(ClosingDeaf())
    proxy = make()
    client = stack.enter_context(open_console(proxy, deaf))
    other = stack.enter_context(open_console(proxy, echo))
    client.sock.setblocking(False)
    frame = build_frame(BINARY, b"x" * 60_000)
    sent = [0]

    def push():
        try:
            while True:
                # From where the last one left off, or the proxy would meet half a frame.
                sent[0] += client.sock.send(frame[sent[0] % len(frame) :])
        except BlockingIOError:
            return sent[0]

    wait_until(stands_still(push), 20, "the client stands still")
    assert sent[0] < 40_000_000
    assert_echoes(other)
    reset(client.sock)
    wait_until(lambda: proxy.counter.total == 1, 30, "the console of the client that is gone ends")


class ClosingDeaf(SilentServer):
    """Greets and never reads."""

    def serve(self, sock):
        sock.sendall(GREETING)
        self.stopping.wait(60)


def test_500_clients_that_say_half_a_word_do_not_keep_a_good_one_out(make, stack, echo):
    """They hold no thread (O7)."""
    proxy = make(request_timeout_s=60, handshake_threads=4)
    for number in range(500):
        sock = stack.enter_context(connect(proxy.novnc_port if number % 2 else proxy.xvp_port))
        sock.sendall([b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\n", b"CONNECT /console", b"\x16\x03\x01"][number % 5])
    # A client that waited for one of them would be held up until the deadline of requests.
    with kept_within(0, "a console beside the crowd"), open_console(proxy, echo) as client:
        assert_echoes(client)


def ways_to_end():
    """(name, how the client or the VNC server goes) for the cycles below."""

    def client_closes(client, server):
        client.send((1000).to_bytes(2, "big"), CLOSE)
        client.read_close()
        client.close()

    def client_leaves(client, server):
        client.close()

    def client_resets(client, server):
        reset(client.sock)

    return {"client closes": client_closes, "client leaves": client_leaves, "client resets": client_resets}


@pytest.mark.parametrize("way", [*ways_to_end(), "server ends", "server resets"])
def test_200_consoles_one_after_the_other_leave_nothing(make, stack, way):
    """Each side first, clean and by reset: no descriptor, thread or child stays (O1)."""
    proxy = make(handshake_threads=1)
    server = stack.enter_context(
        {"server ends": ClosingServer, "server resets": ResettingServer}.get(way, EchoVnc)(GREETING)
    )
    token = proxy.issue(server)

    def cycle():
        client = RawWebSocket(proxy.novnc_port, f"/?token={token}")
        if way in ways_to_end():
            ways_to_end()[way](client, server)
            return
        # A reset may be there before the greeting is.
        assert client.reply.status == 502 or client.read_close()[0] in (1000, 1011)
        client.close()

    def is_quiet():
        return proxy.counter.total == 0 and not server.open_connections

    for _ in range(5):
        cycle()
    wait_until(is_quiet, 30, "the first consoles end")
    before = count_everything()
    for _ in range(200):
        cycle()
    wait_until(is_quiet, 30, "all consoles end")
    # A connection that was hung up on is held until its client has gone too; the acceptor's thread is the test's own.
    wait_until(lambda: all(map(int.__le__, count_everything(), before)), 30, f"back to {before}")


def count_everything():
    return count_descriptors(), threading.active_count(), count_children()


def test_junk_tokens_and_resets_reach_nobody_and_leave_nothing(make, stack):
    """5 000 of each (S11)."""
    proxy = make(handshake_threads=4)
    with connect(proxy.novnc_port) as warm:
        warm.sendall(build_upgrade("/?token=x"))
        read_reply(warm)
    wait_until(stands_still(count_descriptors, 5), 30, "the proxy is at rest")
    before = count_descriptors(), threading.active_count()
    memory = resident_bytes()
    statuses = set()
    for number in range(5000):
        with connect(proxy.novnc_port if number % 2 else proxy.xvp_port) as sock:
            junk = f"/?token=junk{number}"
            sock.sendall(build_upgrade(junk) if number % 2 else f"CONNECT {junk} HTTP/1.0\r\n\r\n".encode())
            statuses.add(read_reply(sock).status)
    assert statuses == {401, 429}
    for number in range(5000):
        sock = connect(proxy.novnc_port)
        if number % 2:
            sock.sendall(build_upgrade(f"/?token=junk{number}")[: number % 100])
        reset(sock)
    assert proxy.consoleauth.asked == []
    wait_until(lambda: count_descriptors() <= before[0], 30, f"descriptors go back to {before[0]}")
    wait_until(lambda: threading.active_count() <= before[1] + 3, 30, f"threads go back to {before[1]}")
    assert resident_bytes() - memory < 20_000_000


# IPv6, real servers


def test_over_ipv6(make, echo):
    proxy = make(host="::1")
    token = proxy.issue(echo)
    with socket.create_connection(("::1", proxy.novnc_port), timeout=10) as sock:
        headers = [("Origin", f"http://[::1]:{proxy.novnc_port}")]
        sock.sendall(build_upgrade(f"/?token={token}", headers, host=f"[::1]:{proxy.novnc_port}"))
        assert read_reply(sock).status == 101


def test_tigervncs_server_greets_through_the_proxy(make, tmp_path):
    proxy = make()
    with Xvnc(tmp_path) as server, RawWebSocket(proxy.novnc_port, f"/?token={proxy.issue(server)}") as client:
        assert client.read_data(12) == GREETING
        client.send(GREETING)
        count = client.read_data(2)
        assert count == b"\x01\x01"
        client.send(b"\x01")
        assert client.read_data(4) == bytes(4)
        client.send(b"\x01")
        opcode, server_init = client.read_frame()
        assert opcode == BINARY
        assert server_init[:4] == (640).to_bytes(2, "big") + (480).to_bytes(2, "big")
