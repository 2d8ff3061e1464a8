# SPDX-License-Identifier: Apache-2.0
"""What is replaced in waitress: a release that does not ask for it any more is reported once."""

from collections.abc import Iterator

import pytest
from waitress.parser import HTTPRequestParser

from porthole_api.http_server import HttpServer, _report_missing_hooks
from porthole_common.private_parts import forget_reports


@pytest.fixture(autouse=True)
def reports() -> Iterator[None]:
    forget_reports()
    yield
    forget_reports()


def test_everything_that_is_replaced_is_there(caplog: pytest.LogCaptureFixture) -> None:
    _report_missing_hooks()
    assert caplog.records == []


def test_a_part_that_is_gone_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(HTTPRequestParser, "parse_header")
    for _ in range(2):
        _report_missing_hooks()
    (record,) = caplog.records
    assert record.getMessage().startswith("Private part of a library not found library=waitress version=")
    assert "HTTPRequestParser.parse_header" in record.getMessage()


def test_before_its_start_it_can_be_stopped() -> None:
    server = HttpServer(lambda *_: [], "127.0.0.1", 0, threads=1)
    assert not server.is_alive()
    server.stop()


def test_after_its_end_nothing_wakes_it() -> None:
    server = HttpServer(lambda *_: [], "127.0.0.1", 0, threads=1)
    server.start()
    server.stop()
    # It has turned since nobody asked, so that the loop is woken; its descriptor is closed, or somebody else's.
    assert server.is_alive()
    server.stop()
