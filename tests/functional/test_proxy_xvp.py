# SPDX-License-Identifier: Apache-2.0
"""The native viewers' door: CONNECT with a token, a status line, and then nothing but RFB."""

import ssl
import uuid

import pytest

from porthole_common import errors
from porthole_common.model import ConsoleType
from porthole_novncproxy.admission.limits import Limits
from support.processes import wait_until
from support.proxy import InProcessProxy
from support.vnc_servers import (
    GREETING,
    BlackHole,
    ConnectReplyServer,
    DribblingServer,
    EchoVnc,
    ResettingServer,
    SilentServer,
    SpeakingServer,
    TrapServer,
    reset,
)
from support.websocket import connect, exchange, read_reply, read_to_end


@pytest.fixture
def make(web_root, stack):
    return lambda **options: stack.enter_context(InProcessProxy(web_root, **{"dial_timeout_s": 0.5, **options}))


@pytest.fixture
def trap(stack):
    server = stack.enter_context(TrapServer())
    yield server
    assert server.accepted == 0, "a VNC server was dialled for a client that may not in"


def connect_request(token):
    return f"CONNECT /console?token={token} HTTP/1.0\r\n\r\n".encode()


class Viewer:
    """A native viewer behind its CONNECT; ``behind`` goes with it in one segment."""

    def __init__(self, proxy, token, behind=b"", context=None):
        self.sock = connect(proxy.xvp_port, context)
        self.sock.sendall(connect_request(token) + behind)
        reply = read_reply(self.sock)
        assert (reply.status, reply.headers) == (200, {})
        self._received = reply.rest

    def read(self, size):
        while len(self._received) < size:
            data = self.sock.recv(65536)
            assert data, f"the stream ended after {self._received!r}"
            self._received += data
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    def read_to_end(self):
        return self._received + read_to_end(self.sock)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.sock.close()


def issue(proxy, server, **fields):
    return proxy.issue(server, ConsoleType.XVPVNC, **fields)


def assert_refused(proxy, request, status):
    reply = exchange(proxy.xvp_port, request)
    assert (reply.status, reply.rest) == (status, b"")
    assert reply.headers["content-length"] == "0"


def test_the_answer_is_a_status_line_and_then_rfb(make, stack):
    proxy = make()
    token = issue(proxy, stack.enter_context(EchoVnc()))
    with connect(proxy.xvp_port) as sock:
        sock.sendall(connect_request(token))
        received = b""
        while len(received) < 19 + len(GREETING):
            received += sock.recv(100)
        assert received == b"HTTP/1.1 200 OK\r\n\r\n" + GREETING


def test_bytes_are_left_as_they_are_both_ways(make, stack):
    proxy = make()
    payload = bytes(range(256)) * 4096
    with Viewer(proxy, issue(proxy, stack.enter_context(EchoVnc()))) as viewer:
        assert viewer.read(len(GREETING)) == GREETING
        viewer.sock.sendall(payload)
        assert viewer.read(len(payload)) == payload


@pytest.mark.parametrize(
    "request_text",
    [
        "CONNECT /console HTTP/1.0\r\n\r\n",
        "CONNECT /console?token= HTTP/1.0\r\n\r\n",
        "GET /console?token={} HTTP/1.0\r\n\r\n",
        "GET /console?token={} HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
        "RFB 003.008\n\r\n\r\n",
    ],
)
def test_what_is_no_connect_with_a_token_is_400(make, trap, request_text):
    proxy = make()
    assert_refused(proxy, request_text.format(issue(proxy, trap)).encode(), 400)


def test_a_bad_token_is_401(make, trap):
    """A browser's token at the viewers' door is one (S18)."""
    proxy = make()
    for token in ("x", "a" * 1000, str(uuid.uuid4()), proxy.issue(trap, ConsoleType.NOVNC)):
        assert_refused(proxy, connect_request(token), 401)
    assert len(proxy.consoleauth.asked) == 2
    assert proxy.compute.asked == []


@pytest.mark.parametrize(
    ("error", "status"),
    [(errors.InstanceNotRunning("i", "shutoff"), 401), (errors.RpcUnavailable("compute", "validate_console"), 503)],
)
def test_what_compute_says(make, trap, error, status):
    proxy = make()
    proxy.compute.error = error
    assert_refused(proxy, connect_request(issue(proxy, trap)), status)


@pytest.mark.parametrize(("kind", "status"), [(ResettingServer, 502), (SilentServer, 504), (BlackHole, 504)])
def test_a_vnc_server_that_is_not_there(make, stack, kind, status):
    proxy = make(dial_timeout_s=0.3)
    assert_refused(proxy, connect_request(issue(proxy, stack.enter_context(kind()))), status)


def test_a_limit_is_429(make, stack):
    proxy = make(limits=Limits(1, 1, 1, 1))
    token = issue(proxy, stack.enter_context(EchoVnc()))
    with Viewer(proxy, token):
        assert_refused(proxy, connect_request(token), 429)


def test_half_a_request_is_408(make):
    proxy = make(request_timeout_s=0.3)
    assert_refused(proxy, b"CONNECT /console", 408)


def test_what_a_viewer_sends_behind_its_connect_reaches_the_vnc_server(make, stack):
    """A viewer that does not wait for 200 (C21)."""
    proxy = make()
    with Viewer(proxy, issue(proxy, stack.enter_context(EchoVnc())), behind=b"early\xff\x00") as viewer:
        assert viewer.read(len(GREETING) + 7) == GREETING + b"early\xff\x00"


def test_a_dribbling_vnc_server(make, stack):
    """A byte at a time (C21)."""
    proxy = make()
    with Viewer(proxy, issue(proxy, stack.enter_context(DribblingServer())), behind=b"\x80\xfe\xff") as viewer:
        assert viewer.read(len(GREETING) + 3) == GREETING + b"\x80\xfe\xff"


def test_rfb_bytes_behind_the_reply_of_an_internal_access_path(make, stack):
    proxy = make()
    server = stack.enter_context(ConnectReplyServer([b"HTTP/1.1 200 OK\r\n\r\n" + GREETING]))
    with Viewer(proxy, issue(proxy, server, internal_access_path="/x")) as viewer:
        assert viewer.read(len(GREETING)) == GREETING


def test_a_viewer_that_ends_first_still_hears_the_rest(make, stack):
    proxy = make()
    server = stack.enter_context(EchoVnc(farewell=b"goodbye"))
    payload = b"x" * 300_000
    with Viewer(proxy, issue(proxy, server), behind=payload) as viewer:
        viewer.sock.shutdown(1)
        assert viewer.read_to_end() == GREETING + payload + b"goodbye"
    wait_until(lambda: proxy.counter.total == 0, 30, "the session ends")


def test_a_vnc_server_that_ends_first_still_hears_the_rest(make, stack):
    proxy = make()
    server = stack.enter_context(SpeakingServer(b"last words"))
    with Viewer(proxy, issue(proxy, server)) as viewer:
        assert viewer.read_to_end() == GREETING + b"last words"
        viewer.sock.sendall(b"answer" * 10_000)
        viewer.sock.shutdown(1)
        assert server.heard_end.wait(10)
        assert server.heard == b"answer" * 10_000
    wait_until(lambda: proxy.counter.total == 0, 30, "the session ends")


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_viewer_that_goes_frees_both_sides(make, stack, how):
    proxy = make()
    server = stack.enter_context(EchoVnc())
    viewer = Viewer(proxy, issue(proxy, server))
    viewer.read(len(GREETING))
    if how == "reset":
        reset(viewer.sock)
    else:
        viewer.sock.close()
    wait_until(lambda: proxy.counter.total == 0 and not server.open_connections, 30, "both sides end")


def test_a_revoked_viewer_is_cut(make, stack):
    proxy = make()
    server = stack.enter_context(EchoVnc())
    token = issue(proxy, server)
    with Viewer(proxy, token) as viewer:
        assert viewer.read(len(GREETING)) == GREETING
        proxy.sessions.close_instance(proxy.instance_of(token))
        assert viewer.read_to_end() == b""
        wait_until(lambda: not server.open_connections, 30, "the VNC server is hung up on")
    wait_until(lambda: proxy.counter.total == 0, 30, "the session ends")


def test_a_viewer_over_tls(make, stack, server_context, client_context):
    proxy = make(context=server_context, ssl_only=True)
    server = stack.enter_context(EchoVnc())
    payload = bytes(range(256)) * 4096
    with Viewer(proxy, issue(proxy, server), behind=b"early", context=client_context) as viewer:
        assert viewer.read(len(GREETING) + 5) == GREETING + b"early"
        viewer.sock.sendall(payload)
        assert viewer.read(len(payload)) == payload


def test_over_tls_the_end_of_the_vnc_server_ends_the_viewer(make, stack, certificate):
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certificate.cert, certificate.key)
    proxy = make(context=server_context, ssl_only=True)
    client_context = ssl.create_default_context(cafile=certificate.cert)
    server = stack.enter_context(SpeakingServer(b"last words"))
    with Viewer(proxy, issue(proxy, server), context=client_context) as viewer:
        assert viewer.read_to_end() == GREETING + b"last words"
    wait_until(lambda: proxy.counter.total == 0, 30, "the session ends")
