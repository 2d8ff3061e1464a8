# SPDX-License-Identifier: Apache-2.0
import logging

import pytest
from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_common.conf.metrics import DEFAULT_PORTS, find_host, find_port
from porthole_common.metrics_server import MAX_REQUEST_BYTES, build_answer, build_servers
from support.cases import naming

BODY = b"things 1.0\n"
REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


def answer(request: bytes) -> tuple[int, bytes] | None:
    built = build_answer(request, lambda: BODY)
    if built is None:
        return None
    head, _, body = built.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head
    return int(head.split(b" ")[1]), body


def test_a_request_at_every_split() -> None:
    for end in range(len(REQUEST)):
        assert answer(REQUEST[:end]) is None
    assert answer(REQUEST) == (200, BODY)
    assert answer(REQUEST + b"and more") == (200, BODY)


def test_a_head_request_has_the_length_and_no_body() -> None:
    built = build_answer(REQUEST.replace(b"GET", b"HEAD"), lambda: BODY)
    assert built is not None
    assert f"Content-Length: {len(BODY)}\r\n".encode() in built
    assert built.endswith(b"\r\n\r\n")


def test_what_is_no_scrape_gets_a_clear_error() -> None:
    for request, status, word in (
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405, b"GET and HEAD"),
        (b"GET / HTTP/1.1\r\n\r\n", 404, b"/metrics"),
        (b"GET /metrics/x HTTP/1.1\r\n\r\n", 404, b"/metrics"),
        (b"GET /metrics\r\n\r\n", 400, b"HTTP/1"),
        (b"\x16\x03\x01 \r\n\r\n", 400, b"HTTP/1"),
        (b"\r\n\r\n", 400, b"HTTP/1"),
        (b"GET /metrics HTTP/2\r\n\r\n", 400, b"HTTP/1"),
        (b"x" * (MAX_REQUEST_BYTES + 1), 431, b"too long"),
    ):
        with naming(repr(request[:40])):
            found = answer(request)
            assert found is not None
            assert found[0] == status
            assert word in found[1]
    assert answer(b"GET /metrics?x=1 HTTP/1.0\r\n\r\n") == (200, BODY)


def test_a_fault_is_a_status_and_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        built = build_answer(REQUEST, lambda: bytes(1 // 0))
    assert built is not None
    assert built.startswith(b"HTTP/1.1 500 ")
    assert b"ZeroDivision" not in built
    assert "Metrics not built" in caplog.text


def make_conf(**options: object) -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    porthole_conf.register_opts(conf)
    conf(args=[], default_config_files=[], default_config_dirs=[])
    for name, value in options.items():
        conf.set_override(name, value, group="metrics")
    return conf


def test_four_daemons_of_one_host_can_share_a_file() -> None:
    conf = make_conf()
    assert len(set(DEFAULT_PORTS.values())) == len(DEFAULT_PORTS)
    assert {daemon: find_port(conf, daemon) for daemon in DEFAULT_PORTS} == DEFAULT_PORTS
    assert find_host(conf, "api") == "127.0.0.1"


def test_metrics_that_are_off() -> None:
    conf = make_conf()
    assert find_port(conf, "standalone") == 0
    assert build_servers(conf, "standalone") == []
    conf = make_conf(bind_port=0)
    assert [find_port(conf, daemon) for daemon in (*DEFAULT_PORTS, "standalone")] == [0] * 5
    assert find_host(conf, "api") == ""
    assert build_servers(conf, "api") == []


def test_a_port_that_is_set_counts_for_each() -> None:
    conf = make_conf(bind_port=9999)
    assert {find_port(conf, daemon) for daemon in (*DEFAULT_PORTS, "standalone")} == {9999}
