# SPDX-License-Identifier: Apache-2.0
"""``[api] auth_strategy = noauth``: every client is the administrator, so only clients on this machine are let in.

Why it exists: a single machine with a hypervisor, as with ``porthole standalone``, needs no users. Chosen by
:mod:`porthole_api.auth_strategy`.
"""

import ipaddress
import socket
import urllib.parse
from typing import Any

from oslo_config import cfg
from webob import exc

from porthole_api.auth import build_context
from porthole_api.proxy_headers import is_forwarded
from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.listening import map_bind_error

ADMIN_ROLES = ("admin", "member", "reader")


class NoAuth:
    """The strategy.

    The client's address is checked for each request, since another WSGI server does not listen on ``[api] bind_host``.
    A connection without an address came over a UNIX socket. The Host is checked too: a foreign site may let its name
    resolve to this machine (DNS rebinding), and a browser would then take the API for a part of that site. A request
    that a proxy passed on is refused, whatever its headers say: they may have replaced the address and the Host.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Prepare.

        :raises ConfigInvalid: when ``[api] bind_host`` is not loopback, and ``allow_noauth_anywhere`` is not set.
        :raises AddressUnavailable: when ``[api] bind_host`` is a name that cannot be resolved.
        """
        self._anywhere = conf.api.allow_noauth_anywhere
        host = self._bind_host = conf.api.bind_host
        if not self._anywhere and not all(_is_loopback(address) for address in _resolve(host)):
            raise errors.ConfigInvalid(
                "[api] auth_strategy",
                f"noauth makes every client the administrator, and [api] bind_host {host} is not loopback "
                "([api] allow_noauth_anywhere allows it all the same)",
            )

    def __call__(self, environ: dict[str, Any]) -> RequestContext:
        """Return the administrator, who has no project, since noauth has no projects.

        :raises HTTPForbidden: when the request comes from another machine.
        """
        if not self._anywhere:
            self._check_source(environ)
        return build_context(environ, user_id="admin", project_id=None, roles=list(ADMIN_ROLES))

    def _check_source(self, environ: dict[str, Any]) -> None:
        """Refuse a request from another machine, or with a Host that is not this machine.

        :raises HTTPForbidden: when the request is refused.
        """
        address, host = environ.get("REMOTE_ADDR"), _host_of(environ)
        if (address and not _is_loopback(address)) or is_forwarded(environ):
            raise exc.HTTPForbidden(
                "Without authentication ([api] auth_strategy = noauth) only clients on this machine are allowed."
            )
        if host is not None and host not in ("localhost", self._bind_host) and not _is_loopback(host):
            raise exc.HTTPForbidden(
                "Without authentication ([api] auth_strategy = noauth) the Host must be this machine."
            )


def _host_of(environ: dict[str, Any]) -> str | None:
    """Return the host of the Host header (RFC 9110 section 7.2) without port and brackets; None without a header."""
    header = environ.get("HTTP_HOST")
    if header is None:
        return None
    try:
        return urllib.parse.urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _resolve(host: str) -> list[str]:
    """Return the addresses of ``host``, which is an address or a name.

    :raises AddressUnavailable: when it has no address, or the resolver does not answer.
    """
    try:
        return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except OSError as error:
        raise map_bind_error("[api] bind_host", f"{host} has no address", error) from error


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    # ::ffff:127.0.0.1 is how a socket for both families sees 127.0.0.1.
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback
