# SPDX-License-Identifier: Apache-2.0
"""``[api] auth_strategy = noauth``: everybody is the administrator, so nobody is let in but from this machine.

Why it exists: one machine with a hypervisor needs no users, and ``porthole standalone`` is that. Chosen by
:mod:`porthole_api.auth_strategy`.
"""

import ipaddress
import socket
import urllib.parse
from typing import Any

from oslo_config import cfg
from webob import exc

from porthole_api.auth import build_context
from porthole_common import errors
from porthole_common.context import RequestContext

ADMIN_ROLES = ("admin", "member", "reader")


class NoAuth:
    """The strategy.

    The address is looked at for each request, since under another WSGI server ``[api] bind_host`` is not what is
    listened on. A connection without an address came by a Unix socket. So is the Host: a page of anybody's, whose name
    was made to resolve to this machine (DNS rebinding), would be a page of the API's own to the browser that shows it.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Prepare.

        :raises ConfigInvalid: when ``[api] bind_host`` is not a loopback address, and nobody said that it need not be.
        """
        self._anywhere = conf.api.allow_noauth_anywhere
        host = self._bind_host = conf.api.bind_host
        if not self._anywhere and not all(_is_loopback(address) for address in _resolve(host)):
            raise errors.ConfigInvalid(
                "[api] auth_strategy",
                f"noauth makes everybody the administrator, and [api] bind_host {host} is not loopback "
                "([api] allow_noauth_anywhere allows it all the same)",
            )

    def __call__(self, environ: dict[str, Any]) -> RequestContext:
        """Return the administrator, who is of no project: there are none.

        :raises HTTPForbidden: when the request comes from another machine.
        """
        if not self._anywhere:
            self._check_source(environ)
        return build_context(environ, user_id="admin", project_id=None, roles=list(ADMIN_ROLES))

    def _check_source(self, environ: dict[str, Any]) -> None:
        """Refuse what does not come from this machine, or not under a name of it.

        :raises HTTPForbidden: when it does not.
        """
        address, host = environ.get("REMOTE_ADDR"), _host_of(environ)
        if (address and not _is_loopback(address)) or "HTTP_X_FORWARDED_FOR" in environ or "HTTP_FORWARDED" in environ:
            raise exc.HTTPForbidden("Without authentication ([api] auth_strategy = noauth) only this machine may ask.")
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
