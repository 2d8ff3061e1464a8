# SPDX-License-Identifier: Apache-2.0
"""The URL table: paths, variables, methods, versions, and what is not there."""

import pytest
import webob
from webob import exc

from porthole_api.microversions import Version
from porthole_api.request import MICROVERSION, ROUTE, Request
from porthole_api.routes import Route, UrlTable
from support.cases import naming


def answer(_request: Request) -> webob.Response:
    return webob.Response()


THINGS = Route("GET", "/things", answer)
SPECIAL = Route("GET", "/things/special", answer)
THING = Route("GET", "/things/{id}", answer)
ACT = Route("POST", "/things/{id}/act.now", answer)
LATE = Route("POST", "/things/{id}", answer, since=(2, 6))
TABLE = UrlTable([THINGS, SPECIAL, THING, ACT, LATE])


def build(method: str, path: str, version: Version = (2, 1)) -> Request:
    request = Request.blank("/", method=method)
    request.environ |= {"PATH_INFO": path, MICROVERSION: version}
    return request


def test_a_route_is_found_and_noted() -> None:
    cases = [
        ("GET", "/things", THINGS, {}),
        ("HEAD", "/things", THINGS, {}),
        ("GET", "/things/special", SPECIAL, {}),
        ("GET", "/things/a b", THING, {"id": "a b"}),
        ("POST", "/things/x/act.now", ACT, {"id": "x"}),
    ]
    for method, path, route, arguments in cases:
        with naming(method, path):
            request = build(method, path)
            assert TABLE.match(request) is route
            assert request.environ[ROUTE] is route
            assert request.url_arguments == arguments


def test_another_path_is_not_found() -> None:
    cases = ["", "/", "/thing", "/things/", "//things", "/things/x/", "/things/x/act-now", "/things/x/y/act.now", "/T"]
    for path in cases:
        with naming(path), pytest.raises(exc.HTTPNotFound):
            TABLE.match(build("GET", path))


def test_a_route_is_there_from_its_microversion_on() -> None:
    assert TABLE.match(build("POST", "/things/x", (2, 6))) is LATE
    with pytest.raises(exc.HTTPMethodNotAllowed):
        TABLE.match(build("POST", "/things/x", (2, 5)))


def test_a_wrong_method_is_told_the_right_ones() -> None:
    cases = [
        ("POST", "/things", (2, 1), "GET, HEAD"),
        ("DELETE", "/things/x", (2, 6), "GET, HEAD, POST"),
        ("DELETE", "/things/x", (2, 5), "GET, HEAD"),
        ("GET", "/things/x/act.now", (2, 1), "POST"),
        ("get", "/things", (2, 1), "GET, HEAD"),
    ]
    for method, path, version, allow in cases:
        with naming(method, path, version, allow):
            with pytest.raises(exc.HTTPMethodNotAllowed) as caught:
                TABLE.match(build(method, path, version))
            assert caught.value.headers["Allow"] == allow


def test_a_route_that_is_too_young_and_alone_on_its_path_is_not_found() -> None:
    with pytest.raises(exc.HTTPNotFound):
        UrlTable([LATE]).match(build("POST", "/things/x", (2, 5)))
