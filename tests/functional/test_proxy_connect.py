# SPDX-License-Identifier: Apache-2.0
"""VNC servers behind ``internal_access_path``: the proxy's CONNECT, and every reply to it."""

import pytest

from support.deadlines import kept_within
from support.processes import wait_until
from support.proxy import InProcessProxy
from support.vnc_servers import GREETING, ConnectReplyServer
from support.websocket import RawWebSocket, assert_refused

OK = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.fixture
def make(web_root, stack):
    """A maker of running proxies."""
    return lambda **options: stack.enter_context(InProcessProxy(web_root, **{"dial_timeout_s": 0.5, **options}))


def cut_at(stream, position):
    return [part for part in (stream[:position], stream[position:]) if part]


def test_the_reply_to_connect_and_the_greeting_may_share_a_segment(make, stack):
    """The first RFB bytes are not lost (C1)."""
    server = stack.enter_context(ConnectReplyServer([OK + GREETING]))
    proxy = make()
    token = proxy.issue(server, internal_access_path="/console/4711?a=b")
    with RawWebSocket(proxy.novnc_port, f"/?token={token}") as client:
        assert client.read_data(len(GREETING)) == GREETING
        client.send(b"and on")
        assert client.read_data(6) == b"and on"
    assert server.requests == [f"CONNECT /console/4711?a=b HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()]


@pytest.mark.parametrize("reply", [OK, b"HTTP/1.0 200 Connection established\r\nServer: x\r\n\r\n"])
def test_the_reply_to_connect_may_be_cut_at_every_byte(make, stack, reply):
    """In two segments (C1)."""
    proxy = make(dial_timeout_s=5)
    stream = reply + GREETING
    for position in range(1, len(stream)):
        with ConnectReplyServer(cut_at(stream, position)) as server:
            token = proxy.issue(server, internal_access_path="/x")
            with RawWebSocket(proxy.novnc_port, f"/?token={token}") as client:
                assert client.read_data(len(GREETING)) == GREETING


def test_the_reply_to_connect_may_come_byte_by_byte(make, stack):
    stream = OK + GREETING
    server = stack.enter_context(ConnectReplyServer([stream[index : index + 1] for index in range(len(stream))]))
    proxy = make(dial_timeout_s=5)
    with RawWebSocket(proxy.novnc_port, f"/?token={proxy.issue(server, internal_access_path='/x')}") as client:
        assert client.read_data(len(GREETING)) == GREETING


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 500 try 200\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nX: HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200OK\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 201 Created\r\n\r\n",
        b"200 OK\r\n\r\n",
        b"\r\n\r\n",
        b"X: y\r\nHTTP/1.1 200 OK\r\n\r\n",
        GREETING + b"\r\n\r\n",
        OK[:-2] + b"X: " + b"y" * 5120 + b"\r\n\r\n",
    ],
)
def test_a_reply_to_connect_that_is_not_200_is_502(make, stack, reply):
    """Its status line is parsed, and it is no longer than 4 KiB (C2)."""
    server = stack.enter_context(ConnectReplyServer([reply + GREETING]))
    proxy = make()
    assert_refused(proxy.novnc_port, f"/?token={proxy.issue(server, internal_access_path='/x')}", 502)
    wait_until(lambda: server.open_connections == 0, 30, "the proxy hangs up")


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\n", OK])
def test_a_target_that_ends_within_its_reply_is_502(make, stack, reply):
    """The end is an error, and no loop (C2)."""
    server = stack.enter_context(ConnectReplyServer([reply] if reply else [], ends=True))
    proxy = make()
    assert_refused(proxy.novnc_port, f"/?token={proxy.issue(server, internal_access_path='/x')}", 502)


@pytest.mark.parametrize("segments", [[], [b"HTTP/1.1 200 OK\r\n"], [OK]])
def test_a_target_that_falls_silent_is_504(make, stack, segments):
    """Wherever in its reply (C2)."""
    server = stack.enter_context(ConnectReplyServer(segments))
    proxy = make(dial_timeout_s=0.3)
    with kept_within(0.3, "one dial"):
        assert_refused(proxy.novnc_port, f"/?token={proxy.issue(server, internal_access_path='/x')}", 504)


def test_a_target_that_sends_a_byte_a_second_is_504_within_the_deadline(make, stack):
    """One deadline for all of it (C2)."""
    server = stack.enter_context(ConnectReplyServer([bytes([byte]) for byte in OK + GREETING], pause_s=1))
    proxy = make(dial_timeout_s=1.3)
    # The whole reply would take most of a minute.
    with kept_within(1.3, "one dial"):
        assert_refused(proxy.novnc_port, f"/?token={proxy.issue(server, internal_access_path='/x')}", 504)


@pytest.mark.parametrize("path", ["/x HTTP/1.1\r\nX: y", "/a b", "/\r\n\r\n", "/\u00e9"])
def test_a_path_that_would_break_the_request_is_never_sent(make, stack, path):
    server = stack.enter_context(ConnectReplyServer([OK + GREETING]))
    proxy = make()
    assert_refused(proxy.novnc_port, f"/?token={proxy.issue(server, internal_access_path=path)}", 502)
    assert server.requests == []
