# SPDX-License-Identifier: Apache-2.0
"""What time, crowds and rudeness do to the proxy, at each of its doors: plain, TLS, and the native viewers'."""

import datetime
import os
import resource
import select
import socket
import ssl
import statistics
import threading
import time
from contextlib import ExitStack
from functools import partial

import pytest
import websockets.sync.client
from websockets.exceptions import ConnectionClosed

from porthole_common.model import ConsoleType
from porthole_novncproxy.admission.limits import Limits
from porthole_relay.liveness import LivenessPolicy
from support.deadlines import crowd_limit_s, join_within, kept_within
from support.processes import wait_until
from support.proxy import InProcessProxy, count_children, count_descriptors, resident_bytes
from support.vnc_servers import GREETING, ClosingServer, EchoVnc, FloodingServer, IdleServer, VncServer, reset
from support.websocket import CLOSE, TIMEOUT_S, RawWebSocket, build_upgrade, connect, read_reply, read_to_end

DOORS = ["ws", "wss", "xvpvnc"]
JUNK = "/?token=junk"
QUIET_ROUNDS = 3


@pytest.fixture
def make(web_root, stack, server_context):
    """A maker of proxies that speak plain HTTP and TLS on one port."""
    return lambda **options: stack.enter_context(InProcessProxy(web_root, **{"context": server_context, **options}))


class RawViewer:
    """A native viewer with the methods of :class:`RawWebSocket` that are used here."""

    def __init__(self, proxy, token, receive_buffer_bytes=None):
        self.sock = socket.socket()
        if receive_buffer_bytes is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(("127.0.0.1", proxy.xvp_port))
        self.sock.sendall(f"CONNECT /console?token={token} HTTP/1.0\r\n\r\n".encode())
        self.reply = read_reply(self.sock)
        self._received = self.reply.rest

    def send(self, payload):
        self.sock.sendall(payload)

    def read_data(self, size):
        while len(self._received) < size:
            data = self.sock.recv(65536)
            assert data, "the stream ended"
            self._received += data
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.close()


@pytest.fixture
def open_console(client_context):
    """Opens a console at one of the doors, behind its greeting."""

    def run(proxy, door, server, token=None, **options):
        if door == "xvpvnc":
            client = RawViewer(proxy, token or proxy.issue(server, ConsoleType.XVPVNC), **options)
        else:
            context = client_context if door == "wss" else None
            token = token or proxy.issue(server)
            client = RawWebSocket(proxy.novnc_port, f"/?token={token}", context=context, **options)
        with ExitStack() as opened:
            opened.enter_context(client)
            assert client.reply.status in (101, 200)
            assert client.read_data(len(GREETING)) == GREETING
            opened.pop_all()
        return client

    return run


def assert_echoes(client, payload=b"ping?"):
    client.send(payload)
    assert client.read_data(len(payload)) == payload


def read_end(client, door):
    """The close code of a WebSocket; of a native viewer, to whom nothing can be said, None."""
    if door != "xvpvnc":
        return client.read_close()[0]
    read_to_end(client.sock)
    return None


# Time


class Conversation(VncServer):
    """Greets its one peer, and says and hears what the test wants."""

    def __init__(self):
        self.heard = 0
        super().__init__()

    def serve(self, sock):
        self.sock = sock
        sock.sendall(GREETING)
        while data := sock.recv(65536):
            self.heard += len(data)


@pytest.mark.parametrize("direction", ["down", "up"])
@pytest.mark.parametrize("door", ["ws", "xvpvnc"])
def test_what_moves_in_one_direction_keeps_a_console_from_being_idle(make, stack, open_console, door, direction):
    """The idle limit counts both (O8)."""
    idle_s = 2.0
    server = stack.enter_context(Conversation())
    proxy = make(liveness=LivenessPolicy(idle_timeout_s=idle_s, ping_interval_s=0.0))
    with open_console(proxy, door, server) as client:
        until = time.monotonic() + 2 * idle_s
        while (moved_at := time.monotonic()) < until:
            last_moved_at = moved_at
            if direction == "down":
                server.sock.sendall(b".")
                assert client.read_data(1) == b"."
            else:
                heard = server.heard
                client.send(b".")
                wait_until(lambda heard=heard: server.heard > heard, 30, "the VNC server hears it")
            time.sleep(idle_s / 20)
        with kept_within(idle_s, "the idle limit"):
            assert read_end(client, door) in (4409, None)
        # It counts from the last byte, which moved after this moment.
        assert time.monotonic() - last_moved_at > idle_s * 0.9


class MiddleBox(VncServer):
    """Stands before ``port``, and cuts what was silent in both directions for ``patience_s``."""

    def __init__(self, port, patience_s):
        self._target, self._patience_s = port, patience_s
        super().__init__()

    def serve(self, sock):
        with socket.create_connection(("127.0.0.1", self._target), 10) as onward:
            peers = {sock: onward, onward: sock}
            while ready := select.select(peers, [], [], self._patience_s)[0]:
                for source in ready:
                    data = source.recv(65536)
                    if not data:
                        return
                    peers[source].sendall(data)


@pytest.mark.parametrize("ping_interval_s", [0.5, 0.0], ids=["pings", "no pings"])
def test_pings_keep_a_silent_console_alive_behind_a_box_that_cuts_silence(make, stack, echo, ping_interval_s):
    """O8, speeded up (real values: ping 45 s, middlebox timeout 60 s)."""
    patience_s = 3.0
    proxy = make(liveness=LivenessPolicy(ping_interval_s=ping_interval_s))
    box = stack.enter_context(MiddleBox(proxy.novnc_port, patience_s))
    url = f"ws://127.0.0.1:{box.port}/?token={proxy.issue(echo)}"
    with websockets.sync.client.connect(url, ping_interval=None, proxy=None) as client:
        assert client.recv(timeout=10) == GREETING
        if not ping_interval_s:
            with pytest.raises(ConnectionClosed):
                client.recv(timeout=30)
            return
        with pytest.raises(TimeoutError):
            client.recv(timeout=2 * patience_s)
        client.send(b"still there")
        assert client.recv(timeout=10) == b"still there"


@pytest.mark.parametrize("enforced", [True, False])
@pytest.mark.parametrize("door", DOORS)
def test_a_console_outlives_its_token_unless_that_is_enforced(make, echo, open_console, door, enforced):
    proxy = make(enforce_session_timeout=enforced)
    expires_at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2)
    kind = ConsoleType.XVPVNC if door == "xvpvnc" else ConsoleType.NOVNC
    token = proxy.issue(echo, kind, expires_at=expires_at)
    with open_console(proxy, door, echo, token) as client:
        assert_echoes(client)
        if enforced:
            assert read_end(client, door) in (4408, None)
            assert datetime.datetime.now(datetime.UTC) >= expires_at
        else:
            wait_until(lambda: datetime.datetime.now(datetime.UTC) > expires_at, 30, "the token's end")
            for _ in range(50):
                assert_echoes(client)


# Crowds


@pytest.mark.parametrize("limit", ["total", "per_source", "per_token", "per_instance", "per_user"])
@pytest.mark.parametrize("door", DOORS)
def test_a_limit_is_429_at_every_door_and_is_free_again_after_each_end(
    make, echo, open_console, client_context, door, limit
):
    """S10: as many as the limit, and one more."""
    proxy = make(limits=Limits(**{"total": 9, "per_source": 9, "per_token": 9, "per_instance": 9, limit: 1}))
    token = proxy.issue(echo, ConsoleType.XVPVNC if door == "xvpvnc" else ConsoleType.NOVNC, user_id="u-1")

    def status():
        with connect(
            proxy.xvp_port if door == "xvpvnc" else proxy.novnc_port, client_context if door == "wss" else None
        ) as sock:
            path = f"/?token={token}"
            sock.sendall(f"CONNECT {path} HTTP/1.0\r\n\r\n".encode() if door == "xvpvnc" else build_upgrade(path))
            return read_reply(sock).status

    for _ in range(3):
        with open_console(proxy, door, echo, token) as client:
            assert status() == 429
            assert_echoes(client)
        wait_until(lambda: proxy.counter.total == 0, 30, "the console ends")
    assert echo.accepted == 3


def test_the_doors_count_together(make, echo, open_console):
    proxy = make(limits=Limits(1, 1, 1, 1))
    with open_console(proxy, "wss", echo):
        viewer = RawViewer(proxy, proxy.issue(echo, ConsoleType.XVPVNC))
        with viewer:
            assert viewer.reply.status == 429
    wait_until(lambda: proxy.counter.total == 0, 30, "the console ends")
    open_console(proxy, "xvpvnc", echo).close()


def test_500_half_open_clients_are_let_go_and_keep_nobody_out(make, echo, open_console, stack):
    """Part of a TLS handshake, of a request within TLS, of a plain one, or nothing; then their deadline (O7)."""
    # A visit that had to wait for one of the crowd would take at least as long as the crowd may.
    proxy = make(request_timeout_s=6.0, handshake_threads=4)
    quiet_s = time_visits(proxy, open_console, echo)
    wait_until(lambda: proxy.counter.total == 0, 30, "the first consoles end")
    # What a handshake thread needs for its first time stays; these are all of them.
    threads = threading.active_count() + 4
    descriptors = count_descriptors()
    hello = client_hello()
    crowd = []
    visits = []
    for number in range(500):
        sock = stack.enter_context(connect(proxy.xvp_port if number % 7 == 0 else proxy.novnc_port))
        words = [b"", hello[:1], hello[:50], hello, b"GET / HTTP/1.1\r\nHost: x\r\n", b"CONNECT /console"][number % 6]
        sock.sendall(words)
        crowd.append(sock)
        if number % 50 == 49:
            visits.append(time_visit(partial(open_console, proxy, DOORS[number // 50 % 3], echo)))
    assert statistics.median(visits) < crowd_limit_s(quiet_s)
    for sock in crowd:
        # An alert, a 408, or nothing: and then the end, which is a reset where bytes of the client were not read.
        try:
            read_to_end(sock)
        except ConnectionResetError:
            continue
        finally:
            sock.close()
    wait_until(lambda: count_descriptors() <= descriptors, 30, f"descriptors go back to {descriptors}")
    wait_until(lambda: threading.active_count() <= threads, 30, f"threads go back to {threads}")


def time_visit(visit):
    """Open a console and have an echo; return the seconds it took. One that takes long may be the machine's fault."""
    began = time.monotonic()
    with visit() as client:
        assert_echoes(client)
    return time.monotonic() - began


def time_visits(proxy, open_console, server):
    """Visit each door a few times while nobody else does; return the median of the seconds."""
    return statistics.median(time_visit(partial(open_console, proxy, door, server)) for door in DOORS * QUIET_ROUNDS)


def client_hello():
    """The first flight of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def test_a_good_client_is_let_in_while_others_reset_and_guess(make, echo, open_console, stack):
    """S11."""
    proxy = make(handshake_threads=4)
    quiet_s = time_visits(proxy, open_console, echo)
    wait_until(lambda: proxy.counter.total == 0, 30, "the first consoles end")
    descriptors, memory = count_descriptors(), resident_bytes()
    hello = client_hello()
    rude = [b"", hello[:40], hello, build_upgrade(JUNK), b"GET / HT", f"CONNECT {JUNK} HTTP/1.0\r\n\r\n".encode()]
    over = threading.Event()
    storms = [0]
    visits = []

    def storm():
        while not over.is_set():
            words = rude[storms[0] % len(rude)]
            storms[0] += 1
            sock = connect(proxy.xvp_port if words.startswith(b"CONNECT") else proxy.novnc_port, source="127.0.0.2")
            if words:
                sock.sendall(words)
            reset(sock)

    rioter = threading.Thread(target=storm)
    rioter.start()
    try:
        while storms[0] < 3000:
            visits.append(time_visit(partial(open_console, proxy, DOORS[len(visits) % 3], echo)))
    finally:
        over.set()
        join_within(30, rioter)
    assert statistics.median(visits) < crowd_limit_s(quiet_s)
    assert len(proxy.consoleauth.asked) == len(visits) + len(DOORS) * QUIET_ROUNDS
    wait_until(lambda: proxy.counter.total == 0, 30, "all consoles end")
    wait_until(lambda: count_descriptors() <= descriptors, 30, f"descriptors go back to {descriptors}")
    assert resident_bytes() - memory < 20_000_000


@pytest.fixture
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_1000_idle_consoles_take_two_descriptors_each_and_nothing_else(make, echo, open_console):
    """No thread, no process, and no time of those who work (O1)."""
    proxy = make(handshake_threads=4)
    quiet_s = statistics.median(time_visit(partial(open_console, proxy, "ws", echo)) for _ in range(5))
    wait_until(lambda: proxy.counter.total == 0 and not echo.open_connections, 30, "the first console ends")
    idle = IdleServer()
    token = proxy.issue(idle)
    before = count_descriptors(), threading.active_count(), count_children()
    # Each of the four handshake threads is made when it is first needed.
    threads = before[1] + 3
    with ExitStack() as crowd:
        crowd.callback(idle.stop)
        for _ in range(1000):
            crowd.enter_context(open_console(proxy, "ws", idle, token))
        assert proxy.counter.total == 1000
        # Both ends of both legs are this process's.
        assert count_descriptors() - before[0] <= 4 * 1000
        assert (threading.active_count() <= threads, count_children()) == (True, before[2])
        visits = [time_visit(partial(open_console, proxy, "ws", echo)) for _ in range(5)]
        assert statistics.median(visits) < crowd_limit_s(quiet_s)
    wait_until(lambda: proxy.counter.total == 0, 30, "all consoles end")
    # The acceptor of the VNC server that was stopped was one thread and one descriptor of before.
    wait_until(lambda: count_descriptors() < before[0], 30, f"descriptors go back to {before[0]}")
    wait_until(lambda: threading.active_count() < threads, 30, f"fewer threads than {threads}")


@pytest.mark.parametrize("door", ["wss", "xvpvnc"])
def test_a_viewer_that_does_not_read_holds_no_memory_and_nobody_up(make, stack, echo, open_console, door):
    """Its VNC server is not read until it reads again (O6)."""
    flood = stack.enter_context(FloodingServer())
    proxy = make()
    others = [stack.enter_context(open_console(proxy, other, echo)) for other in DOORS]
    before = resident_bytes()
    slow = stack.enter_context(open_console(proxy, door, flood))
    seen = []

    def stands_still():
        seen.append(flood.sent_bytes)
        return len(seen) > 15 and len(set(seen[-15:])) == 1

    wait_until(stands_still, 20, "the VNC server stands still")
    # What four kernel buffers and the high mark hold.
    assert flood.sent_bytes < 40_000_000
    assert resident_bytes() - before < 5_000_000
    for _ in range(30):
        for other in others:
            assert_echoes(other, os.urandom(1000))
    stopped_at = flood.sent_bytes
    slow.read_data(1 << 20)
    while flood.sent_bytes <= stopped_at:
        slow.read_data(1 << 16)


# Rudeness


def closes(client):
    client.send((1000).to_bytes(2, "big"), CLOSE)
    client.read_close()
    client.close()


def leaves(client):
    client.close()


def resets(client):
    if isinstance(client.sock, ssl.SSLSocket):
        reset(socket.socket(fileno=client.sock.detach()))
    else:
        reset(client.sock)


def waits(client):
    """The VNC server ends first; over WebSocket a close frame says so."""
    if isinstance(client, RawViewer):
        read_to_end(client.sock)
    else:
        assert client.read_close()[0] == 1000
    client.close()


@pytest.mark.parametrize(
    ("door", "way"),
    [
        ("wss", closes),
        ("wss", leaves),
        ("wss", resets),
        ("wss", waits),
        ("xvpvnc", leaves),
        ("xvpvnc", resets),
        ("xvpvnc", waits),
    ],
)
def test_200_consoles_leave_nothing_behind(make, stack, open_console, door, way):
    """O1."""
    proxy = make(handshake_threads=1)
    server = stack.enter_context(ClosingServer(GREETING) if way is waits else EchoVnc())
    token = proxy.issue(server, ConsoleType.XVPVNC if door == "xvpvnc" else ConsoleType.NOVNC)

    def is_quiet():
        return proxy.counter.total == 0 and not server.open_connections

    for _ in range(5):
        way(open_console(proxy, door, server, token))
    wait_until(is_quiet, 30, "the first consoles end")
    before = count_descriptors(), threading.active_count()
    for _ in range(200):
        way(open_console(proxy, door, server, token))
    wait_until(is_quiet, 30, "all consoles end")
    wait_until(
        lambda: count_descriptors() <= before[0] and threading.active_count() <= before[1], 10, f"back to {before}"
    )
