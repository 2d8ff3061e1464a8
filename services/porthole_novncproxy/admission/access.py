# SPDX-License-Identifier: Apache-2.0
"""The access decision, as pure functions: which token was sent, which Origin may use it, how a refusal is answered.

Why: these rules keep one tenant out of another's screen, so they stand in one place and are tested without a socket.
:mod:`porthole_novncproxy.admission.gate` asks the daemons and dials; this module only decides.
"""

import re
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from porthole_common import errors
from porthole_common.forwarded import find_client, normalize_address, parse_scheme, pick_element
from porthole_common.model import TokenReason, is_uuid
from porthole_novncproxy.doors import Door

# A query of a token has a field or two. The event loop looks for the token, and thousands of fields would take it five
# milliseconds.
MAX_QUERY_FIELDS = 64


@dataclass(frozen=True)
class ConsoleRequest:
    """The facts of a request that decide about its access. ``door``: the port it came to.

    ``token``: as sent, or None. ``origins`` and ``hosts``: every value of those headers, in order.
    ``source``: the peer's IP address in text. ``forwarded_proto`` and ``forwarded_for``: every value of those headers,
    in order, unchecked. ``user_agent``: the name of the client's program, as sent.
    """

    door: Door
    token: str | None
    source: str
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    forwarded_proto: tuple[str, ...] = ()
    forwarded_for: tuple[str, ...] = ()
    user_agent: str | None = None


@dataclass(frozen=True)
class OriginPolicy:
    """The sites whose pages may open a console beside the Host's own, and the reverse proxies that are believed.

    Immutable: no request can ever add to it (S5). ``trusted_proxies`` are as :func:`normalize_address` returns them.
    """

    allowed_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()


# One row for each error a console request can end in; the first class that fits counts.
REFUSALS: tuple[tuple[type[errors.PortholeError], HTTPStatus, str], ...] = (
    (errors.TokenInvalid, HTTPStatus.UNAUTHORIZED, "The link to this console is not valid any more."),
    (errors.OriginRefused, HTTPStatus.FORBIDDEN, "This page may not open a console here."),
    (errors.RequestInvalid, HTTPStatus.BAD_REQUEST, "The request is malformed."),
    (errors.LimitReached, HTTPStatus.TOO_MANY_REQUESTS, "Too many consoles are open."),
    (
        errors.TokensRefused,
        HTTPStatus.TOO_MANY_REQUESTS,
        "Too many links from your address were not valid. Try again in some seconds.",
    ),
    (errors.VncServerTimeout, HTTPStatus.GATEWAY_TIMEOUT, "The screen of the machine did not answer in time."),
    (
        errors.VncServerSilent,
        HTTPStatus.GATEWAY_TIMEOUT,
        "The screen of the machine has not answered lately. It is tried again every few seconds.",
    ),
    (errors.VncServerUnavailable, HTTPStatus.BAD_GATEWAY, "The screen of the machine does not take connections."),
    (
        errors.VncSecurityUnsuitable,
        HTTPStatus.BAD_GATEWAY,
        "The screen of the machine is not protected in the way that this service asks for.",
    ),
    (errors.ProtocolError, HTTPStatus.BAD_GATEWAY, "The VNC server of the machine broke the RFB protocol."),
    (
        errors.DescriptorsExhausted,
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The console service has no room for another console right now.",
    ),
    (errors.NotFound, HTTPStatus.UNAUTHORIZED, "The machine is not where this link points any more."),
    (errors.Conflict, HTTPStatus.UNAUTHORIZED, "The machine is not running any more."),
    (errors.Unavailable, HTTPStatus.SERVICE_UNAVAILABLE, "The console service cannot check this link right now."),
)


def refusal_for(error: errors.PortholeError) -> tuple[HTTPStatus, str]:
    """Return the status before 101, and the reason in words, for ``error``; never anything of its fields.

    503 for an error that the table does not name: no other request of the client would fare better.
    """
    if isinstance(error, errors.TokenInvalid) and error.reason == TokenReason.SPENT:
        return HTTPStatus.UNAUTHORIZED, "This address has been used."
    for kind, status, reason in REFUSALS:
        if isinstance(error, kind):
            return status, reason
    return HTTPStatus.SERVICE_UNAVAILABLE, "The console service met an error."


def name_refusal(error: errors.PortholeError) -> str:
    """Return the reason of a refusal as a metric's label: one of a few, whatever another daemon has sent.

    It is the class of the error, with what tells its cases apart: the reason of a token, the option of a limit, the
    topic of a daemon.
    """
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error.local()).__name__).lower()
    match error:
        case errors.TokenInvalid(reason=reason):
            detail = TokenReason(reason).name.lower() if reason in set(TokenReason) else "other"
        case errors.LimitReached(limit=limit):
            detail = limit.rpartition(" ")[2]
        case errors.RpcUnavailable(topic=topic) | errors.RemoteFailure(topic=topic):
            detail = topic
        case _:
            return name
    return f"{name}_{detail}"


def parse_token(path: str, cookies: Sequence[str]) -> str | None:
    """Return the token of a request, or None when it has none.

    The last ``token=`` of the query counts, as in Nova, if it is one of the last :data:`MAX_QUERY_FIELDS` fields;
    without one, the first ``token`` among the parts of the Cookie headers. Each part is parsed alone, so that a
    malformed one is passed over (C4).
    """
    query = path.partition("?")[2].partition("#")[0]
    fields = "&".join(query.rsplit("&", MAX_QUERY_FIELDS)[-MAX_QUERY_FIELDS:])
    tokens = [value for name, value in urllib.parse.parse_qsl(fields, keep_blank_values=True) if name == "token"]
    if tokens:
        return tokens[-1]
    for part in ";".join(cookies).split(";"):
        name, separator, value = part.strip().partition("=")
        if separator and name == "token":
            return value.strip('"')
    return None


def check_token_syntax(token: str | None) -> str:
    """Return ``token`` when it is a well-formed UUID: nothing else may reach a daemon (S11, S19).

    :raises TokenInvalid: when it is missing or malformed.
    """
    if not token:
        raise errors.TokenInvalid(TokenReason.MISSING)
    if not is_uuid(token):
        raise errors.TokenInvalid(TokenReason.MALFORMED)
    return token


def check_origin(request: ConsoleRequest, allowed_origins: Sequence[str]) -> None:
    """Refuse a browser page of another site (RFC 6455 section 10.2); a request without Origin is no browser's.

    The Origin's host must be the Host the request was sent to, or one of ``allowed_origins``; letter case, a
    trailing dot and IPv6 brackets do not matter. Ports are not compared, as in Nova: a reverse proxy changes
    them. The scheme is checked by :func:`check_origin_scheme` once the access URL is known.

    :raises RequestInvalid: when a browser's request has no Host, or several.
    :raises OriginRefused: when the Origin is blank, ``null``, malformed, sent twice, or of another host.
    """
    if not request.door.is_for_browsers:
        return
    if len(request.hosts) != 1 or not request.hosts[0].strip():
        raise errors.RequestInvalid("The request must have exactly one Host header.")
    if not request.origins:
        return
    _scheme, origin_host = _parse_origin(request.origins)
    host = _parse_host(request.hosts[0])
    if host is None:
        raise errors.RequestInvalid("The Host header is malformed.")
    if origin_host != host and origin_host not in {_normalize(name) for name in allowed_origins}:
        raise errors.OriginRefused("it is of another host")


def check_origin_scheme(request: ConsoleRequest, access_url: str, trusted_proxies: Sequence[str]) -> None:
    """Refuse a page that came over another scheme than the console's URL: a plain page of a TLS console.

    The scheme is that of ``access_url``, or the X-Forwarded-Proto of a trusted proxy by the rule of
    :mod:`porthole_common.forwarded`.

    :raises OriginRefused: when the schemes differ.
    """
    if not request.origins or not request.door.is_for_browsers:
        return
    origin_scheme, _host = _parse_origin(request.origins)
    expected = urllib.parse.urlsplit(access_url).scheme
    client = find_client(normalize_address(request.source), request.forwarded_for, trusted_proxies)
    forwarded = pick_element(request.forwarded_proto, client.proxies)
    if forwarded is not None:
        # A scheme that is neither HTTP's nor WebSocket's is no page's.
        expected = parse_scheme(forwarded) or ""
    if origin_scheme != expected:
        raise errors.OriginRefused("its scheme is not the console's")


def find_source(source: str, forwarded_for: Sequence[str], trusted_proxies: Sequence[str]) -> str:
    """Return the address of the client itself, as it is counted and logged, by :mod:`porthole_common.forwarded`."""
    return find_client(normalize_address(source), forwarded_for, trusted_proxies).address


def _parse_origin(origins: Sequence[str]) -> tuple[str, str]:
    """Return (scheme, normalized host) of the one serialized origin (RFC 6454 section 7)."""
    if len(origins) != 1:
        raise errors.OriginRefused("there are several")
    text = origins[0].strip()
    scheme, separator, rest = text.partition("://")
    if not text or text == "null" or not separator:
        raise errors.OriginRefused("it is blank or opaque")
    host = _parse_host(rest)
    if host is None or scheme.lower() not in ("http", "https"):
        raise errors.OriginRefused("it is malformed")
    return scheme.lower(), host


def _parse_host(text: str) -> str | None:
    """Return the normalized host of ``host[:port]`` (RFC 9110 section 7.2), or None when it is not one."""
    try:
        parts = urllib.parse.urlsplit("//" + text.strip())
        port = parts.port
    except ValueError:
        return None
    if parts.path or parts.query or parts.fragment or parts.username is not None or not parts.hostname:
        return None
    if port is None and parts.netloc.endswith(":"):
        return None
    return _normalize(parts.hostname)


def _normalize(host: str) -> str:
    return host.strip().strip("[]").lower().removesuffix(".")
