# SPDX-License-Identifier: Apache-2.0
"""Answers a browser's request: a page, the reason of a refusal, or the upgrade to a console.

Each function takes a parsed request and returns an answer; none touches a socket. :func:`find_quick_answer` runs in the
event loop; :func:`answer_page` in a thread for pages; :func:`answer_console` in a thread for consoles, since the access
decision asks other daemons. Called by :mod:`porthole_novncproxy.server`.
"""

import logging
import math
import re
from http import HTTPStatus

from porthole_common import errors
from porthole_common.context import get_current
from porthole_common.deadline import Deadline
from porthole_common.log import get_logger
from porthole_novncproxy.admission import access
from porthole_novncproxy.admission.gate import Gate, count_refusal
from porthole_novncproxy.doors import Door
from porthole_novncproxy.front.pages import HEALTHCHECK, Pages
from porthole_novncproxy.front.request import Request
from porthole_novncproxy.front.responses import (
    Answer,
    Response,
    Upgrade,
    build_bare,
    build_error,
    build_reason,
)
from porthole_novncproxy.front.upgrade import accept_handshake, build_refusal, check_handshake

LOG = get_logger(__name__)
_METHODS = ("GET", "HEAD")
# A page's name. Some clients put the whole query, encoded, into the path, and people paste tokens anywhere.
_LOGGABLE_PATH = re.compile(r"(?!.*(?:token|[0-9a-f]{8}-))[\w./-]*", re.ASCII | re.IGNORECASE)
_MAX_LOGGABLE_CHARS = 200


def is_console_work(request: Request) -> bool:
    """Whether the access decision has to be made for ``request``: for an upgrade, or for the reason of a refusal."""
    return request.is_upgrade or request.asks_for_reason


def find_quick_answer(request: Request, pages: Pages) -> Response | None:
    """Return the answer to a request that needs no thread; None for every other request."""
    if request.method == "OPTIONS" and request.path == HEALTHCHECK and not request.has_body:
        # haproxy asks so ("option httpchk /healthcheck"), and the api answers it too.
        return pages.healthcheck
    if request.method not in _METHODS:
        return build_error(HTTPStatus.NOT_IMPLEMENTED, f"Of HTTP's methods this port has {' and '.join(_METHODS)}.")
    if request.is_upgrade:
        return None
    if request.has_body:
        # A body would be read as the next request, and a reverse proxy in front may see another one there.
        return build_error(HTTPStatus.BAD_REQUEST, f"A {request.method} has no body here.")
    return pages.healthcheck if request.path == HEALTHCHECK else None


def refuse_source(request: Request, door: Door, source: str, gate: Gate, request_id: str) -> Response | None:
    """Return the refusal of a client that must wait, since its tokens were not valid too often; None for every other.

    In the event loop: such a client gets no thread. ``source``: the peer's address.
    """
    client = find_source(request, source, gate) if door.is_for_browsers else source
    try:
        gate.check_source(client, access.parse_token(request.target, request.get_all("cookie")))
    except errors.TokensRefused as exc:
        status, reason = access.refusal_for(exc)
        LOG.debug("Console refused", console_type=door.type_names, client=client, status=status, reason=exc)
        retry_after = ("Retry-After", str(math.ceil(exc.wait_s)))
        if request.asks_for_reason:
            return build_reason(status, reason, request_id, retry_after)
        count_refusal(exc, status, door)
        return build_bare(status, retry_after)
    return None


def answer_page(request: Request, pages: Pages) -> Response:
    """Return a page."""
    return pages.respond(request.target, request.get("if-modified-since"))


def answer_console(request: Request, door: Door, source: str, gate: Gate, deadline: Deadline) -> Answer:
    """Return the upgrade to a console, the refusal, or the reason of a refusal. ``source``: the peer's IP address."""
    if request.is_upgrade:
        return _answer_upgrade(request, door, source, gate, deadline)
    return _answer_reason(request, door, source, gate, deadline)


def find_source(request: Request, source: str, gate: Gate) -> str:
    """Return the address of the client itself, for the log; ``source`` is the peer's."""
    return gate.find_source(source, request.get_all("x-forwarded-for"))


def log_answer(request: Request, source: str, gate: Gate, status: HTTPStatus) -> None:
    """Log method, path without query, and status; of a path that may hold a token, nothing.

    This runs in the event loop, for every answer: without DEBUG it does nothing.
    """
    if not LOG.isEnabledFor(logging.DEBUG):
        return
    path = request.path
    if len(path) > _MAX_LOGGABLE_CHARS or not _LOGGABLE_PATH.fullmatch(path):
        path = "***"
    method = request.method if request.method in _METHODS else None
    LOG.debug("Answered", client=find_source(request, source, gate), method=method, path=path, status=status)


def _build_console_request(request: Request, door: Door, source: str) -> access.ConsoleRequest:
    """Return what the access decision needs to know of ``request``."""
    return access.ConsoleRequest(
        door=door,
        token=access.parse_token(request.target, request.get_all("cookie")),
        source=source,
        origins=request.get_all("origin"),
        hosts=request.hosts,
        forwarded_proto=request.get_all("x-forwarded-proto"),
        forwarded_for=request.get_all("x-forwarded-for"),
        user_agent=request.get("user-agent"),
    )


def _answer_upgrade(request: Request, door: Door, source: str, gate: Gate, deadline: Deadline) -> Answer:
    try:
        check_handshake(request)
        # First, so that a fault in it leaves no connection to a VNC server open.
        accepted = accept_handshake(request)
        admission = gate.admit(_build_console_request(request, door, source), deadline)
    except errors.PortholeError as exc:
        status = gate.log_refusal(exc, door, find_source(request, source, gate))
        return build_refusal(exc, status, get_current().request_id)
    return Upgrade(accepted, admission)


def _answer_reason(request: Request, door: Door, source: str, gate: Gate, deadline: Deadline) -> Response:
    """Return how an upgrade would be answered, in words. Nothing stays open, and the token is not used up."""
    try:
        gate.admit(_build_console_request(request, door, source), deadline, is_trial=True).close()
    except errors.PortholeError as exc:
        status, reason = access.refusal_for(exc)
    else:
        status, reason = HTTPStatus.OK, "The console can be opened."
    current = get_current()
    LOG.info(
        "Console reason told",
        instance=current.resource_uuid,
        client=find_source(request, source, gate),
        status=status,
        reason=reason,
    )
    return build_reason(status, reason, current.request_id)
