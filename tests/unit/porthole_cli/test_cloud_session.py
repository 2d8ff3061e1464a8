# SPDX-License-Identifier: Apache-2.0
"""No command hangs: the deadline for all requests, and a Keystone that is none."""

import socket
import threading
import time

import pytest
from keystoneauth1 import adapter, noauth
from keystoneauth1.identity import generic

from porthole_cli.client import ComputeClient
from porthole_cli.cloud_session import CloudSession
from porthole_cli.errors import AnswerInvalid, ApiRefused, ApiUnavailable
from support.canned_answers import http, say, serve
from support.nova_api import NovaApi

HINT = "OS_AUTH_URL or --os-auth-url must be the URL of Keystone, like http://127.0.0.1:5000/v3."


def log_in(auth_url: str, timeout_s: float = 10, **arguments: str) -> str:
    """Return what the client says of a login at ``auth_url``; none succeeds here."""
    auth = generic.Password(auth_url, "demo", password="s3cret", project_name="demo", **arguments)
    opened = CloudSession(auth=auth, timeout=timeout_s)
    with pytest.raises((AnswerInvalid, ApiRefused, ApiUnavailable)) as caught:
        list(ComputeClient(adapter.Adapter(opened, service_type="compute")).list_servers())
    return str(caught.value)


@pytest.mark.timeout(60)
def test_a_server_that_wants_a_token_for_keystones_versions_is_no_keystone() -> None:
    for headers, more in (("", ""), ("Server: Porthole\r\n", "PORT is the port of Porthole's proxy. ")):
        with serve(http("401 Unauthorized", headers=headers)) as port:
            for path in ("", "/v3"):
                url = f"http://127.0.0.1:{port}{path}"
                expected = f"There is no Keystone at {url} (HTTP 401). {more}{HINT}".replace("PORT", str(port))
                assert log_in(url) == expected


def test_other_servers_at_the_auth_url() -> None:
    for answer, expected in (
        (http("404 Not Found"), f"There is no Keystone at URL (HTTP 404). {HINT}"),
        (http("200 OK"), f"There is no Keystone at URL. {HINT}"),
        (say("RFB 003.008\n"), f"The server at URL does not speak HTTP, so it is no Keystone. {HINT}"),
        (http("502 Bad Gateway"), "Keystone at URL/v3 answers: Bad Gateway. (HTTP 502)"),
    ):
        with serve(answer) as port:
            root = f"http://127.0.0.1:{port}"
            said = log_in(f"{root}/v3" if "/v3 " in expected else root)
            assert said == expected.replace("URL", root, 1), expected


def test_the_compute_api_is_no_keystone() -> None:
    for domain in ({}, {"user_domain_name": "Default", "project_domain_name": "Default"}):
        with NovaApi() as api:
            for url in (api.root, api.url):
                said = log_in(url, **domain)
                assert said.startswith(f"There is no Keystone at {url}"), said
                assert said.endswith(HINT)


def test_nothing_listens_at_the_auth_url() -> None:
    # Bound and not listening: nobody else can take it meanwhile.
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        for path in ("", "/v3"):
            url = f"http://127.0.0.1:{held.getsockname()[1]}{path}"
            assert log_in(url) == f"Nothing listens at {url}: start Keystone, or correct the URL. {HINT}"


def test_keystone_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v3"
        assert log_in(url, timeout_s=0.3) == f"Keystone at {url} does not answer in time. {HINT}"


@pytest.mark.timeout(60)
def test_a_body_that_trickles_does_not_hold_the_command() -> None:
    """Each byte comes in time for the socket; the whole answer would take minutes."""

    over = threading.Event()

    def trickle(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n")
        for _ in range(600):
            connection.sendall(b" ")
            if over.wait(0.1):
                return

    with serve(trickle) as port:
        url = f"http://127.0.0.1:{port}/v2.1"
        opened = CloudSession(auth=noauth.NoAuth(endpoint=url), timeout=0.5)
        started = time.monotonic()
        with pytest.raises(ApiUnavailable, match=f"^The API at {url} does not answer in time\\.$"):
            list(ComputeClient(adapter.Adapter(opened, service_type="compute")).list_servers())
        took_s = time.monotonic() - started
        over.set()
        # The product's promise is 0.5 s and a second of grace; without it the answer takes 60 s.
        assert took_s < 20


def test_the_deadline_is_for_all_requests_together() -> None:
    with NovaApi() as api:
        api.page_size = 1
        for number in range(3):
            api.add_server(f"00000000-0000-4000-8000-00000000000{number}", f"vm{number}")
        opened = CloudSession(auth=noauth.NoAuth(endpoint=api.url), timeout=1.0)
        servers = ComputeClient(adapter.Adapter(opened, service_type="compute")).list_servers()
        next(servers)
        # The first request started the clock; its whole time has passed after this.
        time.sleep(1.0)
        with pytest.raises(ApiUnavailable, match="does not answer in time"):
            next(servers)
