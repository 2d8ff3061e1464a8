# SPDX-License-Identifier: Apache-2.0
import os
import socket

import pytest
from keystoneauth1 import adapter, noauth

from porthole_cli.client import ComputeClient
from porthole_cli.cloud_session import CloudSession
from porthole_cli.errors import AnswerInvalid, ApiRefused, ApiUnavailable
from porthole_cli.forward_proxy import find_proxy, is_loopback
from support.canned_answers import http, serve
from support.nova_api import NovaApi

# RFC 5737: a documentation address; the proxy gets the request, and the address gets nothing.
API = "http://192.0.2.1:8774/v2.1"
REMEDY = "Correct the variable, or name the API's host in no_proxy."


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def make_client(url: str) -> ComputeClient:
    opened = CloudSession(auth=noauth.NoAuth(endpoint=url), timeout=10)
    return ComputeClient(adapter.Adapter(opened, service_type="compute"))


def ask(url: str) -> str:
    with pytest.raises((AnswerInvalid, ApiRefused, ApiUnavailable)) as caught:
        list(make_client(url).list_servers())
    return str(caught.value)


def test_loopback_is_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(variable, "http://proxy.invalid:3128")
    with NovaApi() as api:
        api.add_server("2a5a0a3e-7c5f-4c8e-9d0a-0c1d2e3f4a5b", "web")
        for url in (api.url, api.url.replace("127.0.0.1", "localhost")):
            assert [server["name"] for server in make_client(url).list_servers()] == ["web"]


def test_which_urls_are_loopback() -> None:
    for url, expected in (
        ("http://127.0.0.1:8774", True),
        ("http://127.8.9.1", True),
        ("https://[::1]:8774/v2.1", True),
        ("http://LOCALHOST", True),
        ("http://api.localhost", True),
        ("http://192.0.2.1", False),
        ("http://localhost.example.org", False),
        ("http://[::1", False),
        ("", False),
    ):
        assert is_loopback(url) == expected, url


def test_the_variable_that_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_proxy(API) is None
    monkeypatch.setenv("ALL_PROXY", "http://one")
    assert str(find_proxy(API)) == "the proxy http://one (variable ALL_PROXY)"
    monkeypatch.setenv("http_proxy", "http://two")
    assert str(find_proxy(API)) == "the proxy http://two (variable http_proxy)"
    assert str(find_proxy("https://192.0.2.1")) == "the proxy http://one (variable ALL_PROXY)"
    monkeypatch.setenv("no_proxy", "192.0.2.1")
    assert find_proxy(API) is None


def test_a_variable_that_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (":::", "http://[::1", "ftp://proxy", "http://proxy:99999"):
        monkeypatch.setenv("http_proxy", value)
        assert ask(API) == f"The variable http_proxy does not hold a usable proxy: '{value}'. {REMEDY}"


def test_a_proxy_that_is_away_or_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(http("403 Forbidden")) as port:
        proxy = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("https_proxy", proxy)
        way = f"the proxy {proxy} (variable http"
        assert ask(API) == f"{API} answers: Forbidden. The request went through {way}_proxy). (HTTP 403)"
        said = ask(API.replace("http:", "https:"))
        assert said.startswith(f"No connection through {way}s_proxy): Tunnel connection failed: 403 Forbidden. Correct")
    # Bound and not listening: nobody else can take it meanwhile.
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{held.getsockname()[1]}"
        monkeypatch.setenv("http_proxy", proxy)
        said = ask(API)
    assert said == f"No connection through the proxy {proxy} (variable http_proxy): Connection refused. {REMEDY}"


def test_portholes_own_proxy_as_a_forward_proxy_does_not_make_the_api_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(http("404 Not Found", headers="Server: Porthole\r\n")) as port:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        said = ask(API)
    assert said == (
        f"There is no compute API at {API} (HTTP 404). Correct the host or the port of the URL. The request went "
        f"through the proxy http://127.0.0.1:{port} (variable http_proxy)."
    )
