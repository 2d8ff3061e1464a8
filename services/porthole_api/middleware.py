# SPDX-License-Identifier: Apache-2.0
"""What every request passes: the log line, the microversion, and the mapping of errors to answers.

Why: handlers only return or raise; the headers that every answer carries are added here. Called by
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
from porthole_common import errors, metrics
from porthole_common.context import get_current, serving
from porthole_common.log import get_logger

LOG = get_logger(__name__)
_VERSIONED = "/v2.1"
# The errors whose text quotes no client.
_WORDS_OF_OUR_OWN = errors.Conflict | errors.Unavailable | errors.RateReached
# The methods that may be logged; a client can send any text as a method.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestLog:
    """Logs and measures each request, and turns an error of ``application`` into an answer with all headers."""

    def __init__(self, application: Handler) -> None:
        self._application = application

    def __call__(self, request: Request) -> webob.Response:
        """Answer the request; raises nothing."""
        started_at_s = time.monotonic()
        with serving(build_context(request.environ)):
            response, error = self._answer(request)
            seconds = time.monotonic() - started_at_s
            _log(request, response.status_int, error, seconds)
        method = request.method if request.method in _METHODS else "other"
        metrics.HTTP_REQUEST_SECONDS.labels(method, str(response.status_int)).observe(seconds)
        return response

    def _answer(self, request: Request) -> tuple[webob.Response, Exception | None]:
        """Return the answer, and the error that it reports, or None."""
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
    """Run the handler of the request's route; the user is known by now.

    :raises RequestInvalid: when the URL names another project than the user's.
    """
    project_id = request.url_arguments.get("project_id")
    if project_id is not None and not request.context.is_admin and project_id != request.context.project_id:
        raise errors.RequestInvalid("Malformed request URL: its project_id is not that of the user.")
    route: Route = request.environ[request_keys.ROUTE]
    return route.handler(request)


def _log(request: Request, status: int, error: Exception | None, seconds: float) -> None:
    """Write the log line of the request.

    It has the route and not the path, since a path may hold a token, and the instance only when it is known to exist.
    The text of a Conflict, Unavailable or RateReached is Porthole's own and is logged as reason. The text of another
    error may quote the client, so only the name of the error is logged.
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
        reason=error if isinstance(error, _WORDS_OF_OUR_OWN) else None,
    )
