# SPDX-License-Identifier: Apache-2.0
"""Clients of the API that do their worst (C38), while others must not notice: no thread before a request is whole.

Each attack comes from one address. Meanwhile good requests are timed, from the same address and from another, against
a quiet measurement in the same test; afterwards the process has the threads, descriptors and memory of before.
"""

import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from porthole_api.http_channel import DISCARD_TIMEOUT_S, REQUEST_DEADLINE_S
from porthole_api.http_crowd import KEPT_BACK, MAX_WAITING_PER_SOURCE
from porthole_api.http_server import MAX_UNREAD_BYTES
from support.api_front import GOOD, ApiFront
from support.deadlines import MACHINE_SLACK_S, crowd_limit_s
from support.processes import wait_until

HEAD = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GET = b"GET /v2.1/servers/detail HTTP/1.1\r\nHost: localhost\r\n\r\n"
NO_BODY = HEAD + b"Content-Length: 10\r\n\r\n"
PATHS = ("/v2.1/servers?limit=10", "/healthcheck")
# What the allocator keeps of MAX_UNREAD_BYTES; a hundred times as much is asked for.
KEPT_MIB = 64


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiFront]:
    with ApiFront(tmp_path_factory.mktemp("front")) as front:
        for path in PATHS:
            front.time_usual(path)
        yield front


@contextlib.contextmanager
def nothing_left(front: ApiFront) -> Iterator[None]:
    """Compare what the process holds before and after."""
    before = front.footprint()
    yield
    wait_until(lambda: front.footprint().descriptors <= before.descriptors, 60, "connections to close")
    after = front.footprint()
    assert after.threads == before.threads
    assert after.memory_mib < before.memory_mib + KEPT_MIB


def time_quiet(front: ApiFront) -> dict[str, float]:
    """Return how long each good request may take under attack: the slowest of several, beside other tests."""
    return {path: 3 * crowd_limit_s(front.time_usual(path)) for path in PATHS}


def assert_nobody_notices(front: ApiFront, limits_s: dict[str, float], *sources: str) -> None:
    for path, limit_s in limits_s.items():
        for source in sources:
            assert front.time_get(path, source) < limit_s, (path, source)


@pytest.mark.parametrize(
    ("count", "data"),
    [
        (50, b"G"),
        (200, b"G"),
        (50, NO_BODY),
        (200, NO_BODY),
        (600, b""),
        (200, HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\nx"),
        (50, b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 10_000 + b"\r\n"),
        (50, HEAD + b"Content-Length: 1000000000\r\n\r\n" + b"x" * 100_000),
        (200, HEAD + b"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n"),
    ],
    ids=["50-bytes", "200-bytes", "50-heads", "200-heads", "600-idle", "chunks", "lines", "long", "continue"],
)
def test_requests_that_never_end_hold_up_nobody(front: ApiFront, count: int, data: bytes) -> None:
    limits_s = time_quiet(front)
    with nothing_left(front), front.clients(count, data):
        assert_nobody_notices(front, limits_s, "127.0.0.1", GOOD)


def test_a_part_of_a_request_has_a_deadline_and_an_answer(front: ApiFront) -> None:
    with nothing_left(front), front.clients(3, NO_BODY) as clients:
        for client in clients:
            client.settimeout(REQUEST_DEADLINE_S + MACHINE_SLACK_S)
            assert client.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_the_oldest_of_a_crowd_leaves_for_a_new_one(front: ApiFront) -> None:
    """Told why, if it has sent a part of a request; the others of the crowd stay, and so do those of other sources."""
    count = MAX_WAITING_PER_SOURCE
    with (
        nothing_left(front),
        front.connect(GOOD) as good,
        front.clients(count, b"G") as clients,
        front.connect() as new,
    ):
        assert clients[0].recv(1000).startswith(b"HTTP/1.1 429 ")
        for client in (new, good):
            client.sendall(GET)
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_burst_of_one_address_is_answered(front: ApiFront) -> None:
    """More than may wait: whoever has sent a whole request does not wait, also while the loop has not seen it yet."""
    front.process.signal(signal.SIGSTOP)
    with nothing_left(front), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(front.connect()) for _ in range(3 * MAX_WAITING_PER_SOURCE)]
        for client in clients:
            client.sendall(b"GET /v2.1 HTTP/1.1\r\n\r\n")
        front.process.signal(signal.SIGCONT)
        assert {client.recv(1000)[:12] for client in clients} == {b"HTTP/1.1 200"}


def test_descriptors_are_kept_back(tmp_path: Path) -> None:
    """Of 256 descriptors, connections get a half; each of three sources tries to have all."""
    with ApiFront(tmp_path, descriptors=256) as front, contextlib.ExitStack() as stack:
        limits_s = time_quiet(front)
        for source in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
            for _ in range(100):
                stack.enter_context(front.connect(source))
        assert_nobody_notices(front, limits_s, "127.0.0.1", GOOD)
        assert front.footprint().descriptors <= 256 - KEPT_BACK + 40


def test_clients_that_send_ahead_have_one_turn_each(front: ApiFront) -> None:
    """1 000 requests at once; each is answered, and others have their turn between them."""
    limits_s = time_quiet(front)
    request = b"GET /v2.1 HTTP/1.1\r\n\r\n"
    with nothing_left(front), front.clients(5, request * 1000) as clients:
        assert_nobody_notices(front, limits_s, "127.0.0.1", GOOD)
        for client in clients:
            client.sendall(b"GET /v2.1 HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert [count_answers(client) for client in clients] == [1001] * len(clients)


def test_clients_that_do_not_read_take_no_thread_and_bounded_memory(front: ApiFront) -> None:
    """A hundred answers of a megabyte and more, and a hundred more sent ahead."""
    limits_s = time_quiet(front)
    before = front.footprint()
    with nothing_left(front), front.clients(90, GET * 100, receive_buffer_bytes=4096):
        assert_nobody_notices(front, limits_s, "127.0.0.1", GOOD)
        bound_mib = before.memory_mib + 2 * MAX_UNREAD_BYTES / 2**20
        assert front.footprint().memory_mib < bound_mib


def test_a_client_that_reads_slowly_gets_all_of_its_answer(front: ApiFront) -> None:
    with front.clients(
        1, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), receive_buffer_bytes=4096
    ) as clients:
        data = bytearray()
        while block := clients[0].recv(2048):
            data += block
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head


def test_a_refusal_lingers_outside_the_threads(front: ApiFront) -> None:
    limits_s = time_quiet(front)
    with nothing_left(front), front.clients(90, b"nonsense\r\n\r\n") as clients:
        assert_nobody_notices(front, limits_s, "127.0.0.1", GOOD)
        for client in clients:
            client.settimeout(DISCARD_TIMEOUT_S + MACHINE_SLACK_S)
            assert client.recv(1000).startswith(b"HTTP/1.1 400 ")


def count_answers(client: socket.socket) -> int:
    """Count the answers up to the end of the connection."""
    count, data = 0, b""
    while block := client.recv(1 << 16):
        data += block
        count += data.count(b"HTTP/1.1 200")
        data = data[-11:]
    return count
