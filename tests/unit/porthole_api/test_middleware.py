# SPDX-License-Identifier: Apache-2.0
"""The frame around every request: headers, log line, errors, and the thread's context."""

import logging
import re

import pytest
import webob
from oslo_context import context as oslo_context

from porthole_api.middleware import RequestLog, run_handler
from porthole_api.request import CONTEXT, MICROVERSION, ROUTE, URL_ARGUMENTS, Request, build_json
from porthole_api.routes import Handler, Route
from porthole_common import errors
from porthole_common.context import RequestContext
from support.cases import naming
from support.scrapes import Growth

VERSION_HEADERS = {"OpenStack-API-Version", "X-OpenStack-Nova-API-Version", "Vary"}
UUID = "5a9d4f5e-0000-4000-8000-000000000001"


def send(application: Handler, path: str = "/v2.1/servers", **headers: str) -> webob.Response:
    request = Request.blank(path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    request.environ["openstack.request_id"] = "req-of-this-test"
    return RequestLog(application)(request)


def fail_with(error: BaseException) -> Handler:
    def application(_request: Request) -> webob.Response:
        raise error

    return application


def test_the_microversion_is_noted_and_answered() -> None:
    seen: list[object] = []

    def application(request: Request) -> webob.Response:
        seen.append(request.environ[MICROVERSION])
        return build_json({})

    response = send(application, OpenStack_API_Version="compute 2.6")
    assert seen == [(2, 6)]
    assert response.headers["OpenStack-API-Version"] == "compute 2.6"
    assert response.headers["X-OpenStack-Nova-API-Version"] == "2.6"


def test_faults_carry_the_headers_too() -> None:
    for error in [errors.InstanceNotFound(UUID), KeyError("x")]:
        with naming(error):
            response = send(fail_with(error), OpenStack_API_Version="compute 2.6")
            assert set(response.headers) >= VERSION_HEADERS
            assert response.headers["OpenStack-API-Version"] == "compute 2.6"


def test_a_version_that_is_refused_is_answered_in_the_oldest() -> None:
    for version, status in [("compute x", 400), ("compute 2.999", 406)]:
        with naming(version, status):
            response = send(fail_with(AssertionError("not to be called")), OpenStack_API_Version=version)
            assert (response.status_int, response.headers["OpenStack-API-Version"]) == (status, "compute 2.1")


def test_outside_the_versioned_api_there_is_no_microversion() -> None:
    for path in ["/", "/other", "/v2.10/servers"]:
        with naming(path):
            response = send(lambda _request: build_json({}), path, OpenStack_API_Version="compute x")
            assert response.status_int == 200
            assert not VERSION_HEADERS & set(response.headers)


def test_the_threads_context_is_the_requests_and_is_gone_afterwards() -> None:
    seen: list[str] = []

    def application(_request: Request) -> webob.Response:
        seen.append(oslo_context.get_current().request_id)
        return build_json({})

    send(application)
    assert seen == ["req-of-this-test"]
    assert oslo_context.get_current() is None
    send(fail_with(KeyError("x")))
    assert oslo_context.get_current() is None


def test_the_log_names_the_route_and_never_the_path(caplog: pytest.LogCaptureFixture) -> None:
    route = Route("GET", "/v2.1/secrets/{secret}/of/{id}", lambda _request: build_json({}))

    def application(request: Request) -> webob.Response:
        request.environ |= {ROUTE: route, URL_ARGUMENTS: {"secret": "s3cret", "id": UUID}}
        return route.handler(request)

    with caplog.at_level(logging.INFO):
        send(application, "/v2.1/secrets/s3cret/of/x?token=s3cret")
        send(fail_with(errors.InstanceNotFound("x")), "/v2.1/s3cret?token=s3cret")
    assert "Request answered method=GET route=/v2.1/secrets/{secret}/of/{id} status=200 seconds=" in caplog.text
    assert re.search(r"Request answered method=GET status=404 seconds=\S+ error=InstanceNotFound\n", caplog.text)
    assert "s3cret" not in caplog.text


def test_a_url_of_another_project_is_for_administrators() -> None:
    cases = [(None, False, True), ("red", False, True), ("blue", False, False), ("blue", True, True)]
    for project_id, is_admin, is_let in cases:
        with naming(project_id, is_admin, is_let):
            request = Request.blank("/")
            request.environ |= {
                CONTEXT: RequestContext(project_id="red", is_admin=is_admin, overwrite=False),
                URL_ARGUMENTS: {"project_id": project_id} if project_id else {},
                ROUTE: Route("GET", "/", lambda _request: build_json({"in": True})),
            }
            if is_let:
                assert run_handler(request).json == {"in": True}
            else:
                with pytest.raises(errors.RequestInvalid, match="project_id"):
                    run_handler(request)


def test_the_log_says_why_and_never_in_the_clients_words(caplog: pytest.LogCaptureFixture) -> None:
    """A path or a body may hold a token, which has the form of a UUID."""
    cases = [
        (errors.InstanceNotFound(UUID), 404, "error=InstanceNotFound"),
        (errors.RequestInvalid(f"not {UUID}"), 400, "error=RequestInvalid"),
        (errors.HostUnavailable("node1"), 503, 'error=HostUnavailable reason="Host node1 does not answer."'),
    ]
    for error, status, words in cases:
        with naming(error, status, words):
            caplog.clear()
            with caplog.at_level(logging.INFO):
                send(fail_with(error), f"/v2.1/servers/{UUID}")
            (line,) = caplog.messages
            assert f" status={status} " in line
            assert line.endswith(words)
            assert UUID not in line


def test_the_log_names_the_instance_once_it_is_known(caplog: pytest.LogCaptureFixture) -> None:
    def application(_request: Request) -> webob.Response:
        RequestContext().resource_uuid = UUID
        return build_json({})

    with caplog.at_level(logging.INFO):
        send(application)
    assert f" instance={UUID} status=200 " in caplog.text


def test_a_made_up_method_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        RequestLog(fail_with(errors.InstanceNotFound("x")))(Request.blank("/", method="S3CRET"))
    assert "S3CRET" not in caplog.text


def test_a_request_is_measured_by_method_and_status() -> None:
    for method, label in (("GET", "GET"), ("BREW", "other")):
        with naming(method):
            requests = Growth("porthole_http_request_seconds_count", method=label, status="404")
            request = Request.blank("/v2.1/servers", method=method)
            RequestLog(fail_with(errors.InstanceNotFound(UUID)))(request)
            assert requests.grown == 1
