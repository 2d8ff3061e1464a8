# SPDX-License-Identifier: Apache-2.0
"""Who asks: the WSGI middleware that puts a RequestContext into the environment, or refuses.

Why one slot: every strategy is a middleware of this shape, chosen by ``[api] auth_strategy``, and no line behind it
knows which. Called by :mod:`porthole_api.app`.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import Any

from oslo_config import cfg
from webob import exc

from porthole_api import request as request_keys
from porthole_common import errors
from porthole_common.context import RequestContext

WsgiApplication = Callable[[dict[str, Any], Any], Iterable[bytes]]

REQUEST_ID = "openstack.request_id"
GLOBAL_REQUEST_ID = "openstack.global_request_id"


def build_context(environ: dict[str, Any], **credentials: Any) -> RequestContext:
    """Return a context with the ids of the request, and make it this thread's for the log lines."""
    return RequestContext(
        request_id=environ.get(REQUEST_ID), global_request_id=environ.get(GLOBAL_REQUEST_ID), **credentials
    )


class NoAuth:
    """Everybody is the administrator: so nobody is let in but from this machine.

    The address is looked at for each request, since under another WSGI server ``[api] bind_host`` is not what is
    listened on. A connection without an address came by a Unix socket.
    """

    def __init__(self, application: WsgiApplication) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Call the application with an administrator's context.

        :raises HTTPForbidden: when the request comes from another machine.
        """
        address = environ.get("REMOTE_ADDR")
        if address and not _is_loopback(address):
            raise exc.HTTPForbidden("Without authentication ([api] auth_strategy = noauth) only this machine may ask.")
        environ[request_keys.CONTEXT] = build_context(
            environ, user_id="admin", project_id="admin", roles=["admin", "member", "reader"], is_admin=True
        )
        return self._application(environ, start_response)


def build_auth(conf: cfg.ConfigOpts) -> Callable[[WsgiApplication], WsgiApplication]:
    """Return the middleware that ``[api] auth_strategy`` names.

    :raises ConfigInvalid: when it is noauth, and ``[api] bind_host`` is not a loopback address.
    """
    # The option has this one choice.
    host = conf.api.bind_host
    if not all(_is_loopback(address) for address in _resolve(host)):
        raise errors.ConfigInvalid(
            "[api] auth_strategy",
            f"noauth makes everybody the administrator, and [api] bind_host {host} is not loopback",
        )
    return NoAuth


def _resolve(host: str) -> list[str]:
    """Return the addresses of ``host``, which is an address or a name.

    :raises ConfigInvalid: when it has none.
    """
    try:
        return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except OSError as error:
        raise errors.ConfigInvalid("[api] bind_host", f"{host} has no address: {error}") from error


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    # ::ffff:127.0.0.1 is how a socket for both families sees 127.0.0.1.
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback
