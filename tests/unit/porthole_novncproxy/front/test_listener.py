# SPDX-License-Identifier: Apache-2.0
import contextlib
import errno
import itertools
import logging
import select
import socket
import ssl

import pytest

from porthole_novncproxy.doors import NOVNC, XVPVNC
from porthole_novncproxy.front.connection import Connection
from porthole_novncproxy.front.listener import Listener
from porthole_novncproxy.front.request import MAX_HEADER_BYTES, RequestParser
from porthole_novncproxy.front.sender import Sender
from porthole_novncproxy.front.waiting import Waiting, WaitingLimits
from porthole_relay.loop import READ, WRITE
from porthole_relay.tls_socket import TlsSocket
from support.cases import naming
from support.certificates import make_certificate
from support.fake_loop import FakeLoop
from support.far_end import heard
from support.scrapes import Growth
from support.strangers import record_client_hello

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
REQUEST = RequestParser().feed(HEAD)
TIMEOUT_S = 10.0


class FakeListeningSocket:
    """A listening socket that hands out what a test put into ``waiting``: sockets, or errors to raise."""

    def __init__(self):
        self.waiting = []
        self.closed = False

    def setblocking(self, _flag):
        return

    def fileno(self):
        return 1000

    def accept(self):
        if not self.waiting:
            raise BlockingIOError
        found = self.waiting.pop(0)
        if isinstance(found, OSError):
            raise found
        return found, ("192.0.2.7", 4711)

    def close(self):
        self.closed = True


class Handshakes:
    """Makes each step at once; with ``is_slow`` only when the test says so, as if the thread were at it."""

    def __init__(self):
        self.is_slow = False
        self.steps = []

    def start(self, step):
        self.steps.append(step)
        if not self.is_slow:
            self.make()

    def make(self):
        step = self.steps.pop(0)
        try:
            step.sock.do_handshake()
        except OSError as exc:
            step.on_done(exc)
        else:
            step.on_done(None)

    def withdraw(self, step):
        return False


class House:
    """A listener on a fake loop, and clients on socket pairs."""

    def __init__(self, context=None, ssl_only=False, max_header_bytes=MAX_HEADER_BYTES, door=NOVNC, limits=None):
        self.loop = FakeLoop()
        self.pending = []
        self.door = door
        self.waiting = Waiting(limits or WaitingLimits(1000, 1000), lambda _address: False)
        self.handshakes = Handshakes()
        self.sender = Sender(self.loop, self.waiting)
        self.listener = Listener(
            loop=self.loop,
            sender=self.sender,
            waiting=self.waiting,
            handshakes=self.handshakes,
            tls_context=context,
            ssl_only=ssl_only,
            timeout_s=TIMEOUT_S,
            on_request=self.pending.append,
            max_header_bytes=max_header_bytes,
        )
        self.listening = FakeListeningSocket()
        self.listener.listen(self.listening, door)
        self.loop.run_soon()
        self.sockets = []

    @property
    def requests(self):
        return [(pending.connection, pending.request) for pending in self.pending]

    def connect(self, address="192.0.2.7"):
        """A client's end of a connection that waits for its first request."""
        near, far = socket.socketpair()
        far.setblocking(False)
        self.sockets += [near, far]
        connection = Connection(near, address, self.door, near.fileno())
        self.waiting.enter(connection)
        self.listener.receive(connection, is_new=True)
        return connection, far

    def turn(self):
        """Tell of every connection that can be read, as long as there are some."""
        for _ in range(1000):
            ready = [fd for fd, mask in self.loop.masks.items() if fd < 1000 and mask & READ and self.readable(fd)]
            if not ready:
                return
            for fd in ready:
                if fd in self.loop.callbacks:
                    self.loop.callbacks[fd](READ)
            self.loop.run_soon()
        raise AssertionError("the listener spins")

    @staticmethod
    def readable(fd):
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))

    def close(self):
        for pending in self.pending:
            pending.connection.sock.close()
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def house():
    made = House()
    yield made
    made.close()


def test_a_request_is_handed_on_with_what_came_behind_it(house):
    connection, client = house.connect()
    client.send(HEAD + b"\x82\x80")
    house.turn()
    assert house.requests == [(connection, REQUEST)]
    assert house.pending[0].rest == b"\x82\x80"
    assert not house.loop.callbacks.keys() - {1000}
    assert not house.loop.pending_timers


def test_a_request_may_be_cut_anywhere():
    for cut in range(1, len(HEAD)):
        with naming(cut), contextlib.closing(House()) as house:
            connection, client = house.connect()
            client.send(HEAD[:cut])
            house.turn()
            assert house.requests == []
            client.send(HEAD[cut:])
            house.turn()
            assert house.requests == [(connection, REQUEST)]


def test_a_flood_of_requests_takes_its_turns_and_another_client_does_not_wait_for_it(house):
    """Each turn of the loop has a few, so that consoles go on in between."""
    crowd = [house.connect()[1] for _ in range(50)]
    _connection, other = house.connect("192.0.2.8")
    for client in (*crowd, other):
        client.send(HEAD)
    for fd in [fd for fd in house.loop.callbacks if fd < 1000]:
        # epoll tells of a connection in each turn, as long as it is not read.
        house.loop.callbacks[fd](READ)
        house.loop.callbacks[fd](READ)
    assert house.requests == []
    assert len(house.loop.soon) == 1
    house.loop.soon.popleft()()
    assert 2 <= len(house.requests) < 20
    assert "192.0.2.8" in [connection.address for connection, _request in house.requests]
    house.loop.run_soon()
    assert len(house.requests) == 51
    assert not house.loop.pending_timers


def test_pipelined_requests_are_handed_on_one_by_one(house):
    connection, client = house.connect()
    client.send(HEAD * 3)
    house.turn()
    for number in (1, 2):
        assert len(house.requests) == number
        house.listener.receive(connection, house.pending[-1].rest)
        house.loop.run_soon()
    assert house.requests == [(connection, REQUEST)] * 3
    assert not house.loop.pending_timers


def test_the_deadline_is_408_for_half_a_request_and_nothing_for_silence(caplog):
    """One for the whole request (O7)."""
    for said in (b"", b"G", HEAD[:-1]):
        caplog.clear()
        with naming(said), contextlib.closing(House()) as house:
            _connection, client = house.connect()
            if said:
                client.send(said)
            house.turn()
            house.loop.advance(TIMEOUT_S)
            reply, ended = heard(client)
            assert ended
            assert reply.startswith(b"HTTP/1.1 408 ") if said else reply == b""
            assert turned_away(caplog) == (["[novncproxy] request_timeout"] if said else [])


@pytest.fixture(autouse=True)
def info_is_logged(caplog):
    caplog.set_level(logging.INFO, "porthole_novncproxy")


def turned_away(caplog):
    """The limits that the log names, one for each client that met it."""
    lines = [line.partition(" limit=")[2] for line in caplog.messages if line.startswith("Client turned away client=")]
    return [limit.strip('"') for limit in lines]


def test_the_deadline_does_not_move_with_each_byte(house):
    _connection, client = house.connect()
    for _ in range(9):
        client.send(b"G")
        house.turn()
        house.loop.advance(1)
    assert heard(client) == (b"", False)
    house.loop.advance(1)
    assert heard(client)[0].startswith(b"HTTP/1.1 408 ")


def test_a_head_without_end_is_431(caplog):
    for limit in (1024, MAX_HEADER_BYTES):
        caplog.clear()
        with naming(limit), contextlib.closing(House(max_header_bytes=limit)) as house:
            _connection, client = house.connect()
            client.send(b"G" * (limit - 1))
            house.turn()
            assert heard(client) == (b"", False)
            client.send(b"G")
            house.turn()
            reply, ended = heard(client)
            assert reply.startswith(b"HTTP/1.1 431 ")
            assert ended
            assert turned_away(caplog) == ["[novncproxy] max_header_bytes"]


def test_a_head_of_exactly_the_limit_passes(house):
    _connection, client = house.connect()
    head = HEAD[:-2] + b"X: " + b"y" * (MAX_HEADER_BYTES - len(HEAD) - 5) + b"\r\n\r\n"
    assert len(head) == MAX_HEADER_BYTES
    client.send(head)
    house.turn()
    assert [len(found.get("x")) for _connection, found in house.requests] == [MAX_HEADER_BYTES - len(HEAD) - 5]


def test_a_client_that_leaves_is_forgotten(house):
    for said in (b"", b"GET"):
        connection, client = house.connect()
        if said:
            client.send(said)
        client.close()
        house.turn()
        assert connection.sock.fileno() == -1
    assert not house.loop.callbacks.keys() - {1000}
    assert not house.loop.pending_timers


def test_closing_the_listener_closes_all_that_waits(house):
    waiting = [house.connect() for _ in range(3)]
    house.listener.close()
    assert house.listening.closed
    assert all(connection.sock.fileno() == -1 for connection, _client in waiting)
    assert not house.loop.callbacks
    assert not house.loop.pending_timers


def test_a_connection_that_comes_back_after_the_end_is_closed(house):
    connection, client = house.connect()
    client.send(HEAD)
    house.turn()
    house.listener.close()
    house.listener.receive(connection)
    house.loop.run_soon()
    assert heard(client) == (b"", True)


def test_connections_are_accepted_with_nodelay_and_keepalive(house):
    with socket.socket() as accepted:
        house.listening.waiting = [ConnectionAbortedError(), accepted]
        house.loop.callbacks[1000](READ)
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert accepted.fileno() in house.loop.callbacks
        house.listener.close()


def test_without_descriptors_the_queue_waits_a_moment():
    for code in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        with naming(errno.errorcode[code]), contextlib.closing(House()) as house:
            house.listening.waiting = [OSError(code, "no room")]
            house.loop.callbacks[1000](READ)
            assert 1000 not in house.loop.callbacks
            house.loop.advance(1)
            assert 1000 in house.loop.callbacks


def test_without_descriptors_the_oldest_silent_connection_makes_room(house):
    _connection, client = house.connect()
    house.listening.waiting = [OSError(errno.EMFILE, "no room")]
    house.loop.callbacks[1000](READ)
    assert client.recv(1) == b""
    assert 1000 in house.loop.callbacks
    assert house.waiting.total == 0


def test_more_silent_connections_than_the_limit_end_the_oldest_one():
    with contextlib.closing(House(limits=WaitingLimits(1000, 3))) as house:
        clients = [house.connect()[1] for _ in range(5)]
        assert [heard(client) for client in clients[:2]] == [(b"", True)] * 2
        for client in clients[2:]:
            with pytest.raises(BlockingIOError):
                client.recv(1)
        assert house.waiting.total == 3
        clients[2].send(HEAD)
        house.turn()
        # Its request is being answered: the next ones end, although they are newer.
        house.connect()
        assert heard(clients[3]) == (b"", True)
        assert len(house.requests) == 1


def test_a_listening_socket_stays_away_when_the_listener_closed_meanwhile(house):
    house.listening.waiting = [OSError(errno.EMFILE, "no room")]
    house.loop.callbacks[1000](READ)
    house.listener.close()
    house.loop.advance(1)
    assert not house.loop.callbacks


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


def tls_house(certificate, ssl_only=False):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    return House(context, ssl_only)


def shake_hands(house, certificate, sock):
    client = ssl.create_default_context(cafile=certificate.cert).wrap_socket(
        sock, server_hostname="localhost", do_handshake_on_connect=False
    )
    house.sockets.append(client)
    for _ in range(20):
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            house.turn()
        else:
            house.turn()
            return client
    raise AssertionError("the handshake does not end")


def test_a_socket_in_the_handshake_thread_is_closed_when_it_comes_back(certificate):
    """By the deadline, by a limit, or at the end of the listener: never under the thread's feet."""
    for end in ("time", "limit", "close"):
        with naming(end), contextlib.closing(tls_house(certificate)) as house:
            house.handshakes.is_slow = True
            connection, client = house.connect()
            client.send(record_client_hello())
            house.turn()
            assert connection.fd not in house.loop.callbacks
            if end == "time":
                house.loop.advance(TIMEOUT_S)
            elif end == "limit":
                assert house.waiting.end_oldest()
            else:
                house.listener.close()
            assert connection.sock.fileno() == connection.fd
            house.handshakes.make()
            assert connection.sock.fileno() == -1
            assert house.waiting.total == 0
            assert not house.loop.pending_timers


def test_tls_is_told_from_plain_by_its_first_byte(certificate):
    house = tls_house(certificate)
    plain, plain_client = house.connect()
    secure, sock = house.connect()
    client = shake_hands(house, certificate, sock)
    client.send(HEAD + b"rest")
    plain_client.send(HEAD)
    house.turn()
    assert dict(house.requests) == {plain: REQUEST, secure: REQUEST}
    assert isinstance(secure.sock, TlsSocket)
    assert not isinstance(plain.sock, TlsSocket)
    assert {pending.connection: pending.rest for pending in house.pending} == {plain: b"", secure: b"rest"}
    house.close()


def test_a_head_in_tls_records_of_one_byte_takes_many_turns(certificate):
    """And a client behind it does not wait for all of them."""
    house = tls_house(certificate)
    slow, sock = house.connect()
    client = shake_hands(house, certificate, sock)
    head = b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 100 + b"\r\n\r\n"
    for byte in head:
        client.send(bytes([byte]))
    beside, plain = house.connect()
    plain.send(HEAD)
    house.turn()
    assert [pending.connection for pending in house.pending] == [beside, slow]
    house.close()


def test_ssl_only_refuses_plain_and_lets_silence_wait(certificate):
    house = tls_house(certificate, ssl_only=True)
    _connection, client = house.connect()
    house.turn()
    assert heard(client) == (b"", False)
    client.send(HEAD)
    house.turn()
    assert heard(client)[0].startswith(b"HTTP/1.1 400 ")
    assert house.requests == []
    house.close()


def test_tls_without_a_certificate_is_refused(house):
    _connection, client = house.connect()
    client.send(b"\x16\x03\x01\x02\x00\x01")
    house.turn()
    assert heard(client)[0].startswith(b"HTTP/1.1 400 ")


def test_broken_tls_is_dropped(certificate):
    house = tls_house(certificate)
    connection, client = house.connect()
    client.send(b"\x16\x03\x01\x00\x05hello")
    house.turn()
    assert connection.sock.fileno() == -1
    assert not house.loop.callbacks.keys() - {1000}
    house.close()


def test_a_client_that_is_gone_before_tls_is_forgotten(certificate, caplog):
    """It has reset the connection behind its first bytes."""
    house = tls_house(certificate)
    connection, client = house.connect()
    client.send(b"\x16\x03\x01")
    client.close()
    with caplog.at_level(logging.INFO):
        house.turn()
    assert connection.sock.fileno() == -1
    assert connection.fd not in house.loop.callbacks
    assert not house.loop.pending_timers
    assert "TLS handshake failed" in caplog.text
    house.close()


def test_half_a_tls_handshake_ends_at_the_deadline(certificate, caplog):
    """The same one (O7)."""
    house = tls_house(certificate)
    connection, client = house.connect()
    client.send(b"\x16\x03\x01")
    house.turn()
    house.loop.advance(TIMEOUT_S)
    assert connection.sock.fileno() == -1
    assert turned_away(caplog) == ["[novncproxy] request_timeout"]
    house.close()


def test_requests_that_wait_within_tls_are_seen(certificate):
    house = tls_house(certificate)
    connection, sock = house.connect()
    client = shake_hands(house, certificate, sock)
    long = HEAD[:-2] + b"X: " + b"y" * (MAX_HEADER_BYTES - len(HEAD) - 5) + b"\r\n\r\n"
    client.send(long[:100])
    house.turn()
    client.send(long[100:] + HEAD)
    house.turn()
    (pending,) = house.pending
    assert (pending.connection, len(pending.request.fields), pending.rest) == (connection, 2, b"")
    house.listener.receive(connection)
    house.loop.run_soon()
    assert [pending.request for pending in house.pending][1:] == [REQUEST]
    house.close()


def test_the_loop_waits_for_room_when_tls_has_to_write(certificate):
    house = tls_house(certificate)
    connection, _client = house.connect()

    class Full:
        def recv(self, *_arguments):
            raise ssl.SSLWantWriteError

    real, connection.sock = connection.sock, Full()
    house.loop.callbacks[connection.fd](READ)
    house.loop.run_soon()
    assert house.loop.masks[connection.fd] & WRITE
    connection.sock = real
    house.close()


def test_a_malformed_request_is_refused_in_words_to_a_browser_and_without_to_a_viewer(caplog):
    for door, body in ((NOVNC, b"400 A header line has no colon, or its name is invalid.\n"), (XVPVNC, b"")):
        caplog.clear()
        with naming(door.name), contextlib.closing(House(door=door)) as house:
            connection, client = house.connect()
            client.send(b"GET / HTTP/1.1\r\nBad Header\r\nContent-Length: 34\r\n\r\n" + HEAD)
            house.turn()
            reply, ended = heard(client)
            head, _blank, content = reply.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert b"Connection: close" in head.split(b"\r\n")
            assert (content, ended, house.pending) == (body, True, [])
            assert caplog.messages == [
                f"Request malformed client=192.0.2.7 door={door.name} status=400 "
                'reason="A header line has no colon, or its name is invalid."'
            ]
            client.close()
            house.turn()
            assert connection.sock.fileno() == -1


def test_a_malformed_request_behind_another_is_refused(house):
    connection, client = house.connect()
    client.send(HEAD + b"nonsense\r\n\r\n")
    house.turn()
    house.listener.receive(connection, house.pending[0].rest)
    house.loop.run_soon()
    assert heard(client)[0].startswith(b"HTTP/1.1 400 ")
    assert len(house.pending) == 1


def test_a_client_that_speaks_the_proxy_protocol_is_told_of_in_one_line(certificate, caplog):
    """Before TLS and before HTTP, in both versions."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    v1, v2 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + b"\0" * 12
    for start, options in itertools.product(
        [v1, v2], [{}, {"context": context}, {"context": context, "ssl_only": True}]
    ):
        caplog.clear()
        with naming(start, options), contextlib.closing(House(**options)) as house:
            _connection, client = house.connect()
            client.send(start + HEAD)
            house.turn()
            assert heard(client)[0].startswith(b"HTTP/1.1 400 ")
            assert house.pending == []
            assert caplog.messages == ["PROXY protocol on an HTTP port client=192.0.2.7 door=novnc"]


def test_an_ipv4_client_of_a_port_for_both_is_named_as_ipv4(house):
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening:
        house.listener.listen(listening, NOVNC)
        house.loop.run_soon()
        with socket.create_connection(("127.0.0.1", listening.getsockname()[1]), 10) as client:
            client.send(HEAD)
            house.turn()
            assert [pending.connection.address for pending in house.pending] == ["127.0.0.1"]
            house.listener.close()


def test_connections_without_a_request_are_counted_by_reason():
    for sent, reason, status in (
        (b"GARBAGE\r\n\r\n", "malformed", "400"),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * MAX_HEADER_BYTES, "max_header_bytes", "431"),
        (b"\x16\x03\x01", "wrong_protocol", "400"),
    ):
        with naming(reason):
            refusals = Growth("porthole_refusals_total", door="novnc", reason=reason, status=status)
            openings = Growth("porthole_openings_total")
            house = House()
            _, client = house.connect()
            client.setblocking(True)
            client.sendall(sent)
            house.turn()
            assert (refusals.grown, openings.grown) == (1, 0)
            house.close()
