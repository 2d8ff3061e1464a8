# SPDX-License-Identifier: Apache-2.0
"""What every request passes: the microversion, the log line, and the place where errors end.

Why: handlers raise and return, and know nothing of headers that every answer carries. Called by
:mod:`porthole_api.app`.
"""

import time

import webob

from porthole_api import request as request_keys
from porthole_api.auth import build_context
from porthole_api.faults import map_error
from porthole_api.microversions import MIN_VERSION, build_headers, parse_version
from porthole_api.request import Request
from porthole_api.routes import Handler, Route
from porthole_common import errors
from porthole_common.context import get_current, serving
from porthole_common.log import get_logger

LOG = get_logger(__name__)
_VERSIONED = "/v2.1"
# What a client calls a method may be anything.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Frame:
    """Frames the application: whatever happens inside, one answer with all headers and one log line come out."""

    def __init__(self, application: Handler) -> None:
        self._application = application

    def __call__(self, request: Request) -> webob.Response:
        """Answer the request; raises nothing."""
        started_at_s = time.monotonic()
        with serving(build_context(request.environ)):
            response, error = self._answer(request)
            _log(request, response.status_int, error, time.monotonic() - started_at_s)
        return response

    def _answer(self, request: Request) -> tuple[webob.Response, Exception | None]:
        """Return the answer, and the error that it tells of."""
        path = request.environ.get("PATH_INFO", "")
        is_versioned = path == _VERSIONED or path.startswith(f"{_VERSIONED}/")
        version = MIN_VERSION
        failure: Exception | None = None
        try:
            if is_versioned:
                version = parse_version(request.headers)
            request.environ[request_keys.MICROVERSION] = version
            response = self._application(request)
        except Exception as error:  # noqa: BLE001 - the top of the request: mapped, and logged when unexpected
            response, failure = map_error(error), error
        if is_versioned:
            response.headers.update(build_headers(version))
        return response, failure


def run_handler(request: Request) -> webob.Response:
    """Run the handler of the route that was found, once it is known who asks.

    :raises RequestInvalid: when the URL names another project than the user's.
    """
    project_id = request.url_arguments.get("project_id")
    if project_id is not None and not request.context.is_admin and project_id != request.context.project_id:
        raise errors.RequestInvalid("Malformed request URL: its project_id is not that of the user.")
    route: Route = request.environ[request_keys.ROUTE]
    return route.handler(request)


def _log(request: Request, status: int, error: Exception | None, seconds: float) -> None:
    """Write the request's line: its route rather than its path, and the instance only when there is one.

    What is in a path may be a token. An error's own words are Porthole's where something does not answer or is in a
    state that forbids it; elsewhere they hold what the client sent, and the error's name says enough.
    """
    route = request.environ.get(request_keys.ROUTE)
    LOG.info(
        "Request answered",
        method=request.method if request.method in _METHODS else None,
        route=route.path if route else None,
        instance=get_current().resource_uuid,
        client=request.remote_addr,
        status=status,
        seconds=seconds,
        error=type(error).__name__ if error else None,
        reason=error if isinstance(error, errors.Conflict | errors.Unavailable) else None,
    )
