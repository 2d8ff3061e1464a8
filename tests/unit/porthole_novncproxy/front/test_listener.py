# SPDX-License-Identifier: Apache-2.0
import contextlib
import errno
import io
import logging
import os
import select
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import pytest

from porthole_novncproxy.front.listener import MAX_ANSWERS, MAX_HEAD_BYTES, Answer, Connection, Doorway
from porthole_relay.loop import READ, WRITE
from support.cases import naming
from support.certificates import make_certificate
from support.fake_loop import FakeLoop
from support.processes import wait_until

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
TIMEOUT_S = 10.0


class FakeListener:
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


class House:
    """A doorway on a fake loop, and clients on socket pairs."""

    def __init__(self, context=None, ssl_only=False, max_head_bytes=MAX_HEAD_BYTES):
        self.loop = FakeLoop()
        self.requests = []
        self.doorway = Doorway(self.loop, context, ssl_only, TIMEOUT_S, self.on_request, max_head_bytes)
        self.listener = FakeListener()
        self.doorway.listen(self.listener, "novnc")
        self.loop.run_soon()
        self.sockets = []

    def on_request(self, connection, head):
        self.requests.append((connection, head))

    def connect(self):
        """A client's end of a connection that waits for its first request."""
        near, far = socket.socketpair()
        far.setblocking(False)
        self.sockets += [near, far]
        connection = Connection(near, ("192.0.2.7", 4711), "novnc", near.fileno())
        self.doorway.await_request(connection)
        self.loop.run_soon()
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
        raise AssertionError("the doorway spins")

    @staticmethod
    def readable(fd):
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))

    def close(self):
        for connection, _head in self.requests:
            connection.sock.close()
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def house():
    made = House()
    yield made
    made.close()


def heard(sock):
    data = b""
    while True:
        try:
            chunk = sock.recv(65536)
        except BlockingIOError:
            return data, False
        if not chunk:
            return data, True
        data += chunk


def test_a_request_is_handed_on_with_what_came_behind_it(house):
    connection, client = house.connect()
    client.send(HEAD + b"\x82\x80")
    house.turn()
    assert house.requests == [(connection, HEAD)]
    assert connection.received == b"\x82\x80"
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
            assert house.requests == [(connection, HEAD)]


def test_pipelined_requests_are_handed_on_one_by_one(house):
    connection, client = house.connect()
    client.send(HEAD * 3)
    house.turn()
    for number in (1, 2):
        assert len(house.requests) == number
        house.doorway.await_request(connection)
        house.loop.run_soon()
    assert house.requests == [(connection, HEAD)] * 3


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
    for limit in (1024, MAX_HEAD_BYTES):
        caplog.clear()
        with naming(limit), contextlib.closing(House(max_head_bytes=limit)) as house:
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
    head = HEAD[:-2] + b"X: " + b"y" * (MAX_HEAD_BYTES - len(HEAD) - 5) + b"\r\n\r\n"
    assert len(head) == MAX_HEAD_BYTES
    client.send(head)
    house.turn()
    assert [found for _connection, found in house.requests] == [head]


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


def test_a_last_answer_waits_for_the_client_to_end_and_reads_what_it_still_says(house):
    connection, client = house.connect()
    client.send(HEAD)
    house.turn()
    connection.sock.send(b"answer")
    house.doorway.hang_up(connection)
    house.loop.run_soon()
    assert heard(client) == (b"answer", True)
    for _ in range(5):
        client.send(b"x" * 10_000)
        house.turn()
    assert connection.sock.fileno() != -1
    client.close()
    house.turn()
    assert connection.sock.fileno() == -1
    assert not house.loop.pending_timers


def test_a_client_that_never_ends_is_not_waited_for_long(house):
    connection, client = house.connect()
    house.doorway.refuse(connection, HTTPStatus.SERVICE_UNAVAILABLE, "Retry-After: 1")
    assert b"Retry-After: 1\r\n" in heard(client)[0]
    house.loop.advance(2.0)
    assert connection.sock.fileno() == -1
    assert not house.loop.callbacks.keys() - {1000}


def test_closing_the_doorway_closes_all_that_waits(house):
    waiting = [house.connect() for _ in range(3)]
    lingering, _client = house.connect()
    house.doorway.refuse(lingering, HTTPStatus.BAD_REQUEST)
    house.doorway.close()
    assert house.listener.closed
    assert all(connection.sock.fileno() == -1 for connection, _client in waiting)
    assert lingering.sock.fileno() == -1
    assert not house.loop.callbacks
    assert not house.loop.pending_timers


def test_a_connection_that_comes_back_after_the_end_is_closed(house):
    connection, client = house.connect()
    client.send(HEAD)
    house.turn()
    house.doorway.close()
    house.doorway.await_request(connection)
    house.loop.run_soon()
    assert heard(client) == (b"", True)
    other, other_client = socket.socketpair()
    with other, other_client:
        house.doorway.hang_up(Connection(other, ("192.0.2.7", 1), "novnc", other.fileno()))
        house.loop.run_soon()
        assert other.fileno() == -1
        assert other_client.recv(10) == b""


def test_connections_are_accepted_with_nodelay_and_keepalive(house):
    with socket.socket() as accepted:
        house.listener.waiting = [ConnectionAbortedError(), accepted]
        house.loop.callbacks[1000](READ)
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert accepted.fileno() in house.loop.callbacks
        house.doorway.close()


def test_without_descriptors_the_queue_waits_a_moment():
    for code in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        with naming(errno.errorcode[code]), contextlib.closing(House()) as house:
            house.listener.waiting = [OSError(code, "no room")]
            house.loop.callbacks[1000](READ)
            assert 1000 not in house.loop.callbacks
            house.loop.advance(1)
            assert 1000 in house.loop.callbacks


def test_the_listener_stays_away_when_the_doorway_closed_meanwhile(house):
    house.listener.waiting = [OSError(errno.EMFILE, "no room")]
    house.loop.callbacks[1000](READ)
    house.doorway.close()
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


def test_tls_is_told_from_plain_by_its_first_byte(certificate):
    house = tls_house(certificate)
    plain, plain_client = house.connect()
    secure, sock = house.connect()
    client = shake_hands(house, certificate, sock)
    client.send(HEAD + b"rest")
    plain_client.send(HEAD)
    house.turn()
    assert {id(connection) for connection, _head in house.requests} == {id(plain), id(secure)}
    assert [head for _connection, head in house.requests] == [HEAD, HEAD]
    assert secure.is_tls
    assert secure.received == b"rest"
    assert not plain.is_tls
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


class GoneContext:
    """What ssl does with a socket whose client has reset it behind its first bytes: it closes the descriptor."""

    def wrap_socket(self, sock, **_options):
        sock.close()
        error = ssl.SSLError(errno.ENOTCONN, "Closed before TLS handshake with data in recv buffer.")
        error.reason = "Closed before TLS handshake with data in recv buffer."
        raise error


def test_a_client_that_is_gone_before_tls_is_forgotten(caplog):
    """epoll has forgotten the descriptor by then, and fails on it."""
    house = House(GoneContext())
    unregister = house.loop.unregister

    def unregister_like_epoll(fd):
        if fd in house.loop.callbacks:
            os.fstat(fd)
        unregister(fd)

    house.loop.unregister = unregister_like_epoll
    connection, far = house.connect()
    far.send(b"\x16\x03\x01")
    with caplog.at_level(logging.INFO):
        house.turn()
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
    long = HEAD[:-2] + b"X: " + b"y" * (MAX_HEAD_BYTES - len(HEAD) - 5) + b"\r\n\r\n"
    client.send(long[:100])
    house.turn()
    client.send(long[100:] + HEAD)
    house.turn()
    assert [head for _connection, head in house.requests] == [long]
    assert not connection.received
    house.doorway.await_request(connection)
    house.loop.run_soon()
    assert [head for _connection, head in house.requests] == [long, HEAD]
    house.close()


def test_the_loop_waits_for_room_when_tls_has_to_write(certificate):
    house = tls_house(certificate)
    connection, _client = house.connect()

    class Full:
        def recv(self, *_arguments):
            raise ssl.SSLWantWriteError

    real, connection.sock = connection.sock, Full()
    house.loop.callbacks[connection.fd](READ)
    assert house.loop.masks[connection.fd] & WRITE
    connection.sock = real
    house.close()


CONTENT = b"page" * 262144


class Page:
    """An answer of 1 MiB to a request of ``house``'s, of which the client has taken nothing yet."""

    def __init__(self, house, is_last):
        self.house = house
        self.connection, self.client = house.connect()
        self.client.send(HEAD)
        house.turn()
        self.file = io.BytesIO(CONTENT)
        house.doorway.answer(self.connection, Answer(b"head", self.file), is_last)
        house.loop.run_soon()

    @property
    def mask(self):
        return self.house.loop.masks.get(self.connection.fd)

    def send(self):
        """Let the doorway send as much as the client's end has room for."""
        poll = select.poll()
        poll.register(self.connection.sock, select.POLLOUT)
        while self.mask == WRITE and poll.poll(0):
            self.house.loop.callbacks[self.connection.fd](WRITE)
            self.house.loop.run_soon()


def test_an_answer_goes_out_as_the_client_takes_it():
    for is_last in (False, True):
        with naming(is_last), contextlib.closing(House()) as house:
            page = Page(house, is_last)
            page.send()
            assert page.mask == WRITE, "a client that has read nothing was sent a mebibyte"
            received, ended = b"", False
            for _ in range(1000):
                chunk, ended = heard(page.client)
                received += chunk
                if len(received) >= len(b"head" + CONTENT):
                    break
                page.send()
            page.send()
            chunk, ended = heard(page.client)
            assert received + chunk == b"head" + CONTENT
            assert page.file.closed
            assert ended is is_last
            page.client.send(HEAD)
            house.turn()
            assert len(house.requests) == (1 if is_last else 2)


def test_a_client_that_does_not_take_its_answer_is_given_up(house, caplog):
    page = Page(house, is_last=False)
    page.send()
    with caplog.at_level(logging.INFO):
        house.loop.advance(30)
    assert page.connection.sock.fileno() == -1
    assert page.file.closed
    assert "Client did not take its answer" in caplog.text
    assert not house.loop.pending_timers


def test_a_client_that_is_gone_takes_no_answer(house):
    page = Page(house, is_last=False)
    page.client.close()
    page.send()
    assert page.connection.sock.fileno() == -1
    assert page.file.closed


def test_the_end_waits_until_answers_are_taken(house):
    page = Page(house, is_last=True)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(house.doorway.wait_answered, 20)
        wait_until(lambda: house.loop.soon, 10, "the question")
        house.loop.run_soon()
        assert not waiting.done()
        page.client.close()
        page.send()
        assert waiting.result(30) is True


def test_the_end_waits_for_nothing_where_there_is_no_answer(house):
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(house.doorway.wait_answered, 20)
        wait_until(lambda: house.loop.soon, 10, "the question")
        house.loop.run_soon()
        assert waiting.result(30) is True


def test_of_too_many_answers_the_slowest_client_is_given_up(house):
    pages = [Page(house, is_last=False) for _ in range(MAX_ANSWERS)]
    assert all(page.mask == WRITE for page in pages)
    newest = Page(house, is_last=False)
    assert [page.connection.sock.fileno() == -1 for page in pages] == [True] + [False] * (MAX_ANSWERS - 1)
    assert pages[0].file.closed
    assert newest.mask == WRITE
