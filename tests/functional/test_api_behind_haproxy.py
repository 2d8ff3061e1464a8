# SPDX-License-Identifier: Apache-2.0
"""The API behind the sample of haproxy: requests whose body does not come reach no api, and take none DOWN (C38); one
client does not take all of haproxy's connections.
"""

import contextlib
import csv
import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from porthole_api.http_server import HttpServer
from support.api import Api, build_instance
from support.deadlines import crowd_limit_s, time_call
from support.ports import free_port
from support.processes import wait_until
from support.reverse_proxy import Haproxy

ATTACKERS = 50
# In place of the sample's 1200.
CLIENT_CONNECTIONS = 60
# In place of the sample's 10 s. A check takes a second, and two that fail take a server down.
REQUEST_S = 4
NO_BODY = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n"
PATH = "/v2.1/openapi.json"


class Site:
    """Two apis in this process, and haproxy in front of them."""

    def __init__(self, apis: list[HttpServer], haproxy: Haproxy, socket_path: Path) -> None:
        self.apis, self.haproxy = apis, haproxy
        self._socket_path = socket_path

    def list_states(self) -> list[str]:
        """Return what haproxy thinks of the apis."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(self._socket_path))
            connection.sendall(b"show stat -1 4 -1\n")
            with connection.makefile(encoding="utf-8") as answer:
                rows = list(csv.DictReader(line for line in answer if line.strip()))
        return [row["status"] for row in rows if row["# pxname"] == "api"]

    def is_up(self) -> bool:
        return self._socket_path.exists() and self.list_states() == ["UP"] * 2

    def connect(self) -> ssl.SSLSocket:
        sock = socket.create_connection(("127.0.0.1", self.haproxy.port), timeout=60)
        return self.haproxy.tls.wrap_socket(sock, server_hostname="localhost")

    def fetch(self, source: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        connection = http.client.HTTPSConnection(
            "localhost", self.haproxy.port, context=self.haproxy.tls, timeout=60, source_address=source
        )
        with contextlib.closing(connection):
            connection.request("GET", PATH)
            assert connection.getresponse().status == 200

    def is_served(self, source: str) -> bool:
        try:
            self.fetch((source, 0))
        except OSError:
            return False
        return True


@pytest.fixture
def seen() -> list[str]:
    """The methods of the requests that the applications got."""
    return []


@pytest.fixture(params=["sample", "without-buffering"])
def site(request: pytest.FixtureRequest, tmp_path: Path, seen: list[str]) -> Iterator[Site]:
    """The sample; and the sample without the option, since other proxies have none."""
    replaced = {
        "timeout http-request 10s": f"timeout http-request {REQUEST_S}s",
        "sc0_conn_cur gt 1200": f"sc0_conn_cur gt {CLIENT_CONNECTIONS}",
    }
    if request.param == "without-buffering":
        replaced["    option http-buffer-request\n"] = ""
    api = Api([build_instance(1)])

    def application(environ: dict[str, object], start_response: object) -> object:
        seen.append(str(environ["REQUEST_METHOD"]))
        return api.application(environ, start_response)

    with contextlib.ExitStack() as stack:
        apis = [HttpServer(application, "127.0.0.1", 0, 4) for _ in range(2)]  # type: ignore[arg-type]
        for server in apis:
            server.start()
            stack.callback(server.stop)
        haproxy = Haproxy(tmp_path / "haproxy", replaced)
        haproxy.write([server.port for server in apis], [free_port()] * 2)
        stack.enter_context(haproxy)
        site = Site(apis, haproxy, haproxy.directory / "admin.sock")
        wait_until(site.is_up, 30, "both apis", haproxy.logs)
        yield site


def test_bodies_that_do_not_come_take_no_api_down(site: Site, seen: list[str]) -> None:
    site.fetch()
    limit_s = crowd_limit_s(time_call(site.fetch))
    with contextlib.ExitStack() as stack:
        attackers = [stack.enter_context(site.connect()) for _ in range(ATTACKERS)]
        for attacker in attackers:
            attacker.sendall(NO_BODY)
        until_s = time.monotonic() + REQUEST_S
        while time.monotonic() < until_s:
            assert time_call(site.fetch) < limit_s
            assert site.is_up()
        for attacker in attackers:
            assert attacker.recv(100).startswith(b"HTTP/1.1 408 ")
    assert "POST" not in seen


def test_one_client_has_a_bound_and_another_one_does_not_notice(site: Site) -> None:
    def is_bounded() -> bool:
        """Fill the bound, and say who is served then; haproxy may accept the connections in another order."""
        with contextlib.ExitStack() as stack:
            for _ in range(CLIENT_CONNECTIONS):
                stack.enter_context(socket.create_connection(("127.0.0.1", site.haproxy.port), timeout=60))
            return not site.is_served("127.0.0.1") and site.is_served("127.0.0.2")

    # On a busy machine haproxy ends the first silent ones before the last ones are there.
    wait_until(is_bounded, 60, "the refusal", site.haproxy.logs)
