# SPDX-License-Identifier: Apache-2.0
"""Authentication: the port that every ``[api] auth_strategy`` implements.

Why a port: a strategy turns a request into a :class:`RequestContext` or refuses it, and no other code knows which
strategy it was. Implemented by :mod:`porthole_api.noauth`, :mod:`porthole_api.http_basic` and
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
        """Return the user who sent the request.

        :raises HTTPUnauthorized: when the user is not proven; WWW-Authenticate says how to prove it.
        :raises HTTPForbidden: when requests from that address are not allowed.
        :raises HTTPTooManyRequests: when that address, or the user, had too many wrong passwords checked.
        :raises IdentityUnavailable: when Keystone, or the file of users, does not answer.
        """


def build_context(environ: dict[str, Any], **credentials: Any) -> RequestContext:
    """Return a context with the ids of the request; log lines of this thread use it from now on."""
    return RequestContext(
        request_id=environ.get(REQUEST_ID), global_request_id=environ.get(GLOBAL_REQUEST_ID), **credentials
    )
