# SPDX-License-Identifier: Apache-2.0
"""The HTTP server of porthole-api on real sockets: its threads, the connections at rest, its start and its stop.

The application is the real one, on fakes of compute and consoleauth; no broker is needed.
"""

import contextlib
import http.client
import select
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from porthole_api import http_channel
from porthole_api.http_crowd import MAX_WAITING_PER_SOURCE
from porthole_api.http_server import HttpServer
from porthole_api.login_limits import SOURCE_BURST
from porthole_common import errors
from support.api import Api, build_conf, build_instance
from support.api_server import BODY, GET, THREADS, Client, build_post, read_all, serving
from support.deadlines import join_within, kept_within
from support.ports import free_port
from support.processes import wait_until


@pytest.fixture
def api() -> Api:
    return Api([build_instance(1)])


@pytest.fixture
def server(api: Api) -> Iterator[HttpServer]:
    with serving(api.application) as server:
        yield server


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


def encode_login(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def build_login(user: str, password: str) -> bytes:
    login = encode_login(user, password)
    return f"GET /v2.1/servers HTTP/1.1\r\nHost: localhost\r\nAuthorization: {login}\r\n\r\n".encode()


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
