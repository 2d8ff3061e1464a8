# SPDX-License-Identifier: Apache-2.0
"""Who asks: what every ``[api] auth_strategy`` gives to the application, and nothing of how it does.

Why one slot: a strategy makes a :class:`RequestContext` of a request or refuses it, and no line behind it knows which
one it was. Implemented by :mod:`porthole_api.noauth`, :mod:`porthole_api.http_basic` and
:mod:`porthole_api.keystone`; chosen by :mod:`porthole_api.auth_strategy`.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from porthole_common.context import RequestContext

WsgiApplication = Callable[[dict[str, Any], Any], Iterable[bytes]]

REQUEST_ID = "openstack.request_id"
GLOBAL_REQUEST_ID = "openstack.global_request_id"


class Authenticator(Protocol):
    """One strategy; called from any number of threads."""

    def __call__(self, environ: dict[str, Any]) -> RequestContext:
        """Return who sent the request.

        :raises HTTPUnauthorized: when that is not proven; WWW-Authenticate says how it could be.
        :raises HTTPForbidden: when nobody may ask from there.
        :raises IdentityUnavailable: when what knows the users does not answer.
        """


def build_context(environ: dict[str, Any], **credentials: Any) -> RequestContext:
    """Return a context with the ids of the request, and make it this thread's for the log lines."""
    return RequestContext(
        request_id=environ.get(REQUEST_ID), global_request_id=environ.get(GLOBAL_REQUEST_ID), **credentials
    )
