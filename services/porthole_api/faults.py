# SPDX-License-Identifier: Apache-2.0
"""The one place where an error becomes an HTTP answer, in Nova's shape.

Why: the error tree does not know HTTP, and clients expect Nova's faults: ``{"<fault>": {"code": int, "message": str}}``
with a message for their users. Called by :mod:`porthole_api.middleware`.
"""

import json

import webob
from webob import exc as http

from porthole_common import errors
from porthole_common.log import get_logger

LOG = get_logger(__name__)

# The first match wins: leaves come before their branch.
_STATUSES: tuple[tuple[type[errors.PortholeError], int], ...] = (
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.Unavailable, 503),
    (errors.PolicyForbidden, 403),
    (errors.RateReached, 429),
    (errors.Refused, 400),
)
# Nova's names (compute API guide, "Faults"); any other status is a computeFault.
NAMES = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}
# The headers that RFC 9110 requires on 401 (section 15.5.2) and on 405 (section 15.5.6), and that RFC 6585 has for 429.
_CARRIED_HEADERS = ("WWW-Authenticate", "Allow", "Retry-After")
# Seconds: by then a daemon has restarted, and a connection to the broker is back.
RETRY_AFTER_S = 5
_UNEXPECTED = "An unexpected error prevented the server from fulfilling your request."


def build_fault(status: int, message: str) -> webob.Response:
    """Return the answer with ``status`` and ``message``, which the user sees."""
    name = NAMES.get(status, "computeFault")
    body = json.dumps({name: {"code": status, "message": message}})
    response = webob.Response(status=status, body=body.encode(), content_type="application/json", charset=None)
    if status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def map_error(error: Exception) -> webob.Response:
    """Return the answer to ``error``; an unexpected error is logged with its trace, and its text is not shown."""
    if isinstance(error, errors.PortholeError):
        for kind, status in _STATUSES:
            if isinstance(error, kind):
                response = build_fault(status, str(error))
                if isinstance(error, errors.RateReached):
                    response.headers["Retry-After"] = str(error.wait_s)
                return response
    if isinstance(error, http.HTTPException):
        response = build_fault(error.status_int, error.detail or error.explanation)
        for header in _CARRIED_HEADERS:
            if header in error.headers:
                response.headers[header] = error.headers[header]
        return response
    LOG.error("Request failed", error=type(error).__name__, exc_info=error)
    return build_fault(500, _UNEXPECTED)
