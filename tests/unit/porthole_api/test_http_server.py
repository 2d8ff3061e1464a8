# SPDX-License-Identifier: Apache-2.0
"""What is changed in cheroot: the reading of headers, and private parts, whose absence is reported once."""

import io
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from porthole_api.http_server import HttpServer, _DeadlineReader, _HeaderReader
from porthole_common.private_parts import forget_reports

WARNING = "Private part of a library not found library=cheroot version="


@pytest.fixture(autouse=True)
def reports() -> Iterator[None]:
    forget_reports()
    yield
    forget_reports()


class Connection:
    """A connection whose request has a minute."""

    last_used = None

    def __init__(self) -> None:
        self.deadline_s = time.monotonic() + 60


@pytest.fixture
def reader() -> Iterator[Any]:
    """A reader that has taken "ab" from its socket, and given "a" to its request."""
    sock, peer = socket.socketpair()
    with sock, peer:
        peer.sendall(b"ab")
        reader: Any = _DeadlineReader(Connection(), sock)  # type: ignore[arg-type]
        assert reader.read(1) == b"a"
        yield reader
        reader.close()


@pytest.fixture
def server() -> Iterator[Any]:
    """cheroot's server, which has no room for a connection that waits."""
    http = HttpServer(lambda *_: [], "127.0.0.1", 0, threads=1)
    made: Any = http._server
    made.keep_alive_conn_limit = 0
    yield made
    http.stop()


def test_what_has_arrived_is_known_without_the_network(reader: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert reader.buffered_bytes == 1
    assert caplog.records == []


def test_without_the_readers_parts_nothing_has_arrived(reader: Any, caplog: pytest.LogCaptureFixture) -> None:
    kept = reader._read_buf
    del reader._read_buf
    assert [reader.buffered_bytes, reader.buffered_bytes] == [0, 0]
    reader._read_buf = kept
    (record,) = caplog.records
    assert record.getMessage().startswith(WARNING)


def test_a_header_with_an_underscore_does_not_pass_for_a_proxys() -> None:
    """In WSGI both have the same name."""
    lines = b"X_Forwarded_Host: evil\r\nX-Forwarded_Prefix: /evil\r\nX-Forwarded-Host: a\r\nHost: b\r\n\r\n"
    assert _HeaderReader()(io.BytesIO(lines), {}) == {b"X-Forwarded-Host": b"a", b"Host": b"b"}


def test_several_lines_of_a_proxys_header_are_one_list() -> None:
    lines = b"x-forwarded-for: a, b\r\nForwarded: for=a\r\nX-Forwarded-For: c\r\nForwarded: for=b\r\n"
    lines += b"A: 1\r\nA: 2\r\n\r\n"
    headers = {b"X-Forwarded-For": b"a, b, c", b"Forwarded": b"for=a, for=b", b"A": b"2"}
    assert _HeaderReader()(io.BytesIO(lines)) == headers


def test_a_connection_beyond_the_limit_is_told_so(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    connection = Connection()
    server.process_conn(connection)
    assert server._unservicable_conns.get_nowait() is connection
    assert caplog.records == []


def test_without_cheroots_queue_for_that_it_waits_for_a_thread(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    del server._unservicable_conns
    for _ in range(2):
        server.process_conn(Connection())
    assert server.requests.qsize == 2
    (record,) = caplog.records
    assert record.getMessage().startswith(WARNING)
