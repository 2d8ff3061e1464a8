# SPDX-License-Identifier: Apache-2.0
"""The table from errors to HTTP: every error of the tree, webob's own, and those that nobody foresaw."""

import dataclasses
import logging

import pytest
from webob import exc

from porthole_api.faults import build_fault, map_error
from porthole_common import errors
from support.cases import naming

UUID = "5a9d4f5e-0000-4000-8000-000000000001"
EXPECTED = {
    errors.InstanceNotFound: (404, "itemNotFound"),
    errors.ConsoleTypeInvalid: (400, "badRequest"),
    errors.ConsoleTypeUnavailable: (400, "badRequest"),
    errors.RequestInvalid: (400, "badRequest"),
    errors.InstanceNotReady: (409, "conflictingRequest"),
    errors.InstanceNotRunning: (409, "conflictingRequest"),
    errors.HypervisorUnavailable: (503, "serviceUnavailable"),
    errors.HostUnavailable: (503, "serviceUnavailable"),
    errors.TokenStoreUnavailable: (503, "serviceUnavailable"),
    errors.RpcUnavailable: (503, "serviceUnavailable"),
    errors.RemoteFailure: (503, "serviceUnavailable"),
}


def test_each_error_has_its_status_and_novas_name() -> None:
    for kind, expected in EXPECTED.items():
        with naming(kind, expected):
            error = kind(*("text" for _ in dataclasses.fields(kind)))
            response = map_error(error)
            status, name = expected
            assert response.status_int == status
            assert response.json == {name: {"code": status, "message": str(error)}}
            assert response.content_type == "application/json"


def test_every_unavailable_says_when_to_try_again() -> None:
    unavailable = [leaf for leaf in errors.Unavailable.__subclasses__() if leaf.__module__ == errors.__name__]
    assert len(unavailable) >= 5
    for kind in unavailable:
        response = map_error(kind(*(1 if field.type is int else "x" for field in dataclasses.fields(kind))))
        assert (response.status_int, int(response.headers["Retry-After"]) > 0) == (503, True)


def test_a_rate_is_429_and_says_when_to_try_again() -> None:
    error = errors.RateReached("[api] x", 7)
    response = map_error(error)
    assert (response.status_int, response.headers["Retry-After"]) == (429, "7")
    assert response.json == {"overLimit": {"code": 429, "message": str(error)}}


def test_weobs_errors_take_novas_shape() -> None:
    cases = [
        (exc.HTTPNotFound(), "itemNotFound"),
        (exc.HTTPForbidden("no"), "forbidden"),
        (exc.HTTPUnauthorized("who"), "unauthorized"),
        (exc.HTTPNotAcceptable("2.999"), "computeFault"),
        (exc.HTTPRequestTimeout("slow"), "computeFault"),
    ]
    for error, name in cases:
        with naming(error, name):
            response = map_error(error)
            assert response.json == {name: {"code": error.code, "message": error.detail or error.explanation}}


def test_a_wrong_method_names_the_right_ones() -> None:
    response = map_error(exc.HTTPMethodNotAllowed("no", headers=[("Allow", "GET, HEAD")]))
    assert (response.status_int, response.headers["Allow"], list(response.json)) == (405, "GET, HEAD", ["badMethod"])


def test_what_nobody_foresaw_is_logged_and_shown_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    cases = [KeyError("secret"), errors.FrameInvalid(1002, "secret"), RecursionError("secret")]
    for error in cases:
        with naming(error):
            caplog.clear()
            with caplog.at_level(logging.ERROR):
                response = map_error(error)
            assert (response.status_int, list(response.json)) == (500, ["computeFault"])
            assert "secret" not in response.text
            assert caplog.records[0].exc_info is not None
            assert caplog.records[0].exc_info[1] is error


def test_a_message_of_any_characters_is_json() -> None:
    message = '\ud800 " \n é'
    assert build_fault(400, message).json["badRequest"]["message"] == message
