# SPDX-License-Identifier: Apache-2.0
"""The URL that a user opens: the proxy's base URL with the token in its query.

Why: the operator's base URL may have a query of its own, and noVNC reads ``path`` in only one way. Pure; called
by :mod:`porthole_compute.endpoint`.
"""

from typing import assert_never
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from porthole_common.model import ConsoleType


def build_access_url(console_type: ConsoleType, token: str, *, novnc_base_url: str, xvpvnc_base_url: str) -> str:
    """Return the URL of a console of ``console_type``."""
    match console_type:
        case ConsoleType.NOVNC:
            return build_novnc_url(novnc_base_url, token)
        case ConsoleType.XVPVNC:
            return build_xvpvnc_url(xvpvnc_base_url, token)
        case _:
            assert_never(console_type)


def build_novnc_url(base_url: str, token: str) -> str:
    """Return ``<base_url>?path=%3Ftoken%3D<token>``, behind whatever query the base URL has.

    noVNC opens its WebSocket at ``path``. A ``path`` in the base URL, for a proxy below a folder, is kept and gets the
    token.
    """
    parts = urlsplit(base_url)
    path = "".join(value for key, value in parse_qsl(parts.query) if key == "path")
    others = [pair for pair in parts.query.split("&") if pair and pair.partition("=")[0] != "path"]
    socket_path = f"{path}{'&' if '?' in path else '?'}token={token}"
    return urlunsplit(parts._replace(query="&".join([*others, f"path={quote(socket_path, safe='')}"])))


def build_xvpvnc_url(base_url: str, token: str) -> str:
    """Return ``<base_url>?token=<token>``, behind whatever query the base URL has."""
    parts = urlsplit(base_url)
    return urlunsplit(parts._replace(query="&".join(filter(None, [parts.query, f"token={quote(token, safe='')}"]))))
