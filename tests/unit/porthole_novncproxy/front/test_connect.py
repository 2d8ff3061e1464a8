# SPDX-License-Identifier: Apache-2.0
import socket

import pytest

from porthole_common import errors
from porthole_common.deadline import Deadline
from porthole_common.model import ConnectInfo, ConsoleType
from porthole_novncproxy.admission.gate import Admission, log_refusal
from porthole_novncproxy.doors import XVPVNC
from porthole_novncproxy.front import connect
from porthole_novncproxy.front.request import Request
from porthole_novncproxy.front.responses import Upgrade, build_head
from support.cases import naming

TOKEN = "6f9c7a5e-1b6e-4f0e-9a57-2d6d1f3b8c11"
INFO = ConnectInfo("i-1", ConsoleType.XVPVNC, "192.0.2.1", 5900, "http://good.org/", "host-1")


def request(method="CONNECT", target=f"/console?token={TOKEN}", *fields):
    return Request(method, target, None, 0, fields)


def test_a_connect_with_a_token():
    for target in (f"/console?token={TOKEN}", f"/?token={TOKEN}", f"/console?a=b&token={TOKEN}"):
        with naming(target):
            asked = connect.parse_console_request(request(target=target), XVPVNC, "192.0.2.7")
            assert (asked.door, asked.token, asked.source) == (XVPVNC, TOKEN, "192.0.2.7")


def test_a_request_that_is_no_connect_with_a_token_is_refused():
    cases = [
        request("CONNECT", "/console"),
        request("CONNECT", "/console?token="),
        request("GET"),
        request("connect"),
        request("CONNECT", "/console", ("cookie", f"token={TOKEN}")),
    ]
    for refused in cases:
        with naming(refused), pytest.raises(errors.RequestInvalid):
            connect.parse_console_request(refused, XVPVNC, "192.0.2.7")


class Gate:
    """Admits, or raises ``error``."""

    log_refusal = staticmethod(log_refusal)

    def __init__(self, error=None):
        self.error = error
        self.asked = []

    def admit(self, console_request, deadline):
        self.asked.append((console_request, deadline))
        if self.error:
            raise self.error
        return Admission(INFO, socket.socket(), b"", "192.0.2.7", 0.0, "req-1", lambda: None)


def test_a_viewer_that_is_let_in_gets_a_status_line_and_then_its_console():
    gate, deadline = Gate(), Deadline()
    answer = connect.answer_console(request(), XVPVNC, "192.0.2.7", gate, deadline)
    assert isinstance(answer, Upgrade)
    answer.admission.close()
    assert build_head(answer.response) == b"HTTP/1.1 200 OK\r\n\r\n"
    ((asked, given),) = gate.asked
    assert (asked.token, given) == (TOKEN, deadline)


def test_a_refusal_is_a_status_without_a_body():
    cases = [
        (errors.RequestInvalid("x"), b"HTTP/1.1 400 Bad Request"),
        (errors.TokenInvalid("unknown"), b"HTTP/1.1 401 Unauthorized"),
        (errors.LimitReached("x"), b"HTTP/1.1 429 Too Many Requests"),
        (errors.VncServerUnavailable("h", 1), b"HTTP/1.1 502 Bad Gateway"),
        (errors.RpcUnavailable("t", "m"), b"HTTP/1.1 503 Service Unavailable"),
        (errors.VncServerTimeout("h", 1), b"HTTP/1.1 504 Gateway Timeout"),
    ]
    for error, line in cases:
        with naming(error, line):
            response = connect.answer_console(request(), XVPVNC, "192.0.2.7", Gate(error), Deadline())
            assert build_head(response) == line + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            assert (response.body, response.is_last) == (b"", True)


def test_a_malformed_request_asks_nobody():
    gate = Gate()
    response = connect.answer_console(request("GET"), XVPVNC, "192.0.2.7", gate, Deadline())
    assert (response.status, gate.asked) == (400, [])
