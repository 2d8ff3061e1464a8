# SPDX-License-Identifier: Apache-2.0
"""HTTP on the browsers' door: pages, connections that are kept, and requests that are half, huge or hostile."""

import http.client
import socket
import ssl
from contextlib import ExitStack

import pytest

from support.certificates import make_certificate
from support.proxy import InProcessProxy, assert_echoes, open_console
from support.vnc_servers import GREETING, EchoVnc
from support.websocket import Reply, connect, exchange, read_reply, read_to_end


@pytest.fixture(scope="module")
def shared(web_root):
    """A proxy whose deadline for requests is longer than any test is patient."""
    with InProcessProxy(web_root, request_timeout_s=60) as proxy:
        yield proxy


@pytest.fixture
def make(web_root):
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(InProcessProxy(web_root, **options))


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    """A server's and a client's TLS context that trust each other."""
    made = make_certificate(tmp_path_factory.mktemp("tls"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.cert, made.key)
    return server, ssl.create_default_context(cafile=made.cert)


def get(port, path, *headers, method="GET", version="1.1"):
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", "Connection: close", *headers]
    return exchange(port, "\r\n".join([*lines, "", ""]).encode("latin-1"))


def test_a_page_and_its_headers(shared):
    """What keeps a token in a URL from travelling (S9)."""
    reply = get(shared.novnc_port, "/vnc_lite.html?path=%3Ftoken%3Dx")
    assert reply.status == 200
    assert reply.rest.startswith(b"<!DOCTYPE html>")
    assert len(reply.rest) == int(reply.headers["content-length"])
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert "content-security-policy" in reply.headers
    assert not any(part.isdigit() for part in reply.headers["server"].replace("/", " ").split())


def test_the_consoles_own_page_says_novnc(shared):
    reply = get(shared.novnc_port, "/console.html")
    assert (reply.status, b"noVNC" in reply.rest) == (200, True)


def test_fetching_the_page_asks_nobody(shared):
    before = list(shared.consoleauth.asked)
    get(shared.novnc_port, "/console.html?path=%3Ftoken%3D6f9c7a5e-1b6e-4f0e-9a57-2d6d1f3b8c11")
    assert shared.consoleauth.asked == before


def test_a_large_file_arrives_whole(shared, web_root):
    assert get(shared.novnc_port, "/large.js").rest == (web_root / "large.js").read_bytes()


def test_head_has_the_headers_and_no_body(shared):
    reply = get(shared.novnc_port, "/large.js", method="HEAD")
    assert (reply.status, reply.rest) == (200, b"")
    assert int(reply.headers["content-length"]) == 440_000


def test_an_unchanged_page_is_not_sent_again(shared):
    first = get(shared.novnc_port, "/core/rfb.js")
    again = get(shared.novnc_port, "/core/rfb.js", f"If-Modified-Since: {first.headers['last-modified']}")
    assert (again.status, again.rest) == (304, b"")


@pytest.mark.parametrize("slashes", ["//", "///", "////", "/\\", "\\/", "\\\\", "/%5c", "/.//"])
@pytest.mark.parametrize("rest", ["evil.example/%2F..", "evil.example/..", "evil.example", "evil.example/%2e%2e"])
def test_no_path_leads_off_the_site(shared, slashes, rest):
    """Two, three, four slashes and backslashes, and not one redirect (S7)."""
    reply = get(shared.novnc_port, slashes + rest)
    assert reply.status in (400, 404)
    assert "location" not in reply.headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/core/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/core/%2e%2e/%2e%2e/secret.txt",
        "/%252e%252e/secret.txt",
        "/....//secret.txt",
        "/vnc_lite.html%00.png",
        "/%00",
        "/core",
        "/core/",
        "/core/.",
        "/escape.txt",
        "/missing.html",
        "/%ff%fe",
        "/../../../../../../../../etc/passwd",
    ],
)
def test_nothing_but_the_files_of_the_web_root(shared, method, path):
    """No way up, no listing, no link out (S8)."""
    reply = get(shared.novnc_port, path, method=method)
    assert reply.status in (400, 404)
    assert b"secret" not in reply.rest
    assert b"rfb.js" not in reply.rest


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW", "get"])
def test_other_methods_are_501(shared, method):
    reply = get(shared.novnc_port, "/vnc_lite.html", method=method)
    assert reply.status == 501
    assert b"<!DOCTYPE" not in reply.rest


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET /vnc_lite.html HTTP/9.9\r\nHost: x\r\n\r\n", 505),
        ("GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        ("GET /vnc_lite.html HTTP/x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n" + "X: y\r\n" * 200 + "\r\n", 431),
        ("GET / HTTP/1.1\r\nX: " + "y" * 20_000 + "\r\n\r\n", 431),
        ("GET /" + "y" * 20_000, 431),
    ],
)
def test_a_broken_request_gets_its_status(shared, request_text, status):
    assert exchange(shared.novnc_port, request_text.encode()).status == status


@pytest.mark.parametrize("size_bytes", [16_385, 65_536, 1_000_000])
def test_a_huge_header_is_431_and_no_reset(shared, size_bytes):
    with connect(shared.novnc_port) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nX: " + b"y" * size_bytes)
        assert read_reply(sock).status == 431
        assert read_to_end(sock) == b""


def test_connections_are_kept_for_further_pages(shared):
    client = http.client.HTTPConnection("127.0.0.1", shared.novnc_port, timeout=5)
    client.connect()
    first = client.sock
    for path, status in [("/vnc_lite.html", 200), ("/missing", 404), ("/core/rfb.js", 200), ("/console.html", 200)] * 5:
        client.request("GET", path)
        response = client.getresponse()
        assert response.status == status
        response.read()
        assert client.sock is first
    client.close()


def test_a_kept_connection_may_turn_into_a_console(shared):
    with EchoVnc() as server, connect(shared.novnc_port) as sock:
        token = shared.issue(server)
        sock.sendall(b"HEAD /core/rfb.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_reply(sock).status == 200
        sock.sendall(
            f"GET /?token={token} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        rest = read_reply(sock).rest
        while len(rest) < 2 + len(GREETING):
            rest += sock.recv(100)
        assert rest == bytes([0x82, len(GREETING)]) + GREETING


@pytest.mark.parametrize("tls", [False, True])
def test_requests_may_be_pipelined_or_come_byte_by_byte(make, contexts, tls):
    proxy = make(request_timeout_s=60, context=contexts[0] if tls else None)
    stream = b"".join(b"HEAD /core/rfb.js?%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(20))
    with connect(proxy.novnc_port, contexts[1] if tls else None) as sock:
        sock.sendall(stream)
        assert read_replies(sock, 20) == [200] * 20
        for byte in stream[: len(stream) // 20]:
            sock.sendall(bytes([byte]))
        assert read_replies(sock, 1) == [200]


@pytest.mark.parametrize("tls", [False, True])
def test_more_pipelined_requests_than_one_read_takes(make, contexts, tls):
    proxy = make(request_timeout_s=60, context=contexts[0] if tls else None)
    request = b"HEAD /core/rfb.js HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 900 + b"\r\n\r\n"
    with connect(proxy.novnc_port, contexts[1] if tls else None) as sock:
        # What comes back meanwhile has room; two threads at one TLS connection would corrupt it.
        sock.sendall(request * 60)
        assert read_replies(sock, 60) == [200] * 60


def read_replies(sock, count):
    received = b""
    while received.count(b"\r\n\r\n") < count:
        data = sock.recv(65536)
        assert data, f"the connection ended after {received.count(bytes(4))} answers"
        received += data
    return [Reply.parse(head, b"").status for head in received.split(b"\r\n\r\n")[:-1]]


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/vnc_lite.html", "HTTP/1.1\r\nConnection: close\r\n"),
        ("/vnc_lite.html", "HTTP/1.1\r\nConnection: Close\r\n"),
        ("/vnc_lite.html", "HTTP/1.0\r\n"),
        ("/missing", "HTTP/1.0\r\n"),
        ("/", "HTTP/1.1\r\nAccept: application/json\r\nConnection: close\r\n"),
        ("/", "HTTP/1.0\r\nAccept: application/json\r\n"),
        ("/", "HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"),
    ],
)
def test_the_connection_is_closed_when_the_client_expects_it(shared, path, headers):
    reply = exchange(shared.novnc_port, f"GET {path} {headers}Host: x\r\n\r\n".encode())
    assert len(reply.rest) == int(reply.headers["content-length"])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "length", ["Content-Length: 37", "Transfer-Encoding: chunked", "Content-Length: 0\r\nContent-Length: 37"]
)
def test_a_body_is_never_read_as_the_next_request(shared, method, length):
    smuggled = b"GET /core/rfb.js HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(shared.novnc_port) as sock:
        sock.sendall(f"{method} /vnc_lite.html HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n".encode() + smuggled)
        reply = read_reply(sock)
        assert reply.status == 400
        assert b"HTTP/1.1" not in reply.rest + read_to_end(sock)


def test_half_a_request_is_408_and_silence_is_just_closed(make):
    proxy = make(request_timeout_s=0.3)
    with connect(proxy.novnc_port) as half, connect(proxy.novnc_port) as silent:
        half.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        assert read_reply(half).status == 408
        assert read_to_end(half) == b""
        assert read_to_end(silent) == b""


def test_the_deadline_is_for_the_whole_request_not_for_each_byte(make):
    proxy = make(request_timeout_s=0.4)
    with connect(proxy.novnc_port) as sock:
        sock.settimeout(0.05)
        received = b""
        for byte in b"GET / HTTP/1.1\r\nX: " + b"y" * 200:
            try:
                sock.sendall(bytes([byte]))
                received += sock.recv(1000)
            except TimeoutError:
                continue
            break
        assert received.startswith(b"HTTP/1.1 408")


def test_a_client_that_ends_its_stream_behind_its_request_is_answered(shared):
    with connect(shared.novnc_port) as sock:
        sock.sendall(b"GET /core/rfb.js HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert read_reply(sock).status == 200


@pytest.mark.parametrize("header", ["", "Upgrade: x\r\n"], ids=["page", "page-with-upgrade"])
def test_clients_that_do_not_take_their_page_keep_nobody_from_anything(make, header):
    """More of them than there are threads of any kind."""
    proxy = make(handshake_threads=4)
    with ExitStack() as stack, EchoVnc() as echo:
        for _ in range(12):
            sock = stack.enter_context(socket.socket())
            # A window of 2 KiB takes a small part of the page, whatever a segment of loopback's is.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
            sock.settimeout(30)
            sock.connect(("127.0.0.1", proxy.novnc_port))
            sock.sendall(f"GET /large.js HTTP/1.1\r\nHost: x\r\n{header}\r\n".encode())
        assert get(proxy.novnc_port, "/core/rfb.js").status == 200
        with open_console(proxy, echo) as client:
            assert_echoes(client)
