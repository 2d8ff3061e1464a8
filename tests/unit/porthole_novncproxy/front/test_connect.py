# SPDX-License-Identifier: Apache-2.0
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porthole_common import errors
from porthole_common.model import ConsoleType
from porthole_novncproxy.front import connect
from porthole_novncproxy.front.listener import Connection
from support.cases import naming

TOKEN = "6f9c7a5e-1b6e-4f0e-9a57-2d6d1f3b8c11"


def test_a_connect_with_a_token():
    cases = [
        f"CONNECT /console?token={TOKEN} HTTP/1.0\r\n\r\n",
        f"CONNECT /console?token={TOKEN} HTTP/1.1\r\n\r\n",
        f"CONNECT /?token={TOKEN} HTTP/1.0\r\nHost: x\r\n\r\n",
        f"CONNECT /console?a=b&token={TOKEN} HTTP/1.0\r\n\r\n",
    ]
    for head in cases:
        with naming(head):
            request = connect.parse_request(head.encode(), "192.0.2.7")
            assert (request.console_type, request.token, request.source) == (ConsoleType.XVPVNC, TOKEN, "192.0.2.7")
            assert not request.is_browser_door


def test_what_is_no_connect_with_a_token_is_a_bad_request():
    cases = [
        "CONNECT /console HTTP/1.0\r\n\r\n",
        "CONNECT /console?token= HTTP/1.0\r\n\r\n",
        f"GET /console?token={TOKEN} HTTP/1.0\r\n\r\n",
        f"POST /console?token={TOKEN} HTTP/1.0\r\n\r\n",
        f"connect /console?token={TOKEN} HTTP/1.0\r\n\r\n",
        f"CONNECT /console?token={TOKEN}\r\n\r\n",
        f"CONNECT /console?token={TOKEN} HTTP/2.0\r\n\r\n",
        f"CONNECT /console?token={TOKEN} extra HTTP/1.0\r\n\r\n",
        f"CONNECT /console HTTP/1.0\r\nCookie: token={TOKEN}\r\n\r\n",
        "RFB 003.008\n\r\n\r\n",
        "\r\n\r\n",
    ]
    for head in cases:
        with naming(head), pytest.raises(errors.RequestInvalid):
            connect.parse_request(head.encode(), "192.0.2.7")


@given(st.binary(max_size=200))
def test_any_head_ends_in_a_request_or_a_bad_request(noise):
    try:
        connect.parse_request(noise + b"\r\n\r\n", "192.0.2.7")
    except errors.RequestInvalid:
        return


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
            near, far = socket.socketpair()
            with near, far:
                connect.refuse(Connection(near, ("192.0.2.7", 1), "xvpvnc", near.fileno()), error)
                reply = far.recv(1000)
            head, _blank, body = reply.partition(b"\r\n\r\n")
            assert head.split(b"\r\n")[0] == line
            assert b"Content-Length: 0" in head.split(b"\r\n")
            assert body == b""


def test_the_answer_to_an_admitted_viewer_is_a_status_line_and_a_blank_line():
    near, far = socket.socketpair()
    with near, far:
        connect.accept(Connection(near, ("192.0.2.7", 1), "xvpvnc", near.fileno()))
        assert far.recv(1000) == b"HTTP/1.1 200 OK\r\n\r\n"
