# SPDX-License-Identifier: Apache-2.0
"""Tokens for watching only, and tokens for a number of sessions, on the proxy's doors."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from porthole_common.model import ConsoleMode, ConsoleType
from support.console import connect_xvp
from support.proxy import InProcessProxy
from support.vnc_servers import GREETING, EchoVnc, SilentServer
from support.websocket import CLOSE, RawWebSocket, exchange

NONE, SHARED = b"\x01", b"\x01"
ASK = b"\x03\x01\x00\x00\x00\x00\x04\x00\x03\x00"
KEY = b"\x04\x01\x00\x00\x00\x00\x00a"
UNKNOWN = b"\x7f"
CROWD = 40


@pytest.fixture
def proxy(web_root, stack) -> InProcessProxy:
    return stack.enter_context(InProcessProxy(web_root))


def open_status(proxy: InProcessProxy, token: str) -> int:
    with RawWebSocket(proxy.novnc_port, f"/?token={token}") as client:
        return client.reply.status


def ask_reason(proxy: InProcessProxy, token: str) -> tuple[int, str]:
    request = (
        f"GET /?token={token} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
    )
    reply = exchange(proxy.novnc_port, request.encode())
    return reply.status, json.loads(reply.rest)["reason"]


def test_a_token_for_watching_lets_no_key_through(proxy: InProcessProxy, echo: EchoVnc) -> None:
    """The VNC server returns whatever reaches it, so that a key that it got would be seen."""
    token = proxy.issue(echo, mode=ConsoleMode.VIEW)
    with RawWebSocket(proxy.novnc_port, f"/?token={token}") as client:
        assert client.read_data(len(GREETING)) == GREETING
        client.send(GREETING + NONE + SHARED)
        for part in (KEY[:3], KEY[3:] + ASK[:1], ASK[1:]):
            client.send(part)
        expected = GREETING + NONE + SHARED + ASK
        assert client.read_data(len(expected)) == expected
        client.send(UNKNOWN)
        opcode, payload = client.read_frame()
        assert opcode == CLOSE
        assert int.from_bytes(payload[:2], "big") == 1002
        assert b"view-only" in payload


def test_a_native_viewer_that_watches_types_nothing(proxy: InProcessProxy, echo: EchoVnc) -> None:
    token = proxy.issue(echo, ConsoleType.XVPVNC, mode=ConsoleMode.VIEW)
    status, sock = connect_xvp(proxy.xvp_port, token)
    with sock:
        assert status.split()[1] == b"200"
        sock.sendall(GREETING + NONE + SHARED + KEY + ASK + KEY)
        expected = GREETING + GREETING + NONE + SHARED + ASK
        received = b""
        while len(received) < len(expected):
            received += sock.recv(4096)
        assert received == expected


def test_a_token_for_one_session_opens_one(proxy: InProcessProxy, echo: EchoVnc) -> None:
    token = proxy.issue(echo, uses=1)
    assert ask_reason(proxy, token) == (200, "The console can be opened.")
    assert open_status(proxy, token) == 101
    assert open_status(proxy, token) == 401
    assert ask_reason(proxy, token) == (401, "This address has been used.")


def test_a_screen_that_does_not_answer_costs_no_use(web_root, stack, echo: EchoVnc) -> None:
    proxy = stack.enter_context(InProcessProxy(web_root, dial_timeout_s=0.5))
    silent = stack.enter_context(SilentServer())
    token = proxy.issue(silent, uses=1)
    assert open_status(proxy, token) == 504
    assert proxy.consoleauth.tokens[token].uses == 1


def test_of_a_crowd_with_one_token_as_many_get_in_as_may(
    proxy: InProcessProxy, echo: EchoVnc, report: Callable[[str], None]
) -> None:
    token = proxy.issue(echo, uses=2)
    with ThreadPoolExecutor(CROWD) as pool:
        statuses = list(pool.map(lambda _: open_status(proxy, token), range(CROWD)))
    assert statuses.count(101) == 2
    assert statuses.count(401) == CROWD - 2
