# SPDX-License-Identifier: Apache-2.0
"""Connections without TLS until their request is whole: the deadline, the limits and the refusals."""

import contextlib
import errno
import socket

import pytest

from porthole_novncproxy.doors import NOVNC, XVPVNC
from porthole_novncproxy.front.request import MAX_HEADER_BYTES
from porthole_novncproxy.front.waiting import WaitingLimits
from porthole_relay.loop import READ
from support.cases import naming
from support.far_end import heard
from support.listener import HEAD, REQUEST, TIMEOUT_S, House, turned_away
from support.scrapes import Growth

pytestmark = pytest.mark.usefixtures("info_is_logged")


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


def test_tls_without_a_certificate_is_refused(house):
    _connection, client = house.connect()
    client.send(b"\x16\x03\x01\x02\x00\x01")
    house.turn()
    assert heard(client)[0].startswith(b"HTTP/1.1 400 ")


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
