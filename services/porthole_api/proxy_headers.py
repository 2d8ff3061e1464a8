# SPDX-License-Identifier: Apache-2.0
"""Where the client believes the API to be: the headers of the reverse proxies in front, put into the WSGI environment.

Why not oslo.middleware's http_proxy_to_wsgi, whose option ``enable_proxy_headers_parsing`` this is: it takes each
header as it stands, so that two proxies make the host ``a, b``. Here each value is read by the rule of
:mod:`porthole_common.forwarded`, and a malformed one is passed over. Called by :mod:`porthole_api.app`.
"""

from typing import Any

from oslo_config import cfg
from oslo_middleware import http_proxy_to_wsgi

from porthole_common import forwarded

GROUP = "oslo_middleware"
# Present in a request that a proxy passed on; the first ones begin with this.
_FORWARDED_BY = "HTTP_X_FORWARDED"
_ALSO_FORWARDED = frozenset({"HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP"})
# With one of these, Forwarded is not read: a proxy that writes them may pass a client's Forwarded on.
_OLDER_HEADERS = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST")


class ProxyHeaders:
    """Applies the headers when ``[oslo_middleware] enable_proxy_headers_parsing`` is set.

    The peer is believed then, whatever its address, and further proxies when they are in ``[console] trusted_proxies``.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        conf.register_opts(http_proxy_to_wsgi.OPTS, group=GROUP)
        self._conf = conf

    def apply(self, environ: dict[str, Any]) -> None:
        """Put the client's scheme, host, path prefix and address into ``environ``."""
        if not self._conf[GROUP].enable_proxy_headers_parsing:
            return
        peer = _normalize(environ.get("REMOTE_ADDR") or "")
        trusted = {peer, *map(forwarded.normalize_address, self._conf.console.trusted_proxies)}
        if "HTTP_FORWARDED" in environ and not any(name in environ for name in _OLDER_HEADERS):
            elements = forwarded.parse_forwarded(environ["HTTP_FORWARDED"])
            client = forwarded.find_client(peer, [element.get("for", "unknown") for element in elements], trusted)
            outermost = elements[-min(client.proxies, len(elements))] if elements else {}
            proto, host = outermost.get("proto"), outermost.get("host")
        else:
            client = forwarded.find_client(peer, _list_values(environ, "HTTP_X_FORWARDED_FOR"), trusted)
            proto, host = (
                forwarded.pick_element(_list_values(environ, name), client.proxies)
                for name in ("HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST")
            )
        prefix = forwarded.pick_element(_list_values(environ, "HTTP_X_FORWARDED_PREFIX"), client.proxies)
        environ["REMOTE_ADDR"] = client.address
        environ["wsgi.url_scheme"] = forwarded.parse_scheme(proto) or environ["wsgi.url_scheme"]
        if (authority := forwarded.parse_host(host)) is not None:
            environ["HTTP_HOST"] = authority
        environ["SCRIPT_NAME"] = (forwarded.parse_prefix(prefix) or "") + environ.get("SCRIPT_NAME", "")


def is_forwarded(environ: dict[str, Any]) -> bool:
    """Return whether a proxy has passed the request on, or its client says so."""
    return any(name.startswith(_FORWARDED_BY) or name in _ALSO_FORWARDED for name in environ)


def _list_values(environ: dict[str, Any], name: str) -> list[str]:
    return [environ[name]] if name in environ else []


def _normalize(address: str) -> str:
    """Return the address as it is compared; a UNIX socket's peer has none."""
    try:
        return forwarded.normalize_address(address)
    except ValueError:
        return address
