# SPDX-License-Identifier: Apache-2.0
"""Requests to the HTTP server of porthole-api, byte for byte: bodies, headers, and broken HTTP.

The application is the real one, on fakes of compute and consoleauth; no broker is needed.
"""

import json
import re
import socket
import threading
from collections.abc import Iterator

import pytest

from porthole_api.http_channel import DISCARD_TIMEOUT_S, REQUEST_DEADLINE_S
from porthole_api.http_parser import MAX_HEADER_BYTES
from porthole_api.http_server import HttpServer
from support.api import Api, build_instance
from support.api_server import BODY, GET, PATH, Client, build_post, read_all, serving
from support.deadlines import join_within, kept_within


@pytest.fixture
def api() -> Api:
    return Api([build_instance(1)])


@pytest.fixture
def server(api: Api) -> Iterator[HttpServer]:
    with serving(api.application) as server:
        yield server


def test_requests_follow_each_other_on_one_connection(server: HttpServer) -> None:
    with Client(server) as client:
        for request in (GET, build_post(BODY), GET, build_post(b"{}"), GET):
            client.send(request)
            status, _, body = client.read_answer()
            assert status == (400 if b"{}" in request else 200), body


@pytest.mark.parametrize("size", [1 << 20, 3 << 20])
def test_a_huge_body_that_is_sent_whole_gets_the_reason(server: HttpServer, api: Api, size: int) -> None:
    # So small a buffer that the body is not sent before somebody reads it.
    with Client(server, send_buffer_bytes=16384) as client:
        client.send(build_post(b'{"os-getVNCConsole": "' + b"x" * size + b'"}'))
        status, response, body = client.read_answer()
        assert (status, list(json.loads(body))) == (400, ["badRequest"])
        assert "65536" in json.loads(body)["badRequest"]["message"]
        assert response.getheader("Connection") == "close"
        assert client.is_at_end()
    assert api.compute.calls == []


def test_a_body_without_end_is_not_read_for_ever(server: HttpServer) -> None:
    with Client(server) as client:
        client.send(build_post(b"", length=10**12))
        assert client.read_answer()[0] == 400
        with pytest.raises(OSError):
            client.send(b"x" * (64 << 20))


@pytest.mark.parametrize("first", [b"", BODY[:5]], ids=["none", "part"])
def test_a_body_that_does_not_come_is_a_timeout(server: HttpServer, first: bytes) -> None:
    with Client(server) as client:
        with kept_within(REQUEST_DEADLINE_S, "the answer"):
            client.send(build_post(first, length=len(BODY)))
            status, response, body = client.read_answer()
        assert (status, list(json.loads(body))) == (408, ["computeFault"])
        assert response.getheader("OpenStack-API-Version") == "compute 2.1"


@pytest.mark.parametrize("start", [build_post(b"", length=1000), GET[:20]], ids=["body", "header"])
def test_a_client_that_drips_has_no_more_time_than_another(server: HttpServer, start: bytes) -> None:
    with Client(server) as client:
        client.send(start)
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.2):
                try:
                    client.send(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            with kept_within(REQUEST_DEADLINE_S, "the answer"):
                assert client.read_answer()[0] == 408
        finally:
            stop.set()
            join_within(30, thread)


@pytest.mark.parametrize("rest", [b"", b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"ffffffff\r\nx"])
def test_chunks_are_refused_and_are_no_request(server: HttpServer, rest: bytes) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n"
    with Client(server) as client:
        client.send(head.encode() + rest + GET)
        status, response, body = client.read_answer()
        assert (status, response.getheader("Connection")) == (400, "close")
        assert b"Content-Length" in body
        assert client.is_at_end()


@pytest.mark.parametrize(
    ("path", "status"), [("/v2.1/nothing", 404), ("/v2.1/servers", 405), (PATH, 400)], ids=["404", "405", "400"]
)
def test_an_unread_body_is_no_request(server: HttpServer, path: str, status: int) -> None:
    """With its length, or one that is longer than the body: what follows is body, and never answered.

    Nobody looks at a request before all of it is there.
    """
    with Client(server) as client:
        client.send(build_post(GET, path, Content_Type="text/plain"))
        assert client.read_answer()[0] == status
    with Client(server) as client:
        client.send(build_post(b"", path, length=10 * len(GET), Content_Type="text/plain") + GET)
        assert client.read_answer()[0] == 408
        assert client.is_at_end()


@pytest.mark.parametrize("length", ["-5", "+5", "5_0", "0x5", "5, 5", "\u0665"])
def test_a_strange_length_is_a_bad_request(server: HttpServer, length: str) -> None:
    with Client(server) as client:
        client.send(build_post(BODY, length=length))
        assert client.read_answer()[0] == 400


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x00\xff\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"GET http://elsewhere.example/v2.1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /" + b"x" * MAX_HEADER_BYTES + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEADER_BYTES + b"\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 10000 + b"\r\n", 413),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", 405),
    ],
)
def test_broken_http_gets_an_answer(server: HttpServer, request_: bytes, status: int) -> None:
    with Client(server) as client:
        client.send(request_)
        assert client.read_answer()[0] == status


@pytest.mark.parametrize(
    ("start", "words"), [(b"\x16\x03\x01", b"TLS"), (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", b"PROXY")], ids=["tls", "proxy"]
)
def test_another_protocol_is_named_at_once(server: HttpServer, start: bytes, words: bytes) -> None:
    """The client of a TLS port waits for an answer, and sends no line that would end a request."""
    with Client(server) as client, kept_within(0, "the answer"):
        client.send(start)
        status, _, body = client.read_answer()
        assert status == 400
        assert words in body


@pytest.mark.parametrize("fold", [" ", "\t"])
@pytest.mark.parametrize("head", ["", "Host: a\r\nContent-Length: 0\r\n"], ids=["first", "behind another"])
def test_folded_header_lines_are_refused(server: HttpServer, head: str, fold: str) -> None:
    """RFC 9112 section 5.2; waitress would refuse the one, and take the other for the length of the body."""
    with Client(server) as client:
        client.send(f"GET /v2.1/servers HTTP/1.1\r\n{head}{fold}30\r\n\r\n".encode() + GET)
        assert client.read_answer()[0] == 400
        assert client.is_at_end()


def test_links_follow_the_proxies_and_no_header_with_an_underscore(api: Api, server: HttpServer) -> None:
    api.conf.set_override("enable_proxy_headers_parsing", True, "oslo_middleware")
    proxies = (
        "X-Forwarded-Proto: https, https\r\nX-Forwarded-Host: a, b:8080\r\nX-Forwarded-For: 192.0.2.7, 192.0.2.1\r\n"
    )
    forged = "X_Forwarded_Host: evil\r\nX_Forwarded_Prefix: /evil\r\n"
    for trusted, base in {"": "https://b:8080", "192.0.2.1": "https://a"}.items():
        api.conf.set_override("trusted_proxies", [trusted] if trusted else [], "console")
        with Client(server) as client:
            client.send(f"GET /v2.1 HTTP/1.1\r\nHost: localhost\r\n{proxies}{forged}\r\n".encode())
            _, _, body = client.read_answer()
            assert json.loads(body)["version"]["links"][0]["href"] == f"{base}/v2.1/"


def test_noauth_refuses_what_a_proxy_passed_on(api: Api, server: HttpServer) -> None:
    api.conf.set_override("enable_proxy_headers_parsing", True, "oslo_middleware")
    forged = {"X-Forwarded-Host: localhost": 403, "X_Forwarded_Host: localhost": 403, "X-Forwarded-Proto: http": 403}
    for header, status in forged.items():
        with Client(server) as client:
            client.send(f"GET /v2.1/servers HTTP/1.1\r\nHost: evil\r\n{header}\r\n\r\n".encode())
            assert client.read_answer()[0] == status


def test_a_request_without_host_is_told_the_address(server: HttpServer) -> None:
    with Client(server) as client:
        client.send(b"GET /v2.1 HTTP/1.0\r\n\r\n")
        _, _, body = client.read_answer()
        assert json.loads(body)["version"]["links"][0]["href"] == f"http://127.0.0.1:{server.port}/v2.1/"


@pytest.mark.parametrize("token_path", ["/v2.1/x?path=%3Ftoken%3Ds3cret", "/%e9?token=s3cret"])
def test_the_server_logs_no_path(server: HttpServer, token_path: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"), Client(server) as client:
        client.send(f"GET {token_path} HTTP/1.1\r\n\r\n".encode())
        assert client.read_answer()[0] == 404
        client.send(b"nonsense s3cret\r\n\r\n")
        assert client.read_answer()[0] == 400
    assert "s3cret" not in caplog.text


def test_a_body_that_waits_to_be_asked_for(server: HttpServer) -> None:
    head = build_post(b"", length=len(BODY), Expect="100-continue")
    with Client(server) as client:
        for _ in range(2):
            client.send(head)
            assert client.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(BODY)
            assert client.read_answer()[0] == 200
        # Sent without waiting; and below, not to be sent at all.
        client.send(head + BODY)
        assert b" 200 " in client.sock.recv(1 << 16).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    with Client(server) as client:
        client.send(build_post(b"", length=1 << 20, Expect="100-continue"))
        assert client.read_answer()[0] == 400
    with Client(server) as client:
        client.send(GET.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        assert client.read_answer()[0] == 200


def test_requests_that_are_sent_ahead_are_answered_in_their_order(server: HttpServer) -> None:
    paths = ["/v2.1", "/v2.1/nothing", "/healthcheck", "/v2.1/servers"] * 5
    requests = [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in paths]
    with Client(server) as client:
        client.send(b"\r\n".join([*requests, build_post(BODY), b"nonsense\r\n\r\n", GET]))
        data = read_all(client)
    found = [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", data)]
    assert found == [200, 404, 200, 200] * 5 + [200, 400]


def test_a_client_that_ends_its_side_is_answered(server: HttpServer) -> None:
    for data, status in ((GET, 200), (GET[:10], 400), (build_post(b"", length=5), 400)):
        with Client(server) as client:
            client.send(data)
            client.sock.shutdown(socket.SHUT_WR)
            assert client.read_answer()[0] == status
            assert client.is_at_end()


def test_the_discard_has_an_end(server: HttpServer) -> None:
    with Client(server) as client, kept_within(DISCARD_TIMEOUT_S, "the end"):
        client.send(build_post(b"x", length=1 << 20))
        assert client.read_answer()[0] == 400
        assert client.is_at_end()
