# SPDX-License-Identifier: Apache-2.0
"""The HTTP server of porthole-api on real sockets: bodies nobody reads, clients that dawdle, and broken HTTP.

The application is the real one, on fakes of compute and consoleauth; no broker is needed.
"""

import contextlib
import http.client
import json
import re
import select
import socket
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from porthole_api import http_channel
from porthole_api.http_channel import DISCARD_TIMEOUT_S, REQUEST_DEADLINE_S
from porthole_api.http_crowd import MAX_WAITING_PER_SOURCE
from porthole_api.http_parser import MAX_HEADER_BYTES
from porthole_api.http_server import HttpServer
from porthole_api.login_limits import SOURCE_BURST
from porthole_common import errors
from support.api import Api, build_conf, build_instance, build_uuid
from support.deadlines import join_within, kept_within
from support.ports import free_port
from support.processes import wait_until

PATH = f"/v2.1/servers/{build_uuid(1)}/action"
BODY = json.dumps({"os-getVNCConsole": {"type": "novnc"}}).encode()
THREADS = 3


@pytest.fixture
def api() -> Api:
    return Api([build_instance(1)])


@pytest.fixture
def server(api: Api) -> Iterator[HttpServer]:
    server = HttpServer(api.application, "127.0.0.1", 0, THREADS)
    server.start()
    yield server
    server.stop()


class Client:
    """One connection, on which bytes are sent as they are."""

    def __init__(self, server: HttpServer, host: str = "127.0.0.1", send_buffer_bytes: int = 0) -> None:
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if send_buffer_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        self.sock.settimeout(30)
        self.sock.connect((host, server.port))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read_answer(self) -> tuple[int, http.client.HTTPResponse, bytes]:
        response = http.client.HTTPResponse(self.sock)
        response.begin()
        return response.status, response, response.read()

    def is_at_end(self) -> bool:
        """Whether the server has closed in order: an end, not a reset."""
        return self.sock.recv(1) == b""


def build_post(body: bytes, path: str = PATH, length: object = None, **headers: str) -> bytes:
    length = len(body) if length is None else length
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


GET = b"GET /v2.1/servers HTTP/1.1\r\nHost: localhost\r\n\r\n"


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


def test_silent_connections_hold_no_thread(server: HttpServer) -> None:
    silent = [Client(server) for _ in range(20 * THREADS)]
    try:
        for _ in range(3):
            # If each silent connection held a thread, this request would wait for twenty deadlines in a row.
            with Client(server) as client, kept_within(0, "the answer"):
                client.send(GET)
                assert client.read_answer()[0] == 200
    finally:
        for client in silent:
            client.sock.close()


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


def count_waiting(server: HttpServer) -> int:
    assert server._server is not None
    return sum(channel.waits for channel in list(server._server.active_channels.values()))


@pytest.mark.parametrize("has_begun", [True, False], ids=["in-time", "at-the-last-moment"])
def test_a_request_that_has_begun_stays_before_connections_at_rest(server: HttpServer, has_begun: bool) -> None:
    """A reverse proxy has more connections at rest than one source may have, and sends a body behind its head."""
    with contextlib.ExitStack() as stack:
        clients: list[Client] = []

        def get(client: Client) -> None:
            client.send(GET)
            assert client.read_answer()[0] == 200
            # Its thread may be at work for a moment more.
            wait_until(lambda: count_waiting(server) >= len(clients), 30, "rest")

        for _ in range(MAX_WAITING_PER_SOURCE):
            clients.append(stack.enter_context(Client(server)))
            get(clients[-1])
        oldest, *others = clients
        oldest.send(build_post(BODY)[: -len(BODY)])
        if has_begun:
            get(others[-1])
        get(stack.enter_context(Client(server)))
        oldest.send(BODY)
        assert oldest.read_answer()[0] == 200
        ended = select.select([client.sock for client in others], [], [], 30)[0]
        assert [sock.recv(1) for sock in ended] == [b""]


def test_a_connection_at_rest_outlasts_a_reverse_proxys_wait(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(server) as silent, Client(server) as client:
        client.send(GET)
        assert client.read_answer()[0] == 200
        monkeypatch.setattr(http_channel, "IDLE_TIMEOUT_S", 0.0)
        assert silent.is_at_end()
        client.send(GET)
        assert client.read_answer()[0] == 200
        monkeypatch.setattr(http_channel, "NEXT_REQUEST_TIMEOUT_S", 0.0)
        assert client.is_at_end()


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


def test_a_client_that_goes_away_in_the_middle_harms_nobody(server: HttpServer) -> None:
    for data in (b"", GET[:10], build_post(BODY)[:-5], build_post(b"x" * (1 << 20))[:50000]):
        for _ in range(2 * THREADS):
            with Client(server) as client:
                client.send(data)
    with Client(server) as client:
        client.send(GET)
        assert client.read_answer()[0] == 200


class Busy:
    """An application whose requests are held, but for health checks, until ``go_on``."""

    def __init__(self, api: Api) -> None:
        self.go_on, self.begun = threading.Event(), threading.Semaphore(0)
        self._application = api.application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] != "/healthcheck":
            self.begun.release()
            assert self.go_on.wait(30)
        return self._application(environ, start_response)


@pytest.fixture
def busy(api: Api) -> Iterator[tuple[Busy, HttpServer]]:
    """A server all of whose threads are busy, and one more request waits for a thread."""
    application = Busy(api)
    server = HttpServer(application, "127.0.0.1", 0, THREADS)
    server.start()
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        stack.callback(application.go_on.set)
        for _ in range(THREADS + 1):
            stack.enter_context(Client(server)).send(GET)
        for _ in range(THREADS):
            assert application.begun.acquire(timeout=30)
        assert server._server is not None
        channels = server._server.active_channels
        wait_until(lambda: sum(not one.waits for one in list(channels.values())) == THREADS + 1, 30, "the last request")
        yield application, server


def test_a_health_check_is_answered_while_all_threads_are_busy(busy: tuple[Busy, HttpServer]) -> None:
    _, server = busy
    for method in ("GET", "HEAD"):
        with Client(server) as client:
            client.send(f"{method} /healthcheck HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
            assert read_all(client).startswith(b"HTTP/1.1 200 " if method == "GET" else b"HTTP/1.1 204 ")
    assert not busy[0].go_on.is_set()


def test_one_more_than_all_connections_is_told_so_while_all_are_busy(
    busy: tuple[Busy, HttpServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    application, server = busy
    monkeypatch.setattr(server._server, "_limit", THREADS + 1)
    # Its own source has more than its share; another one finds no room.
    for source, status in {"127.0.0.1": 429, "127.0.0.2": 503}.items():
        answer = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30, source_address=(source, 0))
        with contextlib.closing(answer):
            answer.request("GET", "/v2.1")
            response = answer.getresponse()
            assert (response.status, response.getheader("Connection")) == (status, "close")
            assert response.getheader("Retry-After")
    application.go_on.set()

    def is_answered() -> bool:
        with Client(server) as client:
            client.send(GET)
            return client.read_answer()[0] == 200

    wait_until(is_answered, 30, "room")


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


def test_it_listens_on_ipv6(api: Api) -> None:
    server = HttpServer(api.application, "::1", 0, 1)
    server.start()
    try:
        with Client(server, "::1") as client:
            client.send(GET)
            assert client.read_answer()[0] == 200
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("address", "option"),
    [
        (lambda used: ("127.0.0.1", used), "[api] bind_port"),
        (lambda _: ("192.0.2.1", free_port()), "[api] bind_host"),
        (lambda _: ("no-such-host.invalid", free_port()), "[api] bind_host"),
    ],
    ids=["port-in-use", "foreign-address", "unknown-name"],
)
def test_an_address_that_cannot_be_had_names_the_option(
    server: HttpServer, api: Api, address: Callable[[int], tuple[str, int]], option: str
) -> None:
    other = HttpServer(api.application, *address(server.port), 1)
    # It may be free, there or resolved later.
    with pytest.raises(errors.AddressUnavailable) as caught:
        other.start()
    assert caught.value.option == option
    other.stop()


def test_a_stop_waits_for_the_request_under_way_and_leaves_no_thread(api: Api) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return api.application(environ, start_response)

    before = set(threading.enumerate())
    server = HttpServer(application, "127.0.0.1", 0, THREADS)
    server.start()
    with Client(server) as client:
        client.send(GET)
        assert begun.wait(30)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        go_on.set()
        assert client.read_answer()[0] == 200
        join_within(30, stopping)
    assert set(threading.enumerate()) <= before | {stopping}


def test_guesses_of_one_source_do_not_hold_up_a_good_user(tmp_path: Path) -> None:
    """At cost 12 the guesses would take all threads for half a minute; a good user waits for a second at most."""
    path = tmp_path / "htpasswd"
    path.write_text(f"rita:{bcrypt.hashpw(b'right', bcrypt.gensalt(12)).decode()}")
    api = Api([build_instance(1)], build_conf(auth_strategy="http_basic", http_basic_auth_user_file=str(path)))
    server = HttpServer(api.application, "127.0.0.1", 0, THREADS)
    server.start()
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        guessers = []
        for number in range(200):
            guessers.append(stack.enter_context(Client(server)))
            guessers[-1].send(build_login("rita", f"wrong-{number}"))
        good = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60, source_address=("127.0.0.2", 0))
        stack.callback(good.close)
        with kept_within(1.0, "the good user's answer"):
            good.request("GET", "/v2.1/servers", headers={"Authorization": encode_login("rita", "right")})
            assert good.getresponse().status == 200
        answers = Counter(guesser.read_answer()[0] for guesser in guessers)
    assert set(answers) == {401, 429}
    # A check that is under way when the next is due again adds one.
    assert answers[401] < 3 * SOURCE_BURST


def read_all(client: Client) -> bytes:
    data = b""
    while block := client.sock.recv(1 << 16):
        data += block
    return data


def encode_login(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def build_login(user: str, password: str) -> bytes:
    login = encode_login(user, password)
    return f"GET /v2.1/servers HTTP/1.1\r\nHost: localhost\r\nAuthorization: {login}\r\n\r\n".encode()


def test_the_discard_has_an_end(server: HttpServer) -> None:
    with Client(server) as client, kept_within(DISCARD_TIMEOUT_S, "the end"):
        client.send(build_post(b"x", length=1 << 20))
        assert client.read_answer()[0] == 400
        assert client.is_at_end()


def test_it_is_alive_while_the_thread_that_takes_connections_turns(server: HttpServer) -> None:
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert let_go.wait(30)

    for _ in range(3):
        wait_until(server.is_alive, 30, "a sign of life")
    assert server._server is not None
    server._server.trigger.pull_trigger(hold)
    assert held.wait(30)
    server.is_alive()
    assert not server.is_alive()
    assert not server.is_alive()
    let_go.set()
    wait_until(server.is_alive, 30, "another sign of life")
