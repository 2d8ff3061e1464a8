# SPDX-License-Identifier: Apache-2.0
"""Which scheme, host, path and client the api takes from the proxies in front of it."""

from typing import Any

import pytest
from oslo_config import cfg

from porthole_api.proxy_headers import ProxyHeaders, is_forwarded
from support.api import build_conf
from support.cases import naming

PEER = "10.0.0.1"
OUTER = "10.0.0.2"
CLIENT = "198.51.100.1"


@pytest.fixture
def conf() -> cfg.ConfigOpts:
    conf = build_conf()
    ProxyHeaders(conf)
    conf.set_override("enable_proxy_headers_parsing", True, "oslo_middleware")
    return conf


def apply(conf: cfg.ConfigOpts, peer: str = PEER, **headers: str) -> tuple[str, str, str, str]:
    """Return scheme, host, path prefix and client of a request with ``headers`` from ``peer``."""
    environ: dict[str, Any] = {"REMOTE_ADDR": peer, "wsgi.url_scheme": "http", "HTTP_HOST": "own", "SCRIPT_NAME": ""}
    environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    ProxyHeaders(conf).apply(environ)
    return environ["wsgi.url_scheme"], environ["HTTP_HOST"], environ["SCRIPT_NAME"], environ["REMOTE_ADDR"]


def test_nothing_is_read_unless_the_operator_says_so(conf: cfg.ConfigOpts) -> None:
    conf.clear_override("enable_proxy_headers_parsing", "oslo_middleware")
    headers = {"x_forwarded_proto": "https", "x_forwarded_host": "a", "x_forwarded_prefix": "/p", "forwarded": "host=a"}
    assert apply(conf, **headers, x_forwarded_for=CLIENT) == ("http", "own", "", PEER)


def test_one_proxy_says_all(conf: cfg.ConfigOpts) -> None:
    headers = {"x_forwarded_proto": "wss", "x_forwarded_host": "a:8443", "x_forwarded_prefix": "/compute/"}
    assert apply(conf, **headers, x_forwarded_for=f"{CLIENT}:50001") == ("https", "a:8443", "/compute", CLIENT)


def test_of_a_list_the_element_of_the_outermost_trusted_proxy_counts(conf: cfg.ConfigOpts) -> None:
    lists = {"x_forwarded_proto": "https, http", "x_forwarded_host": "a, b:8080", "x_forwarded_prefix": "/p, /q"}
    assert apply(conf, **lists) == ("http", "b:8080", "/q", PEER)
    both = {**lists, "x_forwarded_for": f"{CLIENT}, {OUTER}"}
    assert apply(conf, **both) == ("http", "b:8080", "/q", OUTER)
    conf.set_override("trusted_proxies", [OUTER], "console")
    assert apply(conf, **both) == ("https", "a", "/p", CLIENT)
    # What a client wrote before the proxies did stands in front.
    forged = {name: f"evil, {value}" for name, value in both.items()}
    assert apply(conf, **forged) == ("https", "a", "/p", CLIENT)


def test_a_malformed_value_is_passed_over(conf: cfg.ConfigOpts) -> None:
    headers = {"x_forwarded_proto": "gopher", "x_forwarded_host": "a/b", "x_forwarded_prefix": "//evil.example"}
    assert apply(conf, **headers, x_forwarded_for="unknown") == ("http", "own", "", PEER)


def test_a_peer_on_a_unix_socket_is_believed_too(conf: cfg.ConfigOpts) -> None:
    assert apply(conf, "", x_forwarded_host="a", x_forwarded_for=CLIENT) == ("http", "a", "", CLIENT)


def test_the_standard_header_is_read_by_the_same_rule(conf: cfg.ConfigOpts) -> None:
    header = f"for={CLIENT};proto=https;host=a, for={OUTER};proto=http;host=b"
    assert apply(conf, forwarded=header) == ("http", "b", "", OUTER)
    conf.set_override("trusted_proxies", [OUTER], "console")
    assert apply(conf, forwarded=header) == ("https", "a", "", CLIENT)
    assert apply(conf, forwarded="nonsense") == ("http", "own", "", PEER)


def test_where_a_proxy_writes_the_older_headers_the_standard_one_is_the_clients(conf: cfg.ConfigOpts) -> None:
    assert apply(conf, forwarded="host=evil;proto=http", x_forwarded_host="a", x_forwarded_proto="https")[:2] == (
        "https",
        "a",
    )


def test_a_request_that_was_passed_on_is_known_by_any_of_the_headers() -> None:
    assert not is_forwarded({"HTTP_HOST": "a", "REMOTE_ADDR": PEER, "HTTP_X_AUTH_TOKEN": "x"})
    for name in ["X_FORWARDED_FOR", "X_FORWARDED_HOST", "X_FORWARDED_PORT", "FORWARDED", "VIA", "X_REAL_IP"]:
        with naming(name):
            assert is_forwarded({f"HTTP_{name}": ""})
