# SPDX-License-Identifier: Apache-2.0
"""The server of the metrics, with clients that do their worst beside one that must not notice."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from porthole_common import metrics
from porthole_common.metrics_gathering import gather
from porthole_common.metrics_server import MAX_CONNECTIONS, MetricsServer
from support.processes import wait_until
from support.scrapes import scrape

BODY = b"# TYPE things gauge\nthings 1.0\n" + b"".join(b'others{n="%d"} 1.0\n' % each for each in range(200_000))
SMALL = b"# TYPE things gauge\nthings 1.0\n"
DEADLINE_S = 1.0
TIMEOUT_S = 20


class Served:
    def __init__(self, stack: ExitStack, body: bytes = SMALL, deadline_s: float = DEADLINE_S) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.server = MetricsServer(lambda: self.listener, lambda: body, deadline_s, retry_s=0.05)
        self.server.start()
        stack.callback(self.server.stop)
        self._stack = stack

    def connect(self, sent: bytes = b"") -> socket.socket:
        sock = self._stack.enter_context(socket.create_connection(("127.0.0.1", self.port), TIMEOUT_S))
        sock.sendall(sent)
        return sock


@pytest.fixture
def served(stack: ExitStack) -> Served:
    return Served(stack)


@pytest.fixture
def big(stack: ExitStack) -> Served:
    return Served(stack, BODY)


def count_threads() -> int:
    return threading.active_count()


def read_to_end(sock: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(65536):
            received += data
    return received


def test_silent_clients_keep_no_scrape_out(stack: ExitStack) -> None:
    served = Served(stack, deadline_s=3600)
    threads = count_threads()
    silent = [served.connect(b"GET /metr") for _ in range(4 * MAX_CONNECTIONS)]
    assert scrape(served.port).get("things") == 1
    assert count_threads() == threads
    # The oldest ones had to go.
    for sock in silent[:-MAX_CONNECTIONS]:
        assert read_to_end(sock) == b""


def test_silent_clients_end_at_their_deadline(served: Served) -> None:
    for sock in [served.connect(b"GET /metr") for _ in range(3)]:
        assert read_to_end(sock) == b""


def test_clients_that_read_nothing_hold_nothing_but_their_answer(big: Served) -> None:
    slow = [big.connect(b"GET /metrics HTTP/1.1\r\n\r\n") for _ in range(3)]
    began_at = time.monotonic()
    assert scrape(big.port).get("things") == 1
    assert time.monotonic() - began_at < TIMEOUT_S / 2
    # Cut off, with a part of the answer.
    time.sleep(DEADLINE_S * 1.5)
    assert all(len(read_to_end(sock)) < len(BODY) for sock in slow)
    assert scrape(big.port).get("things") == 1


def test_a_client_byte_by_byte_and_one_that_says_more(served: Served) -> None:
    sock = served.connect()
    for byte in b"GET /metrics HTTP/1.1\r\n\r\n":
        sock.sendall(bytes([byte]))
    assert read_to_end(sock).endswith(SMALL)
    # The answer comes through, although the rest of the request is not read.
    long = served.connect()
    with contextlib.suppress(ConnectionError):
        long.sendall(b"x" * 100_000)
    assert read_to_end(long).startswith(b"HTTP/1.1 431 ")


def test_many_connections_leave_no_descriptor(served: Served) -> None:
    scrape(served.port)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        socket.create_connection(("127.0.0.1", served.port), TIMEOUT_S).close()
    assert scrape(served.port).get("things") == 1
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before, TIMEOUT_S, "the descriptors")


@pytest.fixture
def sampled() -> Iterator[list[float]]:
    times: list[float] = []

    def sample() -> None:
        times.append(time.monotonic())

    metrics.SAMPLERS.append(sample)
    yield times
    metrics.SAMPLERS.remove(sample)


def test_samplers_run_once_a_second_whatever_the_clients_do(sampled: list[float], served: Served) -> None:
    wait_until(lambda: len(sampled) >= 1, TIMEOUT_S, "the first sample")
    until = time.monotonic() + 2.2
    while time.monotonic() < until:
        served.connect(b"GET /metrics HTTP/1.1\r\n\r\n")
        time.sleep(0.02)
    assert 2 <= len(sampled) <= 5


def test_a_server_ends_with_its_clients(stack: ExitStack) -> None:
    served = Served(stack)
    waiting = served.connect(b"GET ")
    scrape(served.port)
    served.server.stop()
    assert read_to_end(waiting) == b""
    with pytest.raises(ConnectionRefusedError):
        served.connect()


@pytest.fixture
def listen_unix(stack: ExitStack) -> Callable[[], socket.socket]:
    def listen() -> socket.socket:
        sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        sock.bind("")
        sock.listen(1)
        return sock

    return listen


def test_workers_are_asked_at_once_and_none_waits_for_another(
    listen_unix: Callable[[], socket.socket], stack: ExitStack
) -> None:
    good, silent, refusing = listen_unix(), listen_unix(), listen_unix()
    server = MetricsServer(lambda: good, lambda: BODY)
    server.start()
    stack.callback(server.stop)

    def answer_500() -> None:
        with refusing.accept()[0] as sock:
            sock.sendall(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=answer_500)
    thread.start()
    began_at = time.monotonic()
    addresses: dict[str, str | bytes] = {
        "0": silent.getsockname(),
        "1": good.getsockname(),
        "2": b"\0porthole-nobody-listens-here",
        "3": refusing.getsockname(),
    }
    texts = gather(addresses, deadline_s=3.0)
    assert texts == {"0": None, "1": BODY, "3": None}
    assert 2.5 < time.monotonic() - began_at < TIMEOUT_S / 2
    thread.join(TIMEOUT_S)


def test_the_process_of_another_user_is_not_believed(
    listen_unix: Callable[[], socket.socket], stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = listen_unix()
    server = MetricsServer(lambda: stranger, lambda: SMALL)
    server.start()
    stack.callback(server.stop)
    assert gather({"0": stranger.getsockname()}) == {"0": SMALL}
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert gather({"0": stranger.getsockname()}) == {"0": None}
