# SPDX-License-Identifier: Apache-2.0
"""The answers in place of the application's: as Nova's faults, with the headers of every other answer."""

import http.client
import io
import json
from typing import Any

import pytest

from porthole_api.http_refusals import BODY_TOO_SLOW, CROWDED, CROWDED_SOURCE, NOT_HTTP, Refusal, build_answer


def read(data: bytes, method: str = "GET") -> tuple[http.client.HTTPResponse, bytes]:
    """Parse an answer as a client does."""

    class Sock:
        def makefile(self, *_: Any) -> io.BytesIO:
            return io.BytesIO(data)

    response = http.client.HTTPResponse(Sock(), method=method)  # type: ignore[arg-type]
    response.begin()
    return response, response.read()


@pytest.mark.parametrize(
    ("refusal", "name"),
    [
        (NOT_HTTP, "badRequest"),
        (BODY_TOO_SLOW, "computeFault"),
        (CROWDED, "serviceUnavailable"),
        (CROWDED_SOURCE, "overLimit"),
    ],
)
def test_a_fault_with_its_reason(refusal: Refusal, name: str) -> None:
    response, body = read(build_answer(refusal, "req-1"))
    assert (response.status, response.getheader("Connection")) == (refusal.status, "close")
    assert json.loads(body) == {name: {"code": refusal.status, "message": refusal.message}}
    assert (response.getheader("Retry-After") is not None) == (refusal.status in {429, 503})
    assert response.getheader("X-OpenStack-Request-ID") == "req-1"


@pytest.mark.parametrize(("path", "version"), [("/v2.1", "compute 2.1"), ("/v2.1/x", "compute 2.1"), ("/v2.10", None)])
def test_a_versioned_path_gets_the_version(path: str, version: str | None) -> None:
    response, _ = read(build_answer(BODY_TOO_SLOW, "req-1", "POST", path))
    assert response.getheader("OpenStack-API-Version") == version


def test_head_gets_no_body() -> None:
    response, body = read(build_answer(NOT_HTTP, "req-1", "HEAD"), "HEAD")
    assert (response.status, body) == (400, b"")
    assert int(response.getheader("Content-Length", "0")) > 0
    assert build_answer(NOT_HTTP, "req-1", "HEAD").endswith(b"\r\n\r\n")
