# SPDX-License-Identifier: Apache-2.0
import itertools
import json
import logging
import socket
from http import HTTPStatus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porthole_common import errors
from porthole_common.context import RequestContext, serving
from porthole_common.model import ConnectInfo, ConsoleType
from porthole_common.thread_pool import Job
from porthole_novncproxy.admission.gate import Admission
from porthole_novncproxy.front.handler import ConsoleHandler
from porthole_novncproxy.front.listener import Connection, Overtaken
from porthole_novncproxy.front.pages import PageResponse
from support.cases import naming

TOKEN = "6f9c7a5e-1b6e-4f0e-9a57-2d6d1f3b8c11"
INFO = ConnectInfo("i-1", ConsoleType.NOVNC, "192.0.2.1", 5900, "http://good.org/", "host-1")
UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)


class Desk:
    """Notes what is asked of the server; admits unless there is an ``error``."""

    def __init__(self, error=None):
        self.error = error
        self.requests = []
        self.paths = []
        self.opened = []
        self.released = 0
        self.vnc, self.far_vnc = socket.socketpair()

    def admit(self, request):
        self.requests.append(request)
        if self.error:
            raise self.error
        return Admission(INFO, self.vnc, b"", request.source, 0.0, "req-1", self.release)

    def find_source(self, request):
        return "192.0.2.99" if request.forwarded_for else request.source

    def release(self):
        self.released += 1

    def open_websocket(self, connection, admission):
        self.opened.append(admission)

    def respond(self, raw_path, if_modified_since):
        self.paths.append((raw_path, if_modified_since))
        return PageResponse(HTTPStatus.OK, (("Content-Length", "4"),), None, b"page")


class Exchange:
    """One request, answered: status, headers, body, and what became of the connection."""

    def __init__(self, head, error=None, received=b""):
        near, far = socket.socketpair()
        self.desk = Desk(error)
        connection = Connection(near, ("192.0.2.7", 1), "novnc", near.fileno(), bytearray(received), served=1)
        with near, far, self.desk.vnc, self.desk.far_vnc:
            handler = ConsoleHandler(connection, head.encode("latin-1"), self.desk)
            self.handed_over = handler.handed_over
            self.closes = handler.close_connection
            self.vnc_is_open = self.desk.vnc.fileno() != -1
            if handler.answer:
                while not handler.answer.send(near):
                    pass
            near.shutdown(socket.SHUT_WR)
            reply = b""
            while data := far.recv(65536):
                reply += data
        head, _blank, self.body = reply.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1]) if lines[0] else None
        self.headers = {
            name.lower(): value.strip() for name, _colon, value in (line.partition(":") for line in lines[1:])
        }


def request(*headers, path="/", method="GET", version="HTTP/1.1"):
    return "\r\n".join([f"{method} {path} {version}", *headers, "", ""])


def upgrade(*headers, path=f"/?token={TOKEN}"):
    return request("Host: good.org", *UPGRADE, *headers, path=path)


def test_an_admitted_upgrade_is_101_and_the_sockets_are_the_relays():
    done = Exchange(upgrade("Sec-WebSocket-Protocol: binary"))
    assert done.status == 101
    assert done.headers["upgrade"] == "websocket"
    assert done.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert done.headers["sec-websocket-protocol"] == "binary"
    assert done.body == b""
    assert done.handed_over
    assert done.vnc_is_open
    assert len(done.desk.opened) == 1
    assert done.desk.released == 0


def test_a_refused_upgrade_has_a_status_and_not_a_byte_of_body():
    cases = [
        (errors.TokenInvalid("missing"), 401),
        (errors.OriginRefused("x"), 403),
        (errors.RequestInvalid("x"), 400),
        (errors.LimitReached("x"), 429),
        (errors.VncServerUnavailable("h", 1), 502),
        (errors.RpcUnavailable("t", "m"), 503),
        (errors.VncServerTimeout("h", 1), 504),
    ]
    for error, status in cases:
        with naming(error, status):
            done = Exchange(upgrade(), error)
            assert (done.status, done.body) == (status, b"")
            assert done.headers["content-length"] == "0"
            assert done.headers["connection"] == "close"
            assert "upgrade" not in done.headers
            assert done.closes
            assert not done.handed_over


def test_the_reason_of_a_refusal_as_json_opens_nothing():
    for error, status in ((None, 200), (errors.TokenInvalid("missing"), 401), (errors.VncServerTimeout("h", 1), 504)):
        with naming(error, status):
            done = Exchange(request("Host: good.org", "Accept: application/json", path=f"/?token={TOKEN}"), error)
            assert done.status == status
            body = json.loads(done.body)
            assert body["code"] == status
            assert TOKEN not in body["reason"]
            assert len(done.body) == int(done.headers["content-length"])
            assert done.desk.opened == []
            if error is None:
                assert not done.vnc_is_open
                assert done.desk.released == 1


def test_what_decides_is_handed_to_the_gate_as_it_was_sent():
    done = Exchange(
        upgrade("Origin: http://a", "Origin: http://b", "Host: second", "X-Forwarded-Proto: https", "Cookie: token=x")
    )
    asked = done.desk.requests[0]
    assert asked.token == TOKEN
    assert asked.origins == ("http://a", "http://b")
    assert asked.hosts == ("good.org", "second")
    assert asked.forwarded_proto == "https"
    assert asked.source == "192.0.2.7"
    assert asked.console_type is ConsoleType.NOVNC
    assert asked.is_browser_door


def test_several_cookie_headers_count():
    done = Exchange(upgrade("Cookie: ?=!", f"Cookie: a=b; token={TOKEN}", path="/websockify"))
    assert done.desk.requests[0].token == TOKEN


def test_a_malformed_upgrade_asks_nobody():
    for missing in ("Sec-WebSocket-Key", "Sec-WebSocket-Version"):
        with naming(missing):
            head = "\r\n".join(line for line in upgrade().split("\r\n") if not line.startswith(missing))
            done = Exchange(head)
            assert (done.status, done.body) == (400, b"")
            assert done.desk.requests == []


def test_a_page_is_asked_for_as_it_was_sent():
    done = Exchange(request("Host: x", "If-Modified-Since: then", path="//evil/%2F..?a=b"))
    assert done.desk.paths == [("//evil/%2F..?a=b", "then")]
    assert (done.status, done.body) == (200, b"page")


def test_head_sends_no_body():
    done = Exchange(request("Host: x", method="HEAD"))
    assert (done.status, done.body) == (200, b"")
    assert done.headers["content-length"] == "4"


def test_a_connection_is_kept_as_http_says():
    connections = [
        ("HTTP/1.1", None, False),
        ("HTTP/1.1", "keep-alive", False),
        ("HTTP/1.1", "close", True),
        ("HTTP/1.1", "Close", True),
        ("HTTP/1.0", None, True),
        ("HTTP/1.0", "keep-alive", False),
    ]
    for (version, connection, closes), accept in itertools.product(connections, ["text/html", "application/json"]):
        with naming(version, connection, closes, accept):
            headers = ["Host: x", f"Accept: {accept}", *([f"Connection: {connection}"] if connection else [])]
            assert Exchange(request(*headers, version=version)).closes is closes


def test_a_request_with_a_body_is_refused_and_the_connection_closed():
    bodies = [
        ["Content-Length: 5"],
        ["Content-Length: 00005"],
        ["Content-Length: 0", "Content-Length: 5"],
        ["Content-Length: x"],
        ["Content-Length: -1"],
        ["Transfer-Encoding: chunked"],
    ]
    for method, headers in itertools.product(["GET", "HEAD"], bodies):
        with naming(method, headers):
            done = Exchange(request("Host: x", *headers, method=method))
            assert done.status == 400
            assert done.closes
            assert done.desk.paths == []


def test_other_methods_are_not_offered():
    for method in ("POST", "PUT", "OPTIONS", "CONNECT", "TRACE"):
        with naming(method):
            done = Exchange(request("Host: x", method=method))
            assert done.status == 501
            assert done.closes


@settings(max_examples=150)
@given(st.text(st.characters(codec="latin-1"), max_size=120))
def test_any_request_is_answered_with_a_status_and_no_token_is_logged(text):
    """However it is broken (S6)."""
    with LogOf() as log:
        done = Exchange(f"{text}{TOKEN}\r\n\r\n")
    assert done.status is None or 200 <= done.status <= 599
    assert TOKEN not in log.text
    assert "Traceback" not in log.text


def test_no_token_is_logged_wherever_it_stands():
    paths = [
        f"/?token={TOKEN}",
        f"/token={TOKEN}",
        f"/%3Ftoken%3D{TOKEN}",
        f"/%74oken%3D{TOKEN}",
        f"/{TOKEN}",
        f"/console/{TOKEN.upper()}",
        "/" + "".join(f"%{ord(letter):02x}" for letter in TOKEN),
    ]
    for path, error in itertools.product(paths, [None, errors.TokenInvalid("missing"), errors.RequestInvalid("x")]):
        for head in (
            upgrade(f"Cookie: token={TOKEN}", f"Referer: http://x{path}", path=path),
            request("Host: x", f"Referer: http://x{path}", path=path),
            request("Host: x", "Accept: application/json", path=path),
            request("Host: x", path=path, method="BREW"),
            request("Host: x", path=path, version="HTTP/7"),
        ):
            with naming(head, error):
                with LogOf() as log:
                    Exchange(head, error)
                assert "192.0.2.7" in log.text
                assert TOKEN.lower() not in log.text.lower()
                assert "%36%66" not in log.text


def test_a_refusal_has_the_id_that_the_log_has():
    for head in (upgrade(), request("Host: x", "Accept: application/json")):
        with naming(head):
            context = RequestContext(overwrite=False)
            with serving(context):
                done = Exchange(head, errors.TokenInvalid("missing"))
            assert done.headers["x-openstack-request-id"] == context.request_id


def test_a_page_is_named_in_the_log():
    with LogOf() as log:
        Exchange(request("Host: x", path="/app/ui.js?token=x"))
    assert "method=GET path=/app/ui.js status=200" in log.text


class LogOf(logging.Handler):
    """Everything that is logged inside the block, by anybody, at any level."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.text = ""

    def emit(self, record):
        self.text += f"{record.getMessage()} {record.args} {self.format(record)}\n"

    def __enter__(self):
        self._level = logging.getLogger().level
        logging.getLogger().addHandler(self)
        logging.getLogger().setLevel(logging.DEBUG)
        return self

    def __exit__(self, *_exc):
        logging.getLogger().removeHandler(self)
        logging.getLogger().setLevel(self._level)


def test_whose_request_has_been_answered_since_it_took_too_long_writes_nothing():
    heads = [
        upgrade(),
        upgrade("Sec-WebSocket-Version: 7"),
        request("Host: good.org", "Accept: application/json"),
        request("Host: good.org", "Upgrade: h2c"),
        request("Host: good.org", "Content-Length: 1"),
        request(method="BREW"),
    ]
    for head, error in itertools.product(heads, [None, errors.RpcUnavailable("consoleauth", "check_token")]):
        with naming(head, error):
            near, far = socket.socketpair()
            desk, job = Desk(error), Job(lambda: None)
            job.settle()
            connection = Connection(near, ("192.0.2.7", 1), "novnc", near.fileno(), served=1, job=job)
            with near, far, desk.vnc, desk.far_vnc:
                with pytest.raises(Overtaken):
                    ConsoleHandler(connection, head.encode("latin-1"), desk)
                near.shutdown(socket.SHUT_WR)
                assert far.recv(1) == b""
                assert not desk.opened
                assert desk.released == (len(desk.requests) if error is None else 0)
