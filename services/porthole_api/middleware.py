# SPDX-License-Identifier: Apache-2.0
"""What every request passes: the microversion, the log line, and the place where errors end.

Why: handlers raise and return, and know nothing of headers that every answer carries. Called by
:mod:`porthole_api.app`.
"""

import logging
import time
from collections.abc import Iterable
from typing import Any

import webob
from oslo_context import context as oslo_context

from porthole_api import request as request_keys
from porthole_api.auth import WsgiApplication, build_context
from porthole_api.faults import map_error
from porthole_api.microversions import MIN_VERSION, build_headers, parse_version
from porthole_api.request import Request
from porthole_common import errors
from porthole_common.model import is_uuid

LOG = logging.getLogger(__name__)
_VERSIONED = "/v2.1"


class Frame:
    """Frames the application: whatever happens inside, one answer with all headers and one log line come out."""

    def __init__(self, application: WsgiApplication) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer the request; raises nothing."""
        request = Request(environ)
        started_at_s = time.monotonic()
        build_context(environ)
        try:
            response = self._answer(request)
            LOG.info("%s: %d in %.3f s", _describe(request), response.status_int, time.monotonic() - started_at_s)
        finally:
            _forget_context()
        answer: Iterable[bytes] = response(environ, start_response)
        return answer

    def _answer(self, request: Request) -> webob.Response:
        path = request.environ.get("PATH_INFO", "")
        is_versioned = path == _VERSIONED or path.startswith(f"{_VERSIONED}/")
        version = MIN_VERSION
        try:
            if is_versioned:
                version = parse_version(request.headers)
            request.environ[request_keys.MICROVERSION] = version
            response: webob.Response = request.get_response(self._application)
        except Exception as error:  # noqa: BLE001 - the top of the request: mapped, and logged when unexpected
            response = map_error(error)
        if is_versioned:
            response.headers.update(build_headers(version))
        return response


def run_handler(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Run the handler of the route that was found, once it is known who asks.

    :raises RequestInvalid: when the URL names another project than the user's.
    """
    request = Request(environ)
    project_id = request.url_arguments.get("project_id")
    if project_id is not None and not request.context.is_admin and project_id != request.context.project_id:
        raise errors.RequestInvalid("Malformed request URL: its project_id is not that of the user.")
    response = environ[request_keys.ROUTE].handler(request)
    answer: Iterable[bytes] = response(environ, start_response)
    return answer


def _describe(request: Request) -> str:
    """Return the request for the log: the route rather than the path, which could hold a secret, and the id."""
    route = request.environ.get(request_keys.ROUTE)
    if route is None:
        return f"{request.method} of no route"
    server_id = request.url_arguments.get("id", "")
    return f"{request.method} {route.path}" + (f" {server_id}" if is_uuid(server_id.lower()) else "")


def _forget_context() -> None:
    """Take the request's context off this thread, which serves somebody else next.

    oslo.context has no call for it; its own test fixture does the same.
    """
    store = oslo_context._request_store
    if hasattr(store, "context"):
        del store.context
