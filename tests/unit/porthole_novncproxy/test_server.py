# SPDX-License-Identifier: Apache-2.0

"""The way of a request through the parts, on real sockets and a loop that the test turns by hand."""

import contextlib
import errno
import logging
import select
import socket
import struct
import threading
import time
from http import HTTPStatus
from pathlib import Path, PosixPath

import pytest

from porthole_common import errors
from porthole_common.model import ConnectInfo, ConsoleType
from porthole_novncproxy.admission.gate import Admission, log_refusal
from porthole_novncproxy.doors import DOORS, NOVNC, XVPVNC
from porthole_novncproxy.front.responses import Response
from porthole_novncproxy.front.waiting import WaitingLimits
from porthole_novncproxy.server import ProxyServer
from porthole_relay.codec import RawCodec, WebSocketCodec
from support.cases import naming
from support.fake_loop import FakeLoop
from support.scrapes import Growth
from support.websocket import build_upgrade

LONG_S = 30
TOKEN = "6f9c7a5e-1b6e-4f0e-9a57-2d6d1f3b8c11"
INFO = ConnectInfo("i-1", ConsoleType.NOVNC, "192.0.2.1", 5900, "http://good.org/", "host-1")
PAGE = b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = build_upgrade(f"/?token={TOKEN}")
CONNECT = f"CONNECT /console?token={TOKEN} HTTP/1.0\r\n\r\n".encode()


class Loop(FakeLoop):
    def start(self):
        return

    def stop(self):
        return


class Gate:
    """Admits, unless there is an ``error``, once it ``may_answer``; ``step`` is what it waits for until then."""

    log_refusal = staticmethod(log_refusal)

    def __init__(self):
        self.error = self.step = None
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked = []
        self.given_back = 0
        self.sources_asked = 0
        self.checked = []
        self.refused = set()

    def admit(self, request, deadline):
        self.asked.append(request)
        with deadline.step(0.0, self.step) if self.step else contextlib.nullcontext():
            assert self.may_answer.wait(LONG_S)
        if self.error:
            raise self.error
        return Admission(INFO, socket.socket(), b"", request.source, 0.0, "req-1", self.release)

    def find_source(self, source, forwarded_for):
        self.sources_asked += 1
        return forwarded_for[-1] if forwarded_for else source

    def is_trusted_proxy(self, address):
        return False

    def check_source(self, source, token):
        self.checked.append((source, token))
        if source in self.refused:
            raise errors.TokensRefused(2.5)

    def release(self):
        self.given_back += 1


class Exhausted(PosixPath):
    """A file in a process that is out of descriptors."""

    def open(self, *arguments, **options):
        raise OSError(errno.EMFILE, "Too many open files")


class Pages:
    healthcheck = Response(HTTPStatus.OK, (("Content-Length", "3"),), b"OK\n")

    def __init__(self):
        self.may_answer = threading.Event()
        self.may_answer.set()

    def respond(self, raw_path, if_modified_since):
        assert self.may_answer.wait(LONG_S)
        if raw_path == "/gone":
            return Response(HTTPStatus.OK, file=Path("/nonexistent/page"))
        if raw_path == "/exhausted":
            return Response(HTTPStatus.OK, file=Exhausted("/page"))
        return Response(HTTPStatus.OK, (("Content-Length", "4"),), b"page")


class Relay:
    """Notes the consoles that are opened."""

    def __init__(self):
        self.opened = []

    def open(self, sock, rest, admission, codec):
        self.opened.append((rest, admission, type(codec)))
        sock.close()
        admission.close()

    def stop(self, _drain_timeout_s):
        return


class House:
    def __init__(self, backlog=10):
        self.loop, self.gate, self.pages, self.sessions = Loop(), Gate(), Pages(), Relay()
        self.server = ProxyServer(
            loop=self.loop,
            gate=self.gate,
            pages=self.pages,
            tls_context=None,
            ssl_only=False,
            request_timeout_s=LONG_S,
            handshake_threads=2,
            handshake_backlog=backlog,
            sessions=self.sessions,
            waiting_limits=WaitingLimits(1000, 1000),
        )
        self.listening = {door: socket.create_server(("127.0.0.1", 0)) for door in DOORS}
        self.server.start(self.listening)
        self.clients = []

    def ask(self, data, door=NOVNC):
        client = socket.create_connection(("127.0.0.1", self.listening[door].getsockname()[1]), LONG_S)
        self.clients.append(client)
        client.sendall(data)
        client.setblocking(False)
        return client

    def turn_until(self, predicate):
        """Turn the loop until something is so: threads may have to give it something to do first."""
        until = time.monotonic() + LONG_S
        while not predicate():
            assert time.monotonic() < until
            self.loop.run_soon()
            poll = select.poll()
            for fd, mask in self.loop.masks.items():
                poll.register(fd, mask)
            for fd, events in poll.poll(10):
                if fd in self.loop.callbacks:
                    self.loop.callbacks[fd](events)

    def hear(self, client, is_whole):
        """What the client is sent, until ``is_whole(data)``; None stands for the end of the stream."""
        data = b""

        def receive():
            nonlocal data
            with contextlib.suppress(BlockingIOError):
                chunk = client.recv(65536)
                data += chunk
                return is_whole(data) if chunk else is_whole(None)
            return False

        self.turn_until(receive)
        return data

    def hear_to_end(self, client):
        return self.hear(client, lambda data: data is None)

    def close(self):
        self.gate.may_answer.set()
        self.pages.may_answer.set()
        # As in a loop's own thread.
        stopping = threading.Thread(target=self.server.stop, args=(0,))
        stopping.start()
        self.turn_until(lambda: not stopping.is_alive())
        for client in self.clients:
            client.close()


@pytest.fixture
def house():
    made = House()
    yield made
    made.close()


def status_of(reply):
    return int(reply.split(b" ", 2)[1])


def test_pages_are_answered_one_after_the_other_on_a_connection(house):
    client = house.ask(PAGE * 3)
    assert house.hear(client, lambda data: data and data.count(b"page") == 3).count(b"HTTP/1.1 200 OK") == 3


def test_an_answer_whose_line_is_not_logged_costs_the_loop_no_look_at_the_client(house, caplog):
    for level, asked in ((logging.INFO, 0), (logging.DEBUG, 1)):
        caplog.set_level(level, "porthole_novncproxy.front.handler")
        client = house.ask(PAGE)
        house.hear(client, lambda data: data and b"page" in data)
        assert house.gate.sources_asked == asked


def test_a_page_that_goes_before_it_is_opened_is_404(house):
    assert status_of(house.hear_to_end(house.ask(PAGE.replace(b"/page", b"/gone")))) == 404


def test_a_page_that_the_process_cannot_open_is_503(house):
    assert status_of(house.hear_to_end(house.ask(PAGE.replace(b"/page", b"/exhausted")))) == 503


def test_a_connection_ends_when_the_client_wants_it(house):
    for request in (PAGE.replace(b"Host: x", b"Connection: close"), PAGE.replace(b"HTTP/1.1", b"HTTP/1.0")):
        with naming(request):
            reply = house.hear_to_end(house.ask(request))
            assert (status_of(reply), b"\r\nConnection: close\r\n" in reply) == (200, True)


def test_an_upgrade_and_a_connect_become_consoles_with_what_came_behind_them(house):
    for door, request, status, codec in ((NOVNC, UPGRADE, 101, WebSocketCodec), (XVPVNC, CONNECT, 200, RawCodec)):
        with naming(door.name):
            house.sessions.opened.clear()
            reply = house.hear_to_end(house.ask(request + b"early", door))
            assert status_of(reply) == status
            ((rest, admission, kind),) = house.sessions.opened
            assert (rest, admission.connect_info, kind) == (b"early", INFO, codec)
            assert house.gate.asked[-1].door is door


def test_a_refused_console_is_no_console(house):
    house.gate.error = errors.TokenInvalid("unknown")
    for door, request in ((NOVNC, UPGRADE), (XVPVNC, CONNECT)):
        with naming(door.name):
            assert status_of(house.hear_to_end(house.ask(request, door))) == 401
    assert house.sessions.opened == []


def test_a_client_that_leaves_before_its_101_gives_its_console_back(house):
    house.gate.may_answer.clear()
    client = house.ask(UPGRADE)
    house.turn_until(lambda: house.gate.asked)
    # A reset: unread bytes, and no time to linger.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    house.gate.may_answer.set()
    house.turn_until(lambda: house.gate.given_back)
    assert house.sessions.opened == []


def test_a_health_check_is_answered_while_every_thread_is_busy(house):
    house.pages.may_answer.clear()
    house.gate.may_answer.clear()
    for _ in range(5):
        house.ask(PAGE)
        house.ask(UPGRADE)
    reply = house.hear(house.ask(b"GET /healthcheck HTTP/1.1\r\n\r\n"), lambda data: data and data.endswith(b"OK\n"))
    assert status_of(reply) == 200


def test_hundreds_of_pipelined_health_checks_are_answered(house):
    count = 500
    client = house.ask(b"GET /healthcheck HTTP/1.1\r\n\r\n" * count)
    assert house.hear(client, lambda data: data and data.count(b"OK\n") >= count).count(b"HTTP/1.1 200 ") == count


def test_three_attacks_get_one_answer_and_run_nothing(house):
    """The second request of each would be answered by a parser that reads the first one otherwise."""
    attacks = [
        b"GET /page HTTP/1.1\r\nHost: x\r\nBad Header\r\nContent-Length: 33\r\n\r\n" + PAGE,
        f"GET /?token={TOKEN} HTTP/1.1\r\nHost: x\r\nAccept: text/html,\r\n application/json\r\n\r\n".encode() + PAGE,
        f"GET /?token={TOKEN} HTTP/1.1\r\nHost: x\r\nX-A: b\rUpgrade: websocket\r\n\r\n".encode() + PAGE,
    ]
    for attack in attacks:
        with naming(attack):
            reply = house.hear_to_end(house.ask(attack))
            assert (status_of(reply), reply.count(b"HTTP/1.1 ")) == (400, 1)
    assert house.gate.asked == []


def test_a_late_console_is_refused_by_what_it_waits_for(house, caplog):
    caplog.set_level(logging.INFO)
    cases = [
        (errors.RpcUnavailable("compute", "validate_console"), 503, ["RPC not answered", "Console refused"]),
        (errors.VncServerTimeout("192.0.2.1", 5900), 504, ["Console refused"]),
    ]
    for step, status, events in cases:
        for door, request in ((NOVNC, UPGRADE), (XVPVNC, CONNECT)):
            with naming(step, door.name):
                caplog.clear()
                house.gate.may_answer.clear()
                house.gate.step = step
                client = house.ask(request, door)
                house.turn_until(lambda: house.gate.asked)
                house.loop.advance(1)
                reply = house.hear_to_end(client)
                assert status_of(reply) == status
                assert b"X-OpenStack-Request-ID: req-" in reply
                assert [line for line in caplog.messages if line.startswith(tuple(events))] == caplog.messages
                assert len(caplog.messages) == len(events)
                house.gate.may_answer.set()
                house.turn_until(lambda: house.gate.given_back)
                house.gate.given_back = 0
                house.gate.asked.clear()
    assert house.sessions.opened == []


def test_more_requests_than_may_wait_are_turned_away(caplog):
    """The log names the client behind a trusted proxy, as the lines of the access decision do."""
    with contextlib.closing(House(backlog=0)) as house:
        for request, places in ((PAGE, 4), (UPGRADE, 2)):
            with naming(request):
                house.pages.may_answer.clear()
                house.gate.may_answer.clear()
                for _ in range(places):
                    house.ask(request)
                caplog.clear()
                forwarded = request.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 203.0.113.5\r\n\r\n")
                reply = house.hear_to_end(house.ask(forwarded))
                assert (status_of(reply), b"Retry-After: 1\r\n" in reply) == (503, True)
                (line,) = caplog.messages
                assert line == 'Client turned away client=203.0.113.5 limit="[novncproxy] handshake_backlog"'


def test_a_fault_in_one_request_hangs_up_on_its_client_alone(house, caplog):
    house.gate.error = KeyError("a fault")
    assert house.hear_to_end(house.ask(UPGRADE)) == b""
    assert "Request failed" in caplog.text
    house.gate.error = None
    assert status_of(house.hear_to_end(house.ask(UPGRADE))) == 101


def test_a_source_that_must_wait_gets_no_thread_at_either_door(house):
    house.gate.refused.add("127.0.0.1")
    reason = PAGE.replace(b"Host: x", b"Accept: application/json\r\nConnection: close").replace(
        b"/page", b"/?token=" + TOKEN.encode()
    )
    for door, request in ((NOVNC, UPGRADE), (NOVNC, reason), (XVPVNC, CONNECT)):
        with naming(door.name, request):
            reply = house.hear_to_end(house.ask(request, door))
            assert status_of(reply) == 429
            assert b"\r\nRetry-After: 3\r\n" in reply
            assert (b"were not valid" in reply) is (request is reason)
    assert house.gate.asked == []
    assert house.gate.checked == [("127.0.0.1", TOKEN)] * 3
    # Pages are for everybody.
    assert status_of(house.hear(house.ask(PAGE), lambda data: data and b"page" in data)) == 200


def test_a_client_that_must_wait_is_the_one_behind_the_trusted_proxy(house):
    house.gate.refused.add("198.51.100.1")
    for client, status in (("198.51.100.1", 429), ("198.51.100.2", 101)):
        with naming(client):
            request = build_upgrade(f"/?token={TOKEN}", [("X-Forwarded-For", client)])
            assert status_of(house.hear_to_end(house.ask(request))) == status


def test_what_has_ended_or_is_a_console_is_no_waiting_connection(house):
    waiting = house.server._waiting
    for door, request in ((NOVNC, UPGRADE), (XVPVNC, CONNECT), (NOVNC, PAGE.replace(b"Host: x", b"Connection: close"))):
        client = house.ask(request, door)
        house.hear_to_end(client)
        client.close()
        house.turn_until(lambda: not waiting.total)


def test_a_client_that_is_turned_away_is_counted():
    for request, door, openings in ((PAGE, NOVNC, 0), (UPGRADE, NOVNC, 1), (CONNECT, XVPVNC, 1)):
        with naming(door.name), contextlib.closing(House(backlog=0)) as house:
            refusals = Growth("porthole_refusals_total", door=door.name, reason="handshake_backlog", status="503")
            refused = Growth("porthole_openings_total", door=door.name, outcome="refused")
            house.gate.may_answer.clear()
            house.pages.may_answer.clear()
            for _ in range(5):
                house.ask(request, door)
            last = house.ask(request, door)
            assert b" 503 " in house.hear_to_end(last)
            house.turn_until(lambda refusals=refusals: refusals.grown >= 1)
            assert refused.grown == openings * refusals.grown


def test_a_client_that_leaves_before_its_answer_is_counted():
    lost, opened = (Growth("porthole_openings_total", door="novnc", outcome=each) for each in ("lost", "opened"))
    with contextlib.closing(House()) as house:
        house.gate.may_answer.clear()
        client = house.ask(UPGRADE)
        house.turn_until(lambda: house.gate.asked)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        house.gate.may_answer.set()
        house.turn_until(lambda: house.gate.given_back == 1)
    assert (lost.grown, opened.grown) == (1, 0)
