# SPDX-License-Identifier: Apache-2.0
import io
import logging
import select
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import pytest

from porthole_novncproxy.doors import NOVNC
from porthole_novncproxy.front.connection import Connection
from porthole_novncproxy.front.responses import Response
from porthole_novncproxy.front.sender import MAX_SENDING, Outgoing, Sender, open_outgoing
from porthole_novncproxy.front.waiting import Waiting, WaitingLimits
from porthole_relay.loop import READ, WRITE
from support.cases import naming
from support.fake_loop import FakeLoop
from support.far_end import heard
from support.processes import wait_until

CONTENT = b"page" * 262144


class House:
    """A sender on a fake loop. ``sent`` and ``lost`` are the connections whose answer has come to its end."""

    def __init__(self):
        self.loop = FakeLoop()
        self.waiting = Waiting(WaitingLimits(1000, 1000), lambda _address: False)
        self.sender = Sender(self.loop, self.waiting)
        self.sent = []
        self.lost = []
        self.sockets = []

    def connect(self, address="192.0.2.7"):
        near, far = socket.socketpair()
        far.setblocking(False)
        self.sockets += [near, far]
        connection = Connection(near, address, NOVNC, near.fileno())
        self.waiting.enter(connection)
        return connection, far

    def send(self, connection, outgoing):
        self.sender.send(connection, outgoing, self.sent.append, lambda: self.lost.append(connection))

    def turn(self, connection):
        """Tell of a connection as long as the loop waits for it and it is ready."""
        poll = select.poll()
        poll.register(connection.sock, select.POLLOUT | select.POLLIN)
        for _ in range(1000):
            awaited = self.loop.masks.get(connection.fd, 0)
            ready = poll.poll(0) if connection.sock.fileno() != -1 else []
            events = (ready[0][1] if ready else 0) & awaited
            if not events:
                return
            self.loop.callbacks[connection.fd](events)
        raise AssertionError("the sender spins")

    def close(self):
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def house():
    made = House()
    yield made
    made.close()


class Page:
    """An answer of 1 MiB that is sent on ``house``, of which the client has taken nothing yet."""

    def __init__(self, house, address="192.0.2.7"):
        self.house = house
        self.connection, self.client = house.connect(address)
        self.file = io.BytesIO(CONTENT)
        house.send(self.connection, Outgoing(b"head", self.file, len(CONTENT)))

    @property
    def is_open(self):
        return self.connection.sock.fileno() != -1

    def turn(self):
        self.house.turn(self.connection)


def test_a_small_answer_is_sent_at_once(house):
    """Without a timer, and without a turn of the loop."""
    connection, client = house.connect()
    house.send(connection, Outgoing(b"answer"))
    assert house.sent == [connection]
    assert heard(client) == (b"answer", False)
    assert not house.loop.callbacks
    assert not house.loop.timers


def test_an_answer_goes_out_as_the_client_takes_it(house):
    page = Page(house)
    page.turn()
    assert house.loop.masks[page.connection.fd] == WRITE, "a client that has read nothing was sent a mebibyte"
    received = b""
    for _ in range(1000):
        received += heard(page.client)[0]
        page.turn()
        if house.sent:
            break
    assert received + heard(page.client)[0] == b"head" + CONTENT
    assert house.sent == [page.connection]
    assert page.file.closed
    assert not house.loop.callbacks
    assert not house.loop.pending_timers


def test_an_answer_is_sent_a_piece_at_a_time(house):
    """Other clients have their turn in between."""
    page = Page(house)
    assert heard(page.client)[0] == b"head"
    house.loop.callbacks[page.connection.fd](WRITE)
    assert len(heard(page.client)[0]) == 65536


def test_a_client_that_does_not_take_its_answer_is_given_up(house, caplog):
    page = Page(house)
    page.turn()
    with caplog.at_level(logging.INFO):
        house.loop.advance(30)
    assert not page.is_open
    assert page.file.closed
    assert (house.sent, house.lost) == ([], [page.connection])
    assert "Answer not taken" in caplog.text
    assert not house.loop.pending_timers


def test_a_client_that_is_gone_takes_no_answer(house):
    page = Page(house)
    page.client.close()
    house.loop.callbacks[page.connection.fd](WRITE)
    assert not page.is_open
    assert page.file.closed
    assert house.lost == [page.connection]
    gone, client = house.connect()
    client.close()
    house.send(gone, Outgoing(b"answer"))
    assert gone.sock.fileno() == -1
    assert house.lost == [page.connection, gone]


def test_tls_may_have_to_read_or_to_write_first(house):
    for error, awaited in ((ssl.SSLWantReadError, READ), (ssl.SSLWantWriteError, WRITE), (BlockingIOError, WRITE)):
        with naming(error):
            connection, client = house.connect()

            class Stuck:
                def __init__(self, error):
                    self.error = error

                def setblocking(self, _flag):
                    return

                def send(self, _data):
                    raise self.error

            real, connection.sock = connection.sock, Stuck(error)
            house.send(connection, Outgoing(b"answer"))
            assert house.loop.masks[connection.fd] == awaited
            connection.sock = real
            house.loop.callbacks[connection.fd](awaited)
            assert house.sent[-1] is connection
            assert heard(client)[0] == b"answer"


def test_the_end_waits_until_answers_are_taken(house):
    page = Page(house)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(house.sender.wait_sent, 20)
        wait_until(lambda: house.loop.soon, 10, "the question")
        house.loop.run_soon()
        assert not waiting.done()
        page.client.close()
        page.turn()
        assert waiting.result(30) is True


def test_the_end_waits_for_nothing_where_there_is_no_answer(house):
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(house.sender.wait_sent, 20)
        wait_until(lambda: house.loop.soon, 10, "the question")
        house.loop.run_soon()
        assert waiting.result(30) is True


def test_of_too_many_slow_clients_the_slowest_is_given_up(house):
    pages = [Page(house) for _ in range(MAX_SENDING)]
    assert all(page.is_open for page in pages)
    newest = Page(house)
    assert [page.is_open for page in pages] == [False] + [True] * (MAX_SENDING - 1)
    assert pages[0].file.closed
    assert newest.is_open


def test_a_source_that_comes_again_and_again_ends_its_own_answers(house):
    """And not that of a client on a slow line."""
    slow = Page(house, "192.0.2.8")
    pages = [Page(house) for _ in range(2 * MAX_SENDING)]
    assert slow.is_open
    assert [page.is_open for page in pages] == [False] * (MAX_SENDING + 1) + [True] * (MAX_SENDING - 1)


def test_clients_that_take_their_answers_at_once_are_never_too_many(house):
    slow = Page(house)
    for _ in range(2 * MAX_SENDING):
        connection, _client = house.connect()
        house.send(connection, Outgoing(b"answer"))
        connection.sock.close()
    assert slow.is_open


def test_a_last_answer_waits_for_the_client_to_end_and_reads_what_it_still_says(house):
    connection, client = house.connect()
    house.sender.send(connection, Outgoing(b"answer"), house.sender.linger)
    assert heard(client) == (b"answer", True)
    for _ in range(5):
        client.send(b"x" * 10_000)
        house.turn(connection)
    assert connection.sock.fileno() != -1
    client.close()
    house.turn(connection)
    assert connection.sock.fileno() == -1
    assert not house.loop.callbacks
    assert not house.loop.pending_timers


def test_a_client_that_never_ends_is_not_waited_for_long(house):
    connection, _client = house.connect()
    house.sender.linger(connection)
    house.loop.advance(2.0)
    assert connection.sock.fileno() == -1
    assert not house.loop.callbacks


def test_a_client_that_is_gone_first_is_closed(house):
    connection, _client = house.connect()
    near, closed = connection.sock, []

    class Gone:
        def setblocking(self, _flag):
            return

        def shutdown(self, _how):
            raise OSError("not connected")

        def close(self):
            closed.append(self)

    with near:
        connection.sock = Gone()
        house.sender.linger(connection)
    assert closed == [connection.sock]
    assert not house.loop.callbacks


def test_closing_ends_those_that_linger_now_and_later(house):
    now, later = house.connect(), house.connect()
    house.sender.linger(now[0])
    house.sender.close()
    later[1].send(b"unread input would reset the connection")
    house.sender.linger(later[0])
    for connection, client in (now, later):
        assert connection.sock.fileno() == -1
        assert heard(client) == (b"", True)
    assert not house.loop.callbacks
    assert not house.loop.pending_timers


def test_an_answer_has_its_content_unless_only_its_head_was_asked_for(house, tmp_path):
    file = tmp_path / "page"
    file.write_bytes(b"content")
    for response in (
        Response(HTTPStatus.OK, body=b"content"),
        Response(HTTPStatus.OK, (("Content-Length", "7"),), file=file),
    ):
        for has_content, content in ((True, b"content"), (False, b"")):
            with naming(response, has_content):
                connection, client = house.connect()
                house.send(connection, open_outgoing(response, has_content))
                house.turn(connection)
                head, _blank, found = heard(client)[0].partition(b"\r\n\r\n")
                assert (head.split(b"\r\n")[0], found) == (b"HTTP/1.1 200 OK", content)


def test_a_file_that_changes_while_it_is_sent_is_never_more_nor_less_than_was_promised(house, tmp_path):
    """The client reads the next answer behind Content-Length."""
    file = tmp_path / "page"
    response = Response(HTTPStatus.OK, (("Content-Length", "7"),), file=file)
    for content, arrived, is_whole in ((b"content and more", b"content", True), (b"cont", b"cont", False)):
        with naming(content):
            file.write_bytes(content)
            connection, client = house.connect()
            house.send(connection, open_outgoing(response, has_content=True))
            house.turn(connection)
            data, has_ended = heard(client)
            assert data.endswith(b"\r\n\r\n" + arrived)
            assert (has_ended, connection in house.sent, connection in house.lost) == (
                not is_whole,
                is_whole,
                not is_whole,
            )


def test_everything_is_sent_only_once_the_connection_has_its_next_owner(house):
    """A console must be the relay's before the consoles are counted."""
    connection, client = house.connect()
    seen = []
    outgoing = Outgoing(b"x" * 4_000_000)
    house.sender.send(connection, outgoing, lambda _: seen.append(house.sender._all_sent.is_set()))
    house.sender._all_sent.clear()
    for _ in range(1000):
        heard(client)
        house.turn(connection)
        if seen:
            break
    assert seen == [False]
    assert house.sender._all_sent.is_set()


def test_answers_that_nobody_takes_are_dropped_in_the_end(house):
    page = Page(house)
    house.sender.drop_rest()
    house.loop.run_soon()
    assert house.lost == [page.connection]
    assert (page.is_open, page.file.closed, house.loop.pending_timers) == (False, True, 0)
